"""Reading through two tiers: which is asked for what and for how long, what both say together, and what is put back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from featurestore.declaration.online import TierName
from featurestore.errors import StoreUnavailable
from featurestore.online.breaker import Breaker
from featurestore.online.memory import MemoryTier
from featurestore.online.reading.hot_keys import HotKeys
from featurestore.online.reading.repairs import Repairs
from featurestore.online.reading.through import ReadThrough, Route
from featurestore.online.tier import Mark, MaterializationState, Replies, Tier
from tests.contract.online_rows import NOW, clock, decoded, messages_of, plain, removed_frame
from tests.contract.tiers import Copy

HOT, WARM, BOTH = (Route(tiers, None, "g") for tiers in (("hot",), ("warm",), ("hot", "warm")))
STATE = MaterializationState("table-1", 4, NOW)
NEWER = MaterializationState("table-1", 5, NOW + timedelta(hours=1))
DEADLINE = 0.1


@dataclass
class Seconds:
    """A clock that moves when something takes time."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Watched:
    """A tier that notes what it is asked, takes its time for it, and answers from memory."""

    memory: MemoryTier
    seconds: Seconds
    takes: float = 0.001
    overruns: float = 0.0
    asked: list[dict[str, list[bytes]]] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)

    @property
    def name(self) -> TierName:
        return self.memory.name

    def read_many(
        self, keys_by_group: Mapping[str, Sequence[bytes]], *, timeout_seconds: float | None = None
    ) -> dict[str, Replies]:
        assert timeout_seconds is not None
        self.asked.append({group: list(keys) for group, keys in keys_by_group.items()})
        self.timeouts.append(timeout_seconds)
        self.seconds.now += min(self.takes, timeout_seconds) + self.overruns
        if self.takes >= timeout_seconds:
            gone = {g: frozenset(range(len(keys))) for g, keys in keys_by_group.items()}
            return {g: Replies([None] * len(at), at, cause=f"{self.name} is slow") for g, at in gone.items()}
        return self.memory.read_many(keys_by_group)

    def parts(self) -> list[object]:
        raise AssertionError("reads ask the tier")

    def repair(
        self, group: str, mark: Mark, keys: Sequence[bytes], messages: Sequence[bytes], ttl: timedelta | None
    ) -> int:
        return self.memory.repair(group, mark, keys, messages, ttl)

    def close(self) -> None: ...


class World:
    """Both tiers, and reads of them."""

    def __init__(self) -> None:
        self.seconds = Seconds()
        self.hot = Watched(MemoryTier("hot", clock), self.seconds)
        self.warm = Watched(MemoryTier("warm", clock), self.seconds)
        self.closed: set[TierName] = set()
        self.repairs = Repairs(lambda: self.hot)  # type: ignore[arg-type,return-value]
        self.hot_keys: HotKeys | None = None

    def tier(self, name: TierName) -> Tier:
        if name in self.closed:
            raise StoreUnavailable(f"No {name} tier runs.")
        return self.hot if name == "hot" else self.warm  # type: ignore[return-value]

    def reading(self) -> ReadThrough:
        return ReadThrough(
            self.tier,
            self.repairs,
            Breaker(self.seconds, failures=3, pause_seconds=1.0),
            deadline_seconds=DEADLINE,
            hot_keys=self.hot_keys,
            monotonic=self.seconds,
        )

    def read(self, names: str, route: Route = BOTH, group: str = "g") -> Replies:
        return self.reading().read({group: (route, keys_of(names, group))})[group]

    def fill(
        self, tier: Watched, names: str, version: int, state: MaterializationState = STATE, group: str = "g"
    ) -> None:
        copy = Copy(tier.memory, group)
        copy.build(state)
        copy.write(keys_of(names, group), messages_of([plain(version)] * len(names), group=group))


def keys_of(names: str, group: str = "g") -> list[bytes]:
    return [f"{group}:{name}".encode() for name in names]


def values(replies: Replies, group: str = "g") -> list[int | None]:
    found: list[int | None] = decoded(replies.messages, group)["v"].to_list()
    return found


