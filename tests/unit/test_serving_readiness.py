"""Whether the server is ready: what it asks of the tiers, and what it says of those that keep silent."""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from featurestore.auth.authenticator import OpenAuthenticator
from featurestore.clock import system_clock
from featurestore.errors import StoreUnavailable
from featurestore.online.memory import MemoryTier
from featurestore.online.tier import Replies
from featurestore.serving import readiness as of_readiness
from featurestore.serving.readiness import Readiness

PATIENCE = 30.0


class StuckTier:
    """Answers nobody who asks for something before it is let go, and counts who does."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), 0

    def read_many(
        self, keys_by_group: Mapping[str, Sequence[bytes]], *, timeout_seconds: float | None = None
    ) -> dict[str, Replies]:
        if not any(keys_by_group.values()):
            return {}
        self.asked += 1
        assert self.go.wait(PATIENCE)
        return {group: Replies([None] * len(keys)) for group, keys in keys_by_group.items()}


class NoKeys(OpenAuthenticator):
    def check(self) -> None:
        raise StoreUnavailable("API keys could not be checked yet.")


@pytest.fixture
def stuck() -> Iterator[StuckTier]:
    made = StuckTier()
    yield made
    made.go.set()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tier that answers is waited for, however long this machine lets it wait for its turn."""
    monkeypatch.setattr(of_readiness, "WAIT_SECONDS", PATIENCE)


def looked(readiness: Readiness, times: int = 1) -> list[str]:
    """What some who ask at one time are told."""

    async def main() -> list[str]:
        return list(await asyncio.gather(*(readiness.trouble() for _ in range(times))))

    return asyncio.run(main())


def over(tiers: Mapping[str, Any], authenticator: OpenAuthenticator | None = None) -> Readiness:
    """Readiness of a store whose only group has all of these tiers."""
    store = SimpleNamespace(
        registry=SimpleNamespace(groups={"g": SimpleNamespace(name="g", is_online=True)}),
        settings=SimpleNamespace(tiers_of=lambda _: tuple(tiers)),
        online=SimpleNamespace(tier=tiers.__getitem__),
    )
    stores: Any = SimpleNamespace(get=lambda: store)
    return Readiness(stores, authenticator or OpenAuthenticator(), bool)


def memory(name: Any, *, parts: int = 1, away: int = 0) -> MemoryTier:
    """A tier that holds no copy, and some of whose parts are away."""
    made = MemoryTier(name, system_clock, parts=parts)
    for part in made.parts()[:away]:
        part.fail("away")
    return made


@pytest.mark.usefixtures("patient")
def test_a_tier_that_answers_is_enough_whether_it_holds_a_copy_or_not(stuck: StuckTier) -> None:
    assert looked(over({"hot": memory("hot")})) == [""]
    assert looked(over({"hot": memory("hot", away=1), "warm": memory("warm")})) == [""]
    assert looked(over({"hot": memory("hot", parts=3, away=2)})) == [""], "a node of a cluster"
    assert looked(over({"hot": stuck, "warm": memory("warm")})) == [""]
    assert looked(over({"hot": memory("hot"), "warm": stuck})) == [""]


def test_where_no_tier_answers_it_is_said_what_each_says_the_hot_one_first(
    stuck: StuckTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_readiness, "WAIT_SECONDS", 2.0)
    both = over({"warm": memory("warm", away=1), "hot": memory("hot", away=1)})
    assert looked(both) == ["No online tier answers: hot memory 0: away; warm memory 0: away"]
    silent = over({"hot": stuck, "warm": memory("warm", away=1)})
    assert looked(silent) == [
        "No online tier answers: the hot tier did not answer within 2 s; warm memory 0: away",
    ]


@pytest.mark.usefixtures("patient")
def test_keys_that_cannot_be_checked_are_trouble_by_themselves(stuck: StuckTier) -> None:
    assert looked(over({"hot": memory("hot")}, NoKeys())) == ["API keys could not be checked yet."]


def test_a_tier_that_keeps_silent_is_asked_once_however_many_wait_and_again_only_when_it_spoke(
    stuck: StuckTier,
) -> None:
    readiness = over({"hot": stuck})

    async def main() -> list[str]:
        found = await asyncio.gather(*(readiness.trouble() for _ in range(8)))
        found.append(await readiness.trouble())
        assert stuck.asked == 1
        stuck.go.set()
        while await readiness.trouble():
            await asyncio.sleep(0.01)
        await readiness.trouble()
        return found

    assert set(asyncio.run(main())) == {"No online tier answers: the hot tier did not answer within 0.75 s"}
    assert stuck.asked >= 2
