"""Where the present moment comes from. Everything that asks for it takes a `Clock`, so that tests and replays can set it."""

from collections.abc import Callable
from datetime import UTC, datetime

from featurestore.errors import InvalidInput

Clock = Callable[[], datetime]


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
