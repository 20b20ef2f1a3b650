"""When a request is sent again: never beyond its time, and only where the server did not take it or says to come again.

What is sent twice does no harm: reads change nothing, and a push carries a key by which the server knows it again.
"""

import random
from collections.abc import Callable

from featurestore.errors import FeatureStoreError

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0


class Attempts:
    """The attempts of one request.

    Args:
        timeout_seconds: For all of them, with the pauses between them.
        monotonic: Seconds that never go back.
    """

    def __init__(self, timeout_seconds: float, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._deadline = monotonic() + timeout_seconds
        self._pause = FIRST_PAUSE_SECONDS

    @property
    def left(self) -> float:
        """Seconds that are left; 0 if none are."""
        return max(0.0, self._deadline - self._monotonic())

    def pause(self, error: FeatureStoreError, *, is_retried: bool, at_least: float = 0.0) -> float:
        """Seconds to wait before the next attempt, twice as long each time, and uneven so that clients do not come together.

        Args:
            error: What became of the last attempt: raised if there is no next one.
            is_retried: Whether its failure is one after which another may do better.
            at_least: What the server asked for.
        """
        wait = max(at_least, self._pause * random.uniform(0.5, 1.0))
        if not is_retried or wait >= self.left:
            raise error
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        return wait
