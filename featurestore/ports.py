"""Ports of this machine for servers that are started here. Not here: starting them."""

import random
import socket
from collections import deque
from itertools import islice

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 32_000
"""Below the ports that systems give to outgoing connections: one of those may take a port between its choice and its use."""
_TRIES = 200
_given: deque[int] = deque(maxlen=1000)
"""Those given last by this process: whoever got one may not listen there yet."""


def free_port() -> int:
    """A port that nobody listens on just now; `free_ports` has the errors."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on just now, and that were not given lately.

    Raises:
        OSError: most of those that were tried are taken.
    """
    tried = random.SystemRandom().sample(range(FIRST, LAST), count + _TRIES)
    found = list(islice((port for port in tried if port not in _given and not _is_taken(port)), count))
    if len(found) < count:
        raise OSError(f"Only {len(found)} of {len(tried)} ports from {FIRST} to {LAST} are free; {count} are needed.")
    _given.extend(found)
    return found


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
