"""The hot tier on a Redis or Valkey Cluster: every primary is a part, and is read in one round trip, all of them at once.

Not here: how a part is written (`part`), who the nodes are (`nodes`, `topology`), what their answers say (`part_replies`).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.online.message.layout import Flags
from featurestore.online.published import NowAndThen
from featurestore.online.redis.connection import Place
from featurestore.online.redis.exchange import Answer, Question, ask_all, error_codes, replies_or_cause
from featurestore.online.redis.line import ServerSaid
from featurestore.online.redis.nodes import Nodes
from featurestore.online.redis.part import RedisPart, WriteLimits, require_batch_size
from featurestore.online.redis.portions import Gathered, Portion, Positions, portions_of
from featurestore.online.redis.scripts import script
from featurestore.online.redis.server import Command
from featurestore.online.redis.topology import Node, slots_of
from featurestore.online.tier import Mark, Replies


class ClusterPart(RedisPart):
    """One primary of a cluster with the slots that it had when the tier was asked for its parts.

    What a state recorded by it covers are those slots; whatever the node takes later is not covered, and means a rebuild.
    """

    def __init__(self, nodes: Nodes, node: Node, clock: Clock, limits: WriteLimits) -> None:
        super().__init__(nodes.writer(node), clock, limits, node.keys, node.ownership)
        self._node = node

    def owns(self, keys: Sequence[bytes]) -> Flags:
        """Which keys lie in this part."""
        flags: Flags = self._node.has_slot[slots_of(keys)]
        return flags

    def _scan(self, group: str) -> Iterator[list[bytes]]:
        """Keys that the node holds without having their slot are not its to remove."""
        for keys in super()._scan(group):
            yield [key for key, is_own in zip(keys, self.owns(keys), strict=True) if is_own]


class RedisClusterTier:
    """A cluster of Redis (7 or later) or Valkey servers as the hot tier.

    Rules: nothing is sent before the first call. Reads go to primaries. A node that fails, or does not answer in time, costs only
    its keys; while it goes on failing it is not asked, but for one read a second. Slots that have moved are looked for once more
    within the same read. Run the nodes with `cluster-require-full-coverage no` and `cluster-allow-reads-when-down yes`: else one
    dead node makes the others refuse too. Behind TLS they need `tls-cluster yes`: else they tell each other's plain ports.

    Args:
        seeds: Where some of the nodes are; the others are learned from them.
        clock: The writer's clock.
        limits: How writes are cut and checked.
        read_batch_keys: Keys in one server-side call; longer reads are split, still in one round trip.
        seconds: Clock of the circuit breakers, and of how often reads ask what was published.

    Raises:
        InvalidInput: A batch is out of range.
    """

    def __init__(
        self,
        seeds: Sequence[Place],
        clock: Clock,
        *,
        limits: WriteLimits | None = None,
        read_batch_keys: int = 1000,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        require_batch_size(read_batch_keys)
        self._nodes = Nodes(seeds, seconds)
        self._turns = NowAndThen(seconds)
        self._clock = clock
        self._limits = limits or WriteLimits()
        self._read_batch_keys = read_batch_keys

    @property
    def name(self) -> Literal["hot"]:
        return "hot"

    @property
    def address(self) -> str:
        """The nodes that were named; never the password."""
        return self._nodes.names

    def parts(self) -> Sequence[ClusterPart]:
        """The primaries and their slots, asked for now.

        Raises:
            StoreUnavailable: No node answers.
        """
        topology = self._nodes.require()
        return [ClusterPart(self._nodes, node, self._clock, self._limits) for node in topology.nodes]

    def read_many(
        self, keys_by_group: Mapping[str, Sequence[bytes]], *, timeout_seconds: float | None = None
    ) -> dict[str, Replies]:
        """Read messages of several groups, one round trip a node, all nodes at once; `Tier.read_many` has the rules.

        Args:
            keys_by_group: Keys of each group as `keys.online_keys` builds them; doubles allowed, any number.
            timeout_seconds: Limit on the whole read; None: the patience for reads, on each round.

        Returns:
            For each group its replies, in key order.
        """
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        if not self._nodes.topology.nodes:
            self._nodes.renew(_half(until))
        gathered = {group: Gathered(len(keys)) for group, keys in keys_by_group.items()}
        wanted = {group: list(range(len(keys))) for group, keys in keys_by_group.items()}
        elsewhere = self._read(keys_by_group, wanted, gathered, until, self._turns.due(keys_by_group))
        if elsewhere:
            self._nodes.renew(_half(until), only_alive=True)
            self._read(keys_by_group, elsewhere, gathered, until)
        return {group: one.replies() for group, one in gathered.items()}

    def _read(
        self,
        keys_by_group: Mapping[str, Sequence[bytes]],
        wanted: Positions,
        gathered: Mapping[str, Gathered],
        until: float | None,
        told: Sequence[str] = (),
    ) -> Positions:
        """One round; positions of the keys that turned out to be with another node."""
        portions, homeless = portions_of(self._nodes.topology, keys_by_group, wanted, told)
        for group, positions in homeless.items():
            gathered[group].leave(
                positions, f"no node of the Redis cluster at {self.address} is known to have their slots"
            )
        elsewhere: Positions = {}
        for portion, answer in zip(portions, self._ask(portions, until), strict=True):
            for group, positions in self._take(portion, answer, gathered).items():
                elsewhere.setdefault(group, []).extend(positions)
        if elsewhere or homeless:
            self._nodes.met_trouble()
        return elsewhere

    def _ask(self, portions: Sequence[Portion], until: float | None) -> list[Answer]:
        """What the node of each portion answers; now and then all nodes say along with it who they are."""
        questions = [
            Question(self._nodes.reader(portion.node), portion.commands(self._read_batch_keys)) for portion in portions
        ]
        answers = self._nodes.ask(questions, _left(until))
        lacking = [at for at, answer in enumerate(answers) if "NOSCRIPT" in error_codes(answer)]
        if lacking:
            load: Command = ("SCRIPT", "LOAD", script("read.lua")[0])
            again = [replace(questions[at], commands=[load, *questions[at].commands]) for at in lacking]
            for at, answer in zip(lacking, ask_all(again, _left(until)), strict=True):
                answers[at] = answer[1:] if isinstance(answer, list) else answer
        return answers

    def _take(self, portion: Portion, answer: Answer, gathered: Mapping[str, Gathered]) -> Positions:
        """Put a node's replies where they belong; positions of the keys that are with another node by now."""
        said = replies_or_cause(portion.node.address, answer)
        if isinstance(said, str):
            self._nodes.met_trouble()
            for group, positions in portion.positions.items():
                gathered[group].leave(positions, said)
            return portion.positions if error_codes(answer) & {"MOVED", "ASK", "TRYAGAIN"} else {}
        self._turns.answered(portion.told)
        for group, replies in portion.replies(said, self._read_batch_keys, self._nodes.met_trouble).items():
            gathered[group].add(portion.positions[group], replies)
        return portion.elsewhere(said)

    def repair(
        self, group: str, mark: Mark, keys: Sequence[bytes], messages: Sequence[bytes], ttl: timedelta | None
    ) -> int:
        """Put back what a read missed, by the fenced write, if the node still says of the group what `mark` says.

        Returns:
            How many keys were written; 0 if the state is another by now, or the node is gone, or does not have the slots.
        """
        node = next((one for one in self._nodes.topology.nodes if f"hot {one.address}" == mark.part), None)
        if node is None:
            return 0
        try:
            return ClusterPart(self._nodes, node, self._clock, self._limits).repair(group, mark, keys, messages, ttl)
        except (FeatureStoreError, ServerSaid):
            return 0

    def close(self) -> None:
        """Close all connections."""
        self._nodes.close()


def _half(until: float | None) -> float | None:
    """For asking who the nodes are: a node that stands still may take no more, so that there is time for the others' keys."""
    left = _left(until)
    return None if left is None else left / 2


def _left(until: float | None) -> float | None:
    return None if until is None else max(until - time.monotonic(), 0.0)
