"""Episodes as rows, within a transaction that someone else begins and ends."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from featurestore.alerts.episode import Episode
from featurestore.alerts.notice import blame_document, blame_from
from featurestore.alerts.problem import Problem, Watched
from featurestore.metadata.tables import EPISODES


def read_episodes(connection: Connection, chosen: ColumnElement[bool]) -> Iterator[Episode]:
    """The episodes of some rows, the oldest first."""
    for row in connection.execute(select(EPISODES).where(chosen).order_by(EPISODES.c.number)):
        yield _episode(row)


def episode_values(episode: Episode) -> dict[str, Any]:
    """The columns of an episode, its end left out."""
    watched = episode.watched
    return {
        "episode_id": episode.episode_id,
        "kind": episode.problem.kind,
        "group_name": episode.problem.group,
        "watched": {"owner": watched.owner, "tier": watched.tier, "alerts": watched.alerts},
        "problem": _document(episode.problem),
        "opened_at": episode.opened_at,
        "changed_at": episode.changed_at,
        "told": list(episode.told),
        "notices": episode.notices,
    }


def _document(problem: Problem) -> dict[str, Any]:
    return {
        "status": problem.status,
        "asset": problem.asset,
        "since": problem.since.isoformat(),
        "text": problem.text,
        "remedy": problem.remedy,
        "blamed": None if problem.blamed is None else blame_document(problem.blamed),
        "extent": problem.extent,
    }


def _episode(row: Row[Any]) -> Episode:
    kept = row.problem
    problem = Problem(
        kind=row.kind,
        group=row.group_name,
        status=kept["status"],
        asset=kept["asset"],
        since=datetime.fromisoformat(kept["since"]),
        text=kept["text"],
        remedy=kept["remedy"],
        blamed=None if kept["blamed"] is None else blame_from(kept["blamed"]),
        extent=kept["extent"],
    )
    watched = Watched(row.group_name, **row.watched)
    return Episode(row.episode_id, watched, problem, row.opened_at, row.changed_at, tuple(row.told), row.notices)
