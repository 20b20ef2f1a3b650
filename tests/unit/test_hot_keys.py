"""The cache of hot keys: bounded in entries, bytes and time, and never a step back."""

import functools
import random
from dataclasses import dataclass
from datetime import timedelta

import pytest

from featurestore.online.message.header import write_order
from featurestore.online.reading.hot_keys import ENTRY_BYTES, HotKeyCounts, HotKeys
from featurestore.online.tier import Mark, MaterializationState, Replies
from tests.contract.online_rows import NOW, messages_of, plain
from tests.scale import cases


@dataclass
class Seconds:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def cache(seconds: Seconds) -> HotKeys:
    return HotKeys(max_entries=3, ttl_seconds=1.0, monotonic=seconds)


def state(number: int, table: str = "table-1") -> MaterializationState:
    return MaterializationState(table, number, NOW + timedelta(seconds=number))


@functools.cache
def message(version: int, fence: int = 0, group: str = "g") -> bytes:
    return messages_of([plain(version)], fence, group=group)[0]


def store(cache: HotKeys, key: bytes, held: bytes, number: int = 1, tier: str = "hot", group: str = "g") -> None:
    cache.store(group, tier, [key], Replies([held], state=state(number)), group)


def held(cache: HotKeys, key: bytes, group: str = "g") -> bytes | None:
    return cache.lookup(group, [key]).messages[0]


def test_a_lookup_says_what_is_held_where_it_came_from_and_what_is_unknown(cache: HotKeys) -> None:
    store(cache, b"a", message(1))
    store(cache, b"b", message(2), tier="warm")
    replies = cache.lookup("g", [b"b", b"x", b"a"])
    assert replies == Replies([message(2), None, message(1)], frozenset({1}), frozenset({0}))
    assert cache.counts == HotKeyCounts(2, 1, 2, 2 + 2 * ENTRY_BYTES + len(message(1)) + len(message(2)))


def test_a_message_without_a_whole_header_is_not_held(cache: HotKeys) -> None:
    """There is nothing in it by which a later one could be judged."""
    for number in range(2):
        store(cache, b"a", message(1)[: 40 * number])
    assert held(cache, b"a") is None
    store(cache, b"a", message(1))
    assert held(cache, b"a") == message(1)


def test_a_message_that_is_not_as_it_was_written_is_not_held(cache: HotKeys) -> None:
    torn = bytearray(message(9))
    torn[30] ^= 1
    for wrong in (bytes(torn), message(9, group="other")):
        store(cache, b"a", wrong)
        assert held(cache, b"a") is None
    store(cache, b"a", message(1))
    assert held(cache, b"a") == message(1)


def test_misses_are_not_held(cache: HotKeys) -> None:
    cache.store("g", "hot", [b"a", b"b"], Replies([None, message(1)], state=state(1)), "g")
    assert cache.lookup("g", [b"a", b"b"]).unanswered == {0}
    assert cache.counts.entries == 1


def test_a_message_is_used_for_its_time_and_no_longer(cache: HotKeys, seconds: Seconds) -> None:
    store(cache, b"a", message(1))
    seconds.now = 0.999
    assert held(cache, b"a") == message(1)
    seconds.now = 1.0
    assert held(cache, b"a") is None


def test_of_too_many_the_one_used_longest_ago_leaves(cache: HotKeys) -> None:
    for key in (b"a", b"b", b"c"):
        store(cache, key, message(1))
    held(cache, b"a")
    store(cache, b"d", message(1))
    assert cache.lookup("g", [b"a", b"b", b"c", b"d"]).unanswered == {1}


def test_it_takes_no_more_bytes_than_it_may(seconds: Seconds) -> None:
    size = len(message(1)) + 1 + ENTRY_BYTES
    cache = HotKeys(max_bytes=2 * size, monotonic=seconds)
    for key in (b"a", b"b", b"c", b"c", b"b"):
        store(cache, key, message(1))
    assert (cache.counts.entries, cache.counts.size_bytes) == (2, 2 * size)


