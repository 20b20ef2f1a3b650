"""Waiting in tests for what another process or thread does: by looking again, never by a length of sleep."""

import time
from collections.abc import Callable


def wait_for(what: str, happened: Callable[[], bool], seconds: float, pause: float = 0.1) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(pause)
