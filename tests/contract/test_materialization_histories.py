"""Random lives of one group's table and online copy, with materializers that stand still, come late, come twice or die.

Real Delta table, real server, real scripts; only time is ours, the server's expiries included. Whatever happened, after one
more whole step the copy is what the point-in-time read of the table says at that instant, and what a rebuild would give.
"""

import random
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from deltalake import DeltaTable
from redis.exceptions import ResponseError

from featurestore.errors import FenceRefused, StaleWriter
from featurestore.online.keys import online_keys
from featurestore.online.materialization.materialize import materialize
from featurestore.online.message.decode import decode
from featurestore.online.message.schema import layouts_of
from featurestore.online.redis.connection import place_of
from featurestore.online.redis.part import RedisPart, WriteLimits
from featurestore.online.redis.scripts import script
from featurestore.online.redis.server import Command, Server
from tests.contract.riders import GROUP, HOUR, MICROSECOND, MINUTE, PUBLISH, START, Riders, Row, hour, row
from tests.scale import cases

NAMES = ("a", "b", "c", "d")
ASKED = (*NAMES, "nobody", None)
FIRST_HOUR, HOURS = 10, 6
SLICE_BYTES = 400
"""Two or three of the riders to a slice, and to a portion of a step."""


class Killed(BaseException):
    """What ends a materializer where it stands."""


class Materializer:
    """One materializer in a thread of its own, that halts before each command to the server and each look at its clock."""

    def __init__(self, life: "Life", skew: timedelta) -> None:
        self._life, self._skew = life, skew
        self._go, self._halted = threading.Semaphore(0), threading.Semaphore(0)
        self._is_killed = self.is_done = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def advance(self, points: int = 10_000) -> None:
        """Let it go on to its next halts, or to its end."""
        for _ in range(points):
            if self.is_done:
                self._thread.join()
                return
            self._go.release()
            self._halted.acquire()

    def kill(self) -> None:
        self._is_killed = True
        self.advance()

    def halt(self) -> None:
        self._halted.release()
        self._go.acquire()
        if self._is_killed:
            raise Killed

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._is_killed:
                self._materialize()
        except (FenceRefused, StaleWriter, Killed):
            pass
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.error = error
        self.is_done = True
        self._halted.release()

    def _materialize(self) -> None:
        server = HaltingServer(self._life.riders.url, self.halt, self._life.sent)
        part = RedisPart(server, self._clock, WriteLimits(2))
        try:
            materialize(self._life.riders.table, [part], self._halting_clock, slice_bytes=SLICE_BYTES)
        finally:
            server.close()

    def _clock(self) -> datetime:
        return self._life.riders.clock.now + self._skew

    def _halting_clock(self) -> datetime:
        self.halt()
        return self._clock()


class HaltingServer(Server):
    """A server that is asked one command at a time, halting before each, and remembers the writes that it was sent."""

    def __init__(self, url: str, halt: Callable[[], None], sent: list[Command]) -> None:
        super().__init__(place_of(url, patience_seconds=5))
        self._halt, self._sent = halt, sent
        self._writes = [script(name)[1] for name in ("write.lua", "fill.lua")]

    def _exchange(self, chunks: Sequence[Sequence[Command]]) -> list[Any]:
        return [self._asked(command) for chunk in chunks for command in chunk]

    def _asked(self, command: Command) -> Any:
        self._halt()
        if command[0] == "EVALSHA" and command[1] in self._writes:
            self._sent.append(command)
        return super()._exchange([[command]])[0]


