"""The queue of repairs: it never makes a read wait, drops what is too much, counts, and ends when it is closed."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from featurestore.errors import InvalidInput
from featurestore.online.memory import MemoryTier
from featurestore.online.reading.repairs import Repair, RepairCounts, Repairs
from featurestore.online.tier import Mark, MaterializationState
from tests.contract.online_rows import NOW, clock, messages_of, plain
from tests.contract.tiers import Copy
from tests.waiting import wait_for

STATE = MaterializationState("table-1", 4, NOW)
KEYS = [f"g:{number}".encode() for number in range(10)]
PATIENCE = 60.0


class SlowTier(MemoryTier):
    """A tier whose repairs wait until they are let go."""

    def __init__(self) -> None:
        super().__init__("hot", clock)
        self.begun, self.may_end = threading.Event(), threading.Event()

    def repair(
        self, group: str, mark: Mark, keys: Sequence[bytes], messages: Sequence[bytes], ttl: timedelta | None
    ) -> int:
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        return super().repair(group, mark, keys, messages, ttl)


@pytest.fixture
def tier() -> SlowTier:
    made = SlowTier()
    Copy(made, "g").build(STATE)
    return made


@pytest.fixture
def repairs(tier: SlowTier) -> Iterator[Repairs]:
    made = Repairs(lambda: tier, most_waiting_keys=10)
    yield made
    tier.may_end.set()
    made.close()


def repair_of(tier: MemoryTier, numbers: Sequence[int], version: int = 5) -> Repair:
    keys = [KEYS[number] for number in numbers]
    (mark,) = tier.read_many({"g": [*keys, b"g:missing"]})["g"].marks
    return Repair("g", "g", mark, keys, messages_of([plain(version)] * len(keys), group="g"), None)


def test_what_is_offered_is_put_back_without_waiting_for_it(tier: SlowTier, repairs: Repairs) -> None:
    repairs.offer(repair_of(tier, [0, 1]))
    assert tier.begun.wait(PATIENCE)
    assert repairs.counts == RepairCounts(waiting=2)
    assert not repairs.wait_until_idle(0.0)
    tier.may_end.set()
    assert repairs.wait_until_idle(PATIENCE)
    assert repairs.counts == RepairCounts(written=2)
    assert None not in Copy(tier, "g").read(KEYS[:2]).messages


def test_what_a_part_does_not_take_is_counted(tier: SlowTier, repairs: Repairs) -> None:
    tier.may_end.set()
    before = repair_of(tier, [0, 1, 2])
    Copy(tier, "g").write(KEYS[:1], messages_of([plain(9)], group="g"))
    repairs.offer(before)
    assert repairs.wait_until_idle(PATIENCE)
    assert repairs.counts == RepairCounts(written=2, refused=1)


def test_what_is_not_as_it_was_written_is_put_back_nowhere(tier: SlowTier, repairs: Repairs) -> None:
    tier.may_end.set()
    offered = repair_of(tier, [0, 1, 2])
    torn = bytearray(offered.messages[1])
    torn[-1] ^= 1
    foreign = messages_of([plain(5)], group="other")[0]
    repairs.offer(replace(offered, messages=[offered.messages[0], bytes(torn), foreign]))
    assert repairs.wait_until_idle(PATIENCE)
    assert repairs.counts == RepairCounts(written=1, refused=2)
    assert Copy(tier, "g").read(KEYS[:3]).messages == [offered.messages[0], None, None]


def test_what_does_not_fit_is_dropped(tier: SlowTier, repairs: Repairs) -> None:
    for numbers in (range(4), range(4, 8), range(3), range(8, 10)):
        repairs.offer(repair_of(tier, list(numbers)))
    assert repairs.counts == RepairCounts(dropped=3, waiting=10)
    tier.may_end.set()
    assert repairs.wait_until_idle(PATIENCE)
    assert repairs.counts == RepairCounts(written=10, dropped=3)


def test_a_repair_that_cannot_be_made_is_refused_and_the_next_one_is_made(tier: SlowTier, repairs: Repairs) -> None:
    tier.may_end.set()
    future = repair_of(tier, [0], version=8 * 86_400)
    with pytest.raises(InvalidInput):
        tier.repair("g", future.mark, future.keys, future.messages, None)
    repairs.offer(future)
    repairs.offer(repair_of(tier, [1]))
    assert repairs.wait_until_idle(PATIENCE)
    assert repairs.counts == RepairCounts(written=1, refused=1)


def test_no_thread_runs_before_the_first_repair_and_one_at_most_after(tier: SlowTier, repairs: Repairs) -> None:
    before = set(threading.enumerate())

    def begun() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one not in before and one.name == "featurestore repairs"]

    assert begun() == []
    tier.may_end.set()
    for number in range(5):
        repairs.offer(repair_of(tier, [number]))
    assert len(begun()) == 1
    repairs.close()
    assert begun() == []


def test_closing_ends_the_repair_under_way_and_drops_the_others(tier: SlowTier, repairs: Repairs) -> None:
    repairs.offer(repair_of(tier, [0]))
    assert tier.begun.wait(PATIENCE)
    repairs.offer(repair_of(tier, [1, 2]))
    closing = threading.Thread(target=repairs.close)
    closing.start()
    wait_for("the drop of what waits", lambda: repairs.counts.dropped == 2, PATIENCE, pause=0.01)
    tier.may_end.set()
    closing.join(PATIENCE)
    assert repairs.counts == RepairCounts(written=1, dropped=2)
    repairs.offer(repair_of(tier, [3]))
    assert repairs.counts == RepairCounts(written=1, dropped=3)
    repairs.close()
