"""Declarations to registry snapshots: numbers, changes and history."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.declaration import (
    Catalog,
    Daily,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    Hourly,
    Online,
    Source,
    Static,
    TimeWindow,
    feature_group,
)
from featurestore.errors import DeclarationError, IncompatibleChange, InvalidInput, UnknownName
from featurestore.location import Location
from featurestore.registry.compile import FIRST_NUMBER, LAST_NUMBER, compile_snapshot
from featurestore.registry.diff import changes, refuse_incompatible
from featurestore.registry.history import RegistryHistory
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot
from tests.scale import cases

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIMESTAMP = pl.Datetime("us", "UTC")
CARRIER = Entity("carrier")
DEPARTURES = Source(
    name="departures",
    schema={"flight": pl.String, "carrier": pl.String, "at": TIMESTAMP, "delay": pl.Float64},
    keys=("flight",),
    event_time="at",
    known_at="at",
)


def number(name: str, dtype: Any = pl.Float64, **more: Any) -> Feature:
    return Feature(name, dtype, f"The {name}", **more)


def daily(*features: Feature | str, name: str = "carrier_delay_daily", **more: Any) -> FeatureGroup:
    """A daily group of these features; `more` overrides any part of its declaration."""
    declared = [number(f) if isinstance(f, str) else f for f in features]
    entity = more.pop("entity", CARRIER)
    is_static = isinstance(more.get("cadence"), Static)

    def transform(departures: pl.LazyFrame) -> pl.LazyFrame:
        keys = [pl.lit(None, dtype).alias(key) for key, dtype in entity.keys.items()]
        times = [pl.lit(None, TIMESTAMP).alias("event_time")] if more.get("emits") == "events" else []
        return departures.select(*keys, *times, *(pl.lit(None, f.dtype).alias(f.name) for f in declared))

    def windowed(window: TimeWindow, departures: pl.LazyFrame) -> pl.LazyFrame:
        return transform(departures)

    function = transform if is_static else windowed
    function.__name__, function.__doc__ = name, more.pop("description", "Departure delay of each carrier.")
    defaults: dict[str, Any] = {"cadence": Daily(date(2025, 1, 1)), "owner": "team:ops", "entity": entity}
    if not is_static:
        defaults |= {"lookback": timedelta(days=7), "delay": timedelta(hours=2)}
    return feature_group(features=declared, **{**defaults, **more})(function)


def catalog(*groups: FeatureGroup, services: Sequence[FeatureService] = ()) -> Catalog:
    return Catalog(sources=[DEPARTURES], groups=groups, services=services)


def compiled(*groups: FeatureGroup, previous: RegistrySnapshot | None = None) -> RegistrySnapshot:
    return compile_snapshot(catalog(*groups), previous)


def numbers(group: RegisteredGroup) -> dict[str, tuple[int, int]]:
    return {feature.name: (feature.number, feature.since) for feature in group.features}


def lines(previous: RegistrySnapshot | None, current: RegistrySnapshot) -> list[str]:
    return [str(change) for change in changes(previous, current)]


# numbers


def test_first_snapshot_numbers_features_from_32_in_declared_order() -> None:
    group = compiled(daily("b", "a")).group("carrier_delay_daily")
    assert numbers(group) == {"b": (32, 1), "a": (33, 1)}
    assert (group.schema_number, group.retired_numbers) == (1, ())


def test_every_part_of_a_declaration_is_registered() -> None:
    rated = number("mean", unit="min", ge=-60, le=1800, max_null_fraction=0.05)
    group = daily(
        rated,
        number("codes", pl.List(pl.Int64), max_length=5),
        entity=Entity("route", {"origin": pl.String, "leg": pl.Int32}),
        freshness=timedelta(hours=24),
        max_age=timedelta(days=3),
        online=Online(ttl=timedelta(days=5)),
        min_coverage=0.5,
        version=2,
    )
    registered = compiled(group).group("carrier_delay_daily@v2")
    hour = 3_600_000_000
    assert registered.name == "carrier_delay_daily_v2"
    assert (registered.kind, registered.cadence, registered.start) == ("windowed", "daily", "2025-01-01T00:00:00+00:00")
    assert (registered.entity, registered.keys) == ("route", (("origin", "string"), ("leg", "int32")))
    assert (registered.delay_us, registered.publish_us, registered.lookback_us) == (2 * hour, hour // 4, 168 * hour)
    assert (registered.freshness_us, registered.max_age, registered.ttl) == (
        24 * hour,
        timedelta(days=3),
        timedelta(days=5),
    )
    assert (registered.is_online, registered.min_coverage, registered.inputs) == (True, 0.5, ("departures",))
    mean, codes = registered.features
    assert (mean.unit, mean.ge, mean.le, mean.max_null_fraction) == ("min", -60.0, 1800.0, 0.05)
    assert (codes.dtype, codes.max_length) == (pl.List(pl.Int64), 5)


def test_static_and_event_groups_are_registered_as_such() -> None:
    static = daily("seats", name="plane", cadence=Static(datetime(2013, 1, 1, tzinfo=UTC)))
    events = daily("last", name="flight", cadence=Hourly(date(2025, 1, 1)), emits="events", freshness=timedelta(days=1))
    snapshot = compiled(static, events)
    assert (snapshot.group("plane").kind, snapshot.group("plane").start) == ("static", "2013-01-01T00:00:00+00:00")
    assert (snapshot.group("flight").kind, snapshot.group("flight").cadence) == ("events", "hourly")


def test_unchanged_catalogue_compiles_to_the_same_digest() -> None:
    first = compiled(daily("a", "b"))
    assert compiled(daily("a", "b"), previous=first).digest == first.digest


def test_reordered_features_change_nothing() -> None:
    first = compiled(daily("a", "b", "c"))
    assert compiled(daily("c", "a", "b"), previous=first) == first


def test_added_feature_gets_the_next_number_and_schema() -> None:
    second = compiled(daily("new", "a"), previous=compiled(daily("a")))
    assert numbers(second.group("carrier_delay_daily")) == {"a": (32, 1), "new": (33, 2)}
    assert second.group("carrier_delay_daily").schema_number == 2


def test_removed_feature_leaves_its_number_and_column_behind() -> None:
    second = compiled(daily("a"), previous=compiled(daily("a", "b"))).group("carrier_delay_daily")
    assert (second.schema_number, second.retired_numbers, second.retired_columns) == (2, (33,), (("b", "float64"),))


def test_feature_that_returns_is_a_new_one() -> None:
    first = compiled(daily("a", "b"))
    third = compiled(daily("a", "b"), previous=compiled(daily("a"), previous=first)).group("carrier_delay_daily")
    assert numbers(third) == {"a": (32, 1), "b": (34, 3)}
    assert (third.retired_numbers, third.retired_columns) == ((33,), ())


def test_group_that_returns_goes_on_counting() -> None:
    first = compiled(daily("a"), daily("x", name="other"))
    away = compiled(daily("x", name="other"), previous=first)
    assert list(away.groups) == ["other"]
    back = compiled(daily("b", "a"), daily("x", name="other"), previous=away)
    assert numbers(back.group("carrier_delay_daily")) == {"a": (32, 1), "b": (33, 2)}
    assert back.retired == {}


def test_group_that_stays_away_is_remembered_as_it_was() -> None:
    first = compiled(daily("a"), daily("x", name="other"))
    away = compiled(daily("x", name="other"), previous=first)
    later = compiled(daily("x", "y", name="other"), previous=away)
    assert later.retired == {"carrier_delay_daily": first.group("carrier_delay_daily")}
    with pytest.raises(UnknownName):
        later.group("carrier_delay_daily")


def test_used_up_numbers_ask_for_a_new_version() -> None:
    first = compiled(daily("a"))
    group = first.group("carrier_delay_daily")
    worn = replace(first, groups={group.name: replace(group, retired_numbers=(LAST_NUMBER,))})
    assert compiled(daily("a"), previous=worn)
    with pytest.raises(IncompatibleChange, match=r"0 field numbers are left.*Declare version=2"):
        compiled(daily("a", "b"), previous=worn)


def test_group_wider_than_its_numbers_is_refused() -> None:
    room = LAST_NUMBER + 1 - FIRST_NUMBER
    wide = [f"f{i}" for i in range(room + 1)]
    assert compiled(daily(*wide[:-1])).group("carrier_delay_daily").features[-1].number == LAST_NUMBER
    with pytest.raises(DeclarationError, match=f"declares {room + 1} features; a group holds {room}"):
        compiled(daily(*wide))


NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)
DECLARED = st.dictionaries(st.sampled_from(["one", "two", "three"]), NAMES, max_size=3)


@settings(max_examples=cases(5000, 100), deadline=None)
@given(st.lists(DECLARED, min_size=1, max_size=8))
def test_numbers_are_never_used_twice_whatever_comes_and_goes(history: list[dict[str, list[str]]]) -> None:
    """The oracle: who first held a number keeps it, and a feature's number changes only if it was away."""
    holders: dict[tuple[str, int], tuple[str, int]] = {}
    last: dict[str, RegisteredGroup] = {}
    snapshot: RegistrySnapshot | None = None
    for declared in history:
        before = snapshot
        snapshot = compiled(*(daily(*features, name=name) for name, features in declared.items()), previous=before)
        assert RegistrySnapshot.from_json(snapshot.to_json()) == snapshot
        refuse_incompatible(changes(before, snapshot))
        assert (not changes(before, snapshot)) == (before is not None and snapshot.digest == before.digest)
        for name, features in declared.items():
            group, known = snapshot.group(name), last.get(name)
            assert set(group.feature_names) == set(features)
            for feature in group.features:
                assert FIRST_NUMBER <= feature.number <= LAST_NUMBER
                holder = (feature.name, feature.since)
                assert holders.setdefault((name, feature.number), holder) == holder
            assert group.schema_number == expected_schema_number(known, features)
            last[name] = group
    for name, group in last.items():
        used = {number for holder, number in holders if holder == name}
        assert used == {f.number for f in group.features} | set(group.retired_numbers)


