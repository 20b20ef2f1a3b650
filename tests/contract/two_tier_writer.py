"""One writer of both tiers as a process: every version of many keys, each twice, in an order of its own.

Batches for the two tiers take turns. The writer prints a line for each batch that was acknowledged, and begins where one before it
had got to. Refused for its epoch, it asks for the epoch again; where that is another, the tier was emptied, and its list is
written from the start, as a replay of the source does.

| it prints | then |
|---|---|
| `ready` | waits for a line |
| `acknowledged TIER EPOCH POSITION KEYS LEFT` | goes on |
| `refused TIER` | asks for the epoch |
| `unavailable TIER` | waits for a line, asks for the epoch |
| `done` | ends |
"""

import random
import sys
from dataclasses import dataclass

from featurestore.errors import FenceRefused, StoreUnavailable
from featurestore.online.dynamo.tier import DynamoTier
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.tier import TierPart
from tests.contract import dynamo
from tests.contract.online_rows import GROUP, Version, clock, key_of, messages_of, shuffled_twice

VERSIONS = 20
"""Of each key."""
WARM_VERSIONS = 5
"""So many of them, the newest included, are written to the warm tier."""
WARM_BATCH = 20
HOT_BATCH = WARM_BATCH * VERSIONS // WARM_VERSIONS
"""So that both lists are as many batches long."""
Row = tuple[Version, bool]
"""A version, and whether it is a tombstone."""


def rows_of(seed: int, key: int) -> list[Row]:
    """A key's versions, in no order; few event and knowledge times, so that the later times of a version often decide."""
    chance = random.Random(f"{seed}:{key}")
    rows = []
    for created_at in chance.sample(range(1000), VERSIONS):
        event_time = chance.randint(0, 5)
        rows.append(((event_time, event_time + chance.randint(0, 2), created_at), chance.random() < 0.2))
    return rows


def warm_rows_of(rows: list[Row]) -> list[Row]:
    """Those of a key's rows that are written to the warm tier: the newest, and some others."""
    newest = max(rows)
    return [newest, *[row for row in rows if row is not newest][: WARM_VERSIONS - 1]]


@dataclass
class Delivery:
    """A list of rows on its way to one tier."""

    tier: str
    part: TierPart
    rows: list[tuple[int, Row]]
    batch: int
    epoch: str
    position: int
    is_epoch_known: bool = False

    @property
    def is_done(self) -> bool:
        return self.is_epoch_known and self.position >= len(self.rows)

    def take_turn(self) -> None:
        """Write the next batch, or find out first where to go on."""
        try:
            self.write() if self.is_epoch_known else self.ask_epoch()
        except FenceRefused:
            self.is_epoch_known = False
            print("refused", self.tier, flush=True)
        except StoreUnavailable:
            self.is_epoch_known = False
            wait_for_a_line_after("unavailable", self.tier)

    def ask_epoch(self) -> None:
        epoch = self.part.ensure_epoch(GROUP)
        self.position = self.position if epoch == self.epoch else 0
        self.epoch, self.is_epoch_known = epoch, True

    def write(self) -> None:
        batch = self.rows[self.position : self.position + self.batch]
        messages = messages_of(
            [version for _, (version, _) in batch], deleted=[is_deleted for _, (_, is_deleted) in batch]
        )
        result = self.part.write(GROUP, [key_of(key) for key, _ in batch], messages, epoch=self.epoch, ttl=None)
        self.position += len(batch)
        print("acknowledged", self.tier, self.epoch, self.position, len(batch), result.left, flush=True)


def wait_for_a_line_after(*said: str) -> None:
    print(*said, flush=True)
    sys.stdin.readline()


def main(hot_url: str, warm_url: str, seed: str, number: str, key_count: str, *places: str) -> None:
    """`places`: epoch and position, in the hot tier and in the warm one."""
    rows = {key: rows_of(int(seed), key) for key in range(int(key_count))}
    hot_rows = [(key, row) for key, found in rows.items() for row in found]
    warm_rows = [(key, row) for key, found in rows.items() for row in warm_rows_of(found)]
    hot, warm = RedisOnlineStore(hot_url, clock), DynamoTier(warm_url, clock, session=dynamo.session())
    order = int(seed) + int(number)
    deliveries = [
        Delivery("warm", warm.parts()[0], shuffled_twice(warm_rows, order), WARM_BATCH, places[2], int(places[3])),
        Delivery("hot", hot.parts()[0], shuffled_twice(hot_rows, order), HOT_BATCH, places[0], int(places[1])),
    ]
    wait_for_a_line_after("ready")
    while waiting := [delivery for delivery in deliveries if not delivery.is_done]:
        for delivery in waiting:
            delivery.take_turn()
    print("done", flush=True)
    hot.close()
    warm.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
