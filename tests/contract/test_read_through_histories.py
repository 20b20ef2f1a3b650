"""Random histories of a table, its copies in both tiers, and reads that put warm finds back into the hot one.

Steps move either tier at any time, are cut short between any two keys, and begin anew; the hot tier evicts keys, its parts and
the warm tier lose everything; rows are pushed beside the steps; windows are rolled back. Reads happen between any two of these,
others go on between a read's two tiers, every repair is held up for any time and comes twice, and so do writes of steps whose
writer stood still before them. In the end, once each tier has taken a last step, the hot tier holds of each key what a rebuild
would give, or nothing where it was evicted. A last step is one that nobody leaves alone.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any

import polars as pl
import pytest

from featurestore.declaration.online import TierName
from featurestore.errors import FenceRefused, StaleWriter
from featurestore.online.breaker import Breaker
from featurestore.online.memory import MemoryTier
from featurestore.online.memory_part import MemoryPart
from featurestore.online.reading import through
from featurestore.online.reading.repairs import Repair, Repairs
from featurestore.online.reading.through import ReadThrough, Route
from featurestore.online.tier import Fill, Mark, MaterializationState, Replies, Tier
from tests.contract.online_rows import GROUP, Version, clock, decoded, key_of, messages_of, moment, removed_frame
from tests.contract.test_online_writers import Step
from tests.contract.test_two_tier_histories import KEYS, Table, served_version
from tests.scale import cases

ALL_KEYS = [key_of(number) for number in range(KEYS)]
BOTH = Route(("hot", "warm"), None, GROUP)


class HeldRepairs(Repairs):
    """Repairs that wait until the history lets them go."""

    def __init__(self, tier: Tier) -> None:
        super().__init__(lambda: tier)
        self.held: list[Repair] = []

    def offer(self, repair: Repair) -> None:
        self.held.append(repair)


@dataclass
class Life:
    """One table, its copies, and what happens to them."""

    random: random.Random
    announces: bool = True
    keeps_marks: bool = True
    tells_basis: bool = True
    hot: MemoryTier = field(default_factory=lambda: MemoryTier("hot", clock, parts=2))
    warm: MemoryTier = field(default_factory=lambda: MemoryTier("warm", clock))
    steps: dict[str, Iterator[None]] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    held_up: list[Callable[[], None]] = field(default_factory=list)
    read_values: int = 0
    repaired: int = 0
    is_ending: bool = False

    def __post_init__(self) -> None:
        self.table = Table(self.random)
        self.repairs = HeldRepairs(self.hot)
        self.reading = ReadThrough(
            self.tier, self.repairs, Breaker(lambda: 0.0), deadline_seconds=9.0, monotonic=lambda: 0.0
        )

    @property
    def parts(self) -> list[MemoryPart]:
        return [*self.warm.parts(), *self.hot.parts()]

    def tier(self, name: TierName) -> Tier:
        """What a read asks for; before it asks the warm tier, the world goes on."""
        if name == "hot":
            return self.hot
        self.happen(self.random.randint(0, 3))
        return self.warm

    def run(self) -> None:
        self.materialize()
        for _ in range(self.random.randint(1, 3)):
            self.change()
            self.happen(self.random.randint(5, 20))
        self.is_ending = True
        self.materialize()
        self.evict()
        for write_late in self.held_up:
            write_late()
        for repair in self.repairs.held:
            self.put_back(repair)

    def happen(self, count: int) -> None:
        for _ in range(count):
            self.random.choice(self.acts)()

    def change(self) -> None:
        """The table moves on; then nothing covers up for a while what the tiers do wrong."""
        for _ in range(self.random.randint(1, 3)):
            self.random.choice([self.table.commit, self.table.roll_back, self.table.wait])()

    @cached_property
    def acts(self) -> list[Callable[[], None]]:
        often = [self.read, self.read, self.evict, self.evict, self.let_go, self.move_one, self.move_one, self.go_on]
        return [*often, self.materialize, self.die, self.lose, self.push, self.wake]

    # Writers

    def target(self) -> MaterializationState:
        return MaterializationState("table", self.table.commits, moment(self.table.now))

    def move(self, part: MemoryPart) -> Iterator[None]:
        """A step of one part, or a rebuild, that may be left alone wherever it yields."""
        target, epoch, state = self.target(), part.ensure_epoch(GROUP), part.state(GROUP)
        if state is None:
            yield from self.rebuild(part, epoch)
            return
        since = (state.version, (state.as_of - moment(0)).seconds if state.as_of > moment(0) else 0)
        steps = self.table.steps(since)
        if self.announces:
            part.begin_step(GROUP, target, epoch=epoch)
        yield
        for key, step in steps.items():
            if owns(part, key):
                if (
                    not self.is_ending and self.random.random() < 0.2
                ):  # the writer stands still here, and another begins anew
                    self.held_up.append(partial(self.write_late, part, key, step, epoch, target))
                    return
                if not self.write(part, key, step, epoch, target):
                    return
                yield
        part.set_state(GROUP, target, epoch=epoch)

    def write(self, part: MemoryPart, key: int, step: Step, epoch: str, basis: MaterializationState) -> bool:
        """Whether it was not refused."""
        removed = lost(key, step.removed) if step.removed else None
        known = basis if self.tells_basis else None
        result = part.write(GROUP, [key_of(key)], [message(step)], epoch=epoch, ttl=None, removed=removed, basis=known)
        return not result.refused

    def write_late(self, *write: Any) -> None:
        with suppress(FenceRefused):
            self.write(*write)

    def wake(self) -> None:
        """A writer that stood still writes; its request may come once more."""
        if self.held_up:
            self.random.choice(self.held_up)()

    def rebuild(self, part: MemoryPart, epoch: str) -> Iterator[None]:
        epoch = part.start_over(GROUP, epoch=epoch)
        target = self.target()
        rows = {key: self.frontier_step(key) for key in range(KEYS)}
        part.record_fill(GROUP, Fill(target, 1, 0, "one"), epoch=epoch, previous=None)
        yield
        for key, step in rows.items():
            if step is not None and owns(part, key):
                part.fill(GROUP, [key_of(key)], [message(step)], epoch=epoch, ttl=None, owner="one")
                yield
        part.set_state(GROUP, target, epoch=epoch, is_rebuild=True)

    def frontier_step(self, key: int) -> Step | None:
        row = self.table.frontier_row(key)
        return None if row is None else Step(row, self.table.rows[key][row], self.table.rewinds[-1], ())

    def materialize(self) -> None:
        """Both tiers, the warm one first."""
        for part in self.parts:
            self.take(part)

    def move_one(self) -> None:
        """One part, while others read and put back, and keys are evicted."""
        self.take(self.random.choice(self.parts), [self.evict, self.let_go, self.read])

    def take(self, part: MemoryPart, between: Sequence[Callable[[], None]] = ()) -> None:
        """A whole step, unless one is being taken; one that was left alone is not gone on with."""
        if part.name in self.busy:
            return
        self.busy.add(part.name)
        self.steps.pop(part.name, None)
        with suppress(FenceRefused, StaleWriter):  # the part lost everything meanwhile
            for _ in self.move(part):
                for _ in range(self.random.randint(0, 5) if between else 0):
                    self.random.choice(between)()
        self.busy.discard(part.name)

    def go_on(self) -> None:
        """One request of a part's step, which begins if none is under way."""
        part = self.random.choice(self.parts)
        if part.name in self.busy:
            return
        step = self.steps.setdefault(part.name, self.move(part))
        if next(step, "ended") == "ended":
            del self.steps[part.name]

    def die(self) -> None:
        """A step is cut short where it is."""
        if self.steps:
            del self.steps[self.random.choice(list(self.steps))]

    def push(self) -> None:
        """A key's row is written to both tiers beside the steps."""
        key = self.random.randrange(KEYS)
        step = self.frontier_step(key)
        for part in self.parts:
            if step is not None and owns(part, key) and part.state(GROUP) is not None:
                self.write(part, key, step, part.ensure_epoch(GROUP), self.target())

    # What servers do

    def evict(self) -> None:
        part = self.random.choice(self.hot.parts())
        part.evict(self.random.sample(ALL_KEYS, self.random.randint(1, KEYS)))

    def lose(self) -> None:
        if self.random.random() < 0.1:
            part = self.random.choice(self.parts)
            self.steps.pop(part.name, None)
            part.lose_everything()

    # Reads and repairs

    def read(self) -> None:
        replies = self.reading.read({GROUP: (BOTH, ALL_KEYS)})[GROUP]
        self.read_values += sum(message is not None for message in replies.messages)

    def let_go(self) -> None:
        if self.repairs.held:
            self.put_back(self.random.choice(self.repairs.held))

    def put_back(self, repair: Repair) -> None:
        mark = repair.mark if self.keeps_marks else self.mark_now(repair)
        self.repaired += self.hot.repair(GROUP, mark, repair.keys, repair.messages, None)

    def mark_now(self, repair: Repair) -> Mark:
        """What the part would say now: a repair by it looks at nothing but the write rule."""
        missed = self.hot.read_many({GROUP: [*ALL_KEYS, *(key_of(n) for n in range(100, 140))]})[GROUP].marks
        return next((mark for mark in missed if mark.part == repair.mark.part), repair.mark)

    # The end

    def wrong(self) -> list[int]:
        """Keys for which the hot tier holds what a rebuild would not give."""
        held = served(self.hot.read_many({GROUP: ALL_KEYS})[GROUP])
        return [key for key, version in enumerate(held) if version != "none" and version != self.expected(key)]

    def expected(self, key: int) -> Version | None:
        row = self.table.frontier_row(key)
        return None if row is None or self.table.rows[key][row] else row


