"""The command line on a real store in a folder: what commands print, write and refuse."""

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.cli.entities import parse_entities, parse_key
from featurestore.cli.main import main
from featurestore.cli.spines import read_spine
from featurestore.cli.tables import json_text, table_text, value_text
from featurestore.cli.times import age_text, duration_text
from featurestore.errors import InvalidInput
from featurestore.references import RequestedGroup, resolve
from tests.cli_project import LAST_WINDOW, Project, departure, fill
from tests.scale import cases

SEATS_ALONE = "Catalog([seats], [seat_profile])"
REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "cli.md"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Project(tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with promoted rows, for tests that only read."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("project")
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        project = Project(folder)
        fill(project)
        yield project


# apply and history


def test_apply_says_what_changed_and_then_that_nothing_did(project: Project) -> None:
    project.declare()
    first = project.run("apply").stdout
    assert "+ group carrier_delay_daily (windowed, daily, features ['delay_mean_7d', 'flights_7d'])" in first
    assert "Applied 5 changes to the registry at " in first
    assert project.run("apply").stdout.startswith("Nothing changed in the registry at ")


def test_apply_finds_the_project_from_a_folder_below_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.declare()
    below = project.folder / "notebooks" / "deep"
    below.mkdir(parents=True)
    (below / "pyproject.toml").write_text('[project]\nname = "another"\n')
    monkeypatch.chdir(below)
    assert project.json("apply")["is_compatible"]


def test_apply_takes_a_module_and_its_attribute(project: Project) -> None:
    project.declare()
    (project.folder / "pyproject.toml").unlink()
    assert len(project.json("apply", f"{project.module}:declared")["changes"]) == 5
    refused = project.run("apply", project.module, exit_code=1)
    assert (
        f"{project.module}:catalog is not there. Catalogues of that module: ['{project.module}:declared']"
        in refused.stderr
    )


def test_dry_run_writes_nothing(project: Project) -> None:
    project.declare()
    assert "Dry run: 5 changes, nothing written" in project.run("apply", "--dry-run").stdout
    assert not project.root.exists()
    assert project.json("apply", "--dry-run")["digest"] is None


def test_incompatible_changes_are_all_listed_and_none_is_applied(filled: Project) -> None:
    before = filled.json("history")
    dtype = ('Feature("flights_7d", pl.Int64', 'Feature("flights_7d", pl.Int32')
    filled.declare(
        dtype,
        ("pl.len().cast(pl.Int64)", "pl.len().cast(pl.Int32)"),
        ("delay=timedelta(hours=2)", "delay=timedelta(hours=3)"),
    )
    try:
        refused, tried = filled.run("apply", exit_code=1), filled.run("apply", "--dry-run", exit_code=1)
        report = json.loads(filled.run("apply", "--dry-run", "--json", exit_code=1).stdout)
    finally:
        filled.declare()
    for result in (refused, tried):
        assert result.stderr.startswith("Error: Rows already stored cannot follow these changes:")
        assert "dtype of carrier_delay_daily:flights_7d int64 -> int32" in result.stderr
        assert "delay of carrier_delay_daily 2 hours -> 3 hours" in result.stderr
    assert tried.stdout == "", "there is no compatible change to list, so there is no line"
    assert not report["is_compatible"]
    assert filled.json("history") == before


def test_a_catalogue_that_leaves_out_what_is_registered_is_refused_until_removals_are_allowed(project: Project) -> None:
    project.declare()
    project.run("apply")
    before = project.json("history")
    project.declare(("Catalog([departures, seats], [carrier_delay_daily, seat_profile], [delay_v1])", SEATS_ALONE))
    for refused in (project.run("apply", exit_code=1), project.run("apply", "--dry-run", exit_code=1)):
        said = refused.stderr.splitlines()
        assert said[0].startswith("Error: The catalogue leaves out what the registry holds")
        assert said[1:4] == [
            "- group carrier_delay_daily (its rows and field numbers are kept)",
            "- service delay_v1",
            "- source departures (its rows are kept)",
        ]
        assert "Catalog([*ours.sources, *theirs.sources], " in said[4]
        assert said[4].endswith("If they are to go: featurestore apply --allow-removals.")
    assert project.json("history") == before
    assert "Dry run: 3 changes" in project.run("apply", "--dry-run", "--allow-removals").stdout
    applied = project.json("apply", "--allow-removals")
    assert [change["is_removal"] for change in applied["changes"]] == [True, True, True]
    assert list(project.store.registry.groups) == ["seat_profile"]


def test_teams_share_a_store_by_one_catalogue_of_both(project: Project) -> None:
    whole = "Catalog([departures, seats], [carrier_delay_daily, seat_profile], [delay_v1])"
    both = "Catalog([*ops.sources, *fleet.sources], [*ops.groups, *fleet.groups], [*ops.services, *fleet.services])\n"
    teams = f"ops, fleet = Catalog([departures], [carrier_delay_daily], [delay_v1]), {SEATS_ALONE}\n"
    project.declare()
    project.run("apply")
    project.declare((f"declared = {whole}", f"{teams}declared = {both}"))
    assert project.run("apply").stdout.startswith("Nothing changed in the registry at ")


def test_history_says_who_applied_what_and_when(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "anna")
    assert "Nothing has been applied yet" in project.run("history").stdout
    project.declare()
    project.run("apply")
    project.clock.now += timedelta(days=1)
    project.declare(("Will it be late?", "Will it leave late?"))
    project.run("apply")
    text, entries = project.run("history").stdout, project.json("history")
    assert [entry["applied_by"] for entry in entries] == ["anna", "anna"]
    assert entries[1]["applied_at"] == "2026-03-11T06:00:00+00:00"
    assert "  2  2026-03-11 06:00 UTC  anna  " in text
    assert "     ~ description of service delay_v1 Will it be late? -> Will it leave late?" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no pyproject.toml in"),
        ("[tool.featurestore]\ncatalog = 7", "is 7. Write catalog"),
        ("[tool.featurestore\n", "cannot be read"),
        ('[tool.featurestore]\ncatalog = "no_such_module:catalog"', "There is no module 'no_such_module'"),
        (
            '[tool.featurestore]\ncatalog = "featurestore.cli.times:UNITS"',
            "featurestore.cli.times:UNITS is a tuple, not a Catalog",
        ),
        ('[tool.featurestore]\ncatalog = "..:x"', "'..' names no module"),
    ],
)
def test_a_catalogue_that_cannot_be_found_is_explained(project: Project, content: str | None, message: str) -> None:
    if content is not None:
        (project.folder / "pyproject.toml").write_text(content)
    assert message in project.run("apply", exit_code=1).stderr


