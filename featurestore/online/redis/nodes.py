"""The nodes of a Redis or Valkey Cluster: who they are now, and the connections to each.

What they say of themselves comes along with reads, so that no read waits for it: while all is well now and then, after trouble
soon. Not here: what is read or written.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from redis.connection import SSLConnection

from featurestore.errors import StoreUnavailable
from featurestore.online.breaker import Breaker
from featurestore.online.redis.connection import WRITE_TIMEOUT_SECONDS, Place
from featurestore.online.redis.exchange import Answer, Guarded, Question, ask_all
from featurestore.online.redis.server import Command, Server
from featurestore.online.redis.topology import Node, Topology, merged, read_claims

ASK_NODES: Command = ("CLUSTER", "NODES")
RENEW_SECONDS = 5.0
RENEW_SOON_SECONDS = 0.1
"""While something is wrong: often enough that a failover is seen soon, seldom enough that it costs reads little."""


class Nodes:
    """The nodes of one cluster.

    Args:
        seeds: Some nodes; the others are learned from them. Their patience is that of reads.
        seconds: Clock of the circuit breakers and of the topology's age.
    """

    def __init__(self, seeds: Sequence[Place], seconds: Callable[[], float] = time.monotonic) -> None:
        self._seeds = seeds
        self._seconds = seconds
        self._readers = {place.address: self._reader(place) for place in seeds}
        self._writers: dict[str, Server] = {}
        self._topology = Topology()
        self._asked = seconds()
        self._is_in_trouble = False

    @property
    def names(self) -> str:
        """Addresses of the seeds, for people."""
        return ",".join(place.address for place in self._seeds)

    @property
    def topology(self) -> Topology:
        """The nodes as last heard of; empty before the first answer."""
        return self._topology

    @property
    def _is_due(self) -> bool:
        return self._seconds() - self._asked >= (RENEW_SOON_SECONDS if self._is_in_trouble else RENEW_SECONDS)

    def met_trouble(self) -> None:
        """A node failed, or has other slots than it was thought to have, or than its records speak of: ask soon."""
        self._is_in_trouble = True

    def reader(self, node: Node) -> Guarded:
        """The connections for reads."""
        known = self._readers.get(node.address)
        return known or self._readers.setdefault(node.address, self._reader(self._place(node)))

    def writer(self, node: Node) -> Server:
        """The connections for writes: more patient, and without a breaker."""
        known = self._writers.get(node.address)
        return known or self._writers.setdefault(node.address, Server(self._patient(self._place(node))))

    def ask(self, questions: Sequence[Question], seconds: float | None) -> list[Answer]:
        """Put a read's questions; if it is time, all nodes say along with it who they are."""
        if not self._is_due:
            return ask_all(questions, seconds)
        asked = {id(question.to) for question in questions}
        more = [Question(one, []) for one in list(self._readers.values()) if id(one) not in asked]
        extended = [replace(one, commands=[*one.commands, ASK_NODES]) for one in (*questions, *more)]
        self._asked = self._seconds()
        answers = ask_all(extended, seconds)
        self._learn(zip(extended, answers, strict=True))
        return [answer[:-1] if isinstance(answer, list) else answer for answer in answers[: len(questions)]]

    def renew(self, seconds: float | None = None, *, only_alive: bool = False) -> bool:
        """Ask all nodes and seeds who they are, and wait; what is known stays if none answers, which False tells.

        Args:
            seconds: Limit on waiting; None: the patience for reads.
            only_alive: Leave those out whose last answer was none.
        """
        readers = [one for one in list(self._readers.values()) if not (only_alive and one.breaker.has_failed)]
        questions = [Question(one, [ASK_NODES]) for one in readers]
        return self._learn(zip(questions, ask_all(questions, seconds), strict=True))

    def require(self) -> Topology:
        """The topology as it is now.

        Raises:
            StoreUnavailable: No node answers, or none has slots.
        """
        if not self.renew(WRITE_TIMEOUT_SECONDS):
            raise StoreUnavailable(
                f"No node of the Redis cluster at {self.names} says which slots it has. Check that they run with cluster-enabled, "
                "can be reached from here, and that the user may run CLUSTER NODES."
            )
        return self._topology

    def _learn(self, answers: Iterable[tuple[Question, Answer]]) -> bool:
        """Take in what nodes said of themselves, each in its last reply."""
        claims = []
        for question, answer in answers:
            said: Any = answer[-1] if isinstance(answer, list) and answer else None
            if isinstance(said, bytes):
                host = str(question.to.server.place.options.get("host", "localhost"))
                claims += read_claims(said.decode(), asked_host=host, prefers_names=self._has_certificates)
        topology = merged(claims)
        if not topology.nodes:
            return False
        self._topology = topology
        self._is_in_trouble = any(self.reader(node).breaker.is_open for node in topology.nodes)
        self._forget(topology)
        return True

    def close(self) -> None:
        """Close all connections."""
        for server in [*self._writers.values(), *(one.server for one in self._readers.values())]:
            server.close()

    def _forget(self, topology: Topology) -> None:
        """Close connections to nodes that are no more."""
        known = {node.address for node in topology.nodes} | {place.address for place in self._seeds}
        for address in set(self._readers) - known:
            self._readers.pop(address).server.close()
        for address in set(self._writers) - known:
            self._writers.pop(address).close()

    @property
    def _has_certificates(self) -> bool:
        kind = self._seeds[0].kind
        return isinstance(kind, type) and issubclass(kind, SSLConnection)

    def _place(self, node: Node) -> Place:
        return self._seeds[0].at(node.host, node.port)

    def _reader(self, place: Place) -> Guarded:
        return Guarded(Server(place), Breaker(self._seconds))

    def _patient(self, place: Place) -> Place:
        return place.with_patience(max(place.patience_seconds, WRITE_TIMEOUT_SECONDS))