def positions(replies: Replies) -> tuple[list[int], list[int]]:
    """Of what the warm tier gave, and of what nobody could speak for."""
    return sorted(replies.warm), sorted(replies.unanswered)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.repairs.close()


@pytest.fixture
def both(world: World) -> World:
    """The hot tier has a and b, the warm one b to d, of an earlier version of b."""
    world.fill(world.hot, "ab", 7)
    world.fill(world.warm, "bcd", 5)
    return world


# Who is asked


def test_of_a_group_with_one_tier_only_that_is_asked(both: World) -> None:
    assert values(both.read("abc", HOT)) == [7, 7, None]
    assert (len(both.hot.asked), len(both.warm.asked)) == (1, 0)
    replies = both.read("abc", WARM)
    assert values(replies) == [None, 5, 5]
    assert positions(replies) == ([1, 2], [])
    assert (len(both.hot.asked), len(both.warm.asked)) == (1, 1)


def test_the_warm_tier_is_asked_only_for_what_the_hot_one_missed(both: World) -> None:
    replies = both.read("dabxcd")
    assert values(replies) == [5, 7, 7, None, 5, 5]
    assert (positions(replies), replies.cause) == (([0, 4, 5], []), "")
    assert both.warm.asked == [{"g": keys_of("dxcd")}]


def test_the_warm_tier_is_left_alone_where_the_hot_one_has_everything(both: World) -> None:
    assert values(both.read("ba")) == [7, 7]
    assert both.warm.asked == []


def test_several_groups_go_to_each_tier_at_once(both: World) -> None:
    both.fill(both.warm, "z", 3, group="only_warm")
    both.fill(both.hot, "y", 2, group="only_hot")
    found = both.reading().read(
        {
            "only_warm": (WARM, keys_of("zz", "only_warm")),
            "g": (BOTH, keys_of("ac")),
            "only_hot": (HOT, keys_of("y", "only_hot")),
            "empty": (WARM, []),
        }
    )
    assert [values(replies, name) for name, replies in found.items()] == [[3, 3], [7, 5], [2], []]
    assert list(found) == ["only_warm", "g", "only_hot", "empty"]
    assert [sorted(replies.warm) for replies in found.values()] == [[0, 1], [1], [], []]
    assert both.hot.asked == [{"g": keys_of("ac"), "only_hot": keys_of("y", "only_hot")}]
    assert both.warm.asked == [{"only_warm": keys_of("zz", "only_warm"), "g": keys_of("c")}]


# What both say


def test_a_hot_tombstone_is_an_answer(both: World) -> None:
    Copy(both.hot.memory, "g").write(keys_of("c"), messages_of([plain(9)], deleted=[True], group="g"))
    replies = both.read("c")
    assert decoded(replies.messages, "g")["is_deleted"].to_list() == [True]
    assert (replies.warm, both.warm.asked) == (frozenset(), [])


def test_what_the_warm_tier_does_not_have_is_not_there_even_if_the_hot_one_failed(both: World) -> None:
    both.hot.memory.parts()[0].fail("it is down")
    replies = both.read("abx")
    assert values(replies) == [None, 5, None]
    assert (replies.unanswered, replies.cause) == (frozenset(), "")


def test_of_what_no_tier_can_speak_for_both_say_why(both: World) -> None:
    both.hot.memory.parts()[0].fail("it is down")
    both.warm.memory.parts()[0].fail("it is throttled")
    replies = both.read("ab")
    assert replies.unanswered == {0, 1}
    assert replies.cause == "hot memory 0: it is down; warm memory 0: it is throttled"


def test_a_hot_miss_is_no_answer_while_the_warm_tier_behind_it_is_away(both: World) -> None:
    """The hot tier may have evicted the key."""
    both.warm.memory.parts()[0].fail("it is throttled")
    replies = both.read("axb")
    assert values(replies) == [7, None, 7]
    assert replies.unanswered == {1}
    assert "it is throttled" in replies.cause


