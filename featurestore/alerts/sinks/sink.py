"""What every sink can do, and which one goes with which settings."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from typing import Protocol

from featurestore.alerts.notice import Notice
from featurestore.alerts.settings import AlertmanagerSettings, EmailSettings, SinkSettings, SlackSettings
from featurestore.clock import Clock


class Sink(Protocol):
    """Takes notices somewhere. Every call ends within a bounded time.

    Args:
        repeat_every: How often it is to be told again of episodes that go on; None: it remembers by itself.
    """

    repeat_every: timedelta | None

    def batches(self, notices: Sequence[Notice]) -> list[list[Notice]]:
        """Cut notices, which stay in their order, into those that go together."""
        ...

    def send(self, notices: Sequence[Notice]) -> str:
        """Send one batch.

        Returns:
            A remark to keep with them, e.g. whom of several they did not reach; usually "".

        Raises:
            SinkUnavailable: it cannot be reached just now.
            AlertRefused: it does not take them as they are.
            InvalidInput: a variable that it needs is not set.
        """
        ...


def sink_of(settings: SinkSettings, clock: Clock) -> Sink:
    """The sink of some settings; nothing is opened yet."""
    if isinstance(settings, SlackSettings):
        from featurestore.alerts.sinks.slack import SlackSink

        return SlackSink(settings)
    if isinstance(settings, AlertmanagerSettings):
        from featurestore.alerts.sinks.alertmanager import AlertmanagerSink

        return AlertmanagerSink(settings, clock)
    if isinstance(settings, EmailSettings):
        from featurestore.alerts.sinks.email import EmailSink

        return EmailSink(settings)
    from featurestore.alerts.sinks.webhook import WebhookSink

    return WebhookSink(settings)


def one_by_one(notices: Sequence[Notice]) -> list[list[Notice]]:
    """Every notice for itself."""
    return [[notice] for notice in notices]


def by_blame(notices: Sequence[Notice]) -> list[list[Notice]]:
    """Notices of the same event and the same first late asset together, where they stand side by side."""
    return [list(some) for _, some in groupby(notices, key=lambda notice: (notice.event, notice.blamed.asset))]
