"""What the transform of a group may see of its inputs, window by window.

The rule for each kind of input stands in one function below. A `WindowInputs` loads the rows that a run of windows can
reach once, and cuts each window from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

from featurestore.compute.knowledge import KnownRows
from featurestore.declaration.catalog import Catalog, Input, input_schema
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.errors import DeclarationError


class InputReader(Protocol):
    """Where the rows of inputs come from."""

    def source_rows(self, source: Source, after: datetime | None, until: datetime) -> pl.DataFrame:
        """Raw rows with `after <= knowledge_time <= until`; declared and platform columns."""
        ...

    def group_rows(self, group: FeatureGroup, after: datetime | None, until: datetime) -> pl.DataFrame:
        """Stored rows with `after <= knowledge_time <= until`; all stored columns."""
        ...


@dataclass(frozen=True, slots=True)
class ReadSpan:
    """A window's read of one input: of each record the newest version known by `known_by`, if it lies in the span.

    Args:
        known_by: The cut-off, inclusive.
        known_after: Only versions that became known after this.
        event_from: Smallest event time, inclusive.
        event_before: Event times end before this.
    """

    known_by: datetime
    known_after: datetime | None = None
    event_from: datetime | None = None
    event_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Visible:
    """The inputs of one window, and how many of their rows are known only by their author's word."""

    frames: Mapping[str, pl.LazyFrame]
    rows: int
    history_rows: int


class WindowInputs:
    """The inputs of a run of windows of one group, read once.

    Args:
        catalog: Resolves the group's parameters.
        group: A windowed or event group.
        windows: Windows to compute, oldest first; together they bound what is read.
        reader: Where rows come from.
    """

    def __init__(
        self, catalog: Catalog, group: FeatureGroup, windows: Sequence[TimeWindow], reader: InputReader
    ) -> None:
        self.group = group
        self._inputs = catalog.inputs_of(group)
        self._known = {name: self._load(name, item, windows, reader) for name, item in self._inputs.items()}

    def _load(self, name: str, item: Input, windows: Sequence[TimeWindow], reader: InputReader) -> KnownRows:
        until = self.group.cut_off(windows[-1])
        after: datetime | None = windows[0].end - self.group.lookback
        if _is_dimension(item):
            after = None
        elif _is_driver(self.group, name):
            after = _previous_cut_off(self.group, windows[0])
        return _known(item, reader, after, until)

    def of(self, window: TimeWindow) -> Visible:
        """Every input as the transform of one window may see it."""
        return _visible(self._inputs, {name: self._rows(name, item, window) for name, item in self._inputs.items()})

    def _rows(self, name: str, item: Input, window: TimeWindow) -> pl.DataFrame:
        span = span_read(self.group, name, item, window)
        rows = self._known[name].newest(
            span.known_by, known_after=span.known_after, event_from=span.event_from, event_before=span.event_before
        )
        if _reads_whole_windows(self.group, name, item) and span.event_from is not None:
            return _whole_windows(item, rows, span.event_from, window.end)
        return rows


def span_read(group: FeatureGroup, name: str, item: Input, window: TimeWindow) -> ReadSpan:
    """Which rows of an input the transform of a window may see.

    Of a windowed group it is given, among these, only the rows of windows that lie wholly inside the lookback.
    """
    cut_off, since = group.cut_off(window), window.end - group.lookback
    if _is_driver(group, name):
        return ReadSpan(cut_off, known_after=_previous_cut_off(group, window))
    if _is_dimension(item):
        return ReadSpan(cut_off)
    is_open_ended = group.kind == "events" or _reads_whole_windows(group, name, item)
    return ReadSpan(cut_off, event_from=since, event_before=None if is_open_ended else window.end)


def windows_read(group: FeatureGroup, name: str, upstream: FeatureGroup, window: TimeWindow) -> list[TimeWindow]:
    """The windows of an upstream group whose rows the transform of a window may see: it waits for all of them.

    Of a windowed group those wholly inside the lookback. Of an event group, and of a driver, those that are served in
    the span of knowledge times that the transform is given, whatever the event times of their rows. Static and pushed groups
    have no windows to wait for.
    """
    if isinstance(upstream.cadence, Windowless):
        return []
    since: datetime | None = window.end - group.lookback
    is_driver = _is_driver(group, name)
    if upstream.kind == "windowed" and not is_driver and since is not None:
        return list(upstream.cadence.windows_between(since, window.end))
    served_after = upstream.delay + upstream.publish
    since = _previous_cut_off(group, window) if is_driver else since
    first = upstream.cadence.origin if since is None else since - served_after - upstream.cadence.length
    served = upstream.cadence.windows_between(first, group.cut_off(window) - served_after)
    if since is None:
        return list(served)
    return [w for w in served if upstream.horizon(w) > since or (upstream.horizon(w) == since and not is_driver)]


def static_inputs(catalog: Catalog, group: FeatureGroup, instant: datetime, reader: InputReader) -> Visible:
    """The inputs of a load of a static group: of every record the newest version known by now."""
    inputs = catalog.inputs_of(group)
    return _visible(
        inputs, {name: _known(item, reader, None, instant).newest(instant) for name, item in inputs.items()}
    )


def _visible(inputs: Mapping[str, Input], rows: Mapping[str, pl.DataFrame]) -> Visible:
    return Visible(
        frames={name: rows[name].lazy().select(list(input_schema(item))) for name, item in inputs.items()},
        rows=sum(frame.height for frame in rows.values()),
        history_rows=sum(int(frame["is_history"].sum()) for frame in rows.values() if "is_history" in frame.columns),
    )


def _is_driver(group: FeatureGroup, name: str) -> bool:
    return group.kind == "events" and name == group.inputs[0]


def _reads_whole_windows(group: FeatureGroup, name: str, item: Input) -> bool:
    return isinstance(item, FeatureGroup) and item.kind == "windowed" and not _is_driver(group, name)


def _is_dimension(item: Input) -> bool:
    return item.is_timeless if isinstance(item, Source) else item.kind == "static"


def _previous_cut_off(group: FeatureGroup, window: TimeWindow) -> datetime | None:
    """The cut-off of the window before; None for the first window, which takes all that was known by its own."""
    if isinstance(group.cadence, Windowless):
        raise DeclarationError(f"Group {group.name!r} is {group.kind} and has no windows.")
    if window.start <= group.cadence.origin:
        return None
    return group.cut_off(window) - group.cadence.length


def _known(item: Input, reader: InputReader, after: datetime | None, until: datetime) -> KnownRows:
    if isinstance(item, Source):
        landing = ("knowledge_time", "landed_at", "landing_file", "landing_row")
        return KnownRows(
            reader.source_rows(item, after, until), keys=item.keys, version=landing, event_time=item.event_time
        )
    record = {"windowed": ("window_start",), "events": ("event_time",), "pushed": ("event_time",), "static": ()}[
        item.kind
    ]
    rows = reader.group_rows(item, after, until).with_columns(
        pl.col(name).cast(dtype) for name, dtype in item.row_schema.items()
    )
    # The keys order no versions; they give the rows of one window one order, whatever files they lie in.
    version = ("knowledge_time", *item.keys, *record, "created_at")
    return KnownRows(rows, keys=(*item.keys, *record), version=version, event_time="event_time")


def _whole_windows(upstream: Input, rows: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    if isinstance(upstream, Source) or isinstance(upstream.cadence, Windowless):
        raise DeclarationError(f"Input {upstream.name!r} has no windows.")
    last_start = end - upstream.cadence.length
    return rows.filter((pl.col("window_start") >= start) & (pl.col("window_start") <= last_start))
