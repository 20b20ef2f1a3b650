"""The demo's two models: what leaks into naive features, what production sees, and scores that hold for any data."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from statistics import mean
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from examples.flights.history import naive_flights
from examples.flights.models import OUTCOME_KNOWN, RESAMPLES, SEED, Comparison, auc_interval, compare
from examples.flights.naive import AGGREGATES, LAST_FLIGHT, NAIVE_FEATURES, hindsight_features, production_features
from feature_assets.groups.flights.labels import departure_labels
from featurestore.errors import InvalidInput
from tests.scale import cases

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
START, UNTIL = date(2026, 3, 2), datetime(2026, 3, 9, tzinfo=UTC)
INSTANT = pl.Datetime("us", "UTC")


def flight(
    scheduled: datetime, delay: float | None, *, tailnum: str | None = "N1", origin: str = "JFK"
) -> dict[str, Any]:
    """A flight of an hour in the wide table; a null delay cancels it."""
    departed = None if delay is None else scheduled + delay * MINUTE
    return {
        "carrier": "AA", "origin": origin, "dest": "BOS", "tailnum": tailnum, "scheduled_departure": scheduled,
        "departed_at": departed, "arrived_at": departed and departed + HOUR, "dep_delay": delay, "arr_delay": delay,
        "is_cancelled": delay is None,
    }  # fmt: skip


def wide(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    times = dict.fromkeys(("scheduled_departure", "departed_at", "arrived_at"), INSTANT)
    texts = dict.fromkeys(("carrier", "origin", "dest", "tailnum"), pl.String)
    numbers = dict.fromkeys(("dep_delay", "arr_delay"), pl.Float64)
    return pl.DataFrame(list(rows), schema={**texts, **times, **numbers, "is_cancelled": pl.Boolean})


def asked(*times: datetime) -> pl.DataFrame:
    label = {"carrier": "AA", "origin": "JFK", "dest": "BOS", "tailnum": "N1"}
    return pl.DataFrame([{**label, "label_time": time} for time in times], schema_overrides={"label_time": INSTANT})


def test_hindsight_sees_the_whole_day_of_the_flight_and_production_the_day_before() -> None:
    flights = wide([flight(NOON - DAY, 10.0), flight(NOON, 50.0), flight(NOON + 6 * HOUR, 70.0)])
    labels = asked(NOON - 2 * HOUR)

    assert hindsight_features(labels, flights)["route_day_dep_delay_mean"].to_list() == [60.0]
    assert production_features(labels, flights)["route_day_dep_delay_mean"].to_list() == [10.0]


def test_hindsight_sees_the_hour_in_which_it_is_asked_and_production_the_last_whole_one() -> None:
    flights = wide([flight(NOON - HOUR, 2.0), flight(NOON + 50 * MINUTE, 90.0)])
    labels = asked(NOON, NOON + HOUR)

    assert hindsight_features(labels, flights)["origin_hour_delayed_fraction"].to_list() == [1.0, 1.0]
    assert production_features(labels, flights)["origin_hour_delayed_fraction"].to_list() == [0.0, None]


def test_a_flight_that_left_after_its_window_has_no_delay_in_production() -> None:
    flights = wide([flight(NOON + 5 * MINUTE, 4.0), flight(NOON + 30 * MINUTE, 31.0)])
    labels = asked(NOON + HOUR)

    assert hindsight_features(labels, flights)["origin_hour_dep_delay_mean"].to_list() == [17.5]
    assert production_features(labels, flights)["origin_hour_dep_delay_mean"].to_list() == [4.0]


def test_hindsight_knows_a_flight_of_the_plane_that_has_not_left_yet() -> None:
    flights = wide([flight(NOON - 8 * HOUR, 0.0), flight(NOON - HOUR, 200.0)])
    labels = asked(NOON, NOON + 4 * HOUR)

    assert hindsight_features(labels, flights)["last_arr_delay"].to_list() == [200.0, 200.0]
    assert production_features(labels, flights)["last_arr_delay"].to_list() == [0.0, 200.0]


def test_cancelled_flights_count_as_cancelled_and_have_no_delay() -> None:
    flights = wide([flight(NOON, None), flight(NOON + MINUTE, None, tailnum=None)])

    found = production_features(asked(NOON + HOUR), flights).row(0, named=True)

    assert (found["origin_hour_cancelled_fraction"], found["origin_hour_dep_delay_mean"]) == (1.0, None)
    assert found["origin_hour_delayed_fraction"] is None
    assert found["last_dep_delay"] is None


def test_naive_features_keep_the_rows_and_order_of_the_labels() -> None:
    flights = wide([flight(NOON, 5.0)])
    labels = asked(NOON + 9 * DAY, NOON - 9 * DAY, NOON + 9 * DAY).with_columns(
        tailnum=pl.Series([None, "N1", "N1"], dtype=pl.String)
    )

    for found in (hindsight_features(labels, flights), production_features(labels, flights)):
        assert_frame_equal(found.select(labels.columns), labels)
        assert found.columns == [*labels.columns, *NAIVE_FEATURES]
        assert set(found.select(NAIVE_FEATURES).dtypes) == {pl.Float64()}


MOMENTS = st.integers(0, 3 * 24 * 12).map(lambda five: NOON + five * 5 * MINUTE)
FLIGHTS = st.lists(
    st.builds(
        flight,
        MOMENTS,
        st.none() | st.integers(-10, 300).map(float),
        tailnum=st.sampled_from([None, "N1", "N2"]),
        origin=st.sampled_from(["JFK", "LGA"]),
    ),
    max_size=25,
    unique_by=lambda row: row["scheduled_departure"],
)


def expected_features(
    flights: list[dict[str, Any]], label: dict[str, Any], *, hindsight: bool
) -> dict[str, float | None]:
    """What a label gets, by looking at every flight."""
    now: datetime = label["label_time"]
    found: dict[str, float | None] = {}
    for aggregate in AGGREGATES:
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        windows: dict[datetime, list[dict[str, Any]]] = {}
        for row in flights:
            start = row["scheduled_departure"] - (row["scheduled_departure"] - epoch) % aggregate.window
            stamp = start if hindsight else start + aggregate.window
            if all(row[key] == label[key] for key in aggregate.keys) and stamp <= now:
                windows.setdefault(start, []).append(row)
        start, rows = max(windows.items(), default=(now, []))
        seen = [
            r["dep_delay"]
            for r in rows
            if r["departed_at"] and (hindsight or r["departed_at"] <= start + aggregate.window)
        ]
        measures = (seen, [delay > 15 for delay in seen], [r["is_cancelled"] for r in rows])
        found |= {name: mean(map(float, m)) if m else None for name, m in zip(aggregate.columns, measures, strict=True)}
    stamp = "scheduled_departure" if hindsight else "arrived_at"
    flown = [r for r in flights if r["tailnum"] == label["tailnum"] and r["arrived_at"] and r[stamp] <= now]
    last = max(flown, key=lambda r: r["scheduled_departure"], default={"dep_delay": None, "arr_delay": None})
    return {**found, **dict(zip(LAST_FLIGHT, (last["dep_delay"], last["arr_delay"]), strict=True))}


@settings(max_examples=cases(2_000, 60), deadline=None)
@given(rows=FLIGHTS, times=st.lists(MOMENTS, min_size=1, max_size=5))
def test_naive_features_equal_a_look_at_every_flight(rows: list[dict[str, Any]], times: list[datetime]) -> None:
    labels = asked(*times)
    for make, hindsight in ((hindsight_features, True), (production_features, False)):
        expected = [expected_features(rows, label, hindsight=hindsight) for label in labels.to_dicts()]
        schema = dict.fromkeys(NAIVE_FEATURES, pl.Float64)
        assert_frame_equal(make(labels, wide(rows)).select(NAIVE_FEATURES), pl.DataFrame(expected, schema=schema))


def as_it_stood(flights: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The wide table with nothing in it that had not happened by `now`."""
    has_left, has_landed = pl.col("departed_at") <= now, pl.col("arrived_at") <= now
    return flights.with_columns(
        pl.when(has_left).then(pl.col("departed_at", "dep_delay")),
        pl.when(has_landed).then(pl.col("arrived_at", "arr_delay")),
        is_cancelled=pl.col("is_cancelled") & (pl.col("scheduled_departure") <= now),
    )


