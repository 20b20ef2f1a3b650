"""A run killed at a random moment: a plain repeat comes to the content of a run that nothing disturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from featurestore.declaration import FeatureGroup
from tests.catalogs import Shops
from tests.promotion_worker import chain_in, land_feeds, launched, run_groups
from tests.scale import cases

REPOSITORY = Path(__file__).parent.parent.parent
LONGEST_SECONDS = 1.5


def kill_a_run(folder: Path, round_number: int, strategy: str, after_seconds: float) -> bool:
    """Start a run and kill it so long after it began to work; whether it was still at work."""
    command = [sys.executable, "-m", "tests.promotion_worker", str(folder), str(round_number), strategy]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    if process.stdout is None or process.stdout.readline() != "ready\n":
        raise RuntimeError(f"worker ended early: {process.wait()}")
    time.sleep(after_seconds)
    os.kill(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    return "done" not in output


def content(chain: Shops) -> dict[str, str]:
    return {group.stored_name: chain.store.table(group.stored_name).content_hash() for group in chain.catalog.groups}


def ledger_of(chain: Shops, group: FeatureGroup) -> pl.DataFrame:
    """What the ledger says of each window, apart from who said it when, how fast, and on which version of a table."""
    latest = chain.store.ledger(group.stored_name).latest()
    return latest.drop("run_id", "recorded_at", "source_versions", "table_version", "compute_seconds")


@pytest.mark.parametrize("strategy", ["full", "incremental"])
def test_killed_run_repeated_converges_and_leaves_nothing_behind(tmp_path: Path, strategy: str) -> None:
    """Each round lands new amounts in both stores; in one of them the run is killed before it is repeated."""
    chance = random.Random(7)
    struck = 0
    for number in range(cases(40, 3)):
        killed, whole = (chain_in(tmp_path / name, number) for name in ("killed", "whole"))
        for chain in (killed, whole):
            land_feeds(chain, number)
        struck += kill_a_run(killed.root, number, strategy, chance.uniform(0, LONGEST_SECONDS))
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
    assert struck > 0


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
