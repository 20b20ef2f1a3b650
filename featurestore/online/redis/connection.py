"""Reaching a Redis or Valkey server: its address, limits on waiting, and what its failures mean. Not here: keys, messages, rules."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from featurestore.errors import FeatureStoreError, FenceRefused, InvalidInput, StoreUnavailable
from featurestore.online.redis.line import NotRedis, ServerSaid

READ_TIMEOUT_SECONDS = 0.05
WRITE_TIMEOUT_SECONDS = 5.0
MOST_LINES = 64
_OWN_REFUSALS = frozenset({"FSSTATE", "FSMARK", "FSFOREIGN", "NOSCRIPT"})
"""What our scripts say of a group's state or keys: whoever ran them knows what it means."""
_NOT_FOR_CONNECTIONS = ("himport_registry", "maint_notifications_pool_handler", "maint_notifications_config")


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """Where a server is and how it is reached. It has secrets: its repr is the address alone.

    Args:
        kind: Class of redis-py's connection: TCP, TLS or a socket of this machine.
        options: Of the connection, as redis-py takes them.
        patience_seconds: Limit on connecting and on each answer.
    """

    kind: Callable[..., AbstractConnection]
    options: dict[str, Any]
    patience_seconds: float

    def __repr__(self) -> str:
        return f"Place({self.address})"

    @property
    def address(self) -> str:
        """Host and port, or socket path; never the password."""
        if "path" in self.options:
            return str(self.options["path"])
        return f"{self.options.get('host', 'localhost')}:{self.options.get('port', 6379)}"

    def at(self, host: str, port: int) -> "Place":
        """Another server that is reached in the same way."""
        return replace(self, options={**self.options, "host": host, "port": port})

    def with_patience(self, seconds: float) -> "Place":
        """The same with another limit on each answer."""
        return replace(self, patience_seconds=seconds)

    def connection(self) -> AbstractConnection:
        """A new connection; nothing is sent yet."""
        return self.kind(
            **{"socket_connect_timeout": self.patience_seconds, **self.options},
            socket_timeout=self.patience_seconds,
            retry=Retry(NoBackoff(), 0),
            # Each of these would cost a round trip for every new connection, and a right more for the user.
            protocol=2,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )


def place_of(url: str, *, patience_seconds: float = READ_TIMEOUT_SECONDS) -> Place:
    """Read an address; nothing is sent.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with user, password, database and TLS files as redis-py reads them:
            `rediss://user:password@host:port/0?ssl_ca_certs=ca.pem&ssl_certfile=me.pem&ssl_keyfile=me.key`.
        patience_seconds: Limit on connecting and on each answer, unless the address has `socket_timeout`.

    Raises:
        InvalidInput: `url` is not one of these.
    """
    try:
        _refuse_two_readings(url)
        options = dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError:
        # What redis-py says may quote a piece of the password.
        scheme = url.partition("://")[0] if "://" in url else "none"
        raise InvalidInput(
            f"The address of the Redis server is not readable (scheme: {scheme}). Write redis://host:port/0, "
            "rediss://user:password@host:port/0 or unix:///path/to/socket; characters such as /, ?, # or @ in a password are "
            "written %2F, %3F, %23 and %40."
        ) from None
    kind = options.pop("connection_class", Connection)
    place = Place(kind, options, options.pop("socket_timeout", None) or patience_seconds)
    try:
        place.connection()
    except (TypeError, RedisError):
        names = sorted(set(options) - {"host", "port", "db", "path", "username", "password"})
        raise InvalidInput(
            f"The address of {place.address} has settings that its connections do not take, among {names}. TLS settings need "
            "rediss://; redis-py's documentation of connections lists the others."
        ) from None
    return place


def _refuse_two_readings(url: str) -> None:
    """Raise ValueError where a piece of a password would be taken, and shown, for the host: 'redis://user:12/secret@host'.

    A socket's path may have an '@' if no user stands before it, and nothing else does.
    """
    parts = urlsplit(url)
    before_path = parts.netloc or not url.startswith("unix://")
    if "@" in f"{parts.path if before_path else ''}{parts.query}{parts.fragment}":
        raise ValueError("an @ beyond the host")
    if url.startswith("unix://") and parts.netloc and "@" not in parts.netloc:
        raise ValueError("a host of a socket")


