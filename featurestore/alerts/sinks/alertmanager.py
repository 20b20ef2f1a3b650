"""Prometheus Alertmanager, by its API v2: it groups, silences and escalates.

An alert is its labels. It forgets one that is not repeated, so an open episode is posted again every minute with an end some way
ahead: if nobody looks any more, it resolves by itself after `AHEAD`. A raise ends the warning and fires the critical alert.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from featurestore.alerts.kinds import Severity
from featurestore.alerts.notice import Notice
from featurestore.alerts.settings import AlertmanagerSettings, secret
from featurestore.alerts.sinks.http import post_json
from featurestore.alerts.text import headline, instant
from featurestore.clock import Clock

AHEAD = timedelta(minutes=15)
REPEAT_EVERY = timedelta(minutes=1)
PATH = "/api/v2/alerts"
SEVERITIES: dict[Severity, str] = {"WARN": "warning", "BREACH": "critical"}


class AlertmanagerSink:
    """One Alertmanager."""

    repeat_every: timedelta | None = REPEAT_EVERY

    def __init__(self, settings: AlertmanagerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    def batches(self, notices: Sequence[Notice]) -> list[list[Notice]]:
        """All that one post can say: of one kind and group the last notice counts, so each post has one of them."""
        found: list[list[Notice]] = []
        for notice in notices:
            key = (notice.kind, notice.group)
            if not found or any((one.kind, one.group) == key for one in found[-1]):
                found.append([])
            found[-1].append(notice)
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
    """The alerts that a notice is, as the API takes them."""
    ends_at = notice.at if notice.is_over else now if notice.event == "test" else now + AHEAD
    current = _alert(notice, notice.status, notice.status_since, ends_at)
    if notice.event != "raised" or notice.before in (None, notice.status):
        return [current]
    return [_alert(notice, notice.before, notice.opened_at, notice.at), current]


def _alert(notice: Notice, status: Severity, starts_at: datetime, ends_at: datetime) -> dict[str, Any]:
    labels = {
        "alertname": f"Featurestore{notice.kind.capitalize()}",
        "kind": notice.kind,
        "group": notice.group,
        "owner": notice.owner,
        "tier": notice.tier,
        "severity": SEVERITIES[status],
        "urgency": notice.urgency if status == notice.status else "ticket",
        "asset": notice.asset,
    }
    blamed = notice.blamed
    return {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {
            "summary": headline(notice),
            "description": notice.text,
            "since": instant(notice.since),
            "first_late": f"{blamed.asset} of {blamed.owner or 'nobody declared'}: {blamed.text}",
            "todo": notice.remedy,
        },
        "startsAt": starts_at.isoformat(),
        "endsAt": max(ends_at, starts_at).isoformat(),
        **({"generatorURL": notice.url} if notice.url else {}),
    }
