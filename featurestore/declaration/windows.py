"""Cadences and the time windows they cut: what a partition of a feature group is, in time.

All instants are UTC with microseconds; a naive instant is refused. Nothing here knows which rows a window holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from featurestore.declaration.types import require
from featurestore.errors import DeclarationError, InvalidInput

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def utc(instant: datetime, *, name: str = "time") -> datetime:
    """The same instant in UTC.

    Raises:
        InvalidInput: the instant is naive; the platform never guesses a zone.
    """
    if instant.tzinfo is None:
        raise InvalidInput(
            f"{name} {instant.isoformat()} has no time zone. Give one, e.g. {instant.isoformat()}+00:00."
        )
    return instant.astimezone(UTC)


@dataclass(frozen=True, order=True, slots=True)
class TimeWindow:
    """The half-open span [start, end) that one partition computes."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", utc(self.start, name="window start"))
        object.__setattr__(self, "end", utc(self.end, name="window end"))
        if self.end <= self.start:
            raise InvalidInput(
                f"Window [{self.start.isoformat()}, {self.end.isoformat()}) is empty. Its end must follow its start."
            )


@dataclass(frozen=True, slots=True)
class _Regular:
    """A cadence of equal windows from `start` on (a UTC date)."""

    start: date

    def __post_init__(self) -> None:
        if not isinstance(self.start, date) or isinstance(self.start, datetime):
            raise DeclarationError(
                f"{type(self).__name__} starts at {self.start!r}, which is not a date. Windows start at midnight UTC of a "
                f"day: {type(self).__name__}(start=date(2025, 1, 1))."
            )

    @property
    def origin(self) -> datetime:
        return datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)

    def window_at(self, start: datetime) -> TimeWindow:
        """The window that starts at `start`, which must be a boundary at or after the cadence's start."""
        begin = utc(start, name="window start")
        length = self.length
        if begin < self.origin or (begin - self.origin) % length:
            raise InvalidInput(f"{begin.isoformat()} is not the start of a window of {self!r}.")
        return TimeWindow(begin, begin + length)

    def window_of(self, key: str) -> TimeWindow:
        """The window of a partition key, such as '2026-03-01' or '2026-03-01-07:00'.

        Raises:
            InvalidInput: the key does not have this cadence's form, or lies before its start.
        """
        try:
            start = datetime.strptime(key, self.key_format).replace(tzinfo=UTC)
        except ValueError as error:
            raise self._not_a_key(key) from error
        if start.strftime(self.key_format) != key:
            raise self._not_a_key(key)
        return self.window_at(start)

    def _not_a_key(self, key: str) -> InvalidInput:
        form = self.origin.strftime(self.key_format)
        return InvalidInput(f"{key!r} is not a partition key of {self!r}. Keys look like {form!r}.")

    def key_of(self, window: TimeWindow) -> str:
        """The partition key of a window."""
        return window.start.strftime(self.key_format)

    def windows_between(self, start: datetime, end: datetime) -> Iterator[TimeWindow]:
        """Every window that lies wholly inside [start, end), oldest first."""
        first, last = max(utc(start), self.origin), utc(end)
        begin = self.origin + -((self.origin - first) // self.length) * self.length
        while begin + self.length <= last:
            yield TimeWindow(begin, begin + self.length)
            begin += self.length

    @property
    def length(self) -> timedelta:
        raise NotImplementedError

    @property
    def key_format(self) -> str:
        raise NotImplementedError


class Hourly(_Regular):
    """One window an hour, on the hour."""

    __slots__ = ()
    name = "hourly"

    @property
    def length(self) -> timedelta:
        return HOUR

    @property
    def key_format(self) -> str:
        return "%Y-%m-%d-%H:%M"


class Daily(_Regular):
    """One window a UTC day."""

    __slots__ = ()
    name = "daily"

    @property
    def length(self) -> timedelta:
        return DAY

    @property
    def key_format(self) -> str:
        return "%Y-%m-%d"


@dataclass(frozen=True, slots=True)
class Static:
    """No windows: the group is loaded as a whole, and each load is compared with the last.

    Args:
        valid_from: Since when the first load is taken to have been known.
    """

    valid_from: datetime
    name = "static"

    def __post_init__(self) -> None:
        require("Static: valid_from", self.valid_from, datetime, "Static(datetime(2013, 1, 1, tzinfo=UTC))")
        object.__setattr__(self, "valid_from", utc(self.valid_from, name="valid_from"))


@dataclass(frozen=True, slots=True)
class Pushed:
    """No windows and no transform: rows arrive by push, each known from the push on."""

    name = "pushed"


Windowless = Static | Pushed
Cadence = Hourly | Daily | Static | Pushed