def expected_schema_number(known: RegisteredGroup | None, features: list[str]) -> int:
    if known is None:
        return 1
    return known.schema_number + (set(features) != set(known.feature_names))


@settings(max_examples=cases(3000, 60), deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=8))
def test_features_of_a_row_are_known_from_its_schema_number(history: list[list[str]]) -> None:
    """The oracle: a value stored under schema n belongs to today's feature if the name stayed declared ever since."""
    snapshot: RegistrySnapshot | None = None
    schemas: dict[int, list[str]] = {}
    for features in history:
        snapshot = compiled(daily(*features), previous=snapshot)
        schemas[snapshot.group("carrier_delay_daily").schema_number] = features
    assert snapshot is not None
    group = snapshot.group("carrier_delay_daily")
    for written in schemas:
        alive = {f.name for f in group.features if f.since <= written}
        since = [set(features) for n, features in schemas.items() if n >= written]
        assert alive == set.intersection(*since)


# the JSON form


def test_digest_is_the_same_in_every_process() -> None:
    program = (
        "from tests.unit.test_registry import *\n"
        "first = compiled(daily('a', 'b'), daily('x', name='other'))\n"
        "print(compiled(daily('c', 'a'), previous=first).digest)"
    )
    root = Path(__file__).parents[2]
    digests = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", program]
        digests.add(subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True).stdout)
    assert len(digests) == 1


