"""A million shuffled, doubled writes from four processes that are killed, frozen and started again, while the hot server dies too.

Every writer delivers every version of every key twice to each tier, in orders of its own: 1,000,000 writes to the hot tier, a real
Valkey server, and as many to the warm one. Those take nearly all of the time: a conditional put costs client and DynamoDB Local
together 1.5 to 2 ms of processor time. In `make test` there are few writes, and the warm tier is on moto. So it is in a part of an exam
where Java or npm are missing; since moto takes four times as long, not all keys are written to it then: 30,000 writes at most.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Condition, Event
from uuid import uuid4

import pytest

from featurestore.online.dynamo.provision import provision
from featurestore.online.dynamo.tier import DynamoTier
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.online.tier import Tier
from featurestore.ports import free_port
from tests.contract import dynamo
from tests.contract.online_rows import GROUP, clock, decoded, key_of, moment
from tests.contract.two_tier_writer import VERSIONS, Row, rows_of
from tests.kills import REPOSITORY, moments
from tests.scale import cases, exam_scale, exam_seed

WRITES = 1_000_000
MOST_ON_MOTO = 30_000
WRITERS = 4
DELIVERIES = 2 * WRITERS
"""Of each version: every writer has it twice."""
LONGEST_SECONDS = 0.3
"""From the batch that a writer is let live for until it is killed: any moment of the next batches."""
PATIENCE_SECONDS = 300
BATCHES_FROZEN = 8
"""So many batches of others are acknowledged while a writer is frozen."""
MOST_UNAVAILABLE = 100
"""Times that a writer finds a tier away; more would mean that it stays away."""
Act = Callable[["Writer"], None]


@dataclass
class World:
    """Both tiers, and what the writers there have to know of each other.

    Args:
        server: The hot tier's.
        warm_url: The warm tier's.
        key_count: How many keys are written to the hot tier.
        warm_key_count: How many of them, the first ones, to the warm tier too.
        may_go: Whether whoever waits may go on: not while the server is away.
        heard: Guards what follows, and tells of its changes.
        batches: Acknowledged so far.
        at_work: Writers that are neither frozen nor at their end.
    """

    server: EmbeddedValkey
    warm_url: str
    key_count: int
    warm_key_count: int
    may_go: Event = field(default_factory=Event)
    heard: Condition = field(default_factory=Condition)
    batches: int = 0
    at_work: int = 0

    def __post_init__(self) -> None:
        self.hot_url = self.server.url

    @contextmanager
    def tiers(self) -> Iterator[tuple[RedisOnlineStore, DynamoTier]]:
        hot, warm = RedisOnlineStore(self.hot_url, clock), DynamoTier(self.warm_url, clock, session=dynamo.session())
        yield hot, warm
        hot.close()
        warm.close()

    def change(self, *, batches: int = 0, at_work: int = 0) -> None:
        with self.heard:
            self.batches += batches
            self.at_work += at_work
            self.heard.notify_all()

    def wait_for_others(self) -> None:
        """Until the writers at work have gone on for a while, or none is left."""
        with self.heard:
            until = self.batches + BATCHES_FROZEN
            assert self.heard.wait_for(lambda: self.batches >= until or self.at_work == 0, PATIENCE_SECONDS)

    def lose_the_server(self) -> None:
        """It is killed with all it holds, and started again, empty."""
        pid = self.server.pid
        assert pid is not None
        self.may_go.clear()
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.server.start()
        finally:
            self.may_go.set()


@dataclass
class Writer:
    """One writer over all its processes, each of which goes on where the one before had got to.

    Args:
        world: Where it writes.
        number: Its order.
        places: Epoch and position that were acknowledged last, by tier.
        counts: What it said, by word and tier, and what was done to it.
        is_done: Whether its last process came to the end of both lists.
    """

    world: World
    number: int
    places: dict[str, tuple[str, int]] = field(default_factory=lambda: {"hot": ("", 0), "warm": ("", 0)})
    counts: Counter[str] = field(default_factory=Counter)
    is_done: bool = False

    def start(self) -> None:
        """Start a process and wait until it is ready."""
        places = [str(part) for tier in ("hot", "warm") for part in self.places[tier]]
        arguments = [
            self.world.hot_url,
            self.world.warm_url,
            *map(str, (exam_seed(), self.number, self.world.key_count, self.world.warm_key_count)),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.two_tier_writer", *arguments, *places],
            cwd=REPOSITORY,
            env={**os.environ, "POLARS_MAX_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.is_done = False
        self.counts["processes"] += 1
        assert self.next_line() == ["ready"]

    def live(self, acts: list[tuple[int, Act]]) -> None:
        """Write everything, while something is done to it each time that so many writes to the warm tier are acknowledged."""
        self.world.change(at_work=1)
        try:
            self.answer()
            for position, act in acts:
                self.listen(partial(self.has_written, position))
                act(self)
            self.listen()
        finally:
            self.world.change(at_work=-1)
        assert self.is_done
        assert self.process.wait(PATIENCE_SECONDS) == 0

    def next_line(self) -> list[str]:
        """Empty at the process's end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().split()

    def answer(self) -> None:
        """Let a process that waits go on, once it may."""
        assert self.world.may_go.wait(PATIENCE_SECONDS)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it was killed meanwhile
            os.write(self.process.stdin.fileno(), b"\n")

    def listen(self, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Hear what the process says until that is enough, or until it ends."""
        while line := self.next_line():
            self.hear(*line)
            if is_enough():
                return

    def hear(self, word: str, tier: str = "", *said: str) -> None:
        self.is_done = word == "done"
        if word == "acknowledged":
            epoch, position, keys, left = said
            self.places[tier] = (epoch, int(position))
            self.counts[f"{tier} writes"] += int(keys)
            self.counts[f"{tier} left"] += int(left)
            self.world.change(batches=1)
            return
        self.counts[f"{tier} {word}".strip()] += 1
        if word == "unavailable":
            assert self.counts[f"{tier} {word}"] < MOST_UNAVAILABLE
            self.answer()

    def has_written(self, warm_writes: int) -> bool:
        return self.places["warm"][1] >= warm_writes

    def has_lost_the_server(self) -> bool:
        return self.counts["hot refused"] + self.counts["hot unavailable"] > 0

    def kill(self) -> None:
        """Hear what it had said, and wait until it is gone."""
        self.process.kill()
        self.listen()
        self.process.communicate()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.world.change(at_work=-1)
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
            self.world.change(at_work=1)


def killed(writer: Writer, *, after_seconds: float) -> None:
    """A strike counts if the writer was not yet done."""
    time.sleep(after_seconds)
    writer.kill()
    writer.counts["killed at work"] += not writer.is_done
    writer.start()
    writer.answer()


def frozen_for_a_while(writer: Writer) -> None:
    with writer.frozen():
        writer.world.wait_for_others()


def frozen_while_the_server_dies(writer: Writer) -> None:
    """It wakes up with an epoch that is over, when others have written under the next one, and is left alone until it is told."""
    with writer.frozen():
        writer.world.lose_the_server()
        writer.world.wait_for_others()
    writer.listen(writer.has_lost_the_server)


def acts_of(number: int, kills: int, writes: int) -> list[tuple[int, Act]]:
    """What is done to a writer, and after how many of its warm writes; there are some left after the last."""
    chance = random.Random(exam_seed() + number)
    delays = moments(exam_seed() + number, kills, LONGEST_SECONDS)
    acts: list[tuple[float, Act]] = [
        (chance.uniform(0, 0.75), partial(killed, after_seconds=seconds)) for seconds in delays
    ]
    if number == 0:
        acts.append((chance.uniform(0.4, 0.6), frozen_while_the_server_dies))
    if number == 1:
        acts.append((chance.uniform(0.1, 0.3), frozen_for_a_while))
    return [(round(share * writes), act) for share, act in sorted(acts, key=lambda found: found[0])]


def warm_server(request: pytest.FixtureRequest) -> tuple[str, int]:
    """An endpoint and how many writes it is asked for at most: DynamoDB Local's in the exam, moto's in the gate, and also in a part
    of an exam where DynamoDB Local cannot be had."""
    if exam_scale():
        try:
            return request.getfixturevalue("dynamodb_local_endpoint"), WRITES
        except pytest.skip.Exception:
            if exam_scale() >= 1:  # a whole exam does without it knowingly
                raise
    return request.getfixturevalue("moto_endpoint"), MOST_ON_MOTO


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    endpoint, most = warm_server(request)
    warm_url = dynamo.url_of(endpoint, f"million-{uuid4().hex}", max_connections=2, timeout_seconds=20)
    provision(warm_url, session=dynamo.session())
    writes = cases(WRITES, 960)
    key_count, warm_key_count = (count // (DELIVERIES * VERSIONS) for count in (writes, min(writes, most)))
    with EmbeddedValkey(tmp_path, free_port()) as server:
        yield World(server, warm_url, key_count, warm_key_count)


@pytest.fixture
def writers(world: World) -> Iterator[list[Writer]]:
    made = [Writer(world, number) for number in range(WRITERS)]
    with ExitStack() as ends:
        for writer in made:
            writer.start()
            ends.callback(writer.kill)
        yield made


def test_every_key_ends_on_its_newest_version_in_both_tiers(world: World, writers: list[Writer]) -> None:
    began = time.monotonic()
    kills, warm_writes = cases(60, 2), 2 * world.warm_key_count * VERSIONS
    lives = [acts_of(number, (kills + number) // WRITERS, warm_writes) for number in range(WRITERS)]
    world.may_go.set()
    with ThreadPoolExecutor(WRITERS) as threads:
        for life in [threads.submit(writer.live, acts) for writer, acts in zip(writers, lives, strict=True)]:
            life.result()
    with world.tiers() as tiers:
        for writer in without(writers, tiers[0].ensure_epoch(GROUP)):
            writer.start()
            writer.live([])
        counts = sum((writer.counts for writer in writers), Counter[str]())
        print(dict(counts), "seconds", round(time.monotonic() - began), "keys", world.key_count, world.warm_key_count)
        assert wrong_keys(tiers, world) == []
    assert counts["hot writes"] > DELIVERIES * world.key_count * VERSIONS
    assert counts["warm writes"] >= DELIVERIES * world.warm_key_count * VERSIONS
    assert counts["hot left"] > 0
    assert counts["warm left"] > 0
    assert counts["killed at work"] > 0
    assert counts["processes"] >= WRITERS + kills
    assert writers[0].has_lost_the_server()


def without(writers: list[Writer], epoch: str) -> list[Writer]:
    """Writers that have not written to the hot tier under this epoch: they were at its end before the server died."""
    return [writer for writer in writers if writer.places["hot"][0] != epoch]


def wrong_keys(tiers: tuple[Tier, ...], world: World) -> list[tuple[object, ...]]:
    """Keys that do not hold their newest version, or not the same in both tiers; and what they hold."""
    keys = [key_of(number) for number in range(world.key_count)]
    newest = [told(*max(rows_of(exam_seed(), number))) for number in range(world.key_count)]
    hot, warm = (
        tier.read_many({GROUP: keys[:count]}, timeout_seconds=60)[GROUP].messages
        for tier, count in zip(tiers, (world.key_count, world.warm_key_count), strict=True)
    )
    in_hot = zip(keys, newest, held(hot), strict=True)
    in_warm = zip(keys, newest, held(warm), hot, warm, strict=False)
    wrong: list[tuple[object, ...]] = [row for row in in_hot if row[1] != row[2]]
    return wrong + [row[:3] for row in in_warm if row[1] != row[2] or row[3] != row[4]]


def told(version: tuple[int, int, int], is_deleted: bool) -> tuple[object, ...]:
    """What a message of this row says."""
    number = version[2]
    return (True, is_deleted, *map(moment, version), *((None, None) if is_deleted else (number, "x" * (number % 40))))


def held(messages: list[bytes | None]) -> list[tuple[object, ...]]:
    names = ("found", "is_deleted", "event_time", "knowledge_time", "created_at", "v", "text")
    return decoded(messages).select(names).rows()


def test_the_versions_have_ties_and_tombstones() -> None:
    """Or the test above would prove less."""
    found: list[list[Row]] = [sorted(rows_of(exam_seed(), number)) for number in range(200)]
    last_two = [(rows[-1][0], rows[-2][0]) for rows in found]
    assert sum(a[:1] == b[:1] and a[1] > b[1] for a, b in last_two) > 20, "knowledge time decides"
    assert sum(a[:2] == b[:2] for a, b in last_two) > 20, "creation decides"
    assert 20 < sum(rows[-1][1] for rows in found) < 180
