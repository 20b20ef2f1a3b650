"""Promoting windows of a backfill although they failed their gate, because someone with the right says so.

What the schema demands nobody can override: dtypes, whole keys and times, one row each. Order: table, ledger, book,
quarantine. A window leaves quarantine last, so that an override cut short anywhere is ended by repeating it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from uuid import uuid4

import polars as pl

from featurestore.backfill.footprint import cadence_of
from featurestore.backfill.quarantine import HeldWindow, held_windows
from featurestore.backfill.rights import check_right
from featurestore.backfill.standings import belongs
from featurestore.errors import InvalidInput, StaleWriter, UnknownName
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import AuditEntry
from featurestore.offline.commit import Commit
from featurestore.offline.content import content_hash
from featurestore.offline.intake import check_rows, identity
from featurestore.offline.ledger import LedgerEntry
from featurestore.offline.spans import overlapping
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredGroup

ACTION = "overridden"


@dataclass(frozen=True, slots=True)
class Overridden:
    """Windows of a group that were promoted as they were staged.

    Args:
        keys: Their partition keys, oldest first.
        rows: How many rows they have.
        version: The table's version afterwards.
        is_done_before: An earlier call has promoted them, and nothing was left to do.
    """

    group: str
    keys: tuple[str, ...]
    rows: int
    version: int | None
    is_done_before: bool = False


def promote_override(
    store: OfflineStore,
    book: BackfillBook,
    backfill_id: str,
    keys: Sequence[str] = (),
    *,
    person: str,
    os_user: str,
    reason: str,
) -> list[Overridden]:
    """Promote windows of a backfill from quarantine, as they are staged.

    Args:
        backfill_id: A backfill, or a run that belonged to none.
        keys: Partition keys; default every window that it has in quarantine.
        reason: Why; goes into the audit and into the commit.

    Raises:
        InvalidInput: no reason is given, or a window has no rows because its transform failed.
        UnknownName: a key is not in quarantine.
        NotAllowed: the person is neither owner nor approver of one of the groups.
        SchemaMismatch: staged rows are not of the declared dtypes.
        StaleWriter: a window was promoted by others since its run began.
    """
    if not reason.strip():
        raise InvalidInput("An override has no reason. Say why these rows are right although they failed their gate.")
    request = book.find(backfill_id)
    names = None if request is None else [part.group for part in request.groups]
    held = held_windows(store, backfill_id, names)
    chosen = [item for item in held if not keys or item.key in keys]
    done = _done_before(store, backfill_id, names, set(keys) - {item.key for item in chosen}, held)
    for group in {item.group.name: item.group for item in chosen}.values():
        check_right(group, person)
    seen = {item.group.name: store.table(item.group.name).version() for item in chosen}
    staged = {item: _checked_rows(store, item) for item in chosen}
    entry = AuditEntry(backfill_id, store.clock(), ACTION, person, os_user, reason)
    parts = groupby(chosen, key=lambda item: item.group.name)
    return done + [
        _promote(store, book, entry, {item: staged[item] for item in same}, seen[name]) for name, same in parts
    ]


def _done_before(
    store: OfflineStore, backfill_id: str, names: Sequence[str] | None, keys: set[str], held: Sequence[HeldWindow]
) -> list[Overridden]:
    """Windows asked for by key that the backfill has promoted already."""
    done, missing = [], set(keys)
    for name in (store.registry.groups if names is None else names) if keys else ():
        group = store.registry.group(name)
        if not group.has_windows:
            continue
        found = _promoted_keys(store, group, backfill_id) & keys
        missing -= found
        if found:
            version = store.table(name).version()
            done.append(Overridden(name, tuple(sorted(found)), 0, version, is_done_before=True))
    if missing:
        raise UnknownName(
            f"Windows {sorted(missing)} of backfill {backfill_id!r} are not in quarantine. "
            f"There are {[f'{item.group.name} {item.key}' for item in held]}. Look first: featurestore backfill inspect {backfill_id}"
        )
    return done


def _promoted_keys(store: OfflineStore, group: RegisteredGroup, backfill_id: str) -> set[str]:
    cadence = cadence_of(group)
    latest = [LedgerEntry(**row) for row in store.ledger(group.name).latest().to_dicts()]
    mine = [entry for entry in latest if entry.status == "promoted" and belongs(entry, backfill_id)]
    return {cadence.key_of(cadence.window_at(entry.window_start)) for entry in mine}


def _checked_rows(store: OfflineStore, held: HeldWindow) -> pl.DataFrame:
    """The staged rows, if they can be stored and nothing newer is in their place."""
    rows = held.rows(store)
    if rows is None or not rows.columns:
        raise InvalidInput(
            f"Window {held.key} of group {held.group.name!r} has no rows to promote: {_reasons(held)}. "
            "Mend the transform and resume the backfill."
        )
    checked = check_rows(held.group, rows, [held.window])
    _refuse_overtaken(store, held, checked)
    return checked


def _reasons(held: HeldWindow) -> str:
    return "; ".join(f"{finding['check']}: {finding['observed']}" for finding in held.report["findings"])


def _refuse_overtaken(store: OfflineStore, held: HeldWindow, rows: pl.DataFrame) -> None:
    """Refuse if others have changed the window since its run began, other than to the very rows that are staged."""
    table = store.table(held.group.name)
    newest = table.version()
    for version in range(held.seen_version + 1, 0 if newest is None else newest + 1):
        entry = table.entry(version)
        if entry is not None and (
            not entry.has_changed_data
            or (entry.own is not None and overlapping([held.window], entry.own.windows) is None)
        ):
            continue
        if table.content_hash(windows=[held.window]) != content_hash(rows, order=identity(held.group)):
            who = "A commit that is not known" if entry is None or entry.own is None else f"Run {entry.own.run!r}"
            raise StaleWriter(
                f"{who} has changed window {held.key} of group {held.group.name!r} in version {version}, after run "
                f"{held.run_id!r} began, whose rows are in quarantine. The newer rows stay. Resume the backfill to compute it anew."
            )
        return


def _promote(
    store: OfflineStore,
    book: BackfillBook,
    entry: AuditEntry,
    staged: Mapping[HeldWindow, pl.DataFrame],
    seen_version: int | None,
) -> Overridden:
    group, held = next(iter(staged)).group, list(staged)
    promoted = _promoted_entries(store, entry.backfill_id, held)
    commit = _commit(store, entry, staged, promoted[0], seen_version)
    due = [
        replace(
            item,
            recorded_at=max(store.clock(), commit.created_at or item.recorded_at),
            table_version=commit.table_version,
        )
        for item in promoted
    ]
    _record(store, group, due)
    _audit(book, entry, held, commit)
    for item in held:
        store.staging(group.name).release(item.window.start)
    rows = sum(frame.height for frame in staged.values())
    return Overridden(group.name, tuple(item.key for item in held), rows, commit.table_version)


def _commit(
    store: OfflineStore,
    entry: AuditEntry,
    staged: Mapping[HeldWindow, pl.DataFrame],
    promoted: LedgerEntry,
    seen_version: int | None,
) -> Commit:
    """The backfill's id in the commit lets its rollback take these windows back too."""
    return store.table(next(iter(staged)).group.name).overwrite_windows(
        pl.concat(list(staged.values())),
        [item.window for item in staged],
        seen_version=seen_version,
        transaction=f"override/{entry.backfill_id}/{uuid4().hex}",
        metadata={
            "run_id": f"override/{entry.backfill_id}",
            "backfill_id": entry.backfill_id,
            "strategy": promoted.strategy,
            "code_version": promoted.code_version,
            "overridden_by": entry.person,
            "os_user": entry.os_user,
            "reason": entry.reason,
        },
    )


