"""Which windows of a group the schedule owes: those that are due and that its ledger does not have. Pure.

A window is due at its cut-off, and settles for a moment first. Owed is every due window without an entry in the ledger, from
the oldest one on that was computed outside of a backfill. What lies before that is history, which a backfill fills: one
backfilled day of last year does not make the schedule compute the year, past estimate and approval. A group that was never
computed but by backfills begins with its newest due window.

Never owed: a window that a rollback took back; one in quarantine (`watch` says when such a window is looked at again); one
before the group's `backfillable_from` that is due for more than a day, since its run would be refused.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from featurestore.compute.inputs import windows_read
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import DAY, TimeWindow, Windowless
from featurestore.offline.follower import NOTHING, LedgerFollower

LONGEST_SETTLING = timedelta(seconds=30)
SETTLING_SHARE = 10
"""A tenth of `publish`, the time that a window has from its cut-off until it is served."""

IsPromoted = Callable[[str, datetime], bool]


@dataclass(frozen=True, slots=True)
class Owed:
    """The windows of a group that are to be computed now, and those that wait for upstream windows; the oldest first."""

    ready: tuple[TimeWindow, ...] = ()
    blocked: tuple[TimeWindow, ...] = ()


def settling(group: FeatureGroup) -> timedelta:
    """How long after its cut-off a window is launched: what landed at the cut-off itself gets so long to be there."""
    return min(group.publish / SETTLING_SHARE, LONGEST_SETTLING)


def due_before(group: FeatureGroup, follower: LedgerFollower, now: datetime) -> int:
    """How many windows of a group are due and have settled; those with lower numbers."""
    ended = now - settling(group) - group.delay - follower.origin
    return max(0, ended // follower.length)


def next_due(group: FeatureGroup, follower: LedgerFollower, now: datetime) -> datetime:
    """When the next window of a group will be due and have settled."""
    return group.cut_off(follower.window(due_before(group, follower, now))) + settling(group)


def missing_windows(
    group: FeatureGroup, follower: LedgerFollower, now: datetime, allowed_from: datetime | None = None
) -> list[TimeWindow]:
    """The due windows that a group owes, the oldest first, whether what they read is there or not.

    Args:
        allowed_from: The group's first backfillable instant: older windows are owed only on the day on which they are due.
    """
    until = due_before(group, follower, now)
    first = follower.first_scheduled
    if first is None:
        newest = until - 1
        numbers = [newest] if newest >= 0 and follower.status(newest) == NOTHING else []
    else:
        numbers = follower.missing(first, until)
    windows = [follower.window(number) for number in numbers]
    if allowed_from is None:
        return windows
    return [window for window in windows if window.start >= allowed_from or group.cut_off(window) > now - DAY]


def owed(
    catalog: Catalog, group: FeatureGroup, windows: Iterable[TimeWindow], is_promoted: IsPromoted, limit: int
) -> Owed:
    """Part windows into those that can be computed now and those that wait for upstream windows.

    Args:
        windows: The oldest first.
        is_promoted: Whether the window of a group, by stored name and start, is promoted.
        limit: With so many ready ones, what is younger is not looked at.
    """
    upstreams = awaited(catalog, group)
    ready: list[TimeWindow] = []
    blocked: list[TimeWindow] = []
    for window in windows:
        if len(ready) == limit:
            break
        is_ready = all(is_promoted(name, start) for name, start in _read(group, window, upstreams))
        (ready if is_ready else blocked).append(window)
    return Owed(tuple(ready), tuple(blocked))


def awaited(catalog: Catalog, group: FeatureGroup) -> dict[str, FeatureGroup]:
    """The windowed and event groups that a group reads, by input name: it waits for their windows."""
    inputs = catalog.inputs_of(group)
    return {
        name: item
        for name, item in inputs.items()
        if isinstance(item, FeatureGroup) and not isinstance(item.cadence, Windowless)
    }


def _read(
    group: FeatureGroup, window: TimeWindow, upstreams: Mapping[str, FeatureGroup]
) -> Iterator[tuple[str, datetime]]:
    for name, upstream in upstreams.items():
        for read in windows_read(group, name, upstream, window):
            yield upstream.stored_name, read.start
