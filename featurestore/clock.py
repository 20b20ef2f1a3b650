"""Where the present moment comes from. Everything that asks for it takes a `Clock`, so that tests and replays can set it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from featurestore.errors import InvalidInput

Clock = Callable[[], datetime]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def system_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def zoned(clock: Clock) -> datetime:
    """The present moment by a clock that may be anyone's.

    Raises:
        InvalidInput: It gave a time without zone.
    """
    now = clock()
    if now.tzinfo is None:
        raise InvalidInput(
            f"The store's clock gave {now}, a time without zone. Give one in UTC, such as clock.system_clock."
        )
    return now


def microseconds(instant: datetime) -> int:
    """An instant in microseconds since 1970 UTC, exactly.

    Raises:
        InvalidInput: It has no zone.
    """
    if instant.tzinfo is None:
        raise InvalidInput(f"The instant {instant} has no zone. Give it in UTC.")
    return (instant - EPOCH) // _MICROSECOND


def instant_of(microseconds_since_1970: int) -> datetime:
    """The instant, in UTC, that `microseconds` gives this number for."""
    return EPOCH + microseconds_since_1970 * _MICROSECOND
