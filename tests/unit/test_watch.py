"""What a process keeps of the ledgers: it sleeps while nothing is due, reads on from where it stands, and notices others."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from featurestore.declaration import Catalog, FeatureGroup
from featurestore.location import Location
from featurestore.offline.ledger import LedgerEntry
from featurestore.offline.store import OfflineStore
from featurestore.promotion import materialize_windows
from featurestore.schedule import watch as watching
from featurestore.schedule.watch import LONGEST_SLEEP, Watch
from tests.catalogs import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    Clock,
    Shops,
    aisle_mix_daily,
    days,
    register,
    sale,
    sales,
    shop_density_daily,
    shop_last_sale_hourly,
    shop_sales_daily,
)

SETTLED = timedelta(seconds=30)
NEXT = T0 + 3 * DAY + 2 * HOUR + SETTLED
"""When the daily window of day 2 is due and has settled."""


@pytest.fixture
def chain(tmp_path: Path) -> Shops:
    """Two days of sales, of which the daily group is computed, in the evening of day 2."""
    made = Shops(tmp_path, Clock(T0 + 2 * DAY + 20 * HOUR))
    made.land(sales, [sale(day, T0 + day * DAY + HOUR) for day in range(3)])
    compute(made, 0, 2)
    return made


def compute(shops: Shops, first: int, last: int) -> None:
    windows = days(shop_sales_daily, first, last)
    materialize_windows(shops.store, shops.catalog, shop_sales_daily, windows, run_id=f"run-{first}")


def nothing() -> OfflineStore:
    raise AssertionError("the store was opened although nothing is due")


def owed(watch: Watch, shops: Shops) -> list[int]:
    work = watch.owed(shops.store.root, shops.clock.now, lambda: shops.store)
    return [(window.start - T0) // DAY for window in work[shop_sales_daily].ready] if shop_sales_daily in work else []


def asleep(watch: Watch, shops: Shops) -> bool:
    """Whether nothing of the daily group is read now."""
    return watch._watched[shop_sales_daily.stored_name].sleeps_until > shops.clock.now


def test_group_sleeps_until_its_next_window_is_due(chain: Shops) -> None:
    watch = Watch(chain.catalog)
    assert owed(watch, chain) == []
    assert asleep(watch, chain)
    chain.clock.now = NEXT - timedelta(microseconds=1)
    assert owed(watch, chain) == []
    chain.clock.now = NEXT
    assert owed(watch, chain) == [2]
    assert not asleep(watch, chain)


def test_nothing_is_opened_while_everything_sleeps(chain: Shops) -> None:
    watch = Watch(chain.catalog)
    assert owed(watch, chain) == []
    for watched in watch._watched.values():
        watched.sleeps_until = chain.clock.now + LONGEST_SLEEP
    chain.clock.now += MINUTE
    assert watch.owed(chain.store.root, chain.clock.now, nothing) == {}


def test_what_others_computed_meanwhile_is_noticed(chain: Shops) -> None:
    watch = Watch(chain.catalog)
    chain.clock.now = NEXT
    assert owed(watch, chain) == [2]
    assert watch.is_current(shop_sales_daily)
    compute(chain, 2, 3)
    assert not watch.is_current(shop_sales_daily)
    assert owed(watch, chain) == []
    assert watch.is_current(shop_sales_daily)


def test_sleeper_looks_again_after_minutes_and_begins_anew_at_another_root(chain: Shops, tmp_path: Path) -> None:
    watch = Watch(chain.catalog)
    owed(watch, chain)
    assert watch._watched[shop_sales_daily.stored_name].sleeps_until <= chain.clock.now + LONGEST_SLEEP
    other = Location(str(tmp_path / "other"))
    empty = OfflineStore(other, chain.store.registry, chain.clock)
    assert watch.owed(other, chain.clock.now, lambda: empty) == {}


@pytest.mark.parametrize("ahead", [2 * LONGEST_SLEEP, 5 * HOUR])
def test_clock_that_is_ahead_for_one_look_puts_no_group_to_sleep_for_longer(chain: Shops, ahead: timedelta) -> None:
    watch, now = Watch(chain.catalog), chain.clock.now
    chain.clock.now = now + ahead
    assert owed(watch, chain) == []
    note_again(chain, shop_sales_daily)
    chain.clock.now = now
    assert not watch.is_current(shop_sales_daily)
    owed(watch, chain)
    assert watch.is_current(shop_sales_daily)


def note_again(shops: Shops, group: FeatureGroup) -> None:
    """Have the ledger of the daily group say once more what it said first, in the name of a group."""
    first = shops.store.ledger(shop_sales_daily.stored_name).latest().row(0, named=True)
    shops.store.ledger(group.stored_name).append([LedgerEntry(**first)])


def test_groups_that_owe_something_and_have_no_ledger_keep_no_new_ones_from_being_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "NEW_GROUPS_A_LOOK", 2)
    groups = [replace(shop_sales_daily, name=f"shop_sales{number}_daily") for number in range(5)]
    shops = Shops(tmp_path, Clock(NEXT), Catalog((sales,), groups))
    shops.land(sales, [sale(1, T0 + HOUR)])
    watch = Watch(shops.catalog)
    looks = [watch.owed(shops.store.root, shops.clock.now, lambda: shops.store) for _ in range(4)]
    assert [len(found) for found in looks] == [2, 4, 5, 5]


def cut_ledger(shops: Shops, group: FeatureGroup) -> Path:
    """A commit to a group's ledger that a power cut left in its middle: the file of it."""
    ledger = shops.store.ledger(group.stored_name)
    version = ledger.version()
    assert version is not None
    entry = ledger.location.path / "_delta_log" / f"{version + 1:020}.json"
    entry.write_text('{"commitInfo":')
    return entry


