"""Drift and quality on Dagster's pages: one result a run of each, with plots, whatever the run's own partitions were."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation

from checks.quality import DRIFT, QUALITY
from featurestore.declaration import Catalog, Drift, FeatureService
from featurestore.training import build_training_set
from tests.platform.kiosks import DAY, HOUR, OWNER, T0, TIME, TOO_MUCH, day_key, kiosk_sales_daily, order, orders
from tests.platform.sandbox import Sandbox

ASSET = "offline/kiosk_sales_daily"
KIOSKS, DAYS = 400, 13
CREEP = 0.42
"""By how much sales rise a day: a twenty-fourth of their deviation, less than any week shows."""

compared = replace(kiosk_sales_daily, features=(replace(kiosk_sales_daily.features[0], drift=Drift()),))
catalog = Catalog([orders], [compared], [FeatureService("sales_v1", features=[compared], owner=OWNER)])


def sold(day: int) -> list[dict[str, Any]]:
    amounts = np.random.default_rng(day).normal(50 + CREEP * day, 10, size=KIOSKS).clip(0.01)
    at = T0 + day * DAY + 12 * HOUR
    return [
        {**order(day * KIOSKS + n, at), "kiosk": f"k{n}", "amount": float(amount)} for n, amount in enumerate(amounts)
    ]


@pytest.fixture
def sandbox(tmp_path: Path, instance: dg.DagsterInstance) -> Sandbox:
    """Thirteen days promoted; the training set is of the first three."""
    sandbox = Sandbox(tmp_path, instance, catalog)
    sandbox.ingest(orders, [row for day in range(DAYS) for row in sold(day)])
    assert sandbox.run(ASSET, partitions=[day_key(0), day_key(DAYS - 1)]).success
    return sandbox


def newest(sandbox: Sandbox, name: str) -> AssetCheckEvaluation:
    evaluation = sandbox.checks(ASSET, name)[0].evaluation
    assert evaluation is not None
    return evaluation


def test_slow_change_shows_as_a_warning_with_plots_and_in_the_roll_up(sandbox: Sandbox) -> None:
    results = [record for record in sandbox.checks(ASSET, DRIFT) if record.status.value != "PLANNED"]
    assert len(results) == 1, "one result for thirteen partitions; the others are Dagster's plans, one a partition"
    calm = newest(sandbox, DRIFT)
    assert (calm.passed, calm.metadata["compared"].value) == (True, 1)
    assert "last week" in str(calm.metadata["plots"].value)
    times = [T0 + day * DAY + 12 * HOUR for day in (1, 2, 3)]
    spine = pl.LazyFrame({"kiosk": ["k1", "k2", "k3"], "label_time": pl.Series(times, dtype=TIME)})
    build_training_set(sandbox.offline, "sales_v1", spine)
    assert sandbox.run(ASSET, partitions=[day_key(0)]).success
    drift, quality = newest(sandbox, DRIFT), newest(sandbox, QUALITY)
    assert (drift.passed, drift.severity, drift.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
    assert drift.metadata["window"].value == (T0 + (DAYS - 1) * DAY).isoformat(), "not of the window that was run"
    assert drift.metadata["drifted"].value == ["sales_1d"]
    assert str(drift.metadata["plots"].value).count("data:image/svg+xml;base64,") == 2
    assert "against training set" in (drift.description or "")
    told = {name: quality.metadata[name].value for name in ("windows", "failed", "not_compared")}
    assert told == {"windows": DAYS, "failed": 0, "not_compared": 3}
    assert quality.metadata["warned"].value >= 1
    assert not quality.passed


def test_held_window_fails_the_roll_up_and_leaves_drift_as_it_was(sandbox: Sandbox) -> None:
    sandbox.ingest(orders, [{**row, "amount": TOO_MUCH} for row in sold(DAYS)])
    assert not sandbox.run(ASSET, partitions=[day_key(DAYS)]).success
    drift, quality = newest(sandbox, DRIFT), newest(sandbox, QUALITY)
    assert drift.passed
    assert drift.metadata["window"].value == (T0 + (DAYS - 1) * DAY).isoformat()
    assert (quality.passed, quality.metadata["failed"].value) == (False, 1)
    assert len(sandbox.offline.statistics("kiosk_sales_daily").windows()) == DAYS


def test_what_cannot_be_evaluated_is_a_warning_and_keeps_no_partition_from_being_reported(sandbox: Sandbox) -> None:
    sandbox.root.joinpath("training", "sales_v1").mkdir(parents=True)
    sandbox.root.joinpath("training", "sales_v1", "deployed.json").write_text('{"set": "gone"}')
    sandbox.ingest(orders, sold(DAYS))
    assert sandbox.run(ASSET, partitions=[day_key(DAYS)]).success
    assert day_key(DAYS) in sandbox.materialized(ASSET)
    drift = newest(sandbox, DRIFT)
    assert not drift.passed
    assert "has no manifest" in (drift.description or "")