class Life:
    """One random history of a table and its copy."""

    def __init__(self, riders: Riders, seed: int) -> None:
        self.riders, self.random = riders, random.Random(seed)
        self.sent: list[Command] = []
        self.waiting: list[Materializer] = []
        self.states: list[pl.DataFrame] = []
        self.story: list[str] = []
        riders.clock.now = START + FIRST_HOUR * HOUR + 30 * MINUTE

    def run(self, acts: int) -> None:
        chances = {
            self.promote: 6,
            self.pass_time: 4,
            self.step: 3,
            self.start: 4,
            self.advance: 6,
            self.resend: 2,
            self.kill: 1,
            self.compact: 1,
            self.vacuum: 0.5,
            self.empty_server: 0.5,
            self.recreate_table: 0.3,
        }
        for act in self.random.choices(list(chances), list(chances.values()), k=acts):
            self.story.append(f"{self.riders.clock.now:%d %H:%M} {act.__name__}")
            act()

    def promote(self) -> None:
        """Compute some hours again, roll them back, or empty them; some of them before their horizon."""
        now = self.riders.clock.now
        last = (now - START) // HOUR - 1
        numbers = self.random.sample(range(last - HOURS, last + 1), self.random.choice([1, 1, 2]))
        is_rollback = bool(self.states) and self.random.random() < 0.25
        rows = self.rolled_back(numbers) if is_rollback else [one for n in numbers for one in self.hour_rows(n)]
        self.states.append(self.riders.table.scan().collect())
        commit = self.riders.promote(numbers, self.random.sample(rows, len(rows)))
        self.story[-1] += f" {numbers} {len(rows)} rows: version {commit.version}, rewind {commit.is_rewind}"

    def rolled_back(self, numbers: list[int]) -> list[Row]:
        starts = {hour(number).start for number in numbers}
        return [
            {name: value for name, value in one.items() if name != "created_at"}
            for one in self.random.choice(self.states).to_dicts()
            if one["window_start"] in starts
        ]

    def hour_rows(self, number: int) -> list[Row]:
        stored = self.riders.table.scan(windows=[hour(number)]).drop("created_at").collect().to_dicts()
        if stored and self.random.random() < 0.5:
            return [one for one in stored if self.random.random() < 0.8]
        return [self.random_row(name, number) for name in NAMES if self.random.random() < 0.7]

    def random_row(self, name: str, number: int) -> Row:
        """Mostly of this hour; sometimes an event that came hours late, or a tie with another hour's, or a tombstone."""
        end = hour(number).end
        event = self.random.choice([end, end, end - MICROSECOND, end - 30 * MINUTE, end - 3 * HOUR])
        late = self.random.choice([timedelta(0), timedelta(0), MINUTE])
        return row(
            name,
            number,
            self.random.choice([None, *range(9)]),
            event_time=event,
            knowledge_time=end + PUBLISH + late,
            is_deleted=self.random.random() < 0.1,
        )

    def pass_time(self) -> None:
        self.riders.pass_time(self.random.choice([MICROSECOND, 5 * MINUTE, 10 * MINUTE, 40 * MINUTE, HOUR, 4 * HOUR]))

    def step(self) -> None:
        materializer = self.begin()
        materializer.advance()
        self.settle(materializer)

    def start(self) -> None:
        materializer = self.begin()
        self.waiting.append(materializer)
        materializer.advance(self.random.randint(1, 9))

    def begin(self) -> Materializer:
        """Its clock is right, or up to four minutes behind."""
        return Materializer(self, -self.random.choice([0, 0, 0, 1, 4]) * MINUTE)

    def advance(self) -> None:
        if self.waiting:
            materializer = self.random.choice(self.waiting)
            materializer.advance(self.random.choice([1, 1, 2, 3, 10_000]))
            self.settle(materializer)

    def kill(self) -> None:
        if self.waiting:
            self.waiting.pop(self.random.randrange(len(self.waiting))).kill()

    def settle(self, materializer: Materializer) -> None:
        if materializer.error is not None:
            raise materializer.error
        if materializer.is_done and materializer in self.waiting:
            self.waiting.remove(materializer)

    def resend(self) -> None:
        """A write that the network delivers once more."""
        if self.sent:
            try:
                self.riders.client.execute_command(*self.random.choice(self.sent))  # type: ignore[no-untyped-call]
            except ResponseError as error:
                if "FSEPOCH" not in str(error) and "FSOWNER" not in str(error):
                    raise

    def compact(self) -> None:
        if self.riders.table.version() is not None:
            self.riders.table.compact(START.year, START.month)

    def vacuum(self) -> None:
        if self.riders.table.version() is not None:
            table = DeltaTable(str(self.riders.table.location.path))
            table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)

    def empty_server(self) -> None:
        self.riders.client.flushdb()

    def recreate_table(self) -> None:
        shutil.rmtree(self.riders.table.location.path, ignore_errors=True)
        self.promote()

    def end_and_compare(self) -> None:
        """One more whole step, and then everything that is still on its way arrives."""
        self.story.append("end")
        while self.riders.table.version() is None:
            self.promote()
        self.riders.step()
        self.check("after the last step")
        for materializer in list(self.waiting):
            materializer.advance()
            self.settle(materializer)
        for _ in range(min(len(self.sent), 5)):
            self.resend()
        self.check("after what came late")

    def check(self, when: str) -> None:
        try:
            self.riders.assert_online_is_the_past(ASKED)
            rebuilt = Riders(self.riders.root.path, self.riders.url.replace("/0?", "/1?"), now=self.riders.clock.now)
            rebuilt.client.flushdb()
            rebuilt.step()
            assert contents(self.riders) == contents(rebuilt)
        except AssertionError as error:
            error.add_note("\n".join([*self.story, when]))
            raise


def contents(riders: Riders) -> list[tuple[Any, ...]]:
    """What is served of each rider: statuses, and the row with its version, fence apart."""
    replies = riders.online.read(GROUP, online_keys(GROUP, NAMES))
    rows = decode(layouts_of(riders.group), replies.messages).drop("fence").rows()
    statuses = riders.statuses(*NAMES)
    return [
        (name, status, one if status not in ("NOT_FOUND", "UNAVAILABLE") else None)
        for name, status, one in zip(NAMES, statuses, rows, strict=True)
    ]


@pytest.fixture
def riders(tmp_path: Path, valkey_url: str) -> Iterator[Riders]:
    redis.Redis.from_url(valkey_url).flushall()
    made = Riders(tmp_path, valkey_url)
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(cases(600, 12)))
def test_whatever_happened_the_copy_ends_as_the_point_in_time_read(riders: Riders, seed: int) -> None:
    life = Life(riders, seed)
    try:
        life.run(acts=28)
        life.end_and_compare()
    finally:
        for materializer in life.waiting:
            materializer.kill()
