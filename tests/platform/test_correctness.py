"""Strategies and their classes where people see them: in the metadata of partitions, and in the config of a training set."""

from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from feature_assets.training import training_asset
from featurestore.declaration import Backfill, Catalog, FeatureService, Snapshots, Source
from resources.store import StoreResource
from tests.platform.kiosks import DAY, HOUR, OWNER, T0, TIME, kiosk_sales_daily, order, orders
from tests.platform.sandbox import Sandbox, log_of

GROUP = "kiosk_sales_daily"
ASSET = f"offline/{GROUP}"
tills = Source(
    name="tills",
    schema={"kiosk": pl.String, "sales_1d": pl.Float64, "at": TIME},
    keys=("kiosk",),
    event_time="at",
    typical_delay=HOUR,
)
tilled = replace(kiosk_sales_daily, backfill=Backfill(snapshots=Snapshots("tills", 5 * DAY)))
till_model_v1 = FeatureService("till_model_v1", features=[tilled], owner=OWNER)


@pytest.fixture
def shop(sandbox: Sandbox) -> Sandbox:
    """Two days from tills, then two from orders."""
    sandbox.use(Catalog([orders, tills], [tilled], [till_model_v1]))
    sandbox.ingest(tills, [{"kiosk": "a", "sales_1d": 7.0, "at": T0}])
    sandbox.ingest(orders, [order(day, T0 + day * DAY + HOUR) for day in range(4)])
    assert launch(sandbox, "snapshot", "2025-03-01", "2025-03-02").success
    assert launch(sandbox, "full", "2025-03-03", "2025-03-04").success
    return sandbox


def launch(sandbox: Sandbox, strategy: str, *keys: str) -> dg.ExecuteInProcessResult:
    return sandbox.run(ASSET, partitions=keys, tags={"featurestore/strategy": strategy})


def metadata(sandbox: Sandbox, key: str) -> dict[str, Any]:
    """What the newest materialization of a partition says."""
    records = sandbox.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(["offline", GROUP]), asset_partitions=[key]), limit=1
    ).records
    found = records[0].asset_materialization
    return {} if found is None else {name: value.value for name, value in found.metadata.items()}


def test_every_partition_says_by_which_strategy_and_of_which_class_it_is(shop: Sandbox) -> None:
    filled, replayed = metadata(shop, "2025-03-01"), metadata(shop, "2025-03-03")
    assert (filled["strategy"], filled["correctness"]) == ("snapshot", "moderate")
    assert (filled["snapshots"], filled["oldest_snapshot"]) == ("tills", str(T0))
    assert (replayed["strategy"], replayed["correctness"]) == ("full", "perfect")
    assert "snapshots" not in replayed


def test_a_window_that_is_left_keeps_the_strategy_and_class_by_which_it_was_promoted(shop: Sandbox) -> None:
    result = launch(shop, "incremental", "2025-03-03", "2025-03-04")
    assert result.success
    assert "Left 2025-03-03: already current." in log_of(shop, result)
    told = metadata(shop, "2025-03-03")
    assert (told["strategy"], told["correctness"], told["dagster/partition_row_count"]) == ("full", "perfect", 1)
    assert (told["changed"], told["left"]) == (False, "already current")
    assert "input_rows" not in told


def test_a_better_window_than_a_stand_in_would_make_is_materialized_as_it_is(shop: Sandbox) -> None:
    version = shop.version(GROUP)
    assert launch(shop, "snapshot", "2025-03-02", "2025-03-03").success
    assert shop.version(GROUP) == version
    made, better = metadata(shop, "2025-03-02"), metadata(shop, "2025-03-03")
    assert (made["strategy"], "left" in made) == ("snapshot", False)
    assert (better["strategy"], better["changed"]) == ("full", False)
    assert better["left"].startswith("promoted with class 'perfect', above the 'moderate'")


def train(sandbox: Sandbox, **config: str) -> dg.ExecuteInProcessResult:
    def spine(orders: pl.LazyFrame) -> pl.LazyFrame:
        """Each order is a label, a day and three hours later."""
        return orders.select("kiosk", label_time=pl.col("event_time") + DAY + 2 * HOUR)

    asset = training_asset(sandbox.catalog, till_model_v1, spine, [orders])
    store = StoreResource(root=str(sandbox.root), landing=str(sandbox.landing), now=sandbox.now.isoformat())
    run_config = {"ops": {"training__till_model_v1": {"config": config}}}
    return dg.materialize(
        [asset], instance=sandbox.instance, resources={"store": store}, run_config=run_config, raise_on_error=False
    )


def test_a_training_set_demands_a_class_by_its_config(shop: Sandbox) -> None:
    refused = train(shop, min_correctness="high")
    assert not refused.success
    assert "2025-03-01 (moderate), 2025-03-02 (moderate)" in log_of(shop, refused) + str(refused.all_events)
    made = train(shop, min_correctness="moderate")
    assert made.success
    [event] = made.get_asset_materialization_events()
    assert event.materialization.metadata["lowest_correctness"].value == {GROUP: "moderate"}


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"start": "garbage"}, "InvalidInput: start is 'garbage', which is no time. Write it as ISO 8601 with a zone"),
        ({"end": "2026-03-01"}, "InvalidInput: end 2026-03-01T00:00:00 has no time zone. Give one, e.g."),
    ],
)
def test_a_bound_that_is_no_instant_fails_at_once_by_its_name(shop: Sandbox, bounds: dict[str, str], said: str) -> None:
    [failed] = [event for event in train(shop, **bounds).all_events if event.is_step_failure]
    data = failed.step_failure_data
    assert data.user_failure_data is not None, "an error that is tried again"
    assert (data.user_failure_data.description or "").startswith(said)
