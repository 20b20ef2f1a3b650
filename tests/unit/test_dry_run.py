"""A trial of a transform before a backfill: on real inputs, judged as the gate would, and nothing left behind."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featurestore.backfill.dry_run import DryRun, dry_run
from featurestore.declaration import Catalog, FeatureGroup, TimeWindow
from featurestore.errors import InvalidInput
from featurestore.loading import materialize_load
from featurestore.promotion import materialize_windows
from tests.catalogs import (
    DAY,
    GROUPS,
    HOUR,
    MISSING,
    SOURCES,
    T0,
    Clock,
    Shops,
    days,
    hours,
    register,
    sale,
    sales,
    shop_density_daily,
    shop_last_sale_hourly,
    shop_profile,
    shop_sales_daily,
    shop_sales_hourly,
)

LATER = T0 + 10 * DAY
LAST_DUE = T0 + 8 * DAY
"""Two hours after its end; the window after it is due two hours from now."""


@pytest.fixture
def chain(tmp_path: Path) -> Shops:
    return Shops(tmp_path, Clock(LATER))


def tried(chain: Shops, group: FeatureGroup, window: TimeWindow | None = None) -> DryRun:
    return dry_run(chain.store, chain.catalog, group, window)


def with_transform(chain: Shops, group: FeatureGroup, transform: Callable[..., Any]) -> FeatureGroup:
    """The group with another transform; its name in the catalog."""
    changed = replace(group, transform=transform)
    chain.catalog = Catalog(SOURCES, [changed if g.name == group.name else g for g in GROUPS])
    return changed


def fill(chain: Shops, first: int, last: int, amount: float = 10.0) -> None:
    rows = [sale(f"{hour:04}", T0 + hour * HOUR, amount) for hour in range(first * 24, last * 24, 6)]
    chain.land(sales, rows)


def test_last_due_window_is_computed_from_its_real_inputs_and_judged(chain: Shops) -> None:
    fill(chain, 0, 10)
    found = tried(chain, shop_sales_daily)
    assert found.window is not None
    assert found.window.start == LAST_DUE
    assert (found.rows, found.input_rows, found.passed, found.reason, found.note) == (1, 8, True, "", "")
    assert found.verdict is not None
    assert found.verdict.rows == 1


def test_window_may_be_named(chain: Shops) -> None:
    fill(chain, 0, 10)
    [window] = days(shop_sales_daily, 3, 4)
    assert tried(chain, shop_sales_daily, window).window == window


def test_rows_that_break_a_bound_fail_it_with_feature_and_limit(chain: Shops) -> None:
    fill(chain, 0, 10, amount=5000.0)
    found = tried(chain, shop_sales_daily)
    assert not found.passed
    assert "range of 'revenue'" in found.reason
    assert "limit [0.0, 1000.0]" in found.reason
    assert LAST_DUE.isoformat() in found.reason


def test_one_bad_day_fails_no_definition_and_is_told(chain: Shops) -> None:
    fill(chain, 0, 8)
    fill(chain, 8, 10, amount=5000.0)
    found = tried(chain, shop_sales_daily)
    assert found.passed
    assert found.window is not None
    assert found.window.end <= LAST_DUE + DAY - shop_sales_daily.lookback
    assert "range of 'revenue'" in found.note


def test_too_many_nulls_fail_it(chain: Shops) -> None:
    chain.land(sales, [sale(n, LATER - n * HOUR, MISSING) for n in range(1, 5)])
    assert "null_fraction of 'revenue_1h'" in tried(chain, shop_sales_hourly).reason


def broken(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Fails on rows, not on empty frames, so that a catalog takes it."""
    ratio = 1 / (1 - min(1, sales.collect().height))
    return shop_sales_daily.transform(window, sales).lazy().with_columns(pl.col("revenue") * ratio)


def test_error_of_the_transform_is_told_with_its_line(chain: Shops) -> None:
    fill(chain, 0, 10)
    found = tried(chain, with_transform(chain, shop_sales_daily, broken))
    assert not found.passed
    assert found.verdict is None
    assert "ZeroDivisionError: division by zero (test_dry_run.py, line " in found.reason
    assert "ratio = 1 / (1 - min(1, sales.collect().height))" in found.reason


