"""What a transform may see of its inputs, against a plain reading of the rules, row by row.

The oracle knows no sorting, no slices and no supersession times: it looks at every row for every window.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.compute.inputs import WindowInputs, static_inputs
from featurestore.declaration import (
    Catalog,
    Daily,
    Entity,
    Feature,
    FeatureGroup,
    Hourly,
    Source,
    Static,
    TimeWindow,
    feature_group,
)
from tests.catalogs import DAY, HOUR, MINUTE, START, T0, TIME
from tests.scale import cases

OWNER = "team:tests"
SPAN_HOURS = 8
Row = dict[str, Any]

thing = Entity("thing", keys={"thing": pl.Int64})

feed = Source(
    name="feed",
    schema={"key": pl.Int64, "thing": pl.Int64, "value": pl.Int64, "event_time": TIME, "known_at": TIME},
    keys=("key",),
    event_time="event_time",
    known_at="known_at",
)
side = Source(
    name="side",
    schema={"key": pl.Int64, "thing": pl.Int64, "value": pl.Int64, "event_time": TIME},
    keys=("key", "thing"),
    event_time="event_time",
    typical_delay=timedelta(0),
)
facts = Source(name="facts", schema={"key": pl.Int64, "value": pl.Int64}, keys=("key",))

value = Feature("value", pl.Int64, "A value")


@feature_group(
    entity=thing, features=[value], cadence=Hourly(start=START), lookback=HOUR, owner=OWNER, publish=timedelta(0)
)
def hourly_things(window: TimeWindow, feed: pl.LazyFrame) -> pl.LazyFrame:
    """A windowed group that others read."""
    return feed.group_by("thing").agg(pl.col("value").sum())


@feature_group(entity=thing, features=[value], cadence=Hourly(start=START), emits="events", owner=OWNER)
def thing_events(window: TimeWindow, feed: pl.LazyFrame) -> pl.LazyFrame:
    """An event group that others read."""
    return feed.select("thing", "event_time", "value")


@feature_group(entity=thing, features=[value], cadence=Static(valid_from=T0), owner=OWNER)
def thing_profile(facts: pl.LazyFrame) -> pl.LazyFrame:
    """A static group that others read."""
    return facts.select("value", thing="key")


UPSTREAM = {"hourly_things": hourly_things, "thing_events": thing_events, "thing_profile": thing_profile}


def reading_group(
    kind: str, driver: str, cadence: Hourly | Daily, lookback: timedelta, delay: timedelta
) -> FeatureGroup:
    """A group of some kind that reads every kind of input; `driver` first."""

    def rows_of_feed(
        window: TimeWindow, feed: Any, side: Any, facts: Any, hourly_things: Any, thing_events: Any, thing_profile: Any
    ) -> Any:
        """Reads a feed first."""
        return _any_rows(feed, kind)

    def rows_of_events(
        window: TimeWindow, thing_events: Any, side: Any, facts: Any, hourly_things: Any, feed: Any, thing_profile: Any
    ) -> Any:
        """Reads an event group first."""
        return _any_rows(thing_events, kind)

    def rows_of_windows(
        window: TimeWindow, hourly_things: Any, side: Any, facts: Any, thing_events: Any, feed: Any, thing_profile: Any
    ) -> Any:
        """Reads a windowed group first."""
        return _any_rows(hourly_things, kind)

    transform = {"feed": rows_of_feed, "thing_events": rows_of_events, "hourly_things": rows_of_windows}[driver]
    emits: Any = "events" if kind == "events" else "windows"
    return feature_group(
        entity=thing,
        features=[value],
        cadence=cadence,
        lookback=lookback,
        delay=delay,
        emits=emits,
        owner=OWNER,
        freshness=timedelta(days=90),
    )(transform)


def _any_rows(frame: pl.LazyFrame, kind: str) -> pl.LazyFrame:
    return frame.select("thing", "value", *(["event_time"] if kind == "events" else []))


@dataclass
class Rows:
    """An input reader over frames in memory, which gives exactly the span it is asked for."""

    frames: Mapping[str, pl.DataFrame]

    def source_rows(self, source: Source, after: datetime | None, until: datetime) -> pl.DataFrame:
        return self._between(source.name, after, until)

    def group_rows(self, group: FeatureGroup, after: datetime | None, until: datetime) -> pl.DataFrame:
        return self._between(group.stored_name, after, until)

    def _between(self, name: str, after: datetime | None, until: datetime) -> pl.DataFrame:
        known = self.frames[name].filter(pl.col("knowledge_time") <= until)
        return known if after is None else known.filter(pl.col("knowledge_time") >= after)


# The oracle.


def visible_rows(
    rows: Sequence[Row], name: str, group: FeatureGroup, window: TimeWindow, *, is_driver: bool
) -> list[Row]:
    """Which rows of an input the transform of one window sees, by the design's sentences."""
    cut_off, since = window.end + group.delay, window.end - group.lookback
    newest = newest_known(rows, name, cut_off)
    if is_driver:
        is_first = window.start == T0
        return [row for row in newest if is_first or row["knowledge_time"] > cut_off - (window.end - window.start)]
    if name in ("facts", "thing_profile"):
        return newest
    if name == "hourly_things":
        return [row for row in newest if row["window_start"] >= since and row["window_start"] + HOUR <= window.end]
    if group.kind == "events":
        return [row for row in newest if row["event_time"] >= since]
    return [row for row in newest if since <= row["event_time"] < window.end]


