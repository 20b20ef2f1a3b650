"""The checksum of a message: what tells that its bytes are those that were written, of this group, under these dtypes.

A multilinear hash: one dot product modulo 2**64, which NumPy takes of a whole batch at once::

    start of the group  +  W[0] * digest of the features  +  W[1] * bytes of the body  +  sum of W[2 + i] * word i of the body

The body is everything from byte 20 on, as little-endian words of 32 bits, the last one filled up with zeros. The fence is not
in it: servers lift it in place. `W` are odd numbers from a fixed generator. From that follows, whatever the message says:

- Any change of at most 32 bits in a row shows. It lies in one word or two neighbours, so that the sum moves by
  ``W[i] * 2**k * a + W[j] * c``, where c < 2**k and 2**k * a < 2**32 in size. Were that 0 modulo 2**64, then, odd numbers
  having inverses, 2**k would divide c, so that c is 0, and then a. Hence every flipped bit shows.
- Any two flipped bits show: of two different bits of their words as above; of the same bit b it takes
  ``W[i] = +-W[j]`` modulo 2**(64 - b), and no two are so even modulo 2**33.
- Zeros at the end show: the length is in it.
- All else shows but for one case in 2**64 at best, and in 2**32 where only the highest bits of words were changed.

It has 64 bits because no sum of 32 bits gives the first two: it shows all changes of 32 bits only by forgetting the high bits of its
words, and flipping the signs of two numbers would then go unseen. It is no signature: who wants to can compute it.

A reader that does not know all features of a message, since its registry is older or newer, solves for their digest instead, which has
32 bits: then a changed message is taken for whole in one case of 2**32.

Not here: where a checksum stands (`layout`), or what is done about a wrong one (`decode`).
"""

import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

