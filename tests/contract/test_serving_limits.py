"""What the server does when there is too much, too late or too little: joined reads, deadlines, caps, drains, stores away."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from featurestore.auth.authenticator import OpenAuthenticator, authenticator_of
from featurestore.auth.caller import Caller, Rights
from featurestore.declaration import Catalog, FeatureService, Online
from featurestore.errors import FeatureStoreError, StoreUnavailable
from featurestore.online.dynamo.provision import provision
from featurestore.online.reading.repairs import RepairCounts
from featurestore.online.reading.retrieval import OnlineFeatures
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.registry.history import RegistryHistory
from featurestore.serving.app import Serving, create_app
from featurestore.serving.coalescing import Coalescer
from featurestore.serving.options import Limits
from featurestore.serving.refusal import STATUS_OF, refusal_of
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.contract import dynamo
from tests.contract.asgi import Answer, alive, call
from tests.contract.couriers import (
    ABSENT,
    DAY,
    EMPTY,
    EVERYTHING,
    GROUPS,
    MEMORY,
    NOW,
    OLD,
    OWNER,
    PATIENT,
    WHOLE,
    KeptStore,
    clock,
    courier_score,
    courier_v1,
    deploy,
    environment,
)
from tests.contract.dynamo import Proxy
from tests.contract.test_read_through import frozen
from tests.scale import cases
from tests.unit.test_serving_readiness import StuckTier

ONLINE = "/get-online-features"
SPEED = {"features": ["courier_state:speed"], "entities": {"courier": [WHOLE]}}
PATIENCE = 30.0


class HeldStore(KeptStore):
    """Reads of entities wait until they are let go; what is read is written down."""

    def hold(self, behind: FeatureStore) -> "HeldStore":
        self.online = behind.online
        self.go, self.begun = threading.Event(), threading.Semaphore(0)
        self.sizes: list[int] = []
        self.timeouts: list[float] = []
        self.trouble: FeatureStoreError | None = None
        return self

    def get_online_features(self, features: Any, entity_rows: Any, **more: Any) -> OnlineFeatures:
        if isinstance(entity_rows, dict):
            self.sizes.append(len(next(iter(entity_rows.values()))))
            self.timeouts.append(more["timeout_seconds"])
            self.begun.release()
            assert self.go.wait(PATIENCE)
            if self.trouble:
                raise self.trouble
        return super().get_online_features(features, entity_rows, **more)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return deploy(environment(tmp_path_factory.mktemp("couriers"), MEMORY))


@pytest.fixture
def held(store: FeatureStore) -> Iterator[HeldStore]:
    made = HeldStore(store.settings, clock=clock).hold(store)
    yield made
    made.go.set()


@asynccontextmanager
async def served(store: FeatureStore, **options: Any) -> AsyncIterator[ASGIApp]:
    app = create_app(Serving(lambda: store, **{"limits": PATIENT, **options}))
    async with alive(app):
        yield app


async def ready(app: ASGIApp) -> Answer:
    """What /ready says once it says yes: it gives tiers less time than a busy machine may take."""
    end = monotonic() + PATIENCE
    while (answer := await call(app, "/ready")).status != 200 and monotonic() < end:
        await asyncio.sleep(0.01)
    return answer


async def begun(held: HeldStore) -> None:
    """A read is under way."""
    assert await asyncio.to_thread(held.begun.acquire, timeout=PATIENCE)


def test_requests_that_come_during_a_read_are_read_together(held: HeldStore) -> None:
    async def main() -> list[Answer]:
        async with served(held) as app:
            couriers = [WHOLE, EMPTY, OLD, ABSENT, WHOLE]
            first = asyncio.create_task(call(app, ONLINE, SPEED))
            await begun(held)
            rest = [
                asyncio.create_task(call(app, ONLINE, {**SPEED, "entities": {"courier": [one] * (n + 1)}}))
                for n, one in enumerate(couriers)
            ]
            other = asyncio.create_task(call(app, ONLINE, {**SPEED, "full_feature_names": True}))
            await begun(held)
            held.go.set()
            return [await one for one in (first, *rest, other)]

    answers = asyncio.run(main())
    assert sorted(held.sizes) == [1, 1, 1 + 2 + 3 + 4 + 5], (
        "one read for the first, one for all that waited, one of its own"
    )
    statuses = [answer.json["results"][1]["statuses"] for answer in answers]
    expected = ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND", "PRESENT"]
    assert statuses == [["PRESENT"], *([one] * (n + 1) for n, one in enumerate(expected)), ["PRESENT"]]


requests_made = st.builds(
    lambda features, couriers, full, accept: (features, couriers, full, accept),
    st.lists(st.sampled_from(EVERYTHING[:3]), min_size=1, max_size=3, unique=True) | st.just("courier_v1"),
    st.lists(st.sampled_from([WHOLE, EMPTY, OLD, ABSENT, None]), max_size=6),
    st.booleans(),
    st.sampled_from(["application/json", "application/vnd.apache.arrow.stream", "application/x-protobuf"]),
)


@settings(max_examples=cases(300, 10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(requests_made, min_size=2, max_size=30))
def test_whoever_is_read_together_with_others_gets_what_it_gets_alone(store: FeatureStore, asked: list[Any]) -> None:
    def sent(app: ASGIApp, one: Any) -> Any:
        features, couriers, full, accept = one
        what = {"feature_service": features} if isinstance(features, str) else {"features": features}
        body = {**what, "entities": {"courier": couriers}, "full_feature_names": full}
        return call(app, ONLINE, body, headers={"accept": accept})

    async def main() -> tuple[list[Answer], list[Answer]]:
        async with served(store) as app:
            together = await asyncio.gather(*(sent(app, one) for one in asked))
            return together, [await sent(app, one) for one in asked]

    together, alone = asyncio.run(main())
    assert [answer.status for answer in together] == [200] * len(asked)
    assert [answer.body for answer in together] == [answer.body for answer in alone]


def test_a_read_holds_no_more_than_the_largest_batch() -> None:
    sizes: list[int] = []

    def read(asked: list[int]) -> list[int]:
        sizes.append(sum(asked))
        return [one * 10 for one in asked]

    async def main() -> list[int | None]:
        coalescer: Coalescer[int, int] = Coalescer(read, largest=10)
        late = asyncio.get_running_loop().time() + PATIENCE
        answers = await asyncio.gather(*(coalescer.ask("kind", n, size=n, deadline=late) for n in (4, 4, 4, 25, 1, 1)))
        coalescer.close()
        return list(answers)

    assert asyncio.run(main()) == [40, 40, 40, 250, 10, 10]
    assert sizes == [8, 4, 25, 2]


def test_an_error_in_a_read_reaches_everyone_who_waits_and_the_next_read_goes_on() -> None:
    def read(asked: list[str]) -> list[str]:
        if "bad" in asked:
            raise ArithmeticError("no")
        return asked

    async def main() -> list[Any]:
        coalescer: Coalescer[str, str] = Coalescer(read)
        late = asyncio.get_running_loop().time() + PATIENCE
        both = await asyncio.gather(
            *(coalescer.ask("k", one, size=1, deadline=late) for one in ("bad", "good")), return_exceptions=True
        )
        again = await coalescer.ask("k", "good", size=1, deadline=late)
        coalescer.close()
        return [*both, again]

    first, second, again = asyncio.run(main())
    assert isinstance(first, ArithmeticError)
    assert isinstance(second, ArithmeticError)
    assert again == "good"


def test_when_time_is_up_the_answer_has_no_values_and_the_server_goes_on(held: HeldStore) -> None:
    async def main() -> tuple[Answer, float, Answer, bytes]:
        async with served(held) as app:
            started = monotonic()
            late = await call(app, ONLINE, SPEED, headers={"x-request-timeout-ms": "60"})
            took = monotonic() - started
            held.go.set()
            after = await call(app, ONLINE, SPEED, headers={"x-request-timeout-ms": "10000"})
            return late, took, after, (await call(app, "/metrics")).body

    late, took, after, metrics = asyncio.run(main())
    assert (late.status, late.json["results"][1]["statuses"], late.json["results"][1]["values"]) == (
        200,
        ["INVALID"],
        [None],
    )
    assert late.json["results"][0]["values"] == [WHOLE]
    assert 0.05 < took < 5
    assert after.json["results"][1]["values"] == [2.5]
    assert b'featurestore_unanswered_total{cause="deadline"} 1.0' in metrics


def test_a_joined_read_has_the_time_of_its_most_patient_request(held: HeldStore) -> None:
    async def main() -> None:
        async with served(held) as app:
            headers = [{"x-request-timeout-ms": str(ms)} for ms in (9_000, 3_000, 6_000)]
            first = asyncio.create_task(call(app, ONLINE, SPEED, headers=headers[0]))
            await begun(held)
            rest = [asyncio.create_task(call(app, ONLINE, SPEED, headers=one)) for one in headers[1:]]
            await asyncio.sleep(0)
            held.go.set()
            await asyncio.gather(first, *rest)

    asyncio.run(main())
    assert 3 < held.timeouts[0] <= 0.9 * 9
    assert [seconds for seconds in held.timeouts[1:] if seconds > 0.9 * 6] == []


def test_a_request_may_not_ask_for_more_time_than_the_server_gives(held: HeldStore) -> None:
    async def main() -> tuple[Answer, float]:
        async with served(held, limits=Limits(timeout_seconds=0.01, longest_timeout_seconds=0.05)) as app:
            started = monotonic()
            return await call(app, ONLINE, SPEED, headers={"x-request-timeout-ms": "60000"}), monotonic() - started

    answer, took = asyncio.run(main())
    assert answer.json["results"][1]["statuses"] == ["INVALID"]
    assert took < 10


def test_whatever_the_store_raises_is_an_answer_without_values(held: HeldStore) -> None:
    held.go.set()
    held.trouble = StoreUnavailable("Redis at somewhere does not answer.")

    async def main() -> list[Answer]:
        async with served(held) as app:
            accepts = ["application/json", "application/vnd.apache.arrow.stream", "application/x-protobuf"]
            found = [await call(app, ONLINE, SPEED, headers={"accept": one}) for one in accepts]
            found.append(await call(app, ONLINE, {**SPEED, "include_serving_metadata": True}))
            return [*found, await call(app, "/metrics")]

    *answers, told, metrics = asyncio.run(main())
    assert list(told.json["causes"]) == ["courier_state"]
    assert [answer.status for answer in answers] == [200] * 3
    assert answers[0].json["results"][1] == {
        "values": [None],
        "statuses": ["INVALID"],
        "event_timestamps": ["1970-01-01T00:00:00Z"],
    }
    assert b"INVALID" in answers[1].body
    assert b'featurestore_unanswered_total{cause="StoreUnavailable"} 4.0' in metrics.body


class FaultyAuthenticator(OpenAuthenticator):
    """Raises what no server expects."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def authenticate(self, authorization: str | None, *, now: datetime, asked: str = "") -> Caller:
        raise self.error


