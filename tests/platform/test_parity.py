"""The one idea, on random days: what is read online at T is what the point-in-time join reads at T, hour after hour.

Rows come late, are corrected, land after their window was promoted and move to another kiosk; production is down for
hours; windows are run again; kiosks close and open. The clock is injected; the second store is a real Valkey.
"""

import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from examples.flights.parity import compare_at, past_ttl
from featurestore.declaration import Static
from featurestore.errors import FeatureStoreError, PromotionRefused
from featurestore.loading import materialize_load
from featurestore.promotion import materialize_windows
from tests.platform.kiosks import HOUR, MINUTE, T0, kiosk_model_v1, kiosk_profile, order, orders, register
from tests.platform.sandbox import Sandbox
from tests.scale import cases

FIRST = 18
"""Instants are the 24 full hours from this one on: the first day's windows reach their horizons among them."""
INSTANTS = [T0 + (FIRST + hour) * HOUR for hour in range(24)]
KIOSKS = ["a", "b", "c", "nowhere"]
QUARTER = 15 * MINUTE


@dataclass(frozen=True)
class Sale:
    """An order as it became known, and when its file landed."""

    row: dict[str, Any]
    landed_at: Any


@st.composite
def sales(draw: st.DrawFn) -> list[Sale]:
    made: list[Sale] = []
    for number in range(draw(st.integers(5, 40))):
        is_correction = bool(made) and draw(st.integers(0, 4)) == 0
        name = draw(st.sampled_from(made)).row["order_id"] if is_correction else f"o{number:03}"
        event = T0 + draw(st.integers(0, (FIRST + 22) * 4)) * QUARTER
        known = event + draw(st.sampled_from([0, 0, 0, 1, 2, 5, 12, 40])) * QUARTER
        landed = known + draw(st.sampled_from([0, 0, 0, 1, 4, 16])) * HOUR
        amount = float(draw(st.integers(0, 20)))
        made.append(Sale(order(name, event, amount, kiosk=draw(st.sampled_from(KIOSKS[:3])), known_at=known), landed))
    return made


@dataclass(frozen=True)
class Story:
    """What happens to a deployment in 24 hours; hours are indexes of `INSTANTS`."""

    sales: list[Sale]
    down: set[int]
    reruns: set[int]
    seats: dict[int, dict[str, int]]


hours = st.sets(st.integers(0, 23), max_size=6)
loads = st.dictionaries(st.integers(0, 23), st.dictionaries(st.sampled_from(KIOSKS[:3]), st.integers(0, 3)), max_size=4)
stories = st.builds(Story, sales(), down=hours, reruns=hours, seats=loads)


@dataclass
class Production:
    """A deployment that is moved from hour to hour, and the windows of each group that it has promoted."""

    sandbox: Sandbox
    promoted: dict[str, int] = field(default_factory=dict)
    landed: int = 0

    def land(self, story: Story) -> None:
        due = sorted(
            (sale for sale in story.sales if sale.landed_at <= self.sandbox.now), key=lambda sale: sale.landed_at
        )
        if due[self.landed :]:
            self.sandbox.ingest(orders, [sale.row for sale in due[self.landed :]])
        self.landed = len(due)

    def load(self, seats: dict[str, int]) -> None:
        """A load of the register; one that loses too many kiosks is refused and changes nothing."""
        self.sandbox.ingest(register, [{"kiosk": name, "seats": number} for name, number in seats.items()])
        with suppress(PromotionRefused):
            materialize_load(self.sandbox.offline, self.sandbox.catalog, kiosk_profile, run_id="load")

    def promote(self, *, again: bool) -> None:
        """Run every window that is due and was not run before, or all of them."""
        for group in self.sandbox.catalog.ordered_groups:
            if isinstance(group.cadence, Static):
                continue
            due = list(group.cadence.windows_between(T0, self.sandbox.now - group.delay))
            windows = due if again else due[self.promoted.get(group.name, 0) :]
            if windows:
                materialize_windows(self.sandbox.offline, self.sandbox.catalog, group, windows, run_id="hour")
            self.promoted[group.name] = len(due)

    def move(self) -> None:
        self.sandbox.store.materialize()

    def check(self) -> None:
        """Online now is what the newest tables give at this very instant: every value and every status."""
        spine = pl.DataFrame({"kiosk": KIOSKS})
        online = self.sandbox.store.get_online_features(kiosk_model_v1, spine)
        asked = spine.with_columns(label_time=pl.lit(self.sandbox.now))
        offline = self.sandbox.store.get_historical_features(asked, kiosk_model_v1, with_status=True).to_polars()
        for column in online.statuses.columns:
            assert online.frame[column].to_list() == offline[column].to_list(), (column, self.sandbox.now)
            served = online.statuses[column].cast(pl.String)
            truth = offline[f"{column}__status"].cast(pl.String)
            agree = (served == truth) | self.may_differ(column, asked, served, truth)
            assert agree.all(), (column, self.sandbox.now, served.to_list(), truth.to_list())

    def may_differ(self, column: str, asked: pl.DataFrame, served: pl.Series, truth: pl.Series) -> pl.Series:
        """Past its ttl, and only then, a value is gone online, where offline still says that it is too old; a group of which
        nothing was ever promoted was never moved."""
        group = next(group for group in self.sandbox.catalog.groups if column in {f.name for f in group.features})
        version = self.sandbox.version(group.name)
        if version is None:
            return (served == "UNAVAILABLE") & (truth == "NOT_FOUND")
        is_gone = (served == "NOT_FOUND") & (truth == "OUTSIDE_MAX_AGE")
        return is_gone & past_ttl(self.sandbox.store, group.name, asked, version)


