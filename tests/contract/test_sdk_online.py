"""The SDK's facade online: several groups at once, every type, static groups, services, and the forms an answer takes."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import redis

from featurestore.declaration import (
    Catalog,
    Daily,
    Entity,
    Feature,
    FeatureService,
    Online,
    Source,
    Static,
    TimeWindow,
    feature_group,
)
from featurestore.errors import InvalidInput, UnknownName
from featurestore.offline.intake import row_schema
from featurestore.registry.history import RegistryHistory
from featurestore.store import FeatureStore
from tests.contract.riders import SetClock

TIME = pl.Datetime("us", "UTC")
T0 = datetime(2026, 3, 1, tzinfo=UTC)
DAY, MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
OWNER = "team:kitchen"
FEATURES = [
    Feature("price", pl.Float64, "Price"),
    Feature("weight", pl.Float32, "Weight"),
    Feature("sold", pl.Int64, "Sold"),
    Feature("shelf", pl.Int32, "Shelf"),
    Feature("is_fresh", pl.Boolean, "Fresh"),
    Feature("label", pl.String, "Label"),
    Feature("baked_on", pl.Date, "Baked on"),
    Feature("sold_at", TIME, "Last sold at"),
    Feature("taste", pl.Array(pl.Float32, 3), "Taste"),
    Feature("batches", pl.List(pl.Int64), "Batches", max_length=4),
    Feature("scores", pl.List(pl.Float64), "Scores", max_length=4),
    Feature("tags", pl.List(pl.String), "Tags", max_length=4),
]
VALUES: dict[str, Any] = {
    "price": 2.5,
    "weight": 0.25,
    "sold": 2**60,
    "shelf": -7,
    "is_fresh": True,
    "label": "smørbrød 🥪",
    "baked_on": date(2026, 2, 28),
    "sold_at": T0 - MICROSECOND,
    "taste": [1.0, -0.5, 0.0],
    "batches": [1, -2, 3],
    "scores": [0.1, 0.2],
    "tags": ["rye", ""],
}
bakery = Entity("bakery", keys={"town": pl.String, "number": pl.Int64, "opened": pl.Date, "is_open": pl.Boolean})
town = Entity("town")
ledger = Source(
    name="ledger", schema={"town": pl.String, "seen_at": TIME}, keys=("town",), event_time="seen_at", typical_delay=DAY
)
towns = Source(name="towns", schema={"town": pl.String, "people": pl.Int64}, keys=("town",))


def _typed(features: list[Feature], keys: dict[str, Any]) -> list[pl.Expr]:
    return [
        pl.lit(None, dtype=dtype).alias(name) for name, dtype in [*keys.items(), *((f.name, f.dtype) for f in features)]
    ]


@feature_group(
    entity=bakery,
    features=FEATURES,
    cadence=Daily(start=T0.date()),
    lookback=DAY,
    online=Online(ttl=2 * DAY),
    owner=OWNER,
)
def bakery_bread_daily(window: TimeWindow, ledger: pl.LazyFrame) -> pl.LazyFrame:
    """Everything about a bakery's bread."""
    return ledger.select(_typed(FEATURES, dict(bakery.keys)))


@feature_group(
    entity=town, features=[Feature("people", pl.Int64, "People"), Feature("price", pl.Float64, "Price level")],
    cadence=Static(valid_from=T0), online=Online(), owner=OWNER, min_coverage=0.0,
)  # fmt: skip
def town_profile(towns: pl.LazyFrame) -> pl.LazyFrame:
    """What is known of a town."""
    return towns.select("town", "people", price=pl.lit(1.0))


@feature_group(
    entity=town,
    features=[Feature("rain", pl.Float64, "Rain")],
    cadence=Daily(start=T0.date()),
    lookback=DAY,
    owner=OWNER,
)
def town_rain_daily(window: TimeWindow, ledger: pl.LazyFrame) -> pl.LazyFrame:
    """Rain, for training only."""
    return ledger.select("town", rain=pl.lit(0.0))


