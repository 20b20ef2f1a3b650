"""Statistics are kept with every promotion and made good where something was cut short; windows are held against what was chosen."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore.declaration import Catalog, Drift
from featurestore.errors import DeclarationError, InvalidInput, UnknownName
from featurestore.launch import Launch
from featurestore.loading import materialize_load
from featurestore.offline.ledger import LedgerEntry
from featurestore.promotion import Promotion, materialize_windows
from featurestore.quality.deployed import deploy_training_set, deployed_set, training_sets
from featurestore.quality.evaluation import lately
from featurestore.quality.frame import WindowStatistics, readable_rows, stored_rows
from featurestore.quality.recording import production_statistics, quality_frame
from featurestore.quality.statistics import window_statistics
from featurestore.quality.view import drift_markdown
from featurestore.training import build_training_set
from tests.catalogs import (
    DAY,
    GROUPS,
    HOUR,
    SOURCES,
    T0,
    Clock,
    Shops,
    days,
    register,
    sale,
    sales,
    shop_model_v1,
    shop_profile,
    shop_sales_daily,
)

SHOPS = 250
GROUP = "shop_sales_daily"


@pytest.fixture
def chain(tmp_path: Path) -> Shops:
    return Shops(tmp_path, Clock(T0 + 100 * DAY, ticks=True))


def sold(day: int, mean: float, shops: int = SHOPS) -> list[dict[str, Any]]:
    """One sale of every shop on a day; revenue is of two days."""
    amounts = np.random.default_rng(day + 1).normal(mean, 10.0, size=shops).clip(0.01)
    at = T0 + day * DAY + 12 * HOUR
    return [sale(f"d{day}s{n}", at, float(a), shop=f"shop{n}") for n, a in enumerate(amounts)]


def sell_all(chain: Shops, means: Sequence[float], shops: int = SHOPS) -> None:
    """Days from the first on, and one before, so that the first window holds two as well."""
    by_day = enumerate([means[0], *means], start=-1)
    chain.land(sales, [row for day, mean in by_day for row in sold(day, mean, shops)])


def run(chain: Shops, first: int, last: int, run_id: str = "run", launch: Launch | None = None) -> Promotion:
    group = next(group for group in chain.catalog.groups if group.stored_name == GROUP)
    extra = {} if launch is None else {"launch": launch}
    return materialize_windows(chain.store, chain.catalog, group, days(group, first, last), run_id=run_id, **extra)


def of_rows(chain: Shops) -> list[WindowStatistics]:
    """Statistics of every window by the rows that the table has, with nothing of the promotion."""
    group = chain.store.registry.group(GROUP)
    rows = chain.store.table(GROUP).scan().collect()
    return [
        WindowStatistics(start, tuple(window_statistics(group.features, part, start)), None, "", T0)
        for (start,), part in sorted(rows.group_by("window_start"), key=lambda item: item[0])
        if isinstance(start, datetime)
    ]


def content(windows: Iterable[WindowStatistics]) -> list[dict[str, Any]]:
    return stored_rows([replace(one, table_version=None, run_id="", recorded_at=T0) for one in windows]).to_dicts()


def kept(chain: Shops) -> list[WindowStatistics]:
    return chain.store.statistics(GROUP).windows()


def test_statistics_are_of_the_promoted_rows(chain: Shops) -> None:
    sell_all(chain, [50.0, 50.0, 50.0])
    promotion = run(chain, 0, 3)
    assert content(kept(chain)) == content(of_rows(chain))
    assert {(one.run_id, one.table_version) for one in kept(chain)} == {("run", promotion.table_version)}
    shown = readable_rows(kept(chain)).filter(pl.col("feature") == "revenue")
    assert shown["count"].to_list() == [SHOPS] * 3
    assert shown["mean"].to_list() == pytest.approx([100.0, 100.0, 100.0], abs=3)


def test_window_in_quarantine_has_none_and_a_window_without_rows_has_those_of_nothing(chain: Shops) -> None:
    chain.land(sales, [*sold(2, 800.0), *sold(3, 800.0)])
    promotion = run(chain, 0, 4)
    assert [outcome.status for outcome in promotion.outcomes] == ["promoted", "promoted", "promoted", "quarantined"]
    assert [one.window_start for one in kept(chain)] == [T0, T0 + DAY, T0 + 2 * DAY]
    assert [one.features[0].rows for one in kept(chain)] == [0, 0, SHOPS]


def test_repeated_run_leaves_the_same_statistics_and_corrected_rows_new_ones(chain: Shops) -> None:
    sell_all(chain, [50.0, 50.0])
    run(chain, 0, 2)
    first = content(kept(chain))
    run(chain, 0, 2, "again")
    assert content(kept(chain)) == first
    chain.land(sales, [sale("d1s0", T0 + DAY + 12 * HOUR, 400.0, shop="shop0")])
    run(chain, 0, 2, "corrected")
    assert content(kept(chain)) == content(of_rows(chain)) != first


def test_statistics_that_were_cut_short_are_made_good_by_the_next_reader(chain: Shops) -> None:
    sell_all(chain, [50.0, 50.0, 50.0])
    run(chain, 0, 3)
    before = content(kept(chain))
    shutil.rmtree(chain.root / "statistics")
    assert content(production_statistics(chain.store, GROUP)) == before
    assert kept(chain) == [], "a reader keeps nothing unless asked to"
    production_statistics(chain.store, GROUP, since=T0 + DAY, until=T0 + 2 * DAY, is_kept=True)
    assert [one.window_start for one in kept(chain)] == [T0 + DAY]
    production_statistics(chain.store, GROUP, is_kept=True)
    assert content(kept(chain)) == before
    files = chain.store.statistics(GROUP).location.names()
    production_statistics(chain.store, GROUP, is_kept=True)
    assert chain.store.statistics(GROUP).location.names() == files, "what is there is not written again"


def test_statistics_of_chosen_windows_are_those_of_all_without_the_others(chain: Shops) -> None:
    sell_all(chain, [50.0] * 4)
    run(chain, 0, 4)
    first, _, third, _ = production_statistics(chain.store, GROUP)
    chosen = {T0, T0 + 2 * DAY, T0 + 30 * DAY}
    assert content(production_statistics(chain.store, GROUP, starts=chosen)) == content([first, third])
    shutil.rmtree(chain.root / "statistics")
    assert content(production_statistics(chain.store, GROUP, starts=chosen)) == content([first, third])


def test_rows_that_came_by_another_way_than_a_run_get_their_own(chain: Shops) -> None:
    """As an override or a rollback does: the table, then the ledger."""
    sell_all(chain, [50.0, 50.0])
    run(chain, 0, 2)
    table, ledger = chain.store.table(GROUP), chain.store.ledger(GROUP)
    [window] = days(shop_sales_daily, 1, 2)
    rows = table.scan(windows=[window]).collect().drop("created_at").head(10)
    commit = table.overwrite_windows(rows, [window], seen_version=table.version(), transaction="by hand", metadata={})
    entry = LedgerEntry(**ledger.latest().row(1, named=True))
    by_hand = {"run_id": "by hand", "table_version": commit.table_version, "recorded_at": chain.clock()}
    ledger.append([replace(entry, **by_hand)])
    assert content(production_statistics(chain.store, GROUP)) == content(of_rows(chain))
    ledger.append([replace(entry, **{**by_hand, "status": "rolled_back"})])
    assert [one.window_start for one in production_statistics(chain.store, GROUP)] == [T0]


def test_statistics_can_be_read_as_of_a_version_of_the_table(chain: Shops) -> None:
    sell_all(chain, [50.0])
    version = run(chain, 0, 1).table_version
    before = content(kept(chain))
    chain.land(sales, [sale("d0s0", T0 + 12 * HOUR, 400.0, shop="shop0")])
    run(chain, 0, 1, "corrected")
    assert content(production_statistics(chain.store, GROUP, table_version=version)) == before != content(kept(chain))
    shutil.rmtree(chain.root / "statistics")
    assert content(production_statistics(chain.store, GROUP, table_version=version)) == before
    assert quality_frame(chain.store, GROUP, features=["revenue"])["feature"].to_list() == ["revenue"]


def test_load_of_a_static_group_has_statistics_once(chain: Shops) -> None:
    chain.land(register, [{"shop": f"s{n}", "area": n + 1, "town": "a"} for n in range(10)])
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="first")
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="unchanged")
    [found] = chain.store.statistics("shop_profile").windows()
    assert found.run_id == "first"
    assert [one.rows for one in found.features] == [10, 10]
    shutil.rmtree(chain.root / "statistics")
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="made good")
    assert [one.run_id for one in chain.store.statistics("shop_profile").windows()] == ["made good"]


# Against what was chosen.


def with_drift(chain: Shops, drift: Drift | None) -> None:
    features = tuple(replace(feature, drift=drift) for feature in shop_sales_daily.features)
    changed = replace(shop_sales_daily, features=features)
    groups = [changed if group is shop_sales_daily else group for group in GROUPS]
    chain.catalog = Catalog(SOURCES, groups, [replace(shop_model_v1, features=[changed])])


RELAXED = Drift(ks=None, psi=5.0)
"""Of the gate's own comparison nothing is left here but the widest of changes."""


