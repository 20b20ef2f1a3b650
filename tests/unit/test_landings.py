"""Due windows wait for files that have landed, but not for ever."""

from featurestore.declaration import Catalog
from featurestore.schedule.landings import LONGEST_HOLD, Holds
from tests.catalogs import HOUR, MINUTE, T0, sales, shop_sales_daily


def test_hold_that_began_on_a_clock_that_was_ahead_ends_ten_minutes_after_it_is_right_again() -> None:
    holds, catalog = Holds(), Catalog((sales,), (shop_sales_daily,))
    held = [
        holds.is_held(catalog, shop_sales_daily, lambda _: {"a.parquet": "mark"}, now)
        for now in (T0 + 5 * HOUR, T0, T0 + LONGEST_HOLD - MINUTE, T0 + LONGEST_HOLD)
    ]
    assert held == [True, True, True, False]
