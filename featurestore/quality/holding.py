"""Holding windows that are too far from their chosen reference, for features whose declaration says so (`policy="block"`).

The gate has judged them by then: a window that it holds is not looked at, nor does it stand as a reference.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from featurestore.declaration.windows import TimeWindow
from featurestore.gate.quality import Finding, Verdict
from featurestore.launch import Launch
from featurestore.offline.store import OfflineStore
from featurestore.quality.drift import FeatureDrift
from featurestore.quality.evaluation import ChosenReferences
from featurestore.quality.frame import WindowStatistics
from featurestore.quality.recording import Computed, production_statistics
from featurestore.quality.reference import REACH
from featurestore.registry.snapshot import RegisteredGroup

NOT_YET = datetime.min.replace(tzinfo=UTC)


def hold_drifted(
    store: OfflineStore,
    group: RegisteredGroup,
    launch: Launch,
    verdicts: Mapping[TimeWindow, Verdict],
    statistics: Computed,
) -> dict[TimeWindow, Verdict]:
    """Verdicts with what drift adds: findings that hold a window, or warnings where the launch accepts a shift.

    Args:
        store: Where statistics of earlier windows and training sets lie.
        group: As registered.
        launch: Of the run.
        verdicts: The gate's, of every computed window.
        statistics: Of the same windows.
    """
    blocking = [feature for feature in group.features if feature.drift is not None and feature.drift.policy == "block"]
    passed = sorted(window for window, verdict in verdicts.items() if verdict.passed)
    if not blocking or not passed:
        return dict(verdicts)
    earlier = production_statistics(store, group.name, since=passed[0].start - REACH, until=passed[-1].start)
    own = {window.start for window in verdicts}
    chosen = ChosenReferences(store, group, [one for one in earlier if one.window_start not in own], blocking)
    held = dict(verdicts)
    for window in passed:
        mine = WindowStatistics(window.start, tuple(statistics[window]), None, "", NOT_YET)
        beyond = chosen.drift_of(mine).beyond
        if not beyond or launch.accept_shift:
            chosen.add(mine)
        held[window] = _with_drift(verdicts[window], beyond, is_accepted=launch.accept_shift)
    return held


def _with_drift(verdict: Verdict, beyond: list[FeatureDrift], *, is_accepted: bool) -> Verdict:
    findings = [finding for drift in beyond for finding in _findings(drift, verdict.rows)]
    if is_accepted:
        return verdict.having(warnings=[f"Drift accepted: {finding}." for finding in findings])
    return verdict.having(*findings)


def _findings(drift: FeatureDrift, rows: int) -> list[Finding]:
    against = f"against {drift.reference}, {drift.windows} window{'' if drift.windows == 1 else 's'}"
    return [
        Finding(
            name,
            drift.feature,
            f"{measured.value:.4g} ({against})",
            f"{measured.limit:.4g}",
            rows,
            details=() if name == "null_rise" else tuple(dict(row) for row in drift.shares),
        )
        for name, measured in drift.measures.items()
        if measured.is_beyond
    ]