def lazily_broken(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """A cast that only fails where there are rows."""
    shops = pl.col("shop").cast(pl.Int64).cast(pl.Float64)
    return sales.group_by("shop").agg(revenue=shops.sum(), sales_2d=pl.len().cast(pl.Int64))


def test_error_inside_polars_is_told_with_its_type(chain: Shops) -> None:
    fill(chain, 0, 10)
    reason = tried(chain, with_transform(chain, shop_sales_daily, lazily_broken)).reason
    assert "InvalidOperationError: conversion from `str` to `i64` failed" in reason


def wrong_on_rows(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Another dtype than declared, once there are rows."""
    result = shop_sales_daily.transform(window, sales).lazy()
    return result.with_columns(pl.col("sales_2d").cast(pl.Int32)) if sales.collect().height else result


def test_other_dtype_than_declared_fails_it(chain: Shops) -> None:
    fill(chain, 0, 10)
    reason = tried(chain, with_transform(chain, shop_sales_daily, wrong_on_rows)).reason
    assert "SchemaMismatch: Column 'sales_2d' of 'shop_sales_daily' is Int32, declared Int64" in reason


def test_feed_that_stopped_is_tried_where_it_last_had_rows(chain: Shops) -> None:
    fill(chain, 0, 4)
    found = tried(chain, shop_sales_daily)
    assert found.window is not None
    assert found.window.start == T0 + 4 * DAY, "its lookback of two days reaches the last rows"
    assert found.input_rows == 4
    assert "later windows have no input rows yet" in found.note


def test_hourly_group_finds_its_last_rows_far_back(chain: Shops) -> None:
    chain.land(sales, [sale(1, T0 + 3 * HOUR)])
    found = tried(chain, shop_sales_hourly)
    assert found.window == hours(shop_sales_hourly, 3, 4)[0]
    assert found.rows == 1


def test_event_group_is_tried_on_new_rows_of_its_driver(chain: Shops) -> None:
    chain.land(register, [{"shop": "a", "area": 1, "town": "t"}])
    chain.land(sales, [sale(1, T0 + 30.5 * HOUR)])
    found = tried(chain, shop_last_sale_hourly)
    assert found.window == hours(shop_last_sale_hourly, 30, 31)[0]
    assert (found.rows, found.input_rows) == (1, 2)


def test_group_whose_upstream_windows_are_missing_is_tried_at_the_newest_that_are_there(chain: Shops) -> None:
    fill(chain, 0, 10)
    chain.land(register, [{"shop": "a", "area": 5, "town": "t"}])
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")
    materialize_windows(chain.store, chain.catalog, shop_sales_daily, days(shop_sales_daily, 0, 6), run_id="upstream")
    found = tried(chain, shop_density_daily)
    assert found.window == days(shop_density_daily, 5, 6)[0]
    assert found.passed
    assert found.rows == 1
    assert found.note


def test_group_without_any_input_rows_passes_and_says_that_it_was_not_tried(chain: Shops) -> None:
    for group in (shop_sales_daily, shop_density_daily, shop_last_sale_hourly):
        found = tried(chain, group)
        assert (found.passed, found.window, found.rows) == (True, None, 0)
        assert "could not be tried on data" in found.note


def test_rows_of_dimensions_alone_are_no_data_to_try_on(chain: Shops) -> None:
    chain.land(register, [{"shop": "a", "area": 1, "town": "t"}])
    assert tried(chain, shop_last_sale_hourly).window is None


def test_rows_known_after_every_cut_off_are_not_tried(chain: Shops) -> None:
    chain.land(sales, [sale(1, T0 + DAY, known_at=LATER + DAY)])
    assert tried(chain, shop_sales_daily).window is None


def test_group_before_its_first_window_is_due_passes(chain: Shops) -> None:
    fill(chain, 0, 1)
    chain.clock.now = T0 + HOUR
    assert tried(chain, shop_sales_daily).window is None


def test_nothing_is_written(chain: Shops) -> None:
    fill(chain, 0, 10)
    fill(chain, 3, 4, amount=9000.0)
    before = files(chain.root)
    for window in (None, days(shop_sales_daily, 3, 4)[0]):
        tried(chain, shop_sales_daily, window)
    tried(chain, with_transform(chain, shop_sales_daily, broken))
    assert files(chain.root) == before


def files(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file()
    }


def test_document_is_json_whatever_the_end(chain: Shops) -> None:
    fill(chain, 0, 10, amount=5000.0)
    document = json.loads(json.dumps(tried(chain, shop_sales_daily).as_dict()))
    assert document["passed"] is False
    assert document["window"] == LAST_DUE.isoformat()
    assert document["findings"][0]["column"] == "revenue"
    assert document["findings"][0]["examples"]


def test_static_group_has_no_windows_to_try(chain: Shops) -> None:
    with pytest.raises(InvalidInput, match="is static"):
        tried(chain, shop_profile)
