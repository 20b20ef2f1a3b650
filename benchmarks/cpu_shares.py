"""Where the CPU time of a call goes, by folder of the library and by package: a table to paste.

A profiler counts the time of every function, in this thread and in those that begin while it runs; what is not written in Python
counts for who called it. It makes small Python functions look dearer than they are: of the CPU time that a call takes without it, the
shares say where to look, not what would be saved. Not here: what is called.
"""

import cProfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
LEAST_SHARE = 0.01
Function = tuple[str, int, str]
"""File, line and name; the file of what is not Python is "~"."""


class Profiler:
    """Profiles this thread while it is entered, and every thread that begins meanwhile."""

    def __init__(self) -> None:
        self._profiles: list[cProfile.Profile] = []

    def __enter__(self) -> "Profiler":
        threading.setprofile(self._begin)
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)
        self._profiles[0].disable()

    def _begin(self, frame: FrameType | None = None, event: str = "", arg: Any = None) -> None:  # noqa: ARG002
        """Called by a new thread too, at its first function."""
        self._profiles.append(cProfile.Profile(time.thread_time))
        self._profiles[-1].enable()

    def shares(self, work: Callable[[], object], seconds: float) -> dict[str, float]:
        """Shares of the CPU time of a call, by place, over some seconds of calls after the first."""
        work()
        for profile in self._profiles:
            profile.clear()
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            work()
        spent = self._seconds()
        total = sum(spent.values())
        return {place: own / total for place, own in spent.items()}

    def _seconds(self) -> Counter[str]:
        """CPU time by place."""
        found: Counter[str] = Counter()
        for profile in self._profiles:
            profile.snapshot_stats()
            stats: dict[Function, Any] = profile.stats
            for function, (_, _, own, _, callers) in stats.items():
                if function[0] != "~":
                    found[place_of(function[0])] += own
                    continue
                for caller, (_, _, of_caller, _) in callers.items():
                    found[place_of(caller[0])] += of_caller
        return found


def place_of(file: str) -> str:
    """What a file is part of, for people."""
    path = Path(file)
    if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
        return str(path.relative_to(ROOT).parent)
    if "site-packages" in path.parts:
        return path.parts[path.parts.index("site-packages") + 1]
    return "generated code" if file.startswith("<") else f"Python's {path.stem}"


def shares(work: Callable[[], object], seconds: float) -> dict[str, float]:
    """Shares of the CPU time of a call, by place, where no thread that was there before has a part in it."""
    with Profiler() as profiler:
        return profiler.shares(work, seconds)


def table(title: str, found: dict[str, float], cpu_us: float) -> str:
    """Lines of a table, the largest share first; what is below a hundredth is added up."""
    large = {place: share for place, share in found.items() if share >= LEAST_SHARE}
    rows = sorted(large.items(), key=lambda one: -one[1])
    rows.append(("the rest", 1 - sum(large.values())))
    lines = [f"| {title}: {cpu_us:,.0f} us of CPU | us | share |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {place} | {share * cpu_us:,.1f} | {share:.0%} |" for place, share in rows)])