bread_v1 = FeatureService("bread_v1", features=[bakery_bread_daily["sold"], town_profile["people"]], owner=OWNER)
CATALOG = Catalog([ledger, towns], [bakery_bread_daily, town_profile, town_rain_daily], [bread_v1])
OSLO = {"town": "Oslo", "number": 1, "opened": date(1999, 12, 31), "is_open": True}
BERGEN = {"town": "Bergen", "number": -4, "opened": date(1969, 7, 20), "is_open": False}
EVERYTHING = [f"bakery_bread_daily:{feature.name}" for feature in FEATURES]


@pytest.fixture
def clock() -> SetClock:
    return SetClock(T0 + 1.5 * DAY)


@pytest.fixture
def store(tmp_path: Path, valkey_url: str, clock: SetClock) -> Iterator[FeatureStore]:
    redis.Redis.from_url(valkey_url).flushall()
    places = {"FEATURESTORE_ROOT": str(tmp_path / "store"), "FEATURESTORE_ONLINE_URL": valkey_url}
    # Patient, so that a busy machine is not taken for a server that is away.
    made = FeatureStore.from_env({**places, "FEATURESTORE_READ_DEADLINE_MS": "30000"})
    made.clock = clock
    RegistryHistory(made.settings.root).apply(CATALOG, clock, "tests")
    promote(made, [{**OSLO, **VALUES}, {**BERGEN, **dict.fromkeys(VALUES)}])
    load(made, {"Oslo": 709_000, "Bergen": None})
    made.materialize()
    yield made
    made.online.close()


def promote(store: FeatureStore, rows: list[dict[str, Any]]) -> None:
    table = store.offline.table("bakery_bread_daily")
    window = TimeWindow(T0, T0 + DAY)
    stamps = {"event_time": window.end, "knowledge_time": window.end, "window_start": window.start}
    whole = [{**one, **stamps, "is_deleted": False, "schema_number": 1} for one in rows]
    frame = pl.DataFrame(whole, schema=row_schema(table.group), orient="row")
    table.overwrite_windows(frame, [window], seen_version=None, transaction="first", metadata={})


def load(store: FeatureStore, people: dict[str, int | None]) -> None:
    rows = pl.DataFrame(
        {"town": list(people), "people": list(people.values())}, schema={"town": pl.String, "people": pl.Int64}
    )
    store.offline.table("town_profile").load_static(
        rows.with_columns(price=pl.lit(1.25)),
        instant=store.clock(),
        valid_from=T0,
        transaction=store.clock().isoformat(),
        metadata={},
    )


def test_every_type_comes_back_as_it_was_stored_and_as_training_sees_it(store: FeatureStore, clock: SetClock) -> None:
    rows = [BERGEN, OSLO]
    answer = store.get_online_features(EVERYTHING, rows)
    assert answer.frame.row(1, named=True) == {**OSLO, **VALUES}
    assert answer.frame.row(0, named=True) == {**BERGEN, **dict.fromkeys(VALUES)}
    assert answer.frame.select(list(VALUES)).schema == {feature.name: feature.dtype for feature in FEATURES}
    assert set(answer.statuses.row(0)) == {"NULL_VALUE"}
    assert set(answer.statuses.row(1)) == {"PRESENT"}
    spine = pl.DataFrame(rows).with_columns(label_time=pl.lit(clock.now))
    truth = store.get_historical_features(spine, EVERYTHING, with_status=True).to_polars()
    assert answer.frame.select(list(VALUES)).equals(truth.select(list(VALUES)))
    statuses = truth.select(pl.col(f"{name}__status").cast(pl.String).alias(name) for name in VALUES)
    assert answer.statuses.cast(pl.String).equals(statuses)


