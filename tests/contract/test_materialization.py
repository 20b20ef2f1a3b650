"""Materialization on a real Delta table and a real server: what a step writes, what it leaves, and what may interrupt it."""

import random
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
import redis

from featurestore.declaration import Feature
from featurestore.errors import InvalidInput
from featurestore.online.batch import EXPIRY_GRACE
from featurestore.online.materialization.materialize import materialize
from tests.contract.riders import (
    CITY,
    GROUP,
    HOUR,
    MICROSECOND,
    MINUTE,
    PUBLISH,
    START,
    TRIPS,
    TTL,
    Riders,
    SetClock,
    declared,
    frozen_materializer,
    hour,
    row,
    start_materializer,
)
from tests.scale import cases

NOON = START + 12 * HOUR
RATING = Feature("rating", pl.Float64, "Mean rating")
TAGS = Feature("tags", pl.List(pl.String), "What riders say", max_length=2)
MANY = [f"r{number}" for number in range(3000)]


@pytest.fixture
def riders(tmp_path: Path, valkey_url: str) -> Iterator[Riders]:
    redis.Redis.from_url(valkey_url).flushall()
    made = Riders(tmp_path, valkey_url, now=NOON)
    yield made
    made.close()


def message(riders: Riders, rider: str) -> bytes:
    """What the server holds of a rider."""
    stored = riders.client.get(f"{GROUP}:{rider}")
    assert isinstance(stored, bytes)
    return stored


def lifetime(riders: Riders, rider: str) -> timedelta:
    """How long the server will still keep a rider."""
    return timedelta(milliseconds=int(riders.client.pttl(f"{GROUP}:{rider}")))


def test_without_a_table_a_step_does_nothing_and_the_group_stays_cold(riders: Riders) -> None:
    step = riders.step()
    assert step.as_dict() == {"as_of": NOON.isoformat(), "was_rebuilt": False, "keys": 0, "written": 0, "left": 0}
    assert riders.statuses("a") == ["UNAVAILABLE"]


def test_first_step_builds_the_copy_from_each_riders_frontier_row(riders: Riders) -> None:
    riders.promote([8, 9], [row("a", 8, 1), row("a", 9, 2), row("b", 8, 3), row("c", 9, None)])
    step = riders.step()
    assert (step.table_version, step.as_of, step.was_rebuilt) == (1, NOON, True)
    assert (step.keys, step.written, step.left) == (3, 3, 0)
    assert riders.trips("a", "b", "c", "d") == [2, 3, None, None]
    riders.assert_online_is_the_past(["a", "b", "c", "d", None])


def test_a_step_writes_only_the_riders_whose_window_changed(riders: Riders) -> None:
    riders.promote([9, 10], [row(name, number, 1) for name in "abcde" for number in (9, 10)])
    riders.step()
    riders.promote([10], [row(name, 10, 7 if name == "b" else 1) for name in "abcde"])
    step = riders.step()
    assert (step.was_rebuilt, step.keys, step.written, step.left) == (False, 1, 1, 0)
    assert riders.trips("a", "b") == [1, 7]


def test_nothing_changed_writes_nothing(riders: Riders) -> None:
    riders.promote([9], [row("a", 9)])
    riders.step()
    before = message(riders, "a")
    riders.pass_time(MINUTE)
    riders.promote([9], [row("a", 9)])
    riders.table.compact(START.year, START.month)
    step = riders.step()
    assert (step.as_of, step.keys, step.written, step.left) == (NOON + MINUTE, 0, 0, 0)
    assert message(riders, "a") == before


def test_an_old_window_computed_again_that_changes_nobodys_latest_value_writes_nothing(riders: Riders) -> None:
    riders.promote([8, 9], [row(name, number, number) for name in "ab" for number in (8, 9)])
    riders.step()
    riders.promote([8], [row(name, 8, 100) for name in "ab"])
    step = riders.step()
    assert (step.keys, step.written, step.left) == (2, 0, 2)
    assert riders.trips("a", "b") == [9, 9]


