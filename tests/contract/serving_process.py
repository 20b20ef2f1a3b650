"""`featurestore serve` as a process of its own, and requests to it."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any

from featurestore.ports import free_port

PROGRAM = "from featurestore.cli.main import main; main()"
PATIENCE = 120.0
STARTED = "[INFO] Started worker-"


@dataclass
class Server:
    """A running server.

    Args:
        process: Its main process.
        port: Where it listens.
        said: Every line that it wrote.
        context: To talk TLS; None: plain HTTP.
    """

    process: "subprocess.Popen[str]"
    port: int
    said: list[str] = field(default_factory=list)
    context: ssl.SSLContext | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        if self.context:
            return http.client.HTTPSConnection("localhost", self.port, timeout=PATIENCE, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own: its status and body."""
        connection = self.connect()
        try:
            raw = None if body is None else json.dumps(body)
            given = {"content-type": "application/json", **(headers or {})}
            connection.request("GET" if body is None else "POST", path, raw, given)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def listen(self) -> None:
        """Take down what the server writes, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.said.append(line.rstrip())
                self.changed.notify_all()

    def wait_until_said(self, text: str, times: int = 1) -> None:
        """Wait for lines with some text."""
        with self.changed:
            self.changed.wait_for(lambda: self._count(text) >= times or self._has_ended(), PATIENCE)
        assert self._count(text) >= times, "\n".join(self.said)

    def has_said(self, text: str) -> bool:
        return self._count(text) > 0

    def _count(self, text: str) -> int:
        return sum(text in line for line in self.said)

    def _has_ended(self) -> bool:
        return self.process.poll() is not None

    def wait_until(self, path: str, status: int, body: dict[str, Any] | None = None) -> None:
        """Ask until the answer has a status."""
        end = monotonic() + PATIENCE
        while (found := self._status(path, body)) != status:
            assert monotonic() < end, f"{path} answers {found}, not {status}: {self.said}"
            sleep(0.02)

    def _status(self, path: str, body: dict[str, Any] | None = None) -> int | None:
        """The status of an answer; None if nobody listens yet: a worker says that it has started just before it does."""
        try:
            return self.ask(path, body)[0]
        except ConnectionError:
            return None

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def running(
    variables: Mapping[str, str], *options: str, workers: int = 1, context: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """A server, once all its workers have started."""
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, "serve", "--port", str(port), "--workers", str(workers)]
    command += ["--timeout-ms", "10000", *options]  # whatever else this machine does
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_")}
    process = subprocess.Popen(
        command, env={**inherited, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    server = Server(process, port, context=context)
    listener = threading.Thread(target=server.listen, daemon=True)
    listener.start()
    try:
        server.wait_until_said(STARTED, workers)
        server.wait_until("/health", 200)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
        listener.join(PATIENCE)
        assert not server.has_said("refused to gracefully stop"), "\n".join(server.said)
