"""What a window is compared with, and what becomes of it: real promotions of a group whose rows a test decides."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore.declaration import (
    Backfill,
    Catalog,
    Daily,
    Drift,
    Entity,
    Feature,
    FeatureGroup,
    Hourly,
    KnownValue,
    RowCount,
    TimeWindow,
    feature_group,
)
from featurestore.gate.neighbours import Candidates, Chosen
from featurestore.gate.quality import Finding, Verdict
from featurestore.launch import SCHEDULED, Launch
from featurestore.location import Location
from featurestore.offline.store import OfflineStore
from featurestore.promotion import WindowOutcome, materialize_windows
from featurestore.registry.compile import compile_snapshot
from tests.catalogs import DAY, HOUR, OWNER, START, T0, Clock, Shops, register, sale, sales, shop

ROWS = 400
FULL = Launch(backfill_id="fill")
rider = Entity("rider")


@dataclass
class World:
    """A store of one group; `moved` and `rows` say of each window how far its values lie off and how many there are."""

    root: Path
    group: FeatureGroup
    make: Callable[[TimeWindow], pl.DataFrame]
    moved: dict[datetime, float] = field(default_factory=dict)
    rows: dict[datetime, int] = field(default_factory=dict)

    @property
    def store(self) -> OfflineStore:
        catalog = Catalog([sales], [self.group])
        return OfflineStore(
            Location(str(self.root)), compile_snapshot(catalog, None), Clock(T0 + 400 * DAY, ticks=True)
        )

    def run(
        self, windows: Sequence[TimeWindow], launch: Launch = SCHEDULED, run_id: str = "run"
    ) -> list[WindowOutcome]:
        catalog = Catalog([sales], [self.group])
        return list(
            materialize_windows(self.store, catalog, self.group, windows, run_id=run_id, launch=launch).outcomes
        )

    def days(self, first: int, last: int, launch: Launch = SCHEDULED, run_id: str = "run") -> list[WindowOutcome]:
        return self.run([day_at(n) for n in range(first, last)], launch, run_id)

    def use(self, **changes: Any) -> None:
        self.group = replace(self.group, **changes)

    def stored(self, day: int) -> pl.DataFrame:
        return self.store.table(self.group.stored_name).scan(windows=[day_at(day)]).collect()


def day_at(day: int) -> TimeWindow:
    return TimeWindow(T0 + day * DAY, T0 + (day + 1) * DAY)


def declared(
    world: Callable[[TimeWindow], pl.DataFrame], features: Sequence[Feature], backfill: Backfill | None, cadence: Any
) -> FeatureGroup:
    def rider_value(window: TimeWindow, sales: pl.LazyFrame) -> pl.LazyFrame:
        """What the test says."""
        return world(window).lazy()

    return feature_group(
        entity=rider, features=features, cadence=cadence, lookback=DAY, owner=OWNER, backfill=backfill
    )(rider_value)


def world_of(root: Path, drift: Drift | None = Drift(), backfill: Backfill | None = None, cadence: Any = None) -> World:  # noqa: B008
    """Values near 0 of 400 riders a window; `town` is one of three."""
    made: list[World] = []

    def make(window: TimeWindow) -> pl.DataFrame:
        world = made[0]
        rng = np.random.default_rng(int(window.start.timestamp()) // 3600)
        count = world.rows.get(window.start, ROWS)
        value = rng.normal(size=ROWS * 20)[:count] + world.moved.get(window.start, 0.0)
        towns = rng.choice(["Ulm", "Bonn", "Kiel"], size=ROWS * 20)[:count]
        names = [f"r{n:05}" for n in range(count)]
        schema = {"rider": pl.String, "value": pl.Float64, "town": pl.String}
        return pl.DataFrame({"rider": names, "value": value, "town": towns}, schema=schema)

    features = [Feature("value", pl.Float64, "A value", drift=drift), Feature("town", pl.String, "A town", drift=drift)]
    group = declared(make, features, backfill, cadence or Daily(start=START))
    made.append(World(root, group, make))
    return made[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_of(tmp_path)


def statuses(outcomes: Sequence[WindowOutcome]) -> str:
    """One letter a window: promoted, quarantined."""
    return "".join(outcome.status[0] for outcome in outcomes)


def checks(outcome: WindowOutcome) -> set[tuple[str, str]]:
    return {(finding.check, finding.column) for finding in outcome.verdict.findings}


# Scheduled windows: against the last promoted ones.


def test_window_that_drifts_is_held_and_the_ones_around_it_land(world: World) -> None:
    world.moved = {day_at(10).start: 2.0}
    outcomes = world.days(0, 14)
    assert statuses(outcomes) == "pppppppppp" + "q" + "ppp"
    assert checks(outcomes[10]) == {("psi", "value"), ("ks", "value")}
    assert "ks of 'value' is 0." in outcomes[10].reason


def test_report_of_a_held_window_says_how_far_and_shows_ten_rows_and_the_shares(world: World) -> None:
    world.days(0, 7)
    world.moved = {day_at(7).start: 2.0}
    [outcome] = world.days(7, 8)
    staging = world.store.staging(world.group.stored_name)
    report = staging.report(staging.quarantined()[0])
    assert report is not None
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    finding = report["findings"][0]
    assert (finding["check"], finding["column"], finding["limit"]) == ("psi", "value", "0.2")
    values = world.make(day_at(7))["value"]
    assert f"median {values.median():.6g}"[:11] in finding["observed"]
    assert finding["failing_rows"] == ROWS
    assert [row["value"] for row in finding["examples"]] == sorted(values, reverse=True)[:10]
    assert sum(row["reference"] for row in finding["details"]) == pytest.approx(1, abs=0.01)
    assert finding["details"][-1]["window"] > 0.5
    assert outcome.status == "quarantined"


def test_held_window_is_no_reference_and_the_last_promoted_ones_stay_it_however_long_ago(world: World) -> None:
    world.days(0, 7)
    world.moved = {day_at(n).start: 2.0 for n in range(7, 16)}
    assert statuses([outcome for n in range(7, 16) for outcome in world.days(n, n + 1)]) == "q" * 9


def test_same_weekdays_are_compared_where_there_are_four(world: World) -> None:
    """Sundays (day 0 is one) lie far off; the fifth is like the four before it, and a Sunday's value on a Monday is not."""
    world.use(features=tuple(replace(feature, drift=None) for feature in world.group.features))
    world.moved = {day_at(n).start: 5.0 for n in range(0, 42, 7)}
    world.days(0, 28)
    world.use(features=tuple(replace(feature, drift=Drift()) for feature in world.group.features))
    world.moved[day_at(29).start] = 5.0
    assert statuses(world.days(28, 31)) == "pqp"


