"""What every tier keeps to, whatever serves it: one suite over all of `tiers.TIERS`."""

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product

import pytest

from featurestore.errors import FenceRefused, InvalidInput, SchemaMismatch, StaleWriter
from featurestore.online.batch import EXPIRY_GRACE
from featurestore.online.tier import Fill, MaterializationState, Replies, WriteResult
from tests.contract.online_rows import (
    GROUP,
    NOW,
    Version,
    clock,
    decoded,
    key_of,
    messages_of,
    moment,
    plain,
    removed_frame,
)
from tests.contract.tiers import EXAM_TIERS, SLOW_TIERS, TIERS, Copy, TierUnderTest
from tests.scale import cases

OTHER = "plane_last_flight_hourly_v2"
WEEK, HOUR = timedelta(days=7), timedelta(hours=1)
STATE = MaterializationState("table-1", 4, NOW, "7/abc")
AHEAD = MaterializationState("table-1", 6, NOW + HOUR, "7/abc")
FURTHER = MaterializationState("table-1", 9, NOW + 2 * HOUR, "7/abc")
KEYS = [key_of(number) for number in range(20)]


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.exam] * (name in EXAM_TIERS)) for name in TIERS])
def under(request: pytest.FixtureRequest) -> Iterator[TierUnderTest]:
    with TIERS[request.param](request, clock) as made:
        yield made


@pytest.fixture
def copy(under: TierUnderTest) -> Copy:
    return Copy(under.tier, GROUP)


@pytest.fixture
def epochs(under: TierUnderTest, copy: Copy) -> dict[str, str]:
    """Of a copy that is empty and known."""
    made = copy.build(STATE)
    under.settle()
    return made


def values(replies: Replies) -> list[int | None]:
    found: list[int | None] = decoded(replies.messages)["v"].to_list()
    return found


# Reads


def test_replies_stand_in_key_order_and_a_miss_of_a_known_copy_says_that_there_is_none(
    copy: Copy, epochs: dict[str, str]
) -> None:
    copy.write(KEYS[::2], messages_of([plain(number) for number in range(0, 20, 2)]), epochs=epochs)
    wanted = [3, 18, 18, 0, 999, *range(20)]
    replies = copy.read([key_of(number) for number in wanted])
    assert values(replies) == [n if n % 2 == 0 and n < 20 else None for n in wanted]
    assert (replies.unanswered, replies.cause, replies.warm) == (frozenset(), "", frozenset())


def test_a_read_tells_the_state_where_the_tier_has_one_part(copy: Copy, epochs: dict[str, str]) -> None:
    assert copy.read(KEYS).state == (STATE if len(copy.parts) == 1 else None)


def test_many_groups_are_read_at_once_and_none_speaks_for_another(
    under: TierUnderTest, copy: Copy, epochs: dict[str, str]
) -> None:
    copy.write([key_of(1)], messages_of([plain(1)]), epochs=epochs)
    found = under.tier.read_many({GROUP: KEYS[:3], OTHER: [f"{OTHER}:1".encode()], "none": []}, timeout_seconds=30.0)
    assert list(found) == [GROUP, OTHER, "none"]
    assert values(found[GROUP]) == [None, 1, None]
    assert [sorted(replies.unanswered) for replies in found.values()] == [[], [0], []]
    assert found["none"].messages == []


def test_of_a_group_that_was_never_filled_nobody_can_say_what_is_not_there(copy: Copy) -> None:
    replies = copy.read(KEYS)
    assert replies.messages == [None] * 20
    assert replies.unanswered == set(range(20))
    assert GROUP in replies.cause
    assert (replies.marks, replies.state) == ((), None)


def test_a_read_of_no_groups_finds_nothing(under: TierUnderTest) -> None:
    assert under.tier.read_many({}) == {}


def test_the_parts_share_the_keys_and_have_names_of_their_own(copy: Copy) -> None:
    owned = [part.owns(KEYS) for part in copy.parts]
    shares = [[True] * 20 if one is None else one.tolist() for one in owned]
    assert [sum(column) for column in zip(*shares, strict=True)] == [1] * 20
    assert len({part.name for part in copy.parts}) == len(copy.parts)
    assert {part.tier for part in copy.parts} == {copy.tier.name}


# The write rule


