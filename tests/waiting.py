"""Waiting in tests for what another process or thread does: by looking again, never by a length of sleep."""

import time
from collections.abc import Callable


def wait_for(what: str, happened: Callable[[], bool], seconds: float, pause: float = 0.1) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(pause)


def quickest(act: Callable[[], object], goes: int = 3) -> float:
    """Seconds of the quickest of a few goes: what else the machine does holds up one of them, and hardly all."""

    def took() -> float:
        begun = time.monotonic()
        act()
        return time.monotonic() - begun

    return min(took() for _ in range(goes))
