"""What changed between two versions of a table: the keys that an online copy must look at again.

Only files that a commit took away or brought are read, and of them only keys and times: a row whose content changed has
another `created_at`. A compaction in between moves rows without changing them, and drops out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput
from featurestore.offline.difference import VERSION
from featurestore.offline.log import LogEntry, read_entry
from featurestore.offline.spans import covering, merged, overlapping, started_in
from featurestore.offline.storage import Storage
from featurestore.offline.view import TableView, scan_files
from featurestore.registry.snapshot import RegisteredGroup


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after version `since`, up to and including version `to`.

    Args:
        keys: Each key with a row added, changed or removed by some commit in between, once; sorted.
        removed: Every version that was stored and then changed or removed by a commit in between: keys, `event_time`,
            `knowledge_time`, `created_at`; sorted. Versions that came and went in between are among them.
    """

    since: int
    to: int
    keys: pl.DataFrame
    removed: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What changed can no longer be told, for this reason: a copy must be built anew."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Step:
    """Commits that touch no window twice, so that their first and last state tell everything in between."""

    entries: tuple[LogEntry, ...]

    def files(self) -> tuple[list[str], list[str]]:
        """Files that only the state before has, and files that only the state after has."""
        before: set[str] = set()
        after: set[str] = set()
        for entry in self.entries:
            for name in entry.removed:
                (after.remove if name in after else before.add)(name)
            for name in entry.added:
                (before.remove if name in before else after.add)(name)
        return sorted(before), sorted(after)


def changes_between(view: TableView, since: int, to: int) -> Changes | Rebuild:
    """See `FeatureTable.changes`; `view` is the newest version of the table."""
    newest = view.version
    if newest is None or since > newest:
        return Rebuild(
            f"Group {view.group.name!r} has version {newest}; the copy says {since}. The table is another, or an older one."
        )
    if not 0 <= since <= to <= newest:
        raise InvalidInput(
            f"Changes of group {view.group.name!r} were asked from version {since} to {to}; it has 0 to {newest}."
        )
    entries = [read_entry(view.storage.location, version) for version in range(since + 1, to + 1)]
    known = [entry for entry in entries if entry is not None and (entry.own is not None or not entry.has_changed_data)]
    if len(known) < len(entries):
        return Rebuild(
            f"A commit of group {view.group.name!r} between versions {since} and {to} has expired, or is not of this store."
        )
    try:
        parts = [_step_changes(view.storage, view.group, step) for step in _steps(known)]
    except FileNotFoundError as error:
        return Rebuild(f"A file of group {view.group.name!r} between versions {since} and {to} was vacuumed: {error}.")
    return _together(view.group, since, to, parts)


def _steps(entries: Iterable[LogEntry]) -> list[_Step]:
    steps: list[list[LogEntry]] = [[]]
    touched: list[TimeWindow] = []
    for entry in entries:
        windows = merged(_windows(entry))
        # Pushes follow each other in time, thousands in a step: what comes after everything is not searched for.
        if not touched or not windows or windows[0].start >= touched[-1].end:
            touched += windows
        elif overlapping(touched, windows) is None:
            touched = merged([*touched, *windows])
        else:
            steps.append([])
            touched = windows
        steps[-1].append(entry)
    return [_Step(tuple(step)) for step in steps if any(entry.has_changed_data for entry in step)]


def _windows(entry: LogEntry) -> Sequence[TimeWindow]:
    return entry.own.windows if entry.own is not None else ()


def _step_changes(storage: Storage, group: RegisteredGroup, step: _Step) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that only the state before has, and rows that only the state after has."""
    spans = covering(merged(window for entry in step.entries for window in _windows(entry)))
    columns = {name: group.stored_schema[name] for name in (*group.key_names, *VERSION, "window_start")}
    before, after = (scan_files(storage, names, columns).filter(started_in(spans)).collect() for names in step.files())
    return before.join(after, on=list(columns), how="anti"), after.join(before, on=list(columns), how="anti")


def _together(
    group: RegisteredGroup, since: int, to: int, parts: Sequence[tuple[pl.DataFrame, pl.DataFrame]]
) -> Changes:
    columns = {name: group.stored_schema[name] for name in (*group.key_names, *VERSION, "window_start")}
    nothing = pl.DataFrame(schema=columns)
    gone = pl.concat([nothing, *(before for before, _ in parts)])
    come = pl.concat([nothing, *(after for _, after in parts)])
    keys = pl.concat([gone, come]).select(group.key_names).unique().sort(group.key_names)
    versions = gone.select(*group.key_names, *VERSION).unique()
    return Changes(since, to, keys, versions.sort(*group.key_names, *VERSION))
