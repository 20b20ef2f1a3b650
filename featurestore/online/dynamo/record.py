"""What the table records of each group: the generation that counts, R, the fill under way, and what was published of it.

One item a group, which no entity's key can be: partition key `@state:<group>`, sort key `@state`. It is changed only by who saw
it as it is (`revision`), so that a request which comes late, or twice, changes nothing. Readers keep what they read for at most
a second.

What was published of a group's freshness is an item of its own, `@freshness:<group>`, since it is of no generation and others write it:
a look puts it where no newer one is. Readers get it in the request that reads the record again. Not here: what may follow what (`part`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from featurestore.clock import Clock, microseconds, system_clock
from featurestore.errors import StoreUnavailable
from featurestore.online.dynamo.failures import CONDITION_FAILED
from featurestore.online.dynamo.items import EXPIRY, PARTITION_KEY, SORT_KEY, Item, key_item
from featurestore.online.dynamo.requests import PATIENCE_SECONDS, Requests
from featurestore.online.published import KEPT, Published, read_published
from featurestore.online.records import fill_record, read_fill, read_state, state_record
from featurestore.online.tier import Fill, MaterializationState

CACHE_SECONDS = 1.0
_SORT_KEY = "@state"
_PREFIX = "@state:"
_FRESHNESS_SORT_KEY = "@freshness"
_FRESHNESS_PREFIX = "@freshness:"
_RECORDS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """What is recorded of a group.

    Args:
        generation: Which items count; its text is the group's epoch.
        revision: How often the record was changed since.
        state: R; None: the group is cold.
        fill: The fill under way.
    """

    generation: int
    revision: int = 0
    state: MaterializationState | None = None
    fill: Fill | None = None

    @property
    def epoch(self) -> str:
        return str(self.generation)

    def item(self, group: str) -> Item:
        found = {**record_key(group), "generation": {"N": self.epoch}, "revision": {"N": str(self.revision)}}
        if self.state is not None:
            found["state"] = {"S": state_record(self.epoch, self.state)}
        if self.fill is not None:
            found["fill"] = {"S": fill_record(self.epoch, self.fill)}
        return found

    @classmethod
    def of(cls, item: Mapping[str, Mapping[str, Any]]) -> "GroupRecord":
        state = read_state(item["state"]["S"].encode()).state if "state" in item else None
        fill = read_fill(item["fill"]["S"].encode())[1] if "fill" in item else None
        return cls(int(item["generation"]["N"]), int(item["revision"]["N"]), state, fill)


def record_key(group: str) -> Item:
    return key_item(f"{_PREFIX}{group}", _SORT_KEY)


def freshness_key(group: str) -> Item:
    return key_item(f"{_FRESHNESS_PREFIX}{group}", _FRESHNESS_SORT_KEY)


class RecordBook:
    """The records of a table's groups.

    Args:
        requests: Of the table.
        cache_seconds: How old a record may be that readers rely on.
        server_clock: Which the server's expiry follows.
    """

    def __init__(
        self, requests: Requests, cache_seconds: float = CACHE_SECONDS, server_clock: Clock = system_clock
    ) -> None:
        self._requests = requests
        self._server_clock = server_clock
        self._cache_seconds = cache_seconds
        self._remembered: dict[str, tuple[float, GroupRecord | None]] = {}
        self._published: dict[str, Published | None] = {}

    def published(self, group: str) -> Published | None:
        """What the last refresh for readers found published of a group."""
        return self._published.get(group)

    def publish(self, group: str, found: Published) -> None:
        """Keep what a look found of a group; what is there of a newer look, or of the same, stays.

        Raises:
            StoreUnavailable: the table does not answer.
        """
        looked_at = {"N": str(microseconds(found.looked_at))}
        expires = microseconds(self._server_clock() + KEPT) // 1_000_000
        item = {
            **freshness_key(group),
            "looked_at": looked_at,
            "published": {"S": found.record()},
            EXPIRY: {"N": str(expires)},
        }
        asked = {
            "TableName": self._requests.address.table,
            "Item": item,
            "ConditionExpression": "attribute_not_exists(looked_at) OR looked_at < :l",
            "ExpressionAttributeValues": {":l": looked_at},
        }
        self._requests.ask(self._requests.writer, "put_item", asked, self._patience(), answers=[CONDITION_FAILED])

    def recall(self, groups: Sequence[str]) -> tuple[dict[str, GroupRecord | None], list[str]]:
        """What is remembered of groups, however old; and the groups whose records must be read again."""
        found = {group: self._remembered[group][1] for group in groups if group in self._remembered}
        now = self._requests.monotonic()
        fresh = {group for group in found if now - self._remembered[group][0] < self._cache_seconds}
        return found, [group for group in groups if group not in fresh]

    def refresh(
        self, groups: Sequence[str], until: float, *, with_freshness: bool = False
    ) -> dict[str, GroupRecord | None]:
        """Read records for readers, and remember them as of when that began; `with_freshness` what was published as well."""
        began = self._requests.monotonic()
        found: dict[str, GroupRecord | None] = {}
        if with_freshness:
            self._published |= dict.fromkeys(groups)  # what is not found is not there
        step = _RECORDS_AT_ONCE // 2 if with_freshness else _RECORDS_AT_ONCE
        for start in range(0, len(groups), step):
            found |= self._read_some(groups[start : start + step], until, with_freshness)
        for group, record in found.items():
            self._remembered[group] = (began, record)
        return found

    def read(self, group: str) -> GroupRecord | None:
        """Read one record for a writer.

        Raises:
            StoreUnavailable: the table does not answer.
        """
        return self.refresh([group], self._patience())[group]

    def change(self, group: str, judge: Callable[[GroupRecord | None], GroupRecord]) -> GroupRecord:
        """Replace a record by what `judge` makes of it, once nobody else changed it in between.

        Args:
            judge: Called with what is recorded, perhaps several times; it raises if nothing may follow that, and returns what it
                was given if it has happened already.
        """
        until = self._patience()
        for attempt in count():
            seen = self.read(group)
            wanted = judge(seen)
            if wanted == seen:
                return wanted
            wanted = replace(wanted, revision=seen.revision + 1 if seen else 1)
            if self._put(group, wanted, seen, until):
                self._remembered.pop(group, None)
                return wanted
            if not self._requests.pause(attempt, until):
                break
        raise StoreUnavailable(
            f"Others keep changing the record of group {group!r} in table {self._requests.address.table!r}. Try again."
        )

    def _put(self, group: str, wanted: GroupRecord, seen: GroupRecord | None, until: float) -> bool:
        """Whether nobody else was faster."""
        condition: dict[str, Any] = {
            "ConditionExpression": "attribute_not_exists(#g)",
            "ExpressionAttributeNames": {"#g": "generation"},
        }
        if seen is not None:
            condition = {
                "ConditionExpression": "#g = :g AND #r = :r",
                "ExpressionAttributeNames": {"#g": "generation", "#r": "revision"},
                "ExpressionAttributeValues": {":g": {"N": seen.epoch}, ":r": {"N": str(seen.revision)}},
            }
        asked = {"TableName": self._requests.address.table, "Item": wanted.item(group), **condition}
        answer = self._requests.ask(self._requests.writer, "put_item", asked, until, answers=[CONDITION_FAILED])
        return "Error" not in answer

    def _read_some(self, groups: Sequence[str], until: float, with_freshness: bool) -> dict[str, GroupRecord | None]:
        table = self._requests.address.table
        found: dict[str, GroupRecord | None] = dict.fromkeys(groups)
        keys = [record_key(group) for group in groups]
        keys += [freshness_key(group) for group in groups] if with_freshness else []
        for attempt in count():
            items, keys = self._ask(keys, until)
            for item in items:
                if item[SORT_KEY]["S"] == _FRESHNESS_SORT_KEY:
                    self._take_published(item)
                else:
                    found[item[PARTITION_KEY]["S"].removeprefix(_PREFIX)] = GroupRecord.of(item)
            if not keys:
                break
            if not self._requests.pause(attempt, until):
                raise StoreUnavailable(
                    f"DynamoDB throttles table {table!r}: {len(keys)} records were not read in time. Try later."
                )
        return found

    def _take_published(self, item: Item) -> None:
        group = item[PARTITION_KEY]["S"].removeprefix(_FRESHNESS_PREFIX)
        self._published[group] = read_published(item.get("published", {}).get("S"))

    def _ask(self, keys: list[Item], until: float) -> tuple[list[Item], list[Item]]:
        """Items that were read, and keys that were not."""
        table = self._requests.address.table
        asked = {table: {"Keys": keys, "ConsistentRead": True}}
        answer = self._requests.ask(self._requests.reader, "batch_get_item", {"RequestItems": asked}, until)
        return answer["Responses"].get(table, []), answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])

    def _patience(self) -> float:
        return self._requests.monotonic() + PATIENCE_SECONDS