def test_whole_and_decimal_bounds_give_one_digest() -> None:
    whole, decimal = daily(number("a", ge=0, le=1)), daily(number("a", ge=0.0, le=1.0))
    assert compiled(whole).digest == compiled(decimal).digest


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", '{"format": 2}'])
def test_text_that_is_no_snapshot_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        RegistrySnapshot.from_json(text)


# changes


def test_first_apply_lists_groups_and_services() -> None:
    group = daily("a", "b")
    service = FeatureService("model_v1", [group], owner="team:ml")
    snapshot = compile_snapshot(catalog(group, services=[service]), None)
    assert lines(None, snapshot) == [
        "+ group carrier_delay_daily (windowed, daily, features ['a', 'b'])",
        "+ service model_v1 (features ['carrier_delay_daily:a', 'carrier_delay_daily:b'])",
        "+ source departures",
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"owner": "a@b.org"}, "~ owner of carrier_delay_daily team:ops -> a@b.org"),
        ({"lookback": timedelta(days=8)}, "~ lookback of carrier_delay_daily 7 days -> 8 days"),
        ({"freshness": timedelta(hours=30)}, "~ freshness of carrier_delay_daily 1 day -> 30 hours"),
        ({"freshness": timedelta(hours=3, seconds=1)}, "~ freshness of carrier_delay_daily 1 day -> 3:00:01"),
        ({"refresh": timedelta(hours=6)}, "~ refresh of carrier_delay_daily none -> 6 hours"),
        ({"alerts": "page"}, "~ alerts of carrier_delay_daily ticket -> page"),
        ({"min_coverage": 0.9}, "~ min_coverage of carrier_delay_daily none -> 0.9"),
        (
            {"description": "Delays."},
            "~ description of carrier_delay_daily Departure delay of each carrier. -> Delays.",
        ),
        ({"description": "Delays.\n\n    More."}, "~ description of carrier_delay_daily is reworded"),
    ],
)
def test_change_that_rows_can_follow_is_told_in_words(change: dict[str, Any], line: str) -> None:
    found = changes(compiled(daily("a")), compiled(daily("a", **change), previous=compiled(daily("a"))))
    assert [str(c) for c in found] == [line]
    refuse_incompatible(found)


