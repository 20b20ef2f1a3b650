"""The client against a real server, and beside it the store itself: the two give the same, refusals included."""

import asyncio
import json
import logging
import random
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import redis

from featurestore.auth.book import KeyBook
from featurestore.auth.caller import EVERYTHING as ALL_RIGHTS
from featurestore.auth.caller import Rights
from featurestore.client import AsyncFeatureClient, FeatureClient
from featurestore.clock import system_clock
from featurestore.errors import (
    FeatureStoreError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFresh,
    SchemaMismatch,
    StoreUnavailable,
    UnknownName,
)
from featurestore.online.reading.retrieval import OnlineFeatures
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.store import FeatureStore
from tests.contract.couriers import (
    ABSENT,
    EMPTY,
    EVERYTHING,
    HOUR,
    OLD,
    OSLO,
    VALUES,
    WHOLE,
    courier_v1,
    deploy,
    environment,
)
from tests.contract.cpu_stretch import CpuWatch
from tests.contract.load_with_faults import worker_pids
from tests.contract.serving_process import Server, running
from tests.contract.test_serving_processes import certificate
from tests.scale import cases

PATIENCE = 60.0
ASKED: list[Any] = [
    EVERYTHING,
    "courier_v1",
    courier_v1,
    ["courier_score:score", "courier_state:tags", "courier_state:taste"],
    tuple(EVERYTHING[:2]),
]
COURIERS = [WHOLE, EMPTY, OLD, ABSENT, None, WHOLE, -1, 2**62]


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("couriers")
    with EmbeddedValkey(folder / "valkey") as server:
        found = {**environment(folder, server.url), "FEATURESTORE_AUTH": "on"}
        deploy(found, system_clock).close()
        yield found


@pytest.fixture(scope="module")
def direct(variables: dict[str, str]) -> Iterator[FeatureStore]:
    store = FeatureStore.from_env(variables)
    yield store
    store.close()


@pytest.fixture(scope="module")
def book(direct: FeatureStore) -> KeyBook:
    opened = direct.settings.key_book()
    opened.prepare()
    return opened


def make_key(book: KeyBook, rights: Rights) -> tuple[str, str]:
    stored, key = book.create("tests", rights, owner="team:tests", person="tests", expires_at=None)
    return stored.key_id, key


@pytest.fixture(scope="module")
def server(variables: dict[str, str], book: KeyBook) -> Iterator[Server]:
    with running(variables) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server, book: KeyBook) -> Iterator[FeatureClient]:
    with FeatureClient(server.url, make_key(book, ALL_RIGHTS)[1], timeout_seconds=PATIENCE) as made:
        _until(lambda: made.get_online_features("courier_v1", {"courier": [1]}), NotAuthenticated)
        yield made


