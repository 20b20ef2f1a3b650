"""Every mistake that a declaration can hold is refused with the way to mend it; windows; groups as plain functions."""

import inspect
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

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
from featurestore.declaration.dtypes import dtype_name, parse_dtype, storage_dtype
from featurestore.declaration.windows import utc
from featurestore.errors import DeclarationError, FeatureStoreError, InvalidInput, SchemaMismatch, UnknownName
from featurestore.registry.compile import compile_snapshot
from featurestore.settings import Settings
from tests.scale import cases

TIMESTAMP = pl.Datetime("us", "UTC")
START = date(2025, 1, 1)
CARRIER = Entity("carrier")
MEAN = Feature("mean", pl.Float64, "Mean delay", unit="min")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FEED = {"flight": pl.String, "carrier": pl.String, "at": TIMESTAMP, "delay": pl.Float64}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def source(name: str = "departures", **more: Any) -> Source:
    declared: dict[str, Any] = {"schema": FEED, "keys": ("flight",), "event_time": "at", "known_at": "at", **more}
    return Source(name=name, **declared)


PLANES = Source(name="planes", schema={"carrier": pl.String, "seats": pl.Int32}, keys=("carrier",))


def mean_delay(window: TimeWindow, departures: pl.LazyFrame) -> pl.LazyFrame:
    """Mean delay of each carrier."""
    return departures.group_by("carrier").agg(mean=pl.col("delay").mean())


def declare(function: Callable[..., Any] = mean_delay, **more: Any) -> FeatureGroup:
    """A sound daily group, with some part of its declaration replaced."""
    sound = {"entity": CARRIER, "features": [MEAN], "cadence": Daily(START), "lookback": DAY, "owner": "team:ops"}
    return feature_group(**{**sound, **more})(function)


def renamed(name: str, function: Callable[..., Any] = mean_delay, doc: str | None = "A group.") -> Callable[..., Any]:
    """The same transform under another name."""

    def transform(window: TimeWindow, departures: pl.LazyFrame) -> Any:
        return function(window, departures)

    transform.__name__, transform.__doc__ = name, doc
    return transform


def reading(name: str, *inputs: str, is_static: bool = False) -> Callable[..., Any]:
    """A transform that reads these inputs and returns a row of nothing."""
    names = inputs if is_static else ("window", *inputs)
    parameters = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in names]

    def transform(*_: Any, **__: Any) -> pl.LazyFrame:
        return pl.LazyFrame(schema={"carrier": pl.String, "mean": pl.Float64})

    transform.__name__, transform.__doc__ = name, "A group."
    transform.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return transform


def returning(**columns: Any) -> Callable[..., Any]:
    """A transform that returns the sound columns with some replaced; None leaves a column out."""
    schema = {"carrier": pl.String, "mean": pl.Float64, **columns}
    frame = pl.LazyFrame(schema={name: dtype for name, dtype in schema.items() if dtype is not None})
    return renamed("mean_delay", lambda *_: frame)


# entities and features

