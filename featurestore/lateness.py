"""Which windows a row would have reached, had it been known in time. Pure.

A row is late for a window that reads its event time and whose cut-off had passed when the row became known. It is never
late for the driver of an event group: the next window takes it. Rows that are history are known when their author says so,
and are not asked about here.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from featurestore.clock import microseconds
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.declaration.windows import Daily, Hourly

Microseconds = npt.NDArray[np.int64]


def late_rows(catalog: Catalog, source: Source, times: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Of each group that reads a source, by partition key, how many rows came too late for that window.

    Args:
        times: `event_time` and `knowledge_time` of rows that are no history.

    Returns:
        Groups and windows with late rows only, windows the oldest first.
    """
    found = {group.stored_name: _late_for(group, times) for group in _readers(catalog, source)}
    return {name: windows for name, windows in found.items() if windows}


def _readers(catalog: Catalog, source: Source) -> list[FeatureGroup]:
    """The windowed groups that read a source, and the event groups that read it beside their driver."""
    reading = [group for group in catalog.groups if source.name in group.inputs]
    return [group for group in reading if not (group.kind == "events" and group.inputs[0] == source.name)]


def _late_for(group: FeatureGroup, times: pl.DataFrame) -> dict[str, int]:
    cadence = group.cadence
    if not isinstance(cadence, Hourly | Daily) or times.is_empty():
        return {}
    first, last = _reach(group, cadence, times)
    counts = _count(first, last)
    offset = int(first.min())
    return {
        cadence.key_of(cadence.window_at(cadence.origin + (offset + int(number)) * cadence.length)): int(counts[number])
        for number in np.flatnonzero(counts)
    }


def _reach(group: FeatureGroup, cadence: Hourly | Daily, times: pl.DataFrame) -> tuple[Microseconds, Microseconds]:
    """First and last number of the windows that each row is late for; the last is below the first for one that is not late."""
    origin = microseconds(cadence.origin)
    length, lookback, delay = (
        int(span.total_seconds() * 1e6) for span in (cadence.length, group.lookback, group.delay)
    )
    event = times["event_time"].dt.epoch("us").to_numpy() - origin
    known = times["knowledge_time"].dt.epoch("us").to_numpy() - origin
    # Window n ends at (n + 1) * length; an event group also sees rows from after its window's end.
    first = -(-(event - delay) // length) - 1 if group.kind == "events" else event // length
    by_lookback = (event + lookback) // length - 1
    by_cut_off = -(-(known - delay) // length) - 2
    return np.maximum(first, 0), np.minimum(by_lookback, by_cut_off)


def _count(first: Microseconds, last: Microseconds) -> Microseconds:
    """How many of the spans [first, last] cover each number, from the smallest first on."""
    is_late, offset = last >= first, first.min()
    steps = np.zeros(max(int(last.max()), int(first.max())) - int(offset) + 2, np.int64)
    np.add.at(steps, first[is_late] - offset, 1)
    np.add.at(steps, last[is_late] - offset + 1, -1)
    return np.cumsum(steps)
