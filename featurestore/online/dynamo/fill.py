"""Filling a generation that no reader uses yet: batches without conditions. Not here: who may (`part`)."""

from collections.abc import Sequence

from featurestore.errors import StoreUnavailable
from featurestore.online.dynamo.failures import is_without_effect
from featurestore.online.dynamo.items import Item, Offer
from featurestore.online.dynamo.requests import FILL_PATIENCE_SECONDS, Requests

LARGEST_BATCH = 25
"""Items in one BatchWriteItem; with items of 400 KB at most, that is also below its 16 MB."""


def fill_items(requests: Requests, offers: Sequence[Offer]) -> None:
    """Store items whatever is there; of doubled keys the last.

    Raises:
        StoreUnavailable: the table does not answer, or throttles for too long. Then some of it may be written at any later time:
            a request whose answer did not come is never repeated, as nothing can call back the first.
    """
    items = list({offer.entity_id: {"PutRequest": {"Item": offer.item(offer.expires)}} for offer in offers}.values())
    write_batches(requests, items)


def write_batches(requests: Requests, changes: Sequence[Item]) -> None:
    """Send puts or deletes of distinct keys, many batches at once."""
    batches = [list(changes[start : start + LARGEST_BATCH]) for start in range(0, len(changes), LARGEST_BATCH)]
    requests.each(batches, lambda batch: _write_batch(requests, batch))


def _write_batch(requests: Requests, left: list[Item]) -> None:
    table = requests.address.table
    until, attempt = requests.monotonic() + FILL_PATIENCE_SECONDS, 0
    while True:
        asked = {"RequestItems": {table: left}}
        answer = requests.ask(requests.filler, "batch_write_item", asked, until, may_repeat=is_without_effect)
        unprocessed: list[Item] = answer.get("UnprocessedItems", {}).get(table, [])
        if not unprocessed:
            return
        attempt = attempt + 1 if len(unprocessed) == len(left) else 0
        left = unprocessed
        if not requests.pause(attempt, until):
            raise StoreUnavailable(
                f"DynamoDB throttles table {table!r}: {len(left)} items of a batch were not taken in time. Try later."
            )
