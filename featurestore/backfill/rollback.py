"""Taking a backfill back: exactly the windows that it changed return to what they were, offline, online and in the books.

One commit a group, by the one path of every promotion: the windows are overwritten with their rows at the earlier
version. Nothing here touches files, and later writes to other windows stay.

The order is table, ledger, book, online copy. Each part looks for what is left to do, so that a rollback cut short
anywhere is ended by repeating it, and one that is complete changes nothing.

A run of the backfill may be under way. Once the book says that it is rolled back, its runs compute nothing more (`Permission` in
`promotion.py`); so the tables are looked at once more after that, and what was promoted in between returns too. A run that had
its permission before, and commits after, is stopped by the rollback's commit in its table's log; where there was nothing to return,
and so no commit, it fails once its ledger is written, and says that the rollback is to be repeated.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING
from uuid import uuid4

import polars as pl

from featurestore.backfill.footprint import Footprint, WindowChange, cadence_of, footprint
from featurestore.backfill.rights import check_right
from featurestore.backfill.standings import Returned, restore_standings, rollback_name
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import FenceRefused, InvalidInput, StaleWriter, StoreUnavailable, UnknownName
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import AuditEntry
from featurestore.offline.log import ROLLBACK_OF
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredGroup

if TYPE_CHECKING:
    from featurestore.store import FeatureStore

ACTION = "rolled_back"


@dataclass(frozen=True, slots=True)
class GroupRollback:
    """What a rollback did to a group, or had done before.

    Args:
        windows: The windows that the backfill had changed, oldest first.
        keys: Their partition keys.
        version: The Delta version of the commit that returned them; None if the backfill left every row as it was.
        counts: Rows added, changed, removed and kept by that commit; empty if it was there before.
        restored: How many windows the ledger was told of now.
        was_done: The table had been returned before this call.
    """

    group: str
    windows: tuple[TimeWindow, ...]
    keys: tuple[str, ...]
    version: int | None
    counts: Mapping[str, int] = field(default_factory=dict)
    restored: int = 0
    was_done: bool = False


@dataclass(frozen=True, slots=True)
class Rollback:
    """A rollback as a person asked for it; `online` says of each group what became of its online copy."""

    backfill_id: str
    groups: tuple[GroupRollback, ...]
    online: Mapping[str, str]


def roll_back(
    store: "FeatureStore", book: BackfillBook, backfill_id: str, *, person: str, os_user: str, reason: str
) -> Rollback:
    """Take a backfill back for someone with the right to it, move the online copies, and write it into the book.

    An online store that does not answer keeps nobody from rolling back: its next step makes up for it, behind the fence.

    Args:
        reason: Why; goes into the audit.

    Raises:
        NotAllowed: the person is neither owner nor approver of one of the groups.
        UnknownName: no commit is of this backfill.
        StaleWriter: others have changed one of its windows since; nothing is returned, in no group.
        InvalidInput: no reason is given, or the earlier rows were vacuumed.
    """
    if not reason.strip():
        raise InvalidInput(
            f"Backfill {backfill_id!r} is not rolled back without a reason: the audit keeps who, when and why."
        )
    known = book.find(backfill_id)
    names = None if known is None else [part.group for part in known.groups]
    plans = _plans(store.offline, backfill_id, names)
    for plan in plans:
        check_right(plan.group, person)
    done: list[GroupRollback] = []
    seen: dict[str, int] = {}
    while plans:
        came = [_return(store.offline, backfill_id, plan, f"rollback-{uuid4().hex[:12]}") for plan in plans]
        _write_down(book, AuditEntry(backfill_id, store.clock(), ACTION, person, os_user, reason), came)
        done += came
        seen |= {plan.group.name: plan.found.version or 0 for plan in plans}
        plans = [] if known is None else _came_meanwhile(store.offline, backfill_id, names, seen)
    online = {name: _follow_online(store, name) for name in dict.fromkeys(item.group for item in done)}
    return Rollback(backfill_id, tuple(done), online)


def rollback_backfill(
    store: OfflineStore, backfill_id: str, *, run_id: str, groups: Sequence[str] | None = None
) -> dict[str, GroupRollback]:
    """Return tables and ledgers to what they were before a backfill; `roll_back` is the same with rights, online and book.

    Args:
        backfill_id: A backfill, or a run that belonged to none.
        run_id: Names this rollback in the commits.
        groups: Stored names; default every group with windows.

    Raises:
        UnknownName: no commit is of this backfill.
        StaleWriter: others have changed one of its windows since; nothing is returned, in no group.
        InvalidInput: the earlier rows were vacuumed.
    """
    plans = _plans(store, backfill_id, groups)
    return {plan.group.name: _return(store, backfill_id, plan, run_id) for plan in plans}


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to return in a group, with the rows as they were; every plan is made before anything is written."""

    group: RegisteredGroup
    found: Footprint
    rows: pl.DataFrame

    @property
    def keys(self) -> tuple[str, ...]:
        cadence = cadence_of(self.group)
        return tuple(cadence.key_of(window) for window in self.windows)

    @property
    def windows(self) -> tuple[TimeWindow, ...]:
        """Those to return now; once there are none, those that the last rollback returned."""
        last = [change for change in self.found.changes if change.undone_in == self.found.undone_in]
        return tuple(change.window for change in self.found.standing or last)


