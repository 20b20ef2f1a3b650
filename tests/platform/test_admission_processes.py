"""Admission with Dagster's real processes: what is launched over GraphQL is held, let go and cancelled in its real queue."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from featurestore.backfill.dagster_api import launch_partition_backfill, post
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import AuditEntry, State
from resources.run_tags import ADMISSION, BACKFILL, REASON
from tests.platform.admission_location import NOW, catalog
from tests.platform.airline import REPOSITORY, dagster_home
from tests.platform.crash_site import Site
from tests.platform.kiosks import DAY, HOUR, T0, day_key, order, orders
from tests.platform.run_queue import range_tags
from tests.platform.sandbox import Sandbox
from tests.waiting import wait_for

ASSET = ("offline", "kiosk_sales_daily")
LOCATION = REPOSITORY / "tests" / "platform" / "admission_location.py"
SECONDS = 600
LAUNCH_RUN = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""


@dataclass
class Desk:
    """A running platform, and what a person does at it."""

    site: Site
    sandbox: Sandbox

    @property
    def book(self) -> BackfillBook:
        return BackfillBook.open(f"sqlite:///{self.sandbox.root / 'metadata.db'}", lambda: self.sandbox.now)

    def backfill(self, first: int, last: int, tags: Mapping[str, str] | None = None) -> str:
        keys = [day_key(day) for day in range(first, last + 1)]
        return launch_partition_backfill(self.site.url, {ASSET: keys}, tags=tags).backfill_id

    def run_by_hand(self, day: int, tags: Mapping[str, str] | None = None) -> str:
        """Launch one partition as the dialog does: no backfill, a run."""
        said = {**range_tags([day_key(day)]), **(tags or {})}
        selector = {
            "repositoryLocationName": "kiosks",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": list(ASSET)}],
        }
        metadata = {"tags": [{"key": name, "value": value} for name, value in said.items()]}
        params = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": metadata}
        answer = post(self.site.url, LAUNCH_RUN, {"params": params})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def runs(self, backfill_id: str) -> Sequence[dg.DagsterRun]:
        return self.sandbox.instance.get_runs(dg.RunsFilter(tags={BACKFILL: backfill_id}))

    def states(self, backfill_id: str) -> list[tuple[str, str]]:
        """Status and admission of the runs of a backfill."""
        return [(run.status.value, run.tags.get(ADMISSION, "")) for run in self.runs(backfill_id)]

    def await_states(self, backfill_id: str, *states: tuple[str, str]) -> None:
        wanted = sorted(states)
        wait_for(f"{backfill_id} as {wanted}", lambda: sorted(self.states(backfill_id)) == wanted, SECONDS, 0.5)

    def decide(self, backfill_id: str, state: State, reason: str) -> None:
        entry = AuditEntry(backfill_id, self.sandbox.now, state, "team:kiosks", "tests", reason)
        self.book.decide(backfill_id, state, entry)


@contextmanager
def open_desk(folder: Path) -> Iterator[Desk]:
    home = dagster_home(folder / "home")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs_count()
        sandbox = Sandbox(folder, instance, catalog, now=T0 + 30 * DAY)
        sandbox.ingest(orders, [order(day, T0 + day * DAY + HOUR) for day in range(10)])
        variables = {
            "FEATURESTORE_SCHEDULE": "off",
            "FEATURESTORE_ROOT": str(sandbox.root),
            "FEATURESTORE_LANDING": str(sandbox.landing),
            "FEATURESTORE_METADATA_URL": "",
            NOW: sandbox.now.isoformat(),
        }
        with Site(home, LOCATION, variables).running() as site:
            yield Desk(site, sandbox)


def test_launches_below_the_limit_land_and_one_above_it_waits_whatever_its_tags_say(tmp_path: Path) -> None:
    with open_desk(tmp_path) as desk:
        below = desk.backfill(0, 1)
        desk.await_states(below, ("SUCCESS", "admitted"))
        above = desk.backfill(2, 4, {ADMISSION: "approved", BACKFILL: below})
        desk.await_states(above, ("QUEUED", "pending"))
        assert desk.sandbox.materialized("/".join(ASSET)) == [day_key(0), day_key(1)]
        desk.decide(above, "rejected", "wait for the mended feed")
        # For a moment it still says that it waits, until the next look of the sensor.
        desk.await_states(above, ("CANCELED", "rejected"))
        assert "wait for the mended feed" in desk.runs(above)[0].tags[REASON]
        wait_for("the backfill's end", lambda: status(desk, above) == "CANCELED", SECONDS, 0.5)
        assert "wait for the mended feed" in str(desk.sandbox.instance.get_backfill(above).error)  # type: ignore[union-attr]


@pytest.mark.exam
def test_approval_frees_a_waiting_backfill_and_small_launches_by_hand_wait_too(tmp_path: Path) -> None:
    with open_desk(tmp_path) as desk:
        first = desk.run_by_hand(0)
        others = [desk.run_by_hand(day, {ADMISSION: "approved", "dagster/backfill": first}) for day in (1, 2, 3)]
        desk.await_states(first, ("SUCCESS", "admitted"))
        for other in others:
            desk.await_states(other, ("QUEUED", "pending"))
        waiting = desk.backfill(4, 8)
        desk.await_states(waiting, ("QUEUED", "pending"))
        desk.decide(waiting, "approved", "month end")
        desk.await_states(waiting, ("SUCCESS", "approved"))
        wait_for("the backfill's end", lambda: status(desk, waiting) == "COMPLETED_SUCCESS", SECONDS, 0.5)
        assert desk.sandbox.materialized("/".join(ASSET)) == [day_key(day) for day in (0, 4, 5, 6, 7, 8)]
        for other in others:
            assert desk.states(other) == [("QUEUED", "pending")]


def status(desk: Desk, backfill_id: str) -> str:
    backfill = desk.sandbox.instance.get_backfill(backfill_id)
    return backfill.status.value if backfill is not None else ""
