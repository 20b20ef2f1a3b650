"""Backfills launched, watched and resumed from the command line: over a fake web server, and once over Dagster's own."""

import http.server
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from dagster_graphql.schema import create_schema
from graphql import parse, validate

from featurestore.backfill.dagster_api import AssetPath, launch_partition_backfill
from featurestore.backfill.graphql import ASSETS, FAILURE, LAUNCH, NEWEST, STATUS
from featurestore.cli.main import main
from featurestore.clock import system_clock
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput, UnknownName
from featurestore.launch import Launch, Strategy
from featurestore.metadata.request import AuditEntry, BackfillRequest, RequestedWindows, State
from featurestore.promotion import materialize_windows
from tests.cli_project import DAY, LAST_WINDOW, Project, departure, fill
from tests.platform import crash_location
from tests.platform.crash_location import LANDING, NOW, ROOT
from tests.platform.crash_site import Site, crash_home
from tests.platform.fake_dagster import FakeDagster, serving
from tests.platform.kiosks import HOUR, T0, TOO_MUCH, day_key, order, orders
from tests.platform.sandbox import Sandbox
from tests.waiting import wait_for

GROUP = "carrier_delay_daily"
ASSET = f"offline/{GROUP}"
KEYS = [f"2026-03-{day:02}" for day in range(1, 10)]
WINDOWS = dict(zip(KEYS, [LAST_WINDOW - back * DAY for back in reversed(range(9))], strict=True))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with nine days of departures, of which the last three are promoted, by a run named 'test'."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("project")
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        made = Project(folder)
        fill(made)
        made.land("departures", [departure("UA", LAST_WINDOW - back * DAY, 5.0) for back in range(3, 10)])
        yield made.root


@pytest.fixture
def project(tmp_path: Path, filled: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of its own with a copy of that store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LOGNAME", "anna")
    made = Project(tmp_path)
    shutil.copytree(filled, made.root)
    made.declare()
    return made


@pytest.fixture
def dagster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDagster]:
    fake = FakeDagster({ASSET: [*KEYS, "2026-03-10"]}, {ASSET: ["test"]})
    with serving(fake):
        monkeypatch.setenv("FEATURESTORE_DAGSTER_URL", fake.url)
        yield fake


def compute(project: Project, backfill_id: str, *keys: str, strategy: Strategy = "full") -> None:
    """What the runs of a backfill do with some windows."""
    windows = [TimeWindow(WINDOWS[key], WINDOWS[key] + DAY) for key in keys]
    launch = Launch(backfill_id, strategy)
    group = project.catalog.group(GROUP)
    materialize_windows(project.store.offline, project.catalog, group, windows, run_id=f"run-{keys[0]}", launch=launch)


def record(project: Project, backfill_id: str, *keys: str, state: State = "admitted", **estimate: float) -> None:
    """What the book has of a backfill."""
    asked = RequestedWindows(GROUP, keys, estimate)
    request = BackfillRequest(
        backfill_id, project.clock(), "anna", "full", (asked,), "pending" if state == "approved" else state
    )
    book = project.store.settings.book(project.clock)
    book.record(request)
    if state == "approved":
        book.decide(backfill_id, state, AuditEntry(backfill_id, project.clock(), state, "team:ops", "ops", ""))


def told(result: Result) -> str:
    """A message as one line, however it was wrapped."""
    return " ".join(result.output.split())


@pytest.mark.parametrize("query", [LAUNCH, ASSETS, STATUS, FAILURE, NEWEST])
def test_every_query_is_one_that_dagster_understands(query: str) -> None:
    assert validate(create_schema().graphql_schema, parse(query)) == []


# launch


