"""Worker processes that are killed in the middle: started, waited for until they say "ready", and killed some time later."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def moments(seed: int, count: int, longest_seconds: float) -> Iterator[float]:
    """So many delays: the first is none, so that one kill at least finds the worker at work on a machine of any speed."""
    chance = random.Random(seed)
    return (chance.uniform(0, longest_seconds) if number else 0.0 for number in range(count))


def is_killed_at_work(module: str, arguments: list[str], after_seconds: float) -> bool:
    """Start a worker and kill it so long after it said "ready"; whether it had not yet said "done"."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    if process.stdout is None or process.stdout.readline() != "ready\n":
        raise RuntimeError(f"worker ended early: {process.wait()}")
    time.sleep(after_seconds)
    os.kill(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    return "done" not in output