STATIC = Static(at("2013-01-01"))
MISTAKES: list[tuple[str, Callable[[], object], str]] = [
    ("entity in capitals", lambda: Entity("TailNumber"), "e.g. 'tail_number'"),
    ("entity without a name", lambda: Entity(""), "Names match"),
    ("reserved key", lambda: Entity("x", {"window": pl.String}), "reserved by the platform"),
    ("key of floats", lambda: Entity("x", {"k": pl.Float64}), "is float64. Keys are one of ['string', 'int64'"),
    ("key of timestamps", lambda: Entity("x", {"k": TIMESTAMP}), "Keys are one of"),
    ("key of no dtype", lambda: Entity("x", {"k": pl.UInt8}), "Key 'k' of entity 'x': Dtype UInt8 is not supported"),
    ("feature with a space", lambda: Feature("dep delay", pl.Float64, ""), "e.g. 'dep_delay'"),
    ("feature starting with a digit", lambda: Feature("7d_mean", pl.Float64, ""), "e.g. 'f_7d_mean'"),
    ("feature of 64 letters", lambda: Feature("a" * 64, pl.Float64, ""), f"e.g. '{'a' * 63}'"),
    ("feature with a line end", lambda: Feature("a\n", pl.Float64, ""), "Names match"),
    ("feature named like a status", lambda: Feature("a__status", pl.Float64, ""), "names status columns"),
    ("unsigned feature", lambda: Feature("a", pl.UInt32, ""), "Feature 'a': Dtype UInt32 is not supported. Use one of"),
    ("Python's float", lambda: Feature("a", float, ""), "is not one of Polars. Write pl.Float64"),  # type: ignore[arg-type]
    ("dtype by name", lambda: Feature("a", "float64", ""), "Use one of ['float64'"),  # type: ignore[arg-type]
    ("naive timestamp", lambda: Feature("a", pl.Datetime("us"), ""), "Timestamps are pl.Datetime('us', 'UTC')"),
    ("timestamp in ns", lambda: Feature("a", pl.Datetime("ns", "UTC"), ""), "pl.Datetime('us', 'UTC')"),
    ("timestamp in a zone", lambda: Feature("a", pl.Datetime("us", "Europe/Paris"), ""), "pl.Datetime('us', 'UTC')"),
    ("vector of doubles", lambda: Feature("a", pl.Array(pl.Float64, 3), ""), "vectors are pl.Array(pl.Float32, n)"),
    ("empty vector", lambda: Feature("a", pl.Array(pl.Float32, 0), ""), "with n >= 1"),
    ("matrix", lambda: Feature("a", pl.Array(pl.Float32, (2, 2)), ""), "vectors are pl.Array(pl.Float32, n)"),
    ("list of lists", lambda: Feature("a", pl.List(pl.List(pl.Int64)), "", max_length=2), "pl.List of ['int64'"),
    (
        "list of vectors",
        lambda: Feature("a", pl.List(pl.Array(pl.Float32, 2)), "", max_length=2),
        "pl.List of ['int64'",
    ),
    ("list of what", lambda: Feature("a", pl.List, "", max_length=2), "Write pl.List(pl.Int64)"),
    ("vector of what", lambda: Feature("a", pl.Array, ""), "pl.Array(pl.Float32, n)"),
    ("list without a length", lambda: Feature("a", pl.List(pl.Int64), ""), "lists, and only lists, declare max_length"),
    ("number with a length", lambda: Feature("a", pl.Int64, "", max_length=3), "lists, and only lists"),
    ("list of length 0", lambda: Feature("a", pl.List(pl.Int64), "", max_length=0), "It is at least 1"),
    ("bounded string", lambda: Feature("a", pl.String, "", ge=0), "is string and has bounds. Bounds (ge, le) are for"),
    ("bounded vector", lambda: Feature("a", pl.Array(pl.Float32, 3), "", le=1), "is float32[3] and has bounds"),
    ("bounds crossed", lambda: Feature("a", pl.Int64, "", ge=2, le=1), "ge=2 is above le=1. Swap them"),
    ("bound NaN", lambda: Feature("a", pl.Float64, "", ge=float("nan")), "Bounds are finite numbers; leave one out"),
    ("bound infinite", lambda: Feature("a", pl.Float64, "", le=float("inf")), "Bounds are finite numbers"),
    ("null fraction above 1", lambda: Feature("a", pl.Int64, "", max_null_fraction=5), "a share from 0 to 1"),
    ("null fraction NaN", lambda: Feature("a", pl.Int64, "", max_null_fraction=float("nan")), "a share from 0 to 1"),
    # sources
    ("source in capitals", lambda: source("Departures"), "e.g. 'departures'"),
    ("source column of no dtype", lambda: source(schema={**FEED, "x": pl.UInt8}), "Column 'x' of source 'departures'"),
    ("source setting landed_at", lambda: source(schema={**FEED, "landed_at": TIMESTAMP}), "Rename it"),
    ("source setting knowledge_time", lambda: source(schema={**FEED, "knowledge_time": TIMESTAMP}), "Rename it"),
    ("source without keys", lambda: source(keys=()), "Name the columns that identify one record"),
    ("source with a key twice", lambda: source(keys=("flight", "flight")), "names a key twice"),
    ("source with an absent key", lambda: source(keys=("tail",)), "'tail', which its schema lacks: ['flight'"),
    ("source with one key unwrapped", lambda: source(keys="tail"), "'tail', which its schema lacks"),
    ("source with an absent time", lambda: source(event_time="when"), "'when', which its schema lacks"),
    ("source with a time of no time", lambda: source(event_time="delay"), "Times are pl.Datetime('us', 'UTC')"),
    ("source with knowledge of no time", lambda: source(known_at="flight"), "Times are pl.Datetime('us', 'UTC')"),
    ("source known never", lambda: source(known_at=None), "either known_at=<column> or typical_delay=<timedelta>"),
    ("source known twice", lambda: source(typical_delay=HOUR), "either known_at=<column> or typical_delay"),
    ("source known before", lambda: source(known_at=None, typical_delay=-HOUR), "It cannot be negative"),
    ("timeless source with a delay", lambda: source(event_time=None), "known_at and typical_delay need an event_time"),
    ("source live from a naive time", lambda: source(live_from=datetime(2026, 1, 1)), "+00:00"),  # noqa: DTZ001
    ("source of nobody", lambda: source(owner="nobody"), "neither 'team:...' nor an e-mail address"),
    # groups
    ("group in capitals", lambda: declare(renamed("MeanDelay")), "e.g. 'mean_delay'"),
    ("group named like a version", lambda: declare(renamed("mean_v2")), "Drop the suffix and declare version=n"),
    ("group with a reserved name", lambda: declare(renamed("bucket")), "e.g. 'bucket_value'"),
    ("group of version 0", lambda: declare(version=0), "Versions start at 1"),
    ("group without a docstring", lambda: declare(renamed("mean", doc=None)), "has no docstring"),
    ("group of nobody", lambda: declare(owner="operations"), "neither 'team:...' nor an e-mail address"),
    ("group of an empty team", lambda: declare(owner="team:"), "neither 'team:...' nor an e-mail address"),
    ("group of half an address", lambda: declare(owner="ada@home"), "neither 'team:...' nor an e-mail address"),
    ("group without features", lambda: declare(features=[]), "declares no features"),
    ("feature twice", lambda: declare(features=[MEAN, MEAN]), "declares 'mean' twice"),
    ("feature named like a key", lambda: declare(features=[Feature("carrier", pl.Int64, "")]), "Rename one"),
    *[
        (f"feature {name}", lambda name=name: declare(features=[Feature(name, pl.Int64, "")]), "reserved")
        for name in ("event_time", "created_at", "label_time", "schema_number", "year", "fence", "field_count", "found")
    ],
    ("group that reads nothing", lambda: declare(reading("mean")), "Add a parameter for each source or group"),
    (
        "static group that reads nothing",
        lambda: declare(reading("m", is_static=True), cadence=STATIC, lookback=None),
        "Add a",
    ),
    ("group without its window", lambda: declare(reading("mean", "x", is_static=True)), "Write def mean(window, ...)"),
    ("coverage in percent", lambda: declare(min_coverage=90), "It is a share from 0 to 1"),
    ("emits of another kind", lambda: declare(emits="rows"), "It is 'windows' or 'events'"),
    ("no lookback", lambda: declare(lookback=None), "Say how far back its windows read, e.g. lookback="),
    ("lookback below the window", lambda: declare(lookback=HOUR), "shorter than its window, 1 day, 0:00:00. Raise it"),
    ("negative delay", lambda: declare(delay=-HOUR), "Durations cannot be negative"),
    ("negative publish", lambda: declare(publish=-HOUR), "Durations cannot be negative"),
    ("freshness of zero", lambda: declare(freshness=timedelta(0)), "longer than zero"),
    ("max_age of zero", lambda: declare(max_age=timedelta(0)), "longer than zero"),
    ("negative ttl", lambda: declare(online=Online(ttl=-DAY)), "longer than zero"),
    ("online for ever", lambda: declare(online=Online(ttl=None)), "write Online(ttl=timedelta(days=7))"),
    ("no tier", lambda: Online(tiers=()), "Leave tiers out"),
    ("tier twice", lambda: Online(tiers=("hot", "hot")), "('hot', 'warm')"),
    ("unknown tier", lambda: Online(tiers=("cold",)), "('hot', 'warm')"),  # type: ignore[arg-type]
    ("ttl below max_age", lambda: declare(max_age=2 * DAY, online=Online(ttl=DAY)), "Raise ttl to max_age"),
    ("static with lookback", lambda: declare(cadence=STATIC), "Static groups read each key's newest row; remove it"),
    *[
        (
            f"static with {part}",
            lambda part=part: declare(reading("m", "x", is_static=True), cadence=STATIC, lookback=None, **part),
            hint,
        )
        for part, hint in [
            ({"max_age": DAY}, "has no max_age, ttl, delay or publish. Remove them"),
            ({"delay": DAY}, "has no max_age, ttl, delay or publish. Remove them"),
            ({"publish": DAY}, "has no max_age, ttl, delay or publish. Remove them"),
            ({"online": Online(ttl=DAY)}, "has no max_age, ttl, delay or publish. Remove them"),
            ({"emits": "events"}, "Give it a cadence, e.g. Hourly(start=...)"),
        ]
    ],
    # cadences and services
    ("start with a time", lambda: Daily(at("2025-01-01")), "Daily(start=date(2025, 1, 1))"),
    ("start as text", lambda: Hourly("2025-01-01"), "Hourly(start=date(2025, 1, 1))"),  # type: ignore[arg-type]
    ("valid from a naive time", lambda: Static(datetime(2013, 1, 1)), "2013-01-01T00:00:00+00:00"),  # noqa: DTZ001
    ("service in capitals", lambda: FeatureService("Model", ["a:b"], owner="team:ml"), "e.g. 'model'"),
    ("service of nothing", lambda: FeatureService("model", [], owner="team:ml"), "names no features"),
    ("service of a thing twice", lambda: FeatureService("m", ["a:b", "a:b"], owner="team:ml"), "twice. Remove one"),
    ("service of a whole name", lambda: FeatureService("m", ["a"], owner="team:ml"), "of the form 'group:feature'"),
    ("service of nobody", lambda: FeatureService("m", ["a:b"], owner=""), "neither 'team:...' nor an e-mail address"),
]


