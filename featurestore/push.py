"""Pushing rows to a group that has no transform: checked as a whole, appended to its table, and written online at once.

The table comes first, so that what is online is in it; an online write that fails is made good by the next materialization.
Not here: the wire format of a request, or who may push (the server's).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, get_args
from uuid import uuid4

import polars as pl

from featurestore.clock import Clock
from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.declaration.windows import utc
from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.frames import Rows, as_polars
from featurestore.gate.quality import judge
from featurestore.lossless import cast_lossless, named_rows
from featurestore.offline.commit import Commit
from featurestore.offline.log import PUSHED_AT
from featurestore.offline.pushed import known_rows
from featurestore.offline.table import FeatureTable
from featurestore.online.materialization.pushed import PushedPart, Tiers, write_pushed
from featurestore.online.tier import MaterializationState
from featurestore.registry.snapshot import RegisteredGroup

Destination = Literal["online_and_offline", "online", "offline"]
ALLOWED_AHEAD = timedelta(minutes=5)
"""How far in the future a row's event time may lie: as far as two clocks may disagree."""


@dataclass(frozen=True, slots=True)
class PushResult:
    """What became of a push.

    Args:
        group: The group's stored name.
        rows: How many rows were pushed.
        pushed_at: The clock's instant at it; of a repeated push, at the first.
        table_version: The table's version that holds the rows; None if it was not asked to.
        was_repeated: A push with this idempotency key was there already: no row was added.
        parts: By part of the online tiers, what was written there, or why nothing was.
        waiting: Rows that are true of the future: online from their event time on, by a materialization.
        lost: Rows pushed to online alone that had outlived the group's ttl: they are nowhere.
        note: What no part says: why nothing went online, or how many rows are nowhere; "" if there is nothing.
    """

    group: str
    rows: int
    pushed_at: datetime
    table_version: int | None
    was_repeated: bool = False
    parts: tuple[PushedPart, ...] = ()
    waiting: int = 0
    lost: int = 0
    note: str = ""

    @property
    def told(self) -> str:
        """The note, and what each part gave as its reason not to take the rows; "" if there is nothing to tell."""
        reasons = [f"{part.part}: {part.reason}" for part in self.parts if part.reason]
        return "; ".join([self.note, *reasons] if self.note else reasons)

    @property
    def is_online(self) -> bool:
        """Whether every part took the rows, and none of them waits or is lost."""
        return bool(self.parts) and not (self.waiting or self.lost) and all(not part.reason for part in self.parts)


def push_rows(
    table: FeatureTable,
    tiers: Tiers,
    clock: Clock,
    rows: Rows,
    *,
    to: Destination = "online_and_offline",
    idempotency_key: str | None = None,
) -> PushResult:
    """Push rows to a group; `FeatureStore.push` has the rules.

    Args:
        tiers: Gives where the group is served from, in the order in which they are written: warm before hot. Not asked if
            nothing is to go online.
    """
    group, now = table.group, utc(clock(), name="clock")
    _check_destination(group, to)
    pushed = checked_rows(group, rows, now)
    if pushed.is_empty():
        return PushResult(group.name, 0, now, None, note="No rows were given.")
    if to == "online":
        return _push_online(table, tiers, pushed, now, clock)
    transaction = f"push/{idempotency_key or uuid4().hex}"
    commit = table.append_push(pushed, transaction=transaction, metadata={})
    pushed_at = datetime.fromisoformat(commit.metadata[PUSHED_AT])
    result = PushResult(group.name, pushed.height, pushed_at, commit.version, commit.was_recognised)
    if to == "offline":
        return result
    if not group.is_online:
        return replace(result, note=f"Group {group.name!r} is not served online.")
    return _followed(table, tiers, commit, pushed, result, clock)


def checked_rows(group: RegisteredGroup, rows: Rows, now: datetime) -> pl.DataFrame:
    """The rows of a push in stored dtypes: keys, `event_time` and features.

    Raises:
        SchemaMismatch: columns or dtypes are not those declared, and no cast keeps every value.
        InvalidInput: a row may not be pushed, or the rows together break the declaration; the message names rows, from 0.
    """
    what = f"Rows pushed to group {group.name!r}"
    given = as_polars(rows, what)
    names = [*group.key_names, "event_time", *group.feature_names]
    if given.is_empty():
        return pl.DataFrame(schema={name: group.stored_schema[name] for name in names})
    cast = cast_lossless(given, {name: group.stored_schema[name] for name in names}, what)
    _refuse_unfit(group, cast, now, what)
    known = known_rows(group, cast, now).with_columns(window_start=pl.lit(now).cast(TIMESTAMP))
    verdict = judge(group, known.drop("created_at"))
    if not verdict.passed:
        found = "; ".join(f"{finding}, e.g. {list(finding.examples)}" for finding in verdict.findings)
        raise InvalidInput(f"{what} are refused as a whole, and nothing is written: {found}.")
    return cast


