"""Prometheus Alertmanager, by its API v2: it groups, silences and escalates.

An alert is its labels. It forgets one that is not repeated, so an open episode is posted again every minute with an end some way
ahead: if nobody looks any more, it resolves by itself after `AHEAD`. A raise ends the warning and fires the critical alert. Whatever
ends does so with exactly the labels that it was fired with: an owner, a tier or an asset may have changed meanwhile.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from featurestore.alerts.kinds import Severity, Urgency
from featurestore.alerts.notice import Notice, Told
from featurestore.alerts.settings import AlertmanagerSettings, secret
from featurestore.alerts.sinks.http import post_json
from featurestore.alerts.text import headline, instant
from featurestore.clock import Clock

AHEAD = timedelta(minutes=15)
REPEAT_EVERY = timedelta(minutes=1)
PATH = "/api/v2/alerts"
ALERTS_A_POST = 200
"""Proxies commonly take a megabyte, which is some thousand alerts."""
SEVERITIES: dict[Severity, str] = {"WARN": "warning", "BREACH": "critical"}


class AlertmanagerSink:
    """One Alertmanager."""

    repeat_every: timedelta | None = REPEAT_EVERY

    def __init__(self, settings: AlertmanagerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    def batches(self, notices: Sequence[Notice]) -> list[list[Notice]]:
        """As much as one post can say: of one kind and group the last notice counts, so each post has one of them."""
        found: list[list[Notice]] = []
        said: set[tuple[str, str]] = set()
        for notice in notices:
            key = (notice.kind, notice.group)
            if not found or key in said or len(found[-1]) == ALERTS_A_POST:
                found.append([])
                said.clear()
            found[-1].append(notice)
            said.add(key)
        return found

    def send(self, notices: Sequence[Notice]) -> str:
        settings, headers, auth = self._settings, {}, None
        if settings.token_env:
            headers["Authorization"] = f"Bearer {secret(settings.token_env)}"
        if settings.username:
            auth = (settings.username, secret(settings.password_env))
        url = (settings.url or secret(settings.url_env)).rstrip("/") + PATH
        post_json(url, [alert for notice in notices for alert in alerts_of(notice, self._clock())], headers, auth)
        return ""


def alerts_of(notice: Notice, now: datetime) -> list[dict[str, Any]]:
    """The alerts that a notice is, as the API takes them. What was made by a clock that was ahead begins and ends now."""
    over, previous = min(notice.at, now), notice.previous or _before(notice)
    if notice.is_over:
        return [_alert(notice, previous or notice.told, over, over)]
    current = _alert(notice, notice.told, now, now if notice.event == "test" else now + AHEAD)
    if previous is None or _labels(notice, previous) == current["labels"]:
        return [current]
    return [_alert(notice, previous, over, over), current]


def _before(notice: Notice) -> Told | None:
    """What a raise was told before, of a notice that an earlier version kept without it."""
    if notice.event != "raised" or notice.before is None:
        return None
    urgency: Urgency = notice.urgency if notice.before == notice.status else "ticket"
    return replace(notice.told, status=notice.before, status_since=notice.opened_at, urgency=urgency)


def _labels(notice: Notice, told: Told) -> dict[str, str]:
    labels = {
        "alertname": f"Featurestore{notice.kind.capitalize()}",
        "kind": notice.kind,
        "group": notice.group,
        "owner": told.owner,
        "tier": told.tier,
        "severity": SEVERITIES[told.status],
        "urgency": told.urgency,
        "asset": told.asset,
    }
    return {name: value for name, value in labels.items() if value}


def _alert(notice: Notice, told: Told, begun_by: datetime, ends_at: datetime) -> dict[str, Any]:
    blamed = notice.blamed
    return {
        "labels": _labels(notice, told),
        "annotations": {
            "summary": headline(notice),
            "description": notice.text,
            "since": instant(notice.since),
            "first_late": f"{blamed.asset} of {blamed.owner or 'nobody declared'}: {blamed.text}",
            "todo": notice.remedy,
        },
        "startsAt": min(told.status_since, begun_by).isoformat(),
        "endsAt": ends_at.isoformat(),
        **({"generatorURL": notice.url} if notice.url else {}),
    }
