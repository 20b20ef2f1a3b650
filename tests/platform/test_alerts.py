"""Alerts from end to end, by an injected clock: real ticks of both sensors on real tables, and a real webhook that keeps what it is told.

Each test says exactly what is told, when, and of whom: no word more, none missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import redis

from featurestore.alerts.outbox import Outbox
from featurestore.declaration import Backfill, Catalog, FeatureGroup
from featurestore.errors import StoreUnavailable
from featurestore.freshness.judgement import GroupFreshness
from featurestore.freshness.watch import FreshnessWatch
from featurestore.heartbeat.book import HeartbeatBook
from featurestore.heartbeat.process import Process
from featurestore.heartbeat.stuck import StuckRun
from featurestore.promotion import materialize_windows
from featurestore.training import build_training_set
from resources.store import StoreResource
from sensors.alerts import alerts_sensor
from sensors.freshness import freshness_sensor
from sensors.stuck_runs import stuck_run_problems
from tests.contract.receivers import HttpReceiver, http_receiver
from tests.platform.kiosks import (
    CLOSED,
    DAY,
    HOUR,
    MINUTE,
    T0,
    TIME,
    TOO_MUCH,
    day_key,
    kiosk_last_order_hourly,
    kiosk_orders_hourly,
    kiosk_profile,
    kiosk_sales_daily,
    kiosk_trend_daily,
    order,
    orders,
    register,
)
from tests.platform.sandbox import Sandbox
from tests.platform.test_quality_checks import ASSET as SALES
from tests.platform.test_quality_checks import DAYS, sold
from tests.platform.test_quality_checks import catalog as creeping
from tests.scale import cases

STEP = 10 * MINUTE
SILENCE = 3 * HOUR
HOURLY = replace(kiosk_orders_hourly, online=None)
NAME = HOURLY.stored_name
TABLE = f"offline/{NAME}"
ROUTES = '[sinks.hook]\nkind = "webhook"\nurl = "{url}/alerts"\n'
Told = tuple[str, str, str, str, str, str]
"""When, event, status, kind, group, first late asset."""


def catalog(*groups: FeatureGroup) -> Catalog:
    """Groups on a source that may be silent for three hours."""
    return Catalog((replace(orders, freshness=SILENCE), register), groups)


@dataclass
class Life:
    """A deployment whose clock moves in steps of ten minutes: the feed speaks, the hourly job runs, both sensors look."""

    sandbox: Sandbox
    hook: HttpReceiver
    number: int = 0
    sensors: list[dg.SensorDefinition] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what processes keep, as a daemon and a code server do that start anew."""
        finders = [stuck_run_problems(self.sandbox.catalog)]
        self.sensors = [freshness_sensor(self.sandbox.catalog), alerts_sensor(self.sandbox.catalog, finders)]

    def use(self, *groups: FeatureGroup) -> None:
        self.sandbox.use(catalog(*groups))
        self.restart()

    def tick(self) -> None:
        for sensor in self.sensors:
            self.evaluate(sensor, self.sandbox.resource())

    def evaluate(self, sensor: dg.SensorDefinition, store: StoreResource) -> None:
        with dg.build_sensor_context(instance=self.sandbox.instance, resources={"store": store}) as context:
            for event in sensor.evaluate_tick(context).asset_events or ():
                self.sandbox.instance.report_runless_asset_event(event)

    def sell(self, **other: Any) -> None:
        self.number += 1
        self.sandbox.ingest(orders, [order(self.number, self.sandbox.now, **other)])

    def compute(self, start: datetime, group: FeatureGroup = HOURLY) -> list[str]:
        """The job of one window, and how that ended."""
        window = group.cadence.window_at(start)  # type: ignore[union-attr]
        done = materialize_windows(
            self.sandbox.offline, self.sandbox.catalog, group, [window], run_id=f"run-{self.sandbox.now:%d%H%M}"
        )
        return [outcome.status for outcome in done.outcomes]

    def fail(self, start: datetime) -> None:
        """The job of one window, whose transform raises."""

        def burns(window: Any, orders: Any) -> Any:
            raise ArithmeticError("the kiosk is on fire")

        assert self.compute(start, replace(HOURLY, transform=burns)) == ["quarantined"]

    def live(self, until: datetime, *, jobs: bool = True, feed: bool = True, failing: bool = False) -> None:
        while self.sandbox.now < until:
            self.sandbox.now += STEP
            if feed and self.sandbox.now.minute % 30 == 0:
                self.sell()
            if jobs and self.sandbox.now.minute == 10 and self.sandbox.now > T0 + HOUR:
                (self.fail if failing else self.compute)(self.sandbox.now - HOUR - STEP)
            self.tick()

    def told(self) -> list[Told]:
        """What the webhook was told, in the order in which it came."""
        return [
            (
                f"{datetime.fromisoformat(one['at']):%d %H:%M}",
                one["event"],
                one["status"],
                one["kind"],
                one["group"],
                one["first_late"]["asset"],
            )
            for one in self.hook.documents()
        ]

    def waiting(self) -> int:
        book = self.sandbox.resource().settings().alert_book(lambda: self.sandbox.now)
        return len(Outbox(book.database).backlog())


