"""What a backfill is estimated to take, held to what it then takes: bytes, rows, seconds, storage."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from featurestore.backfill.estimates.estimate import Estimate, estimate_windows
from featurestore.backfill.estimates.reads import runs_of
from featurestore.cost import PriceBook
from featurestore.declaration import Catalog, Daily, Feature, FeatureGroup, Source, TimeWindow, feature_group
from featurestore.declaration.backfill import Backfill, Proxy, Snapshots
from featurestore.errors import InvalidInput
from featurestore.loading import materialize_load
from featurestore.location import Location
from featurestore.offline.raw import LandingFile
from featurestore.offline.store import OfflineStore
from featurestore.promotion import materialize_windows
from tests.catalogs import (
    DAY,
    GROUPS,
    HOUR,
    OWNER,
    SOURCES,
    START,
    T0,
    TIME,
    Clock,
    Shops,
    days,
    hours,
    parquet,
    register,
    sale,
    sales,
    shop,
    shop_density_daily,
    shop_last_sale_hourly,
    shop_profile,
    shop_sales_daily,
    shop_sales_hourly,
)

LATER = T0 + 120 * DAY
TOLERANCE = 0.02
"""How far bytes may be off: shares of columns are taken from the footers of eight files."""


@pytest.fixture
def chain(tmp_path: Path) -> Shops:
    return Shops(tmp_path, Clock(LATER, ticks=True))


def fill(chain: Shops, first: int, last: int, sales_a_day: int = 40, shops: int = 5) -> None:
    """Sales for each day of [first, last), a file for five days, days of different sizes; and the register."""
    for file in range(first, last, 5):
        chain.land(sales, [row for day in range(file, min(file + 5, last)) for row in day_of(day, sales_a_day, shops)])
    chain.land(register, [{"shop": f"shop {n}", "area": 10 + n, "town": f"town {n % 3}"} for n in range(shops)])


def day_of(day: int, sales_a_day: int, shops: int) -> list[dict[str, Any]]:
    count = sales_a_day * (1 + day % 7)
    return [
        sale(f"{day:03}-{n:05}", T0 + day * DAY + n * (DAY / count), (n % 90) / 50, shop=f"shop {n % shops}")
        for n in range(count)
    ]


def run(chain: Shops, group: FeatureGroup, asked: Sequence[TimeWindow], run_id: str = "run") -> None:
    for part in runs_of(asked):
        promotion = materialize_windows(chain.store, chain.catalog, group, part, run_id=run_id)
        assert [outcome.status for outcome in promotion.outcomes] == ["promoted"] * len(part)


def estimate(chain: Shops, group: FeatureGroup, asked: Sequence[TimeWindow], **other: Any) -> Estimate:
    return estimate_windows(chain.store, chain.catalog, group, asked, **other)


def value(found: Estimate, name: str) -> float:
    return found.figures[name].value


# Bytes: what is said to be scanned is what a run reads.


@dataclass(frozen=True, slots=True)
class Watched(OfflineStore):
    """A store that measures each read of an input before it answers it."""

    read: list[int] = field(default_factory=list)

    def source_rows(self, source: Source, after: datetime | None, until: datetime) -> pl.DataFrame:
        rows = OfflineStore.source_rows(self, source, after, until)
        self.read.append(chunk_bytes(self.source(source).location, rows.columns, after, until))
        return rows

    def group_rows(self, group: FeatureGroup, after: datetime | None, until: datetime) -> pl.DataFrame:
        rows = OfflineStore.group_rows(self, group, after, until)
        self.read.append(chunk_bytes(self.table(group.stored_name).location, rows.columns, after, until))
        return rows


def chunk_bytes(table: Location, columns: Sequence[str], after: datetime | None, until: datetime) -> int:
    """The compressed bytes of these columns in every row group that may hold a row of the range, from every file's footer."""
    total = 0
    for path in pl.DataFrame(DeltaTable(str(table.path)).get_add_actions(flatten=True))["path"]:
        footer = pq.read_metadata(table.path / path)
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            chunks = [group.column(n) for n in range(group.num_columns)]
            [known] = [c.statistics for c in chunks if c.path_in_schema == "knowledge_time"]
            if known.min <= until and (after is None or known.max >= after):
                total += sum(c.total_compressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
    return total


def bytes_read(chain: Shops, group: FeatureGroup, asked: Sequence[TimeWindow]) -> int:
    plain = chain.store
    watched = Watched(plain.root, plain.registry, plain.clock)
    for part in runs_of(asked):
        materialize_windows(watched, chain.catalog, group, part, run_id="watched")
    assert watched.read
    return sum(watched.read)


@pytest.mark.parametrize(
    ("group", "asked"),
    [
        (shop_sales_daily, days(shop_sales_daily, 3, 8)),
        (shop_sales_daily, days(shop_sales_daily, 0, 45)),
        (shop_sales_daily, [*days(shop_sales_daily, 2, 4), *days(shop_sales_daily, 20, 22)]),
        (shop_last_sale_hourly, hours(shop_last_sale_hourly, 100, 148)),
    ],
    ids=["a week", "more than a run", "with a gap", "driven by events"],
)
def test_bytes_are_those_that_a_run_reads_of_its_sources(
    chain: Shops, group: FeatureGroup, asked: list[TimeWindow]
) -> None:
    fill(chain, 0, 45)
    expected = value(estimate(chain, group, asked), "bytes_scanned")
    assert expected == pytest.approx(bytes_read(chain, group, asked), rel=TOLERANCE)
    assert expected > 0


def test_bytes_of_upstream_groups_are_those_that_a_run_reads(chain: Shops) -> None:
    fill(chain, 0, 40)
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 40))
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")
    asked = days(shop_density_daily, 10, 12)
    found = estimate(chain, shop_density_daily, asked)
    assert value(found, "bytes_scanned") == pytest.approx(bytes_read(chain, shop_density_daily, asked), rel=TOLERANCE)
    assert set(found.inputs) == {"shop_sales_daily", "shop_profile"}


