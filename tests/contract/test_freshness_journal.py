"""What is kept of freshness over both databases: a SQLite file, and a real PostgreSQL server."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, insert, select

from featurestore.board.lags import DayOfLags, Lags
from featurestore.freshness.journal import FreshnessJournal, StatusHistory
from featurestore.freshness.judgement import GroupFreshness
from featurestore.freshness.lags import Lag
from featurestore.freshness.looks import UNSEEN
from featurestore.metadata.database import Database
from featurestore.metadata.tables import FRESHNESS, FRESHNESS_KEPT, LAGS
from tests.offline_rows import SetClock
from tests.scale import cases
from tests.unit.test_freshness import DAY, HOUR, MINUTE, NOW, hourly, judged

STEP = timedelta(seconds=30)
"""Of a brute-force history; looks are as many of them apart as may be in between, or more."""


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOW)


@pytest.fixture
def journal(url: str, clock: SetClock) -> FreshnessJournal:
    return FreshnessJournal.open(url, clock)


def opened(folder: Path, clock: SetClock) -> FreshnessJournal:
    return FreshnessJournal.open(f"sqlite:///{folder}/m.db", clock)


def look(at: datetime, status: Any = "OK", name: str = "spend", lag: timedelta | None = None) -> GroupFreshness:
    """What a look found of a group with an SLO of two hours."""
    return replace(
        judged(), group=replace(hourly(), name=name), at=at, status=status, materialization_lag=lag or 5 * MINUTE
    )


def live(journal: FreshnessJournal, start: datetime, minutes: int, status: str = "OK", name: str = "spend") -> datetime:
    """Looks at one group, a minute apart; the instant of the last."""
    for minute in range(minutes + 1):
        journal.record([look(start + minute * MINUTE, status, name)])
    return start + minutes * MINUTE


# changes and confirmations


def test_a_change_of_status_is_kept_once(journal: FreshnessJournal) -> None:
    well, ill = judged(), judged(materialized_at=NOW - 3 * HOUR)
    assert [change.before for change in journal.record([well])] == [None]
    assert journal.record([replace(well, at=NOW + MINUTE)]) == []
    (change,) = journal.record([replace(ill, at=NOW + 2 * MINUTE)])
    assert (change.before, change.status, change.since) == ("OK", "BREACH", NOW + 2 * MINUTE)
    assert journal.changes(after=change.number - 1) == [change]
    assert journal.newest_change() == change.number


def test_changes_are_told_in_their_order_with_what_was_before_of_the_same_group(journal: FreshnessJournal) -> None:
    assert (journal.newest_change(), journal.changes()) == (0, [])
    for minute, status in enumerate(["OK", "WARN", "BREACH"]):
        journal.record([look(NOW + minute * MINUTE, status, name) for name in ("a", "b")])
    told = [(change.group, change.before, change.status) for change in journal.changes(after=2)]
    assert told == [("a", "OK", "WARN"), ("b", "OK", "WARN"), ("a", "WARN", "BREACH"), ("b", "WARN", "BREACH")]
    assert [change.number for change in journal.changes(after=1, limit=2)] == [2, 3]


def test_a_look_that_is_not_newer_changes_nothing(journal: FreshnessJournal) -> None:
    journal.record([look(NOW)])
    for late in (NOW, NOW - MINUTE):
        assert journal.record([look(late, "BREACH")]) == []
    assert journal.looked_at() == {"spend": NOW}


def test_a_confirmation_never_moves_back(journal: FreshnessJournal) -> None:
    journal.confirm(["spend"], NOW)
    journal.confirm(["spend", "other"], NOW - HOUR)
    assert journal.confirmed() == {"spend": NOW, "other": NOW - HOUR}


# looks and attainment

HISTORIES = st.lists(
    st.tuples(st.integers(1, 24), st.sampled_from(["OK", "WARN", "BREACH", "NEVER"])), min_size=1, max_size=12
)


@settings(max_examples=cases(500, 30), deadline=None)
@given(st.lists(HISTORIES, min_size=1, max_size=3), st.data())
def test_attainment_is_the_share_of_the_time_that_was_looked_at(
    tmp_path_factory: pytest.TempPathFactory, histories: list[list[tuple[int, Any]]], data: st.DataObject
) -> None:
    """Groups of several code locations, each looked at in its own time."""
    kept, looks = opened(tmp_path_factory.mktemp("journal"), SetClock(NOW)), []
    for number, history in enumerate(histories):
        place = 0
        for apart, status in history:
            looks.append((place, f"g{number}", status))
            place += apart
    last = max(place for place, _, _ in looks)
    for place, name, status in sorted(looks):
        kept.record([look(NOW + place * STEP, status, name)])
    now = last + data.draw(st.integers(0, 24))
    spans = [7, 60, 10_000]
    attained = kept.attainment(NOW + now * STEP, [span * STEP for span in spans])
    for name in attained:
        own = [(place, status) for place, of, status in looks if of == name]
        assert list(attained[name]) == [shared(own, now - span, now) for span in spans]


def shared(looks: Sequence[tuple[int, str]], first: int, now: int) -> Any:
    """The oracle: one step after the other, by the last look before it and the first one after it."""
    told = []
    for place in range(max(first, 0), now):
        before = [look for look in looks if look[0] <= place]
        after = min((at for at, _ in looks if at > place), default=now)
        if before and (after - before[-1][0]) * STEP <= UNSEEN and before[-1][1] != "NEVER":
            told.append(before[-1][1] != "BREACH")
    return pytest.approx(sum(told) / len(told)) if told else None


def test_an_outage_of_the_platform_counts_for_nothing(journal: FreshnessJournal) -> None:
    """The daemon is dead for twenty days, and the group in breach for all of them that nobody saw."""
    spans = [HOUR, DAY, 30 * DAY]
    died = live(journal, NOW, 120)
    back = died + 20 * DAY
    assert journal.attainment(back, spans) == {"spend": (None, None, 1.0)}
    live(journal, back, 30, "BREACH")
    (hour, day, month) = journal.attainment(back + 30 * MINUTE, spans)["spend"]
    assert (hour, day, month) == (0.0, 0.0, pytest.approx(120 / 150))
    assert journal.attainment(back + 60 * DAY, spans)["spend"] == (None, None, None)


def test_history_is_unknown_between_looks_that_are_far_apart(journal: FreshnessJournal) -> None:
    died = live(journal, NOW, 10)
    back = died + UNSEEN + timedelta(microseconds=1)
    again = live(journal, back, 10)
    wanted: StatusHistory = [(NOW, "OK"), (died, "UNKNOWN"), (back, "OK")]
    assert journal.history(NOW - DAY, again) == {"spend": wanted}
    assert journal.history(NOW - DAY, again + UNSEEN) == {"spend": wanted}
    assert journal.history(NOW - DAY, again + 2 * UNSEEN) == {"spend": [*wanted, (again, "UNKNOWN")]}
    assert journal.history(back + MINUTE, again) == {"spend": [(NOW, "OK")]}, "the gap was before"


def test_a_clock_that_was_ahead_for_a_look_is_not_waited_for(journal: FreshnessJournal, clock: SetClock) -> None:
    """One look of three hours later, in breach by its clock; the others are a minute apart and well."""
    for minute in range(21):
        clock.now = NOW + minute * MINUTE
        is_ahead = minute == 10
        at = clock.now + 3 * HOUR if is_ahead else clock.now
        journal.record([look(at, "BREACH" if is_ahead else "OK")])
    assert journal.looked_at() == {"spend": clock.now}
    assert [change.status for change in journal.changes()] == ["OK", "BREACH", "OK"]
    assert journal.attainment(clock.now, [HOUR]) == {"spend": (1.0,)}
    assert [since - NOW for since, _ in journal.history(NOW - DAY)["spend"]] == [timedelta(0)]
    assert clock.now - HOUR < max(lag.at for lag in journal.lags(NOW)["spend"] if lag.at <= clock.now)


def test_a_group_whose_sensor_died_is_not_hidden_by_one_that_is_looked_at(journal: FreshnessJournal) -> None:
    died = live(journal, NOW, 3, name="dead")
    alive = live(journal, NOW, 30, name="alive")
    assert journal.looked_at() == {"dead": died, "alive": alive}


def test_a_database_of_the_version_before_goes_on_and_knows_nothing_of_looks_that_it_did_not_keep(url: str) -> None:
    old = Database(url)
    old.prepare(FRESHNESS_KEPT)
    with old.writing() as connection:
        rows = [{"group_name": "spend", "since": NOW - 5 * DAY, "status": "BREACH", "causes": []}]
        connection.execute(insert(FRESHNESS), [*rows, {**rows[0], "since": NOW - 4 * DAY, "status": "OK"}])
    journal = FreshnessJournal.open(url, SetClock(NOW))
    assert journal.attainment(NOW, [30 * DAY]) == {"spend": (None,)}
    assert journal.record([look(NOW)]) == [], "its status is known, and the same"
    live(journal, NOW + MINUTE, 9)
    assert journal.attainment(NOW + 10 * MINUTE, [30 * DAY]) == {"spend": (1.0,)}
    old.prepare(FRESHNESS_KEPT)


# lags


def test_lags_are_kept_at_a_distance_and_forgotten_after_a_month(url: str, clock: SetClock) -> None:
    clock.now = NOW
    journal = FreshnessJournal.open(url, clock)
    for minute in range(10):
        journal.record([look(NOW - 40 * DAY + minute * MINUTE)])
    assert journal.lags(NOW - 50 * DAY) == {}
    for minute in range(10):
        # A journal of its own each time, as each tick of the sensor has.
        FreshnessJournal.open(url, clock).record([look(NOW + minute * MINUTE)])
    # An SLO of two hours and sixty pictures of it: one every two minutes.
    assert [lag.at for lag in journal.lags(NOW - 50 * DAY)["spend"]] == [
        NOW + minute * MINUTE for minute in range(0, 10, 2)
    ]


@settings(max_examples=cases(200, 20), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.integers(0, 180), st.sampled_from(["OK", "WARN", "BREACH"]), st.floats(0, 1e6)
        ),
        max_size=60,
        unique_by=lambda row: (row[0], row[1]),
    )
)
def test_pictures_are_the_same_after_lags_were_thinned(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, Any, float]]
) -> None:
    clock = SetClock(NOW)
    journal = opened(tmp_path_factory.mktemp("journal"), clock)
    keep(journal, [(name, Lag(NOW + minute * MINUTE, status, lag, None, -lag)) for name, minute, status, lag in rows])
    before = pictures(journal, NOW + 3 * HOUR)
    clock.now = NOW + DAY + 3 * HOUR + 15 * MINUTE
    for second in range(13):  # a step a look, and there are twelve and one
        journal.record([look(clock.now + second * STEP, name="other")])
    assert pictures(journal, NOW + 3 * HOUR) == before
    for lags in journal.lags(NOW, ["a", "b"]).values():
        steps = [(lag.at - NOW) // (15 * MINUTE) for lag in lags]
        assert len(steps) == len(set(steps))
    assert worst_of(journal) == max((status for _, _, status, _ in rows), key=WORST.index, default=None)


WORST = ["OK", "WARN", "BREACH"]


def worst_of(journal: FreshnessJournal) -> str | None:
    kept = [lag.status for lags in journal.lags(NOW, ["a", "b"]).values() for lag in lags]
    return max(kept, key=WORST.index, default=None)


def keep(journal: FreshnessJournal, rows: Sequence[tuple[str, Lag]]) -> None:
    lags = [
        {
            "group_name": name,
            "at": lag.at,
            "status": lag.status,
            "materialization_seconds": lag.materialization_seconds,
            "data_seconds": lag.data_seconds,
            "online_seconds": lag.online_seconds,
        }
        for name, lag in rows
    ]
    if lags:
        with journal._database.writing() as connection:
            connection.execute(insert(LAGS), lags)


def pictures(journal: FreshnessJournal, until: datetime) -> list[list[Lags]]:
    day = DayOfLags()
    for name, lags in journal.lags(until - DAY, ["a", "b"]).items():
        day.take_kept(name, lags)
    return [day.series(name, until) for name in "ab"]


def test_what_is_younger_than_a_day_is_not_thinned(url: str, clock: SetClock) -> None:
    journal = FreshnessJournal.open(url, clock)
    keep(journal, [("a", Lag(NOW + minute * MINUTE, "OK", 1.0, None, None)) for minute in range(15)])
    clock.now = NOW + DAY + 14 * MINUTE
    journal.record([look(clock.now)])
    assert len(journal.lags(NOW, ["a"])["a"]) == 15
    clock.now = NOW + DAY + 15 * MINUTE
    journal.record([look(clock.now)])
    assert [lag.at for lag in journal.lags(NOW, ["a"])["a"]] == [NOW]


def test_a_look_after_a_long_silence_forgets_and_thins_a_part_only(url: str, clock: SetClock) -> None:
    journal = FreshnessJournal.open(url, clock)
    keep(journal, [("a", Lag(NOW + minute * MINUTE, "OK", 1.0, None, None)) for minute in range(0, 3000, 5)])
    clock.now = NOW + 32 * DAY
    left = []
    for second in range(3):
        journal.record([look(clock.now + second * STEP)])
        left.append(len(journal.lags(NOW, ["a"])["a"]))
    # An hour of them goes with each look, twelve rows; and of the next step of three rows one is left.
    assert left == [600 - 12 - 2, 600 - 2 * 12 - 4 + 2, 600 - 3 * 12 - 6 + 4]


def test_a_look_reads_no_table_that_grows_from_end_to_end(tmp_path: Path, clock: SetClock) -> None:
    journal = opened(tmp_path, clock)
    names = [f"g{number}" for number in range(40)]
    keep(
        journal,
        [(name, Lag(NOW - 3 * DAY + hour * HOUR, "OK", 1.0, None, None)) for name in names for hour in range(9)],
    )
    journal.record([look(NOW, name=name) for name in names])
    asked: list[tuple[str, Any]] = []
    event.listen(journal._database._engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    later = FreshnessJournal(journal._database, clock)
    later.record([look(NOW + 2 * MINUTE, "WARN", name) for name in names])
    later.changes(after=later.newest_change() - 1)
    with closing(sqlite3.connect(tmp_path / "m.db")) as connection:
        plans = [plan for statement, values in asked for plan in plan_of(connection, statement, values)]
    assert any("ix_freshness_lag_at" in plan for plan in plans)
    assert [plan for plan in plans if is_scan(plan)] == []
    # Each change is a row of its own; everything else is a statement for all groups.
    assert len([statement for statement, _ in asked if "INSERT INTO freshness_status" not in statement]) < 20


def plan_of(connection: sqlite3.Connection, statement: str, values: Any) -> list[str]:
    if not statement.startswith(("SELECT", "DELETE", "UPDATE")):
        return []
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


def is_scan(plan: str) -> bool:
    """The tables of looks have a row a group at most, and are read whole."""
    return plan.startswith("SCAN") and not plan.startswith(("SCAN freshness_looked", "SCAN freshness_thinned"))


def test_thinning_begins_where_it_ended(url: str, clock: SetClock) -> None:
    clock.now = NOW + 2 * DAY
    journal = FreshnessJournal.open(url, clock)
    keep(journal, [("a", Lag(NOW + minute * MINUTE, "OK", 1.0, None, None)) for minute in range(0, 60, 5)])
    for second in range(2):
        FreshnessJournal.open(url, clock).record([look(clock.now + second * STEP)])
    with journal._database.writing() as connection:
        connection.execute(delete(LAGS).where(LAGS.c.at < NOW + 30 * MINUTE))
        kept = connection.execute(select(LAGS.c.at).where(LAGS.c.group_name == "a").order_by(LAGS.c.at)).scalars().all()
    assert len(kept) == 6
    for second in range(2, 6):
        FreshnessJournal.open(url, clock).record([look(clock.now + second * STEP)])
    assert [lag.at - NOW for lag in journal.lags(NOW, ["a"])["a"]] == [30 * MINUTE, 45 * MINUTE]
