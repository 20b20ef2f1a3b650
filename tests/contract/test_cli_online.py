"""The command line against a real online server: materialize, then read."""

import re
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from featurestore.cli.online import PROGRESS_SECONDS, ProgressLines
from featurestore.online.materialization.moves import Progress
from featurestore.online.tier import Fill
from tests.cli_project import NOW, Project, departure, fill


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valkey_url: str) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    project = Project(tmp_path, online_url=valkey_url)
    fill(project)
    return project


def lines(text: str) -> list[list[str]]:
    """The cells of every line; they are at least two blanks apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_materialize_tells_what_it_did_and_then_that_nothing_was_to_do(project: Project) -> None:
    assert lines(project.run("materialize").stdout) == [
        ["GROUP", "KEYS", "WRITTEN", "LEFT", "TABLE VERSION", "NOTE"],
        ["carrier_delay_daily", "2", "2", "0", "1", "built anew"],
        ["seat_profile", "2", "2", "0", "1", "built anew"],
    ]
    again = project.json("materialize", "carrier_delay_daily")
    assert again == {
        "carrier_delay_daily": {
            "table_version": 1,
            "as_of": NOW.isoformat(),
            "was_rebuilt": False,
            "keys": 0,
            "written": 0,
            "left": 0,
        }
    }
    assert ["seat_profile", "0", "0", "0", "1", "up to date"] in lines(
        project.run("materialize", "seat_profile").stdout
    )


def test_a_copy_is_built_anew_when_asked_and_by_name_only(project: Project) -> None:
    project.run("materialize")
    rebuilt = project.run("materialize", "--rebuild", "seat_profile")
    assert lines(rebuilt.stdout)[1] == ["seat_profile", "2", "2", "0", "1", "built anew"]
    assert "Name the groups to build anew" in project.run("materialize", "--rebuild", exit_code=2).stderr


def test_progress_is_told_of_what_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("seat_profile", ("hot here:6379",), True, 1, 4, 50_000, 25_000.0, 6.0)
    quiet, talkative = ProgressLines(), ProgressLines(said_at=-PROGRESS_SECONDS)
    quiet(progress)
    talkative(progress)
    talkative(progress)
    assert capsys.readouterr().err == (
        "seat_profile is built anew in hot here:6379: 1 of 4 slices done, 50,000 rows, 25,000 rows/s, about 6 s left\n"
    )


def test_online_values_are_shown_with_status_event_time_and_age(project: Project) -> None:
    project.run("materialize")
    assert lines(project.run("get-online", "delay_v1", "carrier=UA").stdout) == [
        ["carrier=UA"],
        ["FEATURE", "VALUE", "STATUS", "EVENT TIME", "AGE", "FRESHNESS"],
        ["carrier_delay_daily:delay_mean_7d", "10 min", "PRESENT", "2026-03-10 00:00 UTC", "6 h", "UNKNOWN"],
        ["carrier_delay_daily:flights_7d", "3", "PRESENT", "2026-03-10 00:00 UTC", "6 h", "UNKNOWN"],
    ]


def test_json_holds_the_values_that_the_sdk_reads(project: Project) -> None:
    project.run("materialize")
    (entity,) = project.json("get-online", "delay_v1", "carrier=B6")
    answer = project.store.get_online_features("delay_v1", [{"carrier": "B6"}])
    assert entity["keys"] == {"carrier": "B6"}
    assert {f["feature"].partition(":")[2]: f["value"] for f in entity["features"]} == {
        name: values[0] for name, values in answer.to_dict().items() if name != "carrier"
    }
    assert [f["event_time"] for f in entity["features"]] == ["2026-03-10T00:00:00+00:00"] * 2
    assert [f["age_seconds"] for f in entity["features"]] == [21600.0] * 2


def test_several_entities_with_keys_of_every_dtype_are_read_at_once(project: Project) -> None:
    project.run("materialize")
    asked = ["get-online", "seat_profile:*", "plane=N1", "installed=2025-05-01"]
    found = project.json(
        *asked,
        "--entity",
        "row=7,is_window=true",
        "--entity",
        "row=8,is_window=false",
        "--entity",
        "row=9,is_window=true",
    )
    assert [[(f["value"], f["status"]) for f in entity["features"]] for entity in found] == [
        [(31, "PRESENT"), (["exit", "quiet"], "PRESENT")],
        [(None, "NULL_VALUE"), ([], "PRESENT")],
        [(None, "NOT_FOUND"), (None, "NOT_FOUND")],
    ]


def test_a_value_that_is_too_old_is_told_as_such(project: Project) -> None:
    project.run("materialize")
    project.clock.now += timedelta(days=4)
    text = project.run("get-online", "carrier_delay_daily:flights_7d", "carrier=UA").stdout
    assert lines(text)[2] == [
        "carrier_delay_daily:flights_7d",
        "-",
        "OUTSIDE_MAX_AGE",
        "2026-03-10 00:00 UTC",
        "4 d 6 h",
        "UNKNOWN",
    ]
    asked = ["get-online", "carrier_delay_daily:flights_7d", "carrier=UA"]
    assert lines(project.run(*asked, "--freshness", "stale-ok").stdout)[2][1:3] == ["3", "OUTSIDE_MAX_AGE"]


def test_a_group_s_freshness_is_shown_once_it_is_published_and_a_strict_read_is_refused_in_breach(
    project: Project,
) -> None:
    project.run("materialize")
    asked = ["get-online", "carrier_delay_daily:flights_7d", "carrier=UA"]
    assert "nobody has published" in project.run(*asked, "--freshness", "strict", exit_code=1).stderr
    project.run("freshness", "--publish")
    (entity,) = project.json(*asked, "--freshness", "strict")
    assert entity["features"][0]["freshness"]["state"] == "OK"
    project.clock.now += timedelta(days=4)
    shown = lines(project.run(*asked).stdout)[2][-1]
    assert re.fullmatch(r"BREACH \(materialization, .* of 36 hours\)", shown), shown
    refused = project.run(*asked, "--freshness", "strict", exit_code=1)
    assert (refused.stdout, "carrier_delay_daily is BREACH since" in refused.stderr) == ("", True)


def test_a_group_that_was_never_materialized_is_unavailable_and_the_remedy_is_named(project: Project) -> None:
    result = project.run("get-online", "delay_v1", "carrier=UA", exit_code=1)
    assert "UNAVAILABLE" in result.stdout
    address = project.online_url.partition("://")[2].partition("/")[0]
    said = f"carrier_delay_daily is unavailable: {address} holds no copy of carrier_delay_daily."
    assert result.stderr == f"{said} Make one: featurestore materialize carrier_delay_daily\n"


def test_no_copy_is_advised_of_a_group_that_has_no_rows_to_make_it_from(project: Project) -> None:
    shutil.rmtree(project.store.offline.table("carrier_delay_daily").location.path)
    said = project.run("get-online", "delay_v1", "carrier=UA", exit_code=1).stderr
    assert said.endswith("One is made from rows, and none were promoted yet.\n")
    note = lines(project.run("materialize", "carrier_delay_daily").stdout)[1][-1]
    assert note == "no rows were promoted yet"


def test_status_tells_how_far_each_copy_is_beside_its_table(project: Project) -> None:
    address = project.online_url.partition("://")[2].partition("/")[0]
    assert lines(project.run("online", "status").stdout) == [
        ["GROUP", "TIER", "PART", "VERSION", "TABLE VERSION", "AS OF", "NOTE"],
        ["carrier_delay_daily", "hot", address, "-", "1", "-", "no copy"],
        ["seat_profile", "hot", address, "-", "1", "-", "no copy"],
    ]
    project.run("materialize")
    project.land("departures", [departure("UA", NOW - timedelta(hours=20), 90.0)])
    project.promote("carrier_delay_daily", days=1)
    told = lines(project.run("online", "status", "carrier_delay_daily").stdout)[1]
    assert (told[3:5], told[-1]) == (["1", "2"], "behind")
    part = project.store.online.parts_of(project.store.registry.group("seat_profile"))[0]
    state = part.state("seat_profile")
    assert state is not None
    epoch = part.start_over("seat_profile", epoch=part.ensure_epoch("seat_profile"))
    part.record_fill("seat_profile", Fill(state, 4, 1, "me"), epoch=epoch, previous=None)
    (copy,) = project.json("online", "status", "seat_profile")
    assert (copy["version"], copy["fill"]) == (None, {"version": 1, "slices_done": 1, "slices": 4})
    assert "being built from version 1: 1 of 4 slices done" in project.run("online", "status").stdout


def test_status_of_a_server_that_is_away_says_so_in_its_line(project: Project) -> None:
    project.online_url = "redis://127.0.0.1:1/0"
    told = project.json("online", "status")
    assert [(copy["group"], copy["version"]) for copy in told] == [
        ("carrier_delay_daily", None),
        ("seat_profile", None),
    ]
    assert all("127.0.0.1:1 does not answer" in copy["trouble"] for copy in told)


def test_a_promotion_moves_online_by_the_next_materialize(project: Project) -> None:
    project.run("materialize")
    project.land("departures", [departure("UA", NOW - timedelta(hours=20), 90.0)])
    project.promote("carrier_delay_daily", days=1)
    assert lines(project.run("materialize").stdout)[1] == ["carrier_delay_daily", "1", "1", "0", "2"]
    (entity,) = project.json("get-online", "carrier_delay_daily:flights_7d", "carrier=UA")
    assert entity["features"][0]["value"] == 4


def test_a_server_that_is_away_is_an_error_and_no_traceback(project: Project) -> None:
    project.online_url = "redis://127.0.0.1:1/0"
    read = project.run("get-online", "delay_v1", "carrier=UA", exit_code=1)
    assert read.stderr.startswith("carrier_delay_daily is unavailable: Redis at 127.0.0.1:1 does not answer")
    assert project.run("materialize", exit_code=1).stderr.startswith("Error: Redis at 127.0.0.1:1 does not answer")
    assert "UNAVAILABLE" in read.stdout
    project.online_url = "http://127.0.0.1:1"
    assert "is not readable (scheme: http)" in project.run("materialize", exit_code=1).stderr


def test_a_group_that_is_not_online_is_refused(project: Project) -> None:
    project.declare(("    online=Online(ttl=timedelta(days=7)),\n", ""))
    project.run("apply")
    for command in (["materialize", "carrier_delay_daily"], ["get-online", "delay_v1", "carrier=UA"]):
        assert "Group 'carrier_delay_daily' is not served online" in project.run(*command, exit_code=1).stderr
