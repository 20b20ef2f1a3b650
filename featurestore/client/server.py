"""What both clients know: where the server is, the key, how long calls may take, and how replies are judged.

An API key goes into one header, and from there nowhere: neither into a message nor into a log or a repr.
"""

import re
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from featurestore.client.attempts import Attempts
from featurestore.client.question import push_body, read_body
from featurestore.client.refusal import AGAIN, refused
from featurestore.errors import FeatureStoreError, InvalidInput, NotFresh, StoreUnavailable
from featurestore.frames import Rows, as_polars
from featurestore.freshness.read_state import Mode
from featurestore.references import Request
from featurestore.serving.wire import ARROW, IDEMPOTENCY_FORM, IDEMPOTENCY_HEADER, IDEMPOTENCY_KEY, JSON, TIMEOUT_HEADER

READ_SECONDS, PUSH_SECONDS = 1.0, 30.0
SERVER_SHARE = 0.9
"""Of the time that is left, what the server is given; the rest is for the way."""
KEY = re.compile(r"[!-~]+")
Verify = bool | Path | ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Call:
    """A request to one path, and how long it may take."""

    path: str
    body: bytes
    seconds: float
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)


class Server(ABC):
    """A feature server as a client sees it.

    Args:
        url: The server's, such as 'https://features.example.com'.
        api_key: 'fs_...', where the server asks for one.
        timeout_seconds: How long a read may take, with every attempt.
        push_timeout_seconds: How long a push may take, with every attempt.
        verify: Of TLS: a file of certificates to trust, a context, or False for none of it.

    Raises:
        InvalidInput: the URL is not one of a server, or holds a password; the key has characters that none has; there is
            no such file of certificates.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = READ_SECONDS,
        push_timeout_seconds: float = PUSH_SECONDS,
        verify: Verify = True,
    ) -> None:
        self.url = _checked_url(url)
        self._seconds, self._push_seconds = timeout_seconds, push_timeout_seconds
        headers = {"content-type": JSON, "accept-encoding": "identity", **_authorization(api_key)}
        self._open({"base_url": self.url, "headers": headers, "verify": _trusted(verify)})

    @abstractmethod
    def _open(self, options: dict[str, Any]) -> None:
        """Make the client of httpx."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def read_call(
        self, features: Request, rows: Any, full_feature_names: bool, seconds: float | None, freshness: Mode
    ) -> Call:
        body = read_body(features, rows, full_feature_names=full_feature_names, freshness=freshness)
        return Call("get-online-features", body, self._seconds if seconds is None else seconds, {"accept": ARROW})

    def push_call(self, group: str, rows: Rows, to: str, idempotency_key: str | None) -> Call:
        body = push_body(group, as_polars(rows, "rows"), to)
        headers = {
            "accept": JSON,
            IDEMPOTENCY_HEADER: _checked_name(idempotency_key) if idempotency_key else uuid4().hex,
        }
        return Call("push", body, self._push_seconds, headers)

    def pause(self, reply: "Reply | httpx.TransportError", attempts: Attempts) -> float:
        """Seconds to wait before the next attempt; raises if there is none."""
        if isinstance(reply, Reply):
            error = refused(reply.status, reply.body, self.url)
            may_help = reply.status in AGAIN and not isinstance(error, NotFresh)
            return attempts.pause(error, is_retried=may_help, at_least=_retry_after(reply))
        return attempts.pause(self._unreachable(reply), is_retried=_is_passing(reply))

    def _unreachable(self, error: httpx.TransportError) -> FeatureStoreError:
        if isinstance(error, httpx.TimeoutException):
            return StoreUnavailable(
                f"The feature server at {self.url} did not answer in time. Allow more (timeout_seconds, or "
                "push_timeout_seconds for a push), or look at the server. A push may have been taken all the same: repeat it "
                "with the same idempotency_key."
            )
        said = str(error) or type(error).__name__
        return StoreUnavailable(
            f"The feature server at {self.url} cannot be reached: {said}. Check the URL, and that it runs."
        )


def request_of(call: Call, seconds: float) -> dict[str, Any]:
    server_ms = max(1, int(seconds * SERVER_SHARE * 1000))
    return {
        "method": "POST",
        "url": call.path,
        "content": call.body,
        "headers": {**call.headers, TIMEOUT_HEADER: str(server_ms)},
        "timeout": max(seconds, 0.001),
    }


def require_time(attempts: Attempts) -> None:
    """httpx limits the wait for each piece of an answer, not for all of them."""
    if not attempts.left:
        raise httpx.ReadTimeout("the answer was not complete in time")


def _checked_name(idempotency_key: str) -> str:
    if not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise InvalidInput(
            f"The idempotency key {idempotency_key[:80]!r} is none that a server takes. Give {IDEMPOTENCY_FORM}."
        )
    return idempotency_key


def _trusted(verify: Verify) -> bool | ssl.SSLContext:
    if not isinstance(verify, Path):
        return verify
    try:
        return ssl.create_default_context(cafile=str(verify))
    except OSError as error:  # ssl.SSLError is one
        raise InvalidInput(f"The certificates of {verify} cannot be read: {error}. Give a file in PEM.") from error


def _is_passing(error: httpx.TransportError) -> bool:
    is_connection = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
    return is_connection and "CERTIFICATE" not in str(error)


def _retry_after(reply: Reply) -> float:
    said = reply.headers.get("retry-after", "")
    return float(said) if said.isdigit() else 0.0


def _checked_url(url: str) -> str:
    """What does not look like a URL is not repeated: a password may be in it."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise InvalidInput(
            "The URL of the feature server cannot be read. Write https://host or http://host:port."
        ) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInput(
            "The URL of the feature server has no scheme or host. Write https://host or http://host:port."
        )
    if "@" in url:  # also behind a '/' of a password, which would be taken for the end of the host
        raise InvalidInput("The URL of the feature server holds a user or password. Pass the key as api_key.")
    return str(parsed).rstrip("/") + "/"


def _authorization(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    if not KEY.fullmatch(api_key):
        raise InvalidInput(
            "The API key is empty, or has blanks or characters that no key has. Pass it as it was shown."
        )
    return {"authorization": f"Bearer {api_key}"}
