"""How many distinct values there are, as a sketch of 1 kB that merges without loss: HyperLogLog of 1,024 registers.

A register holds the longest run of leading zeros among the hashes that fall to it. The registers of two windows together are the larger of
each pair, exactly those of all their values. The estimate is off by 3.3 % (one deviation) of many values, less of few.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurestore.quality.hashing import Words

INDEX_BITS = 10
REGISTERS = 1 << INDEX_BITS
RUN_BITS = 53
"""As many bits of a hash as a float holds exactly: its exponent then tells the leading zeros."""
RELATIVE_ERROR = 1.04 / math.sqrt(REGISTERS)
ALPHA = 1 / (2 * math.log(2))


@dataclass(frozen=True, slots=True)
class DistinctSketch:
    """One byte a register."""

    registers: bytes = bytes(REGISTERS)

    @classmethod
    def of(cls, words: Words) -> "DistinctSketch":
        """The sketch of hashed values; repeated ones change nothing."""
        return distinct_sketches(words[np.newaxis], np.ones((1, len(words)), dtype=bool))[0]

    def estimate(self) -> float:
        """How many distinct values, about.

        Source: Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), algorithm 6: without bias at
        any size, and without tables.
        """
        counts = np.bincount(np.frombuffer(self.registers, dtype=np.uint8), minlength=RUN_BITS + 2).tolist()
        total = REGISTERS * _tau(1 - counts[RUN_BITS + 1] / REGISTERS)
        for length in range(RUN_BITS, 0, -1):
            total = 0.5 * (total + counts[length])
        total += REGISTERS * _sigma(counts[0] / REGISTERS)
        return ALPHA * REGISTERS**2 / total


def distinct_sketches(words: Words, is_there: npt.NDArray[np.bool_]) -> list[DistinctSketch]:
    """The sketch of each row of hashed values, of shape (sketches, values), as far as they are there."""
    registers = np.zeros((len(words), REGISTERS), dtype=np.uint8)
    first: npt.NDArray[np.int64] = REGISTERS * np.arange(len(words))
    index = (words >> np.uint64(64 - INDEX_BITS)).astype(np.int64) + first[:, np.newaxis]
    _, lengths = np.frexp((words & np.uint64((1 << RUN_BITS) - 1)).astype(np.float64))
    runs = (RUN_BITS + 1 - lengths).astype(np.uint8)
    np.maximum.at(registers.reshape(-1), index[is_there], runs[is_there])
    return [DistinctSketch(row.tobytes()) for row in registers]


def merged_distinct(sketches: Sequence[DistinctSketch]) -> DistinctSketch:
    """The sketch of everything that some sketches saw; at least one."""
    together: npt.NDArray[np.uint8] = np.stack([np.frombuffer(sketch.registers, np.uint8) for sketch in sketches])
    return DistinctSketch(together.max(axis=0).tobytes())


def _sigma(share: float) -> float:
    """What registers never hit add."""
    if share == 1:
        return math.inf
    total, before, weight = share, -1.0, 1.0
    while total != before:
        share, before = share * share, total
        total, weight = total + share * weight, 2 * weight
    return total


def _tau(share: float) -> float:
    """What full registers take away."""
    if share in (0, 1):
        return 0.0
    total, before, weight = 1 - share, -1.0, 1.0
    while total != before:
        share, before, weight = math.sqrt(share), total, weight / 2
        total -= (1 - share) ** 2 * weight
    return total / 3
