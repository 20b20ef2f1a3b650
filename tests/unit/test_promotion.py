"""Stage, validate, promote: bad windows fail alone, production keeps its last good rows, and a repeat changes nothing."""

import hashlib
import json
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from featurestore.declaration import (
    Catalog,
    Daily,
    Feature,
    FeatureGroup,
    Hourly,
    Source,
    Static,
    TimeWindow,
    feature_group,
)
from featurestore.errors import InvalidInput, PromotionRefused, StaleWriter
from featurestore.loading import materialize_load
from featurestore.promotion import Promotion, materialize_windows
from tests.catalogs import (
    DAY,
    HOUR,
    MINUTE,
    MISSING,
    OWNER,
    SOURCES,
    START,
    T0,
    Clock,
    Shops,
    aisle_mix_daily,
    days,
    hours,
    in_aisle,
    plain_rows,
    register,
    sale,
    sales,
    shop,
    shop_density_daily,
    shop_last_sale_hourly,
    shop_profile,
    shop_sales_daily,
    shop_sales_hourly,
    windows,
)
from tests.scale import cases

LATER = T0 + 10 * DAY


@pytest.fixture
def chain(tmp_path: Path) -> Shops:
    return Shops(tmp_path, Clock(LATER, ticks=True))


def run(chain: Shops, group: FeatureGroup, asked: Sequence[TimeWindow], run_id: str = "run") -> Promotion:
    return materialize_windows(chain.store, chain.catalog, group, asked, run_id=run_id)


def statuses(promotion: Promotion) -> list[str]:
    return [outcome.status for outcome in promotion.outcomes]


def stored(chain: Shops, group: FeatureGroup) -> pl.DataFrame:
    return chain.store.table(group.stored_name).scan().collect().sort("window_start", *group.keys, "event_time")


def hour_of(hour: int) -> Any:
    return T0 + hour * HOUR + 5 * MINUTE


def test_promoted_rows_carry_the_times_of_their_window(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0), 5.0)])
    [outcome] = run(chain, shop_sales_hourly, hours(shop_sales_hourly, 0, 1)).outcomes
    assert (outcome.status, outcome.changed, outcome.verdict.rows, outcome.input_rows, outcome.reason) == (
        "promoted",
        True,
        1,
        1,
        "",
    )
    [row] = stored(chain, shop_sales_hourly).to_dicts()
    assert row["event_time"] == T0 + HOUR
    assert row["knowledge_time"] == T0 + HOUR + 10 * MINUTE + 5 * MINUTE, "cut-off and publish"
    assert row["window_start"] == T0
    assert (row["revenue_1h"], row["is_deleted"], row["schema_number"]) == (5.0, False, 1)


def test_event_rows_keep_their_own_event_time_and_are_known_at_the_horizon(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0))])
    run(chain, shop_last_sale_hourly, hours(shop_last_sale_hourly, 0, 1))
    [row] = stored(chain, shop_last_sale_hourly).to_dicts()
    assert (row["event_time"], row["knowledge_time"]) == (hour_of(0), T0 + HOUR + 5 * MINUTE)


# What is not due yet, or waits for others.


def test_window_before_its_cut_off_is_skipped_and_says_so(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0))])
    [window] = hours(shop_sales_hourly, 0, 1)
    cut_off = shop_sales_hourly.cut_off(window)
    chain.clock = Clock(cut_off - timedelta(microseconds=1))
    [early] = run(chain, shop_sales_hourly, [window]).outcomes
    assert early.status == "not_due"
    assert cut_off.isoformat() in early.reason
    assert chain.store.table("shop_sales_hourly").version() is None
    assert chain.store.ledger("shop_sales_hourly").version() is None
    chain.clock.now = cut_off
    assert statuses(run(chain, shop_sales_hourly, [window])) == ["promoted"]


