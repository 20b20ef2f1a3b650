"""How fresh the groups of one online answer are: the states, what a caller may want of them, and how both are told.

Plain values. Not here: which state a group is in (`on_read`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from featurestore.errors import InvalidInput, NotFresh
from featurestore.freshness.judgement import span

Mode = Literal["strict", "degrade", "stale_ok"]
"""What a caller wants of groups that are late: no answer, an answer that says so, or also the values that are too old."""
MODES: tuple[Mode, ...] = get_args(Mode)
State = Literal["NONE", "OK", "WARN", "UNKNOWN", "NEVER", "BREACH"]
STATES: tuple[State, ...] = get_args(State)
"""From well to worst. OK, WARN, NEVER and BREACH are those of `judgement`; NONE: no SLO; UNKNOWN: an SLO that nobody looks after."""
REFUSED: frozenset[State] = frozenset(("UNKNOWN", "NEVER", "BREACH"))
"""What a strict read does not accept."""


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
