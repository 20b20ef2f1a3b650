"""What a part of the hot tier records of itself, and under which keys. Not here: reading or writing them.

Keys of the store's own start with `@`, which no group name does. In a cluster each carries a hash tag that puts it on the
node which it describes.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from featurestore.clock import instant_of, microseconds
from featurestore.online.tier import Fill, MaterializationState

EPOCH_LENGTH = 32


@dataclass(frozen=True, slots=True)
class PartKeys:
    """The keys that a part keeps for itself; `tag` is '' for a single server, '{...}' for a node of a cluster."""

    tag: str = ""

    @property
    def epoch(self) -> bytes:
        return f"@epoch{self.tag}".encode()

    def generation(self, group: str) -> bytes:
        return f"@generation{self.tag}:{group}".encode()

    def state(self, group: str) -> bytes:
        return f"@state{self.tag}:{group}".encode()

    def fill(self, group: str) -> bytes:
        return f"@fill{self.tag}:{group}".encode()

    def freshness(self, group: str) -> bytes:
        return f"@freshness{self.tag}:{group}".encode()


@dataclass(frozen=True, slots=True)
class Ownership:
    """Which slots a node of a cluster has, and since when.

    Args:
        node: The node's id.
        config: Its config epoch, which rises with every slot that it takes.
        slots: Ranges in order, such as '0-5460,7000-7000'.
    """

    node: str
    config: int
    slots: str

    def is_covered_by(self, recorded: "Ownership | None") -> bool:
        """Whether what was recorded speaks for all that is owned now.

        Rules: a node whose config epoch rose took slots since, perhaps some that it had had before and that others wrote to
        meanwhile. A node that took another's place by failover has what that one recorded, in the order of its writes.
        """
        if recorded is None or (recorded.node == self.node and recorded.config != self.config):
            return False
        return not slot_mask(self.slots) & ~slot_mask(recorded.slots)


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A group's state as a part records it.

    Args:
        epoch: The group's epoch that it was recorded under.
        state: R.
        target: What a step that has begun moves to; None if none has.
        ownership: The slots that R covers; None outside a cluster.
    """

    epoch: str
    state: MaterializationState
    target: MaterializationState | None
    ownership: Ownership | None

    @property
    def reached(self) -> MaterializationState:
        """What the copy reflects at most: some of it may be written already."""
        return self.target or self.state


@lru_cache(maxsize=256)
def slot_mask(slots: str) -> int:
    """Ranges of slots as bits."""
    mask = 0
    for first, last in slot_ranges(slots):
        mask |= (1 << (last + 1)) - (1 << first)
    return mask


def slot_ranges(slots: str) -> list[tuple[int, int]]:
    """First and last slot of each range."""
    ends = [one.partition("-") for one in slots.split(",") if one]
    return [(int(first), int(last or first)) for first, _, last in ends]


def group_epoch(epoch: str) -> str:
    """What a group's records carry of the epoch that a writer carries, which also names the server's run."""
    return epoch.partition("@")[0]


def is_warm(epoch: bytes | None, record: bytes | None) -> bool:
    """Whether a state was recorded under the part's epoch; `state_record` writes that first."""
    return epoch is not None and record is not None and record.startswith(b'{"epoch": "' + epoch)


def state_record(
    epoch: str,
    state: MaterializationState,
    target: MaterializationState | None = None,
    ownership: Ownership | None = None,
) -> str:
    """The record of R, and of the step that has begun."""
    record: dict[str, Any] = {"epoch": group_epoch(epoch), **_fields(state)}
    if target is not None:
        record["next"] = _fields(target)
    if ownership is not None:
        record |= {"node": ownership.node, "config": ownership.config, "slots": ownership.slots}
    return json.dumps(record)


@lru_cache(maxsize=4096)
def read_state(record: bytes) -> StateRecord:
    """What `state_record` wrote."""
    stored = json.loads(record)
    target = _state(stored["next"]) if "next" in stored else None
    owned = Ownership(stored["node"], stored["config"], stored["slots"]) if "node" in stored else None
    return StateRecord(stored["epoch"], _state(stored), target, owned)


def fill_record(epoch: str, fill: Fill) -> str:
    """The record of a fill."""
    record = {
        "epoch": group_epoch(epoch),
        "target": _fields(fill.target),
        "slices": fill.slices,
        "done": fill.done,
        "owner": fill.owner,
    }
    return json.dumps(record)


def read_fill(record: bytes) -> tuple[str, Fill]:
    """The group's epoch that a fill belongs to, and the fill."""
    stored = json.loads(record)
    return stored["epoch"], Fill(_state(stored["target"]), stored["slices"], stored["done"], stored["owner"])


def _fields(state: MaterializationState) -> dict[str, Any]:
    return {
        "table_id": state.table_id,
        "version": state.version,
        "as_of": microseconds(state.as_of),
        "contract": state.contract,
    }


def _state(stored: dict[str, Any]) -> MaterializationState:
    return MaterializationState(stored["table_id"], stored["version"], instant_of(stored["as_of"]), stored["contract"])