def test_a_missing_import_of_the_declarations_names_what_is_missing(project: Project) -> None:
    project.declare(("import polars as pl", "import polars as pl\nimport no_such_library"))
    assert "imports 'no_such_library', which is not installed" in project.run("apply", exit_code=1).stderr


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("def broken(:", "is not Python: invalid syntax"),
        ("1 / 0", "fails as it is imported: ZeroDivisionError: division by zero ("),
        ("from json import no_such_name", "fails as it is imported: ImportError: cannot import name 'no_such_name'"),
    ],
)
def test_declarations_that_cannot_be_imported_are_told_with_their_line(project: Project, added: str, said: str) -> None:
    project.declare(("import polars as pl", f"import polars as pl\n{added}"))
    told = project.run("apply", exit_code=1).stderr
    line = (project.folder / f"{project.module}.py").read_text().splitlines().index(added) + 1
    assert told.startswith(f"Error: Module '{project.module}' {said}")
    assert f"{project.module}.py, line {line})" in told
    assert "Correct it, and apply again" in told


def test_a_declaration_that_contradicts_itself_is_told_without_a_traceback(project: Project) -> None:
    project.declare(("ge=-60, le=1800", "ge=1800, le=-60"))
    assert project.run("apply", exit_code=1).stderr.startswith("Error: Feature 'delay_mean_7d': ge=1800")


# groups, describe, proto


def test_groups_are_listed_with_the_age_of_their_newest_data(filled: Project) -> None:
    lines = filled.run("groups").stdout.splitlines()
    assert [re.sub(" +", " ", line) for line in lines] == [
        "GROUP ENTITY CADENCE FEATURES ONLINE FRESHNESS OWNER TABLE VERSION NEWEST EVENT TIME AGE",
        "carrier_delay_daily carrier daily 2 hot 36 hours team:ops 1 2026-03-10 00:00 UTC 6 h",
        "seat_profile seat static 2 hot - team:fleet 1 2026-01-01 00:00 UTC 68 d 6 h",
    ]


