"""Materialization over several parts of two tiers: each moves by itself, one that fails fails alone, one that lost its data is filled alone.

The parts are in memory, which fail, lose everything and share keys at will.
"""

import random
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from featurestore.errors import FeatureStoreError, InvalidInput, StoreUnavailable
from featurestore.offline.changes import Changes, Rebuild
from featurestore.offline.commit import Commit
from featurestore.online.keys import online_keys
from featurestore.online.materialization.materialize import Progress, Step, materialize
from featurestore.online.memory import MemoryTier
from featurestore.online.memory_part import MemoryPart
from featurestore.online.message.decode import decode
from featurestore.online.message.schema import layouts_of
from featurestore.online.tier import MaterializationState
from tests.contract.riders import GROUP, HOUR, MICROSECOND, MINUTE, PUBLISH, START, TTL, Riders, row
from tests.scale import cases

NOON = START + 12 * HOUR
NAMES = [f"r{number}" for number in range(40)]
NOWHERE = "redis://127.0.0.1:1/0?"


class World:
    """Riders' table, copied to a warm tier of one part and a hot one of three."""

    def __init__(self, folder: Path) -> None:
        self.riders = Riders(folder, NOWHERE, now=NOON)
        self.told: list[Progress] = []
        self.hot = MemoryTier("hot", self.riders.clock, parts=3)
        self.warm = MemoryTier("warm", self.riders.clock)

    @property
    def parts(self) -> list[MemoryPart]:
        return [*self.hot.parts(), *self.warm.parts()]

    def step(self, *, rebuild: bool = False, slice_bytes: int = 2_000) -> Step:
        riders = self.riders
        return materialize(
            riders.table, self.parts, riders.clock, rebuild=rebuild, progress=self.told.append, slice_bytes=slice_bytes
        )

    def states(self) -> list[MaterializationState | None]:
        return [part.state(GROUP) for part in self.parts]

    def trips(self, tier: MemoryTier) -> dict[str, int | None]:
        """What a reader gets of each rider: no tombstones, nor what has expired by its clock; a tier may hold it for longer."""
        replies = tier.read_many({GROUP: online_keys(GROUP, NAMES)})[GROUP]
        assert not replies.unanswered, replies.cause
        rows = decode(layouts_of(self.riders.group), replies.messages).with_columns(rider=pl.Series(NAMES))
        is_served = pl.col("found") & ~pl.col("is_deleted") & (pl.col("event_time") >= self.riders.clock.now - TTL)
        return dict(rows.filter(is_served).select("rider", "trips").rows())

    def truth(self) -> dict[str, int | None]:
        """The last row of each rider that is known now and has not expired."""
        known = self.riders.table.scan(known_by=self.riders.clock.now, event_since=self.riders.clock.now - TTL)
        rows = known.sort("event_time", "knowledge_time", "created_at").collect().rows(named=True)
        last = {one["rider"]: one for one in rows}
        return {name: one["trips"] for name, one in last.items() if not one["is_deleted"]}

    def assert_is_true(self) -> None:
        assert self.trips(self.warm) == self.trips(self.hot) == self.truth()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.riders.close()


def test_a_new_copy_is_filled_in_every_part_warm_before_hot(world: World) -> None:
    world.riders.promote([9, 10], [row(name, number, number) for name in NAMES for number in (9, 10)])
    step = world.step()
    assert (step.was_rebuilt, step.written, len(step.parts)) == (True, 2 * len(NAMES), 4)
    assert [part.part for part in step.parts] == ["warm memory 0", "hot memory 0", "hot memory 1", "hot memory 2"]
    assert len(step.as_dict()["parts"]) == 4
    assert [told.parts[0] for told in world.told if told.slices_done == told.slices] == [
        "warm memory 0",
        "hot memory 0",
    ]
    world.assert_is_true()


def test_progress_counts_rows_and_slices_and_says_how_long_it_takes(world: World) -> None:
    world.riders.promote([10], [row(name, 10) for name in NAMES])
    world.step()
    warm = [told for told in world.told if told.parts == ("warm memory 0",)]
    assert [told.slices_done for told in warm] == sorted(told.slices_done for told in warm)
    assert (warm[-1].slices_done, warm[-1].rows) == (warm[-1].slices, len(NAMES))
    assert warm[-1].slices >= 3
    assert warm[-1].seconds_left == 0
    assert all(told.seconds_left is None or told.seconds_left >= 0 for told in warm)
    assert f"{warm[-1].slices} of {warm[-1].slices} slices done, 40 rows" in str(warm[-1])


