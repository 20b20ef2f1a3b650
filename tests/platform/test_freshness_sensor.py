"""Freshness in Dagster: the sensor's ticks by an injected clock, on real tables and a real online store."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import dagster as dg
import pytest
import redis

from featurestore.freshness.journal import FreshnessJournal
from featurestore.freshness.watch import FreshnessWatch
from featurestore.promotion import materialize_windows
from sensors import freshness
from sensors.freshness import freshness_sensor
from tests.contract.receivers import silent_port
from tests.platform.kiosks import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    kiosk_orders_hourly,
    kiosk_sales_daily,
    kiosks,
    order,
    orders,
)
from tests.platform.sandbox import Sandbox
from tests.waiting import wait_for

GROUP = kiosk_orders_hourly.name
ONLINE, OFFLINE = dg.AssetKey(["online", GROUP]), dg.AssetKey(["offline", GROUP])
STEP = 10 * MINUTE
CONFIRMED, CHECK = "confirmed", "check"


@dataclass
class Kiosk:
    """A deployment whose clock is moved in steps; at each the hourly job may run, the source may speak, and the sensor looks."""

    sandbox: Sandbox
    number: int = 0
    cursor: str | None = None

    def __post_init__(self) -> None:
        self.sensor = freshness_sensor(self.sandbox.catalog)

    @property
    def journal(self) -> FreshnessJournal:
        return FreshnessJournal.open(f"sqlite:///{self.sandbox.root}/metadata.db", lambda: self.sandbox.now)

    def tick(self, *, is_killed: bool = False) -> list[str]:
        """One tick; its events are reported as the daemon does, and named.

        Args:
            is_killed: The daemon is, when it has reported the events and not yet kept the cursor.
        """
        resources = {"store": self.sandbox.resource()}
        with dg.build_sensor_context(self.sandbox.instance, self.cursor, resources=resources) as context:
            told = self.sensor.evaluate_tick(context)
        for event in told.asset_events:
            self.sandbox.instance.report_runless_asset_event(event)
        if not is_killed:
            self.cursor = told.cursor
        return [CONFIRMED if isinstance(event, dg.AssetMaterialization) else CHECK for event in told.asset_events]

    def check(self) -> str:
        """The status that Dagster's page shows."""
        (newest, *_) = self.sandbox.checks(f"online/{GROUP}", "freshness")
        assert newest.evaluation is not None
        return str(newest.evaluation.metadata["status"].value)

    def sell(self) -> None:
        self.number += 1
        self.sandbox.ingest(orders, [order(self.number, self.sandbox.now)])

    def compute(self, start: datetime) -> None:
        """The hourly job of one window, and the step of the online copy that follows it."""
        cadence = kiosk_orders_hourly.cadence
        materialize_windows(
            self.sandbox.offline,
            self.sandbox.catalog,
            kiosk_orders_hourly,
            [cadence.window_at(start)],  # type: ignore[union-attr]
            run_id=f"run-{self.sandbox.now:%d%H%M}",
        )

    def live(self, until: datetime, *, jobs: bool = True, feed: bool = True) -> list[str]:
        """Live until an instant; what the statuses became on the way."""
        began = len(self.journal.changes())
        while self.sandbox.now < until:
            self.sandbox.now += STEP
            minute = self.sandbox.now.minute
            if feed and minute % 30 == 0:
                self.sell()
            if jobs and minute == 10 and self.sandbox.now > T0 + HOUR:
                self.compute(self.sandbox.now - HOUR - 10 * MINUTE)
            if jobs and minute == 20:
                self.sandbox.store.materialize([GROUP])
            self.tick()
        return [change.status for change in self.journal.changes()[began:]]


@pytest.fixture
def kiosk(sandbox: Sandbox, valkey_url: str) -> Kiosk:
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    sandbox.online_url = valkey_url
    sandbox.now = T0
    sandbox.use(kiosks(kiosk_orders_hourly))
    return Kiosk(sandbox)


