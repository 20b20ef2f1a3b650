"""A code location whose static group is in breach a minute after its last load, by the real clock."""

from dataclasses import replace
from datetime import timedelta

from definitions import build_definitions
from featurestore.declaration import Catalog, Daily
from resources.store import StoreResource
from tests.platform.kiosks import START, kiosk_profile, register

SLO = timedelta(seconds=60)
aging_profile = replace(
    kiosk_profile, online=None, level=replace(kiosk_profile.level, slo=SLO, alerts="page"), min_coverage=None
)
catalog = Catalog((register,), (aging_profile,))
location = build_definitions(catalog, landing=Daily(start=START), training=[], store=StoreResource())
