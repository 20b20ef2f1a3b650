"""Finding landing files: by the day in their names, whole ones only."""

from pathlib import Path

import pytest

from featurestore.errors import InvalidInput
from featurestore.landing import landing_files
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


def test_files_of_other_sources_are_left_alone(landing: Location) -> None:
    (landing.path / "sales_v2").mkdir()
    (landing.path / "sales_v2" / "2026-03-01.parquet").write_bytes(b"")
    assert len(landing_files(landing, "sales", None)) == len(NAMES)
