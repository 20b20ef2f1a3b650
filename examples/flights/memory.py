"""How much memory this process and its children take together, sampled while they work. Linux only: elsewhere nobody tells."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SAMPLE_SECONDS = 0.5


@dataclass(slots=True)
class MemoryPeak:
    """The largest sum seen; 0 where the system does not tell."""

    kib: int = 0

    @property
    def gib(self) -> float:
        return self.kib / 2**20


@contextmanager
def watched_memory(every_seconds: float = SAMPLE_SECONDS) -> Iterator[MemoryPeak]:
    """Sample the summed memory of this process and all below it while the block lasts; the first sample is at once."""
    peak, is_over = MemoryPeak(), threading.Event()

    def watch() -> None:
        while True:
            peak.kib = max(peak.kib, memory_kib(family(os.getpid(), parents())))
            if is_over.wait(every_seconds):
                return

    watcher = threading.Thread(target=watch, daemon=True, name="memory")
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()


def parents() -> dict[int, int]:
    """The parent of each process that runs; none where the system does not tell."""
    found = {}
    for stat in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


def family(root: int, parent_of: Mapping[int, int]) -> set[int]:
    """A process and everything that it and its children started.

    >>> sorted(family(10, {10: 1, 11: 10, 12: 11, 20: 1}))
    [10, 11, 12]
    """
    members = {root}
    while more := {pid for pid, parent in parent_of.items() if parent in members} - members:
        members |= more
    return members


def memory_kib(pids: set[int]) -> int:
    """The memory of some processes: a page that several share counts once in all (PSS)."""
    return sum(_pss_kib(pid) for pid in pids)


def _pss_kib(pid: int) -> int:
    with suppress(OSError):  # it ended meanwhile, or the system has no such file
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
