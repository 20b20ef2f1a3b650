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
    Backfill,
    Catalog,
    Daily,
    Drift,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    FreshnessTier,
    Hourly,
    KnownValue,
    Online,
    Proxy,
    RowCount,
    Snapshots,
    Source,
    Static,
    TimeWindow,
    feature_group,
    pushed_group,
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
    ("feature with a space", lambda: Feature("dep delay", pl.Float64, "A value"), "e.g. 'dep_delay'"),
    ("feature starting with a digit", lambda: Feature("7d_mean", pl.Float64, "A value"), "e.g. 'f_7d_mean'"),
    ("feature of 64 letters", lambda: Feature("a" * 64, pl.Float64, "A value"), f"e.g. '{'a' * 63}'"),
    ("feature with a line end", lambda: Feature("a\n", pl.Float64, "A value"), "Names match"),
    ("feature named like a status", lambda: Feature("a__status", pl.Float64, "A value"), "names status columns"),
    (
        "unsigned feature",
        lambda: Feature("a", pl.UInt32, "A value"),
        "Feature 'a': Dtype UInt32 is not supported. Use one of",
    ),
    ("Python's float", lambda: Feature("a", float, "A value"), "is not one of Polars. Write pl.Float64"),  # type: ignore[arg-type]
    ("dtype by name", lambda: Feature("a", "float64", "A value"), "Use one of ['float64'"),  # type: ignore[arg-type]
    ("naive timestamp", lambda: Feature("a", pl.Datetime("us"), "A value"), "Timestamps are pl.Datetime('us', 'UTC')"),
    ("timestamp in ns", lambda: Feature("a", pl.Datetime("ns", "UTC"), "A value"), "pl.Datetime('us', 'UTC')"),
    (
        "timestamp in a zone",
        lambda: Feature("a", pl.Datetime("us", "Europe/Paris"), "A value"),
        "pl.Datetime('us', 'UTC')",
    ),
    (
        "vector of doubles",
        lambda: Feature("a", pl.Array(pl.Float64, 3), "A value"),
        "vectors are pl.Array(pl.Float32, n)",
    ),
    ("empty vector", lambda: Feature("a", pl.Array(pl.Float32, 0), "A value"), "with n >= 1"),
    ("matrix", lambda: Feature("a", pl.Array(pl.Float32, (2, 2)), "A value"), "vectors are pl.Array(pl.Float32, n)"),
    ("list of lists", lambda: Feature("a", pl.List(pl.List(pl.Int64)), "A value", max_length=2), "pl.List of ['int64'"),
    (
        "list of vectors",
        lambda: Feature("a", pl.List(pl.Array(pl.Float32, 2)), "A value", max_length=2),
        "pl.List of ['int64'",
    ),
    ("list of what", lambda: Feature("a", pl.List, "A value", max_length=2), "Write pl.List(pl.Int64)"),
    ("vector of what", lambda: Feature("a", pl.Array, "A value"), "pl.Array(pl.Float32, n)"),
    (
        "list without a length",
        lambda: Feature("a", pl.List(pl.Int64), "A value"),
        "lists, and only lists, declare max_length",
    ),
    ("number with a length", lambda: Feature("a", pl.Int64, "A value", max_length=3), "lists, and only lists"),
    (
        "list of length 0",
        lambda: Feature("a", pl.List(pl.Int64), "A value", max_length=0),
        "It is at least 1: write the most items",
    ),
    (
        "bounded string",
        lambda: Feature("a", pl.String, "A value", ge=0),
        "is string and has bounds. Bounds (ge, le) are for",
    ),
    ("bounded vector", lambda: Feature("a", pl.Array(pl.Float32, 3), "A value", le=1), "is float32[3] and has bounds"),
    ("bounds crossed", lambda: Feature("a", pl.Int64, "A value", ge=2, le=1), "ge=2 is above le=1. Swap them"),
    (
        "bound NaN",
        lambda: Feature("a", pl.Float64, "A value", ge=float("nan")),
        "Bounds are finite numbers; leave one out",
    ),
    ("bound infinite", lambda: Feature("a", pl.Float64, "A value", le=float("inf")), "Bounds are finite numbers"),
    ("null fraction above 1", lambda: Feature("a", pl.Int64, "A value", max_null_fraction=5), "a share from 0 to 1"),
    (
        "null fraction NaN",
        lambda: Feature("a", pl.Int64, "A value", max_null_fraction=float("nan")),
        "a share from 0 to 1",
    ),
    # sources
    ("source in capitals", lambda: source("Departures"), "e.g. 'departures'"),
    ("source column of no dtype", lambda: source(schema={**FEED, "x": pl.UInt8}), "Column 'x' of source 'departures'"),
    ("source setting landed_at", lambda: source(schema={**FEED, "landed_at": TIMESTAMP}), "Rename it"),
    ("source setting knowledge_time", lambda: source(schema={**FEED, "knowledge_time": TIMESTAMP}), "Rename it"),
    ("source without keys", lambda: source(keys=()), "Name the columns that identify one record"),
    ("source with a key twice", lambda: source(keys=("flight", "flight")), "names a key twice"),
    ("source with an absent key", lambda: source(keys=("tail",)), "'tail', which its schema lacks: ['flight'"),
    ("source with one key unwrapped", lambda: source(keys="tail"), "Name one of them, keys as a tuple such as"),
    ("source with an absent time", lambda: source(event_time="when"), "or add the column to the schema."),
    ("source with a time of no time", lambda: source(event_time="delay"), "Times are pl.Datetime('us', 'UTC')"),
    ("source with knowledge of no time", lambda: source(known_at="flight"), "Times are pl.Datetime('us', 'UTC')"),
    ("source known never", lambda: source(known_at=None), "either known_at=<column> or typical_delay=<timedelta>"),
    ("source known twice", lambda: source(typical_delay=HOUR), "either known_at=<column> or typical_delay"),
    ("source known before", lambda: source(known_at=None, typical_delay=-HOUR), "Declare timedelta(0) or more."),
    ("timeless source with a delay", lambda: source(event_time=None), "Add event_time=<column>, or leave them out"),
    ("source live from a naive time", lambda: source(live_from=datetime(2026, 1, 1)), "+00:00"),  # noqa: DTZ001
    ("source of nobody", lambda: source(owner="nobody"), "neither 'team:...' nor an e-mail address"),
    # groups
    ("group in capitals", lambda: declare(renamed("MeanDelay")), "e.g. 'mean_delay'"),
    ("group named like a version", lambda: declare(renamed("mean_v2")), "Drop the suffix and declare version=n"),
    ("group with a reserved name", lambda: declare(renamed("bucket")), "e.g. 'bucket_value'"),
    ("group of version 0", lambda: declare(version=0), "Versions start at 1"),
    ("group without a docstring", lambda: declare(renamed("mean", doc=None)), "Write one under its def"),
    ("group of a bare decorator", lambda: feature_group(mean_delay), "Write @feature_group(entity=..., features="),  # type: ignore[call-arg]
    ("group of nobody", lambda: declare(owner="operations"), "neither 'team:...' nor an e-mail address"),
    ("group of an empty team", lambda: declare(owner="team:"), "neither 'team:...' nor an e-mail address"),
    ("group of half an address", lambda: declare(owner="ada@home"), "neither 'team:...' nor an e-mail address"),
    ("group without features", lambda: declare(features=[]), "declares no features"),
    ("feature twice", lambda: declare(features=[MEAN, MEAN]), "declares 'mean' twice"),
    ("feature named like a key", lambda: declare(features=[Feature("carrier", pl.Int64, "A value")]), "Rename one"),
    *[
        (f"feature {name}", lambda name=name: declare(features=[Feature(name, pl.Int64, "A value")]), "reserved")
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
    ("population without a share", lambda: declare(population="departures"), "Declare min_coverage=0.9, or leave"),
    (
        "population that is not read",
        lambda: declare(min_coverage=0.9, population="fleet"),
        "no input of the group; it reads ['departures']. Make it a parameter",
    ),
    (
        "population of a static group",
        lambda: declare(reading("m", "x", is_static=True), cadence=STATIC, lookback=None, population="x"),
        "it is held against its last load. Leave population out",
    ),
    (
        "population of another kind",
        lambda: declare(population=CARRIER),
        "the name of an input, population='plane_profile'",
    ),
    ("emits of another kind", lambda: declare(emits="rows"), "It is 'windows' or 'events'"),
    ("no lookback", lambda: declare(lookback=None), "Say how far back its windows read, e.g. lookback="),
    ("lookback below the window", lambda: declare(lookback=HOUR), "shorter than its window, 1 day, 0:00:00. Raise it"),
    ("negative delay", lambda: declare(delay=-HOUR), "cannot be negative: declare zero or more"),
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
    ("service of nothing", lambda: FeatureService("model", [], owner="team:ml"), "names no features. Name groups or"),
    ("service of a thing twice", lambda: FeatureService("m", ["a:b", "a:b"], owner="team:ml"), "twice. Remove one"),
    (
        "service of a whole name",
        lambda: FeatureService("m", ["a"], owner="team:ml"),
        "'group:feature'. Write e.g. 'carrier_delay",
    ),
    ("service of nobody", lambda: FeatureService("m", ["a:b"], owner=""), "neither 'team:...' nor an e-mail address"),
    # parts of another type
    ("ttl in days", lambda: Online(ttl=7), "Online: ttl is 7 (int). Write Online(ttl=timedelta(days=7))"),  # type: ignore[arg-type]
    ("ttl of ages", lambda: Online(ttl=10**8 * DAY), "Durations are at most 36,525 days, a hundred years"),
    ("tiers as text", lambda: Online(tiers="hot"), "tiers is 'hot' (str), not a list or tuple"),  # type: ignore[arg-type]
    (
        "source with a delay of 3",
        lambda: source(known_at=None, typical_delay=3),
        "typical_delay is 3 (int). Write typical",
    ),
    (
        "source with a delay of ages",
        lambda: source(known_at=None, typical_delay=10**8 * DAY),
        "are at most 36,525 days",
    ),
    (
        "source live from text",
        lambda: source(live_from="2025-01-01"),
        "Write live_from=datetime(2025, 1, 1, tzinfo=UTC)",
    ),
    ("source with a key that is none", lambda: source(keys=[3]), "keys[0] is 3 (int). Write keys=('flight',)"),
    ("source with keys of nothing", lambda: source(keys=None), "keys is None, not a list or tuple. Write keys="),
    ("source with a list of columns", lambda: source(schema=["a"]), "Write schema={'flight': pl.String, ...}"),
    ("source with a time that is none", lambda: source(event_time=3), "event_time is 3 (int). Write the name of a"),
    (
        "source with freshness of 3",
        lambda: source(freshness=3),
        "freshness is 3 (int). Write freshness=timedelta(hours=2)",
    ),
    ("source without a name", lambda: source(None), "Source name is None. Write a name such as 'dep_delay'"),  # type: ignore[arg-type]
    ("source of owner None", lambda: source(owner=None), "owner is None. Write owner='team:network-operations'"),
    ("source described by a number", lambda: source(description=3), "description is 3 (int). Write one line of text"),
    ("entity with a list of keys", lambda: Entity("c", ["a", "b"]), "keys is ['a', 'b'] (list). Write keys={'c': "),  # type: ignore[arg-type]
    (
        "entity with no keys",
        lambda: Entity("c", {}),
        "declares no keys. Name its key columns, keys={'c_id': pl.Int64}, or",
    ),
    ("key of no name", lambda: Entity("c", {3: pl.Int64}), "name 3 is 3 (int). Write keys={'c': pl.String}"),  # type: ignore[dict-item]
    ("bound as text", lambda: Feature("a", pl.Int64, "A", ge="0"), "ge is '0' (str). Write a number, ge=0, or leave"),  # type: ignore[arg-type]
    ("bound true", lambda: Feature("a", pl.Int64, "A", le=True), "le is True (bool). Write a number, le=0"),
    (
        "bound beyond int32",
        lambda: Feature("a", pl.Int32, "A", le=1e12),
        "is int32, which holds -2.14748e+09 to 2.14748",
    ),
    ("bound below int32", lambda: Feature("a", pl.Int32, "A", ge=-(2**31) - 1), "declare a wider dtype"),
    ("bound beyond int64", lambda: Feature("a", pl.Int64, "A", le=2**64), "is int64, which holds"),
    ("bound beyond float32", lambda: Feature("a", pl.Float32, "A", le=1e39), "is float32, which holds"),
    ("bound beyond numbers", lambda: Feature("a", pl.Float64, "A", le=10**400), "le is an integer of 1329 bits"),
    ("feature described by 3", lambda: Feature("a", pl.Int64, 3), "description is 3 (int). Write one line that says"),  # type: ignore[arg-type]
    ("feature described by nothing", lambda: Feature("a", pl.Int64, " "), "description is empty. Write one line that"),
    ("unit None", lambda: Feature("a", pl.Int64, "A", unit=None), "unit is None. Write unit='min', or leave it out"),  # type: ignore[arg-type]
    ("drift true", lambda: Feature("a", pl.Int64, "A", drift=True), "drift is True (bool). Write drift=Drift(psi=0.2)"),  # type: ignore[arg-type]
    ("drift as text", lambda: Drift(psi="0.2"), "Drift: psi is '0.2' (str). Write a number above 0"),  # type: ignore[arg-type]
    ("null fraction as text", lambda: Feature("a", pl.Int64, "A", max_null_fraction="0"), "Write a share from 0 to 1"),  # type: ignore[arg-type]
    ("length as text", lambda: Feature("a", pl.List(pl.Int64), "A", max_length="3"), "Write a number of items, max"),  # type: ignore[arg-type]
    ("valid from text", lambda: Static("2013-01-01"), "Write Static(datetime(2013, 1, 1, tzinfo=UTC))"),  # type: ignore[arg-type]
    (
        "service of one reference",
        lambda: FeatureService("m", "a:b", owner="team:ml"),
        "not a list or tuple. Write a list",
    ),
    (
        "service of a feature",
        lambda: FeatureService("m", [MEAN], owner="team:ml"),
        "features[0] is Feature 'mean'. Write",
    ),  # type: ignore[list-item]
    ("service of owner None", lambda: FeatureService("m", ["a:b"], owner=None), "owner is None. Write owner='team:net"),  # type: ignore[arg-type]
    (
        "tier by text",
        lambda: FreshnessTier("daily", "24h", "page"),
        "slo is '24h' (str). Write slo=timedelta(hours=24)",
    ),  # type: ignore[arg-type]
    ("tier that alerts loudly", lambda: FreshnessTier("daily", DAY, "loud"), "Write one of ['page', 'ticket', 'off']"),  # type: ignore[arg-type]
    ("backfill from text", lambda: Backfill("2025-01-01"), "Write backfillable_from=date(2025, 1, 1)"),  # type: ignore[arg-type]
    ("backfill from an instant", lambda: Backfill(at("2025-01-01")), "an instant. Write backfillable_from=date(2025"),
    ("backfill limit as text", lambda: Backfill(approval_limit_usd="25"), "Write a sum of 0 or more, e.g. 25.0"),  # type: ignore[arg-type]
    (
        "backfill of one approver",
        lambda: Backfill(approvers="team:x"),
        "Write a list, approvers=['team:data-platform']",
    ),  # type: ignore[arg-type]
    (
        "backfill with a proxy as text",
        lambda: Backfill(proxies={"a": "g:f"}),
        "proxies['a'] is 'g:f' (str). Write prox",
    ),  # type: ignore[dict-item]
    ("snapshots carried for 3", lambda: Snapshots("s", 3), "carry is 3 (int). Write timedelta(days=7)"),  # type: ignore[arg-type]
    ("proxy of no feature", lambda: Proxy("delays"), "Write group['feature'], e.g. carrier_delay_daily['flights_7d']."),
    ("proxy that is a feature", lambda: Proxy(MEAN), "reference is Feature 'mean'. Write 'group:feature'"),  # type: ignore[arg-type]
    ("row count as text", lambda: RowCount(fall="0.5"), "fall is '0.5' (str). Write a share from 0 to 1"),  # type: ignore[arg-type]
    ("known value of keys in a list", lambda: KnownValue("w", ["a"], "f", 1), "Write keys={'carrier': 'UA'}"),  # type: ignore[arg-type]
    (
        "catalogue the wrong way round",
        lambda: Catalog([declare()], [source()]),
        "sources[0] is FeatureGroup 'mean_delay'",
    ),  # type: ignore[list-item]
    (
        "catalogue of no lists",
        lambda: Catalog(source(), declare()),
        "sources is Source 'departures', not a list or tuple",
    ),  # type: ignore[arg-type]
    (
        "catalogue of a bare function",
        lambda: Catalog([source()], [mean_delay]),
        "is function 'mean_delay'. Write Catalog(",
    ),  # type: ignore[list-item]
    (
        "catalogue with a service alone",
        lambda: Catalog([], [], "model"),
        "services is 'model' (str), not a list or tuple",
    ),  # type: ignore[arg-type]
]


