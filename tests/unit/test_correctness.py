"""Classes of correctness: kept for every window, shown, demanded by training sets, regained by a full recompute."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from featurestore.cli.main import main
from featurestore.correctness import check_class, window_counts
from featurestore.declaration import (
    Backfill,
    Catalog,
    Daily,
    Feature,
    FeatureGroup,
    FeatureService,
    Snapshots,
    Source,
    TimeWindow,
    feature_group,
)
from featurestore.errors import InvalidInput
from featurestore.launch import CORRECTNESS, CORRECTNESS_OF, STRATEGIES, Launch, Strategy
from featurestore.loading import materialize_load
from featurestore.location import Location
from featurestore.offline.ledger import LedgerEntry
from featurestore.promotion import Promotion, materialize_windows
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from featurestore.training import TrainingSet, build_training_set
from tests.catalogs import (
    DAY,
    HOUR,
    OWNER,
    START,
    T0,
    TIME,
    Clock,
    Shops,
    days,
    register,
    sale,
    sales,
    shop,
    shop_profile,
    shop_sales_daily,
)

LATER = T0 + 30 * DAY
BY_CUT_OFF = 3 * HOUR
FEATURES = ["shop_till_daily:taken"]

tills = Source(
    name="tills",
    schema={"shop": pl.String, "taken": pl.Float64, "at": TIME},
    keys=("shop",),
    event_time="at",
    typical_delay=HOUR,
)


def shop_till_daily(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """What a shop took in a day."""
    return sales.sort("sale_id").group_by("shop").agg(taken=pl.col("amount").sum())


tilled = feature_group(
    entity=shop,
    features=[Feature("taken", pl.Float64, "Sum of the day", ge=0)],
    cadence=Daily(start=START),
    lookback=DAY,
    owner=OWNER,
    backfill=Backfill(snapshots=Snapshots("tills", 40 * DAY)),
)(shop_till_daily)
till_model_v1 = FeatureService(
    "till_model_v1", features=[tilled, shop_sales_daily["revenue"], shop_profile], owner=OWNER
)


@pytest.fixture
def chain(tmp_path: Path) -> Shops:
    """Five days of sales, one till at the start, a register."""
    catalog = Catalog([sales, tills, register], [tilled, shop_sales_daily, shop_profile], [till_model_v1])
    chain = Shops(tmp_path, Clock(LATER, ticks=True), catalog)
    chain.land(sales, [sale(day, T0 + day * DAY + HOUR) for day in range(5)])
    chain.land(tills, [{"shop": "a", "taken": 7.0, "at": T0}])
    chain.land(register, [{"shop": "a", "area": 1, "town": "x"}])
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")
    RegistryHistory(Location(str(tmp_path))).apply(catalog, chain.clock, "tests")
    return chain


def run(chain: Shops, first: int, last: int, strategy: Strategy, group: FeatureGroup = tilled) -> Promotion:
    launch = Launch(f"b-{strategy}", strategy)
    return materialize_windows(
        chain.store, chain.catalog, group, days(group, first, last), run_id=strategy, launch=launch
    )


def sdk(chain: Shops) -> FeatureStore:
    root = Location(str(chain.root))
    return FeatureStore(Settings(root, root.child("landing")), clock=chain.clock)


def labels(*numbers: int) -> pl.DataFrame:
    """A label of shop 'a' for each day's value, three hours after the day's end."""
    times = [T0 + (day + 1) * DAY + BY_CUT_OFF for day in numbers]
    return pl.DataFrame(
        {"shop": ["a"] * len(times), "label_time": times}, schema={"shop": pl.String, "label_time": TIME}
    )


def taken(chain: Shops, spine: pl.DataFrame, min_correctness: str | None = None, **other: Any) -> list[float | None]:
    found = sdk(chain).get_historical_features(spine, FEATURES, min_correctness=min_correctness, **other)
    values: list[float | None] = found.to_polars()["taken"].to_list()
    return values


def classes(chain: Shops) -> dict[Any, int]:
    return dict(window_counts(chain.store.ledger(tilled.name)))


def test_each_window_has_the_class_of_the_strategy_that_wrote_it(chain: Shops) -> None:
    run(chain, 0, 2, "snapshot")
    run(chain, 2, 4, "full")
    run(chain, 4, 5, "incremental")
    assert classes(chain) == {"perfect": 2, "high": 1, "moderate": 2}


def test_an_incremental_run_keeps_the_class_of_windows_that_it_leaves(chain: Shops) -> None:
    run(chain, 0, 3, "full")
    run(chain, 3, 4, "snapshot")
    assert [outcome.status for outcome in run(chain, 0, 5, "incremental").outcomes] == ["current"] * 4 + ["promoted"]
    assert classes(chain) == {"perfect": 3, "high": 1, "moderate": 1}


def test_a_window_recomputed_in_full_regains_its_class(chain: Shops) -> None:
    run(chain, 0, 5, "snapshot")
    with pytest.raises(InvalidInput, match="'moderate'"):
        taken(chain, labels(1), "perfect")
    run(chain, 0, 5, "full")
    assert classes(chain) == {"perfect": 5}
    assert taken(chain, labels(1), "perfect") == [10.0]


def test_a_quarantined_recompute_leaves_rows_and_their_class(chain: Shops) -> None:
    run(chain, 0, 1, "snapshot")
    chain.land(sales, [sale(0, T0 + HOUR, -5.0)])
    assert run(chain, 0, 1, "full").outcomes[0].status == "quarantined"
    assert classes(chain) == {"moderate": 1}
    with pytest.raises(InvalidInput, match=r"2026-03-01 \(moderate\)"):
        taken(chain, labels(0), "perfect")


def test_a_demand_is_refused_with_group_windows_labels_and_remedy(chain: Shops) -> None:
    run(chain, 0, 2, "snapshot")
    run(chain, 2, 5, "full")
    with pytest.raises(InvalidInput) as refusal:
        taken(chain, labels(0, 0, 1, 2, 3), "high")
    assert str(refusal.value) == (
        "Values of class 'high' or better are demanded, and labels would take others. Group 'shop_till_daily': 3 of 5 labels, "
        "from 2 windows: 2026-03-01 (moderate), 2026-03-02 (moderate). Compute these windows anew with strategy 'full' "
        "(featurestore backfill launch GROUP --from ... --to ... --strategy full), or demand no more than 'moderate'."
    )
    assert taken(chain, labels(0, 0, 1, 2, 3), "moderate") == taken(chain, labels(0, 0, 1, 2, 3))
    assert taken(chain, labels(2, 3), "perfect") == [10.0, 10.0], "only windows that a label takes its value from count"


def test_labels_that_find_nothing_are_no_obstacle(chain: Shops) -> None:
    run(chain, 0, 2, "snapshot")
    nobody = labels(0).with_columns(shop=pl.lit("nobody"))
    early = pl.DataFrame({"shop": ["a"], "label_time": [T0]}, schema=labels(0).schema)
    assert taken(chain, pl.concat([nobody, early]), "perfect") == [None, None]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_class_is_satisfied_by_itself_and_the_better_ones(chain: Shops, strategy: Strategy) -> None:
    run(chain, 0, 1, "full")
    ledger = chain.store.ledger(tilled.name)
    [entry] = ledger.latest().to_dicts()
    ledger.append([LedgerEntry(**{**entry, "strategy": strategy})])
    found = CORRECTNESS_OF[strategy]
    for wanted in CORRECTNESS:
        if CORRECTNESS.index(wanted) <= CORRECTNESS.index(found):
            assert taken(chain, labels(0), wanted) == [10.0]
        else:
            with pytest.raises(InvalidInput, match=f"demand no more than '{found}'"):
                taken(chain, labels(0), wanted)


def test_an_unknown_class_is_refused(chain: Shops) -> None:
    with pytest.raises(InvalidInput, match="'best' is not known"):
        taken(chain, labels(0), "best")
    assert check_class("high") == "high"


def test_rows_promoted_and_never_recorded_count_as_low(chain: Shops) -> None:
    """A run killed between its promotion and the ledger, which still says 'perfect' of the window."""
    run(chain, 0, 2, "full")
    table = chain.store.table(tilled.name)
    rows = table.scan().collect().drop("created_at").with_columns(taken=pl.lit(1.0))
    first = days(tilled, 0, 1)
    table.overwrite_windows(
        rows.filter(pl.col("window_start") == T0),
        first,
        seen_version=table.version(),
        transaction="killed",
        metadata={"run_id": "killed"},
    )
    with pytest.raises(InvalidInput, match=r"1 window: 2026-03-01 \(low\)"):
        taken(chain, labels(0, 1), "moderate")
    run(chain, 0, 1, "full")
    assert taken(chain, labels(0, 1), "perfect") == [10.0, 10.0]


def test_a_clock_that_is_behind_does_not_unrecord_rows(chain: Shops) -> None:
    """Another machine wrote before, by a clock an hour ahead; its rows stay as they are."""
    run(chain, 0, 1, "full")
    chain.clock.now -= HOUR
    run(chain, 0, 1, "full")
    assert taken(chain, labels(0), "perfect") == [10.0]


def test_rows_of_a_pinned_version_are_of_the_class_that_they_had_in_it(chain: Shops) -> None:
    run(chain, 0, 1, "snapshot")
    pinned = {tilled.name: chain.store.table(tilled.name).version() or 0}
    run(chain, 0, 1, "full")
    assert taken(chain, labels(0), "perfect") == [10.0]
    with pytest.raises(InvalidInput, match="'moderate'"):
        taken(chain, labels(0), "perfect", versions=pinned)
    assert taken(chain, labels(0), "moderate", versions=pinned) == [7.0]


def test_rows_that_a_full_recompute_left_as_they_were_are_perfect_from_then_on(chain: Shops) -> None:
    chain.land(tills, [{"shop": "a", "taken": 10.0, "at": T0 + HOUR}])
    run(chain, 0, 1, "snapshot")
    assert not run(chain, 0, 1, "full").outcomes[0].changed
    pinned = {tilled.name: chain.store.table(tilled.name).version() or 0}
    assert taken(chain, labels(0), "perfect", versions=pinned) == [10.0]


def training(chain: Shops, spine: pl.DataFrame, min_correctness: str | None = None) -> TrainingSet:
    return build_training_set(chain.store, "till_model_v1", spine.lazy(), min_correctness=min_correctness)


def test_a_training_set_says_the_lowest_class_of_each_group(chain: Shops) -> None:
    run(chain, 0, 2, "snapshot")
    run(chain, 2, 5, "full")
    made = training(chain, labels(1, 2))
    assert made.lowest_correctness == {
        "shop_till_daily": "moderate",
        "shop_sales_daily": None,
        "shop_profile": "perfect",
    }
    manifest = Path(made.uri.removeprefix("file://")).with_suffix(".json")
    assert json.loads(manifest.read_text())["lowest_correctness"] == made.lowest_correctness
    assert training(chain, labels(2, 3)).lowest_correctness["shop_till_daily"] == "perfect"


def test_a_refused_training_set_stores_nothing_and_names_every_group(chain: Shops) -> None:
    run(chain, 0, 2, "snapshot")
    run(chain, 0, 2, "incremental", shop_sales_daily)
    with pytest.raises(InvalidInput, match=r"'shop_till_daily': 1 of 2 labels.*'shop_sales_daily': 1 of 2 labels"):
        training(chain, labels(0, -1), "perfect")
    assert not (chain.root / "training").exists()
    assert training(chain, labels(0), "moderate").rows == 1


# The command line.


def invoke(chain: Shops, *arguments: str) -> Any:
    return CliRunner().invoke(main, ["--root", str(chain.root), *arguments], obj=chain.clock)


def test_describe_counts_the_windows_of_each_class(chain: Shops) -> None:
    run(chain, 0, 2, "snapshot")
    run(chain, 2, 5, "full")
    document = json.loads(invoke(chain, "describe", tilled.name, "--json").stdout)
    assert document["windows"]["correctness"] == {"perfect": 3, "moderate": 2}
    assert "Correctness  3 perfect, 2 moderate" in invoke(chain, "describe", tilled.name).stdout
    assert "Correctness" not in invoke(chain, "describe", "shop_sales_daily").stdout


def get_historical(chain: Shops, folder: Path, spine: pl.DataFrame, *options: str) -> Any:
    spine.write_parquet(folder / "spine.parquet")
    places = ["--spine", str(folder / "spine.parquet"), "--out", str(folder / "out.parquet")]
    return invoke(chain, "get-historical", FEATURES[0], *places, *options)


def test_get_historical_takes_a_demand_and_writes_nothing_if_it_is_not_met(
    chain: Shops, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spines")
    run(chain, 0, 2, "snapshot")
    refused = get_historical(chain, folder, labels(0), "--min-correctness", "high")
    assert refused.exit_code == 1
    assert "demand no more than 'moderate'" in refused.output
    assert not (folder / "out.parquet").exists()
    assert get_historical(chain, folder, labels(0), "--min-correctness", "moderate").exit_code == 0
    assert pl.read_parquet(folder / "out.parquet")["taken"].to_list() == [7.0]
    assert get_historical(chain, folder, labels(0), "--min-correctness", "best").exit_code == 2
