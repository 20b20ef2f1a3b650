"""One look at a whole store: what it makes of groups that never began, sources that never spoke, and what cannot be read."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from featurestore.alerts.lateness import late_groups
from featurestore.alerts.problem import Blame, Problem
from featurestore.declaration import Backfill, Catalog, Feature, Hourly, TimeWindow, feature_group, pushed_group
from featurestore.errors import StoreUnavailable
from featurestore.freshness.follow import TableFollower
from featurestore.freshness.judgement import GroupFreshness
from featurestore.freshness.watch import FreshnessWatch
from featurestore.location import Location
from featurestore.offline.ledger import LedgerEntry
from featurestore.promotion import materialize_windows
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.catalogs import (
    DAY,
    HOUR,
    MINUTE,
    START,
    T0,
    Clock,
    Shops,
    hours,
    sale,
    sales,
    shop,
    shop_sales_daily,
    shop_sales_hourly,
)
from tests.clicks import MICROSECOND, Clicks, row

DAILY, HOURLY = shop_sales_daily.stored_name, shop_sales_hourly.stored_name
HOURLY_SERVED = T0 + HOUR + timedelta(minutes=15)


@pytest.fixture
def chain(tmp_path: Path) -> Shops:
    """Declared at the first instant of its groups, with a sale in each hour of a day."""
    made = Shops(tmp_path, Clock(T0))
    RegistryHistory(made.store.root).apply(made.catalog, made.clock, "somebody")
    made.land(sales, [sale(hour, T0 + hour * HOUR) for hour in range(24)])
    return made


def look(shops: Shops, *names: str) -> dict[str, GroupFreshness]:
    return FreshnessWatch(shops.store, None).look(groups=names or None)


def compute(shops: Shops, first: int, last: int) -> None:
    materialize_windows(
        shops.store, shops.catalog, shop_sales_hourly, hours(shop_sales_hourly, first, last), run_id="r"
    )


def test_a_group_whose_first_window_never_comes_is_a_breach_one_slo_after_it_was_to_be_served(chain: Shops) -> None:
    assert shop_sales_hourly.freshness == HOUR
    chain.clock.now = HOURLY_SERVED + HOUR - timedelta(microseconds=1)
    assert look(chain)[HOURLY].status == "NEVER"
    chain.clock.now = HOURLY_SERVED + HOUR
    found = look(chain)[HOURLY]
    assert (found.status, found.causes[0].since) == ("BREACH", HOURLY_SERVED + HOUR)
    assert "has no window in production; the first was to be served 1 h ago" in found.causes[0].text
    compute(chain, 0, 1)
    assert [cause.kind for cause in look(chain)[HOURLY].causes] == ["late"]


def test_a_group_that_was_declared_late_owes_nothing_of_the_time_before(tmp_path: Path) -> None:
    chain = Shops(tmp_path, Clock(T0 + 9 * DAY))
    RegistryHistory(chain.store.root).apply(chain.catalog, chain.clock, "somebody")
    chain.clock.now += HOUR
    assert look(chain)[HOURLY].status == "NEVER"
    chain.clock.now += 2 * HOUR
    assert look(chain)[HOURLY].status == "BREACH"


def test_a_group_all_of_whose_windows_were_taken_back_holds_nothing(chain: Shops) -> None:
    chain.clock.now = T0 + HOUR + timedelta(minutes=11)
    compute(chain, 0, 1)
    assert look(chain)[HOURLY].status == "OK"
    ledger = chain.store.ledger(HOURLY)
    entry = LedgerEntry(**ledger.latest().row(0, named=True))
    ledger.append([replace(entry, status="rolled_back", recorded_at=chain.clock.now)])
    found = look(chain)[HOURLY]
    assert (found.status, found.last_materialized_at, found.holds_everything_due) == ("NEVER", None, False)
    chain.clock.now = HOURLY_SERVED + HOUR
    assert look(chain)[HOURLY].status == "BREACH"


def test_a_source_that_never_had_a_row_is_silent_from_when_it_was_declared(tmp_path: Path) -> None:
    chain = Shops(tmp_path, Clock(T0))
    RegistryHistory(chain.store.root).apply(chain.catalog, chain.clock, "somebody")
    chain.clock.now = T0 + DAY
    compute(chain, 0, 23)
    assert look(chain)[HOURLY].causes == ()
    chain.clock.now = T0 + DAY + HOUR
    compute(chain, 23, 24)
    (cause,) = look(chain)[HOURLY].causes
    assert (cause.kind, cause.status, cause.asset, cause.since) == ("source", "BREACH", "raw/sales", T0 + DAY)
    assert cause.text == "raw/sales has never had a row; it may be silent for 1 d."


def test_a_source_that_never_had_a_row_is_silent_also_where_for_want_of_it_its_group_never_begins(
    tmp_path: Path,
) -> None:
    chain = Shops(tmp_path, Clock(T0))
    RegistryHistory(chain.store.root).apply(chain.catalog, chain.clock, "somebody")
    chain.clock.now = T0 + DAY
    assert [cause.asset for cause in look(chain)[HOURLY].causes] == [f"offline/{HOURLY}"]
    problem = next(one for one in late_groups(chain.store.registry, look(chain), T0 + DAY).problems)
    assert problem.blamed is not None
    assert (problem.blamed.asset, problem.blamed.since) == ("raw/sales", T0)
    chain.clock.now = T0 + DAY + HOUR
    causes = look(chain)[HOURLY].causes
    assert [(cause.asset, cause.since) for cause in causes] == [
        (f"offline/{HOURLY}", HOURLY_SERVED + HOUR),
        ("raw/sales", T0 + DAY),
    ]


def test_a_group_that_waits_for_what_is_no_source_is_told_what_a_group_begins_with(chain: Shops) -> None:
    chain.clock.now = HOURLY_SERVED + HOUR
    findings = late_groups(chain.store.registry, look(chain), chain.clock.now)
    (remedy,) = [one.remedy for one in findings.problems if one.group == HOURLY]
    assert remedy.startswith(f"See why no run of offline/{HOURLY} succeeds. A group begins once every source")


def test_a_ledger_that_cannot_be_read_keeps_no_other_group_from_being_looked_at(chain: Shops) -> None:
    chain.clock.now = HOURLY_SERVED
    compute(chain, 0, 1)
    entry = chain.store.ledger(HOURLY).location.child("_delta_log").path / "00000000000000000000.json"
    whole = entry.read_bytes()
    entry.write_bytes(whole[:100])
    watch = FreshnessWatch(chain.store, None)
    unreadable: dict[str, str] = {}
    found = watch.look(unreadable=unreadable)
    assert (HOURLY in found, DAILY in found) == (False, True)
    assert list(unreadable) == [HOURLY]
    assert f"offline/{HOURLY}: Log entry" in unreadable[HOURLY]
    with pytest.raises(
        StoreUnavailable, match=f"The freshness of {HOURLY} cannot be told: offline/{HOURLY}: Log entry"
    ):
        watch.look()
    findings = late_groups(chain.store.registry, found, chain.clock.now, unreadable)
    told = [(one.group, one.status) for one in findings.problems if "cannot be read" in one.text]
    assert told == [(HOURLY, "BREACH")]
    assert ("freshness", HOURLY) not in findings.spoken_for
    entry.write_bytes(whole)
    assert watch.look()[HOURLY].status == "OK"


def test_what_the_gate_found_is_told_with_the_windows_that_it_holds(chain: Shops) -> None:
    chain.land(sales, [sale("much", T0, shop="b", amount=5000.0)])
    chain.clock.now = HOURLY_SERVED
    compute(chain, 0, 1)
    found = "Found of 2026-03-01-00:00: range of 'revenue_1h' is [5000.0, 5000.0], limit [0.0, 1000.0]."
    assert found in held_text(chain, FreshnessWatch(chain.store, None))
    report = chain.store.staging(HOURLY).place(T0).replace(".parquet", ".json").removeprefix("file://")
    whole = Path(report).read_text()
    Path(report).write_text(whole[:50])
    watch = FreshnessWatch(chain.store, None)
    assert "held by the gate: 2026-03-01-00:00. Production keeps" in held_text(chain, watch), "without what is damaged"
    Path(report).write_text(whole.replace('"range"', f'"{"far too much " * 40}"'))
    assert len(held_text(chain, watch)) < 400
    Path(report).unlink()
    assert "far too much" in held_text(chain, watch), "it is read once"


def held_text(chain: Shops, watch: FreshnessWatch) -> str:
    """The text of the alert of the hourly group's quarantine."""
    problems = late_groups(chain.store.registry, watch.look(groups=[HOURLY]), chain.clock.now).problems
    return next(one.text for one in problems if one.kind == "quarantine")