def test_first_window_is_promoted_with_a_warning_that_there_is_no_reference(world: World) -> None:
    [outcome] = world.days(0, 1)
    assert (outcome.status, outcome.verdict.findings) == ("promoted", ())
    [warning] = outcome.verdict.warnings
    assert warning.endswith("value, town, row_count (there is no reference window).")


def test_small_window_is_promoted_with_one_warning_that_names_its_features(world: World) -> None:
    world.days(0, 3)
    world.rows = {day_at(3).start: 199}
    world.use(backfill=Backfill(row_count=RowCount(fall=0)))
    [outcome] = world.days(3, 4)
    assert outcome.status == "promoted"
    assert outcome.verdict.warnings == (
        "Not compared with reference windows, which takes 200 rows on each side: value, town (199 rows).",
    )


def test_judged_window_has_no_warning(world: World) -> None:
    assert [outcome.verdict.warnings for outcome in world.days(0, 3)[1:]] == [(), ()]


def test_group_that_declares_nothing_to_compare_is_not_warned_of(tmp_path: Path) -> None:
    world = world_of(tmp_path, drift=None, backfill=Backfill(row_count=None))
    world.moved = {day_at(2).start: 50.0}
    outcomes = world.days(0, 3)
    assert statuses(outcomes) == "ppp"
    assert [outcome.verdict.warnings for outcome in outcomes] == [()] * 3


