"""Incremental backfills: a window that is left out has the rows that a recomputation would give, and little else is computed."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featurestore.backfill.strategies.incremental import windows_to_compute
from featurestore.compute.inputs import WindowInputs
from featurestore.compute.window import compute_window
from featurestore.declaration import Catalog, Daily, Feature, FeatureGroup, Hourly, Source, TimeWindow, feature_group
from featurestore.launch import Launch, Strategy
from featurestore.loading import materialize_load
from featurestore.offline.content import content_hash
from featurestore.offline.intake import identity
from featurestore.promotion import Promotion, materialize_windows
from tests.catalogs import (
    DAY,
    HOUR,
    MINUTE,
    OWNER,
    START,
    T0,
    Clock,
    Shops,
    days,
    hours,
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

LATER = T0 + 40 * DAY
NUMBERS = itertools.count()


@feature_group(
    entity=shop,
    features=[Feature("best", pl.Float64, "Largest amount")],
    cadence=Daily(start=START),
    lookback=DAY,
    owner=OWNER,
)
def shop_best_daily(window: TimeWindow, shop_last_sale_hourly: pl.LazyFrame) -> pl.LazyFrame:
    """The largest sale of a day, from the events of another group."""
    return shop_last_sale_hourly.group_by("shop").agg(best=pl.col("amount").max())


@feature_group(
    entity=shop,
    features=[Feature("share", pl.Float64, "Amount by the sum of sales of three hours")],
    cadence=Hourly(start=START),
    emits="events",
    lookback=3 * HOUR,
    owner=OWNER,
)
def shop_share_hourly(window: TimeWindow, shop_last_sale_hourly: pl.LazyFrame, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Events driven by those of another group, beside a source that is read by event time."""
    total = sales.sort("sale_id").group_by("shop").agg(total=pl.col("amount").sum())
    joined = shop_last_sale_hourly.join(total, on="shop", how="left")
    return joined.select("shop", "event_time", share=pl.col("amount") / pl.col("total"))


GROUPS = (shop_sales_daily, shop_last_sale_hourly, shop_density_daily, shop_profile, shop_best_daily, shop_share_hourly)
SPAN_DAYS = 2


@pytest.fixture
def chain(tmp_path: Path) -> Shops:
    return Shops(tmp_path, Clock(LATER, ticks=True))


def run(
    chain: Shops, group: FeatureGroup, asked: Sequence[TimeWindow], strategy: Strategy = "incremental"
) -> Promotion:
    """A backfill of its own."""
    launch = Launch(f"b{next(NUMBERS)}", strategy)
    return materialize_windows(chain.store, chain.catalog, group, asked, run_id=launch.backfill_id, launch=launch)


def statuses(promotion: Promotion) -> list[str]:
    return [outcome.status for outcome in promotion.outcomes]


def to_compute(chain: Shops, group: FeatureGroup, asked: Sequence[TimeWindow]) -> dict[int, str]:
    """Place in `asked` to reason."""
    found = windows_to_compute(chain.store, chain.catalog, group, asked)
    return {asked.index(window): reason for window, reason in found.items()}


# Against the oracle: recompute every window.


@dataclass
class Tally:
    """Windows whose transform would see exactly what it saw, and how many of those were left out."""

    seen_alike: int = 0
    left_out: int = 0
    stale: int = 0
    saw: dict[tuple[str, TimeWindow], str] = field(default_factory=dict)


def recomputed(chain: Shops, group: FeatureGroup, asked: Sequence[TimeWindow]) -> dict[TimeWindow, tuple[str, str]]:
    """Of each window a hash of what its transform sees now, and of the rows that it gives."""
    registered = chain.store.registry.group(group.stored_name)
    inputs = WindowInputs(chain.catalog, group, asked, chain.store)
    found = {}
    for window in asked:
        seen = [frame.collect() for frame in inputs.of(window).frames.values()]
        rows = compute_window(group, registered, window, inputs).rows
        text = " ".join(frame.write_json() for frame in seen)
        found[window] = (text, content_hash(rows, order=identity(registered)))
    return found


