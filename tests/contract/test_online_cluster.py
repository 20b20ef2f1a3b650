"""The hot tier on a real cluster of Valkey servers: what one node's trouble costs, moved slots, failover, writers at once.

What every tier keeps to is in `test_tier_contract`.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import redis

from featurestore.errors import FenceRefused, InvalidInput, StaleWriter, StoreUnavailable
from featurestore.online.redis.cluster import RedisClusterTier
from featurestore.online.redis.connection import seeds_of
from featurestore.online.redis.hot import open_hot_tier
from featurestore.online.redis.topology import slots_of
from featurestore.online.tier import Fill, MaterializationState, Replies, TierPart
from tests.contract.online_rows import GROUP, NOW, clock, decoded, key_of, messages_of, plain
from tests.contract.tiers import Copy, owned_positions
from tests.contract.valkey_cluster import EmbeddedCluster
from tests.scale import cases

STATE = MaterializationState("table-1", 4, NOW)
AHEAD = MaterializationState("table-1", 5, NOW + timedelta(hours=1))
KEYS = [key_of(number) for number in range(300)]
REPLICA = 3


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    """A cluster of this module's own: its nodes are killed and its slots are moved."""
    with EmbeddedCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def tier(servers: EmbeddedCluster) -> Iterator[RedisClusterTier]:
    servers.wait_until_whole()  # a node that stood still for long in the last test has to be found well again
    for number in range(len(servers.nodes)):
        servers.client(number).flushall()
    # Patient, so that a busy machine is not taken for a node that is away.
    made = RedisClusterTier(seeds_of(servers.url.replace("socket_timeout=5", "socket_timeout=30")), clock)
    yield made
    made.close()


@pytest.fixture
def copy(tier: RedisClusterTier) -> Copy:
    """A known copy that has all keys."""
    made = Copy(tier, GROUP)
    made.write(KEYS, messages_of([plain(5)] * len(KEYS)), epochs=made.build(STATE))
    return made


@contextmanager
def frozen(servers: EmbeddedCluster, number: int) -> Iterator[None]:
    pid = servers.nodes[number].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def at(copy: Copy, servers: EmbeddedCluster, number: int) -> list[int]:
    """Positions of the keys that a node has."""
    return owned_positions(part_of(copy, servers, number), KEYS)


def part_of(copy: Copy, servers: EmbeddedCluster, number: int) -> TierPart:
    port = servers.client(number).connection_pool.connection_kwargs["port"]
    return next(part for part in copy.parts if part.name.endswith(f":{port}"))


def values(replies: Replies) -> list[int | None]:
    found: list[int | None] = decoded(replies.messages)["v"].to_list()
    return found


def calls(server: redis.Redis) -> int:
    """Scripts that a server has run."""
    return int(server.info("commandstats").get("cmdstat_evalsha_ro", {}).get("calls", 0))


