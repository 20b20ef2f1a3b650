"""The book of alerts in the metadata database: open and past episodes, and what is to be said of each change. Not here: delivering it.

A look is reconciled in one transaction, in which every change of an episode stands beside its notices, one for each sink. So
whatever is killed, a change is told once or not yet made. Several processes may look at once, each at what it speaks for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from uuid import uuid4

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from featurestore.alerts.episode import Change, Episode, changes
from featurestore.alerts.notice import Notice, Told, document_of, notice_from, notice_id, notice_of
from featurestore.alerts.problem import Findings, Key, Watched
from featurestore.alerts.routes import NOBODY, Routing
from featurestore.alerts.rows import episode_values, read_episodes
from featurestore.metadata.database import Book, Database
from featurestore.metadata.tables import ALERTS, EPISODES, OUTBOX

KEPT = timedelta(days=90)
"""How long ended episodes and what was delivered of them are kept."""
EVENTS = ("opened", "raised", "recovered", "closed")


@dataclass(frozen=True, slots=True)
class PastEpisode:
    """An episode with its end; None while it goes on."""

    episode: Episode
    ended_at: datetime | None


class AlertBook(Book):
    """Episodes and their notices."""

    part = ALERTS

    @property
    def database(self) -> Database:
        return self._database

    def reconcile(
        self, findings: Findings, watched: Mapping[str, Watched], routing: Routing = NOBODY, dagster_url: str = ""
    ) -> list[Notice]:
        """Bring the episodes to what a look found, and put what is to be said of it into the outbox.

        Args:
            findings: What the look found. One that is not newer than an episode's last change does not change it.
            watched: Everything that is declared, by name: episodes of others are closed.
            routing: Who is told. A sink that an open episode was not told to, and is to be, is told now.
            dagster_url: Where Dagster's pages are; "" if nobody said.

        Returns:
            The notices made, whether anybody is told or not.
        """
        with self._database.reading() as connection:
            if not _steps(connection, findings, watched, routing, self._clock()):
                return []
        with self._database.writing() as connection:
            steps = _steps(connection, findings, watched, routing, self._clock())
            notices = [_take(connection, *step, findings.at, dagster_url) for step in steps]
            _forget(connection, self._clock() - KEPT)
        return notices

    def open_episodes(self) -> list[Episode]:
        """The episodes that go on, the oldest first."""
        with self._database.reading() as connection:
            return list(read_episodes(connection, EPISODES.c.ended_at.is_(None)))

    def episodes(self, since: datetime) -> list[PastEpisode]:
        """The episodes that go on, and those that ended since an instant, the newest first."""
        chosen = EPISODES.c.ended_at.is_(None) | (EPISODES.c.ended_at >= since)
        with self._database.reading() as connection:
            ends = dict(connection.execute(select(EPISODES.c.episode_id, EPISODES.c.ended_at).where(chosen)).all())
            return [PastEpisode(one, ends[one.episode_id]) for one in reversed(list(read_episodes(connection, chosen)))]


Step = tuple[Change, tuple[str, ...]]
"""A change, and the sinks that are told of it."""


def _steps(
    connection: Connection, findings: Findings, watched: Mapping[str, Watched], routing: Routing, now: datetime
) -> list[Step]:
    known = {one.key: one for one in read_episodes(connection, EPISODES.c.ended_at.is_(None))}
    found = [problem.key for problem in findings.problems]
    ended = _ended(connection, [key for key in found if key not in known])
    made = changes(known, findings, watched, ended, now)
    made.sort(key=lambda one: (EVENTS.index(one.event), one.problem.blamed.asset if one.problem.blamed else ""))
    changed = {one.problem.key for one in made}
    going_on = [known[key] for key in found if key in known and key not in changed]
    return [(one, _told(one, routing)) for one in made] + list(_untold(going_on, watched, routing))


def _told(change: Change, routing: Routing) -> tuple[str, ...]:
    """Who hears of a change: whoever heard of the episode, and at a beginning or a raise whom the routes name."""
    before = change.episode.told if change.episode else ()
    if change.event in ("recovered", "closed"):
        return before
    problem = change.problem
    return tuple(dict.fromkeys([*before, *routing.sinks_of(problem.kind, change.watched, problem.status)]))


def _untold(going_on: Iterable[Episode], watched: Mapping[str, Watched], routing: Routing) -> Iterator[Step]:
    """Episodes of which a sink has not heard that is to: it was added to the routes since, or they could not be read."""
    for one in going_on:
        name = one.problem.group
        if name in watched:
            wanted = routing.sinks_of(one.problem.kind, watched[name], one.problem.status)
            if new := tuple(sink for sink in wanted if sink not in one.told):
                yield Change("opened", watched[name], one.problem, one), new


def _ended(connection: Connection, keys: Sequence[Key]) -> dict[Key, datetime]:
    """When the last episode of each key ended."""
    if not keys:
        return {}
    names = {group for _, group in keys}
    newest = (
        select(EPISODES.c.kind, EPISODES.c.group_name, func.max(EPISODES.c.ended_at))
        .where(EPISODES.c.ended_at.is_not(None), EPISODES.c.group_name.in_(names))
        .group_by(EPISODES.c.kind, EPISODES.c.group_name)
    )
    return {(kind, group): at for kind, group, at in connection.execute(newest)}


def _take(connection: Connection, change: Change, sinks: tuple[str, ...], at: datetime, dagster_url: str) -> Notice:
    """Write one change of an episode, and its notice for each sink."""
    before = change.episode
    episode_id, number = (uuid4().hex, 1) if before is None else (before.episode_id, before.notices + 1)
    notice = notice_of(change, episode_id, number, at, dagster_url)
    if before is None:
        after = Episode(episode_id, change.watched, change.problem, at, at, sinks, number)
        connection.execute(insert(EPISODES).values(**episode_values(after)))
    else:
        after = _after(before, change, sinks, number, at)
        ended_at = at if notice.is_over else None
        chosen = update(EPISODES).where(EPISODES.c.episode_id == episode_id)
        connection.execute(chosen.values(**episode_values(after), ended_at=ended_at))
    for sink in sinks:
        row = _outbox_row(replace(notice, previous=_previous(connection, sink, episode_id, number)), sink)
        connection.execute(insert(OUTBOX).values(**row))
    return notice


def _previous(connection: Connection, sink: str, episode_id: str, number: int) -> Told | None:
    """What a sink was told last of an episode, or will have been by the time that it gets what comes next."""
    earlier = OUTBOX.c.notice_id.in_([notice_id(episode_id, one) for one in range(1, number)])
    chosen = select(OUTBOX.c.notice).where(OUTBOX.c.sink == sink, earlier).order_by(OUTBOX.c.number.desc()).limit(1)
    document = connection.execute(chosen).scalar()
    return None if document is None else notice_from(document).told


def _after(before: Episode, change: Change, sinks: tuple[str, ...], number: int, at: datetime) -> Episode:
    """An episode that was there, after a change: raised it is as bad as it was found, at its end as it was told last."""
    told = tuple(dict.fromkeys(chain(before.told, sinks)))
    if change.event == "raised":
        problem = replace(change.problem, since=min(change.problem.since, before.problem.since))
        return replace(before, watched=change.watched, problem=problem, changed_at=at, told=told, notices=number)
    return replace(before, watched=change.watched, told=told, notices=number)


def _outbox_row(notice: Notice, sink: str) -> dict[str, object]:
    return {
        "sink": sink,
        "notice_id": notice.notice_id,
        "kind": notice.kind,
        "group_name": notice.group,
        "notice": document_of(notice),
        "made_at": notice.at,
        "due_at": notice.at,
        "attempts": 0,
        "error": "",
    }


def _forget(connection: Connection, before: datetime) -> None:
    """What was told of an episode that goes on is kept however old it is: it is told again, and ended in the same words."""
    goes_on = exists().where(
        EPISODES.c.kind == OUTBOX.c.kind, EPISODES.c.group_name == OUTBOX.c.group_name, EPISODES.c.ended_at.is_(None)
    )
    connection.execute(delete(OUTBOX).where(OUTBOX.c.delivered_at < before, ~goes_on))
    connection.execute(delete(EPISODES).where(EPISODES.c.ended_at < before))
