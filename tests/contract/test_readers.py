"""Readers in a loop, in processes of their own, during promotions, rollbacks and compactions: they see only whole states."""

import subprocess
import sys
from pathlib import Path

import polars as pl

from featurestore.backfill.rollback import rollback_backfill
from featurestore.launch import Launch
from featurestore.location import Location
from featurestore.promotion import materialize_windows
from featurestore.registry.history import RegistryHistory
from tests.catalogs import DAY, HOUR, MINUTE, T0, Clock, Shops, sale, sales, shop_sales_hourly, windows
from tests.reader_worker import GROUP, STOP
from tests.scale import cases

ROOT = Path(__file__).parents[2]
FIRST, HOURS = T0 + 31 * DAY - 6 * HOUR, 12
"""The windows lie in two months, so in two partitions of the table at least."""
SHOPS = "abc"
ROWS = HOURS * len(SHOPS)
SECOND = MINUTE / 60


def land(chain: Shops, number: int) -> None:
    """Every sale anew, with the number as its amount, and known a second later each time."""
    rows = [
        sale(
            f"{shop}{hour}",
            FIRST + hour * HOUR,
            float(number),
            shop=shop,
            known_at=FIRST + hour * HOUR + number * SECOND,
        )
        for shop in SHOPS
        for hour in range(HOURS)
    ]
    chain.land(sales, rows)


def promote(chain: Shops, number: int) -> None:
    land(chain, number)
    materialize_windows(
        chain.store,
        chain.catalog,
        shop_sales_hourly,
        windows(shop_sales_hourly, FIRST, FIRST + HOURS * HOUR),
        run_id=f"run-{number}",
        launch=Launch(backfill_id=f"b{number}"),
    )


def start_reader(folder: Path) -> subprocess.Popen[str]:
    """A reader of everything, that asks for the past of each row at its own knowledge time too."""
    spine = pl.DataFrame(
        [
            {"shop": shop, "label_time": FIRST + (hour + 1) * HOUR + 15 * MINUTE}
            for shop in SHOPS
            for hour in range(HOURS)
        ]
    ).cast({"label_time": pl.Datetime("us", "UTC")})
    spine.write_parquet(folder / "spine.parquet")
    command = [sys.executable, "-m", "tests.reader_worker", str(folder), str(folder / "spine.parquet")]
    reader = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    reader.stdout.readline()
    return reader


def test_readers_see_only_whole_states(tmp_path: Path) -> None:
    promotions, rollbacks = cases(100, 6), cases(20, 2)
    chain = Shops(tmp_path, Clock(FIRST + 5 * DAY))
    RegistryHistory(Location(str(tmp_path))).apply(chain.catalog, chain.clock, "tests")
    promote(chain, 1)
    readers = [start_reader(tmp_path) for _ in range(2)]
    table, standing, undone = chain.store.table(GROUP), 1, 0
    for number in range(2, promotions + 2):
        promote(chain, number)
        if (number - 1) % (promotions // rollbacks) == 0:
            rollback_backfill(chain.store, f"b{number}", run_id="undo")
            undone += 1
        else:
            standing = number
        if number % 10 == 0:
            table.compact(2026, 3)
        assert set(table.scan().collect()["revenue_1h"]) == {float(standing)}
    (tmp_path / STOP).touch()
    assert undone == rollbacks
    for reader in readers:
        check_what_was_seen(reader, promotions)


def check_what_was_seen(reader: subprocess.Popen[str], promotions: int) -> None:
    said, _ = reader.communicate(timeout=300)
    assert reader.returncode == 0
    *states, reads = said.splitlines()
    whole = {f"{kind} {ROWS} [{float(n)}]" for kind in ("table", "past") for n in range(1, promotions + 2)}
    assert set(states) <= whole
    assert len(states) > 2, "it saw the table move"
    assert int(reads.split()[1]) > promotions / 4
