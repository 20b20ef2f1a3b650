"""What a look publishes to the parts of every tier, and what reads learn of it: along with the keys, and never of an older look."""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import redis

from featurestore.freshness.publishing import publish
from featurestore.freshness.watch import FreshnessWatch
from featurestore.online.breaker import Breaker
from featurestore.online.memory import MemoryTier
from featurestore.online.published import KEPT, KnownFreshness, Published
from featurestore.online.reading.repairs import Repairs
from featurestore.online.reading.through import ReadThrough, Route
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.online.tier import MaterializationState
from featurestore.store import FeatureStore
from tests.contract.couriers import DAY, HOUR, MEMORY, WHOLE, deploy, environment
from tests.contract.couriers import NOW as COURIERS_NOW
from tests.contract.online_rows import GROUP, NOW, clock, key_of
from tests.contract.tiers import EXAM_TIERS, SLOW_TIERS, TIERS, Copy, TierUnderTest
from tests.scale import cases

OTHER = "plane_last_flight_hourly_v2"
MINUTE, MICROSECOND = timedelta(minutes=1), timedelta(microseconds=1)
STATE = MaterializationState("table-1", 4, NOW, "7/abc")
KEYS = [key_of(number) for number in range(20)]
FOUND = Published(NOW, "WARN", NOW - HOUR, NOW - 2 * HOUR, NOW - MINUTE, NOW - MICROSECOND, "online")


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.exam] * (name in EXAM_TIERS)) for name in TIERS])
def under(request: pytest.FixtureRequest) -> Iterator[TierUnderTest]:
    with TIERS[request.param](request, clock) as made:
        yield made


def told(under: TierUnderTest, group: str = GROUP) -> Published | None:
    """What a reader learns: one that has asked nothing yet, or not for a while."""
    under.settle()
    if hasattr(under.tier, "_turns"):
        under.tier._turns._next.clear()
    return under.tier.read_many({group: KEYS})[group].published


def tell(under: TierUnderTest, **records: Published) -> None:
    for part in under.tier.parts():
        part.publish(records)


def test_a_reader_learns_with_the_keys_what_was_published_of_each_group(under: TierUnderTest) -> None:
    Copy(under.tier, GROUP).build(STATE)
    assert told(under) is None
    other = replace(FOUND, status="OK", cause="", since=None, behind_since=None)
    tell(under, **{GROUP: FOUND, OTHER: other})
    assert [told(under, name) for name in (GROUP, OTHER)] == [FOUND, other]
    for part in under.tier.parts():
        part.publish({})
    assert told(under) == FOUND


def test_a_group_without_a_copy_has_its_freshness_all_the_same(under: TierUnderTest) -> None:
    never = Published(NOW, "NEVER")
    tell(under, **{GROUP: never})
    assert told(under) == never
    assert Copy(under.tier, GROUP).read(KEYS).unanswered == set(range(20))


def test_an_older_look_never_replaces_a_newer_one(under: TierUnderTest) -> None:
    for looked_at, status in ((NOW, "OK"), (NOW - MICROSECOND, "BREACH"), (NOW - DAY, "WARN"), (NOW, "NEVER")):
        tell(under, **{GROUP: replace(FOUND, looked_at=looked_at, status=status)})
        assert told(under) == replace(FOUND, looked_at=NOW, status="OK")
    newer = replace(FOUND, looked_at=NOW + MICROSECOND)
    tell(under, **{GROUP: newer})
    assert told(under) == newer


def test_of_watchers_that_publish_at_once_the_newest_look_stays(
    under: TierUnderTest, request: pytest.FixtureRequest
) -> None:
    count = cases(2_000, 6 if request.node.callspec.params["under"] in SLOW_TIERS else 60)
    looks = [replace(FOUND, looked_at=NOW + number * MICROSECOND) for number in range(count)]
    random.Random(7).shuffle(looks)
    parts, turns = under.tier.parts(), itertools.cycle(range(3))
    shares: list[list[Published]] = [[], [], []]
    for look in looks:
        shares[next(turns)].append(look)

    def work(share: list[Published]) -> None:
        for look in share:
            for part in parts:
                part.publish({GROUP: look})

    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told(under) == max(looks, key=lambda look: look.looked_at)


def test_it_outlives_a_copy_that_is_built_anew_and_not_a_part_that_is_emptied(under: TierUnderTest) -> None:
    copy = Copy(under.tier, GROUP)
    copy.build(STATE)
    tell(under, **{GROUP: FOUND})
    copy.start_over()
    assert told(under) == FOUND
    under.empty()
    assert told(under) is None
    tell(under, **{GROUP: replace(FOUND, looked_at=NOW - DAY)})
    assert told(under) == replace(FOUND, looked_at=NOW - DAY), "nothing is known of the look before"