def test_the_newest_version_wins_whatever_the_order(copy: Copy, epochs: dict[str, str]) -> None:
    versions = list(product(range(2), range(2), range(2)))
    orders = random.Random(4)
    keys = KEYS[:4]
    shuffled = [orders.sample(versions + versions[::2], 12) for _ in keys]
    for turn in zip(*shuffled, strict=True):
        copy.write(keys, messages_of(turn), epochs=epochs)
    rows = decoded(copy.read(keys).messages)
    for name in ("event_time", "knowledge_time", "created_at"):
        assert rows[name].to_list() == [moment(1)] * 4


def test_a_write_counts_what_it_wrote_and_left_and_names_what_was_refused(copy: Copy, epochs: dict[str, str]) -> None:
    held = [1, 5, 9]
    copy.write([key_of(n) for n in held], messages_of([plain(5)] * 3, fence=3), epochs=epochs)
    copy.write([key_of(2)], messages_of([plain(9)]), epochs=epochs)
    result = copy.write(KEYS[:10], messages_of([plain(9)] * 10, fence=2), epochs=epochs)
    assert (result.written, result.left, result.refused) == (6, 1, (1, 5, 9))
    assert values(copy.read(KEYS[:10])) == [5 if n in held else 9 for n in range(10)]


def test_a_value_that_stays_takes_the_writers_fence(copy: Copy, epochs: dict[str, str]) -> None:
    copy.write([key_of(1)], messages_of([plain(8)]), epochs=epochs)
    assert copy.write([key_of(1)], messages_of([plain(3)], fence=6), epochs=epochs).left == 1
    assert decoded(copy.read([key_of(1)]).messages).select("v", "text", "fence").row(0) == (8, "x" * 8, 6)
    assert copy.write([key_of(1)], messages_of([plain(9)], fence=5), epochs=epochs).refused == (0,)
    assert values(copy.read([key_of(1)])) == [8]


def test_a_removed_version_gives_way_to_a_lower_one_and_never_returns(copy: Copy, epochs: dict[str, str]) -> None:
    copy.write(KEYS[:3], messages_of([plain(8)] * 3), epochs=epochs)
    removed = removed_frame([KEYS[0], KEYS[0], KEYS[1]], [plain(7), plain(8), plain(7)])
    messages = messages_of([plain(3)] * 3, fence=4)
    for written in (1, 0):
        assert copy.write(KEYS[:3], messages, epochs=epochs, removed=removed).written == written
    assert values(copy.read(KEYS[:3])) == [3, 8, 8]
    assert copy.write(KEYS[:1], messages_of([plain(8)]), epochs=epochs).refused == (0,)


def test_a_tombstone_is_an_answer_and_gives_way_to_what_is_newer(copy: Copy, epochs: dict[str, str]) -> None:
    copy.write(KEYS[:2], messages_of([plain(2)] * 2), epochs=epochs)
    copy.write(KEYS[:1], messages_of([plain(3)], deleted=[True]), epochs=epochs)
    rows = decoded(copy.read(KEYS[:2]).messages)
    assert rows.select("found", "is_deleted", "v").rows() == [(True, True, None), (True, False, 2)]
    assert copy.write(KEYS[:1], messages_of([plain(2)]), epochs=epochs).left == 1
    copy.write(KEYS[:1], messages_of([plain(4)]), epochs=epochs)
    assert values(copy.read(KEYS[:1])) == [4]


def test_repeating_a_write_changes_nothing(copy: Copy, epochs: dict[str, str]) -> None:
    messages = messages_of([plain(number) for number in range(20)], fence=2)
    assert copy.write(KEYS, messages, epochs=epochs, ttl=WEEK).written == 20
    before = copy.read(KEYS).messages
    assert copy.write(KEYS, messages, epochs=epochs, ttl=WEEK).left == 20
    assert copy.read(KEYS).messages == before


@pytest.fixture
def histories(request: pytest.FixtureRequest) -> int:
    """How many random ones the tier sees."""
    return cases(100, 2) if request.node.callspec.params["under"] in SLOW_TIERS else cases(1_000, 20)


