"""How a computation of windows was launched: by which strategy, and for which backfill. Pure values, known to every layer.

The strategies are those of the source document's table; each has a class of correctness, which is kept for every window
that it writes.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from featurestore.errors import InvalidInput

Strategy = Literal["full", "incremental", "snapshot", "proxy"]
Correctness = Literal["low", "moderate", "high", "perfect"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
CORRECTNESS: tuple[Correctness, ...] = get_args(Correctness)
"""Classes of correctness, the lowest first."""
CORRECTNESS_OF: dict[Strategy, Correctness] = {
    "full": "perfect",
    "incremental": "high",
    "snapshot": "moderate",
    "proxy": "low",
}


@dataclass(frozen=True, slots=True)
class Launch:
    """Why windows are computed, and how.

    Args:
        backfill_id: The backfill that the run belongs to; empty for a scheduled run.
        strategy: Where the rows come from.
        accept_shift: Whether a full recompute may differ from what was promoted on more windows than the bound allows.
        without: Upstream groups whose missing windows do not hold these back.

    Raises:
        InvalidInput: the strategy is not known.
    """

    backfill_id: str = ""
    strategy: Strategy = "full"
    accept_shift: bool = False
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InvalidInput(f"Strategy {self.strategy!r} is not known. It is one of {list(STRATEGIES)}.")

    @property
    def is_backfill(self) -> bool:
        return bool(self.backfill_id)

    @property
    def correctness(self) -> Correctness:
        return CORRECTNESS_OF[self.strategy]


SCHEDULED = Launch()


def is_at_least(found: Correctness, wanted: Correctness) -> bool:
    """Whether one class of correctness satisfies a demand for another.

    >>> is_at_least("high", "moderate"), is_at_least("low", "moderate")
    (True, False)
    """
    return CORRECTNESS.index(found) >= CORRECTNESS.index(wanted)
