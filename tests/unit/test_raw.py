"""The raw layer: each landing file once, each row with when it was known, and nothing lost."""

import io
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.declaration import Source
from featurestore.declaration.dtypes import BOUNDS, TIMESTAMP
from featurestore.location import Location
from featurestore.offline.raw import ALWAYS, CLOCK_SKEW, LandingFile, SourceTable
from tests.catalogs import DAY, HOUR, MINUTE, T0, TIME, Clock, landing_file, parquet, register, sale, sales, visits
from tests.scale import cases

REPOSITORY = Path(__file__).parent.parent.parent
NOW = T0 + 30 * DAY


def live(source: Source, since: datetime) -> Source:
    """The same source, whose landing times are to be believed from some instant on."""
    return Source(
        name=source.name,
        schema=source.schema,
        keys=source.keys,
        event_time=source.event_time,
        known_at=source.known_at,
        typical_delay=source.typical_delay,
        live_from=since,
    )


def table_in(folder: Path, source: Source = sales, now: datetime = NOW) -> SourceTable:
    return SourceTable(Location(str(folder)), source, Clock(now))


def file_of(*rows: dict[str, Any], name: str = "2026-03-01.parquet", source: Source = sales) -> LandingFile:
    return landing_file(source, rows, name)


def refused_rows(table: SourceTable) -> pl.DataFrame:
    parts = [table.refused_location.read_bytes(name) for name in table.refused_location.names()]
    return pl.concat([pl.read_parquet(io.BytesIO(part)) for part in parts if part])


# Each file once.


def test_a_file_lands_once_however_often_it_is_ingested(tmp_path: Path) -> None:
    file = file_of(sale(1, T0), sale(2, T0))
    first = table_in(tmp_path).ingest([file, file])
    again = table_in(tmp_path).ingest([file])
    assert (first.files, first.rows, first.files_known_before) == (1, 2, 0)
    assert (again.files, again.rows, again.files_known_before) == (0, 0, 1)
    assert table_in(tmp_path).scan().collect().height == 2


