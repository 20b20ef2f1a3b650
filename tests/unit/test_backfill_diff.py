"""What a backfill changed, counted again by hand: rows, features, windows; kept beyond a vacuum; drawn and printed."""

import math
import random
import statistics
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from featurestore.backfill.diff import backfill_diff, keep_run_diff, run_diff
from featurestore.backfill.diff_view import diff_markdown, diff_plot_svg
from featurestore.backfill.rollback import rollback_backfill
from featurestore.cli.backfill.changing import diff_text
from featurestore.errors import InvalidInput, UnknownName
from featurestore.location import Location
from featurestore.metadata.book import BackfillBook
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegistrySnapshot
from tests.offline_rows import SetClock, day, frame, group_of, row
from tests.scale import cases

FEATURES: dict[str, pl.DataType] = {
    "delay": pl.Float64(),
    "flights": pl.Int64(),
    "town": pl.String(),
    "is_late": pl.Boolean(),
    "since": pl.Date(),
    "mix": pl.Array(pl.Float32, 2),
    "tags": pl.List(pl.String),
}
GROUP = group_of(FEATURES)
NUMBERS = ("delay", "flights")

Row = dict[str, Any]


class Planes:
    """A store with one group of every kind of feature."""

    def __init__(self, folder: Path) -> None:
        self.store = OfflineStore(Location(str(folder)), RegistrySnapshot({GROUP.name: GROUP}, {}), SetClock())
        self.book = BackfillBook.open(f"sqlite:///{folder}/metadata.db", SetClock())
        self.table, self.writes = self.store.table(GROUP.name), 0

    def promote(self, backfill_id: str, numbers: list[int], rows: list[Row]) -> None:
        self.writes += 1
        self.table.overwrite_windows(
            frame(GROUP, rows),
            [day(number) for number in numbers],
            seen_version=self.table.version(),
            transaction=f"t{self.writes}",
            metadata={"run_id": f"run-{self.writes}", "backfill_id": backfill_id},
        )

    def diff(self, backfill_id: str = "b7") -> dict[str, Any]:
        found: dict[str, Any] = backfill_diff(self.store, self.book, backfill_id)["groups"][GROUP.name]
        return found


@pytest.fixture
def planes(tmp_path: Path) -> Planes:
    return Planes(tmp_path)


def plane(name: str, number: int, **values: Any) -> Row:
    plain: Row = {"delay": 1.0, "flights": 4, "town": "Ulm", "is_late": False, "since": date(2026, 1, 1)}
    vectors: Row = {"mix": [1.0, 0.0], "tags": ["x"]}
    full = row(name, day(number), **plain, **vectors) | values
    return {key: value for key, value in full.items() if key != "value"}


def test_each_dtype_says_how_its_values_moved(planes: Planes) -> None:
    planes.promote("first", [0, 1], [plane(name, number) for name in "abcd" for number in (0, 1)])
    changed = [
        plane("a", 0, delay=3.0, town="Bern", mix=[0.0, 2.0]),
        plane("b", 0, delay=None, flights=8, tags=["x", "y"]),
        plane("c", 0, delay=-1.0, town="Bern", is_late=True, since=date(2026, 1, 3)),
        plane("e", 0),
    ]
    planes.promote("b7", [0], changed)
    found = planes.diff()
    assert found["rows"] == {"added": 1, "removed": 1, "changed": 3, "kept": 0}
    delay = found["features"]["delay"]
    assert (delay["changed"], delay["nulls_before"], delay["nulls_after"]) == (3, 0, 1)
    assert (delay["mean"], delay["mean_absolute"], delay["max_absolute"]) == (0.0, 2.0, 2.0)
    assert delay["mean_relative"] == pytest.approx((2 / 3 + 2) / 2)
    assert found["features"]["flights"]["p95_absolute"] == 4.0
    assert found["features"]["town"]["moves"] == [{"from": "Ulm", "to": "Bern", "rows": 2}]
    assert found["features"]["is_late"]["moves"] == [{"from": False, "to": True, "rows": 1}]
    assert found["features"]["since"]["mean"] == timedelta(days=2).total_seconds()
    assert found["features"]["mix"] == {
        "dtype": GROUP.feature("mix").dtype_name,
        "changed": 1,
        "nulls_before": 0,
        "nulls_after": 0,
        "mean_cosine": 0.0,
        "min_cosine": 0.0,
    }
    assert found["features"]["tags"]["changed"] == 1
    assert [window["window"] for window in found["windows"]] == ["2026-01-29"]


def test_nan_is_no_value_and_no_change_from_null(planes: Planes) -> None:
    planes.promote("first", [0], [plane("a", 0, delay=None), plane("b", 0, delay=2.0)])
    planes.promote("b7", [0], [plane("a", 0, delay=math.nan), plane("b", 0, delay=math.nan)])
    found = planes.diff()
    assert (found["rows"]["changed"], found["rows"]["kept"]) == (1, 1)
    delay = found["features"]["delay"]
    assert (delay["nulls_before"], delay["nulls_after"], delay["mean_absolute"]) == (1, 2, None)