RECORD = {
    "feed": ("key",),
    "side": ("key", "thing"),
    "facts": ("key",),
    "hourly_things": ("thing", "window_start"),
    "thing_events": ("thing", "event_time"),
    "thing_profile": ("thing",),
}


def newest_known(rows: Sequence[Row], name: str, cut_off: datetime) -> list[Row]:
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        record = tuple(row[column] for column in RECORD[name])
        if row["knowledge_time"] <= cut_off and (record not in best or rank(row) > rank(best[record])):
            best[record] = row
    return [row for row in best.values() if not row.get("is_deleted")]


def rank(row: Row) -> tuple[Any, ...]:
    if "landed_at" in row:
        return (row["knowledge_time"], row["landed_at"], row["landing_file"], row["landing_row"])
    return (row["knowledge_time"], row["created_at"])


# Generated cases: few keys and coarse instants, so that ties, corrections and exact boundaries are common.

moments = st.integers(-6, SPAN_HOURS * 4).map(lambda quarter: T0 + quarter * 15 * MINUTE)
lags = st.sampled_from([0, 0, 1, 2, 4, 9, 30]).map(lambda quarter: quarter * 15 * MINUTE)
small = st.integers(0, 3)


@st.composite
def source_rows(draw: st.DrawFn, source: Source) -> list[Row]:
    rows = []
    for number in range(draw(st.integers(0, 12))):
        row: Row = {"key": draw(small), "value": number}
        event = draw(moments)
        row |= {"thing": draw(small), "event_time": event} if not source.is_timeless else {}
        known = event + draw(lags)
        row |= {"known_at": known} if source.known_at else {}
        row |= {"knowledge_time": known, "landed_at": known + draw(lags), "is_history": draw(st.booleans())}
        rows.append({**row, "landing_file": draw(st.sampled_from(["a", "b"])), "landing_row": number})
    return rows


@st.composite
def windowed_rows(draw: st.DrawFn) -> list[Row]:
    places = draw(st.lists(st.tuples(small, st.integers(-3, SPAN_HOURS)), max_size=12, unique=True))
    rows = []
    for number, (key, hour) in enumerate(places):
        end = T0 + (hour + 1) * HOUR
        rows.append(
            {
                "thing": key,
                "event_time": end,
                "knowledge_time": end,
                "window_start": end - HOUR,
                "value": number,
                **made(draw),
            }
        )
    return rows


@st.composite
def event_rows(draw: st.DrawFn) -> list[Row]:
    rows = []
    for number in range(draw(st.integers(0, 12))):
        event = draw(moments)
        known = event + draw(lags)
        rows.append(
            {
                "thing": draw(small),
                "event_time": event,
                "knowledge_time": known,
                "window_start": known,
                "value": number,
                **made(draw),
            }
        )
    return list({(row["thing"], row["event_time"], rank(row)): row for row in rows}.values())


@st.composite
def static_rows(draw: st.DrawFn) -> list[Row]:
    rows = []
    for number in range(draw(st.integers(0, 10))):
        known = draw(moments)
        row = {
            "thing": draw(small),
            "event_time": known,
            "knowledge_time": known,
            "window_start": known,
            "value": number,
        }
        rows.append({**row, **made(draw), "is_deleted": draw(st.booleans())})
    return list({(row["thing"], rank(row)): row for row in rows}.values())


def made(draw: st.DrawFn) -> Row:
    return {"created_at": T0 + draw(st.integers(0, 1)) * DAY, "is_deleted": False, "schema_number": 1}


PLATFORM = {
    "knowledge_time": TIME,
    "landed_at": TIME,
    "is_history": pl.Boolean,
    "landing_file": pl.String,
    "landing_row": pl.Int64,
}
STORED = {
    "thing": pl.Int64,
    "event_time": TIME,
    "knowledge_time": TIME,
    "created_at": TIME,
    "window_start": TIME,
    "is_deleted": pl.Boolean,
    "schema_number": pl.Int32,
    "value": pl.Int64,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    source.name: {**source.schema, **PLATFORM} for source in (feed, side, facts)
} | dict.fromkeys(UPSTREAM, STORED)


