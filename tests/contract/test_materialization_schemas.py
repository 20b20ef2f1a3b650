"""A group's declaration changes while its copy is served: features come and go, ttl and max age change, a version 2 begins.

All of it over the hot tier, and over the warm one.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
import redis

from featurestore.declaration import Catalog, Feature, FeatureGroup
from featurestore.errors import StaleWriter
from featurestore.offline.intake import row_schema
from featurestore.online.dynamo.provision import provision
from featurestore.online.materialization.materialize import materialize
from featurestore.online.tier import TierPart
from featurestore.registry.history import RegistryHistory
from featurestore.store import FeatureStore
from tests.contract import dynamo
from tests.contract.riders import CITY, GROUP, HOUR, START, TRIPS, Riders, declared, hour, rides, row

NOON = START + 12 * HOUR
RATING = Feature("rating", pl.Float64, "Mean rating")


class WarmRiders(Riders):
    """The same group in a table of DynamoDB: where a deployment has one and nothing else is declared, it is the group's tier."""

    def __init__(self, folder: Path, url: str, warm_url: str) -> None:
        self.warm_url = warm_url
        super().__init__(folder, url, now=NOON)

    def declare(self, group: FeatureGroup) -> None:
        super().declare(group)
        self.store = FeatureStore(replace(self.store.settings, warm_url=self.warm_url), clock=self.clock)

    @property
    def parts(self) -> Sequence[TierPart]:
        return self.store.online.parts_of(self.group)


@pytest.fixture(params=["hot", "warm"])
def riders(
    request: pytest.FixtureRequest, tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Riders]:
    redis.Redis.from_url(valkey_url).flushall()
    if request.param == "hot":
        made = Riders(tmp_path, valkey_url, now=NOON)
    else:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        warm_url = dynamo.url_of(request.getfixturevalue("moto_endpoint"), f"riders-{uuid4().hex}")
        provision(warm_url)
        made = WarmRiders(tmp_path, valkey_url, warm_url)
    yield made
    assert {part.tier for part in made.parts} == {request.param}
    made.close()


def message(riders: Riders, rider: str) -> bytes:
    """What the tier holds of a rider."""
    if isinstance(riders, WarmRiders):
        (stored,) = riders.store.online.warm.read_many({GROUP: [f"{GROUP}:{rider}".encode()]})[GROUP].messages
    else:
        stored = riders.client.get(f"{GROUP}:{rider}")  # type: ignore[assignment]
    assert isinstance(stored, bytes)
    return stored


def lifetime(riders: Riders, rider: str) -> timedelta:
    """How long the server will still keep a rider."""
    return timedelta(milliseconds=int(riders.client.pttl(f"{GROUP}:{rider}")))


def test_a_changed_ttl_or_max_age_builds_the_copy_anew(riders: Riders) -> None:
    riders.promote([7, 10], [row("a", 7, 1), row("b", 10, 2)])
    riders.step()
    riders.declare(declared(max_age=5 * HOUR))
    assert riders.step().was_rebuilt
    assert riders.statuses("a", "b") == ["PRESENT", "PRESENT"]
    assert not riders.step().was_rebuilt
    riders.declare(declared(ttl=8 * HOUR, max_age=5 * HOUR))
    assert riders.step().was_rebuilt
    if not isinstance(riders, WarmRiders):
        assert lifetime(riders, "a") > 3 * HOUR
    riders.assert_online_is_the_past(["a", "b"])


def test_a_feature_added_is_not_found_on_older_rows_and_the_copy_goes_on(riders: Riders) -> None:
    riders.promote([9], [row("a", 9, 1), row("b", 9, 2)])
    riders.step()
    riders.declare(declared([TRIPS, CITY, RATING]))
    assert riders.statuses("a", "b", feature="rating") == ["NOT_FOUND", "NOT_FOUND"]
    riders.assert_online_is_the_past(["a", "b"])
    before = message(riders, "a")
    step = riders.step()
    assert (step.was_rebuilt, step.keys, message(riders, "a")) == (False, 0, before)
    assert riders.statuses("a", "b", feature="rating") == ["NOT_FOUND", "NOT_FOUND"]
    assert riders.trips("a", "b") == [1, 2]
    riders.promote([10], [row("a", 10, 3, schema_number=2, rating=4.5), row("c", 10, 4, schema_number=2, rating=None)])
    assert not riders.step().was_rebuilt
    assert riders.statuses("a", "b", "c", feature="rating") == ["PRESENT", "NOT_FOUND", "NULL_VALUE"]
    riders.assert_online_is_the_past(["a", "b", "c"])
    assert riders.step(rebuild=True).was_rebuilt
    assert riders.statuses("a", "b", "c", feature="rating") == ["PRESENT", "NOT_FOUND", "NULL_VALUE"]
    riders.assert_online_is_the_past(["a", "b", "c"])