def test_a_repeated_ingestion_makes_no_commit(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    table.ingest([file_of(sale(1, T0))])
    version = table.version()
    table.ingest([file_of(sale(1, T0))])
    assert table.version() == version


def test_a_file_is_known_after_many_commits_and_their_checkpoints(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    files = [file_of(sale(n, T0), name=f"2026-03-01T{n:02}.parquet") for n in range(45)]
    for file in files:
        table.ingest([file])
    assert table.ingest(files).files_known_before == 45
    assert table.scan().collect().height == 45


def test_a_file_lands_once_also_from_another_process(tmp_path: Path) -> None:
    (tmp_path / "file.parquet").write_bytes(file_of(sale(1, T0)).data)
    for _ in range(2):
        start_ingestion(tmp_path).communicate()
    assert table_in(tmp_path / "store").scan().collect().height == 1


def test_processes_that_ingest_one_file_at_once_append_it_once(tmp_path: Path) -> None:
    (tmp_path / "file.parquet").write_bytes(file_of(*(sale(n, T0) for n in range(50))).data)
    running = [start_ingestion(tmp_path) for _ in range(4)]
    told = sorted(int(process.communicate()[0]) for process in running)
    assert told == [0, 0, 0, 50]
    assert table_in(tmp_path / "store").scan().collect().height == 50


@pytest.mark.parametrize("names", [["new.parquet"], ["new.parquet", "other.parquet"]])
def test_a_file_ingested_by_another_between_look_and_commit_is_not_appended_again(
    tmp_path: Path, names: list[str]
) -> None:
    """The clock is read between the two: there the other process strikes, once."""
    table_in(tmp_path).ingest([file_of(sale(0, T0), name="first.parquet")])
    files = [file_of(sale(n, T0), sale(9, T0, sale_id=None), name=name) for n, name in enumerate(names, start=1)]
    others = [files[:1]]

    def clock() -> datetime:
        if others:
            table_in(tmp_path).ingest(others.pop())
        return NOW

    done = SourceTable(Location(str(tmp_path)), sales, clock).ingest(files)
    assert (done.files, done.files_known_before) == (len(files) - 1, 1)
    table = table_in(tmp_path)
    assert sorted(table.scan().collect()["sale_id"]) == [f"s{n:04}" for n in range(len(files) + 1)]
    assert refused_rows(table).height == len(files)


def start_ingestion(folder: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from tests.unit.test_raw import table_in; from featurestore.offline.raw import LandingFile\n"
        "folder = Path(sys.argv[1]); data = (folder / 'file.parquet').read_bytes()\n"
        "print(table_in(folder / 'store').ingest([LandingFile('file.parquet', data)]).rows)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(REPOSITORY)], stdout=subprocess.PIPE, text=True
    )


def test_a_corrected_file_of_the_same_name_adds_its_rows(tmp_path: Path) -> None:
    table_in(tmp_path).ingest([file_of(sale(1, T0, amount=1.0))])
    later = table_in(tmp_path, now=NOW + HOUR)
    assert later.ingest([file_of(sale(1, T0, amount=2.0))]).rows == 1
    assert sorted(later.scan().collect()["amount"]) == [1.0, 2.0], "the raw layer is append-only"
    assert later.current()["amount"].to_list() == [2.0]


def test_rows_keep_when_and_whence_they_landed(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    table.ingest([file_of(sale(1, T0), sale(2, T0), name="2026-03-01T07.parquet")])
    rows = table.scan().collect().sort("sale_id")
    assert rows["landing_file"].to_list() == ["2026-03-01T07.parquet"] * 2
    assert rows["landing_row"].to_list() == [0, 1]
    assert rows["landed_at"].to_list() == [NOW, NOW]


# Files that cannot be read.


def test_a_half_written_file_is_refused_and_the_others_land(tmp_path: Path) -> None:
    whole, cut = file_of(sale(1, T0), name="a.parquet"), file_of(sale(2, T0), name="b.parquet")
    half = LandingFile("b.parquet", cut.data[: len(cut.data) // 2])
    done = table_in(tmp_path).ingest([half, whole])
    assert (done.files, done.rows, list(done.refused_files)) == (1, 1, ["b.parquet"])
    assert "not a whole Parquet file" in done.refused_files["b.parquet"]
    assert table_in(tmp_path).ingest([cut, whole]).rows == 1, "once it is whole it lands"
    assert sorted(table_in(tmp_path).scan().collect()["sale_id"]) == ["s0001", "s0002"]


@settings(max_examples=cases(2000, 100), deadline=None)
@given(st.data())
def test_no_copy_cut_short_stops_the_others(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    good = file_of(*(sale(n, T0 + n * MINUTE) for n in range(20)), name="good.parquet")
    damaged = data.draw(damages(good.data))
    done = table_in(tmp_path_factory.mktemp("raw")).ingest([LandingFile("bad.parquet", damaged), good])
    assert done.rows >= 20
    assert set(done.refused_files) <= {"bad.parquet"}


def damages(whole: bytes) -> st.SearchStrategy[bytes]:
    """What a copy that is cut short leaves: a beginning, perhaps in a file of the full length, or something else."""
    cut = st.integers(0, len(whole) - 1).map(lambda length: whole[:length])
    padded = st.integers(0, len(whole) - 9).map(lambda length: whole[:length].ljust(len(whole), b"\0"))
    return cut | padded | st.binary(max_size=40)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            pl.col("amount").cast(pl.Int64),
            "is pl.Int64; source 'sales' declares pl.Float64. Land it again with that dtype: pl.col('amount').cast(pl.Float64).",
        ),
        (
            pl.col("event_time").dt.replace_time_zone(None),
            "is pl.Datetime('us'); source 'sales' declares pl.Datetime('us', 'UTC'). Land it again as an instant. Say which zone "
            "it was recorded in, e.g. pl.col('event_time').dt.replace_time_zone('UTC').",
        ),
        (
            pl.col("event_time").dt.to_string("%Y-%m-%d %H:%M"),
            "is pl.String; source 'sales' declares pl.Datetime('us', 'UTC'). Land it again as an instant. Read the text as a "
            "time of the zone it was recorded in, e.g. pl.col('event_time').str.to_datetime(time_zone='UTC').",
        ),
        (
            pl.col("event_time").dt.cast_time_unit("ns"),
            "is pl.Datetime('ns', 'UTC'); source 'sales' declares pl.Datetime('us', 'UTC'). Land it again with that dtype: "
            "pl.col('event_time').cast(pl.Datetime('us', 'UTC')).",
        ),
    ],
)
def test_a_file_with_another_dtype_is_refused_whole(tmp_path: Path, change: pl.Expr, said: str) -> None:
    frame = pl.DataFrame([sale(1, T0)], schema=dict(sales.schema)).with_columns(change)
    table = table_in(tmp_path)
    done = table.ingest([LandingFile("a.parquet", parquet(frame))])
    assert said in done.refused_files["a.parquet"]
    assert table.scan().collect().is_empty()


def test_a_file_without_a_declared_column_is_refused_whole(tmp_path: Path) -> None:
    frame = pl.DataFrame([sale(1, T0)], schema=dict(sales.schema)).drop("amount")
    done = table_in(tmp_path).ingest([LandingFile("a.parquet", parquet(frame))])
    assert "lacks column 'amount'" in done.refused_files["a.parquet"]
    assert done.refused_files["a.parquet"].endswith("Land it again with a column 'amount' of pl.Float64.")


def test_columns_that_are_not_declared_are_left_out(tmp_path: Path) -> None:
    frame = pl.DataFrame([sale(1, T0)], schema=dict(sales.schema)).with_columns(extra=pl.lit(1))
    table = table_in(tmp_path)
    assert table.ingest([LandingFile("a.parquet", parquet(frame))]).rows == 1
    assert "extra" not in table.scan().collect().columns


# Rows that cannot be.


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "null key": (sale(1, T0, sale_id=None), "null key ['sale_id']"),
    "no event time": (sale(1, T0, event_time=None), "no event time"),
    "no knowledge time": (sale(1, T0, known_at=None), "no knowledge time"),
    "known before": (sale(1, T0, known_at=T0 - MINUTE), "known before its event time"),
    "future": (sale(1, NOW + CLOCK_SKEW + MINUTE), "event time in the future"),
    "future, known today": (sale(1, NOW + DAY, known_at=NOW), "event time in the future"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_row_that_cannot_be_is_set_aside_with_its_reason(tmp_path: Path, case: str) -> None:
    row, reason = REFUSALS[case]
    table = table_in(tmp_path)
    done = table.ingest([file_of(row, sale(2, T0))])
    assert (done.rows, done.rows_refused) == (1, 1)
    assert [(reason in said, count) for said, count in done.refused_because.items()] == [(True, 1)]
    aside = refused_rows(table)
    assert aside.height == 1
    assert reason in aside["refusal"][0]
    assert aside["amount"].to_list() == [row["amount"]]


@pytest.mark.parametrize("beyond", [-1, 1])
def test_a_time_beyond_the_calendar_is_set_aside(tmp_path: Path, beyond: int) -> None:
    table, microseconds = table_in(tmp_path), BOUNDS[TIMESTAMP][beyond > 0] + beyond
    times = pl.Series([microseconds, 0]).cast(TIMESTAMP)
    rows = pl.DataFrame([sale(1, T0), sale(2, T0)], schema=dict(sales.schema)).with_columns(
        event_time=times, known_at=times
    )
    done = table.ingest([LandingFile("a.parquet", parquet(rows))])
    assert (done.rows, done.refused_because) == (1, {"a time that is not of the years 1 to 9999": 1})
    assert refused_rows(table).height == 1


def test_refused_rows_are_counted_by_reason_over_the_files_of_one_ingestion(tmp_path: Path) -> None:
    first = file_of(sale(1, T0, sale_id=None), sale(2, T0), name="a.parquet")
    second = file_of(sale(3, T0, sale_id=None), sale(4, T0, event_time=None), name="b.parquet")
    table = table_in(tmp_path)
    done = table.ingest([first, second])
    assert done.refused_because == {"null key ['sale_id']": 2, "no event time or no knowledge time": 1}
    assert done.rows_refused == 3
    assert table.ingest([first, second]).refused_because == {}


def test_a_file_of_which_every_row_is_refused_is_known_afterwards(tmp_path: Path) -> None:
    table, file = table_in(tmp_path), file_of(sale(1, T0, sale_id=None))
    assert (table.ingest([file]).rows, table.ingest([file]).files_known_before) == (0, 1)
    assert table.scan().collect().is_empty()
    assert refused_rows(table).height == 1
    assert table.ingest([file_of(sale(2, T0), name="next")]).rows == 1


def test_an_event_barely_ahead_of_our_clock_lands_and_is_known_when_it_happens(tmp_path: Path) -> None:
    table = table_in(tmp_path, live(sales, T0))
    assert table.ingest([file_of(sale(1, NOW + MINUTE, known_at=None))]).rows == 1
    assert table.scan().collect()["knowledge_time"].to_list() == [NOW + MINUTE]


rows_of_any_kind = st.lists(
    st.sampled_from([sale(7, T0), sale(8, T0 + HOUR, known_at=T0 + 2 * HOUR), *(row for row, _ in REFUSALS.values())]),
    max_size=8,
)


@settings(max_examples=cases(300, 20), deadline=None)
@given(st.lists(rows_of_any_kind, min_size=1, max_size=4), st.integers(0, 2**32))
def test_every_row_of_every_file_is_either_appended_or_set_aside(
    tmp_path_factory: pytest.TempPathFactory, contents: list[list[dict[str, Any]]], seed: int
) -> None:
    table = table_in(tmp_path_factory.mktemp("raw"))
    files = [file_of(*rows, name=f"{number}.parquet") for number, rows in enumerate(contents)]
    chance = random.Random(seed)
    counted = [table.ingest(chance.sample(files, chance.randint(1, len(files)))) for _ in range(3)] + [
        table.ingest(files)
    ]
    total = sum(map(len, contents))
    assert sum(done.rows + done.rows_refused for done in counted) == total
    assert table.scan().collect().height == sum(done.rows for done in counted)
    refused = refused_rows(table).height if table.refused_location.names() else 0
    assert refused == sum(done.rows_refused for done in counted)


# When rows count as known.


def known_at(tmp_path: Path, source: Source, row: dict[str, Any], now: datetime = NOW) -> tuple[datetime, bool]:
    table = table_in(tmp_path, source, now)
    table.ingest([file_of(row, source=source)])
    stored = table.scan().collect()
    return stored["knowledge_time"][0], stored["is_history"][0]


LIVE = NOW - DAY
AFTER: Callable[[Source], Source] = lambda source: live(source, LIVE)  # noqa: E731
visit = {"shop": "a", "slot": 1, "people": 3, "seen_at": T0}


def test_history_is_known_at_its_declared_column(tmp_path: Path) -> None:
    assert known_at(tmp_path, sales, sale(1, T0, known_at=T0 + HOUR)) == (T0 + HOUR, True)


def test_history_without_such_a_column_is_known_after_its_typical_delay(tmp_path: Path) -> None:
    assert known_at(tmp_path, visits, visit) == (T0 + 20 * MINUTE, True)


def test_a_row_that_landed_before_the_source_was_live_is_history(tmp_path: Path) -> None:
    row = sale(1, T0, known_at=T0 + HOUR)
    assert known_at(tmp_path, AFTER(sales), row, LIVE - timedelta(microseconds=1)) == (T0 + HOUR, True)


def test_a_row_that_landed_when_the_source_went_live_is_known_when_it_landed(tmp_path: Path) -> None:
    assert known_at(tmp_path, AFTER(sales), sale(1, T0, known_at=T0 + HOUR), LIVE) == (LIVE, False)


def test_a_live_row_is_known_at_the_later_of_its_column_and_its_landing(tmp_path: Path) -> None:
    assert known_at(tmp_path / "a", AFTER(sales), sale(1, T0, known_at=T0 + HOUR)) == (NOW, False)
    assert known_at(tmp_path / "b", AFTER(sales), sale(1, NOW - HOUR, known_at=NOW + HOUR)) == (NOW + HOUR, False)


def test_a_live_row_without_a_column_is_not_known_before_it_landed(tmp_path: Path) -> None:
    assert known_at(tmp_path, AFTER(visits), visit) == (NOW, False)


def test_timeless_history_was_always_known_and_later_rows_since_they_landed(tmp_path: Path) -> None:
    row = {"shop": "a", "area": 1, "town": "x"}
    assert known_at(tmp_path / "a", register, row) == (ALWAYS, True)
    assert known_at(tmp_path / "b", AFTER(register), row) == (NOW, False)


def test_current_gives_the_newest_version_of_each_record(tmp_path: Path) -> None:
    rows = [sale(1, T0, 1.0, known_at=T0 + HOUR), sale(1, T0, 2.0, known_at=T0 + 2 * HOUR), sale(2, T0, 3.0)]
    for number, row in enumerate(reversed(rows)):
        table_in(tmp_path, now=NOW + number * HOUR).ingest([file_of(row, name=str(number))])
    current = table_in(tmp_path).current().sort("sale_id")
    assert current["amount"].to_list() == [2.0, 3.0], "what became known later rules, whenever it landed"
    assert current.columns == list(sales.schema)


def test_vectors_and_lists_of_a_feed_come_back_as_declared(tmp_path: Path) -> None:
    schema: dict[str, Any] = {
        "key": pl.Int64,
        "at": TIME,
        "vector": pl.Array(pl.Float32, 2),
        "names": pl.List(pl.String),
    }
    source = Source(name="vectors", schema=schema, keys=("key",), event_time="at", typical_delay=timedelta(0))
    rows = [
        {"key": 1, "at": T0, "vector": [1.0, 2.0], "names": ["a", "b"]},
        {"key": 2, "at": T0, "vector": None, "names": None},
    ]
    table = table_in(tmp_path, source)
    assert table.ingest([file_of(*rows, source=source)]).rows == 2
    back = table.scan().select(list(schema)).sort("key").collect()
    assert back.equals(pl.DataFrame(rows, schema=schema))


def test_a_source_without_files_has_no_rows_and_no_version(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    assert table.ingest([]).files == 0
    assert table.version() is None
    assert table.scan().collect().is_empty()
    assert table.current().is_empty()


def test_a_feed_may_have_a_year_of_its_own(tmp_path: Path) -> None:
    planes = Source(name="planes", schema={"tail": pl.String, "year": pl.Int64, "month": pl.Int64}, keys=("tail",))
    table = SourceTable(Location(str(tmp_path)), planes)
    table.ingest([landing_file(planes, [{"tail": "N1", "year": 1999, "month": 7}], "a.parquet")])
    assert table.current().rows() == [("N1", 1999, 7)]
