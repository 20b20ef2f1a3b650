"""How far a materialization is, and what it did. Not here: the work."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from featurestore.declaration.online import TierName


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one group's copy is in some parts of a tier, after each batch.

    Args:
        group: Stored name.
        parts: Names of the parts that are moved together.
        is_rebuild: Whether the copy is built anew.
        slices_done: Slices of the keys that are written and recorded; a step of few keys has one.
        slices: How many there are.
        rows: Rows sent since this writer began; another's, whose work it goes on with, are not counted.
        rows_per_second: Of this writer so far.
        seconds_left: As estimated from its speed so far; None as long as nothing is done.
    """

    group: str
    parts: tuple[str, ...]
    is_rebuild: bool
    slices_done: int
    slices: int
    rows: int
    rows_per_second: float
    seconds_left: float | None

    def __str__(self) -> str:
        what = "built anew" if self.is_rebuild else "moved on"
        left = "" if self.seconds_left is None else f", about {self.seconds_left:.0f} s left"
        return (
            f"{self.group} is {what} in {', '.join(self.parts)}: {self.slices_done} of {self.slices} slices done, "
            f"{self.rows:,} rows, {self.rows_per_second:,.0f} rows/s{left}"
        )


OnProgress = Callable[[Progress], None]


def tell_nobody(_: Progress) -> None:
    """For callers that do not ask."""


@dataclass
class Meter:
    """Counts the rows of one piece of work over several slices, and tells after each batch."""

    group: str
    parts: tuple[str, ...]
    is_rebuild: bool
    slices: int
    done: int
    on_progress: OnProgress
    rows: int = 0
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._first = self.done

    def sent(self, rows: int, share_of_slice: float) -> None:
        """So many rows more were written; `share_of_slice` is how much of the slice under way is."""
        self.rows += rows
        self._tell(share_of_slice)

    def slice_done(self) -> None:
        self.done += 1
        self._tell(0.0)

    def _tell(self, share: float) -> None:
        seconds = max(time.monotonic() - self.begun, 1e-9)
        worked = self.done - self._first + share
        left = seconds * (self.slices - self.done - share) / worked if worked > 0 else None
        told = (self.group, self.parts, self.is_rebuild, self.done, self.slices)
        self.on_progress(Progress(*told, self.rows, self.rows / seconds, left))


@dataclass(frozen=True, slots=True)
class PartStep:
    """What was done to one part: `keys` were looked at, `written` now hold another value, `left` kept a value not lower."""

    part: str
    tier: TierName
    table_version: int
    as_of: datetime
    was_rebuilt: bool
    keys: int
    written: int
    left: int


@dataclass(frozen=True, slots=True)
class Step:
    """What one materialization did: the counts of all parts together, and what the copy reflects in every one of them."""

    table_version: int | None
    as_of: datetime
    was_rebuilt: bool
    keys: int
    written: int
    left: int
    parts: tuple[PartStep, ...] = ()

    @classmethod
    def of(cls, parts: list[PartStep]) -> "Step":
        """All parts together; there is at least one."""
        return cls(
            min(part.table_version for part in parts),
            min(part.as_of for part in parts),
            any(part.was_rebuilt for part in parts),
            sum(part.keys for part in parts),
            sum(part.written for part in parts),
            sum(part.left for part in parts),
            tuple(parts),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values; the parts are listed if there are several."""
        shown = {name: value for name, value in _plain(self).items() if name != "parts" and value is not None}
        if len(self.parts) > 1:
            shown["parts"] = [_plain(part) for part in self.parts]
        return shown


def _plain(value: Step | PartStep) -> dict[str, Any]:
    named = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {name: one.isoformat() if isinstance(one, datetime) else one for name, one in named}
