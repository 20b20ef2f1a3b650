"""A circuit breaker: a server that failed several times in a row is left alone for a while. Not here: what a failure is."""

import threading
from collections.abc import Callable


class Breaker:
    """Closed while the server answers; open, and asked nothing, after consecutive failures; then one caller tries it again.

    Args:
        seconds: Clock that only goes forward, such as `time.monotonic`.
        failures: How many in a row open it.
        pause_seconds: How long it stays open before one caller may try; also how long that try may take before another may.

    >>> now = [0.0]
    >>> breaker = Breaker(lambda: now[0], failures=2, pause_seconds=1.0)
    >>> for _ in range(2):
    ...     breaker.failed()
    >>> breaker.allows()
    False
    >>> now[0] = 1.0
    >>> breaker.allows(), breaker.allows()
    (True, False)
    >>> breaker.succeeded()
    >>> breaker.allows()
    True
    """

    def __init__(self, seconds: Callable[[], float], *, failures: int = 5, pause_seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._most = failures
        self._pause = pause_seconds
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= self._most

    @property
    def has_failed(self) -> bool:
        """Whether the last thing heard of the server was a failure."""
        return self._failures > 0

    def allows(self) -> bool:
        """Whether the caller may ask the server; while open, one caller a pause may."""
        if not self.is_open:
            return True
        with self._lock:
            now = self._seconds()
            if self.is_open and now < self._next_try:
                return False
            self._next_try = now + self._pause
            return True

    def succeeded(self) -> None:
        """The server answered."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self) -> None:
        """The server did not answer."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._most:
                self._next_try = self._seconds() + self._pause
