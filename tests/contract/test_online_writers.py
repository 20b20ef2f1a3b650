"""Several writers on a real Valkey server: shuffled, doubled, killed, frozen and resumed, and random histories of a table.

Whatever they do and whenever they do it, each key ends on the frontier row of the table.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from featurestore.online.message.codec import BEFORE_EVERYTHING
from featurestore.online.redis.tier import RedisOnlineStore
from tests.contract.online_rows import (
    GROUP,
    Version,
    clock,
    decoded,
    key_of,
    messages_of,
    moment,
    plain,
    removed_frame,
)
from tests.scale import cases

WRITER = Path(__file__).with_name("online_rows.py")
LOWEST: Version = plain((BEFORE_EVERYTHING - moment(0)) // timedelta(seconds=1))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(valkey_url: str) -> Iterator[RedisOnlineStore]:
    client = redis.Redis.from_url(valkey_url)
    client.flushall()
    made = RedisOnlineStore(client, clock)
    yield made
    made.close()


def start_writer(
    url: str, epoch: str, seed: int, keys: int, versions: int, pause_seconds: float = 0.0
) -> subprocess.Popen[str]:
    arguments = [str(part) for part in (url, epoch, seed, keys, versions, pause_seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(WRITER), *arguments], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def finish(writer: subprocess.Popen[str]) -> list[list[int]]:
    """Counts of written, left and refused of each batch that the writer still had to report."""
    said, _ = writer.communicate(timeout=300)
    assert writer.returncode == 0
    return [[int(part) for part in line.split()] for line in said.splitlines()]


def test_shuffled_doubled_writers_end_on_the_newest_version(store: RedisOnlineStore, valkey_url: str) -> None:
    epoch = store.ensure_epoch()
    writers = [start_writer(valkey_url, epoch, seed, 120, 12) for seed in range(3)]
    reports = [finish(writer) for writer in writers]
    assert all(sum(left for _, left, _ in report) > 0 for report in reports)
    found = decoded(store.read(GROUP, [key_of(number) for number in range(120)]).messages)
    assert found["v"].to_list() == [12] * 120
    assert found["text"].to_list() == ["x" * 12] * 120


def test_a_writer_killed_in_the_middle_leaves_whole_messages_and_can_be_repeated(
    store: RedisOnlineStore, valkey_url: str
) -> None:
    keys = [key_of(number) for number in range(100)]
    epoch = store.ensure_epoch()
    for seed in range(cases(60, 1)):
        writer = start_writer(valkey_url, epoch, seed, 100, 20 + seed, pause_seconds=0.002)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.05))
        writer.kill()
        writer.communicate()
        partial = decoded(store.read(GROUP, keys).messages).filter("found")
        assert partial.height > 0
        assert partial["text"].to_list() == ["x" * (number % 40) for number in partial["v"].to_list()]
        finish(start_writer(valkey_url, epoch, seed, 100, 20 + seed))
        assert decoded(store.read(GROUP, keys).messages)["v"].to_list() == [20 + seed] * 100


def test_a_frozen_writer_that_wakes_up_overwrites_nothing_newer(store: RedisOnlineStore, valkey_url: str) -> None:
    keys = [key_of(number) for number in range(100)]
    epoch = store.ensure_epoch()
    old = start_writer(valkey_url, epoch, 1, 100, 15, pause_seconds=0.1)  # long enough to be frozen before its end
    assert old.stdout is not None
    old.stdout.readline()
    old.send_signal(signal.SIGSTOP)
    try:
        store.write(GROUP, keys[:50], messages_of([plain(99)] * 50), epoch=epoch, ttl=None)
        rewound = [(key, plain(number)) for key in keys[50:] for number in range(3, 16)]
        removed = removed_frame(*zip(*rewound, strict=True))
        store.write(GROUP, keys[50:], messages_of([plain(2)] * 50, fence=7), epoch=epoch, ttl=None, removed=removed)
    finally:
        old.send_signal(signal.SIGCONT)
    reports = finish(old)
    assert sum(refused for _, _, refused in reports) > 0
    assert decoded(store.read(GROUP, keys).messages)["v"].to_list() == [99] * 50 + [2] * 50


@dataclass(frozen=True)
class Step:
    """One materialization's write of the one key: what it stores, under which fence, after which removals."""

    version: Version
    is_deleted: bool
    fence: int
    removed: tuple[Version, ...]


