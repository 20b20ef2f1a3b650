"""The platform's processes on one machine: Dagster's web server and its daemon, the feature server, the board, and the demo's live feed.

They are children of this process and end with it. The instance is opened once before any of them starts, because
several processes that make Dagster's storage at the same time can spoil its schema.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg

from featurestore.errors import StoreUnavailable
from featurestore.location import Location
from featurestore.ports import free_port
from featurestore.settings import DEFAULT_ROOT

REPOSITORY = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
STOP_SECONDS = 8.0
START_SECONDS = 600.0
"""A machine that has just booted is busy; a process that ended is noticed at once."""
FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass(frozen=True, slots=True)
class Platform:
    """Dagster as it runs: where its pages are."""

    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def demo_environment(home: Path = REPOSITORY) -> dict[str, str]:
    """The variables under which the demo and `make up` share one state; what is set already stays."""
    defaults = {
        "DAGSTER_HOME": str(home),
        "FEATURESTORE_ROOT": str(home / DEFAULT_ROOT),
        "PYTHONWARNINGS": "ignore",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    return {**defaults, **{name: value for name, value in os.environ.items() if name in defaults}}


def prepare_instance() -> None:
    """Make Dagster's storage before several processes would."""
    (Path(os.environ["DAGSTER_HOME"]) / ".dagster").mkdir(exist_ok=True)
    with dg.DagsterInstance.get() as instance:
        instance.get_runs_count()


@contextmanager
def running_platform(environment: Mapping[str, str], logs: Path, port: int = 0) -> Iterator[Platform]:
    """Run the web server and the daemon while the block lasts.

    Args:
        environment: Added to this process's for both.
        logs: Folder for their output.
        port: Of the web server; 0 for a free one.

    Raises:
        StoreUnavailable: the port is taken, or one of them did not come up; its log is quoted.
    """
    chosen = port or free_port()
    workspace = ["-w", str(REPOSITORY / "workspace.yaml")]
    commands = {
        "webserver": ["dagster-webserver", "-h", HOST, "-p", str(chosen), *workspace],
        "daemon": ["dagster-daemon", "run", *workspace],
    }
    _require_free(chosen, "make up PORT=3001")
    # A code server that starts anew shows other definitions to a backfill in flight; it is to go on all the same.
    lasting = {"DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1", **environment}
    with _running(commands, lasting, logs, f"http://{HOST}:{chosen}/server_info"):
        yield Platform(chosen)


@contextmanager
def running_feature_server(environment: Mapping[str, str], logs: Path, port: int = 0) -> Iterator[str]:
    """Run the feature server while the block lasts; a registry must have been applied. Gives its address.

    Args:
        environment: Added to this process's.
        logs: Folder for its output.
        port: Of the server; 0 for a free one.

    Raises:
        StoreUnavailable: the port is taken, or it did not come up; its log is quoted.
    """
    chosen = port or free_port()
    _require_free(chosen, "make up SERVE_PORT=6567")
    command = ["featurestore", "serve", "--port", str(chosen), "--drain-seconds", "0"]
    with _running({"feature server": command}, environment, logs, f"http://{HOST}:{chosen}/health"):
        yield f"http://{HOST}:{chosen}"


@contextmanager
def running_board(environment: Mapping[str, str], logs: Path, port: int = 0) -> Iterator[str]:
    """Run the board of freshness while the block lasts. Gives its address.

    Args:
        environment: Added to this process's.
        logs: Folder for its output.
        port: Of the board; 0 for a free one.

    Raises:
        StoreUnavailable: the port is taken, or it did not come up; its log is quoted.
    """
    chosen = port or free_port()
    _require_free(chosen, "make up BOARD_PORT=6569")
    command = ["featurestore", "board", "--port", str(chosen)]
    with _running({"board": command}, environment, logs, f"http://{HOST}:{chosen}/health"):
        yield f"http://{HOST}:{chosen}"


@contextmanager
def running_feed(environment: Mapping[str, str], logs: Path, landing: Location) -> Iterator[str]:
    """Land the demo's flights, each hour as it ends, while the block lasts, if the demo has landed some; says which it does.

    Hours that ended since the last landed one come first, as they became known.
    """
    since = last_landed_day(landing) if landing.is_local else None
    if since is None:
        yield "not started, since the demo has landed nothing here: make demo, and make up again"
        return
    days = str(max(0, (datetime.now(UTC).date() - since).days))
    command = ["python", "-m", "examples.flights.replay", "--landing", str(landing.path), "--days", days, "--follow"]
    with _running({"feed": command}, environment, logs, None):
        yield f"lands each hour of flights as it ends, under {landing.uri}"


def last_landed_day(landing: Location) -> date | None:
    """The newest day of which the demo's departures have a landing file; None if the demo has landed nothing."""
    days = [path.name[:10] for path in (landing.path / "departures").glob("*.parquet")]
    return date.fromisoformat(max(days)) if days else None


def await_idle(seconds: float = 60.0) -> bool:
    """Wait until no run is queued or under way, so that stopping interrupts none; False if some still are."""
    unfinished = dg.RunsFilter(statuses=[status for status in dg.DagsterRunStatus if status not in FINISHED])
    deadline = time.monotonic() + seconds
    with dg.DagsterInstance.get() as instance:
        while instance.get_runs_count(unfinished):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
    return True


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _require_free(port: int, other: str) -> None:
    if is_listening(port):
        raise StoreUnavailable(f"Port {port} is taken. Stop what listens there, or choose another: {other}.")


@contextmanager
def _running(
    commands: Mapping[str, list[str]], environment: Mapping[str, str], logs: Path, url: str | None
) -> Iterator[None]:
    """Processes by their names, from when `url` answers, or at once if they have none, to the end of the block."""
    logs.mkdir(parents=True, exist_ok=True)
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            children[name] = _start(command, environment, _log(logs, name))
        if url is not None:
            _await_answer(url, children, logs)
        yield
    finally:
        _stop(list(children.values()))


def _log(logs: Path, name: str) -> Path:
    return logs / f"{name.replace(' ', '-')}.log"


def _start(command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    binary = Path(sys.executable).parent / command[0]
    with log.open("wb") as output:
        return subprocess.Popen(
            [str(binary), *command[1:]],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _await_answer(
    url: str, children: Mapping[str, subprocess.Popen[bytes]], logs: Path, seconds: float = START_SECONDS
) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for name, child in children.items():
            if child.poll() is not None:
                raise StoreUnavailable(f"The {name} ended with {child.returncode}:\n{_tail(_log(logs, name))}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    first = next(iter(children))
    raise StoreUnavailable(f"The {first} did not answer within {seconds:.0f} s:\n{_tail(_log(logs, first))}")


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    """End whole process groups: web server and daemon have code servers and run workers of their own."""
    for child in children:
        _signal(child, signal.SIGTERM)
    for child in children:
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
        _signal(child, signal.SIGKILL)
        child.wait(STOP_SECONDS)
        _await_end(child.pid)


def _await_end(group: int, seconds: float = 3.0) -> None:
    """Wait for the rest of a killed process group: a signal is sent before its process is gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
