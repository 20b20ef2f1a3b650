"""What the replies of a load say, held against what the table had: what is wrong with any of them, and figures of a phase."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.contract.changing_riders import RIDERS, History, text_of
from tests.contract.steady_load import Reply, Value

PRESENT, NOT_FOUND, UNAVAILABLE = "PRESENT", "NOT_FOUND", "INVALID"
"""As the wire has them."""
IS_RIDER = frozenset(RIDERS)
GOOD = frozenset((200, 429))
"""429: the server has too much to do, and says so."""


def wrong_in(reply: Reply, history: History) -> Iterator[str]:
    """What should not have been said, a line each."""
    if reply.status not in GOOD:
        yield f"{reply.status}: {reply.body[:300]!r}"
    values = reply.values()
    if values and [value.rider for value in values] != list(reply.riders):
        yield f"asked for {reply.riders}, told of {[value.rider for value in values]}"
    for value in values:
        if fault := _fault_of(value, reply, history):
            yield f"{fault}: {value}, asked at {reply.sent:.3f}, answered at {reply.received:.3f}"


def _fault_of(value: Value, reply: Reply, history: History) -> str:
    """What is wrong with a value; "" if nothing is."""
    if value.statuses == (UNAVAILABLE, UNAVAILABLE):
        return "" if (value.number, value.text, value.tier) == (None, None, None) else "a value that is not available"
    if value.rider not in IS_RIDER:
        is_empty = (value.number, value.text) == (None, None)
        return "" if value.statuses == (NOT_FOUND, NOT_FOUND) and is_empty else "a value of nobody"
    if value.statuses != (PRESENT, PRESENT):
        return "the statuses of a rider who is there"
    return _fault_of_present(value, reply, history)


def _fault_of_present(value: Value, reply: Reply, history: History) -> str:
    event_time, number = value.event_times[0], value.number
    pushed = history.pushes.get(event_time or 0)
    if pushed is None or number != pushed.generation or event_time != value.event_times[1]:
        return "an event time that is not the value's"
    if value.text != text_of(value.rider, number) or not history.has(value.rider, number):
        return "a value that the table never held of this rider"
    if pushed.begun > reply.received:
        return "a value of the future"
    if number < (least := history.least(value.rider, reply.sent)):
        return f"older than generation {least}, which every part had"
    return ""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the load.

    Args:
        name: What was wrong in it.
        begun, ended: By `time.monotonic`.
        follows_fault: Whether something was wrong just before it.
        present_seconds: From its begin on, until every rider was PRESENT again; None: that never came about.
        hot_seconds: The same, until the hot tier answered for every rider.
    """

    name: str
    begun: float
    ended: float
    follows_fault: bool = False
    present_seconds: float | None = None
    hot_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A phase in numbers: times in milliseconds, shares of the values that riders have.

    `stretch` is how many times longer the processes' work took because others had the CPU too.
    """

    phase: Phase
    requests: int
    stretch: float
    p50: float
    p99: float
    most: float
    hot: float
    warm: float
    unavailable: float

    @property
    def line(self) -> str:
        """A row of the table."""
        phase = self.phase
        waited = ["" if seconds is None else f"{seconds:.1f}" for seconds in (phase.present_seconds, phase.hot_seconds)]
        times = [f"{one:.0f}" for one in (self.p50, self.p99, self.most)]
        shares = [f"{100 * one:.1f}" for one in (self.hot, self.warm, self.unavailable)]
        told = [phase.name, str(self.requests), f"{self.stretch:.1f}", *times, *shares, *waited]
        return f"| {' | '.join(told)} |"


HEAD = """| phase | requests | stretch | p50 ms | p99 ms | max ms | hot % | warm % | UNAVAILABLE % | all PRESENT after, s | all hot after, s |
|---|---|---|---|---|---|---|---|---|---|---|"""


def figures_of(phase: Phase, replies: Sequence[Reply], stretch: float) -> Figures:
    """The figures of the requests that were sent in a phase."""
    own = [reply for reply in replies if phase.begun <= reply.sent < phase.ended]
    times = sorted(1000 * reply.seconds for reply in own) or [0.0]
    told = Counter(
        value.tier or value.statuses[0] for reply in own for value in reply.values() if value.rider in IS_RIDER
    )
    shares = [told[one] / max(1, told.total()) for one in ("hot", "warm", UNAVAILABLE)]
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    return Figures(phase, len(own), stretch, p50, p99, times[-1], *shares)


def table_of(figures: Sequence[Figures]) -> str:
    """All phases as Markdown."""
    return "\n".join([HEAD, *(one.line for one in figures)])
