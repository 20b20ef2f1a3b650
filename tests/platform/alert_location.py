"""A code location whose static group is in breach a minute after its last load, by the real clock, beside a sensor that is slow."""

import time
from dataclasses import replace
from datetime import timedelta

import dagster as dg

from definitions import build_definitions
from featurestore.declaration import Catalog, Daily
from resources.store import StoreResource
from tests.platform.kiosks import START, kiosk_profile, register

SLO = timedelta(seconds=60)
aging_profile = replace(
    kiosk_profile, online=None, level=replace(kiosk_profile.level, slo=SLO, alerts="page"), min_coverage=None
)
catalog = Catalog((register,), (aging_profile,))
SLOW_SECONDS = 45.0


@dg.sensor(minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def slow() -> dg.SkipReason:
    """Somebody else's sensor, which asks something that hardly answers."""
    time.sleep(SLOW_SECONDS)
    return dg.SkipReason("Nothing to do.")


location = dg.Definitions.merge(
    build_definitions(catalog, landing=Daily(start=START), training=[], store=StoreResource()),
    dg.Definitions(sensors=[slow]),
)
