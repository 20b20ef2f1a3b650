"""What a server's refusal is in our own errors: its message, under the error that the library itself would have raised."""

import json
from typing import Any

from featurestore import errors
from featurestore.errors import (
    FeatureStoreError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFresh,
    StoreUnavailable,
    UnknownName,
)

ERROR_OF: dict[int, type[FeatureStoreError]] = {
    401: NotAuthenticated,
    403: NotAllowed,
    404: UnknownName,
    408: StoreUnavailable,
    425: StoreUnavailable,
    429: StoreUnavailable,
}
AGAIN = (429, 503)
SHOWN_CHARACTERS = 300


def refused(status: int, body: bytes, address: str) -> FeatureStoreError:
    """The error behind a status that is not 200.

    Args:
        status: Of HTTP.
        body: The server's own is JSON with `error` and `message`; something in between may send any other.
        address: The server's, for the message.
    """
    said = _said(body)
    name, message = str(said.get("error", "")), str(said.get("message") or said.get("detail") or "")
    message = message[: 10 * SHOWN_CHARACTERS]
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, FeatureStoreError)):
        kind = ERROR_OF.get(status, InvalidInput if status < 500 else StoreUnavailable)
    if kind is NotFresh:
        return NotFresh(message, said.get("groups") or ())
    return kind(message or f"The server at {address} answered {status}. Check that the URL is a feature server's.")


def _said(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
