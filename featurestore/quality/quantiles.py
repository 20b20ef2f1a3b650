"""Quantiles of a window in at most 200 numbers, which merge with a stated error: equal shares of the values, by rank.

    values in order   | 1/200 | 1/200 | 1/200 | ...      each point is the middle one of its share
                          ^       ^       ^

Up to 200 values the points are the values themselves. Beyond, a rank is off by at most half a share (0.25 %), and each merging
adds as much at most; the sketch carries its error. Deterministic: the same values give the same points, in any order, on any
machine, which KLL (random) and t-digest (order of arrival) do not; and no dependency is needed for thirty lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

POINTS = 200


@dataclass(frozen=True, slots=True)
class QuantileSketch:
    """`points` in ascending order, each standing for an equal share of `count` values.

    `rank_error` is a share of the values: a quantile asked for at q lies at a true rank in [q - error, q + error].
    """

    points: Floats
    count: int
    rank_error: float = 0.0

    @classmethod
    def of(cls, values: Floats) -> "QuantileSketch":
        """The sketch of values in ascending order, neither null nor NaN; there may be none."""
        if len(values) <= POINTS:
            return cls(values, len(values))
        middles = ((np.arange(POINTS) + 0.5) * len(values) / POINTS).astype(np.int64)
        return cls(values[middles], len(values), 0.5 / POINTS)

    def quantile(self, share: float) -> float | None:
        """The smallest point at or above a share of the values; None without values."""
        if not len(self.points):
            return None
        place = int(np.ceil(share * len(self.points))) - 1
        return float(self.points[min(max(place, 0), len(self.points) - 1)])

    def share_up_to(self, value: float) -> float:
        """The share of values at or below one, within `rank_error`; 0 without values."""
        below = int(np.searchsorted(self.points, value, side="right"))
        return below / len(self.points) if len(self.points) else 0.0


def merged_quantiles(sketches: Sequence[QuantileSketch], most: int = POINTS) -> QuantileSketch:
    """The sketch of the values of several, each weighing as much as it has values, in at most so many points."""
    filled = [sketch for sketch in sketches if sketch.count]
    count = sum(sketch.count for sketch in filled)
    if not filled:
        return QuantileSketch(np.empty(0), 0)
    points = np.concatenate([sketch.points for sketch in filled])
    weights = np.concatenate([np.full(len(s.points), s.count / len(s.points)) for s in filled])
    order = np.argsort(points, kind="stable")
    error = sum(sketch.rank_error * sketch.count for sketch in filled) / count
    if count == len(points) <= most:
        return QuantileSketch(points[order], count, error)
    size = min(most, count)
    middles = (np.arange(size) + 0.5) * count / size
    ranks = np.cumsum(weights[order])
    # Sums of floats may end a hair below the count.
    places = np.minimum(np.searchsorted(ranks, middles), len(points) - 1)
    return QuantileSketch(points[order][places], count, error + 0.5 / size)
