"""Entity rows: plain Python values are spelled without a frame, and mean what the same rows mean as a frame."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import FeatureStoreError, InvalidInput
from featurestore.frames import as_polars
from featurestore.online.keys import entity_ids, online_keys, plain_ids, plain_keys
from featurestore.online.message.codec import MessageLayout, WireField
from featurestore.online.reading.entities import Entities, entities_of
from featurestore.online.reading.plan import ReadPlan, read_plan
from featurestore.online.tier import Replies
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot
from tests.messages import NOW
from tests.scale import cases
from tests.unit.test_online_answers import group_of

KINDS = {"string": pl.String(), "int64": pl.Int64(), "int32": pl.Int32(), "bool": pl.Boolean(), "date": pl.Date()}
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=4) | st.sampled_from(["a:b|c", "{x}", "\n", "\x85", " ", "%", '"']),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "bool": st.booleans(),
    "date": st.dates(),
}
ODD = st.sampled_from(
    [2**31, 2**63, -(2**63) - 1, 10**40, 1.5, True, "1", b"x", "\ud800", datetime(2026, 1, 1, tzinfo=UTC), [1]]
)
LAYOUT = MessageLayout((WireField(32, "f0", pl.Int64()),))


def plan_of(*groups: RegisteredGroup) -> ReadPlan:
    registry = RegistrySnapshot({group.name: group for group in groups}, {})
    return read_plan(registry, [f"{group.name}:f0" for group in groups], True)


@st.composite
def asked(draw: st.DrawFn) -> tuple[ReadPlan, list[dict[str, Any]]]:
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=3))
    keys = {f"k{i}": kind for i, kind in enumerate(kinds)}
    first = dict(list(keys.items())[: draw(st.integers(1, len(keys)))])
    values = {name: st.none() | GOOD[kind] for name, kind in keys.items()}
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(list(keys)))
        values[name] |= ODD
    if draw(st.integers(0, 3)) == 0:
        values["other"] = st.integers() | st.text(max_size=2) if draw(st.booleans()) else st.just(7)
    if draw(st.integers(0, 9)) == 0:
        values["g0__f0"] = st.just(1)
    rows = draw(st.lists(st.fixed_dictionaries(values), max_size=5))
    if rows and draw(st.integers(0, 9)) == 0:
        del rows[-1][draw(st.sampled_from(list(rows[-1])))]
    return plan_of(group_of("g0", LAYOUT, first), group_of("g1", LAYOUT, keys)), rows


def outcome(read: Callable[[], Entities]) -> Any:
    """The keys, the rows and their frame, or the error."""
    try:
        entities = read()
        keys = {group: (own.sent, own.places) for group, own in entities.keys.items()}
        return entities.count, keys, entities.frame.to_dict(as_series=False), entities.frame.schema, entities.to_dict()
    except FeatureStoreError as error:
        return type(error), str(error)


@settings(max_examples=cases(20_000, 200), deadline=None)
@given(asked=asked(), as_lists=st.booleans())
def test_plain_rows_mean_what_their_frame_means(asked: tuple[ReadPlan, list[dict[str, Any]]], as_lists: bool) -> None:
    plan, rows = asked
    given: Any = rows
    if as_lists and rows:
        given = {name: [row[name] for row in rows if name in row] for name in rows[0]}
    by_frame = outcome(lambda: entities_of(as_polars(given, "entity_rows"), plan))
    assert outcome(lambda: entities_of(given, plan)) == by_frame


@settings(max_examples=cases(2_000, 100), deadline=None)
@given(data=st.data())
def test_plain_ids_are_spelled_as_a_frame_spells_them(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=3))
    rows = data.draw(st.lists(st.tuples(*(GOOD[kind] for kind in kinds)), min_size=1, max_size=5))
    frame = pl.DataFrame(rows, schema={f"k{i}": KINDS[kind] for i, kind in enumerate(kinds)}, orient="row")
    ids = plain_ids([list(column) for column in zip(*rows, strict=True)], [KINDS[kind] for kind in kinds])
    assert ids is not None
    assert plain_keys("g", ids) == online_keys("g", entity_ids(frame, frame.columns))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("int32", 2**31), ("int64", 2**63), ("int64", True), ("int64", "7"), ("string", 7), ("date", NOW), ("bool", 1)],
)
def test_values_out_of_the_keys_type_or_range_are_refused_in_plain_rows_too(kind: str, value: Any) -> None:
    with pytest.raises(FeatureStoreError):
        entities_of({"k0": [value]}, plan_of(group_of("g0", LAYOUT, {"k0": kind})))


def test_rows_whose_columns_are_not_named_by_text_are_left_to_a_frame() -> None:
    rows = [{"k0": "a", 1: 2}]
    plan = plan_of(group_of("g0", LAYOUT, {"k0": "string"}))
    assert outcome(lambda: entities_of(rows, plan)) == outcome(
        lambda: entities_of(as_polars(rows, "entity_rows"), plan)
    )


def test_the_callers_lists_may_change_after_the_read() -> None:
    plan = plan_of(group_of("g0", LAYOUT, {"k0": "string"}))
    rows: dict[str, list[str]] = {"k0": ["a", "b"]}
    entities = entities_of(rows, plan)
    rows["k0"].append("c")
    assert entities.frame["k0"].to_list() == ["a", "b"]
    entities.to_dict()["k0"].append("d")
    assert entities.to_dict() == {"k0": ["a", "b"]}


def test_groups_of_one_entity_share_ids_and_other_widths_do_not() -> None:
    narrow, wide = group_of("g0", LAYOUT, {"k0": "int32"}), group_of("g1", LAYOUT, {"k0": "int64"})
    entities = entities_of({"k0": [7]}, plan_of(narrow, wide))
    assert entities.sent == {"g0": [b"g0:7"], "g1": [b"g1:7"]}
    assert entities_of({"k0": [2**40]}, plan_of(wide)).sent == {"g1": [b"g1:%d" % 2**40]}


def test_replies_are_spread_over_rows_without_a_key() -> None:
    entities = entities_of({"k0": [None, "a", None, "b"]}, plan_of(group_of("g0", LAYOUT, {"k0": "string"})))
    spread = entities.keys["g0"].spread(Replies([b"x", None], frozenset({1}), frozenset({0})), entities.count)
    assert spread.messages == [None, b"x", None, None]
    assert (spread.unanswered, spread.warm) == (frozenset({3}), frozenset({1}))


def test_a_plan_is_kept_for_its_registry_and_request_only() -> None:
    group = group_of("g0", LAYOUT, {"k0": "string"})
    one, other = (RegistrySnapshot({"g0": group}, {}) for _ in range(2))
    assert read_plan(one, ["g0:f0"], False) is read_plan(one, ("g0:f0",), False)
    assert read_plan(one, ["g0:f0"], False) is not read_plan(other, ["g0:f0"], False)
    assert read_plan(one, ["g0:f0"], True).columns == {"g0__f0"}
    for _ in range(2):
        with pytest.raises(InvalidInput, match="not a feature reference"):
            read_plan(one, [["g0:f0"]], False)  # type: ignore[list-item]


def test_one_date_key_is_not_the_instant_of_that_day() -> None:
    plan = plan_of(group_of("g0", LAYOUT, {"k0": "date"}))
    assert entities_of({"k0": [date(2026, 2, 28)]}, plan).sent == {"g0": [b"g0:2026-02-28"]}