def test_file_of_several_row_groups_counts_only_those_in_range(chain: Shops) -> None:
    count = 1_100_000
    whole = pl.DataFrame({"sale_id": pl.int_range(count, eager=True).cast(pl.String)}).with_columns(
        shop=pl.lit("a"),
        number=pl.lit(1, dtype=pl.Int64),
        amount=pl.lit(1.0),
        event_time=pl.lit(T0).cast(TIME) + pl.int_range(count) * timedelta(seconds=2),
    )
    rows = whole.with_columns(known_at="event_time").select(list(sales.schema))
    chain.store.source(sales).ingest([LandingFile("one.parquet", parquet(rows))])
    late = days(shop_sales_daily, 26, 27)
    expected = value(estimate(chain, shop_sales_daily, late), "bytes_scanned")
    whole_file = value(estimate(chain, shop_sales_daily, days(shop_sales_daily, 0, 27)), "bytes_scanned")
    read = Watched(chain.store.root, chain.store.registry, chain.clock)
    read.source_rows(sales, late[0].end - 2 * DAY, late[-1].end + 2 * HOUR)
    assert expected == pytest.approx(read.read[0], rel=TOLERANCE)
    assert expected < whole_file / 2


wide = Source(
    name="wide",
    schema={
        **{f"measure_{n:02}": pl.Float64 for n in range(40)},
        "shop": pl.String,
        "event_time": TIME,
    },
    keys=("shop", "event_time"),
    event_time="event_time",
    typical_delay=timedelta(0),
)


@feature_group(
    entity=shop,
    features=[Feature("measure", pl.Float64, "Mean")],
    cadence=Daily(start=START),
    lookback=DAY,
    owner=OWNER,
)
def shop_wide_daily(window: TimeWindow, wide: pl.LazyFrame) -> pl.LazyFrame:
    """Reads one column of many."""
    return wide.group_by("shop").agg(measure=pl.col("measure_03").mean())


def test_source_with_too_many_columns_for_statistics_of_time_is_pruned_by_its_months(tmp_path: Path) -> None:
    chain = Shops(tmp_path, Clock(LATER), Catalog([wide], [shop_wide_daily]))
    for month in (3, 4, 5):
        rows = [
            {**{f"measure_{n:02}": float(n + d) for n in range(40)}, "shop": "a", "event_time": at}
            for d in range(1, 28)
            for at in [datetime(2026, month, d, tzinfo=T0.tzinfo)]
        ]
        chain.land(wide, rows)
    april = days(shop_wide_daily, 40, 45)
    found = estimate(chain, shop_wide_daily, april)
    assert value(found, "bytes_scanned") == pytest.approx(bytes_read(chain, shop_wide_daily, april), rel=TOLERANCE)
    assert value(found, "bytes_used") < value(found, "bytes_scanned") / 3, (
        "of forty measures the transform asks for one"
    )


