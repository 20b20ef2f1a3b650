"""Problems, looks and sinks for tests of alerts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from featurestore.alerts.episode import Change, Episode
from featurestore.alerts.kinds import Kind, Severity
from featurestore.alerts.notice import Notice, notice_of
from featurestore.alerts.problem import Blame, Findings, Key, Problem, Watched
from featurestore.alerts.routes import routing_from
from featurestore.alerts.sinks.sink import one_by_one

T0 = datetime(2026, 3, 10, 6, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
GROUPS = ("orders_hourly", "sales_daily", "trend_daily")
WATCHED = {name: Watched(name, "team:kiosks", "hourly", "page") for name in GROUPS}
ROUTING = routing_from(
    """
    default = ["chat"]
    [sinks.chat]
    kind = "slack"
    url_env = "CHAT_URL"
    [sinks.pager]
    kind = "webhook"
    url = "http://pager.example.org/hook"
    [[routes]]
    urgency = "page"
    sinks = ["pager", "chat"]
    """,
    "alerts.toml",
)


def problem(group: str = GROUPS[0], status: Severity = "WARN", kind: Kind = "freshness", **other: Any) -> Problem:
    asset = f"offline/{group}"
    values: dict[str, Any] = {
        "asset": asset,
        "since": T0,
        "text": f"{asset} is late. Its SLO is 1 h.",
        "remedy": f"See why the runs of {asset} fail.",
    }
    return Problem(kind=kind, group=group, status=status, **{**values, **other})


def look(at: datetime, *problems: Problem, spoken: Iterable[Key] | None = None) -> Findings:
    """A look that speaks for the freshness of every group, unless it says for what."""
    return Findings(at, problems, frozenset([("freshness", name) for name in GROUPS] if spoken is None else spoken))


def notice(event: Any = "opened", number: int = 1, episode_id: str = "e1", at: datetime = T0, **other: Any) -> Notice:
    """One notice; `other` is of its problem."""
    one = problem(**other)
    watched = Watched(one.group, "team:kiosks", "hourly", "page")
    before = None
    if event != "opened":
        told = problem(**{**other, "status": "WARN"}) if event == "raised" else one
        before = Episode(episode_id, watched, told, T0 - MINUTE, T0 - MINUTE, (), number - 1)
    return notice_of(Change(event, watched, one, before), episode_id, number, at, "http://dagster.example.org:3000/")


BLAMED = Blame("raw/orders", "team:tills", T0 - HOUR, "it has had no event newer than 2026-03-09T05:00:00+00:00")


@dataclass
class ListSink:
    """Takes notices into a list; `answers` says what happens to the next sends: an error to raise, or None."""

    answers: list[Exception | None] = field(default_factory=list)
    taken: list[Notice] = field(default_factory=list)
    repeat_every: timedelta | None = None

    def batches(self, notices: Sequence[Notice]) -> list[list[Notice]]:
        return one_by_one(notices)

    def send(self, notices: Sequence[Notice]) -> str:
        if self.answers and (error := self.answers.pop(0)) is not None:
            raise error
        self.taken += notices
        return ""


def said(notices: Iterable[Notice]) -> list[tuple[str, str, str]]:
    """Notices as event, status and group."""
    return [(one.event, one.status, one.group) for one in notices]
