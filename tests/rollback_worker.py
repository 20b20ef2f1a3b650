"""What other processes do in the crash tests of rollback: take one backfill of the shops back, until done or killed."""

import sys
from pathlib import Path

from featurestore.backfill.rollback import Rollback, roll_back
from featurestore.launch import Launch
from featurestore.location import Location
from featurestore.promotion import materialize_windows
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.catalogs import (
    DAY,
    HOUR,
    MINUTE,
    OWNER,
    T0,
    Clock,
    Shops,
    aisle_mix_daily,
    sale,
    sales,
    shop_sales_hourly,
    windows,
)

GROUPS = (aisle_mix_daily, shop_sales_hourly)
NOW = T0 + 10 * DAY
LAST = T0 + 6 * HOUR


def store_in(folder: Path) -> FeatureStore:
    """The shops' store, with what they declare applied; its online store does not answer."""
    root = Location(str(folder))
    RegistryHistory(root).apply(Shops(folder, Clock(NOW)).catalog, Clock(NOW), "tests")
    return FeatureStore(Settings(root, root.child("landing")), clock=Clock(NOW))


def land(folder: Path, amount: float, name: str) -> None:
    """Sales of the first hours, all of one amount; one hour of each second file is far out of range."""
    rows = [
        sale(
            number,
            T0 + number * 10 * MINUTE,
            5000.0 if amount % 2 and number == 13 else amount,
            shop="abc"[number % 3],
            known_at=T0 + number * 10 * MINUTE + amount * MINUTE / 10,
        )
        for number in range(36)
    ]
    Shops(folder, Clock(NOW)).land(sales, rows, name)


def promote(folder: Path, backfill_id: str) -> None:
    """A backfill of two groups, as one run of Dagster does it."""
    chain = Shops(folder, Clock(NOW))
    for group in GROUPS:
        last = T0 + DAY if group is aisle_mix_daily else LAST
        materialize_windows(
            chain.store,
            chain.catalog,
            group,
            windows(group, T0, last),
            run_id=f"run-{backfill_id}",
            launch=Launch(backfill_id=backfill_id),
        )


def take_back(folder: Path, backfill_id: str) -> Rollback:
    store = store_in(folder)
    book = store.settings.book(store.clock)
    return roll_back(store, book, backfill_id, person=OWNER, os_user="root", reason="wrong")


def main(folder: str, backfill_id: str) -> None:
    """Say when the work starts, then roll back."""
    print("ready", flush=True)
    take_back(Path(folder), backfill_id)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
