"""Removing what earlier generations of a group left in the table. Not here: when that is due (the command line, or a schedule)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from featurestore.errors import UnknownName
from featurestore.online.dynamo.fill import write_batches
from featurestore.online.dynamo.items import NAMES, SORT_KEY, Item, sort_prefix
from featurestore.online.dynamo.record import CACHE_SECONDS, RecordBook
from featurestore.online.dynamo.requests import PATIENCE_SECONDS, Requests
from featurestore.online.dynamo.url import parse_url

SETTLE_SECONDS = 10 * CACHE_SECONDS
"""How long to wait before the first removal: readers may rely on an earlier generation for a second and a request's time."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did: the generation that stays, and how many items of earlier ones were removed."""

    group: str
    generation: int
    removed: int


def sweep(
    url: str,
    group: str,
    *,
    session: Any = None,
    settle_seconds: float | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Swept:
    """Remove the items of a group's earlier generations.

    Rules: it reads the whole table, page by page, and pays for that. What is of the generation that counts, or a later one, stays. A
    writer from long ago may still leave items of its own; the next sweep takes them. It can be cut short and repeated.

    Args:
        url: Of the warm tier.
        group: Its stored name.
        session: A boto3 session; None: what the environment, or the address's profile, gives.
        settle_seconds: How long readers may still rely on the last generation; None: ten seconds.
        monotonic: Seconds of a clock that only rises.
        sleep: Waits so many seconds.

    Raises:
        UnknownName: the table has no record of this group.
        StoreUnavailable: the table does not answer. Some items may have been removed.
    """
    requests = Requests(parse_url(url), session, monotonic=monotonic, sleep=sleep)
    try:
        record = RecordBook(requests).read(group)
        if record is None:
            raise UnknownName(
                f"Table {requests.address.table!r} has no record of group {group!r}: nothing is swept. Check the name; from version 2 "
                "on it ends in _v2."
            )
        sleep(SETTLE_SECONDS if settle_seconds is None else settle_seconds)
        removed = 0
        for page in _pages(requests, group):
            earlier = [key for key in page if _is_earlier(key, group, record.generation)]
            write_batches(requests, [{"DeleteRequest": {"Key": key}} for key in earlier])
            removed += len(earlier)
        return Swept(group, record.generation, removed)
    finally:
        requests.close()


def _pages(requests: Requests, group: str) -> Iterator[list[Item]]:
    """Keys of a group's items of any generation."""
    following: dict[str, Any] = {}
    while True:
        asked = {
            "TableName": requests.address.table,
            "ProjectionExpression": "entity_id, #s",
            "ExpressionAttributeNames": NAMES,
            "FilterExpression": "begins_with(#s, :p)",
            "ExpressionAttributeValues": {":p": {"S": sort_prefix(group)}},
            **following,
        }
        until = requests.monotonic() + PATIENCE_SECONDS
        answer = requests.ask(requests.filler, "scan", asked, until)
        yield answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        following = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def _is_earlier(key: Item, group: str, generation: int) -> bool:
    number = key[SORT_KEY]["S"].removeprefix(sort_prefix(group))
    return number.isdecimal() and int(number) < generation