def check_against_recomputation(chain: Shops, group: FeatureGroup, asked: Sequence[TimeWindow], tally: Tally) -> None:
    stale = windows_to_compute(chain.store, chain.catalog, group, asked)
    table = chain.store.table(group.stored_name)
    now = recomputed(chain, group, asked)
    for window, (seen, rows) in now.items():
        if window not in stale:
            assert table.content_hash(windows=[window]) == rows, f"{group.name} {window} is said to be current"
        is_alike = tally.saw.get((group.name, window)) == seen
        tally.seen_alike += is_alike
        tally.left_out += is_alike and window not in stale
        tally.stale += (group.name, window) in tally.saw and window in stale
    promotion = run(chain, group, asked)
    for outcome in promotion.outcomes:
        assert outcome.status == "blocked" or (outcome.status == "current") == (outcome.window not in stale)
        if outcome.status == "promoted":
            tally.saw[group.name, outcome.window] = now[outcome.window][0]
    held = [w for w in asked if (group.name, w) in tally.saw and w.start in chain.store.ledger(group.name).promoted()]
    for window in held:
        assert table.content_hash(windows=[window]) == now[window][1]


def land_something(chain: Shops, chance: random.Random, landed: list[dict[str, Any]]) -> None:
    """Sales that are new, late, corrected or moved to another time, and now and then a load of the register."""
    rows = []
    for _ in range(chance.randint(0, 3)):
        at = T0 + chance.randint(-6, 24 * SPAN_DAYS + 12) * HOUR + chance.choice([0, 0, 20]) * MINUTE
        known = at + chance.choice([0, 0, 1, 3, 26]) * HOUR
        number, name = chance.randint(0, 8), chance.choice("ab")
        rows.append(sale(number, at, float(chance.randint(1, 9)), shop=name, known_at=known))
    if landed and chance.random() < 0.6:
        rows.append(moved(chance.choice(landed), chance))
    landed += rows
    chain.land(sales, rows)
    if chance.random() < 0.2:
        chain.land(register, [{"shop": chance.choice("ab"), "area": chance.randint(1, 9), "town": chance.choice("xy")}])
        materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")


