"""Dagster as in production: code server, daemon and web server, each a process that a supervisor starts again when it dies.

Intervals are short, so that a round of a crash test takes seconds; all else is as in `dagster.yaml`. Nothing is tested here.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg

from deploy.platform import HOST, is_listening
from featurestore.backfill.dagster_api import find_assets, launch_partition_backfill
from featurestore.ports import free_port
from tests.platform.airline import REPOSITORY, processes_marked
from tests.waiting import wait_for

QUEUE = {"dequeue_interval_seconds": 1, "max_user_code_failure_retries": 300, "user_code_failure_retry_delay": 1}
STOCK = ("dagster._core.run_coordinator", "QueuedRunCoordinator")
ADMITTING = ("resources.coordinator", "AdmissionCoordinator")
MARK = "FEATURESTORE_TEST_MARK"
START_SECONDS = 300
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNFINISHED = dg.RunsFilter(statuses=[status for status in dg.DagsterRunStatus if status not in ENDED])


def crash_home(folder: Path, coordinator: tuple[str, str] = STOCK) -> Path:
    """A home of Dagster, its storage made before several processes would."""
    folder.mkdir(parents=True)
    (folder / "dagster.yaml").write_text(json.dumps(configuration(folder, coordinator)))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.get_runs_count()
    return folder


def configuration(home: Path, coordinator: tuple[str, str]) -> dict[str, Any]:
    """What `dagster.yaml` has, with short intervals; JSON is YAML."""
    held = [{"key": "featurestore/admission", "value": value, "limit": 0} for value in ("assessing", "pending")]
    stores = {
        "run_storage": ("dagster._core.storage.runs", "SqliteRunStorage"),
        "event_log_storage": ("resources.event_log", "PooledSqliteEventLogStorage"),
        "schedule_storage": ("dagster._core.storage.schedules", "SqliteScheduleStorage"),
    }
    return {
        **{name: _class(*where, base_dir=str(home / name)) for name, where in stores.items()},
        "run_coordinator": _class(*coordinator, **QUEUE),
        "run_launcher": _class("resources.run_launcher", "WatchedRunLauncher"),
        "concurrency": {
            "pools": {"default_limit": 1, "granularity": "op"},
            "runs": {"tag_concurrency_limits": held},
        },
        "sensors": {"use_threads": True, "num_workers": 8},
        "run_monitoring": {
            "enabled": True,
            "poll_interval_seconds": 1,
            "start_timeout_seconds": 180,
            "free_slots_after_run_end_seconds": 1,
        },
        "run_retries": {"enabled": True, "max_retries": 1, "retry_on_asset_or_op_failure": False},
        "telemetry": {"enabled": False},
    }


def _class(module: str, name: str, **config: str | int) -> dict[str, Any]:
    return {"module": module, "class": name, **({"config": config} if config else {})}


@dataclass
class Site:
    """The three processes around one home; what a supervisor knows of them."""

    home: Path
    location: Path
    variables: Mapping[str, str]
    code_port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    mark: str = field(default_factory=lambda: f"mark-{uuid4().hex}")
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.web_port}"

    def commands(self) -> dict[str, list[str]]:
        python, workspace = sys.executable, ["-w", str(self.home / "workspace.yaml")]
        api = ["-m", "dagster", "api", "grpc", "-h", HOST, "-p", str(self.code_port)]
        code = ["--python-file", str(self.location), "--working-directory", str(REPOSITORY)]
        return {
            "code server": [python, *api, *code, "--location-name", "kiosks"],
            "daemon": [python, "-m", "tests.platform.quick_daemon", "run", *workspace],
            "web server": [python, "-m", "dagster_webserver", "-h", HOST, "-p", str(self.web_port), *workspace],
        }

    def start(self, name: str) -> None:
        """Start one of the three; its output is added to its log."""
        environment = {
            **os.environ,
            **self.variables,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "1",
            "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "yes",
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONWARNINGS": "ignore",
            MARK: self.mark,
        }
        with (self.home / f"{name.replace(' ', '-')}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(
                self.commands()[name],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @contextmanager
    def running(self, *, pages: bool = True) -> Iterator["Site"]:
        """All three, or those without pages, while the block lasts; afterwards no process of them is left."""
        server = {"host": HOST, "port": self.code_port, "location_name": "kiosks"}
        (self.home / "workspace.yaml").write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        try:
            self.start("code server")
            self.await_code()
            self.start("daemon")
            if pages:
                self.start("web server")
                wait_for("the web server", self.has_pages, START_SECONDS)
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """End the three, and what they left behind."""
        for child in self.children.values():
            child.kill()
            child.wait()
        end_all(self.mark)

    def supervise(self) -> None:
        """Start again what has died, and wait until there is code to run."""
        for name in [name for name, child in self.children.items() if child.poll() is not None]:
            self.start(name)
        self.await_code()

    def await_code(self) -> None:
        wait_for("the code server", lambda: is_listening(self.code_port), START_SECONDS)

    def has_pages(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=5):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def launch(self, assets: Sequence[str], keys: Sequence[str]) -> str:
        """Launch a backfill as the pages do, once they know the code again after a code server began anew; its id."""
        partitions = {tuple(asset.split("/")): keys for asset in assets}
        wait_for(
            "the assets in the pages", lambda: len(find_assets(self.url, partitions)) == len(partitions), START_SECONDS
        )
        return launch_partition_backfill(self.url, partitions).backfill_id

    def workers(self) -> list[int]:
        """Run workers: what the code server has spawned."""
        return spawned_by(self.children["code server"].pid)

    def steps(self) -> list[int]:
        """Steps: what the run workers have spawned."""
        return [step for worker in self.workers() for step in spawned_by(worker)]


def spawned_by(parent: int) -> list[int]:
    """The children of a process that were spawned to work for it, as multiprocessing does."""
    found = []
    for listed in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            children = listed.read_text().split()
            found += [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        except OSError:
            continue
    return found


def end_all(mark: str) -> None:
    """Kill every process that has a word in its environment; those too that one began while others were killed."""

    def is_over() -> bool:
        found = processes_marked(mark)
        for pid in sorted(found):
            kill(pid)
        return not found

    wait_for("the end of every process", is_over, 60)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; whether there was anyone to get it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
