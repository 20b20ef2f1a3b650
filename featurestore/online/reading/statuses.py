"""Which values may be served: the status of each row of a group, and of each feature in it.

Not here: reading messages, or the values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from featurestore.clock import microseconds
from featurestore.online.message.columns import both
from featurestore.online.message.decode import Decoded
from featurestore.online.message.layout import Flags
from featurestore.online.reading.plan import GroupPlan
from featurestore.pit import NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT

UNAVAILABLE = "UNAVAILABLE"
TIER = pl.Enum(["hot", "warm"])
STATUSES = (PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE, UNAVAILABLE)
ONLINE_STATUS = pl.Enum(STATUSES)
IS_PRESENT, IS_NULL, IS_NOT_FOUND, IS_OUTSIDE, IS_UNAVAILABLE = range(5)
"""Statuses as numbers: their places in `STATUSES`."""

Codes = np.ndarray[Any, np.dtype[np.uint8]]
_LOWEST = -(2**63)


@dataclass(frozen=True, slots=True)
class Limits:
    """The oldest event times of a group that are not yet expired, and not yet too old; microseconds, inclusive.

    Args:
        expiry: Older rows are gone.
        age: Older rows are OUTSIDE_MAX_AGE.
        serves_old: Whether the values of those are served all the same.
    """

    expiry: int
    age: int
    serves_old: bool = False

    @classmethod
    def of(cls, plan: GroupPlan, now: datetime, *, serves_old: bool = False) -> "Limits":
        """The limits at the reader's instant: age is compared with ttl and max_age, exact to the microsecond."""
        instant, group = microseconds(now), plan.group
        expiry = _LOWEST if group.ttl_us is None else instant - group.ttl_us
        return cls(expiry, _LOWEST if group.max_age_us is None else instant - group.max_age_us, serves_old)


def row_codes(read: Decoded, limits: Limits, unanswered: frozenset[int]) -> Codes | None:
    """The status of each row before its features are looked at; None: all are present."""
    event_time = read.header["event_time"]
    if read.found is None and not unanswered and event_time.size:
        is_fresh = event_time.min() >= max(limits.age, limits.expiry)
        if is_fresh and not read.header["is_deleted"].any():
            return None
    codes: Codes = (event_time < limits.age) * np.uint8(IS_OUTSIDE)
    codes[(event_time < limits.expiry) | (read.header["is_deleted"] != 0)] = IS_NOT_FOUND
    if read.found is not None:
        codes[~read.found] = IS_NOT_FOUND
    if unanswered:
        codes[list(unanswered)] = IS_UNAVAILABLE
    return codes if codes.any() else None


def row_code(event_time: int, is_deleted: int, limits: Limits) -> int:
    """The same of one row that was found."""
    if is_deleted or event_time < limits.expiry:
        return IS_NOT_FOUND
    return IS_OUTSIDE if event_time < limits.age else IS_PRESENT


def feature_codes(codes: Codes | None, known: Flags | None, valid: Flags | None, count: int) -> Codes | None:
    """The status of each value of one feature; None: all are present.

    Args:
        codes: Of the rows.
        known: Rows whose schema had the feature; None: all.
        valid: Values that are not null; None: all.
        count: Rows.
    """
    if known is None and valid is None:
        return codes
    made = np.zeros(count, np.uint8) if codes is None else codes.copy()
    is_present = made == IS_PRESENT
    if valid is not None:
        made[is_present & ~valid] = IS_NULL
    if known is not None:
        made[is_present & ~known] = IS_NOT_FOUND
    return made if made.any() else None


def readable(codes: Codes | None, known: Flags | None, *, serves_old: bool = False) -> Flags | None:
    """Rows whose values are served; None: all."""
    if codes is None:
        return known
    served = codes == IS_PRESENT
    return both(served | (codes == IS_OUTSIDE) if serves_old else served, known)


def has_event_time(codes: Codes | None, known: Flags | None) -> Flags | None:
    """Rows that say when their value is, or was, true of; None: all."""
    if codes is None:
        return known
    dated: Flags = (codes == IS_PRESENT) | (codes == IS_OUTSIDE)
    if known is not None:
        dated &= known | (codes == IS_OUTSIDE)
    return dated


def status_names(codes: Codes | None, count: int) -> Sequence[str]:
    """Statuses by name."""
    return [PRESENT] * count if codes is None else [STATUSES[code] for code in codes.tolist()]


def status_series(codes: Codes | None, count: int) -> pl.Series:
    """Statuses as a Series of `ONLINE_STATUS`."""
    made = np.zeros(count, np.uint8) if codes is None else codes
    return pl.Series(np.ascontiguousarray(made)).cat.to(ONLINE_STATUS)
