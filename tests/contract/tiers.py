"""The tiers that the contract suite runs over: how to open each for a test, and how to do to it what servers do by themselves.

Another tier joins by a factory in `TIERS`. Those that only the exam runs are named in `EXAM_TIERS`.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import numpy as np
import polars as pl
import pytest
import redis

from featurestore.clock import Clock
from featurestore.online.memory import MemoryTier
from featurestore.online.tier import Mark, MaterializationState, Replies, Tier, TierPart, WriteResult
from tests.contract import dynamo
from tests.contract.valkey_cluster import EmbeddedCluster
from tests.scale import require_programs


class TierUnderTest(Protocol):
    """One tier, fresh and empty, and its world."""

    tier: Tier

    @property
    def takes_repairs(self) -> bool:
        """Whether values found elsewhere are put back into it: so of the hot tier, not of the warm one."""
        ...

    def empty(self) -> None:
        """Lose everything, as a server does that restarts without its data."""
        ...

    def evict(self, group: str, keys: Sequence[bytes]) -> None:
        """Lose some keys and nothing else."""
        ...

    def remaining(self, group: str, key: bytes) -> timedelta | None:
        """How long a stored key still lives by the tier's own expiry; None for ever."""
        ...

    def settle(self) -> None:
        """Let reads see what was just recorded, where they keep the state for a moment."""
        ...


Factory = Callable[[pytest.FixtureRequest, Clock], AbstractContextManager[TierUnderTest]]


class MemoryUnderTest:
    """A memory tier of one part or of several."""

    takes_repairs = True

    def __init__(self, clock: Clock, parts: int) -> None:
        self.memory = MemoryTier("hot", clock, parts=parts)
        self.tier: Tier = self.memory

    def empty(self) -> None:
        for part in self.memory.parts():
            part.lose_everything()

    def evict(self, group: str, keys: Sequence[bytes]) -> None:
        for part in self.memory.parts():
            part.evict(keys)

    def remaining(self, group: str, key: bytes) -> timedelta | None:
        (owner,) = [part for part in self.memory.parts() if (owned := part.owns([key])) is None or owned[0]]
        return owner.remaining(group, key)

    def settle(self) -> None:
        """Nothing is kept."""


@contextmanager
def memory(request: pytest.FixtureRequest, clock: Clock) -> Iterator[TierUnderTest]:
    yield MemoryUnderTest(clock, parts=1)


@contextmanager
def memory_in_three_parts(request: pytest.FixtureRequest, clock: Clock) -> Iterator[TierUnderTest]:
    yield MemoryUnderTest(clock, parts=3)


class ServerUnderTest:
    """One Redis or Valkey server."""

    takes_repairs = True

    def __init__(self, tier: Tier, client: redis.Redis) -> None:
        self.tier = tier
        self.client = client

    def empty(self) -> None:
        self.client.flushall()

    def evict(self, group: str, keys: Sequence[bytes]) -> None:
        self.client.delete(*keys)

    def remaining(self, group: str, key: bytes) -> timedelta | None:
        left = int(self.client.execute_command("PTTL", key))  # type: ignore[no-untyped-call]
        return None if left == -1 else timedelta(milliseconds=left)

    def settle(self) -> None:
        """The state is read with the keys."""


@contextmanager
def valkey(request: pytest.FixtureRequest, clock: Clock) -> Iterator[TierUnderTest]:
    from featurestore.online.redis.tier import RedisOnlineStore

    url = request.getfixturevalue("valkey_url")
    with redis.Redis.from_url(url) as client:
        client.flushall()
        tier = RedisOnlineStore(redis.Redis.from_url(url), clock, read_batch_keys=7, write_batch_keys=3)
        yield ServerUnderTest(tier, client)
        tier.close()


