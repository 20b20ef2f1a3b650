"""The circuit breaker, by a clock that the test moves."""

from hypothesis import given
from hypothesis import strategies as st

from featurestore.online.breaker import Breaker

PAUSE = 1.0


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock, failures=3, pause_seconds=PAUSE)
    for _ in range(3):
        breaker.failed()
    return breaker


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(Clock(), failures=3)
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        assert breaker.allows()
        breaker.succeeded()
    for _ in range(3):
        breaker.failed()
    assert not breaker.allows()


def test_while_open_one_caller_a_pause_may_try() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(3):
        clock.now += PAUSE
        assert [breaker.allows() for _ in range(4)] == [True, False, False, False]


def test_a_try_that_succeeds_closes_it_and_one_that_fails_opens_it_anew() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += PAUSE
    assert breaker.allows()
    clock.now += PAUSE / 2
    breaker.failed()
    clock.now += PAUSE * 0.9
    assert not breaker.allows()
    clock.now += PAUSE * 0.2
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()
    assert not breaker.has_failed


@given(st.lists(st.sampled_from(["fail", "succeed", "wait", "ask"]), max_size=60))
def test_whatever_happens_it_is_asked_again_within_a_pause(acts: list[str]) -> None:
    clock = Clock()
    breaker = Breaker(clock, failures=2, pause_seconds=PAUSE)
    for act in acts:
        if act == "fail":
            breaker.failed()
        elif act == "succeed":
            breaker.succeeded()
            assert breaker.allows()
        elif act == "wait":
            clock.now += PAUSE / 3
        else:
            breaker.allows()
    clock.now += PAUSE
    assert breaker.allows()
