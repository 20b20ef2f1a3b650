"""The strategies of backfills: what a replay gives a year later, and what snapshots and proxies give against plain readings."""

import itertools
import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from featurestore.backfill.admission import AskedBackfill, assess
from featurestore.backfill.strategies.proxy import fit_line
from featurestore.backfill.trials import trial
from featurestore.declaration import (
    Backfill,
    Catalog,
    Daily,
    Entity,
    Feature,
    FeatureGroup,
    Hourly,
    Proxy,
    Snapshots,
    Source,
    Static,
    TimeWindow,
    feature_group,
)
from featurestore.errors import DeclarationError, InvalidInput, PromotionRefused, UnknownName
from featurestore.launch import Launch, Strategy
from featurestore.loading import materialize_load
from featurestore.metadata.book import BackfillBook
from featurestore.promotion import Progress, Promotion, materialize_windows
from tests.catalogs import (
    DAY,
    HOUR,
    MINUTE,
    OWNER,
    START,
    T0,
    TIME,
    Clock,
    Shops,
    days,
    hours,
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

LATER = T0 + 100 * DAY
NUMBERS = itertools.count()


def run(chain: Shops, group: FeatureGroup, asked: Sequence[TimeWindow], strategy: Strategy = "full") -> Promotion:
    """A backfill of its own."""
    launch = Launch(f"b{next(NUMBERS)}", strategy)
    return materialize_windows(chain.store, chain.catalog, group, asked, run_id="run", launch=launch)


def statuses(promotion: Promotion) -> list[str]:
    return [outcome.status for outcome in promotion.outcomes]


def stored(chain: Shops, group: FeatureGroup) -> pl.DataFrame:
    return chain.store.table(group.stored_name).scan().collect().sort("window_start", *group.keys)


# Full recompute: the replay gives what production gave.

LIVE_SALES = Source(
    name="sales", schema=sales.schema, keys=sales.keys, event_time="event_time", known_at="known_at", live_from=T0
)
LIVE_REGISTER = Source(name="register", schema=register.schema, keys=register.keys, live_from=T0)
REPLAYED = (shop_sales_daily, shop_last_sale_hourly, shop_profile, shop_density_daily)


def schedule(chain: Shops, hours_long: int) -> None:
    """Days of production: sales land as they happen, some late, some corrected; whatever is due is run."""
    chance = random.Random(5)
    for hour in range(0, hours_long + 1, 12):
        chain.clock.now = T0 + hour * HOUR
        rows = [
            sale(chance.randint(0, 30), chain.clock.now - chance.choice([0, 1, 3, 20]) * HOUR, float(number), shop=name)
            for number, name in enumerate("abab")
        ]
        chain.land(LIVE_SALES, rows)
        if hour % 24 == 0:
            chain.land(LIVE_REGISTER, [{"shop": name, "area": hour + 1, "town": f"x{hour}"} for name in "ab"])
            materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")
        run_due(chain)


def run_due(chain: Shops) -> None:
    for group in chain.catalog.ordered_groups:
        if not isinstance(group.cadence, Static):
            done = chain.store.ledger(group.stored_name).promoted()
            due = [w for w in windows(group, T0, chain.clock.now) if w.start not in done]
            materialize_windows(chain.store, chain.catalog, group, due, run_id=f"{chain.clock.now:%d%H}")


def test_a_backfill_a_year_later_gives_row_for_row_what_the_schedule_gave(tmp_path: Path) -> None:
    chain = Shops(tmp_path / "store", Clock(T0), Catalog([LIVE_SALES, LIVE_REGISTER], REPLAYED))
    schedule(chain, 84)
    groups = [group for group in chain.catalog.ordered_groups if group is not shop_profile]
    wanted = {group.name: chain.store.table(group.name).content_hash() for group in groups}
    other = Shops(tmp_path / "other", Clock(chain.clock.now + 365 * DAY), chain.catalog)
    for kept in ("raw", "feature_group=shop_profile"):
        shutil.copytree(chain.root / kept, other.root / kept)
    for group in groups:
        promoted = chain.store.ledger(group.name).promoted()
        asked = [window for window in windows(group, T0, chain.clock.now) if window.start in promoted]
        assert len(asked) > 2
        assert set(statuses(run(other, group, asked))) == {"promoted"}
        assert other.store.table(group.name).content_hash() == wanted[group.name]
        known = stored(other, group).select(pl.col("knowledge_time").max()).item()
        assert known < chain.clock.now + HOUR, "as production would have had it, not as of the backfill"
    chain.clock.now += 365 * DAY
    for group in groups:
        asked = [w for w in windows(group, T0, T0 + 4 * DAY) if w.start in chain.store.ledger(group.name).promoted()]
        assert not any(outcome.changed for outcome in run(chain, group, asked).outcomes)


def test_a_full_recompute_names_its_strategy_and_class_in_outcome_and_ledger(tmp_path: Path) -> None:
    chain = Shops(tmp_path, Clock(LATER))
    chain.land(sales, [sale(1, T0)])
    [outcome] = run(chain, shop_sales_daily, days(shop_sales_daily, 0, 1)).outcomes
    assert (outcome.strategy, outcome.correctness, dict(outcome.notes)) == ("full", "perfect", {})
    [row] = chain.store.ledger("shop_sales_daily").latest().to_dicts()
    assert row["strategy"] == "full"
    assert row["backfill_id"].startswith("b")


def test_progress_is_told_after_each_window(tmp_path: Path) -> None:
    chain, told = Shops(tmp_path, Clock(LATER)), list[Progress]()
    chain.land(sales, [sale(1, T0 + 5 * MINUTE), sale(2, T0 + HOUR, shop="fire"), sale(3, T0 + 2 * HOUR)])
    asked = hours(shop_sales_hourly, 0, 3)
    materialize_windows(chain.store, chain.catalog, shop_sales_hourly, asked, run_id="r", on_progress=told.append)
    assert [(p.windows_done, p.windows_total, p.rows, p.input_rows) for p in told] == [
        (1, 3, 1, 1),
        (2, 3, 1, 1),
        (3, 3, 2, 2),
    ]
    assert 0 < told[0].seconds <= told[1].seconds <= told[2].seconds
    assert told[0].seconds_left == pytest.approx(2 * told[0].seconds)
    assert told[2].seconds_left == 0


def test_windows_that_are_skipped_are_no_part_of_the_progress(tmp_path: Path) -> None:
    chain, told = Shops(tmp_path, Clock(LATER)), list[Progress]()
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 2))
    asked, launch = days(shop_sales_daily, 0, 3), Launch("b", "incremental")
    materialize_windows(
        chain.store, chain.catalog, shop_sales_daily, asked, run_id="r", launch=launch, on_progress=told.append
    )
    assert [(p.windows_done, p.windows_total) for p in told] == [(1, 1)]


