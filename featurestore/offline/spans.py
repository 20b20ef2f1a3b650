"""Spans of window starts: merging windows, and naming them to Delta and to Polars.

Everything that reaches a predicate here is a number or an instant of this process, never text of a caller.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.declaration.windows import TimeWindow

# 400 alternatives in one predicate take delta-rs 0.7 s, 2,000 take 18 s, and 4,400 end the process (segmentation fault).
MAX_SPANS = 50
INSTANT = timedelta(microseconds=1)


def merged(windows: Iterable[TimeWindow]) -> list[TimeWindow]:
    """The same time as few spans, oldest first: windows that touch or overlap become one.

    >>> at = lambda hour: datetime(2026, 3, 1, hour, tzinfo=UTC)
    >>> [(s.start.hour, s.end.hour) for s in merged([TimeWindow(at(2), at(3)), TimeWindow(at(1), at(2)), TimeWindow(at(5), at(6))])]
    [(1, 3), (5, 6)]
    """
    spans: list[TimeWindow] = []
    for window in sorted(windows):
        if spans and window.start <= spans[-1].end:
            spans[-1] = TimeWindow(spans[-1].start, max(spans[-1].end, window.end))
        else:
            spans.append(window)
    return spans


def covering(spans: Sequence[TimeWindow], limit: int = MAX_SPANS) -> list[TimeWindow]:
    """At most `limit` spans that cover the given ones (merged, oldest first), bridging the smallest gaps."""
    gaps = sorted(range(1, len(spans)), key=lambda i: spans[i].start - spans[i - 1].end)
    bridged = set(gaps[: max(0, len(spans) - limit)])
    cover: list[TimeWindow] = []
    for i, span in enumerate(spans):
        cover[-1:] = [TimeWindow(cover[-1].start, span.end)] if i in bridged else [*cover[-1:], span]
    return cover


def overlapping(left: Iterable[TimeWindow], right: Iterable[TimeWindow]) -> TimeWindow | None:
    """The earliest time that both have, or None."""
    ours, theirs = merged(left), merged(right)
    while ours and theirs:
        start, end = max(ours[0].start, theirs[0].start), min(ours[0].end, theirs[0].end)
        if start < end:
            return TimeWindow(start, end)
        (ours if ours[0].end <= theirs[0].end else theirs).pop(0)
    return None


def inside(windows: Sequence[TimeWindow], spans: Sequence[TimeWindow]) -> list[TimeWindow]:
    """Those of the windows that start in one of the spans (merged, oldest first)."""
    starts = [span.start for span in spans]
    places = [(window, bisect_right(starts, window.start) - 1) for window in windows]
    return [window for window, place in places if place >= 0 and window.start < spans[place].end]


def delta_predicate(spans: Sequence[TimeWindow]) -> str:
    """The rows of the spans for Delta, with year, month and literal instants.

    `TIMESTAMP '...'` would be a nanosecond literal, which delta-rs refuses to compare with a stored timestamp.
    """
    return " OR ".join(f"({_months(span)} AND {_between(span)})" for span in spans)


def _months(span: TimeWindow) -> str:
    first, last = span.start, span.end - INSTANT
    if first.year != last.year:
        return f"year >= {first.year:d} AND year <= {last.year:d}"
    if first.month != last.month:
        return f"year = {first.year:d} AND month >= {first.month:d} AND month <= {last.month:d}"
    return f"year = {first.year:d} AND month = {first.month:d}"


def _between(span: TimeWindow) -> str:
    return f"window_start >= {_literal(span.start)} AND window_start < {_literal(span.end)}"


def _literal(instant: datetime) -> str:
    text = instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def started_in(spans: Sequence[TimeWindow]) -> pl.Expr:
    """The rows of the spans for Polars."""
    starts = pl.col("window_start")
    return pl.any_horizontal(pl.lit(False), *[(starts >= span.start) & (starts < span.end) for span in spans])


def of_windows(windows: Sequence[TimeWindow]) -> pl.Expr:
    """The rows of exactly these windows for Polars, however many there are."""
    starts = pl.Series([window.start for window in windows], dtype=TIMESTAMP)
    return pl.col("window_start").is_in(starts.implode())


def year_month(column: str = "window_start") -> list[pl.Expr]:
    """The partition columns of a row."""
    start = pl.col(column)
    return [start.dt.year().cast(pl.Int32).alias("year"), start.dt.month().cast(pl.Int32).alias("month")]
