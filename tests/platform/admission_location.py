"""A code location whose daily group may spend a launch and a half a day without approval."""

import os
from dataclasses import replace

from definitions import build_definitions
from featurestore.declaration import Backfill, Daily
from resources.store import StoreResource
from tests.platform.kiosks import START, kiosk_sales_daily, kiosks

NOW = "FEATURESTORE_TEST_NOW"
LIMIT_USD = 0.001
"""A launch of few windows is estimated at 20 seconds of compute, 0.00065 USD."""

catalog = kiosks(replace(kiosk_sales_daily, backfill=Backfill(approval_limit_usd=LIMIT_USD), online=None))

if NOW in os.environ:
    location = build_definitions(
        catalog, landing=Daily(start=START), training=[], store=StoreResource(now=os.environ[NOW])
    )
