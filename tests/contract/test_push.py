"""Pushes and the online tiers: what is served at once, what waits, what a failure leaves, and what materialization makes of it."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.materialization.materialize import materialize
from featurestore.online.memory import MemoryTier
from featurestore.online.parity import Sample, check_parity
from featurestore.online.reading.answer import answer_of
from featurestore.online.reading.plan import GroupPlan
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.tier import Tier
from featurestore.push import push_rows
from featurestore.references import RequestedGroup
from tests.clicks import HOUR, MINUTE, NOW, TTL, Clicks, SetClock, row
from tests.scale import cases

TiersOf = Callable[[SetClock], list[Tier]]


def memory_hot(clock: SetClock) -> list[Tier]:
    return [MemoryTier("hot", clock)]


def memory_both(clock: SetClock) -> list[Tier]:
    """Warm before hot, the hot one in three parts."""
    return [MemoryTier("warm", clock), MemoryTier("hot", clock, parts=3)]


@pytest.fixture(params=["one part", "both tiers", "valkey"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Clicks:
    made = Clicks(tmp_path, tiers=[])
    if request.param == "valkey":
        url = request.getfixturevalue("valkey_url")
        with redis.Redis.from_url(url) as server:
            server.flushall()
        made.tiers = [RedisOnlineStore(url, made.clock)]
    else:
        made.tiers = {"one part": memory_hot, "both tiers": memory_both}[request.param](made.set_clock)
    return made


def move(world: Clicks) -> None:
    materialize(world.table, [part for tier in world.tiers for part in tier.parts()], world.clock)


def served(world: Clicks, *riders: str) -> dict[str, list[tuple[Any, str]]]:
    """By tier, value and status of `clicks` now."""
    group = world.table.group
    keys = online_keys(group.name, entity_ids(pl.DataFrame({"rider": riders}), group.key_names))
    plan = GroupPlan(RequestedGroup(group, ((group.feature("clicks"), "clicks"),)))
    found: dict[str, list[tuple[Any, str]]] = {}
    for tier in world.tiers:
        answer = answer_of(plan, tier.read_many({group.name: keys})[group.name], world.clock())
        found[tier.name] = list(zip(answer.values()[0].to_list(), answer.statuses()[0].to_list(), strict=True))
    return found


def served_everywhere(world: Clicks, *riders: str) -> list[Any]:
    """Values of `clicks`, which all tiers agree on."""
    found = list(served(world, *riders).values())
    assert all(one == found[0] for one in found), found
    return [value for value, _ in found[0]]


def assert_parity(world: Clicks) -> None:
    found = check_parity(world.table, world.tiers, world.clock, Sample(entities=1000))
    assert (found.passed, found.is_complete) == (True, True), found


def test_first_push_builds_the_copies_and_is_served_at_once(world: Clicks) -> None:
    result = world.push(row("a"))
    assert (result.table_version, result.is_online, result.told) == (1, True, "")
    assert served_everywhere(world, "a", "b") == [1, None]
    states = {part.state(world.table.group.name) for tier in world.tiers for part in tier.parts()}
    assert len(states) == 1, "one version and one instant"
    assert_parity(world)


def test_push_before_the_copy_is_built_goes_to_the_table_and_says_so(world: Clicks) -> None:
    world.push(row("z"), to="offline")
    world.push(row("y"), to="offline")
    result = world.push(row("a"))
    assert (result.table_version, result.is_online) == (3, False)
    assert {"no copy" in part.reason for part in result.parts} == {True}
    assert result.told.count("materialize it once") == len(result.parts)
    move(world)
    assert served_everywhere(world, "a") == [1]


def test_push_is_served_at_once_and_the_next_step_changes_nothing(world: Clicks) -> None:
    world.push(row("a"))
    move(world)
    result = world.push(row("a", NOW, clicks=2), row("b", NOW, clicks=3))
    assert result.is_online
    assert served_everywhere(world, "a", "b", "c") == [2, 3, None]
    assert_parity(world)
    world.set_clock.now += MINUTE
    move(world)
    assert served_everywhere(world, "a", "b", "c") == [2, 3, None]
    assert_parity(world)


def test_older_event_never_displaces_a_newer_one(world: Clicks) -> None:
    world.push(row("a", NOW, clicks=5))
    move(world)
    world.push(row("a", NOW - MINUTE, clicks=4), row("a", NOW - HOUR, clicks=3))
    assert served_everywhere(world, "a") == [5]
    assert_parity(world)


def test_newest_of_one_push_is_served(world: Clicks) -> None:
    world.push(row("z"))
    move(world)
    world.push(row("a", NOW - HOUR, clicks=1), row("a", NOW, clicks=2), row("a", NOW - MINUTE, clicks=3))
    assert served_everywhere(world, "a") == [2]


def test_row_of_the_near_future_waits_for_its_time(world: Clicks) -> None:
    world.push(row("a"))
    move(world)
    result = world.push(row("a", NOW + 2 * MINUTE, clicks=9), row("b", NOW, clicks=2))
    assert result.waiting == 1
    assert not result.is_online
    assert served_everywhere(world, "a", "b") == [1, 2]
    move(world)
    assert served_everywhere(world, "a", "b") == [1, 2]
    world.set_clock.now += 2 * MINUTE
    move(world)
    assert served_everywhere(world, "a", "b") == [9, 2]
    assert_parity(world)


def test_row_past_its_ttl_goes_to_the_table_alone(world: Clicks) -> None:
    world.push(row("z"))
    move(world)
    assert world.push(row("a", NOW - TTL)).is_online
    assert served_everywhere(world, "a") == [None]
    assert world.stored.height == 2


def test_push_online_only_is_served_until_the_copy_is_built_anew(world: Clicks) -> None:
    world.push(row("a"))
    move(world)
    world.set_clock.now += MINUTE
    result = world.push(row("a", NOW, clicks=8), row("b", NOW, clicks=9), to="online")
    assert (result.table_version, result.is_online, world.stored.height) == (None, True, 1)
    assert served_everywhere(world, "a", "b") == [8, 9]
    move(world)
    assert served_everywhere(world, "a", "b") == [8, 9]
    found = check_parity(world.table, world.tiers, world.clock)
    assert found.passed
    assert found.count("online_only") == len(world.tiers)
    parts = [part for tier in world.tiers for part in tier.parts()]
    materialize(world.table, parts, world.clock, rebuild=True)
    assert served_everywhere(world, "a", "b") == [1, None]


def test_rows_of_the_future_are_refused_online_alone_where_they_could_not_wait(world: Clicks) -> None:
    world.push(row("a"))
    move(world)
    ahead = row("a", NOW + 4 * MINUTE, clicks=9)
    with pytest.raises(
        InvalidInput, match=r"(?s)1 are true of the future .*'row': 1, 'rider': 'a'.*'online_and_offline'"
    ):
        world.push(row("b", NOW, clicks=2), ahead, to="online")
    assert served_everywhere(world, "a", "b") == [1, None]
    world.set_clock.now += MINUTE
    assert world.push(row("a", NOW + MINUTE, clicks=3)).is_online
    assert served_everywhere(world, "a") == [3], "the later true row"
    world.set_clock.now += 3 * MINUTE
    assert world.push(ahead, to="online").is_online, "when its time has come"
    assert served_everywhere(world, "a") == [9]


def test_refused_first_push_online_alone_makes_no_table(world: Clicks) -> None:
    with pytest.raises(InvalidInput, match="true of the future"):
        world.push(row("a", NOW + MINUTE), to="online")
    assert world.table.version() is None


def test_row_past_its_ttl_that_is_pushed_online_alone_is_nowhere_and_counted(world: Clicks) -> None:
    result = world.push(row("a", NOW - TTL), row("b", NOW - 2 * TTL), row("c"), to="online")
    assert (result.is_online, result.lost, result.table_version) == (False, 2, None)
    assert result.told == "2 of 3 rows had outlived the group's ttl of 6:00:00, and are nowhere."
    assert served_everywhere(world, "a", "b", "c") == [None, None, 1]
    assert world.push(row("d", NOW - TTL + MINUTE), to="online").is_online


def test_a_group_is_served_that_is_pushed_to_online_alone(world: Clicks) -> None:
    result = world.push(row("a"), to="online")
    assert (result.table_version, result.is_online, result.told) == (None, True, "")
    assert (world.table.version(), world.stored.height) == (0, 0)
    assert served_everywhere(world, "a", "b") == [1, None]
    world.set_clock.now += MINUTE
    move(world)
    assert world.push(row("a", NOW, clicks=2), row("b", NOW, clicks=3), to="online").is_online
    assert served_everywhere(world, "a", "b") == [2, 3]
    world.set_clock.now += MINUTE
    assert world.push(row("c", NOW + MINUTE, clicks=4)).is_online, "the first row of the table"
    move(world)
    assert served_everywhere(world, "a", "b", "c") == [2, 3, 4]


def test_an_empty_copy_of_a_pushed_group_can_be_made_before_its_first_row(world: Clicks) -> None:
    parts = [part for tier in world.tiers for part in tier.parts()]
    step = materialize(world.table, parts, world.clock)
    assert (step.table_version, step.was_rebuilt, step.keys) == (0, True, 0)
    assert served(world, "a")[world.tiers[0].name] == [(None, "NOT_FOUND")], "nobody is unanswered"
    assert world.push(row("a")).is_online
    assert served_everywhere(world, "a") == [1]


def test_push_online_only_that_no_tier_takes_is_an_error(tmp_path: Path) -> None:
    world = Clicks(tmp_path)
    (part,) = world.tiers[0].parts()
    part.fail("frozen")  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable, match="frozen"):
        world.push(row("a"), to="online")


def test_push_offline_only_is_served_after_the_next_step(world: Clicks) -> None:
    world.push(row("a"))
    move(world)
    assert world.push(row("a", NOW, clicks=2), to="offline").parts == ()
    assert served_everywhere(world, "a") == [1]
    move(world)
    assert served_everywhere(world, "a") == [2]


def test_repeated_push_makes_good_what_the_first_could_not_write(tmp_path: Path) -> None:
    world = Clicks(tmp_path)
    (part,) = world.tiers[0].parts()
    world.push(row("z"))
    move(world)
    part.fail("frozen")  # type: ignore[attr-defined]
    first = world.push(row("a", NOW, clicks=2), key="k")
    assert first.table_version == 2
    assert not first.is_online
    assert "frozen" in first.parts[0].reason
    assert "next materialization" in first.parts[0].reason
    part.fail("")  # type: ignore[attr-defined]
    world.set_clock.now += MINUTE
    again = world.push(row("a", NOW, clicks=2), key="k")
    assert (again.was_repeated, again.is_online, world.stored.height) == (True, True, 2)
    assert served_everywhere(world, "a") == [2]
    world.set_clock.now += MINUTE
    move(world)
    assert_parity(world)


def test_failed_online_write_is_healed_by_the_next_step(tmp_path: Path) -> None:
    world = Clicks(tmp_path)
    (part,) = world.tiers[0].parts()
    world.push(row("z"))
    move(world)
    part.fail("frozen")  # type: ignore[attr-defined]
    world.push(row("a", NOW, clicks=2))
    part.fail("")  # type: ignore[attr-defined]
    assert served_everywhere(world, "a") == [None]
    move(world)
    assert served_everywhere(world, "a") == [2]


def test_hot_tier_is_not_written_where_the_warm_one_failed(tmp_path: Path) -> None:
    world = Clicks(tmp_path, tiers=[])
    world.tiers = memory_both(world.set_clock)
    world.push(row("z"))
    move(world)
    (warm,) = world.tiers[0].parts()
    warm.fail("throttled")  # type: ignore[attr-defined]
    result = world.push(row("a", NOW, clicks=2))
    assert [part.part for part in result.parts] == [warm.name, "hot"]
    assert all(part.reason for part in result.parts)
    warm.fail("")  # type: ignore[attr-defined]
    assert served_everywhere(world, "a") == [None]
    move(world)
    assert served_everywhere(world, "a") == [2]


def test_tier_that_cannot_be_opened_fails_no_push(tmp_path: Path) -> None:
    world = Clicks(tmp_path)

    def closed() -> list[Tier]:
        raise StoreUnavailable("No embedded server runs.")

    result = push_rows(world.table, closed, world.clock, [row("a")])
    assert result.table_version == 1
    assert "No embedded server runs." in result.parts[0].reason


def test_emptied_part_takes_no_push_and_is_built_from_the_table(tmp_path: Path) -> None:
    world = Clicks(tmp_path)
    (part,) = world.tiers[0].parts()
    world.push(row("a"))
    move(world)
    part.lose_everything()  # type: ignore[attr-defined]
    assert "no copy" in world.push(row("b", NOW, clicks=2)).parts[0].reason
    move(world)
    assert served_everywhere(world, "a", "b") == [1, 2]


def test_repeated_push_puts_no_older_row_where_a_newer_one_was_evicted(tmp_path: Path) -> None:
    world = Clicks(tmp_path)
    (part,) = world.tiers[0].parts()
    world.push(row("a"))
    move(world)
    world.push(row("a", clicks=1), row("b", clicks=1), key="first")
    world.push(row("a", NOW, clicks=2))
    move(world)
    part.evict(online_keys(world.table.group.name, ["a", "b"]))  # type: ignore[attr-defined]
    again = world.push(row("a", clicks=1), row("b", clicks=1), key="first")
    assert (again.was_repeated, again.parts[0].written, again.parts[0].reason) == (True, 2, "")
    assert served_everywhere(world, "a", "b") == [2, 1]


def test_refused_push_reaches_no_tier(world: Clicks) -> None:
    world.push(row("a"))
    move(world)
    with pytest.raises(InvalidInput):
        world.push(row("a", NOW, clicks=3), row("b", NOW, clicks=-3))
    assert served_everywhere(world, "a", "b") == [1, None]
    assert world.table.version() == 1


def test_step_long_after_the_last_row_expired_leaves_nothing_that_parity_finds_wrong(tmp_path: Path) -> None:
    """It touches entities of which nothing is known any more, and leaves tombstones of the lowest version."""
    world = Clicks(tmp_path)
    world.push(row("a"))
    move(world)
    world.push(row("a", clicks=2), row("b", NOW + 3 * MINUTE, clicks=2))
    world.set_clock.now += 10 * HOUR
    move(world)
    assert served_everywhere(world, "a", "b") == [None, None]
    assert_parity(world)


actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("push"), st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-5, 3)), min_size=1, max_size=4)
        ),
        st.tuples(st.just("move"), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([1, 30, 200])),
        st.tuples(st.just("fail"), st.booleans()),
        st.tuples(st.just("lose"), st.none()),
    ),
    max_size=14,
)


@settings(
    max_examples=cases(300, 8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(actions, st.booleans())
def test_after_any_history_and_a_step_every_tier_serves_what_the_table_says(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, Any]], has_warm: bool
) -> None:
    world = Clicks(tmp_path_factory.mktemp("world"), tiers=[])
    world.tiers = memory_both(world.set_clock) if has_warm else memory_hot(world.set_clock)
    parts: list[Any] = [part for tier in world.tiers for part in tier.parts()]
    for number, (action, what) in enumerate(history):
        if action == "push":
            events = {(rider, shift) for rider, shift in what}
            now = world.set_clock.now
            world.push(*(row(rider, now + shift * MINUTE, clicks=number) for rider, shift in sorted(events)))
        elif action == "wait":
            world.set_clock.now += timedelta(minutes=what)
        elif action == "lose":
            parts[number % len(parts)].lose_everything()
        elif action == "fail":
            parts[number % len(parts)].fail("down" if what else "")
        else:
            for part in parts:
                part.fail("")
            move(world)
            assert_parity(world)
    for part in parts:
        part.fail("")
    world.set_clock.now += 5 * MINUTE
    if world.table.version() is not None:
        move(world)
        assert_parity(world)
        newest = world.stored.filter(pl.col("event_time") > world.set_clock.now - 3 * HOUR)
        last = newest.sort("event_time", "knowledge_time", "created_at").unique("rider", keep="last")
        expected = dict(last.select("rider", "clicks").rows())
        assert served_everywhere(world, *"abcd") == [expected.get(rider) for rider in "abcd"]
