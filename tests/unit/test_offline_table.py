"""The offline table of one group: what it takes, what it refuses, and what a commit says."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput, SchemaMismatch, StaleWriter, StoreUnavailable
from featurestore.location import Location
from featurestore.offline.changes import Changes, Rebuild
from featurestore.offline.commit import Commit
from featurestore.offline.storage import Storage
from featurestore.offline.table import FeatureTable
from featurestore.registry.snapshot import RegisteredGroup
from tests.offline_rows import VALUES, SetClock, day, frame, group_of, row

GROUP = group_of()
MICROSECOND = timedelta(microseconds=1)
Write = Callable[..., Commit]


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def table(tmp_path: Path, clock: SetClock) -> FeatureTable:
    return FeatureTable(Location(str(tmp_path)), GROUP, clock)


def write(table: FeatureTable, rows: list[dict[str, Any]], *windows: TimeWindow, **other: Any) -> Commit:
    given = {
        "seen_version": table.version(),
        "transaction": f"t{table.version()}",
        "metadata": {"run_id": "run-1"},
        **other,
    }
    return table.overwrite_windows(frame(table.group, rows), list(windows), **given)


def log_of(table: FeatureTable, version: int) -> Path:
    return table.location.path / "_delta_log" / f"{version:020d}.json"


def test_absent_table_reads_as_no_rows_of_the_stored_schema(table: FeatureTable) -> None:
    assert table.version() is None
    assert table.table_id is None
    assert dict(table.scan().collect().schema) == GROUP.stored_schema
    assert isinstance(table.changes(0, 0), Rebuild)


def test_first_write_makes_the_table_and_one_commit(table: FeatureTable, clock: SetClock) -> None:
    commit = write(table, [row("a", day(0))], day(0))
    assert (commit.version, table.version(), commit.changed_windows) == (1, 1, (day(0),))
    assert table.scan().collect()["created_at"].to_list() == [clock.now]
    assert dict(table.scan().collect().schema) == GROUP.stored_schema


def test_same_rows_again_make_no_commit(table: FeatureTable) -> None:
    rows = [row("a", day(0), value=float("nan")), row("b", day(0), value=None), row("c", day(0), value=-0.0)]
    write(table, rows, day(0))
    again = write(table, [rows[1], {**rows[2], "value": 0.0}, rows[0]], day(0), transaction="other")
    assert again.is_unchanged
    assert table.version() == 1


def test_unchanged_row_keeps_created_at_and_unchanged_window_stays_out(table: FeatureTable, clock: SetClock) -> None:
    first = clock.now
    write(table, [row("a", day(0)), row("b", day(0)), row("a", day(1))], day(0), day(1))
    clock.now += timedelta(hours=1)
    commit = write(table, [row("a", day(0)), row("b", day(0), value=2.0), row("a", day(1))], day(0), day(1))
    stored = table.scan().collect().sort("plane", "event_time")
    assert stored["created_at"].to_list() == [first, first, clock.now]
    assert commit.changed_windows == (day(0),)
    assert commit.counts == {"added": 0, "changed": 1, "removed": 0, "kept": 2}


def test_created_at_never_falls_behind_the_last_one(table: FeatureTable, clock: SetClock) -> None:
    first = write(table, [row("a", day(0))], day(0))
    write(table, [], day(0))
    clock.now -= timedelta(days=30)
    third = write(table, [row("a", day(0))], day(0))
    assert first.created_at is not None
    assert third.created_at == first.created_at + 2 * MICROSECOND


def test_empty_frame_empties_only_the_named_window(table: FeatureTable) -> None:
    write(table, [row("a", day(0)), row("a", day(1))], day(0), day(1))
    commit = write(table, [], day(1))
    assert table.scan().collect()["window_start"].to_list() == [day(0).start]
    assert commit.is_rewind


def test_windows_across_months_go_in_one_commit(table: FeatureTable) -> None:
    windows = [day(i) for i in (0, 1, 2, 3, 40, 400)]
    commit = write(table, [row("a", window) for window in windows], *windows)
    assert commit.version == 1
    folders = {
        path.parent.relative_to(table.location.path).as_posix() for path in table.location.path.rglob("*.parquet")
    }
    assert folders == {"year=2026/month=1", "year=2026/month=2", "year=2026/month=3", "year=2027/month=3"}
    assert write(table, [row("a", window, value=2.0) for window in windows], *windows).version == 2
    assert table.scan().collect()["value"].to_list() == [2.0] * 6


def test_rows_of_a_commit_are_sorted_by_key_then_event_time(table: FeatureTable) -> None:
    rows = [row(plane, day(3), event_time=day(3).end - timedelta(hours=h)) for h in (1, 3, 2) for plane in "cab"]
    write(table, rows, day(3))
    (file,) = table.location.path.rglob("*.parquet")
    stored = pl.read_parquet(file, hive_partitioning=False)
    assert stored.equals(stored.sort("plane", "event_time"))


def test_more_scattered_windows_than_one_predicate_takes(table: FeatureTable) -> None:
    windows = [day(i) for i in range(150)]
    write(table, [row("a", window) for window in windows], *windows)
    odd = windows[1::2]
    commit = write(table, [row("a", window, value=2.0) for window in odd], *odd)
    stored = table.scan().collect().sort("window_start")
    assert stored["value"].to_list() == [1.0, 2.0] * 75
    assert stored.filter(pl.col("value") == 1.0)["created_at"].n_unique() == 1
    assert commit.changed_windows == tuple(odd)
    changes = table.changes(1, 2)
    assert isinstance(changes, Changes)
    assert changes.removed.height == 75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.with_columns(value=pl.col("value").cast(pl.Float32)), "value is Float32, not Float64"),
        (lambda f: f.with_columns(value=pl.lit("1.5")), "value is String"),
        (
            lambda f: f.with_columns(event_time=pl.col("event_time").cast(pl.Datetime("ns", "UTC"))),
            "event_time is Datetime",
        ),
        (
            lambda f: f.with_columns(event_time=pl.col("event_time").dt.replace_time_zone(None)),
            "event_time is Datetime",
        ),
        (lambda f: f.with_columns(plane=pl.col("plane").cast(pl.Categorical)), "plane is Categorical"),
        (lambda f: f.with_columns(oddity=1), r"^Rows for group '\w+' have unknown ones \['oddity'\]. Give"),
        (lambda f: f.with_columns(created_at=pl.col("event_time")), r"unknown ones \['created_at'\]"),
        (lambda f: f.drop("value"), r"lack columns \['value'\]. Give"),
    ],
)
def test_columns_that_are_not_exactly_the_declared_ones_are_refused(
    table: FeatureTable, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    rows = change(frame(GROUP, [row("a", day(0))]))
    with pytest.raises(SchemaMismatch, match=message):
        table.overwrite_windows(rows, [day(0)], seen_version=None, transaction="t", metadata={})
    assert table.version() is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(None, day(0))], r"nulls where none may be: \{'plane': 1\}"),
        ([row("a", day(0), event_time=None)], "'event_time': 1"),
        ([row("a", day(0), knowledge_time=None)], "'knowledge_time': 1"),
        ([row("a", day(0), is_deleted=None)], "'is_deleted': 1"),
        ([row("a", day(0)), row("a", day(0), value=2.0)], "share their"),
        ([row("a", day(1))], "none of the 1 windows named"),
        ([row("a", day(0), window_start=day(0).start + MICROSECOND)], "none of the 1 windows named"),
        ([row("a", day(0), schema_number=2)], "schema_number 2"),
    ],
)
def test_rows_that_break_a_rule_are_refused(table: FeatureTable, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        write(table, rows, day(0))
    assert table.version() is None


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([], "names no window"),
        ([TimeWindow(day(0).start, day(1).end)], "not a window of daily group"),
        (
            [TimeWindow(day(0).start + timedelta(hours=1), day(0).end + timedelta(hours=1))],
            "not a window of daily group",
        ),
    ],
)
def test_windows_outside_the_cadence_are_refused(table: FeatureTable, windows: list[TimeWindow], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        table.overwrite_windows(frame(GROUP, []), windows, seen_version=None, transaction="t", metadata={})


def test_vector_of_another_length_is_refused(tmp_path: Path) -> None:
    group = group_of({"value": pl.Array(pl.Float32(), 3)})
    table = FeatureTable(Location(str(tmp_path)), group)
    for wrong in ([1.0, 2.0], [1.0, 2.0, None], []):
        with pytest.raises(SchemaMismatch, match="vector of 3 numbers"):
            write(table, [row("a", day(0), value=wrong)], day(0))
    write(table, [row("a", day(0), value=[1.0, 2.0, 3.0]), row("b", day(0), value=None)], day(0))
    assert table.scan().collect().sort("plane")["value"].to_list() == [[1.0, 2.0, 3.0], None]


def test_every_stored_type_comes_back_as_it_went_in(tmp_path: Path) -> None:
    instant = datetime(2026, 1, 1, 2, 3, 4, 999, tzinfo=UTC)
    values: dict[str, tuple[pl.DataType, list[Any]]] = {
        "f64": (pl.Float64(), [float("nan"), float("inf"), -0.0, None]),
        "f32": (pl.Float32(), [1.5, float("nan"), 0.0, None]),
        "i64": (pl.Int64(), [2**63 - 1, -(2**63), 2**53 + 1, None]),
        "i32": (pl.Int32(), [2**31 - 1, -(2**31), 0, None]),
        "flag": (pl.Boolean(), [True, False, None, None]),
        "text": (pl.String(), ["", "x' OR '1'='1", "é\u0000\n", None]),
        "at": (pl.Datetime("us", "UTC"), [instant, instant - timedelta(days=40_000), instant, None]),
        "on": (pl.Date(), [instant.date(), instant.date(), instant.date(), None]),
        "ints": (pl.List(pl.Int64()), [[1, None], [], None, [2**53 + 1]]),
        "texts": (pl.List(pl.String()), [["a", None], [], None, [""]]),
    }
    group = group_of({name: dtype for name, (dtype, _) in values.items()})
    table = FeatureTable(Location(str(tmp_path)), group)
    rows = [row(str(i), day(0), **{name: column[i] for name, (_, column) in values.items()}) for i in range(4)]
    given = frame(group, [{k: v for k, v in one.items() if k != "value"} for one in rows])
    table.overwrite_windows(given, [day(0)], seen_version=None, transaction="t", metadata={})
    assert table.scan().collect().sort("plane").drop("created_at").equals(given)
    assert table.overwrite_windows(given, [day(0)], seen_version=1, transaction="u", metadata={}).is_unchanged


def test_keys_and_folders_that_look_like_code_are_only_text(tmp_path: Path, clock: SetClock) -> None:
    table = FeatureTable(Location(str(tmp_path / "it's 100% {a} *?")), GROUP, clock)
    hostile = ["' OR 1=1 --", "a'; DROP TABLE x", "\\", "%20", "year=2026"]
    write(table, [row(plane, day(0)) for plane in hostile] + [row("kept", day(1))], day(0), day(1))
    write(
        table,
        [row(plane, day(0), value=2.0) for plane in hostile],
        day(0),
        transaction="x' OR '1'='1",
        metadata={"run_id": "'--"},
    )
    stored = table.scan().collect()
    assert sorted(stored.filter(pl.col("value") == 2.0)["plane"]) == sorted(hostile)
    assert stored.filter(pl.col("value") == 1.0)["plane"].to_list() == ["kept"]


@pytest.mark.parametrize("sign", ["[", "]", "^", "|", "\\", "\n", "%20"])
def test_folder_that_delta_fails_on_is_refused_at_once(tmp_path: Path, sign: str) -> None:
    with pytest.raises(InvalidInput, match="delta-rs fails"):
        FeatureTable(Location(str(tmp_path / f"a{sign}b")), GROUP)


def test_repeated_transaction_is_recognised_even_after_a_newer_run(table: FeatureTable) -> None:
    first = write(table, [row("a", day(0)), row("a", day(1))], day(0), day(1), transaction="run-1", seen_version=None)
    write(table, [row("a", day(0), value=2.0)], day(0), transaction="run-2")
    again = write(table, [row("a", day(0)), row("a", day(1))], day(0), day(1), transaction="run-1", seen_version=None)
    assert again.was_recognised
    assert (again.version, again.changed_windows, again.created_at) == (1, (day(0), day(1)), first.created_at)
    assert table.scan().collect().sort("event_time")["value"].to_list() == [2.0, 1.0]


def test_transaction_used_again_for_other_rows_is_a_new_write(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0), transaction="run-1")
    commit = write(table, [row("a", day(0), value=2.0)], day(0), transaction="run-1")
    assert (commit.version, commit.was_recognised) == (2, False)
    assert table.scan().collect()["value"].to_list() == [2.0]


def test_older_run_is_stopped_by_a_newer_one_of_the_same_window(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0))
    seen = table.version()
    write(table, [row("a", day(0), value=2.0)], day(0), transaction="t2", metadata={"run_id": "run-newer"})
    table.compact(2026, 1)
    with pytest.raises(StaleWriter, match=r"Run 'run-newer' has written window 2026-01-29.* in version 2"):
        write(table, [row("a", day(0), value=3.0)], day(0), transaction="t3", seen_version=seen)
    assert table.scan().collect()["value"].to_list() == [2.0]
    assert write(table, [row("a", day(1))], day(1), transaction="t4", seen_version=seen).version == 3


def test_window_that_a_newer_run_emptied_is_not_filled_by_an_older_one(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0))
    write(table, [], day(0), transaction="newer")
    with pytest.raises(StaleWriter):
        write(table, [row("a", day(0))], day(0), transaction="older", seen_version=1)


def test_run_that_saw_no_table_is_older_than_every_commit(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0), seen_version=None, transaction="t1")
    with pytest.raises(StaleWriter):
        write(table, [row("a", day(0), value=2.0)], day(0), seen_version=None, transaction="t2")


def test_version_from_another_table_is_refused(table: FeatureTable) -> None:
    with pytest.raises(InvalidInput, match="saw version 7"):
        write(table, [row("a", day(0))], day(0), seen_version=7)


@dataclass
class Interrupting:
    """A clock that lets others act once: a commit asks for the time after it has looked at the table."""

    act: Callable[[], object]
    is_spent: bool = False
    now: datetime = datetime(2026, 7, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        if not self.is_spent:
            self.is_spent = True
            self.act()
        return self.now


def interrupted(table: FeatureTable, act: Callable[[], object]) -> FeatureTable:
    root = Location(str(table.location.path.parent))
    return FeatureTable(root, GROUP, Interrupting(act))


def test_commit_that_comes_between_is_seen_before_the_next_try(table: FeatureTable) -> None:
    write(table, [row("a", day(0)), row("a", day(9))], day(0), day(9))
    outer = interrupted(table, lambda: write(table, [], day(9), transaction="between"))
    commit = write(outer, [row("a", day(1))], day(1), transaction="outer")
    assert commit.version == 3
    assert commit.created_at == datetime(2026, 7, 1, 0, 0, 0, 2, tzinfo=UTC)
    assert [table.fence(version) for version in (1, 2, 3)] == [0, 2, 2]
    assert table.scan().collect().height == 2


def test_newer_run_that_comes_between_stops_this_one(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0))
    outer = interrupted(table, lambda: write(table, [row("a", day(0), value=2.0)], day(0), transaction="between"))
    with pytest.raises(StaleWriter):
        write(outer, [row("a", day(0), value=3.0)], day(0), transaction="outer")
    assert table.scan().collect()["value"].to_list() == [2.0]


def test_own_commit_that_comes_between_is_recognised(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0))
    rows = [row("a", day(0), value=3.0)]
    outer = interrupted(table, lambda: write(table, rows, day(0), transaction="outer"))
    commit = write(outer, rows, day(0), transaction="outer")
    assert (commit.version, commit.was_recognised) == (2, True)


def test_compaction_that_comes_between_costs_another_try(table: FeatureTable) -> None:
    for i in range(2):
        write(table, [row("a", day(i))], day(i))
    outer = interrupted(table, lambda: table.compact(2026, 1))
    assert write(outer, [row("a", day(0), value=2.0)], day(0), transaction="outer").version == 4


def test_table_that_another_writer_makes_first_is_used(tmp_path: Path) -> None:
    first, second = (FeatureTable(Location(str(tmp_path)), GROUP, SetClock()) for _ in range(2))
    write(first, [row("a", day(0))], day(0), seen_version=None, transaction="t1")
    assert write(second, [row("a", day(1))], day(1), seen_version=None, transaction="t2").version == 2
    Storage(first.location).create({"plane": pl.String()})
    assert first.scan().collect().height == 2


def foreign_delete(table: FeatureTable) -> None:
    DeltaTable(str(table.location.path)).delete("plane = 'a'")


def test_commit_of_another_engine_counts_as_newer_and_as_a_rewind(table: FeatureTable, clock: SetClock) -> None:
    clock.now = datetime(2026, 7, 1, 0, 0, 0, 5, tzinfo=UTC)
    write(table, [row("a", day(0)), row("b", day(1))], day(0), day(1))
    foreign_delete(table)
    assert table.fence(1) == 0
    assert table.fence(2) == 2
    assert isinstance(table.changes(1, 2), Rebuild)
    with pytest.raises(StaleWriter, match="not of this store"):
        write(table, [row("c", day(2))], day(2), seen_version=1)
    later = write(table, [row("c", day(2))], day(2))
    assert later.created_at == clock.now + MICROSECOND
    assert table.fence(3) == 2


def test_rollback_is_the_same_overwrite_fed_with_earlier_rows(table: FeatureTable) -> None:
    write(table, [row("a", day(0)), row("b", day(0))], day(0))
    good = table.content_hash(1)
    write(table, [row("a", day(0), value=9.0, knowledge_time=day(0).end + timedelta(hours=2))], day(0))
    earlier = table.scan(1, windows=[day(0)]).drop("created_at").collect()
    commit = table.overwrite_windows(earlier, [day(0)], seen_version=2, transaction="rollback", metadata={})
    assert table.content_hash() == good != table.content_hash(2)
    assert commit.is_rewind
    assert table.fence(3) == 3


def test_fence_is_carried_over_compactions_and_ordinary_commits(table: FeatureTable) -> None:
    write(table, [row("a", day(0)), row("a", day(1))], day(0), day(1))
    write(table, [], day(1))
    write(table, [row("b", day(2))], day(2))
    assert table.compact(2026, 1) == 4
    write(table, [row("c", day(1))], day(1))
    assert [table.fence(version) for version in range(6)] == [0, 0, 2, 2, 2, 2]


def test_removed_row_with_a_higher_one_elsewhere_is_no_rewind(table: FeatureTable) -> None:
    write(table, [row("a", day(0)), row("a", day(40))], day(0), day(40))
    assert not write(table, [], day(0)).is_rewind
    assert write(table, [], day(40)).is_rewind


def test_compaction_changes_no_row_and_nothing_to_do_makes_no_commit(table: FeatureTable) -> None:
    for i in range(3):
        write(table, [row("a", day(i))], day(i))
    before = table.scan().collect().sort("event_time")
    assert table.compact(2026, 1) == 4
    assert table.compact(2026, 1) is None
    assert table.scan().collect().sort("event_time").equals(before)
    assert table.content_hash(3) == table.content_hash(4)
    changes = table.changes(3, 4)
    assert isinstance(changes, Changes)
    assert changes.keys.is_empty()
    with pytest.raises(InvalidInput, match="no month 2026-13"):
        table.compact(2026, 13)


def test_version_that_came_and_went_between_is_among_the_removed(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0))
    commit = write(table, [row("a", day(0)), row("b", day(0))], day(0))
    write(table, [row("a", day(0))], day(0))
    changes = table.changes(1, 3)
    assert isinstance(changes, Changes)
    assert changes.keys["plane"].to_list() == ["b"]
    assert changes.removed["created_at"].to_list() == [commit.created_at]


def test_vacuumed_files_and_other_tables_ask_for_a_rebuild(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0))
    write(table, [row("a", day(0), value=2.0)], day(0))
    assert isinstance(table.changes(1, 2, table_id=table.table_id), Changes)
    assert isinstance(table.changes(1, 2, table_id="another"), Rebuild)
    assert isinstance(table.changes(9, 9), Rebuild)
    with pytest.raises(InvalidInput):
        table.changes(1, 5)
    DeltaTable(str(table.location.path)).vacuum(0, dry_run=False, enforce_retention_duration=False)
    found = table.changes(1, 2)
    assert isinstance(found, Rebuild)
    assert "vacuumed" in found.reason


def test_unknown_version_is_refused_with_those_there_are(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0))
    with pytest.raises(InvalidInput, match="versions up to 1"):
        table.scan(99)


def test_feature_added_later_is_null_in_older_rows_that_keep_their_schema_number(
    tmp_path: Path, clock: SetClock
) -> None:
    root = Location(str(tmp_path))
    old = FeatureTable(root, GROUP, clock)
    write(old, [row("a", day(0)), row("a", day(1))], day(0), day(1))
    wider = group_of({**VALUES, "gate": pl.List(pl.String())}, schema_number=2)
    new = FeatureTable(root, wider, clock)
    assert new.scan().collect()["gate"].to_list() == [None, None]
    write(new, [row("a", day(1), schema_number=2, gate=["B7"]), row("b", day(1), schema_number=2, gate=None)], day(1))
    new.compact(2026, 1)
    stored = new.scan().collect().sort("event_time", "plane")
    assert stored["gate"].to_list() == [None, ["B7"], None]
    assert stored["schema_number"].to_list() == [1, 2, 2]
    assert old.scan().collect().columns == list(GROUP.stored_schema)
    assert new.scan().filter(pl.col("gate").is_null()).collect().height == 2


def test_removed_feature_stays_in_the_table_and_out_of_the_rows(tmp_path: Path, clock: SetClock) -> None:
    root = Location(str(tmp_path))
    wide = group_of({**VALUES, "gate": pl.String()})
    write(FeatureTable(root, wide, clock), [row(plane, day(0), gate="B7") for plane in "ab"], day(0))
    narrow = FeatureTable(root, GROUP, clock)
    assert narrow.scan().collect().columns == list(GROUP.stored_schema)
    write(narrow, [row("a", day(0)), row("b", day(0), value=2.0), row("c", day(0))], day(0))
    stored = FeatureTable(root, wide, clock).scan().collect().sort("plane")
    assert stored["gate"].to_list() == ["B7", None, None]
    write(
        FeatureTable(root, group_of({"gate": pl.String()}), clock),
        [{k: v for k, v in row("d", day(1), gate="C1").items() if k != "value"}],
        day(1),
    )
    assert narrow.scan().collect().height == 4


def test_feature_declared_with_another_dtype_is_refused(tmp_path: Path) -> None:
    root = Location(str(tmp_path))
    write(FeatureTable(root, GROUP), [row("a", day(0))], day(0))
    other = FeatureTable(root, group_of({"value": pl.Int64()}))
    with pytest.raises(SchemaMismatch, match=r"declared Int64 and stored as Float64"):
        other.scan()


def test_scan_arguments_read_only_files_that_may_match(table: FeatureTable) -> None:
    for i in (0, 10, 40):
        event = day(i).end - timedelta(days=1) + 999 * MICROSECOND
        write(table, [row("a", day(i), event_time=event, knowledge_time=event)], day(i))
    event = day(10).start + 999 * MICROSECOND
    for scan in (table.scan(windows=[day(10)]), table.scan(known_by=event, event_since=event)):
        assert scan.explain().count(".parquet") == 1
        assert scan.collect()["window_start"].to_list() == [day(10).start]
    assert table.scan(known_by=event - MICROSECOND, event_since=event).collect().is_empty()
    assert table.scan(windows=[]).collect().is_empty()


def test_filters_and_projections_are_pushed_into_the_files(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0))
    plan = (
        table.scan()
        .filter(pl.col("knowledge_time") <= day(3).end, pl.col("event_time") > day(0).start)
        .select("plane")
        .explain()
    )
    assert "SELECTION" in plan
    assert "FILTER" not in plan
    assert "PROJECT 3/8 COLUMNS" in plan


@pytest.mark.parametrize("keep", [0, 0.3, 0.95])
def test_cut_log_entry_is_named_with_its_remedy(table: FeatureTable, keep: float) -> None:
    write(table, [row("a", day(0))], day(0))
    rows = [row("a", day(1))]
    write(table, rows, day(1))
    entry = log_of(table, 2)
    entry.write_bytes(entry.read_bytes()[: int(entry.stat().st_size * keep)])
    for use in (table.version, table.scan, lambda: write(table, rows, day(1))):
        with pytest.raises(StoreUnavailable, match=r"00000000000000000002\.json is cut short"):
            use()
    entry.unlink()
    assert table.version() == 1
    assert write(table, rows, day(1)).version == 2


@pytest.mark.parametrize("lines", [1, 2])
def test_log_entry_cut_between_two_lines_is_not_taken_for_a_whole_one(table: FeatureTable, lines: int) -> None:
    write(table, [row("a", day(0))], day(0))
    write(table, [row("a", day(1))], day(1))
    table.compact(2026, 1)
    for version in (3, 2):
        entry = log_of(table, version)
        whole = entry.read_bytes().splitlines(keepends=True)
        entry.write_bytes(b"".join(whole[:lines]))
        with pytest.raises(StoreUnavailable, match="cut short"):
            table.scan()
        entry.unlink()


def test_commit_says_who_wrote_what(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0), metadata={"run_id": "r9", "code_version": "abc"})
    entry = table.entry(1)
    assert entry is not None
    assert entry.own is not None
    assert entry.own.metadata == {"run_id": "r9", "code_version": "abc"}
    assert entry.own.windows == (day(0),)
    info = json.loads(log_of(table, 1).read_text().splitlines()[0])["commitInfo"]
    assert info["featurestore"]["rewind"] is False
    assert table.entry(7) is None


def test_content_hash_is_the_same_in_any_order_files_and_created_at(tmp_path: Path) -> None:
    tables = [
        FeatureTable(Location(str(tmp_path / name)), GROUP, SetClock(datetime(2026, month, 1, tzinfo=UTC)))
        for name, month in (("x", 3), ("y", 4))
    ]
    rows = [row(plane, day(i), value=float("nan") if i else -0.0) for i in range(3) for plane in "ab"]
    write(tables[0], rows, *(day(i) for i in range(3)))
    for i in (2, 0, 1):
        write(tables[1], [one for one in reversed(rows) if one["window_start"] == day(i).start], day(i))
    assert tables[0].content_hash() == tables[1].content_hash()
    assert tables[0].content_hash(windows=[day(0)]) != tables[0].content_hash(windows=[day(1)])


@pytest.mark.parametrize("named", [{"transaction": ""}, {"metadata": {"run_id": 7}}])
def test_write_without_a_name_or_with_odd_metadata_is_refused(table: FeatureTable, named: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="transaction id"):
        write(table, [row("a", day(0))], day(0), **named)


def test_many_versions_and_checkpoints_stay_readable(table: FeatureTable) -> None:
    for i in range(24):
        write(table, [row("a", day(0), value=float(i))], day(0))
    assert list((table.location.path / "_delta_log").glob("*.checkpoint.parquet"))
    assert [table.scan(v).collect()["value"].item() for v in (1, 7, 20, 24)] == [0.0, 6.0, 19.0, 23.0]
    changes = table.changes(0, 24)
    assert isinstance(changes, Changes)
    assert changes.removed.height == 23


def composite() -> RegisteredGroup:
    return group_of(keys=(("plane", "string"), ("leg", "int32")))


def test_composite_keys_are_told_apart(tmp_path: Path) -> None:
    table = FeatureTable(Location(str(tmp_path)), composite())
    write(table, [row("a", day(0), leg=1), row("a", day(0), leg=2)], day(0))
    write(table, [row("a", day(0), leg=1)], day(0))
    changes = table.changes(1, 2)
    assert isinstance(changes, Changes)
    assert changes.keys.rows() == [("a", 2)]


def test_table_written_by_plain_append_is_still_read(table: FeatureTable) -> None:
    write(table, [row("a", day(0))], day(0))
    stored = table.scan().collect()
    extra = stored.with_columns(plane=pl.lit("b"), year=pl.lit(2026, dtype=pl.Int32), month=pl.lit(1, dtype=pl.Int32))
    write_deltalake(str(table.location.path), extra, mode="append")
    assert sorted(table.scan().collect()["plane"]) == ["a", "b"]