def _promoted_entries(store: OfflineStore, backfill_id: str, held: Sequence[HeldWindow]) -> list[LedgerEntry]:
    """What the ledger is to say of each window: what its run was put down with, and promoted."""
    latest = {row["window_start"]: LedgerEntry(**row) for row in store.ledger(held[0].group.name).latest().to_dicts()}
    found = [latest.get(item.window.start) for item in held]
    for item, entry in zip(held, found, strict=True):
        if entry is None or entry.run_id != item.run_id:
            raise InvalidInput(
                f"Run {item.run_id!r} of backfill {backfill_id!r} was cut short before the ledger of group {item.group.name!r} had window "
                f"{item.key}. Resume the backfill first."
            )
    return [replace(entry, status="promoted", compute_seconds=0.0) for entry in found if entry is not None]


def _record(store: OfflineStore, group: RegisteredGroup, entries: Sequence[LedgerEntry]) -> None:
    """Append what the ledger does not say yet."""
    ledger = store.ledger(group.name)
    promoted = ledger.promoted()
    ledger.append([entry for entry in entries if entry.window_start not in promoted])


def _audit(book: BackfillBook, entry: AuditEntry, held: Sequence[HeldWindow], commit: Commit) -> None:
    """Note the windows that an earlier try has not noted."""
    known = {
        (item.details["group"], key, run)
        for item in book.audit(entry.backfill_id)
        if item.action == ACTION
        for key, run in item.details["runs"].items()
    }
    runs = {item.key: item.run_id for item in held if (item.group.name, item.key, item.run_id) not in known}
    if runs:
        details = {"group": held[0].group.name, "keys": list(runs), "version": commit.table_version, "runs": runs}
        book.note(replace(entry, details=details))