# Snapshots.

books = Source(
    name="books",
    schema={"shop": pl.String, "revenue": pl.Float64, "visitors": pl.Int32, "closed_at": TIME, "known_at": TIME},
    keys=("shop",),
    event_time="closed_at",
    known_at="known_at",
)
numbered_books = Source(
    name="books",
    schema={"book": pl.Int64, **books.schema},
    keys=("book",),
    event_time="closed_at",
    known_at="known_at",
)
RULES: dict[str, Any] = {
    "entity": shop,
    "features": [Feature("revenue", pl.Float64, "Revenue"), Feature("visitors", pl.Int64, "Visitors")],
    "cadence": Daily(start=START),
    "lookback": DAY,
    "delay": 2 * HOUR,
    "owner": OWNER,
}


def shop_books_daily(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """What the books of a shop say."""
    visitors = pl.len().cast(pl.Int64)
    return sales.sort("sale_id").group_by("shop").agg(revenue=pl.col("amount").sum(), visitors=visitors)


def booked(carry: timedelta = 3 * DAY, **other: Any) -> FeatureGroup:
    backfill = Backfill(snapshots=Snapshots("books", carry))
    return feature_group(**{**RULES, "backfill": backfill, **other})(shop_books_daily)


def book(at: datetime, revenue: float, name: str | None = "a", late: timedelta = HOUR, **other: Any) -> dict[str, Any]:
    return {"shop": name, "revenue": revenue, "visitors": 1, "closed_at": at, "known_at": at + late, **other}


def booking(tmp_path: Path, source: Source = books, group: FeatureGroup | None = None) -> Shops:
    return Shops(tmp_path, Clock(LATER, ticks=True), Catalog([sales, source], [group or booked()]))


def revenues(chain: Shops, group: FeatureGroup) -> list[tuple[int, str, float]]:
    rows = stored(chain, group)
    return [
        ((start - T0).days, name, value) for start, name, value in rows.select("window_start", "shop", "revenue").rows()
    ]


def test_the_newest_snapshot_known_by_the_cut_off_is_carried_forward(tmp_path: Path) -> None:
    chain, group = booking(tmp_path), booked()
    chain.land(
        books, [book(T0 + HOUR, 1.0), book(T0 + DAY, 2.0, late=2 * HOUR), book(T0 + DAY - HOUR, 9.0, late=4 * HOUR)]
    )
    promotion = run(chain, group, days(group, 0, 5), "snapshot")
    assert set(statuses(promotion)) == {"promoted"}
    assert revenues(chain, group) == [(0, "a", 2.0), (1, "a", 2.0), (2, "a", 2.0)], "later ones lie beyond the carry"


def test_rows_from_snapshots_are_stamped_as_the_transform_would_have(tmp_path: Path) -> None:
    chain, group = booking(tmp_path), booked()
    chain.land(books, [book(T0 + HOUR, 1.0)])
    [outcome] = run(chain, group, days(group, 0, 1), "snapshot").outcomes
    [row] = stored(chain, group).to_dicts()
    assert row["event_time"] == T0 + DAY
    assert row["knowledge_time"] == T0 + DAY + 2 * HOUR + 15 * MINUTE
    assert (row["revenue"], row["visitors"], row["is_deleted"], row["schema_number"]) == (1.0, 1, False, 1)
    assert (outcome.strategy, outcome.correctness, outcome.input_rows, outcome.history_rows) == (
        "snapshot",
        "moderate",
        1,
        1,
    )
    assert dict(outcome.notes) == {"snapshots": "books", "oldest_snapshot": str(T0 + HOUR)}
    [entry] = chain.store.ledger(group.name).latest().to_dicts()
    assert (entry["strategy"], json.loads(entry["source_versions"])) == ("snapshot", {"books": 1, "sales": None})


def test_a_corrected_snapshot_replaces_the_one_of_its_keys(tmp_path: Path) -> None:
    """Where snapshots have a number of their own, a correction may move the time at which one was taken."""
    chain, group = booking(tmp_path, numbered_books), booked()
    chain.land(numbered_books, [book(T0 + 5 * HOUR, 1.0, book=1), book(T0 + 2 * HOUR, 2.0, book=2)])
    chain.land(numbered_books, [book(T0 + HOUR, 3.0, book=1, late=20 * HOUR)])
    run(chain, group, days(group, 0, 1), "snapshot")
    assert revenues(chain, group) == [(0, "a", 2.0)]


def test_a_snapshot_without_its_entity_is_refused_and_counted(tmp_path: Path) -> None:
    chain, group = booking(tmp_path, numbered_books), booked()
    chain.land(numbered_books, [book(T0 + HOUR, 1.0, book=1), book(T0 + HOUR, 2.0, None, book=2)])
    [outcome] = run(chain, group, days(group, 0, 1), "snapshot").outcomes
    assert (outcome.verdict.rows, outcome.null_key_rows) == (1, 1)


taken = st.lists(
    st.tuples(st.integers(-30, 80), st.sampled_from([0, 1, 3, 30, 60]), st.sampled_from("ab"), st.integers(1, 9)),
    max_size=12,
)


@settings(max_examples=cases(100, 5), deadline=None, phases=[Phase.generate])
@given(taken, st.integers(1, 60))
def test_snapshots_give_what_a_plain_reading_gives(
    tmp_path_factory: pytest.TempPathFactory, landed: list[tuple[int, int, str, int]], carry_hours: int
) -> None:
    group = booked(carry_hours * HOUR)
    chain = booking(tmp_path_factory.mktemp("store"), books, group)
    rows = [book(T0 + at * HOUR, float(value), name, late * HOUR) for at, late, name, value in landed]
    for row in rows:
        chain.land(books, [row])
    asked = days(group, 0, 3)
    run(chain, group, asked, "snapshot")
    assert revenues(chain, group) == list(plain_snapshots(rows, group, asked, carry_hours * HOUR))


def plain_snapshots(
    rows: Sequence[Mapping[str, Any]], group: FeatureGroup, asked: Sequence[TimeWindow], carry: timedelta
) -> Iterator[tuple[int, str, float]]:
    for window in asked:
        for name in "ab":
            found = [
                (row["closed_at"], row["known_at"], number, row["revenue"])
                for number, row in enumerate(rows)
                if row["shop"] == name
                and row["known_at"] <= group.cut_off(window)
                and window.end - carry < row["closed_at"] <= window.end
            ]
            if found:
                yield (window.start - T0).days, name, max(found)[3]


def test_a_strategy_that_is_not_declared_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    chain = Shops(tmp_path, Clock(LATER))
    for strategy, what in (("snapshot", "Snapshots"), ("proxy", "Proxy")):
        with pytest.raises(InvalidInput, match=f"'{strategy}'.*Declare backfill=Backfill.*{what}"):
            run(chain, shop_sales_daily, days(shop_sales_daily, 0, 1), strategy)  # type: ignore[arg-type]
    assert chain.store.ledger("shop_sales_daily").version() is None


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"revenue": pl.Int64}, "column 'revenue' is int64.*float64 or int32 or float32"),
        ({"visitors": pl.Float64}, "column 'visitors' is float64.*int64 or int32"),
        ({"shop": pl.Int64}, "column 'shop' is int64.*dtype string"),
    ],
)
def test_snapshots_of_another_dtype_are_refused_when_declared(columns: Mapping[str, Any], reason: str) -> None:
    source = Source(
        name="books", schema={**books.schema, **columns}, keys=("shop",), event_time="closed_at", known_at="known_at"
    )
    with pytest.raises(DeclarationError, match=reason):
        Catalog([sales, source], [booked()])