def test_changed_age_says_that_the_online_copy_is_rebuilt() -> None:
    online = Online(ttl=timedelta(days=7))
    first = compiled(daily("a", max_age=timedelta(days=3), online=online))
    second = compiled(daily("a", max_age=timedelta(days=5), online=online), previous=first)
    assert lines(first, second) == ["~ max_age of carrier_delay_daily 3 days -> 5 days (the online copy is rebuilt)"]


def test_features_that_come_and_go_are_told() -> None:
    first = compiled(daily("a", "b"))
    second = compiled(daily("b", number("c", pl.Int64)), previous=first)
    assert lines(first, second) == [
        "- feature carrier_delay_daily:a (its column and its number 32 are kept)",
        "+ feature carrier_delay_daily:c (int64)",
    ]


def test_changed_feature_is_told() -> None:
    first = compiled(daily(number("a", ge=0), number("b", pl.List(pl.Int64), max_length=3)))
    now = [number("a", le=9, unit="min", max_null_fraction=0.5), number("b", pl.List(pl.Int64), max_length=4)]
    found = changes(first, compiled(daily(*now), previous=first))
    assert [str(change) for change in found] == [
        "~ unit of carrier_delay_daily:a none -> min",
        "~ ge of carrier_delay_daily:a 0.0 -> none",
        "~ le of carrier_delay_daily:a none -> 9.0",
        "~ max_null_fraction of carrier_delay_daily:a 1.0 -> 0.5",
        "~ max_length of carrier_delay_daily:b 3 -> 4",
    ]
    refuse_incompatible(found)


def test_groups_and_services_that_go_or_change_are_told() -> None:
    group, other = daily("a", "b"), daily("x", name="other")
    one = FeatureService("one", [group], owner="team:ml")
    two = FeatureService("two", [other], owner="team:ml")
    first = compile_snapshot(catalog(group, other, services=[one, two]), None)
    turned = FeatureService("one", [group["b"], group["a"]], owner="team:x")
    second = compile_snapshot(catalog(group, services=[turned]), first)
    assert lines(first, second) == [
        "- group other (its rows and field numbers are kept)",
        "~ features of service one ['carrier_delay_daily:a', 'carrier_delay_daily:b'] -> "
        "['carrier_delay_daily:b', 'carrier_delay_daily:a']",
        "~ owner of service one team:ml -> team:x",
        "- service two",
    ]
    third = compile_snapshot(catalog(group, other, services=[turned]), second)
    assert lines(second, third) == ["+ group other (returns, windowed, daily, features ['x'])"]


INCOMPATIBLE = [
    ({"features": [number("a", pl.Int64)]}, "~ dtype of carrier_delay_daily:a float64 -> int64"),
    (
        {"cadence": Hourly(date(2025, 1, 1)), "freshness": timedelta(days=1)},
        "~ cadence of carrier_delay_daily daily -> hourly",
    ),
    ({"cadence": Daily(date(2024, 1, 1))}, "2025-01-01T00:00:00+00:00 -> 2024-01-01T00:00:00+00:00"),
    ({"emits": "events"}, "~ kind of carrier_delay_daily windowed -> events"),
    ({"delay": timedelta(hours=3)}, "~ delay of carrier_delay_daily 2 hours -> 3 hours"),
    ({"publish": timedelta(hours=1)}, "~ publish of carrier_delay_daily 15 minutes -> 1 hour"),
    ({"entity": Entity("airline", {"carrier": pl.String})}, "~ entity of carrier_delay_daily carrier -> airline"),
    (
        {"entity": Entity("carrier", {"carrier": pl.Int64})},
        "~ keys of carrier_delay_daily [('carrier', 'string')] -> [('carrier', 'int64')]",
    ),
]