def owns(part: MemoryPart, key: int) -> bool:
    owned = part.owns([key_of(key)])
    return owned is None or bool(owned[0])


@cache
def message(step: Step) -> bytes:
    return messages_of([step.version], step.fence, [step.is_deleted])[0]


@cache
def lost(key: int, versions: tuple[Version, ...]) -> pl.DataFrame:
    return removed_frame([key_of(key)] * len(versions), versions)


def served(replies: Replies) -> list[Version | str | None]:
    """The version of each key, None for a tombstone, 'none' where nothing is held."""
    rows = decoded(replies.messages).to_dicts()
    return [served_version(row) if row["found"] else "none" for row in rows]


def lives(
    seeds: Sequence[int], *, announces: bool = True, keeps_marks: bool = True, tells_basis: bool = True
) -> list[Life]:
    made = [Life(random.Random(seed), announces, keeps_marks, tells_basis) for seed in seeds]
    for life in made:
        life.run()
    return made


def test_the_hot_tier_ends_with_what_a_rebuild_would_give() -> None:
    found = lives(range(cases(10_000, 80)))
    for seed, life in enumerate(found):
        assert life.wrong() == [], f"seed {seed}"
    assert sum(life.repaired for life in found) > len(found) / 4, "repairs took part"
    assert sum(life.read_values for life in found) > len(found)


def test_histories_end_wrong_where_repairs_ignore_the_mark() -> None:
    assert any(life.wrong() for life in lives(range(140, 165), keeps_marks=False))


def test_histories_end_wrong_where_steps_do_not_announce_themselves() -> None:
    """From a seed after which it shows soon: one history in 1,500 ends wrong."""
    assert any(life.wrong() for life in lives(range(1_020, 1_040), announces=False))


def test_histories_end_wrong_where_late_writes_do_not_say_what_they_reflect() -> None:
    """From a seed after which it shows soon: one history in 110 ends wrong."""
    assert any(life.wrong() for life in lives(range(20, 50), tells_basis=False))


def test_histories_end_wrong_where_values_of_a_warm_copy_behind_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a seed after which it shows soon: one history in 270 ends wrong."""
    monkeypatch.setattr(through, "_is_enough", lambda *_: True)
    assert any(life.wrong() for life in lives(range(490, 520)))
