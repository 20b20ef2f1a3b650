"""Loads of static groups, against a plain dict of what each entity was."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput, PromotionRefused, SchemaMismatch, StaleWriter
from featurestore.frontier import latest_as_of
from featurestore.location import Location
from featurestore.offline.changes import Changes
from featurestore.offline.commit import Commit
from featurestore.offline.table import FeatureTable
from tests.offline_rows import SetClock, frame, group_of
from tests.scale import cases

FEATURES = {"seats": pl.Int64(), "maker": pl.String()}
GROUP = group_of(FEATURES, kind="static")
VALID_FROM = datetime(2020, 1, 1, tzinfo=UTC)
SCHEMA = {"plane": pl.String(), **FEATURES}
Planes = dict[str, tuple[int | None, str | None]]


def at(number: int) -> datetime:
    """Instants with microseconds, some of them in one millisecond."""
    return datetime(2026, 3, 1, 0, 0, 0, 1, tzinfo=UTC) + timedelta(microseconds=number * 300)


def load(table: FeatureTable, planes: Planes, number: int, **other: Any) -> Commit:
    rows = pl.DataFrame([(plane, *values) for plane, values in planes.items()], schema=SCHEMA, orient="row")
    given = {
        "instant": at(number),
        "valid_from": VALID_FROM,
        "transaction": f"load-{number}",
        "metadata": {"run_id": f"run-{number}"},
    }
    return table.load_static(rows, **{**given, **other})


def table_of(folder: Path, min_coverage: float | None = None) -> FeatureTable:
    return FeatureTable(Location(str(folder)), group_of(FEATURES, kind="static", min_coverage=min_coverage), SetClock())


def living(table: FeatureTable, moment: datetime) -> Planes:
    latest = latest_as_of(table.scan(), keys="plane", as_of=moment)
    return {
        plane: (seats, maker)
        for plane, seats, maker in latest.filter(~pl.col("is_deleted")).select("plane", "seats", "maker").iter_rows()
    }


@pytest.mark.parametrize("seed", range(cases(200, 10)))
def test_random_loads_leave_the_state_of_each_instant(tmp_path: Path, seed: int) -> None:
    table, chance = table_of(tmp_path, min_coverage=0.0), random.Random(seed)
    states: list[Planes] = []
    for number in range(8):
        planes = {
            plane: (chance.choice([None, 1, 2]), chance.choice([None, "", "EMBRAER"]))
            for plane in "abcd"
            if chance.random() < 0.7
        }
        last = states[-1] if states else {}
        commit = load(table, planes, number)
        expected = {"added": len(planes.keys() - last.keys()), "removed": len(last.keys() - planes.keys())}
        changed = {plane for plane in planes.keys() & last.keys() if planes[plane] != last[plane]}
        assert commit.is_unchanged == (planes == last)
        if not commit.is_unchanged:
            assert commit.counts == {
                **expected,
                "changed": len(changed),
                "kept": len(planes.keys() & last.keys() - changed),
            }
            assert not commit.is_rewind
        if chance.random() < 0.3 and table.version() is not None:
            table.compact(2026, 3)
        states.append(planes)
    # An empty load before any other leaves no trace: the first load with rows is the first load, known since `valid_from`.
    first = next((number for number, planes in enumerate(states) if planes), 0)
    assert [living(table, at(number)) for number in range(8)] == [*[states[first]] * first, *states[first:]]


def test_first_load_counts_as_known_since_valid_from(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    load(table, {"a": (1, "X")}, 0)
    load(table, {"a": (1, "X"), "b": (2, "Y")}, 1)
    stored = table.scan().collect().sort("plane")
    assert stored["event_time"].to_list() == stored["knowledge_time"].to_list() == [VALID_FROM, at(1)]
    assert stored["window_start"].to_list() == [at(0), at(1)]


def test_vanished_entity_becomes_a_tombstone_and_may_come_back(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    load(table, {"a": (1, "X"), "b": (2, "Y")}, 0)
    load(table, {"a": (1, "X")}, 1)
    stone = table.scan().filter(pl.col("is_deleted")).collect()
    assert stone.select("plane", "seats", "maker").rows() == [("b", None, None)]
    assert load(table, {"a": (1, "X")}, 2).is_unchanged
    load(table, {"a": (1, "X"), "b": (2, "Y")}, 3)
    assert living(table, at(3)) == {"a": (1, "X"), "b": (2, "Y")}


def test_truncated_load_deletes_nobody(tmp_path: Path) -> None:
    table = table_of(tmp_path, min_coverage=0.9)
    planes: Planes = {str(i): (i, "X") for i in range(20)}
    load(table, planes, 0)
    half = {plane: planes[plane] for plane in list(planes)[:10]}
    others: Planes = {f"other-{i}": (i, "X") for i in range(20)}
    for bad in (half, {}, others):
        with pytest.raises(PromotionRefused, match="Nobody is deleted"):
            load(table, bad, 1)
    assert living(table, at(1)) == planes
    assert load(table, {plane: planes[plane] for plane in list(planes)[:18]}, 1).counts["removed"] == 2


def test_empty_load_is_refused_unless_coverage_zero_is_declared(tmp_path: Path) -> None:
    table = table_of(tmp_path / "x")
    assert load(table, {}, 0).is_unchanged
    load(table, {"a": (1, "X")}, 1)
    with pytest.raises(PromotionRefused):
        load(table, {}, 2)
    allowed = table_of(tmp_path / "y", min_coverage=0.0)
    load(allowed, {"a": (1, "X")}, 1)
    assert load(allowed, {}, 2).counts["removed"] == 1


def test_load_older_than_the_last_is_refused_and_a_repeat_recognised(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    load(table, {"a": (1, "X")}, 1)
    load(table, {"a": (2, "X")}, 2)
    for number in (0, 2):
        with pytest.raises(StaleWriter, match="later instant"):
            load(table, {"a": (3, "X")}, number, transaction="other")
    again = load(table, {"a": (1, "X")}, 1)
    assert again.was_recognised
    assert again.changed_windows == (TimeWindow(at(1), at(1) + timedelta(microseconds=1)),)
    assert table.version() == 2


def test_load_can_be_rolled_back_by_emptying_its_window(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    for number in range(3):
        load(table, {"a": (number, "X")}, number)
    window = TimeWindow(at(1), at(1) + timedelta(microseconds=1))
    commit = table.overwrite_windows(frame(GROUP, []), [window], seen_version=3, transaction="rollback", metadata={})
    assert commit.changed_windows == (window,)
    assert not commit.is_rewind
    assert living(table, at(1)) == {"a": (0, "X")}
    assert living(table, at(2)) == {"a": (2, "X")}
    changes = table.changes(3, 4)
    assert isinstance(changes, Changes)
    assert changes.removed["event_time"].to_list() == [at(1)]


def test_load_under_a_new_schema_number_writes_every_entity_once(tmp_path: Path) -> None:
    load(table_of(tmp_path), {"a": (1, "X"), "b": (2, "Y")}, 0)
    wider = FeatureTable(
        Location(str(tmp_path)),
        group_of({**FEATURES, "engines": pl.Int32()}, kind="static", schema_number=2),
        SetClock(),
    )
    rows = pl.DataFrame(
        {"plane": ["a", "b"], "seats": [1, 2], "maker": ["X", "Y"], "engines": [2, None]},
        schema={**SCHEMA, "engines": pl.Int32()},
    )
    stamped = rows.with_columns(is_deleted=pl.lit(False), schema_number=pl.lit(2, dtype=pl.Int32))
    given: dict[str, Any] = {"valid_from": VALID_FROM, "metadata": {}}
    assert wider.load_static(stamped, instant=at(1), transaction="t1", **given).counts["changed"] == 2
    assert wider.load_static(rows, instant=at(2), transaction="t2", **given).is_unchanged


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ({"plane": [None]}, InvalidInput, "nulls"),
        ({"plane": ["a", "a"]}, InvalidInput, "share their"),
        ({"plane": ["a"], "is_deleted": [True]}, InvalidInput, "Leave out what is gone"),
        ({"plane": ["a"], "wings": [2]}, SchemaMismatch, r"unknown ones \['wings'\]"),
    ],
)
def test_load_that_breaks_a_rule_is_refused(
    tmp_path: Path, rows: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = pl.DataFrame(rows, schema_overrides={"plane": pl.String()}).with_columns(
        seats=pl.lit(1, dtype=pl.Int64), maker=pl.lit("X")
    )
    with pytest.raises(error, match=message):
        table_of(tmp_path).load_static(given, instant=at(0), valid_from=VALID_FROM, transaction="t", metadata={})


def test_load_before_its_valid_from_or_of_a_windowed_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="declare an earlier valid_from"):
        load(table_of(tmp_path), {"a": (1, "X")}, 0, valid_from=at(1))
    with pytest.raises(InvalidInput, match="no time zone"):
        load(table_of(tmp_path), {"a": (1, "X")}, 0, instant=datetime(2026, 3, 1))  # noqa: DTZ001 - that is the mistake
    windowed = FeatureTable(Location(str(tmp_path)), group_of(FEATURES), SetClock())
    with pytest.raises(InvalidInput, match="Use overwrite_windows"):
        load(windowed, {"a": (1, "X")}, 0)
