"""Historical retrieval: what production would have served at each label time, in the shape that was asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from featurestore.declaration import Catalog, FeatureGroup, Source, Static
from featurestore.errors import InvalidInput, SchemaMismatch, UnknownName
from featurestore.loading import materialize_load
from featurestore.location import Location
from featurestore.offline.store import OfflineStore
from featurestore.promotion import materialize_windows
from featurestore.quality.deployed import newest_set
from featurestore.registry.history import RegistryHistory
from featurestore.registry.snapshot import RegistrySnapshot
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from featurestore.training import build_training_set
from tests.catalogs import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    TIME,
    Clock,
    Shops,
    aisle_mix_daily,
    register,
    sale,
    sales,
    shop_density_daily,
    shop_last_sale_hourly,
    shop_profile,
    shop_sales_daily,
    windows,
)
from tests.scale import cases

Row = dict[str, Any]
LATER = T0 + 20 * DAY


def applied(chain: Shops) -> FeatureStore:
    """The SDK on the store of a chain, its catalogue applied."""
    root = Location(str(chain.root))
    RegistryHistory(root).apply(chain.catalog, chain.clock, "tests")
    return FeatureStore(Settings(root, root.child("landing")), clock=chain.clock)


def spine(*rows: tuple[Any, ...], columns: str = "shop label_time") -> pl.DataFrame:
    names = columns.split()
    schema = {
        name: TIME if name == "label_time" else pl.Int64 if name in ("number", "target") else pl.String
        for name in names
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


# The one idea, end to end: simulated production, hour by hour, against an oracle that knows only the landed rows.

LIVE_SALES = Source(
    name="sales",
    schema=sales.schema,
    keys=sales.keys,
    event_time="event_time",
    known_at="known_at",
    live_from=T0 + 12 * HOUR,
)
LIVE_REGISTER = Source(name="register", schema=register.schema, keys=register.keys, live_from=T0)
PRODUCTION = (shop_sales_daily, shop_last_sale_hourly, shop_profile, shop_density_daily, aisle_mix_daily)
STEP = 6 * HOUR
END = T0 + 84 * HOUR


@dataclass
class Landed:
    """A row as it landed, and since when it is known by the rules of its source."""

    row: Row
    known: datetime
    order: int


@dataclass
class Oracle:
    """What production serves, computed anew for every question from all rows that ever landed. No store, no frames."""

    sales: list[Landed] = field(default_factory=list)
    register: list[Landed] = field(default_factory=list)
    loads: list[tuple[datetime, dict[str, Row]]] = field(default_factory=list)

    def known_sales(self, cut_off: datetime) -> list[Landed]:
        newest: dict[str, Landed] = {}
        for landed in self.sales:
            old = newest.get(landed.row["sale_id"])
            if landed.known <= cut_off and (old is None or (landed.known, landed.order) > (old.known, old.order)):
                newest[landed.row["sale_id"]] = landed
        return sorted(newest.values(), key=lambda landed: landed.row["sale_id"])

    def towns(self, cut_off: datetime) -> dict[str, Row]:
        return {landed.row["shop"]: landed.row for landed in self.register if landed.known <= cut_off}

    def sales_in(self, start: datetime, end: datetime, cut_off: datetime) -> list[Row]:
        return [landed.row for landed in self.known_sales(cut_off) if start <= landed.row["event_time"] < end]

    def daily(self, shop: str, end: datetime) -> Row | None:
        rows = [row for row in self.sales_in(end - 2 * DAY, end, end + 2 * HOUR) if row["shop"] == shop]
        return {"revenue": sum(row["amount"] for row in rows), "sales_2d": len(rows)} if rows else None

    def mix(self, shop: str, number: int, end: datetime) -> Row | None:
        amounts = [
            row["amount"]
            for row in self.sales_in(end - DAY, end, end)
            if (row["shop"], row["number"]) == (shop, number)
        ]
        small = sum(amount < 10 for amount in amounts) / len(amounts) if amounts else 0.0
        return {"mix": [small, 1 - small], "amounts": amounts} if amounts else None

    def profile(self, shop: str, at: datetime) -> Row | None:
        known = [rows for instant, rows in self.loads if instant <= at]
        return known[-1].get(shop) if known else None

    def density(self, shop: str, end: datetime) -> Row | None:
        ends = [end - DAY, end] if end - 2 * DAY >= T0 else [end]
        revenue = [found["revenue"] for found in (self.daily(shop, e) for e in ends) if found]
        area = (self.profile(shop, end + 3 * HOUR) or {}).get("area")
        return {"revenue_per_area": sum(revenue) / area if area else None} if revenue else None

    def events(self, shop: str, end: datetime) -> list[tuple[datetime, Row]]:
        """The events of one hourly window: what became known in it, unless it is no longer the newest of its sale."""
        new = [landed for landed in self.known_sales(end) if landed.known > end - HOUR or end == T0 + HOUR]
        mine = {landed.row["event_time"]: landed.row for landed in new if landed.row["shop"] == shop}
        town = self.towns(end).get(shop, {}).get("town")
        return [(event, {"amount": row["amount"], "sold_in": town}) for event, row in mine.items()]

    def served(self, group: FeatureGroup, keys: tuple[Any, ...], at: datetime) -> tuple[Row | None, str]:
        """Value and status at an instant: of what production could serve by then, the newest in event time."""
        if group is shop_profile:
            found = self.profile(keys[0], at)
            return found, "PRESENT" if found else "NOT_FOUND"
        best = max(self.candidates(group, keys, at), key=lambda row: row[:2], default=None)
        if best is None:
            return None, "NOT_FOUND"
        if group.max_age is not None and at - best[0] > group.max_age:
            return None, "OUTSIDE_MAX_AGE"
        return best[2], "PRESENT"

    def candidates(
        self, group: FeatureGroup, keys: tuple[Any, ...], at: datetime
    ) -> list[tuple[datetime, datetime, Row]]:
        compute: dict[FeatureGroup, Any] = {
            shop_sales_daily: self.daily,
            shop_density_daily: self.density,
            aisle_mix_daily: self.mix,
        }
        found: list[tuple[datetime, datetime, Row]] = []
        for window in windows(group, T0, at):
            known = group.horizon(window)
            if known > at:
                continue
            if group is shop_last_sale_hourly:
                found += [(event, known, row) for event, row in self.events(keys[0], window.end)]
            elif (row := compute[group](*keys, window.end)) is not None:
                found.append((window.end, known, row))
        return found


@dataclass
class Production:
    """Feeds that land live, and a platform that runs whatever is due every few hours."""

    chain: Shops
    oracle: Oracle = field(default_factory=Oracle)

    def land_sales(self, rows: Sequence[Row]) -> None:
        for row in rows:
            now = self.chain.clock.now
            known = row["known_at"] if now < T0 + 12 * HOUR else max(row["known_at"], now)
            self.oracle.sales.append(Landed(row, known, len(self.oracle.sales)))
        self.chain.land(LIVE_SALES, rows)

    def land_register(self, rows: Sequence[Row]) -> None:
        self.oracle.register += [Landed(row, self.chain.clock.now, 0) for row in rows]
        self.chain.land(LIVE_REGISTER, rows)

    def run(self, run_id: str) -> None:
        store, now = self.chain.store, self.chain.clock.now
        for group in self.chain.catalog.ordered_groups:
            if isinstance(group.cadence, Static):
                materialize_load(store, self.chain.catalog, group, run_id=run_id)
                self.oracle.loads.append((now if self.oracle.loads else T0, self.oracle.towns(now)))
            else:
                done = store.ledger(group.stored_name).promoted()
                due = [w for w in windows(group, T0, now) if w.start not in done]
                materialize_windows(store, self.chain.catalog, group, due, run_id=run_id)


sold = st.tuples(
    st.integers(0, 7),
    st.integers(0, 26),
    st.sampled_from([0, 0, 1, 3, 9]),
    st.sampled_from("ab"),
    st.integers(1, 2),
    st.integers(5, 14),
)
registered = st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.sampled_from("xy"), st.integers(0, 14))
asked_at = st.integers(0, 7 * 84).map(lambda part: T0 + part * HOUR / 7) | st.integers(0, 84 * 12).map(
    lambda part: T0 + part * 5 * MINUTE
)
labels = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([1, 2]), asked_at), min_size=1, max_size=25
)


@settings(max_examples=cases(40, 3), deadline=None, phases=[Phase.generate])
@given(st.lists(sold, max_size=14), st.lists(registered, max_size=5), labels)
def test_history_is_what_production_would_have_served(
    tmp_path_factory: pytest.TempPathFactory, sold: list[Any], registered: list[Any], labels: list[Any]
) -> None:
    """Sales happen on a grid of 3 hours, land up to 27 hours late, some corrected; the register is loaded whenever others run.

    It has a row from the start: the first load with rows counts as known since its declared `valid_from`, whenever it came.
    """
    catalog = Catalog([LIVE_SALES, LIVE_REGISTER], PRODUCTION)
    production = Production(Shops(tmp_path_factory.mktemp("store"), Clock(T0), catalog))
    step = 0
    while T0 + step * STEP <= END:
        clock = production.chain.clock
        clock.now = T0 + step * STEP + MINUTE
        production.land_register(
            [{"shop": s, "area": a, "town": t} for s, a, t, at in [("c", 5, "x", 0), *registered] if at == step]
        )
        rows = [(n, T0 + at * 3 * HOUR + n * MINUTE, late, s, aisle, amount) for n, at, late, s, aisle, amount in sold]
        due = [
            {**sale(n, at, float(amount), shop=s, known_at=at + late * 3 * HOUR), "number": aisle}
            for n, at, late, s, aisle, amount in rows
            if clock.now - STEP < at + late * 3 * HOUR <= clock.now
        ]
        production.land_sales(list({(row["sale_id"], row["known_at"]): row for row in due}.values()))
        clock.now += MINUTE
        production.run(f"step-{step}")
        step += 1
    check_against(production, labels)


def check_against(production: Production, labels: Sequence[tuple[str | None, int, datetime]]) -> None:
    store = applied(production.chain)
    asked = spine(*labels, columns="shop number label_time")
    features = [group[feature.name] for group in PRODUCTION for feature in group.features]
    found = store.get_historical_features(asked, features, full_feature_names=True, with_status=True).to_polars()
    assert found.select(asked.columns).equals(asked)
    for row in found.to_dicts():
        for group in PRODUCTION:
            keys = tuple(row[key] for key in group.keys)
            expected, status = (
                (None, "NOT_FOUND") if None in keys else production.oracle.served(group, keys, row["label_time"])
            )
            for feature in group.features:
                column = f"{group.stored_name}__{feature.name}"
                value = (expected or {}).get(feature.name)
                is_null = status == "PRESENT" and value is None
                assert row[f"{column}__status"] == ("NULL_VALUE" if is_null else status), (column, row)
                assert same_value(row[column], value), (column, row)


def same_value(found: Any, expected: Any) -> bool:
    """Floats only nearly: the oracle adds in another order, and vectors are of 32 bits."""
    if expected is None or isinstance(expected, str):
        return bool(found == expected)
    return bool(found == pytest.approx(expected, rel=1e-6))


# The shape of an answer.


@pytest.fixture
def chain(tmp_path: Path) -> Shops:
    """Two shops: 'a' sold daily, 'b' once; a register that knows both."""
    made = Shops(tmp_path, Clock(LATER, ticks=True))
    made.land(sales, [sale(n, T0 + n * 6 * HOUR, float(n)) for n in range(8)])
    made.land(sales, [{**sale(50, T0 + HOUR, 3.0, shop="b"), "number": 2}])
    made.land(register, [{"shop": "a", "area": 10, "town": None}, {"shop": "b", "area": 20, "town": "y"}])
    for group in (shop_sales_daily, shop_last_sale_hourly, aisle_mix_daily):
        materialize_windows(made.store, made.catalog, group, windows(group, T0, T0 + 3 * DAY), run_id="run")
    return made


@pytest.fixture
def store(chain: Shops) -> FeatureStore:
    return applied(chain)


SERVED = T0 + DAY + 2 * HOUR + 15 * MINUTE
"""When the first daily window is served."""


def statuses(store: FeatureStore, feature: str, *labels: tuple[Any, ...]) -> list[str]:
    found = store.get_historical_features(spine(*labels), [feature], with_status=True).to_polars()
    return list(found[f"{feature.split(':')[1]}__status"])


def test_a_value_is_there_from_its_horizon_and_not_a_microsecond_before(store: FeatureStore) -> None:
    before = SERVED - timedelta(microseconds=1)
    assert statuses(store, "shop_sales_daily:revenue", ("a", before), ("a", SERVED)) == ["NOT_FOUND", "PRESENT"]


def test_max_age_is_inclusive(store: FeatureStore) -> None:
    last = T0 + 3 * DAY + 2 * DAY
    asked = (("a", last), ("a", last + timedelta(microseconds=1)))
    assert statuses(store, "shop_sales_daily:revenue", *asked) == ["PRESENT", "OUTSIDE_MAX_AGE"]


def test_values_are_the_same_whether_or_not_statuses_are_asked(store: FeatureStore) -> None:
    asked = spine(*((s, T0 + n * 7 * HOUR) for n in range(40) for s in ("a", "b", "c")))
    features = ["shop_sales_daily:revenue", "shop_last_sale_hourly:amount"]
    plain, told = (
        store.get_historical_features(asked, features, with_status=flag).to_polars() for flag in (False, True)
    )
    assert plain.equals(told.select(plain.columns))
    for row in range(asked.height):
        assert store.get_historical_features(asked[row], features).to_polars().equals(plain[row]), "each label alone"


def test_null_values_and_missing_entities_are_told_apart(store: FeatureStore) -> None:
    asked = (("a", T0 + HOUR + 5 * MINUTE), ("c", LATER), (None, LATER))
    assert statuses(store, "shop_last_sale_hourly:sold_in", *asked) == ["NULL_VALUE", "NOT_FOUND", "NOT_FOUND"]


def test_rows_come_back_once_each_in_input_order_with_all_their_columns(store: FeatureStore) -> None:
    rows = [
        ("b", SERVED, 1),
        ("a", SERVED, 2),
        (None, SERVED, 3),
        ("a", SERVED - DAY, 4),
        ("a", SERVED, 2),
        ("zz", SERVED, 5),
    ]
    asked = spine(*rows, columns="shop label_time target")
    found = store.get_historical_features(asked, ["shop_sales_daily:sales_2d"]).to_polars()
    assert found.select(asked.columns).equals(asked)
    assert found["sales_2d"].to_list() == [1, 4, None, None, 4, None]
    assert found["sales_2d"].dtype == pl.Int64


def test_null_label_time_finds_nothing(store: FeatureStore) -> None:
    assert statuses(store, "shop_sales_daily:revenue", ("a", None), ("a", SERVED)) == ["NOT_FOUND", "PRESENT"]
    assert statuses(store, "shop_sales_daily:revenue", ("a", None)) == ["NOT_FOUND"]


def test_empty_spine_gives_the_columns_with_their_dtypes(store: FeatureStore) -> None:
    found = store.get_historical_features(spine(), ["shop_sales_daily:sales_2d"], with_status=True).to_polars()
    assert found.height == 0
    assert found.columns == ["shop", "label_time", "sales_2d", "sales_2d__status"]
    assert found.schema["sales_2d"] == pl.Int64


def test_group_without_a_table_is_not_found(store: FeatureStore) -> None:
    found = store.get_historical_features(spine(("a", LATER)), ["shop_density_daily:revenue_per_area"]).to_polars()
    assert found["revenue_per_area"].to_list() == [None]
    assert found["revenue_per_area"].dtype == pl.Float64


def test_composite_keys_vectors_and_lists(store: FeatureStore) -> None:
    at = T0 + DAY + HOUR
    asked = spine(("a", 1, at), ("a", 2, at), ("b", 2, at), columns="shop number label_time")
    frame = store.get_historical_features(asked, ["aisle_mix_daily:mix", "aisle_mix_daily:amounts"])
    assert frame.to_polars().schema["mix"] == pl.Array(pl.Float32, 2)
    assert frame.to_dict()["mix"] == [[1.0, 0.0], None, [1.0, 0.0]]
    assert frame.to_dict()["amounts"] == [[0.0, 1.0, 2.0, 3.0], None, [3.0]]
    assert frame.to_arrow().schema.field("mix").type.list_size == 2


def test_integer_with_a_miss_stays_an_integer_in_every_form(store: FeatureStore) -> None:
    frame = store.get_historical_features(spine(("a", SERVED), ("c", SERVED)), ["shop_sales_daily:sales_2d"])
    assert frame.to_polars()["sales_2d"].dtype == pl.Int64
    assert frame.to_arrow().schema.field("sales_2d").type == pa.int64()
    assert frame.to_pandas()["sales_2d"].dtype == pd.ArrowDtype(pa.int64())
    assert frame.to_dict()["sales_2d"] == [4, None]


def test_full_names_and_services(store: FeatureStore) -> None:
    asked = spine(("a", SERVED))
    by_service = store.get_historical_features(asked, "shop_model_v1").to_polars()
    assert by_service.columns == ["shop", "label_time", "revenue", "sales_2d", "sold_in"]
    full = store.get_historical_features(asked, ["shop_sales_daily:revenue"], full_feature_names=True, with_status=True)
    assert full.to_polars().columns[2:] == ["shop_sales_daily__revenue", "shop_sales_daily__revenue__status"]


# Inputs.


def forms_of(frame: pl.DataFrame) -> Mapping[str, Any]:
    return {
        "polars": frame,
        "lazy": frame.lazy(),
        "arrow": frame.to_arrow(),
        "pandas": frame.to_pandas(),
        "pandas ns": frame.with_columns(pl.col("label_time").dt.cast_time_unit("ns")).to_pandas(),
        "pandas on arrow": frame.to_pandas(use_pyarrow_extension_array=True),
        "dicts": frame.to_dicts(),
        "lists": frame.to_dict(as_series=False),
        "another zone": frame.with_columns(pl.col("label_time").dt.convert_time_zone("America/New_York")),
        "dicts in another zone": [
            {**row, "label_time": row["label_time"].astimezone(ZoneInfo("Asia/Tokyo"))} for row in frame.to_dicts()
        ],
        "milliseconds": frame.with_columns(pl.col("label_time").dt.cast_time_unit("ms")),
    }


@pytest.mark.parametrize("form", forms_of(spine()))
def test_every_form_of_a_spine_gives_the_same_values(store: FeatureStore, form: str) -> None:
    asked = spine(("a", SERVED), ("b", SERVED + DAY), ("a", T0))
    found = store.get_historical_features(forms_of(asked)[form], ["shop_sales_daily:sales_2d"]).to_polars()
    assert found["sales_2d"].to_list() == [4, 1, None]


@pytest.mark.parametrize(
    ("time", "remedy"),
    [
        (datetime(2026, 3, 2), "pl.col('label_time').dt.replace_time_zone('UTC')"),  # noqa: DTZ001 - a naive time is the point
        ("2026-03-02 00:00:00", "pl.col('label_time').str.to_datetime(time_zone='UTC')"),
        (T0.date(), "pl.col('label_time').cast(pl.Datetime('us', 'UTC'))"),
    ],
)
def test_a_time_without_a_zone_is_refused_with_a_remedy_that_works(
    store: FeatureStore, time: object, remedy: str
) -> None:
    labels = pl.DataFrame({"shop": ["a"], "label_time": [time]})
    with pytest.raises(InvalidInput) as caught:
        store.get_historical_features(labels, ["shop_sales_daily:revenue"])
    assert remedy in str(caught.value)
    mended = labels.with_columns(eval(remedy))  # noqa: S307 - what the message says is tried as it stands
    assert store.get_historical_features(mended, ["shop_sales_daily:revenue"]).to_polars().height == 1


def test_a_number_as_label_time_is_refused_with_the_dtype_to_give(store: FeatureStore) -> None:
    with pytest.raises(InvalidInput, match=r"is Int64\. .*Give the column as pl\.Datetime\('us', 'UTC'\)"):
        store.get_historical_features({"shop": ["a"], "label_time": [1]}, ["shop_sales_daily:revenue"])


def test_missing_key_is_refused_with_what_is_there(store: FeatureStore) -> None:
    with pytest.raises(InvalidInput, match=r"needs \['number'\]; the rows have \['shop', 'label_time'\]"):
        store.get_historical_features(spine(("a", SERVED)), ["aisle_mix_daily:mix"])
    with pytest.raises(InvalidInput, match=r"needs .*'at'"):
        store.get_historical_features(spine(("a", SERVED)), ["shop_sales_daily:revenue"], label_time="at")


@pytest.mark.parametrize("dtype", [pl.String, pl.Float64, pl.Boolean])
def test_key_of_another_kind_is_refused(store: FeatureStore, dtype: Any) -> None:
    asked = spine(("a", 1, SERVED), columns="shop number label_time").with_columns(pl.col("number").cast(dtype))
    with pytest.raises(SchemaMismatch, match="Key 'number' is"):
        store.get_historical_features(asked, ["aisle_mix_daily:mix"])


def test_whole_number_of_another_width_is_taken_only_if_it_fits(store: FeatureStore) -> None:
    at = T0 + DAY + HOUR
    asked = spine(("a", 1, at), ("a", None, at), columns="shop number label_time")
    narrow = asked.with_columns(pl.col("number").cast(pl.Int32))
    found = store.get_historical_features(narrow, ["aisle_mix_daily:amounts"]).to_polars()
    assert found["amounts"].to_list() == [[0.0, 1.0, 2.0, 3.0], None]
    assert found.schema["number"] == pl.Int32, "the spine's own columns stay as they are"
    too_wide = asked.with_columns(number=pl.lit(2**63, dtype=pl.UInt64))
    with pytest.raises(SchemaMismatch, match="Key 'number' is UInt64"):
        store.get_historical_features(too_wide, ["aisle_mix_daily:amounts"])


def test_key_that_is_null_throughout_needs_no_dtype(store: FeatureStore) -> None:
    found = store.get_historical_features([{"shop": None, "label_time": SERVED}], ["shop_sales_daily:revenue"])
    assert found.to_dict()["revenue"] == [None]


def test_column_name_that_is_taken_is_refused(store: FeatureStore) -> None:
    asked = spine(("a", SERVED)).with_columns(revenue=pl.lit(1))
    with pytest.raises(InvalidInput, match="already has columns"):
        store.get_historical_features(asked, ["shop_sales_daily:revenue"])
    assert (
        store.get_historical_features(asked, ["shop_sales_daily:revenue"], full_feature_names=True).to_polars().width
        == 4
    )


def test_label_time_may_have_any_name(store: FeatureStore) -> None:
    asked = spine(("a", SERVED)).rename({"label_time": "event_timestamp"})
    found = store.get_historical_features(asked, ["shop_sales_daily:sales_2d"], label_time="event_timestamp")
    assert found.to_dict()["sales_2d"] == [4]


def test_spine_may_have_columns_named_like_those_of_the_platform(store: FeatureStore) -> None:
    asked = spine(("a", SERVED)).with_columns(event_time=pl.lit("x"), created_at=pl.lit(1), is_deleted=pl.lit(True))
    assert store.get_historical_features(asked, ["shop_sales_daily:sales_2d"]).to_dict()["sales_2d"] == [4]


def test_unknown_feature_is_refused(store: FeatureStore) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'shop_sales_daily:revenue'"):
        store.get_historical_features(spine(("a", SERVED)), ["shop_sales_daily:revenu"])


# Tombstones, versions and schema numbers.


def test_deleted_entity_is_not_found_from_its_tombstone_on(chain: Shops) -> None:
    store = chain.store
    table, registered = store.table("shop_profile"), store.registry.group("shop_profile")
    schema = {name: registered.stored_schema[name] for name in ("shop", "area", "town")}
    for number, names in enumerate(("ab", "a")):
        rows = pl.DataFrame({"shop": list(names), "area": [1] * len(names), "town": ["x"] * len(names)}, schema=schema)
        instant = T0 + (number + 1) * DAY
        table.load_static(rows, instant=instant, valid_from=T0, transaction=f"{number}", metadata={})
    gone = T0 + 2 * DAY
    asked = (("b", gone - timedelta(microseconds=1)), ("b", gone), ("a", gone), ("b", T0 - DAY))
    assert statuses(applied(chain), "shop_profile:area", *asked) == ["PRESENT", "NOT_FOUND", "PRESENT", "NOT_FOUND"]


def test_feature_newer_than_its_row_is_not_found(chain: Shops) -> None:
    store = chain.store
    group = store.registry.groups["shop_sales_daily"]
    first, second = group.features
    newer = replace(group, features=(first, replace(second, since=2)), schema_number=2)
    registry = RegistrySnapshot({**store.registry.groups, newer.name: newer}, store.registry.services)
    renewed = OfflineStore(store.root, registry, store.clock)
    materialize_windows(
        renewed, chain.catalog, shop_sales_daily, windows(shop_sales_daily, T0 + DAY, T0 + 2 * DAY), run_id="new"
    )
    sdk = sdk_of(chain, registry)
    asked = spine(("a", SERVED), ("a", SERVED + DAY), ("a", LATER), ("c", SERVED))
    found = sdk.get_historical_features(
        asked, ["shop_sales_daily:revenue", "shop_sales_daily:sales_2d"], with_status=True
    ).to_polars()
    assert found["sales_2d"].to_list() == [None, 8, None, None]
    assert list(found["sales_2d__status"]) == ["NOT_FOUND", "PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert list(found["revenue__status"]) == ["PRESENT", "PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]


def sdk_of(chain: Shops, registry: RegistrySnapshot) -> FeatureStore:
    """The SDK on a registry that no declaration stands for."""
    root = Location(str(chain.root))
    sdk = FeatureStore(Settings(root, root.child("landing")), clock=chain.clock)
    sdk.__dict__["registry"] = registry
    return sdk


def test_pinned_version_gives_the_values_of_that_time(chain: Shops) -> None:
    pinned = chain.store.table("shop_sales_daily").version()
    assert pinned is not None
    chain.land(sales, [sale(60, T0 + HOUR, 100.0)])
    materialize_windows(
        chain.store, chain.catalog, shop_sales_daily, windows(shop_sales_daily, T0, T0 + DAY), run_id="again"
    )
    store, asked = applied(chain), spine(("a", SERVED))
    now, then = (
        store.get_historical_features(asked, ["shop_sales_daily:revenue"], versions=versions).to_dict()["revenue"]
        for versions in (None, {"shop_sales_daily": pinned})
    )
    assert (now, then) == ([106.0], [6.0])


# Training sets.


def label_frame() -> pl.LazyFrame:
    rows = [("a", SERVED, 1), ("b", SERVED + DAY, 0), ("c", SERVED + 2 * DAY, 1)]
    return spine(*rows, columns="shop label_time target").lazy()


def test_training_set_is_stored_with_what_it_was_read_from(chain: Shops) -> None:
    made = build_training_set(chain.store, "shop_model_v1", label_frame())
    frame = pl.read_parquet(made.uri)
    assert frame["revenue"].to_list() == [6.0, 3.0, None]
    assert frame.columns == ["shop", "label_time", "target", "revenue", "sales_2d", "sold_in"]
    assert made.rows == 3
    assert made.table_versions == {
        name: chain.store.table(name).version() for name in ("shop_sales_daily", "shop_last_sale_hourly")
    }
    assert made.found_fractions == {"revenue": 0.6667, "sales_2d": 0.6667, "sold_in": 0.0}
    beside = json.loads(Path(made.uri.removesuffix(".parquet") + ".json").read_text())
    assert beside["registry_digest"] == chain.store.registry.digest


def test_training_set_is_addressed_by_its_content(chain: Shops) -> None:
    first, again = (build_training_set(chain.store, "shop_model_v1", label_frame()) for _ in range(2))
    assert first == again
    part = build_training_set(chain.store, "shop_model_v1", label_frame(), start=SERVED + DAY, end=SERVED + 2 * DAY)
    assert (part.rows, part.uri == first.uri) == (1, False)


def test_training_set_without_labels_is_refused(chain: Shops) -> None:
    with pytest.raises(InvalidInput, match="No label of 'shop_model_v1'"):
        build_training_set(chain.store, "shop_model_v1", label_frame(), end=T0)


@pytest.mark.parametrize("bound", ["start", "end"])
def test_bound_of_a_training_set_without_a_zone_is_refused_by_its_name(chain: Shops, bound: str) -> None:
    naive: dict[str, Any] = {bound: T0.replace(tzinfo=None)}
    with pytest.raises(InvalidInput, match=rf"^{bound} {T0:%Y-%m-%dT%H:%M:%S} has no time zone\. Give one"):
        build_training_set(chain.store, "shop_model_v1", label_frame(), **naive)


def test_labels_without_a_zone_are_refused_before_a_bound_is_compared_with_them(chain: Shops) -> None:
    naive = label_frame().with_columns(pl.col("label_time").dt.replace_time_zone(None))
    with pytest.raises(InvalidInput, match=r"'label_time' of labels is Datetime.*replace_time_zone"):
        build_training_set(chain.store, "shop_model_v1", naive, start=T0)


def test_a_set_that_is_built_again_is_the_newest_though_it_is_not_written_again(chain: Shops) -> None:
    assert newest_set(chain.store.root, "shop_model_v1") is None
    whole = build_training_set(chain.store, "shop_model_v1", label_frame())
    build_training_set(chain.store, "shop_model_v1", label_frame(), end=SERVED + DAY)
    build_training_set(chain.store, "shop_model_v1", label_frame())
    assert newest_set(chain.store.root, "shop_model_v1") == Path(whole.uri).stem
