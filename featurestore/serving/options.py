"""How the server runs, and what it lets a request cost: plain values, so that the command line needs nothing to be installed."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from featurestore.errors import InvalidInput

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 6566
COUNTERS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client reads it when it is imported: the folder where the workers keep what they count."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker lets requests cost.

    Args:
        body_bytes: Of a request's body.
        values: Entities times features of one request.
        in_flight: Reads that are being answered at one time; the next ones are told to come again.
        pushes_in_flight: The same of pushes, which are slower: they leave the reads their places.
        timeout_seconds: How long a request may take that does not say so itself.
        longest_timeout_seconds: What a request may say at most; more is cut down to it.

    Raises:
        InvalidInput: a limit is below what any request needs, or the longest timeout below the usual one.
    """

    body_bytes: int = 8 * 1024 * 1024
    values: int = 200_000
    in_flight: int = 256
    pushes_in_flight: int = 32
    timeout_seconds: float = 1.0
    longest_timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        if min(self.body_bytes, self.values, self.in_flight, self.pushes_in_flight) < 1 or self.timeout_seconds <= 0:
            raise InvalidInput(f"Every limit of the server must be above 0; they are {self}.")
        if self.longest_timeout_seconds < self.timeout_seconds:
            raise InvalidInput(
                f"The longest timeout, {self.longest_timeout_seconds} s, is below the usual one of {self.timeout_seconds} s. "
                "Raise it, or lower the usual one."
            )


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How the server runs.

    Args:
        host: Address to listen on; the default is this machine only.
        port: Port to listen on.
        workers: Processes; each reads the store with its own connections.
        cert: Certificate chain in PEM; None for plain HTTP.
        key: Its key in PEM, PKCS#8.
        drain_seconds: How long, after SIGTERM, the server goes on while /ready says no.
        registry_seconds: How often workers look whether another registry rules.
        limits: Of each worker.

    Raises:
        InvalidInput: a certificate without a key or the other way round.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    workers: int = 1
    cert: Path | None = None
    key: Path | None = None
    drain_seconds: float = 5.0
    registry_seconds: float = 2.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidInput("TLS takes both --cert and --key, or neither.")

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.cert else 'http'}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
