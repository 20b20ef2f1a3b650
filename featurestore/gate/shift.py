"""Whether a full recompute moves more windows away from what was promoted than a mended transform may unasked. Pure.

Compared with its neighbours in the same backfill no window of a mended transform stands out; its difference from the
promoted versions is what shows that the whole history is about to change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from featurestore.declaration.windows import TimeWindow
from featurestore.gate.comparison import Comparison, Excess
from featurestore.gate.drift_report import drift_finding
from featurestore.gate.profile import FeatureProfile, Profile
from featurestore.gate.quality import Finding, Verdict
from featurestore.gate.row_counts import ROW_COUNT
from featurestore.registry.snapshot import RegisteredGroup

MOST_MOVED = 0.1


@dataclass(frozen=True, slots=True)
class Moved:
    """A window beside its promoted version: what is beyond a bound, a row count that is (as 'promoted -> computed'), and that
    it lacks too many of the entities."""

    comparison: Comparison
    profile: Profile
    promoted: Profile
    row_count: str = ""
    loss: Finding | None = None

    @property
    def is_beyond(self) -> bool:
        return bool(self.comparison.beyond or self.row_count or self.loss)

    @property
    def worst(self) -> Excess | None:
        return max(self.comparison.beyond, key=lambda excess: abs(excess.value) / excess.limit, default=None)


def judge_shift(
    group: RegisteredGroup,
    verdicts: Mapping[TimeWindow, Verdict],
    moved: Mapping[TimeWindow, Moved],
    of_backfill: Mapping[datetime, bool],
    rows: Mapping[datetime, pl.DataFrame],
    *,
    is_accepted: bool,
) -> dict[TimeWindow, Verdict]:
    """Verdicts with what the shift adds: a finding in each window that had passed, or a warning where it is accepted.

    The share of moved windows is that of the backfill as far as it is known. A run in which no window moved adds nothing to it,
    and is not held for what others moved.

    Args:
        group: The group as registered.
        verdicts: Of every window of a run of a full recompute.
        moved: Those windows that passed and had a promoted version to compare with.
        of_backfill: Whether each window moved that the backfill has compared so far, in this run or in another, by its start.
        rows: Computed rows by window start.
        is_accepted: Whether whoever launched the backfill expects the shift.
    """
    beyond = [window for window, change in moved.items() if change.is_beyond]
    if not beyond or sum(of_backfill.values()) <= MOST_MOVED * len(of_backfill):
        return dict(verdicts)
    said = _extent(moved, beyond, of_backfill)
    if is_accepted:
        warning = f"Shift accepted: {said}."
        return {window: v.having(warnings=[warning]) if v.passed else v for window, v in verdicts.items()}
    features = _columns(moved, beyond)
    return {
        window: verdict.having(_finding(group, window, said, features, moved.get(window), verdict, rows))
        if verdict.passed
        else verdict
        for window, verdict in verdicts.items()
    }


def _extent(moved: Mapping[TimeWindow, Moved], beyond: list[TimeWindow], of_backfill: Mapping[datetime, bool]) -> str:
    """How many windows, and how far at most in this run: of each feature the largest excess."""
    largest: dict[str, str] = {}
    excesses = [excess for window in beyond for excess in moved[window].comparison.beyond]
    for excess in sorted(excesses, key=lambda excess: abs(excess.value) / excess.limit):
        largest[excess.feature.name] = _said(excess)
    counts = [moved[window].row_count for window in beyond if moved[window].row_count]
    losses = [loss for window in beyond if (loss := moved[window].loss) is not None]
    lost = [_lost(loss) for loss in sorted(losses, key=lambda loss: float(loss.observed))[:1]]
    most = [*reversed(largest.values()), *lost, *(f"row count {count}" for count in counts[:1])]
    is_whole = len(of_backfill) == len(moved)
    of_whole, here = ("", "") if is_whole else (" of the backfill so far", "in this run ")
    return (
        f"{sum(of_backfill.values())} of {len(of_backfill)} windows{of_whole} differ from what was promoted by more than their "
        f"bounds, {here}at most by {'; '.join(most[:5])}"
    )


def _columns(moved: Mapping[TimeWindow, Moved], beyond: list[TimeWindow]) -> str:
    names = {excess.feature.name for window in beyond for excess in moved[window].comparison.beyond}
    others = [loss.check for window in beyond if (loss := moved[window].loss) is not None][:1] or [ROW_COUNT]
    return ", ".join(sorted(names) or others)


def _lost(loss: Finding) -> str:
    return f"{loss.check} of {loss.column!r} {loss.observed} (limit {loss.limit})"


def _said(excess: Excess) -> str:
    return f"{excess.measure} of {excess.feature.name!r} {excess.value:.4g} (limit {excess.limit:g})"


def _finding(
    group: RegisteredGroup,
    window: TimeWindow,
    said: str,
    features: str,
    change: Moved | None,
    verdict: Verdict,
    rows: Mapping[datetime, pl.DataFrame],
) -> Finding:
    limit = "a tenth of the windows of the backfill, unless the shift is accepted"
    worst = change.worst if change is not None else None
    if change is None or worst is None:
        examples = change.loss.examples if change is not None and change.loss is not None else ()
        return Finding("shift", features, f"{said}; here {_here(change)}", limit, verdict.rows, examples)
    mine, promoted = _sides(change, worst)
    detail = drift_finding(group, worst, rows[window.start], window.start, mine, promoted)
    observed = f"{said}; here {_said(worst)}"
    return Finding("shift", features, observed, limit, verdict.rows, detail.examples, detail.details)


def _here(change: Moved | None) -> str:
    """What is beyond a bound in a window of which no distribution is."""
    if change is None:
        return "nothing to compare with was promoted"
    said = [_lost(change.loss)] if change.loss is not None else []
    said += [f"row count {change.row_count}"] if change.row_count else []
    return "; ".join(said) or "within the bounds"


def _sides(change: Moved, excess: Excess) -> tuple[FeatureProfile, FeatureProfile]:
    name = excess.feature.name
    return change.profile[name], change.promoted[name]