@dataclass(frozen=True)
class Case:
    """A group, the windows of a run, and the rows of every input, in the order in which they happen to lie."""

    group: FeatureGroup
    windows: list[TimeWindow]
    rows: dict[str, list[Row]]

    @cached_property
    def catalog(self) -> Catalog:
        return Catalog([feed, side, facts], [*UPSTREAM.values(), self.group])

    def inputs(
        self, rows: Mapping[str, Sequence[Row]] | None = None, windows: Sequence[TimeWindow] | None = None
    ) -> WindowInputs:
        frames = {
            name: pl.DataFrame(list(part), schema=SCHEMAS[name], orient="row")
            for name, part in (rows or self.rows).items()
        }
        return WindowInputs(self.catalog, self.group, windows or self.windows, Rows(frames))


@st.composite
def runs(draw: st.DrawFn, kinds: Sequence[str] = ("windowed", "events")) -> Case:
    kind = draw(st.sampled_from(kinds))
    driver = draw(st.sampled_from(["feed", "thing_events", "hourly_things"]))
    lookback = HOUR + draw(st.integers(0, 12)) * 15 * MINUTE
    delay = draw(st.integers(0, 8)) * 15 * MINUTE
    group = reading_group(kind, driver, Hourly(start=START), lookback, delay)
    chosen = draw(st.sets(st.integers(0, SPAN_HOURS - 1), min_size=1))
    windows = [TimeWindow(T0 + hour * HOUR, T0 + (hour + 1) * HOUR) for hour in sorted(chosen)]
    rows = {source.name: draw(source_rows(source)) for source in (feed, side, facts)}
    rows |= {
        "hourly_things": draw(windowed_rows()),
        "thing_events": draw(event_rows()),
        "thing_profile": draw(static_rows()),
    }
    return Case(group, windows, rows)


def seen(inputs: WindowInputs, window: TimeWindow) -> dict[str, list[int]]:
    """The `value` of every row that the transform of a window sees: it names the row."""
    frames = inputs.of(window).frames
    return {name: sorted(frame.select("value").collect()["value"]) for name, frame in frames.items()}


@settings(max_examples=cases(600, 100), deadline=None)
@given(runs())
def test_transform_sees_what_the_rules_say(case: Case) -> None:
    inputs = case.inputs()
    for window in case.windows:
        expected = {
            name: sorted(
                row["value"]
                for row in visible_rows(case.rows[name], name, case.group, window, is_driver=is_driver(case, name))
            )
            for name in case.group.inputs
        }
        assert seen(inputs, window) == expected


def is_driver(case: Case, name: str) -> bool:
    return case.group.kind == "events" and name == case.group.inputs[0]


@settings(max_examples=cases(600, 40), deadline=None)
@given(runs(), st.data())
def test_no_row_known_after_the_cut_off_changes_what_is_seen(case: Case, data: st.DataObject) -> None:
    window = data.draw(st.sampled_from(case.windows))
    cut_off = case.group.cut_off(window)
    known = {name: [row for row in rows if row["knowledge_time"] <= cut_off] for name, rows in case.rows.items()}
    assert seen(case.inputs(), window) == seen(case.inputs(known), window)


@settings(max_examples=cases(600, 40), deadline=None)
@given(runs())
def test_a_window_sees_the_same_in_whatever_run_it_is_computed(case: Case) -> None:
    together = case.inputs()
    assert [seen(together, w) for w in case.windows] == [seen(case.inputs(windows=[w]), w) for w in case.windows]


@settings(max_examples=cases(600, 40), deadline=None)
@given(runs(), st.randoms(use_true_random=False))
def test_rows_come_in_one_order_however_they_are_stored(case: Case, chance: Any) -> None:
    shuffled = {name: chance.sample(rows, len(rows)) for name, rows in case.rows.items()}
    for window in case.windows:
        ours, theirs = (inputs.of(window).frames for inputs in (case.inputs(), case.inputs(shuffled)))
        for name in case.group.inputs:
            assert ours[name].collect().rows() == theirs[name].collect().rows()


def test_rows_of_one_upstream_window_come_in_the_order_of_their_keys() -> None:
    end = T0 + HOUR
    row = {
        "event_time": end,
        "knowledge_time": end,
        "created_at": end,
        "window_start": T0,
        "is_deleted": False,
        "schema_number": 1,
    }
    rows: dict[str, list[Row]] = {name: [] for name in SCHEMAS}
    rows["hourly_things"] = [{**row, "thing": thing, "value": thing} for thing in (2, 0, 3, 1)]
    window = TimeWindow(T0, end)
    frames = (
        Case(reading_group("windowed", "feed", Hourly(start=START), HOUR, HOUR), [window], rows)
        .inputs()
        .of(window)
        .frames
    )
    assert frames["hourly_things"].collect()["thing"].to_list() == [0, 1, 2, 3]


