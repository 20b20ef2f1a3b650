"""Reading items in batches, all at once, within a deadline. Not here: which generation counts, or what an absence means (`tier`)."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from featurestore.errors import FeatureStoreError
from featurestore.online.dynamo.items import (
    NAMES,
    PARTITION_KEY,
    PROJECTION,
    SORT_KEY,
    Item,
    is_storable,
    key_item,
    message_of,
)
from featurestore.online.dynamo.requests import Requests

LARGEST_BATCH = 100
"""Keys in one BatchGetItem."""

ItemKey = tuple[str, str]
Result = TypeVar("Result")


@dataclass(slots=True)
class Found:
    """What was read: messages by partition and sort key, and why other keys were not answered for."""

    messages: dict[ItemKey, bytes] = field(default_factory=dict)
    causes: dict[ItemKey, str] = field(default_factory=dict)


def read_values(requests: Requests, keys: Iterable[ItemKey], until: float) -> Found:
    """Read items by key, each once; never raises for what the table does.

    Args:
        requests: Of the table.
        keys: Partition and sort keys, doubles allowed. Those that DynamoDB cannot hold are not there.
        until: When to give up, by the requests' clock.
    """
    distinct = [key for key in dict.fromkeys(keys) if is_storable(key[0])]
    batches = [distinct[start : start + LARGEST_BATCH] for start in range(0, len(distinct), LARGEST_BATCH)]
    under_way = [requests.readers.submit(_read_batch, requests, batch, until) for batch in batches]
    found = Found()
    for batch, one in zip(batches, under_way, strict=True):
        said, cause = result_of(requests, one, until, Found)
        found.messages |= said.messages
        found.causes |= said.causes
        found.causes |= dict.fromkeys(batch, cause) if cause else {}
    return found


def result_of(
    requests: Requests, under_way: Future[Result], until: float, nothing: Callable[[], Result]
) -> tuple[Result, str]:
    """What came of something under way; `nothing`, and the cause, if it failed or the time is up."""
    wait([under_way], max(0.0, until - requests.monotonic()))
    if not under_way.done():
        under_way.cancel()  # else those that wait for a thread would keep it from whoever still has time
        return nothing(), f"DynamoDB table {requests.address.table!r} did not answer in time"
    try:
        return under_way.result(), ""
    except FeatureStoreError as error:
        return nothing(), str(error)


def _read_batch(requests: Requests, keys: Sequence[ItemKey], until: float) -> Found:
    """One batch, what is not processed at once asked for again."""
    found, left = Found(), [key_item(*key) for key in keys]
    for attempt in count():
        try:
            items, left = _ask(requests, left, until)
        except FeatureStoreError as error:
            found.causes = dict.fromkeys(map(_key_of, left), str(error))
            return found
        found.messages |= {_key_of(item): message for item in items if (message := message_of(item)) is not None}
        if not left:
            return found
        # Part of a batch comes back when it is larger than 16 MB: then there is nothing to wait for.
        if not items and not requests.pause(attempt, until):
            break
    cause = f"DynamoDB throttles table {requests.address.table!r}: not all of a batch was read in time"
    found.causes = dict.fromkeys(map(_key_of, left), cause)
    return found


def _ask(requests: Requests, keys: list[Item], until: float) -> tuple[list[Item], list[Item]]:
    """Items that were read, and keys that were not."""
    address = requests.address
    options = {"ProjectionExpression": PROJECTION, "ExpressionAttributeNames": NAMES}
    asked = {address.table: {"Keys": keys, "ConsistentRead": address.is_consistent, **options}}
    answer = requests.ask(requests.value_reader, "batch_get_item", {"RequestItems": asked}, until)
    left = answer.get("UnprocessedKeys", {}).get(address.table, {}).get("Keys", [])
    return answer["Responses"].get(address.table, []), left


def _key_of(item: Item) -> ItemKey:
    return item[PARTITION_KEY]["S"], item[SORT_KEY]["S"]
