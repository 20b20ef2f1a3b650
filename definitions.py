"""The only wiring: from a catalogue of declarations to Dagster definitions. One attribute a code location."""

from datetime import date

import dagster as dg

from feature_assets.freshness import freshness_check
from feature_assets.groups.flights import catalog as flights_catalog
from feature_assets.groups.flights import departure_delay_v1
from feature_assets.groups.flights.labels import departure_labels
from feature_assets.groups.flights.sources import departures, schedules
from feature_assets.offline import offline_asset
from feature_assets.online import online_asset
from feature_assets.parity import parity_check
from feature_assets.raw import raw_asset
from feature_assets.training import training_asset
from featurestore.declaration import Catalog, Daily
from featurestore.schedule.landings import Landings
from resources.store import StoreResource
from sensors.alerts import alerts_sensor
from sensors.automation import online_automation
from sensors.backfills import backfill_admission
from sensors.due_windows import due_windows
from sensors.freshness import freshness_sensor
from sensors.landing import landing_files
from sensors.pushed import pushed_groups
from sensors.stuck_runs import stuck_run_problems, stuck_runs

LANDING_SINCE = Daily(start=date(2024, 12, 1))


def build_definitions(
    catalog: Catalog, *, landing: Daily, training: list[dg.AssetsDefinition], store: StoreResource
) -> dg.Definitions:
    """Turn a catalogue into assets, checks, automation and the resource that they share.

    Args:
        catalog: The declarations of one code location.
        landing: Since when its sources land, a day a partition.
        training: Assets downstream of its groups.
        store: Where the store lives; empty fields are read from the environment by the runs themselves.
    """
    landings = Landings(landing.start)
    return dg.Definitions(
        assets=[
            *(raw_asset(catalog, source, landing) for source in catalog.sources),
            *(offline_asset(catalog, group) for group in catalog.ordered_groups),
            *(online_asset(group) for group in catalog.groups if group.online),
            *training,
        ],
        asset_checks=[
            *(parity_check(group) for group in catalog.groups if group.online),
            *(freshness_check(group) for group in catalog.groups),
        ],
        sensors=[
            *landing_files(catalog, landings),
            *due_windows(catalog, landings),
            online_automation(),
            backfill_admission(catalog),
            freshness_sensor(catalog),
            alerts_sensor(catalog, [stuck_run_problems(catalog)]),
            *pushed_groups(catalog),
            stuck_runs(),
        ],
        resources={"store": store},
        executor=dg.in_process_executor,
    )


flights = build_definitions(
    flights_catalog,
    landing=LANDING_SINCE,
    training=[training_asset(flights_catalog, departure_delay_v1, departure_labels, [schedules, departures])],
    store=StoreResource(),
)
