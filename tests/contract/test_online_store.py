"""The hot tier on a real Valkey server: what a read says, what a write may do, and what failures look like."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import FenceRefused, InvalidInput
from featurestore.online.redis.part import LARGEST_BATCH_KEYS
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.tier import Fill, MaterializationState
from tests.contract.online_rows import (
    GROUP,
    NOW,
    STATE,
    WEEK,
    Version,
    clock,
    decoded,
    key_of,
    messages_of,
    moment,
    plain,
    removed_frame,
    write,
)
from tests.contract.tiers import Copy
from tests.scale import cases
from tests.waiting import wait_for


@pytest.fixture
def server(valkey_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(valkey_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(valkey_url: str, server: redis.Redis) -> Iterator[RedisOnlineStore]:
    assert server.dbsize() == 0
    made = RedisOnlineStore(redis.Redis.from_url(valkey_url), clock, read_batch_keys=7, write_batch_keys=3)
    yield made
    made.close()


def test_replies_stand_in_key_order_with_none_for_a_miss(store: RedisOnlineStore) -> None:
    write(store, list(range(0, 40, 2)))
    wanted = [3, 38, 38, 0, 999, *range(30)]
    replies = store.read(GROUP, [key_of(number) for number in wanted]).messages
    assert [reply is not None for reply in replies] == [number % 2 == 0 and number < 40 for number in wanted]


def test_many_groups_are_read_in_one_round_trip(store: RedisOnlineStore) -> None:
    epoch = store.ensure_epoch()
    for group in ("a", "b"):
        store.write(group, [f"{group}:1".encode()], messages_of([plain(1)]), epoch=epoch, ttl=None)
    store.set_state("a", STATE, epoch=epoch, is_rebuild=True)
    found = store.read_many({"a": [b"a:1", b"a:2"], "b": [b"b:1", b"b:2"], "c": []})
    assert [reply is not None for reply in found["a"].messages] == [True, False]
    assert [reply is not None for reply in found["b"].messages] == [True, False]
    assert found["c"].messages == []
    assert {group: replies.unanswered for group, replies in found.items()} == {"a": set(), "b": {1}, "c": set()}


def test_an_emptied_server_is_cold_and_not_merely_without_the_entity(
    store: RedisOnlineStore, server: redis.Redis
) -> None:
    keys = [key_of(number) for number in range(20)]
    assert store.read(GROUP, keys).unanswered
    epoch = store.ensure_epoch()
    write(store, [0])
    assert store.read(GROUP, keys).unanswered
    store.set_state(GROUP, STATE, epoch=epoch, is_rebuild=True)
    assert not store.read(GROUP, keys).unanswered
    server.flushall()
    assert store.read(GROUP, keys).unanswered
    assert store.ensure_epoch() != epoch
    assert store.read(GROUP, keys).unanswered


def test_a_new_owner_cannot_claim_more_slices_than_are_done(store: RedisOnlineStore) -> None:
    epoch = store.ensure_epoch(GROUP)
    store.record_fill(GROUP, Fill(STATE, 4, 1, "me"), epoch=epoch, previous=None)
    with pytest.raises(FenceRefused, match="only 1 slices"):
        store.record_fill(GROUP, Fill(STATE, 4, 2, "you"), epoch=epoch, previous="me")


def test_the_epoch_lasts_until_the_server_is_emptied(store: RedisOnlineStore, server: redis.Redis) -> None:
    assert store.epoch() is None
    epoch = store.ensure_epoch()
    assert store.ensure_epoch() == epoch
    assert epoch.startswith(f"{store.epoch()}@")
    server.flushall()
    assert store.ensure_epoch() != epoch


def test_a_writer_from_before_an_emptying_writes_nothing(store: RedisOnlineStore, server: redis.Redis) -> None:
    epoch = store.ensure_epoch()
    server.flushall()
    for _ in range(2):
        with pytest.raises(FenceRefused, match="emptied since this writer began"):
            store.write(GROUP, [key_of(1)], messages_of([plain(1)]), epoch=epoch, ttl=None)
        with pytest.raises(FenceRefused):
            store.set_state(GROUP, STATE, epoch=epoch, is_rebuild=True)
        assert server.exists(key_of(1)) == 0
        store.ensure_epoch()


def test_the_state_comes_back_and_belongs_to_its_epoch(store: RedisOnlineStore, server: redis.Redis) -> None:
    epoch = store.ensure_epoch()
    assert store.state(GROUP) is None
    state = MaterializationState("table-1", 7, NOW + timedelta(microseconds=1), "ttl 7 d")
    store.set_state(GROUP, state, epoch=epoch, is_rebuild=True)
    assert store.state(GROUP) == state
    assert store.state("another") is None
    server.set("@epoch", "other")
    assert store.state(GROUP) is None


def test_a_group_started_over_is_cold_empty_and_closed_to_writers_from_before(
    store: RedisOnlineStore, server: redis.Redis
) -> None:
    other = b"plane_last_flight_hourly_v2:1"
    before = store.ensure_epoch(GROUP)
    write(store, list(range(5000)))
    store.write("plane_last_flight_hourly_v2", [other], messages_of([plain(1)]), epoch=before, ttl=None)
    store.set_state(GROUP, STATE, epoch=before, is_rebuild=True)
    after = store.start_over(GROUP, epoch=before)
    assert server.keys(f"{GROUP}:*") == []
    assert server.exists(other) == 1
    assert store.read(GROUP, [key_of(1)]).unanswered
    assert store.state(GROUP) is None
    assert store.ensure_epoch(GROUP) == after != before
    with pytest.raises(FenceRefused, match="emptied since this writer began"):
        store.write(GROUP, [key_of(1)], messages_of([plain(9)]), epoch=before, ttl=None)
    with pytest.raises(FenceRefused):
        store.start_over(GROUP, epoch=before)
    store.write(GROUP, [key_of(1)], messages_of([plain(2)]), epoch=after, ttl=None)
    store.set_state(GROUP, STATE, epoch=after, is_rebuild=True)
    replies = store.read(GROUP, [key_of(1), key_of(2)])
    assert decoded(replies.messages)["v"].to_list() == [2, None]
    assert not replies.unanswered
    assert store.state(GROUP) == STATE


SMALL = st.integers(0, 2)
WRITES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.tuples(SMALL, SMALL, SMALL),
        st.integers(0, 3),
        st.lists(st.tuples(SMALL, SMALL, SMALL), max_size=4),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=cases(10_000, 100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=WRITES)
def test_the_write_rule_is_that_of_its_model(
    store: RedisOnlineStore,
    server: redis.Redis,
    writes: list[tuple[int, Version, int, list[Version]]],
) -> None:
    server.flushall()
    epoch = store.ensure_epoch()
    model: dict[int, tuple[Version, int]] = {}
    for entity, version, fence, removed in writes:
        outcome = apply(model, entity, version, fence, removed)
        key = key_of(entity)
        removed_versions = removed_frame([key] * len(removed), removed)
        result = store.write(
            GROUP, [key], messages_of([version], fence), epoch=epoch, ttl=None, removed=removed_versions
        )
        assert (result.written, result.left, len(result.refused)) == outcome
    found = decoded(store.read(GROUP, [key_of(entity) for entity in model]).messages)
    for row, (version, fence) in zip(found.to_dicts(), model.values(), strict=True):
        assert (row["event_time"], row["knowledge_time"], row["created_at"]) == tuple(map(moment, version))
        assert (row["v"], row["fence"]) == (version[2], fence)


def apply(
    model: dict[int, tuple[Version, int]], entity: int, version: Version, fence: int, removed: list[Version]
) -> tuple[int, int, int]:
    """The rule in words: (written, left, refused) of one write."""
    if entity not in model:
        model[entity] = (version, fence)
        return (1, 0, 0)
    stored, stored_fence = model[entity]
    if stored_fence > fence:
        return (0, 0, 1)
    if stored < version or stored in removed:
        model[entity] = (version, fence)
        return (1, 0, 0)
    model[entity] = (stored, fence)
    return (0, 1, 0)


def test_the_server_frees_what_is_long_expired(store: RedisOnlineStore, server: redis.Redis) -> None:
    store.write(GROUP, [key_of(1)], messages_of([plain(0)]), epoch=store.ensure_epoch(), ttl=timedelta(hours=1))
    wait_for("the end of the key", lambda: server.exists(key_of(1)) == 0, 30, pause=0.01)


def test_a_key_that_holds_another_type_is_unanswered_and_not_said_to_be_absent(
    store: RedisOnlineStore, server: redis.Redis
) -> None:
    store.set_state(GROUP, STATE, epoch=store.ensure_epoch(), is_rebuild=True)
    keys = [key_of(number) for number in range(20)]  # several batches
    write(store, [0, 1, 2, 3, 4])
    server.rpush(keys[9], "something else")
    server.hset(keys[15], "a", "b")
    replies = store.read(GROUP, keys)
    assert replies.unanswered == {9, 15}
    assert "something else than messages" in replies.cause
    assert sorted(at for mark in replies.marks for at in mark.positions) == [
        at for at in range(5, 20) if at not in (9, 15)
    ]


def test_another_programs_value_is_not_overwritten(store: RedisOnlineStore, server: redis.Redis) -> None:
    server.set(key_of(7), b"something else")
    with pytest.raises(
        InvalidInput, match=r"Key 'plane_last_flight_hourly:7' .* holds something that is not a message"
    ):
        write(store, list(range(10)))
    assert server.get(key_of(7)) == b"something else"


def test_wrong_settings_are_refused_with_the_remedy(valkey_url: str) -> None:
    with pytest.raises(InvalidInput, match="redis://host:port/0"):
        RedisOnlineStore("localhost:6379", clock)
    with pytest.raises(InvalidInput, match="without decode_responses"):
        RedisOnlineStore(redis.Redis.from_url(valkey_url, decode_responses=True), clock)
    with pytest.raises(InvalidInput, match="must be 1 to 4000"):
        RedisOnlineStore(valkey_url, clock, write_batch_keys=0)
    naive = RedisOnlineStore(valkey_url, lambda: NOW.replace(tzinfo=None))
    with pytest.raises(InvalidInput, match="without zone"):
        naive.write(GROUP, [], [], epoch="", ttl=None)


@pytest.mark.parametrize("ttl", [None, WEEK])
def test_a_fill_may_send_as_many_keys_at_once_as_a_batch_may_have(valkey_url: str, ttl: timedelta | None) -> None:
    """More than one command could be given by a script."""
    numbers = [500 + number // 2500 for number in range(LARGEST_BATCH_KEYS)]
    keys = [key_of(number) for number in range(LARGEST_BATCH_KEYS)]
    store = RedisOnlineStore(valkey_url, clock, write_batch_keys=LARGEST_BATCH_KEYS)
    copy = Copy(store, GROUP)
    epochs = copy.start_over()
    (part,) = copy.parts
    part.record_fill(GROUP, Fill(STATE, 1, 0, "one"), epoch=epochs[part.name], previous=None)
    copy.fill(keys, messages_of([plain(number) for number in numbers]), epochs=epochs, owner="one", ttl=ttl)
    copy.set_state(STATE, epochs, is_rebuild=True)
    assert decoded(copy.read(keys).messages)["v"].to_list() == numbers
    store.close()
