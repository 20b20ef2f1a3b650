"""The definitions as a new process loads them, and the asset graph against its kept copy."""

import difflib
import importlib
import os
import subprocess
import sys
from dataclasses import replace

import dagster as dg
import pytest
import yaml

from definitions import build_definitions, flights
from featurestore.declaration import Catalog, Daily
from featurestore.location import Location
from resources.store import StoreResource
from tests.platform.asset_graph import REPOSITORY, SNAPSHOT
from tests.platform.kiosks import GROUPS, START, kiosks

LOAD_ALONE = """
import socket, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen"):
        raise RuntimeError(f"{event} {arguments} while definitions are loaded")

sys.addaudithook(refuse)
from definitions import build_definitions, flights
import dagster as dg
dg.Definitions.validate_loadable(flights)
print(len(list(flights.resolve_asset_graph().get_all_asset_keys())))
"""


def in_new_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("FEATURESTORE_", "DAGSTER_"))
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=REPOSITORY,
        env={**environment, "DAGSTER_DISABLE_TELEMETRY": "yes"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_definitions_load_in_a_new_process_with_no_environment_and_no_connection() -> None:
    done = in_new_process("-c", LOAD_ALONE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list(flights.resolve_asset_graph().get_all_asset_keys()))


def test_asset_graph_is_the_one_that_is_kept() -> None:
    done = in_new_process("-m", "tests.platform.asset_graph")
    assert done.returncode == 0, done.stderr
    kept = SNAPSHOT.read_text()
    difference = "".join(
        difflib.unified_diff(kept.splitlines(keepends=True), done.stdout.splitlines(keepends=True), "kept", "now", n=4)
    )
    assert not difference, (
        f"The asset graph is not the one in {SNAPSHOT.relative_to(REPOSITORY)}:\n{difference}\n"
        "If that is meant, keep it: python -m tests.platform.asset_graph --write"
    )


def test_every_code_location_names_an_attribute_with_definitions() -> None:
    for entry in yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"]:
        location = entry["python_file"]
        assert location["location_name"]
        module = importlib.import_module(location["relative_path"].removesuffix(".py"))
        assert isinstance(getattr(module, location["attribute"]), dg.Definitions)


def test_every_group_has_an_asset_with_its_gate_and_its_owner() -> None:
    graph = build(kiosks()).resolve_asset_graph()
    for group in GROUPS:
        key = dg.AssetKey(["offline", group.stored_name])
        assert graph.get(key).owners == [group.owner]
        names = {check.name for check in graph.get_check_keys_for_assets({key})}
        assert names == ({"gate"} if group.kind == "static" else {"gate", "quarantine", "quality"})
        assert dg.AssetKey(["online", group.stored_name]) in graph.get_all_asset_keys()


def test_every_source_has_the_check_of_what_its_landing_left_out() -> None:
    graph = build(kiosks()).resolve_asset_graph()
    for source in kiosks().sources:
        (check,) = graph.get_check_keys_for_assets({dg.AssetKey(["raw", source.name])})
        assert check.name == "landing"
        assert not graph.get(check).blocking


def test_what_each_feature_is_computed_from_can_be_read_in_a_table() -> None:
    graph = build(kiosks()).resolve_asset_graph()
    metadata = graph.get(dg.AssetKey(["offline", "kiosk_sales_daily"])).metadata
    (record,) = metadata["computed_from"].records
    assert record.data["feature"] == "sales_1d"
    assert "orders.amount" in str(record.data["computed from"]).split(", ")
    lineage = metadata["dagster/column_lineage"].deps_by_column["sales_1d"]
    told = {f"{dep.asset_key.path[-1]}.{dep.column_name}" for dep in lineage}
    assert set(str(record.data["computed from"]).split(", ")) == told


def test_new_version_of_a_group_has_assets_of_its_own() -> None:
    sales = next(group for group in GROUPS if group.name == "kiosk_sales_daily")
    graph = build(kiosks(sales, replace(sales, version=2))).resolve_asset_graph()
    for name in ("kiosk_sales_daily", "kiosk_sales_daily_v2"):
        assert dg.AssetKey(["offline", name]) in graph.get_all_asset_keys()
        assert dg.AssetKey(["online", name]) in graph.get_all_asset_keys()


def test_resource_takes_what_is_left_empty_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURESTORE_ROOT", "/from/environment")
    assert StoreResource().settings().root == Location("/from/environment")
    assert StoreResource(root="/elsewhere").settings().root == Location("/elsewhere")


def build(catalog: Catalog) -> dg.Definitions:
    return build_definitions(catalog, landing=Daily(start=START), training=[], store=StoreResource())
