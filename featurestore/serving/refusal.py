"""Requests that are not answered with what they asked for: which status each error has, and the body that says why.

Every body has the error's name and its message, which says what was asked, what is there and what to do.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from featurestore.errors import (
    AlreadyDecided,
    DeclarationError,
    FeatureStoreError,
    FenceRefused,
    IncompatibleChange,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFresh,
    PromotionRefused,
    SchemaMismatch,
    StaleWriter,
    StoreUnavailable,
    UnknownName,
)

STATUS_OF: dict[type[FeatureStoreError], int] = {
    NotAuthenticated: 401,
    NotAllowed: 403,
    UnknownName: 404,
    InvalidInput: 422,
    SchemaMismatch: 422,
    DeclarationError: 422,
    IncompatibleChange: 409,
    AlreadyDecided: 409,
    PromotionRefused: 409,
    StaleWriter: 409,
    FenceRefused: 409,
    NotFresh: 503,
    StoreUnavailable: 503,
}
HEADERS_OF: dict[int, dict[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    429: {"retry-after": "1"},
    503: {"retry-after": "1"},
}
NOT_FRESH = {"cache-control": "no-store", "retry-after": "30"}
"""Somebody looks every half minute: before that nothing becomes fresh."""


class Refusal(Exception):
    """A request that gets an error instead of an answer.

    Args:
        status: Of HTTP.
        error: The error's name, for programs.
        message: For people: what was asked, what is there, what to do.
        details: More of the body, by name.
    """

    def __init__(self, status: int, error: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.error, self.message, self.details = status, error, message, details or {}

    @property
    def headers(self) -> Mapping[str, str]:
        return NOT_FRESH if self.error == NotFresh.__name__ else HEADERS_OF.get(self.status, {})

    @property
    def body(self) -> bytes:
        return msgspec.json.encode({"error": self.error, "message": self.message, **self.details})


def refusal_of(error: FeatureStoreError) -> Refusal:
    """What an error of the library is over HTTP; one that the table does not have is as good as its nearest base."""
    status = next(STATUS_OF[kind] for kind in (*type(error).__mro__, StoreUnavailable) if kind in STATUS_OF)
    details = {"groups": error.groups} if isinstance(error, NotFresh) else None
    return Refusal(status, type(error).__name__, str(error), details)
