"""One feature in the windows that others are held against: what these have in common is worked out once, and only if it is asked for.

Pure. Every distance is the one that `drift.py` finds for the pair alone; of numbers they are taken many at a time, since 28 windows are
378 pairs. What is too far is said by `comparison.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from featurestore.gate.drift import (
    SIDES,
    Distance,
    Measure,
    Numbers,
    bin_edges,
    bin_shares,
    distances,
    gap_chance,
    share_below,
    share_rise,
    stability_chance,
    stability_index,
)
from featurestore.gate.profile import FeatureProfile, pooled_profile
from featurestore.quality.quantiles import Floats

SPREADS = 3.0
UTMOST: dict[Measure, float] = {"psi": 5.0, "cosine": 1.0}
"""Measures that grow with the square of a change, and beyond what they are too far however restless the references are.
The others grow with the change, up to 1."""
NORMAL = NormalDist()
ALMOST_ONE = 1 - 1e-9


class ReferenceProfiles:
    """One feature in reference windows.

    Args:
        parts: Its profile in each of them; at least one, samples all of a kind.
    """

    def __init__(self, parts: Sequence[FeatureProfile]) -> None:
        self.parts = tuple(parts)
        self._usual: dict[Measure, float] = {}

    @cached_property
    def pool(self) -> FeatureProfile:
        """All windows together."""
        return pooled_profile(self.parts)

    def each(self, measure: Measure, profile: FeatureProfile) -> list[Distance]:
        """How far a profile is from every window that has something to compare, in no order."""
        return self._first(len(self.parts), measure, profile)

    def usual(self, measure: Measure) -> float:
        """Three times the change by which two of the windows usually differ, beyond chance: the lower median over their pairs."""
        if measure not in self._usual:
            pairs = [found for n, part in enumerate(self.parts) for found in self._first(n, measure, part)]
            self._usual[measure] = _usual(measure, pairs)
        return self._usual[measure]

    def _first(self, most: int, measure: Measure, profile: FeatureProfile) -> list[Distance]:
        """How far a profile is from each of the first so many windows."""
        if measure == "null_rise":
            theirs = [(part.missing, part.rows) for part in self.parts[:most] if part.rows and profile.rows]
            return [share_rise(pair, (profile.missing, profile.rows)) for pair in theirs]
        samples = [part.sample for part in self.parts[:most] if part.sample.count and profile.sample.count]
        if isinstance(profile.sample, Numbers) and samples:
            apart = self._numbers.psi if measure == "psi" else self._numbers.ks
            return apart(profile.sample, len(samples))
        return [distances(sample, profile.sample)[measure] for sample in samples]

    @cached_property
    def _numbers(self) -> "_NumberReferences":
        samples = [part.sample for part in self.parts if part.sample.count]
        return _NumberReferences([sample for sample in samples if isinstance(sample, Numbers)])


class _NumberReferences:
    """Samples of numbers, none of them empty. Another one is held against the first so many of them: `most`."""

    def __init__(self, samples: Sequence[Numbers]) -> None:
        self._samples = samples

    def psi(self, sample: Numbers, most: int) -> list[Distance]:
        return [found for bins in self._bins for found in bins.psi(sample, most)]

    def ks(self, sample: Numbers, most: int) -> list[Distance]:
        places = np.concatenate([np.searchsorted(self._points, sample.values, side=side) for side in SIDES])
        own = np.concatenate([share_below(sample.values, sample.values, side) for side in SIDES])
        gaps = np.abs(self._shares[:most, places] - own).max(axis=1)
        return [
            Distance(gap, gap_chance(one.count, sample.count) + one.rank_error + sample.rank_error)
            for gap, one in zip(gaps.tolist(), self._samples, strict=False)
        ]

    @cached_property
    def _points(self) -> Floats:
        """Every value of every sample, once."""
        return np.unique(np.concatenate([one.values for one in self._samples]))

    @cached_property
    def _shares(self) -> Floats:
        """A row for each sample: the share of its values that are among the first 0, 1, 2, ... points."""
        shares = np.zeros((len(self._samples), len(self._points) + 1))
        for row, one in zip(shares, self._samples, strict=True):
            at_points = np.bincount(np.searchsorted(self._points, one.values), minlength=len(self._points))
            row[1:] = np.cumsum(at_points) / len(one.values)
        return shares

    @cached_property
    def _bins(self) -> list["_Bins"]:
        edges = [bin_edges(one.values) for one in self._samples]
        alike: dict[int, list[int]] = {}
        for place, own in enumerate(edges):
            alike.setdefault(len(own), []).append(place)
        return [
            _Bins.of(np.array(places), [self._samples[n] for n in places], [edges[n] for n in places])
            for places in alike.values()
        ]


@dataclass(frozen=True, slots=True)
class _Bins:
    """Samples with the same number of bins: which they are, how many values each has, and a row of edges and of shares for each."""

    places: npt.NDArray[np.int64]
    sizes: list[int]
    edges: Floats
    shares: Floats

    @classmethod
    def of(cls, places: npt.NDArray[np.int64], samples: Sequence[Numbers], edges: Sequence[Floats]) -> "_Bins":
        shares = [bin_shares(one.values, own, one.count) for one, own in zip(samples, edges, strict=True)]
        return cls(places, [one.count for one in samples], np.stack(edges), np.stack(shares))

    def psi(self, sample: Numbers, most: int) -> list[Distance]:
        rows = int(np.searchsorted(self.places, most))
        index = stability_index(self.shares[:rows], bin_shares(sample.values, self.edges[:rows], sample.count))
        return [
            Distance(value, stability_chance(self.edges.shape[1], size, sample.count))
            for value, size in zip(index.tolist(), self.sizes, strict=False)
        ]


def _usual(measure: Measure, pairs: Sequence[Distance]) -> float:
    changes = sorted(_beyond_chance(measure, distance) for distance in pairs)
    return _as_distance(measure, SPREADS * changes[(len(changes) - 1) // 2]) if changes else 0.0


def _beyond_chance(measure: Measure, distance: Distance) -> float:
    """The change behind a distance, less what is usual by chance: about half of what is rare by chance."""
    change, rare = (_as_change(measure, value) for value in (abs(distance.value), distance.chance))
    return math.sqrt(max(0.0, change**2 - rare**2 / 4))


def _as_change(measure: Measure, distance: float) -> float:
    """A distance as the shift, in deviations, of a normal value that it stands for.

    A distance that ends at 1 cannot grow threefold; the shift behind it can.
    """
    if measure in UTMOST:
        return math.sqrt(distance)
    return 2 * NORMAL.inv_cdf((1 + min(distance, ALMOST_ONE)) / 2)


def _as_distance(measure: Measure, change: float) -> float:
    return min(change**2, UTMOST[measure]) if measure in UTMOST else 2 * NORMAL.cdf(change / 2) - 1
