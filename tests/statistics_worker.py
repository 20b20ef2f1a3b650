"""What another process does in the crash tests of kept statistics: add windows of a month one by one, and merge, until done or killed."""

import sys
from pathlib import Path

import polars as pl

from featurestore.location import Location
from featurestore.offline import statistics
from featurestore.offline.statistics import KeptStatistics
from featurestore.quality.frame import WindowStatistics
from featurestore.quality.statistics import window_statistics
from featurestore.registry.compile import compile_snapshot
from tests.catalogs import HOUR, T0, shop_sales_daily, shops

GROUP = "shop_sales_daily"
AT_MOST = 4
"""Files of a month, that a merge comes often."""


def kept_in(folder: Path) -> KeptStatistics:
    return KeptStatistics(Location(str(folder)), GROUP)


def statistics_at(number: int) -> WindowStatistics:
    """Statistics of the window of an hour of the month, other ones for each."""
    group = compile_snapshot(shops(), None).groups[shop_sales_daily.stored_name]
    names = group.feature_names
    rows = pl.DataFrame(
        {**{name: [float(number)] for name in names}, "schema_number": [1]},
        schema={name: group.stored_schema[name] for name in (*names, "schema_number")},
        strict=False,
    )
    start = T0 + number * HOUR
    return WindowStatistics(
        start, tuple(window_statistics(group.features, rows, start)), number, f"run-{number}", start
    )


def main(folder: str, first: int, last: int) -> None:
    """Say when the work starts, then add the windows of some hours."""
    statistics.FILES_A_MONTH = AT_MOST
    kept, made = kept_in(Path(folder)), [statistics_at(number) for number in range(first, last)]
    print("ready", flush=True)
    for one in made:
        kept.append([one])
        kept.compact()
        print(one.table_version, flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
