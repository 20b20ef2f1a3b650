"""The offline table against a plain dict: contents, `created_at`, commits, rewinds and changes over random histories."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featurestore.declaration.windows import TimeWindow
from featurestore.location import Location
from featurestore.offline.changes import Changes
from featurestore.offline.table import FeatureTable
from tests.offline_rows import START, SetClock, day, frame, group_of, row
from tests.scale import cases

GROUP = group_of({"value": pl.Float64(), "trace": pl.List(pl.Float64())})
MICROSECOND = timedelta(microseconds=1)
VERSION = ("event_time", "knowledge_time", "created_at")

Version = tuple[Any, ...]
Row = dict[str, Any]


def content(one: Row) -> tuple[Any, ...]:
    """What counts as content: NaN is itself, and 0.0 is -0.0."""
    return tuple((name, plain(value)) for name, value in sorted(one.items()) if name != "created_at")


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(plain(item) for item in value)
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    return value


def version_of(one: Row) -> Version:
    return tuple(one[name] for name in VERSION)


@dataclass
class Model:
    """The table by brute force: rows by (plane, event_time, window_start), and every state it ever had."""

    rows: dict[tuple[Any, ...], Row] = field(default_factory=dict)
    last: datetime | None = None
    states: dict[int, dict[tuple[Any, ...], Row]] = field(default_factory=lambda: {0: {}})
    rewinds: list[int] = field(default_factory=list)

    def overwrite(self, new: Iterable[Row], windows: list[TimeWindow], now: datetime) -> tuple[set[TimeWindow], bool]:
        starts = {window.start: window for window in windows}
        before = {name: one for name, one in self.rows.items() if one["window_start"] in starts}
        after = {(one["plane"], one["event_time"], one["window_start"]): dict(one) for one in new}
        same = {name for name in after if name in before and content(after[name]) == content(before[name])}
        moved = {name for name in before.keys() | after.keys() if name not in same}
        if not moved:
            return set(), False
        stamp = now if self.last is None else max(now, self.last + MICROSECOND)
        for name, one in after.items():
            one["created_at"] = before[name]["created_at"] if name in same else stamp
        gone = [one for name, one in before.items() if name not in same]
        self.rows = {name: one for name, one in self.rows.items() if name not in before} | after
        self.last = stamp
        return {starts[name[2]] for name in moved}, any(not self.has_higher(one, now) for one in gone)

    def has_higher(self, gone: Row, now: datetime) -> bool:
        """Whether a row follows that a reader of `gone` may have had instead: known by now, or no later than `gone`."""
        higher = [
            one for one in self.rows.values() if one["plane"] == gone["plane"] and version_of(one) > version_of(gone)
        ]
        return any(one["knowledge_time"] <= max(now, gone["knowledge_time"]) for one in higher)

    def changes(self, since: int, to: int) -> tuple[set[str], set[tuple[str, Version]]]:
        keys: set[str] = set()
        removed: set[tuple[str, Version]] = set()
        for version in range(since + 1, to + 1):
            before, after = ({(n, version_of(r)) for n, r in self.states[v].items()} for v in (version - 1, version))
            keys |= {name[0] for name, _ in before ^ after}
            removed |= {(name[0], version) for name, version in before - after}
        return keys, removed


class History:
    """A random life of one table, with the model beside it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random, self.clock, self.model = random.Random(seed), SetClock(), Model()
        self.table = FeatureTable(Location(str(folder)), GROUP, self.clock)

    def step(self, number: int) -> None:
        self.clock.now += self.random.choice([timedelta(0), -timedelta(days=1), timedelta(minutes=5)])
        if self.random.random() < 0.25 and self.table.version() is not None:
            self.compact()
        else:
            self.overwrite(number)

    def compact(self) -> None:
        version = self.table.compact(2026, self.random.choice([1, 2]))
        if version is not None:
            self.model.states[version] = dict(self.model.rows)

    def overwrite(self, number: int) -> None:
        windows = [day(i) for i in self.random.sample(range(6), self.random.randint(1, 3))]
        rows = [one for window in windows for one in self.window_rows(window)]
        seen = self.table.version()
        commit = self.table.overwrite_windows(
            frame(GROUP, self.random.sample(rows, len(rows))),
            windows,
            seen_version=seen,
            transaction=f"t{number}",
            metadata={},
        )
        changed, is_rewind = self.model.overwrite(rows, windows, self.clock.now)
        assert set(commit.changed_windows) == changed
        assert commit.is_unchanged == (not changed)
        assert commit.is_rewind == is_rewind
        if commit.version is not None:
            assert commit.version == (1 if seen is None else seen + 1)
            self.model.states[commit.version] = dict(self.model.rows)
            self.model.rewinds += [commit.version] if is_rewind else []

    def window_rows(self, window: TimeWindow) -> list[Row]:
        stored = [one for one in self.model.rows.values() if one["window_start"] == window.start]
        if stored and self.random.random() < 0.4:
            return [
                {name: value for name, value in one.items() if name != "created_at"}
                for one in stored
                if self.random.random() < 0.8
            ]
        return [self.random_row(plane, window) for plane in "abc" if self.random.random() < 0.6]

    def random_row(self, plane: str, window: TimeWindow) -> Row:
        value = self.random.choice([None, float("nan"), 0.0, -0.0, 1.5])
        trace = self.random.choice([None, [], [1.0, None], [float("nan")]])
        event = window.end - timedelta(microseconds=self.random.choice([0, 1, 999, 10**10]))
        event = START if self.random.random() < 0.1 else event
        known = event + timedelta(hours=self.random.choice([1, 2]))
        return row(
            plane,
            window,
            value=value,
            trace=trace,
            event_time=event,
            knowledge_time=known,
            is_deleted=self.random.random() < 0.1,
        )

    def check(self) -> None:
        for version, expected in self.model.states.items():
            if version > (self.table.version() or 0):
                continue
            stored = self.table.scan(version).collect().to_dicts()
            assert sorted(map(exactly, stored), key=repr) == sorted(map(exactly, expected.values()), key=repr)
            assert self.table.fence(version) == max((r for r in self.model.rewinds if r <= version), default=0)

    def check_changes(self) -> None:
        newest = self.table.version()
        for since in range((newest or 0) + 1):
            to = self.random.randint(since, newest or 0)
            found = self.table.changes(since, to)
            assert isinstance(found, Changes)
            keys, removed = self.model.changes(since, to)
            assert found.keys["plane"].to_list() == sorted(keys)
            assert {(r["plane"], version_of(r)) for r in found.removed.to_dicts()} == removed
            assert found.removed.height == len(removed)


def exactly(one: Row) -> tuple[Any, ...]:
    times = tuple((one[name] - START) // MICROSECOND for name in (*VERSION, "window_start"))
    return (one["plane"], *times, one["is_deleted"], one["schema_number"], plain(one["value"]), plain(one["trace"]))


@pytest.mark.parametrize("seed", range(cases(400, 12)))
def test_random_histories_match_the_model(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, seed)
    for number in range(8):
        history.step(number)
    if history.table.version() is not None:
        history.check()
        history.check_changes()