def test_a_healthy_day_is_ok_throughout_and_is_confirmed_between_windows(kiosk: Kiosk) -> None:
    assert kiosk.live(T0 + 2 * HOUR) == ["NEVER", "OK"]
    assert kiosk.live(T0 + DAY) == []
    confirmed = [
        record.timestamp for record in kiosk.sandbox.instance.fetch_materializations(ONLINE, limit=1000).records
    ]
    # A window an hour is itself a sign of life; half an hour after it a refresh finds nothing to do.
    assert 22 <= len(confirmed) <= 24
    assert kiosk.sandbox.instance.fetch_materializations(OFFLINE, limit=10).records == []


def test_readers_of_the_online_store_are_told_and_know_by_their_own_clock_when_nobody_tells_them(kiosk: Kiosk) -> None:
    def state() -> tuple[str, bool]:
        answer = kiosk.sandbox.store.get_online_features([f"{GROUP}:amount_2h"], [{"kiosk": "a"}])
        return answer.freshness.state, answer.is_degraded

    kiosk.live(T0 + 2 * HOUR + 20 * MINUTE)
    assert state() == ("OK", False)
    kiosk.sandbox.now += DAY
    assert state() == ("BREACH", True), "and nobody looked"


def test_a_job_that_fails_warns_and_breaches_and_is_well_again_when_its_windows_are_caught_up(kiosk: Kiosk) -> None:
    kiosk.live(T0 + 3 * HOUR + 20 * MINUTE)
    assert kiosk.live(T0 + 6 * HOUR, jobs=False) == ["WARN", "BREACH"]
    (check, *_) = kiosk.sandbox.checks(f"online/{GROUP}", "freshness")
    evaluation = check.evaluation
    assert evaluation is not None
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "beyond its SLO of 1 h" in str(evaluation.description)
    # An old window is computed again: a green job, and no end of the breach.
    kiosk.compute(T0 + HOUR)
    assert kiosk.live(T0 + 6 * HOUR + 10 * MINUTE, jobs=False) == []
    for hour in (3, 4, 5):
        kiosk.compute(T0 + hour * HOUR)
    kiosk.sandbox.store.materialize([GROUP])
    assert kiosk.live(T0 + 6 * HOUR + 20 * MINUTE) == ["OK"]


def test_a_source_that_dies_under_green_jobs_is_a_breach(kiosk: Kiosk) -> None:
    kiosk.live(T0 + 3 * HOUR)
    assert kiosk.live(T0 + 30 * HOUR, feed=False)[-1:] == ["BREACH"]
    (change,) = [change for change in kiosk.journal.changes() if change.status == "BREACH"]
    assert [cause.asset for cause in change.causes] == ["raw/orders"]
    assert change.since - (T0 + 3 * HOUR) <= DAY + HOUR
    kiosk.sell()
    assert kiosk.live(kiosk.sandbox.now + HOUR) == ["OK"]


def test_a_copy_that_stands_still_is_a_breach_though_its_table_is_fresh(kiosk: Kiosk) -> None:
    kiosk.live(T0 + 3 * HOUR + 20 * MINUTE)
    changed: list[str] = []
    while kiosk.sandbox.now < T0 + 6 * HOUR:
        kiosk.compute(kiosk.sandbox.now.replace(minute=0) - HOUR)
        changed += kiosk.live(kiosk.sandbox.now + 60 * MINUTE, jobs=False)
    assert changed[-1] == "BREACH"
    last = kiosk.journal.changes()[-1]
    assert last.causes[0].asset == f"online/{GROUP}"


class Killed(Exception):
    """What kills a tick."""