@settings(max_examples=cases(2_000, 60), deadline=None)
@given(rows=FLIGHTS, now=MOMENTS)
def test_production_features_do_not_change_when_the_future_is_removed(
    rows: list[dict[str, Any]], now: datetime
) -> None:
    flights = wide(rows)
    assert_frame_equal(
        production_features(asked(now), flights), production_features(asked(now), as_it_stood(flights, now))
    )


def resampled(late: list[bool], scores: list[float], day: list[int]) -> list[float]:
    """AUC of each draw of days, pair of flights by pair of flights."""
    days = sorted(set(day))
    drawn = np.random.default_rng(SEED).multinomial(len(days), np.full(len(days), 1 / len(days)), size=RESAMPLES)
    weight = drawn[:, [days.index(each) for each in day]]
    pairs = [(i, j) for i in range(len(late)) for j in range(len(late)) if late[i] and not late[j]]
    times = [weight[:, i] * weight[:, j] for i, j in pairs]
    won = [(scores[i] > scores[j]) + (scores[i] == scores[j]) / 2 for i, j in pairs]
    total = np.sum(times, axis=0)
    right = np.sum([n * w for n, w in zip(times, won, strict=True)], axis=0)
    return [float(r / t) for r, t in zip(np.atleast_1d(right), np.atleast_1d(total), strict=True) if t]


