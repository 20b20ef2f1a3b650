"""Which windows a backfill is to compute: ranges of keys, and what the ledger says of each window."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.backfill.footprint import cadence_of
from featurestore.backfill.selection import complete_until, ranges_text, select_windows
from featurestore.declaration.windows import DAY, HOUR, Daily, TimeWindow
from featurestore.errors import InvalidInput
from featurestore.location import Location
from featurestore.offline.ledger import LedgerEntry, Status
from featurestore.offline.store import OfflineStore
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.snapshot import RegisteredGroup
from tests.catalogs import START, T0, shops
from tests.scale import cases

REGISTRY = compile_snapshot(shops(), None)
DAILY = REGISTRY.group("shop_sales_daily")
HOURLY = REGISTRY.group("shop_sales_hourly")
NOW = T0 + 10 * DAY + 6 * HOUR
CODE, OLD_CODE = "new code", "old code"


@pytest.fixture
def store(tmp_path: Path) -> OfflineStore:
    return OfflineStore(Location(str(tmp_path)), REGISTRY)


def entry(start: datetime, status: Status = "promoted", code: str = CODE) -> LedgerEntry:
    return LedgerEntry(start, NOW, status, "run", code, "{}", "", 1, 0, 0)


def record(store: OfflineStore, group: RegisteredGroup, *entries: LedgerEntry) -> None:
    for one in entries:
        store.ledger(group.name).append([one])


def selected(store: OfflineStore, group: RegisteredGroup = DAILY, **asked: Any) -> list[str]:
    windows = select_windows(store, group, **{"now": NOW, "code_version": CODE, **asked})
    return [cadence_of(group).key_of(window) for window in windows]


def day(number: int) -> datetime:
    return T0 + number * DAY


def test_without_anything_said_every_complete_window_is_taken(store: OfflineStore) -> None:
    assert selected(store) == [f"2026-03-{number:02}" for number in range(1, 11)]
    assert selected(store, HOURLY)[-1] == "2026-03-11-04:00"


def test_last_complete_window_is_the_one_whose_cut_off_has_passed(store: OfflineStore) -> None:
    assert selected(store, now=T0 + 2 * DAY + 2 * HOUR) == ["2026-03-01", "2026-03-02"]
    assert selected(store, now=T0 + 2 * DAY + 2 * HOUR - timedelta(microseconds=1)) == ["2026-03-01"]


def test_range_holds_both_its_ends(store: OfflineStore) -> None:
    assert selected(store, first="2026-03-04", last="2026-03-06") == ["2026-03-04", "2026-03-05", "2026-03-06"]
    assert selected(store, first="2026-03-04", last="2026-03-04") == ["2026-03-04"]
    assert selected(store, HOURLY, first="2026-03-04-22:00", last="2026-03-05-00:00") == [
        "2026-03-04-22:00",
        "2026-03-04-23:00",
        "2026-03-05-00:00",
    ]


def test_date_stands_for_the_whole_day_of_an_hourly_group(store: OfflineStore) -> None:
    hours = selected(store, HOURLY, first="2026-03-04", last="2026-03-05")
    assert (hours[0], hours[-1], len(hours)) == ("2026-03-04-00:00", "2026-03-05-23:00", 48)


def test_day_that_is_not_over_may_begin_a_range_but_not_end_it(store: OfflineStore) -> None:
    assert selected(store, HOURLY, first="2026-03-11") == [f"2026-03-11-0{hour}:00" for hour in range(5)]
    with pytest.raises(InvalidInput, match=r"--to 2026-03-11 reaches windows that are not complete.*2026-03-11-04:00"):
        selected(store, HOURLY, last="2026-03-11")


def test_window_that_is_not_complete_is_refused_with_the_last_one_that_is(store: OfflineStore) -> None:
    message = (
        r"--to 2026-03-11 reaches windows that are not complete. The last complete one at 2026-03-11 06:00 UTC is "
        r"2026-03-10: end there with --to, or leave --to out. The next is due at 2026-03-12 02:00 UTC."
    )
    with pytest.raises(InvalidInput, match=message):
        selected(store, last="2026-03-11")
    for key in ("2026-03-11", "9999-12-31"):
        with pytest.raises(InvalidInput, match=r"not complete.*2026-03-10: begin there or before"):
            selected(store, first=key)


def test_before_the_first_cut_off_nothing_is_complete(store: OfflineStore) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"Nothing to backfill.*Its first window, 2026-03-01, is due at 2026-03-02 02:00 UTC; now is 2026-03-02 00:00 UTC",
    ):
        selected(store, now=T0 + DAY)
    with pytest.raises(InvalidInput, match="not complete"):
        selected(store, first="2026-03-01", now=T0 - 40 * DAY)


def test_windows_before_backfillable_from_are_refused_and_never_taken_by_default(store: OfflineStore) -> None:
    bounded = replace(DAILY, backfillable_from="2026-03-05")
    assert selected(store, bounded)[0] == "2026-03-05"
    message = (
        r"windows of group 'shop_sales_daily' before 2026-03-05 may not be backfilled \(its backfillable_from\). "
        "Begin with --from 2026-03-05, or have its owner, team:shops"
    )
    for asked in ({"first": "2026-03-04"}, {"last": "2026-03-04"}):
        with pytest.raises(InvalidInput, match=message):
            selected(store, bounded, **asked)
    with pytest.raises(InvalidInput, match=r"Nothing to backfill.*before 2027-01-01 may not be backfilled"):
        selected(store, replace(DAILY, backfillable_from="2027-01-01"))


def test_backfillable_from_before_the_start_changes_nothing(store: OfflineStore) -> None:
    assert selected(store, replace(DAILY, backfillable_from="2020-01-01")) == selected(store)


@pytest.mark.parametrize(
    ("group", "key", "message"),
    [
        (DAILY, "2026-03-04-01:00", "no partition key of group 'shop_sales_daily'. Its keys look like 2026-03-01."),
        (DAILY, "2026-3-4", "no partition key"),
        (DAILY, "yesterday", "no partition key"),
        (DAILY, "", "no partition key"),
        (DAILY, "2026-02-30", "no partition key"),
        (DAILY, "2026-02-28", "before the first window of group 'shop_sales_daily', 2026-03-01"),
        (HOURLY, "2026-03-04-01:30", "like 2026-03-01-00:00, or a date for its whole day: 2026-03-01"),
        (HOURLY, "2026-02-28-23:00", "before the first window"),
    ],
)
def test_key_that_is_none_of_the_group_is_refused(
    store: OfflineStore, group: RegisteredGroup, key: str, message: str
) -> None:
    for asked in ({"first": key}, {"last": key}):
        with pytest.raises(InvalidInput, match=message):
            selected(store, group, **asked)


def test_ends_in_the_wrong_order_are_refused(store: OfflineStore) -> None:
    with pytest.raises(InvalidInput, match="--from 2026-03-06 lies after --to 2026-03-04"):
        selected(store, first="2026-03-06", last="2026-03-04")


def test_static_group_has_no_windows(store: OfflineStore) -> None:
    with pytest.raises(
        InvalidInput, match=r"is static: it has no windows.*Materialize offline/shop_profile in Dagster"
    ):
        selected(store, REGISTRY.group("shop_profile"))


def test_missing_is_what_was_never_promoted_although_it_may_be_in_quarantine(store: OfflineStore) -> None:
    record(store, DAILY, entry(day(0)), entry(day(1), "quarantined"), entry(day(2)), entry(day(2), "quarantined"))
    assert selected(store, last="2026-03-04", missing=True) == ["2026-03-02", "2026-03-04"]


def test_failed_is_what_failed_last_although_it_was_promoted_before(store: OfflineStore) -> None:
    record(store, DAILY, entry(day(0), "quarantined"), entry(day(0)), entry(day(2)), entry(day(2), "quarantined"))
    assert selected(store, failed=True) == ["2026-03-03"]


def test_stale_is_what_another_code_promoted_last(store: OfflineStore) -> None:
    record(store, DAILY, entry(day(0), code=OLD_CODE), entry(day(0)), entry(day(1)), entry(day(1), code=OLD_CODE))
    record(store, DAILY, entry(day(2), code=OLD_CODE), entry(day(2), "quarantined"))
    assert selected(store, stale_code=True) == ["2026-03-02", "2026-03-03"]


def test_rolled_back_promotions_do_not_count(store: OfflineStore) -> None:
    taken_back = replace(entry(day(0)), backfill_id="mistake")
    record(store, DAILY, taken_back, replace(entry(day(0), "rolled_back"), run_id="rollback/mistake/1"))
    record(store, DAILY, entry(day(1), code=OLD_CODE), replace(taken_back, window_start=day(1)))
    record(store, DAILY, replace(entry(day(1), code=OLD_CODE), run_id="rollback/mistake/1"))
    assert selected(store, last="2026-03-02", missing=True) == ["2026-03-01"]
    assert selected(store, last="2026-03-02", stale_code=True) == ["2026-03-02"]


def test_several_conditions_take_what_meets_any(store: OfflineStore) -> None:
    record(store, DAILY, entry(day(0)), entry(day(1), code=OLD_CODE), entry(day(2)), entry(day(2), "quarantined"))
    asked: dict[str, Any] = {"last": "2026-03-04", "failed": True, "stale_code": True}
    assert selected(store, **asked) == ["2026-03-02", "2026-03-03"]
    assert selected(store, **asked, missing=True) == ["2026-03-02", "2026-03-03", "2026-03-04"]


def test_selection_of_nothing_says_why(store: OfflineStore) -> None:
    record(store, DAILY, *(entry(day(number)) for number in range(10)))
    message = (
        "Nothing to backfill in group 'shop_sales_daily': of its 10 windows, 2026-03-01 to 2026-03-10, none was never "
        "promoted or is in quarantine."
    )
    with pytest.raises(InvalidInput, match=message):
        selected(store, missing=True, failed=True)


def test_ledger_of_another_group_says_nothing(store: OfflineStore) -> None:
    record(store, HOURLY, *(entry(day(number)) for number in range(10)))
    assert len(selected(store, missing=True)) == 10


def test_long_lists_of_ranges_are_cut() -> None:
    windows = [TimeWindow(day(2 * number), day(2 * number + 1)) for number in range(7)]
    assert ranges_text(Daily(START), windows).endswith("2026-03-05, 2026-03-07, and 3 more ranges")


@dataclass(frozen=True)
class History:
    """How windows ended one after the other, by their number in hours or days, and what is asked of them."""

    group: RegisteredGroup
    events: Sequence[tuple[int, Status, str]]
    now: datetime
    first: int | None
    last: int | None
    conditions: tuple[bool, bool, bool]

    @property
    def length(self) -> timedelta:
        return cadence_of(self.group).length

    def key(self, number: int | None) -> str | None:
        return None if number is None else (T0 + number * self.length).strftime(cadence_of(self.group).key_format)


NUMBERS = st.integers(-1, 14)
ENDS: st.SearchStrategy[Status] = st.sampled_from(["promoted", "quarantined"])
EVENTS = st.tuples(st.integers(0, 12), ENDS, st.sampled_from([CODE, OLD_CODE]))


@st.composite
def histories(draw: st.DrawFn) -> History:
    group = draw(st.sampled_from([DAILY, HOURLY]))
    allowed = draw(st.sampled_from([None, "2026-02-27", "2026-03-01", "2026-03-02", "2026-03-05"]))
    return History(
        replace(group, backfillable_from=allowed),
        draw(st.lists(EVENTS, max_size=25)),
        T0 + timedelta(minutes=draw(st.integers(0, 14 * (1440 if group is DAILY else 60)))),
        draw(st.none() | NUMBERS),
        draw(st.none() | NUMBERS),
        draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
    )


def expected(history: History) -> list[int] | None:
    """The numbers of the windows, each looked at alone; None where the selection is to be refused."""
    declared = shops().group(history.group.name)
    allowed = history.group.backfillable_from

    def may(number: int) -> bool:
        start = T0 + number * history.length
        return number >= 0 and (allowed is None or f"{start:%Y-%m-%d}" >= allowed)

    def is_complete(number: int) -> bool:
        start = T0 + number * history.length
        return declared.cut_off(TimeWindow(start, start + history.length)) <= history.now

    def meets(number: int) -> bool:
        own = [(status, code) for n, status, code in history.events if n == number]
        promotions = [code for status, code in own if status == "promoted"]
        missing, failed, stale = history.conditions
        return (
            not any(history.conditions)
            or (missing and not promotions)
            or (failed and bool(own) and own[-1][0] == "quarantined")
            or (stale and bool(promotions) and promotions[-1] != CODE)
        )

    asked = [number for number in (history.first, history.last) if number is not None]
    if not all(may(number) and is_complete(number) for number in asked):
        return None
    return [
        number
        for number in range(-2, 130)
        if (history.first is None or number >= history.first)
        and (history.last is None or number <= history.last)
        and may(number)
        and is_complete(number)
        and meets(number)
    ] or None


@given(histories())
@settings(max_examples=cases(3000, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_selection_is_that_of_a_look_at_each_window_alone(tmp_path: Path, history: History) -> None:
    store = OfflineStore(Location(str(tmp_path / uuid4().hex)), REGISTRY)
    ends = [entry(T0 + number * history.length, status, code) for number, status, code in history.events]
    store.ledger(history.group.name).append(ends)
    missing, failed, stale = history.conditions

    def select() -> list[int]:
        windows = select_windows(
            store,
            history.group,
            first=history.key(history.first),
            last=history.key(history.last),
            missing=missing,
            failed=failed,
            stale_code=stale,
            code_version=CODE,
            now=history.now,
        )
        return [(window.start - T0) // history.length for window in windows]

    if (wanted := expected(history)) is None:
        with pytest.raises(InvalidInput):
            select()
    else:
        assert select() == wanted


@given(st.integers(0, 20 * 24 * 60), st.sampled_from([DAILY, HOURLY]))
@settings(max_examples=cases(2000, 50), deadline=None)
def test_complete_windows_end_where_the_declaration_says_that_one_is_due(minutes: int, group: RegisteredGroup) -> None:
    declared, now, length = shops().group(group.name), T0 + timedelta(minutes=minutes), cadence_of(group).length
    end = complete_until(group, now)
    assert declared.cut_off(TimeWindow(end - length, end)) <= now < declared.cut_off(TimeWindow(end, end + length))


def test_first_day_is_that_of_the_declaration() -> None:
    assert cadence_of(DAILY) == Daily(START)
    assert cadence_of(HOURLY).origin == datetime(2026, 3, 1, tzinfo=UTC)