def test_random_writes_end_as_their_model_does(under: TierUnderTest, copy: Copy, histories: int) -> None:
    for seed in range(histories):
        order, model = random.Random(seed), dict[int, tuple[Version, int]]()
        epochs = copy.build(STATE)
        under.settle()
        for _ in range(order.randint(1, 20)):
            entity, version, fence = order.randrange(3), small(order), order.randrange(4)
            gone = [small(order) for _ in range(order.randint(0, 4))]
            key = key_of(entity)
            removed = removed_frame([key] * len(gone), gone)
            result = copy.write([key], messages_of([version], fence), epochs=epochs, removed=removed)
            outcome = apply(model, entity, version, fence, gone)
            assert (result.written, result.left, len(result.refused)) == outcome, f"seed {seed}"
        found = decoded(copy.read([key_of(entity) for entity in model]).messages)
        for row, (version, fence) in zip(found.to_dicts(), model.values(), strict=True):
            times = (row["event_time"], row["knowledge_time"], row["created_at"])
            assert (times, row["v"], row["fence"]) == (tuple(map(moment, version)), version[2], fence), f"seed {seed}"


def small(order: random.Random) -> Version:
    return (order.randrange(3), order.randrange(3), order.randrange(3))


def apply(
    model: dict[int, tuple[Version, int]], entity: int, version: Version, fence: int, removed: list[Version]
) -> tuple[int, int, int]:
    """The rule in words: (written, left, refused) of one write."""
    stored, stored_fence = model.get(entity, (None, 0))
    if stored is not None and stored_fence > fence:
        return (0, 0, 1)
    if stored is None or stored < version or stored in removed:
        model[entity] = (version, fence)
        return (1, 0, 0)
    model[entity] = (stored, fence)
    return (0, 1, 0)


