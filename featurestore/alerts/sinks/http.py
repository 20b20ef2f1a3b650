"""One POST of JSON with a limit on its time, and what its answer means. Addresses and tokens are never shown, whatever happens.

408, 429 and 5xx mean *later*, as does no answer; any other answer than 2xx means *not like this*. Redirects are not followed: a token
would go along.
"""

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx

from featurestore.errors import AlertRefused, InvalidInput, SinkUnavailable

CONNECT_SECONDS = 4.0
ANSWER_SECONDS = 8.0
SHOWN_BYTES = 300
LATER = (408, 425, 429)

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
    _sending.is_secret = True
    try:
        with (
            httpx.Client(timeout=timeout) as client,
            client.stream("POST", url, json=document, headers=dict(headers or {}), auth=auth) as answer,
        ):
            _judge(answer, url)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise InvalidInput("The address of this sink is none. It begins with http:// or https://.") from None
    except (httpx.LocalProtocolError, UnicodeError):
        raise InvalidInput("The address or the token of this sink has a character that HTTP does not carry.") from None
    except httpx.HTTPError as error:
        raise SinkUnavailable(f"No answer: {_unsaid(str(error) or type(error).__name__, url)}") from None
    finally:
        _sending.is_secret = False


def _judge(answer: httpx.Response, url: str) -> None:
    if answer.is_success:
        return
    told = f"HTTP {answer.status_code}: {_unsaid(_beginning(answer), url)}".rstrip(": ")
    if answer.status_code in LATER or answer.is_server_error:
        raise SinkUnavailable(told)
    raise AlertRefused(told)


def _beginning(answer: httpx.Response) -> str:
    """The first bytes of an answer, for a person; a long one is not waited for, and a compressed one is not unpacked.

    An answer that breaks off, or lies about its encoding, says what it means by its status all the same.
    """
    if "content-encoding" in answer.headers:
        return ""
    read = b""
    with suppress(httpx.HTTPError):
        for part in answer.iter_raw():
            read += part
            if len(read) >= SHOWN_BYTES:
                break
    return " ".join(read[:SHOWN_BYTES].decode(errors="replace").replace("\0", "").split())


def _unsaid(text: str, url: str) -> str:
    """A text without the address, or what of it is secret."""
    target = httpx.URL(url).raw_path.decode()
    for hidden in (url, target, *(part for part in target.split("/") if len(part) > 5)):
        text = text.replace(hidden, "...") if len(hidden) > 1 else text
    return text
