"""The steps of the demo: what each picks up of what runs before it left."""

import os
from pathlib import Path

import polars as pl
import pytest

from examples.flights.pipeline import commits_text, newest_training_set
from featurestore.errors import InvalidInput
from featurestore.location import Location
from featurestore.quality.deployed import note_built
from tests.platform.kiosks import T0


def test_the_set_that_was_built_last_is_scored_though_another_was_written_later(tmp_path: Path) -> None:
    folder = tmp_path / "training" / "delays"
    folder.mkdir(parents=True)
    for written_at, days in enumerate((60, 14)):
        pl.DataFrame({"days": [days]}).write_parquet(folder / f"{days}.parquet")
        os.utime(folder / f"{days}.parquet", (written_at, written_at))
    root = Location(str(tmp_path))
    note_built(root, "delays", "60", T0)
    assert newest_training_set(root, "delays")["days"].to_list() == [60]


def test_a_service_without_a_training_set_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"Service 'delays' has no training set at .* Materialize training/delays"):
        newest_training_set(Location(str(tmp_path)), "delays")


def test_what_a_backfill_did_is_told_by_the_versions_of_its_table() -> None:
    assert commits_text(7, 7) == "the rows were there already, so no commit was made"
    assert commits_text(7, 8) == "table version 7 before it, 8 after it: rows were not as before"
