"""A steady load of reads on the feature server: as a program, until told to end; its replies are judged afterwards (`load_findings`).

Requests come at a fixed rate, whatever became of those before. Most ask for one rider, the others for fifty; some of either for riders
whom nobody ever pushed; a quarter want Arrow.
"""

import asyncio
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from time import monotonic

import httpx
import polars as pl

from featurestore.clock import microseconds
from tests.contract.changing_riders import NOBODIES, NUMBER, REFERENCES, RIDERS, TEXT

PATH = "/get-online-features"
JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
MANY = 50
PER_SECOND = 30.0
GIVE_UP_SECONDS, END_SECONDS = 20.0, 120.0
BEGUN = "begun\n"
"""What the program says with its first reply."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one request.

    Args:
        sent, received: By `time.monotonic`.
        riders: Who was asked for.
        accepted: The body's format.
        status: Of HTTP; 0: there was no answer.
        body: The answer; of no answer, why.
    """

    sent: float
    received: float
    riders: Sequence[str]
    accepted: str
    status: int
    body: bytes

    @property
    def seconds(self) -> float:
        return self.received - self.sent

    def values(self) -> "list[Value]":
        """What a good answer says of each rider; nothing if it is none."""
        if self.status != httpx.codes.OK:
            return []
        return list(_of_arrow(self.body) if self.accepted == ARROW else _of_json(self.body))


@dataclass(frozen=True, slots=True)
class Value:
    """What an answer says of a rider; both features with their statuses and event times, microseconds since 1970."""

    rider: str
    number: int | None
    text: str | None
    statuses: tuple[str, str]
    event_times: tuple[int | None, int | None]
    tier: str | None


def question(riders: Sequence[str]) -> bytes:
    asked = {"features": REFERENCES, "entities": {"rider": list(riders)}, "include_serving_metadata": True}
    return json.dumps(asked).encode()


def _of_json(body: bytes) -> Iterator[Value]:
    riders, number, text = json.loads(body)["results"]
    for at, rider in enumerate(riders["values"]):
        statuses = tuple(one["statuses"][at] for one in (number, text))
        times = tuple(_time(one["event_timestamps"][at], one["statuses"][at]) for one in (number, text))
        yield Value(rider, number["values"][at], text["values"][at], statuses, times, number["tiers"][at])  # type: ignore[arg-type]


def _time(text: str, status: str) -> int | None:
    """JSON's contract has a time where there is none: the first of 1970."""
    return microseconds(datetime.fromisoformat(text)) if status == "PRESENT" else None


def _of_arrow(body: bytes) -> Iterator[Value]:
    table = pl.read_ipc_stream(BytesIO(body))
    for row in table.with_columns(pl.col(f"{NUMBER}__event_time", f"{TEXT}__event_time").to_physical()).to_dicts():
        statuses, times = ((row[f"{NUMBER}__{part}"], row[f"{TEXT}__{part}"]) for part in ("status", "event_time"))
        yield Value(row["rider"], row[NUMBER], row[TEXT], statuses, times, row[f"{NUMBER}__tier"])


class Load:
    """The program's requests."""

    def __init__(self, client: httpx.AsyncClient, seed: int) -> None:
        self._client, self._random = client, random.Random(seed)
        self.replies: list[Reply] = []

    async def run(self, is_ending: asyncio.Event) -> None:
        """Ask at the fixed rate until it is time to end; what was asked is awaited."""
        under_way: set[asyncio.Task[None]] = set()
        due = monotonic()
        while not is_ending.is_set():
            task = asyncio.create_task(self._ask(self._riders(), self._random.choice([JSON, JSON, JSON, ARROW])))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due = max(
                due + 1 / PER_SECOND, monotonic() - 1
            )  # what a machine that stood still missed is not made up for at once
            await asyncio.sleep(due - monotonic())
        await asyncio.gather(*under_way)

    def _riders(self) -> list[str]:
        count, nobodies = self._random.choice([(1, 0)] * 12 + [(0, 1)] + [(MANY, 0)] * 6 + [(MANY, 2)])
        return [*self._random.sample(RIDERS, count), *self._random.sample(NOBODIES, nobodies)]

    async def _ask(self, riders: Sequence[str], accepted: str) -> None:
        body, headers = question(riders), {"content-type": JSON, "accept": accepted}
        sent = monotonic()
        try:
            answer = await self._client.post(PATH, content=body, headers=headers)
            status, said = answer.status_code, answer.content
        except httpx.TransportError as error:
            status, said = 0, repr(error).encode()
        if not self.replies:
            print(BEGUN, end="", flush=True)
        self.replies.append(Reply(sent, monotonic(), riders, accepted, status, said))


async def load(url: str, seed: int) -> list[Reply]:
    """Load a server until the input ends."""
    is_ending = asyncio.Event()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=GIVE_UP_SECONDS, limits=limits) as client:
        made = Load(client, seed)
        running = asyncio.create_task(made.run(is_ending))
        await asyncio.to_thread(sys.stdin.read)
        is_ending.set()
        await running
    return made.replies


def main(url: str, seed: str, file: str) -> None:
    Path(file).write_bytes(pickle.dumps([astuple(reply) for reply in asyncio.run(load(url, int(seed)))]))


class Program:
    """The program as a process; once made, it has begun."""

    def __init__(self, url: str, seed: int, file: Path) -> None:
        self._file = file
        command = [sys.executable, "-m", "tests.contract.steady_load", url, str(seed), str(file)]
        folder = Path(__file__).parents[2]
        self._process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == BEGUN

    def end(self) -> list[Reply]:
        """Let it end by itself; all replies, in the order in which they came."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(END_SECONDS) == 0
        return [Reply(*fields) for fields in pickle.loads(self._file.read_bytes())]

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
