"""One POST of JSON with a limit on its time, and what its answer means. Addresses and tokens are never shown, whatever happens.

408, 429 and 5xx mean *later*, as does no answer; any other answer than 2xx means *not like this*. Redirects are not followed: a token
would go along.
"""

import logging
import re
import threading
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from json import dumps
from typing import Any
from urllib.parse import quote, unquote

import httpx

from featurestore.errors import AlertRefused, InvalidInput, SinkUnavailable

CONNECT_SECONDS = 4.0
ANSWER_SECONDS = 8.0
SHOWN_BYTES = 300
LATER = (408, 425, 429)
HIDDEN = "\0"

_sending = threading.local()


class _Unsaid(logging.Filter):
    """httpx logs each address that it calls, and ours are secrets: in a thread that sends, it logs nothing."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the interface of a filter
        return not getattr(_sending, "is_secret", False)


logging.getLogger("httpx").addFilter(_Unsaid())


def post_json(
    url: str, document: Any, headers: Mapping[str, str] | None = None, auth: tuple[str, str] | None = None
) -> None:
    """Post a document.

    Raises:
        SinkUnavailable: no answer, or one that says to come later.
        AlertRefused: an answer that says that this will not do.
        InvalidInput: the address is none.
    """
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    sent = dict(headers or {})
    _sending.is_secret = True
    try:
        with (
            httpx.Client(timeout=timeout) as client,
            client.stream("POST", url, json=document, headers=sent, auth=auth) as answer,
        ):
            _judge(answer, _secrets(url, sent, auth))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise InvalidInput("The address of this sink is none. It begins with http:// or https://.") from None
    except (httpx.LocalProtocolError, UnicodeError):
        raise InvalidInput("The address or the token of this sink has a character that HTTP does not carry.") from None
    except httpx.HTTPError as error:
        told = _unsaid(str(error) or type(error).__name__, _secrets(url, sent, auth))
        raise SinkUnavailable(f"No answer: {told}") from None
    finally:
        _sending.is_secret = False


def _judge(answer: httpx.Response, secrets: Sequence[str]) -> None:
    if answer.is_success:
        return
    told = f"HTTP {answer.status_code}: {_beginning(answer, secrets)}".rstrip(": ")
    if answer.status_code in LATER or answer.is_server_error:
        raise SinkUnavailable(told)
    raise AlertRefused(told)


def _beginning(answer: httpx.Response, secrets: Sequence[str]) -> str:
    """The first bytes of an answer, for a person; a long one is not waited for, and a compressed one is not unpacked.

    An answer that breaks off, or lies about its encoding, says what it means by its status all the same. More is read than is shown,
    so that no secret is cut in two and shown by half.
    """
    if "content-encoding" in answer.headers:
        return ""
    read, enough = b"", SHOWN_BYTES + max(len(one.encode()) for one in secrets)
    with suppress(httpx.HTTPError):
        for part in answer.iter_raw():
            read += part
            if len(read) >= enough:
                break
    return " ".join(_unsaid(read[:enough].decode(errors="replace"), secrets, SHOWN_BYTES).split())


def _secrets(url: str, headers: Mapping[str, str], auth: tuple[str, str] | None) -> list[str]:
    """What an answer or an error may not show: the address and its parts, what the headers held, user and password; the longest first."""
    target = httpx.URL(url).raw_path.decode()
    said = [url, target, *(part for part in re.split(r"[/?&=]", target) if len(part) > 5)]
    for value in headers.values():
        said += [value, value.rpartition(" ")[2]]
    if auth is not None:
        said += [*auth, b64encode(":".join(auth).encode()).decode()]
    written = {form for one in said for form in (one, quote(one, safe=""), unquote(one), escape(one), dumps(one)[1:-1])}
    return sorted((one for one in written if len(one) > 1), key=len, reverse=True)


def _unsaid(text: str, secrets: Iterable[str], shown: int | None = None) -> str:
    """The first characters of a text without what is secret; what is hidden counts as it was long."""
    hidden = text.replace(HIDDEN, " ")
    for secret in secrets:
        hidden = hidden.replace(secret, HIDDEN * len(secret))
    return re.sub(f"{HIDDEN}+", "...", hidden[:shown])