def test_a_hot_miss_without_a_warm_tier_is_an_answer_and_a_copy_never_filled_is_none(world: World) -> None:
    assert world.read("a", HOT).unanswered == {0}
    world.fill(world.hot, "", 1)
    assert world.read("a", HOT).unanswered == frozenset()


def test_a_copy_that_is_being_built_leaves_its_keys_to_the_warm_tier(both: World) -> None:
    Copy(both.hot.memory, "g").start_over()
    replies = both.read("abx")
    assert values(replies) == [None, 5, None]
    assert positions(replies) == ([1], [])


def test_a_tier_that_cannot_be_opened_is_an_error_only_for_groups_without_another(both: World) -> None:
    both.closed = {"hot"}
    assert values(both.read("ab")) == [None, 5]
    with pytest.raises(StoreUnavailable, match="No hot tier runs"):
        both.read("a", HOT)
    both.closed = {"hot", "warm"}
    replies = both.read("a")
    assert (positions(replies), replies.cause) == (([], [0]), "No hot tier runs.; No warm tier runs.")
    with pytest.raises(StoreUnavailable, match="No warm tier runs"):
        both.read("a", WARM)


# The deadline


def test_the_hot_tier_gets_half_the_deadline_and_the_warm_one_what_is_left(both: World) -> None:
    both.hot.takes, both.warm.takes = 0.02, 0.01
    both.read("ac")
    assert both.hot.timeouts == [pytest.approx(DEADLINE / 2)]
    assert both.warm.timeouts == [pytest.approx(DEADLINE - 0.02)]


def test_a_hot_tier_without_another_behind_it_gets_all_of_the_deadline(both: World) -> None:
    both.read("a", HOT)
    assert both.hot.timeouts == [pytest.approx(DEADLINE)]


def test_a_hot_tier_that_hangs_leaves_the_warm_one_its_time(both: World) -> None:
    both.hot.takes = 99.0
    replies = both.read("abc")
    assert values(replies) == [None, 5, 5]
    assert both.warm.timeouts == [pytest.approx(DEADLINE / 2)]


def test_a_read_ends_at_its_deadline_whatever_hangs(both: World) -> None:
    both.hot.takes = both.warm.takes = 99.0
    assert both.read("abc").unanswered == {0, 1, 2}
    assert both.seconds.now == pytest.approx(DEADLINE)


@pytest.mark.parametrize("is_cached", [False, True])
def test_a_caller_with_less_time_leaves_both_tiers_their_share_of_that(both: World, is_cached: bool) -> None:
    both.hot_keys = HotKeys(max_entries=3) if is_cached else None
    both.hot.takes = 99.0
    replies = both.reading().read({"g": (BOTH, keys_of("abc"))}, DEADLINE / 4)["g"]
    assert values(replies) == [None, 5, 5]
    assert both.hot.timeouts == [pytest.approx(DEADLINE / 8)]
    assert both.warm.timeouts == [pytest.approx(DEADLINE / 8)]


def test_a_caller_with_more_time_gets_the_deadline(both: World) -> None:
    both.reading().read({"g": (HOT, keys_of("a"))}, 10 * DEADLINE)
    assert both.hot.timeouts == [pytest.approx(DEADLINE)]


def test_without_time_left_the_warm_tier_is_not_asked(both: World) -> None:
    both.hot.overruns = 0.0985
    replies = both.read("ac")
    assert values(replies) == [7, None]
    assert (positions(replies), replies.cause) == (([], [1]), "no time was left to ask the warm tier")
    assert both.warm.asked == []


def test_a_warm_tier_that_hangs_is_left_alone_for_a_while(both: World) -> None:
    both.warm.takes = 99.0
    reading = both.reading()
    causes = [reading.read({"g": (BOTH, keys_of("c"))})["g"].cause for _ in range(5)]
    assert ["is slow" in cause for cause in causes] == [True, True, True, False, False]
    assert "left alone" in causes[-1]
    assert len(both.warm.asked) == 3
    both.warm.takes = 0.001
    both.seconds.now += 1.0
    assert values(reading.read({"g": (BOTH, keys_of("c"))})["g"]) == [5]
    assert reading.read({"g": (BOTH, keys_of("c"))})["g"].cause == ""


