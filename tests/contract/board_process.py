"""`featurestore board` as a process of its own."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featurestore.ports import free_port

PROGRAM = "from featurestore.cli.main import main; main()"
PATIENCE = 120.0


@dataclass
class Board:
    """A board that runs, and what it wrote."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                self.get("/ready")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)

    def end(self, number: signal.Signals) -> int:
        """A signal, and the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def running_board(variables: Mapping[str, str], log: Path, *options: str) -> Iterator[Board]:
    """A board once it has looked for the first time."""
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_")}
    command = [sys.executable, "-c", PROGRAM, "board", "--port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**inherited, **variables}, stdout=output, stderr=subprocess.STDOUT)
    board = Board(process, port, log)
    try:
        board.wait_until_ready()
        yield board
    finally:
        if process.poll() is None:
            board.end(signal.SIGTERM)
