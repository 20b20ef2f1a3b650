"""Rows as batches ready to be sent: keys, messages, removed versions. Not here: which rows, or a store.

A batch is made in another thread while the one before it is on its way, so that the server and this process work at once.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import compress
from typing import TypeVar

import numpy as np
import polars as pl

from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.materialization.served_rows import VERSION
from featurestore.online.message.encode import encode
from featurestore.online.message.layout import Flags
from featurestore.online.message.schema import layout_of
from featurestore.online.tier import TierPart
from featurestore.registry.snapshot import RegisteredGroup

BATCH_ROWS = 20_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages and their keys.

    Args:
        keys: Online keys, one per message.
        messages: As `encode` makes them.
        removed: Versions that the keys lost, as `TierPart.write` takes them; None if there are none.
        share: How much of its portion or slice is in this batch and those before it, from 0 to 1.
    """

    keys: Sequence[bytes]
    messages: Sequence[bytes]
    removed: pl.DataFrame | None
    share: float

    def owned_by(self, part: TierPart) -> "tuple[Sequence[bytes], Sequence[bytes]]":
        """The keys and messages that lie in a part."""
        flags = part.owns(self.keys)
        if flags is None or flags.all():
            return self.keys, self.messages
        return list(compress(self.keys, flags)), list(compress(self.messages, flags))


def batches(
    group: RegisteredGroup,
    rows: pl.DataFrame,
    removed: pl.DataFrame | None,
    parts: Sequence[TierPart],
    *,
    fence: int,
) -> Iterator[Batch]:
    """Encode rows that lie in some of the parts. The last batch has share 1; without rows it is the only one, and empty.

    Args:
        group: Whose rows they are.
        rows: Stored columns.
        removed: Keys and versions that some of the rows' entities lost.
        parts: Rows that none of them owns are left out.
        fence: Goes into every message.
    """
    lost = _Lost(group, rows, removed)
    for start in range(0, max(1, rows.height), BATCH_ROWS):
        some = rows.slice(start, BATCH_ROWS)
        keys = online_keys(group.name, entity_ids(some, group.key_names))
        owned = _owned(parts, keys)
        if owned is not None:
            some, keys = some.filter(pl.Series(owned)), list(compress(keys, owned))
        messages = encode(layout_of(group), some, schema_number=group.schema_number, fence=fence)
        share = min(1.0, (start + BATCH_ROWS) / max(1, rows.height))
        yield Batch(keys, messages, lost.of(start, BATCH_ROWS, owned), share)


def _owned(parts: Sequence[TierPart], keys: Sequence[bytes]) -> Flags | None:
    """Which keys lie in any of the parts; None: all of them."""
    flags = [part.owns(keys) for part in parts]
    known = [one for one in flags if one is not None]
    if len(known) < len(flags):
        return None
    owned = np.logical_or.reduce(known)
    return None if owned.all() else owned


class _Lost:
    """Removed versions in the order of the rows that they belong to, so that a batch's are a slice of them."""

    def __init__(self, group: RegisteredGroup, rows: pl.DataFrame, removed: pl.DataFrame | None) -> None:
        self._group = group
        self._lost: pl.DataFrame | None = None
        if removed is not None and removed.height:
            places = rows.select(group.key_names).with_row_index("place")
            self._lost = removed.join(places, on=list(group.key_names)).sort("place")

    def of(self, start: int, count: int, owned: Flags | None) -> pl.DataFrame | None:
        """Those of the rows from `start` on."""
        if self._lost is None:
            return None
        first, last = (self._lost["place"].search_sorted(at) for at in (start, start + count))
        some = self._lost.slice(int(first), int(last) - int(first))
        if owned is not None:
            some = some.filter(pl.Series(owned).gather(some["place"] - start))
        if some.is_empty():
            return None
        ids = entity_ids(some, self._group.key_names)
        return some.select(VERSION).with_columns(pl.Series("key", online_keys(self._group.name, ids), pl.Binary))


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made while the caller is busy with the one before; not made further ahead than that."""
    with ThreadPoolExecutor(1, "batches") as maker:
        following = maker.submit(next, items, None)
        while (item := following.result()) is not None:
            following = maker.submit(next, items, None)
            yield item