def test_launch_sends_what_the_dialog_would_and_who_asked(project: Project, dagster: FakeDagster) -> None:
    options = ["--from", "2026-03-02", "--to", "2026-03-04", "--accept-shift", "--strategy", "incremental"]
    launched = project.json("backfill", "launch", GROUP, *options)
    (accepted,) = dagster.backfills.values()
    assert (accepted.paths, accepted.names) == ([["offline", GROUP]], KEYS[1:4])
    assert accepted.tags == {
        "featurestore/strategy": "incremental",
        "featurestore/accept_shift": "true",
        "featurestore/requested_by": "anna",
    }
    assert launched["backfill_id"] == "backfill0"
    assert launched["url"] == f"{dagster.url}/runs/b/backfill0"
    assert launched["groups"][0]["keys"] == KEYS[1:4]
    assert not launched["waits_for_approval"]


def test_launch_says_id_page_estimate_and_what_comes_next(project: Project, dagster: FakeDagster) -> None:
    text = project.run("backfill", "launch", GROUP).stdout
    assert f"Dagster has accepted backfill backfill0: 9 windows.\n  {dagster.url}/runs/b/backfill0" in text
    assert "Windows   9 windows, 2026-03-01 to 2026-03-09" in text
    assert "Limit     25.00 USD without approval; 0.00 USD of it spent in the last 24 hours" in text
    assert "Dry run   passed on 2026-03-09" in text
    assert "bytes_scanned" in text
    assert "nothing waits for approval" in text
    assert text.rstrip().endswith("How far it is: featurestore backfill status backfill0")


def test_missing_windows_are_sent_by_name_with_the_gaps_left_out(project: Project, dagster: FakeDagster) -> None:
    compute(project, "", "2026-03-03")
    project.run("backfill", "launch", GROUP, "--missing")
    assert dagster.backfills["backfill0"].names == [key for key in KEYS[:6] if key != "2026-03-03"]


def test_launch_of_nothing_says_why_and_sends_nothing(project: Project, dagster: FakeDagster) -> None:
    refused = project.run("backfill", "launch", GROUP, "--from", "2026-03-07", "--missing", exit_code=1)
    assert "of its 3 windows, 2026-03-07 to 2026-03-09, none was never promoted" in told(refused)
    assert dagster.backfills == {}


def test_transform_of_another_version_is_stale(project: Project, dagster: FakeDagster) -> None:
    project.declare(('pl.col("delay").mean()', 'pl.col("delay").mean().round(1)'))
    project.run("apply")
    project.run("backfill", "launch", GROUP, "--stale-code")
    assert dagster.backfills["backfill0"].names == KEYS[6:]


def test_transform_that_fails_its_trial_is_not_queued(project: Project, dagster: FakeDagster) -> None:
    project.declare(('delay_mean_7d=pl.col("delay").mean()', 'delay_mean_7d=pl.col("delay").mean() + 5000'))
    refused = project.run("backfill", "launch", GROUP, exit_code=1)
    assert "Nothing is launched. The dry run of 'carrier_delay_daily' on window 2026-03-09" in told(refused)
    assert "delay_mean_7d" in told(refused)
    assert dagster.backfills == {}


def test_backfill_above_the_limit_is_said_to_wait_and_how_it_is_approved(
    project: Project, dagster: FakeDagster
) -> None:
    rules = 'backfill=Backfill(approval_limit_usd=0, approvers=("eve@x.org",))'
    ttl = "online=Online(ttl=timedelta(days=7)),"
    project.declare((ttl, f"{ttl} {rules},"), ("import Catalog,", "import Backfill, Catalog,"))
    project.run("apply")
    text = project.run("backfill", "launch", GROUP).stdout
    assert "It will wait for approval. These may decide: carrier_delay_daily: team:ops or eve@x.org." in text
    assert "featurestore backfill approve backfill0 --as WHO --reason WHY" in text
    assert project.json("backfill", "plan", GROUP)["waits_for_approval"]


def test_spending_of_the_last_day_counts_against_the_limit(project: Project, dagster: FakeDagster) -> None:
    record(project, "earlier", "2026-03-01", cost_usd=24.9999999)
    planned = project.json("backfill", "plan", GROUP)
    assert planned["groups"][0]["spent_24h_usd"] == 24.9999999
    assert planned["waits_for_approval"]
    project.clock.now += timedelta(hours=25)
    assert not project.json("backfill", "plan", GROUP)["waits_for_approval"]


