"""One injected instant rules a run: what is due, and what is served already."""

from dataclasses import replace

import polars as pl
import pytest
import redis

from featurestore.errors import InvalidInput
from resources.store import StoreResource
from tests.platform.kiosks import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    day_key,
    hour_key,
    kiosk_profile,
    kiosks,
    order,
    orders,
    register,
)
from tests.platform.sandbox import Sandbox, failure_of, log_of

HOURLY = "kiosk_orders_hourly"
CUT_OFF = T0 + HOUR + 10 * MINUTE
HORIZON = CUT_OFF + 5 * MINUTE


@pytest.fixture
def open_kiosk(sandbox: Sandbox, valkey_url: str) -> Sandbox:
    """One order in the first hour and one in the second, with an empty online store."""
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    sandbox.online_url = valkey_url
    sandbox.ingest(orders, [order(1, T0 + 20 * MINUTE, 10.0), order(2, T0 + 80 * MINUTE, 30.0)])
    return sandbox


def served(sandbox: Sandbox, group: str = HOURLY, feature: str = "amount_2h") -> object:
    return sandbox.store.get_online_features([f"{group}:{feature}"], [{"kiosk": "a"}]).to_dict()[feature][0]


def test_window_is_skipped_a_microsecond_before_its_cut_off_and_promoted_at_it(open_kiosk: Sandbox) -> None:
    open_kiosk.now = CUT_OFF - MINUTE / 60_000_000
    early = open_kiosk.run(f"offline/{HOURLY}", partitions=[hour_key(0)])
    assert early.success
    assert open_kiosk.materialized(f"offline/{HOURLY}") == []
    assert open_kiosk.version(HOURLY) is None
    assert f"Skipped {hour_key(0)}: due at its cut-off, {CUT_OFF.isoformat()}; now is" in log_of(open_kiosk, early)
    open_kiosk.now = CUT_OFF
    assert open_kiosk.run(f"offline/{HOURLY}", partitions=[hour_key(0)]).success
    assert open_kiosk.materialized(f"offline/{HOURLY}") == [hour_key(0)]


def test_online_asset_moves_a_promoted_row_only_at_its_horizon(open_kiosk: Sandbox) -> None:
    open_kiosk.now = CUT_OFF
    assert open_kiosk.run(f"offline/{HOURLY}", partitions=[hour_key(0)]).success
    assert open_kiosk.rows(HOURLY)["knowledge_time"].to_list() == [HORIZON]
    assert open_kiosk.run(f"online/{HOURLY}").success
    assert served(open_kiosk) is None
    open_kiosk.now = HORIZON
    moved = open_kiosk.run(f"online/{HOURLY}")
    assert moved.asset_materializations_for_node(f"online__{HOURLY}")[0].metadata["written"].value == 1
    assert served(open_kiosk) == 10.0


def test_row_that_waits_for_its_horizon_leaves_the_earlier_value(open_kiosk: Sandbox) -> None:
    open_kiosk.now = CUT_OFF + HOUR
    assert open_kiosk.run(f"offline/{HOURLY}", partitions=[hour_key(0), hour_key(1)]).success
    assert open_kiosk.run(f"online/{HOURLY}").success
    assert served(open_kiosk) == 10.0
    open_kiosk.now = HORIZON + HOUR
    assert served(open_kiosk) == 10.0, "nothing has moved it yet"
    assert open_kiosk.run(f"online/{HOURLY}").success
    assert served(open_kiosk) == 40.0


def test_static_load_is_served_from_its_instant(open_kiosk: Sandbox) -> None:
    open_kiosk.ingest(register, [{"kiosk": "a", "seats": 3}])
    assert open_kiosk.run("offline/kiosk_profile", "online/kiosk_profile").success
    assert served(open_kiosk, "kiosk_profile", "seats") == 3


def test_offline_and_online_move_in_one_run(open_kiosk: Sandbox) -> None:
    open_kiosk.now = T0 + 2 * DAY
    assert open_kiosk.run("offline/kiosk_sales_daily", partitions=[day_key(0)]).success
    assert open_kiosk.run("online/kiosk_sales_daily").success
    assert served(open_kiosk, "kiosk_sales_daily", "sales_1d") == 40.0


def test_static_load_of_a_truncated_register_is_refused_with_a_failed_check(open_kiosk: Sandbox) -> None:
    open_kiosk.ingest(register, [{"kiosk": name, "seats": 3} for name in "abcdefghij"])
    assert open_kiosk.run("offline/kiosk_profile").success
    rows = open_kiosk.rows("kiosk_profile")
    open_kiosk.now += DAY
    truncated = _only_first(open_kiosk)
    result = truncated.run("offline/kiosk_profile")
    assert not result.success
    assert "coverage 0.1, limit 0.3" in failure_of(result)
    check = truncated.checks("offline/kiosk_profile", "gate")[0]
    assert check.status.value == "FAILED"
    assert truncated.rows("kiosk_profile").equals(rows)


def _only_first(sandbox: Sandbox) -> Sandbox:
    """The same store under a transform that loses nine of ten kiosks."""

    def first_kiosk(register: pl.LazyFrame) -> pl.LazyFrame:
        return register.filter(pl.col("kiosk") == "a").select("kiosk", "seats")

    sandbox.use(kiosks(replace(kiosk_profile, transform=first_kiosk)))
    return sandbox


def test_clock_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="now"):
        StoreResource(now="2025-03-01T00:00:00").clock()
