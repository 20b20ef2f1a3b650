"""Merging the files of statistics: killed at a random moment, read meanwhile, and done by two at once, no row is lost or counted twice."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import polars as pl
import pytest

from featurestore.location import Location
from featurestore.offline import statistics
from featurestore.offline.statistics import KeptStatistics
from tests.catalogs import DAY, T0
from tests.kills import Strikes, is_killed_at_work
from tests.scale import cases
from tests.statistics_worker import AT_MOST, kept_in, statistics_at

WINDOWS_A_ROUND = 30
LONGEST_SECONDS = 0.5


@pytest.fixture(autouse=True)
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "FILES_A_MONTH", AT_MOST)


def versions(kept: KeptStatistics) -> list[int]:
    """The windows that are kept, each with its own content, and none with a feature twice."""
    found = kept.windows()
    for one in found:
        assert one.table_version is not None
        assert one.features == statistics_at(one.table_version).features or repr(one) == repr(
            statistics_at(one.table_version)
        )
    return [int(one.table_version or 0) for one in found]


def test_killed_merge_loses_nothing_and_the_next_one_makes_it_good(tmp_path: Path) -> None:
    """Each round a worker adds windows and merges until it is killed; all that it said it had added is there, and once."""
    strikes, added = Strikes(5, cases(30, 2), LONGEST_SECONDS), set[int]()
    kept = kept_in(tmp_path)
    for number, delay_seconds in strikes:
        first = (number * WINDOWS_A_ROUND) % 600
        span = range(first, first + WINDOWS_A_ROUND)
        strikes.count(
            is_killed_at_work("tests.statistics_worker", [str(tmp_path), str(first), str(span.stop)], delay_seconds)
        )
        found = set(versions(kept))
        assert added <= found <= added | set(span)
        for one in set(span) - found:
            kept.append([statistics_at(one)])
        added |= set(span)
        kept.compact()
        assert versions(kept) == sorted(added)
        assert len(kept.location.names()) <= AT_MOST
    assert strikes.hits == strikes.wanted


def test_reader_sees_every_row_while_files_are_merged_and_deleted(tmp_path: Path) -> None:
    kept, windows = kept_in(tmp_path), [statistics_at(number) for number in range(40)]
    kept.append(windows[:20])
    is_over, seen = Event(), list[int]()

    def read() -> None:
        while not seen or not is_over.is_set():
            seen.append(kept.rows(until=windows[20].window_start)["window_start"].n_unique())

    with ThreadPoolExecutor(3) as threads:
        reader = threads.submit(read)
        for one in windows[20:]:
            kept.append([one])
            list(threads.map(lambda _: kept.compact(), range(2)))
        is_over.set()
        reader.result()
    assert set(seen) == {20}
    assert versions(kept) == list(range(40))


@dataclass(frozen=True)
class MergedMeanwhile(Location):
    """A place whose files are merged right after they were listed, as by another process."""

    def names(self, prefix: str = "") -> list[str]:
        listed = super().names(prefix)
        kept_at(Location(self.uri)).compact()
        return listed


def kept_at(location: Location) -> KeptStatistics:
    kept = KeptStatistics(location, "group")
    kept.location = location
    return kept


def test_reader_whose_files_are_merged_away_between_its_list_and_its_reads_lists_again(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    for number in range(AT_MOST + 2):
        kept.append([statistics_at(number)])
    assert versions(kept_at(MergedMeanwhile(kept.location.uri))) == list(range(AT_MOST + 2))
    assert len(kept.location.names()) == 1


def test_merge_that_was_cut_short_after_it_wrote_leaves_rows_that_count_once(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    for number in range(AT_MOST + 2):
        kept.append([statistics_at(number)])
    parts = {name: kept.location.read_bytes(name) for name in kept.location.names()}
    before = kept.rows().sort(pl.all().exclude("top_values", "points", "vector_mean"))
    assert kept.compact() == AT_MOST + 1
    for name, data in parts.items():
        kept.location.write(name, data or b"")
    assert kept.rows().sort(pl.all().exclude("top_values", "points", "vector_mean")).equals(before)
    assert versions(kept) == list(range(AT_MOST + 2))
    kept.compact()
    assert len(kept.location.names()) == 1


def test_files_of_other_months_and_of_several_are_left_as_they_are(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    for number in range(AT_MOST):
        kept.append([statistics_at(number)])
    kept.append([statistics_at(0), statistics_at(24 * 40)])
    kept.append([statistics_at(24 * 40)])
    before = kept.location.names()
    assert kept.compact() == 0
    assert kept.location.names() == before
    assert [one.window_start for one in kept.windows()][-1] == T0 + 40 * DAY
