"""`KnownRows`: the newest version of each record as of any cut-off, against a reading of every row."""

from datetime import datetime
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.compute.knowledge import KnownRows
from tests.catalogs import HOUR, T0, TIME
from tests.scale import cases

Row = dict[str, Any]
SCHEMA: dict[str, Any] = {
    "key": pl.Int64,
    "knowledge_time": TIME,
    "landed_at": TIME,
    "event_time": TIME,
    "is_deleted": pl.Boolean,
    "n": pl.Int64,
}
VERSION = ("knowledge_time", "landed_at", "n")

hours = st.integers(0, 8).map(lambda number: T0 + number * HOUR)


@st.composite
def versions(draw: st.DrawFn) -> list[Row]:
    rows = []
    for number in range(draw(st.integers(0, 14))):
        event = draw(hours)
        known = event + draw(st.integers(0, 4)) * HOUR
        row = {"key": draw(st.integers(0, 3)), "knowledge_time": known, "landed_at": draw(hours), "event_time": event}
        rows.append({**row, "is_deleted": draw(st.integers(0, 4)) == 0, "n": number})
    return draw(st.permutations(rows))


def known(rows: list[Row], *, deletions: bool = True) -> KnownRows:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return KnownRows(
        frame if deletions else frame.drop("is_deleted"), keys=("key",), version=VERSION, event_time="event_time"
    )


def newest(rows: list[Row], cut_off: datetime) -> list[Row]:
    by_key: dict[int, Row] = {}
    for row in sorted(
        (row for row in rows if row["knowledge_time"] <= cut_off), key=lambda row: tuple(row[name] for name in VERSION)
    ):
        by_key[row["key"]] = row
    return list(by_key.values())


def numbers(frame: pl.DataFrame) -> list[int]:
    return sorted(frame["n"])


@settings(max_examples=cases(2000, 100), deadline=None)
@given(versions(), hours, st.none() | hours, st.none() | hours, st.none() | hours)
def test_newest_is_what_a_reading_of_every_row_finds(
    rows: list[Row], cut_off: datetime, after: datetime | None, start: datetime | None, end: datetime | None
) -> None:
    found = known(rows).newest(cut_off, known_after=after, event_from=start, event_before=end)
    expected = [
        row["n"]
        for row in newest(rows, cut_off)
        if not row["is_deleted"]
        and (after is None or row["knowledge_time"] > after)
        and (start is None or row["event_time"] >= start)
        and (end is None or row["event_time"] < end)
    ]
    assert numbers(found) == sorted(expected)


@settings(max_examples=cases(2000, 100), deadline=None)
@given(versions(), hours)
def test_rows_known_later_are_as_if_they_were_not_there(rows: list[Row], cut_off: datetime) -> None:
    before = [row for row in rows if row["knowledge_time"] <= cut_off]
    ours, theirs = (known(part).newest(cut_off).select(list(SCHEMA)) for part in (rows, before))
    assert ours.equals(theirs)


@settings(max_examples=cases(2000, 100), deadline=None)
@given(versions(), hours)
def test_a_record_has_at_most_one_version_at_a_time(rows: list[Row], cut_off: datetime) -> None:
    assert not known(rows, deletions=False).newest(cut_off)["key"].is_duplicated().any()


@settings(max_examples=cases(2000, 100), deadline=None)
@given(versions(), st.lists(hours, min_size=1, max_size=5))
def test_spans_that_follow_each_other_deliver_a_version_at_most_once(rows: list[Row], cuts: list[datetime]) -> None:
    table, bounds = known(rows), [None, *sorted(set(cuts))]
    spans = pairwise(bounds)
    delivered = [n for before, cut in spans if cut is not None for n in table.newest(cut, known_after=before)["n"]]
    assert len(delivered) == len(set(delivered))


@pytest.mark.parametrize(("hour", "amounts"), [(0, []), (1, [1]), (2, [2]), (3, [])])
def test_a_correction_replaces_and_a_tombstone_removes_from_the_moment_they_are_known(
    hour: int, amounts: list[int]
) -> None:
    row = {"key": 1, "landed_at": T0, "event_time": T0, "is_deleted": False}
    rows = [{**row, "knowledge_time": T0 + n * HOUR, "n": n, "is_deleted": n == 3} for n in (1, 2, 3)]
    assert numbers(known(rows).newest(T0 + hour * HOUR)) == amounts


def test_a_correction_that_moves_an_event_out_of_reach_hides_the_old_version_too() -> None:
    row = {"key": 1, "landed_at": T0, "is_deleted": False}
    moved = [
        {**row, "event_time": T0 + 5 * HOUR, "knowledge_time": T0 + 5 * HOUR, "n": 1},
        {**row, "event_time": T0, "knowledge_time": T0 + 6 * HOUR, "n": 2},
    ]
    table = known(moved)
    assert numbers(table.newest(T0 + 5 * HOUR, event_from=T0 + 4 * HOUR)) == [1]
    assert numbers(table.newest(T0 + 6 * HOUR, event_from=T0 + 4 * HOUR)) == []
