"""Tables of DynamoDB for tests: each behind a proxy that misbehaves as told, with tiers that go through it."""

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from featurestore.online.dynamo.part import DynamoPart
from featurestore.online.dynamo.provision import provision
from featurestore.online.dynamo.tier import DynamoTier
from featurestore.online.message.layout import BEFORE_EVERYTHING
from featurestore.online.tier import Fill, MaterializationState, Replies
from tests.contract import dynamo
from tests.contract.dynamo import Proxy
from tests.contract.online_rows import (
    GROUP,
    NOW,
    clock,
    decoded,
    key_of,
    messages_of,
    moment,
    plain,
)

STATE = MaterializationState("table-1", 4, NOW)
AHEAD = replace(STATE, version=5, as_of=NOW + timedelta(hours=1))
WEEK = timedelta(days=7)
LOWEST = plain((BEFORE_EVERYTHING - moment(0)) // timedelta(seconds=1))


class Moving:
    """Seconds that pass by waiting, at once; with real time only while told to, so a slow machine ages no record."""

    def __init__(self) -> None:
        self.skipped = 0.0
        self.is_running = False

    def now(self) -> float:
        return self.skipped + (time.monotonic() if self.is_running else 0.0)

    def wait(self, seconds: float) -> None:
        self.skipped += seconds


class Table:
    """A table behind a proxy, and tiers that go through it; what they wait for passes at once."""

    def __init__(self, endpoint: str, proxy: Proxy) -> None:
        self.endpoint = endpoint
        self.proxy = proxy
        self.name = f"dynamo-{uuid4().hex}"
        self.time = Moving()
        self.tiers: list[DynamoTier] = []
        provision(dynamo.url_of(endpoint, self.name), session=dynamo.session())

    def tier(self, **parameters: object) -> DynamoTier:
        options = {"max_connections": 4, "timeout_seconds": 20, **parameters}
        url = dynamo.url_of(self.proxy.endpoint, self.name, **options)
        made = DynamoTier(url, clock, session=dynamo.session(), monotonic=self.time.now, sleep=self.time.wait)
        self.tiers.append(made)
        return made

    def filled(self, numbers: list[int], version: int = 5) -> tuple[DynamoTier, DynamoPart, str]:
        """A tier with a known copy that holds these entities; nothing of how it came about is kept by the proxy."""
        tier = self.tier()
        (part,) = tier.parts()
        epoch = part.ensure_epoch(GROUP)
        write(part, epoch, numbers, version)
        part.set_state(GROUP, STATE, epoch=epoch, is_rebuild=True)
        read(tier, [])
        self.proxy.requests.clear()
        return tier, part, epoch


def write(part: DynamoPart, epoch: str, numbers: list[int], version: int = 5, **options: Any) -> Any:
    messages = messages_of([plain(version)] * len(numbers), options.pop("fence", 0))
    return part.write(GROUP, [key_of(n) for n in numbers], messages, epoch=epoch, ttl=WEEK, **options)


def read(tier: DynamoTier, numbers: list[int], timeout_seconds: float | None = None) -> Replies:
    return tier.read_many({GROUP: [key_of(n) for n in numbers]}, timeout_seconds=timeout_seconds)[GROUP]


def values(replies: Replies) -> list[int | None]:
    found: list[int | None] = decoded(replies.messages)["v"].to_list()
    return found


def filling(part: DynamoPart, epoch: str) -> str:
    """The epoch of a fill just begun by `one`."""
    after = part.start_over(GROUP, epoch=epoch)
    part.record_fill(GROUP, Fill(STATE, 2, 0, "one"), epoch=after, previous=None)
    return after
