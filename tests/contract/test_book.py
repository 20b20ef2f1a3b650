"""The book of backfills over both databases: a SQLite file, and a real PostgreSQL server."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from featurestore.errors import AlreadyDecided, FeatureStoreError, InvalidInput, StoreUnavailable, UnknownName
from featurestore.heartbeat.book import HeartbeatBook
from featurestore.heartbeat.process import Process
from featurestore.heartbeat.stuck import StuckRun
from featurestore.heartbeat.worker import Patience
from featurestore.location import Location
from featurestore.metadata import database
from featurestore.metadata.book import STATES, BackfillBook
from featurestore.metadata.database import Database
from featurestore.metadata.request import AuditEntry, BackfillRequest, RequestedWindows, State
from featurestore.settings import Settings
from tests.book_worker import REQUESTED_AT, entry_of, request_of
from tests.contract.postgres import PASSWORD, Postgres
from tests.offline_rows import SetClock
from tests.scale import cases

HOUR = timedelta(hours=1)
WORKER_SECONDS = 180


@pytest.fixture
def clock() -> SetClock:
    return SetClock(REQUESTED_AT)


@pytest.fixture
def book(url: str, clock: SetClock) -> BackfillBook:
    return BackfillBook.open(url, clock)


def start_worker(url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.book_worker", *arguments],
        env={**os.environ, "BOOK_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    )


def result_of(worker: subprocess.Popen[str]) -> Any:
    output, _ = worker.communicate(timeout=WORKER_SECONDS)
    assert worker.returncode == 0
    return json.loads(output)


def whole_text(error: BaseException) -> str:
    """An error as a log shows it, with everything it came from."""
    return "".join(traceback.format_exception(error))


def test_a_request_comes_back_as_it_was_with_every_key_and_character(book: BackfillBook) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    keys = tuple(f"{start + number * HOUR:%Y-%m-%d-%H:00}" for number in range(9_000))
    hourly = RequestedWindows(
        "airport_congestion_hourly", keys, {"cost_usd": 0.1 + 0.2, "rests_on": {"rows": "Ω 中 🛫"}}
    )
    request = request_of(
        requested_by="José Ñandú <josé@example.com>",
        reason='Zürich: "new\nrunway"; -- %s {} \\',
        groups=(hourly, RequestedWindows("empty", ())),
        accept_shift=True,
    )
    assert book.record(request) == request
    kept = book.get(request.backfill_id)
    assert kept == request
    assert (kept.cost_usd, len(kept.groups[0].keys)) == (0.1 + 0.2, 9_000)


def test_times_come_back_aware_in_utc_to_the_microsecond(book: BackfillBook) -> None:
    elsewhere = REQUESTED_AT.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    book.record(request_of(requested_at=elsewhere))
    book.note(entry_of(at=elsewhere))
    for at in (book.get("kxqzvbtw").requested_at, book.audit("kxqzvbtw")[-1].at):
        assert (at, at.tzinfo, at.microsecond) == (REQUESTED_AT, UTC, 123456)


def test_a_naive_time_is_refused_and_nothing_is_kept(book: BackfillBook) -> None:
    naive = REQUESTED_AT.replace(tzinfo=None)
    book.record(request_of("known"))
    for act in (
        lambda: book.record(request_of(requested_at=naive)),
        lambda: book.decide("known", "approved", entry_of("known", at=naive)),
        lambda: book.spent_usd("g", naive),
    ):
        with pytest.raises(InvalidInput, match="has no zone"):
            act()
    assert book.find("kxqzvbtw") is None
    assert (book.get("known").state, len(book.audit("known"))) == ("pending", 1)


@pytest.mark.parametrize("reason", ["a\0b", "half \ud83d of a pair"])
def test_text_that_one_of_the_databases_cannot_hold_is_refused_by_both(book: BackfillBook, reason: str) -> None:
    with pytest.raises(InvalidInput, match="NUL or half a character"):
        book.record(request_of(reason=reason))
    assert book.requests() == []


@pytest.mark.parametrize("cost", [-0.01, float("nan"), float("inf")])
def test_an_estimate_that_is_no_sum_is_refused(book: BackfillBook, cost: float) -> None:
    windows = RequestedWindows("g", ("2026-03-01",), {"cost_usd": cost})
    with pytest.raises(InvalidInput, match="a sum of 0 or more"):
        book.record(request_of(groups=(windows,)))


def test_a_request_that_is_known_stays_as_it_is(book: BackfillBook) -> None:
    first = book.record(request_of())
    approved = book.decide("kxqzvbtw", "approved", entry_of())
    assert book.record(replace(first, state="admitted", requested_by="someone else")) == approved
    assert book.get("kxqzvbtw") == approved == replace(first, state="approved", reason="needed")
    assert [entry.action for entry in book.audit("kxqzvbtw")] == ["requested", "approved"]


def test_the_audit_starts_with_the_state_that_the_request_was_recorded_in(book: BackfillBook, clock: SetClock) -> None:
    book.record(request_of(state="refused", reason="before backfillable_from"))
    assert book.audit("kxqzvbtw") == [
        AuditEntry(
            "kxqzvbtw", clock.now, "requested", "ana@example.com", "", "before backfillable_from", {"state": "refused"}
        )
    ]


ALLOWED = {
    ("pending", "approved"),
    ("pending", "rejected"),
    ("pending", "refused"),
    ("pending", "cancelled"),
    ("admitted", "rolled_back"),
    ("approved", "rolled_back"),
}


def put_in(book: BackfillBook, backfill_id: str, state: State) -> None:
    """Record a backfill and bring it into a state by decisions of 'first'."""
    path: dict[State, list[State]] = {"rolled_back": ["approved", "rolled_back"]}
    start: State = state if state in ("pending", "admitted", "refused") else "pending"
    book.record(request_of(backfill_id, start))
    for step in [] if start == state else path.get(state, [state]):
        book.decide(backfill_id, step, entry_of(backfill_id, step, person="first"))


def test_exactly_the_possible_changes_of_state_are_made(book: BackfillBook) -> None:
    for before, after in product(STATES, STATES):
        backfill_id = f"{before}-{after}"
        put_in(book, backfill_id, before)
        audit = book.audit(backfill_id)
        entry = entry_of(backfill_id, after, person="second")
        if (before, after) in ALLOWED:
            assert book.decide(backfill_id, after, entry).state == after
            assert book.audit(backfill_id) == [*audit, entry]
        else:
            with pytest.raises(AlreadyDecided, match=f"it (is|was) {before.replace('_', ' ')}"):
                book.decide(backfill_id, after, entry)
            assert (book.get(backfill_id).state, book.audit(backfill_id)) == (before, audit)


@pytest.mark.parametrize("state", ["rejected", "approved", "cancelled", "rolled_back"])
def test_a_state_that_only_a_decision_leads_to_cannot_be_recorded(book: BackfillBook, state: State) -> None:
    with pytest.raises(InvalidInput, match="decided afterwards"):
        book.record(request_of(state=state))


def test_the_same_decision_by_the_same_person_changes_nothing(book: BackfillBook) -> None:
    book.record(request_of())
    decided = book.decide("kxqzvbtw", "approved", entry_of())
    audit = book.audit("kxqzvbtw")
    assert book.decide("kxqzvbtw", "approved", entry_of(reason="again", at=REQUESTED_AT + HOUR)) == decided
    assert book.audit("kxqzvbtw") == audit


def test_who_comes_second_is_told_who_decided_what_and_when(book: BackfillBook) -> None:
    book.record(request_of())
    book.decide("kxqzvbtw", "rejected", entry_of(action="rejected", reason="too dear"))
    with pytest.raises(AlreadyDecided) as refused:
        book.decide("kxqzvbtw", "approved", entry_of(person="eve@example.com"))
    assert str(refused.value) == (
        "Backfill 'kxqzvbtw' cannot be approved: it was rejected by ben@example.com at 2026-03-10 06:00 UTC (too dear). "
        "Launch a new one if its windows are still wanted."
    )


def test_an_entry_of_another_backfill_decides_nothing(book: BackfillBook) -> None:
    book.record(request_of())
    with pytest.raises(InvalidInput, match="'other' cannot decide 'kxqzvbtw'"):
        book.decide("kxqzvbtw", "approved", entry_of("other"))
    assert book.get("kxqzvbtw").state == "pending"


def test_of_many_threads_that_decide_at_once_exactly_one_does(book: BackfillBook) -> None:
    for number in range(cases(20, 3)):
        backfill_id = f"b{number}"
        book.record(request_of(backfill_id))

        def decide(person: int, backfill_id: str = backfill_id) -> str:
            state: State = "approved" if person % 2 else "rejected"
            try:
                return book.decide(backfill_id, state, entry_of(backfill_id, state, person=str(person))).state
            except AlreadyDecided:
                return ""

        with ThreadPoolExecutor(6) as threads:
            results = list(threads.map(decide, range(6)))
        won = [(str(person), state) for person, state in enumerate(results) if state]
        assert len(won) == 1
        _, decision = book.audit(backfill_id)
        assert [(decision.person, decision.action)] == won
        assert book.get(backfill_id).state == decision.action


def test_of_processes_that_decide_at_once_exactly_one_does_and_the_others_are_told(
    book: BackfillBook, url: str
) -> None:
    book.record(request_of())
    start = str(time.time() + 1.5)
    results = [result_of(worker) for worker in [start_worker(url, "decide", str(n), start) for n in range(3)]]
    (winner,) = [result for result in results if "state" in result]
    assert book.get("kxqzvbtw").state == winner["state"]
    assert all(f"by {winner['name']} at" in result["refused"] for result in results if "refused" in result)


def test_processes_that_open_a_new_database_at_once_agree_on_who_was_first(url: str) -> None:
    start = str(time.time() + 1.5)
    results = [result_of(worker) for worker in [start_worker(url, "record", f"p{n}", start) for n in range(3)]]
    assert len({result["requested_by"] for result in results}) == 1
    (entry,) = BackfillBook.open(url).audit("kxqzvbtw")
    assert entry.person == results[0]["requested_by"]


def test_threads_that_open_a_new_database_at_once_all_find_its_tables(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    for number in range(cases(30, 3)):
        for url in (f"sqlite:///{tmp_path / f'{number}.db'}", postgres_server.make_schema(f"opened_{number}")):
            with ThreadPoolExecutor(8) as threads:
                books = list(threads.map(BackfillBook.open, [url] * 8))
            books[0].record(request_of())
            assert [book.get("kxqzvbtw").state for book in books] == ["pending"] * 8


def test_a_process_killed_between_any_two_statements_leaves_nothing_half_done(url: str) -> None:
    nothing: dict[str, Any] = {"state": None, "groups": 0, "actions": [], "diff": {}}
    recorded = {**nothing, "state": "pending", "groups": 1, "actions": ["requested"]}
    decided = {**recorded, "state": "approved", "actions": ["requested", "approved"]}
    kept = [{**decided, "diff": {"g": {"rows_added": number}}} for number in (1, 2)]
    seen = result_of(start_worker(url, "die"))
    for what, (before, after) in zip(seen, pairwise([nothing, recorded, decided, *kept]), strict=True):
        assert seen[what]["done"] == after
        assert all(left == before for left in seen[what]["left"])
        assert len(seen[what]["left"]) > 3  # killed at that many places, the last of them the commit


def test_an_opened_book_works_on_both_sides_of_a_fork(url: str) -> None:
    seen = result_of(start_worker(url, "fork"))
    assert seen == {"status": 0, "kept": ["child", "parent", "parent-again"]}


def test_what_was_admitted_without_approval_is_summed_by_group_and_time(book: BackfillBook, clock: SetClock) -> None:
    a, b = RequestedWindows("a", ("k",), {"cost_usd": 7.5}), RequestedWindows("b", ("k",), {"cost_usd": 100.0})
    since = clock.now
    for state in ("pending", "refused", "admitted"):
        book.record(request_of(f"first-{state}", state, groups=(a, b)))
    clock.now += HOUR
    book.record(request_of("second", "admitted", groups=(a,)))
    book.decide("first-pending", "approved", entry_of("first-pending"))
    assert (book.spent_usd("a", since), book.spent_usd("b", since), book.spent_usd("c", since)) == (15.0, 100.0, 0.0)
    assert book.spent_usd("a", since + timedelta(microseconds=1)) == 7.5
    assert book.spent_usd("a", clock.now + timedelta(microseconds=1)) == 0.0


def test_taking_a_backfill_back_does_not_give_its_money_back(book: BackfillBook) -> None:
    book.record(request_of(state="admitted"))
    book.decide("kxqzvbtw", "rolled_back", entry_of(action="rolled_back"))
    assert book.spent_usd("carrier_delay_daily", REQUESTED_AT) == 40.0


def test_an_old_launch_counts_from_when_it_was_admitted(book: BackfillBook, clock: SetClock) -> None:
    clock.now += 30 * HOUR
    book.record(request_of(state="admitted"))
    assert book.spent_usd("carrier_delay_daily", clock.now - 24 * HOUR) == 40.0


def test_requests_are_listed_newest_first_and_filtered(book: BackfillBook) -> None:
    assert book.requests() == []
    for number in range(6):
        group = RequestedWindows("even" if number % 2 == 0 else "odd", ("k",))
        state: State = "pending" if number < 3 else "admitted"
        book.record(request_of(f"b{number}", state, requested_at=REQUESTED_AT + number * HOUR, groups=(group,)))

    def ids(**chosen: Any) -> list[str]:
        return [request.backfill_id for request in book.requests(**chosen)]

    assert ids() == ["b5", "b4", "b3", "b2", "b1", "b0"]
    assert ids(group="odd") == ["b5", "b3", "b1"]
    assert ids(states=["pending"]) == ["b2", "b1", "b0"]
    assert ids(states=["pending", "admitted"], since=REQUESTED_AT + 2 * HOUR, limit=3) == ["b5", "b4", "b3"]
    assert ids(group="even", states=["admitted"]) == ["b4"]
    assert ids(states=[]) == ids(group="od") == []


def test_an_unknown_backfill_is_named_with_those_that_come_close(book: BackfillBook) -> None:
    assert book.find("kxqzvbtw") is None
    with pytest.raises(UnknownName, match="There is none yet"):
        book.get("kxqzvbtw")
    book.record(request_of())
    hint = r"Backfill 'kxqzvbtx' is not .* Did you mean 'kxqzvbtw'\?"
    with pytest.raises(UnknownName, match=hint):
        book.get("kxqzvbtx")
    with pytest.raises(UnknownName, match=hint):
        book.decide("kxqzvbtx", "approved", entry_of("kxqzvbtx"))
    assert book.audit("kxqzvbtx") == []


def test_documents_are_kept_by_kind_and_name_and_replaced(book: BackfillBook) -> None:
    book.keep("b", "diff", "g", {"rows_added": 1})
    book.keep("b", "diff", "g", {"rows_added": 2, "mean": None, "größe": [1.5, "ü"], "moved": float("inf")})
    book.keep("b", "diff", "h", {})
    book.keep("b", "plot", "g", {"svg": "<svg/>"})
    book.keep("c", "diff", "g", {"rows_added": 3})
    diff = {"rows_added": 2, "mean": None, "größe": [1.5, "ü"], "moved": float("inf")}
    assert book.kept("b", "diff") == {"g": diff, "h": {}}
    assert (book.kept("b", "plot"), book.kept("b", "other")) == ({"g": {"svg": "<svg/>"}}, {})
    with pytest.raises(InvalidInput, match="cannot be kept"):
        book.keep("b", "diff", "g", {"at": REQUESTED_AT})
    assert book.kept("b", "diff")["g"] == diff


def test_notes_change_no_state_and_follow_in_order(book: BackfillBook) -> None:
    book.record(request_of())
    entry = entry_of(action="overridden", details={"windows": ["2026-03-01"], "share": 0.25})
    book.note(entry)
    book.note(replace(entry, at=REQUESTED_AT - HOUR))
    assert book.get("kxqzvbtw") == request_of()
    assert book.audit("kxqzvbtw")[1:] == [entry, replace(entry, at=REQUESTED_AT - HOUR)]
    assert book.decisions(["kxqzvbtw"]) == {}


def test_the_newest_decision_is_found_for_each_of_several_backfills(book: BackfillBook) -> None:
    for backfill_id in ("one", "two", "three"):
        book.record(request_of(backfill_id))
    book.decide("one", "approved", entry_of("one"))
    back = entry_of("one", "rolled_back", at=REQUESTED_AT + HOUR)
    book.decide("one", "rolled_back", back)
    rejected = entry_of("two", "rejected")
    book.decide("two", "rejected", rejected)
    assert book.decisions(["one", "two", "three", "four"]) == {"one": back, "two": rejected}
    assert book.decisions([]) == {}


def test_who_follows_the_audit_by_number_misses_no_entry_of_several_writers(book: BackfillBook, url: str) -> None:
    noted = cases(200, 10)
    writers = [start_worker(url, "note", str(number), str(noted)) for number in range(3)]
    seen: list[AuditEntry] = []
    cursor, are_done = 0, False
    while not are_done or book.entries_after(cursor):
        are_done = all(writer.poll() is not None for writer in writers)
        time.sleep(0.01)
        for number, entry in book.entries_after(cursor, limit=7):
            assert number > cursor
            cursor = number
            seen.append(entry)
    assert [result_of(writer) for writer in writers] == [{"noted": noted}] * 3
    for number in range(3):
        mine = [int(entry.action) for entry in seen if entry.backfill_id == str(number)]
        assert mine == list(range(noted))
    assert [entry.action for _, entry in book.entries_after(0, actions=["3", "no such"])] == ["3"] * 3


def test_random_histories_are_those_of_a_plain_dictionary(url: str, clock: SetClock) -> None:
    for seed in range(cases(40, 1)):
        compare_with_dictionary(BackfillBook.open(url, clock), clock, random.Random(seed), f"seed{seed}")


def compare_with_dictionary(book: BackfillBook, clock: SetClock, chance: random.Random, prefix: str) -> None:
    """Random records, decisions and notes; after each, everything that was touched is what a dictionary says."""
    kept: dict[str, BackfillRequest] = {}
    audit: dict[str, list[AuditEntry]] = {}
    decider: dict[str, str] = {}
    spent: list[tuple[datetime, float]] = []
    for _ in range(25):
        clock.now += timedelta(microseconds=chance.randrange(1, 10**9))
        backfill_id, person = f"{prefix}-{chance.randrange(3)}", chance.choice(["ana", "ben"])
        if (old := kept.get(backfill_id)) is None:
            part = RequestedWindows(prefix, ("k",), {"cost_usd": float(chance.randrange(9))})
            first: State = chance.choice(["pending", "pending", "admitted", "refused"])
            kept[backfill_id] = book.record(request_of(backfill_id, first, groups=(part,), requested_at=clock.now))
            details = {"state": first}
            audit[backfill_id] = [AuditEntry(backfill_id, clock.now, "requested", "ana@example.com", "", "", details)]
            spent += [(clock.now, part.cost_usd)] if first == "admitted" else []
        else:
            state: State = chance.choice(["approved", "rejected", "refused", "rolled_back"])
            entry = entry_of(backfill_id, state, person=person, at=clock.now, reason=str(clock.now))
            if (old.state, state) in ALLOWED:
                kept[backfill_id] = replace(old, state=state, reason=entry.reason)
                audit[backfill_id].append(entry)
                decider[backfill_id] = person
                book.decide(backfill_id, state, entry)
            elif (old.state, person) == (state, decider.get(backfill_id)):
                assert book.decide(backfill_id, state, entry) == old
            else:
                with pytest.raises(AlreadyDecided):
                    book.decide(backfill_id, state, entry)
        assert book.get(backfill_id) == kept[backfill_id]
        assert book.audit(backfill_id) == audit[backfill_id]
        since = clock.now - timedelta(seconds=chance.randrange(10**4))
        assert book.spent_usd(prefix, since) == sum(cost for at, cost in spent if at >= since)


def test_a_database_of_a_newer_library_is_refused_and_left_alone(url: str) -> None:
    BackfillBook.open(url).record(request_of())
    with Database(url).writing() as connection:
        connection.execute(text("UPDATE featurestore_schema SET version = 2"))
    with pytest.raises(InvalidInput, match="tables of version 2; this library knows version 1"):
        BackfillBook.open(url)
    with Database(url).reading() as connection:
        assert connection.execute(text("SELECT state FROM backfill_request")).scalar_one() == "pending"


def test_a_writer_that_does_not_end_is_not_waited_for_forever_and_readers_go_on(book: BackfillBook, url: str) -> None:
    book.record(request_of())
    hurried = BackfillBook(Database(url, lock_seconds=0.2))
    with Database(url).writing() as connection:
        connection.execute(text("UPDATE backfill_request SET state = 'rejected'"))
        assert hurried.get("kxqzvbtw").state == "pending"
        with pytest.raises(StoreUnavailable, match=r"lock.*then try again"):
            hurried.decide("kxqzvbtw", "approved", entry_of())
    assert hurried.get("kxqzvbtw").state == "rejected"


def reject_and(url: str, act: Callable[[], object]) -> None:
    """Change the state of every backfill, and do something else before the change is committed."""
    with Database(url).writing() as connection:
        connection.execute(text("UPDATE backfill_request SET state = 'rejected'"))
        act()


def test_an_error_within_a_transaction_undoes_all_of_it(url: str, book: BackfillBook) -> None:
    book.record(request_of())
    with pytest.raises(IndexError):
        reject_and(url, lambda: [][1])
    assert book.get("kxqzvbtw").state == "pending"


# --- PostgreSQL alone


def test_a_server_that_is_away_is_an_error_with_its_remedy_and_back_it_works_again(postgres_server: Postgres) -> None:
    book = BackfillBook.open(postgres_server.make_database("restarted"))
    book.record(request_of())
    for how in (signal.SIGINT, signal.SIGQUIT):
        postgres_server.stop(how)
        try:
            with pytest.raises(
                StoreUnavailable, match=rf"127\.0\.0\.1:{postgres_server.port}/restarted .* Start it"
            ) as away:
                book.get("kxqzvbtw")
            assert PASSWORD not in whole_text(away.value)
        finally:
            postgres_server.start()
        assert book.get("kxqzvbtw") == request_of()


def test_a_server_that_goes_away_within_a_transaction_keeps_nothing_of_it(postgres_server: Postgres) -> None:
    url = postgres_server.make_database("cut")
    book = BackfillBook.open(url)
    book.record(request_of())
    try:
        with pytest.raises(StoreUnavailable):
            reject_and(url, lambda: postgres_server.stop(signal.SIGQUIT))
    finally:
        postgres_server.start()
    assert book.get("kxqzvbtw").state == "pending"


def test_a_password_is_never_shown(postgres_server: Postgres) -> None:
    book = BackfillBook.open(postgres_server.url())
    shown = [repr(book), repr(Settings(Location("x"), Location("y"), metadata_url=postgres_server.url()))]
    secret = "qX7/zW9"  # a slash that is not encoded ends the part of a URL that holds a password
    for bad in (
        postgres_server.url(password=secret),
        postgres_server.url("missing", password=PASSWORD),
        postgres_server.url(port=1, password=secret),
        postgres_server.url(password=None, query={"password": secret}),
        postgres_server.url(query={"sslpassword": secret, "sslmode": "verify-full"}),
        f"postgresql://user:{secret}@127.0.0.1:{postgres_server.port}/postgres",
        f"postgresql://user:a@{secret}@127.0.0.1:{postgres_server.port}/postgres",
        f"postgresql://user:{secret}@host:{secret}/postgres",
        *(f"postgresql://user:a@{secret}{mark}b@127.0.0.1:1/postgres" for mark in "/?#"),
        f"mysql://user:{secret}@host/postgres",
        secret,
    ):
        with pytest.raises(FeatureStoreError) as refused:
            BackfillBook.open(bad)
        shown.append(whole_text(refused.value))
    with Database(postgres_server.url()).writing() as connection:
        connection.execute(text("ALTER TABLE backfill_request RENAME TO gone"))
    with pytest.raises(StoreUnavailable) as refused:
        book.record(request_of(reason=secret))
    with Database(postgres_server.url()).writing() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO backfill_request"))
    shown.append(whole_text(refused.value))
    assert [entry for entry in shown if any(part in entry for part in (PASSWORD, *secret.split("/")))] == []


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_usual_name_of_the_scheme_means_one_driver(postgres_server: Postgres, scheme: str) -> None:
    url = postgres_server.url().replace("postgresql+psycopg", scheme)
    assert BackfillBook.open(url).find("no such") is None


def test_who_may_only_read_and_write_rows_can_use_tables_that_are_there(postgres_server: Postgres) -> None:
    url = postgres_server.make_database("granted")
    BackfillBook.open(url).record(request_of())
    with postgres_server.connect("granted") as connection:
        connection.execute("CREATE ROLE clerk LOGIN PASSWORD 'clerk'")
        connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk")
        connection.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk")
    clerk = BackfillBook.open(postgres_server.url("granted", username="clerk", password="clerk"))
    assert clerk.decide("kxqzvbtw", "approved", entry_of()).state == "approved"


def test_who_may_not_make_tables_is_told_so(postgres_server: Postgres) -> None:
    postgres_server.make_database("closed")
    with postgres_server.connect("closed") as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    with pytest.raises(StoreUnavailable, match=r"permission denied for schema public.*what its user may do"):
        BackfillBook.open(postgres_server.url("closed", username="guest", password="guest"))


# --- SQLite alone


@pytest.mark.parametrize("name", ["a b", "100%41", "wo?r=k#s", "Übung@host:1", "it's"])
def test_the_default_is_a_file_in_a_root_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({"FEATURESTORE_ROOT": name})
    book = settings.book()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    book.record(request_of())
    assert (tmp_path / name / "metadata.db").is_file()
    monkeypatch.chdir(tmp_path)
    assert settings.book().get("kxqzvbtw") == request_of()


def test_the_file_is_in_wal_mode_and_synced(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'metadata.db'}"
    BackfillBook.open(url)
    with sqlite3.connect(tmp_path / "metadata.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with Database(url).reading() as reading:
        assert reading.execute(text("PRAGMA synchronous")).scalar_one() == 2


def test_a_file_that_someone_else_has_whole_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'metadata.db'}"
    with closing(sqlite3.connect(tmp_path / "metadata.db", isolation_level=None)) as holder:
        holder.execute("CREATE TABLE other (x)")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="WAL"):
            Database(url, lock_seconds=0.2).prepare()
        with ThreadPoolExecutor(1) as thread:
            opened = thread.submit(BackfillBook.open, url)
            time.sleep(0.2)
            holder.execute("ROLLBACK")
            assert opened.result().requests() == []


def test_a_file_that_is_no_database_or_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, but it is long enough to look at it twice" * 20)
    for url, reason in (
        (f"sqlite:///{tmp_path / 'text'}", "file is not a database"),
        (f"sqlite:///{tmp_path / 'text' / 'below.db'}", "exists|Not a directory"),
        (f"sqlite:///{tmp_path}", "unable to open database file"),
    ):
        with pytest.raises(StoreUnavailable, match=reason):
            BackfillBook.open(url)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://h/d", "metadata.db", "", "postgresql+asyncpg://h/d"]
)
def test_a_url_that_names_no_database_of_ours_is_refused_with_the_forms(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"sqlite:////folder/metadata.db or postgresql://user:password@host"):
        BackfillBook.open(url)


def test_a_root_in_a_bucket_needs_a_database_named(tmp_path: Path) -> None:
    settings = Settings.from_env({"FEATURESTORE_ROOT": "s3://lake/features"})
    with pytest.raises(InvalidInput, match="Set FEATURESTORE_METADATA_URL to postgresql://"):
        settings.book()
    named = {"FEATURESTORE_ROOT": "s3://lake/features", "FEATURESTORE_METADATA_URL": f"sqlite:///{tmp_path / 'x.db'}"}
    assert Settings.from_env(named).book().requests() == []


# heartbeats, in the same databases


def test_silence_is_counted_and_set_back_on_both_databases(url: str, clock: SetClock) -> None:
    heartbeats, me, patience = HeartbeatBook.open(url, clock), Process("here", "boot", 7, 70), Patience()
    heartbeats.beat("run", me, "somewhere", 1.5)
    for _ in range(9):
        (worker,) = heartbeats.look(patience.step)
        clock.now += patience.beat
    assert (worker.beats, worker.idle_for, worker.stands_still(patience)) == (1, timedelta(seconds=1.5), "silent")
    stuck = StuckRun("run", ("offline/a",), "silent", clock.now, worker.silent_for, "here", 7, "somewhere", clock.now)
    assert heartbeats.claim(worker, stuck)
    heartbeats.tell("run", done="killed", retried_as="next")
    assert heartbeats.stuck() == [replace(stuck, done="killed", retried_as="next")]
    heartbeats.close("run", "over")
    assert heartbeats.stuck() == []
    heartbeats.beat("run", me, "somewhere", 0.0)
    assert not heartbeats.claim(worker, stuck)
    assert heartbeats.look(patience.step)[0].silent_for == timedelta(0)
    heartbeats.leave("run", me)
    assert heartbeats.workers() == []


def test_writer_that_freezes_in_a_transaction_is_ended_by_postgresql(
    postgres_server: Postgres, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock would keep every other writer waiting, for as long as it is frozen."""
    url = postgres_server.make_schema("book_alone")
    BackfillBook.open(url, clock)

    def write_and_freeze() -> None:
        with ExitStack() as frozen:
            with monkeypatch.context() as patched:  # of this writer alone: the others may be as slow as their machine
                patched.setattr(database, "FROZEN_WRITER", "1s")
                frozen.enter_context(Database(url).writing())
            BackfillBook.open(url, clock).record(request_of("b1"))

    with pytest.raises(StoreUnavailable):
        write_and_freeze()
    assert BackfillBook.open(url, clock).find("b1") is not None