@pytest.mark.parametrize("error", [ZeroDivisionError("a secret"), pl.exceptions.PanicException("a secret")])
@pytest.mark.parametrize("path", [ONLINE, "/push", "/write-to-online-store", "/metrics"])
def test_an_error_that_nobody_foresaw_is_answered_like_every_other_and_logged(
    store: FeatureStore, path: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> tuple[Answer, str]:
        async with served(store, authenticator=FaultyAuthenticator(error)) as app:
            answer = await call(app, path, None if path == "/metrics" else {})
            return answer, (await call(app, "/health")).json["status"]

    answer, health = asyncio.run(main())
    assert (answer.status, answer.headers["content-type"], health) == (500, "application/json", "ok")
    assert set(answer.json) == {"error", "message"}
    assert answer.json["error"] == "InternalError"
    assert "secret" not in answer.json["message"]
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert path in told.getMessage()
    assert told.exc_info is not None
    assert told.exc_info[1] is error


def test_more_requests_than_the_server_takes_are_told_to_come_again(held: HeldStore) -> None:
    async def main() -> tuple[list[Answer], Answer, list[Answer]]:
        async with served(held, limits=replace(PATIENT, in_flight=2)) as app:
            patient = {"x-request-timeout-ms": "10000"}
            taken = [asyncio.create_task(call(app, ONLINE, SPEED, headers=patient)) for _ in range(2)]
            await begun(held)
            refused = await call(app, ONLINE, SPEED)
            probes = [await call(app, "/health"), await ready(app), await call(app, "/metrics")]
            held.go.set()
            answered = [await one for one in taken]
            return [*answered, await call(app, ONLINE, SPEED)], refused, probes

    answered, refused, probes = asyncio.run(main())
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert "answers 2 requests at a time" in refused.json["message"]
    assert [one.status for one in [*answered, *probes]] == [200] * 6
    assert b"featurestore_in_flight_requests 2.0" in probes[2].body


@pytest.mark.parametrize("chunks", [None, [b" " * 60] * 3, [b"", b" " * 101]])
def test_a_body_that_is_too_long_is_refused(store: FeatureStore, chunks: list[bytes] | None) -> None:
    async def main() -> Answer:
        async with served(store, limits=replace(PATIENT, body_bytes=100)) as app:
            whole = b" " * 101 if chunks is None else None
            headers = {} if chunks else {"content-length": "101"}
            return await call(app, ONLINE, whole, headers=headers, chunks=chunks)

    answer = asyncio.run(main())
    assert (answer.status, answer.json["error"]) == (413, "BodyTooLong")
    assert "takes 100" in answer.json["message"]


def test_a_body_in_parts_is_put_together(store: FeatureStore) -> None:
    async def main() -> Answer:
        async with served(store) as app:
            parts = [b'{"feature_service":"courier_v1",', b"", b'"entities":{"courier":[1]}}']
            return await call(app, ONLINE, chunks=parts)

    assert asyncio.run(main()).json["results"][1]["values"] == [2.5]


def test_too_many_values_are_refused_with_how_many_may_be_asked(store: FeatureStore) -> None:
    async def main() -> list[Answer]:
        async with served(store, limits=replace(PATIENT, values=24)) as app:
            bodies = [{"features": EVERYTHING, "entities": {"courier": [1] * n}} for n in (2, 3)]
            return [await call(app, ONLINE, body) for body in bodies]

    fine, refused = asyncio.run(main())
    assert (fine.status, refused.status, refused.json["error"]) == (200, 413, "BatchTooLarge")
    assert "2 entities at a time" in refused.json["message"]


def test_a_draining_server_is_not_ready_and_still_answers(store: FeatureStore) -> None:
    is_draining = threading.Event()

    async def main() -> list[Answer]:
        async with served(store, is_draining=is_draining.is_set) as app:
            before = await ready(app)
            is_draining.set()
            return [before, *[await call(app, path) for path in ("/ready", "/health")], await call(app, ONLINE, SPEED)]

    assert [answer.status for answer in asyncio.run(main())] == [200, 503, 200, 200]


def test_a_store_that_keeps_silent_delays_neither_the_start_nor_metrics_nor_other_reads(store: FeatureStore) -> None:
    silent = KeptStore(store.settings, clock=clock)
    stuck: Any = StuckTier()
    silent.online = SimpleNamespace(tier=lambda _: stuck, hot_key_counts=None, repair_counts=RepairCounts())

    async def main() -> tuple[list[Answer], list[Answer], Answer]:
        async with served(silent) as app:
            probes = [asyncio.create_task(call(app, "/ready")) for _ in range(40)]
            await asyncio.sleep(0)
            beside = [await call(app, "/metrics"), await call(app, "/health")]
            found = [await one for one in probes]
            stuck.go.set()
            while (after := await call(app, "/ready")).status != 200:
                await asyncio.sleep(0.01)
            return beside, found, after

    beside, found, after = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert [one.status for one in [*beside, after]] == [200] * 3
    assert {one.status for one in found} == {503}
    assert "the hot tier did not answer within" in found[0].json["message"]


def test_a_frozen_server_is_told_by_readiness_and_so_is_its_return(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        own = deploy(environment(tmp_path, server.url))

        async def main() -> list[Answer]:
            async with served(own) as app:
                found = [await ready(app)]
                with frozen(server):
                    found.append(await call(app, "/ready"))
                return [*found, await ready(app)]

        answers = asyncio.run(main())
    assert [answer.status for answer in answers] == [200, 503, 200]
    told = answers[1].json["message"]
    assert "does not answer" in told or "did not answer within" in told, "by the tier, or of it"


def test_readiness_and_values_follow_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "valkey"
    with EmbeddedValkey(folder) as server:
        own = deploy(environment(tmp_path, server.url))
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])

        async def main() -> list[Answer]:
            found = []
            async with served(own) as app:
                found += [await ready(app), await call(app, ONLINE, SPEED)]
                await asyncio.to_thread(server.stop)
                found += [await call(app, "/ready"), await call(app, "/health"), await call(app, ONLINE, SPEED)]
                gaps = (await call(app, "/metrics")).body
                assert b'featurestore_unanswered_total{cause="no answer"} 1.0' in gaps
                with EmbeddedValkey(folder, port):
                    await asyncio.to_thread(own.materialize)
                    found += [await ready(app), await call(app, ONLINE, SPEED)]
            return found

        answers = asyncio.run(main())
    assert [answer.status for answer in answers] == [200, 200, 503, 200, 200, 200, 200]
    statuses = [answers[i].json["results"][1]["statuses"] for i in (1, 4, 6)]
    assert statuses == [["PRESENT"], ["INVALID"], ["PRESENT"]]