def soon(is_so: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(0.02)
    return False


# One round trip a node


def test_a_batch_is_one_call_a_node(copy: Copy, servers: EmbeddedCluster) -> None:
    copy.read(KEYS)
    before = [calls(servers.client(number)) for number in range(3)]
    assert values(copy.tier.read_many({GROUP: KEYS, "other": [b"other:1"]})[GROUP]) == [5] * len(KEYS)
    assert [calls(servers.client(number)) - one for number, one in enumerate(before)] == [1, 1, 1]


@pytest.mark.parametrize("stopped", range(3))
def test_all_nodes_are_sent_to_before_any_is_awaited(copy: Copy, servers: EmbeddedCluster, stopped: int) -> None:
    """One node stands still; the others have run their part of the read before it goes on, whichever it is."""
    copy.read(KEYS)
    others = [number for number in range(3) if number != stopped]
    before = [calls(servers.client(number)) for number in others]
    found: list[Replies] = []
    reading = threading.Thread(target=lambda: found.append(copy.read(KEYS)))
    with frozen(servers, stopped):
        reading.start()
        assert soon(lambda: [calls(servers.client(number)) for number in others] == [one + 1 for one in before])
        assert not found
    reading.join()
    assert values(found[0]) == [5] * len(KEYS)


def test_a_key_that_holds_another_type_is_unanswered(copy: Copy, servers: EmbeddedCluster) -> None:
    owner = servers.client(next(number for number in range(3) if 0 in at(copy, servers, number)))
    owner.delete(KEYS[0])
    owner.rpush(KEYS[0], "something else")
    replies = copy.read(KEYS)
    assert (replies.unanswered, values(replies)[1:]) == ({0}, [5] * (len(KEYS) - 1))
    assert "something else than messages" in replies.cause


# One node in trouble


@pytest.mark.parametrize("stopped", range(3))
def test_a_frozen_node_costs_its_keys_and_the_deadline_and_then_nothing(
    copy: Copy, servers: EmbeddedCluster, stopped: int
) -> None:
    """Seen from a reader that has met the nodes, and from one that has not."""
    copy.read(KEYS)
    lost = at(copy, servers, stopped)
    fresh = Copy(open_hot_tier(servers.url, clock), GROUP)
    with frozen(servers, stopped):
        for one in (copy, fresh):
            started = time.monotonic()
            replies = one.tier.read_many({GROUP: KEYS}, timeout_seconds=2.0)[GROUP]
            assert time.monotonic() - started < 4.0, "and not the 5 s of the address"
            assert replies.unanswered == set(lost)
            assert "does not answer (TimeoutError)" in replies.cause

        def cause() -> str:
            return copy.tier.read_many({GROUP: KEYS}, timeout_seconds=0.25)[GROUP].cause

        assert soon(lambda: "is left alone for a moment" in cause())
        replies = copy.tier.read_many({GROUP: KEYS}, timeout_seconds=2.0)[GROUP]
        assert replies.unanswered == set(lost)
        assert [v for p, v in enumerate(values(replies)) if p not in lost] == [5] * (len(KEYS) - len(lost))
    assert soon(lambda: not copy.tier.read_many({GROUP: KEYS}, timeout_seconds=1.0)[GROUP].unanswered)
    fresh.tier.close()


def test_a_node_that_comes_back_empty_is_unknown_and_rebuilt_alone(copy: Copy, servers: EmbeddedCluster) -> None:
    lost, epochs = at(copy, servers, 1), copy.epochs()
    servers.kill(1)
    try:
        replies = copy.read(KEYS)
        assert replies.unanswered == set(lost)
        assert [v for p, v in enumerate(values(replies)) if p not in lost] == [5] * (len(KEYS) - len(lost))
        with pytest.raises(StoreUnavailable, match="does not answer"):
            part_of(copy, servers, 1).state(GROUP)
    finally:
        servers.restart(1)
    part = part_of(copy, servers, 1)
    assert sorted(map(str, copy.states())) == sorted(map(str, [STATE, None, STATE]))
    assert soon(lambda: "holds no copy" in copy.read(KEYS).cause)
    assert copy.read(KEYS).unanswered == set(lost)
    epoch = part.start_over(GROUP, epoch=part.ensure_epoch(GROUP))
    part.record_fill(GROUP, Fill(AHEAD, 1, 0, "me"), epoch=epoch, previous=None)
    part.fill(GROUP, [KEYS[p] for p in lost], messages_of([plain(6)] * len(lost)), epoch=epoch, ttl=None, owner="me")
    part.set_state(GROUP, AHEAD, epoch=epoch, is_rebuild=True)
    replies = copy.read(KEYS)
    assert not replies.unanswered
    assert values(replies) == [6 if p in lost else 5 for p in range(len(KEYS))]
    assert {name: now for name, now in copy.epochs().items() if now == epochs[name]}.keys() == epochs.keys() - {
        part.name
    }


# Slots that move


@contextmanager
def moved(servers: EmbeddedCluster, slots: Sequence[int], *, with_keys: bool = True) -> Iterator[None]:
    """Slots of the first node are the third's for a while."""
    servers.move_slots(slots, 0, 2, with_keys=with_keys)
    try:
        yield
    finally:
        servers.move_slots(slots, 2, 0)


def some_slots(copy: Copy, servers: EmbeddedCluster, count: int = 5) -> list[int]:
    slots = slots_of([KEYS[p] for p in at(copy, servers, 0)])
    return sorted({int(slot) for slot in slots})[:count]


def test_slots_that_moved_with_their_keys_are_found_within_the_same_read(copy: Copy, servers: EmbeddedCluster) -> None:
    copy.read(KEYS)
    with moved(servers, some_slots(copy, servers)):
        replies = copy.read(KEYS)
        assert not replies.unanswered
        assert values(replies) == [5] * len(KEYS)


def test_whoever_takes_slots_is_unknown_and_whoever_gives_them_is_not(copy: Copy, servers: EmbeddedCluster) -> None:
    giver, taker = part_of(copy, servers, 0), part_of(copy, servers, 2)
    slots = some_slots(copy, servers)
    inside = np.isin(slots_of(KEYS), slots)
    with moved(servers, slots, with_keys=False):
        states = {part.name: part.state(GROUP) for part in copy.parts}
        assert states[giver.name] == STATE
        assert states[taker.name] is None
        assert copy.read(KEYS).unanswered == set(np.flatnonzero(inside).tolist())
        now = part_of(copy, servers, 2)
        epoch = now.start_over(GROUP, epoch=now.ensure_epoch(GROUP))
        now.set_state(GROUP, AHEAD, epoch=epoch, is_rebuild=True)
        assert now.state(GROUP) == AHEAD
        assert soon(lambda: not copy.read(KEYS).unanswered)
    assert part_of(copy, servers, 2).state(GROUP) == AHEAD
    assert part_of(copy, servers, 0).state(GROUP) is None
    assert soon(lambda: bool(copy.read([*KEYS, key_of(-1), key_of(-2), key_of(-3)]).unanswered))


def test_a_write_to_slots_that_moved_meanwhile_is_refused(copy: Copy, servers: EmbeddedCluster) -> None:
    part, positions = part_of(copy, servers, 0), at(copy, servers, 0)
    epoch = part.ensure_epoch(GROUP)
    keys, messages = [KEYS[p] for p in positions], messages_of([plain(9)] * len(positions))
    with moved(servers, some_slots(copy, servers)):
        with pytest.raises(StoreUnavailable, match="given slots to another node: take the step again"):
            part.write(GROUP, keys, messages, epoch=epoch, ttl=None)
        again = Copy(copy.tier, GROUP)
        again.write(KEYS, messages_of([plain(9)] * len(KEYS)))
        assert values(again.read(KEYS)) == [9] * len(KEYS)


# Failover


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(tmp_path, replicas=1) as cluster:
        yield cluster


def test_after_a_failover_the_copy_goes_on_and_writers_from_before_are_refused(replicated: EmbeddedCluster) -> None:
    copy = Copy(RedisClusterTier(seeds_of(replicated.url), clock), GROUP)
    epochs = copy.build(STATE)
    copy.write(KEYS, messages_of([plain(5)] * len(KEYS)), epochs=epochs)
    old = part_of(copy, replicated, 0)
    assert soon(lambda: replicated.client(0).wait(1, 1000) == 1)
    replicated.fail_over(REPLICA)
    assert soon(
        lambda: len({part.name for part in copy.parts} & {f"hot {a}" for a in addresses(replicated, REPLICA)}) == 1
    )
    assert soon(lambda: not copy.read(KEYS).unanswered)
    assert values(copy.read(KEYS)) == [5] * len(KEYS)
    assert copy.states() == [STATE] * 3
    new = part_of(copy, replicated, REPLICA)
    mine = [KEYS[p] for p in owned_positions(new, KEYS)]
    with pytest.raises(FenceRefused, match="the server was restarted"):
        new.write(GROUP, mine, messages_of([plain(9)] * len(mine)), epoch=epochs[old.name], ttl=None)
    with pytest.raises(StoreUnavailable):
        old.write(GROUP, mine, messages_of([plain(9)] * len(mine)), epoch=epochs[old.name], ttl=None)
    copy.begin_step(AHEAD)
    copy.set_state(AHEAD)
    assert copy.states() == [AHEAD] * 3
    copy.tier.close()


@pytest.mark.exam
def test_reads_recover_by_themselves_when_a_replica_takes_over_from_a_killed_primary(
    replicated: EmbeddedCluster,
) -> None:
    copy = Copy(RedisClusterTier(seeds_of(replicated.url), clock), GROUP)
    copy.write(KEYS, messages_of([plain(5)] * len(KEYS)), epochs=copy.build(STATE))
    assert soon(lambda: replicated.client(0).wait(1, 1000) == 1)
    lost = at(copy, replicated, 0)
    replicated.kill(0)
    assert copy.read(KEYS).unanswered == set(lost)
    assert soon(lambda: not copy.read(KEYS).unanswered, seconds=120)
    assert values(copy.read(KEYS)) == [5] * len(KEYS)
    copy.tier.close()


def addresses(servers: EmbeddedCluster, number: int) -> list[str]:
    place = servers.client(number).connection_pool.connection_kwargs
    return [f"{place['host']}:{place['port']}"]


# Writers at once


def test_shuffled_doubled_writers_at_once_end_on_the_newest_version(
    tier: RedisClusterTier, servers: EmbeddedCluster
) -> None:
    """Each writer has connections of its own; a writer whose epoch is gone reads it again."""
    entities, versions = cases(2_500, 120), 10
    epochs = Copy(tier, GROUP).build(STATE)
    faults: list[BaseException] = []

    def write_all(seed: int) -> None:
        order = random.Random(seed)
        pairs = [(key_of(n), version) for n in range(entities) for version in range(1, versions + 1)] * 2
        order.shuffle(pairs)
        own = Copy(RedisClusterTier(seeds_of(servers.url), clock), GROUP)
        try:
            for start in range(0, len(pairs), 500):
                keys, numbers = zip(*pairs[start : start + 500], strict=True)
                own.write(keys, messages_of([plain(number) for number in numbers]), epochs=epochs)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the test's own thread is to show it
            faults.append(fault)
        own.tier.close()

    writers = [threading.Thread(target=write_all, args=(seed,)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert faults == []
    assert values(Copy(tier, GROUP).read([key_of(n) for n in range(entities)])) == [versions] * entities


# Addresses


def test_a_cluster_is_opened_by_its_address(servers: EmbeddedCluster, copy: Copy) -> None:
    first = servers.url.partition("://")[2].partition(",")[0]
    opened = open_hot_tier(f"redis+cluster://{first}?socket_timeout=30", clock)
    assert isinstance(opened, RedisClusterTier)
    assert values(opened.read_many({GROUP: KEYS}, timeout_seconds=30.0)[GROUP]).count(5) == len(KEYS)
    assert len(opened.parts()) == 3
    opened.close()


@pytest.mark.parametrize(
    "url", ["redis+cluster://", "redis+cluster:///0", "http+cluster://a:1", "redis+cluster://a:1/3"]
)
def test_an_unreadable_address_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(InvalidInput, match="Write redis"):
        open_hot_tier(url, clock)


def test_a_server_that_is_no_cluster_says_so(valkey_url: str) -> None:
    tier = open_hot_tier(valkey_url.replace("redis://", "redis+cluster://").replace("/0", ""), clock)
    with pytest.raises(StoreUnavailable, match="cluster-enabled"):
        tier.parts()
    replies = tier.read_many({GROUP: KEYS[:2]})[GROUP]
    assert replies.unanswered == {0, 1}
    assert "no node of the Redis cluster" in replies.cause
    tier.close()


def test_a_step_of_a_part_that_was_never_built_cannot_begin(tier: RedisClusterTier) -> None:
    part = tier.parts()[0]
    with pytest.raises(StaleWriter, match="none is recorded"):
        part.begin_step(GROUP, STATE, epoch=part.ensure_epoch(GROUP))
