"""API keys over both databases, a SQLite file and a real PostgreSQL server: kept, checked, revoked, and never shown."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from featurestore.auth.authenticator import Authenticator, authenticator_of
from featurestore.auth.book import KeyBook, StoredKey
from featurestore.auth.caller import EVERYTHING, Rights
from featurestore.auth.known import GRACE_SECONDS, KnownKeys
from featurestore.cli.main import main
from featurestore.errors import InvalidInput, NotAuthenticated, StoreUnavailable, UnknownName
from featurestore.location import Location
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.database import Database
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from tests.book_worker import request_of
from tests.catalogs import shops
from tests.contract.postgres import PASSWORD, Postgres
from tests.key_worker import NOW, authenticator
from tests.offline_rows import SetClock
from tests.scale import cases

HOUR = timedelta(hours=1)
WORKER_SECONDS = 180
READS = Rights(("read",), services=("delay_v1",))


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOW)


@pytest.fixture
def book(url: str, clock: SetClock) -> KeyBook:
    return KeyBook.open(url, clock)


def make(book: KeyBook, rights: Rights = READS, **other: Any) -> tuple[StoredKey, str]:
    facts: dict[str, Any] = {"owner": "team:ops", "person": "ana@example.com", "expires_at": None}
    return book.create(other.pop("name", "delay model"), rights, **{**facts, **other})


@contextmanager
def checking(url: str, **other: Any) -> Iterator[Authenticator]:
    mine = Authenticator(KnownKeys(KeyBook(Database(url, lock_seconds=0.25)), **other))
    mine.start()
    try:
        yield mine
    finally:
        mine.close()


def worker(what: str, url: str, key: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "URL": url, "KEY": key}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.key_worker", what], env=environment, stdout=subprocess.PIPE, text=True
    )


def result_of(process: subprocess.Popen[str]) -> Any:
    output, _ = process.communicate(timeout=WORKER_SECONDS)
    assert process.returncode == 0
    return json.loads(output)


def dump(url: str) -> str:
    """Every table of a database, as text."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        return "\n".join(str(connection.execute(text(f'SELECT * FROM "{name}"')).all()) for name in tables)


# --- kept and checked


def test_a_key_is_good_from_when_it_is_made_and_says_who_calls(book: KeyBook, url: str) -> None:
    rights = Rights(("read", "push"), services=("delay_v1", "eta*"), groups=("*",))
    stored, key = make(book, rights, note="Zürich; -- %s", expires_at=NOW + HOUR)
    assert key.startswith(f"fs_{stored.key_id}_")
    assert book.all_keys() == [stored]
    with checking(url) as mine:
        for scheme in ("Bearer", "bearer", "BEARER"):
            caller = mine.authenticate(f"{scheme} {key}", now=NOW)
            assert (caller.key_id, caller.name, caller.owner, caller.rights) == (
                stored.key_id,
                "delay model",
                "team:ops",
                rights,
            )


def test_of_a_key_only_its_hash_is_kept(book: KeyBook, url: str) -> None:
    stored, key = make(book)
    kept = dump(url)
    assert stored.sha256 in kept
    assert key.rpartition("_")[2] not in kept
    assert len({make(book)[1].rpartition("_")[2] for _ in range(20)}) == 20


