"""Writing pushed rows into every part of the online tiers, by the fenced newest-wins write, where a copy is built.

A part without a copy is left alone: its fill takes the rows from the table. Nothing here fails a push: what a part did not take
it says, and the next materialization brings it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl

from featurestore.errors import FeatureStoreError
from featurestore.offline.difference import VERSION
from featurestore.offline.log import NO_FENCE
from featurestore.offline.table import FeatureTable
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.message.encode import encode
from featurestore.online.message.schema import layout_of
from featurestore.online.tier import Tier, TierPart

Tiers = Callable[[], Sequence[Tier]]
TRIES = 3
HEALED = "The next materialization brings the rows."


@dataclass(frozen=True, slots=True)
class PushedPart:
    """What one part took: keys `written`, and `left` with a value that is not lower; else `reason` says why it did not."""

    part: str
    written: int = 0
    left: int = 0
    reason: str = ""


def write_pushed(
    table: FeatureTable, tiers: Tiers, known: pl.DataFrame, now: datetime, version: int | None
) -> tuple[PushedPart, ...]:
    """Offer each entity's newest row to every part, the tiers in the order given.

    Where a part of one tier fails, the tiers after it are left alone: the hot tier is never ahead of what backs it.

    Args:
        known: Stored rows with `created_at`; rows past their ttl are not written.
        version: The table's version whose fence the rows carry.
    """
    rows, done = _newest(table, known, now), list[PushedPart]()
    try:
        for tier in tiers():
            if any(part.reason and part.reason != _unbuilt(table) for part in done):
                done.append(PushedPart(tier.name, reason=f"It is written after the tier before it. {HEALED}"))
            else:
                done += [_write_part(table, part, rows, version) for part in tier.parts()]
    except FeatureStoreError as error:
        done.append(PushedPart("online", reason=f"{error} {HEALED}"))
    return tuple(done)


def _newest(table: FeatureTable, known: pl.DataFrame, now: datetime) -> pl.DataFrame:
    ttl = table.group.ttl
    live = known if ttl is None else known.filter(pl.col("event_time") > now - ttl)
    return live.sort(VERSION).unique(table.group.key_names, keep="last", maintain_order=True)


def _write_part(table: FeatureTable, part: TierPart, rows: pl.DataFrame, version: int | None) -> PushedPart:
    """Write a part's keys, if it has a copy of this very table."""
    name = table.group.name
    try:
        epoch = part.ensure_epoch(name)
        state = part.state(name)
        if state is None or state.table_id != table.table_id:
            return PushedPart(part.name, reason=_unbuilt(table))
        return _offer(table, part, rows, version, epoch)
    except FeatureStoreError as error:
        return PushedPart(part.name, reason=f"{error} {HEALED}")


def _offer(table: FeatureTable, part: TierPart, rows: pl.DataFrame, version: int | None, epoch: str) -> PushedPart:
    """Write by the fence of a version; keys that were rewound since, by a newer one's."""
    group, done = table.group, PushedPart(part.name)
    keys = online_keys(group.name, entity_ids(rows, group.key_names))
    if (mine := part.owns(keys)) is not None:
        rows, keys = rows.filter(pl.Series(mine)), [key for key, is_mine in zip(keys, mine, strict=True) if is_mine]
    for _ in range(TRIES):
        fence = NO_FENCE if version is None else table.fence(version)
        messages = encode(layout_of(group), rows, schema_number=group.schema_number, fence=fence)
        result = part.write(group.name, keys, messages, epoch=epoch, ttl=group.ttl)
        done = replace(done, written=done.written + result.written, left=done.left + result.left)
        if not result.refused:
            return done
        rows, keys = rows[list(result.refused)], [keys[position] for position in result.refused]
        version = table.version()
    return replace(done, reason=f"{len(keys)} keys have a newer fence. {HEALED}")


def _unbuilt(table: FeatureTable) -> str:
    return f"There is no copy of group {table.group.name!r} here yet: materialize it once."
