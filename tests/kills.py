"""Worker processes that are killed in the middle: started, waited for until they say "ready", and killed some time later."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def moments(seed: int, count: int, longest_seconds: float) -> Iterator[float]:
    """So many delays: the first is none, so that one kill at least finds the worker at work on a machine of any speed."""
    chance = random.Random(seed)
    return (chance.uniform(0, longest_seconds) if number else 0.0 for number in range(count))


@dataclass
class Strikes:
    """Rounds of kills until so many have found their worker at work, each with a delay; one that came too late shortens those to
    come, as the machine is faster than was thought. `count` is told of each round how it went.

    Raises:
        AssertionError: three times as many rounds have not been enough.
    """

    seed: int
    wanted: int
    longest_seconds: float
    hits: int = 0
    rounds: int = 0

    def __iter__(self) -> Iterator[tuple[int, float]]:
        chance = random.Random(self.seed)
        while self.hits < self.wanted:
            assert self.rounds < 3 * self.wanted + 10, f"{self}: too few kills found their worker at work"
            self.rounds += 1
            yield self.rounds - 1, chance.uniform(0, self.longest_seconds) if self.rounds > 1 else 0.0
        print(self)

    def count(self, is_hit: bool) -> None:
        self.hits += is_hit
        if not is_hit:
            self.longest_seconds *= 0.8

    def __str__(self) -> str:
        return f"{self.hits} of {self.rounds} kills struck at work, {self.wanted} wanted"


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
