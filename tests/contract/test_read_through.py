"""The SDK over both tiers: a real hot server that is frozen, emptied or short of memory, and a warm tier behind it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.clock import system_clock
from featurestore.declaration import Online
from featurestore.errors import InvalidInput, UnknownName
from featurestore.online.reading.repairs import RepairCounts
from featurestore.online.reading.through import HOT_SHARE
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.contract.riders import GROUP, HOUR, START, TTL, Riders, declared, row

NAMES = ["a", "b", "c"]
TRIPS = [f"{GROUP}:trips"]
PATIENT_MS = 30_000
"""Of reads that nothing is to hold up: a busy machine is not taken for a server that is away."""
DEADLINE_MS = 2000
"""Of reads of a frozen server. A machine that runs other tests beside takes longer than a server's 100 ms."""
HOT_SECONDS = HOT_SHARE * DEADLINE_MS / 1000
REPAIR_SECONDS = 60


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "server") as made:
        yield made


@pytest.fixture
def riders(tmp_path: Path, server: EmbeddedValkey) -> Iterator[Riders]:
    """A group in both tiers, with three riders."""
    group = replace(declared(max_age=TTL), online=Online(ttl=TTL, tiers=("hot", "warm")))
    made = Riders(tmp_path / "store", server.url, group, now=START + 12 * HOUR)
    made.promote([10], [row(name, 10, number) for number, name in enumerate(NAMES)])
    yield made
    made.close()


@pytest.fixture
def store(riders: Riders) -> Iterator[FeatureStore]:
    """Both tiers filled."""
    made = store_of(riders)
    made.materialize()
    yield made
    made.close()


@pytest.fixture
def hurried(riders: Riders) -> Iterator[FeatureStore]:
    """The same, of which reads have little time."""
    made = store_of(riders, deadline_ms=DEADLINE_MS)
    made.materialize()
    yield made
    made.close()


def store_of(riders: Riders, *, deadline_ms: int = PATIENT_MS, hot_keys: int = 0) -> FeatureStore:
    """The hot server's own limit, 50 ms by default, is not what is looked at here: it is that of the deadline."""
    url = f"{riders.url.partition('?')[0]}?socket_timeout={HOT_SHARE * deadline_ms / 1000}"
    places = (riders.root, riders.root.child("landing"), url)
    own = Settings(*places, warm_url="memory://", read_deadline_ms=deadline_ms, hot_keys=hot_keys)
    return FeatureStore(own, clock=riders.clock)


def served(store: FeatureStore, names: list[str]) -> list[tuple[int | None, str, str | None]]:
    """Value, status and tier of each rider."""
    answer = store.get_online_features(TRIPS, {"rider": names})
    columns = (answer.frame["trips"], answer.statuses["trips"], answer.tiers["trips"])
    return list(zip(*(column.to_list() for column in columns), strict=True))


def of_tier(tier: str) -> list[tuple[int | None, str, str | None]]:
    return [(0, "PRESENT", tier), (1, "PRESENT", tier), (2, "PRESENT", tier), (None, "NOT_FOUND", None)]


@contextmanager
def frozen(server: EmbeddedValkey) -> Iterator[None]:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_group_is_materialized_into_both_tiers_the_warm_one_first(store: FeatureStore, riders: Riders) -> None:
    parts = store.online.parts_of(riders.group)
    assert [part.tier for part in parts] == ["warm", "hot"]
    states = [part.state(GROUP) for part in parts]
    assert states[0] is not None
    assert [state and state.version for state in states] == [riders.table.version()] * 2


def test_a_frozen_hot_server_costs_its_share_of_the_deadline_and_the_warm_tier_answers(
    hurried: FeatureStore, server: EmbeddedValkey
) -> None:
    assert served(hurried, [*NAMES, "x"]) == of_tier("hot")
    with frozen(server):
        begun = time.monotonic()
        assert served(hurried, [*NAMES, "x"]) == of_tier("warm")
        assert 0.9 * HOT_SECONDS < time.monotonic() - begun < DEADLINE_MS / 1000


def test_a_hot_server_that_stays_frozen_is_soon_not_waited_for_and_comes_back(
    hurried: FeatureStore, server: EmbeddedValkey
) -> None:
    with frozen(server):
        begun = time.monotonic()
        for _ in range(30):
            assert served(hurried, ["b"]) == [(1, "PRESENT", "warm")]
        assert time.monotonic() - begun < 30 * HOT_SECONDS / 2, "not each of them waits"
    until = time.monotonic() + 5
    while served(hurried, ["b"]) != [(1, "PRESENT", "hot")]:
        assert time.monotonic() < until, "a server that is back is used again within 5 s"
        time.sleep(0.05)


def test_without_a_warm_tier_a_frozen_server_leaves_values_unavailable_in_time(
    riders: Riders, server: EmbeddedValkey
) -> None:
    riders.declare(declared())
    store = FeatureStore(replace(riders.store.settings, online_url=riders.url.partition("?")[0]), clock=riders.clock)
    store.materialize()
    with frozen(server):
        begun = time.monotonic()
        assert served(store, ["a", "x"]) == [(None, "UNAVAILABLE", None)] * 2
        assert time.monotonic() - begun < 2
    store.close()


def test_an_emptied_hot_server_is_answered_for_until_it_is_built_again(store: FeatureStore, riders: Riders) -> None:
    riders.client.flushall()
    assert served(store, [*NAMES, "x"]) == of_tier("warm")
    assert store.online.repair_counts == RepairCounts()
    store.materialize()
    assert served(store, [*NAMES, "x"]) == of_tier("hot")


