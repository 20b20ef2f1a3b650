"""A commit on a local disk is told to the disk before it is acknowledged: data files, then the log entry, then its folders."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import polars as pl
import pytest

from featurestore.location import Location
from featurestore.offline.journal import Journal
from featurestore.offline.log import entry_name, read_entry
from featurestore.offline.raw import SourceTable
from featurestore.offline.table import FeatureTable
from tests.catalogs import T0, Clock, landing_file, sale, sales
from tests.offline_rows import SetClock, day, frame, group_of, row


@contextmanager
def synced_in(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The files and folders that are given to `os.fsync` meanwhile, in that order; known when the block ends."""
    nodes: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        nodes.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    found: list[Path] = []
    with patch.context() as patched:
        patched.setattr(os, "fsync", noted)
        yield found
    paths = {path.stat().st_ino: path for path in (folder, *folder.rglob("*"))}
    found += [paths[node] for node in nodes]


def assert_durable(synced: list[Path], table: Location, version: int) -> None:
    """That a commit's files were synced so that after a power cut no log entry, and no folder, names what is not there."""
    entry = read_entry(table, version)
    assert entry is not None
    data = {table.path / name for name in entry.added}
    log = table.path / entry_name(version)
    steps = [(kind, set(paths)) for kind, paths in groupby(synced, lambda path: kind_of(path, log))]
    assert [kind for kind, _ in steps] == ["data", "folders", "log", "folders"]
    assert data
    assert steps[0][1] == data
    assert {path.parent for path in data} <= steps[1][1]
    assert {log.parent, table.path, table.path.parent} <= steps[3][1]


def kind_of(path: Path, log: Path) -> str:
    return "folders" if path.is_dir() else "log" if path == log else "data"


def test_an_overwrite_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = FeatureTable(Location(str(tmp_path / "tables" / "plane")), group_of(), SetClock())
    for number in (0, 3):  # the first makes the table; day 3 is of another month
        rows = frame(table.group, [row("a", day(number)), row("b", day(number))])
        with synced_in(tmp_path, monkeypatch) as synced:
            commit = table.overwrite_windows(
                rows, [day(number)], seen_version=table.version(), transaction=f"t{number}", metadata={"run_id": "r"}
            )
    assert commit.version is not None
    assert_durable(synced, table.location, commit.version)


def test_a_raw_ingest_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = SourceTable(Location(str(tmp_path / "raw" / "sales")), sales, Clock(T0))
    for number in range(2):  # the first makes the table
        file = landing_file(sales, [sale(number, T0)], f"{number}.parquet")
        with synced_in(tmp_path, monkeypatch) as synced:
            assert table.ingest([file]).rows == 1
    version = table.version()
    assert version is not None
    assert_durable(synced, table.location, version)


def test_a_journal_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(Location(str(tmp_path / "journal")), {"what": pl.String()})
    for number in range(2):
        with synced_in(tmp_path, monkeypatch) as synced:
            journal.append([{"what": str(number)}])
    version = journal.version()
    assert version is not None
    assert_durable(synced, journal.location, version)


def test_a_new_table_is_on_the_disk_with_its_first_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = SourceTable(Location(str(tmp_path / "raw" / "sales")), sales, Clock(T0))
    with synced_in(tmp_path, monkeypatch) as synced:
        table.ingest([landing_file(sales, [sale(0, T0)], "0.parquet")])
    first = table.location.path / entry_name(0)
    assert first in synced
    assert first.parent in synced[synced.index(first) :]
