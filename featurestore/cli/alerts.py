"""`featurestore alerts`: who would be told, what is wrong, what waits to be told, and a word to try a sink with."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

import click

from featurestore.alerts.kinds import Kind
from featurestore.cli.deployment import Deployment
from featurestore.cli.surface import as_json, show
from featurestore.cli.times import age_text, instant_text

if TYPE_CHECKING:
    from featurestore.alerts.book import PastEpisode
    from featurestore.alerts.notice import Notice
    from featurestore.alerts.outbox import SinkStanding, Waiting
    from featurestore.alerts.routes import Routing

KINDS = list(get_args(Kind))
GROUP_HEADERS = ["feature group", "owner", "tier", "breach", "warning"]
EPISODE_HEADERS = ["status", "kind", "group", "owner", "since", "first late", "told", "ended"]


@click.group()
def alerts() -> None:
    """Say who is told of what is late, show what is wrong, try a sink."""


@alerts.command()
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="freshness",
    show_default=True,
    help="Of which alerts the routes are shown.",
)
@as_json
@click.pass_obj
def check(deployment: Deployment, kind: Kind, as_json: bool) -> None:
    """Check the file that FEATURESTORE_ALERTS names, and say whom alerts of each group reach.

    Sources, which have problems of their own, stand below the groups. A variable that is not set here may be set where the code
    location runs.
    """
    show(_check_document(deployment, kind), _check_text, as_json)


@alerts.command("list")
@click.option(
    "--days", type=click.IntRange(min=0), default=7, show_default=True, help="Show what ended in so many days too."
)
@as_json
@click.pass_obj
def list_command(deployment: Deployment, days: int, as_json: bool) -> None:
    """List the episodes that go on and those that ended lately, and what could not be delivered yet."""
    show(_list_document(deployment, timedelta(days=days)), _list_text, as_json)


@alerts.command()
@click.argument("sink")
@as_json
@click.pass_obj
def test(deployment: Deployment, sink: str, as_json: bool) -> None:
    """Send a test alert to a sink, now and past the outbox."""
    from featurestore.alerts.sinks.sink import sink_of
    from featurestore.errors import unknown_name

    routing = _routing(deployment)
    if sink not in routing.sinks:
        raise unknown_name("Sink", sink, routing.sinks, "The file of alerts")
    notice = _test_notice(sink, deployment.clock())
    remark = sink_of(routing.sinks[sink], deployment.clock).send([notice])
    show({"sink": sink, "id": notice.notice_id, "remark": remark}, _test_text, as_json)


def _routing(deployment: Deployment) -> "Routing":
    from featurestore.errors import InvalidInput
    from featurestore.settings import Settings

    routing = Settings.from_env(deployment.environment).alert_routing()
    if not routing.sinks:
        raise InvalidInput(
            "FEATURESTORE_ALERTS names no file, so nobody is told of anything. docs/alerts.md has an example."
        )
    return routing


def _check_document(deployment: Deployment, kind: Kind) -> dict[str, Any]:
    from featurestore.alerts.problem import watched_in
    from featurestore.alerts.settings import SETTINGS, variables_of

    routing, kinds = _routing(deployment), {made: name for name, made in SETTINGS.items()}
    sinks = [
        {
            "sink": name,
            "kind": kinds[type(one)],
            "not_set": [v for v in variables_of(one) if not deployment.environment.get(v)],
        }
        for name, one in routing.sinks.items()
    ]
    watched = watched_in(deployment.store.registry).values()
    groups = [
        {
            "group": one.name,
            "owner": one.owner,
            "tier": one.tier,
            "alerts": one.alerts,
            "breach": [] if one.alerts == "off" else list(routing.sinks_of(kind, one, "BREACH")),
            "warning": [] if one.alerts == "off" else list(routing.sinks_of(kind, one, "WARN")),
        }
        for one in watched
    ]
    return {"kind": kind, "sinks": sinks, "groups": groups}


def _check_text(document: dict[str, Any]) -> str:
    from featurestore.cli.tables import table_text

    sinks = [[one["sink"], one["kind"], ", ".join(one["not_set"]) or "-"] for one in document["sinks"]]
    groups = [
        [
            one["group"],
            one["owner"] or "-",
            one["tier"] or "-",
            *("off" if one["alerts"] == "off" else ", ".join(one[name]) or "nobody" for name in ("breach", "warning")),
        ]
        for one in document["groups"]
    ]
    return "\n\n".join([table_text(["sink", "kind", "not set here"], sinks), table_text(GROUP_HEADERS, groups)])


def _list_document(deployment: Deployment, lately: timedelta) -> dict[str, Any]:
    from featurestore.alerts.outbox import Outbox

    book, now = deployment.store.settings.alert_book(deployment.clock), deployment.clock()
    outbox = Outbox(book.database)
    return {
        "at": now,
        "episodes": [_episode(one) for one in book.episodes(now - lately)],
        "waiting": [_waiting(one) for one in outbox.backlog()],
        "sinks": [_sink(one) for one in outbox.standings().values() if one.failures],
    }


def _episode(one: "PastEpisode") -> dict[str, Any]:
    from featurestore.alerts.notice import blame_document

    episode, problem = one.episode, one.episode.problem
    return {
        "episode": episode.episode_id,
        "status": problem.status,
        "kind": problem.kind,
        "group": problem.group,
        "owner": episode.watched.owner,
        "tier": episode.watched.tier,
        "asset": problem.asset,
        "since": problem.since,
        "opened_at": episode.opened_at,
        "ended_at": one.ended_at,
        "text": problem.text,
        "first_late": None if problem.blamed is None else blame_document(problem.blamed),
        "todo": problem.remedy,
        "told": list(episode.told),
    }


def _waiting(one: "Waiting") -> dict[str, Any]:
    return {
        "sink": one.sink,
        "id": one.notice.notice_id,
        "event": one.notice.event,
        "kind": one.notice.kind,
        "group": one.notice.group,
        "made_at": one.notice.at,
        "refused": one.attempts,
        "next_try_at": one.due_at,
        "error": one.error,
    }


def _sink(one: "SinkStanding") -> dict[str, Any]:
    return {"sink": one.sink, "failures": one.failures, "next_try_at": one.due_at, "error": one.error}


def _list_text(document: dict[str, Any]) -> str:
    from featurestore.cli.tables import table_text

    parts = ["Nothing is wrong, and nothing was lately."]
    if document["episodes"]:
        parts = [table_text(EPISODE_HEADERS, [_line(one, document["at"]) for one in document["episodes"]])]
        parts += ["\n".join(_todo(one) for one in document["episodes"] if one["ended_at"] is None)]
    parts += ["\n".join(_down_text(one) for one in document["sinks"])]
    parts += ["\n".join(_waiting_text(one) for one in document["waiting"])]
    return "\n\n".join(filter(None, parts))


def _line(one: dict[str, Any], now: datetime) -> list[str]:
    first_late = one["first_late"]["asset"] if one["first_late"] else one["asset"]
    ended = "-" if one["ended_at"] is None else f"{age_text(now - one['ended_at'])} ago"
    told = ", ".join(one["told"]) or "nobody"
    return [
        one["status"],
        one["kind"],
        one["group"],
        one["owner"] or "-",
        instant_text(one["since"]),
        first_late,
        told,
        ended,
    ]


def _todo(one: dict[str, Any]) -> str:
    return f"{one['status']:<6}  {one['text']}\n        {one['todo']}"


def _down_text(one: dict[str, Any]) -> str:
    return (
        f"Sink {one['sink']} could not be reached (tried: {one['failures']}): {one['error']} "
        f"It is tried again at {instant_text(one['next_try_at'])}."
    )


def _waiting_text(one: dict[str, Any]) -> str:
    times = "once" if one["refused"] == 1 else f"{one['refused']} times"
    why = f" was refused {times}: {one['error']}" if one["refused"] else " waits"
    return f"To {one['sink']}: {one['event']}, {one['kind']} of {one['group']}, made at {instant_text(one['made_at'])},{why}"


def _test_notice(sink: str, now: datetime) -> "Notice":
    from uuid import uuid4

    from featurestore.alerts.notice import Notice
    from featurestore.alerts.problem import Blame

    name = uuid4().hex
    return Notice(
        notice_id=f"{name}-1",
        episode_id=name,
        event="test",
        at=now,
        opened_at=now,
        status_since=now,
        status="WARN",
        before=None,
        kind="freshness",
        group="test",
        owner="",
        tier="",
        urgency="ticket",
        asset="offline/test",
        since=now,
        text=f"This is a test of sink {sink}. Nothing is late.",
        remedy="Nothing.",
        blamed=Blame("offline/test", "", now, "Nothing is late."),
    )


def _test_text(document: dict[str, Any]) -> str:
    remark = f" {document['remark']}." if document["remark"] else ""
    return f"Sink {document['sink']} took test alert {document['id']}.{remark}"