def test_of_a_composite_key_every_part_counts(store: FeatureStore) -> None:
    others = [
        {**OSLO, "number": 2},
        {**OSLO, "opened": date(2000, 1, 1)},
        {**OSLO, "is_open": False},
        {**OSLO, "town": None},
    ]
    answer = store.get_online_features(["bakery_bread_daily:sold"], [*others, OSLO])
    assert answer.statuses["sold"].to_list() == ["NOT_FOUND"] * 4 + ["PRESENT"]


def test_several_groups_are_read_at_once_in_the_order_asked(store: FeatureStore) -> None:
    rows = [OSLO, {**OSLO, "town": "Nowhere"}, BERGEN]
    answer = store.get_online_features(
        ["town_profile:people", "bakery_bread_daily:tags", "bakery_bread_daily:sold"], rows
    )
    assert answer.frame.columns == ["town", "number", "opened", "is_open", "people", "tags", "sold"]
    assert answer.frame["people"].to_list() == [709_000, None, None]
    assert answer.frame["sold"].to_list() == [2**60, None, None]
    assert answer.statuses.rows() == [
        ("PRESENT", "PRESENT", "PRESENT"),
        ("NOT_FOUND", "NOT_FOUND", "NOT_FOUND"),
        ("NULL_VALUE", "NULL_VALUE", "NULL_VALUE"),
    ]
    assert answer.event_times["people"].to_list() == [T0, None, T0]


def test_a_service_and_its_name_ask_for_the_same(store: FeatureStore) -> None:
    named = store.get_online_features("bread_v1", [OSLO])
    assert named.frame.columns[-2:] == ["sold", "people"]
    assert named.frame.equals(store.get_online_features(bread_v1, [OSLO]).frame)


def test_two_features_of_one_name_need_full_names(store: FeatureStore) -> None:
    both = ["bakery_bread_daily:price", "town_profile:price"]
    with pytest.raises(InvalidInput, match="full_feature_names=True"):
        store.get_online_features(both, [OSLO])
    answer = store.get_online_features(both, [OSLO], full_feature_names=True)
    assert answer.frame.columns[-2:] == ["bakery_bread_daily__price", "town_profile__price"]
    assert answer.frame.row(0)[-2:] == (2.5, 1.25)
    assert answer.statuses.columns == answer.event_times.columns == answer.frame.columns[-2:]


def test_the_async_read_answers_alike_and_leaves_the_loop_free(store: FeatureStore) -> None:
    async def read() -> tuple[list[int], Any]:
        ticks: list[int] = []

        async def tick() -> None:
            while True:
                ticks.append(len(ticks))
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        answer = await store.get_online_features_async("bread_v1", [OSLO, BERGEN])
        ticking.cancel()
        return ticks, answer

    ticks, answer = asyncio.run(read())
    assert answer.frame.equals(store.get_online_features("bread_v1", [OSLO, BERGEN]).frame)
    assert len(ticks) > 1


@pytest.mark.parametrize("count", [1, 100])
def test_columns_dict_and_frames_of_an_answer_agree(store: FeatureStore, count: int) -> None:
    answer = store.get_online_features(EVERYTHING, [OSLO, BERGEN] * count)
    columns = answer.feature_columns()
    assert [column.name for column in columns] == list(VALUES)
    for column in columns:
        assert list(column.values) == answer.frame[column.name].to_list() == answer.to_dict()[column.name]
        assert list(column.statuses) == answer.statuses[column.name].to_list()
        assert list(column.event_times) == answer.event_times[column.name].to_physical().to_list()
        assert list(column.tiers) == answer.tiers[column.name].to_list() == ["hot"] * 2 * count
    assert all(
        type(left) is type(right) for left, right in zip(columns[6].values, answer.frame["baked_on"], strict=True)
    )


def test_an_answer_leaves_as_whatever_is_asked_for(store: FeatureStore) -> None:
    answer = store.get_online_features(["bakery_bread_daily:sold", "bakery_bread_daily:taste"], [OSLO, BERGEN])
    assert answer.to_dict()["sold"] == [2**60, None]
    assert answer.to_polars() is answer.frame
    table = answer.to_arrow()
    assert isinstance(table, pa.Table)
    assert table.column("sold").to_pylist() == [2**60, None]
    frame = answer.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame["sold"][0] == 2**60, "an integer column with a miss stays one"
    assert frame["sold"].isna().tolist() == [False, True]


