"""Reaching a Redis or Valkey server: limits on waiting, and what its failures mean. Not here: keys, messages, rules."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from featurestore.errors import FenceRefused, InvalidInput, StoreUnavailable

READ_TIMEOUT_SECONDS = 0.05
WRITE_TIMEOUT_SECONDS = 5.0


def connect(
    url: str, *, timeout_seconds: float = READ_TIMEOUT_SECONDS, retries: int = 1, max_connections: int = 64
) -> redis.Redis:
    """Build a client for a server that answers soon or is given up; nothing is sent yet.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with user, password and database as redis-py reads them.
        timeout_seconds: Limit on connecting, on each answer, and on waiting for a free connection.
        retries: Attempts after the first.
        max_connections: Size of the pool; callers beyond it wait for a free connection.

    Raises:
        InvalidInput: `url` is not one of these.
    """
    try:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), retries),
            max_connections=max_connections,
            timeout=timeout_seconds,
        )
    except ValueError as error:
        scheme = url.partition("://")[0] if "://" in url else "none"
        raise InvalidInput(
            f"The address of the Redis server is not readable (scheme: {scheme}). Write redis://host:port/0, "
            "rediss://user:password@host:port/0 or unix:///path/to/socket."
        ) from error
    return redis.Redis(connection_pool=pool)


def address_of(client: redis.Redis) -> str:
    """Host and port, or socket path; never the password."""
    place = client.connection_pool.connection_kwargs
    return str(place["path"]) if "path" in place else f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"


def send(client: redis.Redis, *parts: object) -> Any:
    """Send one command; what comes back depends on it."""
    execute: Callable[..., Any] = client.execute_command
    return execute(*parts)


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Translate what a server that cannot do its work says, or does not say."""
    try:
        yield
    except AuthenticationError as error:
        raise StoreUnavailable(f"Redis at {address} refuses the credentials: check user and password.") from error
    except (ConnectionError, TimeoutError) as error:
        raise StoreUnavailable(
            f"Redis at {address} does not answer ({type(error).__name__}). Check that it runs and can be reached from here, "
            "and the address in the settings."
        ) from error
    except OutOfMemoryError as error:
        raise StoreUnavailable(
            f"Redis at {address} is full: raise its maxmemory or shorten the groups' ttl."
        ) from error
    except ReadOnlyError as error:
        raise StoreUnavailable(f"Redis at {address} is a replica: give the address of the primary.") from error
    except ResponseError as error:
        if refusal_in(error, "FSEPOCH") is not None:
            raise FenceRefused(
                f"The group, or all of Redis at {address}, was emptied since this writer began: the epoch is another. Nothing of "
                "this batch was written. Read the epoch and the state again; an unknown state means rebuild."
            ) from error
        raise


def refusal_in(error: ResponseError, code: str) -> str | None:
    """What our script said after `code`; None if the error is another."""
    _, found, said = str(error).partition(code)
    return said.strip() if found else None
