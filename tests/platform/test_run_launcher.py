"""Whether a run's worker lives: what run monitoring is told of code servers that are gone, silent, or new."""

import json
import socket
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from deploy.platform import HOST
from resources import run_launcher
from resources.run_launcher import PATIENCE, WatchedRunLauncher


def run_on(port: int) -> dg.DagsterRun:
    """A run that was launched on the code server of a port."""
    return dg.DagsterRun("job", tags={GRPC_INFO_TAG: json.dumps({"host": HOST, "port": port})})


def looks(launcher: WatchedRunLauncher, run: dg.DagsterRun, count: int) -> list[WorkerStatus]:
    return [launcher.check_run_worker_health(run).status for _ in range(count)]


@pytest.fixture
def closed_ports() -> Iterator[list[int]]:
    """Two ports on which nobody listens, nor can anyone else."""
    with socket.socket() as first, socket.socket() as second:
        for holder in (first, second):
            holder.bind((HOST, 0))
        yield [holder.getsockname()[1] for holder in (first, second)]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which someone listens and never answers."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_run_whose_code_server_is_gone_is_lost_after_some_looks(closed_ports: list[int]) -> None:
    run = run_on(closed_ports[0])
    assert looks(WatchedRunLauncher(), run, PATIENCE) == [WorkerStatus.RUNNING] * (PATIENCE - 1) + [
        WorkerStatus.NOT_FOUND
    ]


def test_each_run_is_looked_at_alone(closed_ports: list[int]) -> None:
    launcher = WatchedRunLauncher()
    first, second = map(run_on, closed_ports)
    assert looks(launcher, first, PATIENCE - 1) == [WorkerStatus.RUNNING] * (PATIENCE - 1)
    assert looks(launcher, second, 1) == [WorkerStatus.RUNNING]
    assert looks(launcher, first, 1) == [WorkerStatus.NOT_FOUND]


def test_code_server_that_does_not_answer_in_time_says_nothing(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_launcher, "ANSWER_SECONDS", 0.2)
    assert looks(WatchedRunLauncher(), run_on(silent_port), PATIENCE) == [WorkerStatus.RUNNING] * PATIENCE


def test_run_that_no_code_server_launched_is_left_alone() -> None:
    assert looks(WatchedRunLauncher(), dg.DagsterRun("job"), PATIENCE) == [WorkerStatus.RUNNING] * PATIENCE