def test_when_nothing_can_be_read_that_is_the_error(chain: Shops) -> None:
    chain.clock.now = HOURLY_SERVED
    compute(chain, 0, 1)
    entry = chain.store.ledger(HOURLY).location.child("_delta_log").path / "00000000000000000000.json"
    entry.write_bytes(b"{")
    chain.root.joinpath("raw", "source=sales", "_delta_log", "00000000000000000000.json").write_bytes(b"{")
    with pytest.raises(StoreUnavailable):
        look(chain, HOURLY)


def test_a_correction_of_an_old_event_makes_a_pushed_group_neither_late_nor_fresh(tmp_path: Path) -> None:
    world = Clicks(tmp_path)
    first = world.clock.now
    world.push(row("a", first - MINUTE), to="offline")
    follower = TableFollower(world.table)
    follower.look()
    assert (follower.materialized_at, follower.last_event) == (first, first - MINUTE)
    world.clock.now += 2 * HOUR
    world.push(row("b", first - HOUR), to="offline")
    again = TableFollower(world.table)
    for one in (follower, again):
        one.look()
        assert (one.materialized_at, one.last_event) == (first, first - MINUTE)
    world.push(row("b", world.clock.now - MINUTE), to="offline")
    follower.look()
    assert follower.last_event == world.clock.now - MINUTE
    assert follower.materialized_at == world.clock.now + MICROSECOND, "pushes at one instant stay apart"