def test_a_window_filled_for_the_first_time_and_one_emptied_have_a_line(planes: Planes) -> None:
    planes.promote("first", [0], [plane("a", 0)])
    planes.promote("b7", [0, 1], [plane("a", 1), plane("b", 1)])
    windows = planes.diff()["windows"]
    assert [(w["added"], w["removed"], w["size"]) for w in windows] == [(0, 1, None), (2, 0, None)]


def test_several_runs_of_a_backfill_are_compared_as_one(planes: Planes) -> None:
    planes.promote("first", [0, 1], [plane("a", number) for number in (0, 1)])
    planes.promote("b7", [0], [plane("a", 0, delay=2.0)])
    planes.promote("daily", [2], [plane("a", 2)])
    planes.promote("b7", [0, 1], [plane("a", 0, delay=3.0), plane("a", 1, delay=1.5)])
    found = planes.diff()
    assert found["versions"] == [[1, 4], [3, 4]]
    assert found["features"]["delay"]["mean"] == pytest.approx((2.0 + 0.5) / 2)


def test_one_promotion_is_compared_by_its_versions(planes: Planes) -> None:
    planes.promote("first", [0], [plane("a", 0)])
    planes.promote("b7", [0], [plane("a", 0, delay=2.0)])
    found = run_diff(planes.store, GROUP.name, 1, 2, [day(0)])
    assert found == planes.diff()
    assert run_diff(planes.store, GROUP.name, None, 1, [day(0)])["rows"]["added"] == 1


def test_what_was_kept_survives_rollback_and_vacuum_and_a_repeat_is_the_same(planes: Planes) -> None:
    planes.promote("first", [0], [plane("a", 0)])
    planes.promote("b7", [0], [plane("a", 0, delay=2.0)])
    first = planes.diff()
    rollback_backfill(planes.store, "b7", run_id="undo")
    assert planes.diff() == first
    table = DeltaTable(str(planes.table.location.path))
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert planes.diff() == first
    with pytest.raises(InvalidInput, match="vacuumed"):
        backfill_diff(planes.store, None, "b7")


def vacuum(planes: Planes) -> None:
    table = DeltaTable(str(planes.table.location.path))
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)


def test_what_its_runs_kept_is_shown_after_a_vacuum_though_nobody_compared_before(planes: Planes) -> None:
    planes.promote("first", [0, 1], [plane("a", number) for number in (0, 1)])
    for number in (0, 1):
        planes.promote("b7", [number], [plane("a", number, delay=2.0)])
        found = run_diff(planes.store, GROUP.name, number + 1, number + 2, [day(number)])
        keep_run_diff(planes.book, "b7", f"run-{number}", found)
    planes.promote("later", [0, 1], [plane("a", number, delay=3.0) for number in (0, 1)])
    whole = backfill_diff(planes.store, None, "b7")["groups"][GROUP.name]
    vacuum(planes)
    kept = planes.diff()
    for name in ("rows", "windows", "versions"):
        assert kept[name] == whole[name]
    assert {name: feature["changed"] for name, feature in kept["features"].items()} == {
        name: feature["changed"] for name, feature in whole["features"].items()
    }
    text = diff_text({"backfill_id": "b7", "groups": {GROUP.name: kept}})
    assert "The files of then were vacuumed: this is what the runs of the backfill kept." in text
    assert planes.book.kept("b7", "diff") == {}


def test_versions_that_were_vacuumed_unkept_are_refused_with_what_to_do_and_no_words_of_polars(planes: Planes) -> None:
    planes.promote("first", [0], [plane("a", 0)])
    planes.promote("b7", [0], [plane("a", 0, delay=2.0)])
    planes.promote("later", [0], [plane("a", 0, delay=3.0)])
    vacuum(planes)
    with pytest.raises(
        InvalidInput, match=r"no comparison was kept\. What each run changed stands in Dagster"
    ) as refused:
        planes.diff()
    assert "POLARS" not in str(refused.value)


def test_a_resumed_backfill_is_compared_anew(planes: Planes) -> None:
    planes.promote("b7", [0], [plane("a", 0)])
    assert planes.diff()["rows"]["added"] == 1
    planes.promote("b7", [1], [plane("a", 1), plane("b", 1)])
    assert planes.diff()["rows"]["added"] == 3
    assert planes.book.kept("b7", "diff")[GROUP.name]["rows"]["added"] == 3


def test_an_unknown_backfill_is_named(planes: Planes) -> None:
    planes.promote("b7", [0], [plane("a", 0)])
    with pytest.raises(UnknownName, match="'b8'"):
        planes.diff("b8")


