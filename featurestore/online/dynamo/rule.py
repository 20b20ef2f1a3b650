"""The write rule in DynamoDB's terms: one conditional request at a time on one item. Not here: sending, or retrying.

A message is offered by a put under the whole rule::

    attribute_not_exists(v) OR (f <= :f AND (v < :v OR v IN (:removed...)) AND (f = :zero OR x <= :x))

If it is not taken, the answer carries the item as it is, which tells what to do: nothing, as the item's fence is higher
(refused) or the value stays and nothing of it changes (left); lift the fence, or prolong the life, of a value that stays; or
put after all, such as with the longer life that the item has. The second request holds only while the item is exactly what was
judged. That is narrower than the complement of the put's condition, so nothing can come in between: an item that has
changed meanwhile fails it, and is judged again. (A lift that looks at the fence alone keeps whatever came in between.)

The last clause of the put: a key that a rewind touched may outlive its own expiry, to keep out the versions that were removed,
and is never shortened.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from featurestore.online.dynamo.items import EXPIRY, Item, Offer

LARGEST_IN = 100
"""Operands that DynamoDB takes in one IN; a version removed beyond them is found by judging the item."""


class Outcome(Enum):
    """What became of an offer."""

    WRITTEN = "written"
    LEFT = "left"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Stored:
    """What an item says of itself."""

    version: bytes
    fence: int
    expires: int | None

    @classmethod
    def of(cls, item: Mapping[str, Mapping[str, Any]]) -> "Stored | None":
        """Of the item that a refused request came back with; None if there was none, or none of ours."""
        if "v" not in item or "f" not in item:
            return None
        expires = int(item[EXPIRY]["N"]) if EXPIRY in item else None
        return cls(bytes(item["v"]["B"]), int(item["f"]["N"]), expires)


@dataclass(frozen=True, slots=True)
class Conditional:
    """A request, and what has become of the offer once it is taken.

    Args:
        operation: boto3's method.
        parameters: Its arguments, without the table.
        outcome: If the condition holds.
    """

    operation: str
    parameters: Mapping[str, Any]
    outcome: Outcome


def first_request(offer: Offer) -> Conditional:
    """The put under the whole rule."""
    values: Item = {":f": {"N": str(offer.fence)}, ":v": {"B": offer.version}}
    removed = sorted(offer.removed, reverse=True)[:LARGEST_IN]
    names = [f":r{i}" for i in range(len(removed))]
    values |= {name: {"B": version} for name, version in zip(names, removed, strict=True)}
    gives_way = f"(v < :v OR v IN ({', '.join(names)}))" if removed else "v < :v"
    rule = f"f <= :f AND {gives_way}"
    if offer.expires is not None:
        rule += f" AND (f = :zero OR {EXPIRY} <= :x)"
        values |= {":zero": {"N": "0"}, ":x": {"N": str(offer.expires)}}
    return _put(offer, offer.expires, f"attribute_not_exists(v) OR ({rule})", values)


def next_request(offer: Offer, stored: Stored | None) -> Conditional | Outcome:
    """What follows from the item that was found when a request of this offer was not taken."""
    if stored is None:
        return first_request(offer)
    if stored.fence > offer.fence:
        return Outcome.REFUSED
    condition, values = _unchanged(stored)
    if stored.version < offer.version or stored.version in offer.removed:
        expires = offer.expires if stored.fence == 0 else _later(stored.expires, offer.expires)
        return _put(offer, expires, condition, values)
    until = None if offer.removed_until is None else _later(stored.expires, offer.removed_until)
    is_prolonged = until is not None and until != stored.expires
    if stored.fence == offer.fence and not is_prolonged:
        return Outcome.LEFT
    change = "SET f = :f"
    values[":f"] = {"N": str(offer.fence)}
    if is_prolonged:
        change += f", {EXPIRY} = :x"
        values[":x"] = {"N": str(until)}
    lift = {"Key": offer.key, "UpdateExpression": change, **_conditions(condition, values)}
    return Conditional("update_item", lift, Outcome.LEFT)


def _put(offer: Offer, expires: int | None, condition: str, values: Item) -> Conditional:
    return Conditional("put_item", {"Item": offer.item(expires), **_conditions(condition, values)}, Outcome.WRITTEN)


def _conditions(condition: str, values: Item) -> dict[str, Any]:
    return {
        "ConditionExpression": condition,
        "ExpressionAttributeValues": values,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _unchanged(stored: Stored) -> tuple[str, Item]:
    """The condition that an item is still what was judged."""
    values: Item = {":sv": {"B": stored.version}, ":sf": {"N": str(stored.fence)}}
    if stored.expires is None:
        return f"v = :sv AND f = :sf AND attribute_not_exists({EXPIRY})", values
    values[":sx"] = {"N": str(stored.expires)}
    return f"v = :sv AND f = :sf AND {EXPIRY} = :sx", values


def _later(one: int | None, other: int | None) -> int | None:
    """The later of two expiries; None is never."""
    return None if one is None or other is None else max(one, other)
