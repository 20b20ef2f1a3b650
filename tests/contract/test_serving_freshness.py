"""What the feature server says of the freshness of groups, asked of the application in this process: in every body, and by every mode."""

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from featurestore.online.published import Published
from featurestore.online.tier import TierPart
from featurestore.serving.app import Serving, create_app
from featurestore.store import FeatureStore
from tests.contract.asgi import Answer, alive, call
from tests.contract.couriers import HOUR, MEMORY, NOW, OLD, PATIENT, WHOLE, deploy, environment
from tests.contract.online_messages import message_classes

ONLINE = "/get-online-features"
SPEED = {"features": ["courier_state:speed"], "entities": {"courier": [WHOLE, OLD]}}
BODIES = {
    "json": "application/json",
    "arrow": "application/vnd.apache.arrow.stream",
    "protobuf": "application/x-protobuf",
}
OK = Published(NOW, "OK", NOW - HOUR, NOW - HOUR)
BREACH = Published(NOW, "BREACH", NOW - HOUR, NOW - 2 * HOUR, since=NOW - HOUR / 2, cause="arrival")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return deploy(environment(tmp_path_factory.mktemp("couriers"), MEMORY))


@pytest.fixture
def store(made: FeatureStore) -> Iterator[FeatureStore]:
    """Of which nothing is published."""
    made.online.known_freshness._known.clear()
    part(made)._published.clear()
    return made


def part(store: FeatureStore) -> Any:
    (only,) = store.online.hot.parts()
    return only


def tell(store: FeatureStore, **records: Published) -> None:
    own: TierPart = part(store)
    own.publish(records)


def ask(store: FeatureStore, *bodies: Any, **more: Any) -> list[Answer]:
    """Requests at one time to an application of their own."""

    async def once() -> list[Answer]:
        app = create_app(Serving(lambda: store, limits=PATIENT))
        async with alive(app):
            await call(app, ONLINE, {**SPEED, "entities": {"courier": []}})
            return list(await asyncio.gather(*(call(app, ONLINE, body, **more) for body in bodies)))

    return asyncio.run(once())


def test_a_default_request_gets_feast_s_body_and_the_state_in_a_header(store: FeatureStore) -> None:
    (unknown,) = ask(store, SPEED)
    assert unknown.headers["x-freshness-state"] == "UNKNOWN;group=courier_state;slo=300.000"
    tell(store, courier_state=OK)
    (well,) = ask(store, SPEED)
    assert well.headers["x-freshness-state"] == "OK;group=courier_state;lag=0.000;slo=300.000"
    assert well.body == unknown.body
    assert set(well.json) == {"metadata", "results"}


def test_a_breach_is_told_unasked_beside_what_feast_reads(store: FeatureStore) -> None:
    tell(store, courier_state=BREACH)
    (answer,) = ask(store, SPEED)
    assert answer.headers["x-freshness-state"] == "BREACH;group=courier_state;lag=3600.000;slo=300.000"
    told = answer.json["freshness"]
    assert (told["state"], told["degraded"]) == ("BREACH", True)
    (group,) = told["groups"]
    assert datetime.fromisoformat(group.pop("since")) == NOW - HOUR / 2
    assert {name: group[name] for name in ("group", "state", "lag_seconds", "slo_seconds", "cause")} == {
        "group": "courier_state",
        "state": "BREACH",
        "lag_seconds": 3600.0,
        "slo_seconds": 300.0,
        "cause": "arrival",
    }
    assert answer.json["results"][1]["values"] == [2.5, None], "degrade serves what is within its max_age"


def test_every_body_carries_the_state_lag_and_slo_of_each_group(store: FeatureStore) -> None:
    tell(store, courier_state=OK, courier_score=BREACH)
    body = {
        "features": ["courier_score:score", "courier_state:load"],
        "entities": {"courier": [WHOLE]},
        "freshness": "degrade",
    }
    found = {kind: ask(store, body, headers={"accept": accept})[0] for kind, accept in BODIES.items()}
    told = found["json"].json["freshness"]
    assert [(one["group"], one["state"]) for one in told["groups"]] == [
        ("courier_score", "BREACH"),
        ("courier_state", "OK"),
    ]
    with pa.ipc.open_stream(found["arrow"].body) as stream:
        assert json.loads(stream.schema.metadata[b"freshness"]) == told
    message = message_classes()["OnlineFeatures"].FromString(found["protobuf"].body)
    states = message.DESCRIPTOR.file.enum_types_by_name["State"].values_by_number
    assert [
        (one.group, states[one.state].name, one.lag_seconds, one.slo_seconds, one.cause) for one in message.freshness
    ] == [(one["group"], one["state"], one["lag_seconds"], one["slo_seconds"], one["cause"]) for one in told["groups"]]
    assert [one.last_materialized_at for one in message.freshness] == [int((NOW - HOUR).timestamp()) * 1_000_000] * 2
    assert {answer.headers["x-freshness-state"].partition(";")[0] for answer in found.values()} == {"BREACH"}