def test_a_feature_is_added_while_readers_read_on_and_every_answer_is_that_of_the_table(riders: Riders) -> None:
    """Rows of both schema numbers lie side by side; at no moment is a rider gone, nor a status another than the table's."""
    names = [f"r{number}" for number in range(60)]
    riders.promote([9], [row(name, 9, 1) for name in names])
    riders.step()
    riders.declare(declared([TRIPS, CITY, RATING]))
    seen: list[tuple[str, str]] = []
    is_over = threading.Event()

    def read() -> None:
        with closing(FeatureStore(riders.store.settings, clock=riders.clock)) as store:
            while not is_over.is_set():
                answer = store.get_online_features(riders.references, {"rider": names})
                trips, rating = (answer.statuses[name].cast(pl.String).to_list() for name in ("trips", "rating"))
                seen.extend(zip(trips, rating, strict=True))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for some in range(0, 60, 20):
            newer = [row(name, 10, 2, schema_number=2, rating=4.5) for name in names[: some + 10]]
            nulls = [row(name, 10, 2, schema_number=2, rating=None) for name in names[some + 10 : some + 20]]
            riders.promote([10], [*newer, *nulls])
            assert not riders.step().was_rebuilt
            riders.assert_online_is_the_past(names)
            wait_for(lambda: ("PRESENT", "NULL_VALUE") in seen)
    finally:
        is_over.set()
        reader.join()
    assert set(seen) == {("PRESENT", "NOT_FOUND"), ("PRESENT", "PRESENT"), ("PRESENT", "NULL_VALUE")}
    stepped = riders.statuses(*names, feature="rating")
    assert riders.step(rebuild=True).was_rebuilt
    assert riders.statuses(*names, feature="rating") == stepped


def test_a_feature_removed_and_a_reader_of_an_older_registry_still_read_the_others(riders: Riders) -> None:
    older = riders.store
    riders.promote([9], [row("a", 9, 1)])
    riders.step()
    riders.declare(declared([TRIPS]))
    assert riders.trips("a") == [1]
    riders.step()
    assert riders.trips("a") == [1]
    answer = older.get_online_features([f"{GROUP}:trips", f"{GROUP}:city"], {"rider": ["a"]})
    assert answer.frame["trips"].to_list() == [1]
    riders.assert_online_is_the_past(["a"])


def test_a_process_with_an_older_registry_does_not_rebuild_what_a_newer_one_built(riders: Riders) -> None:
    older = riders.table
    riders.promote([9], [row("a", 9, 1)])
    riders.step()
    riders.declare(declared([TRIPS, CITY, RATING]))
    riders.promote([10], [row("a", 10, 2, schema_number=2, rating=4.5)])
    riders.step()
    with pytest.raises(StaleWriter, match="schema number 2; the registry in use here knows 1"):
        materialize(older, riders.parts, riders.clock)
    assert riders.trips("a") == [2]
    assert not riders.step().was_rebuilt


def test_version_2_of_a_group_lives_beside_version_1(riders: Riders) -> None:
    riders.promote([9], [row("a", 9, 1)])
    riders.step()
    one, name = riders.store, f"{GROUP}_v2"
    catalog = Catalog([rides], [declared(), declared([RATING], version=2)], [])
    RegistryHistory(riders.root).apply(catalog, riders.clock, "tests")
    with closing(FeatureStore(riders.store.settings, clock=riders.clock)) as both:
        times = {key: row("a", 9)[key] for key in ("rider", "event_time", "knowledge_time", "window_start")}
        rows = [{**times, "is_deleted": False, "schema_number": 1, "rating": 4.5}]
        frame = pl.DataFrame(rows, schema=row_schema(both.registry.group(name)))
        table = both.offline.table(name)
        table.overwrite_windows(frame, [hour(9)], seen_version=None, transaction="first", metadata={})
        assert both.materialize([name])[name].written == 1
        answer = both.get_online_features([f"{GROUP}:trips", f"{name}:rating"], {"rider": ["a", "b"]})
        assert (answer.frame["trips"].to_list(), answer.frame["rating"].to_list()) == ([1, None], [4.5, None])
        assert both.materialize([name], rebuild=True)[name].was_rebuilt
        assert both.materialize([GROUP])[GROUP].keys == 0
    assert one.get_online_features([f"{GROUP}:trips"], {"rider": ["a"]}).frame["trips"].to_list() == [1]


def wait_for(has_come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not has_come():
        assert time.monotonic() < deadline
        time.sleep(0.005)