def _until(attempt: Callable[[], object], error: type[Exception]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            attempt()
        except error:
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return


def assert_same(found: OnlineFeatures, expected: OnlineFeatures) -> None:
    for part in ("frame", "statuses", "event_times", "tiers"):
        one, other = getattr(found, part), getattr(expected, part)
        assert one.schema == other.schema, part
        assert one.equals(other), part
    assert repr(found.to_dict()) == repr(expected.to_dict()), "NaN is not equal to itself"
    assert repr(found.feature_columns()) == repr(expected.feature_columns())
    assert dict(found.causes) == dict(expected.causes)
    assert found.freshness.groups == expected.freshness.groups


# --- the same answers


def test_modes_of_freshness_are_the_stores_own(client: FeatureClient, direct: FeatureStore) -> None:
    rows = {"courier": COURIERS}
    stale = client.get_online_features(EVERYTHING, rows, freshness="stale_ok")
    assert_same(stale, direct.get_online_features(EVERYTHING, rows, freshness="stale_ok"))
    assert stale.frame["speed"].to_list()[2] == VALUES["speed"], "of the courier whose values are too old"
    assert stale.ages["speed"].to_list()[2] > 86_400
    begun = time.monotonic()
    for reader in (client, direct):
        with pytest.raises(NotFresh, match="courier_state has an SLO, and nobody has published") as refused:
            reader.get_online_features("courier_v1", rows, freshness="strict")
        assert [(one["group"], one["state"]) for one in refused.value.groups] == [("courier_state", "UNKNOWN")]
    assert time.monotonic() - begun < PATIENCE, "another attempt would find the same"
    with pytest.raises(InvalidInput, match="stale_ok"):
        client.get_online_features("courier_v1", rows, freshness="fresh")  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", ASKED, ids=["every type", "service by name", "service", "two groups", "tuple"])
@pytest.mark.parametrize("full", [False, True], ids=["short names", "full names"])
def test_an_answer_equals_the_stores_own_dtypes_included(
    client: FeatureClient, direct: FeatureStore, asked: Any, full: bool
) -> None:
    rows = {"courier": COURIERS}
    expected = direct.get_online_features(asked, rows, full_feature_names=full)
    assert_same(client.get_online_features(asked, rows, full_feature_names=full), expected)


@pytest.mark.parametrize("form", ["dicts", "lists", "polars", "lazy", "arrow", "pandas", "narrow", "nulls", "no rows"])
def test_entity_rows_come_in_any_form_and_stay_as_they_are(
    client: FeatureClient, direct: FeatureStore, form: str
) -> None:
    frame = pl.DataFrame({"mood": [0.5, float("nan"), None], "courier": [WHOLE, None, EMPTY], "at": [[1], [], None]})
    forms: dict[str, Any] = {
        "dicts": frame.to_dicts(),
        "lists": frame.to_dict(as_series=False),
        "polars": frame,
        "lazy": frame.lazy(),
        "arrow": frame.to_arrow(),
        "pandas": pd.DataFrame(
            {"courier": np.array([WHOLE, EMPTY]), "day": pd.to_datetime(["2026-03-01", "2026-03-02"])}
        ),
        "narrow": frame.with_columns(pl.col("courier").cast(pl.UInt8)),
        "nulls": pl.DataFrame({"courier": [None, None]}),
        "no rows": frame.clear(),
    }
    expected = direct.get_online_features(EVERYTHING, forms[form])
    assert_same(client.get_online_features(EVERYTHING, forms[form]), expected)
    assert isinstance(client.get_online_features("courier_v1", forms[form]).to_arrow(), pa.Table)


def test_keys_of_every_type_are_found(client: FeatureClient, direct: FeatureStore) -> None:
    rows = [OSLO, {**OSLO, "opened": date(1969, 7, 20)}, {**OSLO, "town": "Ål 🏔\n\"'"}, {**OSLO, "is_open": None}]
    expected = direct.get_online_features(["depot_state:vans"], rows)
    assert expected.frame["vans"].to_list() == [3, None, None, None]
    assert_same(client.get_online_features(["depot_state:vans"], rows), expected)


def test_random_questions_have_the_stores_own_answers(client: FeatureClient, direct: FeatureStore) -> None:
    draw = random.Random(11)
    references = [*EVERYTHING, "courier_score:score"]
    for _ in range(cases(2_000, 15)):
        asked = draw.sample(references, draw.randrange(1, len(references)))
        rows = {"courier": [draw.choice(COURIERS) for _ in range(draw.choice([1, 2, 7, 9, 300]))]}
        full = draw.random() < 0.5
        expected = direct.get_online_features(asked, rows, full_feature_names=full)
        assert_same(client.get_online_features(asked, rows, full_feature_names=full), expected)


def test_the_async_client_and_the_stores_async_read_give_the_same_many_at_a_time(
    client: FeatureClient, server: Server, book: KeyBook, direct: FeatureStore
) -> None:
    key = make_key(book, ALL_RIGHTS)[1]
    questions = [(EVERYTHING[: 1 + i % 12], {"courier": COURIERS[: 1 + i % 8]}) for i in range(24)]

    async def ask() -> list[tuple[OnlineFeatures, OnlineFeatures]]:
        async with AsyncFeatureClient(server.url, key, timeout_seconds=PATIENCE) as mine:
            while True:
                try:
                    over_http = await asyncio.gather(*(mine.get_online_features(*one) for one in questions))
                    break
                except NotAuthenticated:  # the server has not heard of the key yet
                    await asyncio.sleep(0.05)
            beside = await asyncio.gather(*(direct.get_online_features_async(*one) for one in questions))
            return list(zip(over_http, beside, strict=True))

    for question, (over_http, beside) in zip(questions, asyncio.run(ask()), strict=True):
        expected = direct.get_online_features(*question)
        assert_same(over_http, expected)
        assert_same(beside, expected)


def test_the_stores_async_read_leaves_the_loop_free_and_raises_as_the_plain_one(
    direct: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read ends only after the loop has turned beside it."""
    has_turned, plain = threading.Event(), direct.get_online_features

    def late(*asked: Any, **options: Any) -> OnlineFeatures:
        assert has_turned.wait(PATIENCE)
        return plain(*asked, **options)

    monkeypatch.setattr(direct, "get_online_features", late)

    async def read() -> OnlineFeatures:
        task = asyncio.create_task(direct.get_online_features_async(EVERYTHING, {"courier": [WHOLE] * 5_000}))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        has_turned.set()
        return await task

    assert asyncio.run(read()).frame.height == 5_000
    with pytest.raises(UnknownName):
        asyncio.run(direct.get_online_features_async("courier_v9", {"courier": [1]}))


# --- the same refusals

REFUSED: dict[str, tuple[Any, Any]] = {
    "unknown service": ("courier_v9", {"courier": [1]}),
    "unknown group": (["courier_stat:speed"], {"courier": [1]}),
    "unknown feature": (["courier_state:sped"], {"courier": [1]}),
    "a reference as a service": ("courier_state:speed", {"courier": [1]}),
    "no features": ([], {"courier": [1]}),
    "no reference": (["speed"], {"courier": [1]}),
    "one name twice": (["courier_state:speed", "courier_score:speed"], {"courier": [1]}),
    "not online": (["courier_past:trips"], {"courier": [1]}),
    "no key": (EVERYTHING, {"cour": [1]}),
    "a feature's name": (EVERYTHING, {"courier": [1], "speed": [1.0]}),
    "text for a number": (EVERYTHING, {"courier": ["1"]}),
    "a float for a number": (EVERYTHING, {"courier": [1.0]}),
    "a truth for a number": (EVERYTHING, {"courier": [True]}),
    "lists for a number": (EVERYTHING, {"courier": [[1]]}),
    "text for a day": (
        ["depot_state:vans"],
        {name: [str(value) if name == "opened" else value] for name, value in OSLO.items()},
    ),
    "a day for text": (["depot_state:vans"], [{**OSLO, "town": date(2026, 1, 1)}]),
    "an instant for a day": (["depot_state:vans"], [{**OSLO, "opened": datetime(2026, 1, 1, tzinfo=UTC)}]),
    "too large a number": (["depot_state:vans"], [{**OSLO, "number": 2**40}]),
    "lengths that differ": (EVERYTHING, {"courier": [1, 2], "mood": [1]}),
    "mixed types": (EVERYTHING, [{"courier": 1}, {"courier": "a"}]),
    "no table": (EVERYTHING, 7),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_store_refuses_the_client_refuses_with_the_same_error(
    client: FeatureClient, direct: FeatureStore, case: str
) -> None:
    asked, rows = REFUSED[case]
    with pytest.raises(FeatureStoreError) as expected:
        direct.get_online_features(asked, rows)
    with pytest.raises(FeatureStoreError) as found:
        client.get_online_features(asked, rows)
    assert type(found.value) is type(expected.value), f"{found.value} / {expected.value}"
    assert isinstance(found.value, (UnknownName, InvalidInput, SchemaMismatch))
    assert len(str(found.value)) > 20


@pytest.mark.parametrize("rows", [[], {}, pl.DataFrame()], ids=["list", "dict", "frame"])
def test_no_rows_without_columns_have_an_answer_without_rows(
    client: FeatureClient, direct: FeatureStore, rows: Any
) -> None:
    for asked in (EVERYTHING, ["depot_state:vans", "courier_score:score"]):
        expected = direct.get_online_features(asked, rows)
        assert expected.frame.height == 0
        assert_same(client.get_online_features(asked, rows), expected)


def test_values_that_are_not_there_have_the_stores_own_causes(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        variables = environment(tmp_path, valkey.url)
        with closing(deploy(variables, system_clock)) as direct, running(variables) as server:
            valkey_client = redis.Redis.from_url(valkey.url)
            valkey_client.flushall()
            pushed = direct.registry.group("courier_score")
            direct.materialize([pushed.name])
            with FeatureClient(server.url, timeout_seconds=PATIENCE) as client:
                for asked in (
                    ["courier_score:score", "courier_state:load", "depot_state:vans"],
                    ["courier_score:score"],
                ):
                    rows = {**{name: [value] for name, value in OSLO.items()}, "courier": [WHOLE]}
                    expected = direct.get_online_features(asked, rows)
                    assert set(expected.causes) == {name.partition(":")[0] for name in asked} - {pushed.name}
                    assert_same(client.get_online_features(asked, rows), expected)


# --- pushes


def test_what_is_pushed_is_read_again_and_a_repeat_adds_nothing(client: FeatureClient, direct: FeatureStore) -> None:
    now = datetime.now(UTC) - HOUR
    values = {**VALUES, "speed": float("inf"), "load": float("nan"), "seen_at": now}
    schema = direct.registry.group("courier_state").stored_schema
    row = {"courier": 501, "event_time": now, **values}
    rows = pl.DataFrame([row], schema={name: schema[name] for name in row})
    first = client.push("courier_state", rows, idempotency_key="once")
    again = client.push("courier_state", rows, idempotency_key="once")
    assert (first.group, first.rows, first.was_repeated, again.was_repeated) == ("courier_state", 1, False, True)
    assert first.table_version == again.table_version
    assert first.is_online
    answer = client.get_online_features(EVERYTHING, {"courier": [501]})
    assert answer.frame.select(list(values)).equals(rows.select(list(values)))
    assert_same(answer, direct.get_online_features(EVERYTHING, {"courier": [501]}))


def test_a_push_that_cannot_be_is_refused_as_the_store_refuses_it(client: FeatureClient, direct: FeatureStore) -> None:
    now = datetime.now(UTC)
    wrong: list[tuple[str, Any]] = [
        ("no_such_group", {"courier": [1]}),
        ("courier_score", {"courier": [1], "event_time": [now]}),
        ("courier_score", {"courier": [1], "event_time": [now + timedelta(days=1)], "score": [1.0], "speed": [1.0]}),
    ]
    for group, rows in wrong:
        with pytest.raises(FeatureStoreError) as expected:
            direct.push(group, rows)
        with pytest.raises(FeatureStoreError) as found:
            client.push(group, rows)
        assert type(found.value) is type(expected.value)
    with pytest.raises(InvalidInput, match="cannot be sent as JSON"):
        client.push("courier_score", {"courier": [1], "score": [timedelta(1)]})


# --- who may


def test_a_key_opens_what_it_is_for_and_nothing_else(client: FeatureClient, server: Server, book: KeyBook) -> None:
    rights = {
        "service": Rights(("read",), services=("courier_v1",)),
        "group": Rights(("read",), groups=("courier_score",)),
        "push": Rights(("push",), groups=("courier_score",)),
    }
    rows = {"courier": [WHOLE]}
    asked: dict[str, Any] = {
        "service": "courier_v1",
        "its features": ["courier_state:speed", "courier_state:parcels"],
        "another of the group": ["courier_state:load"],
        "group": ["courier_score:score"],
        "both": ["courier_state:parcels", "courier_score:score"],
    }
    allowed = {"service": {"service", "its features"}, "group": {"group"}, "push": set[str]()}
    for name, right in rights.items():
        with FeatureClient(server.url, make_key(book, right)[1], timeout_seconds=PATIENCE) as mine:
            _until(lambda: _unless_not_allowed(lambda: mine.get_online_features("courier_v1", rows)), NotAuthenticated)
            for what, features in asked.items():
                if what in allowed[name]:
                    mine.get_online_features(features, rows)
                    continue
                with pytest.raises(NotAllowed, match="may not read") as refused:
                    mine.get_online_features(features, rows)
                assert type(refused.value) is NotAllowed
            pushed = {"courier": [7], "event_time": [datetime.now(UTC)], "score": [1.0], "speed": [1.0]}
            if name == "push":
                mine.push("courier_score", pushed)
            with pytest.raises(NotAllowed, match="may not push"):
                mine.push("courier_score" if name != "push" else "courier_state", pushed)


def _unless_not_allowed(act: Callable[[], object]) -> None:
    try:
        act()
    except NotAuthenticated:
        raise
    except NotAllowed:
        return


def test_a_revoked_key_is_refused_within_a_second_and_no_secret_is_ever_shown(
    client: FeatureClient, server: Server, book: KeyBook, caplog: pytest.LogCaptureFixture
) -> None:
    key_id, key = make_key(book, ALL_RIGHTS)
    rows, shown = {"courier": [WHOLE]}, []
    with (
        caplog.at_level(logging.DEBUG),
        CpuWatch() as cpu,
        FeatureClient(server.url, key, timeout_seconds=PATIENCE) as mine,
    ):
        cpu.add(server.process.pid, *worker_pids(server))
        shown += [repr(mine), str(mine), repr(mine._http), repr(mine._http.headers)]
        _until(lambda: mine.get_online_features("courier_v1", rows), NotAuthenticated)
        with pytest.raises(UnknownName) as unknown:
            mine.get_online_features("courier_v9", rows)
        book.revoke(key_id, person="tests", reason="leaked")
        revoked_at = time.monotonic()
        last = revoked_at
        while True:
            began = time.monotonic()
            try:
                mine.get_online_features("courier_v1", rows)
            except NotAuthenticated as error:
                shown.append("".join(traceback.format_exception(error)))
                break
            last = began
            assert last < revoked_at + PATIENCE
        with FeatureClient(server.url, timeout_seconds=PATIENCE) as nobody, pytest.raises(NotAuthenticated) as none:
            nobody.get_online_features("courier_v1", rows)
    print(f"the server refused the key {last - revoked_at:.3f} s after it was revoked")
    assert last - revoked_at < 1.0 * cpu.stretch(revoked_at, last)
    shown += [caplog.text, "".join(traceback.format_exception(unknown.value)), *server.said, str(none.value)]
    assert [text for text in shown if key.rpartition("_")[2] in text] == []
    assert "httpcore" in caplog.text, "the client's own parts were listened to"


@pytest.mark.exam
def test_over_tls_only_a_trusted_server_is_talked_to(variables: dict[str, str], tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    options = ("--cert", str(cert), "--key", str(key))
    with running(
        {**variables, "FEATURESTORE_AUTH": "off"}, *options, context=ssl.create_default_context(cafile=cert)
    ) as server:
        url, rows = f"https://localhost:{server.port}", {"courier": [WHOLE]}
        with FeatureClient(url, verify=cert, timeout_seconds=PATIENCE) as mine:
            assert mine.get_online_features("courier_v1", rows).frame["speed"].to_list() == [2.5]
        began = time.monotonic()
        with (
            FeatureClient(url, timeout_seconds=PATIENCE) as distrustful,
            pytest.raises(StoreUnavailable, match="CERTIFICATE"),
        ):
            distrustful.get_online_features("courier_v1", rows)
        assert time.monotonic() - began < PATIENCE / 2, "no second attempt would do better"


@pytest.mark.exam
def test_a_server_that_asks_for_no_keys_says_so_and_takes_any(variables: dict[str, str]) -> None:
    with running({**variables, "FEATURESTORE_AUTH": "off"}) as server:
        assert any("Auth is OFF" in line for line in server.said)
        with FeatureClient(server.url, "fs_whatever", timeout_seconds=PATIENCE) as mine:
            assert json.dumps(mine.get_online_features("courier_v1", {"courier": [WHOLE]}).to_dict())
