"""What an alert says of a run that stood still: the facts, what was done, and what is to be done, each once."""

from dataclasses import replace

import pytest

from featurestore.alerts.problem import Problem
from featurestore.alerts.stillness import still_runs
from featurestore.heartbeat.stuck import StuckRun
from tests.catalogs import MINUTE, T0

RUN = StuckRun("run-1", ("offline/a",), "hung", T0, 31 * MINUTE, "host-a", 4711, "a.transform line 7", T0)
FACTS = "Run run-1 of offline/a did not get on with its work for 31 min: process 4711 on host-a, last seen in a.transform line 7."
AGAIN = "If it comes again, see what host-a waits for: a disk, a lock, or memory."


def problem_of(run: StuckRun) -> Problem:
    (found,) = still_runs(["a"], [run], T0).problems
    return found


@pytest.mark.parametrize("done", ["Its process was killed", "Its process was killed."])
def test_what_was_done_follows_the_facts_as_one_sentence(done: str) -> None:
    assert problem_of(RUN).text == FACTS
    assert problem_of(replace(RUN, done=done)).text == f"{FACTS} Its process was killed."


def test_what_is_to_be_done_is_what_comes_next() -> None:
    assert problem_of(RUN).remedy == f"Its log says what comes next. {AGAIN}"
    told = replace(RUN, done="Its process was killed", then="It has no retry left: launch it again.")
    assert problem_of(told).remedy == f"It has no retry left: launch it again. {AGAIN}"
    repeated = replace(told, retried_as="run-2")
    assert problem_of(repeated).remedy == (
        f"Run run-2 repeats it; nothing is to be done unless that stands still too. {AGAIN}"
    )