@pytest.mark.parametrize("form", ["polars", "lazy", "arrow", "pandas", "dicts", "lists"])
def test_entity_rows_come_in_any_form(store: FeatureStore, form: str) -> None:
    frame = pl.DataFrame({"town": ["Oslo", None, "Bergen"]})
    forms: dict[str, Any] = {
        "polars": frame,
        "lazy": frame.lazy(),
        "arrow": frame.to_arrow(),
        "pandas": pd.DataFrame({"town": ["Oslo", None, "Bergen"]}),
        "dicts": frame.to_dicts(),
        "lists": frame.to_dict(as_series=False),
    }
    answer = store.get_online_features(["town_profile:people"], forms[form])
    assert answer.to_dict() == {"town": ["Oslo", None, "Bergen"], "people": [709_000, None, None]}
    assert answer.statuses["people"].to_list() == ["PRESENT", "NOT_FOUND", "NULL_VALUE"]


def test_static_groups_never_expire_and_windowed_ones_do(store: FeatureStore, clock: SetClock) -> None:
    clock.now = T0 + 3 * DAY
    assert store.get_online_features("bread_v1", [OSLO]).statuses.row(0) == ("PRESENT", "PRESENT")
    clock.now += MICROSECOND
    assert store.get_online_features("bread_v1", [OSLO]).statuses.row(0) == ("NOT_FOUND", "PRESENT")
    clock.now = T0 + 4000 * DAY
    store.materialize()
    assert store.get_online_features("bread_v1", [OSLO]).statuses.row(0) == ("NOT_FOUND", "PRESENT")
    assert redis.Redis.from_url(store.settings.online_url).ttl("town_profile:Oslo") == -1


def test_an_entity_that_vanished_from_a_static_load_is_not_found(store: FeatureStore, clock: SetClock) -> None:
    clock.now += DAY
    load(store, {"Bergen": 286_000})
    step = store.materialize(["town_profile"])["town_profile"]
    assert (step.was_rebuilt, step.keys, step.written) == (False, 2, 2)
    answer = store.get_online_features(["town_profile:people"], {"town": ["Oslo", "Bergen"]})
    assert answer.statuses["people"].to_list() == ["NOT_FOUND", "PRESENT"]
    assert answer.event_times["people"].to_list() == [None, clock.now]


def test_a_group_that_is_not_served_online_is_refused_for_reads_and_materialization(store: FeatureStore) -> None:
    with pytest.raises(InvalidInput, match=r"'town_rain_daily' is not served online. Declare online="):
        store.get_online_features(["town_rain_daily:rain"], {"town": ["Oslo"]})
    with pytest.raises(InvalidInput, match="not served online"):
        store.materialize(["town_profile", "town_rain_daily"])
    with pytest.raises(UnknownName, match="Did you mean 'town_profile'"):
        store.materialize(["town_profil"])


def test_materialize_moves_every_group_served_online_or_those_named(store: FeatureStore) -> None:
    assert set(store.materialize()) == {"bakery_bread_daily", "town_profile"}
    assert set(store.materialize(["town_profile"])) == {"town_profile"}
    assert store.materialize([]) == {}


def test_nothing_connects_before_the_first_call(tmp_path: Path) -> None:
    store = FeatureStore.from_env(
        {"FEATURESTORE_ROOT": str(tmp_path / "none"), "FEATURESTORE_ONLINE_URL": "redis://127.0.0.1:1/0"}
    )
    assert [part.name for part in store.online.hot.parts()] == ["hot 127.0.0.1:1"]
    with pytest.raises(UnknownName, match="featurestore apply"):
        store.get_online_features("bread_v1", [OSLO])
    assert not (tmp_path / "none").exists()