def test_a_row_promoted_before_its_horizon_goes_online_at_its_knowledge_time(riders: Riders) -> None:
    riders.promote([10], [row("a", 10, 1)])
    riders.promote([11], [row("a", 11, 2), row("b", 11, 3)])
    riders.step()
    assert riders.trips("a", "b") == [1, None]
    riders.pass_time(PUBLISH - MICROSECOND)
    assert riders.step().keys == 0
    assert riders.trips("a", "b") == [1, None]
    riders.pass_time(MICROSECOND)
    assert riders.step().written == 2
    assert riders.trips("a", "b") == [2, 3]
    assert riders.step().keys == 0


def test_a_row_known_later_but_older_in_event_time_never_displaces(riders: Riders) -> None:
    riders.promote([10], [row("a", 10, 1)])
    riders.step()
    riders.promote([8], [row("a", 8, 2, knowledge_time=NOON)])
    assert riders.step().left == 1
    assert riders.trips("a") == [1]


def test_a_row_no_longer_emitted_falls_back_to_the_row_before_it_or_to_nothing(riders: Riders) -> None:
    riders.promote([9, 10], [row("a", 9, 1), row("a", 10, 2), row("b", 10, 3)])
    riders.step()
    assert riders.promote([10], []).is_rewind
    assert riders.step().written == 2
    assert riders.trips("a", "b") == [1, None]
    assert riders.statuses("a", "b") == ["PRESENT", "NOT_FOUND"]
    riders.promote([10], [row("b", 10, 4)])
    riders.step()
    assert riders.trips("a", "b") == [1, 4]


def test_a_tombstone_of_the_table_is_not_found_online(riders: Riders) -> None:
    riders.promote([9, 10], [row("a", 9, 1), row("a", 10, is_deleted=True)])
    riders.step()
    assert riders.statuses("a") == ["NOT_FOUND"]
    riders.assert_online_is_the_past(["a"])


def test_a_late_duplicate_of_a_rolled_back_write_is_refused_until_its_version_expires(riders: Riders) -> None:
    riders.promote([9], [row("a", 9, 1)])
    riders.step()
    riders.promote([10], [row("a", 10, 2), row("b", 10, 3)])
    riders.step()
    late = [message(riders, "a"), message(riders, "b")]
    keys, epoch = [f"{GROUP}:a".encode(), f"{GROUP}:b".encode()], riders.part.ensure_epoch(GROUP)
    riders.promote([10], [])
    riders.step()
    last_moment = hour(10).end + TTL
    while riders.clock.now < last_moment:
        result = riders.part.write(GROUP, keys, late, epoch=epoch, ttl=TTL)
        assert (result.written, result.refused) == (0, (0, 1))
        riders.pass_time(HOUR)
    riders.pass_time(last_moment + 2 * EXPIRY_GRACE - riders.clock.now)
    assert riders.client.exists(*keys) == 0
    riders.part.write(GROUP, keys, late, epoch=epoch, ttl=TTL)
    assert riders.statuses("a", "b") == ["NOT_FOUND", "NOT_FOUND"]


def test_what_takes_the_place_of_a_removed_version_lives_until_the_later_of_both_ends(riders: Riders) -> None:
    riders.promote([7, 10], [row("a", 7, 1), row("a", 10, 2), row("b", 10, 3)])
    riders.step()
    end = hour(10).end + TTL + EXPIRY_GRACE
    assert end - NOON - MINUTE < lifetime(riders, "a") <= end - NOON
    riders.promote([10], [])
    riders.step()
    for rider in ("a", "b"):
        assert end - NOON - MINUTE < lifetime(riders, rider) <= end - NOON
    riders.promote([11], [row("a", 11, 4, knowledge_time=NOON)])
    riders.step()
    assert lifetime(riders, "a") > end - NOON + 58 * MINUTE


