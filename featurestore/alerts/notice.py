"""A notice: one change of one episode, as it is kept until it is delivered and as machines read it. Pure.

Its JSON form has a version and a stable id; it is also the body of the generic webhook (docs/alerts.md).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from featurestore.alerts.episode import Change, Event
from featurestore.alerts.kinds import Kind, Severity, Urgency
from featurestore.alerts.problem import Blame
from featurestore.errors import InvalidInput

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a sink was told before, as far as it may know an alert by it; every field as in that notice."""

    status: Severity
    status_since: datetime
    owner: str
    tier: str
    urgency: Urgency
    asset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One change of one episode.

    Args:
        notice_id: Stable: of a notice that comes twice it is the same. The episode's, and its number in it.
        episode_id: The same in every notice of an episode.
        event: What happened; 'test' for one that somebody sent to try a sink.
        at: When.
        opened_at: When the episode began.
        status_since: When it was found to be as bad as it is now; of an end, as it was.
        status: How bad it is; of an end, how bad it was.
        before: How bad it was before it was raised; None otherwise.
        kind, group, owner, tier, urgency: What sort of thing, of whom.
        asset, since, text, remedy, blamed: Of the problem.
        reason: Why it was closed.
        url: Dagster's page of the asset to look at; "" if nobody said where Dagster is.
        previous: What the sink that this is for was told last of this episode; None if it was told nothing.
    """

    notice_id: str
    episode_id: str
    event: Event | Literal["test"]
    at: datetime
    opened_at: datetime
    status_since: datetime
    status: Severity
    before: Severity | None
    kind: Kind
    group: str
    owner: str
    tier: str
    urgency: Urgency
    asset: str
    since: datetime
    text: str
    remedy: str
    blamed: Blame
    reason: str = ""
    url: str = ""
    previous: Told | None = None

    @property
    def is_over(self) -> bool:
        return self.event in ("recovered", "closed")

    @property
    def told(self) -> Told:
        """What is told by this one."""
        return Told(
            status=self.status,
            status_since=self.status_since,
            owner=self.owner,
            tier=self.tier,
            urgency=self.urgency,
            asset=self.asset,
        )


def notice_of(change: Change, episode_id: str, number: int, at: datetime, dagster_url: str) -> Notice:
    """The notice of a change.

    Args:
        episode_id: Of the episode that changes, or is opened.
        number: Which notice of it this is, from 1 on.
        at: When it changed.
        dagster_url: Where Dagster's pages are; "" if nobody said.
    """
    problem, episode = change.problem, change.episode
    status = problem.status if change.event in ("opened", "raised") or episode is None else episode.problem.status
    blamed = problem.blamed or Blame(problem.asset, change.watched.owner, problem.since, problem.text)
    return Notice(
        notice_id=notice_id(episode_id, number),
        episode_id=episode_id,
        event=change.event,
        at=at,
        opened_at=at if episode is None else episode.opened_at,
        status_since=at if episode is None or change.event == "raised" else episode.changed_at,
        status=status,
        before=episode.problem.status if episode is not None and change.event == "raised" else None,
        kind=problem.kind,
        group=problem.group,
        owner=change.watched.owner,
        tier=change.watched.tier,
        urgency=change.watched.urgency(status),
        asset=problem.asset,
        since=problem.since,
        text=problem.text,
        remedy=problem.remedy,
        blamed=blamed,
        reason=change.reason,
        url=f"{dagster_url.rstrip('/')}/assets/{blamed.asset}" if dagster_url else "",
    )


def notice_id(episode_id: str, number: int) -> str:
    """The id of the notice of an episode that has a number, from 1 on."""
    return f"{episode_id}-{number}"


def document_of(notice: Notice) -> dict[str, Any]:
    """A notice as JSON knows it: instants in ISO 8601, in UTC."""
    return {
        "version": VERSION,
        "id": notice.notice_id,
        "episode": notice.episode_id,
        "event": notice.event,
        "at": notice.at.isoformat(),
        "opened_at": notice.opened_at.isoformat(),
        "status": notice.status,
        "status_since": notice.status_since.isoformat(),
        "before": notice.before,
        "urgency": notice.urgency,
        "kind": notice.kind,
        "group": notice.group,
        "owner": notice.owner,
        "tier": notice.tier,
        "asset": notice.asset,
        "since": notice.since.isoformat(),
        "text": notice.text,
        "first_late": blame_document(notice.blamed),
        "todo": notice.remedy,
        "reason": notice.reason,
        "url": notice.url,
        "previous": None if notice.previous is None else _told_document(notice.previous),
    }


def notice_from(document: Mapping[str, Any]) -> Notice:
    """A notice as it was kept.

    Raises:
        InvalidInput: a later version of this library kept it.
    """
    if document["version"] != VERSION:
        raise InvalidInput(
            f"An alert of version {document['version']} is kept; this library reads {VERSION}. Upgrade featurestore."
        )
    values: dict[str, Any] = {name: document[name] for name in SAME}
    values |= {name: datetime.fromisoformat(document[name]) for name in INSTANTS}
    return Notice(
        notice_id=document["id"],
        episode_id=document["episode"],
        blamed=blame_from(document["first_late"]),
        remedy=document["todo"],
        previous=_told_from(document.get("previous")),
        **values,
    )


INSTANTS = ("at", "opened_at", "status_since", "since")
SAME = ("event", "status", "before", "urgency", "kind", "group", "owner", "tier", "asset", "text", "reason", "url")


def blame_document(blame: Blame) -> dict[str, str]:
    return {"asset": blame.asset, "owner": blame.owner, "since": blame.since.isoformat(), "text": blame.text}


def blame_from(document: Mapping[str, str]) -> Blame:
    since = datetime.fromisoformat(document["since"])
    return Blame(document["asset"], document["owner"], since, document["text"])


def _told_document(told: Told) -> dict[str, str]:
    return {**asdict(told), "status_since": told.status_since.isoformat()}


def _told_from(document: Mapping[str, Any] | None) -> Told | None:
    """Of a notice that an earlier version kept nothing is known."""
    if document is None:
        return None
    return Told(**{**document, "status_since": datetime.fromisoformat(document["status_since"])})
