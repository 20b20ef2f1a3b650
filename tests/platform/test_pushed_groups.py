"""Pushed groups in Dagster: an asset that is looked at, a sensor that tells of pushes, online copies that follow, and readers."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest
import redis

from featurestore.declaration import Feature, Hourly, Online, TimeWindow, feature_group, pushed_group
from sensors.pushed import pushed_groups
from tests.platform.kiosks import HOUR, MINUTE, OWNER, START, T0, hour_key, kiosk, kiosk_orders_hourly, kiosks
from tests.platform.sandbox import Sandbox

VISITS = "kiosk_visit"
OFFLINE, ONLINE = dg.AssetKey(["offline", VISITS]), dg.AssetKey(["online", VISITS])

kiosk_visit = pushed_group(
    name=VISITS,
    entity=kiosk,
    features=[Feature("visitors", pl.Int64, "Visitors seen", ge=0, max_null_fraction=0, drift=None)],
    online=Online(ttl=6 * HOUR),
    freshness=2 * HOUR,
    owner=OWNER,
    description="Visitors as the door counts them.",
)


@feature_group(
    entity=kiosk,
    features=[Feature("visitors_1h", pl.Int64, "Visitors of an hour", drift=None)],
    cadence=Hourly(start=START),
    lookback=HOUR,
    delay=10 * MINUTE,
    owner=OWNER,
)
def kiosk_visits_hourly(window: TimeWindow, kiosk_visit: pl.LazyFrame) -> pl.LazyFrame:
    """Visitors of an hour."""
    return kiosk_visit.group_by("kiosk").agg(visitors_1h=pl.col("visitors").sum())


@dataclass
class Doors:
    """A sandbox with the pushed group and a reader of it, the sensor's cursor, and the automation's."""

    sandbox: Sandbox
    cursor: str | None = None
    ticks: Any = field(default=None, repr=False)

    def push(self, *visits: tuple[str, timedelta, int], to: Any = "online_and_offline") -> Any:
        rows = [{"kiosk": name, "event_time": T0 + at, "visitors": count} for name, at, count in visits]
        return self.sandbox.store.push(VISITS, rows, to)

    def sense(self) -> list[dg.AssetMaterialization]:
        """One tick of the sensor, whose events are then reported as the daemon does."""
        (sensor,) = pushed_groups(self.sandbox.catalog)
        resources = self.sandbox.definitions().resources
        with dg.build_sensor_context(
            instance=self.sandbox.instance, cursor=self.cursor, resources=dict(resources or {})
        ) as context:
            told = sensor.evaluate_tick(context)
        self.cursor = told.cursor
        for event in told.asset_events:
            self.sandbox.instance.report_runless_asset_event(event)
        return list(told.asset_events)  # type: ignore[arg-type]

    def requested(self) -> list[str]:
        """What the next automation tick requests of the online assets."""
        result = dg.evaluate_automation_conditions(
            self.sandbox.definitions(),
            self.sandbox.instance,
            asset_selection=dg.AssetSelection.key_prefixes("online"),
            cursor=self.ticks,
            evaluation_time=self.sandbox.now,
        )
        self.ticks = result.cursor
        return [VISITS] if result.get_num_requested(ONLINE) else []

    def visitors(self, *names: str) -> list[int | None]:
        answer = self.sandbox.store.get_online_features([f"{VISITS}:visitors"], {"kiosk": list(names)})
        return answer.to_dict()["visitors"]


@pytest.fixture
def doors(sandbox: Sandbox, valkey_url: str) -> Doors:
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    sandbox.online_url = valkey_url
    sandbox.now = T0 + HOUR
    sandbox.use(kiosks(kiosk_visit, kiosk_visits_hourly, kiosk_orders_hourly))
    return Doors(sandbox)


def test_pushed_group_is_an_external_asset_with_an_online_copy(doors: Doors) -> None:
    graph = doors.sandbox.definitions().resolve_asset_graph()
    offline = graph.get(OFFLINE)
    assert (offline.is_observable, offline.is_materializable, offline.owners) == (True, False, [OWNER])
    assert offline.freshness_policy is None
    assert graph.get(ONLINE).freshness_policy is not None
    assert graph.get(ONLINE).parent_keys == {OFFLINE}
    assert graph.get(dg.AssetKey(["offline", "kiosk_visits_hourly"])).parent_keys == {OFFLINE}


def test_sensor_is_there_only_where_a_group_is_pushed(doors: Doors) -> None:
    assert "pushed_groups" in {sensor.name for sensor in doors.sandbox.definitions().sensors or ()}
    assert pushed_groups(kiosks(kiosk_orders_hourly)) == []


def test_observation_says_what_the_table_holds_and_how_old_it_is(doors: Doors) -> None:
    doors.push(("a", 30 * MINUTE, 3), ("b", 40 * MINUTE, 4))
    doors.sandbox.now += HOUR
    result = doors.sandbox.run(f"offline/{VISITS}")
    (observed,) = [event for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    told = {name: entry.value for name, entry in observed.asset_observation_data.asset_observation.metadata.items()}
    assert (told["dagster/row_count"], told["table_version"]) == (2, 1)
    assert told["dagster/last_updated_timestamp"] == (T0 + HOUR).timestamp()
    assert told["newest_event_time"] == (T0 + 40 * MINUTE).timestamp()
    assert (told["seconds_since_push"], told["age_seconds"]) == (3600.0, 4800.0)


def test_observation_of_a_group_that_nobody_pushed_to(doors: Doors) -> None:
    assert doors.sandbox.run(f"offline/{VISITS}").success


def test_sensor_reports_each_new_version_once(doors: Doors) -> None:
    assert doors.sense() == []
    doors.push(("a", 30 * MINUTE, 3))
    doors.push(("b", 30 * MINUTE, 3))
    (event,) = doors.sense()
    assert (event.asset_key, event.metadata["table_version"].value) == (OFFLINE, 2)
    assert doors.sense() == []
    doors.push(("a", 31 * MINUTE, 3))
    assert len(doors.sense()) == 1


def test_sensor_reports_once_more_when_a_waiting_row_has_come(doors: Doors) -> None:
    doors.push(("a", HOUR + 3 * MINUTE, 3))
    assert len(doors.sense()) == 1
    assert doors.sense() == []
    doors.sandbox.now += 3 * MINUTE
    assert len(doors.sense()) == 1
    assert doors.sense() == []


def test_online_copy_follows_pushes_and_waiting_rows(doors: Doors) -> None:
    assert doors.requested() == []
    doors.push(("a", 30 * MINUTE, 3))
    doors.sense()
    assert doors.requested() == [VISITS]
    assert doors.requested() == []
    assert doors.sandbox.run(f"online/{VISITS}").success
    assert doors.visitors("a", "b") == [3, None]
    doors.push(("a", HOUR + 3 * MINUTE, 5))
    doors.sense()
    assert doors.requested() == [VISITS]
    assert doors.sandbox.run(f"online/{VISITS}").success
    assert doors.visitors("a") == [3]
    doors.sandbox.now += 3 * MINUTE
    doors.sense()
    assert doors.requested() == [VISITS]
    assert doors.sandbox.run(f"online/{VISITS}").success
    assert doors.visitors("a") == [5]


def test_push_is_served_at_once_and_the_parity_check_passes(doors: Doors) -> None:
    doors.push(("a", 30 * MINUTE, 3))
    assert doors.sandbox.run(f"online/{VISITS}").success
    assert doors.push(("a", 45 * MINUTE, 4), ("b", 45 * MINUTE, 5)).is_online
    assert doors.visitors("a", "b") == [4, 5]
    doors.sandbox.now += MINUTE
    assert doors.sandbox.run(f"online/{VISITS}").success
    assert doors.visitors("a", "b") == [4, 5]


def test_window_that_reads_a_pushed_group_sees_what_was_known_by_its_cut_off(doors: Doors) -> None:
    doors.sandbox.now = T0 + HOUR
    doors.push(("a", 30 * MINUTE, 3), ("a", 40 * MINUTE, 4), ("b", 50 * MINUTE, 5))
    doors.sandbox.now = T0 + HOUR + 11 * MINUTE
    doors.push(("a", 35 * MINUTE, 100))
    result = doors.sandbox.run("offline/kiosk_visits_hourly", partitions=[hour_key(0)])
    assert result.success
    rows = doors.sandbox.rows("kiosk_visits_hourly")
    assert dict(rows.select("kiosk", "visitors_1h").rows()) == {"a": 7, "b": 5}