@pytest.mark.parametrize(("mistake", "hint"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistake_is_refused_with_the_way_to_mend_it(mistake: Callable[[], object], hint: str) -> None:
    with pytest.raises((DeclarationError, InvalidInput)) as caught:
        mistake()
    assert hint in str(caught.value)


# catalogues: what shows only when declarations stand side by side


def upstream(name: str = "mean_delay", **more: Any) -> FeatureGroup:
    return declare(renamed(name), delay=2 * HOUR, publish=HOUR / 4, **more)


def event_group(name: str, *inputs: str) -> FeatureGroup:
    return declare(reading(name, *inputs), emits="events", lookback=None)


CONTRADICTIONS: list[tuple[str, Callable[[], Catalog], type[FeatureStoreError], str]] = [
    (
        "two groups of one name",
        lambda: Catalog([source()], [declare(), declare()]),
        DeclarationError,
        "Two declarations are named 'mean_delay'. Each source or group has a name of its own",
    ),
    (
        "a group named like a source",
        lambda: Catalog([source("mean_delay"), source()], [declare()]),
        DeclarationError,
        "Two declarations are named 'mean_delay'",
    ),
    (
        "two services of one name",
        lambda: Catalog([source()], [declare()], [FeatureService("m", [declare()], owner="team:ml")] * 2),
        DeclarationError,
        "Two declarations are named 'm'",
    ),
    (
        "an input that nothing provides",
        lambda: Catalog([source("departure")], [declare()]),
        UnknownName,
        "Did you mean 'departure'?",
    ),
    (
        "a service of an unknown group",
        lambda: Catalog([source()], [declare()], [FeatureService("m", ["mean_dely:mean"], owner="team:ml")]),
        UnknownName,
        "Did you mean 'mean_delay'?",
    ),
    (
        "a service of an unknown feature",
        lambda: Catalog([source()], [declare()], [FeatureService("m", ["mean_delay:men"], owner="team:ml")]),
        UnknownName,
        "Did you mean 'mean_delay:mean'?",
    ),
    (
        "a circle of two",
        lambda: Catalog([], [declare(reading("a", "b")), declare(reading("b", "a"))]),
        DeclarationError,
        "Groups read each other in a circle: ",
    ),
    ("a group reading itself", lambda: Catalog([], [declare(reading("a", "a"))]), DeclarationError, "a <- a. Break it"),
    (
        "a cut-off before its upstream is served",
        lambda: Catalog([source()], [upstream(), declare(reading("later", "mean_delay"), delay=2 * HOUR)]),
        DeclarationError,
        "served 2:15:00 after they end, but its own cut-off is 2:00:00 after its window's end. "
        "Declare delay=datetime.timedelta(seconds=8100) or more",
    ),
    (
        "a lookback too short for its upstream",
        lambda: Catalog(
            [source()],
            [
                upstream(),
                declare(
                    reading("hours", "mean_delay"), cadence=Hourly(START), lookback=HOUR, delay=3 * HOUR, freshness=DAY
                ),
            ],
        ),
        DeclarationError,
        "looks back 1:00:00, and no daily window of 'mean_delay' lies inside that. "
        "Declare lookback=datetime.timedelta(days=1) or more",
    ),
    (
        "events driven by a timeless source",
        lambda: Catalog([PLANES, source()], [event_group("last", "planes", "departures")]),
        DeclarationError,
        "driven by 'planes', which has no event time. Its first input after the window is the feed",
    ),
    (
        "events driven by a static group",
        lambda: Catalog(
            [PLANES],
            [
                declare(reading("profile", "planes", is_static=True), cadence=STATIC, lookback=None),
                event_group("last", "profile"),
            ],
        ),
        DeclarationError,
        "driven by 'profile', which has no event time",
    ),
    (
        "a transform without a feature",
        lambda: Catalog([source()], [declare(returning(mean=None))]),
        DeclarationError,
        "does not return ['mean']; it returns ['carrier']. Return them or remove their declaration",
    ),
    (
        "a transform without a key",
        lambda: Catalog([source()], [declare(returning(carrier=None))]),
        DeclarationError,
        "Entity 'carrier' needs its keys ['carrier'] in every row",
    ),
    (
        "an event transform without its time",
        lambda: Catalog([source()], [declare(returning(), emits="events")]),
        DeclarationError,
        "An event group returns each row's own event_time",
    ),
    (
        "a windowed transform with a time",
        lambda: Catalog([source()], [declare(returning(event_time=TIMESTAMP))]),
        DeclarationError,
        "returns ['event_time'], which are not declared",
    ),
    (
        "a transform with more than declared",
        lambda: Catalog([source()], [declare(returning(extra=pl.Int64))]),
        DeclarationError,
        "returns ['extra'], which are not declared. Declare them as features or drop them",
    ),
    (
        "a transform with another dtype",
        lambda: Catalog([source()], [declare(returning(mean=pl.Float32))]),
        DeclarationError,
        "is Float32, declared Float64. Cast it in the transform: pl.col('mean').cast(...)",
    ),
    (
        "a transform that reads an absent column",
        lambda: Catalog([source()], [declare(renamed("m", lambda _, frame: frame.select("carrier", mean="dely")))]),
        DeclarationError,
        "fails on empty inputs: ColumnNotFoundError",
    ),
    (
        "a transform that returns no frame",
        lambda: Catalog([source()], [declare(renamed("m", lambda *_: None))]),
        DeclarationError,
        "returned NoneType. Return a Polars frame",
    ),
]


@pytest.mark.parametrize(
    ("contradiction", "error", "hint"), [c[1:] for c in CONTRADICTIONS], ids=[c[0] for c in CONTRADICTIONS]
)
def test_contradiction_between_declarations_is_refused(
    contradiction: Callable[[], Catalog], error: type[FeatureStoreError], hint: str
) -> None:
    with pytest.raises(error) as caught:
        contradiction()
    assert hint in str(caught.value)


def test_sound_catalogue_orders_groups_and_finds_sources() -> None:
    later = declare(reading("later", "mean_delay", "planes"), delay=3 * HOUR)
    catalog = Catalog([source(), PLANES], [later, upstream()])
    assert [group.name for group in catalog.ordered_groups] == ["mean_delay", "later"]
    assert [item.name for item in catalog.sources_of(later)] == ["departures", "planes"]
    assert catalog.group("later") is later
    assert catalog.source("planes") is PLANES
    for find in (catalog.group, catalog.source):
        with pytest.raises(UnknownName, match="'nothing' is not registered"):
            find("nothing")


def test_cut_off_at_the_upstream_horizon_is_enough() -> None:
    later = declare(reading("later", "mean_delay"), delay=2 * HOUR + HOUR / 4)
    assert Catalog([source()], [upstream(), later]).ordered_groups[-1] is later


def test_second_version_of_a_group_stands_beside_the_first() -> None:
    catalog = Catalog([source()], [declare(), declare(version=2)])
    assert [group.stored_name for group in catalog.ordered_groups] == ["mean_delay", "mean_delay_v2"]
    assert catalog.group("mean_delay_v2")["mean"] == "mean_delay_v2:mean"


# defaults


def test_defaults_follow_the_cadence() -> None:
    daily, hourly = declare(), declare(cadence=Hourly(START))
    assert (daily.publish, hourly.publish) == (timedelta(minutes=15), timedelta(minutes=5))
    assert declare(emits="events", lookback=None).lookback == DAY
    assert declare(online=Online()).max_age == timedelta(days=7)
    assert declare(online=Online(), max_age=2 * DAY).max_age == 2 * DAY
    assert daily.min_coverage is None


@pytest.mark.parametrize("online", [Online(), Online(ttl=None)])
def test_static_group_that_is_online_lives_for_ever(online: Online) -> None:
    group = declare(reading("m", "planes", is_static=True), cadence=STATIC, lookback=None, online=online)
    assert (group.online, group.max_age, group.min_coverage) == (Online(ttl=None), None, 0.9)


def test_tiers_of_a_static_group_are_kept() -> None:
    group = declare(
        reading("m", "planes", is_static=True), cadence=STATIC, lookback=None, online=Online(tiers=("warm",))
    )
    assert group.online == Online(ttl=None, tiers=("warm",))


@pytest.mark.parametrize(
    ("declared", "warm_url", "expected"),
    [
        ((), "", ("hot",)),
        ((), "dynamodb://t", ("warm",)),
        (("warm", "hot"), "dynamodb://t", ("hot", "warm")),
        (("hot",), "dynamodb://t", ("hot",)),
    ],
)
def test_deployment_decides_where_a_group_is_served_from_unless_it_is_declared(
    declared: Any, warm_url: str, expected: tuple[str, ...]
) -> None:
    group = declare(online=Online(tiers=declared or None))
    compiled = compile_snapshot(Catalog([source()], [group]), None).group(group.stored_name)
    settings = Settings.from_env({"FEATURESTORE_WARM_URL": warm_url})
    assert settings.tiers_of(compiled) == expected


def test_group_declared_warm_needs_a_warm_tier() -> None:
    group = declare(online=Online(tiers=("warm",)))
    compiled = compile_snapshot(Catalog([source()], [group]), None).group(group.stored_name)
    with pytest.raises(InvalidInput, match="Set FEATURESTORE_WARM_URL"):
        Settings.from_env({}).tiers_of(compiled)


def test_source_with_one_key_may_name_it_alone() -> None:
    assert source(keys="flight").keys == ("flight",)


def test_entity_without_keys_has_one_of_its_name() -> None:
    assert Entity("carrier").keys == {"carrier": pl.String()}


@pytest.mark.parametrize("owner", ["team:ops", "team:data/ml-1.x", "ada@example.org"])
def test_owner_is_a_team_or_an_address(owner: str) -> None:
    assert declare(owner=owner).owner == owner


DTYPES = ["float64", "float32", "int64", "int32", "bool", "string", "date", "timestamp", "float32[16]", "list<string>"]


@pytest.mark.parametrize("name", [*DTYPES, "list<int64>", "list<float64>"])
def test_dtype_names_are_read_back(name: str) -> None:
    dtype = parse_dtype(name)
    assert dtype_name(dtype) == name
    assert storage_dtype(dtype) == (pl.List(pl.Float32) if name == "float32[16]" else dtype)


# groups as functions


def test_group_is_tested_like_a_function() -> None:
    window = Daily(START).window_of("2025-01-07")
    departures = pl.DataFrame({"carrier": ["AA", "AA", "UA"], "delay": [1.0, 3.0, None]})
    result = declare()(window, departures=departures).sort("carrier")
    assert_frame_equal(
        result,
        pl.DataFrame(
            {"carrier": ["AA", "UA"], "event_time": [at("2025-01-08")] * 2, "mean": [2.0, None]},
            schema={"carrier": pl.String, "event_time": TIMESTAMP, "mean": pl.Float64},
        ),
    )


def test_static_group_is_called_without_a_window() -> None:
    group = declare(reading("m", "planes", is_static=True), cadence=STATIC, lookback=None)
    assert group(planes=pl.DataFrame()).columns == ["carrier", "mean"]


WINDOW = TimeWindow(at("2025-01-01"), at("2025-01-02"))


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda group: group(departures=pl.DataFrame()), "is windowed: call it with one window"),
        (lambda group: group(WINDOW, WINDOW, departures=pl.DataFrame()), "call it with one window"),
        (lambda group: group(WINDOW), "reads ['departures']; got []. Pass each by name"),
        (lambda group: group(WINDOW, arrivals=pl.DataFrame()), "reads ['departures']; got ['arrivals']"),
    ],
)
def test_call_that_does_not_fit_says_what_the_group_reads(call: Callable[[FeatureGroup], object], hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        call(declare())
    assert hint in str(caught.value)


def test_call_of_a_transform_that_breaks_its_word_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match="Cast it in the transform"):
        declare(returning(mean=pl.Int64))(WINDOW, departures=pl.DataFrame())


