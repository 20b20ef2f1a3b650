"""How many times longer the work of some processes takes because others have the CPU: by the kernel's own account of each thread.

Limits on time are meant for a machine that has nothing else to do; multiplied by the stretch they hold on any. Linux only; elsewhere,
and where the kernel keeps no such account, the stretch is 1.
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

SAMPLE_SECONDS = 0.2


class CpuWatch:
    """Watches processes inside a `with` block."""

    def __init__(self) -> None:
        self._pids: list[int] = []
        self._last: dict[Path, tuple[int, int]] = {}
        self._samples = [(monotonic(), 0, 0)]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "CpuWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def add(self, *pids: int) -> None:
        """Watch more processes from now on."""
        self._pids += pids

    def stretch(self, begun: float, ended: float) -> float:
        """Time that they ran or could have run, to the time that they ran, between two instants of `time.monotonic`."""
        first = bisect_right(self._samples, begun, key=lambda sample: sample[0]) - 1
        last = bisect_left(self._samples, ended, key=lambda sample: sample[0])
        _, ran, waited = self._samples[max(0, first)]
        _, has_run, has_waited = self._samples[min(last, len(self._samples) - 1)]
        return 1 + (has_waited - waited) / max(1, has_run - ran)

    def _watch(self) -> None:
        while not self._is_over.wait(SAMPLE_SECONDS):
            _, ran, waited = self._samples[-1]
            for more_run, more_waited in self._since_last():
                ran, waited = ran + more_run, waited + more_waited
            self._samples.append((monotonic(), ran, waited))

    def _since_last(self) -> Iterator[tuple[int, int]]:
        """What each thread ran and waited since it was looked at last, nanoseconds."""
        for pid in list(self._pids):
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):  # it has ended
                    ran, waited, _ = map(int, task.read_text().split())
                    had_run, had_waited = self._last.get(task, (ran, waited))
                    self._last[task] = (ran, waited)
                    yield ran - had_run, waited - had_waited
