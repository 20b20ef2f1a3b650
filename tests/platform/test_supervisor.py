"""The platform's real processes: web server, daemon and online store, from start to the last child's end.

Each start takes half a minute and more, so all of it waits for the exam.
"""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
import redis

from deploy.platform import Platform, is_listening, running_platform
from feature_assets.groups.flights import catalog
from feature_assets.groups.flights.sources import departures
from featurestore.backfill.dagster_api import backfill_status, launch_partition_backfill
from featurestore.errors import InvalidInput, StoreUnavailable, UnknownName
from featurestore.ports import free_ports
from tests.browser import Page, needs_chromium, open_page
from tests.platform.airline import DAY, FIRST, REPOSITORY, dagster_home, flight, key, processes_marked
from tests.platform.sandbox import Sandbox
from tests.waiting import wait_for

pytestmark = pytest.mark.exam

GROUP = "carrier_delay_daily"
ASSET = f"offline/{GROUP}"
PATH = ("offline", GROUP)
GOOD_DAYS, BAD_DAY = 8, 8
IMPOSSIBLE = 50_000.0
PATIENCE_SECONDS = 600


@dataclass
class Site:
    """A home of Dagster with a small store beside it: eight good days, and one that is held."""

    home: Path
    sandbox: Sandbox
    mark: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DAGSTER_HOME": str(self.home),
            "FEATURESTORE_SCHEDULE": "off",
            "FEATURESTORE_ROOT": str(self.sandbox.root),
            "FEATURESTORE_LANDING": str(self.sandbox.landing),
            "FEATURESTORE_ONLINE_URL": self.sandbox.online_url,
            "FEATURESTORE_TEST_MARK": self.mark,
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONWARNINGS": "ignore",
        }

    @contextmanager
    def running(self) -> Iterator[Platform]:
        with running_platform(self.environment, self.home / "logs") as platform:
            yield platform


@pytest.fixture
def site(tmp_path: Path, valkey_url: str) -> Iterator[Site]:
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    home = dagster_home(tmp_path / "home")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        sandbox = Sandbox(tmp_path, instance, catalog, now=FIRST + 30 * DAY, online_url=valkey_url)
        rows = [flight(day, carrier, 5.0 + day) for day in range(GOOD_DAYS) for carrier in ("UA", "B6")]
        sandbox.ingest(departures, [*rows, flight(BAD_DAY, "UA", IMPOSSIBLE)])
        assert not sandbox.run(ASSET, partitions=[key(2), key(BAD_DAY)]).success
        yield Site(home, sandbox, f"mark-{uuid4().hex}")


def await_end(site: Site) -> None:
    """Whoever is killed is gone a moment later, as the helpers are that Python gives to processes."""
    wait_for("the end of every process", lambda: processes_marked(site.mark) == {}, 60)


def test_backfill_over_graphql_ends_through_the_daemon_and_moves_the_online_copy(site: Site) -> None:
    with site.running() as platform:
        backfill = launch_partition_backfill(platform.url, {PATH: [key(0), key(1)]})
        wait_for("the backfill", lambda: backfill_status(platform.url, backfill.backfill_id).is_done, PATIENCE_SECONDS)
        status = backfill_status(platform.url, backfill.backfill_id)
        assert (status.status, status.runs) == ("COMPLETED_SUCCESS", 1)
        assert site.sandbox.materialized(ASSET) == [key(day) for day in range(GOOD_DAYS)]
        online = dg.AssetKey(["online", GROUP])
        wait_for(
            "the online copy",
            lambda: bool(site.sandbox.instance.get_latest_materialization_event(online)),
            PATIENCE_SECONDS,
        )
        runs = site.sandbox.instance.get_runs(dg.RunsFilter(tags={"dagster/from_automation_condition": "true"}))
        assert runs, "the online copy was moved by hand"
        assert processes_marked(site.mark), "the mark is not found on living processes"
    await_end(site)
    assert not is_listening(platform.port)


