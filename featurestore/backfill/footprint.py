"""What a backfill did to a group's table: which windows it changed, since when, and who has changed them after it.

Read from what each commit says of itself in the Delta log; no row is opened.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from featurestore.declaration.windows import Daily, Hourly, TimeWindow
from featurestore.errors import InvalidInput
from featurestore.offline.log import BACKFILL_ID, ROLLBACK_OF, LogEntry
from featurestore.offline.spans import inside
from featurestore.offline.table import FeatureTable
from featurestore.registry.snapshot import RegisteredGroup

READERS = 16


@dataclass(frozen=True, slots=True)
class LaterChange:
    """A commit that changed a window after a backfill did; `owner` is a backfill or run, empty if it is not known."""

    version: int
    owner: str

    def __str__(self) -> str:
        return f"{self.owner!r}" if self.owner else "a commit that is not of this store, or has expired,"


@dataclass(frozen=True, slots=True)
class WindowChange:
    """A window whose rows a backfill changed. One that it changed again after a rollback counts from there.

    Args:
        before: The table's last version before the backfill's first commit to the window.
        after: The version of its last commit to it.
        undone_in: The version of the rollback that has taken it back; None while it stands.
        later: What others changed in the window since `before`, without what was itself rolled back.
    """

    window: TimeWindow
    before: int
    after: int
    undone_in: int | None = None
    later: tuple[LaterChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Footprint:
    """Every window of a group that a backfill changed, oldest first, as of table version `version`."""

    version: int | None
    changes: tuple[WindowChange, ...]

    @property
    def standing(self) -> tuple[WindowChange, ...]:
        """Changes that no rollback has taken back."""
        return tuple(change for change in self.changes if change.undone_in is None)

    @property
    def undone_in(self) -> int | None:
        """The version of the last rollback; None if there was none."""
        return max((change.undone_in for change in self.changes if change.undone_in is not None), default=None)


def owner_of(metadata: Mapping[str, str]) -> str:
    """The backfill that a commit belongs to, or the run if it was scheduled; empty for a rollback, which nobody takes back."""
    return "" if ROLLBACK_OF in metadata else metadata.get(BACKFILL_ID) or metadata.get("run_id", "")


def cadence_of(group: RegisteredGroup) -> Hourly | Daily:
    """The cadence of a registered group, for its windows and their keys.

    Raises:
        InvalidInput: the group is static or pushed.
    """
    if not group.has_windows:
        kept = "a load" if group.cadence == "static" else "a push"
        raise InvalidInput(f"Group {group.name!r} is {group.cadence}: it has no windows, and {kept} is not taken back.")
    start = datetime.fromisoformat(group.start).date()
    return Hourly(start) if group.cadence == "hourly" else Daily(start)


def footprint(table: FeatureTable, backfill_id: str) -> Footprint:
    """The windows of a group that a backfill changed.

    Args:
        table: The group's table.
        backfill_id: A backfill, or a run that belonged to none.
    """
    newest, cadence = table.version(), cadence_of(table.group)
    changes: dict[datetime, WindowChange] = {}
    for version, entry in _log(table, newest):
        if entry is not None and not entry.has_changed_data:
            continue
        own = None if entry is None else entry.own
        if own is None:
            _add_later(changes, changes, LaterChange(version, ""))
        elif (undone := own.metadata.get(ROLLBACK_OF)) is not None:
            _undo(changes, undone, backfill_id, version)
        elif (owner := owner_of(own.metadata)) == backfill_id and owner:
            touched = [window for span in own.windows for window in cadence.windows_between(span.start, span.end)]
            changes |= {window.start: _changed(changes.get(window.start), window, version) for window in touched}
        else:
            touched = inside([change.window for change in changes.values()], own.windows)
            _add_later(changes, [window.start for window in touched], LaterChange(version, owner or own.run))
    return Footprint(newest, tuple(sorted(changes.values(), key=lambda change: change.window)))


def _log(table: FeatureTable, newest: int | None) -> Iterator[tuple[int, LogEntry | None]]:
    """Every commit, several read at a time: in a bucket each is a request of its own."""
    versions = range(1, (newest or 0) + 1)
    with ThreadPoolExecutor(READERS) as readers:
        yield from zip(versions, readers.map(table.entry, versions), strict=True)


def _changed(known: WindowChange | None, window: TimeWindow, version: int) -> WindowChange:
    if known is None or known.undone_in is not None:
        return WindowChange(window, version - 1, version)
    return replace(known, after=version)


def _add_later(changes: dict[datetime, WindowChange], starts: Iterable[datetime], later: LaterChange) -> None:
    for start in starts:
        change = changes[start]
        if change.undone_in is None:
            changes[start] = replace(change, later=(*change.later, later))


def _undo(changes: dict[datetime, WindowChange], undone: str, backfill_id: str, version: int) -> None:
    """A rollback of this backfill ends every change; one of another takes back what that one changed since."""
    for start, change in changes.items():
        if change.undone_in is not None:
            continue
        if undone == backfill_id:
            changes[start] = replace(change, undone_in=version)
        else:
            changes[start] = replace(change, later=tuple(c for c in change.later if c.owner != undone))
