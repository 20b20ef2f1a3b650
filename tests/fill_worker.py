"""A process that makes a table of many riders, or fills the online copy from it and says what memory that took."""

import sys
from pathlib import Path

import polars as pl

from featurestore.offline.intake import row_schema
from featurestore.online.materialization.materialize import Progress, materialize
from tests.contract.riders import PUBLISH, START, Riders, hour


def make(riders: Riders, count: int) -> None:
    """One row of each rider in each of two hours."""
    for number in (9, 10):
        window = hour(number)
        stamps = {"event_time": window.end, "knowledge_time": window.end + PUBLISH, "window_start": window.start}
        frame = pl.select(rider=pl.format("rider-{}", pl.int_range(count))).with_columns(
            **{name: pl.lit(value) for name, value in stamps.items()},
            is_deleted=pl.lit(False),
            schema_number=pl.lit(1),
            trips=pl.int_range(pl.len()),
            city=pl.lit("Oslo"),
        )
        rows = frame.select(pl.col(name).cast(dtype) for name, dtype in row_schema(riders.group).items())
        riders.table.overwrite_windows(
            rows, [window], seen_version=riders.table.version(), transaction=f"hour {number}", metadata={}
        )


def fill(riders: Riders, slice_bytes: int) -> None:
    """Print how many slices were written, how many rows, and by how many MiB the peak grew."""
    before, told = peak_mib(), list[Progress]()
    step = materialize(riders.table, riders.online.parts(), riders.clock, progress=told.append, slice_bytes=slice_bytes)
    print(told[0].slices, step.written, peak_mib() - before)


def peak_mib() -> int:
    """The most memory of this program; what getrusage says begins with that of the process that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) // 1024


def main(what: str, folder: str, url: str, number: str) -> None:
    riders = Riders(Path(folder), url, now=START + 12 * (hour(0).end - START))
    (make if what == "make" else fill)(riders, int(number))


if __name__ == "__main__":
    main(*sys.argv[1:])
