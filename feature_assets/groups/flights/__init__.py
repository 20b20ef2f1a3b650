"""The flights team: its sources, feature groups and services, as one catalogue."""

from feature_assets.groups.flights.airports import airport_congestion_hourly, weather_origin_hourly
from feature_assets.groups.flights.delays import airport_embedding_daily, carrier_delay_daily, route_delay_daily
from feature_assets.groups.flights.planes import plane_last_flight_hourly, plane_profile
from feature_assets.groups.flights.sources import SOURCES
from featurestore import Catalog, FeatureService

GROUPS = (
    plane_profile,
    weather_origin_hourly,
    airport_congestion_hourly,
    plane_last_flight_hourly,
    carrier_delay_daily,
    route_delay_daily,
    airport_embedding_daily,
)

departure_delay_v1 = FeatureService(
    "departure_delay_v1",
    features=GROUPS,
    owner="team:network-operations",
    description="Will a flight leave more than 15 minutes late? Asked two hours before its scheduled departure.",
)

catalog = Catalog(SOURCES, GROUPS, [departure_delay_v1])
