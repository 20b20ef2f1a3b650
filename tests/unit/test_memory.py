"""The demo's memory figure: all processes together, each page once."""

import subprocess
import sys
import time

import pytest

from examples.flights.memory import PROC, MemoryPeak, family, memory_kib, parents, watched_memory

HOLDER = "kept = b'x' * 80_000_000; print('held', flush=True); input()"
needs_linux = pytest.mark.skipif(not (PROC / "self" / "smaps_rollup").exists(), reason="only Linux tells")


def test_family_is_everything_below_a_process_and_nothing_beside_it() -> None:
    parent_of = {1: 0, 10: 1, 11: 10, 12: 11, 13: 10, 20: 1, 21: 20}
    assert family(10, parent_of) == {10, 11, 12, 13}
    assert family(99, parent_of) == {99}


def await_sample(peak: MemoryPeak, kib: int, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while peak.kib < kib and time.monotonic() < deadline:
        time.sleep(0.01)


@needs_linux
def test_memory_of_a_child_counts_while_it_runs() -> None:
    with watched_memory(every_seconds=0.01) as peak:
        alone = peak.kib
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            assert child.pid in parents()
            assert memory_kib({child.pid}) > 70_000
            await_sample(peak, alone + 70_000)
            child.communicate("\n")
    assert peak.kib >= alone + 70_000


@needs_linux
def test_process_that_is_gone_takes_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert memory_kib({child.pid}) == 0


def test_peak_is_told_in_gib() -> None:
    assert MemoryPeak(3 * 2**20).gib == 3
