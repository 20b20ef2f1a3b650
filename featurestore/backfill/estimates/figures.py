"""The figures of an estimate: each a quantity with what it rests on, from statistics, the ledger and stated defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

import polars as pl

from featurestore.backfill.estimates.files import TableFiles
from featurestore.backfill.estimates.history import REPLAYS, History
from featurestore.backfill.estimates.reads import Read, Weighed, files_of, is_dimension, weigh
from featurestore.backfill.strategies.proxy import proxy_groups
from featurestore.cost import Defaults
from featurestore.declaration.catalog import Catalog, Input
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.lineage import feature_lineage
from featurestore.declaration.source import Source
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.launch import Strategy
from featurestore.offline.raw import PLATFORM_COLUMNS
from featurestore.offline.store import OfflineStore
from featurestore.quantities import count_text

TEXT_BYTES = 16
LIST_ITEMS = 8
FOOTER_BYTES_PER_COLUMN = 250
"""What a text, a list and a file's footer are taken to have where a group has no table to measure."""
MILLION = 10**6
GROUP_TIMES = frozenset(["event_time", "knowledge_time", "created_at", "window_start", "is_deleted"])


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity, and what it rests on: past windows, statistics, or a default."""

    value: float
    rests_on: str


class Figures:
    """The figures of some windows of a group. Each table is opened once, when first asked for; no row is read.

    Args:
        runs: The windows that would be computed, oldest first, as they are given to runs; a run may have none to compute.
        defaults: For what has no past.
    """

    def __init__(
        self,
        store: OfflineStore,
        catalog: Catalog,
        group: FeatureGroup,
        runs: Sequence[Sequence[TimeWindow]],
        strategy: Strategy,
        defaults: Defaults,
    ) -> None:
        self.store, self.catalog, self.group, self.defaults = store, catalog, group, defaults
        self.windows = [window for run in runs for window in run]
        self.runs, self.strategy = runs, strategy
        self.history = History.of(store.ledger(group.stored_name), strategy)
        self._files: dict[str, TableFiles] = {}

    def files(self, name: str) -> TableFiles:
        """The files of a source or a group of the catalog, by when their rows were known."""
        if name not in self._files:
            self._files[name] = files_of(self.store, self._named[name])
        return self._files[name]

    @cached_property
    def _named(self) -> dict[str, Input]:
        sources: dict[str, Input] = {source.name: source for source in self.catalog.sources}
        return sources | {group.stored_name: group for group in self.catalog.groups}

    @cached_property
    def own(self) -> TableFiles:
        """The group's own files, by the windows that they hold."""
        return files_of(self.store, self.group, "window_start")

    def bytes_scanned(self, inputs: Mapping[str, Weighed]) -> Figure:
        footers = sum(self.files(name).sampled for name in inputs)
        files = sum(read.files for read in inputs.values())
        return Figure(
            sum(read.bytes for read in inputs.values()),
            f"Delta statistics of {files} files, column sizes from {footers} of their footers",
        )

    def bytes_used(self, reads: Mapping[str, Sequence[Read]]) -> Figure:
        """What of the scanned bytes lies in columns that features rest on, or that order and bound the rows."""
        used = feature_columns(self.catalog, self.group)
        narrowed = {
            name: [
                replace(read, columns=tuple(c for c in read.columns if c in used.get(name, read.columns)))
                for read in asked
            ]
            for name, asked in reads.items()
        }
        return Figure(
            sum(weigh(self.files(name), asked).bytes for name, asked in narrowed.items()),
            "of them keys, times and the columns that the features rest on; a read takes every column",
        )

    def read_requests(self, inputs: Mapping[str, Weighed]) -> Figure:
        total = sum(read.requests for read in inputs.values())
        return Figure(total, "in each run the footer of every file, and each column of the files in range")

    @cached_property
    def rows(self) -> Figure:
        past, asked = len(self.history.rows), len(self.windows)
        if past:
            known = self.history.has(self.windows)
            others = f", the other {asked - known} at their mean" if asked > known else ""
            return Figure(
                round(self.history.rows_in(self.windows)),
                f"{past} past windows: {known} of these as they were{others}",
            )
        if self.strategy not in REPLAYS:
            return Figure(
                round(sum(self._seen.values())), f"default: no windows yet; one row for each of {list(self._seen)}"
            )
        if self.group.kind == "events":
            driver = self.group.inputs[0]
            return Figure(round(self._seen[driver]), f"default: no windows yet; one row for each of {driver!r}")
        share = self.defaults.rows_per_input_row
        seen = sum(rows for name, rows in self._seen.items() if name in self._timed)
        return Figure(round(seen * share), f"default: no windows yet; {share:g} for each input row that a window sees")

    @cached_property
    def compute_seconds(self) -> Figure:
        asked, past = len(self.windows), len(self.history.seconds)
        if past:
            each = self.history.median_seconds
            return Figure(asked * each, f"{past} past windows: {each:.3g} s each, their median")
        seen = sum(self._seen.values())
        rate = self.defaults.seconds_per_million_rows
        return Figure(
            seen / MILLION * rate,
            f"default: no windows timed yet; {rate:g} s for a million of the {round(seen)} rows that they see",
        )

    @cached_property
    def overhead_seconds(self) -> Figure:
        a_run, a_window = self.defaults.seconds_per_run, self.defaults.seconds_per_window
        return Figure(
            len(self.runs) * a_run + len(self.windows) * a_window,
            f"default: {a_run:g} s a run and {a_window:g} s a window",
        )

    @cached_property
    def storage_bytes(self) -> Figure:
        """What new files take: the windows' rows, and the rows beside them in the files that are rewritten."""
        files = sum(len({(window.start.year, window.start.month) for window in run}) for run in self.runs)
        rows = self.rows.value + self._rows_beside
        if self.own.rows:
            a_row = self.own.data_bytes_per_row(self._columns)
            return Figure(
                round(rows * a_row + files * self.own.footer_bytes),
                f"{a_row:.3g} bytes a row and {self.own.footer_bytes:.0f} a file in this group's table",
            )
        a_row = sum(map(_width, self._schema.values()))
        return Figure(
            round(rows * a_row + files * FOOTER_BYTES_PER_COLUMN * len(self._columns)),
            f"default: no table yet; {a_row} bytes a row by its dtypes, not compressed",
        )

    @cached_property
    def replaced_bytes(self) -> Figure:
        return Figure(
            sum(self._touched["size_bytes"]),
            f"the {self._touched.height} files that hold these windows now: they stay until they are vacuumed",
        )

    @cached_property
    def online_writes(self) -> Figure:
        """Values that can be someone's latest and have not expired."""
        if self.group.online is None:
            return Figure(0, "the group is not served online")
        live = [window for window in self.windows if self._is_live(window)]
        if not live:
            return Figure(0, "values of these windows have expired")
        if self.group.kind == "events":
            return Figure(
                round(self._expected_rows(live)),
                f"at most: the rows of {count_text(len(live), 'window')}, of which each can be someone's latest",
            )
        newest = self.history.newest
        if newest is not None and live[-1].start < newest:
            return Figure(0, "a later window is promoted, whose values stay")
        return Figure(
            round(self._expected_rows(live[-1:])), "the rows of the last window: one value for each of its entities"
        )

    @cached_property
    def awaited(self) -> dict[str, int]:
        """By upstream group, how many windows in the reach of these are not promoted: an estimate knows nothing of them."""
        if self.strategy not in REPLAYS or not self.windows:
            return {}
        missing = {}
        for name, item in self._timed.items():
            if isinstance(item, FeatureGroup) and not isinstance(item.cadence, Windowless):
                reach = self.windows[0].end - self.group.lookback, self.windows[-1].end
                starts = [window.start for window in item.cadence.windows_between(*reach)]
                missing[name] = len(self.store.ledger(name).missing(starts))
        return missing

    def _is_live(self, window: TimeWindow) -> bool:
        ttl = self.group.online.ttl if self.group.online else None
        return ttl is None or window.end + ttl > self.store.clock()

    def _expected_rows(self, windows: Sequence[TimeWindow]) -> float:
        if self.history.rows:
            return self.history.rows_in(windows)
        return self.rows.value * len(windows) / len(self.windows)

    @property
    def _timed(self) -> dict[str, Input]:
        return {name: item for name, item in self.catalog.inputs_of(self.group).items() if not is_dimension(item)}

    @cached_property
    def _seen(self) -> dict[str, float]:
        """Rows that the computations of all windows are given together, by input, as the files' statistics have it."""
        snapshots = self.group.backfill.snapshots
        if self.strategy == "snapshot" and snapshots is not None:
            return {snapshots.source: self._rows_known(snapshots.source, snapshots.carry)}
        if self.strategy == "proxy":
            return {
                proxies.stored_name: self._proxy_rows(proxies) for proxies in proxy_groups(self.catalog, self.group)
            }
        return {name: self._rows_known(name, self._reach(name)) for name in self.group.inputs}

    def _reach(self, name: str) -> timedelta | None:
        """How long before its window's end (of a driver: before its cut-off) a window reads; None for all that is known."""
        if name not in self._timed:
            return None
        is_driver = self.group.kind == "events" and name == self.group.inputs[0]
        return (
            self.windows[0].end - self.windows[0].start - self.group.delay
            if is_driver and self.windows
            else self.group.lookback
        )

    def _rows_known(self, name: str, reach: timedelta | None) -> float:
        until = self.files(name).rows_until
        known = float(until([self.group.cut_off(window) for window in self.windows]).sum())
        if reach is None:
            return known
        return known - float(until([window.end - reach for window in self.windows]).sum())

    def _proxy_rows(self, proxies: FeatureGroup) -> float:
        past = History.of(self.store.ledger(proxies.stored_name), "full")
        return past.mean_rows * len(self.windows)

    @property
    def _schema(self) -> Mapping[str, pl.DataType]:
        return self.store.registry.group(self.group.stored_name).stored_schema

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple(self._schema)

    @cached_property
    def _touched(self) -> pl.DataFrame:
        parts = [self.own.between(run[0].start, run[-1].start).files for run in self.runs if run]
        return pl.concat(parts).unique("path") if parts else self.own.files.clear()

    @property
    def _rows_beside(self) -> float:
        """Rows of other windows in the files that are rewritten."""
        replaced = sum(self.history.rows.get(window.start, 0) for window in self.windows)
        return max(0, sum(self._touched["rows"]) - replaced)


def feature_columns(catalog: Catalog, group: FeatureGroup) -> dict[str, set[str]]:
    """Of each input of a group the stored columns that a read cannot do without: lineage, keys, and what orders versions."""
    lineage = feature_lineage(catalog, group).values()
    columns: dict[str, set[str]] = {}
    for name, item in catalog.inputs_of(group).items():
        rested_on = {column for columns_of in lineage for column in columns_of.get(name, ())}
        ordering = {*PLATFORM_COLUMNS, item.event_time} if isinstance(item, Source) else GROUP_TIMES
        columns[name] = rested_on | set(item.keys) | {column for column in ordering if column}
    return columns


def _width(dtype: pl.DataType) -> int:
    """Bytes of a value, before compression."""
    if isinstance(dtype, pl.String):
        return TEXT_BYTES
    if isinstance(dtype, pl.Array):
        return dtype.size * _width(pl.Float32())
    if isinstance(dtype, pl.List):
        return LIST_ITEMS * TEXT_BYTES // 2
    return 8 if dtype.is_temporal() or dtype in (pl.Int64(), pl.Float64()) else 4