@pytest.mark.parametrize("published", [None, BREACH], ids=["nothing", "a breach"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_strict_request_is_refused_as_a_whole_and_told_why(
    store: FeatureStore, published: Published | None, kind: str
) -> None:
    if published is not None:
        tell(store, courier_state=published)
    accept = {"accept": BODIES[kind]}
    (refused,) = ask(store, {**SPEED, "freshness": "strict"}, headers=accept)
    assert (refused.status, refused.json["error"], refused.headers["cache-control"]) == (503, "NotFresh", "no-store")
    assert set(refused.json) == {"error", "message", "groups"}
    (group,) = refused.json["groups"]
    state, cause, lag = ("UNKNOWN", "unpublished", None) if published is None else ("BREACH", "arrival", 3600.0)
    assert (group["group"], group["state"], group["cause"]) == ("courier_state", state, cause)
    assert (group["lag_seconds"], group["slo_seconds"]) == (lag, 300.0)
    assert "courier_state" in refused.json["message"]
    tell(store, courier_state=Published(NOW + HOUR, "WARN", NOW, NOW))
    (answered,) = ask(store, {**SPEED, "freshness": "strict"}, headers=accept)
    assert answered.status == 200


def test_a_header_says_the_same_for_clients_that_cannot_change_their_bodies_and_the_body_counts(
    store: FeatureStore,
) -> None:
    for said in ("stale_ok", "stale-ok"):
        (old,) = ask(store, SPEED, headers={"x-freshness": said})
        assert old.json["results"][1]["values"] == [2.5, 2.5]
        assert old.json["results"][1]["statuses"] == ["PRESENT", "OUTSIDE_MAX_AGE"]
        assert old.json["freshness"]["groups"][0]["state"] == "UNKNOWN"
    assert ask(store, SPEED, headers={"x-freshness": "strict"})[0].status == 503
    assert ask(store, {**SPEED, "freshness": "degrade"}, headers={"x-freshness": "strict"})[0].status == 200
    (bad,) = ask(store, SPEED, headers={"x-freshness": "fresh"})
    assert (bad.status, bad.json["error"]) == (400, "InvalidHeader")
    assert ask(store, {**SPEED, "freshness": "fresh"})[0].status == 422


def test_requests_of_every_mode_that_come_at_once_get_what_each_asked_for(store: FeatureStore) -> None:
    tell(store, courier_state=BREACH)
    modes = ["degrade", "strict", "stale_ok", None] * 3
    answers = ask(store, *[{**SPEED, "freshness": mode} for mode in modes])
    for mode, answer in zip(modes, answers, strict=True):
        if mode == "strict":
            assert answer.status == 503
            continue
        assert answer.json["results"][1]["values"] == [2.5, 2.5 if mode == "stale_ok" else None]
        assert answer.json["freshness"]["degraded"] is True


def test_a_strict_request_that_nobody_answered_in_time_is_judged_by_what_is_known(store: FeatureStore) -> None:
    soon = {"x-request-timeout-ms": "1"}
    part(store).fail("away")
    try:
        (refused,) = ask(store, {**SPEED, "freshness": "strict"}, headers=soon)
        (answered,) = ask(store, SPEED, headers=soon)
    finally:
        part(store).fail("")
    assert (refused.status, refused.json["error"]) == (503, "NotFresh")
    assert answered.status == 200
    assert answered.headers["x-freshness-state"].startswith("UNKNOWN")


def test_reads_are_counted_by_group_and_state(store: FeatureStore) -> None:
    tell(store, courier_state=BREACH)

    async def main() -> str:
        app = create_app(Serving(lambda: store, limits=PATIENT))
        async with alive(app):
            for mode in (None, "strict", "stale_ok"):
                await call(app, ONLINE, {**SPEED, "freshness": mode})
            return (await call(app, "/metrics")).body.decode()

    assert 'featurestore_group_reads_total{group="courier_state",state="BREACH"} 3.0' in asyncio.run(main())


def test_the_document_describes_the_modes(store: FeatureStore) -> None:
    async def main() -> Any:
        app = create_app(Serving(lambda: store, limits=PATIENT))
        async with alive(app):
            return (await call(app, "/openapi.json")).json

    document = asyncio.run(main())
    field = document["components"]["schemas"]["OnlineRequest"]["properties"]["freshness"]
    assert field["enum"] == ["strict", "degrade", "stale_ok", None]
    headers = document["paths"][ONLINE]["post"]["responses"]["200"]["headers"]
    assert "X-Freshness-State" in headers
