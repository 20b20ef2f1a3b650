"""Dagster's own run launcher, which also says whether a run's worker still lives.

The stock launcher leaves that to the code server that started the worker. If the code server dies with its runs, nobody
notices: they stay started, and hold their tables' pools, until `max_runtime_seconds` is over. Here run monitoring asks
the code server of each started run, and fails a run of which nobody knows, so that it is retried and its pools are free.

A worker that outlived its code server may be failed while it still writes. The fence of the tables is made for that: it
commits before a newer run of the same windows, or not at all.
"""

import json

import grpc
from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import ConfigurableClassData, deserialize_value

from resources.retries import promise_retry

PATIENCE = 3
ANSWER_SECONDS = 10


class WatchedRunLauncher(DefaultRunLauncher):
    """A run counts as lost when its code server was gone, or did not know it, `PATIENCE` times in a row.

    A code server that is busy and answers late says nothing about its runs.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._misses: dict[str, int] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Asked by run monitoring of every started run, each time it looks."""
        misses = self._misses.pop(run.run_id, 0)
        if _is_known(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if misses + 1 < PATIENCE:
            self._misses[run.run_id] = misses + 1
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if self.has_instance:
            promise_retry(self._instance, run)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "nobody knows its worker; its code server is gone")


def _is_known(run: DagsterRun) -> bool:
    """Whether the run's code server knows its worker; also if it does not say in time."""
    client = _code_server(run)
    if client is None:
        return True
    try:
        answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=ANSWER_SECONDS)
    except DagsterUserCodeUnreachableError as error:
        return _is_late(error)
    return deserialize_value(answer, CanCancelExecutionResult).can_cancel


def _code_server(run: DagsterRun) -> DagsterGrpcClient | None:
    """The code server that the run was launched on; None if it was launched in another way."""
    if GRPC_INFO_TAG not in run.tags:
        return None
    at = json.loads(run.tags[GRPC_INFO_TAG])
    return DagsterGrpcClient(at.get("port"), at.get("socket"), at.get("host"), bool(at.get("use_ssl")))


def _is_late(error: DagsterUserCodeUnreachableError) -> bool:
    cause = error.__cause__
    return isinstance(cause, grpc.RpcError) and cause.code() == grpc.StatusCode.DEADLINE_EXCEEDED
