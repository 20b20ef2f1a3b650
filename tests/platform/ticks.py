"""The daemon's part, in the test's own hands: ticks of our sensors, runs that wait in the queue, and their execution."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from resources.run_tags import asked_range
from tests.platform.sandbox import Sandbox

LANDING, DUE = "landing_files", "due_windows"


@dataclass
class Ticks:
    """The sensors of one code location as its server keeps them; `restart` starts a new server, and a new daemon."""

    sandbox: Sandbox
    cursors: dict[str, str | None] = field(default_factory=dict)
    queue: list[tuple[str, dg.RunRequest]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what processes keep; Dagster's storage, its cursors and its queue stay."""
        definitions = self.sandbox.definitions()
        self.sensors: dict[str, Any] = {sensor.name: sensor for sensor in definitions.sensors or ()}

    def evaluate(self, name: str) -> tuple[list[dg.RunRequest], str | None]:
        """One evaluation of a sensor, of which the daemon learns nothing yet: its requests, and its next cursor."""
        definitions = self.sandbox.definitions()
        with dg.build_sensor_context(
            instance=self.sandbox.instance,
            cursor=self.cursors.get(name),
            definitions=definitions,
            resources=dict(definitions.resources or {}),
        ) as context:
            told = self.sensors[name].evaluate_tick(context)
        return list(told.run_requests or ()), told.cursor

    def tick(self, name: str) -> list[str]:
        """One tick: what it launches waits in the queue, as 'offline/a offline/b 2025-03-01 2025-03-02'."""
        requests, cursor = self.evaluate(name)
        self.launch(requests)
        self.cursors[name] = cursor
        return [_text(request) for request in requests]

    def launch(self, requests: list[dg.RunRequest]) -> None:
        job = self.sandbox.definitions().resolve_implicit_global_asset_job_def()
        for request in requests:
            keys = set(request.asset_selection or ())
            run = self.sandbox.instance.create_run_for_job(
                job.get_subset(asset_selection=keys),
                tags=request.tags,
                status=dg.DagsterRunStatus.STARTED,
                asset_selection=keys,
            )
            self.queue.append((run.run_id, request))

    def work(self) -> list[bool]:
        """Execute what waits in the queue; whether each run succeeded."""
        done = []
        for run_id, request in self.queue:
            self.sandbox.instance.delete_run(run_id)
            paths = [key.to_user_string() for key in request.asset_selection or ()]
            done.append(self.sandbox.run(*paths, partitions=asked_range(request.tags), tags=dict(request.tags)).success)
        self.queue.clear()
        return done

    def fail(self) -> None:
        """End what waits in the queue without a word of it anywhere else, as a machine does that goes down."""
        for run_id, _ in self.queue:
            run = self.sandbox.instance.get_run_by_id(run_id)
            assert run is not None
            self.sandbox.instance.report_run_failed(run)
        self.queue.clear()

    def settle(self, minutes: int = 30) -> None:
        """Ticks and runs in turn, a minute apart, until neither sensor has asked for anything for two minutes."""
        quiet = 0
        for _ in range(minutes):
            self.work()
            quiet = 0 if [*self.tick(LANDING), *self.tick(DUE)] else quiet + 1
            if quiet == 3:
                return
            self.pass_time(timedelta(minutes=1))
        raise AssertionError(f"something is launched for ever: {[_text(request) for _, request in self.queue]}")

    def pass_time(self, span: timedelta) -> datetime:
        self.sandbox.now += span
        return self.sandbox.now


def _text(request: dg.RunRequest) -> str:
    paths = sorted(key.to_user_string() for key in request.asset_selection or ())
    return " ".join([*paths, *(asked_range(request.tags) or ())])
