"""Hashes of values that are the same on every machine and in every version: what distinct sketches kept for years rest on.

Polars and Python promise no such thing of theirs. A sequence (text, or a list) is hashed by simple tabulation: the sum of one
random-looking word for each pair of position and item, so that sequences that differ anywhere collide about once in 2^64.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Words = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def hash_values(values: pl.Series) -> Words:
    """A word for each value of a series without nulls; equal values of one dtype have equal words, -0.0 and 0.0 too.

    Args:
        values: Numbers, booleans, dates, timestamps, strings, or lists of them.
    """
    if values.dtype == pl.String:
        return _hash_texts(values)
    if isinstance(values.dtype, pl.List):
        return _hash_lists(values)
    if values.dtype.is_float():
        return hash_floats(values.cast(pl.Float64).to_numpy())
    return _mixed(values.to_physical().cast(pl.Int64).to_numpy().view(np.uint64))


def hash_floats(values: npt.NDArray[np.float64]) -> Words:
    """A word for each float, as `hash_values` gives it."""
    # Adding zero turns -0.0 into 0.0.
    return _mixed((values + 0.0).view(np.uint64))


def hash_vectors(matrix: npt.NDArray[np.float32]) -> Words:
    """A word for each row."""
    items = (matrix.reshape(-1) + np.float32(0)).astype(np.float64).view(np.uint64)
    return _hash_sequences(items, np.arange(len(matrix) + 1) * matrix.shape[1])


def _hash_texts(values: pl.Series) -> Words:
    array: Any = values.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, text = array.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    items = np.frombuffer(text, dtype=np.uint8)[ends[0] : ends[-1]] if text is not None else np.empty(0, np.uint8)
    return _hash_sequences(items.astype(np.uint64), ends - ends[0])


def _hash_lists(values: pl.Series) -> Words:
    ends = np.concatenate([[0], values.list.len().cast(pl.Int64).cum_sum().to_numpy()]).astype(np.int64)
    items = values.filter(values.list.len() > 0).explode()
    is_missing = items.is_null().to_numpy()
    filled = items.drop_nulls()
    words = np.zeros(len(items), dtype=np.uint64)
    words[~is_missing] = hash_values(filled)
    return _hash_sequences(words, ends)


def _hash_sequences(items: Words, ends: npt.NDArray[np.int64]) -> Words:
    """Args: `items` of all sequences one after the other, and where each ends, with a leading 0."""
    lengths = np.diff(ends)
    positions = (np.arange(len(items)) - np.repeat(ends[:-1], lengths)).astype(np.uint64)
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(items + (positions + np.uint64(1)) * GOLDEN))])
    return _mixed(running[ends[1:]] - running[ends[:-1]] + lengths.astype(np.uint64))


def _mixed(words: Words) -> Words:
    """Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (SplitMix64's finaliser)."""
    words = words + GOLDEN
    words = (words ^ (words >> np.uint64(30))) * FIRST
    words = (words ^ (words >> np.uint64(27))) * SECOND
    return words ^ (words >> np.uint64(31))