def empty_production(folder: str, instance: dg.DagsterInstance, url: str) -> Production:
    with redis.Redis.from_url(url) as server:
        server.flushall()
    return Production(Sandbox(Path(folder), instance, now=T0, online_url=url))


def test_a_value_that_is_gone_before_its_ttl_is_a_difference(
    instance: dg.DagsterInstance, valkey_url: str, tmp_path: Path
) -> None:
    production = empty_production(str(tmp_path), instance, valkey_url)
    sandbox = production.sandbox
    sandbox.now = T0 + 29 * HOUR  # the newest window of two hours ended 4 h ago: too old since 1 h, gone in 1 h
    sandbox.ingest(orders, [order(0, T0 + 23 * HOUR + 20 * MINUTE)])
    production.load({"a": 3})
    production.promote(again=False)
    production.move()

    def compare() -> int:
        versions = {group.name: sandbox.version(group.name) or 0 for group in sandbox.catalog.groups}
        return compare_at(sandbox.store, kiosk_model_v1.name, pl.DataFrame({"kiosk": KIOSKS}), sandbox.now, versions)

    production.check()
    assert compare() > 0
    with redis.Redis.from_url(valkey_url) as server:
        assert server.delete("kiosk_orders_hourly:a") == 1
    with pytest.raises(AssertionError, match="2h"):
        production.check()
    with pytest.raises(FeatureStoreError, match=r"2h's status differs .* for 1 rows"):
        compare()
    sandbox.now = T0 + 30 * HOUR + timedelta(microseconds=1)
    production.check()
    assert compare() > 0


# Shrinking takes minutes here: a failure prints its story as it was drawn.
every_case = settings(
    max_examples=cases(20, 3),
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@every_case
@given(story=stories)
def test_production_serves_at_each_hour_what_its_tables_say(
    instance: dg.DagsterInstance, valkey_url: str, story: Story
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        production = empty_production(folder, instance, valkey_url)
        for hour, instant in enumerate(INSTANTS):
            production.sandbox.now = instant
            production.land(story)
            if hour in story.seats:
                production.load(story.seats[hour])
            if hour not in story.down:
                production.promote(again=hour in story.reruns)
                production.move()
                production.check()


@every_case
@given(story=stories)
def test_second_store_replays_the_day_from_the_tables_as_they_ended(
    instance: dg.DagsterInstance, valkey_url: str, story: Story
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        production = empty_production(folder, instance, valkey_url)
        for hour in sorted(story.seats):
            production.sandbox.now = INSTANTS[hour]
            production.load(story.seats[hour])
        production.sandbox.now = INSTANTS[-1] + timedelta(days=3)
        production.land(story)
        production.promote(again=True)
        for instant in INSTANTS:
            production.sandbox.now = instant
            production.move()
            production.check()