def test_writers_at_the_same_time_end_on_the_newest_version(copy: Copy, epochs: dict[str, str]) -> None:
    faults: list[BaseException] = []

    def write_shuffled(seed: int) -> None:
        order = random.Random(seed)
        for version in order.sample(range(1, 6), 5):
            keys = order.sample(KEYS[:8], 8)
            try:
                copy.write(keys, messages_of([plain(version)] * len(keys)), epochs=epochs)
            except Exception as fault:  # noqa: BLE001 - whatever it is, the test's own thread is to show it
                faults.append(fault)

    threads = [threading.Thread(target=write_shuffled, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert values(copy.read(KEYS[:8])) == [5] * 8


def test_times_of_the_future_are_refused_before_anything_is_written(copy: Copy, epochs: dict[str, str]) -> None:
    week = 7 * 86_400
    copy.write([key_of(1)], messages_of([plain(week + 300)]), epochs=epochs)
    for version in ((week + 301, 0, 0), (0, week + 301, 0), (-20_000_000_000, 0, 0)):
        with pytest.raises(InvalidInput, match="is out of range, first of key"):
            copy.write([key_of(3)] * 2, messages_of([plain(1), version]), epochs=epochs)
    assert values(copy.read([key_of(3)])) == [None]


def test_what_is_no_message_is_refused(copy: Copy, epochs: dict[str, str]) -> None:
    part, epoch = copy.parts[0], epochs[copy.parts[0].name]
    with pytest.raises(InvalidInput, match="Message 1 of 2 has no header"):
        part.write(GROUP, KEYS[:2], [*messages_of([plain(1)]), b"x"], epoch=epoch, ttl=None)
    with pytest.raises(InvalidInput, match="1 keys and 2 messages"):
        part.write(GROUP, KEYS[:1], messages_of([plain(1)] * 2), epoch=epoch, ttl=None)
    removed = removed_frame(KEYS[1:2], [plain(1)])
    with pytest.raises(InvalidInput, match="writes nothing to it"):
        part.write(GROUP, KEYS[:1], messages_of([plain(1)]), epoch=epoch, ttl=None, removed=removed)
    with pytest.raises(SchemaMismatch, match="'key' of removed versions"):
        part.write(GROUP, KEYS[:1], messages_of([plain(1)]), epoch=epoch, ttl=None, removed=removed.drop("key"))


# Expiry


def left_to_live(under: TierUnderTest, number: int) -> timedelta | None:
    """Without the minute of grace."""
    remaining = under.remaining(GROUP, key_of(number))
    return None if remaining is None else remaining - timedelta(minutes=1)


def about(expected: timedelta) -> object:
    """To half the minute of grace: meanwhile time goes on."""
    return pytest.approx(expected, abs=timedelta(seconds=30))


def test_a_value_lives_until_its_event_time_and_ttl(under: TierUnderTest, copy: Copy, epochs: dict[str, str]) -> None:
    copy.write(KEYS[:1], messages_of([plain(3600)]), epochs=epochs, ttl=WEEK)
    assert left_to_live(under, 0) == about(HOUR)
    copy.write(KEYS[:1], messages_of([plain(7200)], fence=3), epochs=epochs, ttl=WEEK)
    assert left_to_live(under, 0) == about(2 * HOUR)
    copy.write(KEYS[:1], messages_of([plain(3600)], fence=6), epochs=epochs, ttl=WEEK)
    assert left_to_live(under, 0) == about(2 * HOUR)
    copy.write(KEYS[1:2], messages_of([plain(1)]), epochs=epochs, ttl=None)
    assert under.remaining(GROUP, KEYS[1]) is None


def test_what_a_rewind_stores_or_leaves_lives_as_long_as_what_it_removed(
    under: TierUnderTest, copy: Copy, epochs: dict[str, str]
) -> None:
    copy.write(KEYS[:2], messages_of([plain(7200), plain(3600)]), epochs=epochs, ttl=WEEK)
    removed = removed_frame(KEYS[:2], [plain(7200)] * 2)
    messages = messages_of([plain(60), plain(3600)], fence=4)
    copy.write(KEYS[:2], messages, epochs=epochs, ttl=WEEK, removed=removed)
    assert left_to_live(under, 0) == about(2 * HOUR)
    assert left_to_live(under, 1) == about(2 * HOUR)
    copy.write(KEYS[:1], messages_of([plain(1800)], fence=4), epochs=epochs, ttl=WEEK)
    assert left_to_live(under, 0) == about(2 * HOUR)


# Epochs, states, starting over


def test_a_tier_that_lost_everything_is_unknown_and_closed_to_writers_from_before(
    under: TierUnderTest, copy: Copy, epochs: dict[str, str]
) -> None:
    copy.write(KEYS, messages_of([plain(1)] * 20), epochs=epochs)
    under.empty()
    under.settle()
    assert copy.read(KEYS).unanswered == set(range(20))
    for _ in range(2):
        with pytest.raises(FenceRefused):
            copy.write(KEYS, messages_of([plain(2)] * 20), epochs=epochs)
        with pytest.raises(FenceRefused):
            copy.set_state(STATE, epochs, is_rebuild=True)
        with pytest.raises((FenceRefused, StaleWriter)):
            copy.begin_step(AHEAD, epochs)
        with pytest.raises(FenceRefused):
            copy.start_over(epochs)
        assert copy.states() == [None] * len(copy.parts)
        copy.epochs()
    assert copy.read(KEYS).messages == [None] * 20


def test_the_epoch_lasts_until_the_group_is_started_over(copy: Copy, epochs: dict[str, str]) -> None:
    assert copy.epochs() == copy.epochs() == epochs
    after = copy.start_over(epochs)
    assert copy.epochs() == after
    assert all(after[name] != epochs[name] for name in epochs)


def test_a_group_started_over_is_unknown_empty_and_closed_to_writers_from_before(
    under: TierUnderTest, copy: Copy, epochs: dict[str, str]
) -> None:
    other, other_key = Copy(under.tier, OTHER), f"{OTHER}:1".encode()
    other_epochs = other.build(STATE)
    other.write([other_key], messages_of([plain(7)]), epochs=other_epochs)
    copy.write(KEYS, messages_of([plain(5)] * 20), epochs=epochs)
    after = copy.start_over(epochs)
    under.settle()
    assert copy.states() == [None] * len(copy.parts)
    assert copy.read(KEYS).unanswered == set(range(20))
    with pytest.raises(FenceRefused):
        copy.write(KEYS, messages_of([plain(9)] * 20), epochs=epochs)
    with pytest.raises(FenceRefused):
        copy.start_over(epochs)
    copy.write(KEYS[:1], messages_of([plain(2)]), epochs=after)
    copy.set_state(STATE, after, is_rebuild=True)
    under.settle()
    assert values(copy.read(KEYS[:2])) == [2, None]
    assert copy.read(KEYS).unanswered == frozenset()
    assert values(other.read([other_key])) == [7]


def test_the_state_comes_back_to_the_microsecond(copy: Copy, epochs: dict[str, str]) -> None:
    state = replace(STATE, version=7, as_of=NOW + timedelta(microseconds=1))
    copy.set_state(state, epochs)
    assert copy.states() == [state] * len(copy.parts)
    assert Copy(copy.tier, OTHER).states() == [None] * len(copy.parts)


def test_the_state_never_moves_backwards_and_stays_with_its_table(copy: Copy, epochs: dict[str, str]) -> None:
    for _ in range(2):
        copy.set_state(AHEAD, epochs)
    for behind in (STATE, replace(AHEAD, version=5), replace(FURTHER, as_of=NOW)):
        with pytest.raises(StaleWriter):
            copy.set_state(behind, epochs)
    with pytest.raises(StaleWriter):
        copy.set_state(replace(FURTHER, table_id="table-2"), epochs)
    assert copy.states() == [AHEAD] * len(copy.parts)
    with pytest.raises(StaleWriter):
        Copy(copy.tier, OTHER).set_state(STATE)


def test_a_step_that_has_begun_leaves_the_state_as_it_was(copy: Copy, epochs: dict[str, str]) -> None:
    copy.begin_step(AHEAD, epochs)
    assert copy.states() == [STATE] * len(copy.parts)
    copy.set_state(AHEAD, epochs)
    assert copy.states() == [AHEAD] * len(copy.parts)
    with pytest.raises(StaleWriter):
        copy.begin_step(STATE, epochs)
    with pytest.raises(StaleWriter):
        copy.begin_step(replace(FURTHER, table_id="table-2"), epochs)
    with pytest.raises(StaleWriter):
        Copy(copy.tier, OTHER).begin_step(STATE)


# Repairs


@pytest.fixture
def repaired(under: TierUnderTest, copy: Copy, epochs: dict[str, str]) -> Copy:
    """A known copy that has lost its keys."""
    if not under.takes_repairs:
        pytest.skip("nothing is put back into this tier")
    copy.write(KEYS, messages_of([plain(5)] * 20), epochs=epochs)
    under.evict(GROUP, KEYS)
    return copy


def reached(copy: Copy) -> set[datetime]:
    return {mark.reached.as_of for mark in copy.read(KEYS).marks}


def test_a_miss_comes_with_what_a_repair_needs_and_a_repair_puts_it_back(repaired: Copy) -> None:
    repaired.write(KEYS[:3], messages_of([plain(6)] * 3))
    replies = repaired.read(KEYS)
    assert sorted(at for mark in replies.marks for at in mark.positions) == list(range(3, 20))
    assert {mark.reached for mark in replies.marks} == {STATE}
    assert repaired.repair(replies.marks, KEYS, messages_of([plain(5)] * 20)) == 17
    assert values(repaired.read(KEYS)) == [6] * 3 + [5] * 17
    assert repaired.read(KEYS).marks == ()


def test_a_late_write_of_less_than_the_copy_has_brings_nothing_back_to_evicted_keys(
    under: TierUnderTest, repaired: Copy, epochs: dict[str, str]
) -> None:
    """A writer held up since before others moved on, when nothing of the keys is left that could refuse it."""
    held_up = messages_of([plain(9)] * 20, fence=5)
    everything = WriteResult(0, 0, tuple(range(20)))
    for behind in (STATE, replace(AHEAD, version=STATE.version), replace(AHEAD, as_of=STATE.as_of)):
        repaired.begin_step(AHEAD, epochs)
        assert repaired.write(KEYS, held_up, epochs=epochs, basis=behind) == everything, "a step is under way"
        repaired.set_state(AHEAD, epochs)
        assert repaired.write(KEYS, held_up, epochs=epochs, basis=behind) == everything
    repaired.write(KEYS[:9], messages_of([plain(4)] * 9, fence=5), epochs=epochs, basis=AHEAD)
    under.evict(GROUP, KEYS[:5])
    said = repaired.write(KEYS, messages_of([plain(7)] * 20, fence=5), epochs=epochs, basis=STATE)
    assert said == WriteResult(4, 0, (*range(5), *range(9, 20))), "what is stored decides by version and fence"
    assert values(repaired.read(KEYS)) == [None] * 5 + [7] * 4 + [None] * 11
    assert repaired.write(KEYS, held_up, epochs=epochs, basis=FURTHER).written == 20


def test_a_repair_gives_way_to_what_was_written_meanwhile(repaired: Copy) -> None:
    marks = repaired.read(KEYS).marks
    repaired.write(KEYS[:1], messages_of([plain(9)]))
    assert repaired.repair(marks, KEYS, messages_of([plain(5)] * 20)) == 19
    assert values(repaired.read(KEYS[:2])) == [9, 5]


def test_a_step_that_begins_shuts_out_repairs_of_reads_before_it(repaired: Copy) -> None:
    before = repaired.read(KEYS).marks
    repaired.begin_step(AHEAD)
    assert {mark.reached for mark in repaired.read(KEYS).marks} == {AHEAD}
    assert repaired.repair(before, KEYS, messages_of([plain(5)] * 20)) == 0
    during = repaired.read(KEYS).marks
    repaired.set_state(AHEAD)
    assert {mark.reached for mark in repaired.read(KEYS).marks} == {AHEAD}
    assert repaired.repair(before, KEYS, messages_of([plain(5)] * 20)) == 0
    repaired.begin_step(FURTHER)
    repaired.set_state(FURTHER)
    assert repaired.repair(during, KEYS, messages_of([plain(5)] * 20)) == 0
    assert repaired.read(KEYS).messages == [None] * 20


def test_a_step_that_moves_to_less_never_lowers_what_a_repair_must_reflect(repaired: Copy) -> None:
    """Else a repair that was read before the further step began would find its own mark again, and undo the step."""
    repaired.begin_step(AHEAD)
    repaired.set_state(AHEAD)
    marks = repaired.read(KEYS).marks
    repaired.begin_step(FURTHER)
    repaired.begin_step(AHEAD)
    assert reached(repaired) == {FURTHER.as_of}
    repaired.set_state(AHEAD)
    assert reached(repaired) == {FURTHER.as_of}
    assert repaired.repair(marks, KEYS, messages_of([plain(5)] * 20)) == 0
    repaired.set_state(FURTHER)
    assert {mark.reached for mark in repaired.read(KEYS).marks} == {FURTHER}


def test_a_repair_of_a_copy_that_was_emptied_or_started_over_is_refused(under: TierUnderTest, repaired: Copy) -> None:
    marks = repaired.read(KEYS).marks
    repaired.build(STATE)
    assert repaired.repair(marks, KEYS, messages_of([plain(5)] * 20)) == 0
    marks = repaired.read(KEYS).marks
    under.empty()
    assert repaired.repair(marks, KEYS, messages_of([plain(5)] * 20)) == 0
    repaired.build(STATE)
    assert repaired.repair(marks, KEYS, messages_of([plain(5)] * 20)) == 0
    assert repaired.read(KEYS).messages == [None] * 20


# Fills


def begin_fill(copy: Copy, epochs: dict[str, str], owner: str, *, previous: str | None = None, done: int = 0) -> Fill:
    fill = Fill(STATE, 4, done, owner)
    for part in copy.parts:
        part.record_fill(GROUP, fill, epoch=epochs[part.name], previous=previous)
    return fill


def fills(copy: Copy) -> list[Fill | None]:
    return [part.fill_under_way(GROUP) for part in copy.parts]


@pytest.fixture
def anew(copy: Copy, epochs: dict[str, str]) -> dict[str, str]:
    """Epochs of a copy that was started over, to be filled."""
    return copy.start_over(epochs)


def test_a_fill_is_written_slice_by_slice_and_seen_once_the_state_is_set(
    under: TierUnderTest, copy: Copy, anew: dict[str, str]
) -> None:
    assert fills(copy) == [None] * len(copy.parts)
    fill = begin_fill(copy, anew, "one")
    assert fills(copy) == [fill] * len(copy.parts)
    for done in range(4):
        copy.fill(KEYS[done::4], messages_of([plain(5)] * 5), epochs=anew, owner="one")
        fill = begin_fill(copy, anew, "one", previous="one", done=done + 1)
        assert fills(copy) == [fill] * len(copy.parts)
        assert copy.states() == [None] * len(copy.parts)
    under.settle()
    assert copy.read([key_of(999)]).unanswered == {0}
    copy.set_state(STATE, anew, is_rebuild=True)
    under.settle()
    assert values(copy.read(KEYS)) == [5] * 20
    assert copy.read([key_of(999)]).unanswered == frozenset()
    assert fills(copy) == [None] * len(copy.parts)


def test_what_is_filled_expires_by_itself_each_key_at_its_own_time(
    under: TierUnderTest, copy: Copy, anew: dict[str, str]
) -> None:
    begin_fill(copy, anew, "one")
    numbers = [500, 500, 500, 900, 900, 500, 500_000, *[600] * 13]
    copy.fill(KEYS, messages_of([plain(number) for number in numbers]), epochs=anew, owner="one", ttl=WEEK)
    copy.set_state(STATE, anew, is_rebuild=True)
    under.settle()
    assert values(copy.read(KEYS)) == numbers
    for key, number in zip(KEYS[:8], numbers, strict=False):
        left = under.remaining(GROUP, key)
        assert left is not None
        assert abs(left - timedelta(seconds=number) - EXPIRY_GRACE) < timedelta(seconds=30)


def test_what_was_filled_obeys_the_write_rule(under: TierUnderTest, copy: Copy, anew: dict[str, str]) -> None:
    begin_fill(copy, anew, "one")
    copy.fill(KEYS[:2], messages_of([plain(5)] * 2, fence=3), epochs=anew, owner="one")
    copy.set_state(STATE, anew, is_rebuild=True)
    under.settle()
    assert copy.write(KEYS[:2], messages_of([plain(4), plain(6)], fence=3), epochs=anew).written == 1
    assert copy.write(KEYS[:1], messages_of([plain(9)], fence=2), epochs=anew).refused == (0,)
    assert values(copy.read(KEYS[:2])) == [5, 6]


def test_only_the_owner_of_a_fill_writes(copy: Copy, anew: dict[str, str]) -> None:
    messages = messages_of([plain(5)] * 20)
    with pytest.raises(FenceRefused):
        copy.fill(KEYS, messages, epochs=anew, owner="one")
    begin_fill(copy, anew, "one")
    with pytest.raises(FenceRefused):
        begin_fill(copy, anew, "two")
    with pytest.raises(FenceRefused):
        begin_fill(copy, anew, "two", previous="three")
    with pytest.raises(FenceRefused):
        copy.fill(KEYS, messages, epochs=anew, owner="two")
    assert fills(copy) == [Fill(STATE, 4, 0, "one")] * len(copy.parts)


def test_whoever_takes_a_fill_over_shuts_the_last_owner_out(
    under: TierUnderTest, copy: Copy, anew: dict[str, str]
) -> None:
    if not all(part.can_resume for part in copy.parts):
        pytest.skip("a fill that was cut short starts over here")
    begin_fill(copy, anew, "one")
    copy.fill(KEYS[:5], messages_of([plain(5)] * 5), epochs=anew, owner="one")
    begin_fill(copy, anew, "one", previous="one", done=1)
    begin_fill(copy, anew, "two", previous="one", done=1)
    assert fills(copy) == [Fill(STATE, 4, 1, "two")] * len(copy.parts)
    with pytest.raises(FenceRefused):
        copy.fill(KEYS[5:], messages_of([plain(1)] * 15), epochs=anew, owner="one")
    with pytest.raises(FenceRefused):
        begin_fill(copy, anew, "one", previous="one", done=2)
    copy.fill(KEYS[5:], messages_of([plain(6)] * 15), epochs=anew, owner="two")
    copy.set_state(STATE, anew, is_rebuild=True)
    under.settle()
    assert values(copy.read(KEYS)) == [5] * 5 + [6] * 15


def test_starting_over_ends_a_fill_and_its_owner_writes_nothing_more(
    under: TierUnderTest, copy: Copy, anew: dict[str, str]
) -> None:
    begin_fill(copy, anew, "one")
    after = copy.start_over(anew)
    assert fills(copy) == [None] * len(copy.parts)
    with pytest.raises(FenceRefused):
        copy.fill(KEYS, messages_of([plain(1)] * 20), epochs=anew, owner="one")
    with pytest.raises(FenceRefused):
        begin_fill(copy, anew, "one", previous="one", done=1)
    with pytest.raises(FenceRefused):
        copy.set_state(STATE, anew, is_rebuild=True)
    copy.set_state(STATE, after, is_rebuild=True)
    under.settle()
    assert copy.read(KEYS).messages == [None] * 20


def test_a_fill_refuses_times_of_the_future(copy: Copy, anew: dict[str, str]) -> None:
    begin_fill(copy, anew, "one")
    with pytest.raises(InvalidInput, match="is out of range, first of key"):
        copy.fill(KEYS[:1], messages_of([plain(8 * 86_400)]), epochs=anew, owner="one")