def test_every_tier_is_met_before_the_first_request(
    moto_endpoint: str, moto_proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the warm one, whose client takes half a second to make, and which a request needs first when the hot one fails."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    table = dynamo.url_of(moto_proxy.endpoint, "met-first")
    provision(dynamo.url_of(moto_endpoint, "met-first"))
    store = FeatureStore.from_env({**environment(tmp_path, MEMORY), "FEATURESTORE_WARM_URL": table})
    group = replace(courier_score, online=Online(ttl=DAY, tiers=("hot", "warm")))
    RegistryHistory(store.settings.root).apply(Catalog([], [group], []), clock, "tests")

    async def main() -> None:
        async with served(store):
            assert set(moto_proxy.operations()) == {"BatchGetItem"}

    moto_proxy.requests.clear()
    asyncio.run(main())


def test_a_new_registry_is_served_without_a_restart(tmp_path: Path) -> None:
    first = deploy(environment(tmp_path, MEMORY))
    later = FeatureService("courier_v2", features=[courier_score["score"]], owner=OWNER)
    request = {"feature_service": "courier_v2", "entities": {"courier": [WHOLE]}}

    def opened() -> FeatureStore:
        made = KeptStore(first.settings, clock=clock)
        made.online = first.online
        return made

    async def main() -> tuple[Answer, Answer]:
        app = create_app(Serving(opened, registry_seconds=0.01, limits=PATIENT))
        async with alive(app):
            before = await call(app, ONLINE, request)
            catalog = Catalog([], GROUPS, [courier_v1, later])
            await asyncio.to_thread(RegistryHistory(first.settings.root).apply, catalog, clock, "tests")
            end = monotonic() + PATIENCE
            while (answer := await call(app, ONLINE, request)).status != 200 and monotonic() < end:
                await asyncio.sleep(0.01)
            return before, answer

    before, after = asyncio.run(main())
    assert (before.status, after.status) == (404, 200)
    assert after.json["results"][1]["values"] == [0.5]


def test_without_a_registry_there_is_no_health_and_with_one_there_is(tmp_path: Path) -> None:
    variables = environment(tmp_path, MEMORY)

    async def main() -> list[int]:
        app = create_app(Serving(lambda: KeptStore(Settings.from_env(variables), clock=clock), registry_seconds=0.01))
        async with alive(app):
            before = [(await call(app, path)).status for path in ("/health", "/ready")]
            before.append((await call(app, ONLINE, SPEED)).status)
            await asyncio.to_thread(deploy, variables)
            end = monotonic() + PATIENCE
            while (await call(app, "/health")).status != 200 and monotonic() < end:
                await asyncio.sleep(0.01)
            return [*before, (await call(app, "/health")).status]

    assert asyncio.run(main()) == [503, 503, 503, 200]


def test_with_auth_on_keys_decide_and_leave_no_trace(
    store: FeatureStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    on = Settings.from_env({**environment(tmp_path, MEMORY), "FEATURESTORE_AUTH": "on"})
    (tmp_path / "store").mkdir()
    book = on.key_book(clock)
    book.prepare()
    until = NOW + timedelta(days=1)
    reader = book.create("reader", Rights(("read",), ("courier_v1",)), owner=OWNER, person="t", expires_at=until)[1]
    pusher = book.create(
        "pusher", Rights(("push",), (), ("courier_score",)), owner=OWNER, person="t", expires_at=until
    )[1]
    service = {"feature_service": "courier_v1", "entities": {"courier": [WHOLE]}}
    push = {"push_source_name": "courier_score", "df": {}, "to": "offline"}

    async def main() -> dict[str, Answer]:
        async with served(store, authenticator=authenticator_of(on, clock)) as app:

            def bearing(key: str) -> dict[str, str]:
                return {"authorization": f"Bearer {key}"}

            return {
                "none": await call(app, ONLINE, service),
                "wrong": await call(app, ONLINE, service, headers=bearing(reader[:-1] + "x")),
                "service": await call(app, ONLINE, service, headers=bearing(reader)),
                "again": await call(app, ONLINE, service, headers=bearing(reader)),
                "other": await call(app, ONLINE, {**SPEED, "features": EVERYTHING}, headers=bearing(reader)),
                "no push": await call(app, "/push", push, headers=bearing(reader)),
                "push": await call(app, "/push", push, headers=bearing(pusher)),
                "no read": await call(app, ONLINE, service, headers=bearing(pusher)),
                "metrics": await call(app, "/metrics"),
                "scrape": await call(app, "/metrics", headers=bearing(reader)),
                "health": await call(app, "/health"),
            }

    answers = asyncio.run(main())
    assert {name: answer.status for name, answer in answers.items()} == {
        "none": 401,
        "wrong": 401,
        "service": 200,
        "again": 200,
        "other": 403,
        "no push": 403,
        "push": 200,
        "no read": 403,
        "metrics": 401,
        "scrape": 200,
        "health": 200,
    }
    assert answers["none"].headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in answers["none"].json["message"]
    everything = caplog.text + "".join(answer.body.decode() for answer in answers.values())
    assert not [key for key in (reader, pusher) if key.rpartition("_")[2] in everything]


def test_a_key_is_told_of_no_names_but_those_that_it_may_use(store: FeatureStore, tmp_path: Path) -> None:
    on = Settings.from_env({**environment(tmp_path, MEMORY), "FEATURESTORE_AUTH": "on"})
    (tmp_path / "store").mkdir()
    book = on.key_book(clock)
    book.prepare()

    def key(*rights: Any) -> dict[str, str]:
        made = book.create("k", Rights(*rights), owner=OWNER, person="t", expires_at=NOW + timedelta(days=1))[1]
        return {"authorization": f"Bearer {made}"}

    def read(*features: str) -> tuple[str, dict[str, Any]]:
        return ONLINE, {"features": features, "entities": {"courier": [WHOLE]}}

    of_service, of_group, pusher = (
        key(("read",), ("courier_v1",)),
        key(("read",), (), ("courier_score",)),
        key(("push",), (), ("courier_score",)),
    )
    no_service = (ONLINE, {"feature_service": "courier_v2", "entities": {"courier": [WHOLE]}})
    push = ("/push", {"push_source_name": "courier_scores", "df": {}})
    asked = [
        (of_service, read("courier_stat:speed"), "The registry has ['courier_state']. Did you mean 'courier_state'?"),
        (of_service, read("depot_stat:vans"), "The registry has ['courier_state']."),
        (of_service, read("courier_state:sped"), "has ['courier_state:parcels', 'courier_state:speed']. Did you"),
        (of_service, no_service, "The registry has ['courier_v1']. Did you mean 'courier_v1'?"),
        (of_group, read("courier_scor:score"), "The registry has ['courier_score']. Did you mean 'courier_score'?"),
        (of_group, no_service, "The registry has []."),
        (of_group, push, "The registry has []."),
        (pusher, push, "The registry has ['courier_score']. Did you mean 'courier_score'?"),
        (pusher, read("courier_scor:score"), "The registry has []."),
        (key(("read", "push"), ("*",), ("*",)), read("nothing:x"), "'courier_past', 'courier_score', 'courier_state'"),
    ]

    async def main() -> list[Answer]:
        async with served(store, authenticator=authenticator_of(on, clock)) as app:
            return [await call(app, path, body, headers=headers) for headers, (path, body), _ in asked]

    for answer, (_, request, told) in zip(asyncio.run(main()), asked, strict=True):
        assert answer.status == 404, request
        assert told in answer.json["message"], request


def test_metrics_count_what_was_given(store: FeatureStore) -> None:
    couriers = [WHOLE, WHOLE, EMPTY, OLD, ABSENT]

    async def main() -> str:
        async with served(store) as app:
            body = {"feature_service": "courier_v1", "entities": {"courier": couriers}}
            await call(app, ONLINE, body)
            await call(app, ONLINE, {**body, "feature_service": "made up"})
            return (await call(app, "/metrics")).body.decode()

    lines = asyncio.run(main()).splitlines()
    given = {"PRESENT": 2, "NULL_VALUE": 1, "OUTSIDE_MAX_AGE": 1}
    for status, entities in given.items():
        name = f'featurestore_values_total{{group="courier_state",status="{status}",tier="hot"}}'
        assert f"{name} {2.0 * entities}" in lines
    assert 'featurestore_values_total{group="courier_state",status="NOT_FOUND",tier="none"} 2.0' in lines
    assert 'featurestore_requests_total{code="200",path="/get-online-features"} 1.0' in lines
    assert 'featurestore_requests_total{code="404",path="/get-online-features"} 1.0' in lines
    assert 'featurestore_request_seconds_count{service="courier_v1"} 1.0' in lines
    assert 'featurestore_value_age_seconds_sum{group="courier_state"} 172800.0' in lines
    assert "featurestore_coalesced_requests_count 1.0" in lines
    assert not [line for line in lines if "made up" in line], "what clients make up is no label"


def test_metrics_show_the_cache_of_hot_keys(tmp_path: Path) -> None:
    own = deploy({**environment(tmp_path, MEMORY), "FEATURESTORE_HOT_KEYS": "10"})
    own.online._hot_keys._ttl_seconds = PATIENCE  # type: ignore[union-attr]  # else it may end between two reads

    async def main() -> list[str]:
        async with served(own) as app:
            for _ in range(3):
                await call(app, ONLINE, SPEED)
            return (await call(app, "/metrics")).body.decode().splitlines()

    lines = asyncio.run(main())
    assert 'featurestore_hot_key_lookups_total{outcome="miss"} 1.0' in lines
    assert 'featurestore_hot_key_lookups_total{outcome="hit"} 2.0' in lines
    assert "featurestore_hot_key_entries 1.0" in lines
    assert 'featurestore_repairs_total{outcome="written"} 0.0' in lines


def every_error(kind: type[FeatureStoreError]) -> list[type[FeatureStoreError]]:
    return [kind, *(one for sub in kind.__subclasses__() for one in every_error(sub))]


def test_every_error_of_the_library_has_its_status() -> None:
    mapped: dict[str, int] = {}
    for kind in every_error(FeatureStoreError)[1:]:
        if kind.__module__.startswith("featurestore."):
            mapped[kind.__name__] = refusal_of(kind("why")).status
    assert set(STATUS_OF) <= set(every_error(FeatureStoreError))
    of_alerts = {"SinkUnavailable", "AlertRefused"}  # the platform's sensors deliver alerts, and no request does
    assert {name for name, status in mapped.items() if status >= 500} - of_alerts == {"StoreUnavailable", "NotFresh"}
    assert refusal_of(FeatureStoreError("why")).status == 503


def test_the_library_and_its_command_line_import_no_server() -> None:
    server = {"granian", "starlette", "msgspec", "prometheus_client"}
    code = f"import sys, featurestore, featurestore.cli.main; sys.exit(str(sorted({server} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stderr.strip() == "[]"