def test_row_count_that_could_not_be_judged_is_warned_of_although_no_feature_is_compared(tmp_path: Path) -> None:
    world = world_of(tmp_path, drift=None)
    world.rows = {day_at(n).start: 3 for n in range(3)}
    first, *others = world.days(0, 3)
    told = "Not compared with reference windows, which takes 200 rows on each side: row_count"
    assert first.verdict.warnings == (f"{told} (there is no reference window).",)
    assert [outcome.verdict.warnings for outcome in others] == [(f"{told} (reference windows have 3 rows).",)] * 2


@pytest.mark.parametrize("launch", [SCHEDULED, FULL], ids=["scheduled", "full"])
@pytest.mark.parametrize(("usual", "status"), [(16, "q"), (7, "q"), (6, "p")])
def test_empty_window_among_small_ones_is_held_where_chance_does_not_explain_it(
    tmp_path: Path, launch: Launch, usual: int, status: str
) -> None:
    world = world_of(tmp_path, drift=None)
    world.rows = {day_at(n).start: usual for n in range(6)} | {day_at(6).start: 0}
    world.days(0, 6, launch)
    [outcome] = world.days(6, 7, launch)
    assert statuses([outcome]) == status
    if status == "q":
        assert outcome.reason.startswith("row_count of '' is 0 (median of")
        assert outcome.verdict.warnings == ()
    else:
        assert outcome.verdict.warnings[0].endswith("row_count (it has none, reference windows have 6 rows).")


def test_empty_window_of_a_group_that_sometimes_has_none_is_no_wonder(tmp_path: Path) -> None:
    world = world_of(tmp_path, drift=None)
    world.rows = {day_at(n).start: 16 for n in range(6)} | {day_at(3).start: 0, day_at(6).start: 0}
    world.use(backfill=Backfill(row_count=None))
    world.days(0, 6)
    world.use(backfill=Backfill())
    assert statuses(world.days(6, 7)) == "p"


def test_large_windows_are_sampled_and_still_judged(tmp_path: Path) -> None:
    world = world_of(tmp_path, backfill=Backfill(row_count=None))
    many = 20 * ROWS
    world.rows = {day_at(n).start: many for n in range(5)}
    world.moved = {day_at(4).start: 1.0}
    outcomes = world.days(0, 5)
    assert statuses(outcomes) == "ppppq"
    assert outcomes[4].verdict.rows == many


# Row counts and known values.


@pytest.mark.parametrize(("rows", "status"), [(0, "q"), (199, "q"), (210, "p"), (1100, "p"), (1300, "q")])
def test_row_count_beyond_its_bounds_holds_a_window(world: World, rows: int, status: str) -> None:
    world.days(0, 7)
    world.rows = {day_at(7).start: rows}
    [outcome] = world.days(7, 8)
    assert statuses([outcome]) == status
    assert (("row_count", "") in checks(outcome)) == (status == "q")


def test_row_count_that_a_reference_window_had_too_is_in_bounds(world: World) -> None:
    world.use(backfill=Backfill(row_count=None))
    world.rows = {day_at(n).start: 100 for n in (2, 7)}
    world.days(0, 7)
    world.use(backfill=Backfill())
    assert statuses(world.days(7, 8)) == "p"


def test_row_counts_of_small_windows_are_not_held_against_each_other(tmp_path: Path) -> None:
    world = world_of(tmp_path, drift=None)
    world.rows = {day_at(n).start: 3 for n in range(8)} | {day_at(8).start: 30, day_at(9).start: 0}
    assert statuses(world.days(0, 10)) == "p" * 10


def test_known_value_is_checked_in_its_window_alone(world: World) -> None:
    true = world.make(day_at(2)).row(5, named=True)
    known = KnownValue("2026-03-03", {"rider": true["rider"]}, "value", round(true["value"], 3), tolerance=0.001)
    world.use(backfill=Backfill(known_values=(known,)))
    assert statuses(world.days(0, 4)) == "pppp"
    world.use(backfill=Backfill(known_values=(replace(known, value=known.value + 0.01),)))
    outcomes = world.days(0, 4, run_id="again")
    assert statuses(outcomes) == "ppqp"
    [finding] = outcomes[2].verdict.findings
    assert (finding.check, finding.column) == ("known_value", "value")
    assert finding.observed == f"{true['value']} for rider={true['rider']}"
    assert finding.limit == f"{known.value + 0.01} within 0.001"


