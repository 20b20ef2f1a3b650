"""A run killed at a random moment: a plain repeat comes to the content of a run that nothing disturbed."""

from pathlib import Path

import polars as pl
import pytest

from featurestore.declaration import FeatureGroup
from tests.catalogs import Shops
from tests.kills import Strikes, is_killed_at_work
from tests.promotion_worker import chain_in, land_feeds, launched, run_groups
from tests.scale import cases

LONGEST_SECONDS = 1.5


def content(chain: Shops) -> dict[str, str]:
    return {group.stored_name: chain.store.table(group.stored_name).content_hash() for group in chain.catalog.groups}


def ledger_of(chain: Shops, group: FeatureGroup) -> pl.DataFrame:
    """What the ledger says of each window, apart from who said it when, how fast, and on which version of a table."""
    latest = chain.store.ledger(group.stored_name).latest()
    return latest.drop("run_id", "recorded_at", "source_versions", "table_version", "compute_seconds")


@pytest.mark.parametrize("strategy", ["full", "incremental"])
def test_killed_run_repeated_converges_and_leaves_nothing_behind(tmp_path: Path, strategy: str) -> None:
    """Each round lands new amounts in both stores; in one of them the run is killed before it is repeated."""
    strikes = Strikes(7, cases(40, 3), LONGEST_SECONDS)
    for number, delay_seconds in strikes:
        killed, whole = (chain_in(tmp_path / name, number) for name in ("killed", "whole"))
        for chain in (killed, whole):
            land_feeds(chain, number)
        arguments = [str(killed.root), str(number), strategy]
        strikes.count(is_killed_at_work("tests.promotion_worker", arguments, delay_seconds))
        for group in killed.catalog.groups:
            killed.store.table(group.stored_name).scan().collect()
        for chain in (killed, whole):
            run_groups(chain, f"run-{number}", launched(strategy, number))
        assert content(killed) == content(whole)
        for group in killed.catalog.groups:
            staging, other = killed.store.staging(group.stored_name), whole.store.staging(group.stored_name)
            assert staging.staged_runs() == [], "the repeat clears what the killed run had staged"
            assert staging.quarantined() == other.quarantined()
            assert ledger_of(killed, group).equals(ledger_of(whole, group))
    assert strikes.hits == strikes.wanted


def test_rows_staged_by_a_killed_run_are_harmless_to_runs_of_other_names(tmp_path: Path) -> None:
    """They stay until someone discards them: another run cannot know whether their owner still works."""
    chain = chain_in(tmp_path / "killed", 0)
    land_feeds(chain, 0)
    staging = chain.store.staging("shop_sales_daily")
    staging.stage("killed", pl.DataFrame({"revenue": [1.0]}))
    run_groups(chain, "next")
    assert staging.staged_runs() == ["killed"]
    undisturbed = chain_in(tmp_path / "whole", 0)
    land_feeds(undisturbed, 0)
    run_groups(undisturbed, "next")
    assert content(chain) == content(undisturbed)