@pytest.mark.parametrize(("change", "line"), INCOMPATIBLE)
def test_change_that_rows_cannot_follow_is_refused_with_the_remedy(change: dict[str, Any], line: str) -> None:
    first = compiled(daily("a"))
    features = change.get("features", ["a"])
    second = compiled(daily(*features, **{k: v for k, v in change.items() if k != "features"}), previous=first)
    with pytest.raises(IncompatibleChange) as caught:
        refuse_incompatible(changes(first, second))
    assert line in str(caught.value)
    assert "declare carrier_delay_daily with version=2" in str(caught.value)
    assert "carrier_delay_daily, declared as it was, lives on beside it" in str(caught.value)


def test_shorter_list_is_refused() -> None:
    def listed(length: int) -> FeatureGroup:
        return daily(number("a", pl.List(pl.Int64), max_length=length))

    first = compiled(listed(5))
    with pytest.raises(IncompatibleChange, match="max_length of carrier_delay_daily:a 5 -> 4"):
        refuse_incompatible(changes(first, compiled(listed(4), previous=first)))


def test_all_refused_changes_are_listed_and_no_others() -> None:
    first = compiled(daily("a", "b"), daily("x", name="other", version=3))
    one = daily(number("a", pl.Int64), number("b", pl.String), owner="team:new", publish=timedelta(hours=1))
    two = daily(number("x", pl.Float32), name="other", version=3)
    with pytest.raises(IncompatibleChange) as caught:
        refuse_incompatible(changes(first, compiled(one, two, previous=first)))
    said = str(caught.value).splitlines()
    assert said[0] == "Rows already stored cannot follow these changes:"
    assert sum(line.startswith("~") for line in said) == 4
    assert not any("owner" in line for line in said)
    assert said[-1].startswith(
        "Undo them, or declare other with version=4: other_v4 is filled by a backfill and other_v3"
    )


def test_raised_version_is_another_group() -> None:
    first = compiled(daily("a"))
    both = compiled(daily("a"), daily(number("a", pl.Int64), version=2), previous=first)
    found = changes(first, both)
    refuse_incompatible(found)
    assert [str(change) for change in found] == ["+ group carrier_delay_daily_v2 (windowed, daily, features ['a'])"]
    assert both.group("carrier_delay_daily") == first.group("carrier_delay_daily")


def test_feature_that_returns_with_another_dtype_is_refused() -> None:
    first = compiled(daily("a", "b"))
    second = compiled(daily("a"), previous=first)
    third = compiled(daily("a", number("b", pl.String)), previous=second)
    with pytest.raises(IncompatibleChange, match="dtype of carrier_delay_daily:b float64 -> string"):
        refuse_incompatible(changes(second, third))


def test_group_that_returns_with_another_dtype_is_refused() -> None:
    away = compiled(previous=compiled(daily("a")))
    with pytest.raises(IncompatibleChange, match="dtype of carrier_delay_daily:a float64 -> string"):
        refuse_incompatible(changes(away, compiled(daily(number("a", pl.String)), previous=away)))


def test_field_number_that_is_used_twice_is_refused() -> None:
    first = compiled(daily("a", "b"))
    second = compiled(daily("a"), previous=first)
    forged = compiled(daily("a", "c"), previous=second)
    group = forged.group("carrier_delay_daily")
    reused = replace(group, features=(group.features[0], replace(group.features[1], number=33)))
    with pytest.raises(IncompatibleChange, match="field number 33 of a removed feature is given to"):
        refuse_incompatible(changes(second, replace(forged, groups={group.name: reused})))


# history


