"""A reader in a loop, for the tests of what readers see: it reads the whole table and asks for the past, until told to stop.

It prints every state that it sees, once in a row: from the table and from a point-in-time read the values it found, and how
many rows. Whether such a state ever was there is for the test to say.
"""

import sys
from pathlib import Path

import polars as pl

from featurestore.location import Location
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.catalogs import Clock

GROUP = "shop_sales_hourly"
FEATURE = "revenue_1h"
STOP = "stop"


def seen_in_table(store: FeatureStore) -> str:
    rows = store.offline.table(GROUP).scan().select(FEATURE).collect()
    return f"table {rows.height} {sorted(set(rows[FEATURE]))}"


def seen_in_the_past(store: FeatureStore, spine: pl.DataFrame) -> str:
    rows = store.get_historical_features(spine, [f"{GROUP}:{FEATURE}"]).to_polars()
    return f"past {rows.height - rows[FEATURE].null_count()} {sorted(set(rows[FEATURE].drop_nulls()))}"


def main(folder: str, spine_file: str) -> None:
    spine = pl.read_parquet(spine_file)
    now = spine["label_time"].max()
    root = Location(folder)
    store = FeatureStore(Settings(root, root.child("landing")), clock=Clock(now))  # type: ignore[arg-type]
    last: list[str] = []
    reads = 0
    while not Path(folder, STOP).exists():
        seen = [seen_in_table(store), seen_in_the_past(store, spine)]
        reads += 1
        for state in set(seen) - set(last):
            print(state, flush=True)
        last = seen
    print(f"reads {reads}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
