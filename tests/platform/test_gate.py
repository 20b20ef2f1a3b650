"""Bad data end to end with a group of the demo: a day of impossible delays is held, and production keeps its good rows."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from checks.gate import GATE, ROLL_UP
from feature_assets.groups.flights import catalog
from feature_assets.groups.flights.sources import departures
from featurestore.declaration import Drift
from tests.platform.airline import DAY, FIRST, flight, key
from tests.platform.kiosks import T0, day_key, kiosk_sales_daily, kiosk_trend_daily, kiosks, order, orders
from tests.platform.sandbox import Sandbox, failure_of

GROUP = "carrier_delay_daily"
ASSET = f"offline/{GROUP}"
BAD = 8
IMPOSSIBLE = 50_000.0


@pytest.fixture
def airline(tmp_path: Path, instance: dg.DagsterInstance) -> Sandbox:
    """Eight good days of two carriers, promoted; nothing cancelled."""
    sandbox = Sandbox(tmp_path, instance, catalog, now=FIRST + 30 * DAY)
    sandbox.ingest(departures, [flight(day, carrier, 5.0 + day) for day in range(BAD) for carrier in ("UA", "B6")])
    assert sandbox.run(ASSET, partitions=[key(0), key(BAD - 1)]).success
    return sandbox


def served(sandbox: Sandbox) -> pl.DataFrame:
    """What a model would be served at the end, offline."""
    spine = pl.DataFrame({"carrier": ["UA", "B6"], "label_time": [FIRST + BAD * DAY + timedelta(days=1, hours=3)] * 2})
    return sandbox.store.get_historical_features(spine, [f"{GROUP}:dep_delay_mean_7d"]).to_polars()


def test_impossible_delays_are_held_with_a_report_and_production_keeps_its_last_good_rows(airline: Sandbox) -> None:
    rows, version, before = airline.rows(GROUP), airline.version(GROUP), served(airline)
    airline.ingest(departures, [flight(BAD, "UA", IMPOSSIBLE), flight(BAD, "B6", 9.0)])
    result = airline.run(ASSET, partitions=[key(BAD)])
    assert not result.success
    assert key(BAD) in failure_of(result)
    assert airline.version(GROUP) == version
    assert airline.rows(GROUP).equals(rows)
    assert served(airline).equals(before)
    staging = airline.offline.staging(GROUP)
    assert staging.quarantined() == [f"{key(BAD)}T0000Z"]
    report = staging.report(f"{key(BAD)}T0000Z")
    assert report is not None
    assert report["run_id"] == result.run_id
    assert [finding["check"] for finding in report["findings"]] == ["range"]


def test_held_rows_can_be_looked_at(airline: Sandbox) -> None:
    airline.ingest(departures, [flight(BAD, "UA", IMPOSSIBLE), flight(BAD, "B6", 9.0)])
    airline.run(ASSET, partitions=[key(BAD)])
    folder = airline.root / "staging" / f"feature_group={GROUP}"
    held = pl.read_parquet(folder / "quarantine" / f"{key(BAD)}T0000Z.parquet")
    assert sorted(held["carrier"]) == ["B6", "UA"]
    assert held.filter(pl.col("carrier") == "UA")["dep_delay_mean_7d"].item() > 1800
    assert not list(folder.glob("run=*"))


def test_check_of_the_held_partition_shows_the_findings(airline: Sandbox) -> None:
    airline.ingest(departures, [flight(BAD, "UA", IMPOSSIBLE), flight(BAD, "B6", 9.0)])
    airline.run(ASSET, partitions=[key(BAD)])
    check = airline.checks(ASSET, GATE)[0]
    assert check.evaluation is not None
    assert check.partition == key(BAD)
    assert check.evaluation.blocking
    assert "range of 'dep_delay_mean_7d'" in (check.evaluation.description or "")
    table: Any = check.evaluation.metadata["findings"]
    finding = table.records[0].data
    assert (finding["check"], finding["column"], finding["failing_rows"]) == ("range", "dep_delay_mean_7d", 1)
    assert finding["limit"] == "[-60.0, 1800.0]"
    examples: Any = check.evaluation.metadata["examples"].value
    assert examples["range dep_delay_mean_7d"][0]["carrier"] == "UA"


def test_days_around_the_held_one_are_promoted(airline: Sandbox) -> None:
    airline.ingest(departures, [flight(BAD, "UA", IMPOSSIBLE), flight(BAD, "B6", 9.0)])
    later = [flight(day, carrier, 4.0) for day in range(BAD + 1, BAD + 9) for carrier in ("UA", "B6")]
    airline.ingest(departures, later)
    airline.run(ASSET, partitions=[key(BAD - 1), key(BAD + 8)])
    # The impossible delay lies in the lookback of seven windows.
    held = [key(day) for day in range(BAD, BAD + 7)]
    assert airline.materialized(ASSET) == [key(day) for day in range(BAD + 9) if key(day) not in held]
    roll_up = airline.checks(ASSET, ROLL_UP)[0]
    assert roll_up.evaluation is not None
    assert roll_up.evaluation.metadata["windows"].value == len(held)


def test_partition_that_could_not_be_compared_lands_and_its_check_shows_a_warning(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Two kiosks are too few to compare: said for each partition, blocking neither it nor what is downstream in the run."""
    compared = replace(kiosk_sales_daily, features=(replace(kiosk_sales_daily.features[0], drift=Drift()),))
    sandbox = Sandbox(tmp_path, instance, kiosks(compared, kiosk_trend_daily))
    sandbox.ingest(orders, [order(day, T0 + day * DAY) for day in range(3)])
    sales, trend = "offline/kiosk_sales_daily", "offline/kiosk_trend_daily"
    keys = [day_key(day) for day in range(3)]
    assert sandbox.run(sales, trend, partitions=[keys[0], keys[-1]]).success
    assert sandbox.materialized(sales) == sandbox.materialized(trend) == keys
    for check in sandbox.checks(sales, GATE):
        assert check.evaluation is not None
        assert (check.evaluation.passed, check.evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert "Not compared with reference windows" in (check.evaluation.description or "")
        assert check.evaluation.metadata["warnings"].value == [check.evaluation.description]
    assert all(check.evaluation and check.evaluation.passed for check in sandbox.checks(trend, GATE))
