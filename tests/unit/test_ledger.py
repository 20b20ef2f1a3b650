"""The ledger: how the last computation of each window ended; what moved in a backfill; and the staging area, where bad windows wait."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featurestore.location import Location
from featurestore.offline.ledger import Ledger, LedgerEntry
from featurestore.offline.shifts import Shifts
from featurestore.offline.staging import Staging
from tests.catalogs import HOUR, T0


def entry(
    window_start: datetime = T0, status: Any = "promoted", recorded_at: datetime = T0, **other: Any
) -> LedgerEntry:
    fields: dict[str, Any] = {"run_id": "r", "code_version": "c", "source_versions": "{}", "verdict_digest": "d"}
    counts = {"rows": 1, "history_rows": 0, "null_key_rows": 0}
    return LedgerEntry(
        window_start=window_start, status=status, recorded_at=recorded_at, **{**fields, **counts, **other}
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Location(str(tmp_path)), "group")


def test_empty_ledger_has_no_version_and_misses_every_window(ledger: Ledger) -> None:
    assert ledger.version() is None
    assert ledger.latest().is_empty()
    assert ledger.missing([T0]) == [T0]
    ledger.append([])
    assert ledger.version() is None


def test_the_last_entry_of_a_window_counts(ledger: Ledger) -> None:
    ledger.append([entry(), entry(T0 + HOUR, "quarantined")])
    ledger.append([entry(status="quarantined", recorded_at=T0 + HOUR, run_id="later")])
    assert ledger.latest()["run_id"].to_list() == ["later", "r"]
    assert ledger.promoted() == set()


@pytest.mark.parametrize("step", [timedelta(0), -HOUR])
def test_the_last_entry_counts_also_by_a_clock_that_stands_or_steps_back(ledger: Ledger, step: timedelta) -> None:
    for number in range(12):
        status = "promoted" if number % 2 else "quarantined"
        ledger.append([entry(status=status, recorded_at=T0 + number * step, rows=number)])
        assert ledger.latest()["rows"].to_list() == [number]
    assert ledger.promoted() == {T0}


def test_latest_is_sorted_by_window_and_has_the_fields_of_an_entry(ledger: Ledger) -> None:
    ledger.append([entry(T0 + 2 * HOUR), entry(T0), entry(T0 + HOUR)])
    latest = ledger.latest()
    assert latest["window_start"].to_list() == [T0, T0 + HOUR, T0 + 2 * HOUR]
    assert set(latest.columns) == set(LedgerEntry.__dataclass_fields__)
    assert LedgerEntry(**latest.row(0, named=True)) == entry(T0)


def test_missing_are_windows_never_computed_or_in_quarantine(ledger: Ledger) -> None:
    ledger.append([entry(), entry(T0 + HOUR, "quarantined")])
    assert ledger.missing([T0 + n * HOUR for n in range(3)]) == [T0 + HOUR, T0 + 2 * HOUR]


# Shifts.


def test_window_that_any_run_of_a_backfill_found_moved_stays_counted_and_nothing_known_is_written_again(
    tmp_path: Path,
) -> None:
    shifts = Shifts(Location(str(tmp_path)), "group")
    assert shifts.of("fill") == {}
    assert shifts.note("fill", {T0: True, T0 + HOUR: False}, T0) == {T0: True, T0 + HOUR: False}
    version = shifts.journal.version()
    assert shifts.note("fill", {T0: False, T0 + HOUR: False}, T0) == {T0: True, T0 + HOUR: False}
    assert shifts.journal.version() == version
    assert shifts.note("fill", {T0 + HOUR: True}, T0) == shifts.of("fill") == {T0: True, T0 + HOUR: True}
    assert shifts.of("another") == {}


# Staging.


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging(Location(str(tmp_path)), "group")


def test_staged_rows_are_there_until_they_are_discarded(staging: Staging) -> None:
    staging.stage("one", pl.DataFrame({"a": [1]}))
    staging.stage("two", pl.DataFrame())
    assert staging.staged_runs() == ["one", "two"]
    staging.discard("one")
    staging.discard("one")
    assert staging.staged_runs() == ["two"]


def test_quarantined_window_keeps_its_rows_and_its_last_report_until_released(staging: Staging) -> None:
    for number in (1, 2):
        place = staging.quarantine(T0, pl.DataFrame({"a": [number]}), {"number": number})
    staging.quarantine(T0 - HOUR, pl.DataFrame(), {"number": 3})
    assert pl.read_parquet(place)["a"].to_list() == [2]
    assert staging.quarantined() == ["2026-02-28T2300Z", "2026-03-01T0000Z"]
    assert staging.report("2026-03-01T0000Z") == {"number": 2}
    staging.release(T0)
    assert staging.quarantined() == ["2026-02-28T2300Z"]
    assert staging.report("2026-03-01T0000Z") is None
    assert not Path(place).exists()