def test_an_older_version_does_not_take_the_place_of_a_newer_one(cache: HotKeys, seconds: Seconds) -> None:
    store(cache, b"a", message(5))
    seconds.now = 0.5
    store(cache, b"a", message(4))
    assert held(cache, b"a") == message(5)
    seconds.now = 1.0
    assert held(cache, b"a") is None, "and does not make it last longer"
    store(cache, b"a", message(4))
    assert held(cache, b"a") == message(4)


def test_a_lower_version_under_a_newer_fence_is_what_a_rewind_left(cache: HotKeys) -> None:
    store(cache, b"a", message(5))
    store(cache, b"a", message(3, fence=7))
    assert held(cache, b"a") == message(3, fence=7)
    store(cache, b"a", message(6))
    assert held(cache, b"a") == message(3, fence=7)


def test_a_state_that_moved_ends_what_is_held_of_its_group_alone(cache: HotKeys) -> None:
    store(cache, b"a", message(5))
    store(cache, b"other:a", message(5, group="other"), group="other")
    store(cache, b"b", message(1), number=2)
    assert held(cache, b"a") is None
    assert held(cache, b"b") == message(1)
    assert held(cache, b"other:a", group="other") == message(5, group="other")


def test_a_read_of_before_the_move_that_ends_after_it_is_not_kept(cache: HotKeys) -> None:
    store(cache, b"a", message(3, fence=2), number=2)
    store(cache, b"a", message(5), number=1)
    store(cache, b"b", message(5), number=1)
    assert cache.lookup("g", [b"a", b"b"]).messages == [message(3, fence=2), None]


def test_each_tier_and_each_part_shows_its_own_moves(cache: HotKeys) -> None:
    store(cache, b"a", message(5))
    store(cache, b"b", message(5), number=2, tier="warm")
    assert held(cache, b"a") == message(5), "the first look at the warm tier is no move"
    store(cache, b"b", message(5), number=3, tier="warm")
    assert held(cache, b"a") is None
    for number, kept in ((1, True), (1, True), (2, False)):
        store(cache, b"a", message(5))
        mark = Mark("hot node 2", [0], b"", state(number))
        cache.store("g", "hot", [b"x"], Replies([None], marks=(mark,)), "g")
        assert (held(cache, b"a") is not None) == kept


def test_a_table_made_anew_is_another_copy(cache: HotKeys) -> None:
    store(cache, b"a", message(5), number=9)
    cache.store("g", "hot", [b"b"], Replies([message(1)], state=state(1, "table-2")), "g")
    assert cache.lookup("g", [b"a", b"b"]).messages == [None, message(1)]


def test_under_random_use_it_never_gives_less_than_it_gave_nor_outlives_its_time() -> None:
    """Versions of a key only rise in the model's tier; reads are stored in any order, late by up to three writes."""
    rng = random.Random(3)
    for _ in range(cases(2_000, 60)):
        seconds = Seconds()
        cache = HotKeys(max_entries=2, ttl_seconds=1.0, monotonic=seconds)
        written = {key: [(0.0, message(1))] for key in (b"a", b"b", b"c")}
        last = dict.fromkeys(written, message(1))
        for _ in range(40):
            seconds.now += rng.random() / 3
            key = rng.choice(list(written))
            if rng.random() < 0.3:
                written[key].append((seconds.now, message(len(written[key]) + 1)))
            elif (found := held(cache, key)) is not None:
                at = [one for _, one in written[key]].index(found)
                ended = written[key][at + 1][0] if at + 1 < len(written[key]) else seconds.now
                assert seconds.now - ended <= 1.0 + 1e-9 or at + 1 == len(written[key])
                assert write_order(found) >= write_order(last[key])
                last[key] = found
            else:
                current = written[key][-1][1]
                last[key] = current
                store(cache, key, current)
                late = rng.choice(written[key][-3:])[1]
                store(cache, key, late)
            assert cache.counts.entries <= 2
