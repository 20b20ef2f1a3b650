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

from botocore.config import Config

from featurestore.errors import FenceRefused, StoreUnavailable
from featurestore.online.dynamo.tier import DynamoTier
from featurestore.online.redis.tier import RedisOnlineStore
from featurestore.online.tier import TierPart
from tests.contract import dynamo
from tests.contract.online_rows import GROUP, Version, clock, key_of, messages_of, shuffled_twice
from tests.scale import cases

VERSIONS = 20
"""Of each key."""
BATCH = cases(50, 20)
"""Rows in one write, to either tier. Larger ones spend less on the two looks at the group's record that a write to the warm tier takes."""
QUICK = Config(user_agent="two-tier-writer", parameter_validation=False)
"""botocore otherwise spends a fifth of a put's processor time on describing itself and on checking the shape of what it is given."""
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


@dataclass
class Delivery:
    """A list of rows on its way to one tier."""

    tier: str
    part: TierPart
    rows: list[tuple[int, Row]]
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
        batch = self.rows[self.position : self.position + BATCH]
        messages = messages_of(
            [version for _, (version, _) in batch], deleted=[is_deleted for _, (_, is_deleted) in batch]
        )
        result = self.part.write(GROUP, [key_of(key) for key, _ in batch], messages, epoch=self.epoch, ttl=None)
        self.position += len(batch)
        print("acknowledged", self.tier, self.epoch, self.position, len(batch), result.left, flush=True)


def wait_for_a_line_after(*said: str) -> None:
    print(*said, flush=True)
    sys.stdin.readline()


def main(
    hot_url: str, warm_url: str, seed: str, number: str, key_count: str, warm_key_count: str, *places: str
) -> None:
    """The warm tier gets the first `warm_key_count` keys alone. `places`: epoch and position, in the hot tier and in the warm one."""
    rows = [(key, row) for key in range(int(key_count)) for row in rows_of(int(seed), key)]
    hot, warm = RedisOnlineStore(hot_url, clock), DynamoTier(warm_url, clock, session=dynamo.new_session(QUICK))
    warm_rows = [(key, row) for key, row in rows if key < int(warm_key_count)]
    orders = [f"{seed} {number} {tier}" for tier in ("warm", "hot")]
    deliveries = [
        Delivery("warm", warm.parts()[0], shuffled_twice(warm_rows, orders[0]), places[2], int(places[3])),
        Delivery("hot", hot.parts()[0], shuffled_twice(rows, orders[1]), places[0], int(places[1])),
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
