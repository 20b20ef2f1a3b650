"""Episodes: what a look's problems mean beside those that are known. Pure; how episodes are kept is in `book.py`.

Of each kind and group there is at most one open episode. It opens with the first look that finds the problem, is *raised* when the
problem becomes worse than it ever was in this episode, and ends with the first look that can speak for it and does not find it.
A problem that becomes milder changes nothing: a breach that turns to a warning and back is not told twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from featurestore.alerts.kinds import SEVERITIES
from featurestore.alerts.problem import Findings, Key, Problem, Watched

Event = Literal["opened", "raised", "recovered", "closed"]
"""How an episode changes; *closed*: nobody looks any more, because its group is no longer declared, alerts nobody, or has no such check."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One problem from the look that found it to the look that did not any more.

    Args:
        episode_id: Its name, unique over all deployments.
        watched: Whom it is of, as of its last change.
        problem: As it was at its worst, which is how it was told.
        opened_at: When it was found.
        changed_at: When it was last told of: opened or raised.
        told: Names of the sinks that were told.
        notices: How many notices were made of it.
    """

    episode_id: str
    watched: Watched
    problem: Problem
    opened_at: datetime
    changed_at: datetime
    told: tuple[str, ...] = ()
    notices: int = 0

    @property
    def key(self) -> Key:
        return self.problem.key


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an episode.

    Args:
        event: What happens.
        watched: Whom it is of.
        problem: What is wrong; of an end, what was.
        episode: The open one that changes; None: it is opened.
        reason: Why it is closed, for a person.
    """

    event: Event
    watched: Watched
    problem: Problem
    episode: Episode | None = None
    reason: str = ""


def changes(
    known: Mapping[Key, Episode],
    findings: Findings,
    watched: Mapping[str, Watched],
    ended: Mapping[Key, datetime],
    now: datetime,
) -> list[Change]:
    """What a look changes.

    Args:
        known: The open episodes by their keys.
        findings: What the look found.
        watched: Everything that is declared, by name.
        ended: When the last episode of each key ended, as far as there was one: an older look does not open it again.
        now: What came after it was written by a clock that was ahead, and holds up no look.

    Returns:
        Problems first, in the order of the look, then ends in the order of the episodes; a look that is not newer than an
        episode's last change does not change it.
    """
    found = {problem.key: problem for problem in findings.problems if _alerts(watched, problem.group)}
    fresh = {key: one for key, one in known.items() if _is_newer(findings, one.changed_at, now)}
    opened = [
        Change("opened", watched[problem.group], problem)
        for key, problem in found.items()
        if key not in known and (key not in ended or _is_newer(findings, ended[key], now))
    ]
    raised = [
        Change("raised", watched[one.problem.group], found[key], one)
        for key, one in fresh.items()
        if key in found and is_worse(found[key], one.problem)
    ]
    return [*opened, *raised, *_ends(fresh, found, findings, watched)]


def _is_newer(findings: Findings, change: datetime, now: datetime) -> bool:
    return change < findings.at or change > now


def is_worse(problem: Problem, told: Problem) -> bool:
    """Whether a problem is worse than it was told: more severe, or as severe and twice as much of it.

    Counting by doubles keeps a backfill that meets a bad window in each of its runs from telling of every one.
    """
    rank, before = SEVERITIES.index(problem.status), SEVERITIES.index(told.status)
    return rank > before or (rank == before and told.extent > 0 and problem.extent >= 2 * told.extent)


def _ends(
    fresh: Mapping[Key, Episode], found: Mapping[Key, Problem], findings: Findings, watched: Mapping[str, Watched]
) -> Iterator[Change]:
    for key, one in fresh.items():
        name = one.problem.group
        if name not in watched:
            yield Change("closed", one.watched, one.problem, one, f"{name} is no longer declared.")
        elif watched[name].alerts == "off":
            yield Change("closed", watched[name], one.problem, one, f"{name} is declared with alerts='off' now.")
        elif key in findings.unchecked:
            yield Change(
                "closed", watched[name], one.problem, one, f"{name} is declared without a check of {key[0]} now."
            )
        elif key not in found and key in findings.spoken_for:
            yield Change("recovered", watched[name], one.problem, one)


def _alerts(watched: Mapping[str, Watched], name: str) -> bool:
    return name in watched and watched[name].alerts != "off"