@settings(max_examples=cases(600, 100), deadline=None)
@given(runs(kinds=["events"]))
def test_every_driver_row_is_in_exactly_one_window_unless_superseded_before(case: Case) -> None:
    driver = case.group.inputs[0]
    windows = [TimeWindow(T0 + hour * HOUR, T0 + (hour + 1) * HOUR) for hour in range(SPAN_HOURS)]
    inputs = case.inputs(windows=windows)
    times = Counter(value for window in windows for value in seen(inputs, window)[driver])
    for row in case.rows[driver]:
        assert times[row["value"]] == (1 if is_delivered(case, row, windows) else 0)


def is_delivered(case: Case, row: Row, windows: Sequence[TimeWindow]) -> bool:
    """Whether the first window whose cut-off comes after the row was known still finds it the newest of its record."""
    cut_offs = [case.group.cut_off(window) for window in windows if row["knowledge_time"] <= case.group.cut_off(window)]
    return bool(cut_offs) and row in newest_known(case.rows[case.group.inputs[0]], case.group.inputs[0], cut_offs[0])


@settings(max_examples=cases(600, 40), deadline=None)
@given(source_rows(facts), static_rows(), moments)
def test_static_group_sees_the_newest_version_of_each_record(
    rows: list[Row], profile: list[Row], instant: datetime
) -> None:
    @feature_group(entity=thing, features=[value], cadence=Static(valid_from=T0), owner=OWNER)
    def both(facts: pl.LazyFrame, thing_profile: pl.LazyFrame) -> pl.LazyFrame:
        """Reads a timeless source and a static group."""
        return thing_profile.select("thing", "value")

    catalog = Catalog([facts], [thing_profile, both])
    frames = {
        name: pl.DataFrame(part, schema=SCHEMAS[name], orient="row")
        for name, part in (("facts", rows), ("thing_profile", profile))
    }
    visible = static_inputs(catalog, both, instant, Rows(frames))
    for name, part in (("facts", rows), ("thing_profile", profile)):
        expected = sorted(row["value"] for row in newest_known(part, name, instant))
        assert sorted(visible.frames[name].collect()["value"]) == expected


@settings(max_examples=cases(300, 20), deadline=None)
@given(runs())
def test_history_rows_are_counted_among_the_rows_seen(case: Case) -> None:
    inputs = case.inputs()
    for window in case.windows:
        rows = {
            n: visible_rows(case.rows[n], n, case.group, window, is_driver=is_driver(case, n))
            for n in case.group.inputs
        }
        visible = inputs.of(window)
        assert visible.rows == sum(map(len, rows.values()))
        assert visible.history_rows == sum(bool(row.get("is_history")) for part in rows.values() for row in part)


def test_frames_have_the_declared_columns_and_no_other() -> None:
    empty: dict[str, list[Row]] = {name: [] for name in SCHEMAS}
    group = reading_group("events", "feed", Hourly(start=START), HOUR, timedelta(0))
    frames = Case(group, [TimeWindow(T0, T0 + HOUR)], empty).inputs().of(TimeWindow(T0, T0 + HOUR)).frames
    assert {name: frame.collect_schema().names() for name, frame in frames.items()} == {
        "feed": ["key", "thing", "value", "event_time", "known_at"],
        "side": ["key", "thing", "value", "event_time"],
        "facts": ["key", "value"],
        "hourly_things": ["thing", "event_time", "value"],
        "thing_events": ["thing", "event_time", "value"],
        "thing_profile": ["thing", "value"],
    }


@pytest.mark.parametrize(("start", "is_seen"), [(-1, False), (0, True), (23, True), (24, False)])
def test_windows_of_an_upstream_group_count_only_if_they_lie_wholly_inside_the_lookback(
    start: int, is_seen: bool
) -> None:
    group = reading_group("windowed", "feed", Daily(start=START), DAY, 2 * DAY)
    end = T0 + (start + 1) * HOUR
    row = {"thing": 1, "event_time": end, "knowledge_time": end, "created_at": end, "window_start": end - HOUR}
    rows: dict[str, list[Row]] = {name: [] for name in SCHEMAS}
    rows["hourly_things"] = [{**row, "is_deleted": False, "schema_number": 1, "value": 7}]
    window = TimeWindow(T0, T0 + DAY)
    assert seen(Case(group, [window], rows).inputs(), window)["hourly_things"] == ([7] if is_seen else [])
