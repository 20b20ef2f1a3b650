"""A group's declaration changes while its copy is served: features come and go, ttl and max age change, a version 2 begins.

All of it over the hot tier, and over the warm one; a feature is added to a group of both tiers at once, too.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
import redis

from featurestore.declaration import Catalog, Feature, FeatureGroup, Online
from featurestore.declaration.online import TierName
from featurestore.errors import StaleWriter
from featurestore.offline.intake import row_schema
from featurestore.online.dynamo.provision import provision
from featurestore.online.materialization.materialize import materialize
from featurestore.online.message.decode import decode
from featurestore.online.message.schema import layouts_of
from featurestore.online.reading.retrieval import OnlineFeatures
from featurestore.online.tier import TierPart
from featurestore.registry.history import RegistryHistory
from featurestore.store import FeatureStore
from tests.contract import dynamo
from tests.contract.riders import CITY, GROUP, HOUR, START, TRIPS, Riders, declared, hour, rides, row
from tests.waiting import wait_for

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


class RidersOfBoth(WarmRiders):
    """The same group, in both tiers."""

    def declare(self, group: FeatureGroup) -> None:
        assert group.online is not None
        super().declare(replace(group, online=Online(ttl=group.online.ttl, tiers=("hot", "warm"))))

    def evict(self, names: Sequence[str]) -> None:
        """The hot server loses some riders, as one that is short of memory does."""
        self.client.delete(*(f"{GROUP}:{name}" for name in names))


@pytest.fixture
def warm_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    url = dynamo.url_of(request.getfixturevalue("moto_endpoint"), f"riders-{uuid4().hex}")
    provision(url)
    return url


@pytest.fixture
def hot_url(valkey_url: str) -> str:
    redis.Redis.from_url(valkey_url).flushall()
    return valkey_url


@pytest.fixture
def both(tmp_path: Path, hot_url: str, warm_url: str) -> Iterator[RidersOfBoth]:
    made = RidersOfBoth(tmp_path, hot_url, warm_url)
    yield made
    assert [part.tier for part in made.parts] == ["warm", "hot"]
    made.close()


@pytest.fixture(params=["hot", "warm"])
def riders(request: pytest.FixtureRequest, tmp_path: Path, hot_url: str) -> Iterator[Riders]:
    is_hot = request.param == "hot"
    warm_url = "" if is_hot else request.getfixturevalue("warm_url")
    made = Riders(tmp_path, hot_url, now=NOON) if is_hot else WarmRiders(tmp_path, hot_url, warm_url)
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
            wait_for("the added feature", lambda: ("PRESENT", "NULL_VALUE") in seen, 120, pause=0.005)
    finally:
        is_over.set()
        reader.join()
    assert set(seen) == {("PRESENT", "NOT_FOUND"), ("PRESENT", "PRESENT"), ("PRESENT", "NULL_VALUE")}
    stepped = riders.statuses(*names, feature="rating")
    assert riders.step(rebuild=True).was_rebuilt
    assert riders.statuses(*names, feature="rating") == stepped


def test_a_feature_is_added_to_both_tiers_while_the_hot_one_loses_rows_and_every_read_is_that_of_the_table(
    both: RidersOfBoth,
) -> None:
    """Rows of both schema numbers lie in either tier, and one answer has some from each; none is older than both had before."""
    names = [f"r{number:02}" for number in range(40)]
    told: dict[str, list[Served]] = {name: [(1, None, "NOT_FOUND")] for name in names}
    least = dict.fromkeys(names, 1)
    both.promote([9], [row(name, 9, 1) for name in names])
    both.step()
    both.declare(declared([TRIPS, CITY, RATING]))
    wrong: list[tuple[str, Served]] = []
    tiers: set[frozenset[str]] = set()
    is_over = threading.Event()

    def read() -> None:
        with closing(FeatureStore(both.store.settings, clock=both.clock)) as store:
            while not is_over.wait(PAUSE_SECONDS):
                floor = dict(least)
                answer = store.get_online_features(both.references, {"rider": names})
                found = zip(names, served(answer), strict=True)
                wrong.extend((n, one) for n, one in found if one not in told[n] or (one[0] or 0) < floor[n])
                tiers.add(frozenset(answer.tiers["rating"].to_list()))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for some in (10, 20, 30):
            newer: list[Served] = [(some, 4.5, "PRESENT")] * (some - 5) + [(some, None, "NULL_VALUE")] * 5
            for name, one in zip(names, newer, strict=False):
                told[name].append(one)
            rows = zip(names, newer, strict=False)
            both.promote([10], [row(name, 10, some, schema_number=2, rating=rating) for name, (_, rating, _) in rows])
            assert not both.step().was_rebuilt
            least.update(dict.fromkeys(names[:some], some))
            both.evict(names[::3])
            both.assert_online_is_the_past(names)
            tiers.clear()
            wait_for("a first read", lambda: len(tiers) > 0, 120, pause=0.005)
    finally:
        is_over.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert [schema_numbers(both, tier, names) for tier in TIERS] == [{1, 2}, {1, 2}]
    stepped = served(both.read(names))
    assert stepped == [told[name][-1] for name in names]
    assert both.step(rebuild=True).was_rebuilt
    assert served(both.read(names)) == stepped
    both.assert_online_is_the_past(names)


def test_one_answer_has_rows_of_both_schema_numbers_from_both_tiers(both: RidersOfBoth) -> None:
    both.promote([9], [row(name, 9, 1) for name in "abcd"])
    both.step()
    both.declare(declared([TRIPS, CITY, RATING]))
    both.promote([10], [row("a", 10, 2, schema_number=2, rating=4.5), row("b", 10, 2, schema_number=2, rating=None)])
    both.step()
    both.evict(["a", "c"])
    answer = both.read(["a", "b", "c", "d"])
    assert answer.tiers["rating"].to_list() == ["warm", "hot", "warm", "hot"]
    assert served(answer) == [(2, 4.5, "PRESENT"), (2, None, "NULL_VALUE"), *[(1, None, "NOT_FOUND")] * 2]
    both.assert_online_is_the_past(["a", "b", "c", "d"])


TIERS: tuple[TierName, ...] = ("hot", "warm")
PAUSE_SECONDS = 0.01
"""Between two reads of a reader, so that the steps get on."""
Served = tuple[int | None, float | None, str]
"""Of one rider: the trips, the rating, and the rating's status."""


def served(answer: OnlineFeatures) -> list[Served]:
    statuses = answer.statuses["rating"].cast(pl.String)
    columns = (answer.frame["trips"], answer.frame["rating"], statuses)
    return list(zip(*(column.to_list() for column in columns), strict=True))


def schema_numbers(riders: RidersOfBoth, tier: TierName, names: Sequence[str]) -> set[int]:
    """Under which schemas the rows of a tier were computed."""
    keys = [f"{GROUP}:{name}".encode() for name in names]
    messages = riders.store.online.tier(tier).read_many({GROUP: keys})[GROUP].messages
    return set(decode(layouts_of(riders.group), messages)["schema_number"].drop_nulls().to_list())


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