@pytest.mark.parametrize(
    ("keys", "feature", "value", "observed"),
    [
        ({"rider": "nobody"}, "value", 1.0, "no row for rider=nobody"),
        ({"rider": "r00000"}, "town", "Rome", None),
        ({"rider": "r00000"}, "value", None, None),
    ],
)
def test_known_value_that_is_not_there_holds_its_window(
    world: World, keys: Mapping[str, str], feature: str, value: Any, observed: str | None
) -> None:
    world.use(backfill=Backfill(known_values=(KnownValue("2026-03-01", keys, feature, value),)))
    [outcome] = world.days(0, 1)
    assert checks(outcome) == {("known_value", feature)}
    assert observed is None or outcome.verdict.findings[0].observed == observed


# A full recompute: against its neighbours, and beside what was promoted.


def test_mended_transform_that_moves_every_window_is_held_as_a_shift_and_lands_when_it_is_accepted(
    world: World,
) -> None:
    world.days(0, 20)
    before = world.store.table(world.group.stored_name).version()
    world.moved = {day_at(n).start: 3.0 for n in range(20)}
    held = world.days(0, 20, FULL, "fill")
    assert statuses(held) == "q" * 20
    assert {check for outcome in held for check in checks(outcome)} == {("shift", "value")}
    assert held[0].verdict.findings[0].observed.startswith("20 of 20 windows differ from what was promoted")
    assert "'value'" in held[0].reason
    assert len(held[0].verdict.findings[0].examples) == 10
    assert world.store.table(world.group.stored_name).version() == before
    accepted = world.days(0, 20, replace(FULL, accept_shift=True), "fill2")
    assert statuses(accepted) == "p" * 20
    assert accepted[0].verdict.warnings[0].startswith("Shift accepted: 20 of 20 windows")
    assert world.store.staging(world.group.stored_name).quarantined() == []


def test_bad_window_of_a_full_recompute_stands_out_among_its_moved_neighbours(world: World) -> None:
    world.days(0, 20)
    world.moved = {day_at(n).start: 3.0 for n in range(20)} | {day_at(11).start: 0.0}
    outcomes = world.days(0, 20, replace(FULL, accept_shift=True), "fill")
    assert statuses(outcomes) == "p" * 11 + "q" + "p" * 8
    assert checks(outcomes[11]) == {("psi", "value"), ("ks", "value")}


@pytest.mark.parametrize(("moved", "status"), [(2, "p"), (3, "q")])
def test_shift_of_up_to_a_tenth_of_the_windows_needs_nobody(tmp_path: Path, moved: int, status: str) -> None:
    """The windows that move are one after the other at an end, so that none stands out among its neighbours."""
    world = world_of(tmp_path)
    world.moved = {day_at(n).start: n / 10 for n in range(20)}
    world.use(features=tuple(replace(feature, drift=Drift(psi=None, ks=0.35)) for feature in world.group.features))
    world.days(0, 20)
    world.moved |= {day_at(n).start: n / 10 - 1.2 for n in range(20 - moved, 20)}
    outcomes = world.days(0, 20, FULL, "fill")
    assert statuses(outcomes) == status * 20


@pytest.mark.parametrize("drift", [Drift(), None])
def test_full_recompute_that_empties_every_window_is_held(tmp_path: Path, drift: Drift | None) -> None:
    world = world_of(tmp_path, drift)
    world.days(0, 8)
    world.rows = {day_at(n).start: 0 for n in range(8)}
    outcomes = world.days(0, 8, FULL, "fill")
    assert statuses(outcomes) == "q" * 8
    assert checks(outcomes[0]) == {("shift", "row_count")}
    assert "here row count 400 -> 0" in outcomes[0].reason


def test_full_recompute_with_nothing_promoted_before_has_no_shift(world: World) -> None:
    outcomes = world.days(0, 8, FULL)
    assert statuses(outcomes) == "p" * 8
    assert [outcome.verdict.warnings for outcome in outcomes] == [()] * 8


