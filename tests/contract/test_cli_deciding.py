"""`featurestore backfill list, show, approve, reject` on a store in a folder, its database in a file."""

import getpass
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from featurestore.cli.backfill.estimates import estimate_text
from featurestore.cli.main import main
from featurestore.metadata.request import AuditEntry, BackfillRequest, RequestedWindows, State
from tests.cli_project import NOW, Project

DAYS = tuple(f"2026-03-{day:02}" for day in range(1, 10))
APPROVERS = (
    '    owner="team:ops",\n)',
    '    owner="team:ops",\n    backfill=Backfill(approval_limit_usd=10, approvers=("ana@example.com",)),\n)',
)
IMPORT = ("import Catalog, Daily", "import Backfill, Catalog, Daily")
ESTIMATE = {
    "group": "carrier_delay_daily",
    "strategy": "full",
    "partitions": 9,
    "bytes_scanned": 123_456_789,
    "compute_seconds": 930.25,
    "cost_usd": 42.5,
    "costs_usd": {"scan": 1.25, "compute": 41.25},
    "price_book": "round numbers",
    "rests_on": {"partitions": "the windows asked for", "compute_seconds": "12 past windows"},
    "inputs": {"departures": {"files": 31, "bytes": 123_456_789, "requests": 1}},
    "notes": ["Compaction is left out."],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    project = Project(tmp_path)
    project.declare(IMPORT, APPROVERS)
    project.run("apply")
    return project


def record(project: Project, backfill_id: str = "kxqzvbtw", state: State = "pending", **other: Any) -> BackfillRequest:
    facts: dict[str, Any] = {
        "requested_at": NOW,
        "requested_by": "dora@example.com",
        "strategy": "full",
        "groups": (RequestedWindows("carrier_delay_daily", DAYS, ESTIMATE),),
        "reason": "42.50 USD is above the limit of 10 USD",
    }
    request = BackfillRequest(backfill_id, state=state, **{**facts, **other})
    return project.store.settings.book(project.clock).record(request)


def cells(text: str) -> list[list[str]]:
    """The cells of every line; they are at least two blanks apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_an_empty_list_says_how_to_launch_one(project: Project) -> None:
    assert "Launch one in Dagster, or: featurestore backfill launch GROUP" in project.run("backfill", "list").stdout
    assert project.json("backfill", "list") == {"backfills": [], "filter": {"group": None, "state": None}}


def test_a_filter_that_finds_nothing_says_how_to_see_all(project: Project) -> None:
    record(project, state="admitted")
    for arguments, said in (
        (("--state", "pending"), "No backfill is pending."),
        (("--group", "seat_profile"), "No backfill of seat_profile is there."),
        (("--group", "seat_profile", "--state", "rolled-back"), "No backfill of seat_profile is rolled back."),
    ):
        assert project.run("backfill", "list", *arguments).stdout == f"{said} See all: featurestore backfill list\n"


def test_backfills_are_listed_newest_first_with_cost_and_who_decided(project: Project) -> None:
    record(project)
    two = (
        RequestedWindows("carrier_delay_daily", DAYS[2:4]),
        RequestedWindows("seat_profile", DAYS[:1], {"cost_usd": 0.0004}),
    )
    record(project, "older", "admitted", requested_at=NOW - timedelta(hours=1), requested_by="", groups=two)
    project.run("backfill", "reject", "kxqzvbtw", "--as", "team:ops", "--reason", "not now")
    assert cells(project.run("backfill", "list").stdout) == [
        ["ID", "STATE", "GROUP", "WINDOWS", "FROM", "TO", "STRATEGY", "COST USD", "REQUESTED", "BY", "DECIDED BY"],
        [
            "kxqzvbtw",
            "rejected",
            "carrier_delay_daily",
            "9",
            "2026-03-01",
            "2026-03-09",
            "full",
            "42.50",
            "2026-03-10 06:00 UTC",
            "dora@example.com",
            "team:ops",
        ],
        [
            "older",
            "admitted",
            "2 groups",
            "3",
            "2026-03-01",
            "2026-03-04",
            "full",
            "0.0004",
            "2026-03-10 05:00 UTC",
            "-",
            "-",
        ],
    ]
    (only,) = project.json("backfill", "list", "--limit", "1")["backfills"]
    assert only == {
        "backfill_id": "kxqzvbtw",
        "state": "rejected",
        "reason": "not now",
        "strategy": "full",
        "accept_shift": False,
        "requested_at": NOW.isoformat(),
        "requested_by": "dora@example.com",
        "decided_at": NOW.isoformat(),
        "decided_by": "team:ops",
        "windows": 9,
        "cost_usd": 42.5,
        "groups": [
            {
                "group": "carrier_delay_daily",
                "windows": 9,
                "first": "2026-03-01",
                "last": "2026-03-09",
                "cost_usd": 42.5,
            }
        ],
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--group", "carrier_delay_dayly"), "Did you mean 'carrier_delay_daily'?"),
        (("--state", "pendin"), "No backfill is ever 'pendin'. States are ['pending', 'admitted', 'approved'"),
    ],
)
def test_a_name_that_is_not_there_is_refused(project: Project, arguments: tuple[str, ...], said: str) -> None:
    assert said in project.run("backfill", "list", *arguments, exit_code=1).stderr


@pytest.mark.parametrize(
    "command",
    [("show",), ("approve", "--as", "team:ops", "--reason", "x"), ("reject", "--as", "team:ops", "--reason", "x")],
)
def test_an_unknown_backfill_is_refused_with_those_that_come_close(project: Project, command: tuple[str, ...]) -> None:
    record(project)
    name, *options = command
    assert "Did you mean 'kxqzvbtw'?" in project.run("backfill", name, "kxqzvbt", *options, exit_code=1).stderr


def test_one_that_waits_is_shown_with_its_estimate_and_what_to_do(project: Project) -> None:
    record(project)
    text = project.run("backfill", "show", "kxqzvbtw").stdout
    lines = cells(text)
    assert text.startswith("Backfill kxqzvbtw: pending\n")
    for line in (
        ["Reason", "42.50 USD is above the limit of 10 USD"],
        ["Requested", "2026-03-10 06:00 UTC by dora@example.com"],
        ["GROUP", "WINDOWS", "FROM", "TO", "COST USD", "LIMIT USD", "ABOVE LIMIT"],
        ["carrier_delay_daily", "9", "2026-03-01", "2026-03-09", "42.50", "10.00", "yes"],
        ["bytes_scanned", "123,456,789"],
        ["compute_seconds", "930.25", "12 past windows"],
        ["Cost: 42.50 USD by round numbers: scan 1.25, compute 41.25"],
        ["Reads departures: 31 files, 123,456,789 bytes, 1 request"],
        ["Compaction is left out."],
        [
            "2026-03-10 06:00 UTC",
            "requested",
            "dora@example.com",
            "-",
            "-",
            "state pending",
        ],
        ["It waits for approval. These may decide: carrier_delay_daily: team:ops or ana@example.com."],
        ["featurestore backfill approve kxqzvbtw --as WHO --reason WHY"],
    ):
        assert line in lines


def test_what_is_shown_as_json_has_the_whole_estimate_and_the_audit(project: Project) -> None:
    record(project)
    shown = project.json("backfill", "show", "kxqzvbtw")
    (group,) = shown["groups"]
    assert (group["estimate"], group["keys"]) == (ESTIMATE, list(DAYS))
    assert (group["limit_usd"], group["exceeds_limit"]) == (10.0, True)
    assert shown["deciders"] == {"carrier_delay_daily": ["team:ops", "ana@example.com"]}
    assert [entry["action"] for entry in shown["audit"]] == ["requested"]


def test_an_approval_is_kept_with_who_when_why_and_from_which_account(project: Project) -> None:
    record(project)
    project.clock.now += timedelta(seconds=90)
    text = project.run("backfill", "approve", "kxqzvbtw", "--as", "ana@example.com", "--reason", "the quarter").stdout
    assert text.splitlines() == [
        "Backfill kxqzvbtw: approved by ana@example.com. the quarter",
        "9 windows of carrier_delay_daily, 42.50 USD, estimated.",
        "  featurestore backfill status kxqzvbtw",
    ]
    book = project.store.settings.book()
    assert book.audit("kxqzvbtw")[1:] == [
        AuditEntry("kxqzvbtw", project.clock.now, "approved", "ana@example.com", getpass.getuser(), "the quarter")
    ]
    shown = cells(project.run("backfill", "show", "kxqzvbtw").stdout)
    assert ["2026-03-10 06:01:30 UTC", "approved", "ana@example.com", getpass.getuser(), "the quarter"] in shown


def test_nobody_decides_without_a_reason(project: Project) -> None:
    record(project)
    for name in ("approve", "reject"):
        project.run("backfill", name, "kxqzvbtw", "--as", "team:ops", exit_code=2)
        blank = project.run("backfill", name, "kxqzvbtw", "--as", "team:ops", "--reason", " ", exit_code=1)
        assert "without a reason" in " ".join(blank.stderr.split())
    assert project.store.settings.book().get("kxqzvbtw").state == "pending"


def test_every_decision_repeated_by_its_maker_changes_nothing(project: Project) -> None:
    for name, backfill_id in (("approve", "a"), ("reject", "b")):
        record(project, backfill_id)
        command = ("backfill", name, backfill_id, "--as", "team:ops", "--reason", "said once")
        first = project.json(*command)
        project.clock.now += timedelta(hours=1)
        assert project.json(*command) == first


def test_a_second_decision_is_told_of_the_first(project: Project) -> None:
    record(project)
    project.run("backfill", "reject", "kxqzvbtw", "--as", "team:ops", "--reason", "too dear")
    for name, person in (("approve", "team:ops"), ("approve", "ana@example.com"), ("reject", "ana@example.com")):
        refused = project.run("backfill", name, "kxqzvbtw", "--as", person, "--reason", "x", exit_code=1)
        assert "it was rejected by team:ops at 2026-03-10 06:00 UTC (too dear). Launch a new one" in refused.stderr


def test_one_that_never_waited_cannot_be_decided(project: Project) -> None:
    record(project, state="admitted")
    refused = project.run("backfill", "approve", "kxqzvbtw", "--as", "team:ops", "--reason", "x", exit_code=1)
    assert "cannot be approved: it is admitted" in refused.stderr
    assert "To stop it, cancel its runs in Dagster" in refused.stderr


@pytest.mark.parametrize("name", ["approve", "reject"])
def test_someone_without_the_right_is_refused_and_nothing_is_changed(project: Project, name: str) -> None:
    request = record(project)
    refused = project.run("backfill", name, "kxqzvbtw", "--as", "eve@example.com", "--reason", "x", exit_code=1)
    assert "'eve@example.com' may not" in refused.stderr
    assert "team:ops or ana@example.com" in refused.stderr
    book = project.store.settings.book()
    assert (book.get("kxqzvbtw"), len(book.audit("kxqzvbtw"))) == (request, 1)


def test_a_rejection_needs_a_reason(project: Project) -> None:
    record(project)
    assert (
        "without a reason"
        in project.run("backfill", "reject", "kxqzvbtw", "--as", "team:ops", "--reason", " ", exit_code=1).stderr
    )


def test_a_group_that_is_no_longer_declared_is_still_shown(project: Project) -> None:
    record(project, groups=(RequestedWindows("gone", ("2026-03-01",), {"cost_usd": 30.0}),))
    text = project.run("backfill", "show", "kxqzvbtw").stdout
    assert ["gone", "1", "2026-03-01", "2026-03-01", "30.00", "-", "no longer declared"] in cells(text)
    assert "It waits for approval.\n" in text


def test_text_that_would_move_the_cursor_is_quoted(project: Project) -> None:
    record(project, requested_by="a\nb", reason="\x1b[2J clear")
    text = project.run("backfill", "show", "kxqzvbtw").stdout
    assert "\x1b" not in text
    assert '"a\\nb"' in text


def test_a_root_in_a_bucket_without_a_database_is_an_error_and_no_traceback(project: Project) -> None:
    environment = {
        "FEATURESTORE_ROOT": "s3://lake/x",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "FEATURESTORE_METADATA_URL": "",
    }
    result = CliRunner().invoke(main, ["backfill", "list"], env=environment)
    assert result.exit_code == 1
    assert "Set FEATURESTORE_METADATA_URL to postgresql://" in result.stderr


def test_a_driver_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    result = CliRunner().invoke(main, ["backfill", "list"], env={"FEATURESTORE_METADATA_URL": "postgresql://h/d"})
    assert result.exit_code == 1
    assert "pip install 'featurestore[postgres]'" in result.stderr


def test_an_estimate_of_a_sum_alone_is_one_line() -> None:
    assert estimate_text({"cost_usd": 0.00042}) == "Cost: 0.00042 USD"


def test_json_has_nothing_but_json(project: Project) -> None:
    record(project)
    assert json.loads(project.run("backfill", "show", "kxqzvbtw", "--json").stdout)["state"] == "pending"
