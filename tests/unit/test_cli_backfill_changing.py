"""`backfill inspect`, `diff`, `promote` and `rollback` as a person types them: what they print, and a second time."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from featurestore.cli.main import main
from featurestore.launch import Launch
from featurestore.location import Location
from featurestore.promotion import materialize_windows
from featurestore.registry.history import RegistryHistory
from tests.catalogs import DAY, HOUR, OWNER, T0, Clock, Shops, hours, sale, sales, shop_sales_hourly


class Commands:
    """The shops after a backfill of four hours, of which one is in quarantine, and a terminal."""

    def __init__(self, folder: Path) -> None:
        self.chain = Shops(folder, Clock(T0 + 10 * DAY, ticks=True))
        RegistryHistory(Location(str(folder))).apply(self.chain.catalog, self.chain.clock, "tests")
        self.promote("first", 5.0)
        self.chain.land(sales, [sale(0, T0 + 2 * HOUR, 5000.0, shop="b", known_at=T0 + 2 * HOUR)])
        self.promote("b7", 7.0)

    def promote(self, backfill_id: str, amount: float) -> None:
        rows = [sale(n, T0 + n * HOUR, amount, known_at=T0 + n * HOUR) for n in range(1, 5)]
        self.chain.land(sales, rows)
        asked = hours(shop_sales_hourly, 1, 5)
        materialize_windows(
            self.chain.store,
            self.chain.catalog,
            shop_sales_hourly,
            asked,
            run_id=f"run-{backfill_id}",
            launch=Launch(backfill_id=backfill_id),
        )

    def type(self, *words: str) -> Result:
        environment = {"FEATURESTORE_ROOT": str(self.chain.root), "FEATURESTORE_ONLINE_URL": "redis://127.0.0.1:1/0"}
        return CliRunner().invoke(main, ["backfill", *words], obj=self.chain.clock, env=environment)

    def text(self, *words: str) -> str:
        result = self.type(*words)
        assert result.exit_code == 0, result.output
        return result.output

    def document(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text(*words, "--json"))
        return found


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def test_inspect_says_which_feature_how_far_examples_and_what_to_do(commands: Commands) -> None:
    text = commands.text("inspect", "b7")
    assert "shop_sales_hourly 2026-03-01-02:00: 2 rows, " in text
    assert "quarantine/2026-03-01T0200Z.parquet" in text
    assert "range of revenue_1h is [5000.0, 5000.0], limit [0" in text
    assert "SHOP" in text
    assert "5000" in text
    assert "featurestore backfill resume b7" in " ".join(text.split())
    [window] = commands.document("inspect", "b7")["windows"]
    assert (window["window"], window["findings"][0]["check"]) == ("2026-03-01-02:00", "range")
    assert "is not known" in commands.type("inspect", "b8").output


def test_diff_prints_rows_features_and_windows(commands: Commands) -> None:
    text = commands.text("diff", "b7")
    assert "shop_sales_hourly, 3 windows: rows 0 added, 0 removed, 3 changed, 0 kept" in text
    assert "mean +2, by size: mean 2" in text
    assert "2026-03-01-04:00" in text
    document = commands.document("diff", "b7")
    assert document["groups"]["shop_sales_hourly"]["rows"]["changed"] == 3
    assert commands.document("diff", "b7") == document


def test_promote_with_override_and_rollback_and_each_of_them_twice(commands: Commands) -> None:
    override = ("promote", "b7", "--override", "--window", "2026-03-01-02:00", "--as", OWNER, "--reason", "it was so")
    assert "promoted, 2 rows" in commands.text(*override)
    assert "was promoted before" in commands.text(*override)
    assert "Nothing of backfill b7 is in quarantine." in commands.text("inspect", "b7")
    rollback = ("rollback", "b7", "--as", OWNER, "--reason", "wrong feed")
    first = commands.text(*rollback)
    assert "4 windows (2026-03-01-01:00 to 2026-03-01-04:00)" in first
    assert "not served online" in first
    assert "returned before" in commands.text(*rollback)
    rows = commands.chain.store.table("shop_sales_hourly").scan().collect()
    assert set(rows["revenue_1h"]) == {5.0}
    assert commands.document("diff", "b7")["groups"]["shop_sales_hourly"]["rows"]["changed"] == 4


def test_override_must_be_said_and_refusals_are_messages(commands: Commands) -> None:
    assert commands.type("promote", "b7", "--as", OWNER, "--reason", "x").exit_code == 2
    assert commands.type("rollback", "b7", "--as", OWNER).exit_code == 2
    for window in ((), ("--window", "2026-03-01-02:00")):
        unknown = commands.type("promote", "b8", "--override", *window, "--as", OWNER, "--reason", "x")
        assert (unknown.exit_code, "Backfill 'b8' is not known" in " ".join(unknown.output.split())) == (1, True)
    good = commands.type("promote", "b7", "--override", "--window", "2026-03-01-01:00", "--as", OWNER, "--reason", "x")
    assert (good.exit_code, "was promoted before" in good.output) == (0, True)
    other = commands.type("promote", "b7", "--override", "--window", "2026-03-09-01:00", "--as", OWNER, "--reason", "x")
    told = " ".join(other.output.split())
    assert "There are ['shop_sales_hourly 2026-03-01-02:00']. Look first: featurestore backfill inspect b7" in told
    blank = commands.type("rollback", "b7", "--as", OWNER, "--reason", " ")
    assert (blank.exit_code, "is not rolled back without a reason" in " ".join(blank.output.split())) == (1, True)
    refused = commands.type("rollback", "b7", "--as", "someone@example.com", "--reason", "x")
    assert (refused.exit_code, "may not decide" in refused.output) == (1, True)
    commands.promote("b9", 9.0)
    refused = commands.type("rollback", "b7", "--as", OWNER, "--reason", "x")
    assert "'b9' has changed window 2026-03-01-01:00" in refused.output
    assert "Traceback" not in refused.output
