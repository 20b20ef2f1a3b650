"""What came to the inputs of windows after they were read: read from logs and statistics first, from rows where those leave a doubt.

A table's version says little: sources get rows all the time. What counts is whether a row came that the window would
have read. An answer may be yes without need, never no where a recomputation would see other rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import cached_property
from typing import Protocol

import polars as pl
from deltalake import DeltaTable

from featurestore.compute.inputs import ReadSpan, span_read, windows_read
from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.location import Location
from featurestore.offline.log import NO_FENCE, PUSHED_AT, LogEntry, read_entry
from featurestore.offline.raw import SourceTable
from featurestore.offline.storage import Storage
from featurestore.offline.table import FeatureTable
from featurestore.offline.view import ROUNDING, scan_files

READERS = 16
NO_TABLE = -1
ADDED_IN = "__added_in"


class Arrivals(Protocol):
    """What came to one input of a group."""

    def reach(self, window: TimeWindow, since: int) -> bool:
        """Whether, after version `since` of the input, something came that the transform of a window may see."""
        ...


def entries_after(location: Location, since: int, newest: int) -> Iterator[tuple[int, LogEntry | None]]:
    """The commits after a version, several read at a time: in a bucket each is a request of its own."""
    versions = range(since + 1, newest + 1)
    with ThreadPoolExecutor(READERS) as readers:
        yield from zip(versions, readers.map(lambda version: read_entry(location, version), versions), strict=True)


class ChangedWindows:
    """When each window of a windowed or event group last changed, looking back to a version of its table.

    Args:
        group: The declaration, whose cadence cuts the windows.
        since: The version to look back to; `NO_TABLE` before the first.
    """

    def __init__(self, group: FeatureGroup, table: FeatureTable, since: int) -> None:
        self._group = group
        self._newest = NO_TABLE if (version := table.version()) is None else version
        self._last: dict[datetime, int] = {}
        self._unknown = NO_TABLE
        for version, entry in entries_after(table.location, since, self._newest):
            self._note(version, entry)

    def _note(self, version: int, entry: LogEntry | None) -> None:
        if isinstance(self._group.cadence, Windowless) or (entry is not None and not entry.has_changed_data):
            return
        if entry is None or entry.own is None:
            self._unknown = version
            return
        for span in entry.own.windows:
            for window in self._group.cadence.windows_between(span.start, span.end):
                self._last[window.start] = version

    def any_of(self, windows: Sequence[TimeWindow], since: int) -> bool:
        """Whether one of some windows changed after a version, or may have, as commits that are not ours do not say."""
        if since > self._newest or self._unknown > since:
            return True
        return any(self._last.get(window.start, NO_TABLE) > since for window in windows)


class WindowArrivals:
    """What came to a group that another group reads, window by window."""

    def __init__(
        self, reader: FeatureGroup, name: str, upstream: FeatureGroup, table: FeatureTable, since: int
    ) -> None:
        self._reader, self._name, self._upstream = reader, name, upstream
        self._changed = ChangedWindows(upstream, table, since)

    def reach(self, window: TimeWindow, since: int) -> bool:
        return self._changed.any_of(windows_read(self._reader, self._name, self._upstream, window), since)


class LoadArrivals:
    """The loads of a static group, or pushes to a group, that another group reads: each is known from its instant on.

    The first load is known from before that; a push never is.
    """

    def __init__(self, reader: FeatureGroup, upstream: FeatureGroup, table: FeatureTable, since: int) -> None:
        self._reader, self._is_static = reader, upstream.kind == "static"
        self._newest = NO_TABLE if (version := table.version()) is None else version
        changed = [
            (v, e) for v, e in entries_after(table.location, since, self._newest) if e is None or e.has_changed_data
        ]
        self._known = [(version, _load_instant(entry)) for version, entry in changed if version > NO_FENCE]

    def reach(self, window: TimeWindow, since: int) -> bool:
        if since > self._newest or (self._is_static and since <= NO_FENCE and self._known):
            return True
        cut_off = self._reader.cut_off(window)
        return any(version > since and (known is None or known <= cut_off) for version, known in self._known)


def _load_instant(entry: LogEntry | None) -> datetime | None:
    """Since when a load or a push is known; None if the commit is neither, of ours."""
    if entry is not None and entry.own is not None and entry.own.kind == "push":
        return datetime.fromisoformat(entry.own.metadata[PUSHED_AT])
    if entry is None or entry.own is None or entry.own.kind != "load":
        return None
    return min(span.start for span in entry.own.windows)


class RowArrivals:
    """The rows that came to a source, of files whose statistics do not exclude every window asked about.

    Args:
        reader: The group whose windows read the source.
        source: Its parameter in the transform has the source's name.
        windows: All windows that will be asked about, with the version each was read at.
    """

    def __init__(
        self, reader: FeatureGroup, source: Source, table: SourceTable, windows: Mapping[TimeWindow, int]
    ) -> None:
        self._reader, self._source, self._table = reader, source, table
        opened = table.open()
        self._newest = NO_TABLE if opened is None else opened.version()
        self._spans = {window: span_read(reader, source.name, source, window) for window in windows}
        self._unknown = NO_TABLE
        added = self._files_added(min(windows.values(), default=self._newest))
        self._files = _with_known(added, opened)
        in_doubt = {window: self._files_for(window, since) for window, since in windows.items()}
        self._doubtful = {window: paths for window, paths in in_doubt.items() if paths}

    def reach(self, window: TimeWindow, since: int) -> bool:
        if since > self._newest or self._unknown > since:
            return True
        if window not in self._doubtful:
            return False
        arrived = self._arrived_in(window, since)
        if arrived.is_empty():
            return False
        inside = arrived.filter(_in_event_span(self._spans[window], self._source))
        return bool(inside.height) or self._displaces(arrived, self._spans[window])

    def _files_added(self, since: int) -> dict[str, int]:
        """The version that brought each file; files that a commit took away again make everything before it unknown."""
        added: dict[str, int] = {}
        for version, entry in entries_after(self._table.location, since, self._newest):
            if entry is None or entry.removed:
                self._unknown = version
            else:
                added |= dict.fromkeys(entry.added, version)
        return added

    def _files_for(self, window: TimeWindow, since: int) -> list[str]:
        """Files that came after a version and may hold a row known in time for the window."""
        may_hold = (pl.col(ADDED_IN) > since) & _known_in(self._spans[window], "first", "last")
        return self._files.filter(may_hold)["path"].to_list()

    @cached_property
    def _arrived(self) -> pl.DataFrame:
        """Times and keys of the rows of all files in doubt, in the order in which they became known."""
        paths = {path for named in self._doubtful.values() for path in named}
        doubtful = self._files.filter(pl.col("path").is_in(sorted(paths)))
        parts = [
            scan_files(self._storage, part["path"].to_list(), self._columns).with_columns(
                pl.lit(version).alias(ADDED_IN)
            )
            for (version,), part in doubtful.group_by(ADDED_IN, maintain_order=True)
        ]
        return pl.concat(pl.collect_all(parts)).sort("knowledge_time")

    def _arrived_in(self, window: TimeWindow, since: int) -> pl.DataFrame:
        span, known = self._spans[window], self._arrived["knowledge_time"]
        bound = max((b for b in (span.known_after, span.event_from) if b is not None), default=None)
        first = 0 if bound is None else known.search_sorted(bound, side="left")
        rows = self._arrived.slice(first, known.search_sorted(span.known_by, side="right") - first)
        return rows.filter((pl.col(ADDED_IN) > since) & _known_in(span, "knowledge_time", "knowledge_time"))

    def _displaces(self, arrived: pl.DataFrame, span: ReadSpan) -> bool:
        """Whether a row outside the span of event times takes the place of an older version inside it."""
        known = self._read_before.filter(
            (pl.col("knowledge_time") <= span.known_by) & _in_event_span(span, self._source)
        )
        newer = arrived.select(*self._source.keys, later="knowledge_time")
        pairs = known.join(newer, on=list(self._source.keys))
        return bool(pairs.filter(pl.col("later") >= pl.col("knowledge_time")).height)

    @cached_property
    def _read_before(self) -> pl.DataFrame:
        """Every row of the source whose key is among those that came."""
        keys = self._arrived.select(self._source.keys).unique().lazy()
        rows = self._table.scan().select(list(self._columns))
        return rows.join(keys, on=list(self._source.keys), how="semi").collect()

    @property
    def _columns(self) -> dict[str, pl.DataType]:
        times = [self._source.event_time] if self._source.event_time is not None else []
        return {
            name: self._table.schema[name] for name in dict.fromkeys([*self._source.keys, *times, "knowledge_time"])
        }

    @property
    def _storage(self) -> Storage:
        return Storage(self._table.location)


def _in_event_span(span: ReadSpan, source: Source) -> pl.Expr:
    inside = pl.lit(True)
    if source.event_time is not None and span.event_from is not None:
        inside &= pl.col(source.event_time) >= span.event_from
    if source.event_time is not None and span.event_before is not None:
        inside &= pl.col(source.event_time) < span.event_before
    return inside


def _known_in(span: ReadSpan, first: str, last: str) -> pl.Expr:
    """Whether something known from `first` to `last` (one row, or a file; null where not told) may count for a span.

    A record is not known before it happens, so that event times bound knowledge times from below.
    """
    inside = pl.col(first).is_null() | (pl.col(first) <= span.known_by)
    if span.known_after is not None:
        inside &= pl.col(last).is_null() | (pl.col(last) > span.known_after)
    if span.event_from is not None:
        inside &= pl.col(last).is_null() | (pl.col(last) >= span.event_from)
    return inside


def _with_known(added: Mapping[str, int], table: DeltaTable | None) -> pl.DataFrame:
    """Files with the version that brought them, and the first and last knowledge time in each as far as Delta tells."""
    files = pl.DataFrame(
        {"path": list(added), ADDED_IN: list(added.values())}, schema={"path": pl.String(), ADDED_IN: pl.Int64()}
    )
    nothing = pl.lit(None, dtype=TIMESTAMP)
    if table is None or files.is_empty():
        return files.with_columns(first=nothing, last=nothing)
    told = pl.DataFrame(table.get_add_actions(flatten=True))
    ends = {"first": ("min.knowledge_time", -ROUNDING), "last": ("max.knowledge_time", ROUNDING)}
    spans = [_told(told, column, by).alias(name) for name, (column, by) in ends.items()]
    return files.join(told.select("path", *spans), on="path", how="left")


def _told(files: pl.DataFrame, column: str, by: timedelta) -> pl.Expr:
    return (pl.col(column).cast(TIMESTAMP) if column in files.columns else pl.lit(None, dtype=TIMESTAMP)) + by
