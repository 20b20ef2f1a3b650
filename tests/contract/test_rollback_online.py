"""Rollbacks and the online copy, on a real Delta table and a real server: whoever comes late, it ends as a rebuild would."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from featurestore.backfill.rollback import roll_back, rollback_backfill
from featurestore.errors import InvalidInput, NotAllowed, StaleWriter, UnknownName
from featurestore.metadata.book import BackfillBook
from featurestore.offline.commit import Commit
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.contract.riders import GROUP, HOUR, MINUTE, START, TTL, Riders, hour, row
from tests.contract.test_materialization_histories import Life, Materializer, contents
from tests.scale import cases

NOON = START + 12 * HOUR
OWNER = "team:riders"
NAMES = ("a", "b", "c", "d")


class BackfilledRiders(Riders):
    """Riders whose promotions may belong to a backfill."""

    def __init__(self, folder: Path, url: str, *, now: datetime = NOON) -> None:
        self.backfill_id = ""
        super().__init__(folder, url, now=now)

    def promote(self, numbers: Iterable[int], rows: Iterable[Mapping[str, Any]]) -> Commit:
        self.writes += 1
        return self.table.overwrite_windows(
            self.frame(rows),
            [hour(number) for number in numbers],
            seen_version=self.table.version(),
            transaction=f"write-{self.writes}",
            metadata={"run_id": f"run-{self.writes}", "backfill_id": self.backfill_id},
        )

    def backfill(self, name: str, numbers: Iterable[int], rows: Iterable[Mapping[str, Any]]) -> Commit:
        self.backfill_id = name
        commit = self.promote(numbers, rows)
        self.backfill_id = ""
        return commit

    def take_back(self, name: str) -> None:
        rollback_backfill(self.store.offline, name, run_id="undo")

    def message(self, rider: str) -> bytes:
        stored = self.client.get(f"{GROUP}:{rider}")
        assert isinstance(stored, bytes)
        return stored

    def assert_is_as_rebuilt(self) -> None:
        """What is served is the point-in-time read of now, and what a copy built from nothing holds."""
        self.assert_online_is_the_past(NAMES)
        rebuilt = Riders(self.root.path, self.url.replace("/0?", "/1?"), now=self.clock.now)
        rebuilt.client.flushdb()
        rebuilt.step()
        assert contents(self) == contents(rebuilt)


@pytest.fixture
def riders(tmp_path: Path, valkey_url: str) -> Iterator[BackfilledRiders]:
    redis.Redis.from_url(valkey_url).flushall()
    made = BackfilledRiders(tmp_path, valkey_url)
    yield made
    made.close()


def good_and_backfilled(riders: BackfilledRiders) -> None:
    """Rows of two hours go online; then a backfill changes the later hour, and that goes online too."""
    riders.promote([9, 10], [row("a", 9, 1), row("b", 9, 1), row("a", 10, 2), row("c", 10, 2)])
    riders.step()
    riders.backfill("b7", [10], [row("a", 10, 20), row("b", 10, 20), row("d", 10, 20)])
    riders.step()
    assert riders.trips(*NAMES) == [20, 20, None, 20]


def test_after_a_rollback_the_copy_serves_what_was_there_before(riders: BackfilledRiders) -> None:
    good_and_backfilled(riders)
    riders.take_back("b7")
    step = riders.step()
    assert (step.was_rebuilt, step.keys, step.written) == (False, 4, 4)
    assert riders.trips(*NAMES) == [2, 1, 2, None]
    riders.assert_is_as_rebuilt()


def test_a_late_duplicate_of_a_rolled_back_write_changes_nothing(riders: BackfilledRiders) -> None:
    good_and_backfilled(riders)
    keys = [f"{GROUP}:{name}".encode() for name in ("a", "b", "d")]
    late, epoch = [riders.message(name) for name in ("a", "b", "d")], riders.part.ensure_epoch(GROUP)
    riders.take_back("b7")
    before = riders.part.write(GROUP, keys, late, epoch=epoch, ttl=TTL)
    assert (before.written, before.refused) == (0, ())
    riders.step()
    after = riders.part.write(GROUP, keys, late, epoch=epoch, ttl=TTL)
    assert (after.written, after.refused) == (0, (0, 1, 2))
    riders.assert_is_as_rebuilt()


@pytest.mark.parametrize("points", range(16))
def test_a_materializer_frozen_before_its_first_write_cannot_bring_the_backfill_back(
    riders: BackfilledRiders, points: int
) -> None:
    """It has planned the backfill's rows, stands still after so many of its commands, and wakes up after the rollback."""
    riders.promote([9, 10], [row("a", 9, 1), row("b", 9, 1), row("a", 10, 2)])
    riders.step()
    riders.backfill("b7", [10], [row("a", 10, 20), row("b", 10, 20), row("d", 10, 20)])
    life = Life(riders, seed=0)
    riders.clock.now = NOON
    frozen = Materializer(life, timedelta(0))
    frozen.advance(points)
    riders.take_back("b7")
    riders.step()
    frozen.advance()
    assert frozen.error is None
    riders.assert_is_as_rebuilt()
    riders.step()
    riders.assert_is_as_rebuilt()


