"""One writer of the warm tier as a process: it writes versions of many keys, shuffled and doubled, and prints a line per batch."""

import sys

from featurestore.online.dynamo.tier import DynamoTier
from tests.contract import dynamo
from tests.contract.online_rows import GROUP, clock, key_of, messages_of, plain, shuffled_twice

BATCH = 40


def write_shuffled(url: str, epoch: str, seed: int, key_count: int, versions: int) -> None:
    tier = DynamoTier(url, clock, session=dynamo.session())
    (part,) = tier.parts()
    pairs = shuffled_twice([(key, version) for key in range(key_count) for version in range(1, versions + 1)], seed)
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        keys, messages = [key_of(key) for key, _ in batch], messages_of([plain(version) for _, version in batch])
        result = part.write(GROUP, keys, messages, epoch=epoch, ttl=None)
        print(result.written, result.left, len(result.refused), flush=True)
    tier.close()


if __name__ == "__main__":
    write_shuffled(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