def test_windows_that_an_earlier_run_of_the_backfill_promoted_are_neighbours(world: World) -> None:
    world.days(0, 16)
    world.moved = {day_at(n).start: 3.0 for n in range(16)}
    accepted = replace(FULL, accept_shift=True)
    assert statuses(world.days(12, 16, accepted, "first")) == "pppp"
    [stranger] = world.days(11, 12, replace(accepted, backfill_id="another"), "second")
    assert checks(stranger) == {("psi", "value"), ("ks", "value")}
    assert statuses(world.days(11, 12, accepted, "third")) == "p"


def test_single_window_of_a_backfill_is_compared_with_the_last_promoted(world: World) -> None:
    world.days(0, 7)
    world.moved = {day_at(7).start: 3.0}
    assert statuses(world.days(7, 8, FULL)) == "q"


def test_incremental_backfill_is_compared_with_the_last_promoted(world: World) -> None:
    world.days(0, 7)
    world.moved = {day_at(n).start: 3.0 for n in range(7, 12)}
    assert statuses(world.days(7, 12, Launch("late", strategy="incremental"))) == "q" * 5


ACCEPTED = replace(FULL, accept_shift=True)


@pytest.fixture
def carriers(tmp_path: Path) -> World:
    """Ten entities a window, of which one in ten may be missing; nothing else is compared."""
    world = world_of(tmp_path, drift=None, backfill=Backfill(row_count=None))
    world.use(min_coverage=0.9)
    world.rows = {day_at(n).start: 10 for n in range(20)}
    return world


def promoted_with_bogus_entities(world: World, count: int, *bogus: int) -> None:
    """Windows in production of which some have two entities that never were, twelve in all; a mended transform gives ten."""
    world.use(min_coverage=None)
    world.rows = {day_at(n).start: 12 if n in bogus else 10 for n in range(count)}
    world.days(0, count)
    world.use(min_coverage=0.9)
    world.rows = {day_at(n).start: 10 for n in range(count)}


@feature_group(
    entity=shop,
    features=[Feature("sold", pl.Int64, "Number of sales", drift=None)],
    cadence=Daily(start=START),
    lookback=DAY,
    owner=OWNER,
    min_coverage=0.6,
    population="register",
    backfill=Backfill(row_count=None),
)
def shop_presence_daily(window: TimeWindow, sales: pl.LazyFrame, register: pl.LazyFrame) -> pl.LazyFrame:
    """How often each shop of the register sold something."""
    return sales.join(register, on="shop", how="semi").group_by("shop").agg(sold=pl.len().cast(pl.Int64))


def test_declared_population_is_the_inputs_as_the_window_was_given_it(tmp_path: Path) -> None:
    """Two shops sold on each day; the register knows of two more from the third day on."""
    live = replace(register, live_from=T0)
    store_of = Shops(tmp_path, Clock(T0 + HOUR, ticks=True), Catalog([sales, live], [shop_presence_daily]))
    days = [day_at(number) for number in range(5)]
    store_of.land(live, [{"shop": name, "area": 1, "town": "x"} for name in "ab"])
    store_of.clock.now = T0 + 2 * DAY + HOUR
    store_of.land(live, [{"shop": name, "area": 1, "town": "x"} for name in ("c", "d")])
    store_of.clock.now = T0 + 10 * DAY
    store_of.land(sales, [sale(f"{day}{name}", T0 + day * DAY + HOUR, shop=name) for day in range(5) for name in "ab"])
    done = materialize_windows(store_of.store, store_of.catalog, shop_presence_daily, days, run_id="run")
    assert statuses(done.outcomes) == "ppqqq"
    (finding,) = done.outcomes[2].verdict.findings
    assert (finding.check, finding.observed, finding.limit) == ("coverage", "0.5", "0.6")
    assert [example["shop"] for example in finding.examples] == ["c", "d"]
    full = materialize_windows(store_of.store, store_of.catalog, shop_presence_daily, days, run_id="again", launch=FULL)
    assert statuses(full.outcomes)[2:] == "qqq"


def test_shift_is_judged_over_the_backfill_and_not_by_how_it_falls_into_runs(carriers: World) -> None:
    """Four of 62 windows are no tenth, though they are more of a run of 30, and all of a last run of one."""
    promoted_with_bogus_entities(carriers, 62, 40, 50, 60, 61)
    runs = [carriers.days(first, last, FULL, f"run{first}") for first, last in ((0, 31), (31, 61), (61, 62))]
    assert [statuses(outcomes) for outcomes in runs] == ["p" * 31, "p" * 30, "p"]