def test_data_older_than_the_groups_freshness_is_marked_stale(filled: Project) -> None:
    at, filled.clock.now = filled.clock.now, LAST_WINDOW + timedelta(days=4)
    try:
        assert "3 d, stale" in filled.run("groups").stdout
    finally:
        filled.clock.now = at


def test_services_are_listed_beneath(filled: Project) -> None:
    assert "delay_v1" not in filled.run("groups").stdout
    found = filled.json("groups", "--services")
    assert found["services"] == [
        {
            "name": "delay_v1",
            "features": ["carrier_delay_daily:delay_mean_7d", "carrier_delay_daily:flights_7d"],
            "groups": ["carrier_delay_daily"],
            "owner": "team:ops",
            "description": "Will it be late?",
        }
    ]
    assert filled.run("groups", "--services").stdout.splitlines()[-1].split()[:3] == ["delay_v1", "2", "1"]


def test_groups_without_rows_are_listed_too(project: Project) -> None:
    project.declare()
    project.run("apply")
    found = project.json("groups")["groups"]
    assert [(g["name"], g["table_version"], g["rows"], g["newest_event_time"], g["age_seconds"]) for g in found] == [
        ("carrier_delay_daily", None, 0, None, None),
        ("seat_profile", None, 0, None, None),
    ]


def test_describe_shows_the_contract_and_what_is_stored(filled: Project) -> None:
    text = re.sub(" +", " ", filled.run("describe", "carrier_delay_daily").stdout)
    for line in (
        "carrier_delay_daily: Delay of each carrier over its last seven days.",
        "Lookback 7 days",
        "Cut-off 2 hours after the window's end",
        "Horizon 15 minutes after the cut-off",
        "Freshness 36 hours",
        "Max age 3 days",
        "Online hot, expires after 7 days",
        "Read by delay_v1",
        "delay_mean_7d 32 float64 min -60 to 1800 any 1 Mean delay",
        "flights_7d 33 int64 >= 0 none 1 Flights",
        "Table version 1, 6 rows",
        "Newest 2026-03-10 00:00 UTC, 6 h ago",
        "Windows 3 promoted, 2026-03-07 00:00 UTC to 2026-03-09 00:00 UTC",
        "Quarantine empty",
    ):
        assert line in text.splitlines()


def test_describe_of_a_static_group_has_no_windows(filled: Project) -> None:
    text = filled.run("describe", "seat_profile").stdout
    assert "static, first load valid from 2026-01-01 00:00 UTC" in text
    assert "seat (plane string, row int32, installed date, is_window bool)" in text
    assert "list<string> up to 8" in text
    assert "Windows" not in text
    assert filled.json("describe", "seat_profile")["windows"] is None


def test_describe_of_a_service_lists_its_features_and_keys(filled: Project) -> None:
    text = re.sub(" +", " ", filled.run("describe", "delay_v1").stdout)
    assert "Keys carrier string" in text
    assert "carrier_delay_daily:delay_mean_7d float64 min carrier yes Mean delay" in text
    assert filled.json("describe", "delay_v1")["keys"] == {"carrier": "string"}


def test_describe_tells_why_a_window_is_in_quarantine(project: Project) -> None:
    project.declare()
    project.run("apply")
    project.land("departures", [departure("UA", LAST_WINDOW + timedelta(hours=1), 5000.0)])
    assert project.promote("carrier_delay_daily", days=1).having("quarantined")
    windows = project.json("describe", "carrier_delay_daily")["windows"]
    assert windows["promoted"] == 0
    assert windows["quarantined"][0]["window"] == "2026-03-09T00:00:00+00:00"
    assert "delay_mean_7d" in windows["quarantined"][0]["findings"][0]
    text = project.run("describe", "carrier_delay_daily").stdout
    assert "1 window" in text
    assert windows["quarantined"][0]["findings"][0] in text


def test_newest_event_time_is_exact_where_statistics_round_it(project: Project) -> None:
    instant = datetime(2026, 2, 1, 1, 2, 3, 4567, tzinfo=UTC)
    project.declare(("datetime(2026, 1, 1, tzinfo=UTC)", "datetime(2026, 2, 1, 1, 2, 3, 4567, tzinfo=UTC)"))
    project.run("apply")
    project.land(
        "seats", [{"plane": "N1", "row": 1, "installed": date(2025, 5, 1), "is_window": True, "pitch": 30, "tags": []}]
    )
    project.load("seat_profile")
    newest = {group["name"]: group["newest_event_time"] for group in project.json("groups")["groups"]}
    assert newest["seat_profile"] == instant.isoformat()


