"""What other processes do in the tests of the offline store: write windows, over and over, until done or killed.

Started with `spawn` or as a program; delta-rs fails in a forked child.
"""

import random
import sys
from pathlib import Path

from featurestore.clock import system_clock
from featurestore.location import Location
from featurestore.offline.table import FeatureTable
from tests.offline_rows import day, frame, group_of, row

GROUP = group_of()
PLANES = 40


def write_days(root: Location, days: list[int], value: float, run: str) -> None:
    """Write each day in a commit of its own, some of them while others write theirs."""
    table = FeatureTable(root, GROUP, system_clock)
    for number in days:
        rows = frame(GROUP, [row(str(plane), day(number), value=value) for plane in range(PLANES)])
        table.overwrite_windows(
            rows, [day(number)], seen_version=table.version(), transaction=f"{run}-{number}", metadata={"run_id": run}
        )


def backfill(folder: str, round_number: int) -> None:
    """What a backfill of six days in two months commits, in one call."""
    table = FeatureTable(Location(folder), GROUP, system_clock)
    windows = [day(number) for number in range(6)]
    rows = [row(str(plane), window, value=float(round_number)) for plane in range(PLANES) for window in windows]
    random.Random(round_number).shuffle(rows)
    table.overwrite_windows(
        frame(GROUP, rows), windows, seen_version=table.version(), transaction=f"round-{round_number}", metadata={}
    )
    if round_number % 3 == 2:
        table.compact(2026, 1)


def main(folder: str, first: int) -> None:
    """Backfill again and again, each round with other values; say which rounds were acknowledged."""
    for number in range(first, first + 1000):
        backfill(folder, number)
        print(number, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(sys.argv[1], int(sys.argv[2]))