def _refuse_unfit(group: RegisteredGroup, rows: pl.DataFrame, now: datetime, what: str) -> None:
    keys = [*group.key_names, "event_time"]
    faults = {
        "have a null key or event_time": pl.any_horizontal(pl.col(keys).is_null()),
        f"are true of the future (now is {now.isoformat()}, at most {ALLOWED_AHEAD} ahead are allowed)": (
            pl.col("event_time") > now + ALLOWED_AHEAD
        ),
        "are of one entity at one event time": pl.struct(keys).is_duplicated(),
    }
    for fault, mask in faults.items():
        if found := named_rows(rows, mask, keys):
            count = rows.filter(mask).height
            raise InvalidInput(
                f"{what} are refused as a whole, and nothing is written: {count} {fault}: {found}. Mend or drop them."
            )


def _check_destination(group: RegisteredGroup, to: str) -> None:
    if group.kind != "pushed":
        raise InvalidInput(
            f"Group {group.name!r} is {group.kind}: its rows are computed by its transform, and a row pushed in between would be one "
            "that nobody can recompute. Declare a pushed_group for what you push."
        )
    if to not in get_args(Destination):
        raise InvalidInput(f"A push goes to one of {list(get_args(Destination))}, not to {to!r}.")
    if to == "online" and not group.is_online:
        raise InvalidInput(
            f"Group {group.name!r} is not served online. Push to='offline', or declare online=Online(ttl=...)."
        )


def _followed(
    table: FeatureTable, tiers: Tiers, commit: Commit, pushed: pl.DataFrame, result: PushResult, clock: Clock
) -> PushResult:
    """The result once the online copies have, or lack, what was committed. From here on nothing fails the push."""
    created_at = pl.lit(commit.created_at).cast(TIMESTAMP)
    known = known_rows(table.group, pushed, result.pushed_at).with_columns(created_at=created_at)
    come = known.filter(pl.col("knowledge_time") <= result.pushed_at)
    basis = _basis(table, result.pushed_at, commit.version)
    parts = write_pushed(table, tiers, come, basis, clock, is_stored=True)
    return replace(result, parts=parts, waiting=known.height - come.height)


def _push_online(table: FeatureTable, tiers: Tiers, pushed: pl.DataFrame, now: datetime, clock: Clock) -> PushResult:
    """Write rows that the table will not know: they last until a rebuild. It is made, empty, since a copy is a table's."""
    _refuse_waiting(table.group, pushed, now)
    table.ensure()
    known = known_rows(table.group, pushed, now).with_columns(created_at=pl.lit(now).cast(TIMESTAMP))
    parts = write_pushed(table, tiers, known, _basis(table, now, table.version()), clock, is_stored=False)
    lost = _past_ttl(table.group, pushed, now)
    note = (
        f"{lost} of {pushed.height} rows had outlived the group's ttl of {table.group.ttl}, and are nowhere."
        if lost
        else ""
    )
    result = PushResult(table.group.name, pushed.height, now, None, parts=parts, lost=lost, note=note)
    if all(part.reason for part in parts):
        raise StoreUnavailable(f"Nothing was pushed to group {table.group.name!r}: {result.told}")
    return result


def _refuse_waiting(group: RegisteredGroup, pushed: pl.DataFrame, now: datetime) -> None:
    """A copy may not say what is not yet true, and rows that no table has could wait nowhere."""
    ahead = pl.col("event_time") > now
    if found := named_rows(pushed, ahead, [*group.key_names, "event_time"]):
        raise InvalidInput(
            f"Rows pushed to group {group.name!r} online alone are refused as a whole, and nothing is written: "
            f"{pushed.filter(ahead).height} are true of the future (now is {now.isoformat()}): {found}. Push them to "
            "'online_and_offline', where they wait for their time, or push them again when it has come."
        )


def _past_ttl(group: RegisteredGroup, pushed: pl.DataFrame, now: datetime) -> int:
    return 0 if group.ttl is None else pushed.filter(pl.col("event_time") <= now - group.ttl).height


def _basis(table: FeatureTable, now: datetime, version: int | None) -> MaterializationState:
    return MaterializationState(table.table_id or "", version or 0, now)
