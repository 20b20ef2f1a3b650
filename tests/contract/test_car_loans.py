"""Drift of real size on data that others use to show it: caught on the right features and times, and no alarm where nothing changed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore.quality.drift import WindowDrift, window_drift
from featurestore.quality.frame import WindowStatistics
from featurestore.quality.reference import TrainingWindows, last_week, same_weekday, training
from featurestore.quality.statistics import window_statistics
from featurestore.registry.snapshot import RegisteredFeature
from tests.contract.car_loans import DTYPES, car_loans
from tests.scale import cases, exam_seed

pytestmark = pytest.mark.exam

FEATURES = [RegisteredFeature(name, dtype, number, 1) for number, (name, dtype) in enumerate(DTYPES.items(), 32)]
START, DAY = datetime(2026, 1, 5, tzinfo=UTC), timedelta(days=1)
ROWS = 1_000
DRIFTED = {"car_value", "loan_length", "salary_range", "repaid_loan_on_prev_car", "y_pred_proba"}
"""What differs in the second half of the analysis set by plain KS and chi-square on all 25,000 rows of it; the three
others differ by less than 0.02, as samples of one distribution do."""
FIRST_DRIFTED = 25_000


def kept(rows: pl.DataFrame, number: int) -> WindowStatistics:
    """The statistics of some rows as the window of a day."""
    start = START + number * DAY
    return WindowStatistics(start, tuple(window_statistics(FEATURES, rows, start)), 1, "run", start)


def windows(rows: pl.DataFrame, size: int = ROWS, first: int = 0) -> list[WindowStatistics]:
    return [kept(rows[at : at + size], first + at // size) for at in range(0, rows.height, size)]


def trained_on(parts: Sequence[WindowStatistics]) -> TrainingWindows:
    return TrainingWindows("the reference period", {part.window_start: part for part in parts})


def against_training(window: WindowStatistics, trained: TrainingWindows) -> WindowDrift:
    reference = training(window.window_start, trained, is_hourly=False)
    assert reference is not None
    return window_drift(FEATURES, window, lambda _: [reference])


def named(drift: WindowDrift) -> set[str]:
    return {one.feature for one in drift.beyond}


@pytest.mark.parametrize("size", [500, 1_000, 5_000])
def test_drift_is_caught_on_the_right_features_from_its_first_window_on(size: int) -> None:
    reference = windows(car_loans("reference"), size)
    trained = trained_on(reference)
    found = [named(against_training(w, trained)) for w in windows(car_loans("analysis"), size, len(reference))]
    drifted = FIRST_DRIFTED // size
    assert found[:drifted] == [set()] * drifted
    caught = found[drifted:]
    print({name: f"{sum(name in one for one in caught)} of {len(caught)}" for name in sorted(DRIFTED)})
    assert all(one <= DRIFTED for one in caught)
    assert all(sum(name in one for one in caught) >= 0.95 * len(caught) for name in DRIFTED)


@pytest.mark.parametrize("choose", [last_week, same_weekday])
def test_change_is_noticed_against_the_weeks_before_until_they_have_changed_themselves(choose: Any) -> None:
    days = windows(pl.concat([car_loans("reference"), car_loans("analysis")]))
    known = {day.window_start: day for day in days}
    changed = (50_000 + FIRST_DRIFTED) // ROWS
    found = []
    for day in days[28:]:
        reference = choose(day.window_start, known, is_hourly=False)
        found.append(named(window_drift(FEATURES, day, lambda _, r=reference: [r])))
    before, first = found[: changed - 28], found[changed - 28]
    assert before == [set()] * len(before)
    assert first == DRIFTED
    assert found[-1] == set(), "by then the weeks before are as drifted as the day"


def test_reference_period_raises_no_alarm() -> None:
    """Each of its 50 days against the 49 others, as a training set."""
    days = windows(car_loans("reference"))
    last = kept(car_loans("reference")[:ROWS], len(days)).window_start
    alarms = [
        named(
            against_training(WindowStatistics(last, day.features, 1, "run", last), trained_on(days[:n] + days[n + 1 :]))
        )
        for n, day in enumerate(days)
    ]
    assert alarms == [set()] * len(days)


@pytest.mark.parametrize("size", [200, 1_000])
def test_resamplings_of_unchanged_data_raise_no_alarm(size: int) -> None:
    """Rows of the reference period, drawn anew: a training set of 28 windows, and one window after it that shares no row with it."""
    rng, rows = np.random.default_rng(exam_seed()), car_loans("reference")
    alarms, resamplings = [], cases(200, 10)
    for _ in range(resamplings):
        drawn = rows[rng.permutation(rows.height)[: 29 * size].tolist()]
        parts = windows(drawn, size)
        alarms.append(named(against_training(parts[-1], trained_on(parts[:-1]))))
    raised = sum(bool(alarm) for alarm in alarms)
    print(
        f"{raised} of {resamplings} windows of {size} rows raised an alarm ({raised / resamplings:.1%}), on {len(DTYPES)} features"
    )
    assert raised <= 1
