"""What the schedule owes, against a search through every window of a random history; and what it may launch of it."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import polars as pl
import pytest

from featurestore.declaration import FeatureGroup, TimeWindow
from featurestore.location import Location
from featurestore.offline.follower import HELD_WINDOWS, LedgerFollower
from featurestore.offline.ledger import SCHEMA, Ledger, LedgerEntry
from featurestore.schedule.attempts import LONGEST_WAIT, Attempts, Tried, launchable, wait_after
from featurestore.schedule.due import missing_windows, next_due, owed, settling
from tests.catalogs import DAY, HOUR, MINUTE, T0, days, shop_density_daily, shop_sales_daily, shop_sales_hourly, shops
from tests.scale import cases, exam_seed
from tests.unit.test_ledger import entry

DAYS = 12
STATUSES = ("promoted", "quarantined", "rolled_back")


NOWHERE = Ledger(Location("/nowhere"), "group")


def standing(group: FeatureGroup, entries: Sequence[LedgerEntry]) -> LedgerFollower:
    made = LedgerFollower(NOWHERE, group.cadence.origin, group.cadence.length)  # type: ignore[union-attr]
    made.note(pl.DataFrame([asdict(entry) for entry in entries], schema=SCHEMA))
    return made


def starts(windows: Sequence[TimeWindow]) -> list[datetime]:
    return [window.start for window in windows]


def brute_force(group: FeatureGroup, entries: Sequence[LedgerEntry], now: datetime) -> list[datetime]:
    """Every window of the first days, one by one, asked what the module says of it."""
    known = {entry.window_start for entry in entries}
    due = [w for w in days(group, 0, DAYS + 5) if group.cut_off(w) + settling(group) <= now]
    scheduled = [entry.window_start for entry in entries if not entry.backfill_id]
    if not scheduled:
        return [window.start for window in due[-1:] if window.start not in known]
    return [window.start for window in due if window.start >= min(scheduled) and window.start not in known]


def random_history(random: Random) -> list[LedgerEntry]:
    return [
        entry(
            T0 + random.randrange(DAYS) * DAY,
            random.choice(STATUSES),
            backfill_id=random.choice(["", "", "b1"]),
            rows=number,
        )
        for number in range(random.randrange(20))
    ]


@pytest.mark.parametrize("seed", range(cases(3000, 150)))
def test_what_is_owed_is_what_a_search_through_every_window_finds(seed: int) -> None:
    random = Random(f"{exam_seed()}-{seed}")
    entries, now = random_history(random), T0 + random.randrange(DAYS * 24 * 60) * MINUTE
    cut = random.randrange(len(entries) + 1)
    read_at_once = standing(shop_sales_daily, entries)
    read_on = standing(shop_sales_daily, entries[:cut])
    read_on.note(pl.DataFrame([asdict(entry) for entry in entries[cut:]], schema=SCHEMA))
    for kept in (read_at_once, read_on):
        found = missing_windows(shop_sales_daily, kept, now)
        assert starts(found) == brute_force(shop_sales_daily, entries, now)
        assert next_due(shop_sales_daily, kept, now) > now
        last = {entry.window_start: entry for entry in entries}
        assert kept.held == {start: entry for start, entry in last.items() if entry.status == "quarantined"}
        assert all(kept.is_promoted(start) == (last[start].status == "promoted") for start in last)


def test_group_that_was_never_computed_begins_with_its_newest_due_window() -> None:
    now = T0 + 5 * DAY + 12 * HOUR
    assert starts(missing_windows(shop_sales_daily, standing(shop_sales_daily, []), now)) == [T0 + 4 * DAY]
    assert missing_windows(shop_sales_daily, standing(shop_sales_daily, []), T0) == []


def test_windows_missed_for_days_are_owed_the_oldest_first() -> None:
    kept = standing(shop_sales_daily, [entry(T0 + DAY), entry(T0 + 3 * DAY)])
    found = missing_windows(shop_sales_daily, kept, T0 + 7 * DAY + 12 * HOUR)
    assert starts(found) == [T0 + day * DAY for day in (2, 4, 5, 6)]


def test_one_backfilled_day_of_long_ago_does_not_make_the_schedule_fill_what_follows() -> None:
    kept = standing(shop_sales_daily, [entry(T0, backfill_id="b1"), entry(T0 + 8 * DAY)])
    assert starts(missing_windows(shop_sales_daily, kept, T0 + 10 * DAY + 12 * HOUR)) == [T0 + 9 * DAY]


def test_window_is_launched_a_moment_after_its_cut_off_and_not_before() -> None:
    kept, group = standing(shop_sales_hourly, [entry(T0)]), shop_sales_hourly
    due = group.cut_off(kept.window(1)) + settling(group)
    assert timedelta(0) < settling(group) <= group.publish / 2
    assert missing_windows(group, kept, due - timedelta(microseconds=1)) == []
    assert next_due(group, kept, due - timedelta(microseconds=1)) == due
    assert missing_windows(group, kept, due) == [kept.window(1)]


def test_group_that_serves_at_its_cut_off_does_not_settle() -> None:
    assert settling(replace(shop_sales_hourly, publish=timedelta(0))) == timedelta(0)


def test_window_before_what_may_be_backfilled_is_owed_on_its_own_day_only() -> None:
    kept, to_come = standing(shop_sales_daily, [entry(T0)]), T0 + 300 * DAY
    now = T0 + 5 * DAY + 12 * HOUR
    assert starts(missing_windows(shop_sales_daily, kept, now, to_come)) == [T0 + 4 * DAY]
    assert starts(missing_windows(shop_sales_daily, kept, now, T0 + 2 * DAY)) == [T0 + day * DAY for day in (2, 3, 4)]


def test_window_waits_for_the_upstream_windows_that_it_reads() -> None:
    group, missing = shop_density_daily, days(shop_density_daily, 0, 4)
    promoted = {T0 + day * DAY for day in (0, 1, 3)}
    work = owed(shops(), group, missing, lambda _, start: start in promoted, 10)
    assert set(work.ready) | set(work.blocked) == set(missing)
    assert T0 + 2 * DAY in starts(work.blocked)
    assert T0 in starts(work.ready)


def test_of_many_windows_in_quarantine_the_newest_are_kept() -> None:
    kept = standing(shop_sales_daily, [entry(T0 + day * DAY, "quarantined") for day in range(HELD_WINDOWS + 9)])
    assert sorted(kept.held) == [T0 + day * DAY for day in range(9, HELD_WINDOWS + 9)]
    kept.note(pl.DataFrame([asdict(entry(T0 + 20 * DAY))], schema=SCHEMA))
    assert T0 + 20 * DAY not in kept.held


NOW = T0 + 20 * DAY


def tried(*times: tuple[int, int, datetime]) -> dict[datetime, Tried]:
    return {T0 + day * DAY: Tried(often, last) for day, often, last in times}


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        (Attempts(), [0, 1, 2, 3]),
        (Attempts(busy={T0}), [1, 2, 3, 4]),
        (Attempts(busy={T0 + 2 * DAY}), [0, 1]),
        (Attempts(is_under_way=True), []),
        (Attempts(tried=tried((0, 1, NOW - MINUTE / 2))), [1, 2, 3, 4]),
        (Attempts(tried=tried((0, 1, NOW - 2 * MINUTE))), [0, 1]),
        (Attempts(tried=tried((0, 2, NOW - 5 * MINUTE))), [0]),
        (Attempts(tried=tried((0, 9, NOW - LONGEST_WAIT))), [0]),
        (Attempts(tried=tried((1, 5, NOW))), [0]),
    ],
    ids=["nothing", "busy first", "busy third", "under way", "too soon", "again", "fewer", "alone", "gap"],
)
def test_launched_are_the_oldest_windows_that_follow_each_other(attempts: Attempts, expected: list[int]) -> None:
    found = launchable(days(shop_sales_daily, 0, 8), attempts, NOW, 4)
    assert starts(found) == [T0 + day * DAY for day in expected]


def test_windows_with_a_gap_between_them_are_launched_apart() -> None:
    windows = [*days(shop_sales_daily, 0, 2), *days(shop_sales_daily, 3, 5)]
    assert launchable(windows, Attempts(), NOW, 31) == tuple(windows[:2])


def test_waits_grow_and_end_at_the_longest() -> None:
    waits = [wait_after(times) for times in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT


def test_entry_of_a_window_that_the_cadence_does_not_cut_is_passed_over() -> None:
    kept: Any = standing(shop_sales_daily, [entry(T0 - 3 * DAY)])
    assert kept.first_scheduled is None