def test_no_row_is_read_for_an_estimate(chain: Shops) -> None:
    """With every byte of every column chunk destroyed it is the same; only the footers stay."""
    fill(chain, 0, 20)
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 10))
    asked = days(shop_sales_daily, 5, 20)
    whole = estimate(chain, shop_sales_daily, asked).as_dict()
    for file in [*chain.root.glob("raw/**/*.parquet"), *chain.root.glob("feature_group=*/**/*.parquet")]:
        data = file.read_bytes()
        footer = int.from_bytes(data[-8:-4], "little") + 8
        file.write_bytes(bytes(len(data) - footer) + data[-footer:])
    assert estimate(chain, shop_sales_daily, asked).as_dict() == whole
    with pytest.raises(pl.exceptions.PolarsError):
        chain.store.source(sales).scan().collect()


# Rows, seconds and storage, from the group's own past.


def test_rows_and_seconds_of_new_windows_are_those_of_past_ones(chain: Shops) -> None:
    fill(chain, 0, 30)
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 20))
    past = chain.store.ledger("shop_sales_daily").latest()
    asked = days(shop_sales_daily, 20, 30)
    found = estimate(chain, shop_sales_daily, asked)
    assert value(found, "compute_seconds") == pytest.approx(10 * median(past["compute_seconds"]))
    run(chain, shop_sales_daily, asked, "next")
    new = chain.store.ledger("shop_sales_daily").latest().filter(pl.col("run_id") == "next")
    assert value(found, "rows") == new["rows"].sum() == 50
    took = 10 * median(new["compute_seconds"])
    assert 0.02 < value(found, "compute_seconds") / took < 50, "the same work on the same machine, however busy it is"
    assert found.figures["rows"].rests_on == "20 past windows: 0 of these as they were, the other 10 at their mean"


def test_rows_of_windows_computed_before_are_their_own(chain: Shops) -> None:
    fill(chain, 0, 3, shops=2)
    fill(chain, 3, 6, shops=9)
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 6))
    rows = chain.store.ledger("shop_sales_daily").latest()["rows"].to_list()
    found = estimate(chain, shop_sales_daily, days(shop_sales_daily, 4, 6))
    assert value(found, "rows") == sum(rows[4:6]) == 18


def test_group_without_a_past_rests_on_stated_defaults(chain: Shops) -> None:
    fill(chain, 0, 30)
    for group, asked in (
        (shop_sales_daily, days(shop_sales_daily, 0, 30)),
        (shop_last_sale_hourly, hours(shop_last_sale_hourly, 0, 720)),
    ):
        found = estimate(chain, group, asked)
        for name in ("rows", "compute_seconds", "storage_bytes"):
            assert found.figures[name].rests_on.startswith("default: no ")
            assert value(found, name) > 0


def test_events_of_a_group_without_a_past_are_its_drivers_rows(chain: Shops) -> None:
    fill(chain, 0, 30)
    asked = hours(shop_last_sale_hourly, 24, 10 * 24)
    found = estimate(chain, shop_last_sale_hourly, asked)
    run(chain, shop_last_sale_hourly, asked)
    assert value(found, "rows") == pytest.approx(
        chain.store.ledger("shop_last_sale_hourly").latest()["rows"].sum(), rel=0.1
    )


def test_windows_that_failed_their_gate_are_no_past(chain: Shops) -> None:
    chain.land(sales, [sale(n, T0 + n * HOUR, 5000.0, shop="a") for n in range(1, 5)])
    promotion = materialize_windows(
        chain.store, chain.catalog, shop_sales_daily, days(shop_sales_daily, 0, 1), run_id="bad"
    )
    assert promotion.outcomes[0].status == "quarantined"
    found = estimate(chain, shop_sales_daily, days(shop_sales_daily, 0, 5))
    assert found.figures["rows"].rests_on.startswith("default: no windows yet")


def test_storage_grows_by_what_was_estimated(chain: Shops) -> None:
    fill(chain, 0, 62, shops=30)
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 31))
    asked = days(shop_sales_daily, 31, 62)
    found = estimate(chain, shop_sales_daily, asked)
    before = stored_bytes(chain, "shop_sales_daily")
    run(chain, shop_sales_daily, asked, "next")
    grown = stored_bytes(chain, "shop_sales_daily") - before
    assert value(found, "storage_bytes") == pytest.approx(grown, rel=0.25)
    assert value(found, "replaced_bytes") == 0


def test_rewritten_windows_add_files_while_the_old_ones_stay(chain: Shops) -> None:
    fill(chain, 0, 31, shops=30)
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 31))
    changed = replace(shop_sales_daily, transform=halved)
    chain.catalog = Catalog(SOURCES, [changed, *(g for g in GROUPS if g.name != "shop_sales_daily")])
    asked = days(changed, 10, 20)
    before = stored_bytes(chain, "shop_sales_daily")
    found = estimate(chain, changed, asked)
    run(chain, changed, asked, "mended")
    grown = stored_bytes(chain, "shop_sales_daily") - before
    assert value(found, "storage_bytes") == pytest.approx(grown, rel=0.25), (
        "the month's other windows are written anew too"
    )
    assert value(found, "replaced_bytes") == pytest.approx(before, rel=0.01)


