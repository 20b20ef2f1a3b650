"""What any online tier answers with and is asked for. Not here: any server.

A tier is read as a whole and written part by part. A **part** is what empties or fails by itself: a server, a node of a
cluster, a table. Each part records for every group up to where it is materialized (R), so that a part that lost its data
is rebuilt alone. The hot tier is Redis or Valkey, the warm tier DynamoDB; where a group has both, the warm one moves first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import polars as pl

from featurestore.declaration.online import TierName
from featurestore.online.message.layout import Flags
from featurestore.online.published import Published


@dataclass(frozen=True, slots=True)
class MaterializationState:
    """R: up to where a group's online copy reflects its table.

    Args:
        table_id: Identity of the Delta table; a table created anew has another.
        version: Delta version.
        as_of: Rows known by then are online; UTC.
        contract: Digest of whatever a change of which needs a rebuild, such as ttl and max_age; "" if unused.
    """

    table_id: str
    version: int
    as_of: datetime
    contract: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a part said of a group when it was read: a value found elsewhere may be put there only while it still says so.

    Args:
        part: Name of the part.
        positions: Of the keys, by position in the read, that this part holds and had nothing for.
        record: The group's state there, as stored.
        reached: What a value must reflect to be put there: R, or what a step under way is moving to.
    """

    part: str
    positions: Sequence[int]
    record: bytes
    reached: MaterializationState


@dataclass(frozen=True, slots=True)
class Replies:
    """What a read of one group found.

    Args:
        messages: One per key, in key order; None where nothing was found.
        unanswered: Positions of keys that nobody could speak for: their part failed, was emptied, or was never filled with
            this group. Their None says nothing about the entity. Every other None says that there is none.
        warm: Positions of the messages that the warm tier gave.
        cause: Why keys are unanswered, for people; "" if none are.
        marks: Of parts that had nothing for some keys, for `repair`.
        state: R of the tier's one part where it has one and read it along; None if not.
        has_failed: Whether keys are unanswered because the warm tier's part was asked and did not answer; one that was never
            filled did.
        published: What a part has of the group's freshness, where it was asked for it along with the keys; None: it was not asked,
            or has nothing.
    """

    messages: list[bytes | None]
    unanswered: frozenset[int] = frozenset()
    warm: frozenset[int] = frozenset()
    cause: str = ""
    marks: tuple[Mark, ...] = ()
    state: MaterializationState | None = None
    has_failed: bool = False
    published: Published | None = None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a write's keys.

    Args:
        written: Keys that now hold the message given.
        left: Keys that keep a value which is not lower; their fence was lifted.
        refused: Positions of the keys whose stored fence is above the message's, or which are not stored while the part has more
            than the write reflects: read the table again.
    """

    written: int
    left: int
    refused: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fill:
    """A rebuild under way: its slices are written one after the other, and whoever goes on with it takes it over.

    Args:
        target: What the copy reflects once all slices are written.
        slices: How many there are.
        done: How many of them, from the first, are written.
        owner: Token of the one who may write; a new owner shuts out the last one.
    """

    target: MaterializationState
    slices: int
    done: int
    owner: str


class TierPart(Protocol):
    """One part of a tier, as materialization sees it.

    Every method raises StoreUnavailable if the part does not answer, and FenceRefused if the group has another epoch there.
    """

    @property
    def tier(self) -> TierName: ...

    @property
    def name(self) -> str:
        """For people and logs: 'hot 127.0.0.1:6379', 'warm featurestore-online'; never a password."""
        ...

    @property
    def can_resume(self) -> bool:
        """Whether another may go on with a fill; if not, a fill that was cut short starts over."""
        ...

    def owns(self, keys: Sequence[bytes]) -> Flags | None:
        """Which keys lie in this part; None: all of them."""
        ...

    def ensure_epoch(self, group: str) -> str:
        """The epoch that writes and states of a group carry."""
        ...

    def state(self, group: str) -> MaterializationState | None:
        """R; None (rebuild) if that is unknown or of another epoch."""
        ...

    def begin_step(self, group: str, target: MaterializationState, *, epoch: str) -> None:
        """Say, before the first write of a step from R, what it moves to: no repair with less gets in from now on."""
        ...

    def write(
        self,
        group: str,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        *,
        epoch: str,
        ttl: timedelta | None,
        removed: pl.DataFrame | None = None,
        basis: MaterializationState | None = None,
    ) -> WriteResult:
        """Write messages by the rule of versions and fences, atomically per key.

        `basis` is what the messages reflect. Where keys may be evicted, a key that is not stored refuses a message whose basis is
        behind what the part has, or is moving to: there is nothing left of the key that could tell the message is old.
        """
        ...

    def set_state(self, group: str, state: MaterializationState, *, epoch: str, is_rebuild: bool = False) -> None:
        """Record R after the last key of a step, or of a fill, was written; never backwards."""
        ...

    def start_over(self, group: str, *, epoch: str) -> str:
        """Forget the group's copy, to build it anew; the epoch from now on."""
        ...

    def fill_under_way(self, group: str) -> Fill | None:
        """The fill that was begun and not ended under the group's epoch."""
        ...

    def record_fill(self, group: str, fill: Fill, *, epoch: str, previous: str | None) -> None:
        """Begin a fill, take it over, or note a slice done; refused (FenceRefused) unless `previous` is the owner recorded."""
        ...

    def fill(
        self,
        group: str,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        *,
        epoch: str,
        ttl: timedelta | None,
        owner: str,
    ) -> None:
        """Write messages without looking at what is stored: only while no reader uses the group, and only by the fill's owner."""
        ...

    def publish(self, records: Mapping[str, Published]) -> None:
        """Keep, by group, what a look found, for readers; what is there of a newer look, or of the same, stays. No epoch is needed."""
        ...


class Tier(Protocol):
    """A whole tier, as reads see it."""

    @property
    def name(self) -> TierName: ...

    def read_many(
        self, keys_by_group: Mapping[str, Sequence[bytes]], *, timeout_seconds: float | None = None
    ) -> dict[str, Replies]:
        """Read messages of several groups, one round trip a part, all parts at once.

        Never raises for what parts do: the keys of those that failed, or did not answer in time, are unanswered.
        """
        ...

    def parts(self) -> Sequence[TierPart]:
        """What is materialized by itself, as it stands now."""
        ...

    def repair(
        self, group: str, mark: Mark, keys: Sequence[bytes], messages: Sequence[bytes], ttl: timedelta | None
    ) -> int:
        """Put back what a read missed and another tier had, by the fenced write, if the part still says what `mark` says.

        Returns:
            How many keys were written. Never raises for what the part does.
        """
        ...

    def close(self) -> None: ...
