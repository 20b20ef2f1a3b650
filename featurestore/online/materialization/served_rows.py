"""The rows of a table that an online copy takes: each entity's last frontier row as of an instant, some entities at a time.

Keys and times are read first, of all rows; features only of the rows that are served. Not here: what is done with the rows.
"""

from datetime import datetime
from functools import cached_property, reduce
from operator import or_

import polars as pl

from featurestore.declaration.dtypes import BOUNDS, in_calendar
from featurestore.frontier import latest_as_of
from featurestore.offline.table import FeatureTable
from featurestore.offline.view import TableView
from featurestore.online.message.layout import MessageLayout
from featurestore.online.message.schema import layout_of
from featurestore.online.tier import MaterializationState

VERSION = ("event_time", "knowledge_time", "created_at")


class ServedRows:
    """What one version of a group's table serves as of one instant. The version is looked up once and read any number of times.

    Args:
        table: The group's offline table.
        target: Which version, as of when.

    Raises:
        FileNotFoundError: (when rows are read) files of the version were vacuumed.
    """

    def __init__(self, table: FeatureTable, target: MaterializationState) -> None:
        self.table, self.group, self.target = table, table.group, target
        self._names = list(table.group.key_names)

    @cached_property
    def fence(self) -> int:
        """The newest rewind up to the version."""
        return self.table.fence(self.target.version)

    @cached_property
    def _view(self) -> TableView:
        return self.table.view(self.target.version)

    @cached_property
    def _known(self) -> pl.LazyFrame:
        """Every row that is known by the instant and has not expired then."""
        ttl, now = self.group.ttl, self.target.as_of
        return self._view.scan(known_by=now, event_since=None if ttl is None else now - ttl)

    def come_since(self, since: datetime) -> pl.DataFrame:
        """Keys of rows whose knowledge time has come after an instant, once per row."""
        come = self._view.scan(known_by=self.target.as_of, known_after=since, columns=self._names)
        return come.collect(engine="streaming")

    def count(self) -> int:
        """How many rows are known and have not expired, served or not."""
        return int(self._known.select(pl.len()).collect(engine="streaming").item())

    def of(self, *, within: pl.Expr | None = None, keys: pl.DataFrame | None = None) -> pl.DataFrame:
        """The last frontier row of each entity, left out if it has expired; tombstones are rows.

        Args:
            within: Only entities whose keys fulfil this.
            keys: Only these entities.

        Returns:
            The stored columns of at most one row per entity, in any order.
        """
        if keys is not None:
            within = _between(keys[self._names[0]])
        rows = self._known if within is None else self._known.filter(within)
        narrow = rows.select(*self._names, *VERSION, "window_start")
        if keys is not None:
            narrow = narrow.join(keys.lazy(), on=self._names, how="semi")
        found = latest_as_of(narrow.collect(engine="streaming"), keys=self._names, as_of=self.target.as_of)
        return self._whole(rows, found)

    def _whole(self, rows: pl.LazyFrame, found: pl.DataFrame) -> pl.DataFrame:
        """The same rows with their features: no two rows share keys, event time and window."""
        if found.is_empty():
            return pl.DataFrame(schema=self.group.stored_schema)
        identity = [*self._names, "event_time", "window_start"]
        recent = rows.filter(pl.col("event_time") >= found["event_time"].min())
        return recent.join(found.select(identity).lazy(), on=identity, how="semi").collect(engine="streaming")

    def suspects(self) -> pl.DataFrame:
        """Keys of entities with a row, served or not, that perhaps cannot be served: most often there are none.

        Rows that are true of the future, of a newer schema than the group's, with strings or lists that are too long, or with instants
        or days beyond the calendar.
        """
        faults = [
            pl.col("event_time") > self.target.as_of,
            pl.col("schema_number") > self.group.schema_number,
            *_value_faults(layout_of(self.group)),
        ]
        return self._known.filter(reduce(or_, faults)).select(self._names).unique().collect(engine="streaming")


def _between(keys: pl.Series) -> pl.Expr:
    """What the readers of files can use to leave parts of them out: rows are stored sorted by key."""
    if keys.dtype == pl.Boolean:
        return pl.lit(True)
    lowest, highest = (pl.lit(bound, keys.dtype) for bound in (keys.min(), keys.max()))
    return pl.col(keys.name).is_between(lowest, highest)


def _value_faults(layout: MessageLayout) -> list[pl.Expr]:
    """What `encode` refuses of values, and perhaps a little more."""
    faults = []
    for field in layout.fields:
        column = pl.col(field.name)
        if field.is_string:
            faults += [column.str.len_bytes() > field.longest_bytes]
            faults += [] if field.max_length is None else [column.str.len_chars() > field.max_length]
        elif field.dtype in BOUNDS:
            faults += [~in_calendar(column, field.dtype)]
        elif not field.is_scalar:
            faults += [column.list.drop_nulls().list.len() != column.list.len()]
            length = column.list.len()
            faults += [length != field.width if field.is_vector else length > (field.max_length or 0)]
    return faults
