"""Promoting from quarantine by someone with the right: what they may override, what not, and what is kept of it."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featurestore.backfill.override import Overridden, promote_override
from featurestore.backfill.quarantine import held_windows
from featurestore.backfill.rollback import rollback_backfill
from featurestore.errors import InvalidInput, NotAllowed, SchemaMismatch, StaleWriter, UnknownName
from featurestore.launch import Launch
from featurestore.metadata.book import BackfillBook
from featurestore.promotion import materialize_windows
from tests.catalogs import (
    DAY,
    HOUR,
    OWNER,
    T0,
    Clock,
    Shops,
    days,
    hours,
    sale,
    sales,
    shop_sales_daily,
    shop_sales_hourly,
)

GROUP = "shop_sales_hourly"
BAD = Launch(backfill_id="b7")
FAR_OUT = 5000.0
SPOILT = ["2026-03-01-01:00", "2026-03-01-02:00"]


class Override:
    """The shops' hourly sales, of which a backfill holds two of four windows back."""

    def __init__(self, folder: Path) -> None:
        self.chain = Shops(folder, Clock(T0 + 10 * DAY, ticks=True))
        self.book = BackfillBook.open(f"sqlite:///{folder}/metadata.db", self.chain.clock)
        self.store, self.table = self.chain.store, self.chain.store.table(GROUP)
        self.chain.land(sales, [sale(n, T0 + n * HOUR, FAR_OUT if n in (1, 2) else 5.0) for n in range(4)])
        self.run("run-1", launch=BAD)

    def run(self, run_id: str, first: int = 0, last: int = 4, launch: Launch = BAD) -> None:
        asked = hours(shop_sales_hourly, first, last)
        materialize_windows(self.store, self.chain.catalog, shop_sales_hourly, asked, run_id=run_id, launch=launch)

    def promote(self, *keys: str, person: str = OWNER, reason: str = "a sale of the year") -> list[Overridden]:
        return promote_override(self.store, self.book, "b7", keys, person=person, os_user="root", reason=reason)

    def revenue(self) -> dict[int, float]:
        rows = self.table.scan().select("window_start", "revenue_1h").collect().rows()
        return {(start - T0) // HOUR: value for start, value in rows}

    def state(self) -> tuple[Any, ...]:
        """Everything that a repeat must not change."""
        ledger = self.store.ledger(GROUP)
        audit = self.book.audit("b7")
        return self.table.version(), ledger.version(), self.store.staging(GROUP).quarantined(), audit


@pytest.fixture
def override(tmp_path: Path) -> Override:
    return Override(tmp_path)


def test_held_windows_are_promoted_as_staged_in_one_commit_and_leave_quarantine(override: Override) -> None:
    assert override.revenue() == {0: 5.0, 3: 5.0}
    before = override.table.version() or 0
    [done] = override.promote()
    assert (done.group, done.keys, done.rows, done.version) == (GROUP, tuple(SPOILT), 2, before + 1)
    assert override.revenue() == {0: 5.0, 1: FAR_OUT, 2: FAR_OUT, 3: 5.0}
    assert override.store.staging(GROUP).quarantined() == []
    assert len(override.store.ledger(GROUP).promoted()) == 4
    assert held_windows(override.store, "b7") == []


def test_who_did_it_and_why_is_in_the_book_and_in_the_commit(override: Override) -> None:
    override.promote(SPOILT[0])
    [entry] = override.book.audit("b7")
    assert (entry.action, entry.person, entry.os_user, entry.reason) == (
        "overridden",
        OWNER,
        "root",
        "a sale of the year",
    )
    version = override.table.version()
    assert entry.details == {
        "group": GROUP,
        "keys": SPOILT[:1],
        "version": version,
        "runs": {SPOILT[0]: "run-1"},
    }
    commit = override.table.entry(version or 0)
    assert commit is not None
    assert commit.own is not None
    said = {name: commit.own.metadata[name] for name in ("backfill_id", "overridden_by", "os_user", "reason")}
    assert said == {"backfill_id": "b7", "overridden_by": OWNER, "os_user": "root", "reason": "a sale of the year"}


def test_only_the_named_window_is_promoted(override: Override) -> None:
    override.promote(SPOILT[1])
    assert override.revenue() == {0: 5.0, 2: FAR_OUT, 3: 5.0}
    assert [held.key for held in held_windows(override.store, "b7")] == SPOILT[:1]


def test_a_repeat_changes_nothing(override: Override) -> None:
    override.promote()
    state = override.state()
    assert override.promote() == []
    [again] = override.promote(*SPOILT)
    assert (again.keys, again.is_done_before) == (tuple(SPOILT), True)
    assert override.state() == state


@pytest.mark.parametrize("cut_before", ["record", "audit", "release"])
def test_an_override_cut_short_is_ended_by_its_repeat(
    override: Override, cut_before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends before it tells the ledger, or the book, or before the windows leave quarantine."""
    place = {
        "record": "featurestore.offline.ledger.Ledger.append",
        "audit": "featurestore.metadata.book.BackfillBook.note",
        "release": "featurestore.offline.staging.Staging.release",
    }[cut_before]

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(place, end)
        with pytest.raises(KeyboardInterrupt):
            override.promote()
    version = override.table.version()
    override.promote()
    assert override.table.version() == version, "the rows are there: only what was left is done"
    assert len(override.store.ledger(GROUP).promoted()) == 4
    assert [entry.action for entry in override.book.audit("b7")] == ["overridden"]
    assert override.store.staging(GROUP).quarantined() == []


def test_without_a_reason_or_the_right_nothing_happens(override: Override) -> None:
    state = override.state()
    with pytest.raises(InvalidInput, match="has no reason"):
        override.promote(reason="  ")
    with pytest.raises(NotAllowed, match="'team:others' may not"):
        override.promote(person="team:others")
    assert override.state() == state


def test_a_window_that_is_not_in_quarantine_is_named(override: Override) -> None:
    with pytest.raises(UnknownName, match=r"'2026-03-01-09:00'.*are not in quarantine.*2026-03-01-01:00"):
        override.promote("2026-03-01-09:00", SPOILT[0])
    assert override.revenue() == {0: 5.0, 3: 5.0}


def test_a_newer_promotion_of_the_window_is_not_overwritten(override: Override) -> None:
    """The quarantine of a run that was killed between its promotion and the release outlives a newer promotion."""
    held = {name: override.store.staging(GROUP).report(name) for name in override.store.staging(GROUP).quarantined()}
    rows = {item.window.start: item.rows(override.store) for item in held_windows(override.store, "b7")}
    override.chain.land(sales, [sale(1, T0 + HOUR, 7.0, known_at=T0 + HOUR)])
    override.run("scheduled", launch=Launch())
    assert override.revenue()[1] == 7.0
    for (start, frame), report in zip(rows.items(), held.values(), strict=True):
        assert frame is not None
        assert report is not None
        override.store.staging(GROUP).quarantine(start, frame, report)
    with pytest.raises(StaleWriter, match="'scheduled' has changed window 2026-03-01-01:00"):
        override.promote()
    assert override.revenue()[1] == 7.0


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda rows: rows.with_columns(pl.col("revenue_1h").cast(pl.Int64)), SchemaMismatch),
        (lambda rows: rows.drop("revenue_1h"), SchemaMismatch),
        (lambda rows: rows.with_columns(shop=pl.lit(None, dtype=pl.String)), InvalidInput),
        (lambda rows: pl.concat([rows, rows]), InvalidInput),
        (lambda rows: rows.select(), InvalidInput),
    ],
    ids=["dtype", "column", "null key", "double", "no rows"],
)
def test_what_the_schema_demands_nobody_overrides(override: Override, spoil: Any, error: type[Exception]) -> None:
    [first, _] = held_windows(override.store, "b7")
    rows = first.rows(override.store)
    assert rows is not None
    override.store.staging(GROUP).quarantine(first.window.start, spoil(rows), first.report)
    state = override.state()
    with pytest.raises(error):
        override.promote()
    assert override.state() == state, "the other window is not promoted either"


def test_a_transform_that_failed_left_nothing_to_promote(override: Override) -> None:
    override.chain.land(sales, [sale(9, T0 + 5 * HOUR, shop="fire")])
    override.run("run-2", 5, 6)
    with pytest.raises(InvalidInput, match="the shop is on fire"):
        override.promote("2026-03-01-05:00")


def test_a_rollback_takes_overridden_windows_back_too(override: Override) -> None:
    override.promote()
    rollback_backfill(override.store, "b7", run_id="undo")
    assert override.revenue() == {}
    assert set(override.store.ledger(GROUP).latest()["status"]) == {"rolled_back"}


def test_windows_of_other_backfills_and_of_scheduled_runs_are_left_alone(override: Override) -> None:
    override.chain.land(sales, [sale(8, T0 + 6 * HOUR, FAR_OUT), sale(9, T0 + 30 * HOUR, FAR_OUT)])
    override.run("scheduled", 6, 7, launch=Launch())
    materialize_windows(
        override.store,
        override.chain.catalog,
        shop_sales_daily,
        days(shop_sales_daily, 1, 2),
        run_id="run-3",
        launch=Launch(backfill_id="b8"),
    )
    assert [held.key for held in held_windows(override.store, "b7")] == SPOILT
    assert [held.key for held in held_windows(override.store, "scheduled")] == ["2026-03-01-06:00"]
    assert [(held.group.name, held.key) for held in held_windows(override.store, "b8")] == [
        ("shop_sales_daily", "2026-03-02")
    ]
