"""Bad data end to end with a group of the demo: a day of impossible delays is held, and production keeps its good rows."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from checks.gate import GATE, ROLL_UP
from feature_assets.groups.flights import catalog
from feature_assets.groups.flights.sources import departures
from tests.platform.airline import DAY, FIRST, flight, key
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
