"""What another process does in the crash tests of promotion: run every group of the chain once, until done or killed."""

import sys
from pathlib import Path

from featurestore.launch import SCHEDULED, Launch
from featurestore.loading import materialize_load
from featurestore.promotion import materialize_windows
from tests.catalogs import DAY, HOUR, MINUTE, T0, Clock, Shops, register, sale, sales, shop_profile, windows

DAYS = 1
NOW = T0 + 10 * DAY


def chain_in(folder: Path, round_number: int) -> Shops:
    """The chain at the time of a round; a static load bears it, so that it must be the same for every store."""
    return Shops(folder, Clock(NOW + round_number * HOUR))


def land_feeds(chain: Shops, round_number: int) -> None:
    """Sales of a day, with other amounts in each round; in odd rounds one of them is far out of range."""
    rows = []
    for number in range(20):
        known = T0 + number * HOUR + (1 + round_number) * MINUTE
        amount = 5000.0 if round_number % 2 and number == 7 else float(number + round_number)
        rows.append(sale(number, T0 + number * HOUR, amount, shop="abc"[number % 3], known_at=known))
    chain.land(sales, rows, f"round-{round_number}.parquet")
    chain.land(
        register,
        [{"shop": name, "area": 10 + round_number, "town": "x"} for name in "abc"],
        f"round-{round_number}.parquet",
    )


def launched(strategy: str, round_number: int) -> Launch:
    """A scheduled run, or an incremental backfill of its own."""
    return Launch(f"b{round_number}", "incremental") if strategy == "incremental" else SCHEDULED


def run_groups(chain: Shops, run_id: str, launch: Launch = SCHEDULED) -> None:
    for group in chain.catalog.ordered_groups:
        if group is shop_profile:
            materialize_load(chain.store, chain.catalog, group, run_id=run_id)
        else:
            asked = windows(group, T0, T0 + DAYS * DAY)
            materialize_windows(chain.store, chain.catalog, group, asked, run_id=run_id, launch=launch)


def main(folder: str, round_number: int, strategy: str) -> None:
    """Say when the work starts, then run."""
    chain = chain_in(Path(folder), round_number)
    print("ready", flush=True)
    run_groups(chain, f"run-{round_number}", launched(strategy, round_number))
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
