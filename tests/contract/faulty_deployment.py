"""A deployment of both tiers on this machine, whose parts fail as told: three nodes of a cluster, one of them behind a proxy that
delays, and a DynamoDB behind a proxy that throttles.

The delaying proxy is what the cluster announces for its node (`cluster-announce-port`), so that every client goes through it.
Not here: what is kept in it, or when it fails.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from random import Random

from featurestore.online.dynamo.provision import provision
from tests.contract import dynamo
from tests.contract.delaying_proxy import DelayingProxy
from tests.contract.valkey_cluster import EmbeddedCluster

TABLE = "online"
DEADLINE_MS = 400
"""Of a read. Four times the default: moto takes ten times as long as DynamoDB, and other work loads the machine."""
SLOW_SECONDS = 0.25 * DEADLINE_MS / 1000
"""Half of what the hot tier may take where a warm one stands behind it."""
TOO_SLOW_SECONDS = DEADLINE_MS / 1000
NODES = 3
Fault = Callable[[], AbstractContextManager[None]]
"""A part's trouble, for as long as a `with` block lasts."""


class FaultyDeployment:
    """The servers; they run inside a `with` block.

    Args:
        folder: Where everything is kept.
        chance: Chooses which node fails.
    """

    def __init__(self, folder: Path, chance: Random) -> None:
        self.folder = folder
        self._chance = chance
        self._delayed = chance.randrange(NODES)
        self._open = ExitStack()

    def __enter__(self) -> "FaultyDeployment":
        with ExitStack() as stack:
            self._delays = stack.enter_context(DelayingProxy())
            options: list[dict[str, str]] = [{} for _ in range(NODES)]
            options[self._delayed] = {"cluster-announce-port": str(self._delays.port)}
            self._cluster = stack.enter_context(EmbeddedCluster(self.folder / "cluster", options=options))
            self._delays.target = self._cluster.nodes[self._delayed].port
            self._dynamo = stack.enter_context(dynamo.Proxy(stack.enter_context(dynamo.moto())))
            provision(dynamo.url_of(self._dynamo.endpoint, TABLE), session=dynamo.session())
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def variables(self) -> dict[str, str]:
        """Of whoever reads or writes there."""
        return {
            "FEATURESTORE_ROOT": str(self.folder / "store"),
            "FEATURESTORE_ONLINE_URL": self._cluster.url,
            "FEATURESTORE_WARM_URL": dynamo.url_of(self._dynamo.endpoint, TABLE),
            "FEATURESTORE_READ_DEADLINE_MS": str(DEADLINE_MS),
            "AWS_ACCESS_KEY_ID": "testkey",
            "AWS_SECRET_ACCESS_KEY": "testsecret",
        }

    @property
    def faults(self) -> dict[str, Fault]:
        """Every trouble by its name."""
        return {
            "node killed": self.killed,
            "node frozen": self.frozen,
            "node emptied": self.emptied,
            f"node slow (+{1000 * SLOW_SECONDS:.0f} ms)": lambda: self.slow(SLOW_SECONDS),
            f"node too slow (+{1000 * TOO_SLOW_SECONDS:.0f} ms)": lambda: self.slow(TOO_SLOW_SECONDS),
            "DynamoDB throttled": self.throttled,
            "node frozen, DynamoDB throttled": self.frozen_and_throttled,
            "node killed, DynamoDB throttled": self.killed_and_throttled,
        }

    @contextmanager
    def killed(self) -> Iterator[None]:
        """A node is ended by SIGKILL, and started again without its data."""
        number = self._chance.randrange(NODES)
        os.kill(self._pid(number), signal.SIGKILL)
        self._cluster.kill(number)  # nothing is left to end, but the zombie
        try:
            yield
        finally:
            self._cluster.restart(number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A node stands still, and goes on."""
        pid = self._pid(self._chance.randrange(NODES))
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """A node loses everything, and once more, perhaps in the middle of being filled."""
        with self._cluster.client(self._chance.randrange(NODES)) as client:
            client.flushall()
            yield
            client.flushall()

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """The answers of the node behind the proxy come late."""
        self._delays.seconds = seconds
        try:
            yield
        finally:
            self._delays.seconds = 0.0

    @contextmanager
    def throttled(self) -> Iterator[None]:
        """DynamoDB takes no request."""
        self._dynamo.standing = dynamo.Answer.error("ThrottlingException")
        try:
            yield
        finally:
            self._dynamo.standing = None

    @contextmanager
    def frozen_and_throttled(self) -> Iterator[None]:
        with self.frozen(), self.throttled():
            yield

    @contextmanager
    def killed_and_throttled(self) -> Iterator[None]:
        with self.killed(), self.throttled():
            yield

    def _pid(self, number: int) -> int:
        pid = self._cluster.nodes[number].pid
        assert pid is not None
        return pid
