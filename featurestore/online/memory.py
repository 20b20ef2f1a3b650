"""A tier in this process's memory, for users' tests: `memory://` as an address, or handed to `OnlineStores`.

One contract suite runs over it and over the servers. Not here: the rules of a part (`memory_part`), persistence, deadlines
(memory answers at once), or anything shared between processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import reduce
from zlib import crc32

from featurestore.clock import Clock
from featurestore.declaration.online import TierName
from featurestore.online.memory_part import MemoryPart
from featurestore.online.published import Published, newer
from featurestore.online.tier import Mark, Replies

_NOTHING: Published | None = None


class MemoryTier:
    """A whole tier in memory; `Tier` has the rules.

    Args:
        name: "hot" or "warm".
        clock: Rules what is expired and what is of the future.
        parts: How many parts share the keys; each is emptied and filled by itself.
        can_resume: Whether another may go on with a fill; by default as the real tiers: hot yes, warm no.
    """

    def __init__(self, name: TierName, clock: Clock, *, parts: int = 1, can_resume: bool | None = None) -> None:
        resumes = name == "hot" if can_resume is None else can_resume
        self._name = name
        self._parts = [
            MemoryPart(name, f"{name} memory {number}", clock, can_resume=resumes, place=(number, parts))
            for number in range(parts)
        ]

    @property
    def name(self) -> TierName:
        return self._name

    def parts(self) -> list[MemoryPart]:
        return list(self._parts)

    def read_many(
        self,
        keys_by_group: Mapping[str, Sequence[bytes]],
        *,
        timeout_seconds: float | None = None,  # noqa: ARG002 - memory answers at once
    ) -> dict[str, Replies]:
        """Memory answers at once: `timeout_seconds` has no effect."""
        return {group: self._read(group, keys) for group, keys in keys_by_group.items()}

    def repair(
        self, group: str, mark: Mark, keys: Sequence[bytes], messages: Sequence[bytes], ttl: timedelta | None
    ) -> int:
        named = [part for part in self._parts if part.name == mark.part]
        return sum(part.repair(group, mark, keys, messages, ttl) for part in named)

    def close(self) -> None:
        """Nothing is open."""

    def _read(self, group: str, keys: Sequence[bytes]) -> Replies:
        if len(self._parts) == 1:
            return self._parts[0].read(group, keys)
        places = [crc32(key) % len(self._parts) for key in keys]
        found = [_spread_part(part, group, keys, places, number) for number, part in enumerate(self._parts)]
        messages: list[bytes | None] = [found[place].messages[at] for at, place in enumerate(places)]
        unanswered = frozenset().union(*(one.unanswered for one in found))
        causes = "; ".join(one.cause for one in found if one.cause)
        published = reduce(newer, (one.published for one in found), _NOTHING)
        marks = tuple(mark for one in found for mark in one.marks)
        return Replies(messages, unanswered, cause=causes, marks=marks, published=published)


def _spread_part(part: MemoryPart, group: str, keys: Sequence[bytes], places: list[int], number: int) -> Replies:
    """What one part says of its keys, at their positions in the whole read."""
    own = [position for position, place in enumerate(places) if place == number]
    said = part.read(group, [keys[position] for position in own])
    messages: list[bytes | None] = [None] * len(keys)
    for position, message in zip(own, said.messages, strict=True):
        messages[position] = message
    marks = tuple(replace(mark, positions=[own[at] for at in mark.positions]) for mark in said.marks)
    return replace(said, messages=messages, unanswered=frozenset(own[at] for at in said.unanswered), marks=marks)
