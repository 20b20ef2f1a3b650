"""Feast's HTTP contract, asked of the application in this process."""

import asyncio
import gzip
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.online.reading.retrieval import FeatureColumn, OnlineFeatures
from featurestore.serving.app import Serving, create_app
from featurestore.serving.json_body import wire_time
from featurestore.serving.slices import ReadResult, Slice
from featurestore.store import FeatureStore
from tests.contract.asgi import Answer, alive, call
from tests.contract.couriers import (
    ABSENT,
    EMPTY,
    EVERYTHING,
    HOUR,
    MEMORY,
    MICROSECOND,
    NOW,
    OLD,
    OSLO,
    PATIENT,
    VALUES,
    WHOLE,
    deploy,
    environment,
)
from tests.contract.online_messages import message_classes
from tests.scale import cases

ONLINE = "/get-online-features"
NO_TIME = "1970-01-01T00:00:00Z"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TOWN = {"town": ["Oslo"], "number": [4], "opened": ["1999-12-31"], "is_open": [True]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return deploy(environment(tmp_path_factory.mktemp("couriers"), MEMORY))


def ask(store: FeatureStore, body: Any, **more: Any) -> Answer:
    """One request to an application of its own."""

    async def once() -> Answer:
        app = create_app(Serving(lambda: store, limits=PATIENT))
        async with alive(app):
            return await call(app, more.pop("path", ONLINE), body, **more)

    return asyncio.run(once())


def test_an_answer_is_column_wise_with_the_keys_first(store: FeatureStore) -> None:
    body = {"features": ["courier_state:parcels", "courier_state:street"], "entities": {"courier": [WHOLE, ABSENT]}}
    answer = ask(store, body)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    seen = "2026-03-01T11:00:00Z"
    assert answer.json == {
        "metadata": {"feature_names": ["courier", "parcels", "street"]},
        "results": [
            {"values": [1, 99], "statuses": ["PRESENT", "PRESENT"], "event_timestamps": [NO_TIME, NO_TIME]},
            {"values": [2**60, None], "statuses": ["PRESENT", "NOT_FOUND"], "event_timestamps": [seen, NO_TIME]},
            {
                "values": ["Grünerløkka 🥪", None],
                "statuses": ["PRESENT", "NOT_FOUND"],
                "event_timestamps": [seen, NO_TIME],
            },
        ],
    }


def test_every_type_is_written_as_feast_writes_it(store: FeatureStore) -> None:
    answer = ask(store, {"features": EVERYTHING, "entities": {"courier": [WHOLE]}}).json
    values = dict(
        zip(answer["metadata"]["feature_names"], (one["values"][0] for one in answer["results"]), strict=True)
    )
    seconds = (NOW - HOUR - MICROSECOND - EPOCH) / timedelta(seconds=1)
    days = (VALUES["hired_on"] - EPOCH.date()).days
    assert values == {**VALUES, "courier": WHOLE, "hired_on": days * 86_400, "seen_at": seconds}
    assert type(values["hired_on"]) is int


def test_statuses_say_why_there_is_no_value(store: FeatureStore) -> None:
    body = {"features": EVERYTHING, "entities": {"courier": [WHOLE, EMPTY, OLD, ABSENT, None]}}
    for block in ask(store, body).json["results"][1:]:
        assert block["statuses"] == ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND", "NOT_FOUND"]
        assert block["values"][1:] == [None] * 4
        assert block["event_timestamps"] == [
            "2026-03-01T11:00:00Z",
            "2026-03-01T10:00:00.000001Z",
            "2026-02-27T12:00:00Z",
            NO_TIME,
            NO_TIME,
        ]


def test_a_service_asks_for_its_features_and_full_names_name_the_group(store: FeatureStore) -> None:
    body = {
        "feature_service": "courier_v1",
        "features": [],
        "entities": {"courier": [WHOLE]},
        "full_feature_names": True,
    }
    answer = ask(store, body).json
    assert answer["metadata"] == {"feature_names": ["courier", "courier_state__speed", "courier_state__parcels"]}
    assert [block["values"] for block in answer["results"]] == [[1], [2.5], [2**60]]


def test_a_composite_key_is_echoed_as_it_was_sent(store: FeatureStore) -> None:
    keys = {"is_open": [True, False], "town": ["Oslo"] * 2, "opened": ["1999-12-31"] * 2, "number": [4, 4]}
    answer = ask(store, {"features": ["depot_state:vans"], "entities": keys}).json
    assert answer["metadata"]["feature_names"] == [*keys, "vans"]
    assert [block["values"] for block in answer["results"]] == [*keys.values(), [3, None]]


def test_columns_that_are_no_keys_and_fields_that_are_not_known_are_passed_over(store: FeatureStore) -> None:
    body = {"features": ["courier_score:score"], "entities": {"mood": [{}], "courier": [WHOLE]}, "what": 1}
    assert ask(store, body).json["metadata"]["feature_names"] == ["courier", "score"]


def test_whole_numbers_in_text_or_floats_name_the_entity_as_in_feast(store: FeatureStore) -> None:
    answer = ask(store, {"features": ["courier_score:score"], "entities": {"courier": ["1", 1.0, 1]}}).json
    assert [block["values"] for block in answer["results"]] == [[1, 1, 1], [0.5] * 3]


def test_versions_of_groups_are_told_when_asked(store: FeatureStore) -> None:
    body = {
        "feature_service": "courier_v1",
        "entities": {"courier": [1]},
        "include_feature_view_version_metadata": True,
    }
    assert ask(store, body).json["metadata"]["feature_view_metadata"] == [{"name": "courier_state", "version": 1}]


def test_ages_and_tiers_come_only_when_asked(store: FeatureStore) -> None:
    body = {"features": ["courier_state:speed"], "entities": {"courier": [WHOLE, EMPTY, ABSENT]}}
    plain = ask(store, body).json
    assert {frozenset(block) for block in plain["results"]} == {frozenset(("values", "statuses", "event_timestamps"))}
    more = ask(store, {**body, "include_serving_metadata": True}).json["results"][1]
    assert more.pop("age_seconds") == [3600.0, 7200 - 1e-6, None]
    assert more.pop("tiers") == ["hot", "hot", None]
    assert more == plain["results"][1]


def test_why_values_are_invalid_is_told_unasked_and_in_every_body(tmp_path: Path) -> None:
    own = deploy(environment(tmp_path, MEMORY))
    own.online.hot.parts()[0].fail("away")
    body = {"features": ["courier_state:speed", "depot_state:vans"], "entities": {"courier": [1], **TOWN}}
    asked = {**body, "include_serving_metadata": True}
    causes = {"courier_state": "hot memory 0: away", "depot_state": "hot memory 0: away"}
    assert ask(own, body).json["causes"] == ask(own, asked).json["causes"] == causes
    protobuf = ask(own, body, headers={"accept": "application/x-protobuf"}).body
    told = message_classes()["OnlineFeatures"].FromString(protobuf).causes
    assert {cause.group: cause.why for cause in told} == causes
    arrow = ask(own, body, headers={"accept": "application/vnd.apache.arrow.stream"}).body
    with pa.ipc.open_stream(arrow) as reader:
        assert json.loads(reader.schema.metadata[b"causes"]) == causes
    own.online.hot.parts()[0].fail("")
    assert ask(own, asked).json["causes"] == {}
    assert set(ask(own, body).json) == {"metadata", "results"}
    assert b"causes" not in ask(own, body, headers={"accept": "application/vnd.apache.arrow.stream"}).body


def test_of_requests_that_are_read_together_each_is_told_its_own_causes() -> None:
    answer = SimpleNamespace(
        causes={"g": "a node is away"},
        feature_columns=lambda: [FeatureColumn("x", [1, None], ["PRESENT", "UNAVAILABLE"], [0, None], ["hot", None])],
    )
    requested = [SimpleNamespace(group=SimpleNamespace(name="g"), features=[None])]
    result = ReadResult(SimpleNamespace(requested=requested), answer, 2, 2, 0)  # type: ignore[arg-type]
    assert [Slice(result, start, {}, 1).causes for start in (0, 1)] == [{}, {"g": "a node is away"}]


def test_no_entities_get_an_answer_without_values(store: FeatureStore) -> None:
    for accept in ("application/json", "application/vnd.apache.arrow.stream", "application/x-protobuf"):
        answer = ask(store, {"features": EVERYTHING, "entities": {"courier": []}}, headers={"accept": accept})
        assert (answer.status, answer.headers["content-type"]) == (200, accept)
    named = ask(store, {"features": EVERYTHING, "entities": {"courier": []}})
    assert named.json["results"][1]["values"] == []
    assert ask(store, {"features": EVERYTHING, "entities": {}}).json == named.json


BAD = {
    "no JSON": (b"{", 400, "InvalidJson"),
    "no UTF-8": (b'{"entities": {"\xff": []}}', 400, "InvalidJson"),
    "half a character": (b'{"entities": {"courier": ["\\ud800"]}}', 400, "InvalidJson"),
    "nested without end": (b'{"entities": {"x": ' + b"[" * 100_000, 400, "InvalidJson"),
    "a number of many digits": (
        b'{"features":["courier_state:speed"],"entities":{"courier":[' + b"9" * 6000 + b"]}}",
        422,
        "InvalidRequest",
    ),
    "no entities": ({"features": EVERYTHING}, 422, "InvalidRequest"),
    "entities in rows": ({"features": EVERYTHING, "entities": [{"courier": 1}]}, 422, "InvalidRequest"),
    "nothing asked": ({"features": [], "entities": {"courier": [1]}}, 422, "InvalidInput"),
    "no reference": ({"features": ["speed"], "entities": {"courier": [1]}}, 422, "InvalidInput"),
    "doubled": ({"features": ["courier_state:speed"] * 2, "entities": {"courier": [1]}}, 422, "InvalidInput"),
    "names collide": (
        {"features": ["courier_state:speed", "courier_score:speed"], "entities": {"courier": [1]}},
        422,
        "InvalidInput",
    ),
    "no such feature": ({"features": ["courier_state:sped"], "entities": {"courier": [1]}}, 404, "UnknownName"),
    "no such group": ({"features": ["courier:speed"], "entities": {"courier": [1]}}, 404, "UnknownName"),
    "no such service": ({"feature_service": "courier_v2", "entities": {"courier": [1]}}, 404, "UnknownName"),
    "not online": ({"features": ["courier_past:trips"], "entities": {"courier": [1]}}, 422, "InvalidInput"),
    "no key": ({"features": ["courier_state:speed"], "entities": {"rider": [1]}}, 422, "InvalidInput"),
    "unequal": ({"features": ["courier_state:speed"], "entities": {"courier": [1], "x": []}}, 422, "InvalidInput"),
    "text": ({"features": ["courier_state:speed"], "entities": {"courier": ["one"]}}, 422, "SchemaMismatch"),
    "a flag": ({"features": ["courier_state:speed"], "entities": {"courier": [True]}}, 422, "SchemaMismatch"),
    "a list": ({"features": ["courier_state:speed"], "entities": {"courier": [[1]]}}, 422, "SchemaMismatch"),
    "half": ({"features": ["courier_state:speed"], "entities": {"courier": [1.5]}}, 422, "SchemaMismatch"),
    "too wide": ({"features": ["courier_state:speed"], "entities": {"courier": [2**63]}}, 422, "SchemaMismatch"),
    "no date": (
        {"features": ["depot_state:vans"], "entities": {name: [str(value)] for name, value in OSLO.items()}},
        422,
        "SchemaMismatch",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_a_client_does_wrong_is_told_with_a_hint(store: FeatureStore, what: str) -> None:
    body, status, error = BAD[what]
    answer = ask(store, body)
    assert (answer.status, answer.json["error"]) == (status, error)
    assert answer.json["message"].strip()


def test_a_hint_is_the_library_s_own(store: FeatureStore) -> None:
    answer = ask(store, {"features": ["courier_state:sped"], "entities": {"courier": [1]}})
    assert "Did you mean 'courier_state:speed'?" in answer.json["message"]


def test_paths_and_methods_that_are_not_there_say_where_to_look(store: FeatureStore) -> None:
    assert ask(store, None, path="/nowhere").status == 404
    answer = ask(store, None, path=ONLINE, method="GET")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert "/openapi.json" in answer.json["message"]
    for path in ("/get-online-features/", "/health/"):
        answer = ask(store, None, path=path)
        assert (answer.status, answer.json["error"]) == (404, "NotFound"), "no redirect without a word"


@pytest.mark.parametrize("path", [ONLINE, "/push", "/write-to-online-store"])
def test_a_compressed_body_is_refused_with_a_sentence(store: FeatureStore, path: str) -> None:
    answer = ask(store, gzip.compress(b"{}"), path=path, headers={"content-encoding": "gzip"})
    assert (answer.status, answer.json["error"]) == (415, "UnsupportedMediaType")
    assert "Send it as it is, without Content-Encoding" in answer.json["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/csv"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"accept": "text/html"}, 406),
        ({"accept": "text/html, */*;q=0.1"}, 200),
        ({"accept": "application/json;q=0, application/x-protobuf;q=0"}, 406),
        ({"x-request-timeout-ms": "soon"}, 400),
        ({"x-request-timeout-ms": "0"}, 400),
        ({"x-request-timeout-ms": "999999999"}, 200),
        ({"x-request-timeout-ms": "99999999999"}, 200),
        ({"x-request-timeout-ms": "9" * 5000}, 200),
        ({"x-request-timeout-ms": "1e3"}, 400),
        ({"content-encoding": "identity"}, 200),
        ({"content-encoding": "gzip"}, 415),
    ],
)
def test_headers_are_obeyed_or_refused(store: FeatureStore, headers: dict[str, str], status: int) -> None:
    body = {"features": ["courier_state:speed"], "entities": {"courier": [1]}}
    assert ask(store, body, headers=headers).status == status