def test_an_unknown_name_is_told_with_what_is_there(filled: Project) -> None:
    refused = filled.run("describe", "carrier_dely_daily", exit_code=1).stderr
    assert refused.startswith("Error: Group or service 'carrier_dely_daily' is not registered.")
    assert "Did you mean 'carrier_delay_daily'?" in refused


def test_proto_prints_the_message_of_a_group(filled: Project) -> None:
    text = filled.run("proto", "seat_profile").stdout
    assert text.startswith("// The online value of feature group 'seat_profile'")
    assert "optional sint64 pitch" in text or "optional sfixed64 pitch" in text or "optional int64 pitch" in text
    assert text.endswith("}\n")


# get-historical


def test_a_csv_of_labels_comes_back_with_the_values_known_then(filled: Project) -> None:
    spine, out = filled.folder / "labels.csv", filled.folder / "train.csv"
    spine.write_text(
        "flight,carrier,label_time,zip\n"
        "a,UA,2026-03-10T05:00:00Z,007\n"
        "b,UA,2026-03-10T03:00:00+01:00,010\n"
        "c,ZZ,2026-03-10T05:00:00Z,\n"
        "d,,2026-03-10T05:00:00Z,1\n"
    )
    text = filled.run("get-historical", "delay_v1", "--spine", str(spine), "--with-status", "--out", str(out)).stdout
    assert text.startswith(f"4 rows, 8 columns in {out}; labels from 2026-03-10 02:00 UTC to 2026-03-10 05:00 UTC.")
    rows = list(csv.DictReader(out.open()))
    assert [row["flight"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["zip"] for row in rows] == ["007", "010", "", "1"]
    assert [row["flights_7d"] for row in rows] == ["3", "2", "", ""]
    assert [row["flights_7d__status"] for row in rows] == ["PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert rows[1]["label_time"] == "2026-03-10T02:00:00.000000+00:00"


def test_a_parquet_of_labels_keeps_its_columns_and_order(filled: Project) -> None:
    spine, out = filled.folder / "labels.parquet", filled.folder / "train.parquet"
    times = [LAST_WINDOW + timedelta(days=1, hours=hour) for hour in (5, 1, 4)]
    labels = pl.DataFrame({"carrier": ["B6", "UA", "B6"], "asked_at": times, "x": [1, 2, 3]})
    labels.write_parquet(spine)
    asked = [
        "get-historical",
        "carrier_delay_daily:*",
        "--spine",
        str(spine),
        "--label-time",
        "asked_at",
        "--out",
        str(out),
    ]
    report = filled.json(*asked, "--full-feature-names")
    found = pl.read_parquet(out)
    assert found.select(labels.columns).equals(labels)
    assert found["carrier_delay_daily__flights_7d"].to_list() == [3, 2, 3]
    assert report["features"]["carrier_delay_daily__flights_7d"] == {"values": 3, "nulls": 0}
    expected = filled.store.get_historical_features(
        labels, ["carrier_delay_daily:delay_mean_7d"], label_time="asked_at"
    ).to_polars()
    assert found["carrier_delay_daily__delay_mean_7d"].equals(expected["delay_mean_7d"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "UA,2026-03-10T05:00:00",
            "row 1: '2026-03-10T05:00:00' has no time zone, and none is guessed. Write 2026-03-10T05:00:00Z",
        ),
        ("UA,10/03/2026", "row 1: '10/03/2026' is no time. Write ISO 8601"),
    ],
)
def test_a_label_time_that_would_have_to_be_guessed_is_refused(filled: Project, line: str, message: str) -> None:
    spine, out = filled.folder / "naive.csv", filled.folder / "never.csv"
    spine.write_text(f"carrier,label_time\n{line}\n")
    assert (
        message
        in filled.run("get-historical", "delay_v1", "--spine", str(spine), "--out", str(out), exit_code=1).stderr
    )
    assert not out.exists()


def test_keys_of_a_csv_are_read_by_the_entitys_dtypes(filled: Project) -> None:
    spine, out = filled.folder / "seats.csv", filled.folder / "seats.parquet"
    header = "plane,row,installed,is_window,label_time\n"
    spine.write_text(header + "N1,7,2025-05-01,true,2026-03-10T05:00:00Z\nN1,8,2025-05-01,true,2026-03-10T05:00:00Z\n")
    filled.run("get-historical", "seat_profile:*", "--spine", str(spine), "--out", str(out))
    found = pl.read_parquet(out)
    assert found.schema["row"] == pl.Int32()
    assert found["pitch"].to_list() == [31, None]
    assert found["tags"].to_list() == [["exit", "quiet"], None]
    for bad in (
        "N1,7.5,2025-05-01,true",
        "N1,99999999999,2025-05-01,true",
        "N1,7,2025-5-1,true",
        "N1,7,2025-02-30,true",
        "N1,7,2025-05-01,yes",
    ):
        spine.write_text(f"{header}{bad},2026-03-10T05:00:00Z\n")
        refused = filled.run("get-historical", "seat_profile:*", "--spine", str(spine), "--out", str(out), exit_code=1)
        assert "which the key is declared to be" in refused.stderr


def test_what_cannot_be_written_is_refused_before_any_work(filled: Project) -> None:
    spine = filled.folder / "refused.csv"
    spine.write_text("carrier,label_time\nUA,2026-03-10T05:00:00Z\n")
    before = spine.read_text()
    for request, out, message in (
        ("delay_v1", spine, "is the spine itself"),
        ("delay_v1", filled.folder / "nowhere" / "x.csv", "There is no folder"),
        ("delay_v1", filled.folder / "x.xlsx", "is named .xlsx"),
        (
            "seat_profile:tags",
            filled.folder / "x.csv",
            "A CSV cannot hold the lists and vectors of ['seat_profile:tags']",
        ),
    ):
        refused = filled.run("get-historical", request, "--spine", str(spine), "--out", str(out), exit_code=1)
        assert message in refused.stderr
    assert spine.read_text() == before
    assert not [path for path in filled.folder.iterdir() if path.name.endswith(".tmp")]


def test_a_file_that_is_not_what_its_name_says_is_refused(filled: Project) -> None:
    spine = filled.folder / "wrong.parquet"
    spine.write_text("carrier,label_time\n")
    refused = filled.run(
        "get-historical", "delay_v1", "--spine", str(spine), "--out", str(filled.folder / "x.csv"), exit_code=1
    )
    assert "cannot be read as parquet" in refused.stderr


# requests and entities


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("delay_v2", "Service 'delay_v2' is not registered. The registry has ['delay_v1']. Did you mean 'delay_v1'?"),
        ("carrier_delay_daily", "To ask for features, write 'group:feature' or 'group:*'."),
        ("carrier_delay_daily:flights", "Did you mean 'carrier_delay_daily:flights_7d'?"),
        ("carrier_delay_daily:flights_7d,delay_v1", "'delay_v1' is not a feature reference"),
        (":", "Group '' is not registered"),
    ],
)
def test_a_request_that_names_nothing_is_explained(filled: Project, request_: str, message: str) -> None:
    assert message in filled.run("get-online", request_, "carrier=UA", exit_code=1).stderr


