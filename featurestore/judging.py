"""Judging the computed windows of a run: the gate of each, with the rows that it is to be compared with.

What is wrong with rows is said by `quality.py`, which is pure; what they are held against is read here.
"""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from featurestore.compute.window import ComputedRows
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow
from featurestore.launch import Launch
from featurestore.offline.store import OfflineStore
from featurestore.quality import Verdict, judge_windows, with_coverage

POPULATION_WINDOWS = 7


def judge_computed(
    store: OfflineStore, group: FeatureGroup, launch: Launch, computed: Mapping[TimeWindow, ComputedRows]
) -> dict[TimeWindow, Verdict]:
    """The gate's verdict on each computed window of a run, oldest first.

    Args:
        store: Where promoted windows are read.
        group: The declaration.
        launch: Decides what a window's distribution is compared with.
        computed: Windows in ascending order.
    """
    registered = store.registry.group(group.stored_name)
    population = _Population(store, group, computed)
    verdicts = {}
    rows_verdicts = judge_windows(registered, [result.rows for result in computed.values()])
    for (window, result), rows_verdict in zip(computed.items(), rows_verdicts, strict=True):
        verdict = with_coverage(registered, rows_verdict, result.rows, population.before(window))
        if verdict.passed:
            population.add(window, result.rows)
        verdicts[window] = verdict
    return verdicts


class _Population:
    """The entities of the windows before a window, for groups that declare a coverage."""

    def __init__(self, store: OfflineStore, group: FeatureGroup, computed: Mapping[TimeWindow, ComputedRows]) -> None:
        self._registered = store.registry.group(group.stored_name)
        self._table = store.table(group.stored_name)
        self._seen: dict[datetime, pl.DataFrame] = {}
        if self._registered.min_coverage is not None and computed:
            self._seen = self._promoted(min(computed), max(computed))

    def _promoted(self, first: TimeWindow, last: TimeWindow) -> dict[datetime, pl.DataFrame]:
        """What production has from before the first window up to the last; windows of the run replace theirs as they pass."""
        since = first.start - POPULATION_WINDOWS * (first.end - first.start)
        rows = self._table.scan().filter((pl.col("window_start") >= since) & (pl.col("window_start") < last.start))
        keys = rows.select("window_start", *self._registered.key_names).unique().collect()
        return {start: part.drop("window_start") for (start,), part in keys.group_by("window_start")}

    def add(self, window: TimeWindow, rows: pl.DataFrame) -> None:
        if self._registered.min_coverage is not None:
            self._seen[window.start] = rows.select(self._registered.key_names).unique()

    def before(self, window: TimeWindow) -> pl.DataFrame | None:
        since = window.start - POPULATION_WINDOWS * (window.end - window.start)
        parts = [keys for start, keys in self._seen.items() if since <= start < window.start]
        return pl.concat(parts).unique() if parts else None