def halved(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
    """Half the revenue of the transform of `shop_sales_daily`."""
    return shop_sales_daily.transform(window, sales).lazy().with_columns(pl.col("revenue") / 2)


def stored_bytes(chain: Shops, name: str) -> int:
    return sum(file.stat().st_size for file in (chain.root / f"feature_group={name}").rglob("*.parquet"))


# Online writes.


def test_only_windows_that_can_hold_a_latest_value_write_online(chain: Shops) -> None:
    fill(chain, 100, 120)
    newest = days(shop_sales_daily, 110, 119)
    assert value(estimate(chain, shop_sales_daily, days(shop_sales_daily, 0, 50)), "online_writes") == 0, "expired"
    run(chain, shop_sales_daily, days(shop_sales_daily, 110, 118))
    assert value(estimate(chain, shop_sales_daily, newest), "online_writes") == 5, "one for each of the five shops"
    run(chain, shop_sales_daily, newest[-1:], "newest")
    old = estimate(chain, shop_sales_daily, newest[:-1])
    assert value(old, "online_writes") == 0
    assert old.figures["online_writes"].rests_on == "a later window is promoted, whose values stay"


def test_group_that_is_not_online_writes_nothing_there(chain: Shops) -> None:
    fill(chain, 110, 120)
    found = estimate(chain, shop_sales_hourly, hours(shop_sales_hourly, 2800, 2870))
    assert found.figures["online_writes"].value == 0
    assert found.figures["online_writes"].rests_on == "the group is not served online"


def test_events_write_online_at_most_their_rows(chain: Shops) -> None:
    fill(chain, 118, 120)
    asked = hours(shop_last_sale_hourly, 119 * 24, 120 * 24)
    found = estimate(chain, shop_last_sale_hourly, asked)
    assert value(found, "online_writes") == pytest.approx(value(found, "rows"), abs=1)


# Strategies.


def test_incremental_backfill_counts_only_what_it_would_compute(chain: Shops) -> None:
    fill(chain, 0, 10)
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 6))
    asked = days(shop_sales_daily, 0, 10)
    found = estimate(chain, shop_sales_daily, asked, strategy="incremental")
    missing = estimate(chain, shop_sales_daily, days(shop_sales_daily, 6, 10))
    assert value(found, "partitions") == 4
    for name in ("bytes_scanned", "rows", "compute_seconds", "storage_bytes"):
        assert value(found, name) == pytest.approx(value(missing, name)), name


snaps = Source(
    name="snaps",
    schema={"shop": pl.String, "revenue": pl.Float64, "sales_2d": pl.Int64, "taken_at": TIME},
    keys=("shop",),
    event_time="taken_at",
    typical_delay=timedelta(0),
)
with_rules = replace(
    shop_sales_daily,
    backfill=Backfill(
        snapshots=Snapshots("snaps", carry=7 * DAY), proxies={"revenue": Proxy("shop_other_daily:revenue")}
    ),
)
shop_other_daily = replace(shop_sales_daily, name="shop_other_daily")


def stand_ins(tmp_path: Path) -> Shops:
    return Shops(tmp_path, Clock(LATER), Catalog([sales, snaps], [with_rules, shop_other_daily]))


def test_snapshot_backfill_reads_its_snapshots_and_nothing_else(tmp_path: Path) -> None:
    chain = stand_ins(tmp_path)
    for week in range(8):
        rows = [
            {"shop": f"shop {n}", "revenue": 1.0, "sales_2d": 1, "taken_at": T0 + week * 7 * DAY} for n in range(50)
        ]
        chain.land(snaps, rows)
    asked = days(with_rules, 20, 30)
    found = estimate(chain, with_rules, asked, strategy="snapshot")
    true = chunk_bytes(
        chain.store.source(snaps).location,
        list(chain.store.source(snaps).schema),
        asked[0].end - 7 * DAY,
        with_rules.cut_off(asked[-1]),
    )
    assert set(found.inputs) == {"snaps"}
    assert value(found, "bytes_scanned") == pytest.approx(true, rel=TOLERANCE)
    assert value(found, "rows") == pytest.approx(500, rel=0.2), "ten windows of fifty shops"