def test_shift_of_earlier_runs_counts_in_later_ones_also_where_those_were_repeated(carriers: World) -> None:
    """One run moves two of 20 windows, another one of five. The first, repeated, differs no more from what it promoted."""
    promoted_with_bogus_entities(carriers, 25, 5, 17, 20)
    for run_id in ("one", "again"):
        assert statuses(carriers.days(0, 20, FULL, run_id)) == "p" * 20
    held = carriers.days(20, 25, FULL, "two")
    assert statuses(held) == "q" * 5
    assert "3 of 25 windows of the backfill so far differ from what was promoted" in held[0].reason
    assert "in this run at most by coverage of 'rider' 0.8333 (limit 0.9)" in held[0].reason
    assert statuses(carriers.days(21, 25, replace(FULL, backfill_id="another"), "three")) == "p" * 4


def test_run_that_moves_nothing_is_not_held_for_what_another_run_of_the_backfill_moved(carriers: World) -> None:
    promoted_with_bogus_entities(carriers, 20, 1, 2)
    assert statuses(carriers.days(0, 10, FULL, "one")) == "q" * 10
    assert statuses(carriers.days(10, 20, FULL, "two")) == "p" * 10
    assert statuses(carriers.days(0, 10, FULL, "one")) == "p" * 10


# Coverage: of the windows before, in a full recompute of the neighbours, and of what was promoted.


def drop(world: World, first: int, last: int, *, to: int = 8) -> None:
    world.rows |= {day_at(n).start: to for n in range(first, last)}


def test_mend_that_drops_entities_from_every_window_lands_whole_wherever_its_range_begins(carriers: World) -> None:
    carriers.days(0, 20)
    drop(carriers, 0, 20)
    for first, last, run_id in ((8, 12, "middle"), (1, 8, "before"), (12, 13, "one"), (0, 20, "all")):
        outcomes = carriers.days(first, last, ACCEPTED, run_id)
        assert (run_id, statuses(outcomes)) == (run_id, "p" * (last - first))


def test_mend_that_drops_entities_is_held_as_a_shift_that_names_them_and_is_told_of_when_it_is_accepted(
    carriers: World,
) -> None:
    carriers.days(0, 10)
    drop(carriers, 0, 10)
    held = carriers.days(0, 10, FULL, "fill")
    assert statuses(held) == "q" * 10
    assert {check for outcome in held for check in checks(outcome)} == {("shift", "coverage")}
    [finding] = held[4].verdict.findings
    told = "10 of 10 windows differ from what was promoted by more than their bounds, at most by coverage of 'rider' 0.8 (limit 0.9)"
    assert finding.observed == f"{told}; here coverage of 'rider' 0.8 (limit 0.9)"
    assert sorted(example["rider"] for example in finding.examples) == ["r00008", "r00009"]
    accepted = carriers.days(0, 10, ACCEPTED, "fill2")
    assert [outcome.verdict.warnings[-1] for outcome in accepted] == [f"Shift accepted: {told}."] * 10


def test_window_of_a_full_recompute_that_lacks_entities_its_neighbours_have_is_held_alone(carriers: World) -> None:
    carriers.days(0, 20)
    drop(carriers, 0, 20)
    drop(carriers, 6, 7, to=6)
    outcomes = carriers.days(0, 20, ACCEPTED, "fill")
    assert statuses(outcomes) == "p" * 6 + "q" + "p" * 13
    assert checks(outcomes[6]) == {("coverage", "rider")}
    assert outcomes[6].verdict.findings[0].observed == "0.75"


def test_window_with_entities_that_nobody_else_has_holds_none_of_its_neighbours(carriers: World) -> None:
    carriers.rows[day_at(6).start] = 40
    assert statuses(carriers.days(0, 20, FULL)) == "p" * 20