@settings(max_examples=cases(1_000, 30), deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5).map(float), st.integers(-3, 3)), min_size=1, max_size=30))
def test_the_interval_is_that_of_repeating_the_flights_of_drawn_days(flights: list[tuple[bool, float, int]]) -> None:
    late, scores, day = (list(column) for column in zip(*flights, strict=True))

    interval = auc_interval(np.array(late), np.array(scores), np.array(day))

    aucs = resampled(late, scores, day)
    if len(set(day)) < 2 or not aucs:
        assert interval is None
    else:
        assert interval == pytest.approx((np.quantile(aucs, 0.025), np.quantile(aucs, 0.975)))


@cache
def week() -> pl.DataFrame:
    """Labels of a real week, with features of every type, one of which tells something."""
    flights = naive_flights(START, UNTIL).with_columns(distance=pl.lit(100.0))
    left = flights.filter(~pl.col("is_cancelled"))
    labels = departure_labels(flights.lazy(), left.lazy()).collect()
    noise = pl.Series(np.random.default_rng(1).normal(size=labels.height))
    row = pl.int_range(pl.len())
    return labels.with_columns(
        hint=pl.col("is_delayed").cast(pl.Float32) + noise,
        maker=pl.when(row % 7 > 0).then(pl.format("M{}", row % 300)),
        vector=pl.when(row % 5 > 0).then(pl.concat_arr(pl.lit(noise), pl.lit(noise) + 1)),
        is_odd=row % 2 == 1,
        never=pl.lit(None, dtype=pl.Float64),
        unnamed=pl.lit(None, dtype=pl.String),
    )


@cache
def compared() -> Comparison:
    return compare(week(), START, UNTIL)


def test_a_real_week_shows_the_leak_in_the_naive_features() -> None:
    made = compared()

    assert made.naive.leak is not None
    assert made.naive.leak > 0.1


def test_the_table_says_that_no_leak_of_ours_was_measured() -> None:
    assert "For ours the two are one by definition" in compared().render()


def test_both_models_are_scored_on_the_same_flights() -> None:
    made = compared()
    label_time = week()["label_time"]

    assert made.ours.offline.flights == made.naive.offline.flights
    assert made.ours.production.flights == made.naive.production.flights == (label_time >= made.hold_out_starts).sum()
    assert made.fitted_flights + made.ours.offline.flights == (label_time < made.training_ends).sum()