def test_proxy_backfill_reads_the_group_of_its_proxy_and_its_own(tmp_path: Path) -> None:
    chain = stand_ins(tmp_path)
    chain.land(sales, [sale(n, T0 + n * HOUR, shop=f"shop {n % 7}") for n in range(400)])
    run(chain, shop_other_daily, days(shop_other_daily, 0, 15))
    found = estimate(chain, with_rules, days(with_rules, 0, 15), strategy="proxy")
    assert set(found.inputs) == {"shop_other_daily", "shop_sales_daily"}
    assert found.inputs["shop_other_daily"].bytes > 0
    assert value(found, "rows") == chain.store.ledger("shop_other_daily").latest()["rows"].sum()


def test_strategy_that_a_group_declares_nothing_for_is_refused(chain: Shops) -> None:
    with pytest.raises(InvalidInput, match="does not declare what from"):
        estimate(chain, shop_sales_daily, days(shop_sales_daily, 0, 2), strategy="snapshot")


# The document.


def test_document_is_json_with_whole_numbers_and_a_sum_of_its_parts(chain: Shops) -> None:
    fill(chain, 0, 10)
    document = json.loads(json.dumps(estimate(chain, shop_sales_daily, days(shop_sales_daily, 0, 10)).as_dict()))
    assert document["partitions"] == 10
    assert document["cost_usd"] == pytest.approx(sum(document["costs_usd"].values()), abs=1e-5)
    whole = ("partitions", "bytes_scanned", "read_requests", "rows", "storage_bytes", "online_writes")
    assert all(isinstance(document[name], int) for name in whole)
    assert set(whole) <= set(document["rests_on"])
    assert all(document["rests_on"].values())


def test_cost_follows_the_price_book(chain: Shops) -> None:
    fill(chain, 0, 10)
    text = (Path(__file__).parents[2] / "featurestore/backfill/estimates/prices.toml").read_text()
    dear = PriceBook.from_toml(text.replace("usd_per_compute_hour = 0.11652", "usd_per_compute_hour = 3600"))
    found = estimate(chain, shop_sales_daily, days(shop_sales_daily, 0, 10), prices=dear)
    seconds = value(found, "compute_seconds") + value(found, "overhead_seconds")
    assert found.costs_usd["compute"] == pytest.approx(seconds)
    assert seconds == pytest.approx(20 + 10 * 0.045, abs=0.1)


def test_windows_count_once_in_any_order(chain: Shops) -> None:
    fill(chain, 0, 10)
    asked = days(shop_sales_daily, 0, 10)
    assert estimate(chain, shop_sales_daily, asked) == estimate(chain, shop_sales_daily, [*asked[::-1], *asked])


def test_no_windows_cost_nothing(chain: Shops) -> None:
    fill(chain, 0, 3)
    for group in (shop_sales_daily, shop_last_sale_hourly):
        found = estimate(chain, group, [])
        assert found.cost_usd == 0
        assert {figure.value for figure in found.figures.values()} == {0}


def test_input_without_rows_is_said_to_count_nothing(chain: Shops) -> None:
    found = estimate(chain, shop_sales_daily, days(shop_sales_daily, 0, 3))
    assert value(found, "bytes_scanned") == value(found, "rows") == 0
    assert "'sales' holds nothing yet: what is to come of it is not counted." in found.notes


def test_upstream_windows_still_to_be_computed_are_said_not_to_count(chain: Shops) -> None:
    fill(chain, 0, 10)
    run(chain, shop_sales_daily, days(shop_sales_daily, 0, 6))
    found = estimate(chain, shop_density_daily, days(shop_density_daily, 2, 10))
    told = "4 windows of 'shop_sales_daily' that are read are not promoted: what is to come of them is not counted."
    assert told in found.notes
    assert "'shop_profile' holds nothing yet: what is to come of it is not counted." in found.notes
    whole = estimate(chain, shop_density_daily, days(shop_density_daily, 2, 6))
    assert not [note for note in whole.notes if "shop_sales_daily" in note]


def test_static_group_has_no_windows_to_estimate(chain: Shops) -> None:
    with pytest.raises(InvalidInput, match="is static"):
        estimate(chain, shop_profile, days(shop_sales_daily, 0, 1))


def test_run_holds_at_most_31_days_and_ends_at_a_gap() -> None:
    daily = Daily(start=date(2026, 3, 1))
    year = list(daily.windows_between(T0, T0 + 365 * DAY))
    assert [len(part) for part in runs_of(year)] == [31] * 11 + [24]
    assert [len(part) for part in runs_of(year[:3] + year[5:9])] == [3, 4]
