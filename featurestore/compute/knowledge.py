"""`KnownRows`: the rows of one input in the order in which they became known, for reading as of many cut-offs.

A record may have several versions. Each row remembers when the next version of its record became known, so that "the
newest version known by T" is a filter and not a sort. Which span of time an input covers is `inputs.py`'s to say.
"""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

SUPERSEDED_AT = "__superseded_at"


class KnownRows:
    """Rows sorted by `knowledge_time`, with the moment each was superseded.

    Args:
        rows: At least `knowledge_time`, the keys and the version columns; any order. Rows with `is_deleted` set, if there
            is such a column, supersede and are then left out.
        keys: Columns that name one record.
        version: Columns that order the versions of a record, oldest first; the first is `knowledge_time`.
        event_time: Column that bounds a read in event time; None for dimensions.
    """

    def __init__(
        self, rows: pl.DataFrame, *, keys: Sequence[str], version: Sequence[str], event_time: str | None
    ) -> None:
        ordered = rows.sort(version, maintain_order=True)
        self.rows = ordered.with_columns(_superseded_at(ordered, keys))
        if "is_deleted" in rows.columns:
            self.rows = self.rows.filter(~pl.col("is_deleted"))
        self._known_at = self.rows["knowledge_time"]
        self._event_time = event_time

    def newest(
        self,
        cut_off: datetime,
        *,
        known_after: datetime | None = None,
        event_from: datetime | None = None,
        event_before: datetime | None = None,
    ) -> pl.DataFrame:
        """The newest version, known by the cut-off, of each record.

        Args:
            cut_off: Latest knowledge time, inclusive.
            known_after: Only versions that became known after this.
            event_from: Smallest event time, inclusive. A record cannot be known before it happened, so this also
                bounds the rows that are looked at.
            event_before: Event times end before this.
        """
        bounds = [moment for moment in (event_from, known_after) if moment is not None]
        first = self._known_at.search_sorted(max(bounds), side="left") if bounds else 0
        last = self._known_at.search_sorted(cut_off, side="right")
        rows = self.rows.slice(first, max(0, last - first))
        wanted = pl.col(SUPERSEDED_AT).is_null() | (pl.col(SUPERSEDED_AT) > cut_off)
        if known_after is not None:
            wanted &= pl.col("knowledge_time") > known_after
        if self._event_time is not None and event_from is not None:
            wanted &= pl.col(self._event_time) >= event_from
        if self._event_time is not None and event_before is not None:
            wanted &= pl.col(self._event_time) < event_before
        return rows.filter(wanted)


def _superseded_at(ordered: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    """When the next version of each row's record became known, null if never; rows in the order of their versions.

    Most records have one version: to find the others first takes a third of the time of looking through all.
    """
    doubled = ordered.select(keys).is_duplicated().arg_true()
    later = ordered[doubled].select(pl.col("knowledge_time").shift(-1).over(keys)).to_series()
    never = pl.Series(SUPERSEDED_AT, [None], later.dtype).new_from_index(0, ordered.height)
    return never.scatter(doubled, later)