@dataclass
class History:
    """A table with one key of interest, its rewinds, and the steps R -> V taken from it."""

    random: random.Random
    rows: dict[Version, bool] = field(default_factory=dict)
    gone: list[tuple[int, Version]] = field(default_factory=list)
    came: list[tuple[int, Version]] = field(default_factory=list)
    rewinds: list[int] = field(default_factory=lambda: [0])
    commits: int = 0
    now: int = 0
    state: tuple[int, int] = (0, -1)
    steps: list[Step] = field(default_factory=list)
    delivered: list[Step] = field(default_factory=list)

    def run(self) -> None:
        acts = [
            self.commit,
            self.commit,
            self.rewind_elsewhere,
            self.wait,
            self.materialize,
            self.start_late,
            self.deliver_late,
        ]
        for _ in range(self.random.randint(4, 24)):
            self.random.choice(acts)()
        self.materialize()
        for _ in range(4):
            self.deliver_late()

    def commit(self) -> None:
        """Remove some rows, add some rows: a window computed again, a rollback, a row no longer emitted."""
        self.commits += 1
        lost = [version for version in self.rows if self.random.random() < 0.3]
        for version in lost:
            self.rows.pop(version)
            self.gone.append((self.commits, version))
        for _ in range(self.random.randint(0, 2)):
            event, wait = self.random.randint(0, 5), self.random.randint(0, 3)
            version = (event, max(event, self.now) + wait, 10 * self.commits + len(self.rows))
            if version not in self.rows:
                self.rows[version] = self.random.random() < 0.2
                self.came.append((self.commits, version))
        if any(self.is_rewound(version) for version in lost):
            self.rewinds.append(self.commits)

    def is_rewound(self, lost: Version) -> bool:
        """Whether no higher row, servable as soon, follows a removed one."""
        return not any(version > lost and version[1] <= max(lost[1], self.now) for version in self.rows)

    def rewind_elsewhere(self) -> None:
        self.commits += 1
        self.rewinds.append(self.commits)

    def wait(self) -> None:
        self.now += self.random.randint(1, 3)

    def frontier_row(self) -> Version | None:
        return max((version for version in self.rows if version[1] <= self.now), default=None)

    def next_step(self) -> Step | None:
        """The step from the state to now, if it takes the key."""
        since, as_of = self.state
        removed = tuple(version for commit, version in self.gone if commit > since)
        came = any(commit > since for commit, _ in self.came)
        ripened = any(as_of < version[1] <= self.now for version in self.rows)
        if not (removed or came or ripened):
            return None
        row = self.frontier_row()
        return Step(row or LOWEST, row is None or self.rows[row], self.rewinds[-1], removed)

    def start_late(self) -> None:
        """A writer reads the table and is then delayed; it may die, or write at any later time."""
        step = self.next_step()
        if step:
            self.steps.append(step)

    def deliver_late(self) -> None:
        if self.steps:
            self.delivered.append(self.random.choice(self.steps))

    def materialize(self) -> None:
        step = self.next_step()
        if step:
            self.steps.append(step)
            self.delivered.append(step)
        self.state = (self.commits, self.now)


def test_random_histories_with_rewinds_and_late_writers_end_on_the_frontier(store: RedisOnlineStore) -> None:
    histories = [History(random.Random(seed)) for seed in range(cases(40_000, 1_500))]
    for history in histories:
        history.run()
    epoch = store.ensure_epoch()
    for turn in range(max(len(history.delivered) for history in histories)):
        deliver(store, epoch, [(n, h.delivered[turn]) for n, h in enumerate(histories) if turn < len(h.delivered)])
    found = decoded(store.read(GROUP, [key_of(number) for number in range(len(histories))]).messages)
    for number, (history, row) in enumerate(zip(histories, found.to_dicts(), strict=True)):
        assert served_version(row) == expected_version(history), f"seed {number}: {history}"


def deliver(store: RedisOnlineStore, epoch: str, steps: list[tuple[int, Step]]) -> None:
    for fence in sorted({step.fence for _, step in steps}):
        same = [(number, step) for number, step in steps if step.fence == fence]
        removed = [(key_of(number), version) for number, step in same for version in step.removed]
        store.write(
            GROUP,
            [key_of(number) for number, _ in same],
            messages_of([step.version for _, step in same], fence, [step.is_deleted for _, step in same]),
            epoch=epoch,
            ttl=None,
            removed=removed_frame(*zip(*removed, strict=True)) if removed else None,
        )


def served_version(row: dict[str, object]) -> tuple[object, ...] | None:
    if not row["found"] or row["is_deleted"]:
        return None
    return (row["event_time"], row["knowledge_time"], row["created_at"])


def expected_version(history: History) -> tuple[object, ...] | None:
    version = history.frontier_row()
    return None if version is None or history.rows[version] else tuple(map(moment, version))
