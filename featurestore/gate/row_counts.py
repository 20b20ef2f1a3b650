"""How many rows a window has, against the windows that it is compared with. Pure."""

from collections.abc import Sequence
from statistics import median

from featurestore.declaration.backfill import RowCount
from featurestore.gate.comparison import MIN_ROWS
from featurestore.gate.quality import Finding

ROW_COUNT = "row_count"


def lacking_counts(counts: Sequence[int]) -> str:
    """Why row counts cannot be judged against these; empty if they can."""
    if not counts:
        return "there is no reference window"
    typical = median(counts)
    return "" if typical >= MIN_ROWS else f"reference windows have {typical:g} rows"


def row_count_finding(bounds: RowCount, rows: int, counts: Sequence[int]) -> Finding | None:
    """What is wrong with a number of rows; None if it is within bounds, or if a reference window had as few or as many.

    Args:
        bounds: As declared.
        rows: Of the window.
        counts: Of the reference windows; their median is at least `MIN_ROWS`.
    """
    typical = median(counts)
    least, most = bounds.fall * typical, bounds.rise * typical
    if min(least, min(counts)) <= rows <= max(most, max(counts)):
        return None
    limit = f"[{least:g}, {most:g}]"
    return Finding(ROW_COUNT, "", f"{rows} (median of {len(counts)} reference windows {typical:g})", limit, rows)


def changed_count(bounds: RowCount, rows: int, promoted: int) -> str:
    """'promoted -> computed' if a window's own row count moved beyond the bounds; empty if not."""
    if promoted < MIN_ROWS or bounds.fall * promoted <= rows <= bounds.rise * promoted:
        return ""
    return f"{promoted} -> {rows}"
