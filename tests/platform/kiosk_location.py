"""A code location of a few kiosks, for Dagster's own processes."""

from definitions import build_definitions
from featurestore.declaration import Daily
from resources.store import StoreResource
from tests.platform.kiosks import START, kiosk_orders_hourly, kiosk_profile, kiosk_sales_daily, kiosks

location = build_definitions(
    kiosks(kiosk_orders_hourly, kiosk_sales_daily, kiosk_profile),
    landing=Daily(start=START),
    training=[],
    store=StoreResource(),
)