def test_evicted_keys_are_found_in_the_warm_tier_and_put_back(store: FeatureStore, riders: Riders) -> None:
    riders.client.delete(f"{GROUP}:a", f"{GROUP}:c")
    assert served(store, NAMES) == [(0, "PRESENT", "warm"), (1, "PRESENT", "hot"), (2, "PRESENT", "warm")]
    assert store.online.wait_for_repairs(REPAIR_SECONDS)
    assert store.online.repair_counts == RepairCounts(written=2)
    assert served(store, [*NAMES, "x"]) == of_tier("hot")
    left = riders.client.pttl(f"{GROUP}:a")
    # Its clock stands still, and that of the server has gone on since the other one was written.
    assert left == pytest.approx(riders.client.pttl(f"{GROUP}:b"), abs=60_000), "it expires as it would have"


def recent(riders: Riders, rider: str, hours_ago: int, trips: int) -> tuple[int, dict[str, object]]:
    """A row of so many whole hours ago by the machine's own clock, and the number of its hour."""
    number = (system_clock() - START) // HOUR - hours_ago
    return number, row(rider, number, trips)


@pytest.mark.parametrize("rebuild", [True, False])
def test_by_a_clock_that_runs_evicted_keys_are_put_back_too(
    riders: Riders, server: EmbeddedValkey, rebuild: bool
) -> None:
    store = FeatureStore(store_of(riders).settings, clock=system_clock)
    for hours_ago in (3, 2):
        number, made = recent(riders, "a", hours_ago, hours_ago)
        riders.promote([number], [made])
        store.materialize([GROUP], rebuild=rebuild)
        states = [part.state(GROUP) for part in store.online.parts_of(riders.group)]
        assert states[0] == states[1], "one version and one instant"
        riders.client.delete(f"{GROUP}:a")
        assert served(store, ["a"]) == [(hours_ago, "PRESENT", "warm")]
        assert store.online.wait_for_repairs(REPAIR_SECONDS)
        assert served(store, ["a"]) == [(hours_ago, "PRESENT", "hot")]
    store.close()


def test_hot_keys_are_answered_from_memory_once_that_is_on(riders: Riders) -> None:
    store = store_of(riders, hot_keys=100)
    assert store_of(riders).online.hot_key_counts is None
    store.materialize()
    before = reads_of_server(riders)
    for _ in range(50):
        assert served(store, ["c", "a"]) == [(2, "PRESENT", "hot"), (0, "PRESENT", "hot")]
    counts = store.online.hot_key_counts
    assert counts is not None
    assert counts.hits > 0
    assert reads_of_server(riders) - before == counts.misses / 2 < 50
    assert (counts.hits + counts.misses, counts.entries) == (100, 2)
    store.close()


def reads_of_server(riders: Riders) -> int:
    return int(riders.client.info("commandstats")["cmdstat_mget"]["calls"])


def test_a_store_in_memory_needs_no_server(riders: Riders) -> None:
    settings = Settings.from_env(
        {
            "FEATURESTORE_ROOT": str(riders.root.path),
            "FEATURESTORE_ONLINE_URL": "memory://",
            "FEATURESTORE_WARM_URL": "memory://",
            "FEATURESTORE_READ_DEADLINE_MS": str(PATIENT_MS),
        }
    )
    store = FeatureStore(settings, clock=riders.clock)
    assert served(store, ["a"]) == [(None, "UNAVAILABLE", None)]
    store.materialize()
    assert served(store, [*NAMES, "x"]) == of_tier("hot")
    assert store.online.hot.name == "hot"
    assert store.online.warm.name == "warm"


def test_a_closed_store_opens_again_and_leaves_no_thread(store: FeatureStore, riders: Riders) -> None:
    before = set(threading.enumerate())
    riders.client.delete(f"{GROUP}:a")
    served(store, ["a"])
    assert store.online.wait_for_repairs(REPAIR_SECONDS)
    (repairing,) = [one for one in threading.enumerate() if one not in before and one.name == "featurestore repairs"]
    store.close()
    assert not repairing.is_alive()
    assert served(store, ["b"]) == [(1, "PRESENT", "hot")]


def test_a_group_declared_for_a_tier_that_is_not_configured_is_refused_with_the_remedy(riders: Riders) -> None:
    with pytest.raises(InvalidInput, match="FEATURESTORE_WARM_URL"):
        riders.store.get_online_features(TRIPS, {"rider": ["a"]})
    with pytest.raises(UnknownName, match="'nothing' is not registered"):
        riders.store.online.read_many({"nothing": [b"nothing:1"]})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("FEATURESTORE_READ_DEADLINE_MS", "0"), ("FEATURESTORE_READ_DEADLINE_MS", "1s"), ("FEATURESTORE_HOT_KEYS", "-1")],
)
def test_settings_that_are_no_number_are_refused(variable: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=variable):
        Settings.from_env({variable: value})


def test_settings_say_the_deadline_and_the_cache() -> None:
    assert (Settings.from_env({}).read_deadline_ms, Settings.from_env({}).hot_keys) == (100, 0)
    given = Settings.from_env({"FEATURESTORE_READ_DEADLINE_MS": "40", "FEATURESTORE_HOT_KEYS": "5000"})
    assert (given.read_deadline_ms, given.hot_keys) == (40, 5000)
