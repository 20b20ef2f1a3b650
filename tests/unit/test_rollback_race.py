"""A backfill of two runs that is taken back between them, or while one is under way: nothing of it stands unnoticed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from featurestore.backfill.outcome import ended_windows, standing_windows, taken_back
from featurestore.backfill.rollback import Rollback, roll_back
from featurestore.errors import AlreadyDecided
from featurestore.launch import Launch
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import AuditEntry, BackfillRequest, RequestedWindows, State
from featurestore.promotion import Permission, Promotion, materialize_windows
from tests.catalogs import HOUR, OWNER, T0, Clock, Shops, shop_sales_hourly, windows
from tests.rollback_worker import NOW, land, store_in

NAME = shop_sales_hourly.stored_name
ID = "b7"
OWN = Launch(ID)
FIRST, SECOND = (windows(shop_sales_hourly, T0 + hour * HOUR, T0 + (hour + 3) * HOUR) for hour in (0, 3))


class Interrupted(BackfillBook):
    """A book in which something happens just before a backfill is put in another state."""

    before: Callable[[], object]

    def decide(self, backfill_id: str, state: State, entry: AuditEntry) -> BackfillRequest:
        self.before()
        return super().decide(backfill_id, state, entry)


@dataclass
class Race:
    """A store in which production has other amounts than a backfill of six hours, admitted, would compute."""

    folder: Path
    runs: int = field(default=0)

    def __post_init__(self) -> None:
        self.feature_store = store_in(self.folder)
        self.store = self.feature_store.offline
        self.catalog = Shops(self.folder, Clock(NOW)).catalog
        self.book = self.feature_store.settings.book(Clock(NOW))
        land(self.folder, 4, "first.parquet")
        self.run([*FIRST, *SECOND], lambda: None, launch=Launch())
        land(self.folder, 8, "second.parquet")
        self.before = self.content()
        asked = RequestedWindows(NAME, tuple(shop_sales_hourly.cadence.key_of(w) for w in (*FIRST, *SECOND)))  # type: ignore[union-attr]
        self.book.record(BackfillRequest(ID, NOW, "anna", "full", (asked,), "admitted"))

    def content(self) -> str:
        return self.store.table(NAME).content_hash()

    def permission(self) -> None:
        self.book.require_may_run(ID)

    def run(self, of: Any, permission: Permission, *, launch: Launch = OWN) -> Promotion:
        self.runs += 1
        return materialize_windows(
            self.store,
            self.catalog,
            shop_sales_hourly,
            of,
            run_id=f"run-{self.runs}",
            launch=launch,
            permission=permission,
        )

    def roll_back(self, book: BackfillBook | None = None) -> Rollback:
        return roll_back(self.feature_store, book or self.book, ID, person=OWNER, os_user="root", reason="wrong feed")

    def book_in_which(self, something_happens: Callable[[], object]) -> BackfillBook:
        book = Interrupted(self.book._database, Clock(NOW))
        book.before = something_happens
        return book

    def counts(self) -> tuple[int, int]:
        """How many windows of the backfill were taken back, and how many stand."""
        ended = ended_windows(self.store, NAME, ID)
        return len(taken_back(self.store, NAME, ended, ID)), len(standing_windows(self.store, NAME, ID))


def asked_for_the(number: int, then: Callable[[], object], permission: Permission) -> Permission:
    """A permission after whose nth answer something happens."""
    asked = iter(range(1, 100))

    def answer() -> None:
        permission()
        if next(asked) == number:
            then()

    return answer


@pytest.fixture
def race(tmp_path: Path) -> Race:
    return Race(tmp_path)


def test_second_run_of_a_backfill_that_was_rolled_back_computes_and_stages_nothing(race: Race) -> None:
    race.run(FIRST, race.permission)
    assert race.counts() == (0, 3)
    race.roll_back()
    with pytest.raises(AlreadyDecided, match=r"'b7' cannot be computed: it was rolled back by .* \(wrong feed\)"):
        race.run(SECOND, race.permission)
    assert race.content() == race.before
    assert race.store.staging(NAME).staged_runs() == []
    assert race.counts() == (3, 0)


def test_run_that_was_computing_promotes_nothing_after_the_rollback(race: Race) -> None:
    race.run(FIRST, race.permission)
    with pytest.raises(AlreadyDecided, match="was rolled back by"):
        race.run(SECOND, asked_for_the(1, race.roll_back, race.permission))
    assert race.content() == race.before


def test_run_with_permission_is_stopped_by_the_commit_of_the_rollback(race: Race) -> None:
    race.run(FIRST, race.permission)
    with pytest.raises(AlreadyDecided, match=r"was rolled back in version 3 .* Nothing of it is written"):
        race.run(SECOND, asked_for_the(2, race.roll_back, race.permission))
    assert race.content() == race.before
    assert race.counts() == (3, 0)


def test_run_that_commits_before_the_rollback_is_written_down_is_taken_back_with_it(race: Race) -> None:
    race.run(FIRST, race.permission)
    book = race.book_in_which(lambda: race.run(SECOND, race.permission))
    done = race.roll_back(book)
    assert [len(item.windows) for item in done.groups] == [3, 3]
    assert race.content() == race.before
    assert race.counts() == (6, 0)
    audited = [entry.details["keys"] for entry in book.audit(ID) if entry.action == "rolled_back"]
    assert [len(keys) for keys in audited] == [3, 3]


def test_run_that_commits_at_the_last_moment_fails_and_says_that_the_rollback_is_to_be_repeated(race: Race) -> None:
    """The first run changed no row of its windows, so the rollback makes no commit that could stop the second."""
    race.run(FIRST, race.permission, launch=Launch())
    race.run(FIRST, race.permission)
    unchanged = race.content()
    with pytest.raises(
        AlreadyDecided, match=r"which may stand\. Take them back too: featurestore backfill rollback b7"
    ):
        race.run(SECOND, asked_for_the(2, race.roll_back, race.permission))
    assert race.content() != unchanged
    assert race.counts() == (3, 3)
    race.roll_back()
    assert race.content() == unchanged
    assert race.counts() == (6, 0)


def test_windows_that_another_backfill_promotes_later_do_not_count_as_standing(race: Race) -> None:
    race.run([*FIRST, *SECOND], race.permission)
    race.roll_back()
    race.run(FIRST, lambda: None, launch=Launch("b8"))
    assert race.counts() == (6, 0)
