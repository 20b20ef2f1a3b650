"""What a part is to be moved to: the step from R to the newest table version, or none, which means a rebuild.

Whatever a plan rests on it reads after R: a writer that was held up plans at least what R already holds. Not here: writing.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.errors import InvalidInput, StaleWriter
from featurestore.frames import plain_rows
from featurestore.offline.changes import Changes
from featurestore.offline.table import FeatureTable
from featurestore.online.advance import furthest
from featurestore.online.materialization.served_rows import VERSION, ServedRows
from featurestore.online.materialization.slices import rows_in_a_slice
from featurestore.online.message.encode import encode
from featurestore.online.message.layout import BEFORE_EVERYTHING, MESSAGE_FORMAT, MessageLayout
from featurestore.online.message.schema import layout_of
from featurestore.online.tier import MaterializationState
from featurestore.registry.snapshot import RegisteredGroup

CLOCK_SKEW = timedelta(minutes=5)
"""How far R's instant may be ahead of a writer's clock and still be taken for another clock, not for a replay of the past."""
_CHECKED_ROWS = 50_000


@dataclass(frozen=True)
class Portion:
    """Some of a plan's entities: what to offer each of them, and the versions that they lost.

    Args:
        rows: Stored columns; a frontier row or a tombstone for each entity.
        removed: Keys and versions, any number for an entity.
    """

    rows: pl.DataFrame
    removed: pl.DataFrame


class Plan:
    """A step from R: the entities to look at, a portion at a time.

    Args:
        served: What the target serves; the target is R once all of it is written.
        touched: Keys of every entity to look at, once each.
        removed: Keys and versions that the table lost in (R, V].
        portion_rows: How many entities a portion may have.
    """

    def __init__(
        self,
        served: ServedRows,
        touched: pl.DataFrame,
        removed: pl.DataFrame,
        portion_rows: int,
    ) -> None:
        self.served, self.group, self.target = served, served.group, served.target
        self.touched, self.removed = touched.sort(list(self.group.key_names)), removed
        self.portion_rows = portion_rows
        self._only: Portion | None = None

    @property
    def portion_count(self) -> int:
        return -(-self.touched.height // self.portion_rows)

    def portions(self) -> Iterator[Portion]:
        """Read again for each part that takes the step, unless there is only one: that is kept."""
        if self.portion_count == 1:
            self._only = self._only or self._portion(self.touched)
            yield self._only
        else:
            yield from (self._portion(keys) for keys in self.touched.iter_slices(self.portion_rows))

    def _portion(self, keys: pl.DataFrame) -> Portion:
        rows = self.served.of(keys=keys)
        rows = pl.concat([rows, _nothing_known(self.group, keys, rows)])
        removed = self.removed
        if self.portion_count > 1:
            removed = removed.join(keys, on=list(self.group.key_names), how="semi")
        return Portion(rows, removed)

    def refuse_unservable(self) -> None:
        """Refuse before anything is sent what would be refused in the middle of writing.

        Raises:
            InvalidInput: a row cannot be served as it is.
        """
        if self.portion_count == 1:
            for portion in self.portions():
                _refuse_rows(self.group, self.target, portion.rows)
        elif self.portion_count > 1:
            refuse_unservable(self.served, self.touched)


def plan_step(
    table: FeatureTable, state: MaterializationState, target: MaterializationState, portion_bytes: int
) -> Plan | None:
    """The step from R to a target that was looked up after R was read; None if R cannot be continued.

    Raises:
        StaleWriter: R is of a newer registry than this process has.
    """
    if state.table_id != target.table_id or state.as_of > target.as_of + CLOCK_SKEW:
        return None
    refuse_older_registry(table.group, state)
    if not is_same_copy(table.group, state.contract):
        return None
    changes = table.changes(state.version, max(state.version, target.version), table_id=state.table_id)
    if not isinstance(changes, Changes):
        return None
    served = ServedRows(table, furthest(state, target))
    touched = pl.concat([changes.keys, served.come_since(state.as_of)]).unique()
    return Plan(served, touched, changes.removed, rows_in_a_slice(table.group, portion_bytes))


def target_of(table: FeatureTable, now: datetime) -> MaterializationState | None:
    """The newest version as of now; None if there is no table."""
    newest = table.newest()
    if newest is None:
        return None
    version, table_id = newest
    return MaterializationState(table_id, version, now, contract_of(table.group))


def is_covered(state: MaterializationState, target: MaterializationState) -> bool:
    """Whether a target of the same table holds at least what R does."""
    is_same = state.table_id == target.table_id
    return is_same and state.version <= target.version and state.as_of <= target.as_of


def contract_of(group: RegisteredGroup) -> str:
    """What a stored copy depends on beside the rows: the schema's number, and a digest of the message format and what was declared."""
    return _contract_at(group, group.schema_number)