def test_parts_with_the_same_state_share_one_look_at_the_table(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.riders.promote([9], [row(name, 9) for name in NAMES])
    world.step()
    world.riders.promote([10], [row(name, 10) for name in NAMES[:5]])
    asked: list[int] = []
    table = world.riders.table
    changes = table.changes

    def counted(since: int, to: int, *, table_id: str | None = None) -> Changes | Rebuild:
        asked.append(since)
        return changes(since, to, table_id=table_id)

    monkeypatch.setattr(table, "changes", counted)
    step = materialize(table, world.parts, world.riders.clock)
    assert (len(asked), step.written) == (1, 10)
    world.assert_is_true()


def test_a_part_that_lost_everything_is_filled_alone_with_the_keys_it_owns(world: World) -> None:
    world.riders.promote([9], [row(name, 9, 1) for name in NAMES])
    world.step()
    emptied = world.hot.parts()[1]
    emptied.lose_everything()
    world.riders.promote([10], [row(name, 10, 2) for name in NAMES[:3]])
    step = {part.part: part for part in world.step().parts}
    own = emptied.owns(online_keys(GROUP, NAMES))
    assert own is not None
    assert [name for name, part in step.items() if part.was_rebuilt] == ["hot memory 1"]
    assert step["hot memory 1"].written == own.sum() < len(NAMES)
    assert step["warm memory 0"].written == 3
    world.assert_is_true()


def test_a_part_that_is_away_fails_alone_and_is_named_and_the_next_step_brings_it_up(world: World) -> None:
    world.riders.promote([9], [row(name, 9, 1) for name in NAMES])
    world.step()
    for trips, away in enumerate((world.hot.parts()[2], world.warm.parts()[0]), start=2):
        before = away.state(GROUP)
        away.fail("it is switched off")
        world.riders.promote([10], [row(name, 10, trips) for name in NAMES[:20]])
        with pytest.raises(StoreUnavailable, match=rf"in 1 of 4 parts; the others were\. {away.name}: .* switched off"):
            world.step()
        away.fail("")
        version = world.riders.table.version()
        assert away.state(GROUP) == before
        assert [state.version for state in world.states() if state and state != before] == [version] * 3
        world.step()
        assert [state.version for state in world.states() if state] == [version] * 4
        world.assert_is_true()


def test_all_parts_away_tell_the_reason_of_each(world: World) -> None:
    world.riders.promote([9], [row("r0", 9)])
    for part in world.parts:
        part.fail(f"{part.name} is down")
    with pytest.raises(StoreUnavailable, match=r"in 4 of 4 parts.*warm memory 0 is down.*hot memory 2 is down"):
        world.step()


def test_a_row_that_cannot_be_served_empties_no_part(world: World) -> None:
    world.riders.promote([9], [row(name, 9, 1) for name in NAMES])
    world.step()
    world.riders.promote([10], [row("r1", 10, event_time=NOON + MICROSECOND, knowledge_time=NOON)])
    for rebuild in (False, True):
        with pytest.raises(
            InvalidInput, match="1 keys of group 'rider_trip_hourly' have rows that are true of the future"
        ):
            world.step(rebuild=rebuild)
        assert set(world.trips(world.hot).values()) == {1}


def test_a_rebuild_that_was_asked_for_builds_every_part_anew(world: World) -> None:
    world.riders.promote([9], [row(name, 9, 1) for name in NAMES])
    world.step()
    step = world.step(rebuild=True)
    assert (step.was_rebuilt, step.written) == (True, 2 * len(NAMES))
    world.assert_is_true()


def test_a_step_of_many_entities_goes_in_portions(world: World) -> None:
    world.riders.promote([9, 10], [row(name, number, 1) for name in NAMES for number in (9, 10)])
    world.step()
    world.told.clear()
    world.riders.promote([10], [row(name, 10, 2) for name in NAMES if name != "r7"])
    step = world.step(slice_bytes=1_000)
    assert (step.was_rebuilt, step.keys, step.written) == (False, 2 * len(NAMES), 2 * len(NAMES))
    assert {told.slices for told in world.told if told.parts == ("warm memory 0",)} == {7}
    world.assert_is_true()
    assert world.trips(world.hot)["r7"] == 1


def test_what_is_published_while_slices_are_written_is_there_in_the_end(world: World) -> None:
    world.riders.promote([9], [row(name, 9, 1) for name in NAMES])
    published: list[Commit] = []

    def publish(progress: Progress) -> None:
        if progress.slices_done == 2 and not published:
            published.append(world.riders.promote([10], [row(name, 10, 2) for name in NAMES[:8]]))

    step = materialize(world.riders.table, world.parts, world.riders.clock, progress=publish, slice_bytes=1_000)
    assert published
    assert step.table_version == world.riders.table.version()
    world.assert_is_true()


class Running:
    """A clock that runs: no two looks at it agree. It begins where the world's stands."""

    def __init__(self, world: World) -> None:
        self.world, self.looks = world, 0

    def __call__(self) -> datetime:
        self.looks += 1
        return self.world.riders.clock.now + self.looks * MICROSECOND


def settled(world: World) -> MaterializationState:
    """What every part has, which is one version and one instant."""
    (state,) = set(world.states())
    assert state is not None
    return state


def test_by_a_clock_that_runs_all_parts_end_at_one_version_and_instant(world: World) -> None:
    clock, riders = Running(world), world.riders
    for number in (8, 9):
        riders.promote([number], [row(name, number, number) for name in NAMES])
        for rebuild in (False, False, True):
            materialize(riders.table, world.parts, clock, rebuild=rebuild)
            assert settled(world).version == riders.table.version()
    world.assert_is_true()


@pytest.mark.parametrize("tier", ["hot", "warm"])
def test_parts_that_were_away_or_emptied_are_level_with_the_others_again(world: World, tier: str) -> None:
    clock, riders = Running(world), world.riders
    riders.promote([8], [row(name, 8, 1) for name in NAMES])
    materialize(riders.table, world.parts, clock)
    part = (world.hot if tier == "hot" else world.warm).parts()[0]
    part.fail("away")
    riders.promote([9], [row(name, 9, 2) for name in NAMES])
    with pytest.raises(FeatureStoreError, match="away"):
        materialize(riders.table, world.parts, clock)
    part.fail("")
    materialize(riders.table, world.parts, clock)
    settled(world)
    part.lose_everything()
    materialize(riders.table, world.parts, clock)
    settled(world)
    world.assert_is_true()


def test_what_is_published_while_one_part_is_filled_reaches_all_of_them_alike(world: World) -> None:
    clock, riders, published = Running(world), world.riders, list[Commit]()
    riders.promote([9], [row(name, 9, 1) for name in NAMES])

    def publish(progress: Progress) -> None:
        if progress.is_rebuild and len(published) < 2 and progress.slices_done == len(published) + 1:
            published.append(riders.promote([10], [row(name, 10, len(published)) for name in NAMES[:8]]))

    materialize(riders.table, world.parts, clock, progress=publish, slice_bytes=1_000)
    assert len(published) == 2
    assert settled(world).version == riders.table.version()
    world.assert_is_true()


class Chaos:
    """Parts come, go and forget, while rows are promoted and steps taken."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)

    def run(self, acts: int) -> None:
        for _ in range(acts):
            self.random.choice([self.promote, self.promote, self.step, self.step, self.fail, self.lose, self.wait])()
        for part in self.world.parts:
            part.fail("")
        self.world.step(slice_bytes=self.random.choice([500, 3_000, 10**6]))

    def promote(self) -> None:
        riders = self.world.riders
        number = (riders.clock.now - START) // HOUR - self.random.randint(1, 4)
        names = self.random.sample(NAMES, self.random.randint(0, len(NAMES)))
        rows = [row(name, number, self.random.randint(0, 9), is_deleted=self.random.random() < 0.1) for name in names]
        riders.promote([number], rows)

    def step(self) -> None:
        try:
            self.world.step(rebuild=self.random.random() < 0.1, slice_bytes=self.random.choice([500, 3_000, 10**6]))
        except FeatureStoreError as error:
            if "is gone" not in str(error):
                raise

    def fail(self) -> None:
        self.random.choice(self.world.parts).fail(self.random.choice(["it is gone", ""]))

    def lose(self) -> None:
        self.random.choice(self.world.parts).lose_everything()

    def wait(self) -> None:
        self.world.riders.clock.now += self.random.choice([MINUTE, PUBLISH, HOUR])


@pytest.mark.parametrize("seed", range(cases(200, 5)))
def test_whatever_parts_did_both_tiers_end_as_the_table_says(world: World, seed: int) -> None:
    chaos = Chaos(world, seed)
    chaos.promote()
    chaos.run(acts=16)
    world.assert_is_true()


def test_two_materializers_at_once_end_right(world: World) -> None:
    world.riders.promote([9], [row(name, 9, 1) for name in NAMES])
    world.step()
    world.riders.promote([10], [row(name, 10, 2) for name in NAMES])
    failed: list[Exception] = []

    def step() -> None:
        try:
            world.step(slice_bytes=500)
        except FeatureStoreError as error:
            failed.append(error)

    threads = [threading.Thread(target=step) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) < 3
    world.step()
    world.assert_is_true()