def moved(row: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A correction, known soon after, that puts a sale at another time."""
    at = row["event_time"] + chance.choice([-60, -30, -4, -1, 1, 30]) * HOUR
    return {**row, "event_time": at, "known_at": max(at, row["known_at"] + chance.choice([0, 1]) * HOUR)}


def test_a_window_left_out_has_the_rows_of_a_recomputation_and_most_that_see_the_same_are_left_out(
    tmp_path: Path,
) -> None:
    tally = Tally()
    spans = {group: windows(group, T0, T0 + SPAN_DAYS * DAY) for group in GROUPS if group is not shop_profile}
    for number in range(cases(40, 1)):
        chance = random.Random(number)
        catalog = Catalog([sales, register], GROUPS)
        chain = Shops(tmp_path / str(number), Clock(T0 + chance.choice([12, 70]) * HOUR, ticks=True), catalog)
        landed: list[dict[str, Any]] = []
        tally.saw.clear()
        for _ in range(4):
            land_something(chain, chance, landed)
            chain.clock.now += chance.choice([0, 6, 24]) * HOUR
            for group in catalog.ordered_groups:
                asked = [w for w in spans.get(group, []) if group.cut_off(w) <= chain.clock.now]
                if asked and chance.random() < 0.8:
                    check_against_recomputation(chain, group, asked, tally)
    assert tally.stale > 10
    assert tally.left_out > 0.9 * tally.seen_alike > 100, tally


# What makes a window stale, one by one.


def test_a_current_window_is_neither_written_nor_recorded(chain: Shops) -> None:
    chain.land(sales, [sale(1, T0 + HOUR)])
    asked = days(shop_sales_daily, 0, 2)
    first = run(chain, shop_sales_daily, asked)
    entries = chain.store.ledger("shop_sales_daily").entries().height
    again = run(chain, shop_sales_daily, asked)
    assert (statuses(first), statuses(again)) == (["promoted"] * 2, ["current"] * 2)
    assert [outcome.reason for outcome in again.outcomes] == ["already current"] * 2
    assert chain.store.ledger("shop_sales_daily").entries().height == entries
    assert again.table_version == first.table_version
    assert chain.store.staging("shop_sales_daily").staged_runs() == []


def test_a_repeated_backfill_tells_again_of_the_windows_that_it_promoted(chain: Shops) -> None:
    """Its run may have been killed after the ledger was written, and before Dagster was told."""
    chain.land(sales, [sale(1, T0 + HOUR)])
    asked, launch = days(shop_sales_daily, 0, 3), Launch("killed", "incremental")
    run(chain, shop_sales_daily, asked[:1])
    for expected in (True, False):
        promotion = materialize_windows(chain.store, chain.catalog, shop_sales_daily, asked, run_id="r", launch=launch)
        assert statuses(promotion) == ["current", "promoted", "promoted"]
        assert promotion.outcomes[1].changed == expected


def test_only_windows_that_read_a_new_row_are_computed(chain: Shops) -> None:
    chain.land(sales, [sale(1, T0 + HOUR)])
    asked = days(shop_sales_daily, 0, 5)
    run(chain, shop_sales_daily, asked, "full")
    chain.land(sales, [sale(2, T0 + 2 * DAY + HOUR)])
    assert to_compute(chain, shop_sales_daily, asked) == dict.fromkeys(
        [2, 3], "something came to 'sales' that it reads"
    )
    assert statuses(run(chain, shop_sales_daily, asked)) == ["current", "current", "promoted", "promoted", "current"]


def test_a_row_known_after_the_cut_off_changes_nothing(chain: Shops) -> None:
    chain.land(sales, [sale(1, T0 + HOUR)])
    asked = days(shop_sales_daily, 0, 2)
    run(chain, shop_sales_daily, asked, "full")
    chain.land(sales, [sale(2, T0 + 2 * HOUR, known_at=T0 + DAY + 2 * HOUR + MINUTE)])
    assert list(to_compute(chain, shop_sales_daily, asked)) == [1]
    chain.land(sales, [sale(3, T0 + 2 * HOUR, known_at=T0 + DAY + 2 * HOUR)])
    assert list(to_compute(chain, shop_sales_daily, asked)) == [0, 1], "the cut-off is inclusive"


def test_a_correction_that_takes_a_row_out_of_a_window_makes_it_stale(chain: Shops) -> None:
    """The new version lies in no span of the first windows; it takes the place of one that does."""
    chain.land(sales, [sale(1, T0 + HOUR), sale(2, T0 + HOUR, shop="b")])
    asked = days(shop_sales_daily, 0, 1)
    run(chain, shop_sales_daily, asked, "full")
    chain.land(sales, [sale(9, T0 + DAY + HOUR)])
    assert to_compute(chain, shop_sales_daily, asked) == {}, "known in time, of another sale"
    chain.land(sales, [sale(1, T0 + DAY + HOUR)])
    assert list(to_compute(chain, shop_sales_daily, asked)) == [0]
    run(chain, shop_sales_daily, asked)
    assert chain.store.table("shop_sales_daily").scan().collect()["shop"].to_list() == ["b"]


def test_a_new_row_of_a_dimension_reaches_every_window_that_may_know_it(chain: Shops) -> None:
    chain.land(sales, [sale(1, T0)])
    asked = hours(shop_last_sale_hourly, 0, 3)
    run(chain, shop_last_sale_hourly, asked, "full")
    chain.land(register, [{"shop": "a", "area": 1, "town": "Ulm"}])
    assert list(to_compute(chain, shop_last_sale_hourly, asked)) == [0, 1, 2]


def test_a_load_reaches_the_windows_whose_cut_off_comes_after_it(chain: Shops) -> None:
    chain.clock.now = T0 + 40 * HOUR
    chain.land(register, [{"shop": "a", "area": 1, "town": "x"}])
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")
    chain.clock.now = LATER
    chain.land(sales, [sale(1, T0 + HOUR)])
    asked = days(shop_density_daily, 0, 3)
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 3), "full")
    run(chain, shop_density_daily, asked, "full")
    chain.clock.now = T0 + 60 * HOUR
    chain.land(register, [{"shop": "a", "area": 2, "town": "x"}])
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")
    assert list(to_compute(chain, shop_density_daily, asked)) == [2]


def test_a_changed_upstream_window_reaches_those_that_read_it(chain: Shops) -> None:
    chain.land(register, [{"shop": "a", "area": 1, "town": "x"}])
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")
    chain.land(sales, [sale(1, T0 + HOUR)])
    for group in (shop_sales_daily, shop_density_daily):
        run(chain, group, days(group, 0, 5), "full")
    chain.land(sales, [sale(2, T0 + 2 * DAY + HOUR)])
    asked = days(shop_density_daily, 0, 5)
    assert to_compute(chain, shop_density_daily, asked) == {}, "not before the upstream windows are computed"
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 5))
    assert list(to_compute(chain, shop_density_daily, asked)) == [2, 3, 4]


def test_compacting_a_table_makes_nobody_stale(chain: Shops) -> None:
    chain.land(register, [{"shop": "a", "area": 1, "town": "x"}])
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")
    chain.land(sales, [sale(1, T0 + HOUR)])
    for day in range(3):
        for group in (shop_sales_daily, shop_density_daily):
            run(chain, group, days(group, day, day + 1), "full")
    assert chain.store.table("shop_sales_daily").compact(2026, 3) is not None
    assert chain.store.table("shop_density_daily").compact(2026, 3) is not None
    assert to_compute(chain, shop_density_daily, days(shop_density_daily, 0, 3)) == {}


def test_files_that_statistics_exclude_are_not_opened(chain: Shops) -> None:
    chain.land(sales, [sale(1, T0 + HOUR)])
    asked = days(shop_sales_daily, 0, 2)
    run(chain, shop_sales_daily, asked, "full")
    table = chain.store.source(sales)
    before = set(table.location.path.rglob("*.parquet"))
    chain.land(sales, [sale(2, T0 + 30 * DAY)])
    [added] = set(table.location.path.rglob("*.parquet")) - before
    added.unlink()
    assert to_compute(chain, shop_sales_daily, asked) == {}
    with pytest.raises(FileNotFoundError):
        chain.store.source_rows(sales, None, LATER)


def test_missing_and_quarantined_windows_are_computed(chain: Shops) -> None:
    chain.land(sales, [sale(1, T0 + 5 * MINUTE, 5000.0), sale(2, T0 + HOUR)])
    asked = hours(shop_sales_hourly, 0, 3)
    run(chain, shop_sales_hourly, asked[:2], "full")
    assert to_compute(chain, shop_sales_hourly, asked) == {0: "it is in quarantine", 2: "it is missing"}


def amounts(transform: Any, **other: Any) -> FeatureGroup:
    rules: dict[str, Any] = {"cadence": Daily(start=START), "lookback": DAY, "owner": OWNER, "entity": shop}
    return feature_group(features=[Feature("amount", pl.Float64, "Amount")], **{**rules, **other})(transform)


def total_sales(function: Any) -> Any:
    function.__name__ = "amounts_daily"
    return function


@total_sales
def summed(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """The sum."""
    return sales.group_by("shop").agg(pl.col("amount").sum())


@total_sales
def maximal(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """The largest."""
    return sales.group_by("shop").agg(pl.col("amount").max())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (amounts(maximal), "its transform changed"),
        (amounts(summed, lookback=2 * DAY), "its declaration"),
        (amounts(summed, publish=HOUR), "its declaration"),
    ],
)
def test_a_change_of_code_or_declaration_makes_every_window_stale(
    chain: Shops, changed: FeatureGroup, reason: str
) -> None:
    first = amounts(summed)
    chain.catalog = Catalog([sales], [first])
    chain.land(sales, [sale(1, T0 + HOUR), sale(2, T0 + 2 * HOUR)])
    run(chain, first, days(first, 0, 2), "full")
    chain.catalog = Catalog([sales], [changed])
    found = to_compute(chain, changed, days(changed, 0, 2))
    assert list(found) == [0, 1]
    assert found[0].startswith(reason)


def test_rows_that_land_while_a_run_reads_count_as_new(chain: Shops) -> None:
    """The run's inputs are read before the transform of its first window lands another sale."""
    landed = [False]

    @total_sales
    def slow(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
        """A sale lands meanwhile."""
        if chain.store.source(SALES).version() is not None and not landed[0]:
            landed[0] = True
            chain.land(SALES, [sale(2, T0 + 2 * HOUR, 5.0)])
        return sales.group_by("shop").agg(pl.col("amount").sum())

    group = amounts(slow)
    chain.catalog = Catalog([sales], [group])
    landed[0] = True
    chain.land(sales, [sale(1, T0 + HOUR, 1.0)])
    landed[0] = False
    asked = days(group, 0, 1)
    run(chain, group, asked, "full")
    assert chain.store.table("amounts_daily").scan().collect()["amount"].to_list() == [1.0]
    assert statuses(run(chain, group, asked)) == ["promoted"]
    assert chain.store.table("amounts_daily").scan().collect()["amount"].to_list() == [6.0]
    assert statuses(run(chain, group, asked)) == ["current"]


SALES: Source = sales


def test_rows_written_and_not_recorded_are_computed_again(chain: Shops) -> None:
    """As after a run that was killed between its promotion and the ledger, or a rollback."""
    chain.land(sales, [sale(1, T0 + HOUR)])
    asked = days(shop_sales_daily, 0, 3)
    run(chain, shop_sales_daily, asked, "full")
    table = chain.store.table("shop_sales_daily")
    table.overwrite_windows(
        table.scan().collect().drop("created_at").clear(),
        asked[:1],
        seen_version=table.version(),
        transaction="killed",
        metadata={"run_id": "killed"},
    )
    assert to_compute(chain, shop_sales_daily, asked) == {0: "its rows were written since it was recorded"}
    assert statuses(run(chain, shop_sales_daily, asked)) == ["promoted", "current", "current"]
    assert to_compute(chain, shop_sales_daily, asked) == {}


def test_windows_not_due_or_blocked_say_so_and_are_not_called_current(chain: Shops) -> None:
    asked = days(shop_density_daily, 0, 2)
    chain.clock.now = T0 + DAY + 3 * HOUR
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 1), "full")
    run(chain, shop_density_daily, asked, "full")
    assert statuses(run(chain, shop_density_daily, asked)) == ["current", "not_due"]
    chain.land(sales, [sale(1, T0 + HOUR, 5000.0)])
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 1))
    assert statuses(run(chain, shop_density_daily, asked)) == ["blocked", "not_due"]