def seeds_of(url: str, *, patience_seconds: float = READ_TIMEOUT_SECONDS) -> list[Place]:
    """Read the address of a cluster: `redis+cluster://user:password@host:port,host:port?...`, or `rediss+cluster://` for TLS.

    Raises:
        InvalidInput: `url` is not one of these.
    """
    scheme, _, rest = url.partition("+cluster://")
    end = next((at for at, character in enumerate(rest) if character in "/?"), len(rest))
    login, at_sign, hosts = rest[:end].rpartition("@")
    places = [
        place_of(f"{scheme}://{login}{at_sign}{host}{rest[end:]}", patience_seconds=patience_seconds)
        for host in hosts.split(",")
        if host
    ]
    if not places or any(place.options.get("db") for place in places):
        raise InvalidInput(
            "The address of the Redis cluster is not readable. Write redis+cluster://host:port,host:port or "
            "rediss+cluster://user:password@host:port,host:port?ssl_ca_certs=ca.pem; a cluster has database 0 only."
        )
    return places


def place_of_client(client: redis.Redis) -> Place:
    """Where a client of redis-py leads, with its limits.

    Raises:
        InvalidInput: The client decodes its answers.
    """
    if client.get_encoder().decode_responses:
        raise InvalidInput(
            "The Redis client decodes its answers to text; messages are bytes. Build it without decode_responses."
        )
    pool = client.connection_pool
    options = {
        name: value
        for name, value in pool.connection_kwargs.items()
        if name not in (*_NOT_FOR_CONNECTIONS, "retry", "protocol", "driver_info", "lib_name", "lib_version")
        and not name.startswith("orig_")
    }
    return Place(pool.connection_class, options, options.pop("socket_timeout", None) or WRITE_TIMEOUT_SECONDS)


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Translate what a server that cannot do its work says, or does not say."""
    try:
        yield
    except (OSError, RedisError, ServerSaid) as error:
        if isinstance(error, FeatureStoreError) or (isinstance(error, ServerSaid) and error.code in _OWN_REFUSALS):
            raise
        raise meaning_of(address, error) from error


def meaning_of(address: str, error: Exception) -> FeatureStoreError:
    """What a failure of a server means for whoever asked."""
    if isinstance(error, ServerSaid):
        return _meaning_of_answer(address, error)
    if isinstance(error, AuthenticationError):
        return StoreUnavailable(f"Redis at {address} refuses the credentials: check user and password.")
    if isinstance(error, BlockingIOError):
        return StoreUnavailable(
            f"All connections to Redis at {address} are in use: more callers at once than it is set up for."
        )
    if isinstance(error, NotRedis | InvalidResponse):
        return StoreUnavailable(
            f"What answers at {address} does not speak Redis's protocol. Check host and port in the settings; a server that "
            "speaks TLS takes rediss://."
        )
    kind = "TimeoutError" if isinstance(error, TimeoutError | RedisTimeout) else type(error).__name__
    return StoreUnavailable(
        f"Redis at {address} does not answer ({kind}). Check that it runs and can be reached from here, "
        f"and the address in the settings{_OF_TLS if isinstance(error, ConnectionResetError) else ''}."
    )


_OF_TLS = ": a server that speaks TLS takes rediss://"


def _meaning_of_answer(address: str, said: ServerSaid) -> FeatureStoreError:
    refusal = refusal_in(said, "FSOWNER")
    if refusal is not None:
        return FenceRefused(
            f"This writer may not go on with the fill at {address}: {refusal}. Nothing of this batch was written. Read the "
            "fill under way, and take it over from its first undone slice if it is to go on."
        )
    if "ACL failure" in str(said):
        said = ServerSaid("NOPERM")
    if "non local key" in str(said):
        return StoreUnavailable(f"Redis at {address} has given slots to another node: take the step again.")
    remedy = _MEANINGS.get(said.code)
    if said.code == "FSEPOCH":
        return FenceRefused(
            f"The group, or all of Redis at {address}, was emptied since this writer began, or the server was restarted: the "
            "epoch is another. Nothing of this batch was written. Read the epoch and the state again; an unknown state means "
            "rebuild."
        )
    return StoreUnavailable(f"Redis at {address} {remedy or f'cannot do this: {said}'}.")


_MEANINGS = {
    "NOAUTH": "asks for a password: write user and password into the address",
    "WRONGPASS": "refuses the credentials: check user and password",
    "NOPERM": "does not allow this user what the store needs: grant the rights that docs/online.md lists",
    "OOM": "is full: raise its maxmemory or shorten the groups' ttl",
    "READONLY": "is a replica: give the address of the primary",
    "LOADING": "is still loading its data: try again",
    "MASTERDOWN": "is a replica that has lost its primary",
    "CLUSTERDOWN": "is in a cluster that is down: check its nodes",
    "MOVED": "has given the slot to another node: take the step again",
    "ASK": "is giving the slot to another node: take the step again",
    "TRYAGAIN": "is giving the slot to another node: take the step again",
    "MISCONF": "cannot save its data and refuses writes: check its disk",
    "BUSY": "is busy with a script of another program",
}


def refusal_in(said: ServerSaid, code: str) -> str | None:
    """What our script said after `code`; None if the error is another."""
    _, found, rest = str(said).partition(code)
    return rest.strip() if found else None
