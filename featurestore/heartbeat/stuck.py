"""What is told of a run that stood still and was ended: values, for alerts and pages. Not here: finding and ending one."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Why = Literal["silent", "hung"]
"""`silent`: its process gave no sign of life. `hung`: its process lived, and the work in it did not move."""


@dataclass(frozen=True, slots=True)
class StuckRun:
    """A run that was ended because it stood still. It is open until its work was done by a retry or a later run.

    Args:
        run_id: Dagster's id.
        assets: What it computes, as 'offline/carrier_delay_daily', sorted.
        since: Its last sign of life, or of work, by the clock of its machine.
        silent_for: How long it had stood still when it was ended, at least.
        host: Machine of its process.
        pid: Its process.
        doing: Where in the code it was seen last.
        found_at: When it was ended.
        done: What was done, in plain words; empty while it is being done.
        then: What comes next, as a sentence: who repeats it, or what a person is to do; empty while that is not known.
        retried_as: The run that repeats it; None while there is none.
        over_at: When its work was done after all; None while it is open.
        outcome: How it came to an end, in plain words.
    """

    run_id: str
    assets: tuple[str, ...]
    why: Why
    since: datetime
    silent_for: timedelta
    host: str
    pid: int
    doing: str
    found_at: datetime
    done: str = ""
    then: str = ""
    retried_as: str | None = None
    over_at: datetime | None = None
    outcome: str = ""