def test_rows_of_a_push_that_cannot_be_read_are_read_by_the_next_look(tmp_path: Path) -> None:
    world = Clicks(tmp_path)
    now = world.clock.now
    world.push(row("a", now - MINUTE), to="offline")
    follower = TableFollower(world.table)
    (file,) = tmp_path.rglob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(b"no Parquet")
    with pytest.raises(StoreUnavailable, match=r"The newest rows of .* cannot be read"):
        follower.look()
    file.write_bytes(whole)
    follower.look()
    assert (follower.materialized_at, follower.last_event) == (now, now - MINUTE)


VISITS = pushed_group(
    name="shop_visits",
    entity=shop,
    features=[Feature("people", pl.Int64, "People seen", drift=None)],
    owner="team:doors",
    description="Visitors as the door counts them.",
)


@feature_group(
    entity=shop,
    features=[Feature("people_1h", pl.Int64, "People of an hour", drift=None)],
    cadence=Hourly(start=START),
    lookback=HOUR,
    owner="team:shops",
    backfill=Backfill(row_count=None),
)
def shop_visits_hourly(window: TimeWindow, shop_visits: pl.LazyFrame) -> pl.LazyFrame:
    """Visitors of an hour."""
    return shop_visits.group_by("shop").agg(people_1h=pl.col("people").sum())


READER = shop_visits_hourly.stored_name