def test_whatever_is_wrong_with_a_key_its_sender_hears_the_same_and_the_log_what_it_was(
    book: KeyBook, clock: SetClock, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, revoked, expired = (make(book, expires_at=NOW + HOUR)[1] for _ in range(3))
    book.revoke(revoked, person="ana@example.com", reason="leaked")
    secret = good.rpartition("_")[2]
    unknown, other = f"fs_{'0' * 12}_{secret}", good.replace(secret, secret[::-1])
    expected = {
        None: "none given",
        "": "none given",
        f"Bearer {unknown}": "unknown, id 000000000000",
        f"Bearer {other}": f"wrong secret, id {good[3:15]}",
        f"Bearer {revoked}": f"revoked, id {revoked[3:15]}",
        good: "malformed",
        f"Basic {good}": "malformed",
        f"Bearer {good}a": "malformed",
        f"Bearer {good[:-1]}": "malformed",
        f"Bearer {good.upper()}": "malformed",
        f"Bearer {good}, Bearer {good}": "malformed",
        f"Bearer {good}\n": "malformed",
        "Bearer " + "\ud800" * 9: "malformed",
    }
    heard = set()
    with checking(url) as mine, caplog.at_level(logging.DEBUG):
        for authorization, reason in expected.items():
            caplog.clear()
            with pytest.raises(NotAuthenticated) as refused:
                mine.authenticate(authorization, now=NOW)
            heard.add("".join(traceback.format_exception_only(refused.value)))
            assert caplog.messages == [f"API key refused: {reason}"]
        caplog.clear()
        mine.authenticate(f"Bearer {expired}", now=NOW + HOUR - timedelta(microseconds=1))
        with pytest.raises(NotAuthenticated) as refused:
            mine.authenticate(f"Bearer {expired}", now=NOW + HOUR)
        heard.add("".join(traceback.format_exception_only(refused.value)))
        assert caplog.messages == [f"API key refused: expired, id {expired[3:15]}"]
        caplog.clear()
        with pytest.raises(NotAuthenticated):
            mine.authenticate(None, now=NOW, asked="10.0.0.7 asked for /push")
        assert caplog.messages == ["API key refused: none given (10.0.0.7 asked for /push)"]
    assert len(heard) == 1


def test_of_a_thousand_damaged_keys_none_is_taken(book: KeyBook, url: str) -> None:
    keys = [make(book, EVERYTHING)[1] for _ in range(3)]
    draw = random.Random(7)
    with checking(url) as mine:
        for _ in range(cases(20_000, 1_000)):
            damaged = list(draw.choice(keys))
            for _ in range(draw.choice([1, 1, 2, 20])):
                damaged[draw.randrange(len(damaged))] = draw.choice("0123456789abcdef_fs")
            if "".join(damaged) not in keys:
                with pytest.raises(NotAuthenticated):
                    mine.authenticate(f"Bearer {''.join(damaged)}", now=NOW)
        assert all(mine.authenticate(f"Bearer {key}", now=NOW) for key in keys)


def test_who_made_and_revoked_a_key_is_kept(book: KeyBook, clock: SetClock) -> None:
    stored, _ = make(book, note="for the demo", expires_at=NOW + HOUR, os_user="ana")
    clock.now += HOUR / 2
    revoked = book.revoke(stored.key_id, person="ben@example.com", reason="leaked", os_user="ben")
    assert revoked == replace(stored, revoked_at=clock.now)
    clock.now += HOUR
    assert book.revoke(f"fs_{stored.key_id}", person="eve@example.com", reason="again") == revoked
    first, last = book.audit(stored.key_id)
    assert (first.action, first.at, first.person, first.os_user, first.reason) == (
        "created",
        NOW,
        "ana@example.com",
        "ana",
        "for the demo",
    )
    assert first.details == {
        "name": "delay model",
        "owner": "team:ops",
        "actions": ["read"],
        "services": ["delay_v1"],
        "groups": [],
        "expires_at": (NOW + HOUR).isoformat(),
    }
    assert (last.action, last.at, last.person, last.reason) == (
        "revoked",
        NOW + HOUR / 2,
        "ben@example.com",
        "leaked",
    )
    assert book.audit() == [first, last]


def test_a_key_that_could_never_be_used_is_not_made(book: KeyBook) -> None:
    for wrong in ({"expires_at": NOW}, {"name": " "}, {"owner": ""}, {"expires_at": NOW - HOUR}):
        with pytest.raises(InvalidInput):
            make(book, **wrong)
    assert (book.all_keys(), book.audit()) == ([], [])


def test_what_is_no_key_of_this_book_cannot_be_revoked_and_is_not_repeated(book: KeyBook) -> None:
    stored, key = make(book)
    with pytest.raises(UnknownName, match=stored.key_id):
        book.revoke("0" * 12, person="ana@example.com", reason="?")
    secret = key.rpartition("_")[2]
    for wrong in (secret, f"Bearer {key}", "", "delay model"):
        with pytest.raises(InvalidInput, match="twelve characters") as refused:
            book.revoke(wrong, person="ana@example.com", reason="?")
        assert secret not in str(refused.value)
    assert book.all_keys() == [stored]


def test_the_hour_of_the_last_use_is_recorded_and_never_goes_back(book: KeyBook, url: str) -> None:
    (used, key), (unused, _) = make(book), make(book)
    for now in (NOW + 2.7 * HOUR, NOW + 0.5 * HOUR):
        with checking(url) as mine:
            mine.authenticate(f"Bearer {key}", now=now)
    found = {one.key_id: one.last_used_at for one in book.all_keys()}
    assert found == {used.key_id: NOW + 2 * HOUR, unused.key_id: None}


# --- revoked at once, everywhere


def freeze(process: subprocess.Popen[str], url: str) -> None:
    """Stop a process where it holds no lock of the database: stopped with SQLite's, nobody could revoke anything."""
    end = time.monotonic() + WORKER_SECONDS
    while True:
        process.send_signal(signal.SIGSTOP)
        try:
            with Database(url, lock_seconds=0.2).writing():
                return
        except StoreUnavailable:
            assert time.monotonic() < end
            process.send_signal(signal.SIGCONT)
            time.sleep(0.02)


def test_every_process_refuses_a_revoked_key_within_a_second_a_frozen_one_when_it_goes_on(
    book: KeyBook, url: str
) -> None:
    """The questions are counted by when they were asked."""
    for _ in range(cases(20, 1)):
        stored, key = make(book)
        workers = [worker("ask", url, key) for _ in range(cases(4, 2))]
        for one in workers:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        freeze(workers[0], url)
        book.revoke(stored.key_id, person="ana@example.com", reason="leaked")
        revoked_at = time.time()
        for one in workers[1:]:
            one.wait(WORKER_SECONDS)
        workers[0].send_signal(signal.SIGCONT)
        frozen, *others = [result_of(one) for one in workers]
        lags = [one["last"] - revoked_at for one in others]
        print(f"revocation noticed after {[round(max(lag, 0), 3) for lag in lags]} s")
        assert max(lags) < 1.0
        assert frozen["last"] < revoked_at + 0.8
        assert all(one["count"] > 1 for one in others)


def test_a_child_of_a_fork_follows_the_keys_by_itself(tmp_path: Path) -> None:
    """A child was once stuck for ever: the thread was in SQLite at the fork."""
    url = f"sqlite:///{tmp_path / 'metadata.db'}"
    _, key = make(KeyBook.open(url))
    assert result_of(worker("fork", url, key)) == {"status": 0, "is_refused": True}


def test_a_key_made_while_a_server_runs_is_soon_good_and_one_taken_out_by_hand_soon_is_not(
    book: KeyBook, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.auth.known.RELOAD_SECONDS", 0.5)
    with checking(url, poll_seconds=0.05) as mine:
        _, key = make(book)
        _until(lambda: mine.authenticate(f"Bearer {key}", now=NOW), NotAuthenticated)
        with Database(url).writing() as connection:
            connection.execute(text("DELETE FROM api_key"))
        _until_refused(lambda: mine.authenticate(f"Bearer {key}", now=NOW), NotAuthenticated)


def _until(attempt: Callable[[], object], error: type[Exception]) -> None:
    """Try until it succeeds."""
    end = time.monotonic() + 60
    while True:
        try:
            attempt()
        except error:
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return


def _until_refused(attempt: Callable[[], object], error: type[Exception]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            attempt()
        except error:
            return
        time.sleep(0.02)
    raise AssertionError("it was never refused")


# --- a database that fails


class SetSeconds:
    """A monotonic clock that a test moves on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@contextmanager
def failing(url: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """A file that is moved away, with a folder in its place; a server that is down."""
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        for part in (file, *file.parent.glob(f"{file.name}-*")):
            part.rename(part.with_name(f"moved {part.name}"))
        file.mkdir()
        try:
            yield
        finally:
            file.rmdir()
            for part in file.parent.glob("moved *"):
                part.replace(part.with_name(part.name.removeprefix("moved ")))
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    server.stop(signal.SIGQUIT)
    try:
        yield
    finally:
        server.start()


def test_while_the_database_fails_known_keys_are_good_for_the_grace_and_then_none_is(
    book: KeyBook, url: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    (_, key), seconds = make(book), SetSeconds()
    with checking(url, monotonic=seconds) as mine, caplog.at_level(logging.DEBUG):
        mine.authenticate(f"Bearer {key}", now=NOW)
        with failing(url, request):
            seconds.ahead += GRACE_SECONDS / 2
            assert mine.authenticate(f"Bearer {key}", now=NOW).key_id in key
            with pytest.raises(NotAuthenticated):
                mine.authenticate(f"Bearer fs_{'1' * 12}_{'2' * 64}", now=NOW)
            seconds.ahead += GRACE_SECONDS / 2 + 1
            with pytest.raises(StoreUnavailable, match="could not be checked for 60 s") as refused:
                mine.authenticate(f"Bearer {key}", now=NOW)
            with pytest.raises(StoreUnavailable):
                mine.check()
            with pytest.raises(NotAuthenticated):
                mine.authenticate(None, now=NOW)
        _until(lambda: mine.authenticate(f"Bearer {key}", now=NOW), StoreUnavailable)
        mine.check()
    shown = caplog.text + "".join(traceback.format_exception(refused.value))
    assert not [part for part in (PASSWORD, key.rpartition("_")[2]) if part in shown]
    assert "known ones are good for 60 s" in shown


def test_a_server_that_starts_while_the_database_fails_takes_no_key_and_then_those_there_are(
    book: KeyBook, url: str, request: pytest.FixtureRequest
) -> None:
    _, key = make(book)
    with failing(url, request):
        mine = authenticator(url)
        mine.start()
        with pytest.raises(StoreUnavailable, match="could not be checked yet"):
            mine.authenticate(f"Bearer {key}", now=NOW)
    _until(lambda: mine.authenticate(f"Bearer {key}", now=NOW), StoreUnavailable)
    mine.close()


def test_a_database_that_hangs_holds_no_request_up(postgres_server: Postgres) -> None:
    url = postgres_server.make_schema("keys_alone")
    _, key = make(KeyBook.open(url))
    process = postgres_server._process
    assert process is not None
    with checking(url) as mine:
        mine.authenticate(f"Bearer {key}", now=NOW)
        process.send_signal(signal.SIGSTOP)
        try:
            waits = []
            end = time.monotonic() + 2
            while time.monotonic() < end:
                began = time.monotonic()
                mine.authenticate(f"Bearer {key}", now=NOW)
                waits.append(time.monotonic() - began)
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGCONT)
    print(f"longest wait {max(waits):.3f} s, {sum(wait > 0.1 for wait in waits)} of {len(waits)} above 0.1 s")
    # One may wait for the check, others for the machine; if they all waited there would be eight.
    assert sum(wait > 0.2 for wait in waits) <= 1 + len(waits) // 10
    assert max(waits) < 3.0


@pytest.mark.parametrize("value", ['"*"', '["*", 7]', '{"*": 1}', "not json", "[]", '["*?"]'])
def test_a_row_that_someone_damaged_by_hand_allows_nothing_and_harms_no_other(
    book: KeyBook, url: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, key = make(book, Rights(("read",), groups=("carrier",)))
    _, good = make(book)
    with Database(url).writing() as connection:
        connection.execute(
            text("UPDATE api_key SET groups = :value WHERE key_id = :id"), {"value": value, "id": damaged.key_id}
        )
    with checking(url) as mine:
        assert mine.authenticate(f"Bearer {good}", now=NOW).key_id in good
        with pytest.raises(NotAuthenticated):
            mine.authenticate(f"Bearer {key}", now=NOW)
    assert f"Key {damaged.key_id} is refused, what it allows cannot be read" in caplog.text


# --- one database, several parts


def test_a_database_with_backfills_gets_keys_beside_them_and_the_other_way_round(url: str) -> None:
    backfills = BackfillBook.open(url)
    backfills.record(request_of())
    stored, _ = make(KeyBook.open(url))
    assert BackfillBook.open(url).get("kxqzvbtw") == backfills.get("kxqzvbtw")
    assert KeyBook.open(url).all_keys() == [stored]


def test_a_database_that_has_keys_alone_gets_backfills(url: str) -> None:
    stored, _ = make(KeyBook.open(url))
    BackfillBook.open(url).record(request_of())
    assert KeyBook.open(url).all_keys() == [stored]


def test_keys_of_a_later_version_are_left_alone_and_backfills_still_work(book: KeyBook, url: str) -> None:
    _, key = make(book)
    with Database(url).writing() as connection:
        connection.execute(text("UPDATE featurestore_schema SET version = 2 WHERE part = 'api_keys'"))
    with pytest.raises(InvalidInput, match="version 2; this library knows version 1"):
        KeyBook.open(url)
    assert BackfillBook.open(url).find("none") is None
    mine = authenticator(url)
    with pytest.raises(StoreUnavailable, match="version 2"):
        mine.authenticate(f"Bearer {key}", now=NOW)
    mine.close()


# --- the command line


@pytest.fixture
def run(url: str, tmp_path: Path, clock: SetClock) -> Callable[..., Result]:
    root = Location(str(tmp_path / "store"))
    RegistryHistory(root).apply(shops(), clock, "tests")

    def invoke(*arguments: str, exit_code: int = 0) -> Result:
        environment = {"FEATURESTORE_METADATA_URL": url, "FEATURESTORE_ROOT": root.uri, "LOGNAME": "ana"}
        done = CliRunner().invoke(main, ["keys", *arguments], env=environment, obj=clock)
        assert done.exit_code == exit_code, done.output
        return done

    return invoke


def test_a_key_is_printed_by_create_and_by_nothing_else(run: Callable[..., Result], url: str) -> None:
    made = run("create", "model", "--owner", "team:ops", "--group", "*", "--push", "--as", "ana@example.com").stdout
    key = made.splitlines()[0]
    key_id, secret = key[3:15], key.rpartition("_")[2]
    document = json.loads(
        run("create", "b", "--owner", "o", "--service", "*", "--never-expires", "--as", "x", "--json").stdout
    )
    assert (document["expires_at"], document["audit"][0]["person"]) == (None, "x")
    with checking(url) as mine:
        assert mine.authenticate(f"Bearer {key}", now=NOW).rights == Rights(("read", "push"), groups=("*",))
        assert mine.authenticate(f"Bearer {document['key']}", now=NOW).rights == Rights(("read",), services=("*",))
    later = [run("list"), run("list", "--json"), run("revoke", key, "--as", "b@example.com", "--reason", "leaked")]
    later += [
        run("list"),
        run("list", "--all", "--json"),
        run("revoke", secret, "--as", "b", "--reason", "x", exit_code=1),
    ]
    assert [one for one in later if secret in one.output or document["key"].rpartition("_")[2] in one.output] == []
    assert "2026-03-10 06:00 UTC" in later[0].stdout, "the hour of its last use"
    assert key_id not in later[3].stdout
    listed = {one["id"]: one for one in json.loads(later[4].stdout)}
    assert (listed[key_id]["state"], listed[key_id]["audit"][-1]["reason"]) == ("revoked", "leaked")
    assert "is revoked since 2026-03-10 06:00 UTC, by b@example.com: leaked" in later[2].stdout


def test_create_refuses_names_that_are_not_there_and_rights_that_allow_nothing(run: Callable[..., Result]) -> None:
    common = ("--owner", "team:ops", "--as", "ana@example.com")
    assert "is not registered" in run("create", "a", "--service", "delay_v9", *common, exit_code=1).stderr
    assert "is not registered" in run("create", "a", "--group", "no_such_group", *common, exit_code=1).stderr
    assert "allows nothing" in run("create", "a", *common, exit_code=1).stderr
    assert "Pushing is allowed by groups" in run("create", "a", "--service", "*", "--push", *common, exit_code=1).stderr
    assert "no names" in run("create", "a", "--group", "a-b", *common, exit_code=1).stderr
    both = run("create", "a", "--group", "*", "--days", "3", "--never-expires", *common, exit_code=2)
    assert "Leave out one of" in both.stderr
    pushing = [("--push", "--push-only", "--group", "*"), ("--push-only", "--service", "*", "--group", "*")]
    for options in pushing:
        assert "Leave out one of them" in run("create", "a", *options, *common, exit_code=2).stderr
    assert "There is no key" in run("list").stdout


# --- settings


def test_auth_is_off_unless_said_and_says_so(tmp_path: Path) -> None:
    found = {value: Settings.from_env({"FEATURESTORE_AUTH": value}).auth for value in ("", "off", "OFF", "on", "On")}
    assert found == {"": False, "off": False, "OFF": False, "on": True, "On": True}
    for wrong in ("true", "1", "onn", "o n", " on"):
        with pytest.raises(InvalidInput, match="Set it to on or off"):
            Settings.from_env({"FEATURESTORE_AUTH": wrong})
    off = authenticator_of(Settings.from_env({}))
    assert off.authenticate(None, now=NOW).rights == EVERYTHING
    assert "Auth is OFF" in off.notice
    env = {"FEATURESTORE_AUTH": "on", "FEATURESTORE_ROOT": str(tmp_path)}
    on = authenticator_of(Settings.from_env(env))
    assert on.notice == f"Auth is on: API keys of {tmp_path / 'metadata.db'}."
    with pytest.raises(NotAuthenticated):
        on.authenticate(None, now=datetime.now(UTC))
    assert not (tmp_path / "metadata.db").exists(), "nothing is opened for a caller without a key"