def requested(project: Project, *references: str) -> list[RequestedGroup]:
    return resolve(project.store.registry, list(references), full_feature_names=True)


def test_entities_are_typed_as_declared_and_share_what_is_said_outside(filled: Project) -> None:
    rows = parse_entities(
        requested(filled, "seat_profile:pitch"),
        ["installed=2025-05-01", "is_window=false"],
        ["plane=N1,row=-7", '"plane=a,b=c",row=8'],
    )
    assert rows.schema == {"plane": pl.String, "row": pl.Int32, "installed": pl.Date, "is_window": pl.Boolean}
    assert rows.rows() == [("N1", -7, date(2025, 5, 1), False), ("a,b=c", 8, date(2025, 5, 1), False)]


@pytest.mark.parametrize(
    ("pairs", "entities", "message"),
    [
        (["carrier"], [], "'carrier' is not of the form key=value. The features asked need carrier (string)."),
        (["plane=N1"], [], "No feature asked has the key 'plane'."),
        ([], [], "Keys ['carrier'] are missing."),
        (
            ["carrier=UA", "carrier=B6"],
            [],
            "Key 'carrier' is given twice for one entity. Ask for several with --entity",
        ),
        (["carrier=UA"], ["carrier=B6"], "given twice"),
        ([], ['"carrier=UA'], "cannot be split at its commas"),
    ],
)
def test_keys_missing_unknown_or_doubled_are_refused(
    filled: Project, pairs: list[str], entities: list[str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)):
        parse_entities(requested(filled, "carrier_delay_daily:flights_7d"), pairs, entities)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("int64", "1_000"),
        ("int64", " 1"),
        ("int64", "9223372036854775808"),
        ("int32", "2147483648"),
        ("bool", "True"),
        ("date", "1 March"),
        ("int32", ""),
    ],
)
def test_a_key_that_is_not_of_its_dtype_is_refused_with_an_example(dtype: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=f"is no value of key 'k', which is {dtype}. Write it as "):
        parse_key("k", dtype, text)