def train(chain: Shops, first: int, last: int) -> str:
    """A training set of labels at noon of days, which take the values of the day before."""
    times = [T0 + day * DAY + 12 * HOUR for day in range(first, last)]
    spine = pl.LazyFrame({"shop": [f"shop{n}" for n in range(20)] * len(times)})
    made = build_training_set(
        chain.store,
        "shop_model_v1",
        spine.with_columns(label_time=pl.Series(sorted(times * 20), dtype=pl.Datetime("us", "UTC"))),
    )
    assert set(made.windows) == {GROUP}
    return made.uri.rpartition("/")[2].removesuffix(".parquet")


def drifting(chain: Shops, drift: Drift | None = None, creep: float = 0.42) -> None:
    """Fourteen calm days, then nine on which sales creep up; their deviation is 10."""
    with_drift(chain, drift or Drift())
    sell_all(chain, [50.0] * 14 + [50.0 + creep * day for day in range(1, 10)])


def test_slow_change_that_no_week_shows_is_caught_against_the_training_set(chain: Shops) -> None:
    drifting(chain)
    run(chain, 0, 14)
    train(chain, 3, 14)
    run(chain, 14, 23)
    found = lately(chain.store, GROUP).drift
    assert [window.window_start for window in found] == [T0 + day * DAY for day in range(9, 23)]
    statuses = [window.status for window in found]
    assert statuses[:5] == ["unjudged"] * 4 + ["pass"], (
        "the set is made of the first ones; its own windows are not compared"
    )
    assert statuses[-1] == "warn"
    newest = found[-1].beyond[0]
    assert newest.feature == "revenue"
    assert newest.reference.startswith("training set ")
    assert newest.windows == 11


