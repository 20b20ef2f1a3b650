"""Finding landing files: by the day in their names, whole ones only."""

from datetime import date
from pathlib import Path

import pytest

from featurestore.declaration import Daily
from featurestore.errors import InvalidInput
from featurestore.landing import landing_day, landing_files, misnamed_files
from featurestore.location import Location

NAMES = ("2026-03-01.parquet", "2026-03-02T07.parquet", "2026-03-02T0815.parquet", "2026-03-03.parquet")


@pytest.fixture
def landing(tmp_path: Path) -> Location:
    folder = tmp_path / "sales"
    folder.mkdir()
    for name in (*NAMES, ".2026-03-01.parquet", "_2026-03-01.parquet", "2026-03-01.parquet.tmp", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    return Location(str(tmp_path))


def test_every_finished_file_is_found_in_name_order(landing: Location) -> None:
    files = landing_files(landing, "sales", None)
    assert tuple(file.name for file in files) == NAMES
    assert [file.data for file in files] == [name.encode() for name in NAMES]


def test_files_of_a_day_are_those_whose_name_starts_with_it(landing: Location) -> None:
    assert [file.name for file in landing_files(landing, "sales", ["2026-03-02"])] == list(NAMES[1:3])
    assert landing_files(landing, "sales", ["2026-03-09"]) == []
    assert landing_files(landing, "sales", []) == []


@pytest.mark.parametrize("source", ["nothing", "empty"])
def test_source_without_landing_files_is_refused_with_its_folder(landing: Location, source: str) -> None:
    (landing.path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=f"No landing file of source '{source}' under .*/{source}"):
        landing_files(landing, source, None)


MISNAMED = (
    "foo.parquet", "20260301.parquet", "2026-3-01.parquet", "2026-02-30.parquet", "2026-02-28.parquet", "2026-W10-1.parquet"
)  # fmt: skip


def test_files_that_no_day_names_are_told_and_no_others(landing: Location) -> None:
    days = Daily(start=date(2026, 3, 1))
    assert misnamed_files(landing, "sales", days) == []
    for name in MISNAMED:
        (landing.path / "sales" / name).write_bytes(b"")
    assert misnamed_files(landing, "sales", days) == sorted(MISNAMED)
    read = {file.name for day in range(1, 4) for file in landing_files(landing, "sales", [f"2026-03-{day:02}"])}
    assert read.isdisjoint(MISNAMED)


@pytest.mark.parametrize("name", [name for name in MISNAMED if name != "2026-02-28.parquet"])
def test_name_that_a_calendar_reads_otherwise_than_as_year_month_and_day_is_of_no_day(name: str) -> None:
    assert landing_day(name) is None
    assert [landing_day(good) for good in NAMES[:2]] == [date(2026, 3, 1), date(2026, 3, 2)]


def test_a_file_in_a_folder_of_its_own_is_misnamed(landing: Location) -> None:
    (landing.path / "sales" / "march").mkdir()
    (landing.path / "sales" / "march" / "2026-03-01.parquet").write_bytes(b"")
    assert misnamed_files(landing, "sales", Daily(start=date(2026, 3, 1))) == ["march/2026-03-01.parquet"]


def test_files_of_other_sources_are_left_alone(landing: Location) -> None:
    (landing.path / "sales_v2").mkdir()
    (landing.path / "sales_v2" / "2026-03-01.parquet").write_bytes(b"")
    assert len(landing_files(landing, "sales", None)) == len(NAMES)