def test_snapshots_that_lack_a_feature_a_time_or_their_source_are_refused_when_declared() -> None:
    schema = {name: dtype for name, dtype in books.schema.items() if name != "visitors"}
    lacking = Source(name="books", schema=schema, keys=("shop",), event_time="closed_at", known_at="known_at")
    with pytest.raises(DeclarationError, match="'visitors' is missing"):
        Catalog([sales, lacking], [booked()])
    timeless = Source(name="books", schema=books.schema, keys=("shop",))
    with pytest.raises(DeclarationError, match="no event_time"):
        Catalog([sales, timeless], [booked()])
    with pytest.raises(UnknownName, match="'books'"):
        Catalog([sales], [booked()])


def test_event_groups_have_no_stand_ins() -> None:
    def shop_books_daily(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
        """Events."""
        return sales.select("shop", "event_time", revenue="amount", visitors="number")

    rules = {**RULES, "emits": "events", "backfill": Backfill(snapshots=Snapshots("books", DAY))}
    with pytest.raises(DeclarationError, match="is events and declares snapshots or proxies"):
        Catalog([sales, books], [feature_group(**rules)(shop_books_daily)])


# Proxies.

counters = Source(
    name="counters",
    schema={"shop": pl.String, "people": pl.Int64, "event_time": TIME},
    keys=("shop", "event_time"),
    event_time="event_time",
    typical_delay=timedelta(0),
)
SHOPS = [f"shop{number:02}" for number in range(30)]


@feature_group(
    entity=shop,
    features=[Feature("people", pl.Int64, "People counted"), Feature("sign", pl.String, "Sign at the door")],
    cadence=Daily(start=START),
    lookback=DAY,
    publish=timedelta(0),
    max_age=36 * HOUR,
    owner=OWNER,
)
def shop_people_daily(window: TimeWindow, counters: pl.LazyFrame) -> pl.LazyFrame:
    """People counted at the door of a shop."""
    return counters.group_by("shop").agg(pl.col("people").sum(), sign=pl.lit("open"))


def proxied(min_correlation: float = 0.8, **other: Any) -> FeatureGroup:
    backfill = Backfill(proxies={"revenue": Proxy("shop_people_daily:people", min_correlation)})
    return feature_group(**{**RULES, "backfill": backfill, **other})(shop_books_daily)


def counting(tmp_path: Path, group: FeatureGroup, *, noise: float = 1.0, sold: int = 8, slope: float = 2.0) -> Shops:
    """Twelve days of counters; sales of the last `sold` days only, about `slope` a person, and ten at the least."""
    chain = Shops(tmp_path, Clock(LATER, ticks=True), Catalog([sales, counters], [group, shop_people_daily]))
    chance = random.Random(3)
    people, sold_rows = [], []
    for day in range(12):
        for place, name in enumerate(SHOPS):
            count, at = chance.randint(0, 100), T0 + day * DAY + HOUR
            people.append({"shop": name, "people": count, "event_time": at})
            amount = 300 + slope * count + chance.gauss(0, noise)
            if day >= 12 - sold:
                sold_rows.append(sale(f"s{day}-{place}", at, amount, shop=name))
    chain.land(counters, people)
    chain.land(sales, sold_rows)
    run(chain, shop_people_daily, days(shop_people_daily, 0, 12))
    run(chain, group, days(group, 12 - sold, 12))
    return chain


def test_a_proxy_fills_windows_by_the_line_of_the_overlap(tmp_path: Path) -> None:
    group = proxied()
    chain = counting(tmp_path, group)
    asked = days(group, 0, 4)
    promotion = run(chain, group, asked, "proxy")
    assert set(statuses(promotion)) == {"promoted"}
    rows = stored(chain, group)
    people = stored(chain, shop_people_daily).select("shop", "window_start", "people")
    overlap = rows.filter(pl.col("window_start") >= T0 + 4 * DAY).join(people, on=["shop", "window_start"])
    slope, intercept = np.polyfit(overlap["people"].to_numpy(), overlap["revenue"].to_numpy(), 1)
    correlation = np.corrcoef(overlap["people"].to_numpy(), overlap["revenue"].to_numpy())[0, 1]
    notes = promotion.outcomes[0].notes
    assert notes["revenue_proxy"] == "shop_people_daily:people"
    assert notes["revenue_pairs"] == overlap.height == 240
    assert [notes[f"revenue_{name}"] for name in ("slope", "intercept", "correlation")] == pytest.approx(
        [slope, intercept, correlation], rel=1e-9
    )
    filled = rows.filter(pl.col("window_start") < T0 + 4 * DAY).join(people, on=["shop", "window_start"])
    assert filled.height == 4 * len(SHOPS)
    assert filled["revenue"].to_numpy() == pytest.approx(slope * filled["people"].to_numpy() + intercept)
    assert filled["visitors"].null_count() == filled.height, "a feature without a proxy is null"
    assert (promotion.outcomes[0].strategy, promotion.outcomes[0].correctness) == ("proxy", "low")
    first = rows.row(0, named=True)
    assert (first["event_time"], first["knowledge_time"]) == (T0 + DAY, T0 + DAY + 2 * HOUR + 15 * MINUTE)


def test_a_proxy_launched_again_gives_the_same_and_leaves_better_windows_alone(tmp_path: Path) -> None:
    group = proxied()
    chain = counting(tmp_path, group)
    before = chain.store.table(group.name).content_hash(windows=days(group, 4, 12))
    first = run(chain, group, days(group, 0, 12), "proxy")
    assert statuses(first) == ["promoted"] * 4 + ["current"] * 8
    assert first.outcomes[4].reason == "promoted with class 'perfect', above the 'low' of strategy 'proxy'"
    version, notes = first.table_version, dict(first.outcomes[0].notes)
    again = run(chain, group, days(group, 0, 4), "proxy")
    assert (statuses(again), again.table_version, dict(again.outcomes[0].notes)) == (["promoted"] * 4, version, notes)
    assert chain.store.table(group.name).content_hash(windows=days(group, 4, 12)) == before


def test_stand_ins_fill_windows_that_were_promoted_without_rows(tmp_path: Path) -> None:
    """As where a full backfill reached back beyond the events that are kept."""
    group = proxied()
    chain = counting(tmp_path, group)
    assert statuses(run(chain, group, days(group, 0, 4))) == ["promoted"] * 4
    assert statuses(run(chain, group, days(group, 0, 4), "proxy")) == ["promoted"] * 4
    assert stored(chain, group)["window_start"].min() == T0


def test_an_incremental_backfill_keeps_what_a_stand_in_filled_until_events_come(tmp_path: Path) -> None:
    group = proxied()
    chain = counting(tmp_path, group)
    asked = days(group, 0, 4)
    run(chain, group, asked, "proxy")
    assert statuses(run(chain, group, asked, "incremental")) == ["current"] * 4
    chain.land(sales, [sale("found", T0 + DAY + HOUR, 5.0, shop="shop00")])
    assert statuses(run(chain, group, asked, "incremental")) == ["current", "promoted", "current", "current"]
    classes = chain.store.ledger(group.name).in_production()["strategy"].to_list()
    assert classes[:4] == ["proxy", "incremental", "proxy", "proxy"]


def test_rows_that_no_ledger_tells_of_are_no_part_of_the_overlap(tmp_path: Path) -> None:
    """A run killed after its promotion: its rows may be a stand-in's, where the ledger still says 'perfect'."""
    group = proxied()
    chain = counting(tmp_path, group)
    run(chain, group, days(group, 0, 4))
    table = chain.store.table(group.name)
    invented = table.scan(windows=days(group, 4, 8)).collect().drop("created_at")
    shift = [pl.col(name) - 4 * DAY for name in ("event_time", "knowledge_time", "window_start")]
    table.overwrite_windows(
        invented.with_columns(*shift, revenue=pl.lit(7.0)),
        days(group, 0, 4),
        seen_version=table.version(),
        transaction="killed",
        metadata={"run_id": "killed"},
    )
    promotion = run(chain, group, days(group, 0, 4), "proxy")
    assert promotion.outcomes[0].notes["revenue_pairs"] == 240


def test_a_proxy_that_does_not_follow_is_refused_with_the_figure(tmp_path: Path) -> None:
    group = proxied(0.9)
    chain = counting(tmp_path, group, noise=300.0)
    version = chain.store.ledger(group.name).version()
    with pytest.raises(PromotionRefused, match=r"is 0\.\d{4}, on 240 pairs .* its bound is 0\.9"):
        run(chain, group, days(group, 0, 4), "proxy")
    assert chain.store.ledger(group.name).version() == version


@pytest.mark.parametrize(
    ("made", "why"),
    [({"noise": 400.0}, "its bound is 0.8"), ({"sold": 6}, "a line is fitted on 200 or more"), ({}, "")],
)
def test_a_proxy_is_measured_before_anything_is_queued(tmp_path: Path, made: dict[str, Any], why: str) -> None:
    group = proxied()
    chain = counting(tmp_path, group, **made)
    before = chain.store.table(group.name).version(), chain.store.ledger(group.name).version()
    asked, launch = days(group, 0, 4), Launch(strategy="proxy")
    tried = trial(chain.store, chain.catalog, group, asked, launch)
    assert (tried.passed, tried.window) == (not why, asked[-1])
    assert why in tried.reason
    if not why:
        assert tried.rows == len(SHOPS)
        assert tried.note.startswith("'revenue' follows shop_people_daily:people with correlation 0.9")
        assert tried.note.endswith("on 240 pairs.")
        better = trial(chain.store, chain.catalog, group, days(group, 4, 6), launch)
        assert (better.passed, better.window) == (True, None)
    request = assess(
        chain.store,
        chain.catalog,
        BackfillBook.open(f"sqlite:///{tmp_path / 'book.db'}"),
        AskedBackfill(replace(launch, backfill_id="b"), "anna", {group.name: asked[:1]}),
    )
    assert (request.state == "refused", why in request.reason) == (bool(why), True)
    assert before == (chain.store.table(group.name).version(), chain.store.ledger(group.name).version())


def test_a_proxy_that_never_varies_is_refused(tmp_path: Path) -> None:
    group = proxied(0.9)
    with pytest.raises(PromotionRefused, match="not defined"):
        run(counting(tmp_path, group, noise=0.0, slope=0.0), group, days(group, 0, 4), "proxy")


def test_a_proxy_on_too_few_pairs_is_refused(tmp_path: Path) -> None:
    group = proxied()
    with pytest.raises(PromotionRefused, match=r"on 180 pairs .* 200 or more"):
        run(counting(tmp_path, group, sold=6), group, days(group, 0, 4), "proxy")


def test_a_falling_line_counts_by_its_absolute_correlation(tmp_path: Path) -> None:
    group = proxied(0.99)
    promotion = run(counting(tmp_path, group, slope=-2.0), group, days(group, 0, 1), "proxy")
    assert promotion.outcomes[0].notes["revenue_correlation"] == pytest.approx(-1, abs=0.01)


def test_a_proxy_value_is_read_as_of_the_cut_off_and_not_beyond_its_max_age(tmp_path: Path) -> None:
    """The counters of day 11 are the last: known at the end of that day, and too old 36 hours later."""
    group = proxied()
    chain = counting(tmp_path, group)
    run(chain, group, days(group, 12, 14), "proxy")
    rows = stored(chain, group)
    people = stored(chain, shop_people_daily).filter(pl.col("window_start") == T0 + 11 * DAY).sort("shop")
    carried = rows.filter(pl.col("window_start") == T0 + 12 * DAY).sort("shop")
    assert carried["shop"].to_list() == people["shop"].to_list()
    assert np.corrcoef(carried["revenue"].to_numpy(), people["people"].to_numpy())[0, 1] == pytest.approx(1)
    assert rows.filter(pl.col("window_start") == T0 + 13 * DAY).is_empty()


def test_the_rows_of_one_window_are_the_same_whichever_windows_are_launched_with_it(tmp_path: Path) -> None:
    group = proxied()
    one, all_of_them = (counting(tmp_path / name, group) for name in ("one", "all"))
    for day in (3, 0, 2, 1):
        run(one, group, days(group, day, day + 1), "proxy")
    run(all_of_them, group, days(group, 0, 4), "proxy")
    assert plain_rows(stored(one, group).drop("created_at")) == plain_rows(
        stored(all_of_them, group).drop("created_at")
    )


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("shop_people_daily:sign", "is string. A line maps numbers"),
        ("shop_books_daily:visitors", "of its own group"),
        ("aisle_people_daily:people", "Name a feature of the same entity"),
    ],
)
def test_a_proxy_that_cannot_stand_in_is_refused_when_declared(reference: str, reason: str) -> None:
    aisle_people_daily = feature_group(
        entity=Entity("aisle", keys={"shop": pl.String, "number": pl.Int64}),
        features=[Feature("people", pl.Int64, "People")],
        cadence=Hourly(start=START),
        lookback=HOUR,
        owner=OWNER,
    )(aisle_people)
    group = proxied(backfill=Backfill(proxies={"revenue": Proxy(reference)}))
    with pytest.raises(DeclarationError, match=reason):
        Catalog([sales, counters], [group, shop_people_daily, aisle_people_daily])


