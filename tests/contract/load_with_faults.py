"""The feature server under a steady load while its stores fail in turn and the data moves: what became of every request.

Each fault lasts for half of its turn. After it the server is asked for all riders again and again, until the hot tier answers for
each of them. Not here: what a fault is (`faulty_deployment`), or what is wrong with a reply (`load_findings`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic, sleep

from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.contract import changing_riders, steady_load
from tests.contract.changing_riders import NUMBER, REFERENCES, RIDERS, History
from tests.contract.cpu_stretch import CpuWatch
from tests.contract.faulty_deployment import Fault, FaultyDeployment
from tests.contract.load_findings import UNAVAILABLE, Figures, Phase, figures_of, wrong_in
from tests.contract.serving_process import Server, running
from tests.contract.steady_load import JSON, PATH, Reply, question

WORKERS = 2
TIMEOUT_MS = 1000
"""What a request may take, by default too: a read, and the one before it that is waited for."""
WATCH_SECONDS, WATCH_PAUSE_SECONDS = 60.0, 0.1
IN_A_ROW = 5
"""So many answers say that the server has recovered: one comes from one of its workers."""
NOWHERE = "redis://127.0.0.1:9"
Generations = dict[str, int | None]


@dataclass(frozen=True)
class Outcome:
    """What a load came to.

    Args:
        figures: A phase each: first without a fault, then each fault and what follows it, at last all together.
        replies: To the load.
        probes: What was asked beside it, to see when the server has recovered.
        history: What the table held when.
        said: What the server wrote.
        last: Generation by rider at the end: as the server gives it, as the warm tier alone does, and as the table has it.
        cpu: Of the server, the load and the materialization.
    """

    figures: Sequence[Figures]
    replies: Sequence[Reply]
    probes: Sequence[Reply]
    history: History
    said: Sequence[str]
    last: Sequence[Generations]
    cpu: CpuWatch

    @property
    def wrong(self) -> list[str]:
        """Everything that should not have been said."""
        return [line for reply in (*self.replies, *self.probes) for line in wrong_in(reply, self.history)]

    def later_than(self, seconds: float) -> list[float]:
        """What requests took that took longer, each by a clock that goes as slowly as the processes did."""
        slowed = (
            one.seconds / self.cpu.stretch(one.sent, one.received) for one in self.replies if one.seconds > seconds
        )
        return sorted(one for one in slowed if one > seconds)


def load_with_faults(folder: Path, *, seconds: float, seed: int) -> Outcome:
    """Load a server for about so long, longer where it takes its time to recover.

    Args:
        folder: Where everything is kept.
        seconds: Shared by all faults and a turn without one.
        seed: Chooses requests, nodes, the order of the faults, and whose values change.
    """
    chance = Random(seed)
    options = ("--timeout-ms", str(TIMEOUT_MS))
    with (
        FaultyDeployment(folder, chance) as deployment,
        changing(deployment, seed) as changes,
        running(deployment.variables, *options, workers=WORKERS) as server,
        CpuWatch() as cpu,
    ):
        watch(server)
        with loaded(server, seed, folder) as load:
            cpu.add(load.pid, changes.pid, *worker_pids(server))
            turns = Turns(server, cpu, seconds / (1 + len(deployment.faults)))
            turns.take(deployment.faults, chance)
            replies = load.end()
        events = changes.end()
        last = [served(server), served_warm(deployment), newest_in_table(deployment)]
    figures = turns.figures(replies)
    return Outcome(figures, replies, turns.probes, History(events, seed), server.said, last, cpu)


@contextmanager
def changing(deployment: FaultyDeployment, seed: int) -> Iterator[changing_riders.Program]:
    changes = changing_riders.Program(deployment.variables, seed)
    try:
        yield changes
    finally:
        changes.kill()


@contextmanager
def loaded(server: Server, seed: int, folder: Path) -> Iterator[steady_load.Program]:
    load = steady_load.Program(server.url, seed, folder / "replies")
    try:
        yield load
    finally:
        load.kill()


def worker_pids(server: Server) -> list[int]:
    return [int(line.rpartition(" ")[2]) for line in server.said if "Spawning worker-" in line]


class Turns:
    """The faults, one after the other.

    Args:
        server: What is loaded.
        cpu: Says how much slower the machine was than it could be.
        seconds: Of a turn.
    """

    def __init__(self, server: Server, cpu: CpuWatch, seconds: float) -> None:
        self._server, self._cpu, self._seconds = server, cpu, seconds
        self._phases: list[Phase] = []
        self.probes: list[Reply] = []

    def take(self, faults: dict[str, Fault], chance: Random) -> None:
        """First a turn without a fault, then each fault in any order."""
        begun = monotonic()
        sleep(self._seconds)
        self._phases.append(Phase("nothing", begun, monotonic()))
        for name in chance.sample(sorted(faults), len(faults)):
            self._take(name, faults[name])

    def _take(self, name: str, fault: Fault) -> None:
        begun = monotonic()
        with fault():
            sleep(self._seconds / 2)
            ended = monotonic()
        seen = watch(self._server, ended)
        self.probes += seen.replies
        sleep(max(0.0, begun + self._seconds - monotonic()))
        self._phases.append(Phase(name, begun, ended))
        self._phases.append(Phase("after it", ended, monotonic(), True, seen.present_seconds, seen.hot_seconds))

    def figures(self, replies: Sequence[Reply]) -> list[Figures]:
        whole = Phase("all", self._phases[0].begun, self._phases[-1].ended)
        return [
            figures_of(phase, replies, self._cpu.stretch(phase.begun, phase.ended)) for phase in (*self._phases, whole)
        ]


@dataclass(frozen=True)
class Watched:
    """How a server recovered: answers for all riders, and how long it took until all were PRESENT, and all of them hot."""

    replies: Sequence[Reply]
    present_seconds: float | None = None
    hot_seconds: float | None = None


def watch(server: Server, since: float | None = None) -> Watched:
    """Ask for all riders until the hot tier answers for each; gives up after a while."""
    since = monotonic() if since is None else since
    seen = Watched([])
    while monotonic() < since + WATCH_SECONDS and seen.hot_seconds is None:
        replies = [*seen.replies, ask_for_all(server)]
        seen = Watched(replies, _recovered(replies, since, {"hot", "warm"}), _recovered(replies, since, {"hot"}))
        sleep(WATCH_PAUSE_SECONDS)
    return seen


def _recovered(replies: Sequence[Reply], since: float, tiers: set[str]) -> float | None:
    """Seconds until the first of several good answers in a row; None: not yet."""
    flags = [all(value.tier in tiers for value in reply.values()) and reply.status == 200 for reply in replies]
    for at in range(len(flags) - IN_A_ROW + 1):
        if all(flags[at : at + IN_A_ROW]):
            return max(0.0, replies[at].sent - since)
    return None


def ask_for_all(server: Server) -> Reply:
    sent = monotonic()
    connection = server.connect()
    try:
        connection.request("POST", PATH, question(RIDERS), {"content-type": JSON})
        answer = connection.getresponse()
        return Reply(sent, monotonic(), RIDERS, JSON, answer.status, answer.read())
    finally:
        connection.close()


def served(server: Server) -> Generations:
    """The generation of each rider, now; a read that could not answer for all of them in its time is made again."""
    end = monotonic() + WATCH_SECONDS
    while True:
        values = ask_for_all(server).values()
        is_whole = bool(values) and not any(UNAVAILABLE in value.statuses for value in values)
        if is_whole or monotonic() > end:
            return {value.rider: value.number for value in values}
        sleep(WATCH_PAUSE_SECONDS)


def served_warm(deployment: FaultyDeployment) -> Generations:
    """The same of a server that finds no hot tier."""
    patient = {"FEATURESTORE_ONLINE_URL": NOWHERE, "FEATURESTORE_READ_DEADLINE_MS": "5000"}
    with running({**deployment.variables, **patient}) as server:
        return served(server)


def newest_in_table(deployment: FaultyDeployment) -> Generations:
    """The generation of each rider by the point-in-time read as of now."""
    store = FeatureStore(Settings.from_env(deployment.variables))
    spine = {"rider": RIDERS, "label_time": [store.clock()] * len(RIDERS)}
    found = store.get_historical_features(spine, REFERENCES).to_polars()
    return dict(zip(found["rider"], found[NUMBER], strict=True))
