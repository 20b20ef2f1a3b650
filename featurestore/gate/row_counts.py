"""How many rows a window has, against the windows that it is compared with. Pure."""

from collections.abc import Sequence
from statistics import median

from featurestore.declaration.backfill import RowCount
from featurestore.gate.comparison import MIN_ROWS
from featurestore.gate.quality import Finding

ROW_COUNT = "row_count"
NEVER_EMPTY = 7
"""A window of a group that usually has this many rows is empty by chance less than once in a thousand times (exp(-7))."""


def lacking_counts(rows: int, counts: Sequence[int]) -> str:
    """Why a window's number of rows cannot be judged against these counts; empty if it can."""
    if not counts:
        return "there is no reference window"
    typical = median(counts)
    if typical >= MIN_ROWS:
        return ""
    return f"{'it has none, ' if rows == 0 < typical else ''}reference windows have {typical:g} rows"


def empty_finding(rows: int, counts: Sequence[int]) -> Finding | None:
    """That a window is empty where small reference windows never are; None if it has rows, or may well have none.

    This is all that few rows can tell: from 200 on there are bounds.

    Args:
        rows: Of the window.
        counts: Of the reference windows.
    """
    if rows or not counts or min(counts) == 0 or median(counts) < NEVER_EMPTY:
        return None
    observed = f"0 (median of {len(counts)} reference windows {median(counts):g}, none of them empty)"
    return Finding(ROW_COUNT, "", observed, "1 or more", 0)


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