def test_a_replacement_older_than_the_ttl_leaves_nothing_to_serve(riders: Riders) -> None:
    riders.promote([4, 10], [row("a", 4, 1), row("a", 10, 2)])
    riders.step()
    late, epoch = message(riders, "a"), riders.part.ensure_epoch(GROUP)
    riders.promote([10], [])
    riders.step()
    assert riders.statuses("a") == ["NOT_FOUND"]
    riders.assert_online_is_the_past(["a"])
    result = riders.part.write(GROUP, [f"{GROUP}:a".encode()], [late], epoch=epoch, ttl=TTL)
    assert result.refused == (0,)


def test_a_higher_row_that_is_not_yet_known_does_not_let_a_removed_one_come_back(riders: Riders) -> None:
    riders.promote([9, 10], [row("a", 9, 1), row("a", 10, 2)])
    riders.promote([11], [row("a", 11, 3)])
    riders.step()
    late, epoch = message(riders, "a"), riders.part.ensure_epoch(GROUP)
    riders.promote([10], [])
    riders.step()
    riders.part.write(GROUP, [f"{GROUP}:a".encode()], [late], epoch=epoch, ttl=TTL)
    assert riders.trips("a") == [1]
    riders.pass_time(PUBLISH)
    riders.step()
    assert riders.trips("a") == [3]


def test_a_row_of_the_future_is_refused_and_nothing_is_half_written(riders: Riders) -> None:
    riders.promote([9], [row("a", 9, 1), row("b", 9, 1)])
    riders.step()
    before = message(riders, "a")
    future = row("z", 10, event_time=NOON + MICROSECOND, knowledge_time=NOON)
    riders.promote([10], [row("a", 10, 2), row("b", 10, 2), future])
    with pytest.raises(InvalidInput, match=r"1 keys of group 'rider_trip_hourly' .* first \{'rider': 'z'"):
        riders.step()
    assert (message(riders, "a"), riders.trips("a", "b")) == (before, [1, 1])
    riders.client.delete(f"@state:{GROUP}")
    with pytest.raises(InvalidInput, match="correct its window"):
        riders.step()
    assert message(riders, "a") == before, "a rebuild that cannot be finished does not begin"
    riders.promote([10], [row("a", 10, 2), row("b", 10, 2)])
    riders.step()
    assert riders.trips("a", "b", "z") == [2, 2, None]


def test_a_list_that_is_too_long_is_refused_before_a_rebuild_empties_the_copy(riders: Riders) -> None:
    riders.promote([9], [row("a", 9, 1)])
    riders.step()
    riders.declare(declared([TRIPS, CITY, TAGS]))
    riders.promote([10], [row("a", 10, 2, schema_number=2, tags=["kind", "fast", "late"])])
    with pytest.raises(InvalidInput, match="'tags' holds a list of 3 elements; its limit is 2"):
        riders.step()
    assert riders.trips("a") == [1]


def test_a_clock_a_little_behind_continues_and_a_replay_of_the_past_builds_anew(riders: Riders) -> None:
    riders.promote([9, 10], [row("a", 9, 1), row("a", 10, 2)])
    riders.step()
    riders.clock.now = NOON - MINUTE
    step = riders.step()
    assert (step.was_rebuilt, step.as_of) == (False, NOON)
    riders.clock.now = NOON - HOUR
    step = riders.step()
    assert (step.was_rebuilt, step.as_of) == (True, NOON - HOUR)
    assert riders.trips("a") == [1]
    riders.assert_online_is_the_past(["a"])