def test_a_warm_tier_that_answers_nothing_is_left_alone_however_soon_it_says_so(both: World) -> None:
    """A throttled table gives up as soon as the next pause would be too long: often at half of its time."""
    both.warm.memory.parts()[0].fail("it is throttled")
    reading = both.reading()
    causes = [reading.read({"g": (BOTH, keys_of("c"))})["g"].cause for _ in range(5)]
    assert ["it is throttled" in cause for cause in causes] == [True, True, True, False, False]


def test_callers_in_a_hurry_do_not_close_the_warm_tier_to_others(both: World) -> None:
    both.warm.takes = 0.02
    reading = both.reading()
    for _ in range(9):
        assert "is slow" in reading.read({"g": (BOTH, keys_of("c"))}, 0.01)["g"].cause
    assert values(reading.read({"g": (BOTH, keys_of("c"))})["g"]) == [5]


def test_a_warm_copy_that_was_never_filled_does_not_close_the_tier_to_others(both: World) -> None:
    reading = both.reading()
    for _ in range(9):
        assert reading.read({"unfilled": (WARM, keys_of("a", "unfilled"))})["unfilled"].unanswered == {0}
    assert values(reading.read({"g": (BOTH, keys_of("c"))})["g"]) == [5]


# What is put back


def put_back(world: World) -> tuple[int, int]:
    """Keys written and refused, once nothing waits."""
    assert world.repairs.wait_until_idle(10)
    return world.repairs.counts.written, world.repairs.counts.refused


def test_what_the_warm_tier_had_is_put_back_into_the_hot_one(both: World) -> None:
    both.read("acxd")
    assert put_back(both) == (2, 0)
    replies = both.read("acd")
    assert values(replies) == [7, 5, 5]
    assert replies.warm == frozenset()


def test_what_only_the_warm_tier_has_to_serve_is_not_put_anywhere(both: World) -> None:
    both.read("cd", WARM)
    assert put_back(both) == (0, 0)


def test_nothing_is_put_back_into_a_copy_that_is_unknown(both: World) -> None:
    Copy(both.hot.memory, "g").start_over()
    both.read("bc")
    assert put_back(both) == (0, 0)


@pytest.mark.parametrize(
    ("warm", "written"),
    [
        (STATE, 1),
        (NEWER, 1),
        (MaterializationState("table-1", 5, NOW - timedelta(microseconds=1)), 0),
        (MaterializationState("table-1", 3, NOW + timedelta(hours=1)), 0),
        (MaterializationState("table-2", 9, NOW + timedelta(hours=1)), 0),
        (MaterializationState("table-1", 9, NOW + timedelta(hours=1), "another ttl"), 0),
    ],
)
def test_only_a_warm_copy_that_is_not_behind_repairs_the_hot_one(
    world: World, warm: MaterializationState, written: int
) -> None:
    world.fill(world.hot, "", 1)
    world.fill(world.warm, "c", 5, warm)
    assert values(world.read("c")) == [5]
    assert put_back(world) == (written, 0)


def test_a_hot_copy_that_is_moving_takes_nothing_from_before(both: World) -> None:
    Copy(both.hot.memory, "g").begin_step(NEWER)
    both.read("c")
    assert put_back(both) == (0, 0)
    Copy(both.warm.memory, "g").set_state(NEWER)
    both.read("c")
    assert put_back(both) == (1, 0)


def test_each_part_of_the_hot_tier_takes_back_its_own_keys(world: World) -> None:
    names = "abcdefghijklmnopqrstuvwxyz"
    world.hot.memory = MemoryTier("hot", clock, parts=4)
    world.fill(world.hot, "", 1)
    world.fill(world.warm, names[::2], 5)
    lost = world.hot.memory.parts()[2]
    lost.lose_everything()
    held = len(Copy(world.hot.memory, "g").read(keys_of(names[::2])).unanswered)
    assert 0 < held < 13
    assert values(world.read(names)) == [5, None] * 13
    assert put_back(world) == (13 - held, 0)