def test_window_whose_upstream_is_not_promoted_is_blocked_and_names_it(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0))])
    asked = days(shop_density_daily, 0, 3)
    assert statuses(run(chain, shop_density_daily, asked)) == ["blocked"] * 3
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 2))
    outcomes = run(chain, shop_density_daily, asked).outcomes
    assert [outcome.status for outcome in outcomes] == ["promoted", "promoted", "blocked"]
    assert "shop_sales_daily 2026-03-03" in outcomes[2].reason
    assert "2026-03-02" not in outcomes[2].reason


def test_quarantined_upstream_window_blocks_until_it_is_released(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0), 5000.0)])
    upstream, downstream = days(shop_sales_daily, 0, 1), days(shop_density_daily, 0, 1)
    run(chain, shop_sales_daily, upstream)
    assert statuses(run(chain, shop_density_daily, downstream)) == ["blocked"]
    chain.land(sales, [sale(1, hour_of(0), 5.0)])
    run(chain, shop_sales_daily, upstream)
    assert statuses(run(chain, shop_density_daily, downstream)) == ["promoted"]


def chained(delay: timedelta, kind: Any = "events", cadence: Hourly | Daily | None = None) -> FeatureGroup:
    """A group that reads the event group, as driver if it is one itself."""

    def sale_echo(window: TimeWindow, shop_last_sale_hourly: pl.LazyFrame) -> pl.LazyFrame:
        """Repeats what it reads."""
        if kind == "windows":
            return shop_last_sale_hourly.group_by("shop").agg(pl.col("amount").sum())
        return shop_last_sale_hourly.select("shop", "event_time", "amount")

    features = [Feature("amount", pl.Float64, "Amount")]
    lookback = HOUR if cadence is None else DAY
    declare = feature_group(
        entity=shop,
        features=features,
        cadence=cadence or Hourly(start=START),
        lookback=lookback,
        delay=delay,
        emits=kind,
        owner=OWNER,
        freshness=2 * DAY,
    )
    return declare(sale_echo)


@pytest.mark.parametrize("delay", [timedelta(0), 2 * MINUTE, HOUR, 3 * HOUR])
def test_a_driver_that_is_a_group_loses_no_event_in_whatever_order_windows_are_run(
    tmp_path: Path, delay: timedelta
) -> None:
    echo = chained(delay)
    chain = Shops(tmp_path, Clock(LATER, ticks=True), Catalog(SOURCES, [shop_last_sale_hourly, echo]))
    chain.land(sales, [sale(n, hour_of(n)) for n in range(8)])
    upstream, downstream = hours(shop_last_sale_hourly, 0, 15), hours(echo, 0, 12)
    chance = random.Random(1)
    waiting, open_ = chance.sample(upstream, len(upstream)), list(downstream)
    while waiting:
        run(chain, shop_last_sale_hourly, [waiting.pop()])
        done = run(chain, echo, open_).having("promoted")
        open_ = [window for window in open_ if window not in [outcome.window for outcome in done]]
    assert not open_
    assert stored(chain, echo)["event_time"].to_list() == [hour_of(n) for n in range(8)], "each event once"


def test_a_window_waits_for_event_windows_longer_than_its_lookback(tmp_path: Path) -> None:
    daily = feature_group(
        entity=shop,
        features=[Feature("amount", pl.Float64, "Amount")],
        cadence=Daily(start=START),
        emits="events",
        owner=OWNER,
    )(daily_events)
    reader = feature_group(
        entity=shop,
        features=[Feature("amount", pl.Float64, "Amount")],
        cadence=Hourly(start=START),
        lookback=2 * DAY,
        owner=OWNER,
    )(sum_of_daily_events)
    chain = Shops(tmp_path, Clock(LATER, ticks=True), Catalog(SOURCES, [daily, reader]))
    [window] = hours(reader, 25, 26)
    assert statuses(run(chain, reader, [window])) == ["blocked"]
    run(chain, daily, days(daily, 0, 1))
    assert statuses(run(chain, reader, [window])) == ["promoted"]