def _plans(store: OfflineStore, backfill_id: str, names: Iterable[str] | None) -> list[_Plan]:
    chosen = store.registry.groups if names is None else names
    groups = [store.registry.group(name) for name in chosen]
    windowed = [group for group in groups if group.has_windows]
    found = {group.name: footprint(store.table(group.name), backfill_id) for group in windowed}
    touched = [group for group in windowed if found[group.name].changes or _is_in_ledger(store, group, backfill_id)]
    if not touched:
        raise UnknownName(
            f"No commit to {[group.name for group in windowed]} is of backfill {backfill_id!r}: it promoted nothing, or is itself "
            "a rollback. 'featurestore backfill list' has the ids; what a rollback took back, a new backfill brings again."
        )
    for group in touched:
        _refuse_overwritten(group, backfill_id, found[group.name].standing)
    return [
        _Plan(group, found[group.name], _earlier_rows(store, group, found[group.name].standing)) for group in touched
    ]


def _came_meanwhile(
    store: OfflineStore, backfill_id: str, names: Iterable[str] | None, seen: Mapping[str, int]
) -> list[_Plan]:
    """What a run that was under way has promoted since the tables were looked at, at these versions."""
    plans = _plans(store, backfill_id, names)
    return [plan for plan in plans if any(c.after > seen.get(plan.group.name, 0) for c in plan.found.standing)]


def _is_in_ledger(store: OfflineStore, group: RegisteredGroup, backfill_id: str) -> bool:
    """Whether the backfill promoted windows of a group, be it without a change."""
    owner = pl.when(pl.col("backfill_id") != "").then("backfill_id").otherwise("run_id")
    mine = store.ledger(group.name).entries().filter(owner == backfill_id, pl.col("status") == "promoted")
    return not mine.is_empty()


def _refuse_overwritten(group: RegisteredGroup, backfill_id: str, changes: Sequence[WindowChange]) -> None:
    overwritten = [change for change in changes if change.later]
    if overwritten:
        first, cadence = overwritten[0], cadence_of(group)
        raise StaleWriter(
            f"Backfill {backfill_id!r} cannot be taken back: {first.later[-1]} has changed window {cadence.key_of(first.window)} of "
            f"group {group.name!r} in version {first.later[-1].version}, after it ({len(overwritten)} of {len(changes)} windows). Nothing "
            "is changed. Take that back first, or launch a new backfill of the windows that are wrong."
        )


def _earlier_rows(store: OfflineStore, group: RegisteredGroup, changes: Sequence[WindowChange]) -> pl.DataFrame:
    table, parts = store.table(group.name), [pl.DataFrame(schema=group.stored_schema)]
    for before, same in groupby(sorted(changes, key=lambda change: change.before), key=lambda change: change.before):
        try:
            parts.append(table.scan(before, windows=[change.window for change in same]).collect())
        except FileNotFoundError as error:
            raise InvalidInput(
                f"Version {before} of group {group.name!r}, to which windows would return, was vacuumed. "
                "The rows of then are gone; launch a new backfill instead."
            ) from error
    return pl.concat(parts).drop("created_at")


def _return(store: OfflineStore, backfill_id: str, plan: _Plan, run_id: str) -> GroupRollback:
    group, undone_in = plan.group.name, plan.found.undone_in
    if not plan.found.standing:
        restored = _restore(store, backfill_id, plan, undone_in)
        return GroupRollback(group, plan.windows, plan.keys, undone_in, restored=restored, was_done=True)
    commit = store.table(group).overwrite_windows(
        plan.rows,
        plan.windows,
        seen_version=plan.found.version,
        transaction=_name(backfill_id, plan),
        metadata={"run_id": run_id, ROLLBACK_OF: backfill_id},
    )
    restored = _restore(store, backfill_id, plan, commit.version)
    return GroupRollback(
        group, plan.windows, plan.keys, commit.version, commit.counts, restored, was_done=commit.was_recognised
    )


def _name(backfill_id: str, plan: _Plan) -> str:
    return rollback_name(backfill_id, max((change.after for change in plan.found.changes), default=0))


def _restore(store: OfflineStore, backfill_id: str, plan: _Plan, version: int | None) -> int:
    """Tell the ledger, unless it knows; windows count as returned if a commit returned them, now or before."""
    entry = None if version is None else store.table(plan.group.name).entry(version)
    own = None if entry is None else entry.own
    at = store.clock() if own is None or own.created_at is None else own.created_at
    starts = frozenset(window.start for window in plan.windows) if version is not None else frozenset()
    returned = Returned(starts, version, at)
    return len(restore_standings(store, plan.group.name, backfill_id, _name(backfill_id, plan), returned))


def _follow_online(store: "FeatureStore", name: str) -> str:
    """Move a group's online copy, and say what became of it."""
    if not store.registry.group(name).is_online:
        return "not served online"
    try:
        step = store.materialize([name])[name]
    except (StoreUnavailable, FenceRefused, StaleWriter, InvalidInput, ModuleNotFoundError) as error:
        return f"not moved yet: {error} Until then it serves what was rolled back; 'featurestore materialize {name}' moves it."
    return f"{step.written} of {step.keys} keys written, as of table version {step.table_version}"


def _write_down(book: BackfillBook, entry: AuditEntry, done: Sequence[GroupRollback]) -> None:
    """One audit entry a group and commit, the last of which also puts the backfill in its state; none twice."""
    known = {
        (item.details.get("group"), item.details.get("version"))
        for item in book.audit(entry.backfill_id)
        if item.action == ACTION
    }
    due = [_with(entry, item) for item in done if (item.group, item.version) not in known]
    for item in due[:-1]:
        book.note(item)
    for item in due[-1:]:
        request = book.find(entry.backfill_id)
        if request is not None and request.state in ("admitted", "approved"):
            book.decide(entry.backfill_id, "rolled_back", item)
        else:
            book.note(item)


def _with(entry: AuditEntry, done: GroupRollback) -> AuditEntry:
    return replace(entry, details={"group": done.group, "keys": list(done.keys), "version": done.version})
