"""A group whose table gets newer values all the time, and the product's materialization that follows: as a program, until told to end.

It says on its output, a line of JSON each, what it pushed and what it materialized and when, by the clock that all processes of
a machine share. `History` reads that: which values may be served, and which must be. Not here: who reads them.
"""

import json
import os
import random
import subprocess
import sys
import threading
import traceback
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from time import monotonic, sleep

import polars as pl

from featurestore.clock import microseconds, system_clock
from featurestore.declaration import Catalog, Entity, Feature, FeatureGroup, Online, pushed_group
from featurestore.errors import FeatureStoreError
from featurestore.registry.history import RegistryHistory
from featurestore.store import FeatureStore

GROUP = "rider_state"
RIDERS = [f"rider-{number:03}" for number in range(200)]
NOBODIES = [f"nobody-{number:03}" for number in range(50)]
CHANGED = 25
"""Riders of whom each generation has newer values; the first has all of them."""
PUSH_SECONDS, STEP_SECONDS = 0.7, 0.1
END_SECONDS = 60.0
PUSHED, MATERIALIZED, FAILED, CRASHED = "pushed", "materialized", "failed", "crashed"
NUMBER, TEXT = "generation", "label"
REFERENCES = [f"{GROUP}:{NUMBER}", f"{GROUP}:{TEXT}"]


def declared() -> FeatureGroup:
    """The group, in both tiers."""
    return pushed_group(
        name=GROUP,
        entity=Entity("rider", keys={"rider": pl.String}),
        features=[Feature(NUMBER, pl.Int64, "Which push"), Feature(TEXT, pl.String, "Whose, and which push")],
        owner="team:riders",
        description="Pushed in tests.",
        online=Online(ttl=timedelta(days=7), tiers=("hot", "warm")),
        max_age=timedelta(days=1),
    )


def text_of(rider: str, generation: int) -> str:
    return f"{rider}/{generation}"


@cache
def changed_in(seed: int, generation: int) -> frozenset[str]:
    """Riders who have values of a generation."""
    return frozenset(random.Random(f"{seed}/{generation}").sample(RIDERS, CHANGED) if generation else RIDERS)


@dataclass(frozen=True, slots=True)
class Event:
    """What the program did.

    Args:
        what: PUSHED, MATERIALIZED (in every part), FAILED or CRASHED.
        generation: The one pushed, or the newest one that a materialization had to bring.
        begun, ended: By `time.monotonic`, the same for all processes.
        event_time: Of the rows pushed; ISO.
        said: Of what failed.
    """

    what: str
    generation: int
    begun: float
    ended: float
    event_time: str = ""
    said: str = ""


class Changes:
    """The pushes and the materializations, each in a thread of its own, as producers and the online asset are."""

    def __init__(self, store: FeatureStore, seed: int) -> None:
        self.store, self.seed = store, seed
        self.newest = -1
        self.is_ending = threading.Event()
        self._telling = threading.Lock()

    def push(self) -> None:
        """Put the next generation into the table."""
        begun, generation, now = monotonic(), self.newest + 1, system_clock()
        riders = sorted(changed_in(self.seed, generation))
        rows = {
            "rider": riders,
            "event_time": [now] * len(riders),
            NUMBER: [generation] * len(riders),
            TEXT: [text_of(rider, generation) for rider in riders],
        }
        self.store.push(GROUP, rows, "offline")
        self.newest = generation
        self.tell(Event(PUSHED, generation, begun, monotonic(), now.isoformat()))

    def materialize(self) -> bool:
        """One step; whether every part took it."""
        begun, generation = monotonic(), self.newest
        try:
            self.store.materialize([GROUP])
        except FeatureStoreError as error:
            self.tell(Event(FAILED, generation, begun, monotonic(), said=f"{type(error).__name__}: {error}"))
            return False
        self.tell(Event(MATERIALIZED, generation, begun, monotonic()))
        return True

    def tell(self, event: Event) -> None:
        with self._telling:
            print(json.dumps(asdict(event)), flush=True)

    def repeat(self, do: Callable[[], object], seconds: float) -> None:
        """Do it again and again; what is no error of the store's own ends the program."""
        try:
            while not self.is_ending.wait(seconds):
                do()
        except Exception:  # noqa: BLE001 - whatever it is, the test is to show it
            self.tell(Event(CRASHED, self.newest, monotonic(), monotonic(), said=traceback.format_exc()))
            os._exit(1)


def main(seed: str) -> None:
    """Push and materialize until the input ends, then until every part has what was pushed last."""
    store = FeatureStore.from_env()
    RegistryHistory(store.settings.root).apply(Catalog([], [declared()], []), store.clock, "tests")
    changes = Changes(store, int(seed))
    changes.push()
    changes.materialize()
    tasks = [(changes.push, PUSH_SECONDS), (changes.materialize, STEP_SECONDS)]
    threads = [threading.Thread(target=changes.repeat, args=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    changes.is_ending.set()
    for thread in threads:
        thread.join()
    end = monotonic() + END_SECONDS
    while not changes.materialize() and monotonic() < end:
        sleep(STEP_SECONDS)


class Program:
    """The program as a process; once made, the first generation is in every part."""

    def __init__(self, variables: Mapping[str, str], seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.changing_riders", str(seed)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables, "POLARS_MAX_THREADS": "1"},
        )
        self._events: list[Event] = []
        for what in (PUSHED, MATERIALIZED):
            assert self._process.stdout is not None
            self._events.append(_event(self._process.stdout.readline()))
            assert self._events[-1].what == what, self._events
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        self._events += map(_event, self._process.stdout)

    def end(self) -> list[Event]:
        """Let it end by itself: everything that it said."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(2 * END_SECONDS)
        self._listener.join()
        return self._events

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _event(line: str) -> Event:
    return Event(**json.loads(line))


@dataclass(frozen=True)
class History:
    """What the table held when, and what every part had been brought."""

    events: Sequence[Event]
    seed: int

    @cached_property
    def pushes(self) -> dict[int, Event]:
        """By event time, microseconds since 1970."""
        return {
            microseconds(datetime.fromisoformat(event.event_time)): event
            for event in self.events
            if event.what == PUSHED
        }

    @cached_property
    def _arrivals(self) -> list[tuple[float, int]]:
        """When some generation was in every part, in order of time."""
        done = sorted((event.ended, event.generation) for event in self.events if event.what == MATERIALIZED)
        return [(ended, max(number for _, number in done[: at + 1])) for at, (ended, _) in enumerate(done)]

    def arrived(self, instant: float) -> int:
        """The newest generation that every part had by then."""
        return self._arrivals[bisect_right(self._arrivals, (instant, sys.maxsize)) - 1][1]

    def least(self, rider: str, instant: float) -> int:
        """The oldest generation that may still be served of a rider to whoever asks at an instant."""
        return self.newest_of(rider, self.arrived(instant))

    def has(self, rider: str, generation: int) -> bool:
        """Whether a generation has values of a rider."""
        return rider in changed_in(self.seed, generation)

    def newest_of(self, rider: str, generation: int) -> int:
        """The last one up to `generation` that has values of a rider."""
        return next(one for one in range(generation, -1, -1) if self.has(rider, one))


if __name__ == "__main__":
    main(*sys.argv[1:])
