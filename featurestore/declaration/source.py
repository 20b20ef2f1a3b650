"""Raw, append-only inputs of feature groups, and when their rows count as known."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import NoneType

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.declaration.feature import OWNER, check_name, check_owner, checked_dtype
from featurestore.declaration.types import require, require_duration, require_items, require_mapping
from featurestore.declaration.windows import utc
from featurestore.errors import DeclarationError

PLATFORM_NAMES = frozenset(
    ["knowledge_time", "landed_at", "is_history", "landing_file", "landing_row", "known_year", "known_month"]
)
"""Columns that the platform adds to every raw row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An append-only feed. A corrected record is a new row with the same keys.

    A row that landed before `live_from` is history: it counts as known at `known_at`, else at its event time plus
    `typical_delay`. From `live_from` on a row counts as known at the later of that moment and its landing.

    Args:
        name: Folder, asset and parameter name.
        schema: Columns and dtypes of a landing file; timestamps are `pl.Datetime("us", "UTC")`.
        keys: Columns that name one record; never null.
        event_time: Timestamp column that says when a record is true of; None for a timeless source (a dimension).
        known_at: Timestamp column that says when a record became known; never before its event time.
        typical_delay: How long after its event time a record is usually known, where no column says so.
        live_from: Since when landing times are to be believed; None while everything that lands is history.
        freshness: How long it may have no newer event before the groups that read it are in breach. Undeclared, each reader
            allows it its typical delay and a day, or twice the reader's own SLO if that is longer. A timeless source has none.
        description: One line for the catalogue.
        owner: Who answers for the feed, as 'team:...' or an e-mail address.

    Raises:
        DeclarationError: anything above does not hold.
    """

    name: str
    schema: Mapping[str, pl.DataType | type[pl.DataType]]
    keys: tuple[str, ...]
    event_time: str | None = None
    known_at: str | None = None
    typical_delay: timedelta | None = None
    live_from: datetime | None = None
    freshness: timedelta | None = None
    description: str = ""
    owner: str = ""

    def __post_init__(self) -> None:
        check_name("Source", self.name)
        self._check_types()
        if self.owner:
            check_owner(f"Source {self.name!r}", self.owner)
        schema = {
            column: checked_dtype(f"Column {column!r} of source {self.name!r}", dtype)
            for column, dtype in self.schema.items()
        }
        object.__setattr__(self, "schema", schema)
        object.__setattr__(self, "keys", (self.keys,) if isinstance(self.keys, str) else tuple(self.keys))
        for reserved in sorted(PLATFORM_NAMES & set(self.schema)):
            raise DeclarationError(
                f"Source {self.name!r} declares a column {reserved!r}, which the platform sets. Rename it."
            )
        self._check_columns()
        self._check_knowledge()
        self._check_freshness()
        if self.live_from is not None:
            object.__setattr__(self, "live_from", utc(self.live_from, name="live_from"))

    def _check_types(self) -> None:
        what = f"Source {self.name!r}"
        require_mapping(f"{what}: schema", self.schema, object, "schema={'flight': pl.String, ...}")
        if not isinstance(self.keys, str):
            require_items(f"{what}: keys", self.keys, str, "keys=('flight',)")
        for name, column in (("event_time", self.event_time), ("known_at", self.known_at)):
            require(f"{what}: {name}", column, (str, NoneType), f"the name of a column, {name}='scheduled_at', or None")
        for name, span in (("typical_delay", self.typical_delay), ("freshness", self.freshness)):
            if span is not None:
                require_duration(f"{what}: {name}", span, f"{name}=timedelta(hours=2)")
        require(
            f"{what}: live_from", self.live_from, (datetime, NoneType), "live_from=datetime(2025, 1, 1, tzinfo=UTC)"
        )
        require(f"{what}: description", self.description, str, "one line of text")
        require(f"{what}: owner", self.owner, str, f"{OWNER}, or leave it out")

    def _check_columns(self) -> None:
        if not self.keys:
            raise DeclarationError(f"Source {self.name!r} declares no keys. Name the columns that identify one record.")
        if len(set(self.keys)) < len(self.keys):
            raise DeclarationError(f"Source {self.name!r} names a key twice: {list(self.keys)}. Remove one.")
        for column in (*self.keys, self.event_time, self.known_at):
            if column is not None and column not in self.schema:
                raise DeclarationError(
                    f"Source {self.name!r} names column {column!r}, which its schema lacks: {list(self.schema)}. "
                    "Name one of them, keys as a tuple such as ('flight_id',), or add the column to the schema."
                )
        for column in (self.event_time, self.known_at):
            if column is not None and self.schema[column] != TIMESTAMP:
                raise DeclarationError(
                    f"Column {column!r} of source {self.name!r} is {self.schema[column]}. Times are pl.Datetime('us', 'UTC')."
                )

    def _check_knowledge(self) -> None:
        if self.typical_delay is not None and self.typical_delay < timedelta(0):
            raise DeclarationError(
                f"Source {self.name!r}: typical_delay is {self.typical_delay}. It cannot be negative: nothing is known "
                "before it happens. Declare timedelta(0) or more."
            )
        if self.event_time is None and (self.known_at or self.typical_delay is not None):
            raise DeclarationError(
                f"Source {self.name!r} has no event_time: known_at and typical_delay need an event_time. Add event_time=<column>, "
                "or leave them out for a dimension without times."
            )
        if self.event_time is not None and (self.known_at is None) == (self.typical_delay is None):
            raise DeclarationError(
                f"Source {self.name!r} must declare when its history was known: either known_at=<column> or typical_delay=<timedelta>."
            )

    def _check_freshness(self) -> None:
        if self.freshness is None:
            return
        if self.is_timeless:
            raise DeclarationError(
                f"Source {self.name!r} is timeless and declares freshness. It has no events; remove it."
            )
        if self.freshness <= timedelta(0):
            raise DeclarationError(f"Source {self.name!r}: freshness is {self.freshness}. It must be longer than zero.")

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def is_timeless(self) -> bool:
        return self.event_time is None
