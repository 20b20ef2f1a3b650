"""Which windows a full recompute moved beyond the bounds from what was promoted before it, backfill by backfill.

The gate judges the shift of a backfill, and a run knows only its own windows. What a run found is written before it promotes: once its
rows are in production, a repeat of the run finds nothing that differs from them.
"""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.location import Location
from featurestore.offline.journal import Journal

SCHEMA: dict[str, pl.DataType] = {
    "window_start": TIMESTAMP,
    "recorded_at": TIMESTAMP,
    "backfill_id": pl.String(),
    "moved": pl.Boolean(),
}


class Shifts:
    """The append-only record of one group at `{root}/shifts/feature_group={name}/`."""

    def __init__(self, root: Location, group_name: str) -> None:
        self.journal = Journal(root.child("shifts", f"feature_group={group_name}"), SCHEMA)

    def of(self, backfill_id: str) -> dict[datetime, bool]:
        """The windows that a backfill has compared with what was promoted, and whether any of its runs found one moved."""
        own = self.journal.records().filter(pl.col("backfill_id") == backfill_id)
        return dict(own.group_by("window_start").agg(pl.col("moved").any()).rows())

    def note(self, backfill_id: str, moved: Mapping[datetime, bool], at: datetime) -> dict[datetime, bool]:
        """Record what a run found, in one commit; what is known already is not written again.

        Args:
            backfill_id: The backfill of the run.
            moved: By window start, of those that could be compared.
            at: Now.

        Returns:
            What is known of the backfill afterwards, as `of` gives it.
        """
        known = self.of(backfill_id)
        new = {start: is_moved for start, is_moved in moved.items() if start not in known or is_moved > known[start]}
        self.journal.append(
            [
                {"window_start": start, "recorded_at": at, "backfill_id": backfill_id, "moved": is_moved}
                for start, is_moved in new.items()
            ]
        )
        return known | new
