"""One process that works on a run, as a look found it, and when it counts as standing still."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from featurestore.heartbeat.process import Process
from featurestore.heartbeat.stuck import Why

BEATS_A_LIMIT = 8
"""So many beats fit into the silence after which a run is ended."""
STEPS_A_LIMIT = 4
"""So many looks, each after a pause, have to see the same silence before it reaches the limit."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a run may stand still.

    Args:
        silent: Without a sign of life of its process, as looks see it.
        hung: Without a sign of work in a process that lives; nothing: for ever.
    """

    silent: timedelta = timedelta(minutes=2)
    hung: timedelta = timedelta(minutes=30)

    @property
    def beat(self) -> timedelta:
        """The pause between two beats."""
        return self.silent / BEATS_A_LIMIT

    @property
    def step(self) -> timedelta:
        """How much of the pause between two looks counts at most."""
        return self.silent / STEPS_A_LIMIT


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that works on a run.

    Args:
        began_at: Its first beat, by its machine's clock; `beat_at` its last one.
        beats: How many there were.
        doing: Where the work was in the code at the last beat.
        idle_for: How long the work had not moved then.
        silent_for: How long looks have seen no beat.
    """

    run_id: str
    process: Process
    began_at: datetime
    beat_at: datetime
    beats: int
    doing: str
    idle_for: timedelta
    silent_for: timedelta

    def stands_still(self, patience: Patience) -> Why | None:
        """Why it counts as standing still; None if it does not."""
        if self.silent_for >= patience.silent:
            return "silent"
        is_hung = timedelta(0) < patience.hung <= self.idle_for
        return "hung" if is_hung else None
