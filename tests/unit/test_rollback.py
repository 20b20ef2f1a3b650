"""Taking a backfill back: its windows return to what they were, offline and in the ledger, and nothing else moves."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from featurestore.backfill.footprint import footprint
from featurestore.backfill.rollback import GroupRollback, rollback_backfill
from featurestore.errors import InvalidInput, StaleWriter, UnknownName
from featurestore.location import Location
from featurestore.offline.commit import Commit
from featurestore.offline.ledger import LedgerEntry, Status
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegistrySnapshot
from tests.offline_rows import SetClock, day, frame, group_of, row
from tests.scale import cases

GROUP = group_of()
PLANES = "abc"
DAYS = 5
MINUTE = timedelta(minutes=1)

Values = dict[str, float]
"""The rows of a window: values by plane."""


class Planes:
    """A store with one daily group, into which runs promote windows and are put down in the ledger."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock()
        self.store = OfflineStore(Location(str(folder)), RegistrySnapshot({GROUP.name: GROUP}, {}), self.clock)
        self.table, self.ledger = self.store.table(GROUP.name), self.store.ledger(GROUP.name)
        self.runs = 0

    def promote(
        self, owner: str, windows: Mapping[int, Values], *, is_backfill: bool = True, is_recorded: bool = True
    ) -> Commit:
        """What a run does with the good windows that it has computed; a killed one does not get to the ledger."""
        self.runs += 1
        rows = [row(plane, day(n), value=v) for n, values in windows.items() for plane, v in values.items()]
        commit = self.table.overwrite_windows(
            frame(GROUP, rows),
            [day(n) for n in windows],
            seen_version=self.table.version(),
            transaction=f"promote-{self.runs}",
            metadata={"run_id": self.run_name(owner, is_backfill), "backfill_id": owner if is_backfill else ""},
        )
        if is_recorded:
            self.record(owner, windows, "promoted", is_backfill=is_backfill)
        return commit

    def record(self, owner: str, windows: Iterable[int], status: Status, *, is_backfill: bool = True) -> None:
        self.ledger.append([self.entry(owner, number, status, is_backfill) for number in windows])

    def entry(self, owner: str, number: int, status: Status, is_backfill: bool) -> LedgerEntry:
        return LedgerEntry(
            window_start=day(number).start,
            recorded_at=self.clock.now,
            status=status,
            run_id=self.run_name(owner, is_backfill),
            code_version=f"code-{self.runs}",
            source_versions="{}",
            verdict_digest="",
            rows=len(PLANES),
            history_rows=0,
            null_key_rows=0,
            backfill_id=owner if is_backfill else "",
            compute_seconds=1.0,
        )

    def run_name(self, owner: str, is_backfill: bool) -> str:
        return f"run-{self.runs}" if is_backfill else owner

    def roll_back(self, owner: str) -> GroupRollback:
        return rollback_backfill(self.store, owner, run_id="undo")[GROUP.name]

    def contents(self) -> dict[int, Values]:
        """The values of every window that has some."""
        rows = self.table.scan().select("window_start", "plane", "value").collect().rows()
        starts = {day(number).start: number for number in range(DAYS)}
        found: dict[int, Values] = {}
        for start, plane, value in rows:
            found.setdefault(starts[start], {})[plane] = value
        return found

    def standings(self) -> dict[int, tuple[str, str]]:
        """Status and code version of every window that the ledger knows."""
        starts = {day(number).start: number for number in range(DAYS)}
        latest = self.ledger.latest().select("window_start", "status", "code_version").rows()
        return {starts[start]: (status, code) for start, status, code in latest}

    def in_production(self) -> dict[int, str]:
        """By window, the code version whose rows the ledger says production holds."""
        starts = {day(number).start: number for number in range(DAYS)}
        rows = self.ledger.in_production().select("window_start", "code_version").rows()
        return {starts[start]: code for start, code in rows}


@pytest.fixture
def planes(tmp_path: Path) -> Planes:
    return Planes(tmp_path)


def all_at(value: float) -> Values:
    return dict.fromkeys(PLANES, value)


def test_windows_of_two_months_return_in_one_commit_and_others_stay(planes: Planes) -> None:
    planes.promote("first", {number: all_at(number) for number in range(DAYS)})
    before = planes.contents()
    planes.promote("bad", {0: all_at(70), 3: all_at(71)})
    planes.promote("daily", {1: all_at(9)}, is_backfill=False)
    version = planes.table.version()
    done = planes.roll_back("bad")
    assert (done.version, done.was_done) == (planes.table.version(), False)
    assert done.version == (version or 0) + 1
    assert done.windows == (day(0), day(3))
    assert dict(done.counts) == {"added": 0, "changed": 6, "removed": 0, "kept": 0}
    assert planes.contents() == before | {1: all_at(9)}
    assert planes.standings()[0] == planes.standings()[3] == ("promoted", "code-1")


