"""Promotions and rollbacks cut short at every file call, and killed: a plain repeat comes to what nothing disturbed."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from featurestore.location import Location
from featurestore.settings import Settings
from tests.catalogs import HOUR, T0, Clock, Shops
from tests.file_faults import Ended, FileCalls, counted
from tests.kills import Strikes, is_killed_at_work
from tests.rollback_worker import GROUPS, NOW, land, promote, store_in, take_back
from tests.scale import cases

LONGEST_SECONDS = 0.4
Act = Callable[[Path], object]


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a first run has promoted both groups, and other amounts have landed since."""
    folder = tmp_path_factory.mktemp("promoted")
    store_in(folder).settings.book()
    land(folder, 4, "first.parquet")
    promote(folder, "first")
    land(folder, 7, "second.parquet")
    return folder


@pytest.fixture(scope="module")
def backfilled(tmp_path_factory: pytest.TempPathFactory, promoted: Path) -> Path:
    """The same after a backfill, of which one hour is in quarantine."""
    folder = copied(promoted, tmp_path_factory.mktemp("backfilled") / "store")
    promote(folder, "b7")
    return folder


def copied(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def everything(folder: Path, backfill_id: str = "b7") -> dict[str, Any]:
    """What a store holds, apart from who wrote it when and in which version."""
    store = Shops(folder, Clock(NOW)).store
    book = Settings(Location(str(folder)), Location(str(folder))).book()
    apart = ("run_id", "recorded_at", "source_versions", "verdict_digest", "table_version", "compute_seconds")
    names = [group.stored_name for group in GROUPS]
    return {
        "rows": {name: store.table(name).content_hash() for name in names},
        "ledger": {name: store.ledger(name).latest().drop(apart).rows() for name in names},
        "production": {name: store.ledger(name).in_production().drop(apart).rows() for name in names},
        "quarantined": {name: store.staging(name).quarantined() for name in names},
        "staged": {name: store.staging(name).staged_runs() for name in names},
        "audit": sorted((e.action, e.details["group"], tuple(e.details["keys"])) for e in book.audit(backfill_id)),
    }


def fault_points(act: Act, source: Path, folder: Path, share: int) -> Iterator[tuple[int, bool, str]]:
    """The file calls at which to fail, `share` of them at equal distances, each with an error or the end of the process."""
    with counted(FileCalls(copied(source, folder))) as calls:
        act(folder)
    wanted = min(calls.count, share)
    for number in range(wanted):
        at = number * calls.count // wanted + (calls.count // wanted) // 2 if wanted < calls.count else number
        modes = (True, False) if wanted == calls.count else (number % 2 == 0,)
        for is_end in modes:
            yield at, is_end, calls.where[at]


@pytest.mark.parametrize("name", ["promote", "roll back"])
def test_a_fault_at_any_file_call_is_made_good_by_a_repeat(
    name: str, promoted: Path, backfilled: Path, tmp_path: Path
) -> None:
    acts: dict[str, tuple[Path, Act]] = {
        "promote": (promoted, lambda folder: promote(folder, "b7")),
        "roll back": (backfilled, lambda folder: take_back(folder, "b7")),
    }
    source, act = acts[name]
    undisturbed = copied(source, tmp_path / "undisturbed")
    act(undisturbed)
    expected = everything(undisturbed)
    faults, struck = 0, 0
    for at, is_end, where in fault_points(act, source, tmp_path / "counted", cases(1000, 8)):
        folder = copied(source, tmp_path / "faulty")
        calls = FileCalls(folder, at, is_end=is_end)
        with counted(calls):
            try:
                act(folder)
            except (Exception, Ended):  # noqa: BLE001 - whatever a fault becomes, the repeat makes it good
                struck += 1
        faults += 1
        assert calls.count > at, "the fault was reached"
        act(folder)
        assert everything(folder) == expected, f"call {at} ({where}), {'end' if is_end else 'error'}"
    print(f"{name}: {struck} of {faults} faults stopped it, the others were made good at once")
    assert 2 * struck >= faults, "where the process ends, at every second call, nothing makes it good at once"


def test_the_backfill_changed_something_and_its_rollback_returns_it(
    promoted: Path, backfilled: Path, tmp_path: Path
) -> None:
    """Or the tests here would prove nothing."""
    before, after = everything(promoted), everything(backfilled)
    assert all(before["rows"][name] != after["rows"][name] for name in before["rows"])
    assert after["quarantined"]["shop_sales_hourly"] == [f"{T0 + 2 * HOUR:%Y-%m-%dT%H%MZ}"]
    folder = copied(backfilled, tmp_path / "store")
    take_back(folder, "b7")
    returned = everything(folder)
    assert returned["rows"] == before["rows"]
    assert returned["production"] == before["production"]
    assert [action for action, _, _ in returned["audit"]] == ["rolled_back", "rolled_back"]


def test_a_killed_rollback_is_ended_by_its_repeat(backfilled: Path, tmp_path: Path) -> None:
    strikes = Strikes(11, cases(60, 2), LONGEST_SECONDS)
    undisturbed = copied(backfilled, tmp_path / "undisturbed")
    take_back(undisturbed, "b7")
    for _, delay_seconds in strikes:
        folder = copied(backfilled, tmp_path / "killed")
        strikes.count(is_killed_at_work("tests.rollback_worker", [str(folder), "b7"], delay_seconds))
        take_back(folder, "b7")
        assert everything(folder) == everything(undisturbed)
    assert strikes.hits == strikes.wanted