# Against counting by hand.


def random_rows(chance: random.Random, number: int) -> list[Row]:
    return [
        plane(
            name,
            number,
            delay=chance.choice([None, math.nan, 0.0, 1.0, -2.5]),
            flights=chance.choice([None, 0, 3, 7]),
            town=chance.choice([None, "Ulm", "Bern"]),
        )
        for name in "abcdef"
        if chance.random() < 0.8
    ]


def value_of(one: Row | None, name: str) -> Any:
    value = None if one is None else one[name]
    return None if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("seed", range(cases(400, 10)))
def test_random_differences_match_counting_by_hand(planes: Planes, seed: int) -> None:
    chance = random.Random(seed)
    before, after = ({n: random_rows(chance, n) for n in range(3)} for _ in range(2))
    planes.promote("first", [0, 1, 2], [one for rows in before.values() for one in rows])
    planes.promote("b7", [0, 1, 2], [one for rows in after.values() for one in rows])
    old, new = ({(n, one["plane"]): one for n, rows in state.items() for one in rows} for state in (before, after))
    names = GROUP.feature_names
    changed = [
        place
        for place in old.keys() & new.keys()
        if any(value_of(old[place], name) != value_of(new[place], name) for name in names)
    ]
    found = run_diff(planes.store, GROUP.name, 1, planes.table.version() or 0, [day(n) for n in range(3)])
    assert found["rows"] == {
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "changed": len(changed),
        "kept": len(old.keys() & new.keys()) - len(changed),
    }
    for name in NUMBERS:
        pairs = [(value_of(old[place], name), value_of(new[place], name)) for place in old.keys() & new.keys()]
        moved = [(a, b) for a, b in pairs if a != b]
        sizes = [b - a for a, b in moved if a is not None and b is not None]
        assert found["features"][name]["changed"] == len(moved)
        assert found["features"][name]["nulls_before"] == sum(value_of(one, name) is None for one in old.values())
        assert found["features"][name]["nulls_after"] == sum(value_of(one, name) is None for one in new.values())
        assert found["features"][name]["mean"] == (pytest.approx(statistics.mean(sizes)) if sizes else None)
        assert found["features"][name]["median_absolute"] == (
            pytest.approx(statistics.median(map(abs, sizes))) if sizes else None
        )
    for number, window in enumerate(found["windows"]):
        assert window["changed"] == sum(place[0] == number for place in changed)


# Drawn and printed.


def shares(svg: str) -> list[float]:
    """The heights of the bars, as shares of the whole height."""
    root = ElementTree.fromstring(svg)
    bars = [element for element in root.iter() if element.tag.endswith("rect")][1:]
    return [float(bar.attrib["height"]) / (180 - 28 - 24) for bar in bars]


def test_the_plot_is_svg_with_a_bar_for_each_window(planes: Planes) -> None:
    planes.promote("first", [0, 1], [plane(name, number) for name in "abcd" for number in (0, 1)])
    planes.promote(
        "b7",
        [0, 1],
        [plane(n, d, delay=2.0 if (n, d) in (("a", 0), ("a", 1), ("b", 1)) else 1.0) for n in "abcd" for d in (0, 1)],
    )
    svg = diff_plot_svg(planes.diff())
    assert shares(svg) == pytest.approx([0.25, 0.5], abs=0.01)
    assert svg.count("<circle") == 2


def test_a_year_of_windows_shares_bars_and_an_empty_one_is_drawn() -> None:
    nothing = {"added": 0, "removed": 0, "changed": 1, "kept": 3, "size": 1.5}
    year = {"group": "g", "windows": [{"window": str(n), **nothing} for n in range(366)]}
    assert shares(diff_plot_svg(year)) == pytest.approx([0.25] * 92, abs=0.01)
    assert len(diff_plot_svg(year)) < 30_000
    assert shares(diff_plot_svg({"group": "g", "windows": []})) == []


def test_markdown_has_the_counts_and_the_plot_as_an_image(planes: Planes) -> None:
    planes.promote("first", [0], [plane("a", 0, town="a|b"), plane("b", 0)])
    planes.promote("b7", [0], [plane("a", 0, town="Bern", delay=2.0), plane("b", 0, mix=[0.6, 0.8])])
    text = diff_markdown(planes.diff())
    assert "1 window: rows 0 added, 0 removed, 2 changed, 0 kept." in text
    assert "| `delay` | 1 | 0 | 0 | mean +1, by size: mean 1, median 1, p95 1, largest 1; 0.5 relative |" in text
    assert "a\\|b to Bern: 1" in text
    assert "mean cosine 0.6000" in text
    image = text.rpartition("base64,")[2].removesuffix(")")
    assert b64decode(image).decode() == diff_plot_svg(planes.diff())
