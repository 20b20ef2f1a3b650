"""A read of a cluster, taken apart by node and put together again. Not here: asking the nodes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from featurestore.online.published import Published, newer
from featurestore.online.records import StateRecord
from featurestore.online.redis.part_replies import ELSEWHERE, Source, Values, sorted_out
from featurestore.online.redis.scripts import script
from featurestore.online.redis.server import Command
from featurestore.online.redis.topology import NO_NODE, Node, Topology
from featurestore.online.tier import Mark, Replies

Positions = dict[str, list[int]]
"""Of keys in a read, by group."""


@dataclass(frozen=True, slots=True)
class Portion:
    """The keys of a read that one node has.

    Args:
        node: The node.
        positions: Where the keys stand in the read.
        keys: The keys of all groups, in that order.
        told: The groups whose published freshness is asked for.
    """

    node: Node
    positions: Positions
    keys: list[bytes]
    told: list[str] = field(default_factory=list)

    def commands(self, batch_keys: int) -> list[Command]:
        """One call of the script for each batch; states, and what was published, are read along with each."""
        own = self.node.keys
        states = [own.state(group) for group in self.positions] + [own.freshness(group) for group in self.told]
        head: Command = ("EVALSHA_RO", script("read.lua")[1], 1, own.epoch, *states)
        return [(*head, *self.keys[start : start + batch_keys]) for start in range(0, len(self.keys), batch_keys)]

    def replies(self, said: Sequence[Values], batch_keys: int, met_uncovered: Callable[[], None]) -> dict[str, Replies]:
        """What the node's answers say, by group; `met_uncovered` is told of a state that does not cover the node's slots."""

        def covers(record: StateRecord) -> bool:
            is_covered = self.node.ownership.is_covered_by(record.ownership)
            if not is_covered:
                met_uncovered()
            return is_covered

        name = f"hot {self.node.address}"
        counts = {group: len(positions) for group, positions in self.positions.items()}
        return sorted_out(Source(name, self.node.address, covers), counts, said, batch_keys, self.told)

    def elsewhere(self, said: Sequence[Values]) -> Positions:
        """Positions of the keys whose slot is with another node by now."""
        records = 1 + len(self.positions) + len(self.told)
        if not any(ELSEWHERE in answer for answer in said):
            return {}
        values = [value for answer in said for value in answer[records:]]
        places = [(group, at) for group, positions in self.positions.items() for at in positions]
        found: Positions = {}
        for value, (group, at) in zip(values, places, strict=True):
            if value == ELSEWHERE:
                found.setdefault(group, []).append(at)
        return found


class Gathered:
    """What the nodes said of one group's keys so far; what a later round says counts."""

    def __init__(self, count: int) -> None:
        self._messages: list[bytes | None] = [None] * count
        self._causes: dict[int, str] = {}
        self._marks: list[Mark] = []
        self._published: Published | None = None

    def add(self, positions: Sequence[int], replies: Replies) -> None:
        """Take in a node's replies to the keys at some positions."""
        for at, message in zip(positions, replies.messages, strict=True):
            self._messages[at] = message
        if self._causes:
            for at in positions:
                self._causes.pop(at, None)
        self.leave([positions[at] for at in replies.unanswered], replies.cause)
        self._published = newer(self._published, replies.published)
        self._marks += [replace(mark, positions=[positions[at] for at in mark.positions]) for mark in replies.marks]

    def leave(self, positions: Sequence[int], cause: str) -> None:
        """Nobody could speak for these."""
        self._causes.update(dict.fromkeys(positions, cause))

    def replies(self) -> Replies:
        causes = "; ".join(dict.fromkeys(self._causes.values()))
        return Replies(
            self._messages, frozenset(self._causes), cause=causes, marks=tuple(self._marks), published=self._published
        )


def portions_of(
    topology: Topology, keys_by_group: Mapping[str, Sequence[bytes]], wanted: Positions, told: Collection[str] = ()
) -> tuple[list[Portion], Positions]:
    """The wanted keys by node, and the positions of those whose slot nobody has."""
    by_node: dict[int, Portion] = {}
    homeless: Positions = {}
    for group, positions in wanted.items():
        keys = [keys_by_group[group][at] for at in positions]
        for number, places in topology.split(keys).items():
            if number == NO_NODE:
                homeless[group] = [positions[at] for at in places]
                continue
            portion = by_node.setdefault(number, Portion(topology.nodes[number], {}, []))
            portion.positions[group] = [positions[at] for at in places]
            portion.told.extend([group] if group in told else [])
            portion.keys.extend(keys[at] for at in places)
    return list(by_node.values()), homeless