def test_a_replacement_older_than_the_ttl_leaves_nothing_to_serve(riders: BackfilledRiders) -> None:
    riders.promote([4], [row("a", 4, 1)])
    riders.backfill("b7", [10], [row("a", 10, 20)])
    riders.step()
    late, epoch = riders.message("a"), riders.part.ensure_epoch(GROUP)
    riders.take_back("b7")
    riders.step()
    assert riders.statuses("a") == ["NOT_FOUND"]
    result = riders.part.write(GROUP, [f"{GROUP}:a".encode()], [late], epoch=epoch, ttl=TTL)
    assert result.refused == (0,)
    riders.assert_is_as_rebuilt()


def test_a_backfill_of_an_old_hour_that_changes_nobodys_latest_value_writes_nothing_nor_does_its_rollback(
    riders: BackfilledRiders,
) -> None:
    riders.promote([8, 9], [row(name, number, number) for name in "ab" for number in (8, 9)])
    riders.step()
    before = [riders.message(name)[:38] for name in "ab"]
    riders.backfill("b7", [8], [row(name, 8, 100) for name in "ab"])
    step = riders.step()
    assert (step.was_rebuilt, step.keys, step.written) == (False, 2, 0)
    riders.take_back("b7")
    step = riders.step()
    assert (step.was_rebuilt, step.keys, step.written) == (False, 2, 0)
    assert [riders.message(name)[:38] for name in "ab"] == before
    riders.assert_is_as_rebuilt()


# As a person asks for it.


def book_of(riders: BackfilledRiders) -> BackfillBook:
    return BackfillBook.open(f"sqlite:///{riders.root.path}/metadata.db", riders.clock)


def test_the_command_moves_the_online_copy_and_a_repeat_changes_nothing(riders: BackfilledRiders) -> None:
    good_and_backfilled(riders)
    book = book_of(riders)
    first = roll_back(riders.store, book, "b7", person=OWNER, os_user="root", reason="wrong")
    version, audit = riders.table.version(), book.audit("b7")
    assert first.online[GROUP] == f"4 of 4 keys written, as of table version {version}"
    assert riders.trips(*NAMES) == [2, 1, 2, None]
    again = roll_back(riders.store, book, "b7", person=OWNER, os_user="root", reason="wrong")
    assert again.online[GROUP] == f"0 of 0 keys written, as of table version {version}"
    assert (riders.table.version(), book.audit("b7")) == (version, audit)
    [entry] = audit
    assert (entry.action, entry.details) == (
        "rolled_back",
        {"group": GROUP, "keys": ["2026-03-01-10:00"], "version": version},
    )


def test_someone_without_the_right_returns_nothing(riders: BackfilledRiders) -> None:
    good_and_backfilled(riders)
    version = riders.table.version()
    with pytest.raises(NotAllowed, match="'team:others' may not"):
        roll_back(riders.store, book_of(riders), "b7", person="team:others", os_user="root", reason="wrong")
    assert riders.table.version() == version


def test_an_online_store_that_does_not_answer_keeps_nobody_from_rolling_back(riders: BackfilledRiders) -> None:
    good_and_backfilled(riders)
    away = FeatureStore(Settings(riders.root, riders.root, "redis://127.0.0.1:1/0"), clock=riders.clock)
    done = roll_back(away, book_of(riders), "b7", person=OWNER, os_user="root", reason="wrong")
    assert "not moved yet" in done.online[GROUP]
    assert riders.trips(*NAMES) == [20, 20, None, 20]
    riders.step()
    riders.assert_is_as_rebuilt()


# Whatever happens.


class RolledBackLife(Life):
    """A random life, some of whose promotions belong to backfills that are taken back; late materializers included."""

    backfilled: BackfilledRiders

    def __init__(self, riders: BackfilledRiders, seed: int) -> None:
        super().__init__(riders, seed)
        self.backfilled = riders

    def promote(self) -> None:
        self.backfilled.backfill_id = self.random.choice(["", "b1", "b2", "b3"])
        super().promote()
        if self.random.random() < 0.5:
            self.pass_time()
        if self.random.random() < 0.4:
            self.take_back()

    def take_back(self) -> None:
        name = self.random.choice(["b1", "b2", "b3"])
        try:
            self.backfilled.take_back(name)
            self.story.append(f"{name} taken back: version {self.riders.table.version()}")
        except (StaleWriter, UnknownName, InvalidInput) as error:
            self.story.append(f"{name} not taken back: {error}")


@pytest.mark.parametrize("seed", range(cases(400, 5)))
def test_whatever_was_rolled_back_the_copy_ends_as_the_point_in_time_read(riders: BackfilledRiders, seed: int) -> None:
    life = RolledBackLife(riders, seed)
    try:
        life.run(acts=24)
        life.end_and_compare()
    finally:
        for materializer in life.waiting:
            materializer.kill()


def test_the_random_lives_have_rollbacks_that_go_through(riders: BackfilledRiders) -> None:
    """Or they would prove nothing about them."""
    life = RolledBackLife(riders, seed=3)
    for _ in range(12):
        life.story.append("")
        life.promote()
        riders.pass_time(5 * MINUTE)
    assert any(" taken back: version" in line for line in life.story)
