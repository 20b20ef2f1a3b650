"""The main job on real data: `make demo`.

Replays flights onto today's calendar, materializes every group through Dagster, trains a model on a point-in-time
correct set and one on a leaky join, serves features online, and proves for one day, hour by hour, that what was read
online is what a later point-in-time read gives. Each step prints what it did; the last line says where the time went.
"""

import argparse
import os
import resource
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from deploy.platform import demo_environment, prepare_instance, running_platform
from examples.flights.memory import watched_memory

WARM_UP_DAYS = 28
"""Days of raw rows before the first window, so that the longest lookback is full from the start."""

SHOWN = (
    "dep_delay_mean_7d",
    "delayed_fraction_7d",
    "arr_delay",
    "arr_delay_mean_14d",
    "overdue_2h",
    "wind_speed",
    "seats",
)


@dataclass(slots=True)
class Steps:
    """Prints each step as it begins and ends, and remembers how long it took."""

    began: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        print(f"\n[{time.monotonic() - self.began:5.1f} s] {title}", flush=True)
        start = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - start

    def summary(self, together_gib: float) -> str:
        """Where the time went, and the memory.

        Args:
            together_gib: Peak of all processes together; 0 where nobody could tell.
        """
        total = time.monotonic() - self.began
        lines = [
            f"  {seconds:6.1f} s  {100 * seconds / total:4.1f} %  {title}" for title, seconds in self.seconds.items()
        ]
        peak_gib = (
            max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20
        )
        together = f"of all processes together {together_gib:.2f} GiB, " if together_gib else ""
        return "\n".join(
            [*lines, f"  {total:6.1f} s  in all; peak memory {together}of the largest one {peak_gib:.2f} GiB"]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=60, help="days of flights, up to yesterday (default 60)")
    options = parser.parse_args()
    if options.days < 5:
        parser.error("--days is at least 5: a hold-out needs some days after the training span")
    os.environ.update(demo_environment())
    warnings.filterwarnings("ignore")
    until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    steps = Steps()
    with watched_memory() as peak:
        run_demo(until.date() - timedelta(days=options.days), until, steps)
    print(f"\nWhere the time went\n{steps.summary(peak.gib)}")
    print(
        "\nWhat to open next\n"
        "  make up                                   Dagster's pages with these runs, and the online store\n"
        "  .venv/bin/featurestore groups             the catalogue in the terminal\n"
        "  .venv/bin/featurestore describe carrier_delay_daily"
    )


def run_demo(start: date, until: datetime, steps: Steps) -> None:
    """Every step, for windows from `start` on that are due at `until`."""
    from examples.flights import parity, pipeline
    from featurestore.location import Location
    from featurestore.online.redis.embedded import embedded_folder
    from featurestore.online.redis.valkey import EmbeddedValkey

    prepare_instance()
    root = Location(os.environ["FEATURESTORE_ROOT"])
    logs = Path(os.environ["DAGSTER_HOME"]) / ".dagster" / "logs"
    with ExitStack() as stack:
        with steps.step("Starting Dagster's web server and daemon, and the online store"):
            stack.enter_context(EmbeddedValkey(embedded_folder(root), append_only=True))
            # What is due is launched here step by step, to be seen; after `make up` the schedule does it by itself.
            unscheduled = {**os.environ, "FEATURESTORE_SCHEDULE": "off"}
            platform = stack.enter_context(running_platform(unscheduled, logs))
        with steps.step("Landing: 2013's flights on today's calendar, as each row became known"):
            pipeline.land(start - timedelta(days=WARM_UP_DAYS), until)
        with steps.step("Registry: featurestore apply"):
            pipeline.apply()
        with steps.step("Dagster: raw rows, static groups"):
            pipeline.materialize_raw(start - timedelta(days=WARM_UP_DAYS), until)
        with steps.step("Dagster: every group, one ranged run a cadence and month"):
            pipeline.materialize_groups(start, until)
        with steps.step("Dagster: a backfill of three days through its web server and daemon"):
            backfill = pipeline.launch_backfill(platform, until)
        with steps.step("Training: a point-in-time set, and a leaky join beside it"):
            pipeline.train(start, until)
        with steps.step("Online: materialize, and read what a model would ask"):
            pipeline.serve(SHOWN)
        with steps.step("Proof: one day read online at each of 24 instants, and again by point-in-time join"):
            parity.prove_day(until.date() - timedelta(days=1), root)
        with steps.step("Dagster: the backfill's end"):
            pipeline.await_backfill(platform, backfill)


if __name__ == "__main__":
    main()