@pytest.mark.parametrize("is_known", [True, False])
def test_group_whose_ledger_is_cut_short_is_named_and_stops_no_other_group(chain: Shops, is_known: bool) -> None:
    watch = Watch(chain.catalog)
    note_again(chain, shop_density_daily)
    if is_known:
        owed(watch, chain)
    chain.clock.now = NEXT + HOUR
    compute(chain, 2, 3)
    cut = cut_ledger(chain, shop_sales_daily)
    work = watch.owed(chain.store.root, chain.clock.now, lambda: chain.store)
    assert list(watch.unreadable) == [shop_sales_daily.stored_name]
    assert "is cut short" in str(watch.unreadable[shop_sales_daily.stored_name])
    assert shop_sales_daily not in work
    assert [window.start for window in work[aisle_mix_daily].ready] == [T0 + 2 * DAY]
    assert work[shop_density_daily].ready == (), "what it reads cannot be told"
    assert T0 + 2 * DAY in [window.start for window in work[shop_density_daily].blocked]
    cut.unlink()
    work = watch.owed(chain.store.root, chain.clock.now, lambda: chain.store)
    assert work[shop_density_daily].ready[-1].start == T0 + 2 * DAY
    assert watch.unreadable == {}


def test_group_whose_inputs_cannot_be_read_stops_no_other_group(chain: Shops) -> None:
    watch = Watch(chain.catalog)
    chain.clock.now = NEXT + HOUR
    broken = chain.store.source(register).location.path / "_delta_log" / f"{0:020}.json"
    broken.parent.mkdir(parents=True)
    broken.write_text('{"commitInfo":')
    assert owed(watch, chain) == [2]
    assert set(watch.unreadable) == {shop_last_sale_hourly.stored_name}


def test_blocked_window_waits_for_its_upstream_and_is_ready_after_it(chain: Shops) -> None:
    watch = Watch(chain.catalog)
    entry = shop_density_daily
    note_again(chain, entry)
    chain.clock.now = NEXT + HOUR
    work = watch.owed(chain.store.root, chain.clock.now, lambda: chain.store)
    assert [w.start for w in work[entry].blocked] == [T0 + 2 * DAY]
    compute(chain, 2, 3)
    work = watch.owed(chain.store.root, chain.clock.now, lambda: chain.store)
    assert work[entry].ready[-1].start == T0 + 2 * DAY
    assert work[entry].blocked == ()
