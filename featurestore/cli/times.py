"""Durations, ages, instants and shares of time as people read them. Not here: what they mean."""

import math
from datetime import datetime, timedelta
from itertools import pairwise

UNITS = (
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
    ("second", timedelta(seconds=1)),
)
AGE_UNITS = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("min", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
)


def duration_of(microseconds: int | None) -> timedelta | None:
    """The registry's whole microseconds as a duration; None stays None."""
    return None if microseconds is None else timedelta(microseconds=microseconds)


def duration_text(duration: timedelta | None) -> str:
    """A duration in the largest unit that divides it; 'none' for None.

    >>> [duration_text(timedelta(hours=hours)) for hours in (1, 36, 168)]
    ['1 hour', '36 hours', '7 days']
    """
    if duration is None:
        return "none"
    for unit, length in UNITS:
        if duration and not duration % length:
            count = duration // length
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return str(duration) if duration else "0"


def age_text(age: timedelta) -> str:
    """An age in its two largest units, cut off below; of an instant to come, 'in ...'.

    >>> age_text(timedelta(days=2, hours=3, minutes=59))
    '2 d 3 h'
    >>> age_text(timedelta(minutes=-5))
    'in 5 min'
    """
    if age < timedelta(0):
        return f"in {age_text(-age)}"
    for (unit, length), (next_unit, next_length) in pairwise(AGE_UNITS):
        if age >= length:
            rest = (age % length) // next_length
            return f"{age // length} {unit} {rest} {next_unit}" if rest else f"{age // length} {unit}"
    return f"{age // timedelta(seconds=1)} s"


def instant_text(instant: datetime | None) -> str:
    """An instant in UTC, as short as it is exact; '-' for None.

    >>> from datetime import UTC
    >>> instant_text(datetime(2026, 3, 1, 7, tzinfo=UTC))
    '2026-03-01 07:00 UTC'
    """
    if instant is None:
        return "-"
    spec = "microseconds" if instant.microsecond else "seconds" if instant.second else "minutes"
    return f"{instant.replace(tzinfo=None).isoformat(' ', spec)} UTC"


def share_text(share: float | None) -> str:
    """A share of time in per cent, cut off and not rounded: what says 100% was all of it; '-' for None.

    >>> share_text(1.0), share_text(0.99996), share_text(0.5), share_text(None)
    ('100%', '99.99%', '50%', '-')
    """
    return "-" if share is None else f"{math.floor(share * 10_000 + 1e-6) / 100:g}%"
