"""A message as an item of the table.

| attribute | type | what |
|---|---|---|
| `entity_id` | S, partition key | the entity's id as `keys` spells it; `%`, which no id is, for an empty one |
| `feature_group#version` | S, sort key | `<group>#<version>.<generation>`: each rebuild of a group writes beside the last one |
| `v` | B | the version: event, knowledge and creation time, big-endian, sign bit flipped, so that bytes compare as times do |
| `f` | N | the fence: it, and not the one inside the message, is what counts |
| `m` | B | the message |
| `x` | N | when the server may drop it, seconds since 1970; absent: never |

Not here: the write rule (`rule`), sending (`requests`), what is recorded of a group (`record`).
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.errors import InvalidInput
from featurestore.online.batch import WriteBatch, read_headers
from featurestore.online.message.columns import VERSION
from featurestore.online.message.layout import FENCE_SLICE, Rows

Item = dict[str, dict[str, Any]]

PARTITION_KEY = "entity_id"
SORT_KEY = "feature_group#version"
EXPIRY = "x"
LARGEST_ENTITY_ID_BYTES = 2048
LARGEST_ITEM_BYTES = 400 * 1024
NAMES = {"#s": SORT_KEY}
PROJECTION = "entity_id, #s, m, f"
_EMPTY_ID = "%"
_VERSIONED = re.compile(r"(.+)_v([0-9]+)")
_SIGN = 1 << 63
_TAGGED = struct.Struct("<2xq2xq2xq")
_SORTABLE = struct.Struct(">QQQ")
ITEM_OVERHEAD_BYTES = 200
"""Attribute names, fence, expiry and version, generously; a sort key has at most 100 bytes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a group's items are: one generation of it.

    >>> Place("carrier_delay_daily_v2", 1763).sort_key
    'carrier_delay_daily#2.1763'
    """

    group: str
    generation: int

    @property
    def sort_key(self) -> str:
        return f"{sort_prefix(self.group)}{self.generation}"

    def item_key(self, key: bytes) -> tuple[str, str]:
        """Partition and sort key of an online key."""
        return entity_id_of(self.group, key), self.sort_key


@dataclass(frozen=True, slots=True)
class Offer:
    """A message on its way to its item.

    Args:
        position: Of its key in the write.
        entity_id: Partition key.
        sort_key: Sort key.
        version: Its version, sortable.
        fence: The writer's.
        message: As `encode` made it.
        expires: Seconds since 1970; None for never.
        removed: Versions that the key lost.
        removed_until: When the longest-lived of them expires, seconds since 1970; None if none does.
    """

    position: int
    entity_id: str
    sort_key: str
    version: bytes
    fence: int
    message: bytes
    expires: int | None
    removed: frozenset[bytes] = frozenset()
    removed_until: int | None = None

    @property
    def key(self) -> Item:
        return key_item(self.entity_id, self.sort_key)

    def item(self, expires: int | None) -> Item:
        """What is stored."""
        values: Item = {"v": {"B": self.version}, "f": {"N": str(self.fence)}, "m": {"B": self.message}}
        return {**self.key, **values, **({} if expires is None else {EXPIRY: {"N": str(expires)}})}


def sort_prefix(group: str) -> str:
    """What the sort keys of all generations of a group begin with; a stored name carries its version from 2 on."""
    versioned = _VERSIONED.fullmatch(group)
    name, version = versioned.groups() if versioned else (group, "1")
    return f"{name}#{version}."


def key_item(entity_id: str, sort_key: str) -> Item:
    return {PARTITION_KEY: {"S": entity_id}, SORT_KEY: {"S": sort_key}}


def entity_id_of(group: str, key: bytes) -> str:
    """The id inside an online key.

    Raises:
        InvalidInput: the key is not of this group.
    """
    prefix = f"{group}:".encode()
    if not key.startswith(prefix):
        raise InvalidInput(f"Key {key!r} is not of group {group!r}. Build keys with `online_keys`.")
    return key[len(prefix) :].decode() or _EMPTY_ID


def is_storable(entity_id: str) -> bool:
    """Whether DynamoDB takes it as a partition key."""
    return len(entity_id) <= LARGEST_ENTITY_ID_BYTES // 4 or len(entity_id.encode()) <= LARGEST_ENTITY_ID_BYTES


def offers_of(place: Place, batch: WriteBatch, now_us: int) -> list[Offer]:
    """The items of a prepared batch.

    Args:
        place: Under which generation.
        batch: Checked, its expiries in milliseconds from now.
        now_us: Now by the clock that the server's expiry follows, microseconds since 1970.

    Raises:
        InvalidInput: a key is of another group, or key or message is larger than DynamoDB stores.
    """
    headers = read_headers(batch.messages)
    versions, fences = _sortable(headers), headers["fence"].tolist()
    expiries = [_instant(now_us, left) for left in np.frombuffer(batch.expiries, "<i8").tolist()]
    sort_key = place.sort_key
    offers = []
    for i, (key, message) in enumerate(zip(batch.keys, batch.messages, strict=True)):
        entity_id = entity_id_of(place.group, key)
        _check_size(place.group, entity_id, message)
        removed, until = batch.removed.get(i, (b"", 0))
        offers.append(
            Offer(
                i,
                entity_id,
                sort_key,
                versions[24 * i : 24 * i + 24],
                fences[i],
                message,
                expiries[i],
                frozenset(_SORTABLE.pack(*(t + _SIGN for t in version)) for version in _TAGGED.iter_unpack(removed)),
                _instant(now_us, until),
            )
        )
    return offers


def message_of(item: Mapping[str, Mapping[str, Any]]) -> bytes | None:
    """The message that an item holds, under the item's fence; None if it is no item of ours.

    A fence is lifted without writing the message again, so that inside it is the one it was written under.
    """
    if "m" not in item or "f" not in item:
        return None
    message, fence = bytes(item["m"]["B"]), int(item["f"]["N"]).to_bytes(8, "little", signed=True)
    if message[FENCE_SLICE] == fence:
        return message
    return message[: FENCE_SLICE.start] + fence + message[FENCE_SLICE.stop :]


def _sortable(headers: Rows) -> bytes:
    """All versions, 24 bytes each."""
    times = np.stack([headers[name].astype(np.int64).view(np.uint64) for name in VERSION], axis=1)
    return bytes((times ^ np.uint64(_SIGN)).astype(">u8").tobytes())


def _instant(now_us: int, milliseconds: int) -> int | None:
    """Seconds since 1970, rounded up; 0 milliseconds stand for never."""
    return -(-(now_us + 1000 * milliseconds) // 1_000_000) if milliseconds else None


def _check_size(group: str, entity_id: str, message: bytes) -> None:
    if not is_storable(entity_id):
        raise InvalidInput(
            f"An entity id of group {group!r} takes {len(entity_id.encode())} bytes: {entity_id[:60]!r}... DynamoDB stores "
            f"{LARGEST_ENTITY_ID_BYTES}. Use a shorter key, or declare Online(tiers=('hot',))."
        )
    if len(message) + len(entity_id.encode()) + ITEM_OVERHEAD_BYTES > LARGEST_ITEM_BYTES:
        raise InvalidInput(
            f"The message of entity {entity_id[:60]!r} of group {group!r} takes {len(message)} bytes; a DynamoDB item holds "
            f"{LARGEST_ITEM_BYTES}. Shorten its lists or strings, or declare Online(tiers=('hot',))."
        )


def in_lanes(offers: Sequence[Offer]) -> list[list[Offer]]:
    """Offers by entity: those of one key go one after the other, in their order."""
    lanes: dict[str, list[Offer]] = {}
    for offer in offers:
        lanes.setdefault(offer.entity_id, []).append(offer)
    return list(lanes.values())