def test_an_emptied_server_and_a_table_made_anew_build_the_copy_anew(riders: Riders) -> None:
    riders.promote([9], [row("a", 9, 1), row("b", 9, 1)])
    riders.step()
    riders.client.flushdb()
    assert riders.statuses("a") == ["UNAVAILABLE"]
    assert riders.step().was_rebuilt
    riders.table.location.path.rename(riders.root.path / "old")
    riders.promote([9], [row("a", 9, 5)])
    assert riders.step().was_rebuilt
    assert riders.trips("a", "b") == [5, None]


def test_a_copy_of_two_steppers_with_clocks_apart_moves_on_without_a_rebuild(riders: Riders) -> None:
    behind = SetClock(NOON - 2 * MINUTE)
    riders.promote([9], [row("a", 9, 1)])
    riders.step()
    for number in (10, 8, 7):
        riders.promote([number], [row("a", number, number)])
        step = materialize(riders.table, riders.online.parts(), behind)
        assert (step.was_rebuilt, step.as_of) == (False, NOON)
    riders.assert_online_is_the_past(["a"])


def test_the_steps_answer_holds_what_dagster_shows(riders: Riders) -> None:
    riders.promote([9], [row("a", 9, 1)])
    shown = riders.store.materialize([GROUP])[GROUP].as_dict()
    assert shown == {
        "table_version": 1,
        "as_of": NOON.isoformat(),
        "was_rebuilt": True,
        "keys": 1,
        "written": 1,
        "left": 0,
    }


def test_a_materializer_killed_in_the_middle_is_followed_by_one_that_converges(riders: Riders) -> None:
    chance = random.Random(5)
    for turn in range(cases(60, 2)):
        numbers = [9, 10] if turn % 2 == 0 else [10]
        riders.promote(numbers, [row(rider, number, turn) for rider in MANY for number in numbers if turn % 2 == 0])
        materializer = start_materializer(riders)
        time.sleep(chance.uniform(0, 0.4))
        materializer.kill()
        materializer.communicate()
        served = riders.trips(*MANY)
        # An odd turn empties the newer window, which leaves the even turn's value in the older one.
        before = turn - 1 if turn % 2 else turn - 2
        assert set(served) <= {None, turn, before}, "each value is whole, old or new"
        riders.step()
        riders.assert_online_is_the_past([*MANY, "nobody"])


def test_a_materializer_that_stood_still_overwrites_nothing_newer_when_it_goes_on(riders: Riders) -> None:
    riders.promote([9], [row(rider, 9, 1) for rider in MANY])
    riders.step()
    riders.promote([10], [row(rider, 10, 2) for rider in MANY])
    frozen = frozen_materializer(riders)
    try:
        served = riders.trips(*MANY).count(2)
        riders.promote([10], [row(rider, 10, 3) for rider in MANY[:1000]])
        riders.step()
        expected = [3] * 1000 + [1] * 2000
        assert riders.trips(*MANY) == expected
        frozen.send_signal(signal.SIGCONT)
        assert frozen.stdout is not None
        assert frozen.stdout.readline() == "end\n"
    finally:
        frozen.kill()
        frozen.communicate()
    assert 0 < served < len(MANY)
    assert riders.trips(*MANY) == expected
    assert not riders.step().was_rebuilt
    riders.assert_online_is_the_past(MANY)


def test_a_step_cut_short_before_its_state_is_recorded_is_taken_again_from_the_same_state(riders: Riders) -> None:
    riders.promote([9], [row("a", 9, 1), row("b", 9, 1)])
    riders.step()
    recorded = riders.client.get(f"@state:{GROUP}")
    riders.promote([10], [row("a", 10, 2), row("b", 10, 2)])
    riders.step()
    riders.client.set(f"@state:{GROUP}", recorded)  # type: ignore[arg-type]
    again = riders.step()
    assert (again.was_rebuilt, again.keys, again.written, again.left) == (False, 2, 0, 2)
    riders.promote([10], [])
    riders.client.set(f"@state:{GROUP}", recorded)  # type: ignore[arg-type]
    assert riders.step().written == 2
    assert riders.trips("a", "b") == [1, 1]