def test_floats_that_json_has_no_number_for_are_named(tmp_path: Path) -> None:
    own = deploy(environment(tmp_path, MEMORY))
    event_time = (NOW - HOUR).isoformat()
    scores = ["NaN", "Infinity", "-Infinity", 1e308, None]
    df = {"courier": [1, 2, 3, 4, 5], "event_timestamp": [event_time] * 5, "score": scores, "speed": [1.0] * 5}
    assert (
        ask(own, {"push_source_name": "courier_score", "df": df, "to": "online_and_offline"}, path="/push").status
        == 200
    )
    answer = ask(own, {"features": ["courier_score:score"], "entities": {"courier": [1, 2, 3, 4, 5]}})
    assert answer.json["results"][1]["values"] == scores


@settings(max_examples=cases(2000, 100), deadline=None)
@given(st.integers(-(2**50), 2**50))
def test_a_time_has_as_many_digits_as_it_needs_and_reads_back(microseconds: int) -> None:
    text = wire_time(microseconds)
    assert datetime.fromisoformat(text) == EPOCH + timedelta(microseconds=microseconds)
    fraction = text.partition(".")[2].rstrip("Z")
    assert len(fraction) in (0, 3, 6)
    assert not fraction or int(fraction) > 0


def answered(store: FeatureStore, references: list[str], couriers: list[int | None]) -> OnlineFeatures:
    return store.get_online_features(references, {"courier": couriers})


