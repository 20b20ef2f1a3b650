"""Windows held against references by what was kept of them: no value is lost, and nothing is worked out more than once."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore.declaration import Drift
from featurestore.quality.drift import window_drift
from featurestore.quality.frame import WindowStatistics
from featurestore.quality.reference import Reference
from featurestore.quality.statistics import window_statistics
from featurestore.registry.snapshot import RegisteredFeature
from tests.catalogs import DAY, T0

COLOUR = RegisteredFeature("colour", "string", 32, 1, drift=Drift())


def kept(features: list[RegisteredFeature], columns: dict[str, Any], day: int = 0) -> WindowStatistics:
    start = T0 + day * DAY
    rows = pl.DataFrame({"schema_number": 1, **columns})
    return WindowStatistics(start, tuple(window_statistics(features, rows, start)), None, "", T0)


def colours(others: int, *, seed: int) -> WindowStatistics:
    """A thousand values: so many '(other)', and sixty more categories, of which fewer are kept."""
    named = [f"c{n}" for n in np.random.default_rng(seed).integers(0, 60, size=1000 - others)]
    return kept([COLOUR], {"colour": ["(other)"] * others + named})


def test_a_category_that_is_called_other_drifts_by_its_own_count() -> None:
    """Sixty categories more than are kept, so that there is a rest as well."""
    calm, far = colours(100, seed=1), colours(700, seed=2)
    reference = Reference("last week", tuple(colours(100, seed=n) for n in (3, 4, 5)))
    drifts = [window_drift([COLOUR], window, lambda _: [reference]) for window in (calm, far)]
    assert [drift.status for drift in drifts] == ["pass", "warn"]
    [found] = drifts[1].features
    own = next(row for row in found.shares if row["values"] == "(other)")
    assert (own["reference"], own["window"]) == (0.1, 0.7)
    assert sum(row["window"] for row in found.shares) == pytest.approx(1, abs=0.01)
