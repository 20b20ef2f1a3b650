"""The messages of one read in one buffer, laid out so that NumPy reads the same place of all of them at once.

How they are laid out depends on what they are:

- Messages that should all have one size are joined by a mark, which then stands at a fixed distance: this is what tells that they do
  have that size. The mark is drawn once a process, so that no stored bytes can pretend to be it but by a chance of 2**-64.
- Messages of many sizes get zeros after them, up to the longest one's size; unless that would make them several times as large.
- Else they stand end to end.

Rows are a multiple of eight bytes apart in the first two cases. The zeros behind a message are those with which its checksum's last
word is filled up. Not here: what is in the messages.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from featurestore.online.message.checksum import Sums, sums_of_messages, sums_of_padded
from featurestore.online.message.columns import Array
from featurestore.online.message.layout import Bytes, Flags, Numbers, Rows

_ALIGNMENT, _WORD = 8, 4
_PADDING = bytes(_ALIGNMENT)
"""Stands after the last message, so that eight bytes can be read wherever a field begins."""
_MARK = secrets.token_bytes(_ALIGNMENT)
_LARGEST_GROWTH = 2
"""Times as many bytes as without zeros between: above it the longer buffer costs more than the even steps save."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Messages in one buffer, with some zeros after the last.

    Args:
        joined: The buffer.
        starts: Where each begins.
        ends: Where each ends.
        step: Bytes from one to the next; 0 if they differ.
        size: Bytes of each; 0 if they differ.
        is_verified: That their checksums were looked at before.
    """

    joined: bytes
    starts: Numbers
    ends: Numbers
    step: int = 0
    size: int = 0
    is_verified: bool = False

    @classmethod
    def of(cls, messages: Sequence[bytes], size: int | None = None, *, is_verified: bool = False) -> "Batch":
        """Put messages together.

        Args:
            messages: Any.
            size: Bytes that each is expected to have; None: they differ.
            is_verified: As of the class.

        Raises:
            TypeError: One of them is None.
        """
        even = cls._even(messages, size, is_verified) if size and messages else None
        return even or cls._uneven(messages, is_verified)

    @classmethod
    def _even(cls, messages: Sequence[bytes], size: int, is_verified: bool) -> "Batch | None":
        """None if they do not all have this size."""
        between = bytes(-size % _WORD) + _MARK
        between += bytes(-(size + len(between)) % _ALIGNMENT)
        step, count = size + len(between), len(messages)
        joined = between.join([*messages, b""])
        if len(joined) != step * count:
            return None
        marks = np.ndarray((count,), "V8", joined, size + -size % _WORD, (step,))
        if marks.tobytes() != _MARK * count:
            return None
        starts = np.arange(0, step * count, step)
        return cls(joined, starts, starts + size, step, size, is_verified)

    @classmethod
    def _uneven(cls, messages: Sequence[bytes], is_verified: bool) -> "Batch":
        sizes = np.fromiter(map(len, messages), np.int64, len(messages))
        total, longest = int(sizes.sum()), int(sizes.max(initial=0))
        step = -(-longest // _ALIGNMENT) * _ALIGNMENT
        if not 0 < step * sizes.size <= _LARGEST_GROWTH * total:
            ends = np.cumsum(sizes)
            return cls(b"".join([*messages, _PADDING]), ends - sizes, ends, 0, 0, is_verified)
        joined = np.array([*messages, _PADDING], f"S{step}").tobytes()
        starts = np.arange(0, step * sizes.size, step)
        return cls(joined, starts, starts + sizes, step, 0, is_verified)

    @property
    def count(self) -> int:
        return self.starts.size

    @property
    def positions(self) -> Numbers:
        return np.arange(self.starts.size)

    @cached_property
    def data(self) -> Bytes:
        return np.frombuffer(self.joined, np.uint8)

    @cached_property
    def sizes(self) -> Numbers:
        sizes: Numbers = self.ends - self.starts
        return sizes

    @cached_property
    def matrix(self) -> Bytes:
        """If there is a step, a message a row, and zeros behind it up to the end of the longest one's last word."""
        longest = self.size or int(self.sizes.max(initial=0))
        return np.ndarray((self.count, longest + -longest % _WORD), np.uint8, self.joined, 0, (self.step, 1))

    def sums(self, positions: Numbers, base: int) -> Sums:
        """The checksums that the messages at these positions should have; none is shorter than fence and checksum."""
        if not positions.size:
            return np.zeros(0, np.uint64)
        sizes = self.size or self.sizes[positions]
        if self.step:
            rows = self.matrix if positions.size == self.count else self.matrix[positions]
            return sums_of_padded(rows, sizes, base)
        heads = self.rows(positions, np.dtype(f"V{np.min(sizes)}"))[:, np.newaxis].view(np.uint8)
        return sums_of_messages(self.data, self.starts[positions], self.ends[positions], heads, base)

    def words(self, starts: Numbers) -> Array:
        """Eight bytes from each start as one number; starts beyond the end are moved to it."""
        last = len(self.joined) - _ALIGNMENT
        every: Array = np.ndarray((last + 1,), "<u8", self.joined, strides=(1,))
        words: Array = every[np.minimum(starts, last)]
        return words

    def is_ascii_from(self, place: int, others: int) -> bool:
        """Whether all bytes of all messages from a place on are ASCII, but for so many that are not; False too if that is not known."""
        if not self.step:
            return False
        return int(np.count_nonzero(self.matrix[:, place:].view(np.int8) < 0)) == others

    def are_ascii(self, starts: Numbers, sizes: Numbers) -> Flags:
        """Whether each of these stretches of bytes is ASCII; one without length is."""
        if not sizes.size:
            return np.ones(0, np.bool_)
        bounds = np.stack([starts, starts + sizes], axis=1).reshape(-1)
        every_bit = np.bitwise_or.reduceat(self.data, bounds)[::2]
        ascii_only: Flags = (every_bit < 0x80) | (sizes == 0)
        return ascii_only

    def pairs(self, positions: Numbers, places: Numbers) -> Array:
        """The two bytes at each of some places of the messages at these positions, as numbers of 16 bits: shape (messages, places)."""
        if self.step and positions.size == self.count:
            strided: Array = np.ndarray((self.count, self.step - 1), "<u2", self.joined, 0, (self.step, 1))[:, places]
            return strided
        every: Array = np.ndarray((len(self.joined) - 1,), "<u2", self.joined, strides=(1,))
        pairs: Array = every[self.starts[positions][:, np.newaxis] + places]
        return pairs

    def rows(self, positions: Numbers, dtype: "np.dtype[np.void]") -> Rows:
        """The beginnings of the messages at these positions, all of which are long enough: a view, if that is all of them."""
        if not positions.size:
            return np.empty(0, dtype)
        if self.step and positions.size == self.count:
            return np.ndarray((self.count,), dtype, self.joined, 0, (self.step,))
        every: Rows = np.ndarray(
            (len(self.joined) - dtype.itemsize + 1,), f"V{dtype.itemsize}", self.joined, strides=(1,)
        )
        return every[self.starts[positions]].view(dtype)
