"""Under load, with every part of both tiers failing in turn and newer values coming all the time: nothing wrong is ever served."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.contract.changing_riders import MATERIALIZED, PUSHED, Event
from tests.contract.load_findings import Figures, table_of
from tests.contract.load_with_faults import TIMEOUT_MS, load_with_faults
from tests.scale import exam_scale, exam_seed

LEAST_SECONDS, FULL_SECONDS = 27, 60
DEADLINE_SECONDS = TIMEOUT_MS / 1000 + 0.25
"""With what HTTP takes; of a machine that has nothing else to do, as the next one too."""
RECOVERY_SECONDS = 5.0
LATE = 0.001
EXPECTED = ("Values of rider_state are INVALID: ", "Killing worker-")
"""Warnings of the server. Granian also says the second of workers that have just ended."""
PASSING = ("StoreUnavailable: ", "FenceRefused: ", "StaleWriter: ")
"""What a materialization may fail with."""


@pytest.mark.exam
def test_nothing_wrong_is_served_under_load_while_every_part_fails_in_turn(tmp_path: Path) -> None:
    seconds = max(LEAST_SECONDS, FULL_SECONDS * exam_scale())
    outcome = load_with_faults(tmp_path, seconds=seconds, seed=exam_seed())
    print(table_of(outcome.figures))
    assert outcome.wrong == []
    assert unexpected(outcome.said) == []
    assert len(outcome.later_than(DEADLINE_SECONDS)) <= LATE * len(outcome.replies), outcome.later_than(
        DEADLINE_SECONDS
    )
    assert [one.line for one in outcome.figures if is_slow_to_recover(one)] == []
    require_felt({one.phase.name.partition(" (")[0]: one for one in outcome.figures})
    require_moving(outcome.history.events, turns=len(outcome.figures) // 2)
    server, warm, table = outcome.last
    assert server == table
    assert warm == table


def unexpected(said: Sequence[str]) -> list[str]:
    """What a server says that has met with more than stores that are away: tracebacks, errors, workers that ended."""
    lines = [line for line in said if not line.startswith("[INFO] ")][2:]  # what it serves, and to whom
    return [line for line in lines if not line.removeprefix("[WARNING] ").startswith(EXPECTED)]


def is_slow_to_recover(figures: Figures) -> bool:
    """Whether it took too long after a fault until the hot tier answered for everyone again, or never came about."""
    waited = [figures.phase.present_seconds, figures.phase.hot_seconds]
    if not figures.phase.follows_fault:
        return False
    return any(one is None or one > RECOVERY_SECONDS * figures.stretch for one in waited)


def require_felt(by_name: dict[str, Figures]) -> None:
    """Each fault of a node cost the hot tier keys, and the warm tier had some of them, unless it was throttled too."""
    for name in ("node killed", "node frozen", "node too slow", "node emptied"):
        assert by_name[name].hot < 1, name
    for name in ("node killed, DynamoDB throttled", "node frozen, DynamoDB throttled"):
        assert by_name[name].unavailable > 0.1, name
    assert min(by_name["all"].hot, by_name["all"].warm) > 0


def require_moving(events: Sequence[Event], turns: int) -> None:
    """The table moved all the time, materialization failed only as it may, and at last brought everything."""
    assert [event for event in events if event.said and not event.said.startswith(PASSING)] == []
    pushed = [event.generation for event in events if event.what == PUSHED]
    assert pushed == list(range(len(pushed)))
    assert len(pushed) > turns
    assert (events[-1].what, events[-1].generation) == (MATERIALIZED, pushed[-1])