def test_of_parts_that_disagree_the_newest_look_counts(under: TierUnderTest) -> None:
    parts = under.tier.parts()
    for number, part in enumerate(parts):
        part.publish({GROUP: replace(FOUND, looked_at=NOW - number * MINUTE)})
    assert told(under) == FOUND


# one server


@pytest.fixture
def server(valkey_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        yield client


def test_within_a_second_a_reader_asks_once_what_was_published(server: redis.Redis, valkey_url: str) -> None:
    seconds = [0.0]
    tier = RedisOnlineStore(valkey_url, clock, seconds=lambda: seconds[0])
    tier.publish({GROUP: FOUND})
    found = [tier.read(GROUP, KEYS).published for _ in range(3)]
    seconds[0] = 1.0
    assert [*found, tier.read(GROUP, KEYS).published] == [FOUND, None, None, FOUND]
    tier.close()


def test_what_else_stands_under_the_key_is_written_over_and_what_nobody_looks_after_goes(
    server: redis.Redis, valkey_url: str
) -> None:
    tier = RedisOnlineStore(valkey_url, clock)
    key = f"@freshness:{GROUP}"
    server.rpush(key, "a list")
    assert tier.read(GROUP, KEYS).published is None
    tier.publish({GROUP: FOUND})
    assert 0 < int(server.pttl(key)) <= KEPT // timedelta(milliseconds=1)  # type: ignore[arg-type]
    for junk in ("{", "[1]", '{"looked_at": "soon"}'):
        server.set(key, junk)
        tier.publish({GROUP: FOUND})
        assert server.get(key) == FOUND.record().encode()
    tier.close()


def test_a_server_that_restarts_with_its_data_has_it_still(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path, append_only=True) as running:
        tier = RedisOnlineStore(running.url, clock)
        tier.publish({GROUP: FOUND})
        tier.close()
    with EmbeddedValkey(tmp_path, append_only=True) as running:
        tier = RedisOnlineStore(running.url, clock)
        assert tier.read(GROUP, KEYS).published == FOUND
        tier.close()


# two tiers


@pytest.mark.parametrize(("hot", "warm"), [(NOW, NOW - MINUTE), (NOW - MINUTE, NOW), (None, NOW), (NOW, None)])
def test_of_tiers_that_disagree_the_newest_look_counts(hot: datetime | None, warm: datetime | None) -> None:
    tiers: dict[str, MemoryTier] = {"hot": MemoryTier("hot", clock), "warm": MemoryTier("warm", clock)}
    for name, looked_at in (("hot", hot), ("warm", warm)):
        if looked_at is not None:
            tiers[name].parts()[0].publish({GROUP: replace(FOUND, looked_at=looked_at)})
    known = KnownFreshness()
    through = ReadThrough(
        tiers.__getitem__,
        Repairs(lambda: tiers["hot"]),
        Breaker(time.monotonic),
        deadline_seconds=5.0,
        known_freshness=known,
    )
    through.read({GROUP: (Route(("hot", "warm"), None, GROUP), KEYS)})
    assert known(GROUP) == FOUND


# a whole store


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return deploy(environment(tmp_path, MEMORY))


def look(store: FeatureStore) -> list[str]:
    found = FreshnessWatch(store.offline, store.online.parts_of).look()
    return publish(store.online, found.values())


def states(store: FeatureStore) -> list[tuple[str, str, str]]:
    asked = ["courier_state:speed", "courier_score:score"]
    answer = store.get_online_features(asked, {"courier": [WHOLE]})
    return [(one.group, one.state, one.cause) for one in answer.freshness.groups]


def test_what_a_look_finds_is_what_readers_say_also_when_parts_were_emptied_or_are_away(store: FeatureStore) -> None:
    asked = ("courier_state", "courier_score")
    assert states(store) == [(name, "UNKNOWN", "unpublished") for name in asked]
    assert look(store) == []
    breach = [(name, "BREACH", "arrival") for name in asked]
    assert states(store) == breach, "rows of an hour ago, which may take five minutes"
    (hot,) = store.online.hot.parts()
    hot.lose_everything()
    assert states(store) == breach
    hot.fail("away")
    (trouble,) = look(store)
    assert "hot memory 0" in trouble
    assert states(store) == breach, "what was learned is not forgotten"
    store.clock = lambda: COURIERS_NOW + 400 * DAY
    assert states(store) == breach


def test_groups_that_are_not_served_are_not_published(store: FeatureStore) -> None:
    assert look(store) == []
    (hot,) = store.online.hot.parts()
    assert set(hot._published) == {"courier_state", "courier_score", "depot_state"}