def test_a_row_that_the_backfill_left_alone_keeps_its_created_at(planes: Planes) -> None:
    planes.promote("first", {0: all_at(1)})
    planes.clock.now += MINUTE
    planes.promote("bad", {0: all_at(1) | {"b": 5.0}})
    planes.clock.now += MINUTE
    planes.roll_back("bad")
    created = dict(planes.table.scan().select("plane", "created_at").collect().rows())
    assert created["a"] == created["c"] == planes.clock.now - 2 * MINUTE
    assert created["b"] == planes.clock.now


def test_a_repeat_says_that_it_is_done_and_commits_nothing(planes: Planes) -> None:
    planes.promote("first", {0: all_at(1), 1: all_at(1)})
    planes.promote("bad", {0: all_at(2), 1: all_at(1)})
    first = planes.roll_back("bad")
    state = (planes.table.version(), planes.ledger.version(), planes.standings())
    again = planes.roll_back("bad")
    assert (planes.table.version(), planes.ledger.version(), planes.standings()) == state
    assert (again.version, again.windows, again.was_done, again.restored) == (first.version, first.windows, True, 0)
    assert first.restored == 2, "a window that it promoted without a change counts as before too"


def test_several_commits_of_a_resumed_backfill_return_to_before_the_first(planes: Planes) -> None:
    planes.promote("bad", {0: all_at(1), 1: all_at(1)}, is_recorded=False)
    planes.table.compact(2026, 1)
    planes.promote("bad", {1: all_at(2), 2: all_at(2)})
    assert planes.roll_back("bad").windows == (day(0), day(1), day(2))
    assert planes.contents() == {}
    assert {status for status, _ in planes.standings().values()} == {"rolled_back"}
    assert planes.ledger.promoted() == set()
    assert planes.ledger.missing([day(1).start]) == [day(1).start]


def test_a_later_change_by_another_run_is_named_and_nothing_returns(planes: Planes) -> None:
    planes.promote("first", {0: all_at(1), 1: all_at(1)})
    planes.promote("bad", {0: all_at(2), 1: all_at(2)})
    planes.promote("scheduled-7", {1: all_at(3)}, is_backfill=False)
    before = planes.contents()
    with pytest.raises(StaleWriter, match=r"'scheduled-7' has changed window 2026-01-30 .* in version 3"):
        planes.roll_back("bad")
    assert planes.contents() == before


def test_a_later_run_that_changed_no_row_is_in_nobodys_way(planes: Planes) -> None:
    planes.promote("first", {0: all_at(1)})
    planes.promote("bad", {0: all_at(2)})
    planes.promote("daily", {0: all_at(2)}, is_backfill=False)
    planes.roll_back("bad")
    assert planes.contents() == {0: all_at(1)}
    assert planes.standings()[0] == ("promoted", "code-1"), "the rows that the later run vouched for are gone"


def test_two_backfills_of_one_window_are_taken_back_newest_first(planes: Planes) -> None:
    planes.promote("first", {0: all_at(1)})
    planes.promote("one", {0: all_at(2)})
    planes.promote("two", {0: all_at(3)})
    with pytest.raises(StaleWriter, match="'two'"):
        planes.roll_back("one")
    planes.roll_back("two")
    assert planes.contents() == {0: all_at(2)}
    planes.roll_back("one")
    assert planes.contents() == {0: all_at(1)}
    assert planes.standings()[0] == ("promoted", "code-1")


def test_a_backfill_resumed_after_its_rollback_is_taken_back_once_more(planes: Planes) -> None:
    planes.promote("bad", {0: all_at(1), 1: all_at(1)})
    planes.roll_back("bad")
    planes.promote("daily", {0: all_at(5)}, is_backfill=False)
    planes.promote("bad", {0: all_at(2)})
    second = planes.roll_back("bad")
    assert (second.windows, second.was_done) == ((day(0),), False)
    assert planes.contents() == {0: all_at(5)}
    assert planes.standings() == {0: ("promoted", "code-2"), 1: ("rolled_back", "code-1")}