def test_without_a_training_set_the_reference_is_last_week(chain: Shops) -> None:
    drifting(chain)
    run(chain, 0, 14)
    newest = lately(chain.store, GROUP).drift[-1]
    assert {(one.reference, one.windows) for one in newest.features} == {("last week", 7)}
    assert newest.status == "pass"


def test_same_weekday_looks_at_the_weeks_before(chain: Shops) -> None:
    drifting(chain, Drift(reference="same_weekday"))
    run(chain, 0, 23)
    newest = lately(chain.store, GROUP).drift[-1]
    assert {(one.reference, one.windows) for one in newest.features} == {("same weekday", 3)}


def test_blocking_policy_holds_the_window_and_says_against_what(chain: Shops) -> None:
    drifting(chain, replace(RELAXED, ks=0.6, policy="block"), creep=2.0)
    run(chain, 0, 14)
    train(chain, 3, 14)
    promotion = run(chain, 14, 23)
    statuses = [outcome.status for outcome in promotion.outcomes]
    assert statuses[:3] == ["promoted"] * 3
    assert statuses[-1] == "quarantined"
    assert "against training set" in promotion.outcomes[-1].reason
    assert T0 + 22 * DAY not in {one.window_start for one in kept(chain)}


def test_accepted_shift_is_promoted_with_a_warning(chain: Shops) -> None:
    drifting(chain, replace(RELAXED, ks=0.6, policy="block"), creep=2.0)
    run(chain, 0, 14)
    train(chain, 3, 14)
    launch = Launch(backfill_id="b1", accept_shift=True)
    outcome = run(chain, 14, 23, "accepted", launch).outcomes[-1]
    assert outcome.status == "promoted"
    assert any(warning.startswith("Drift accepted: ks of 'revenue'") for warning in outcome.verdict.warnings)


