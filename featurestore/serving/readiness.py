"""Whether requests can be answered now: the API keys are vouched for, and a tier of the online store answers.

Not here: HTTP, or what a request asks.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from featurestore.auth.authenticator import Authenticates
from featurestore.declaration.online import TierName
from featurestore.errors import FeatureStoreError
from featurestore.online.keys import online_keys
from featurestore.serving.opening import group_of_each_tier
from featurestore.serving.reading import NO_COPY
from featurestore.serving.registry_watch import CurrentStore
from featurestore.store import FeatureStore

ASK_SECONDS = 0.5
"""How long a tier may take: a balancer's probe often waits for a second in all."""
WAIT_SECONDS = 0.75
"""How long a probe waits: longer than a tier may take, so that the tier itself says what is wrong."""
KEYS_ASKED: Mapping[TierName, int] = {"hot": 16, "warm": 1}
"""Of a cluster they lie with several nodes, so that one that is away is not all of them; a table bills each."""
DRAINING = "The server is draining: it answers what it has, and is sent no more."


class Readiness:
    """Looks whether requests can be answered.

    Rules: at most one look is under way, and whoever asks meanwhile takes what it finds. It has threads of its own, one for
    each thing looked at: a store that does not answer keeps neither a second one nor anybody else's.

    Args:
        stores: The store as the newest registry has it.
        authenticator: Says who calls.
        is_draining: Whether the server is about to end.
    """

    def __init__(self, stores: CurrentStore, authenticator: Authenticates, is_draining: Callable[[], bool]) -> None:
        self._stores, self._authenticator, self._is_draining = stores, authenticator, is_draining
        self._threads = ThreadPoolExecutor(1 + len(KEYS_ASKED), thread_name_prefix="ready")
        self._asked: dict[str, Future[str]] = {}
        self._look: asyncio.Task[str] | None = None

    async def trouble(self) -> str:
        """Why requests cannot be answered now; "" if they can. Takes a second at most."""
        if self._is_draining():
            return DRAINING
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_around())
        return await asyncio.shield(self._look)

    def close(self) -> None:
        """Look no more; a look under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_around(self) -> str:
        try:
            store = self._stores.get()
            groups = group_of_each_tier(store)
        except FeatureStoreError as error:
            return str(error)
        end = asyncio.get_running_loop().time() + WAIT_SECONDS
        keys = self._ask("the check of API keys", partial(_keys_trouble, self._authenticator))
        tiers = [
            self._ask(f"the {tier} tier", partial(_tier_trouble, store, tier, groups[tier].name))
            for tier in sorted(groups)  # the hot one in front
        ]
        if trouble := await _all_say([keys], end):
            return trouble
        trouble = await _all_say(tiers, end)
        return f"No online tier answers: {trouble}" if trouble else ""

    def _ask(self, what: str, trouble: Callable[[], str]) -> tuple[str, Future[str]]:
        """Ask in a thread, unless the last answer of the same is still awaited."""
        asked = self._asked.get(what)
        if asked is None or asked.done():
            asked = self._asked[what] = self._threads.submit(trouble)
        return what, asked


async def _all_say(asked: list[tuple[str, Future[str]]], end: float) -> str:
    """The trouble that all have, in their order; "" as soon as one of them has none, or if nobody was asked."""
    loop = asyncio.get_running_loop()
    names = {asyncio.wrap_future(future): name for name, future in asked}
    said = {name: f"{name} did not answer within {WAIT_SECONDS:g} s" for name in names.values()}
    left = set(names)
    while left and loop.time() < end:
        done, left = await asyncio.wait(left, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        said |= {names[one]: one.result() for one in done}
        if not all(said.values()):
            return ""
    return "; ".join(said.values())


def _keys_trouble(authenticator: Authenticates) -> str:
    try:
        authenticator.check()
    except FeatureStoreError as error:
        return str(error)
    return ""


def _tier_trouble(store: FeatureStore, name: TierName, group: str) -> str:
    """Why a tier does not answer. One that says that it holds no copy does answer.

    What is read are keys that no entity has: a '%' in an id always stands before two digits.
    """
    keys = online_keys(group, [f"%ready{number}" for number in range(KEYS_ASKED[name])])
    try:
        replies = store.online.tier(name).read_many({group: keys}, timeout_seconds=ASK_SECONDS)[group]
    except FeatureStoreError as error:
        return str(error)
    is_silent = len(replies.unanswered) == len(keys) and NO_COPY not in replies.cause
    return replies.cause if is_silent else ""