def aisle_people(window: TimeWindow, counters: pl.LazyFrame) -> pl.LazyFrame:
    """People in an aisle."""
    return counters.select("shop", "people", number=pl.lit(1, dtype=pl.Int64))


aisle_people.__name__ = "aisle_people_daily"


@pytest.mark.parametrize("reference", ["shop_people_daily:persons", "shop_persons_daily:people"])
def test_a_proxy_that_is_not_there_is_refused_when_declared(reference: str) -> None:
    with pytest.raises(UnknownName, match="Did you mean"):
        Catalog(
            [sales, counters], [proxied(backfill=Backfill(proxies={"revenue": Proxy(reference)})), shop_people_daily]
        )


numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@settings(max_examples=cases(2000, 100), deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=40), st.randoms())
def test_a_line_is_the_least_squares_one_whatever_the_order_of_its_pairs(
    pairs: list[tuple[float, float]], chance: random.Random
) -> None:
    x, y = [a for a, _ in pairs], [b for _, b in pairs]
    line = fit_line(x, y)
    if line is None:
        assert np.ptp(x) == 0 or np.ptp(y) == 0
        return
    shuffled = chance.sample(pairs, len(pairs))
    assert fit_line([a for a, _ in shuffled], [b for _, b in shuffled]) == line
    assert abs(line.correlation) <= 1 + 1e-9
    errors = np.array(y) - line.slope * np.array(x) - line.intercept
    scale = float(np.abs(y).max() + abs(line.slope) * np.abs(x).max()) * len(pairs)
    assert abs(errors.sum()) <= 1e-9 * scale
    assert abs((errors * (np.array(x) - np.mean(x))).sum()) <= 1e-9 * scale * (float(np.abs(x).max()) + 1)
