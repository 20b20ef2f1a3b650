"""How fresh a group is: what is read of its stores, and what that means."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.declaration import DAILY, HOURLY, Daily, Entity, Feature, FeatureGroup, Hourly, feature_group
from featurestore.errors import DeclarationError
from featurestore.freshness.facts import GroupFacts, OnlineFacts, WindowFacts
from featurestore.freshness.follow import window_facts, window_follower
from featurestore.freshness.judgement import GroupFreshness, judge, span
from featurestore.location import Location
from featurestore.offline.ledger import Ledger, LedgerEntry
from featurestore.registry.snapshot import RegisteredGroup, RegisteredSource
from tests.offline_rows import group_of
from tests.scale import cases

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + 10 * DAY
FEED = RegisteredSource("feed", "at")


def declare(**more: Any) -> FeatureGroup:
    """A sound hourly group, with some part of its declaration replaced."""

    def spend_hourly(window: Any, feed: pl.LazyFrame) -> pl.LazyFrame:
        """Spend."""
        return feed

    sound = {
        "entity": Entity("user"),
        "features": [Feature("spend", pl.Float64, "Spend")],
        "cadence": Hourly(START.date()),
        "lookback": HOUR,
        "owner": "team:a",
    }
    return feature_group(**{**sound, **more})(spend_hourly)


def hourly(**more: Any) -> RegisteredGroup:
    """A registered hourly group with an SLO of two hours: delay 10 min, publish 5 min."""
    sound = {
        "cadence": "hourly",
        "start": START.isoformat(),
        "delay_us": 600_000_000,
        "publish_us": 300_000_000,
        "freshness_us": 7_200_000_000,
    }
    return replace(group_of(), **{"name": "spend", "kind": "windowed", **sound, **more})


def facts(**more: Any) -> GroupFacts:
    """A healthy group: just promoted, its source alive, its copy whole."""
    sound = {
        "materialized_at": NOW - 5 * MINUTE,
        "last_events": {"feed": NOW - 20 * MINUTE},
        "windows": WindowFacts(newest=NOW - 2 * HOUR),
        "online": OnlineFacts(),
    }
    return GroupFacts(**{**sound, **more})


def judged(group: RegisteredGroup | None = None, now: datetime = NOW, **more: Any) -> GroupFreshness:
    return judge(group or hourly(), [FEED], facts(**more), now)


# what is declared


def test_a_cadence_brings_its_tier() -> None:
    level = declare().level
    assert (level.tier, level.slo, level.alerts) == ("hourly", HOUR, "page")
    assert level.refresh == (HOUR - 5 * MINUTE) / 2


def test_a_tier_brings_its_cadence() -> None:
    group = declare(cadence=None, tier=DAILY, start=date(2026, 3, 1), lookback=DAY)
    assert (group.cadence, group.freshness) == (Daily(date(2026, 3, 1)), DAY)


def test_each_part_of_a_tier_can_be_declared_by_itself() -> None:
    level = declare(tier=HOURLY, freshness=4 * HOUR, refresh=HOUR, alerts="off").level
    assert (level.tier, level.slo, level.refresh, level.alerts) == ("hourly", 4 * HOUR, HOUR, "off")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"freshness": HOUR, "refresh": 55 * MINUTE}, "refresh 0:55:00 + delay 0:00:00 + publish 0:05:00 = 1:00:00"),
        ({"delay": HOUR}, "Declare freshness above 1:05:30"),
        ({"refresh": timedelta(seconds=1)}, "the platform looks every 0:00:30"),
        ({"cadence": None}, "A group has one cadence"),
        ({"cadence": None, "start": date(2026, 3, 1)}, "start= goes with a tier"),
        ({"start": date(2026, 3, 1)}, "A group has one cadence"),
    ],
)
def test_a_service_level_that_cannot_be_held_is_refused_with_the_sum(more: dict[str, Any], told: str) -> None:
    with pytest.raises(DeclarationError, match=told.replace("+", r"\+")):
        declare(**more)


@settings(max_examples=cases(2000, 100), deadline=None)
@given(st.integers(1, 72), st.integers(0, 90), st.integers(0, 90))
def test_what_is_not_refused_is_refreshed_twice_within_what_is_left(hours: int, delay: int, publish: int) -> None:
    slo, taken = hours * HOUR, (delay + publish) * MINUTE
    try:
        level = declare(freshness=slo, delay=delay * MINUTE, publish=publish * MINUTE).level
    except DeclarationError:
        assert slo - taken <= timedelta(seconds=30)
        return
    assert level.refresh is not None
    assert taken + level.refresh < slo
    assert 2 * level.refresh <= max(slo - taken, MINUTE)


# what facts mean


def test_a_healthy_group_is_ok_with_both_lags() -> None:
    found = judged()
    assert (found.status, found.materialization_lag, found.data_lag, found.online_lag) == (
        "OK",
        5 * MINUTE,
        15 * MINUTE,
        timedelta(0),
    )


def test_a_group_never_computed_is_told_apart_from_a_late_one() -> None:
    assert judged(materialized_at=None, windows=WindowFacts()).status == "NEVER"


def test_a_job_that_stands_still_warns_and_then_breaches() -> None:
    at = NOW - 5 * MINUTE
    # Healthy it reaches 52:30 refresh + 15 min; half of the way from there to 2 hours is 1:33:45.
    assert judged(now=at + timedelta(minutes=93)).status == "OK"
    assert judged(now=at + timedelta(minutes=94)).status == "WARN"
    late = judged(now=at + 2 * HOUR)
    assert (late.status, late.causes[0].since, late.causes[0].asset) == ("BREACH", at + 2 * HOUR, "offline/spend")


def test_a_confirmation_counts_as_long_as_nothing_is_late() -> None:
    assert judged(confirmed_at=NOW, materialized_at=NOW - 5 * HOUR).status == "OK"
    late = WindowFacts(newest=NOW - 5 * HOUR, due=3, late_since=NOW - 3 * HOUR)
    assert judged(confirmed_at=NOW, materialized_at=NOW, windows=late).materialization_lag == 3 * HOUR


def test_a_backfill_of_an_old_day_does_not_end_a_breach() -> None:
    late = WindowFacts(newest=NOW - 5 * HOUR, due=3, late_since=NOW - 3 * HOUR)
    assert judged(materialized_at=NOW - MINUTE, windows=late).status == "BREACH"


def test_windows_that_newer_ones_have_overtaken_warn_one_slo_after_they_were_to_be_served() -> None:
    starts = [NOW - n * HOUR for n in (9, 8, 6, 5, 4, 3)]
    found = judged(windows=WindowFacts(newest=NOW - 2 * HOUR, holes=9, gaps=tuple(starts)))
    (cause,) = found.causes
    served = starts[0] + HOUR + 15 * MINUTE
    assert (found.status, cause.kind, cause.asset, cause.since) == ("WARN", "hole", "offline/spend", served + 2 * HOUR)
    assert cause.text == (
        "offline/spend: 5 windows before the newest were never promoted: 2026-03-10-15:00, 2026-03-10-16:00, 2026-03-10-18:00 and 2 more."
    )
    assert (found.holds_everything_due, found.materialization_lag) == (True, 5 * MINUTE)
    assert judged(windows=WindowFacts(newest=NOW - 2 * HOUR, holes=1, gaps=(NOW - 3 * HOUR,))).status == "OK"
    late = WindowFacts(newest=NOW - 3 * HOUR, due=1, late_since=NOW - MINUTE, gaps=tuple(starts))
    assert [cause.kind for cause in judged(windows=late).causes] == ["late", "hole"], "what is late now comes first"


def test_a_late_window_warns_at_once() -> None:
    late = WindowFacts(newest=NOW - 3 * HOUR, due=1, late_since=NOW - MINUTE)
    found = judged(windows=late)
    assert (found.status, found.causes[0].kind) == ("WARN", "late")
    assert "1 window is due and not promoted, the first of them 1 min after it was to be served" in found.causes[0].text


def test_a_dead_source_under_green_jobs_is_a_breach() -> None:
    found = judged(last_events={"feed": NOW - 2 * DAY})
    assert (found.status, found.causes[0].asset, found.data_lag) == ("BREACH", "raw/feed", 2 * DAY - 5 * MINUTE)
    assert (
        judge(
            hourly(), [replace(FEED, freshness_us=3 * 86_400_000_000)], facts(last_events={"feed": NOW - 2 * DAY}), NOW
        ).status
        == "OK"
    )


def test_a_source_that_dies_is_silent_also_while_its_windows_are_missing_and_nothing_uses_it() -> None:
    missing = WindowFacts(newest=NOW - 30 * HOUR, due=28, late_since=NOW - 28 * HOUR)
    dead = {"materialized_at": NOW - 29 * HOUR, "windows": missing, "last_events": {"feed": NOW - 29 * HOUR}}
    found = judged(**dead)
    assert [(cause.kind, cause.asset, cause.since) for cause in found.causes] == [
        ("materialization", "offline/spend", NOW - 27 * HOUR),
        ("source", "raw/feed", NOW - 5 * HOUR),
        ("late", "offline/spend", NOW - 28 * HOUR),
    ]
    assert (
        found.causes[1].text
        == "raw/feed has no event newer than 2026-03-09T19:00:00+00:00, 1 d 5 h ago; it may be silent for 1 d."
    )
    assert found.data_lag == timedelta(0), "that is of the time at which it was last used"
    again = judged(**dead, confirmed_at=NOW)
    assert [cause.kind for cause in again.causes] == ["materialization", "source", "late"]
    assert judged(**{**dead, "last_events": {"feed": NOW - 23 * HOUR}}).causes[1].kind == "late"


def test_a_quiet_source_of_a_group_that_holds_everything_due_is_silent_by_when_it_was_last_used() -> None:
    quiet = {"materialized_at": NOW - HOUR, "last_events": {"feed": NOW - 24 * HOUR - 30 * MINUTE}}
    assert judged(**quiet).status == "OK"
    assert judged(**quiet, windows=WindowFacts(newest=NOW - 3 * HOUR, due=1)).status == "OK"


def test_the_group_lags_as_its_oldest_source_does() -> None:
    both = {"feed": NOW - HOUR, "other": NOW - 9 * HOUR}
    found = judge(hourly(), [FEED, RegisteredSource("other", "at")], facts(last_events=both), NOW)
    assert (found.last_event_time, [source.name for source in found.sources]) == (NOW - 9 * HOUR, ["feed", "other"])


def test_rows_that_are_not_online_warn_at_half_the_slo_and_breach_at_it() -> None:
    assert judged(online=OnlineFacts(behind_since=NOW - 59 * MINUTE)).status == "OK"
    assert judged(online=OnlineFacts(behind_since=NOW - 60 * MINUTE)).status == "WARN"
    found = judged(online=OnlineFacts(behind_since=NOW - 2 * HOUR))
    assert (found.status, found.causes[0].asset, found.online_lag) == ("BREACH", "online/spend", 2 * HOUR)


@pytest.mark.parametrize(("arrival", "limit"), [(None, 30 * MINUTE), (5 * MINUTE, 30 * MINUTE), (2 * HOUR, 2 * HOUR)])
def test_the_copy_of_a_group_without_an_slo_may_lag_for_half_an_hour_or_as_long_as_rows_may_take(
    arrival: timedelta | None, limit: timedelta
) -> None:
    us = None if arrival is None else arrival // timedelta(microseconds=1)
    group = hourly(
        freshness_us=None, arrival_us=us, kind="pushed" if us else "static", cadence="pushed" if us else "static"
    )
    for lag, status in ((limit / 2 - MINUTE, "OK"), (limit / 2, "WARN"), (limit - MINUTE, "WARN"), (limit, "BREACH")):
        lacking = OnlineFacts(behind_since=NOW - lag)
        found = judge(group, [], facts(online=lacking, windows=None, last_events={}), NOW)
        assert (found.status, found.online_lag) == (status, lag)


def test_a_copy_that_nobody_can_ask_is_a_warning_after_half_the_slo_and_hides_no_breach() -> None:
    for minutes, status in ((59, "OK"), (60, "WARN"), (600, "WARN")):
        silent = OnlineFacts(unknown="hot is silent", unknown_since=NOW - minutes * MINUTE)
        found = judged(online=silent)
        assert (found.status, found.online_lag, found.is_spoken_for) == (status, None, False)
    behind = OnlineFacts(behind_since=NOW - 2 * HOUR, unknown="hot is silent", unknown_since=NOW - HOUR)
    found = judged(online=behind)
    assert (found.status, [cause.status for cause in found.causes]) == ("BREACH", ["BREACH", "WARN"])
    assert "for 1 h nobody could say what it holds. hot is silent" in found.causes[1].text


def test_a_refresh_is_due_only_where_everything_due_is_there() -> None:
    old = {"materialized_at": NOW - HOUR}
    assert judged(**old).is_refresh_due
    assert not judged().is_refresh_due
    assert not judged(**old, windows=WindowFacts(newest=NOW - 3 * HOUR, due=1)).is_refresh_due


def test_what_is_served_whole_is_told_apart_from_what_is_computed() -> None:
    assert judged().is_served_whole
    assert judged(online=None).is_served_whole
    for lacking in (OnlineFacts(behind_since=NOW - MINUTE), OnlineFacts(unknown="no answer")):
        found = judged(online=lacking)
        assert (found.is_served_whole, found.holds_everything_due) == (False, True)


PUSHED = replace(hourly(), cadence="pushed", kind="pushed", freshness_us=None, arrival_us=300_000_000)
"""A pushed group whose rows may take five minutes."""


def pushed(newest: datetime | None, group: RegisteredGroup = PUSHED, **more: Any) -> GroupFreshness:
    """A pushed group whose newest row came a second after its event."""
    came = newest and newest + timedelta(seconds=1)
    return judge(group, [], facts(last_events={"spend": newest}, windows=None, materialized_at=came, **more), NOW)


def test_a_pusher_that_falls_silent_is_a_breach_after_a_day_unless_another_age_is_declared() -> None:
    limit = DAY + 5 * MINUTE
    assert pushed(NOW - limit).causes == ()
    (cause,) = pushed(NOW - limit - MINUTE).causes
    assert (cause.kind, cause.status, cause.asset, cause.since) == ("arrival", "BREACH", "offline/spend", NOW - MINUTE)
    assert cause.text == (
        "offline/spend has no event newer than 2026-03-09T23:54:00+00:00, 1 d ago; whoever pushes may be silent for 1 d."
    )
    monthly = replace(PUSHED, freshness_us=30 * 86_400_000_000)
    assert pushed(NOW - 9 * DAY, monthly).status == "OK"
    assert [cause.kind for cause in pushed(NOW - 31 * DAY, monthly).causes] == ["materialization"]


def test_a_group_that_nobody_ever_pushed_to_is_silent_from_when_it_was_declared() -> None:
    assert pushed(None).status == "NEVER"
    assert pushed(None, declared_since={"spend": NOW - DAY}).status == "NEVER"
    found = pushed(None, declared_since={"spend": NOW - 2 * DAY})
    assert (found.status, found.causes[0].since) == ("BREACH", NOW - DAY + 5 * MINUTE)
    assert found.causes[0].text == "offline/spend has never had a row; whoever pushes may be silent for 1 d."


def test_the_slo_of_a_pushed_group_without_one_of_its_own_is_how_late_its_rows_may_come() -> None:
    found = pushed(NOW - HOUR)
    assert (found.group.slo, found.slo_lag, found.materialization_lag) == (
        5 * MINUTE,
        timedelta(seconds=1),
        HOUR - timedelta(seconds=1),
    )
    own = pushed(NOW - HOUR, replace(PUSHED, freshness_us=7_200_000_000))
    assert (own.group.slo, own.slo_lag) == (2 * HOUR, own.materialization_lag)
    assert (judged().group.slo, judged().slo_lag) == (2 * HOUR, 5 * MINUTE)


def test_a_reader_of_a_pushed_group_finds_it_as_silent_as_a_source() -> None:
    clicks = replace(PUSHED, name="clicks")
    for silent, of, silence in (
        (DAY + 9 * MINUTE, clicks, DAY + 5 * MINUTE),
        (3 * HOUR, replace(clicks, freshness_us=7_200_000_000), 2 * HOUR + 5 * MINUTE),
    ):
        last = NOW - 5 * MINUTE
        assert judge(hourly(), [of], facts(last_events={"clicks": last - silence}), NOW).status == "OK"
        found = judge(hourly(), [of], facts(last_events={"clicks": last - silent}), NOW)
        assert (found.status, found.data_lag, found.causes[0].asset) == ("BREACH", silent, "offline/clicks")
        assert found.causes[0].text.startswith("offline/clicks has no event newer than")
        assert [(one.name, one.silence) for one in found.sources] == [("clicks", silence)]


def test_a_push_that_came_late_is_told_from_a_silent_producer() -> None:
    pushed = PUSHED
    now = {"windows": None, "materialized_at": NOW - 3 * HOUR}
    on_time = judge(pushed, [], facts(last_events={"spend": NOW - 3 * HOUR - MINUTE}, **now), NOW)
    late = judge(pushed, [], facts(last_events={"spend": NOW - 4 * HOUR}, **now), NOW)
    assert (on_time.status, late.status, late.causes[0].kind) == ("OK", "BREACH", "arrival")


# what is read of the ledger

LATEST = 30
ENTRIES = st.lists(
    st.tuples(st.integers(0, LATEST), st.sampled_from(["promoted", "promoted", "quarantined", "rolled_back"])),
    max_size=25,
)


@settings(max_examples=cases(2000, 60), deadline=None)
@given(ENTRIES, st.lists(st.integers(0, 25), max_size=3), st.integers(0, 60 * (LATEST + 4)))
def test_windows_are_counted_as_by_hand(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, Any]], looks: list[int], minutes: int
) -> None:
    """Whenever it looks in between, a follower ends with the same facts as one that counts every window."""
    ledger = Ledger(Location(str(tmp_path_factory.mktemp("ledger"))), "spend")
    follower, group, now = window_follower(hourly(), ledger), hourly(), START + minutes * MINUTE
    for number, (place, status) in enumerate(entries):
        if number in looks:
            follower.look()
        ledger.append([entry(place, status, number)])
    follower.look()
    assert window_facts(group, follower, now) == counted(group, entries, now)
    assert follower.materialized_at == newest_came_at(entries)


def newest_came_at(entries: Sequence[tuple[int, str]]) -> datetime | None:
    """When a window was last promoted that was not there, above all that were; None while none is there."""
    promoted, at = set[int](), None
    for number, (place, status) in enumerate(entries):
        if status == "promoted":
            if place not in promoted and place > max(promoted, default=-1):
                at = START + number * MINUTE
            promoted.add(place)
        elif status == "rolled_back":
            promoted.discard(place)
            at = at if promoted else None
    return at


def entry(place: int, status: Any, number: int) -> LedgerEntry:
    return LedgerEntry(
        window_start=START + place * HOUR, recorded_at=START + number * MINUTE, status=status, run_id=str(number),
        code_version="", source_versions="{}", verdict_digest="", rows=1, history_rows=0, null_key_rows=0,
        table_version=number + 1,
    )  # fmt: skip


def counted(group: RegisteredGroup, entries: Sequence[tuple[int, str]], now: datetime) -> WindowFacts:
    """The oracle: one window after the other, by what was said of it last."""
    promoted, gone, held = set[int](), set[int](), dict[int, int]()
    for number, (place, status) in enumerate(entries):
        held.pop(place, None)
        if status == "quarantined":
            held[place] = number
        elif status == "promoted":
            promoted.add(place)
            gone.discard(place)
        else:
            promoted.discard(place)
            gone.add(place)
    of_held: dict[str, Any] = {
        "quarantined": len(held),
        "held": tuple(START + place * HOUR for place in sorted(held)),
        "held_since": START + min(held.values()) * MINUTE if held else None,
        "held_by": str(held[max(held)]) if held else "",
    }
    if not promoted:
        return WindowFacts(**of_held)
    first, newest = min(promoted), max(promoted)
    due = [
        place
        for place in range(newest + 1, 200)
        if START + (place + 1) * HOUR + 10 * MINUTE <= now and place not in gone
    ]
    horizon = START + (due[0] + 1) * HOUR + 15 * MINUTE if due else None
    return WindowFacts(
        newest=START + newest * HOUR,
        due=len(due),
        late_since=horizon if horizon is not None and horizon <= now else None,
        holes=len([place for place in range(first, newest) if place not in promoted | gone | set(held)]),
        awaited=START + due[0] * HOUR if due else None,
        gaps=tuple(
            START + place * HOUR
            for place in range(min(place for place, _ in entries), newest)
            if place not in promoted | gone | set(held)
        ),
        **of_held,
    )


def test_holes_of_history_and_of_what_is_not_computed_any_more_are_nobodys_debt(tmp_path: Path) -> None:
    ledger, group = Ledger(Location(str(tmp_path)), "spend"), hourly(backfillable_from="2026-03-02")
    follower = window_follower(group, ledger)
    backfilled = replace(entry(2, "promoted", 1), backfill_id="b")
    ledger.append(
        [
            backfilled,
            entry(20, "promoted", 2),
            entry(25, "promoted", 3),
            entry(26, "quarantined", 4),
            entry(28, "promoted", 5),
        ]
    )
    follower.look()
    facts = window_facts(group, follower, NOW)
    assert facts.gaps == tuple(START + place * HOUR for place in (24, 27))
    assert facts.holes == 17 + 4 + 1
    assert window_facts(hourly(), follower, NOW).gaps[0] == START + 21 * HOUR


def test_a_window_promoted_again_keeps_the_moment_at_which_it_was_first_there(tmp_path: Path) -> None:
    ledger = Ledger(Location(str(tmp_path)), "spend")
    follower = window_follower(hourly(), ledger)
    ledger.append([entry(3, "promoted", 1)])
    follower.look()
    ledger.append([entry(3, "promoted", 7), entry(1, "promoted", 7)])
    follower.look()
    assert follower.materialized_at == START + MINUTE
    ledger.append([entry(4, "promoted", 9)])
    follower.look()
    assert follower.materialized_at == START + 9 * MINUTE


@pytest.mark.parametrize(
    ("duration", "text"),
    [(timedelta(0), "0.0 s"), (timedelta(seconds=59), "59 s"), (HOUR, "1 h"), (25 * HOUR + MINUTE, "1 d 1 h")],
)
def test_spans_are_told_in_two_units(duration: timedelta, text: str) -> None:
    assert span(duration) == text