@pytest.fixture
def hook() -> Iterator[HttpReceiver]:
    with http_receiver() as running:
        yield running


@pytest.fixture
def life(sandbox: Sandbox, hook: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> Life:
    """An hourly group, well at 03:20: its window of 02:00 was computed at 03:10."""
    write_routes(sandbox.folder, hook, monkeypatch)
    sandbox.now = T0 + 2 * HOUR
    sandbox.use(catalog(HOURLY))
    made = Life(sandbox, hook)
    made.live(T0 + 3 * HOUR + 20 * MINUTE)
    return made


def write_routes(folder: Path, hook: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "alerts.toml").write_text('default = ["hook"]\n' + ROUTES.format(url=hook.url))
    monkeypatch.setenv("FEATURESTORE_ALERTS", str(folder / "alerts.toml"))
    monkeypatch.setenv("FEATURESTORE_DAGSTER_URL", "http://dagster.example.org")


def test_a_source_that_dies_under_green_jobs_is_told_once_and_blamed(life: Life) -> None:
    life.live(T0 + 7 * HOUR, feed=False)
    # The last order was at 03:00. At 06:15 the window is promoted whose cut-off was the first more than three hours after it.
    assert life.told() == [("01 06:10", "opened", "BREACH", "freshness", NAME, "raw/orders")]
    (document,) = life.hook.documents()
    assert (document["owner"], document["tier"], document["urgency"]) == ("team:kiosks", "hourly", "page")
    assert "raw/orders has no event newer than 2025-03-01T03:00:00+00:00" in document["text"]
    assert document["first_late"]["owner"] == "team:kiosks"
    assert document["todo"].startswith("Ask team:kiosks why source orders has nothing newer")
    assert document["url"] == "http://dagster.example.org/assets/raw/orders"
    life.live(T0 + 8 * HOUR)
    assert life.told()[1:] == [("01 07:30", "recovered", "BREACH", "freshness", NAME, "raw/orders")]


GATED = replace(kiosk_sales_daily, online=None, backfill=Backfill())
"""With the default gate, by which a window without rows is held where others have some."""


def sell_a_day(life: Life, day: datetime) -> None:
    """An order of each of ten kiosks at noon."""
    life.sandbox.now = day + DAY / 2
    life.sandbox.ingest(orders, [order(f"{day:%m%d}-{n}", day + DAY / 2, kiosk=f"kiosk-{n}") for n in range(10)])


def compute_a_day(life: Life, day: datetime) -> list[str]:
    """The job of a day, at three in the morning of the next one."""
    life.sandbox.now = day + DAY + 3 * HOUR
    return life.compute(day, GATED)


@pytest.mark.parametrize(
    ("silence", "status", "since", "text"),
    [
        (DAY, "BREACH", T0 + 3 * DAY + 12 * HOUR, ""),
        (None, "WARN", T0 + 3 * DAY, f", so window 2025-03-04, which the gate of {GATED.name} holds, had none to read"),
    ],
    ids=["silent", "not-yet-silent"],
)
def test_a_source_that_dies_and_so_stops_its_windows_at_the_gate_is_blamed_from_the_first_word_on(
    sandbox: Sandbox,
    hook: HttpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    silence: timedelta | None,
    status: str,
    since: datetime,
    text: str,
) -> None:
    write_routes(sandbox.folder, hook, monkeypatch)
    sandbox.now = T0
    sandbox.use(Catalog((replace(orders, freshness=silence, owner="team:tills"), register), [GATED]))
    life = Life(sandbox, hook)
    for day in range(3):
        sell_a_day(life, T0 + day * DAY)
        assert compute_a_day(life, T0 + day * DAY) == ["promoted"]
    life.tick()
    assert life.told() == []
    assert compute_a_day(life, T0 + 3 * DAY) == ["quarantined"]
    life.tick()
    late = ("05 03:00", "opened", status, "freshness", GATED.name, "raw/orders")
    held = ("05 03:00", "opened", "WARN", "quarantine", GATED.name, f"offline/{GATED.name}")
    assert set(life.told()) == {late, held}
    document = next(one for one in life.hook.documents() if one["kind"] == "freshness")
    assert (document["owner"], document["first_late"]["owner"]) == ("team:kiosks", "team:tills")
    assert datetime.fromisoformat(document["first_late"]["since"]) == since
    assert document["first_late"]["text"] == f"it has had no event newer than 2025-03-03T12:00:00+00:00{text}"
    assert document["todo"].startswith("Ask team:tills why source orders has nothing newer")
    life.compute(T0 + DAY, GATED)
    sandbox.now += 9 * HOUR
    life.tick()
    # Last known to hold everything at 03:00 of the fourth, with an SLO of 36 hours: an old window computed again is none of that.
    sandbox.now += 3 * HOUR
    life.tick()
    raised = ("05 15:00", "raised", "BREACH", "freshness", GATED.name, "raw/orders")
    assert life.told()[2:] == ([] if status == "BREACH" else [raised])


def test_a_source_that_never_lands_is_blamed_for_the_group_that_never_begins(
    sandbox: Sandbox, hook: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_routes(sandbox.folder, hook, monkeypatch)
    begin = sandbox.now  # at which its groups and sources were declared
    sandbox.use(Catalog((replace(orders, freshness=SILENCE, owner="team:tills"), register), [HOURLY]))
    life = Life(sandbox, hook)
    for minutes in (70, 80, 180, 190):
        sandbox.now = begin + minutes * MINUTE
        life.tick()
    # The first window was to be served at 00:15; its group is in breach an hour later, and its source at 03:00.
    assert life.told() == [("31 01:20", "opened", "BREACH", "freshness", NAME, "raw/orders")]
    (document,) = life.hook.documents()
    assert document["first_late"]["owner"] == "team:tills"
    assert document["first_late"]["text"] == "it has never had a row"
    assert document["first_late"]["since"].startswith("2025-03-31T00:00:00")
    assert document["todo"].startswith("Ask team:tills why source orders has nothing newer")
    assert [(cause.asset, cause.since) for cause in look(life).causes] == [
        (TABLE, begin + HOUR + 15 * MINUTE),
        ("raw/orders", begin + SILENCE),
    ]
    life.sell()
    life.compute(begin + 2 * HOUR)
    life.live(life.sandbox.now + STEP)
    assert [one[1] for one in life.told()] == ["opened", "recovered"]


def look(life: Life) -> GroupFreshness:
    """The freshness of the hourly group now."""
    return FreshnessWatch(life.sandbox.offline, None).look(groups=[NAME])[NAME]


def test_a_job_that_dies_warns_pages_and_is_well_when_its_windows_are_caught_up(life: Life) -> None:
    life.live(T0 + 5 * HOUR + 10 * MINUTE, jobs=False)
    wanted = [
        ("01 04:20", "opened", "WARN", "freshness", NAME, TABLE),
        ("01 04:40", "raised", "BREACH", "freshness", NAME, TABLE),
    ]
    assert life.told() == wanted
    opened, raised = life.hook.documents()
    assert opened["since"] == "2025-03-01T04:15:00+00:00"
    assert (opened["urgency"], raised["urgency"], raised["before"]) == ("ticket", "page", "WARN")
    assert "beyond its SLO of 1 h" in raised["text"]
    for hour in (3, 4):
        life.compute(T0 + hour * HOUR)
    life.live(T0 + 5 * HOUR + 50 * MINUTE)
    assert life.told()[2:] == [("01 05:20", "recovered", "BREACH", "freshness", NAME, TABLE)]


def test_a_transform_that_raises_is_told_at_once_and_pages_as_a_job_that_dies_does(life: Life) -> None:
    life.live(T0 + 5 * HOUR + 10 * MINUTE, failing=True)
    assert [one[:4] for one in life.told()] == [
        ("01 04:10", "opened", "WARN", "quarantine"),
        ("01 04:20", "opened", "WARN", "freshness"),
        ("01 04:40", "raised", "BREACH", "freshness"),
        ("01 05:10", "raised", "WARN", "quarantine"),
    ]
    assert "featurestore backfill inspect run-010410 says what was found" in life.hook.documents()[0]["todo"]
    assert (
        "Found of 2025-03-01-03:00: transform is ArithmeticError: the kiosk is on fire"
        in life.hook.documents()[0]["text"]
    )


@pytest.mark.exam
def test_a_job_that_succeeds_with_old_windows_ends_nothing_and_tells_nothing_again(life: Life) -> None:
    life.live(T0 + 5 * HOUR, jobs=False)
    before = life.told()
    for hour in (0, 1, 2):
        life.compute(T0 + hour * HOUR)
        life.live(life.sandbox.now + 20 * MINUTE, jobs=False)
    assert len(before) == 2
    assert life.told() == before


@pytest.mark.exam
def test_a_late_file_is_told_as_silence_and_as_its_end(life: Life) -> None:
    life.live(T0 + 6 * HOUR + 20 * MINUTE, feed=False)
    late = [order(f"late-{hour}", T0 + hour * HOUR) for hour in (4, 5, 6)]
    life.sandbox.ingest(orders, late)
    life.live(T0 + 7 * HOUR)
    assert [(one[0], one[1]) for one in life.told()] == [("01 06:10", "opened"), ("01 06:30", "recovered")]


def test_a_window_that_its_gate_holds_is_told_with_what_to_do_and_ends_with_the_corrected_file(life: Life) -> None:
    life.sandbox.now += STEP
    life.sell(amount=20 * TOO_MUCH)
    life.live(T0 + 4 * HOUR + 30 * MINUTE)
    bad = T0 + 3 * HOUR
    wanted = [
        ("01 04:10", "opened", "WARN", "quarantine", NAME, TABLE),
        ("01 04:20", "opened", "WARN", "freshness", NAME, TABLE),
    ]
    assert life.told() == wanted
    held, late = life.hook.documents()
    found = "Found of 2025-03-01-03:00: range of 'amount_2h' is [100020.0, 100020.0], limit [0.0, 10000.0]."
    assert f"1 window is held by the gate: 2025-03-01-03:00. {found} Production keeps" in held["text"]
    assert "featurestore backfill inspect run-010410" in held["todo"]
    assert late["first_late"]["text"] == "its gate holds window 2025-03-01-03:00 in quarantine"
    numbers = range(life.number - 3, life.number + 1)
    life.sandbox.ingest(orders, [order(number, bad + 30 * MINUTE, known_at=bad + 40 * MINUTE) for number in numbers])
    life.compute(bad)
    life.live(T0 + 6 * HOUR)
    assert life.told()[2:] == [
        ("01 04:40", "recovered", "WARN", "quarantine", NAME, TABLE),
        ("01 04:40", "recovered", "WARN", "freshness", NAME, TABLE),
    ]


def test_a_window_that_newer_ones_have_overtaken_is_told_until_it_is_promoted(life: Life) -> None:
    life.live(T0 + 5 * HOUR, jobs=False)
    before = len(life.told())
    life.live(T0 + 5 * HOUR + 50 * MINUTE)
    assert life.told()[before:] == [
        ("01 05:10", "recovered", "BREACH", "freshness", NAME, TABLE),
        ("01 05:20", "opened", "WARN", "freshness", NAME, TABLE),
    ]
    document = life.hook.documents()[-1]
    assert document["text"].startswith(f"{TABLE}: 1 window before the newest was never promoted: 2025-03-01-03:00.")
    assert datetime.fromisoformat(document["since"]) == T0 + 5 * HOUR + 15 * MINUTE
    assert document["todo"].startswith(f"See why the runs of {TABLE} fail or wait")
    life.compute(T0 + 3 * HOUR)
    life.live(T0 + 6 * HOUR)
    assert life.told()[before + 2 :] == [("01 06:00", "recovered", "WARN", "freshness", NAME, TABLE)]


@pytest.mark.exam
def test_a_backfill_of_old_windows_tells_nothing_while_all_is_well(life: Life) -> None:
    for hour in (0, 1):
        life.compute(T0 + hour * HOUR)
        life.live(life.sandbox.now + 20 * MINUTE)
    assert life.told() == []


def test_a_restart_in_the_middle_of_an_episode_tells_nothing_twice(life: Life) -> None:
    while life.sandbox.now < T0 + 5 * HOUR + 10 * MINUTE:
        life.restart()
        life.live(life.sandbox.now + STEP, jobs=False)
    life.restart()
    for hour in (3, 4):
        life.compute(T0 + hour * HOUR)
    life.live(T0 + 5 * HOUR + 30 * MINUTE)
    assert [one[1] for one in life.told()] == ["opened", "raised", "recovered"]


@pytest.mark.exam
def test_a_sink_that_is_down_for_an_hour_and_more_hears_everything_once_and_in_order(
    life: Life, hook: HttpReceiver
) -> None:
    hook.answers += [503] * 1000
    life.live(T0 + 5 * HOUR + 30 * MINUTE, jobs=False)
    for hour in (3, 4):
        life.compute(T0 + hour * HOUR)
    life.live(T0 + 5 * HOUR + 40 * MINUTE)
    assert (life.told(), life.waiting()) == ([], 3)
    assert 1000 - len(hook.answers) >= 5
    hook.answers.clear()
    life.restart()
    life.live(T0 + 6 * HOUR)
    wanted = [("01 04:20", "opened"), ("01 04:40", "raised"), ("01 05:40", "recovered")]
    assert ([(one[0], one[1]) for one in life.told()], life.waiting()) == (wanted, 0)


@pytest.mark.exam
def test_healthy_days_are_silent(life: Life) -> None:
    life.live(T0 + max(cases(7, 0) * DAY, 6 * HOUR))
    assert life.told() == []


def test_a_window_upstream_in_quarantine_is_blamed_for_the_group_that_waits_for_it(
    sandbox: Sandbox, hook: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_routes(sandbox.folder, hook, monkeypatch)
    sandbox.now = T0
    sales, trend = (replace(group, online=None) for group in (kiosk_sales_daily, kiosk_trend_daily))
    sandbox.use(catalog(sales, trend))
    life = Life(sandbox, hook)
    for day in range(3):
        sandbox.now = T0 + day * DAY + 12 * HOUR
        life.sell(amount=TOO_MUCH if day == 2 else 10.0)
        sandbox.now = T0 + (day + 1) * DAY + 3 * HOUR
        life.compute(T0 + day * DAY, sales)
        if day < 2:
            life.compute(T0 + day * DAY, trend)
        sandbox.now += 30 * MINUTE
        life.sell()
        life.tick()
    held, *late = life.told()
    assert held[1:] == ("opened", "WARN", "quarantine", "kiosk_sales_daily", "offline/kiosk_sales_daily")
    assert [one[3:] for one in late] == [
        ("freshness", name, "offline/kiosk_sales_daily") for name in ("kiosk_sales_daily", "kiosk_trend_daily")
    ]
    document = life.hook.documents()[-1]
    assert document["asset"] == "offline/kiosk_trend_daily"
    assert document["first_late"]["text"] == "its gate holds window 2025-03-03 in quarantine"


def test_a_load_that_its_gate_refused_is_told_until_one_passes(life: Life) -> None:
    life.use(replace(kiosk_profile, online=None))
    places = [{"kiosk": name, "seats": 4} for name in "abcdef"]
    life.sandbox.ingest(register, places)
    assert life.sandbox.run("offline/kiosk_profile").success
    life.live(life.sandbox.now + STEP, jobs=False, feed=False)
    before = len(life.told())
    life.sandbox.ingest(register, [{"kiosk": name, "seats": CLOSED} for name in "abcdef"[1:]])
    life.sandbox.now += MINUTE
    assert not life.sandbox.run("offline/kiosk_profile").success
    life.sandbox.ingest(register, [{"kiosk": "a", "seats": -5}])
    for _ in range(2):
        life.live(life.sandbox.now + STEP, jobs=False, feed=False)
    (refused,) = life.hook.documents()[before:]
    assert (refused["kind"], refused["status"], refused["group"]) == ("gate", "BREACH", "kiosk_profile")
    assert "min_coverage" in refused["text"]
    assert "Production keeps the last load" in refused["todo"]
    life.sandbox.ingest(register, places)
    assert life.sandbox.run("offline/kiosk_profile").success
    life.live(life.sandbox.now + STEP, jobs=False, feed=False)
    assert [one[1:5] for one in life.told()[before + 1 :]] == [("recovered", "BREACH", "gate", "kiosk_profile")]


def test_an_alert_of_a_check_that_is_no_longer_declared_is_closed_by_the_location_of_its_group_alone(
    life: Life, valkey_url: str
) -> None:
    life.sandbox.online_url = valkey_url
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
        life.use(kiosk_profile, HOURLY)
        life.sandbox.ingest(register, [{"kiosk": name, "seats": 4} for name in "abc"])
        assert life.sandbox.run("offline/kiosk_profile", "online/kiosk_profile").success
        server.delete("kiosk_profile:b")
    assert not life.sandbox.run("online/kiosk_profile").success
    life.live(life.sandbox.now + STEP, jobs=False, feed=False)
    life.sandbox.use(catalog(replace(kiosk_profile, online=None), HOURLY))
    elsewhere = alerts_sensor(catalog(HOURLY))
    life.sandbox.now += STEP
    life.evaluate(elsewhere, life.sandbox.resource())
    told = [one for one in life.told() if one[3] == "parity"]
    assert [one[1] for one in told] == ["opened"]
    life.restart()
    life.live(life.sandbox.now + 2 * STEP, jobs=False, feed=False)
    told = [one for one in life.told() if one[3] == "parity"]
    assert [one[1] for one in told] == ["opened", "closed"]
    (document,) = [one for one in life.hook.documents() if one["event"] == "closed"]
    assert document["reason"] == "kiosk_profile is declared without a check of parity now."


def test_a_value_that_is_not_the_tables_is_told_until_the_copy_is_built_anew(life: Life, valkey_url: str) -> None:
    life.sandbox.online_url = valkey_url
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
        life.use(kiosk_profile)
        life.sandbox.ingest(register, [{"kiosk": name, "seats": 4} for name in "abc"])
        assert life.sandbox.run("offline/kiosk_profile", "online/kiosk_profile").success
        life.live(life.sandbox.now + STEP, jobs=False, feed=False)
        before = len(life.told())
        assert server.delete("kiosk_profile:b") == 1
    assert not life.sandbox.run("online/kiosk_profile").success
    for _ in range(2):
        life.live(life.sandbox.now + STEP, jobs=False, feed=False)
    (wrong,) = life.hook.documents()[before:]
    assert (wrong["kind"], wrong["status"], wrong["asset"]) == ("parity", "BREACH", "online/kiosk_profile")
    assert "0 values are wrong and 1 are missing online, first 'seats' of {'kiosk': 'b'}" in wrong["text"]
    assert "featurestore materialize kiosk_profile --rebuild" in wrong["todo"]
    life.sandbox.store.materialize(["kiosk_profile"], rebuild=True)
    assert life.sandbox.run("online/kiosk_profile").success
    life.live(life.sandbox.now + STEP, jobs=False, feed=False)
    assert [one[1:5] for one in life.told()[before + 1 :]] == [("recovered", "BREACH", "parity", "kiosk_profile")]


@pytest.mark.exam
def test_drift_from_the_deployed_models_training_set_is_told_until_a_newer_set_is_deployed(
    sandbox: Sandbox, hook: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_routes(sandbox.folder, hook, monkeypatch)
    sandbox.now = T0 + DAYS * DAY + 3 * HOUR
    sandbox.use(creeping)
    sandbox.ingest(orders, [row for day in range(DAYS) for row in sold(day)])
    life = Life(sandbox, hook)

    def train_and_run(last: int) -> None:
        times = [T0 + day * DAY + 12 * HOUR for day in range(last - 2, last + 1)]
        spine = pl.LazyFrame({"kiosk": ["k1", "k2", "k3"], "label_time": pl.Series(times, dtype=TIME)})
        build_training_set(sandbox.offline, "sales_v1", spine)
        assert sandbox.run(SALES, partitions=[day_key(DAYS - 1)]).success
        for _ in range(2):
            life.live(sandbox.now + MINUTE, jobs=False, feed=False)

    assert sandbox.run(SALES, partitions=[day_key(0), day_key(DAYS - 1)]).success
    life.tick()
    assert "drift" not in [one[3] for one in life.told()]
    train_and_run(last=3)
    assert [one[1:] for one in life.told() if one[3] == "drift"] == [
        ("opened", "WARN", "drift", "kiosk_sales_daily", SALES)
    ]
    document = life.hook.documents()[-1]
    assert "of 'sales_1d' is" in document["text"]
    assert "against training set" in document["text"]
    assert "featurestore training SERVICE --deploy SET" in document["todo"]
    train_and_run(last=DAYS - 1)
    assert [one[1] for one in life.told() if one[3] == "drift"] == ["opened", "recovered"]


def test_rows_that_a_landing_refused_are_a_warning_of_the_source(life: Life) -> None:
    life.sandbox.land(orders, [order("x", T0, order_id=None)], "2025-03-01.parquet")
    assert life.sandbox.run("raw/orders", partitions=["2025-03-01"]).success
    life.live(life.sandbox.now + 2 * STEP)
    assert [one[1:] for one in life.told()] == [("opened", "WARN", "landing", "raw/orders", "raw/orders")]
    (document,) = life.hook.documents()
    assert (document["owner"], document["tier"]) == ("team:kiosks", "")


def test_a_file_that_a_landing_refused_is_a_breach_of_the_source_until_it_is_landed_again(life: Life) -> None:
    sandbox, (first, second) = life.sandbox, ("2025-03-01", "2025-03-02")
    sandbox.land(orders, [order("x", T0, order_id=None)], "2025-03-01.parquet")
    assert sandbox.run("raw/orders", partitions=[first]).success
    life.live(sandbox.now + STEP)
    cut = sandbox.land(orders, [order("y", T0)], "2025-03-01T05.parquet")
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    assert not sandbox.run("raw/orders", partitions=[first]).success
    life.live(sandbox.now + STEP)
    sandbox.land(orders, [order("z", T0)], "2025-03-02.parquet")
    assert sandbox.run("raw/orders", partitions=[second]).success
    life.live(sandbox.now + 2 * STEP)
    wanted = [("opened", "WARN", "landing", "raw/orders"), ("raised", "BREACH", "landing", "raw/orders")]
    assert [one[1:5] for one in life.told()] == wanted, "a run of other files does not hide it"
    document = life.hook.documents()[-1]
    assert "2025-03-01T05.parquet' of source 'orders' is not a whole Parquet file" in document["text"]
    assert "after refused files are landed again or taken away" in document["todo"]
    cut.write_bytes(whole)
    for file in (sandbox.root / "raw" / "refused").rglob("*.parquet"):
        file.unlink()
    assert sandbox.run("raw/orders", partitions=[first]).success
    life.live(sandbox.now + STEP)
    assert [one[1:5] for one in life.told()[2:]] == [("recovered", "BREACH", "landing", "raw/orders")]


def stand_still(life: Life) -> HeartbeatBook:
    """A run that stood still and was ended, and whose work is not done; the book that says so."""
    book = life.sandbox.resource().settings().heartbeats()
    book.beat("run-1", Process.current(), "kiosks.transform line 7", 0.0)
    (worker,) = book.look(MINUTE)
    still = StuckRun("run-1", (TABLE, "raw/orders"), "silent", T0, 3 * MINUTE, "host-a", 4711, worker.doing, T0)
    assert book.claim(worker, still)
    book.tell("run-1", done="Its process was killed", retried_as="run-2")
    return book


def test_a_run_that_stood_still_is_told_of_each_of_its_assets_until_its_work_is_done(life: Life) -> None:
    book = stand_still(life)
    life.live(life.sandbox.now + 2 * STEP)
    assert [one[1:] for one in life.told()] == [
        ("opened", "WARN", "stuck", NAME, TABLE),
        ("opened", "WARN", "stuck", "raw/orders", "raw/orders"),
    ]
    document = life.hook.documents()[0]
    assert "Run run-1 of offline/kiosk_orders_hourly gave no sign of life for 3 min" in document["text"]
    assert "process 4711 on host-a, last seen in kiosks.transform line 7. Its process was killed." in document["text"]
    assert document["todo"].startswith("Run run-2 repeats it")
    book.close("run-1", "run-2 succeeded")
    life.live(life.sandbox.now + STEP)
    assert [one[1:5] for one in life.told()[2:]] == [
        ("recovered", "WARN", "stuck", NAME),
        ("recovered", "WARN", "stuck", "raw/orders"),
    ]


def test_what_a_clock_that_is_hours_ahead_for_one_tick_finds_is_over_at_the_next(
    life: Life, hook: HttpReceiver
) -> None:
    hook.answers += [503]
    life.sandbox.now += 6 * HOUR
    life.tick()
    assert (life.told(), life.waiting()) == ([], 1)
    life.sandbox.now -= 6 * HOUR
    life.live(life.sandbox.now + 2 * STEP)
    assert [one[1:5] for one in life.told()] == [
        ("opened", "BREACH", "freshness", NAME),
        ("recovered", "BREACH", "freshness", NAME),
    ]
    assert life.waiting() == 0


def test_while_the_bucket_cannot_be_reached_what_waits_is_told_and_what_is_known_otherwise_is_booked(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.hook.answers.append(503)
    life.live(T0 + 4 * HOUR + 20 * MINUTE, jobs=False)
    assert (life.told(), life.waiting()) == ([], 1)
    stand_still(life)
    life.sandbox.now += STEP
    life.evaluate(life.sensors[1], bucket_that_is_gone(life, monkeypatch))
    wanted = [("opened", "freshness", NAME), ("opened", "stuck", NAME), ("opened", "stuck", "raw/orders")]
    assert [(one[1], one[3], one[4]) for one in life.told()] == wanted
    life.sandbox.resource().settings().heartbeats().close("run-1", "run-2 succeeded")
    life.restart()
    with pytest.raises(StoreUnavailable):
        life.evaluate(life.sensors[1], bucket_that_is_gone(life, monkeypatch))
    assert len(life.told()) == 3, "who never read the registry books nothing"
    life.hook.answers.append(503)
    life.sandbox.now += STEP
    life.tick()
    assert (len(life.told()), life.waiting()) == (3, 3)
    life.restart()
    life.sandbox.now += STEP
    with pytest.raises(StoreUnavailable):
        life.evaluate(life.sensors[1], bucket_that_is_gone(life, monkeypatch))
    assert [one[1] for one in life.told()[3:]] == ["raised", "recovered", "recovered"], "and delivers all the same"


def bucket_that_is_gone(life: Life, monkeypatch: pytest.MonkeyPatch) -> StoreResource:
    """A store whose bucket nobody answers for; its metadata database is elsewhere, and there."""
    monkeypatch.setenv("FEATURESTORE_METADATA_URL", f"sqlite:///{life.sandbox.root / 'metadata.db'}")
    monkeypatch.setenv("FEATURESTORE_ROOT", "s3://gone/store")
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(f"AWS_{name}", value)
    return StoreResource(now=life.sandbox.now.isoformat())


@pytest.mark.exam
def test_a_group_that_alerts_nobody_or_is_no_longer_declared_is_closed(life: Life) -> None:
    life.live(T0 + 4 * HOUR + 30 * MINUTE, jobs=False)
    life.use(kiosk_last_order_hourly)
    life.live(life.sandbox.now + STEP, jobs=False)
    closed = life.hook.documents()[-1]
    assert (closed["event"], closed["reason"]) == ("closed", f"{NAME} is no longer declared.")


@pytest.mark.exam
def test_routes_that_cannot_be_read_fail_the_tick_and_lose_nothing(life: Life) -> None:
    file = life.sandbox.folder / "alerts.toml"
    good = file.read_text()
    file.write_text("default = 3")
    with pytest.raises(Exception, match="has no sink"):
        life.live(T0 + 4 * HOUR + 20 * MINUTE, jobs=False)
    file.write_text(good)
    while life.sandbox.now < T0 + 4 * HOUR + 30 * MINUTE:
        life.live(life.sandbox.now + STEP, jobs=False)
    assert [one[1] for one in life.told()] == ["opened"]
