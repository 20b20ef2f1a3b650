"""What looks find of copies: parts that hang, fail, come back or go away, beside what is known of them."""

import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.freshness.copies import Copies, Served
from featurestore.freshness.facts import OnlineFacts
from featurestore.offline.follower import Written
from featurestore.online.tier import MaterializationState
from tests.offline_rows import group_of
from tests.scale import cases

T0 = datetime(2026, 3, 10, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
STATIC = replace(group_of(kind="static"), name="g0")
LOADED = [Written(number, *[T0 + number * HOUR] * 3) for number in range(3)]
"""Three loads, an hour apart."""


@dataclass
class Part:
    """Holds version `held` of every group; counts how often it is asked."""

    name: str
    held: int | None = 2
    trouble: Exception | None = None
    hangs_seconds: float = 0.0
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self, _group: str) -> MaterializationState | None:
        with self.lock:
            self.asked += 1
        if self.trouble is not None:
            time.sleep(self.hangs_seconds)
            raise self.trouble
        return None if self.held is None else MaterializationState("t", self.held, T0 + 100 * HOUR)


def copies(*parts: Part) -> Copies:
    given: Any = list(parts)
    return Copies(lambda _: given)


def look(seen: Copies, minutes: int = 0) -> OnlineFacts:
    return seen.look([Served(STATIC, LOADED)], T0 + 2 * HOUR + minutes * MINUTE)["g0"]


def test_a_part_that_hangs_is_waited_for_once_however_many_groups_it_serves() -> None:
    silent, well = Part("hot", trouble=StoreUnavailable("hot is silent"), hangs_seconds=0.2), Part("warm")
    groups = [Served(replace(STATIC, name=f"g{number}"), LOADED) for number in range(300)]
    begun = time.monotonic()
    found = copies(silent, well).look(groups, T0 + 2 * HOUR)
    assert time.monotonic() - begun < 10
    assert silent.asked <= 16
    assert well.asked == 300
    assert {one.unknown for one in found.values()} == {"hot is silent"}


def test_one_record_that_cannot_be_read_is_of_its_group_alone() -> None:
    part = Part("hot", trouble=InvalidInput("the record of g0 is no record"))
    groups = [Served(replace(STATIC, name=f"g{number}"), LOADED) for number in range(40)]
    copies(part).look(groups, T0)
    assert part.asked == 40


def test_what_a_silent_part_was_known_to_lack_stays_known() -> None:
    hot, warm = Part("hot", held=0), Part("warm")
    seen = copies(hot, warm)
    assert look(seen).behind_since == T0 + HOUR
    hot.trouble = StoreUnavailable("hot is silent")
    silent = look(seen, 5)
    assert (silent.behind_since, silent.unknown, silent.unknown_since) == (
        T0 + HOUR,
        "hot is silent",
        T0 + 2 * HOUR + 5 * MINUTE,
    )
    assert look(seen, 10).unknown_since == T0 + 2 * HOUR + 5 * MINUTE
    hot.trouble, hot.held = None, 2
    assert look(seen, 15) == OnlineFacts()


def test_one_silent_part_does_not_hide_what_another_lacks() -> None:
    found = look(copies(Part("hot", trouble=StoreUnavailable("hot is silent")), Part("warm", held=1)))
    assert (found.behind_since, found.unknown) == (T0 + 2 * HOUR, "hot is silent")


def test_parts_that_cannot_be_told_keep_what_is_known_of_them_and_one_that_is_gone_does_not() -> None:
    hot, warm = Part("hot", held=0), Part("warm")
    parts: list[Any] = [hot, warm]
    troubles: list[Exception] = []

    def parts_of(_group: object) -> list[Any]:
        if troubles:
            raise troubles[0]
        return parts

    seen = Copies(parts_of)
    look(seen)
    troubles.append(StoreUnavailable("no node answers"))
    told = look(seen, 5)
    assert (told.behind_since, told.unknown) == (T0 + HOUR, "no node answers")
    troubles.clear()
    parts.remove(hot)
    assert look(seen, 10) == OnlineFacts()


def test_the_parts_of_groups_with_the_same_tiers_are_asked_for_once() -> None:
    calls = []

    def parts_of(group: Any) -> list[Any]:
        calls.append(group.tiers)
        return []

    groups = [replace(STATIC, name=f"g{n}", tiers=("hot",) if n % 2 else ()) for n in range(20)]
    Copies(parts_of).look([Served(one, []) for one in groups], T0)
    assert sorted(calls) == [(), ("hot",)]


@settings(max_examples=cases(3_000, 150), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([None, 0, 1, 2, "silent"])), min_size=1, max_size=12))
def test_random_lives_of_three_parts_are_told_as_a_model_tells_them(steps: list[tuple[int, Any]]) -> None:
    parts = [Part(f"part {number}") for number in range(3)]
    seen = copies(*parts)
    behind: dict[int, datetime | None] = {}
    silent: dict[int, datetime] = {}
    for minutes, (at, what) in enumerate(steps):
        part, now = parts[at], T0 + 2 * HOUR + minutes * MINUTE
        part.trouble = StoreUnavailable("silent") if what == "silent" else None
        part.held = part.held if what == "silent" else what
        for number, one in enumerate(parts):
            if one.trouble is not None:
                silent.setdefault(number, now)
                continue
            silent.pop(number, None)
            behind[number] = None if one.held == 2 else T0 + (0 if one.held is None else one.held + 1) * HOUR
        found = look(seen, minutes)
        assert found.behind_since == min((since for since in behind.values() if since), default=None)
        assert found.unknown_since == min(silent.values(), default=None)
        assert bool(found.unknown) == bool(silent)


@pytest.mark.parametrize("held", [None, 0, 1, 2])
def test_a_copy_lacks_what_was_written_after_it(held: int | None) -> None:
    wanted = None if held == 2 else T0 + (0 if held is None else held + 1) * HOUR
    assert look(copies(Part("hot", held=held))).behind_since == wanted
