"""How the board runs: plain values, so that the command line needs nothing to be installed."""

from dataclasses import dataclass

from featurestore.serving.options import DEFAULT_HOST, ServeOptions

DEFAULT_PORT = 6568
LOOK_SECONDS = 30.0
LOST_LOOKS = 4
"""A look this many distances old is no longer the present: its figures are not exported, and /ready says no."""


@dataclass(frozen=True, slots=True)
class BoardOptions:
    """How the board runs.

    Args:
        host: Address to listen on; the default is this machine only.
        port: Port to listen on.
        look_seconds: How often the stores are looked at.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    look_seconds: float = LOOK_SECONDS

    @property
    def url(self) -> str:
        return self._listening.url

    @property
    def is_loopback(self) -> bool:
        return self._listening.is_loopback

    @property
    def _listening(self) -> ServeOptions:
        return ServeOptions(self.host, self.port)