def test_a_source_with_another_table_than_was_read_makes_windows_stale(chain: Shops) -> None:
    chain.land(sales, [sale(1, T0 + HOUR)])
    chain.land(sales, [sale(2, T0 + 30 * DAY)])
    asked = days(shop_sales_daily, 0, 1)
    run(chain, shop_sales_daily, asked, "full")
    folder = chain.store.source(sales).location.path
    folder.rename(chain.root / "gone")
    chain.land(sales, [sale(3, T0 + 30 * DAY)])
    assert list(to_compute(chain, shop_sales_daily, asked)) == [0]


def test_a_year_of_windows_is_looked_through_in_few_reads_of_rows(chain: Shops) -> None:
    """A backfill of long ago, then a source that grew by its own: nothing is computed again."""
    first = datetime(2026, 3, 1, tzinfo=T0.tzinfo)
    chain.clock.now = first + 400 * DAY
    chain.land(sales, [sale(1, first + HOUR)])
    asked = days(shop_sales_daily, 0, 365)
    run(chain, shop_sales_daily, asked, "full")
    for day in range(365, 380):
        chain.land(sales, [sale(day, first + day * DAY)])
    assert to_compute(chain, shop_sales_daily, asked) == {}
    chain.land(sales, [sale(1, first + timedelta(days=100))])
    assert list(to_compute(chain, shop_sales_daily, asked)) == [100, 101]