def test_keys_that_dagster_lacks_are_named_and_nothing_is_sent(project: Project, dagster: FakeDagster) -> None:
    dagster.assets[ASSET] = KEYS[2:]
    refused = project.run("backfill", "launch", GROUP, exit_code=1)
    assert f"has no partitions 2026-03-01, 2026-03-02 of '{ASSET}'; those it has: 2026-03-03 to 2026-03-09" in told(
        refused
    )
    assert dagster.backfills == {}
    with pytest.raises(InvalidInput, match="no partitions 1999-01-01"):
        launch_partition_backfill(dagster.url, {("offline", GROUP): ["1999-01-01"]})


def test_group_that_dagster_lacks_is_named_with_the_remedy(project: Project, dagster: FakeDagster) -> None:
    dagster.assets = {}
    refused = project.run("backfill", "launch", GROUP, exit_code=1)
    assert f"has no asset '{ASSET}'. Load the code location that declares it" in told(refused)


def test_dagster_of_another_store_is_recognised_by_runs_that_this_one_does_not_know(
    project: Project, dagster: FakeDagster
) -> None:
    dagster.run_ids[ASSET] = ["elsewhere-2", "elsewhere-1"]
    refused = project.run("backfill", "launch", GROUP, exit_code=1)
    assert "seems to work on another store: its run elsewhere-2 materialized" in told(refused)
    assert "knows none of its last 2 runs" in told(refused)
    dagster.run_ids[ASSET].append("test")
    project.run("backfill", "launch", GROUP)


def test_dagster_that_has_materialized_nothing_yet_is_believed(project: Project, dagster: FakeDagster) -> None:
    dagster.run_ids = {}
    project.run("backfill", "launch", GROUP)
    assert len(dagster.backfills) == 1


def test_refusal_of_dagster_is_quoted(project: Project, dagster: FakeDagster) -> None:
    dagster.refusal = "launching is not allowed"
    refused = project.run("backfill", "launch", GROUP, exit_code=1)
    assert "refuses the backfill: UnauthorizedError: launching is not allowed" in told(refused)


