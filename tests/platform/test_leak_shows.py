"""The claim of the demo on real data: a naive join promises what production does not get, a point-in-time join keeps it.

The whole way without Dagster, from landing files to the scores of both models. A full year in the exam; scaled down, a
shorter range, on which only what holds for any range is asserted.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from examples.flights.models import Approach, Comparison, Score, compare
from examples.flights.replay import land
from examples.flights.runs import months
from feature_assets.groups.flights import catalog
from feature_assets.groups.flights.labels import departure_labels
from featurestore.declaration import FeatureGroup, TimeWindow
from featurestore.declaration.windows import Static
from featurestore.landing import landing_files
from featurestore.loading import materialize_load
from featurestore.location import Location
from featurestore.offline.store import OfflineStore
from featurestore.promotion import materialize_windows
from featurestore.registry.history import RegistryHistory
from featurestore.training import build_training_set
from tests.scale import exam_scale

END = datetime(2026, 1, 1, tzinfo=UTC)
YEAR_DAYS, FEWEST_DAYS = 365, 30
START = END - timedelta(days=min(YEAR_DAYS, max(FEWEST_DAYS, round(YEAR_DAYS * exam_scale()))))
EQUAL = 0.05
"""How far apart two AUCs of different seasons may lie without a leak."""

pytestmark = pytest.mark.exam
a_year = pytest.mark.skipif(exam_scale() < 1, reason="holds for a whole year of data")


def after_the_end() -> datetime:
    return END + timedelta(days=1)


def windows_by_month(group: FeatureGroup) -> Iterator[list[TimeWindow]]:
    if isinstance(group.cadence, Static):
        raise TypeError(f"{group.name} has no windows")
    for first, following in months(START.date(), END.date()):
        start, end = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (first, following))
        yield list(group.cadence.windows_between(start, end))


def materialize(store: OfflineStore, group: FeatureGroup) -> None:
    if group.kind == "static":
        materialize_load(store, catalog, group, run_id="year")
        return
    for windows in windows_by_month(group):
        promotion = materialize_windows(store, catalog, group, windows, run_id=f"year-{windows[0].start:%Y-%m}")
        assert promotion.having("quarantined", "not_due", "blocked") == []


@pytest.fixture(scope="module")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Landed, ingested, materialized and joined, as the platform does it."""
    folder = tmp_path_factory.mktemp("flights")
    names = [source.name for source in catalog.sources]
    land(folder / "landing", start=START.date(), until=END, sources=names)
    root = Location(str(folder / "store"))
    store = OfflineStore(root, RegistryHistory(root).apply(catalog, after_the_end, "test").snapshot, after_the_end)
    for source in catalog.sources:
        store.source(source).ingest(landing_files(Location(str(folder / "landing")), source.name, None))
    for group in catalog.ordered_groups:
        materialize(store, group)
    schedules, departures = (
        store.source(s).current().lazy() for s in catalog.sources if s.name in ("schedules", "departures")
    )
    made = build_training_set(store, "departure_delay_v1", departure_labels(schedules, departures))
    return pl.read_parquet(Path(made.uri.removeprefix("file://")))


@pytest.fixture(scope="module")
def comparison(training_set: pl.DataFrame) -> Comparison:
    made = compare(training_set, START.date(), END)
    print(f"\n{made.render()}")
    return made


def bounds(score: Score) -> tuple[float, float]:
    assert score.interval is not None, score.why_none
    return score.interval


def lost(approach: Approach) -> float:
    assert approach.difference is not None
    return approach.difference


def test_naive_features_lose_on_the_same_flights_what_they_had_as_trained(comparison: Comparison) -> None:
    assert bounds(comparison.naive.as_trained)[0] > bounds(comparison.naive.production)[1]


def test_naive_loses_more_than_ours_on_the_way_to_production(comparison: Comparison) -> None:
    assert lost(comparison.naive) > lost(comparison.ours) + 0.1


@a_year
def test_naive_promises_what_production_does_not_get(comparison: Comparison) -> None:
    assert lost(comparison.naive) > 0.1
    assert bounds(comparison.naive.offline)[0] > bounds(comparison.naive.production)[1]


@a_year
def test_ours_is_about_equal_offline_and_in_production(comparison: Comparison) -> None:
    assert abs(lost(comparison.ours)) < EQUAL


@a_year
def test_ours_is_the_better_model_in_production_though_the_worse_offline(comparison: Comparison) -> None:
    assert bounds(comparison.ours.production)[0] > bounds(comparison.naive.production)[1]
    assert bounds(comparison.ours.offline)[1] < bounds(comparison.naive.offline)[0]
