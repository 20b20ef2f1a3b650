"""Who calls: an `Authorization` header becomes a `Caller`, or is refused. Not here: HTTP, and what a caller may do.

Why a key is refused is in the log alone. To whoever sent it, a key that is malformed, unknown, expired, revoked or has
another secret is refused in the same words.
"""

import hmac
import logging
from datetime import datetime
from typing import NoReturn, Protocol

from featurestore.auth.book import StoredKey
from featurestore.auth.caller import ANYONE, Caller
from featurestore.auth.key import PresentedKey, parse_authorization
from featurestore.auth.known import KnownKeys
from featurestore.clock import Clock, system_clock
from featurestore.errors import NotAuthenticated
from featurestore.settings import Settings

SERVER_LOCK_SECONDS = 0.25
NO_DIGEST = "0" * 64
REFUSED = (
    "A valid API key is needed. Send it as 'Authorization: Bearer fs_...'; whoever runs this store makes one with "
    "'featurestore keys create'."
)

log = logging.getLogger("featurestore.auth")


class Authenticates(Protocol):
    """What a server asks who calls."""

    @property
    def notice(self) -> str:
        """What to say when the server starts."""
        ...

    def authenticate(self, authorization: str | None, *, now: datetime, asked: str = "") -> Caller:
        """The caller behind a header; see `Authenticator.authenticate`."""
        ...

    def start(self) -> None:
        """Call it once in every worker process, before it takes requests."""
        ...

    def check(self) -> None:
        """Whether callers can be told apart now, for readiness."""
        ...

    def close(self) -> None:
        """Call it when the worker ends."""
        ...


class Authenticator:
    """Asks for API keys. It takes microseconds: keys are compared in memory."""

    def __init__(self, keys: KnownKeys) -> None:
        self._keys = keys

    @property
    def notice(self) -> str:
        return f"Auth is on: API keys of {self._keys.address}."

    def authenticate(self, authorization: str | None, *, now: datetime, asked: str = "") -> Caller:
        """The caller behind a header.

        Args:
            authorization: Value of `Authorization`; None where there is none.
            now: The server's instant, aware: rules what is expired.
            asked: Who asked for what, for the log of a refusal.

        Raises:
            NotAuthenticated: there is no key that is good.
            StoreUnavailable: the metadata database could not be read for longer than the grace, or not yet at all.
        """
        presented = parse_authorization(authorization) if authorization else None
        if presented is None:
            _refuse("malformed" if authorization else "none given", asked)
        stored = self._keys.current().get(presented.key_id)
        reason = _flaw(presented, stored, now)
        if stored is None or reason:
            _refuse(f"{reason}, id {presented.key_id}", asked)
        self._keys.note_used(stored.key_id, now)
        return Caller(stored.key_id, stored.name, stored.owner, stored.rights)

    def start(self) -> None:
        """Read the keys before the first request comes; waits for some seconds at most, and fails nothing."""
        self._keys.start()

    def check(self) -> None:
        """Whether keys can be vouched for, for readiness.

        Raises:
            StoreUnavailable: they cannot.
        """
        self._keys.current()

    def close(self) -> None:
        """Stop following the metadata database."""
        self._keys.close()


class OpenAuthenticator:
    """Asks for nothing: auth is off, and everyone may do everything."""

    notice = "Auth is OFF: whoever reaches this server may read and push everything. Set FEATURESTORE_AUTH=on to ask for API keys."

    def authenticate(self, authorization: str | None, *, now: datetime, asked: str = "") -> Caller:  # noqa: ARG002
        return ANYONE

    def start(self) -> None:
        """There is nothing to read."""

    def check(self) -> None:
        """There is nothing that could fail."""

    def close(self) -> None:
        """There is nothing to stop."""


def authenticator_of(settings: Settings, clock: Clock = system_clock) -> Authenticates:
    """As FEATURESTORE_AUTH says. Nothing is opened before the first key comes.

    Raises:
        InvalidInput: auth is on, and the metadata database has no usable URL.
    """
    if not settings.auth:
        return OpenAuthenticator()
    return Authenticator(KnownKeys(settings.key_book(clock, lock_seconds=SERVER_LOCK_SECONDS)))


def _flaw(presented: PresentedKey, stored: StoredKey | None, now: datetime) -> str:
    """What is wrong with a key; empty if it is good. An id that is not known costs the same comparison."""
    is_right = hmac.compare_digest(presented.sha256, stored.sha256 if stored else NO_DIGEST)
    if stored is None:
        return "unknown"
    if not is_right:
        return "wrong secret"
    state = stored.state(now)
    return "" if state == "active" else state


def _refuse(reason: str, asked: str) -> NoReturn:
    log.warning("API key refused: %s%s", reason, f" ({asked})" if asked else "")
    raise NotAuthenticated(REFUSED)