def test_population_may_grow_in_a_history_that_is_filled_and_its_first_window_has_no_reference(
    carriers: World,
) -> None:
    carriers.rows = {day_at(n).start: 10 + 5 * n for n in range(10)}
    first, *others = carriers.days(0, 10, FULL)
    assert statuses([first, *others]) == "p" * 10
    assert first.verdict.warnings == ("Coverage was not judged: there is no reference window that has rows.",)
    assert [outcome.verdict.warnings for outcome in others] == [()] * 9


@pytest.mark.parametrize(
    "launch", [SCHEDULED, Launch("late", strategy="incremental")], ids=["scheduled", "incremental"]
)
def test_other_runs_hold_a_window_against_the_entities_of_the_seven_before_in_production(
    carriers: World, launch: Launch
) -> None:
    carriers.days(0, 10)
    drop(carriers, 10, 12)
    assert statuses(carriers.days(10, 12, launch)) == "qq"


# Which windows those are.


def starts_of(chosen: Chosen) -> list[int]:
    return [(start - T0) // DAY for start in chosen.starts]


def test_last_windows_of_a_day_are_its_weekdays_or_the_seven_before() -> None:
    candidates = Candidates([T0 + n * DAY for n in range(40) if n not in (14, 33)], is_hourly=False)
    assert starts_of(candidates.before(T0 + 29 * DAY)) == [1, 8, 15, 22]
    assert starts_of(candidates.before(T0 + 28 * DAY)) == [21, 22, 23, 24, 25, 26, 27]
    assert starts_of(candidates.before(T0 + 35 * DAY)) == [0, 7, 21, 28]
    assert starts_of(candidates.before(T0 + 2 * DAY)) == [0, 1]
    assert starts_of(candidates.before(T0)) == []


def test_neighbours_of_a_day_are_the_nearest_four_on_each_side_without_itself() -> None:
    candidates = Candidates([T0 + n * DAY for n in range(12) if n != 6], is_hourly=False)
    assert starts_of(candidates.around(T0 + 5 * DAY)) == [1, 2, 3, 4, 7, 8, 9, 10]
    assert starts_of(candidates.around(T0)) == [1, 2, 3, 4]


def test_hour_is_compared_with_its_own_hour_as_soon_as_there_are_four() -> None:
    starts = [T0 + n * HOUR for n in range(24 * 30)]
    at = T0 + 6 * DAY + 5 * HOUR
    same_hour = Candidates([start for start in starts if start < at], is_hourly=True).before(at)
    assert same_hour == Chosen(tuple(T0 + n * DAY + 5 * HOUR for n in range(6)), True)
    weekly = Candidates(starts, is_hourly=True).before(T0 + 29 * DAY + 5 * HOUR)
    assert weekly == Chosen(tuple(T0 + n * DAY + 5 * HOUR for n in (1, 8, 15, 22)), True)
    early = Candidates(starts[:30], is_hourly=True).before(T0 + 30 * HOUR)
    assert early == Chosen(tuple(T0 + n * HOUR for n in range(23, 30)), False)
    around = Candidates(starts, is_hourly=True).around(T0 + 10 * DAY)
    assert around == Chosen(tuple(T0 + n * DAY for n in (6, 7, 8, 9, 11, 12, 13, 14)), True)


def test_hours_are_not_expected_to_have_as_many_rows_as_the_hours_before(tmp_path: Path) -> None:
    world = world_of(tmp_path, cadence=Hourly(start=START))
    hours = [TimeWindow(T0 + n * HOUR, T0 + (n + 1) * HOUR) for n in range(24 * 5)]
    world.rows = {window.start: 1000 if 6 <= window.start.hour < 22 else 250 for window in hours}
    assert set(statuses(world.run(hours[:100]))) == {"p"}
    world.rows[hours[108].start] = 250
    [night, noon] = world.run([hours[100], hours[108]])
    assert (night.status, noon.status) == ("promoted", "quarantined")
    assert checks(noon) == {("row_count", "")}


def test_verdict_holds_findings_and_warnings_in_a_form_for_json() -> None:
    verdict = Verdict(3).having(Finding("ks", "x", "0.5", "0.15", 3), warnings=["small"])
    assert json.loads(json.dumps(verdict.as_dict()))["warnings"] == ["small"]
    assert not verdict.passed
    assert Verdict(3).having(warnings=["small"]).passed