def test_every_outcome_is_known_before_the_hold_out() -> None:
    made = compared()
    flights = naive_flights(date(2025, 1, 1), datetime(2026, 1, 1, tzinfo=UTC))
    latest = flights.select((pl.col("departed_at") - pl.col("scheduled_departure")).max() + timedelta(hours=2)).item()

    assert made.hold_out_starts - made.training_ends == OUTCOME_KNOWN
    assert latest < OUTCOME_KNOWN


def test_the_order_of_the_rows_changes_no_score() -> None:
    assert compare(week().sample(fraction=1, shuffle=True, seed=3), START, UNTIL) == compared()


def test_the_table_has_a_row_a_model_and_every_number() -> None:
    made = compared()
    heading, ours, naive, *_ = made.render().splitlines()

    assert heading.split("  ")[0] == ""
    assert ours.startswith("ours ")
    assert naive.startswith("naive ")
    for score in (made.naive.offline, made.naive.production):
        assert score.interval is not None
        assert f"{score.auc:.3f} [{score.interval[0]:.3f}, {score.interval[1]:.3f}]" in naive
    assert f"{made.naive.difference:+.3f}" in naive


def test_interval_holds_its_score() -> None:
    for approach in (compared().ours, compared().naive):
        for score in (approach.offline, approach.as_trained, approach.production):
            assert score.auc is not None
            assert score.interval is not None
            # Of few days one bound may be the score itself, summed in another order.
            assert score.interval[0] - 1e-9 <= score.auc <= score.interval[1] + 1e-9


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_a_handful_of_flights_has_no_score_and_says_why(rows: int) -> None:
    made = compare(week().sort("label_time").head(rows), START, UNTIL)

    assert (made.ours.offline.auc, made.naive.production.auc, made.naive.difference) == (None, None, None)
    assert "ours has a score missing: of the flights to train on there are none. Take more days." in made.render()


@pytest.mark.parametrize(("is_delayed", "word"), [(True, "late"), (False, "punctual")])
def test_one_class_only_has_no_score_and_says_which(is_delayed: bool, word: str) -> None:
    made = compare(week().filter(pl.col("is_delayed") == is_delayed), START, UNTIL)

    assert made.ours.production.auc is None
    assert f"of the flights to train on all {made.fitted_flights} are {word}. Take more days." in made.render()


def test_a_hold_out_of_one_class_has_no_score_but_the_offline_part_has() -> None:
    is_later = pl.col("label_time") >= compared().hold_out_starts
    made = compare(week().with_columns(is_delayed=pl.col("is_delayed") & ~is_later), START, UNTIL)

    assert made.naive.offline.auc is not None
    assert made.naive.production.auc is None
    assert f"of the flights to score all {made.naive.production.flights} are punctual" in made.render()


def test_flights_outside_the_span_are_left_out() -> None:
    until = UNTIL - 2 * DAY
    scheduled = pl.col("label_time") + timedelta(hours=2)
    assert compare(week(), START, until) == compare(week().filter(scheduled < until), START, until)


REFUSALS: list[tuple[str, Callable[[], object], str]] = [
    (
        "no flight in the span",
        lambda: compare(week(), date(2025, 1, 1), datetime(2025, 1, 9, tzinfo=UTC)),
        "give that span",
    ),
    ("a missing column", lambda: compare(week().drop("origin"), START, UNTIL), r"lacks \['origin'\]"),
    ("null labels", lambda: compare(week().with_columns(is_delayed=None), START, UNTIL), "labels are null"),
    ("a list", lambda: compare(week().with_columns(odd=pl.concat_list("distance")), START, UNTIL), "'odd' is List"),
    ("a naive end", lambda: compare(week(), START, UNTIL.replace(tzinfo=None)), "has no time zone"),
]


@pytest.mark.parametrize(("use", "message"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_what_cannot_be_compared_is_refused_with_the_remedy(use: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        use()