WEEK = "timedelta(days=7)"
GROUP_OF_ANOTHER_TYPE: list[tuple[dict[str, Any], str]] = [
    ({"lookback": 7}, f"lookback is 7 (int). Write lookback={WEEK}"),
    ({"lookback": "7d"}, f"lookback is '7d' (str). Write lookback={WEEK}"),
    ({"lookback": 10**8 * DAY}, "lookback is 100,000,000 days. Durations are at most 36,525 days"),
    ({"delay": "2h"}, "delay is '2h' (str). Write delay=timedelta(hours=2)"),
    ({"delay": None}, "delay is None. Write delay=timedelta(hours=2)"),
    ({"publish": 5}, "publish is 5 (int)"),
    ({"max_age": 3}, f"max_age is 3 (int). Write max_age={WEEK}"),
    ({"freshness": 3600}, f"freshness is 3600 (int). Write freshness={WEEK}"),
    ({"refresh": "1h"}, f"refresh is '1h' (str). Write refresh={WEEK}"),
    ({"alerts": "loud"}, "alerts is 'loud' (str). Write one of ['page', 'ticket', 'off']"),
    ({"alerts": []}, "alerts is [] (list). Write one of ['page', 'ticket', 'off']"),
    ({"tier": "daily"}, "tier is 'daily' (str). Write one of HOURLY, DAILY"),
    ({"cadence": "daily"}, "cadence is 'daily' (str). Write cadence=Daily(start=date(2025, 1, 1))"),
    ({"cadence": Daily}, "cadence is the class Daily. Write cadence=Daily(start=date(2025, 1, 1))"),
    ({"cadence": None}, "declares no cadence. A group has one cadence: cadence=Daily(start=date(2025, 1, 1))"),
    ({"start": START}, "declares a cadence and a start. A group has one cadence"),
    ({"cadence": None, "start": "2025-01-01"}, "start is '2025-01-01' (str). Write start=date(2025, 1, 1)"),
    ({"cadence": None, "start": at("2025-01-01")}, "an instant. Write start=date(2025, 1, 1)"),
    ({"cadence": None, "start": START}, "start= goes with a tier: tier=DAILY"),
    ({"entity": "carrier"}, "entity is 'carrier' (str). Write entity=Entity('carrier')"),
    ({"features": ["mean"]}, "features[0] is 'mean' (str). Write a list, features=[Feature("),
    ({"features": MEAN}, "features is Feature 'mean', not a list or tuple. Write a list, features=[Feature("),
    ({"features": "mean"}, "features is 'mean' (str), not a list or tuple"),
    ({"online": True}, f"online is True (bool). Write online=Online(ttl={WEEK})"),
    ({"online": Online}, f"online is the class Online. Write online=Online(ttl={WEEK})"),
    ({"owner": None}, "owner is None. Write owner='team:network-operations' or owner='ada@example.org'"),
    ({"owner": ""}, "nor an e-mail address. Write owner='team:network-operations'"),
    ({"version": "2"}, "version is '2' (str). Write a whole number, version=2"),
    ({"version": 1.5}, "version is 1.5 (float). Write a whole number, version=2"),
    ({"version": True}, "version is True (bool). Write a whole number, version=2"),
    ({"min_coverage": "0.9"}, "min_coverage is '0.9' (str). Write a share from 0 to 1, min_coverage=0.9"),
    ({"backfill": True}, "backfill is True (bool). Write backfill=Backfill(...)"),
    ({"tags": ["a"]}, "tags is ['a'] (list). Write tags={"),
    ({"tags": {"a": 1}}, "tags['a'] is 1 (int). Write tags={"),
    ({"features": []}, "declares no features. Name each column that it gives: features=[Feature(...)]"),
]


