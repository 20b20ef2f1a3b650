"""How windows of the library map to Dagster partitions, and which partitions of an input an asset reads."""

import math
from datetime import timedelta

import dagster as dg

from featurestore.declaration import Daily, FeatureGroup, Hourly, Source
from featurestore.declaration.catalog import Input
from featurestore.declaration.windows import DAY, Cadence, Windowless

MAX_DAYS_A_RUN = 31


def partitions_of(cadence: Cadence) -> dg.TimeWindowPartitionsDefinition | None:
    """The partitions of a group: one a window; None for groups without windows. Keys are those of `Cadence.key_of`."""
    if isinstance(cadence, Windowless):
        return None
    if isinstance(cadence, Hourly):
        return dg.HourlyPartitionsDefinition(start_date=cadence.origin, timezone="UTC")
    return dg.DailyPartitionsDefinition(start_date=cadence.origin, timezone="UTC")


def landing_days(cadence: Daily) -> dg.DailyPartitionsDefinition:
    """The partitions of a raw source: one a day of landing, today's included."""
    return dg.DailyPartitionsDefinition(start_date=cadence.origin, timezone="UTC", end_offset=1)


def backfill_policy(cadence: Cadence) -> dg.BackfillPolicy:
    """One run for many partitions, at most 31 days of them."""
    a_day = 24 if isinstance(cadence, Hourly) else 1
    return dg.BackfillPolicy.multi_run(MAX_DAYS_A_RUN * a_day)


def upstream_partitions(group: FeatureGroup, item: Input) -> dg.PartitionMapping | None:
    """Which partitions of an input a window of a group reads; None where one of the two has no partitions.

    A raw partition holds what became known on a day; a daily window reads from its lookback to the day of its cut-off. An
    hourly one is mapped to the day it ends in: what the next day brings before its cut-off is read, but not drawn.
    """
    if isinstance(group.cadence, Windowless):
        return None
    if isinstance(item, Source):
        if item.is_timeless:
            return None
        unit, after = DAY, group.delay
    else:
        if isinstance(item.cadence, Windowless):
            return None
        unit, after = item.cadence.length, timedelta(0)
    back = math.ceil((group.lookback - group.cadence.length) / unit)
    return dg.TimeWindowPartitionMapping(
        start_offset=-back,
        end_offset=math.ceil(after / unit) if unit == group.cadence.length else 0,
        allow_nonexistent_upstream_partitions=True,
    )
