"""Judging the computed windows of a run: the gate of each, with the rows that it is to be compared with.

What is wrong with rows is said by `quality.py` and `comparison.py`, which are pure; what they are held against is read
in `reference_windows.py` and `population.py`.
"""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from featurestore.compute.window import ComputedRows
from featurestore.declaration.backfill import KnownValue
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.gate.population import Population
from featurestore.gate.quality import Verdict, judge_windows, with_coverage
from featurestore.gate.reference_windows import ReferenceWindows, not_compared_with_promoted
from featurestore.gate.shift import judge_shift
from featurestore.gate.spot_checks import spot_check
from featurestore.launch import Launch
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredGroup


def judge_computed(
    store: OfflineStore, group: FeatureGroup, launch: Launch, computed: Mapping[TimeWindow, ComputedRows]
) -> dict[TimeWindow, Verdict]:
    """The gate's verdict on each computed window of a run, oldest first. Of a full recompute it keeps which windows moved.

    Args:
        store: Where promoted windows are read.
        group: The declaration.
        launch: Decides what a window is compared with.
        computed: Windows in ascending order.
    """
    registered = store.registry.group(group.stored_name)
    alone = dict(zip(computed, judge_windows(registered, [result.rows for result in computed.values()]), strict=True))
    sound = {window.start: computed[window].rows for window, verdict in alone.items() if verdict.passed}
    references = ReferenceWindows(store, group, launch, sound)
    population = Population(store, registered, references, list(computed), sound)
    verdicts = {}
    for window, verdict in alone.items():
        rows = computed[window].rows
        declared = computed[window].population
        expected = population.of(window) if declared is None else [declared]
        covered = with_coverage(registered, verdict, rows, expected)
        if verdict.passed:
            covered = covered.having(*spot_check(registered, _known_values(group, window), rows))
        verdicts[window] = references.judged(window, covered)
        if verdicts[window].passed:
            population.passed(window)
            references.passed(window)
    return _with_shift(store, registered, launch, references, population, verdicts, sound)


def _known_values(group: FeatureGroup, window: TimeWindow) -> list[KnownValue]:
    if isinstance(group.cadence, Windowless) or not group.backfill.known_values:
        return []
    key = group.cadence.key_of(window)
    return [known for known in group.backfill.known_values if known.window == key]


def _with_shift(
    store: OfflineStore,
    registered: RegisteredGroup,
    launch: Launch,
    references: ReferenceWindows,
    population: Population,
    verdicts: Mapping[TimeWindow, Verdict],
    rows: Mapping[datetime, pl.DataFrame],
) -> dict[TimeWindow, Verdict]:
    if not references.is_recompute:
        return dict(verdicts)
    passed = [window for window, verdict in verdicts.items() if verdict.passed]
    moved = {
        window: change
        for window in passed
        if (change := references.moved(window, population.promoted(window))) is not None
    }
    warned = dict(verdicts)
    for window, change in moved.items():
        warned[window] = warned[window].having(warnings=not_compared_with_promoted(change))
    if not moved:
        return warned
    found = {window.start: change.is_beyond for window, change in moved.items()}
    of_backfill = store.shifts(registered.name).note(launch.backfill_id, found, store.clock())
    return judge_shift(registered, warned, moved, of_backfill, rows, is_accepted=launch.accept_shift)
