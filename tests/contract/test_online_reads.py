"""Online reads of one group: statuses to the microsecond, cold stores, keys of every kind, and the shape of the answer."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis

from featurestore.errors import InvalidInput, SchemaMismatch, StoreUnavailable, UnknownName
from featurestore.online.reading.retrieval import ONLINE_STATUS
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.contract.riders import GROUP, HOUR, MAX_AGE, MICROSECOND, START, TTL, Riders, hour, row
from tests.waiting import quickest

NOON = START + 12 * HOUR
TRUE_AT = hour(10).end


@pytest.fixture
def riders(tmp_path: Path, valkey_url: str) -> Iterator[Riders]:
    redis.Redis.from_url(valkey_url).flushall()
    made = Riders(tmp_path, valkey_url, now=NOON)
    made.promote([10], [row("a", 10, 1), row("b", 10, None), row("c", 10, 3, city=None), row("d", 10, is_deleted=True)])
    made.step()
    yield made
    made.online.close()
    made.client.close()


def test_every_row_asked_has_its_values_statuses_and_event_times_in_that_order(riders: Riders) -> None:
    answer = riders.read(["c", "nobody", "a", "b", None, "d", "a"])
    assert answer.frame.to_dict(as_series=False) == {
        "rider": ["c", "nobody", "a", "b", None, "d", "a"],
        "trips": [3, None, 1, None, None, None, 1],
        "city": [None, None, "Oslo", "Oslo", None, None, "Oslo"],
    }
    assert answer.statuses["trips"].to_list() == [
        "PRESENT",
        "NOT_FOUND",
        "PRESENT",
        "NULL_VALUE",
        "NOT_FOUND",
        "NOT_FOUND",
        "PRESENT",
    ]
    assert answer.statuses["city"].to_list()[0] == "NULL_VALUE"
    assert answer.event_times["trips"].to_list() == [TRUE_AT, None, TRUE_AT, TRUE_AT, None, None, TRUE_AT]
    assert answer.frame.schema == {"rider": pl.String, "trips": pl.Int64, "city": pl.String}
    assert set(answer.statuses.schema.values()) == {ONLINE_STATUS}
    assert set(answer.event_times.schema.values()) == {pl.Datetime("us", "UTC")}


@pytest.mark.parametrize(
    ("now", "status", "value", "event_time"),
    [
        (TRUE_AT + MAX_AGE, "PRESENT", 1, TRUE_AT),
        (TRUE_AT + MAX_AGE + MICROSECOND, "OUTSIDE_MAX_AGE", None, TRUE_AT),
        (TRUE_AT + TTL, "OUTSIDE_MAX_AGE", None, TRUE_AT),
        (TRUE_AT + TTL + MICROSECOND, "NOT_FOUND", None, None),
    ],
)
def test_age_and_expiry_are_inclusive_and_judged_by_the_readers_clock(
    riders: Riders, now: datetime, status: str, value: int | None, event_time: datetime | None
) -> None:
    riders.clock.now = now
    answer = riders.read(["a"])
    assert answer.statuses["trips"].to_list() == [status]
    assert answer.frame["trips"].to_list() == [value]
    assert answer.event_times["trips"].to_list() == [event_time]
    riders.assert_online_is_the_past(["a", "b", "c", "d"])


def test_a_null_value_past_its_age_is_outside_max_age_like_any_other(riders: Riders) -> None:
    riders.clock.now = TRUE_AT + MAX_AGE + MICROSECOND
    assert riders.statuses("b") == ["OUTSIDE_MAX_AGE"]


def test_a_store_that_was_never_filled_is_unavailable_and_not_merely_without_the_rider(
    riders: Riders, tmp_path: Path
) -> None:
    riders.client.flushdb()
    assert riders.statuses("a", "nobody") == ["UNAVAILABLE", "UNAVAILABLE"]
    riders.online.ensure_epoch(GROUP)
    assert riders.statuses("a") == ["UNAVAILABLE"]
    riders.step()
    assert riders.statuses("a", "nobody") == ["PRESENT", "NOT_FOUND"]


def test_an_emptied_store_is_unavailable_until_the_next_step(riders: Riders) -> None:
    assert riders.statuses("a", "nobody") == ["PRESENT", "NOT_FOUND"]
    riders.client.flushdb()
    answer = riders.read(["a", "nobody"])
    assert answer.statuses["city"].to_list() == ["UNAVAILABLE", "UNAVAILABLE"]
    assert answer.frame["trips"].to_list() == [None, None]
    assert answer.event_times["trips"].to_list() == [None, None]
    riders.step()
    assert riders.statuses("a", "nobody") == ["PRESENT", "NOT_FOUND"]


def test_a_group_that_is_being_built_anew_is_unavailable(riders: Riders) -> None:
    riders.online.start_over(GROUP, epoch=riders.online.ensure_epoch(GROUP))
    assert riders.statuses("a", "nobody") == ["UNAVAILABLE", "UNAVAILABLE"]


def test_a_null_key_is_not_found_even_in_a_cold_store(riders: Riders) -> None:
    riders.client.flushdb()
    assert riders.statuses(None, "a") == ["NOT_FOUND", "UNAVAILABLE"]
    assert riders.statuses(None) == ["NOT_FOUND"]


def test_a_reader_by_another_clock_judges_by_its_own(riders: Riders) -> None:
    past = FeatureStore(riders.store.settings, clock=lambda: TRUE_AT)
    later = FeatureStore(riders.store.settings, clock=lambda: TRUE_AT + TTL + timedelta(days=9))
    for store, status in ((past, "PRESENT"), (later, "NOT_FOUND")):
        answer = store.get_online_features([f"{GROUP}:trips"], {"rider": ["a"]})
        assert answer.statuses["trips"].to_list() == [status]


@pytest.mark.parametrize("rows", [[], {"rider": []}, pl.DataFrame(schema={"rider": pl.String}), pl.LazyFrame()])
def test_no_rows_give_no_rows(riders: Riders, rows: object) -> None:
    answer = riders.store.get_online_features(riders.references, rows)
    assert answer.frame.columns == ["rider", "trips", "city"]
    assert (answer.frame.height, answer.statuses.height, answer.event_times.height) == (0, 0, 0)


def test_other_columns_stay_and_one_named_like_a_feature_is_refused(riders: Riders) -> None:
    answer = riders.store.get_online_features([f"{GROUP}:trips"], [{"rider": "a", "order": 7}])
    assert answer.to_dict() == {"rider": ["a"], "order": [7], "trips": [1]}
    with pytest.raises(InvalidInput, match=r"already have columns \['trips'\]"):
        riders.store.get_online_features([f"{GROUP}:trips"], [{"rider": "a", "trips": 7}])
    named = riders.store.get_online_features([f"{GROUP}:trips"], [{"rider": "a", "trips": 7}], full_feature_names=True)
    assert named.to_dict() == {"rider": ["a"], "trips": [7], f"{GROUP}__trips": [1]}


def test_names_that_are_not_there_are_refused_with_a_hint(riders: Riders) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'rider_trip_hourly:trips'"):
        riders.store.get_online_features([f"{GROUP}:tripz"], {"rider": ["a"]})
    with pytest.raises(UnknownName, match="Did you mean 'rider_trip_hourly'"):
        riders.store.get_online_features(["rider_trip_daily:trips"], {"rider": ["a"]})
    with pytest.raises(UnknownName, match="Service 'model' is not registered"):
        riders.store.get_online_features("model", {"rider": ["a"]})
    with pytest.raises(InvalidInput, match="No features were asked for"):
        riders.store.get_online_features([], {"rider": ["a"]})


def test_keys_that_are_missing_or_of_another_type_are_refused(riders: Riders) -> None:
    with pytest.raises(InvalidInput, match=r"needs \['rider'\]; the rows have \['driver'\]"):
        riders.store.get_online_features(riders.references, {"driver": ["a"]})
    with pytest.raises(InvalidInput, match=r"needs \['rider'\]; the rows have \[\]"):
        riders.store.get_online_features(riders.references, [{}])
    with pytest.raises(SchemaMismatch, match="Key 'rider' is Int64"):
        riders.store.get_online_features(riders.references, {"rider": [1]})
    with pytest.raises(InvalidInput, match="entity_rows is a int"):
        riders.store.get_online_features(riders.references, 7)


def test_keys_with_every_odd_character_stay_apart(riders: Riders) -> None:
    odd = ["a:b", "a|b", "a%3Ab", "{a}", "", " ", "ø", "日本", "a\n", "*", "A", "a" * 500]
    riders.promote([10], [row(name, 10, number) for number, name in enumerate(odd)])
    riders.step()
    assert riders.trips(*odd) == list(range(len(odd)))
    assert riders.statuses("a b", "a::b", "%7Ba%7D", "\n") == ["NOT_FOUND"] * 4


def test_thousands_of_rows_in_any_order_with_doubles_come_back_in_that_order(riders: Riders) -> None:
    names = [f"r{number}" for number in range(2500)]
    riders.promote([10], [row(name, 10, number) for number, name in enumerate(names)])
    riders.step()
    asked = [*reversed(names), *names[::7], "nobody"]
    expected = [*reversed(range(2500)), *range(0, 2500, 7), None]
    assert riders.trips(*asked) == expected


def test_an_unreachable_server_leaves_values_unavailable_within_a_second_and_is_named_with_the_remedy(
    riders: Riders,
) -> None:
    settings = Settings(riders.root, riders.root, "redis://:secret@127.0.0.1:1/0")
    store = FeatureStore(settings, clock=riders.clock)

    def read() -> None:
        answer = store.get_online_features(riders.references, {"rider": ["a"]})
        assert answer.statuses["trips"].to_list() == ["UNAVAILABLE"]

    assert quickest(read) < 1
    cause = store.online.read_many({GROUP: [f"{GROUP}:a".encode()]})[GROUP].cause
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 does not answer .* Check that it runs") as told:
        store.materialize()
    assert "127.0.0.1:1" in cause
    assert "secret" not in str(told.value) + cause


def test_a_root_without_a_server_says_how_to_start_one(riders: Riders) -> None:
    store = FeatureStore(Settings(riders.root, riders.root), clock=riders.clock)
    with pytest.raises(StoreUnavailable, match=r"make up.*FEATURESTORE_ONLINE_URL"):
        store.get_online_features(riders.references, {"rider": ["a"]})


def test_the_embedded_server_beside_the_root_is_found(riders: Riders) -> None:
    with EmbeddedValkey(riders.root.path / "online"):
        store = FeatureStore(Settings(riders.root, riders.root), clock=riders.clock)
        assert store.materialize()[GROUP].was_rebuilt
        assert store.get_online_features(riders.references, {"rider": ["a"]}).frame["trips"].to_list() == [1]
    answer = store.get_online_features(riders.references, {"rider": ["a"]})
    assert answer.statuses["trips"].to_list() == ["UNAVAILABLE"]
