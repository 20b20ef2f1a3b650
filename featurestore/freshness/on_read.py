"""How fresh the groups of one online read are: what was published of them, held against the reader's own clock.

A reader asks neither the metadata database nor the offline store. It knows what the last look found, and how long ago that is; the
state is the worse of the two, so that when nobody looks any more it still turns WARN and BREACH by itself. Pure: the record and the
instant are handed in. Not here: how the record comes to the reader (`online.published`), or who writes it (`publishing`).

What the clock may say of a *pushed* group is less: its rows come at any time between two looks. Up to `UNSEEN` since the last look are
forgiven, so that an SLO of a second is judged by what the look found while somebody looks, and by silence only when nobody does.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from featurestore.declaration.tier import LOOK_EVERY
from featurestore.errors import InvalidInput, NotFresh
from featurestore.freshness.judgement import NOTHING, span, warning_of
from featurestore.online.published import Published
from featurestore.registry.snapshot import RegisteredGroup

Mode = Literal["strict", "degrade", "stale_ok"]
"""What a caller wants of groups that are late: no answer, an answer that says so, or also the values that are too old."""
MODES: tuple[Mode, ...] = get_args(Mode)
State = Literal["NONE", "OK", "WARN", "UNKNOWN", "NEVER", "BREACH"]
STATES: tuple[State, ...] = get_args(State)
"""From well to worst. OK, WARN, NEVER and BREACH are those of `judgement`; NONE: no SLO; UNKNOWN: an SLO that nobody looks after."""
REFUSED: frozenset[State] = frozenset(("UNKNOWN", "NEVER", "BREACH"))
"""What a strict read does not accept."""
UNSEEN = 3 * LOOK_EVERY
"""How long after a look nobody has to have looked again: one look may fail and the next be slow."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a group's state is judged by; worked out once for each group of a request.

    Args:
        group: Its stored name.
        slo: The age that its data must not reach; None: none.
        warning: The age from which on it is warned of.
        arrival: How long after its event time a pushed row may arrive; None for computed groups.
        is_pushed: Whether rows come between two looks.
    """

    group: str
    slo: timedelta | None
    warning: timedelta
    arrival: timedelta | None
    is_pushed: bool

    @classmethod
    def of(cls, group: RegisteredGroup) -> "Bounds":
        warning = warning_of(group) or NOTHING
        return cls(group.name, group.freshness, warning, group.arrival, group.kind == "pushed")


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group's state at a read.

    Args:
        group: Its stored name.
        state: See `STATES`.
        lag: How long ago it was last known to hold everything due; of a pushed group without an SLO on silence, how old its newest
            row was when it came. None where nothing is known.
        slo: What the lag must not reach.
        since: Since when it is so, if it is not well.
        cause: In a word: materialization, late, source, arrival or online; `unpublished` and `unwatched` of UNKNOWN.
        last_materialized_at: When it was last known to hold everything due.
        newest_event: As published.
        looked_at: When somebody last looked; None: nobody has.
    """

    group: str
    state: State
    lag: timedelta | None = None
    slo: timedelta | None = None
    since: datetime | None = None
    cause: str = ""
    last_materialized_at: datetime | None = None
    newest_event: datetime | None = None
    looked_at: datetime | None = None

    def document(self) -> dict[str, Any]:
        """As plain values: durations in seconds, times in ISO 8601."""
        return {
            "group": self.group,
            "state": self.state,
            "lag_seconds": None if self.lag is None else self.lag.total_seconds(),
            "slo_seconds": None if self.slo is None else self.slo.total_seconds(),
            "since": _text(self.since),
            "cause": self.cause,
            "last_materialized_at": _text(self.last_materialized_at),
            "newest_event": _text(self.newest_event),
            "looked_at": _text(self.looked_at),
        }

    @classmethod
    def of_document(cls, said: Mapping[str, Any]) -> "GroupState":
        """What `document` gave.

        Raises:
            KeyError, TypeError, ValueError: it is no such document.
        """
        lag, slo = (_span(said[name]) for name in ("lag_seconds", "slo_seconds"))
        last, newest, looked, since = (
            _instant(said[name]) for name in ("last_materialized_at", "newest_event", "looked_at", "since")
        )
        return cls(said["group"], said["state"], lag, slo, since, said["cause"], last, newest, looked)

    @property
    def sentence(self) -> str:
        """For a person: what is amiss."""
        if self.looked_at is None:
            return f"{self.group} has an SLO, and nobody has published how fresh it is."
        if self.cause == "unwatched":
            return f"{self.group} is judged as rows arrive, and nobody has looked since {_text(self.looked_at)}."
        since = f" since {_text(self.since)}" if self.since else ""
        lag = "" if self.lag is None else f", {span(self.lag)} behind"
        slo = "" if self.slo is None else f" of an SLO of {span(self.slo)}"
        return f"{self.group} is {self.state}{since}{lag}{slo}{f' ({self.cause})' if self.cause else ''}."


@dataclass(frozen=True)
class Freshness:
    """How fresh the groups of an answer are.

    Args:
        at: The reader's instant; None of an answer that was made without one.
        groups: In the order of the request.
    """

    at: datetime | None = None
    groups: Sequence[GroupState] = field(default_factory=tuple)

    @property
    def worst(self) -> GroupState | None:
        """The group in the worst state, of those the one that is furthest behind its SLO; None if there are no groups."""
        return max(self.groups, key=_badness, default=None)

    @property
    def state(self) -> State:
        """The worst state."""
        worst = self.worst
        return "NONE" if worst is None else worst.state

    @property
    def is_degraded(self) -> bool:
        """Whether some group is in breach."""
        return any(one.state == "BREACH" for one in self.groups)

    def require(self) -> None:
        """Refuse the answer for a caller who wants fresh groups or nothing.

        Raises:
            NotFresh: a group is in breach, or nobody knows that it is not.
        """
        refused = [one for one in self.groups if one.state in REFUSED]
        if refused:
            raise NotFresh(
                f"A strict read takes no group in breach or unknown. {' '.join(one.sentence for one in refused)} Read with "
                "freshness='degrade' to have the values all the same, or see what `featurestore freshness` says.",
                [one.document() for one in refused],
            )

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "state": self.state,
            "degraded": self.is_degraded,
            "at": _text(self.at),
            "groups": [one.document() for one in self.groups],
        }

    @classmethod
    def of_document(cls, said: Mapping[str, Any]) -> "Freshness":
        """What `document` gave; KeyError, TypeError or ValueError if it is none."""
        return cls(_instant(said["at"]), tuple(GroupState.of_document(one) for one in said["groups"]))


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
    if bounds.slo is None:
        return _unwatched(bounds, published, now)
    unseen = min(max(NOTHING, now - published.looked_at), UNSEEN) if bounds.is_pushed else NOTHING
    seen = now - unseen
    return [
        *_passed(published.last_materialized_at, bounds.warning, bounds.slo, seen, "materialization"),
        *_passed(published.behind_since, bounds.slo / 2, bounds.slo, seen, "online"),
    ]


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


def _badness(one: GroupState) -> tuple[int, float]:
    used = 0.0 if one.lag is None or not one.slo else one.lag / one.slo
    return STATES.index(one.state), used


def check_mode(mode: str) -> None:
    """Refuse a mode that nobody knows.

    Raises:
        InvalidInput: the message lists those that are known.
    """
    if mode not in MODES:
        raise InvalidInput(f"freshness is {mode!r}. Give one of {list(MODES)}.")


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _instant(said: str | None) -> datetime | None:
    return None if said is None else datetime.fromisoformat(said)