def test_deployed_set_is_the_one_named_else_the_last_built(chain: Shops) -> None:
    drifting(chain)
    run(chain, 0, 14)
    root = chain.store.root
    assert deployed_set(root, "shop_model_v1") is None
    first, second = train(chain, 3, 8), train(chain, 3, 14)
    assert sorted([first, second]) == training_sets(root, "shop_model_v1")
    newest = deployed_set(root, "shop_model_v1")
    assert newest is not None
    assert (newest.name, newest.is_chosen) == (second, False)
    deploy_training_set(root, "shop_model_v1", first, T0, "ada@shops.com")
    train(chain, 3, 12)
    chosen = deployed_set(root, "shop_model_v1")
    assert chosen is not None
    assert (chosen.name, chosen.is_chosen) == (first, True)
    with pytest.raises(UnknownName, match="has"):
        deploy_training_set(root, "shop_model_v1", "nothing", T0, "ada@shops.com")


def test_gone_manifest_stops_a_group_that_blocks_on_drift_until_another_set_is_named(chain: Shops) -> None:
    drifting(chain, replace(RELAXED, policy="block"))
    run(chain, 0, 14)
    other, newest = train(chain, 3, 8), train(chain, 3, 14)
    manifest = chain.root / "training" / "shop_model_v1" / f"{newest}.json"
    manifest.unlink()
    with pytest.raises(InvalidInput, match="promotes nothing") as refused:
        run(chain, 14, 15)
    told = str(refused.value)
    assert str(manifest) in told
    assert f"featurestore training shop_model_v1 --deploy SET. There are ['{other}']." in told
    deploy_training_set(chain.store.root, "shop_model_v1", other, T0, "ada@shops.com")
    assert [outcome.status for outcome in run(chain, 14, 15).outcomes] == ["promoted"]


def test_training_set_that_does_not_say_of_which_windows_it_is_cannot_be_compared_with(chain: Shops) -> None:
    drifting(chain)
    run(chain, 0, 14)
    name = train(chain, 3, 12)
    path = chain.root / "training" / "shop_model_v1" / f"{name}.json"
    manifest = json.loads(path.read_text())
    del manifest["windows"]
    path.write_text(json.dumps(manifest))
    newest = lately(chain.store, GROUP).drift[-1]
    assert newest.status == "unjudged"
    assert "build it anew" in newest.features[0].unjudged


def test_few_rows_are_not_compared_and_that_is_said(chain: Shops) -> None:
    with_drift(chain, Drift())
    sell_all(chain, [50.0] * 9, shops=199)
    run(chain, 0, 9)
    newest = lately(chain.store, GROUP).drift[-1]
    assert newest.status == "unjudged"
    assert {one.unjudged for one in newest.features} == {"199 rows"}


def test_markdown_shows_each_feature_and_pictures_of_what_drifted(chain: Shops) -> None:
    drifting(chain)
    run(chain, 0, 14)
    train(chain, 3, 14)
    run(chain, 14, 23)
    found = lately(chain.store, GROUP).drift
    text = drift_markdown(found, shown=found[-1])
    assert text.count("data:image/svg+xml;base64,") == 2
    assert "| `revenue` | training set" in text
    assert "| `sales_2d` |" in text


@pytest.mark.parametrize("wrong", [{"reference": "yesterday"}, {"policy": "ignore"}])
def test_unknown_reference_or_policy_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="It is one of"):
        Drift(**wrong)
