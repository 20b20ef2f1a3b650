"""A writer killed at a random moment leaves a table that reads whole, and the same run repeated converges."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from featurestore.location import Location
from featurestore.offline.table import FeatureTable
from tests.offline_rows import day
from tests.offline_worker import GROUP, PLANES, backfill
from tests.scale import cases

DELAYS_SECONDS = (0.4, 1.1)
REPOSITORY = Path(__file__).parent.parent.parent


def start_writer(folder: Path, first: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.offline_worker", str(folder), str(first)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def kill_at(process: subprocess.Popen[str], delay_seconds: float) -> list[int]:
    """Kill the writer so long after its start; the rounds it acknowledged."""
    time.sleep(delay_seconds)
    os.kill(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    return [int(line) for line in output.split()]


def values_by_window(table: FeatureTable) -> dict[int, set[float]]:
    rows = table.scan().collect()
    assert rows.height in (0, PLANES * 6)
    return {number: set(rows.filter(rows["window_start"] == day(number).start)["value"]) for number in range(6)}


def test_killed_writer_leaves_a_whole_table_and_a_repeat_converges(tmp_path: Path) -> None:
    chance, first = random.Random(1), 0
    killed, whole = (FeatureTable(Location(str(tmp_path / name)), GROUP) for name in ("killed", "whole"))
    for _ in range(cases(60, 4)):
        acknowledged = kill_at(start_writer(tmp_path / "killed", first), chance.uniform(*DELAYS_SECONDS))
        last = acknowledged[-1] if acknowledged else first - 1
        values = values_by_window(killed)
        assert len({frozenset(found) for found in values.values()}) == 1, "a commit is seen whole or not at all"
        assert values[0] <= {last, last + 1}, "what was acknowledged is there, and at most one round more"
        assert values[0] or last < 0
        for folder in ("killed", "whole"):
            backfill(str(tmp_path / folder), last + 1)
        assert killed.content_hash() == whole.content_hash()
        first = last + 2