def test_a_scheduled_run_is_taken_back_by_its_run_id(planes: Planes) -> None:
    planes.promote("daily", {0: all_at(1)}, is_backfill=False)
    planes.promote("daily-2", {0: all_at(2)}, is_backfill=False)
    planes.roll_back("daily-2")
    assert planes.contents() == {0: all_at(1)}


def test_windows_in_quarantine_stay_there(planes: Planes) -> None:
    planes.promote("first", {0: all_at(1), 1: all_at(1)})
    planes.promote("bad", {0: all_at(2)})
    planes.record("bad", [1], "quarantined")
    planes.roll_back("bad")
    assert planes.standings() == {0: ("promoted", "code-1"), 1: ("quarantined", "code-2")}


def test_a_window_that_was_in_quarantine_is_so_again_and_its_rows_are_by_the_run_before(planes: Planes) -> None:
    planes.promote("first", {0: all_at(1)})
    planes.promote("daily", {1: all_at(1)}, is_backfill=False)
    planes.record("daily", [0], "quarantined", is_backfill=False)
    planes.promote("bad", {0: all_at(2)})
    planes.record("bad", [1], "quarantined")
    planes.roll_back("bad")
    assert planes.standings() == {0: ("quarantined", "code-2"), 1: ("quarantined", "code-3")}
    assert planes.in_production() == {0: "code-1", 1: "code-2"}


def test_an_unknown_id_and_the_id_of_a_rollback_are_refused(planes: Planes) -> None:
    planes.promote("bad", {0: all_at(1)})
    planes.roll_back("bad")
    for unknown in ("bda", "undo", ""):
        with pytest.raises(UnknownName, match="a new backfill brings again"):
            planes.roll_back(unknown)


def test_rows_that_were_vacuumed_are_not_made_up(planes: Planes) -> None:
    planes.promote("first", {0: all_at(1)})
    planes.promote("bad", {0: all_at(2)})
    table = DeltaTable(str(planes.table.location.path))
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(InvalidInput, match=r"Version 1 of group 'plane_profile'.*was vacuumed"):
        planes.roll_back("bad")
    assert planes.contents() == {0: all_at(2)}


def test_a_commit_of_another_engine_over_the_window_is_refused(planes: Planes) -> None:
    planes.promote("bad", {0: all_at(1)})
    DeltaTable(str(planes.table.location.path)).delete("plane = 'a'")
    with pytest.raises(StaleWriter, match="not of this store"):
        planes.roll_back("bad")


@dataclass
class Change:
    """One change of one window, with what was there before."""

    owner: str
    before: Values


@dataclass
class Model:
    """The same by brute force: every window's changes that stand, and its standings that count."""

    contents: dict[int, Values] = field(default_factory=dict)
    changes: dict[int, list[Change]] = field(default_factory=lambda: {number: [] for number in range(DAYS)})
    standings: dict[int, list[tuple[str, str, str]]] = field(
        default_factory=lambda: {number: [] for number in range(DAYS)}
    )
    forgotten: set[int] = field(default_factory=set)

    def promote(self, owner: str, windows: Mapping[int, Values]) -> None:
        for number, values in windows.items():
            before = self.contents.get(number, {})
            if before != values:
                self.changes[number].append(Change(owner, before))
                self.put(number, values)

    def put(self, number: int, values: Values) -> None:
        self.contents.pop(number, None)
        if values:
            self.contents[number] = values

    def record(self, owner: str, windows: Iterable[int], status: str, code: str) -> None:
        for number in windows:
            self.standings[number].append((owner, status, code))
            self.forgotten.discard(number)

    def changed_by(self, owner: str) -> dict[int, int]:
        """By window, where its changes by an owner begin."""
        firsts = {n: [i for i, c in enumerate(changes) if c.owner == owner] for n, changes in self.changes.items()}
        return {number: places[0] for number, places in firsts.items() if places}

    def may_roll_back(self, owner: str) -> bool:
        firsts = self.changed_by(owner)
        return all(c.owner == owner for number, first in firsts.items() for c in self.changes[number][first:])

    def roll_back(self, owner: str) -> None:
        firsts = self.changed_by(owner)
        returned = {n: self.changes[n][first].before for n, first in firsts.items()}
        is_commit = any(self.contents.get(number, {}) != values for number, values in returned.items())
        if is_commit:
            for number, values in returned.items():
                self.put(number, values)
                del self.changes[number][firsts[number] :]
        for number in range(DAYS):
            self.forget(number, owner, is_returned=is_commit and number in returned)

    def forget(self, number: int, owner: str, *, is_returned: bool) -> None:
        standing = self.standings[number]
        promoted = [entry for entry in standing if entry[1] == "promoted"]
        if any(entry[0] == owner for entry in promoted) and (promoted[-1][0] == owner or is_returned):
            held = standing[-1:] if standing[-1][1] == "quarantined" else []
            del standing[next(i for i, entry in enumerate(standing) if entry[0] == owner) :]
            standing += held
            self.forgotten |= {number} if not standing else set()

    def statuses(self) -> dict[int, tuple[str, str]]:
        known = {number: standing[-1] for number, standing in self.standings.items() if standing}
        return {number: (status, code) for number, (_, status, code) in known.items()}

    def in_production(self) -> dict[int, str]:
        """By window, the code of the run whose rows production holds."""
        promoted = {n: [code for _, status, code in s if status == "promoted"] for n, s in self.standings.items()}
        return {number: codes[-1] for number, codes in promoted.items() if codes}