Sums = np.ndarray[Any, np.dtype[np.uint64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]

BODY_START = 20
"""Where the part of a message begins that is summed up; before it stand fence and checksum."""
_FEATURES, _LENGTH, _FIRST_WORD = 0, 1, 2
_WORD = np.dtype("<u4")
_MASK = 2**64 - 1
_KEPT_WEIGHTS = 4096


def start_of(group: str) -> int:
    """What a group's checksums start from; `group` is its `RegisteredGroup.message_name`."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "little")


def digest_of(features: Sequence[tuple[int, str]]) -> int:
    """32 bits that stand for the features of a message: field numbers and names of dtypes, by number."""
    text = ",".join(f"{number}:{dtype}" for number, dtype in features)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


@lru_cache(maxsize=4096)
def base_of(group: str, features: tuple[tuple[int, str], ...]) -> int:
    """The part of the sum that messages of one group with the same features share."""
    return (start_of(group) + int(_weights(1)[_FEATURES]) * digest_of(features)) & _MASK


def weights(first: int, count: int) -> Sums:
    """`W[first]` to `W[first + count - 1]`: odd, and no two are equal up to their sign modulo 2**33.

    The lowest 32 bits are ``2 * m(i) + 1`` where m mixes the numbers below 2**31 one to one; bit 32 is 0; the rest is
    SplitMix64's (Steele, Lea, Flood 2014) i-th number.
    """
    high = _split_mix(np.arange(first + 1, first + count + 1, dtype=np.uint64))
    low = _mixed_31_bits(np.arange(first, first + count, dtype=np.uint64))
    own: Sums = high & ~np.uint64(2**33 - 1) | low << np.uint64(1) | np.uint64(1)
    return own


def _split_mix(places: Sums) -> Sums:
    z = places * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def _mixed_31_bits(places: Sums) -> Sums:
    """Shifted xor, product with an odd number and sum can each be undone modulo 2**31, hence all of them together."""
    mask = np.uint64(2**31 - 1)
    z = places + np.uint64(0x2545F491) & mask
    for shift, factor in ((16, 0x45D9F3B), (15, 0x2C1B3C6D), (16, 0x297A2D39)):
        z = (z ^ z >> np.uint64(shift)) * np.uint64(factor) & mask
    return z ^ z >> np.uint64(16)


@cache
def _kept_weights() -> Sums:
    return weights(0, _KEPT_WEIGHTS)


def _weights(count: int) -> Sums:
    """The first `count`."""
    kept = _kept_weights()
    return kept[:count] if count <= kept.size else _many_weights(1 << (count - 1).bit_length())[:count]


@lru_cache(maxsize=4)
def _many_weights(count: int) -> Sums:
    return weights(0, count)


def sum_of(message: bytes, base: int) -> int:
    """The checksum of one message, whatever stands in it for one."""
    filling, own, length_term = _terms(len(message))
    words = np.frombuffer(message + filling, _WORD, own.size, BODY_START)
    return (int(words.astype(np.uint64).dot(own)) + length_term + base) & _MASK


@lru_cache(maxsize=4096)
def _terms(size_bytes: int) -> tuple[bytes, Sums, int]:
    """Of messages of one size: the zeros that fill up the last word, the words' weights, and the length's term."""
    own = _weights(_FIRST_WORD - (BODY_START - size_bytes) // 4)
    return bytes(-size_bytes % 4), own[_FIRST_WORD:], int(own[_LENGTH]) * (size_bytes - BODY_START)


def sums_of_rows(rows: Bytes, base: int) -> Sums:
    """The checksums of messages of one size; `rows` has shape (messages, bytes) and no gaps."""
    filling, own, length_term = _terms(rows.shape[1])
    sums = _sums_of_heads(rows, (rows.shape[1] - BODY_START) // 4) + np.uint64((length_term + base) & _MASK)
    if filling and len(rows):
        ends = np.ndarray(len(rows), _WORD, rows, rows.shape[1] - 4, rows.shape[1]).astype(np.uint64)
        sums += (ends >> np.uint64(8 * len(filling))) * own[-1]
    return sums


def _sums_of_heads(rows: Bytes, count: int) -> Sums:
    """Of the first words of each row, read where they stand."""
    if not len(rows):
        return np.zeros(0, np.uint64)
    words = np.ndarray((len(rows), count), _WORD, rows, BODY_START, (rows.shape[1], 4))
    return _weighted(words, _weights(_FIRST_WORD + count)[_FIRST_WORD:])


def _weighted(words: np.ndarray[Any, np.dtype[np.uint32]], own: Sums) -> Sums:
    sums: Sums = np.einsum("ij,j->i", words, own, dtype=np.uint64, casting="unsafe")
    return sums


def sums_of_padded(rows: Bytes, sizes: Numbers | int, base: int) -> Sums:
    """The checksums of messages of any sizes that stand at even distances.

    Args:
        rows: A message each, with zeros after it up to the end of the row, which is a whole number of words.
        sizes: Bytes of each message, or of all.
        base: As `base_of` gives it.
    """
    words = rows[:, BODY_START:].view(_WORD)
    sums = _weighted(words, _weights(_FIRST_WORD + words.shape[1])[_FIRST_WORD:])
    if isinstance(sizes, int):
        sums += np.uint64((_terms(sizes)[2] + base) & _MASK)
    else:
        sums += (sizes - BODY_START).astype(np.uint64) * _weights(2)[_LENGTH] + np.uint64(base)
    return sums


def sums_of_messages(data: bytes | Bytes, starts: Numbers, ends: Numbers, heads: Bytes, base: int) -> Sums:
    """The checksums of messages of many sizes.

    Args:
        data: Holds them, and at least four bytes after the last one.
        starts: Where each begins.
        ends: Where each ends.
        heads: The first bytes of each once more, shape (messages, bytes), without gaps: a matrix is summed up quicker.
        base: As `base_of` gives it.
    """
    count = (heads.shape[1] - BODY_START) // 4
    sums = _sums_of_heads(heads, count) + _sums_of_tails(data, starts + (BODY_START + 4 * count), ends, count)
    lengths = (ends - starts - BODY_START).astype(np.uint64)
    sums += lengths * _weights(2)[_LENGTH] + np.uint64(base)
    return sums


def _sums_of_tails(data: bytes | Bytes, starts: Numbers, ends: Numbers, words_before: int) -> Sums:
    """The words from each start on, read wherever they stand."""
    counts = -(-(ends - starts) // 4)
    if not counts.any():
        return np.zeros(starts.size, np.uint64)
    stops = np.cumsum(counts)  # of words; a prefix sum, unlike NumPy's reduceat, can sum up none
    places = np.arange(int(stops[-1])) - np.repeat(stops - counts, counts)
    every: Sums = np.ndarray((len(data) - 3,), _WORD, data, strides=(1,))
    words = every[np.repeat(starts, counts) + 4 * places].astype(np.uint64)
    cut = (ends - starts) % 4
    torn = cut > 0
    words[stops[torn] - 1] &= (np.uint64(1) << (8 * cut[torn]).astype(np.uint64)) - np.uint64(1)
    own = _weights(_FIRST_WORD + words_before + int(counts.max()))[_FIRST_WORD + words_before :]
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words * own[places], dtype=np.uint64)])
    sums: Sums = totals[stops] - totals[stops - counts]
    return sums


def are_sums_of_unknown_features(gaps: Sums) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether checksums are those of a group's messages with some features or other.

    Args:
        gaps: What is written, less the sum that starts at the group alone.
    """
    flags: np.ndarray[Any, np.dtype[np.bool_]] = gaps * np.uint64(_inverse_of_features()) < np.uint64(2**32)
    return flags


@cache
def _inverse_of_features() -> int:
    return pow(int(_weights(1)[_FEATURES]), -1, 2**64)
