"""The entity rows of a read: the online keys of each group, and the rows again as the answer's first columns.

Rows of plain Python values become keys without a frame, which for a small batch would cost more than the whole read; all
else goes through Polars, which also says what is wrong with it. Not here: how keys are spelled (`keys`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import polars as pl

from featurestore.errors import InvalidInput
from featurestore.frames import Rows, as_polars
from featurestore.historical import check_keys
from featurestore.online.keys import PlainId, entity_ids, plain_ids, plain_keys
from featurestore.online.reading.plan import GroupPlan, ReadPlan
from featurestore.online.tier import Replies

Columns = dict[str, list[Any]]
_Ids = tuple[Sequence[PlainId], list[int] | None]
"""Ids of the rows that name an entity, and which rows they are; None: all."""


@dataclass(frozen=True, eq=False)
class Keys:
    """One group's keys of the rows that name an entity.

    Args:
        sent: The keys to read.
        places: Rows that they stand for; None: all rows, each its own.
    """

    sent: list[bytes]
    places: list[int] | None

    def spread(self, replies: Replies, count: int) -> Replies:
        """Replies to the keys, spread over all `count` rows; a null key is answered: nothing is there."""
        if self.places is None:
            return replies
        messages: list[bytes | None] = [None] * count
        for place, message in zip(self.places, replies.messages, strict=True):
            messages[place] = message
        unanswered, warm = (frozenset(self.places[i] for i in found) for found in (replies.unanswered, replies.warm))
        return replace(replies, messages=messages, unanswered=unanswered, warm=warm)


@dataclass(frozen=True, eq=False)
class Entities:
    """The rows asked.

    Args:
        rows: As columns of plain values, or as a frame.
        count: How many there are.
        keys: Of each group.
    """

    rows: Columns | pl.DataFrame
    count: int
    keys: Mapping[str, Keys]

    @property
    def sent(self) -> dict[str, list[bytes]]:
        """The keys to read, by group."""
        return {group: keys.sent for group, keys in self.keys.items()}

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows as a frame."""
        return self.rows if isinstance(self.rows, pl.DataFrame) else as_polars(self.rows, "entity_rows")

    def to_dict(self) -> Columns:
        """The rows as one list a column."""
        if isinstance(self.rows, pl.DataFrame):
            return self.rows.to_dict(as_series=False)
        return {name: list(values) for name, values in self.rows.items()}


def entities_of(rows: Rows, plan: ReadPlan) -> Entities:
    """Read the rows asked, and spell the keys of every group.

    Args:
        rows: Entity keys of every group and any other columns, in any form that `frames.as_polars` takes.
        plan: The request's.

    Raises:
        InvalidInput: the rows are no table, lack a key column, or have a column of the name that a feature is to get.
        SchemaMismatch: a key has another dtype than its entity.
    """
    columns = _plain_columns(rows)
    if columns:
        whole: Columns | pl.DataFrame = columns
        if columns.keys() - plan.key_schema:  # values of any type: a frame finds out now what it makes of them
            whole = as_polars(rows, "entity_rows")
        _refuse_taken(columns, plan)
        keys = _plain_keys(columns, plan)
        if keys is not None:
            return Entities(whole, len(next(iter(columns.values()))), keys)
    frame = _entity_frame(rows, plan)
    for one in plan.groups:
        check_keys(frame, one.requested)
    return Entities(frame, frame.height, {one.name: _frame_keys(frame, one) for one in plan.groups})


def _plain_columns(rows: Rows) -> Columns | None:
    """Rows as columns if they are plainly a list of dicts with the same keys, or a dict of lists of one length."""
    if type(rows) is dict:
        if {type(values) for values in rows.values()} != {list} or len({len(values) for values in rows.values()}) != 1:
            return None
        columns = {name: list(values) for name, values in rows.items()}
    elif type(rows) is list and rows and set(map(type, rows)) == {dict}:
        names = list(rows[0])
        if sum(map(len, rows)) != len(names) * len(rows):
            return None
        try:
            columns = {name: [row[name] for row in rows] for name in names}
        except KeyError:
            return None
    else:
        return None
    return columns if all(columns.values()) and set(map(type, columns)) == {str} else None


def _plain_keys(columns: Columns, plan: ReadPlan) -> dict[str, Keys] | None:
    """Keys of every group; None if a column is missing or of other values, of which a frame then tells."""
    made: dict[tuple[tuple[str, str], ...], _Ids | None] = {}
    keys = {}
    for one in plan.groups:
        entity = one.group.keys
        if entity not in made:
            made[entity] = _plain_entity_ids(columns, one)
        found = made[entity]
        if found is None:
            return None
        ids, places = found
        try:
            keys[one.name] = Keys(plain_keys(one.name, ids), places)
        except UnicodeEncodeError:  # half a character
            return None
    return keys


def _plain_entity_ids(columns: Columns, one: GroupPlan) -> _Ids | None:
    """Ids of one group's entities; None where a frame has to look at the rows."""
    wanted = [columns.get(name) for name in one.key_names]
    own = [column for column in wanted if column is not None]
    ids = plain_ids(own, one.key_dtypes) if len(own) == len(wanted) else None
    if ids is None:
        return None
    if not any(None in column for column in own):
        return cast(Sequence[PlainId], ids), None
    places = [place for place, spelled in enumerate(ids) if spelled is not None]
    return [spelled for spelled in ids if spelled is not None], places


def _entity_frame(rows: Rows, plan: ReadPlan) -> pl.DataFrame:
    """The rows as a frame; no rows at all, as an empty list gives them, have the keys' columns."""
    frame = as_polars(rows, "entity_rows")
    if not frame.columns and not frame.height:
        frame = pl.DataFrame(schema=plan.key_schema)
    _refuse_taken(frame.columns, plan)
    return frame


def _refuse_taken(names: Columns | Sequence[str], plan: ReadPlan) -> None:
    if plan.columns.isdisjoint(names):
        return
    taken = [column for one in plan.groups for column in one.columns if column in names]
    raise InvalidInput(
        f"The entity rows already have columns {taken}. Leave them out, or ask with full_feature_names=True."
    )


def _frame_keys(frame: pl.DataFrame, one: GroupPlan) -> Keys:
    keyed = frame.select(pl.col(key).cast(dtype) for key, dtype in one.group.key_schema.items())
    has_key = keyed.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
    if has_key.all():
        return Keys(plain_keys(one.name, entity_ids(keyed, one.key_names).to_list()), None)
    ids = entity_ids(keyed.filter(has_key), one.key_names)
    return Keys(plain_keys(one.name, ids.to_list()), has_key.arg_true().to_list())