def test_refused_backfill_says_why_and_an_unknown_one_is_not_found(site: Site) -> None:
    with site.running() as platform:
        with pytest.raises(
            InvalidInput, match=r"no partitions 1999-01-01 of 'offline/carrier_delay_daily'; those it has: "
        ):
            launch_partition_backfill(platform.url, {PATH: ["1999-01-01", key(0)]})
        with pytest.raises(UnknownName, match="no asset 'offline/nothere'"):
            launch_partition_backfill(platform.url, {("offline", "nothere"): [key(0)]})
        with pytest.raises(UnknownName, match="no backfill nothere"):
            backfill_status(platform.url, "nothere")
    with pytest.raises(StoreUnavailable, match="does not answer"):
        backfill_status(platform.url, "nothere")


def test_error_in_the_block_still_ends_every_process(site: Site) -> None:
    def fail() -> None:
        with site.running():
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    await_end(site)


def test_taken_port_is_refused_and_nothing_is_started(site: Site, valkey_url: str) -> None:
    taken = int(valkey_url.split(":")[2].split("/")[0])
    with (
        pytest.raises(StoreUnavailable, match=f"Port {taken} is taken"),
        running_platform(site.environment, site.home / "logs", taken),
    ):
        pass
    assert processes_marked(site.mark) == {}


def test_broken_home_is_reported_with_its_log_and_nothing_is_left(site: Site) -> None:
    (site.home / "dagster.yaml").write_text("run_storage: {module: nowhere, class: Nothing}\n")
    with pytest.raises(StoreUnavailable, match=r"(?s)ended with .*nowhere"), site.running():
        pass
    await_end(site)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted_make_up_ends_everything_that_it_started(site: Site, number: signal.Signals) -> None:
    port, serve_port, board_port = free_ports(3)
    ports = {"PORT": str(port), "SERVE_PORT": str(serve_port), "BOARD_PORT": str(board_port)}
    environment = {**os.environ, **site.environment, **ports}
    command = [sys.executable, "-m", "deploy.up"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = ""
    try:
        while "Ctrl-C stops everything" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        assert f"http://127.0.0.1:{port}" in said
        with urllib.request.urlopen(f"http://127.0.0.1:{serve_port}/health", timeout=30) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{board_port}/health", timeout=30) as answer:
            assert answer.status == 200
        assert len(processes_marked(site.mark)) >= 4
        process.send_signal(number)
        rest, _ = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, said + rest
    assert rest.strip().endswith("Stopped.")
    await_end(site)
    assert not is_listening(port)
    assert not is_listening(serve_port)
    assert not is_listening(board_port)


@needs_chromium
def test_pages_show_the_graph_and_the_state_of_partitions(site: Site, tmp_path: Path) -> None:
    check = ("gate", "quarantine", "Failed", key(BAD_DAY), "range of 'dep_delay_mean_7d' is")
    partition = ("Failed (1)", "Materialized (6)", key(BAD_DAY), "failed, and did not materialize this asset")
    pages = {
        "overview": (f"/assets/{ASSET}", ("network-operations", "Mean departure delay over 7 days [min]")),
        "partitions": (f"/assets/{ASSET}?view=partitions&partition={key(BAD_DAY)}", partition),
        "checks": (f"/assets/{ASSET}?view=checks", check),
    }
    groups = {group.stored_name for group in catalog.groups}
    with site.running() as platform, open_page(platform.url, tmp_path, (1500, 950)) as page:
        page.open("/asset-groups")
        page.until("the graph", lambda: {"raw", "offline", "online", "training"} <= lines(page))
        page.picture("graph")
        page.open("/locations/__repository__@flights/asset-groups/offline/lineage")
        # The page holds only what is in view.
        page.until("three groups", lambda: len(groups & lines(page)) >= 3)
        page.picture("group")
        for name, (path, words) in pages.items():
            page.open(path)
            page.shows(*words)
            page.picture(name)
    await_end(site)


def lines(page: Page) -> set[str]:
    return {line.strip() for line in page.text.splitlines()}
