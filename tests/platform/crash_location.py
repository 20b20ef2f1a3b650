"""A code location for crash tests: two daily groups of kiosks, each step in a process of its own.

Where the store lies and what time it is come from the environment of the code server. A transform holds where it is
asked to, so that a test finds a step between its look at the table and its commit.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl

from definitions import build_definitions
from featurestore.declaration import Daily, Feature, TimeWindow
from resources.store import StoreResource
from sensors import stuck_runs
from tests.platform.kiosks import LIMIT, START, kiosk_sales_daily, kiosks

HOLD = "FEATURESTORE_TEST_HOLD"
NOW = "FEATURESTORE_TEST_NOW"
ROOT = "FEATURESTORE_ROOT"
LANDING = "FEATURESTORE_LANDING"
ADMISSION = "FEATURESTORE_TEST_ADMISSION"
STUCK = "FEATURESTORE_TEST_STUCK"
"""Steps run in the process of their run, as in production, and the sensor that ends stuck runs looks every second."""


def hold() -> None:
    """Wait while a test wants it: the first to find the file named by HOLD takes it, and waits until it is gone.

    What a test writes to it meanwhile has it work for a moment.
    """
    asked = Path(os.environ.get(HOLD, "/nowhere"))
    taken = asked.with_name(f"held-{os.getpid()}")
    try:
        asked.rename(taken)
        while True:
            if taken.read_text():
                os.truncate(taken, 0)
                work_for(1.0)
            time.sleep(0.1)  # hardly ever seen at work, also on a slow machine
    except FileNotFoundError:
        return


def work_for(seconds: float) -> None:
    """Use the processor for so long."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def held_sales(window: TimeWindow, orders: pl.LazyFrame) -> pl.LazyFrame:
    """The sales of a day, once nobody holds them; reading a declaration runs this on no rows."""
    if orders.limit(1).collect().height:
        hold()
    return orders.group_by("kiosk").agg(sales_1d=pl.col("amount").sum().round(2))


def largest(window: TimeWindow, orders: pl.LazyFrame) -> pl.LazyFrame:
    """The largest order of a day."""
    return orders.group_by("kiosk").agg(largest_1d=pl.col("amount").max())


sales_daily = replace(kiosk_sales_daily, transform=held_sales, online=None)
largest_daily = replace(
    kiosk_sales_daily,
    name="kiosk_largest_daily",
    features=(Feature("largest_1d", pl.Float64, "Largest order of a day", ge=0, le=LIMIT),),
    transform=largest,
    online=None,
)
catalog = kiosks(sales_daily, largest_daily)


def location(environment: Mapping[str, str]) -> dg.Definitions:
    """The catalogue's assets, run by one process for each step unless STUCK is asked for; and the sensors that are asked for."""
    store = StoreResource(root=environment[ROOT], landing=environment[LANDING], now=environment[NOW])
    if STUCK in environment:
        stuck_runs.MINIMUM_INTERVAL_SECONDS = 1
    built = build_definitions(catalog, landing=Daily(start=START), training=[], store=store)
    asked = {name for variable, name in SENSORS.items() if variable in environment}
    return dg.Definitions(
        assets=built.assets,
        sensors=[sensor for sensor in built.sensors or () if sensor.name in asked],
        resources=built.resources,
        executor=dg.in_process_executor if STUCK in environment else dg.multiprocess_executor,
    )


SENSORS = {ADMISSION: "backfill_admission", STUCK: stuck_runs.NAME}

if LANDING in os.environ:
    kiosks_location = location(os.environ)