def test_server_that_is_down_or_another_is_told_with_the_remedy(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATURESTORE_DAGSTER_URL", "http://127.0.0.1:9")
    refused = project.run("backfill", "launch", GROUP, exit_code=1)
    assert "Dagster at http://127.0.0.1:9 does not answer" in told(refused)
    assert "Start it with 'make up', or give its address: --dagster-url" in told(refused)
    assert "no address of a web server" in told(
        project.run("backfill", "launch", GROUP, "--dagster-url", "localhost:3000", exit_code=1)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}"
        refused = project.run("backfill", "launch", GROUP, "--dagster-url", url, exit_code=1)
        other.shutdown()
    assert f"What answers at {url} is not Dagster's web server" in told(refused)


def test_group_that_is_not_read_cannot_be_left_out(project: Project, dagster: FakeDagster) -> None:
    refused = project.run("backfill", "launch", GROUP, "--without", "seat_profile", exit_code=1)
    assert "It reads sources alone, which are never waited for" in told(refused)


def test_assets_with_other_windows_are_sent_as_ranges(project: Project, dagster: FakeDagster) -> None:
    dagster.assets["offline/other"] = KEYS
    asked: dict[AssetPath, list[str]] = {("offline", GROUP): [*KEYS[:2], *KEYS[4:5]], ("offline", "other"): KEYS[3:6]}
    launch_partition_backfill(dagster.url, asked)
    assert [one["partitions"]["ranges"] for one in dagster.backfills["backfill0"].params["partitionsByAssets"]] == [
        [{"start": KEYS[0], "end": KEYS[1]}, {"start": KEYS[4], "end": KEYS[4]}],
        [{"start": KEYS[3], "end": KEYS[5]}],
    ]


# plan


def test_plan_launches_and_writes_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURESTORE_DAGSTER_URL", "http://127.0.0.1:9")
    before = sorted(path for path in project.root.rglob("*") if path.name != "metadata.db")
    text = project.run("backfill", "plan", GROUP, "--from", "2026-03-02", "--to", "2026-03-05").stdout
    assert "Windows   4 windows, 2026-03-02 to 2026-03-05" in text
    assert "It would start at once.\n\nNothing was launched." in text
    assert sorted(path for path in project.root.rglob("*") if path.name != "metadata.db") == before


def test_plan_of_a_transform_that_fails_says_that_it_would_be_refused(project: Project) -> None:
    project.declare(('delay_mean_7d=pl.col("delay").mean()', 'delay_mean_7d=pl.col("delay").mean() + 5000'))
    planned = project.json("backfill", "plan", GROUP)
    assert "The dry run of 'carrier_delay_daily' on window 2026-03-09" in planned["refusal"]
    assert "It would be refused. The dry run" in told(project.run("backfill", "plan", GROUP))


# status


def test_status_counts_windows_rows_bytes_and_time(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP)
    backfill = dagster.backfills["backfill0"]
    record(project, "backfill0", *KEYS, compute_seconds=8.0, overhead_seconds=1.0)
    waiting = project.json("backfill", "status", "backfill0")["progress"]
    assert (waiting["promoted"], waiting["waiting"], waiting["seconds_left"], waiting["rests_on"]) == (
        0,
        9,
        9,
        "estimate",
    )
    backfill.timestamp = (project.clock() - timedelta(seconds=61)).timestamp()
    backfill.runs = [{"id": "run0", "status": "STARTED", "startTime": backfill.timestamp + 1}]
    compute(project, "backfill0", *KEYS[:6])
    status = project.json("backfill", "status", "backfill0")
    progress, (group,) = status["progress"], status["groups"]
    assert (progress["windows"], progress["promoted"], progress["held"], progress["waiting"]) == (9, 6, 0, 3)
    assert (progress["seconds"], progress["rests_on"]) == (60, "pace")
    assert progress["seconds_left"] == pytest.approx(30, abs=0.01)
    assert group["rows"] == project.store.offline.table(GROUP).scan().collect().height - 6
    files = [path.stat().st_size for path in (project.root / f"feature_group={GROUP}").rglob("*.parquet")]
    assert 0 < group["written_bytes"] <= sum(files)
    assert status["attempts"][0]["dagster"]["runs"] == {"STARTED": 1}
    assert not status["is_over"]


def test_windows_that_were_current_already_are_done_and_nothing_is_left_of_them(
    project: Project, dagster: FakeDagster
) -> None:
    compute(project, "", *KEYS[4:])
    project.run("backfill", "launch", GROUP, "--strategy", "incremental")
    record(project, "backfill0", *KEYS, compute_seconds=90.0)
    compute(project, "backfill0", *KEYS[4:], strategy="incremental")
    halfway = project.json("backfill", "status", "backfill0")["progress"]
    assert (halfway["current"], halfway["waiting"], halfway["rests_on"]) == (5, 4, "estimate")
    compute(project, "backfill0", *KEYS[:4], strategy="incremental")
    dagster.backfills["backfill0"].end("COMPLETED_SUCCESS", "SUCCESS")
    status = project.json("backfill", "status", "backfill0")
    (group,) = status["groups"]
    assert (group["promoted"], group["current"], status["progress"]["waiting"]) == (4, 5, 0)
    assert (status["progress"]["fraction"], status["progress"]["rests_on"]) == (1, "nothing is left")
    text = told(project.run("backfill", "status", "backfill0"))
    assert "9 of 9 done (100%): 4 promoted, 0 held, 5 left as they were" in text
    assert "What is left" not in text
    assert "Nothing is left" in told(project.run("backfill", "resume", "backfill0", exit_code=1))


def test_status_of_one_that_waits_says_how_to_approve_it(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP)
    record(project, "backfill0", *KEYS, state="pending", compute_seconds=90.0)
    text = project.run("backfill", "status", "backfill0").stdout
    assert text.startswith("Backfill backfill0: pending; in Dagster REQUESTED")
    assert "not begun, about 1 min 30 s left by the estimate" in text
    assert "It waits for approval: featurestore backfill approve backfill0 --as WHO --reason WHY" in " ".join(
        text.split()
    )


def test_status_without_dagster_says_so_and_tells_what_the_store_knows(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATURESTORE_DAGSTER_URL", "http://127.0.0.1:9")
    record(project, "known", *KEYS)
    compute(project, "known", *KEYS[:2])
    compute(project, "unknown", *KEYS[2:4])
    known, unknown = (project.json("backfill", "status", name) for name in ("known", "unknown"))
    assert "does not answer" in known["note"]
    assert (known["progress"]["promoted"], known["progress"]["windows"]) == (2, 9)
    assert (unknown["progress"]["promoted"], unknown["progress"]["windows"]) == (2, 2)
    assert unknown["attempts"][0]["request"] is None
    assert "does not answer" in project.run("backfill", "status", "unknown").stdout


def test_status_of_one_that_the_book_does_not_know_takes_its_windows_from_dagster(
    project: Project, dagster: FakeDagster
) -> None:
    project.run("backfill", "launch", GROUP)
    assert project.json("backfill", "status", "backfill0")["progress"]["windows"] == 9
    assert "not in the book yet; in Dagster REQUESTED" in project.run("backfill", "status", "backfill0").stdout


def test_status_of_an_id_that_nobody_knows_is_refused(project: Project, dagster: FakeDagster) -> None:
    refused = project.run("backfill", "status", "nothere", exit_code=1)
    assert "'nothere' is not in the book, and no window of the store is of it" in told(refused)


def test_status_tells_held_windows_and_where_to_look(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP, "--to", "2026-03-03")
    record(project, "backfill0", *KEYS[:3])
    project.land("departures", [departure("XX", WINDOWS["2026-03-03"] + timedelta(hours=1), 9000.0)])
    compute(project, "backfill0", *KEYS[:3])
    dagster.backfills["backfill0"].end("COMPLETED_FAILED", "FAILURE")
    status = project.json("backfill", "status", "backfill0")
    assert status["groups"][0]["held"] == ["2026-03-03"]
    assert (status["progress"]["rests_on"], status["is_over"]) == ("nothing is left", True)
    text = told(project.run("backfill", "status", "backfill0"))
    assert f"Held by their gate: {GROUP} 2026-03-03. Why: featurestore backfill inspect backfill0" in text
    assert "Runs 1 failure" in text


def test_status_of_runs_that_left_nothing_here_asks_whether_it_is_the_same_store(
    project: Project, dagster: FakeDagster
) -> None:
    project.run("backfill", "launch", GROUP)
    dagster.backfills["backfill0"].end("COMPLETED_SUCCESS", "SUCCESS")
    assert "compare FEATURESTORE_ROOT there with --root here" in told(project.run("backfill", "status", "backfill0"))


def test_status_of_a_run_that_failed_before_any_window_gives_the_error_of_its_step(
    project: Project, dagster: FakeDagster
) -> None:
    project.run("backfill", "launch", GROUP)
    record(project, "backfill0", *KEYS)
    dagster.backfills["backfill0"].end("COMPLETED_FAILED", "SUCCESS", "FAILURE")
    long = "InvalidInput: there is no column 'dep_delay'.\n" + "\n".join(f"line {n}" for n in range(40))
    step = {"__typename": "ExecutionStepFailureEvent", "stepKey": "offline__x", "error": {"message": "Failure"}}
    dagster.failures["run1"] = [
        {"__typename": "RunStartEvent"},
        {**step, "failureMetadata": {"description": long}},
        {"__typename": "RunFailureEvent", "message": "Steps failed", "error": None},
    ]
    text = told(project.run("backfill", "status", "backfill0"))
    assert (
        "Run run1 failed. Step offline__x: InvalidInput: there is no column 'dep_delay'. line 0 line 1 line 2 ..."
        in text
    )
    assert "line 3" not in text
    dagster.failures["run1"] = [{"__typename": "RunFailureEvent", "message": "The worker was killed", "error": None}]
    assert "Run run1 failed. The worker was killed" in told(project.run("backfill", "status", "backfill0"))


def test_status_of_one_taken_back_says_so(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP, "--to", "2026-03-02")
    record(project, "backfill0", *KEYS[:2])
    compute(project, "backfill0", *KEYS[:2])
    project.run("backfill", "rollback", "backfill0", "--as", "team:ops", "--reason", "wrong feed")
    text = told(project.run("backfill", "status", "backfill0"))
    assert "2 promoted and taken back since, 0 held" in text
    assert "backfill0: rolled back, for the reason 'wrong feed'" in text


def test_status_tells_windows_that_came_after_the_rollback_until_it_is_repeated(
    project: Project, dagster: FakeDagster
) -> None:
    record(project, "backfill0", *KEYS[:4])
    compute(project, "backfill0", *KEYS[:2])
    rollback = ("backfill", "rollback", "backfill0", "--as", "team:ops", "--reason", "wrong feed")
    project.run(*rollback)
    compute(project, "backfill0", *KEYS[2:3])
    text = told(project.run("backfill", "status", "backfill0"))
    assert "3 promoted (2 of them taken back since), 0 held" in text
    assert "backfill0: 1 window was promoted after the rollback and stands" in text
    assert "featurestore backfill rollback backfill0 --as WHO --reason WHY" in text
    found = project.json("backfill", "status", "backfill0")
    assert (found["progress"]["taken_back"], found["attempts"][0]["standing"]) == (2, 1)
    project.run(*rollback)
    text = told(project.run("backfill", "status", "backfill0"))
    assert "3 promoted and taken back since, 0 held" in text
    assert "stands" not in text


def test_second_launch_of_the_same_names_the_first_that_waits(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP)
    record(project, "backfill0", *KEYS, state="pending")
    again = told(project.run("backfill", "launch", GROUP))
    assert "Backfill backfill0 asks for the same, and waits for approval" in again
    assert "backfill reject backfill0 --as WHO --reason WHY" in again
    other = told(project.run("backfill", "launch", GROUP, "--to", "2026-03-08"))
    assert "asks for the same" not in other


def test_second_launch_of_the_same_names_the_first_that_is_under_way(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP)
    record(project, "backfill0", *KEYS)
    again = told(project.run("backfill", "launch", GROUP))
    assert "Backfill backfill0 computes the same, and is under way: featurestore backfill status backfill0" in again
    dagster.backfills["backfill0"].end("COMPLETED_SUCCESS", "SUCCESS")
    assert "computes the same" not in told(project.run("backfill", "launch", GROUP))


def test_show_of_what_was_launched_just_now_says_that_it_is_not_assessed_yet(
    project: Project, dagster: FakeDagster
) -> None:
    project.run("backfill", "launch", GROUP)
    shown = told(project.run("backfill", "show", "backfill0", exit_code=1))
    assert "it is not assessed yet: featurestore backfill status backfill0" in shown


def test_status_of_a_run_launched_by_hand_is_that_of_the_run(project: Project, dagster: FakeDagster) -> None:
    compute(project, "run-by-hand", *KEYS[:2])
    dagster.runs["run-by-hand"] = {
        "__typename": "Run",
        "status": "SUCCESS",
        "creationTime": 1.0,
        "startTime": 2.0,
        "endTime": 5.0,
        "assetSelection": [{"path": ["offline", GROUP]}],
        "tags": [],
    }
    status = project.json("backfill", "status", "run-by-hand")
    assert status["attempts"][0]["dagster"]["url"] == f"{dagster.url}/runs/run-by-hand"
    assert (status["progress"]["promoted"], status["progress"]["seconds"]) == (2, 3)


# resume


def test_resume_launches_exactly_what_is_not_promoted_by_it(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP, "--strategy", "incremental", "--accept-shift")
    record(project, "backfill0", *KEYS)
    compute(project, "backfill0", *KEYS[:2], KEYS[4])
    dagster.backfills["backfill0"].end("COMPLETED_FAILED", "SUCCESS", "FAILURE")
    resumed = project.json("backfill", "resume", "backfill0")
    later = dagster.backfills["backfill1"]
    # The last three were promoted before, but not by this backfill.
    assert later.names == [*KEYS[2:4], *KEYS[5:]]
    assert later.tags["featurestore/resumes"] == "backfill0"
    assert later.tags["featurestore/strategy"] == "full", "the book is believed, not what was typed"
    assert (resumed["backfill_id"], resumed["resumes"], resumed["waits_for_approval"]) == (
        "backfill1",
        "backfill0",
        False,
    )
    (noted,) = [
        entry for entry in project.json("backfill", "show", "backfill0")["audit"] if entry["action"] == "resumed"
    ]
    assert (noted["person"], noted["details"]) == ("anna", {"backfill_id": "backfill1", "windows": 6})


def test_resumption_counts_with_the_first_and_is_resumed_as_the_first(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP)
    record(project, "backfill0", *KEYS)
    compute(project, "backfill0", *KEYS[:2])
    dagster.backfills["backfill0"].end("CANCELED")
    project.run("backfill", "resume", "backfill0")
    under_way = project.run("backfill", "resume", "backfill0", exit_code=1)
    assert "still under way: Dagster has backfill1 as REQUESTED" in told(under_way)
    compute(project, "backfill0", *KEYS[2:5])
    compute(project, "backfill1", *KEYS[5:6])
    dagster.backfills["backfill1"].end("COMPLETED_FAILED", "FAILURE")
    for name in ("backfill0", "backfill1"):
        status = project.json("backfill", "status", name)
        assert (status["backfill_id"], status["progress"]["promoted"]) == ("backfill0", 6)
        assert [attempt["backfill_id"] for attempt in status["attempts"]] == ["backfill0", "backfill1"]
    project.run("backfill", "resume", "backfill1")
    assert dagster.backfills["backfill2"].names == KEYS[6:]
    assert dagster.backfills["backfill2"].tags["featurestore/resumes"] == "backfill0"


def test_resume_of_what_is_complete_says_so(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP, "--to", "2026-03-02")
    record(project, "backfill0", *KEYS[:2])
    compute(project, "backfill0", *KEYS[:2])
    dagster.backfills["backfill0"].end("COMPLETED_SUCCESS", "SUCCESS")
    refused = project.run("backfill", "resume", "backfill0", exit_code=1)
    assert "Nothing is left of backfill 'backfill0': it is done with all of its 2 windows" in told(refused)
    assert list(dagster.backfills) == ["backfill0"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("pending", "it is pending. It waits for approval"),
        ("refused", "it is refused. Mend what is wrong and launch a new"),
    ],
)
def test_resume_of_what_never_was_let_go_is_refused(
    project: Project, dagster: FakeDagster, state: State, message: str
) -> None:
    record(project, "held", *KEYS, state=state)
    assert message in told(project.run("backfill", "resume", "held", exit_code=1))
    assert dagster.backfills == {}


def test_resume_works_by_the_book_although_dagster_has_forgotten(project: Project, dagster: FakeDagster) -> None:
    record(project, "forgotten", *KEYS[:3], state="approved")
    compute(project, "forgotten", KEYS[0])
    project.run("backfill", "resume", "forgotten")
    assert dagster.backfills["backfill0"].names == KEYS[1:3]


def test_resume_works_by_dagster_although_the_book_does_not_know(project: Project, dagster: FakeDagster) -> None:
    project.run("backfill", "launch", GROUP, "--to", "2026-03-03")
    compute(project, "backfill0", KEYS[1])
    dagster.backfills["backfill0"].end("COMPLETED_FAILED", "FAILURE")
    project.run("backfill", "resume", "backfill0")
    assert dagster.backfills["backfill1"].names == [KEYS[0], KEYS[2]]


def test_resume_of_an_id_that_nobody_knows_is_refused(project: Project, dagster: FakeDagster) -> None:
    refused = project.run("backfill", "resume", "nothere", exit_code=1)
    assert "The book of backfills does not know 'nothere'. Dagster at" in told(refused)


# Dagster's own web server and daemon


@dataclass(frozen=True)
class Live:
    """Web server, daemon and code server over one store, and the command line beside them."""

    site: Site
    sandbox: Sandbox

    def run(self, *arguments: str, exit_code: int = 0) -> Any:
        """A command of `featurestore backfill`; its document, or what it says if it is to be refused."""
        options = ["--root", str(self.sandbox.root), "backfill", *arguments, "--dagster-url", self.site.url]
        as_json = [] if exit_code else ["--json"]
        done = CliRunner().invoke(main, [*options, *as_json], obj=system_clock, prog_name="featurestore")
        assert done.exit_code == exit_code, done.output
        return " ".join(done.output.split()) if exit_code else json.loads(done.stdout)

    def settled(self, backfill_id: str) -> dict[str, Any]:
        """The status of a backfill once it is over."""
        found: dict[str, Any] = {}

        def is_over() -> bool:
            found.update(self.run("status", backfill_id))
            return bool(found["is_over"])

        wait_for("the end of the backfill", is_over, 600, pause=0.5)
        return found


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    (tmp_path / "pyproject.toml").write_text('[tool.featurestore]\ncatalog = "tests.platform.crash_location:catalog"\n')
    monkeypatch.chdir(tmp_path)
    home = crash_home(tmp_path / "home")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        sandbox = Sandbox(tmp_path, instance, crash_location.catalog, now=datetime.now(UTC))
        variables = {ROOT: str(sandbox.root), LANDING: str(sandbox.landing), NOW: ""}
        with Site(home, Path(crash_location.__file__), variables).running() as site:
            yield Live(site, sandbox)


def test_backfill_is_launched_watched_and_resumed_through_dagster_itself(live: Live) -> None:
    days, bad = range(6), 4
    live.sandbox.ingest(
        orders, [order(day, T0 + day * DAY + HOUR, TOO_MUCH if day == bad else 10.0 + day) for day in days]
    )
    group, asked = "kiosk_sales_daily", ["--from", day_key(0), "--to", day_key(5)]
    with pytest.raises(UnknownName, match="no asset 'offline/nothere'"):
        launch_partition_backfill(live.site.url, {("offline", "nothere"): [day_key(0)]})
    with pytest.raises(InvalidInput, match="no partitions 1999-01-01"):
        launch_partition_backfill(live.site.url, {("offline", group): ["1999-01-01", day_key(0)]})

    launched = live.run("launch", group, *asked)
    assert launched["groups"][0]["dry_run"]["passed"]
    ended = live.settled(launched["backfill_id"])
    (attempt,) = ended["attempts"]
    assert (attempt["dagster"]["status"], set(attempt["dagster"]["runs"])) == ("COMPLETED_FAILED", {"FAILURE"})
    assert attempt["dagster"]["url"] == launched["url"]
    counts = attempt["dagster"]["partitions"][f"offline/{group}"]
    assert (counts["targeted"], counts["materialized"], counts["failed"]) == (6, 5, 1)
    assert (ended["progress"]["promoted"], ended["groups"][0]["held"]) == (5, [day_key(bad)])
    assert ended["progress"]["written_bytes"] > 0

    live.sandbox.ingest(orders, [order(bad, T0 + bad * DAY + HOUR, 10.0, known_at=T0 + bad * DAY + 2 * HOUR)])
    resumed = live.run("resume", launched["backfill_id"])
    assert (resumed["resumes"], resumed["groups"][0]["keys"]) == (launched["backfill_id"], [day_key(bad)])
    complete = live.settled(launched["backfill_id"])
    assert [one["dagster"]["status"] for one in complete["attempts"]] == ["COMPLETED_FAILED", "COMPLETED_SUCCESS"]
    assert (complete["progress"]["promoted"], complete["groups"][0]["held"]) == (6, [])
    assert "Nothing is left" in live.run("resume", launched["backfill_id"], exit_code=1)
    assert live.sandbox.rows(group)["sales_1d"].to_list() == [10.0, 11.0, 12.0, 13.0, 10.0, 15.0]
