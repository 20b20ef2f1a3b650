"""Judging the computed windows of a run: the gate of each, with the rows that it is to be compared with.

What is wrong with rows is said by `quality.py` and `comparison.py`, which are pure; what they are held against is read
here and in `reference_windows.py`.
"""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from featurestore.compute.window import ComputedRows
from featurestore.declaration.backfill import KnownValue
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.gate.quality import Verdict, judge_windows, with_coverage
from featurestore.gate.reference_windows import ReferenceWindows, not_compared_with_promoted
from featurestore.gate.shift import judge_shift
from featurestore.gate.spot_checks import spot_check
from featurestore.launch import Launch
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredGroup

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
    alone = dict(zip(computed, judge_windows(registered, [result.rows for result in computed.values()]), strict=True))
    sound = {window.start: computed[window].rows for window, verdict in alone.items() if verdict.passed}
    references = ReferenceWindows(store, group, launch, sound)
    verdicts = {}
    for window, verdict in alone.items():
        rows = computed[window].rows
        covered = with_coverage(registered, verdict, rows, population.before(window))
        if verdict.passed:
            covered = covered.having(*spot_check(registered, _known_values(group, window), rows))
        verdicts[window] = references.judged(window, covered)
        if verdicts[window].passed:
            population.add(window, rows)
            references.passed(window)
    return _with_shift(registered, launch, references, verdicts, sound)


def _known_values(group: FeatureGroup, window: TimeWindow) -> list[KnownValue]:
    if isinstance(group.cadence, Windowless) or not group.backfill.known_values:
        return []
    key = group.cadence.key_of(window)
    return [known for known in group.backfill.known_values if known.window == key]


def _with_shift(
    registered: RegisteredGroup,
    launch: Launch,
    references: ReferenceWindows,
    verdicts: Mapping[TimeWindow, Verdict],
    rows: Mapping[datetime, pl.DataFrame],
) -> dict[TimeWindow, Verdict]:
    if not references.is_recompute:
        return dict(verdicts)
    passed = [window for window, verdict in verdicts.items() if verdict.passed]
    moved = {window: change for window in passed if (change := references.moved(window)) is not None}
    warned = dict(verdicts)
    for window, change in moved.items():
        warned[window] = warned[window].having(warnings=not_compared_with_promoted(change))
    return judge_shift(registered, warned, moved, rows, is_accepted=launch.accept_shift)


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
