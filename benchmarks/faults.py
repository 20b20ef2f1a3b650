"""The feature server under a steady load while its stores fail in turn and its data moves: latencies, who answered, recovery.

Run it with `python -m benchmarks.faults [--seconds 60] [--seed 0]`. It is the load of the exam's `tests/contract/test_load_with_faults.py`,
which says what may come of it; here are the figures. Everything runs on this machine: three Valkey nodes, moto for DynamoDB, two
workers, the load, and a program that pushes newer values and materializes them.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.contract.load_findings import table_of
from tests.contract.load_with_faults import TIMEOUT_MS, load_with_faults


def main() -> int:
    """Load, print the table, and say what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = load_with_faults(Path(folder), seconds=options.seconds, seed=options.seed)
    timeout = TIMEOUT_MS / 1000
    beyond = sum(reply.seconds > timeout for reply in outcome.replies)
    wrong = outcome.wrong
    print(table_of(outcome.figures))
    print(
        f"\n{len(wrong)} wrong answers of {len(outcome.replies)}; {beyond} took more than {timeout:.0f} s by the clock, "
        f"{len(outcome.later_than(timeout))} by the stretched one; {os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}"
    )
    for line in wrong[:10]:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