class TableUnderTest:
    """One DynamoDB table."""

    takes_repairs = False

    def __init__(self, endpoint: str, clock: Clock) -> None:
        from featurestore.online.dynamo.provision import provision
        from featurestore.online.dynamo.tier import DynamoTier

        self.endpoint = endpoint
        self.table = f"tier-{uuid4().hex}"
        self._later = 0.0
        url = dynamo.url_of(endpoint, self.table, max_connections=8, timeout_seconds=60)
        self._provision = partial(provision, url, session=dynamo.session(), sleep=time.sleep)
        self._provision()
        self.tier: Tier = DynamoTier(url, clock, session=dynamo.session(), monotonic=self.monotonic)

    def monotonic(self) -> float:
        return time.monotonic() + self._later

    def empty(self) -> None:
        dynamo.client(self.endpoint).delete_table(TableName=self.table)
        self._provision()

    def evict(self, group: str, keys: Sequence[bytes]) -> None:
        raise NotImplementedError("a table loses no single keys")

    def remaining(self, group: str, key: bytes) -> timedelta | None:
        from featurestore.online.dynamo.items import Place, key_item

        place = Place(group, int(self.tier.parts()[0].ensure_epoch(group)))
        asked = key_item(*place.item_key(key))
        item = dynamo.client(self.endpoint).get_item(TableName=self.table, Key=asked, ConsistentRead=True)["Item"]
        return timedelta(seconds=int(item["x"]["N"]) - time.time()) if "x" in item else None

    def settle(self) -> None:
        """Readers keep a group's record for a second."""
        self._later += 1.0


@contextmanager
def table_on_moto(request: pytest.FixtureRequest, clock: Clock) -> Iterator[TierUnderTest]:
    made = TableUnderTest(request.getfixturevalue("moto_endpoint"), clock)
    yield made
    made.tier.close()


@contextmanager
def table_on_dynamodb_local(request: pytest.FixtureRequest, clock: Clock) -> Iterator[TierUnderTest]:
    made = TableUnderTest(request.getfixturevalue("dynamodb_local_endpoint"), clock)
    yield made
    made.tier.close()


def redis_seven() -> Path:
    """The program of this machine's own Redis, which is older than the wheel's Valkey."""
    require_programs("redis-server", "redis-server", remedy="on Debian: apt-get install redis-server")
    return Path(shutil.which("redis-server") or "")


@contextmanager
def redis_seven_server(request: pytest.FixtureRequest, clock: Clock) -> Iterator[TierUnderTest]:
    from featurestore.online.redis.tier import RedisOnlineStore

    url = request.getfixturevalue("redis_seven_url")
    with redis.Redis.from_url(url) as client:
        client.flushall()
        tier = RedisOnlineStore(url, clock, read_batch_keys=7, write_batch_keys=3)
        yield ServerUnderTest(tier, client)
        tier.close()