class Ticking:
    """A clock that moves by one second whenever it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> datetime:
        self.reads += 1
        return NOW + timedelta(seconds=self.reads)


def history(folder: Path) -> RegistryHistory:
    return RegistryHistory(Location(str(folder)))


def test_store_without_a_registry_says_how_to_get_one(tmp_path: Path) -> None:
    assert history(tmp_path).current() is None
    assert history(tmp_path).entries() == []
    with pytest.raises(UnknownName, match=r"no registry yet\. Run `featurestore apply`"):
        history(tmp_path).require_current()


def test_apply_stores_the_snapshot_and_who_changed_what(tmp_path: Path) -> None:
    registry = history(tmp_path)
    result = registry.apply(catalog(daily("a")), lambda: NOW, "ada")
    assert result.is_new
    assert registry.require_current() == result.snapshot == registry.at(1)
    (entry,) = registry.entries()
    assert (entry.number, entry.digest, entry.applied_at, entry.applied_by) == (1, result.snapshot.digest, NOW, "ada")
    assert entry.changes == ("+ group carrier_delay_daily (windowed, daily, features ['a'])", "+ source departures")
    assert registry.location.names() == [
        "registry/history/00000001.json",
        f"registry/snapshots/{entry.digest}.json",
    ]


def test_apply_of_the_same_again_writes_nothing(tmp_path: Path) -> None:
    registry = history(tmp_path)
    first = registry.apply(catalog(daily("a")), lambda: NOW, "ada")
    files = registry.location.names()
    again = registry.apply(catalog(daily("a")), lambda: NOW + timedelta(days=1), "bob")
    assert (again.snapshot, again.changes, again.is_new) == (first.snapshot, (), False)
    assert registry.location.names() == files


def test_apply_that_leaves_out_a_group_or_source_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    registry = history(tmp_path)
    registry.apply(catalog(daily("a"), daily("a", name="other")), lambda: NOW, "ada")
    files = registry.location.names()
    with pytest.raises(InvalidInput, match=r"leaves out .*:\n- group other \(its rows and field numbers are kept\)\n"):
        registry.apply(catalog(daily("a")), lambda: NOW, "bob")
    assert registry.location.names() == files
    done = registry.apply(catalog(daily("a")), lambda: NOW, "bob", allow_removals=True)
    assert [change.is_removal for change in done.changes] == [True]


def test_since_when_a_group_is_declared_is_told_from_its_last_return(tmp_path: Path) -> None:
    registry, day, others = history(tmp_path), timedelta(days=1), daily("a", name="other")
    for after, groups in enumerate([[daily("a")], [daily("a"), others], [others], [daily("a", "b"), others]]):
        registry.apply(catalog(*groups), lambda after=after: NOW + after * day, "ada", allow_removals=True)  # type: ignore[misc]
    assert registry.declared_since() == {
        "source departures": NOW,
        "group carrier_delay_daily": NOW + 3 * day,
        "group other": NOW + day,
    }


def test_every_snapshot_of_the_past_stays_readable(tmp_path: Path) -> None:
    registry, clock = history(tmp_path), Ticking()
    for features in (["a"], ["a", "b"], ["b"], ["b", "a"]):
        registry.apply(catalog(daily(*features)), clock, "ada")
    held = [registry.at(entry.number).group("carrier_delay_daily") for entry in registry.entries()]
    assert [group.schema_number for group in held] == [1, 2, 3, 4]
    assert [numbers(group).get("a") for group in held] == [(32, 1), (32, 1), None, (34, 4)]
    assert [registry.by_digest(entry.digest) for entry in registry.entries()][-1] == registry.current()


def test_going_back_to_an_earlier_catalogue_is_an_entry_of_its_own(tmp_path: Path) -> None:
    registry, clock = history(tmp_path), Ticking()
    digests = [
        registry.apply(catalog(daily("a", owner=owner)), clock, "ada").snapshot.digest
        for owner in ("team:x", "team:y", "team:x")
    ]
    assert digests[0] == digests[2] != digests[1]
    assert [entry.digest for entry in registry.entries()] == digests


def test_refused_apply_writes_nothing(tmp_path: Path) -> None:
    registry = history(tmp_path)
    registry.apply(catalog(daily("a")), lambda: NOW, "ada")
    files = registry.location.names()
    with pytest.raises(IncompatibleChange):
        registry.apply(catalog(daily(number("a", pl.Int64))), lambda: NOW, "ada")
    with pytest.raises(InvalidInput, match="no time zone"):
        registry.apply(catalog(daily("a", "b")), lambda: NOW.replace(tzinfo=None), "ada")
    assert [name for name in registry.location.names() if "history" in name] == [files[0]]
    assert registry.require_current().group("carrier_delay_daily").feature_names == ("a",)


def test_plan_tells_all_changes_and_writes_nothing(tmp_path: Path) -> None:
    registry = history(tmp_path)
    assert [change.sign for change in registry.plan(catalog(daily("a")))] == ["+", "+"]
    assert registry.location.names() == []
    registry.apply(catalog(daily("a")), lambda: NOW, "ada")
    planned = registry.plan(catalog(daily(number("a", pl.Int64), "b")))
    assert [change.is_compatible for change in planned] == [False, True]


def test_unknown_entries_and_digests_are_named(tmp_path: Path) -> None:
    registry = history(tmp_path)
    registry.apply(catalog(daily("a")), lambda: NOW, "ada")
    for absent in (0, 2, -1):
        with pytest.raises(UnknownName, match=f"no entry {absent}. It has 1, numbered from 1"):
            registry.at(absent)
    for digest in ("0" * 64, "short", "../../etc/passwd"):
        with pytest.raises(UnknownName, match="no snapshot"):
            registry.by_digest(digest)


@pytest.mark.parametrize("damage", ["{}", "", "not json", "flip", None])
def test_damaged_snapshot_is_named_and_nothing_is_applied_on_it(damage: str | None, tmp_path: Path) -> None:
    registry = history(tmp_path)
    digest = registry.apply(catalog(daily("a")), lambda: NOW, "ada").snapshot.digest
    file = tmp_path / "registry" / "snapshots" / f"{digest}.json"
    text = file.read_text()
    file.unlink()
    if damage is not None:
        file.write_text(text.replace('"owner": "team:ops"', '"owner": "team:xyz"') if damage == "flip" else damage)
    for action in (registry.current, lambda: registry.apply(catalog(daily("b")), lambda: NOW, "ada")):
        with pytest.raises(InvalidInput, match=f"damaged: .*{digest}.json .*Restore that file"):
            action()
    assert len(registry.location.names("registry/history/")) == 1


@pytest.mark.parametrize("damage", ["{}", "", "[]", json.dumps({"digest": "x", "applied_at": "2026-01-01T00:00:00"})])
def test_damaged_entry_is_named(damage: str, tmp_path: Path) -> None:
    registry = history(tmp_path)
    registry.apply(catalog(daily("a")), lambda: NOW, "ada")
    (tmp_path / "registry" / "history" / "00000001.json").write_text(damage)
    with pytest.raises(InvalidInput, match=r"damaged: .*history/00000001\.json"):
        registry.entries()


def test_entry_missing_from_the_middle_is_named(tmp_path: Path) -> None:
    registry = history(tmp_path)
    for features in (["a"], ["a", "b"]):
        registry.apply(catalog(daily(*features)), lambda: NOW, "ada")
    (tmp_path / "registry" / "history" / "00000001.json").unlink()
    assert registry.current() is not None
    with pytest.raises(InvalidInput, match=r"history/00000001\.json is missing"):
        registry.entries()


def test_files_that_are_not_entries_are_passed_over(tmp_path: Path) -> None:
    registry = history(tmp_path)
    registry.apply(catalog(daily("a")), lambda: NOW, "ada")
    (tmp_path / "registry" / "history" / "notes.txt").write_text("x")
    assert len(registry.entries()) == 1


def test_applies_at_once_follow_one_another(tmp_path: Path) -> None:
    """Each compiles on top of the one before it, so that no number is given out twice and no change is lost."""
    wanted = [["a", f"f{i}"] for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda names: history(tmp_path).apply(catalog(daily(*names)), lambda: NOW, names[1]), wanted)
        )
    registry = history(tmp_path)
    entries = registry.entries()
    assert all(result.is_new for result in results)
    assert sorted(entry.applied_by for entry in entries) == [f"f{i}" for i in range(8)]
    snapshots = [None, *(registry.at(entry.number) for entry in entries)]
    given_out = [feature.number for s in snapshots[1:] if s for feature in s.group("carrier_delay_daily").features]
    assert sorted(set(given_out)) == list(range(32, 41))
    for before, after, entry in zip(snapshots[:-1], snapshots[1:], entries, strict=True):
        assert after is not None
        assert lines(before, after) == list(entry.changes)


def test_same_catalogue_applied_at_once_is_one_entry(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda who: history(tmp_path).apply(catalog(daily("a")), lambda: NOW, str(who)), range(8))
        )
    assert sum(result.is_new for result in results) == 1
    assert len(history(tmp_path).entries()) == 1
