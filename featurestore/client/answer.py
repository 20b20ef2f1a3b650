"""What the server answers, as the store itself would have: typed frames out of an Arrow body, and what became of a push."""

import json
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.errors import InvalidInput, SchemaMismatch, StoreUnavailable
from featurestore.freshness.read_state import Freshness
from featurestore.online.reading.retrieval import ONLINE_STATUS, TIER, UNAVAILABLE, OnlineFeatures
from featurestore.serving import wire

PARTS = ("", wire.STATUS, wire.EVENT_TIME, wire.AGE_SECONDS, wire.TIER)
"""What each feature has in the body, in this order: its value, and four columns that are named after it."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a push; `featurestore.push.PushResult` says more where rows are pushed without a server.

    Args:
        group: The group's stored name.
        rows: How many rows were pushed.
        table_version: The table's version that holds the rows; None if it was not asked to.
        was_repeated: A push with this idempotency key was there already: no row was added.
        is_online: Whether every part of the online store took the rows, and none of them waits, or had outlived the group's ttl where no table has it.
        waiting: Rows that are true of the future: online from their event time on.
        note: Why a part of the online tiers did not take the rows, and which columns were passed over; "" if there is nothing to tell.
    """

    group: str
    rows: int
    table_version: int | None
    was_repeated: bool
    is_online: bool
    waiting: int
    note: str


def read_answer(body: bytes, rows: pl.DataFrame) -> OnlineFeatures:
    """The answer to a read, exactly as `FeatureStore.get_online_features` gives it.

    Args:
        body: Arrow IPC stream: the keys, then the columns of each feature.
        rows: The entity rows that were asked; their columns come first in the result, as they are.

    Raises:
        InvalidInput: the rows have a column of the name that a feature is to get.
        SchemaMismatch: a key has another dtype than its entity.
        StoreUnavailable: the body is not such an answer.
    """
    table = _table(body)
    names = _feature_names(table.columns)
    keys = table.columns[: table.width - len(PARTS) * len(names)]
    rows = rows if rows.columns else table.select(keys).clear()  # no rows that name no keys: the server names them
    _check(rows, table, keys, names)
    tiers = table.select(pl.col(name + wire.TIER).cast(TIER).alias(name) for name in names)
    times = table.select(pl.col(name + wire.EVENT_TIME).cast(TIMESTAMP).alias(name) for name in names)
    statuses = table.select(_status(name) for name in names)
    frame = rows.with_columns(table.select(names))
    return OnlineFeatures(frame, statuses, times, tiers, *_told(body))


def read_pushed(body: bytes) -> Pushed:
    """The answer to a push.

    Raises:
        StoreUnavailable: the body is not such an answer.
    """
    try:
        said = json.loads(body)
        return Pushed(**{name: said[name] for name in Pushed.__slots__})
    except (ValueError, TypeError, KeyError) as error:
        raise _not_an_answer(f"no result of a push ({error})") from error


def _table(body: bytes) -> pl.DataFrame:
    try:
        return pl.read_ipc_stream(body)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_an_answer(f"no Arrow stream ({error})") from error


def _told(body: bytes) -> tuple[dict[str, str], Freshness]:
    """Why values are not there, and how fresh the groups are, from the schema's metadata: pyarrow reads it, Polars does not."""
    try:
        with pa.ipc.open_stream(body) as stream:
            told = stream.schema.metadata or {}
        causes = dict(json.loads(told.get(wire.CAUSES.encode(), b"{}")))
        return causes, Freshness.of_document(json.loads(told[wire.FRESHNESS.encode()]))
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise _not_an_answer(f"of metadata that cannot be read ({error!r})") from error


def _not_an_answer(what: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The server's answer is {what}. Check that the URL is a feature server's, of this or a later version."
    )


def _feature_names(columns: list[str]) -> list[str]:
    """Names of the features, found from the end on: what stands before them are keys."""
    names: list[str] = []
    end = len(columns)
    while end >= len(PARTS):
        name, *others = columns[end - len(PARTS) : end]
        if [name, *others] != [name + part for part in PARTS]:
            break
        names.insert(0, name)
        end -= len(PARTS)
    if not names:
        raise _not_an_answer(f"without features: {columns[:10]}")
    return names


def _check(rows: pl.DataFrame, table: pl.DataFrame, keys: list[str], names: list[str]) -> None:
    if taken := [name for name in names if name in rows.columns]:
        raise InvalidInput(
            f"The entity rows already have columns {taken}. Leave them out, or ask with full_feature_names=True."
        )
    if table.height != rows.height:
        raise _not_an_answer(f"of {table.height:,} rows to a question of {rows.height:,}")
    for key in keys:
        given, dtype = rows.schema[key], table.schema[key]
        if given not in (dtype, pl.Null()) and not (given.is_integer() and dtype.is_integer()):
            raise SchemaMismatch(
                f"Key {key!r} is {given}; its entity declares {dtype}. Cast it first: pl.col({key!r}).cast(pl.{dtype})."
            )


def _status(name: str) -> pl.Expr:
    said: Any = pl.col(name + wire.STATUS)
    expression: pl.Expr = said.replace(wire.INVALID, UNAVAILABLE).cast(ONLINE_STATUS).alias(name)
    return expression
