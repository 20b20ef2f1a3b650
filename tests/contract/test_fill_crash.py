"""Rebuilds that are killed, or stand still and go on later: whoever comes after ends with what an undisturbed one gives."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from deltalake import DeltaTable

from featurestore.online.materialization.slices import in_slice
from featurestore.online.tier import Fill
from tests.contract.riders import (
    GROUP,
    HOUR,
    MINUTE,
    SLICE_BYTES,
    START,
    Riders,
    declared,
    frozen_materializer,
    row,
    start_materializer,
)
from tests.contract.test_materialization_histories import SLICE_BYTES as FEW_BYTES
from tests.contract.test_materialization_histories import Life, Materializer
from tests.scale import cases

NOON = START + 12 * HOUR
NAMES = [f"r{number}" for number in range(10)]
MOST_MIB = 350
"""Of a fill, above what the process takes before it."""
MANY = [f"r{number}" for number in range(3000)]
POINTS = 60
"""Commands that a fill of `NAMES` sends at most, scripts that the server does not have yet included, and looks at the clock."""
EVERY = -(-POINTS // cases(POINTS, 5))


@pytest.fixture
def riders(tmp_path: Path, valkey_url: str) -> Iterator[Riders]:
    redis.Redis.from_url(valkey_url).flushall()
    made = Riders(tmp_path, valkey_url, now=NOON)
    yield made
    made.close()


def stored(riders: Riders) -> dict[bytes, bytes]:
    """Every message of the group on the server."""
    keys: list[bytes] = sorted(riders.client.scan_iter(f"{GROUP}:*", count=1000))
    messages: list[Any] = riders.client.mget(keys) if keys else []
    return dict(zip(keys, messages, strict=True))


def undisturbed(riders: Riders) -> dict[bytes, bytes]:
    """What a rebuild gives that nobody disturbs, on a database of its own."""
    other = Riders(riders.root.path, riders.url.replace("/0?", "/1?"), now=riders.clock.now)
    other.client.flushdb()
    other.step()
    found = stored(other)
    other.close()
    return found


def begun(riders: Riders) -> Fill | None:
    return riders.part.fill_under_way(GROUP)


def in_undone_slices(riders: Riders, fill: Fill) -> list[str]:
    names = pl.DataFrame({"rider": NAMES})
    undone = [in_slice(riders.group, number, fill.slices) for number in range(fill.done, fill.slices)]
    return [name for within in undone if within is not None for name in names.filter(within)["rider"]]


def promote_ten(riders: Riders) -> None:
    riders.promote([9, 10], [row(name, number, number) for name in NAMES for number in (9, 10)])


@pytest.mark.parametrize("points", range(0, POINTS, EVERY))
def test_a_fill_cut_short_at_any_command_is_gone_on_with(riders: Riders, points: int) -> None:
    promote_ten(riders)
    filler = Materializer(Life(riders, seed=0), timedelta(0))
    riders.clock.now = NOON
    filler.advance(points)
    left_by_it = begun(riders)
    filler.kill()
    step = riders.step(slice_bytes=FEW_BYTES)
    if left_by_it is not None:
        assert step.written == len(in_undone_slices(riders, left_by_it)), "what was written is not written again"
    assert stored(riders) == undisturbed(riders)
    riders.assert_online_is_the_past([*NAMES, "nobody"])
    assert begun(riders) is None


@pytest.mark.parametrize("points", range(2, POINTS, EVERY))
def test_a_filler_that_stood_still_overwrites_nothing_and_moves_no_state_back(riders: Riders, points: int) -> None:
    """Another takes the fill over, ends it and takes a step; then the first goes on."""
    promote_ten(riders)
    frozen = Materializer(Life(riders, seed=0), timedelta(0))
    riders.clock.now = NOON
    frozen.advance(points)
    riders.promote([10], [row(name, 10, 100) for name in NAMES[:5]])
    riders.clock.now = NOON + MINUTE
    riders.step(slice_bytes=FEW_BYTES)
    before, state = stored(riders), riders.part.state(GROUP)
    riders.clock.now = NOON
    frozen.advance()
    assert frozen.error is None
    riders.clock.now = NOON + MINUTE
    if state == riders.part.state(GROUP):
        assert stored(riders) == before
    riders.assert_online_is_the_past(NAMES)
    assert not riders.step().was_rebuilt
    riders.assert_online_is_the_past(NAMES)


def test_the_points_reach_from_before_a_fill_to_after_it(riders: Riders) -> None:
    """Or the two tests above would leave moments out."""
    promote_ten(riders)
    filler = Materializer(Life(riders, seed=0), timedelta(0))
    riders.clock.now = NOON
    seen = []
    for _ in range(POINTS):
        filler.advance(1)
        fill = begun(riders)
        seen.append(None if fill is None else fill.done)
    assert seen[0] is None
    assert set(seen) >= {None, 0, 1, 2, 3}
    assert filler.is_done


def test_a_fill_is_gone_on_with_only_as_it_was_begun(riders: Riders) -> None:
    """Under another contract, or of another table, it starts over."""
    promote_ten(riders)
    for change in ("nothing", "ttl", "table"):
        riders.client.flushdb()
        fill_half(riders)
        pinned = begun(riders)
        assert pinned is not None
        if change == "ttl":
            riders.declare(declared(ttl=8 * HOUR))
        if change == "table":
            riders.table.location.path.rename(riders.root.path / "old")
            promote_ten(riders)
        step = riders.step(slice_bytes=FEW_BYTES)
        expected = in_undone_slices(riders, pinned) if change == "nothing" else NAMES
        assert step.written == len(expected), change
        riders.assert_online_is_the_past(NAMES)


def fill_half(riders: Riders) -> None:
    """A filler writes some slices and dies."""
    filler = Materializer(Life(riders, seed=0), timedelta(0))
    riders.clock.now = NOON
    for _ in range(POINTS):
        filler.advance(1)
        fill = begun(riders)
        if fill is not None and len(in_undone_slices(riders, fill)) < len(NAMES):
            break
    filler.kill()


def test_a_fill_whose_version_was_vacuumed_starts_over_from_the_newest(riders: Riders) -> None:
    promote_ten(riders)
    fill_half(riders)
    riders.promote([9, 10], [row(name, number, 7) for name in NAMES for number in (9, 10)])
    table = DeltaTable(str(riders.table.location.path))
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    step = riders.step(slice_bytes=FEW_BYTES)
    assert (step.was_rebuilt, step.written, step.table_version) == (True, len(NAMES), riders.table.version())
    riders.assert_online_is_the_past(NAMES)


@pytest.mark.parametrize("seed", range(cases(60, 3)))
def test_a_materializer_killed_while_it_fills_or_steps_is_followed_by_one_that_converges(
    riders: Riders, seed: int
) -> None:
    chance = random.Random(seed)
    riders.promote([9, 10], [row(name, number, number) for name in MANY for number in (9, 10)])
    if seed % 3 == 2:
        riders.step()
        riders.promote([10], [row(name, 10, seed) for name in MANY[::2]])
    process = start_materializer(riders)
    time.sleep(chance.uniform(0, 0.8))
    process.kill()
    process.communicate()
    if chance.random() < 0.5:
        riders.promote([10], [row(name, 10, -seed) for name in MANY[:1500]])
    riders.step(slice_bytes=SLICE_BYTES)
    riders.assert_online_is_the_past([*MANY, "nobody"])
    if seed % 3 != 2:
        riders.client.flushdb()
        riders.step()
        assert stored(riders) == undisturbed(riders)


def test_a_filling_process_that_was_stopped_and_goes_on_is_refused(riders: Riders) -> None:
    riders.promote([9, 10], [row(name, number, number) for name in MANY for number in (9, 10)])
    frozen = frozen_materializer(riders)
    try:
        was_under_way = begun(riders) is not None
        riders.promote([10], [row(name, 10, 100) for name in MANY[:1000]])
        step = riders.step(slice_bytes=SLICE_BYTES)
        before = stored(riders)
        frozen.send_signal(signal.SIGCONT)
        assert frozen.stdout is not None
        said = frozen.stdout.readline()
    finally:
        frozen.kill()
        frozen.communicate()
    assert was_under_way
    assert said == "refused\n"
    assert len(MANY) < step.written < 2 * len(MANY), "the slices left, and then everything that changed"
    assert stored(riders) == before
    riders.assert_online_is_the_past(MANY)


@pytest.mark.exam
def test_a_rebuild_takes_memory_for_a_slice_and_not_for_the_group(tmp_path: Path, valkey_url: str) -> None:
    count = 800_000
    run_worker("make", str(tmp_path), valkey_url, str(count))
    grown = {}
    for slice_bytes in (2**23, 2**30):
        redis.Redis.from_url(valkey_url).flushall()
        slices, rows, grown[slices] = map(int, run_worker("fill", str(tmp_path), valkey_url, str(slice_bytes)).split())
        assert rows == count
    assert sorted(grown) == [1, 29]
    assert grown[29] < grown[1] / 2, grown


@pytest.mark.exam
def test_two_million_entities_are_filled_within_a_fixed_amount_of_memory(tmp_path: Path, valkey_url: str) -> None:
    """Measured: 231 MiB in ten slices of 64 MiB; all rows together take several times as much."""
    count = cases(2_000_000, 100_000)
    redis.Redis.from_url(valkey_url).flushall()
    run_worker("make", str(tmp_path), valkey_url, str(count))
    _, rows, grown_mib = map(int, run_worker("fill", str(tmp_path), valkey_url, str(64 * 2**20)).split())
    redis.Redis.from_url(valkey_url).flushall()
    assert rows == count
    assert grown_mib < MOST_MIB


def run_worker(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.fill_worker", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True)
    return done.stdout
