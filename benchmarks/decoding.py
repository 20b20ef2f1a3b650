"""CPU time of decoding alone: messages of one group to checked arrays, or to tuples where they are a handful.

Run it with `python -m benchmarks.decoding [--repeats 40] [--beside CHECKOUT]`. Each figure is the least of many, which other work on the
machine disturbs least. `--beside` names a checkout of another version, which is measured in turn with this one, in a process of its own.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from featurestore.online.message.decode import Decoder
from featurestore.online.message.encode import encode
from featurestore.online.message.few import FewReader
from featurestore.online.message.layout import MessageLayout, WireField

ROWS = (1, 3, 10, 100, 500)
FEW = 16
"""Below, rows are read one by one."""
BURST_SECONDS = 0.002
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TIMES = ("event_time", "knowledge_time", "created_at")


def groups() -> dict[str, pl.DataFrame]:
    """Rows of a group of each kind."""
    count, chance = max(ROWS), np.random.default_rng(7)
    doubles = {f"mean_{i}d": chance.normal(size=count) for i in range(20)}
    mixed: dict[str, Any] = {f"sum_{i}d": chance.normal(size=count) for i in range(3)}
    mixed |= {f"count_{i}d": chance.integers(0, 2**40, count) for i in range(3)} | {
        "is_late": chance.random(count) < 0.5
    }
    mixed |= {
        name: [f"{name} {n}" for n in chance.integers(0, 2**30, count)] for name in ("origin", "carrier", "plane")
    }
    vector = pl.Series(chance.normal(size=(count, 128)).astype(np.float32))
    holed = {name: [None if n % 7 == 3 else v for n, v in enumerate(own.tolist())] for name, own in doubles.items()}
    named: dict[str, Any] = {"20 doubles": doubles, "20 doubles, some null": holed, "10 mixed with strings": mixed}
    return {name: pl.DataFrame(rows) for name, rows in named.items()} | {"128-vector": pl.DataFrame({"taste": vector})}


def works() -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    found: dict[str, Callable[[], object]] = {}
    for name, rows in groups().items():
        fields = tuple(WireField(32 + i, column, dtype) for i, (column, dtype) in enumerate(rows.schema.items()))
        layout = MessageLayout(fields, "g")
        times = [pl.lit(NOW).cast(pl.Datetime("us", "UTC")).alias(time) for time in TIMES]
        written = encode(layout, rows.with_columns(*times, is_deleted=pl.lit(False)), schema_number=1, fence=0)
        for count in ROWS:
            messages = [bytes(bytearray(message)) for message in written[:count]]  # apart, as they come from a server
            reader = (FewReader if count < FEW else Decoder)({1: layout}, fields)
            found[f"{count} x {name}"] = lambda reader=reader, messages=messages: reader.read(messages)  # type: ignore[misc]
    return found


def least_us(work: Callable[[], object]) -> float:
    """CPU time of a call, of a burst of them."""
    calls, began, ends_at = 0, time.process_time_ns(), time.process_time() + BURST_SECONDS
    while time.process_time() < ends_at:
        for _ in range(10):
            work()
        calls += 10
    return (time.process_time_ns() - began) / calls / 1000


def serve() -> None:
    """For each line on standard input one round of all."""
    measured = works()
    gc.disable()
    for _ in sys.stdin:
        print(json.dumps({name: least_us(work) for name, work in measured.items()}), flush=True)


def started(checkout: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, __file__, "serve"],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def round_of(process: "subprocess.Popen[str]") -> dict[str, float]:
    if process.stdin is None or process.stdout is None:
        raise SystemExit("The process that measures is gone.")
    process.stdin.write("\n")
    process.stdin.flush()
    found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def main() -> int:
    """Measure all, this version and another in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--beside", type=Path, help="checkout of another version")
    given = parser.parse_args()
    checkouts = [Path(__file__).parents[1], *([given.beside] if given.beside else [])]
    processes = [started(checkout) for checkout in checkouts]
    rounds = [[round_of(process) for process in processes] for _ in range(given.repeats)]
    for process in processes:
        process.communicate()
    print("| rows | us | us before | of before |" if given.beside else "| rows | us |")
    print("|---|---|---|---|" if given.beside else "|---|---|")
    for name in rounds[0][0]:
        least = [min(one[at][name] for one in rounds) for at in range(len(processes))]
        more = f" {least[1]:.1f} | {least[0] / least[1]:.2f} |" if given.beside else ""
        print(f"| {name} | {least[0]:.1f} |{more}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        sys.exit(main())
