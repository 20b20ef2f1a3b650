"""Which node of a Redis or Valkey Cluster has which slots. Not here: asking the nodes (`cluster`)."""

from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from typing import Any

import numpy as np

from featurestore.online.message.layout import Flags
from featurestore.online.records import Ownership, PartKeys, slot_ranges

SLOTS = 16384
NO_NODE = -1
Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Node:
    """A primary that has slots.

    Args:
        host, port: Where clients reach it.
        ownership: Its id, its config epoch and its slots.
    """

    host: str
    port: int
    ownership: Ownership

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @cached_property
    def keys(self) -> PartKeys:
        """Its own keys, in the highest of its slots: moves of slots usually take the lowest ones."""
        return PartKeys(tag_of(slot_ranges(self.ownership.slots)[-1][1]))

    @cached_property
    def has_slot(self) -> Flags:
        """For each slot, whether it is this node's."""
        flags = np.zeros(SLOTS, np.bool_)
        for first, last in slot_ranges(self.ownership.slots):
            flags[first : last + 1] = True
        return flags


@dataclass(frozen=True)
class Topology:
    """The nodes and their slots, as known at one moment."""

    nodes: tuple[Node, ...] = ()

    @cached_property
    def _node_of_slot(self) -> Numbers:
        owners = np.full(SLOTS, NO_NODE, np.int64)
        for number, node in enumerate(self.nodes):
            owners[node.has_slot] = number
        return owners

    def split(self, keys: Sequence[bytes]) -> dict[int, list[int]]:
        """Positions of keys by the number of the node that has their slot; under NO_NODE those that nobody has."""
        owners = self._node_of_slot[slots_of(keys)]
        return {number: np.flatnonzero(owners == number).tolist() for number in np.unique(owners).tolist()}


def slots_of(keys: Sequence[bytes]) -> Numbers:
    """The slot of each key, by the cluster specification: CRC16 of the key, or of its first non-empty {tag}."""
    return np.fromiter((crc_hqx(_hashed(key), 0) for key in keys), np.int64, len(keys)) % SLOTS


def _hashed(key: bytes) -> bytes:
    start = key.find(b"{")
    end = key.find(b"}", start + 2) if start >= 0 and key[start + 1 : start + 2] != b"}" else -1
    return key[start + 1 : end] if end > 0 else key


@lru_cache(maxsize=SLOTS)
def tag_of(slot: int) -> str:
    """The first hash tag `{number}` that leads to a slot: the same for everyone, as part of what is stored.

    >>> int(slots_of([tag_of(16383).encode()])[0])
    16383
    """
    return next(f"{{{number}}}" for number in count() if crc_hqx(b"%d" % number, 0) % SLOTS == slot)


@dataclass(frozen=True, slots=True)
class Claim:
    """A node and its slots, as some node sees them."""

    node: Node
    is_own: bool


def read_claims(said: str, *, asked_host: str, prefers_names: bool) -> list[Claim]:
    """What a node says of all primaries, itself included (`CLUSTER NODES`).

    Args:
        said: The answer.
        asked_host: Stands for the node's own address where it does not know it.
        prefers_names: Whether to take announced host names instead of addresses: certificates have names.
    """
    found = []
    for line in said.splitlines():
        fields = line.split(" ")
        if len(fields) < 8 or "master" not in fields[2].split(",") or "noaddr" in fields[2]:
            continue
        slots = ",".join(sorted((one for one in fields[8:] if not one.startswith("[")), key=_first_of))
        if slots:
            host, port = _address(fields[1], asked_host, prefers_names=prefers_names)
            found.append(
                Claim(Node(host, port, Ownership(fields[0], int(fields[6]), slots)), "myself" in fields[2].split(","))
            )
    return found


def merged(claims: Iterable[Claim]) -> Topology:
    """What several nodes say, as one: of two that claim a slot the one with the higher config epoch has it.

    So the cluster itself decides; a node that has not heard of a move yet, or comes back from a partition, is outvoted.
    """
    newest: dict[str, Claim] = {}
    for claim in claims:
        known = newest.get(claim.node.ownership.node)
        if known is None or _weight(claim) > _weight(known):
            newest[claim.node.ownership.node] = claim
    ordered = sorted(newest.values(), key=lambda claim: claim.node.ownership.config)
    owners = np.full(SLOTS, NO_NODE, np.int64)
    for number, claim in enumerate(ordered):
        owners[claim.node.has_slot] = number
    nodes = [_with_slots(claim.node, owners == number) for number, claim in enumerate(ordered)]
    return Topology(tuple(sorted((node for node in nodes if node.ownership.slots), key=lambda node: node.address)))


def _weight(claim: Claim) -> tuple[int, bool]:
    return claim.node.ownership.config, claim.is_own


def _with_slots(node: Node, has_slot: Flags) -> Node:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], has_slot, [False])).astype(np.int8)))
    ranges = ",".join(f"{first}-{end - 1}" for first, end in zip(edges[::2], edges[1::2], strict=True))
    return Node(node.host, node.port, Ownership(node.ownership.node, node.ownership.config, ranges))


def _first_of(slots: str) -> int:
    return int(slots.partition("-")[0])


def _address(field: str, asked_host: str, *, prefers_names: bool) -> tuple[str, int]:
    """Of `ip:port@bus-port,name,...`."""
    place, *announced = field.split(",")
    host, _, port = place.partition("@")[0].rpartition(":")
    if prefers_names and announced and announced[0]:
        host = announced[0]
    return host or asked_host, int(port)