@settings(max_examples=cases(full=2000, gate=150), deadline=None)
@given(st.integers(-(2**63), 2**63 - 1), st.dates(), st.booleans(), st.text())
def test_every_key_value_is_read_back_from_its_text(number: int, day: date, flag: bool, text: str) -> None:
    assert parse_key("k", "int64", str(number)) == number
    assert parse_key("k", "date", day.isoformat()) == day
    assert parse_key("k", "bool", str(flag).lower()) is flag
    assert parse_key("k", "string", text) == text


PLAIN_CELLS = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(
        [
            "007",
            "-0",
            "1e5",
            "0.10",
            "true",
            "false",
            "True",
            "1.",
            ".5",
            "NaN",
            "inf",
            "+1",
            "12345678901234567890",
            "9223372036854775807",
        ]
    ),
    st.text(alphabet="ab01.-e ,\"'", max_size=6).filter(lambda cell: cell != ""),
)


@settings(max_examples=cases(full=3000, gate=150), deadline=None)
@given(st.lists(st.one_of(st.none(), PLAIN_CELLS), min_size=1, max_size=8))
def test_no_text_of_a_csv_column_is_lost_by_reading_it(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str | None]
) -> None:
    file = tmp_path_factory.getbasetemp() / "cells.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([["label_time", "cell"], *[["2026-03-10T05:00:00Z", cell] for cell in cells]])
    column = read_spine(file, [], "label_time")["cell"]
    assert [value is None for value in column] == [cell is None for cell in cells]
    for cell, value in zip(cells, column, strict=True):
        assert cell is None or _same(cell, value)


def _same(cell: str, value: Any) -> bool:
    """Text, integers and booleans read back to the very text; a number only to its value."""
    if isinstance(value, float):
        return float(cell) == value and (not cell.lstrip("-").isdigit() or int(cell) == value)
    return cell == (str(value).lower() if isinstance(value, bool) else str(value))


# the surface


def test_a_place_without_a_registry_says_what_to_do(project: Project) -> None:
    for command in (["groups"], ["describe", "x"], ["proto", "x"], ["materialize"], ["get-online", "x"]):
        assert "has no registry yet. Run `featurestore apply`" in project.run(*command, exit_code=1).stderr


def test_a_wrong_use_exits_with_2(project: Project) -> None:
    assert "No such command 'groop'" in project.run("groop", exit_code=2).stderr
    assert "Missing argument" in project.run("describe", exit_code=2).stderr
    assert "Missing option '--out'" in project.run("get-historical", "x", "--spine", __file__, exit_code=2).stderr


def test_places_come_from_the_environment_and_options_override_them(filled: Project, tmp_path: Path) -> None:
    environment = {"FEATURESTORE_ROOT": str(filled.root)}
    found = CliRunner().invoke(main, ["groups", "--json"], env=environment)
    assert json.loads(found.stdout)["groups"][0]["rows"] == 6
    other = CliRunner().invoke(main, ["--root", str(tmp_path / "other"), "groups"], env=environment)
    assert f"The store at {tmp_path / 'other'} has no registry yet" in other.stderr


def test_without_an_online_server_the_message_says_how_to_get_one(filled: Project) -> None:
    assert "FEATURESTORE_ONLINE_URL" in filled.run("get-online", "delay_v1", "carrier=UA", exit_code=1).stderr


def test_version_is_that_of_the_package() -> None:
    assert re.fullmatch(
        r"featurestore \d+\.\d+\.\d+\S*\n", CliRunner().invoke(main, ["--version"], prog_name="featurestore").stdout
    )