couriers_asked = st.lists(st.sampled_from([WHOLE, EMPTY, OLD, ABSENT, None]), min_size=1, max_size=20)
references_asked = st.lists(st.sampled_from(EVERYTHING), min_size=1, max_size=6, unique=True)


@settings(max_examples=cases(400, 15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(references_asked, couriers_asked)
def test_arrow_says_what_the_library_says_in_its_types(
    store: FeatureStore, references: list[str], couriers: list[int | None]
) -> None:
    body = {"features": references, "entities": {"courier": couriers}, "include_serving_metadata": True}
    answer = ask(store, body, headers={"accept": "application/vnd.apache.arrow.stream"})
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    with pa.ipc.open_stream(io.BytesIO(answer.body)) as reader:
        table = reader.read_all()
    expected = answered(store, references, couriers)
    read = pl.DataFrame(pl.from_arrow(table))
    assert read["courier"].to_list() == couriers
    for name in expected.statuses.columns:
        assert read[name].equals(expected.frame[name]), name
        assert read[name].dtype == expected.frame[name].dtype
        assert read[f"{name}__status"].to_list() == expected.statuses[name].to_list()
        assert read[f"{name}__event_time"].equals(expected.event_times[name].alias(f"{name}__event_time"))
        assert read[f"{name}__tier"].to_list() == expected.tiers[name].to_list()
        ages = (NOW - expected.event_times[name]).dt.total_microseconds() / 1e6
        assert read[f"{name}__age_seconds"].to_list() == ages.to_list()


@settings(max_examples=cases(400, 15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(references_asked, couriers_asked)
def test_protobuf_says_what_json_says(store: FeatureStore, references: list[str], couriers: list[int | None]) -> None:
    body = {"features": references, "entities": {"courier": couriers}, "include_serving_metadata": True}
    answer = ask(store, body, headers={"accept": "application/x-protobuf"})
    parsed = message_classes()["OnlineFeatures"].FromString(answer.body)
    told = ask(store, body).json
    columns = [*parsed.keys, *parsed.features]
    assert [column.name for column in columns] == told["metadata"]["feature_names"]
    for column, block in zip(columns, told["results"], strict=True):
        statuses = column.DESCRIPTOR.fields_by_name["statuses"].enum_type.values_by_number
        assert [statuses[number].name for number in column.statuses] == block["statuses"]
        values = [plain(item) for item in getattr(column, column.WhichOneof("values")).items]
        expected = answered(store, references, couriers).frame[column.name].to_list()
        for value, wanted, status in zip(values, expected, block["statuses"], strict=True):
            assert status != "PRESENT" or wanted is None or value == stored(wanted), column.name
        if column.name != "courier":
            times = [NO_TIME if not time else wire_time(time) for time in column.event_times]
            assert times == block["event_timestamps"]
            assert [None if age != age else age for age in column.age_seconds] == block["age_seconds"]
            assert [[None, "hot", "warm"][tier] for tier in column.tiers] == block["tiers"]
    assert message_classes()["OnlineFeatures"].FromString(parsed.SerializeToString()) == parsed


def plain(item: Any) -> Any:
    return list(item.items) if hasattr(item, "items") else item


def stored(value: Any) -> Any:
    """A value as Protobuf has it: days, microseconds."""
    if isinstance(value, datetime):
        return (value - EPOCH) // MICROSECOND
    return (value - EPOCH.date()).days if hasattr(value, "isoformat") else value


def test_a_push_is_read_back_at_once(tmp_path: Path) -> None:
    own = deploy(environment(tmp_path, MEMORY))
    event_time = (NOW - MICROSECOND).isoformat(sep=" ")
    df = {"courier": [7], "event_timestamp": [event_time], "score": [1], "speed": [2.5]}
    pushed = ask(own, {"push_source_name": "courier_score", "df": df, "to": "online_and_offline"}, path="/push")
    assert pushed.status == 200, pushed.body
    assert (pushed.json["group"], pushed.json["rows"], pushed.json["is_online"]) == ("courier_score", 1, True)
    read = ask(own, {"features": ["courier_score:score"], "entities": {"courier": [7]}}).json["results"][1]
    assert read == {"values": [1.0], "statuses": ["PRESENT"], "event_timestamps": ["2026-03-01T11:59:59.999999Z"]}


@pytest.mark.parametrize(
    ("change", "status", "hint"),
    [
        ({"push_source_name": "courier_scores"}, 404, "Did you mean 'courier_score'?"),
        ({"to": "nowhere"}, 422, "to"),
        (
            {"df": {"courier": [1], "event_timestamp": ["2026-03-01T11:00:00"], "score": [1], "speed": [1]}},
            422,
            "Column 'event_timestamp' has '2026-03-01T11:00:00' in row 0; it takes times with a zone, such as",
        ),
        (
            {
                "df": {
                    "courier": [1, "x"],
                    "event_timestamp": [*["2026-03-01T11:00:00Z"] * 2],
                    "score": [1, 2],
                    "speed": [1, 2],
                }
            },
            422,
            "Column 'courier' has 'x' in row 1; it takes int64.",
        ),
        (
            {"df": {"courier": [True], "event_timestamp": ["2026-03-01T11:00:00Z"], "score": [1], "speed": [1]}},
            422,
            "Column 'courier' has True in row 0; it takes int64.",
        ),
        (
            {"df": {"courier": [1], "event_timestamp": ["2026-03-01T11:00:00Z"], "score": [[1]], "speed": [1]}},
            422,
            "Column 'score' has [1] in row 0; it takes float64, or null.",
        ),
        (
            {
                "df": {
                    "courier": [1],
                    "event_timestamp": ["2026-03-01T11:00:00Z"],
                    "score": [1],
                    "sped": [{}],
                }
            },
            422,
            "unknown ones ['sped']",
        ),
        ({"df": {"courier": [1], "event_timestamp": ["2026-03-01T11:00:00Z"], "speed": [1]}}, 422, "score"),
        ({"df": {"courier": [1, 2], "event_timestamp": ["2026-03-01T11:00:00Z"]}}, 422, "one length"),
        (
            {"df": {"courier": [1], "event_timestamp": ["2027-03-01T11:00:00Z"], "score": [1], "speed": [1]}},
            422,
            "future",
        ),
    ],
)
def test_a_push_that_cannot_be_taken_says_why(
    store: FeatureStore, change: dict[str, Any], status: int, hint: str
) -> None:
    df = {"courier": [1], "event_timestamp": ["2026-03-01T11:00:00Z"], "score": [1], "speed": [1]}
    answer = ask(store, {"push_source_name": "courier_score", "df": df, "to": "offline", **change}, path="/push")
    assert answer.status == status, answer.body
    assert hint in answer.json["message"]
    assert "context stack" not in answer.json["message"], "Polars' own words"


SENT = {**VALUES, "hired_on": "2026-02-28", "seen_at": "2026-03-01T11:00:00Z"}
"""A courier's values as JSON has them."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, True) for name in ("speed", "load", "parcels", "floor")),
        *((name, 1e300) for name in ("load", "floor", "parcels")),
        ("load", -3.5e38),
        ("load", 2**128),
        ("load", 10**400),
        ("floor", 2**31),
        ("floor", 1.5),
        ("is_busy", 1),
        ("taste", [1e300, 0.5, 0.5]),
        ("taste", [True, 0.5, 0.5]),
        ("stops", [1, False]),
        ("scores", [True]),
        ("scores", {}),
        ("tags", "rye"),
        ("tags", {"rye": 1}),
    ],
)
def test_a_value_that_the_column_could_only_hold_changed_is_refused(store: FeatureStore, name: str, value: Any) -> None:
    sent = {"event_timestamp": "2026-03-01T11:00:00Z", **SENT}
    df = {"courier": [7, 8], **{column: [one, value if column == name else one] for column, one in sent.items()}}
    answer = ask(store, {"push_source_name": "courier_state", "df": df, "to": "offline"}, path="/push")
    assert answer.status == 422, answer.body
    assert f"Column {name!r} has {repr(value)[:80]} in row 1; it takes " in answer.json["message"]


def test_numbers_of_a_float32_are_rounded_to_it_and_named_ones_are_taken_also_in_lists(tmp_path: Path) -> None:
    own = deploy(environment(tmp_path, MEMORY))
    rows = [
        {**SENT, "load": 0.1, "taste": [0.1, 1, -3.4028235e38], "scores": ["NaN", "-Infinity", 0.1, 1]},
        {**SENT, "load": "Infinity", "taste": ["NaN", 0, 0], "scores": [], "stops": None},
    ]
    times = {"event_timestamp": [(NOW - HOUR).isoformat()] * 2}
    df = {"courier": [7, 8], **times, **{name: [row[name] for row in rows] for name in SENT}}
    pushed = ask(own, {"push_source_name": "courier_state", "df": df, "to": "online_and_offline"}, path="/push")
    assert (pushed.status, pushed.json["is_online"]) == (200, True), pushed.body
    stored = own.offline.table("courier_state").scan().filter(pl.col("courier") > 6).sort("courier").collect()
    whole, odd = stored.select("load", "taste", "scores").rows()
    infinity, nan = float("inf"), pytest.approx(float("nan"), nan_ok=True)
    tenth, lowest = pl.Series([0.1, -3.4028235e38], dtype=pl.Float32)
    assert whole == (tenth, [tenth, 1.0, lowest], [nan, -infinity, 0.1, 1.0])
    assert odd == (infinity, [nan, 0.0, 0.0], [])


LATE, EARLY = "9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+14:00"
"""Instants that Python can write and has no UTC time for."""


@pytest.mark.parametrize("path", ["/push", "/write-to-online-store"])
@pytest.mark.parametrize(
    ("time", "couriers", "hint"),
    [
        (LATE, [1], "true of the future (now is 2026-03-01T12:00:00+00:00"),
        (LATE, [1, 1], "true of the future (now is 2026-03-01T12:00:00+00:00"),
        (
            LATE,
            [1, None],
            "have a null key or event_time: [{'row': 1, 'courier': None, 'event_time': '+10000-01-01T09:59:59",
        ),
        (EARLY, [1], "calendar of 'event_time' is 0000-12-31T10:00:00, limit years 1 to 9999"),
        (
            EARLY,
            [1, 1],
            "of one entity at one event time: [{'row': 0, 'courier': 1, 'event_time': '0000-12-31T10:00:00",
        ),
        (
            EARLY,
            [1, None],
            "have a null key or event_time: [{'row': 1, 'courier': None, 'event_time': '0000-12-31T10:00:00",
        ),
    ],
)
def test_a_time_beyond_the_calendar_is_refused_with_the_rows(
    store: FeatureStore, path: str, time: str, couriers: list[int | None], hint: str
) -> None:
    numbers = [1.0] * len(couriers)
    df = {"courier": couriers, "event_timestamp": [time] * len(couriers), "score": numbers, "speed": numbers}
    name = "push_source_name" if path == "/push" else "feature_view_name"
    answer = ask(store, {name: "courier_score", "df": df}, path=path)
    assert (answer.status, answer.json["error"]) == (422, "InvalidInput"), answer.body
    assert hint in answer.json["message"]


def test_columns_that_a_feast_client_sends_beside_the_groups_are_passed_over_and_named(tmp_path: Path) -> None:
    own = deploy(environment(tmp_path, MEMORY))
    times = {"event_timestamp": [(NOW - HOUR).isoformat()], "created": ["2026-03-01 11:00:00"]}
    df = {"courier": [7], **times, "score": [1], "speed": [2.5]}
    pushed = ask(own, {"push_source_name": "courier_score", "df": df, "to": "online_and_offline"}, path="/push")
    assert (pushed.status, pushed.json["is_online"]) == (200, True), pushed.body
    assert pushed.json["note"] == "Columns ['created'] are not of the group and were passed over."


def test_feasts_remote_online_store_writes_rows_that_reads_find(tmp_path: Path) -> None:
    own = deploy(environment(tmp_path, MEMORY))
    df = {
        "courier": [7, 8],
        "score": [1.5, None],
        "speed": [2.5, 1.0],
        "event_timestamp": ["2026-03-01T11:00:00", "2026-03-01T11:00:00.500000"],
        "created": [None, None],
    }
    body = {"feature_view_name": "courier_score", "df": df, "allow_registry_cache": False}
    before = own.offline.table("courier_score").version()
    written = ask(own, body, path="/write-to-online-store")
    assert (written.status, written.json["rows"], written.json["is_online"]) == (200, 2, True), written.body
    assert own.offline.table("courier_score").version() == before, "online alone"
    read = ask(own, {"features": ["courier_score:score"], "entities": {"courier": [7, 8]}}).json["results"][1]
    assert (read["values"], read["statuses"]) == ([1.5, None], ["PRESENT", "NULL_VALUE"])
    assert read["event_timestamps"] == ["2026-03-01T11:00:00Z", "2026-03-01T11:00:00.500Z"], (
        "times without a zone are UTC"
    )


def test_what_is_pushed_online_alone_waits_nowhere_and_is_not_lost_in_silence(tmp_path: Path) -> None:
    own = deploy(environment(tmp_path, MEMORY))
    df = {"courier": [7], "score": [1.5], "speed": [2.5]}
    ahead, past = (
        {**df, "event_timestamp": [at.isoformat()]} for at in (NOW + 4 * MICROSECOND, NOW - timedelta(days=8))
    )
    for path, name in (("/push", "push_source_name"), ("/write-to-online-store", "feature_view_name")):
        refused = ask(own, {name: "courier_score", "df": ahead}, path=path)
        assert refused.status == 422, refused.body
        assert "Push them to 'online_and_offline', where they wait for their time" in refused.json["message"]
        taken = ask(own, {name: "courier_score", "df": past}, path=path)
        assert (taken.status, taken.json["is_online"]) == (200, False)
        assert taken.json["note"].startswith("1 of 1 rows had outlived the group's ttl of 7 days")
    read = ask(own, {"features": ["courier_score:score"], "entities": {"courier": [7]}})
    assert read.json["results"][1]["statuses"] == ["NOT_FOUND"]


@pytest.mark.parametrize(("name", "status"), [("courier_scores", 404), ("courier_past", 422)])
def test_a_write_that_cannot_be_taken_says_why(store: FeatureStore, name: str, status: int) -> None:
    df = {"courier": [1], "event_timestamp": ["2026-03-01T11:00:00"], "trips": [1]}
    answer = ask(store, {"feature_view_name": name, "df": df}, path="/write-to-online-store")
    assert (answer.status, bool(answer.json["message"])) == (status, True), answer.body


def test_whole_number_keys_in_text_or_floats_are_pushed_to_the_entity_that_reads_find(tmp_path: Path) -> None:
    own = deploy(environment(tmp_path, MEMORY))
    event_time = (NOW - HOUR).isoformat()
    df = {"courier": ["71", 72.0, 73], "event_timestamp": [event_time] * 3, "score": [1, 2, 3], "speed": [1.0] * 3}
    pushed = ask(own, {"push_source_name": "courier_score", "df": df, "to": "online_and_offline"}, path="/push")
    assert pushed.status == 200, pushed.body
    read = ask(own, {"features": ["courier_score:score"], "entities": {"courier": [71, 72, 73]}})
    assert read.json["results"][1]["values"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("key", "status"), [("a-B_9.:z", 200), ("x" * 200, 200), ("x" * 201, 400), ("", 400), ("a b", 400)]
)
def test_an_idempotency_key_is_of_the_form_that_is_described(store: FeatureStore, key: str, status: int) -> None:
    body = {"push_source_name": "courier_score", "df": {}, "to": "offline"}
    answer = ask(store, body, path="/push", headers={"idempotency-key": key})
    assert answer.status == status, answer.body
    assert status == 200 or "Give 1 to 200 letters" in answer.json["message"]
    parameters = ask(store, None, path="/openapi.json").json["paths"]["/push"]["post"]["parameters"]
    described = next(one["schema"]["pattern"] for one in parameters if one["name"] == "Idempotency-Key")
    assert bool(re.search(described, key)) is (status == 200)


def test_the_openapi_document_names_every_path(store: FeatureStore) -> None:
    document = ask(store, None, path="/openapi.json").json
    probes = {"/health", "/ready", "/metrics", "/openapi.json"}
    assert set(document["paths"]) == {ONLINE, "/push", "/write-to-online-store", *probes}
    assert json.dumps(document)
