"""How fresh the groups of one online read are: what was published of them, held against the reader's own clock.

A reader asks neither the metadata database nor the offline store. It knows what the last look found, and how long ago that is; the
state is the worse of the two, so that when nobody looks any more it still turns WARN and BREACH by itself. Pure: the record and the
instant are handed in. Not here: what states there are (`read_state`), how the record comes to the reader (`online.published`), or who
writes it (`publishing`).

What the clock may say of a *pushed* group is less: its rows come at any time between two looks. Up to `UNSEEN` since the last look are
forgiven, so that an SLO of a second is judged by what the look found while somebody looks, and by silence only when nobody does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from featurestore.declaration.tier import LOOK_EVERY
from featurestore.freshness.judgement import NOTHING, online_limit, warning_of
from featurestore.freshness.read_state import STATES, Freshness, GroupState, State
from featurestore.online.published import Published
from featurestore.registry.snapshot import RegisteredGroup

UNSEEN = 3 * LOOK_EVERY
"""How long after a look nobody has to have looked again: one look may fail and the next be slow."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a group's state is judged by; worked out once for each group of a request.

    Args:
        group: Its stored name.
        slo: The age that its data must not reach; None: none.
        warning: The age from which on it is warned of.
        online: How long its copy may lack what is due online.
        arrival: How long after its event time a pushed row may arrive; None for computed groups.
        is_pushed: Whether rows come between two looks.
    """

    group: str
    slo: timedelta | None
    warning: timedelta
    online: timedelta
    arrival: timedelta | None
    is_pushed: bool

    @classmethod
    def of(cls, group: RegisteredGroup) -> "Bounds":
        slo = group.freshness
        warning = NOTHING if slo is None else min(slo, warning_of(group) or slo)
        return cls(group.name, slo, warning, online_limit(group), group.arrival, group.kind == "pushed")


def judge_all(bounds: Iterable[Bounds], published: Callable[[str], Published | None], now: datetime) -> Freshness:
    """The freshness of the groups of a read.

    Args:
        bounds: Of each group, in the order of the request.
        published: What is known of a group.
        now: The reader's instant.
    """
    return Freshness(now, tuple([judge_read(one, published(one.group), now) for one in bounds]))


def judge_read(bounds: Bounds, published: Published | None, now: datetime) -> GroupState:
    """A group's state at an instant: the worse of what was published and what the reader's clock says.

    Rules: a lag that reaches the SLO is a breach, as in `judgement.judge`, and no lag is below zero, whatever clocks do. Without an
    SLO a group is NONE, unless the look found something amiss. What was published stands until another look: it is never better
    than the look found.
    """
    slo = bounds.slo if bounds.slo is not None else bounds.arrival
    if published is None:
        state: State = "NONE" if slo is None else "UNKNOWN"
        return GroupState(bounds.group, state, slo=slo, cause="" if slo is None else "unpublished")
    found: State = published.status if published.status in STATES else "UNKNOWN"
    if slo is None and found == "OK":
        found = "NONE"
    verdicts = [(found, published.since, published.cause), *_by_clock(bounds, published, now)]
    worst, since, cause = max(verdicts, key=lambda one: STATES.index(one[0]))
    return GroupState(
        bounds.group,
        worst,
        _lag(bounds, published, now),
        slo,
        since,
        cause,
        published.last_materialized_at,
        published.newest_event,
        published.looked_at,
    )


Verdict = tuple[State, datetime | None, str]


def _by_clock(bounds: Bounds, published: Published, now: datetime) -> list[Verdict]:
    """What has become of a group since it was looked at, as far as a clock can tell."""
    unseen = min(max(NOTHING, now - published.looked_at), UNSEEN) if bounds.is_pushed else NOTHING
    seen = now - unseen
    behind = _passed(published.behind_since, bounds.online / 2, bounds.online, seen, "online")
    if bounds.slo is None:
        return [*_unwatched(bounds, published, now), *behind]
    return [*_passed(published.last_materialized_at, bounds.warning, bounds.slo, seen, "materialization"), *behind]


def _passed(start: datetime | None, warning: timedelta, slo: timedelta, seen: datetime, cause: str) -> list[Verdict]:
    """A lag's verdict; none while it is below its warning."""
    if start is None or seen - start < warning:
        return []
    return [("BREACH", start + slo, cause)] if seen - start >= slo else [("WARN", start + warning, cause)]


def _unwatched(bounds: Bounds, published: Published, now: datetime) -> list[Verdict]:
    """A group that is judged by arrival alone does not grow old: what ends is the knowledge of what came since the look."""
    if bounds.arrival is None:
        return []
    patience = max(UNSEEN, bounds.arrival)
    if now - published.looked_at < patience:
        return []
    return [("UNKNOWN", published.looked_at + patience, "unwatched")]


def _lag(bounds: Bounds, published: Published, now: datetime) -> timedelta | None:
    last = published.last_materialized_at
    if last is None:
        return None
    if bounds.slo is not None or bounds.arrival is None:
        return max(NOTHING, now - last)
    return None if published.newest_event is None else max(NOTHING, last - published.newest_event)
