"""How fast the point-in-time join is beside a plain Polars `join_asof` on the same frames.

Both get the same labels and features, run by turns in one process, and must give the same values; each sorts for
itself. The plain join compares knowledge times only, so the features hold no late or repeated versions unless `--late`
asks for them (then the answers may differ and are not compared: the plain join is wrong). Memory is the peak above the
frames, of one run of each in a process of its own.

    python benchmarks/pit_join.py                      1M labels, 6M rows, 20 features
    python benchmarks/pit_join.py --preset small       20k labels, 120k rows, 5 features: seconds
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from featurestore import pit

PRESETS = {"full": (1_000_000, 6_000_000, 20), "medium": (200_000, 1_200_000, 20), "small": (20_000, 120_000, 5)}
YEAR_SECONDS = 365 * 86_400
FILES = ("labels.arrow", "features.arrow")
START_SECONDS = 1_735_689_600  # 2025-01-01
MEBIBYTE = 2**20

Frames = tuple[pl.DataFrame, pl.DataFrame]


@dataclass(frozen=True)
class Spent:
    """Wall and CPU seconds of one run."""

    wall: float
    cpu: float


def make_frames(args: argparse.Namespace) -> Frames:
    """Return labels in random order and features in the order asked for, the same ones for the same seed."""
    rng = np.random.default_rng(args.seed)
    features = make_features(args, rng)
    if args.order == "entity":
        features = features.sort("entity", "knowledge_time")
    elif args.order == "shuffled":
        features = features.sample(fraction=1, shuffle=True, seed=args.seed)
    labels = pl.DataFrame(
        {
            "entity": name_entities(rng.integers(0, args.entities, args.labels), args.key),
            "label_time": instants(rng.integers(0, YEAR_SECONDS, args.labels)),
        }
    )
    return labels, features.rechunk()


def make_features(args: argparse.Namespace, rng: np.random.Generator) -> pl.DataFrame:
    """Return feature rows in the order in which they became known, one version for each entity and instant."""
    known = np.sort(rng.integers(0, YEAR_SECONDS, args.rows))
    delay = rng.integers(60, 30 * 86_400, args.rows) if args.late else 60
    frame = pl.DataFrame(
        {
            "entity": name_entities(rng.integers(0, args.entities, args.rows), args.key),
            "event_time": instants(known - delay),
            "knowledge_time": instants(known),
            "created_at": instants(known + 90),
        }
    )
    frame = frame.unique(["entity", "knowledge_time"], maintain_order=True)
    return frame.with_columns(pl.Series(f"feature_{i}", rng.random(frame.height)) for i in range(args.features))


def name_entities(numbers: np.ndarray, key: str) -> pl.Series:
    """Return entity keys as integers or as strings."""
    return pl.Series(numbers) if key == "int" else pl.Series(numbers).cast(pl.String).str.zfill(12)


def instants(seconds: np.ndarray) -> pl.Series:
    """Return UTC instants, in microseconds, so many seconds after the start."""
    return pl.Series((seconds + START_SECONDS) * 1_000_000).cast(pl.Datetime("us", "UTC"))


def ours(labels: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
    """Run the join of this library."""
    return pit.point_in_time_join(labels, features, keys="entity")


def plain(labels: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
    """Run a plain as-of join at full width, with the sorting it needs and the labels put back in their order."""
    joined = (
        labels.with_row_index("line")
        .sort("label_time")
        .join_asof(
            features.drop("event_time", "created_at").sort("knowledge_time"),
            left_on="label_time",
            right_on="knowledge_time",
            by="entity",
            check_sortedness=False,
        )
    )
    return joined.sort("line").drop("line", "knowledge_time")


CONTENDERS: dict[str, Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]] = {"ours": ours, "plain": plain}


def measure(name: str, frames: Frames) -> tuple[pl.DataFrame, Spent]:
    """Run one contender once."""
    wall, cpu = time.perf_counter(), time.process_time()
    joined = CONTENDERS[name](*frames)
    return joined, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def race(args: argparse.Namespace, frames: Frames) -> dict[str, list[Spent]]:
    """Run the contenders by turns on the same frames, after one round that warms up and compares their answers."""
    answers = {name: measure(name, frames)[0] for name in CONTENDERS}
    if not args.late:
        assert_frame_equal(answers["ours"], answers["plain"])
    answers.clear()
    spent: dict[str, list[Spent]] = {name: [] for name in CONTENDERS}
    for _ in range(args.runs):
        for name, runs in spent.items():
            runs.append(measure(name, frames)[1])
    return spent


def memory_of(frames: Frames) -> dict[str, int]:
    """Return each contender's peak bytes above the frames, measured in processes that have done nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        for frame, file in zip(frames, FILES, strict=True):
            frame.write_ipc(Path(folder, file))
        return {name: int(run_alone(name, folder)) for name in CONTENDERS}