@dataclass
class Doors:
    """A pushed group and an hourly one that reads it, both declared at the first instant."""

    folder: Path
    clock: Clock
    catalog: Catalog = field(default_factory=lambda: Catalog([], [VISITS, shop_visits_hourly], []))

    def __post_init__(self) -> None:
        RegistryHistory(Location(str(self.folder))).apply(self.catalog, self.clock, "somebody")

    @property
    def features(self) -> FeatureStore:
        return FeatureStore(Settings(Location(str(self.folder)), Location(str(self.folder)), ""), clock=self.clock)

    def push(self) -> None:
        self.features.push("shop_visits", [{"shop": "a", "event_time": self.clock.now, "people": 3}])

    def compute(self, first: int, last: int) -> None:
        windows = hours(shop_visits_hourly, first, last)
        materialize_windows(self.features.offline, self.catalog, shop_visits_hourly, windows, run_id="r")

    def look(self, *names: str) -> dict[str, GroupFreshness]:
        return FreshnessWatch(self.features.offline, None).look(groups=names or None)

    def problems(self) -> dict[str, Problem]:
        found = late_groups(self.features.registry, self.look(), self.clock.now)
        return {one.group: one for one in found.problems}


def test_a_dead_pusher_under_green_jobs_is_a_breach_of_whoever_reads_the_group_and_is_blamed(tmp_path: Path) -> None:
    doors = Doors(tmp_path, Clock(T0))
    doors.clock.now = T0 + 50 * MINUTE
    doors.push()
    doors.clock.now = T0 + HOUR + MINUTE
    doors.compute(0, 1)
    (reader,) = doors.look(READER).values()
    assert (reader.status, reader.data_lag, reader.last_event_time) == ("OK", 11 * MINUTE, T0 + 50 * MINUTE)
    assert [(one.asset, one.silence) for one in reader.sources] == [("offline/shop_visits", DAY + 5 * MINUTE)]
    doors.clock.now = T0 + DAY + HOUR + MINUTE
    doors.compute(1, 25)
    problems = doors.problems()
    assert set(problems) == {"shop_visits", READER}
    silent = T0 + DAY + 55 * MINUTE
    for name, owner in (("shop_visits", "team:doors"), (READER, "team:shops")):
        one = problems[name]
        assert (one.status, one.asset, one.since) == ("BREACH", "offline/shop_visits", silent)
        assert doors.features.registry.groups[name].owner == owner
        assert one.blamed is not None
        assert (one.blamed.asset, one.blamed.owner) == ("offline/shop_visits", "team:doors")
        assert one.remedy == "Find out why whoever pushes to shop_visits is late or silent."
    doors.push()
    assert [one.status for one in doors.look().values()] == ["OK", "OK"]


def test_a_group_that_reads_what_nobody_pushes_is_late_for_want_of_it(tmp_path: Path) -> None:
    doors = Doors(tmp_path, Clock(T0))
    doors.clock.now = T0 + 3 * HOUR
    one = doors.problems()[READER]
    assert one.blamed == Blame("offline/shop_visits", "team:doors", T0, "it has never had a row")
    assert one.remedy == "Find out why whoever pushes to shop_visits is late or silent."
    doors.clock.now = T0 + 2 * DAY
    assert [cause.asset for cause in doors.look(READER)[READER].causes] == [f"offline/{READER}", "offline/shop_visits"]


def test_a_pushed_table_that_cannot_be_read_leaves_its_readers_unknown(tmp_path: Path) -> None:
    doors = Doors(tmp_path, Clock(T0 + 50 * MINUTE))
    doors.push()
    doors.clock.now = T0 + HOUR + MINUTE
    doors.compute(0, 1)
    entry = doors.features.offline.table("shop_visits").location.child("_delta_log").path / "00000000000000000000.json"
    entry.write_bytes(entry.read_bytes()[:50])
    unreadable: dict[str, str] = {}
    assert FreshnessWatch(doors.features.offline, None).look(unreadable=unreadable) == {}
    assert all("offline/shop_visits: " in why for why in unreadable.values())
    assert set(unreadable) == {"shop_visits", READER}