class History:
    """A random life: backfills promoted, resumed, killed and rolled back, among scheduled runs and compactions."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random, self.planes, self.model = random.Random(seed), Planes(folder), Model()
        self.owners = {"one": True, "two": True, "daily": False}

    def run_beside_the_model(self, acts: int) -> None:
        chances = {self.promote: 6, self.quarantine: 1, self.compact: 1, self.roll_back: 4, self.wait: 2}
        for act in self.random.choices(list(chances), list(chances.values()), k=acts):
            act()
            assert self.planes.contents() == self.model.contents
            found = self.planes.standings()
            assert {n: s for n, s in found.items() if s[0] != "rolled_back"} == self.model.statuses()
            assert {n for n, s in found.items() if s[0] == "rolled_back"} == self.model.forgotten
            assert self.planes.in_production() == self.model.in_production()

    def some_windows(self) -> list[int]:
        return self.random.sample(range(DAYS), self.random.randint(1, 3))

    def values(self, number: int) -> Values:
        stored = self.model.contents.get(number, {})
        if self.random.random() < 0.3:
            return stored
        return {plane: float(self.random.randint(0, 3)) for plane in PLANES if self.random.random() < 0.8}

    def promote(self) -> None:
        owner, is_backfill = self.random.choice(list(self.owners.items()))
        windows = {number: self.values(number) for number in self.some_windows()}
        is_recorded = self.random.random() < 0.8
        self.planes.promote(owner, windows, is_backfill=is_backfill, is_recorded=is_recorded)
        self.model.promote(owner, windows)
        if is_recorded:
            self.model.record(owner, windows, "promoted", f"code-{self.planes.runs}")

    def quarantine(self) -> None:
        owner, is_backfill = self.random.choice(list(self.owners.items()))
        windows = self.some_windows()
        self.planes.record(owner, windows, "quarantined", is_backfill=is_backfill)
        self.model.record(owner, windows, "quarantined", f"code-{self.planes.runs}")

    def compact(self) -> None:
        if self.planes.table.version() is not None:
            self.planes.table.compact(2026, self.random.choice([1, 2]))

    def wait(self) -> None:
        self.planes.clock.now += MINUTE

    def roll_back(self) -> None:
        self.wait()
        owner = self.random.choice(list(self.owners))
        before = self.planes.table.version()
        try:
            self.planes.roll_back(owner)
        except UnknownName:
            assert not self.model.changed_by(owner)
        except StaleWriter:
            assert not self.model.may_roll_back(owner)
        else:
            assert self.model.may_roll_back(owner)
            self.model.roll_back(owner)
            assert (self.planes.table.version() or 0) <= (before or 0) + 1
            self.repeat(owner)
        self.wait()

    def repeat(self, owner: str) -> None:
        versions = (self.planes.table.version(), self.planes.ledger.version())
        self.planes.roll_back(owner)
        assert (self.planes.table.version(), self.planes.ledger.version()) == versions


@pytest.mark.parametrize("seed", range(cases(600, 15)))
def test_random_histories_of_rollbacks_match_a_dict(tmp_path: Path, seed: int) -> None:
    History(tmp_path, seed).run_beside_the_model(acts=12)


def test_footprint_says_which_versions_lie_before_and_after(planes: Planes) -> None:
    planes.promote("first", {0: all_at(1)})
    planes.promote("bad", {0: all_at(2), 1: all_at(2)})
    planes.promote("bad", {1: all_at(3)})
    found = footprint(planes.table, "bad")
    assert [(change.before, change.after) for change in found.changes] == [(1, 2), (1, 3)]
    planes.roll_back("bad")
    assert footprint(planes.table, "bad").undone_in == planes.table.version()
    assert footprint(planes.table, "bad").standing == ()