def daily_events(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Sales as events."""
    return sales.select("shop", "event_time", "amount")


def sum_of_daily_events(window: TimeWindow, daily_events: pl.LazyFrame) -> pl.LazyFrame:
    """Sum of what it reads."""
    return daily_events.group_by("shop").agg(pl.col("amount").sum())


# Bad windows fail alone.

BAD: dict[str, tuple[list[dict[str, Any]], str]] = {
    "range": ([sale(90, hour_of(1), 5000.0)], "range"),
    "nulls": ([sale(90, hour_of(1), MISSING)], "null_fraction"),
    "raises": ([sale(90, hour_of(1), shop="fire")], "transform"),
    "coverage": ([sale(90, hour_of(1), shop="new")], "coverage"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_window_is_quarantined_alone_with_a_report_and_released_when_it_passes(chain: Shops, kind: str) -> None:
    rows, check = BAD[kind]
    good = [sale(n, hour_of(n)) for n in (0, 2)]
    chain.land(sales, good + rows)
    asked = hours(shop_sales_hourly, 0, 3)
    promotion = run(chain, shop_sales_hourly, asked)
    assert statuses(promotion) == ["promoted", "quarantined", "promoted"]
    assert check in promotion.outcomes[1].reason
    assert stored(chain, shop_sales_hourly)["window_start"].to_list() == [T0, T0 + 2 * HOUR]
    staging = chain.store.staging("shop_sales_hourly")
    [held] = staging.quarantined()
    report = staging.report(held)
    assert report is not None
    assert (report["window"], report["run_id"], report["passed"]) == ((T0 + HOUR).isoformat(), "run", False)
    assert check in [finding["check"] for finding in report["findings"]]
    fixed = [
        {**row, "amount": 1.0, "shop": "a", "event_time": hour_of(1), "known_at": hour_of(1) + MINUTE} for row in rows
    ]
    chain.land(sales, fixed)
    assert statuses(run(chain, shop_sales_hourly, asked, "again")) == ["promoted"] * 3
    assert staging.quarantined() == []
    assert staging.report(held) is None


def test_report_has_at_most_ten_example_rows(chain: Shops) -> None:
    chain.land(sales, [sale(n, hour_of(0), 5000.0 + n, shop=f"shop{n}") for n in range(30)])
    run(chain, shop_sales_hourly, hours(shop_sales_hourly, 0, 1))
    staging = chain.store.staging("shop_sales_hourly")
    report = staging.report(staging.quarantined()[0])
    assert report is not None
    [finding] = report["findings"]
    assert finding["failing_rows"] == 30
    assert len(finding["examples"]) == 10
    assert set(finding["examples"][0]) == {"shop", "event_time", "revenue_1h"}
    json.dumps(report, allow_nan=False)


def test_production_keeps_the_last_good_rows_of_a_window_that_turns_bad(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0), 7.0)])
    [window] = hours(shop_sales_hourly, 0, 1)
    run(chain, shop_sales_hourly, [window])
    before = chain.store.table("shop_sales_hourly").version()
    chain.land(sales, [sale(2, hour_of(0), 9000.0)])
    assert statuses(run(chain, shop_sales_hourly, [window], "worse")) == ["quarantined"]
    assert chain.store.table("shop_sales_hourly").version() == before
    assert stored(chain, shop_sales_hourly)["revenue_1h"].to_list() == [7.0]
    assert chain.store.ledger("shop_sales_hourly").promoted() == set()


def declared(
    transform: Any, features: list[Feature], emits: Any = "windows", **other: Any
) -> tuple[FeatureGroup, Catalog]:
    group = feature_group(
        entity=shop, features=features, cadence=Hourly(start=START), lookback=HOUR, emits=emits, owner=OWNER, **other
    )(transform)
    return group, Catalog(SOURCES, [group])


def test_nan_counts_as_missing(tmp_path: Path) -> None:
    def with_nan(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
        """Zero over zero where the amount is zero."""
        return sales.select("shop", ratio=pl.col("amount") / pl.col("amount"))

    group, catalog = declared(with_nan, [Feature("ratio", pl.Float64, "One", ge=0, le=1, max_null_fraction=0.4)])
    chain = Shops(tmp_path, Clock(LATER), catalog)
    chain.land(sales, [sale(n, hour_of(0), float(n % 2), shop=f"shop{n}") for n in range(2)])
    chain.land(sales, [sale(10 + n, hour_of(1), 0.0 if n == 0 else 1.0, shop=f"shop{n}") for n in range(3)])
    outcomes = run(chain, group, hours(group, 0, 2)).outcomes
    assert [outcome.status for outcome in outcomes] == ["quarantined", "promoted"]
    assert outcomes[0].verdict.findings[0].check == "null_fraction"


@pytest.mark.parametrize("emits", ["windows", "events"])
def test_two_rows_of_one_entity_at_one_event_time_are_refused(tmp_path: Path, emits: str) -> None:
    def doubled(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
        """One row a sale."""
        return sales.select("shop", "amount", *(["event_time"] if emits == "events" else []))

    group, catalog = declared(doubled, [Feature("amount", pl.Float64, "Amount")], emits)
    chain = Shops(tmp_path, Clock(LATER), catalog)
    chain.land(sales, [sale(1, hour_of(0)), sale(2, hour_of(0)), sale(3, hour_of(1))])
    outcomes = run(chain, group, hours(group, 0, 2)).outcomes
    assert [outcome.status for outcome in outcomes] == ["quarantined", "promoted"]
    assert "uniqueness" in outcomes[0].reason


def test_a_later_version_of_an_event_may_share_its_event_time(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0), 1.0), sale(1, hour_of(0), 2.0, known_at=hour_of(1))])
    assert statuses(run(chain, shop_last_sale_hourly, hours(shop_last_sale_hourly, 0, 2))) == ["promoted"] * 2
    assert stored(chain, shop_last_sale_hourly)["amount"].to_list() == [1.0, 2.0]


@pytest.mark.parametrize("wrong", ["dtype", "missing", "extra", "no frame", "panic"])
def test_transform_that_returns_something_else_fails_its_window_alone(tmp_path: Path, wrong: str) -> None:
    def fickle(window: TimeWindow, sales: pl.LazyFrame) -> Any:
        """Right in the first hour and on empty frames."""
        right = sales.group_by("shop").agg(pl.col("amount").sum())
        if window.start == T0:
            return right
        if wrong == "panic":
            raise pl.exceptions.PanicException("a bug in the engine")
        changed = {
            "dtype": right.cast({"amount": pl.Int64}),
            "missing": right.drop("amount"),
            "extra": right.with_columns(x=1),
        }
        return changed.get(wrong, 7)

    group, catalog = declared(fickle, [Feature("amount", pl.Float64, "Amount")])
    chain = Shops(tmp_path, Clock(LATER), catalog)
    chain.land(sales, [sale(1, hour_of(0)), sale(2, hour_of(1))])
    outcomes = run(chain, group, hours(group, 0, 2)).outcomes
    assert [outcome.status for outcome in outcomes] == ["promoted", "quarantined"]
    assert outcomes[1].verdict.findings[0].check == "transform"


@pytest.mark.parametrize("when", ["late", "null"])
def test_event_after_the_cut_off_or_without_a_time_is_refused(tmp_path: Path, when: str) -> None:
    def shifted(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
        """In the second hour, events that have not happened."""
        moved = pl.col("event_time") + HOUR if when == "late" else pl.lit(None, dtype=pl.Datetime("us", "UTC"))
        return sales.select("shop", "amount", pl.col("event_time") if window.start == T0 else moved.alias("event_time"))

    group, catalog = declared(shifted, [Feature("amount", pl.Float64, "Amount")], "events")
    chain = Shops(tmp_path, Clock(LATER), catalog)
    chain.land(sales, [sale(1, hour_of(0)), sale(2, hour_of(1))])
    outcomes = run(chain, group, hours(group, 0, 2)).outcomes
    assert [outcome.status for outcome in outcomes] == ["promoted", "quarantined"]
    assert ("after the cut-off" if when == "late" else "without an event_time") in outcomes[1].reason


def test_event_at_the_cut_off_itself_passes(tmp_path: Path) -> None:
    def at_end(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
        """Events moved to the cut-off."""
        return sales.select("shop", "amount", event_time=pl.lit(window.end).cast(pl.Datetime("us", "UTC")))

    group, catalog = declared(at_end, [Feature("amount", pl.Float64, "Amount")], "events")
    chain = Shops(tmp_path, Clock(LATER), catalog)
    chain.land(sales, [sale(1, hour_of(0))])
    assert statuses(run(chain, group, hours(group, 0, 1))) == ["promoted"]


def test_rows_with_null_keys_are_refused_and_counted(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0)), sale(2, hour_of(0), shop=None), in_aisle(sale(3, hour_of(1)), None)])
    [outcome] = run(chain, shop_sales_hourly, hours(shop_sales_hourly, 0, 1)).outcomes
    assert (outcome.status, outcome.null_key_rows, outcome.verdict.rows) == ("promoted", 1, 1)
    assert run(chain, aisle_mix_daily, days(aisle_mix_daily, 0, 1)).outcomes[0].null_key_rows == 2
    assert chain.store.ledger("shop_sales_hourly").latest()["null_key_rows"].to_list() == [1]


def test_vector_with_a_null_inside_fails_its_window_alone(tmp_path: Path) -> None:
    def pair(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
        """A vector of the amount; of a missing amount, a vector with a hole."""
        amount = pl.when(pl.col("amount") != MISSING).then("amount").cast(pl.Float32)
        return sales.select("shop", pair=pl.concat_arr([amount, amount]))

    group, catalog = declared(pair, [Feature("pair", pl.Array(pl.Float32, 2), "A pair")])
    chain = Shops(tmp_path, Clock(LATER), catalog)
    chain.land(sales, [sale(1, hour_of(0)), sale(2, hour_of(1), MISSING)])
    outcomes = run(chain, group, hours(group, 0, 2)).outcomes
    assert [outcome.status for outcome in outcomes] == ["promoted", "quarantined"]


def test_coverage_counts_the_seven_windows_before_also_those_of_other_runs(chain: Shops) -> None:
    chain.land(sales, [sale(n, hour_of(n), shop="a") for n in range(6)])
    chain.land(sales, [sale(10 + n, hour_of(3), shop=name) for n, name in enumerate("bcd")])
    for hour in range(4):
        run(chain, shop_sales_hourly, hours(shop_sales_hourly, hour, hour + 1))
    outcomes = run(
        chain, shop_sales_hourly, [*hours(shop_sales_hourly, 0, 1), *hours(shop_sales_hourly, 5, 6)]
    ).outcomes
    assert [outcome.status for outcome in outcomes] == ["promoted", "quarantined"]
    assert "coverage" in outcomes[1].reason


# Repeats and replays.


def everything(chain: Shops) -> dict[str, str]:
    return {g.stored_name: chain.store.table(g.stored_name).content_hash() for g in chain.catalog.groups}


def run_all(chain: Shops, last_day: int, run_id: str = "run") -> None:
    for group in chain.catalog.ordered_groups:
        if isinstance(group.cadence, Static):
            materialize_load(chain.store, chain.catalog, group, run_id=run_id)
        else:
            run(chain, group, windows(group, T0, T0 + last_day * DAY), run_id)


def test_rerun_with_nothing_changed_makes_no_commit(chain: Shops) -> None:
    chain.land(sales, [sale(n, hour_of(n), shop="ab"[n % 2]) for n in range(30)])
    chain.land(register, [{"shop": name, "area": 10, "town": "x"} for name in "ab"])
    run_all(chain, 2)
    before = {
        g.stored_name: (chain.store.table(g.stored_name).version(), stored(chain, g)) for g in chain.catalog.groups
    }
    for run_id in ("run", "again"):
        run_all(chain, 2, run_id)
        for group in chain.catalog.groups:
            version, rows = before[group.stored_name]
            assert chain.store.table(group.stored_name).version() == version
            assert stored(chain, group).equals(rows), "created_at included"
    assert not any(o.changed for o in run(chain, shop_sales_hourly, hours(shop_sales_hourly, 0, 48)).outcomes)


def test_only_windows_whose_rows_moved_are_said_to_have_changed(chain: Shops) -> None:
    chain.land(sales, [sale(n, hour_of(n)) for n in range(3)])
    asked = hours(shop_sales_hourly, 0, 3)
    run(chain, shop_sales_hourly, asked)
    chain.land(sales, [sale(9, hour_of(1), 1.0)])
    assert [outcome.changed for outcome in run(chain, shop_sales_hourly, asked, "two").outcomes] == [False, True, False]


LIVE_SALES = Source(
    name="sales", schema=sales.schema, keys=sales.keys, event_time="event_time", known_at="known_at", live_from=T0
)

landings = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 40), st.integers(0, 24), st.sampled_from("ab"), st.integers(1, 9)),
    max_size=12,
)


@settings(max_examples=cases(40, 3), deadline=None, phases=[Phase.generate])
@given(landings)
def test_late_rows_never_rewrite_closed_windows_and_any_window_can_be_replayed(
    tmp_path_factory: pytest.TempPathFactory, landed: list[tuple[int, int, int, str, int]]
) -> None:
    """Sales of the first hours land live, some late and some corrected, hour by hour; then everything is run again."""
    groups = [shop_last_sale_hourly, shop_sales_daily, aisle_mix_daily]
    chain = Shops(tmp_path_factory.mktemp("store"), Clock(T0), Catalog([LIVE_SALES, register], groups))
    promoted: dict[tuple[str, TimeWindow], list[tuple[Any, ...]]] = {}
    for hour in range(0, 60, 12):
        chain.clock.now = T0 + hour * HOUR
        due = [
            sale(n, T0 + at * HOUR, float(amount), shop=name)
            for n, at, late, name, amount in landed
            if hour - 12 < at + late <= hour
        ]
        chain.land(LIVE_SALES, due)
        for group in groups:
            for outcome in run(chain, group, windows(group, T0, chain.clock.now)).having("promoted"):
                key = (group.stored_name, outcome.window)
                rows = window_rows(chain, group, outcome.window)
                assert promoted.setdefault(key, rows) == rows, "a closed window is never rewritten"
    hashes = everything(chain)
    chain.clock.now += HOUR
    chain.land(LIVE_SALES, [sale(99, T0, 3.0)])
    for group in groups:
        run(chain, group, [window for name, window in promoted if name == group.stored_name], "replay")
    assert everything(chain) == hashes


def window_rows(chain: Shops, group: FeatureGroup, window: TimeWindow) -> list[tuple[Any, ...]]:
    return plain_rows(chain.store.table(group.stored_name).scan(windows=[window]).collect())


def test_late_data_improves_only_the_windows_still_open(tmp_path: Path) -> None:
    chain = Shops(tmp_path, Clock(T0), Catalog([LIVE_SALES], [shop_sales_daily]))
    chain.clock.now = T0 + 12 * HOUR
    chain.land(LIVE_SALES, [sale(1, T0 + HOUR, 1.0)])
    chain.clock.now = T0 + 30 * HOUR
    chain.land(LIVE_SALES, [sale(2, T0 + HOUR, 2.0)])
    chain.clock.now = T0 + 4 * DAY
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 3))
    assert stored(chain, shop_sales_daily)["revenue"].to_list() == [1.0, 3.0], (
        "the third day's lookback no longer reaches them"
    )


# Static loads.


def load(chain: Shops, rows: Sequence[tuple[str, int, str | None]], run_id: str = "load") -> Any:
    """The register as a feed that is replaced as a whole: one catalogue for each file, so that rows can vanish from it."""
    source = Source(name="register", schema=register.schema, keys=("shop",))
    folder = chain.root / "raw" / "source=register"
    if folder.exists():
        folder.rename(chain.root / f"register-{chain.files}")
    chain.land(source, [{"shop": name, "area": area, "town": town} for name, area, town in rows])
    return materialize_load(chain.store, chain.catalog, shop_profile, run_id=run_id)


def profile(chain: Shops) -> list[tuple[Any, ...]]:
    rows = stored(chain, shop_profile).sort("knowledge_time", "shop")
    return rows.select("shop", "area", "is_deleted", pl.col("knowledge_time") == T0).rows()


def test_first_load_is_known_from_the_declared_instant_and_later_ones_from_their_own(chain: Shops) -> None:
    assert load(chain, [("a", 1, "x"), ("b", 2, "x")]).rows_changed == 2
    assert load(chain, [("a", 1, "x"), ("b", 3, "x"), ("c", 4, "x")]).rows_changed == 2
    assert profile(chain) == [
        ("a", 1, False, True),
        ("b", 2, False, True),
        ("b", 3, False, False),
        ("c", 4, False, False),
    ]
    [instant] = set(stored(chain, shop_profile).filter(pl.col("area") > 2)["knowledge_time"])
    assert stored(chain, shop_profile).filter(pl.col("area") > 2)["event_time"].to_list() == [instant] * 2
    assert stored(chain, shop_profile).filter(pl.col("area") > 2)["window_start"].to_list() == [instant] * 2


def test_vanished_entity_becomes_a_tombstone_and_comes_back(chain: Shops) -> None:
    load(chain, [("a", 1, "x"), ("b", 2, "x")])
    load(chain, [("a", 1, "x")])
    assert profile(chain)[-1][:3] == ("b", None, True)
    load(chain, [("a", 1, "x"), ("b", 2, "x")])
    assert profile(chain)[-1][:3] == ("b", 2, False)


def test_truncated_input_deletes_nobody(chain: Shops) -> None:
    load(chain, [(name, 1, "x") for name in "abcdef"])
    version = chain.store.table("shop_profile").version()
    with pytest.raises(PromotionRefused, match="2 of 6 entities"):
        load(chain, [("a", 1, "x"), ("b", 1, "x")])
    with pytest.raises(PromotionRefused, match="0 of 6 entities"):
        load(chain, [])
    assert chain.store.table("shop_profile").version() == version


def test_load_that_fails_its_gate_writes_nothing(chain: Shops) -> None:
    load(chain, [("a", 1, "x")])
    outcome = load(chain, [("a", 1, None), ("b", 0, "x")])
    assert [finding.check for finding in outcome.verdict.findings] == ["range", "null_fraction"]
    assert (outcome.rows_changed, outcome.table_version) == (0, chain.store.table("shop_profile").version())
    assert profile(chain) == [("a", 1, False, True)]


def test_repeated_load_writes_nothing(chain: Shops) -> None:
    load(chain, [("a", 1, "x")])
    version = chain.store.table("shop_profile").version()
    assert load(chain, [("a", 1, "x")]).rows_changed == 0
    assert chain.store.table("shop_profile").version() == version


def test_windowed_group_cannot_be_loaded_as_a_whole(chain: Shops) -> None:
    with pytest.raises(InvalidInput, match="materialize_windows"):
        materialize_load(chain.store, chain.catalog, shop_sales_daily, run_id="load")


# What is written down.


def test_ledger_says_what_a_window_was_computed_with(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0), 5000.0), sale(2, hour_of(1)), sale(3, hour_of(1), shop=None)])
    promotion = run(chain, shop_sales_hourly, hours(shop_sales_hourly, 0, 3), "the-run")
    rows = {row["window_start"]: row for row in chain.store.ledger("shop_sales_hourly").latest().to_dicts()}
    assert [rows[T0 + n * HOUR]["status"] for n in range(3)] == ["quarantined", "promoted", "quarantined"]
    second = rows[T0 + HOUR]
    assert second["run_id"] == "the-run"
    assert second["code_version"] == shop_sales_hourly.code_version
    assert json.loads(second["source_versions"]) == {"sales": chain.store.source(sales).version()}
    assert (second["rows"], second["history_rows"], second["null_key_rows"]) == (1, 2, 1)
    verdict = promotion.outcomes[1].verdict.as_dict()
    assert second["verdict_digest"] == hashlib.sha256(json.dumps(verdict, default=str).encode()).hexdigest()


def test_window_without_rows_is_promoted_empty_and_remembered(chain: Shops) -> None:
    asked = days(shop_sales_daily, 0, 1)
    assert statuses(run(chain, shop_sales_daily, asked)) == ["promoted"]
    assert chain.store.ledger("shop_sales_daily").missing([asked[0].start]) == []
    assert statuses(run(chain, shop_density_daily, days(shop_density_daily, 0, 1))) == ["promoted"]


def test_nothing_stays_staged_after_a_run(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(0)), sale(2, hour_of(1), 5000.0)])
    run(chain, shop_sales_hourly, hours(shop_sales_hourly, 0, 2))
    assert chain.store.staging("shop_sales_hourly").staged_runs() == []


def test_run_that_was_overtaken_stops_and_the_newer_rows_stay(chain: Shops) -> None:
    """Its transform is slow: while it runs, a newer row lands and another run promotes the window."""
    chain.land(sales, [sale(1, hour_of(0), 1.0)])
    overtaken = [False]

    def slow(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
        """The other run happens inside of this one."""
        if chain.store.source(SOURCES[0]).version() is not None and not overtaken[0]:
            overtaken[0] = True
            chain.land(SOURCES[0], [sale(2, hour_of(0), 2.0)])
            run(chain, group, hours(group, 0, 1), "fast")
        return sales.group_by("shop").agg(pl.col("amount").sum())

    overtaken[0] = True
    group, catalog = declared(slow, [Feature("amount", pl.Float64, "Amount")])
    chain.catalog, overtaken[0] = catalog, False
    with pytest.raises(StaleWriter, match="'fast'"):
        run(chain, group, hours(group, 0, 1), "slow")
    assert stored(chain, group)["amount"].to_list() == [3.0]


def test_an_event_older_than_one_known_before_is_counted_and_never_served(chain: Shops) -> None:
    late = sale(2, T0 + 10 * MINUTE, amount=99.0, known_at=T0 + 80 * MINUTE)
    chain.land(sales, [sale(1, T0 + 30 * MINUTE), late])
    chain.land(register, [{"shop": "a", "area": 1, "town": "Ulm"}])
    promotion = run(chain, shop_last_sale_hourly, hours(shop_last_sale_hourly, 0, 3))
    assert [outcome.behind_rows for outcome in promotion.outcomes] == [0, 1, 0]


def test_events_older_than_one_known_before_are_counted_and_stay_behind(chain: Shops) -> None:
    chain.land(sales, [sale(1, hour_of(1)), sale(2, hour_of(0), known_at=hour_of(2)), sale(3, hour_of(2))])
    chain.land(sales, [sale(4, hour_of(0), known_at=hour_of(3), shop="b")])
    outcomes = run(chain, shop_last_sale_hourly, hours(shop_last_sale_hourly, 0, 4)).outcomes
    assert [outcome.behind_rows for outcome in outcomes] == [0, 0, 1, 0]
    again = run(chain, shop_last_sale_hourly, hours(shop_last_sale_hourly, 2, 3)).outcomes
    assert [outcome.behind_rows for outcome in again] == [1], "also when its window is run alone"