@contextmanager
def killed_after(place: object, name: str) -> Iterator[None]:
    """A tick dies right after one of its steps, which is done."""
    whole = getattr(place, name)

    def step(*given: object) -> object:
        whole(*given)
        raise Killed(name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(place, name, step)
        yield


STEPS = {
    "confirm": (FreshnessJournal, "confirm"),
    "record": (FreshnessJournal, "record"),
    "publish": (freshness, "publish"),
    "book_alerts": (freshness, "book_alerts"),
}


@pytest.mark.parametrize("step", ["record", "publish", "book_alerts"])
def test_a_change_of_status_is_reported_by_the_next_tick_where_one_dies(kiosk: Kiosk, step: str) -> None:
    kiosk.live(T0 + 3 * HOUR + 20 * MINUTE)
    with killed_after(*STEPS[step]):
        while kiosk.journal.changes()[-1].status == "OK":
            kiosk.sandbox.now += STEP
            with pytest.raises(Killed):
                kiosk.tick()
    assert kiosk.check() == "OK"
    assert kiosk.tick() == [CHECK], "at the same instant: the look finds nothing new, and what was kept is reported"
    assert (kiosk.check(), kiosk.journal.changes()[-1].status) == ("WARN", "WARN")
    assert kiosk.tick() == []


@pytest.mark.parametrize("step", ["confirm", "record", "book_alerts"])
def test_a_confirmation_is_reported_by_the_next_tick_where_one_dies(kiosk: Kiosk, step: str) -> None:
    kiosk.live(T0 + 3 * HOUR + 20 * MINUTE)
    before = kiosk.journal.confirmed()
    with killed_after(*STEPS[step]):
        while kiosk.journal.confirmed() == before:
            kiosk.sandbox.now += STEP
            with pytest.raises(Killed) if step != "confirm" or is_due(kiosk) else nullcontext():
                kiosk.tick()
    kiosk.sandbox.now += MINUTE / 2
    assert kiosk.tick() == [CONFIRMED]
    assert kiosk.tick() == []


def is_due(kiosk: Kiosk) -> bool:
    """Whether a look now would confirm."""
    features = kiosk.sandbox.store
    found = FreshnessWatch(features.offline, features.online.parts_of).look(kiosk.journal.confirmed(), [GROUP])
    return found[GROUP].is_refresh_due


def test_what_was_reported_without_the_cursor_is_reported_again_and_no_third_time(kiosk: Kiosk) -> None:
    kiosk.live(T0 + 3 * HOUR + 20 * MINUTE)
    while not (told := kiosk.tick(is_killed=True)):
        kiosk.sandbox.now += STEP
    assert told == [CONFIRMED]
    assert kiosk.tick() == told
    assert kiosk.tick() == []


def test_a_confirmation_waits_for_the_copy_and_not_for_the_next_refresh(kiosk: Kiosk, valkey_url: str) -> None:
    kiosk.live(T0 + 3 * HOUR + 20 * MINUTE)
    before = kiosk.journal.confirmed()
    with redis.Redis.from_url(valkey_url) as server:
        while kiosk.journal.confirmed() == before:
            server.flushall()
            kiosk.sandbox.now += STEP
            assert CONFIRMED not in kiosk.tick()
    assert json.loads(kiosk.cursor or "{}")["waiting"] == [GROUP]
    kiosk.sandbox.store.materialize([GROUP])
    kiosk.sandbox.now += MINUTE / 2
    assert CONFIRMED in kiosk.tick()
    assert json.loads(kiosk.cursor or "{}")["waiting"] == []


def test_the_first_tick_tells_how_it_stands_and_nothing_of_the_past(kiosk: Kiosk) -> None:
    kiosk.live(T0 + 6 * HOUR)
    assert len(kiosk.journal.changes()) > 1
    kiosk.cursor = None
    assert kiosk.tick() == [CONFIRMED, CHECK]
    assert kiosk.tick() == []


def test_a_journal_that_was_begun_anew_is_reported_though_its_numbers_are_lower(kiosk: Kiosk) -> None:
    kiosk.live(T0 + 2 * HOUR)
    cursor = json.loads(kiosk.cursor or "{}")
    kiosk.cursor = json.dumps({**cursor, "change": 4711})
    assert kiosk.tick() == [CHECK]
    assert json.loads(kiosk.cursor)["change"] == kiosk.journal.newest_change()


def test_the_cursor_is_small_while_all_is_well_and_names_who_waits_in_an_outage() -> None:
    names = frozenset(f"some_entity_of_ours_hourly_{number}" for number in range(1000))
    assert len(freshness.Told(10**9, T0).to_cursor()) < 100
    waiting = freshness.Told(10**9, T0, names)
    assert len(waiting.to_cursor()) < 50_000
    assert freshness.Told.from_cursor(waiting.to_cursor()) == waiting


@pytest.mark.exam
def test_an_online_store_that_hangs_keeps_no_look_beyond_its_patience_and_hides_no_late_job(sandbox: Sandbox) -> None:
    many = [replace(kiosk_orders_hourly, name=f"orders_{number}_hourly") for number in range(40)]
    with silent_port() as port:
        sandbox.online_url, sandbox.now = f"redis://127.0.0.1:{port}/0", T0 + HOUR
        sandbox.use(kiosks(kiosk_orders_hourly, *many))
        kiosk = Kiosk(sandbox)
        kiosk.sell()
        sandbox.now = T0 + HOUR + 10 * MINUTE
        kiosk.compute(T0)
        for hours in (0, 3):
            sandbox.now += hours * HOUR
            begun = time.monotonic()
            kiosk.tick()
            assert time.monotonic() - begun < 60, "a tick has a minute; a call of the store waits for 5 s"
    book = sandbox.resource().settings().alert_book(lambda: sandbox.now)
    late = {episode.problem.group for episode in book.open_episodes() if episode.problem.status == "BREACH"}
    assert late == {group.stored_name for group in (kiosk_orders_hourly, *many)}


def test_a_look_that_has_not_ended_makes_the_next_tick_wait_for_nothing(
    kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, may_end = freshness.Looks(), threading.Event()
    monkeypatch.setattr(freshness.Looks, "_look", lambda *_: may_end.wait(300) and {})
    store, journal = kiosk.sandbox.resource(), kiosk.journal
    first = threading.Thread(target=looks.look, args=([], store, journal))
    first.start()
    try:
        wait_for("the first look", looks._lock.locked, 60, 0.001)
        assert looks.look([], store, journal) is None
    finally:
        may_end.set()
        first.join()
    assert looks.look([], store, journal) == {}


def test_the_check_can_be_run_by_hand_and_says_the_same(kiosk: Kiosk) -> None:
    kiosk.live(T0 + 3 * HOUR)
    kiosk.sandbox.now += 5 * HOUR
    job = kiosk.sandbox.definitions().resolve_implicit_global_asset_job_def()
    chosen = dg.AssetSelection.checks(dg.AssetCheckKey(ONLINE, "freshness"))
    result = (
        dg.define_asset_job("by_hand", selection=chosen)
        .resolve(asset_graph=kiosk.sandbox.definitions().resolve_asset_graph())
        .execute_in_process(
            instance=kiosk.sandbox.instance, resources=dict(kiosk.sandbox.definitions().resources or {})
        )
    )
    (evaluation,) = result.get_asset_check_evaluations()
    assert job is not None
    assert not evaluation.passed
    assert f"offline/{GROUP}" in str(evaluation.description)


def test_policy_stands_where_freshness_is_reported(sandbox: Sandbox) -> None:
    sandbox.use(kiosks(kiosk_orders_hourly, kiosk_sales_daily))
    graph = sandbox.definitions().resolve_asset_graph()
    assert graph.get(OFFLINE).freshness_policy is None
    policy = graph.get(ONLINE).freshness_policy
    assert policy is not None
    assert policy.fail_window.to_timedelta() == HOUR  # type: ignore[union-attr]


def test_nothing_is_looked_at_before_anything_was_applied(tmp_path_factory: pytest.TempPathFactory) -> None:
    from resources.store import StoreResource

    store = StoreResource(root=str(tmp_path_factory.mktemp("empty")), now=(T0 + timedelta(days=1)).isoformat())
    with dg.build_sensor_context(resources={"store": store}) as context:
        told = freshness_sensor(kiosks(kiosk_orders_hourly)).evaluate_tick(context)
    assert "featurestore apply" in str(told.skip_message)