def test_cut_off_and_horizon_follow_the_window() -> None:
    group = upstream()
    assert group.cut_off(WINDOW) == at("2025-01-02T02:00")
    assert group.horizon(WINDOW) == at("2025-01-02T02:15")


# windows

CADENCES = st.sampled_from([Hourly, Daily])
STARTS = st.dates(date(2024, 2, 27), date(2024, 3, 3))
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))])
SECONDS = st.integers(0, 8 * 24).map(lambda hours: hours * 3600.0) | st.floats(0, 8 * 24 * 3600)
INSTANTS = st.builds(lambda s, zone: (at("2024-02-26") + timedelta(seconds=s)).astimezone(zone), SECONDS, ZONES)


@settings(max_examples=cases(5000, 150), deadline=None)
@given(CADENCES, STARTS, INSTANTS, INSTANTS)
def test_windows_between_are_those_that_brute_force_finds(
    kind: type[Hourly] | type[Daily], start: date, first: datetime, last: datetime
) -> None:
    cadence = kind(start)
    every = [cadence.origin + i * cadence.length for i in range(24 * 8)]
    inside = [begin for begin in every if begin >= first and begin + cadence.length <= last]
    assert list(cadence.windows_between(first, last)) == [TimeWindow(b, b + cadence.length) for b in inside]