@pytest.mark.parametrize(("part", "hint"), GROUP_OF_ANOTHER_TYPE, ids=[str(part) for part, _ in GROUP_OF_ANOTHER_TYPE])
def test_part_of_another_type_is_refused_with_its_group_and_what_to_write(part: dict[str, Any], hint: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare(**part)
    assert str(caught.value).startswith("Group 'mean_delay'")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("part", "hint"),
    [
        ({"name": 3}, "Group name is 3 (int)"),
        ({"description": None}, "description is None. Write one line that says what its rows are"),
        ({"max_age": 3}, "Group 'clicks': max_age is 3 (int)"),
        ({"online": True}, "Group 'clicks': online is True (bool)"),
        ({"features": MEAN}, "Group 'clicks': features is Feature 'mean', not a list or tuple"),
        ({"entity": Entity}, "Group 'clicks': entity is the class Entity"),
        ({"freshness": 60}, "Group 'clicks': freshness is 60 (int)"),
    ],
)
def test_pushed_group_is_held_to_the_same_types(part: dict[str, Any], hint: str) -> None:
    sound = {"name": "clicks", "entity": CARRIER, "features": [MEAN], "owner": "team:app", "description": "Clicks."}
    with pytest.raises(DeclarationError) as caught:
        pushed_group(**{**sound, **part})
    assert hint in str(caught.value)


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
        "a population without the keys",
        lambda: Catalog(
            [source(schema={**FEED, "carrier": pl.Int64})], [declare(min_coverage=0.9, population="departures")]
        ),
        DeclarationError,
        "and not the keys {'carrier': String}. Name an input that has one row for each carrier, under the keys' own names.",
    ),
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


def test_failing_transform_is_told_without_the_plan_of_its_query() -> None:
    wrong = declare(renamed("m", lambda _, frame: frame.select("carrier", mean="dely")))
    with pytest.raises(DeclarationError) as caught:
        Catalog([source()], [wrong])
    text = str(caught.value)
    assert "\n" not in text
    assert "plan" not in text.lower()
    assert text.endswith("Correct the transform, or declare what it reads in the source's schema.")


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [
        (pl.Int32, 2**31 - 1),
        (pl.Int64, -(2**63)),
        (pl.Float32, 3.4028234663852886e38),
        (pl.Float64, 1.7976931348623157e308),
    ],
)
def test_bound_may_be_the_last_number_that_its_dtype_holds(dtype: Any, bound: float) -> None:
    feature = Feature("a", dtype, "A value", ge=bound, le=bound)
    assert (feature.ge, feature.le) == (bound, bound)


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
