"""Writing pushed rows into every part of the online tiers, by the fenced newest-wins write, where a copy is built.

The first push to a group builds the copy, which is empty or has that push alone. Later a part without a copy is left alone: its
fill takes the rows from the table, and that may be long. Nothing here fails a push: what a part did not take
it says, and the next materialization brings it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import compress

import polars as pl

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.offline.difference import VERSION
from featurestore.offline.table import FeatureTable
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.materialization.materialize import materialize
from featurestore.online.materialization.planning import target_of
from featurestore.online.materialization.served_rows import ServedRows
from featurestore.online.message.encode import encode
from featurestore.online.message.schema import layout_of
from featurestore.online.tier import MaterializationState, Tier, TierPart

Tiers = Callable[[], Sequence[Tier]]
TRIES = 3
FIRST_PUSH = 1
"""The version of a table's first rows."""
HEALED = "The next materialization brings the rows."


@dataclass(frozen=True, slots=True)
class PushedPart:
    """What one part took: keys `written`, and `left` with a value that is not lower; else `reason` says why it did not."""

    part: str
    written: int = 0
    left: int = 0
    reason: str = ""


def write_pushed(
    table: FeatureTable,
    tiers: Tiers,
    known: pl.DataFrame,
    basis: MaterializationState,
    clock: Clock,
    *,
    is_stored: bool,
) -> tuple[PushedPart, ...]:
    """Offer each entity's newest row to every part, the tiers in the order given.

    Where a part of one tier fails, the tiers after it are left alone: the hot tier is never ahead of what backs it.

    Args:
        known: Rows with `created_at`; those past their ttl are not written.
        basis: The table's version whose fence the rows carry, and the instant of the push.
        clock: Says as of when keys are read again that a part refused.
        is_stored: Whether the rows are the table's; if not, no version of it has them.
    """
    offer = _Offer(table, _newest(table, known, basis.as_of), basis, clock, is_stored)
    done = list[PushedPart]()
    try:
        opened = tiers()
        _begin_copies(table, opened, basis, clock)
        for tier in opened:
            if any(part.reason and part.reason != _unbuilt(table) for part in done):
                done.append(PushedPart(tier.name, reason=f"It is written after the tier before it. {HEALED}"))
            else:
                done += [offer.to(part) for part in tier.parts()]
    except FeatureStoreError as error:
        done.append(PushedPart("online", reason=f"{error} {HEALED}"))
    return tuple(done)


def _begin_copies(table: FeatureTable, tiers: Sequence[Tier], basis: MaterializationState, clock: Clock) -> None:
    """Build the copies of a group whose table has one push at most. What keeps one from being built, its part says later."""
    if basis.version > FIRST_PUSH:
        return
    with suppress(FeatureStoreError):
        parts = [part for tier in tiers for part in tier.parts()]
        if any(part.state(table.group.name) is None for part in parts):
            materialize(table, parts, clock)


def _newest(table: FeatureTable, rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    ttl = table.group.ttl
    live = rows if ttl is None else rows.filter(pl.col("event_time") >= now - ttl)
    return live.sort(VERSION).unique(table.group.key_names, keep="last", maintain_order=True)


@dataclass(frozen=True, slots=True)
class _Offer:
    """One row an entity, for every part; `write_pushed` says what the rest is."""

    table: FeatureTable
    rows: pl.DataFrame
    basis: MaterializationState
    clock: Clock
    is_stored: bool

    def to(self, part: TierPart) -> PushedPart:
        """Write a part's keys, if it has a copy of this very table."""
        name = self.table.group.name
        try:
            epoch = part.ensure_epoch(name)
            state = part.state(name)
            if state is None or state.table_id != self.basis.table_id:
                return PushedPart(part.name, reason=_unbuilt(self.table))
            return self._write(part, epoch)
        except FeatureStoreError as error:
            return PushedPart(part.name, reason=f"{error} {HEALED}")

    def _write(self, part: TierPart, epoch: str) -> PushedPart:
        """Keys that were rewound since, or that the part has more of, are read again."""
        group, done = self.table.group, PushedPart(part.name)
        rows, basis = self.rows, self.basis
        for _ in range(TRIES):
            keys = online_keys(group.name, entity_ids(rows, group.key_names))
            if (mine := part.owns(keys)) is not None:
                rows, keys = rows.filter(pl.Series(mine)), list(compress(keys, mine))
            fence = self.table.fence(basis.version)
            messages = encode(layout_of(group), rows, schema_number=group.schema_number, fence=fence)
            result = part.write(group.name, keys, messages, epoch=epoch, ttl=group.ttl, basis=basis)
            done = replace(done, written=done.written + result.written, left=done.left + result.left)
            if not result.refused:
                return done
            rows, basis = self._again(rows[list(result.refused)])
        return replace(done, reason=f"Others kept being ahead of {rows.height} keys. {HEALED}")

    def _again(self, refused: pl.DataFrame) -> tuple[pl.DataFrame, MaterializationState]:
        """What is known now of the refused rows' entities."""
        target = target_of(self.table, self.clock()) or self.basis
        stored = ServedRows(self.table, target).of(keys=refused.select(self.table.group.key_names))
        if not self.is_stored:
            stored = pl.concat([stored.select(refused.columns), refused])
        return _newest(self.table, stored, target.as_of), target


def _unbuilt(table: FeatureTable) -> str:
    return f"There is no copy of group {table.group.name!r} here yet: materialize it once."