@settings(max_examples=cases(2000, 100), deadline=None)
@given(CADENCES, STARTS, st.integers(0, 5000))
def test_window_and_key_name_each_other(kind: type[Hourly] | type[Daily], start: date, index: int) -> None:
    cadence = kind(start)
    window = cadence.window_at(cadence.origin + index * cadence.length)
    assert cadence.window_of(cadence.key_of(window)) == window
    assert window.end - window.start == cadence.length


@pytest.mark.parametrize(
    ("cadence", "key", "hint"),
    [
        (Daily(START), "2025-01-01-00:00", "Keys look like '2025-01-01'"),
        (Daily(START), "2025-1-2", "Keys look like '2025-01-01'"),
        (Daily(START), "2025-02-30", "Keys look like '2025-01-01'"),
        (Daily(START), "", "Keys look like '2025-01-01'"),
        (Daily(START), "2024-12-31", "is not the start of a window"),
        (Hourly(START), "2025-01-01", "Keys look like '2025-01-01-00:00'"),
        (Hourly(START), "2025-01-01-7:00", "Keys look like '2025-01-01-00:00'"),
        (Hourly(START), "2025-01-01-07:30", "is not the start of a window"),
    ],
)
def test_key_of_no_window_is_refused(cadence: Hourly | Daily, key: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        cadence.window_of(key)
    assert hint in str(caught.value)


def test_keys_have_the_form_of_dagster_partitions() -> None:
    assert Daily(START).key_of(WINDOW) == "2025-01-01"
    assert Hourly(START).key_of(TimeWindow(at("2025-01-01T07:00"), at("2025-01-01T08:00"))) == "2025-01-01-07:00"


NAIVE = datetime(2025, 1, 1)  # noqa: DTZ001


@pytest.mark.parametrize(
    "use",
    [
        lambda: utc(NAIVE),
        lambda: TimeWindow(NAIVE, at("2025-01-02")),
        lambda: TimeWindow(at("2024-01-02"), NAIVE),
        lambda: Daily(START).window_at(NAIVE),
        lambda: list(Daily(START).windows_between(NAIVE, at("2025-01-02"))),
        lambda: list(Daily(START).windows_between(at("2024-01-02"), NAIVE)),
    ],
)
def test_naive_time_is_refused_with_the_zone_to_add(use: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput, match=r"has no time zone\. Give one, e\.g\. 2025-01-01T00:00:00\+00:00"):
        use()


def test_window_that_is_empty_or_backwards_is_refused() -> None:
    for end in ("2025-01-01", "2024-12-31"):
        with pytest.raises(InvalidInput, match="Its end must follow its start"):
            TimeWindow(at("2025-01-01"), at(end))


def test_window_given_in_another_zone_is_the_same_window() -> None:
    eastern = timezone(timedelta(hours=-5))
    assert TimeWindow(datetime(2024, 12, 31, 19, tzinfo=eastern), datetime(2025, 1, 1, 19, tzinfo=eastern)) == WINDOW
