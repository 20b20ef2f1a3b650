"""Slack's incoming webhooks, and what speaks like them: one message for notices of the same event and the same first late asset."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from featurestore.alerts.notice import Notice
from featurestore.alerts.settings import SlackSettings, secret
from featurestore.alerts.sinks.http import post_json
from featurestore.alerts.sinks.sink import by_blame
from featurestore.alerts.text import headline, lines

SHOWN = 10
"""Notices that a message has whole; it says how many more there are."""
LONGEST = 2900
"""Slack takes 3000 characters in a section."""


class SlackSink:
    """One incoming webhook."""

    repeat_every: timedelta | None = None

    def __init__(self, settings: SlackSettings) -> None:
        self._settings = settings

    def batches(self, notices: Sequence[Notice]) -> list[list[Notice]]:
        return by_blame(notices)

    def send(self, notices: Sequence[Notice]) -> str:
        post_json(secret(self._settings.url_env), slack_message(notices))
        return ""


def slack_message(notices: Sequence[Notice]) -> dict[str, Any]:
    """One message: a text for notifications and old clients, and the same in blocks.

    Args:
        notices: Of one event and one first late asset; at least one.
    """
    sections = [_section(f"*{_escaped(headline(one))}*\n{_lines(one)}") for one in notices[:SHOWN]]
    if len(notices) > SHOWN:
        sections.append(_section(f"... and {len(notices) - SHOWN} more of {_escaped(notices[0].blamed.asset)}."))
    return {"text": _escaped(title(notices)), "blocks": [_header(title(notices)), *sections]}


def title(notices: Sequence[Notice]) -> str:
    """The notices in one line."""
    first = notices[0]
    page = "PAGE " if any(one.urgency == "page" and not one.is_over for one in notices) else ""
    if len(notices) == 1:
        return f"{page}{headline(first)}"
    word = {"recovered": "Recovered", "closed": "Closed"}.get(first.event, first.status)
    return f"{page}{word}: {len(notices)} alerts, first late {first.blamed.asset}"


def _lines(notice: Notice) -> str:
    return "\n".join(f"*{label}*  {_escaped(text)}" for label, text in lines(notice))


def _header(text: str) -> dict[str, Any]:
    """Slack takes 150 characters in a header."""
    return {"type": "header", "text": {"type": "plain_text", "text": text[:150]}}


def _section(text: str) -> dict[str, Any]:
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return {"type": "section", "text": {"type": "mrkdwn", "text": shown}}


def _escaped(text: str) -> str:
    """Slack's three control characters, so that nothing in a text becomes a link or calls a channel.

    >>> _escaped("<!channel> a & b")
    '&lt;!channel&gt; a &amp; b'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