class ClusterUnderTest:
    """A cluster of three primaries."""

    takes_repairs = True

    def __init__(self, tier: Tier, cluster: EmbeddedCluster) -> None:
        self.tier = tier
        self.clients = [cluster.client(number) for number in range(len(cluster.nodes))]

    def empty(self) -> None:
        for client in self.clients:
            client.flushall()

    def evict(self, group: str, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._owner(key).delete(key)

    def remaining(self, group: str, key: bytes) -> timedelta | None:
        left = int(self._owner(key).execute_command("PTTL", key))  # type: ignore[no-untyped-call]
        return None if left == -1 else timedelta(milliseconds=left)

    def settle(self) -> None:
        """The state is read with the keys."""

    def _owner(self, key: bytes) -> redis.Redis:
        owners = [part.owns([key]) for part in self.tier.parts()]
        place = next(number for number, owned in enumerate(owners) if owned is not None and owned[0])
        return next(client for client in self.clients if self.tier.parts()[place].name.endswith(f":{_port(client)}"))


def _port(client: redis.Redis) -> int:
    return int(client.connection_pool.connection_kwargs["port"])


@contextmanager
def valkey_cluster(request: pytest.FixtureRequest, clock: Clock) -> Iterator[TierUnderTest]:
    from featurestore.online.redis.cluster import RedisClusterTier
    from featurestore.online.redis.connection import seeds_of
    from featurestore.online.redis.part import WriteLimits

    cluster = request.getfixturevalue("valkey_cluster")
    tier = RedisClusterTier(seeds_of(cluster.url), clock, limits=WriteLimits(batch_keys=3), read_batch_keys=7)
    under = ClusterUnderTest(tier, cluster)
    under.empty()
    yield under
    tier.close()


TIERS: Mapping[str, Factory] = {
    "memory": memory,
    "memory in three parts": memory_in_three_parts,
    "Valkey": valkey,
    "Valkey cluster": valkey_cluster,
    "Redis 7": redis_seven_server,
    "DynamoDB on moto": table_on_moto,
    "DynamoDB Local": table_on_dynamodb_local,
}
EXAM_TIERS: frozenset[str] = frozenset({"DynamoDB Local"})
"""Names of the tiers whose servers take too long to start for `make test`."""
SLOW_TIERS: frozenset[str] = frozenset({"Valkey cluster", "DynamoDB on moto", "DynamoDB Local"})
"""Names of the tiers of which a request takes milliseconds: they see fewer random histories."""


class Copy:
    """One group's copy in a tier, as materialization handles it: every part takes the keys that it owns.

    Args:
        tier: The tier.
        group: The group's name.
    """

    def __init__(self, tier: Tier, group: str) -> None:
        self.tier = tier
        self.group = group

    @property
    def parts(self) -> Sequence[TierPart]:
        return self.tier.parts()

    def epochs(self) -> dict[str, str]:
        """The epoch that each part has now, by its name."""
        return {part.name: part.ensure_epoch(self.group) for part in self.parts}

    def start_over(self, epochs: Mapping[str, str] | None = None) -> dict[str, str]:
        """Begin anew in every part; the epochs from now on."""
        known = epochs or self.epochs()
        return {part.name: part.start_over(self.group, epoch=known[part.name]) for part in self.parts}

    def build(self, state: MaterializationState) -> dict[str, str]:
        """An empty copy that reflects `state`; its epochs."""
        epochs = self.start_over()
        self.set_state(state, epochs, is_rebuild=True)
        return epochs

    def set_state(
        self, state: MaterializationState, epochs: Mapping[str, str] | None = None, *, is_rebuild: bool = False
    ) -> None:
        known = epochs or self.epochs()
        for part in self.parts:
            part.set_state(self.group, state, epoch=known[part.name], is_rebuild=is_rebuild)

    def begin_step(self, target: MaterializationState, epochs: Mapping[str, str] | None = None) -> None:
        known = epochs or self.epochs()
        for part in self.parts:
            part.begin_step(self.group, target, epoch=known[part.name])

    def states(self) -> list[MaterializationState | None]:
        return [part.state(self.group) for part in self.parts]

    def write(
        self,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        *,
        epochs: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
        removed: pl.DataFrame | None = None,
        basis: MaterializationState | None = None,
    ) -> WriteResult:
        """Write each key to the part that owns it; refused positions are those among `keys`."""
        known, results, refused = epochs or self.epochs(), [], []
        for part in self.parts:
            own = owned_positions(part, keys)
            mine = [keys[at] for at in own]
            gone = None if removed is None else removed.filter(pl.col("key").is_in(mine))
            said = part.write(
                self.group,
                mine,
                [messages[at] for at in own],
                epoch=known[part.name],
                ttl=ttl,
                removed=gone,
                basis=basis,
            )
            results.append(said)
            refused += [own[at] for at in said.refused]
        return WriteResult(sum(r.written for r in results), sum(r.left for r in results), tuple(sorted(refused)))

    def fill(
        self,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        *,
        epochs: Mapping[str, str],
        owner: str,
        ttl: timedelta | None = None,
    ) -> None:
        for part in self.parts:
            own = owned_positions(part, keys)
            mine = [keys[at] for at in own]
            part.fill(self.group, mine, [messages[at] for at in own], epoch=epochs[part.name], ttl=ttl, owner=owner)

    def read(self, keys: Sequence[bytes]) -> Replies:
        return self.tier.read_many({self.group: keys})[self.group]

    def repair(self, marks: Sequence[Mark], keys: Sequence[bytes], messages: Sequence[bytes]) -> int:
        """Put messages back by marks that a read of `keys` gave."""
        return sum(
            self.tier.repair(
                self.group, mark, [keys[at] for at in mark.positions], [messages[at] for at in mark.positions], None
            )
            for mark in marks
        )


def owned_positions(part: TierPart, keys: Sequence[bytes]) -> list[int]:
    """Which of the keys a part owns, by position."""
    owned = part.owns(keys)
    return list(range(len(keys))) if owned is None else np.flatnonzero(owned).tolist()