def _contract_at(group: RegisteredGroup, schema_number: int) -> str:
    """As a process would have said when `schema_number` was the newest: features that came later are left out."""
    features = [(feature.number, feature.dtype_name) for feature in group.features if feature.since <= schema_number]
    text = f"format {MESSAGE_FORMAT}/{group.ttl_us}/{group.max_age_us}/{features}{group.first_schema}"
    return f"{schema_number}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_same_copy(group: RegisteredGroup, contract: str) -> bool:
    """Whether a copy made under a contract goes on under the present one: nothing changed, or features were only added.

    Rows carry their schema numbers, so a copy of older and newer rows is read right. A changed ttl, max_age or dtype, a
    feature that is gone, or another format of messages, builds it anew.
    """
    number = _number_of(contract)
    return number is not None and number <= group.schema_number and contract == _contract_at(group, number)


def refuse_older_registry(group: RegisteredGroup, state: MaterializationState) -> None:
    """A process that still holds an older registry would rebuild the copy without the newer features, again and again."""
    number = _number_of(state.contract)
    if number is not None and number > group.schema_number:
        raise StaleWriter(
            f"The online copy of group {group.name!r} has schema number {number}; the registry in use here knows "
            f"{group.schema_number}. Read the registry again: a new FeatureStore does."
        )


def _number_of(contract: str) -> int | None:
    number = contract.partition("/")[0]
    return int(number) if number.isdecimal() else None


def refuse_unservable(served: ServedRows, keys: pl.DataFrame | None = None) -> None:
    """Refuse rows that cannot be served, among all served rows of a version or those of some entities.

    Raises:
        InvalidInput: there is one; nothing was sent yet.
    """
    found = served.suspects()
    if keys is not None:
        found = found.join(keys, on=list(served.group.key_names), how="semi")
    if found.height:
        _refuse_rows(served.group, served.target, served.of(keys=found))


def _refuse_rows(group: RegisteredGroup, target: MaterializationState, rows: pl.DataFrame) -> None:
    now = target.as_of
    future = rows.filter(pl.col("event_time") > now).select(*group.key_names, "event_time")
    if future.height:
        raise InvalidInput(
            f"{future.height} keys of group {group.name!r} have rows that are true of the future, first {plain_rows(future.head(1))[0]}; "
            f"it is {now.isoformat()}. Such a row would keep every later value out: correct its window, or this machine's clock."
        )
    # Only these can be too long or beyond the calendar; the others need not be encoded twice.
    fields = [field for field in layout_of(group).fields if field.can_be_refused]
    for some in rows.iter_slices(_CHECKED_ROWS):
        encode(MessageLayout(tuple(fields)), some, schema_number=group.schema_number, fence=0)


def _nothing_known(group: RegisteredGroup, touched: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Tombstones for touched keys without a row: lower than any version, they only take the place of a removed one."""
    gone = touched.join(rows, on=list(group.key_names), how="anti")
    times = dict.fromkeys((*VERSION, "window_start"), pl.lit(BEFORE_EVERYTHING).cast(TIMESTAMP))
    number = pl.lit(group.schema_number, dtype=pl.Int32)
    return pl.concat(
        [rows.clear(), gone.with_columns(**times, is_deleted=pl.lit(True), schema_number=number)], how="diagonal"
    ).select(rows.columns)