def run_alone(name: str, folder: str) -> str:
    """Run this file again for one contender's memory and return what it prints."""
    command = [sys.executable, __file__, "--measure-memory-of", name, "--frames", folder]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def peak_bytes_above_frames(name: str, folder: str) -> int:
    """Return how far one run raises this process's peak resident size above what the loaded frames take (Linux)."""
    labels, features = (pl.read_ipc(Path(folder, file)) for file in FILES)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, which loading the frames has raised
    before = peak_bytes()
    measure(name, (labels, features))
    return peak_bytes() - before


def peak_bytes() -> int:
    """Return the peak resident size of this process since it was last reset."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


def spread(values: list[float]) -> str:
    """Show a list of numbers as minimum / median / maximum."""
    return f"{min(values):7.2f} / {median(values):7.2f} / {max(values):7.2f}"


def report(spent: dict[str, list[Spent]]) -> None:
    """Print seconds, ratios and memory as minimum / median / maximum."""
    print(f"{'':22}{'min':>7} / {'median':>7} / {'max':>7}")
    for name, runs in spent.items():
        print(f"{name:6} wall seconds   {spread([run.wall for run in runs])}")
        print(f"{name:6} CPU seconds    {spread([run.cpu for run in runs])}")
    pairs = list(zip(spent["ours"], spent["plain"], strict=True))
    print(f"ours / plain, wall    {spread([a.wall / b.wall for a, b in pairs])}")
    print(f"ours / plain, CPU     {spread([a.cpu / b.cpu for a, b in pairs])}")


def parse_arguments() -> argparse.Namespace:
    """Read the sizes and the shape of the frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="full")
    parser.add_argument("--labels", type=int)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--features", type=int)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--key", choices=["int", "string"], default="string")
    parser.add_argument(
        "--order", choices=["time", "entity", "shuffled"], default="time", help="order of the feature rows"
    )
    parser.add_argument("--late", action="store_true", help="event times up to 30 days before the row became known")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure-memory-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--frames", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name, size in zip(("labels", "rows", "features"), PRESETS[args.preset], strict=True):
        if getattr(args, name) is None:
            setattr(args, name, size)
    return args


def main() -> None:
    args = parse_arguments()
    if args.measure_memory_of:
        print(peak_bytes_above_frames(args.measure_memory_of, args.frames))
        return
    print(
        f"{args.labels:,} labels x {args.rows:,} rows x {args.features} features, {args.entities:,} entities, "
        f"{args.key} key, row order {args.order}{', late rows' if args.late else ''}, {args.runs} runs, "
        f"{pl.thread_pool_size()} threads, Polars {pl.__version__}"
    )
    frames = make_frames(args)
    report(race(args, frames))
    for name, peak in memory_of(frames).items():
        print(f"{name:6} peak MiB above the frames {peak / MEBIBYTE:8.0f}")


if __name__ == "__main__":
    main()
