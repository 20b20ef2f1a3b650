"""Any HTTP address that takes our JSON: a POST a notice, with the notice's id as its idempotency key."""

from collections.abc import Sequence
from datetime import timedelta

from featurestore.alerts.notice import Notice, document_of
from featurestore.alerts.settings import WebhookSettings, secret
from featurestore.alerts.sinks.http import post_json
from featurestore.alerts.sinks.sink import one_by_one
from featurestore.alerts.text import body, headline

IDEMPOTENCY_KEY = "Idempotency-Key"


class WebhookSink:
    """One address."""

    repeat_every: timedelta | None = None

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings

    def batches(self, notices: Sequence[Notice]) -> list[list[Notice]]:
        return one_by_one(notices)

    def send(self, notices: Sequence[Notice]) -> str:
        settings = self._settings
        url = settings.url or secret(settings.url_env)
        token = {"Authorization": f"Bearer {secret(settings.token_env)}"} if settings.token_env else {}
        for notice in notices:
            document = {**document_of(notice), "title": headline(notice), "message": body(notice)}
            post_json(url, document, {IDEMPOTENCY_KEY: notice.notice_id, **token})
        return ""
