"""A process of its own that computes windows of a store: `python -m tests.platform.crash_worker <root> <days>`.

It holds where `crash_location` does, and prints how it ended.
"""

import os
import sys
from datetime import datetime

from featurestore.errors import StaleWriter
from featurestore.location import Location
from featurestore.offline.store import OfflineStore
from featurestore.promotion import materialize_windows
from featurestore.registry.history import RegistryHistory
from tests.platform.crash_location import NOW, catalog, sales_daily
from tests.platform.kiosks import DAY, T0


def main(root: str, days: str) -> None:
    now, place = datetime.fromisoformat(os.environ[NOW]), Location(root)
    store = OfflineStore(place, RegistryHistory(place).require_current(), lambda: now)
    windows = list(sales_daily.cadence.windows_between(T0, T0 + int(days) * DAY))
    try:
        print(materialize_windows(store, catalog, sales_daily, windows, run_id="orphan").table_version)
    except StaleWriter as error:
        print(f"StaleWriter: {error}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