def test_the_surface_imports_no_engine_until_a_command_runs() -> None:
    """The package itself is stood in for by its bare folder: what it exports at its top is its own affair."""
    code = (
        "import sys, types; package = types.ModuleType('featurestore'); package.__path__ = [sys.argv[1]]; sys.modules['featurestore'] = package\n"
        "import featurestore.cli.main\n"
        "print([name for name in ('polars', 'deltalake', 'redis', 'numpy', 'pyarrow', 'pandera', 'dagster') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(REPOSITORY / "featurestore")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# rendering


def test_durations_are_told_in_the_largest_unit_that_divides_them() -> None:
    told = {7 * 86400: "7 days", 86400: "1 day", 129600: "36 hours", 5400: "90 minutes", 61: "61 seconds", 0: "0"}
    assert {seconds: duration_text(timedelta(seconds=seconds)) for seconds in told} == told
    assert duration_text(timedelta(milliseconds=1500)) == "0:00:01.500000"


@settings(deadline=None)
@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=99_999)))
def test_an_age_is_never_told_as_more_than_it_is_or_by_a_unit_less(age: timedelta) -> None:
    units = {"d": timedelta(days=1), "h": timedelta(hours=1), "min": timedelta(minutes=1), "s": timedelta(seconds=1)}
    parts = re.findall(r"(\d+) (d|h|min|s)", age_text(age))
    told = sum((int(count) * units[unit] for count, unit in parts), timedelta(0))
    coarsest = list(units).index(parts[0][1])
    assert told <= age < told + list(units.values())[min(coarsest + 1, 3)]


@settings(deadline=None)
@given(st.text())
def test_a_value_is_told_on_one_line_without_control_characters(text: str) -> None:
    assert value_text(text).isprintable()


def test_columns_are_aligned_and_lines_end_without_blanks() -> None:
    text = table_text(["name", "n", "note"], [["a", "1", ""], ["bcdefg", "1000", "x"]], right=["n"])
    assert text.splitlines() == ["NAME       N  NOTE", "a          1", "bcdefg  1000  x"]


def test_json_holds_only_what_json_knows() -> None:
    document = {
        "at": LAST_WINDOW,
        "x": [float("inf"), float("nan")],
        "d": date(2026, 3, 1),
        "ttl_seconds": timedelta(hours=1),
    }
    parsed = json.loads(json_text(document), parse_constant=lambda name: pytest.fail(name))
    assert parsed == {
        "at": "2026-03-09T00:00:00+00:00",
        "x": ["Infinity", "NaN"],
        "d": "2026-03-01",
        "ttl_seconds": 3600,
    }


# docs/cli.md


def documented() -> list[list[str]]:
    """Every command line that the document shows, without its program name."""
    lines = re.findall(r"^\$ featurestore (.*)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def every_command(
    group: click.Group = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, with the words that call it; a group comes before its own."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


def test_every_documented_command_and_option_exists() -> None:
    assert len(documented()) > len(list(every_command()))
    for arguments in documented():
        if "--help" in arguments or arguments == ["--version"]:
            continue
        # A command keeps the help options of the first context that it meets: give it those of the command line.
        command: click.Command = main
        context = click.Context(main, **main.context_settings)
        rest = list(arguments)
        while isinstance(command, click.Group):
            _, (name, *rest), _ = command.make_parser(context).parse_args(rest)
            command = command.commands[name]
            context = click.Context(command, parent=context)
        command.make_parser(context).parse_args(rest)


def test_every_help_text_stands_in_the_document_as_it_is() -> None:
    text = DOCUMENT.read_text()
    for path in ((), *(path for path, _ in every_command())):
        arguments = [*path, "--help"]
        shown = CliRunner().invoke(main, arguments, prog_name="featurestore", env={"COLUMNS": "80"}).stdout
        assert f"$ featurestore {' '.join(arguments)}\n{shown}" in text, path


def test_every_command_and_option_is_shown_in_use() -> None:
    used = documented()
    for path, command in every_command():
        shown = [arguments for arguments in used if _calls(arguments, path) and "--help" not in arguments]
        assert shown, path
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert any(opt in arguments for arguments in shown for opt in option.opts), (path, option.opts)


def _calls(arguments: list[str], path: tuple[str, ...]) -> bool:
    """Whether a command line has the words of a command, one after the other."""
    return any(tuple(arguments[at : at + len(path)]) == path for at in range(len(arguments)))