# The cache of this process


@pytest.fixture
def cached(both: World) -> tuple[World, ReadThrough]:
    both.hot_keys = HotKeys(ttl_seconds=1.0, monotonic=both.seconds)
    return both, both.reading()


def test_what_was_read_is_answered_from_memory_with_the_tier_that_gave_it(cached: tuple[World, ReadThrough]) -> None:
    world, reading = cached
    for _ in range(3):
        replies = reading.read({"g": (BOTH, keys_of("dabb"))})["g"]
        assert (values(replies), positions(replies)) == ([5, 7, 7, 7], ([0], []))
    assert (len(world.hot.asked), len(world.warm.asked)) == (1, 1)


def test_only_the_keys_that_are_not_held_are_asked_for(cached: tuple[World, ReadThrough]) -> None:
    world, reading = cached
    reading.read({"g": (BOTH, keys_of("a"))})
    replies = reading.read({"g": (BOTH, keys_of("xabac"))})["g"]
    assert (values(replies), positions(replies)) == ([None, 7, 7, 7, 5], ([4], []))
    assert world.hot.asked[-1] == {"g": keys_of("xbc")}


def test_what_is_held_is_read_anew_after_its_time(cached: tuple[World, ReadThrough]) -> None:
    world, reading = cached
    reading.read({"g": (BOTH, keys_of("a"))})
    Copy(world.hot.memory, "g").write(keys_of("a"), messages_of([plain(8)], group="g"))
    assert values(reading.read({"g": (BOTH, keys_of("a"))})["g"]) == [7]
    world.seconds.now += 1.0
    assert values(reading.read({"g": (BOTH, keys_of("a"))})["g"]) == [8]


def test_a_copy_that_is_seen_to_have_moved_ends_what_was_held_of_its_group(cached: tuple[World, ReadThrough]) -> None:
    world, reading = cached
    reading.read({"g": (BOTH, keys_of("ab"))})
    copy = Copy(world.hot.memory, "g")
    copy.write(
        keys_of("a"), messages_of([plain(3)], fence=5, group="g"), removed=removed_frame(keys_of("a"), [plain(7)])
    )
    copy.set_state(NEWER)
    assert values(reading.read({"g": (BOTH, keys_of("a"))})["g"]) == [7]
    reading.read({"g": (BOTH, keys_of("x"))})
    assert values(reading.read({"g": (BOTH, keys_of("a"))})["g"]) == [3]


def test_what_nobody_could_say_is_not_remembered(cached: tuple[World, ReadThrough]) -> None:
    world, reading = cached
    world.hot.memory.parts()[0].fail("it is down")
    world.warm.memory.parts()[0].fail("it is down")
    assert reading.read({"g": (BOTH, keys_of("a"))})["g"].unanswered == {0}
    world.hot.memory.parts()[0].fail("")
    assert values(reading.read({"g": (BOTH, keys_of("a"))})["g"]) == [7]


def test_what_it_takes_to_open_the_warm_tier_is_not_of_the_deadline(world: World) -> None:
    """A client of DynamoDB takes longer to make than the whole deadline: the first read of a process needs it too."""
    world.fill(world.warm, "abc", 1)
    opened: list[TierName] = []

    def tier(name: TierName) -> Tier:
        if name == "warm" and name not in opened:
            world.seconds.now += 3 * DEADLINE
            opened.append(name)
        return world.tier(name)

    breaker = Breaker(world.seconds, failures=1, pause_seconds=60.0)
    reading = ReadThrough(tier, world.repairs, breaker, deadline_seconds=DEADLINE, monotonic=world.seconds)
    world.hot.memory.parts()[0].fail("away")
    for route in (WARM, BOTH):
        opened.clear()
        replies = reading.read({"g": (route, keys_of("abc"))})["g"]
        assert values(replies) == [1, 1, 1]
        assert world.warm.timeouts[-1] == pytest.approx(DEADLINE, abs=0.01)
        assert not breaker.has_failed
