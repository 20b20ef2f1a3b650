"""The price book and the arithmetic: exact sums, and a refusal for whatever is no price."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.backfill.estimates.estimate import PRICES_VARIABLE, load_prices
from featurestore.cost import Defaults, PriceBook, Prices, Quantities, costs_usd
from featurestore.errors import InvalidInput
from tests.scale import cases

BOOK = """
name = "ours"
[prices]
usd_per_gb_scanned = 0.5
usd_per_thousand_reads = 0.25
usd_per_compute_hour = 2
usd_per_gb_month = 0.1
usd_per_million_online_writes = 1.5
[defaults]
storage_months = 10
seconds_per_run = 30
seconds_per_window = 0.5
seconds_per_million_rows = 4
rows_per_input_row = 0.25
"""


def test_each_part_costs_its_quantity_times_its_price() -> None:
    used = Quantities(
        bytes_scanned=3 * 10**9, read_requests=4000, seconds=900, storage_bytes=2 * 10**9, online_writes=2_000_000
    )
    assert costs_usd(used, PriceBook.from_toml(BOOK)) == {
        "scan": 1.5,
        "read_requests": 1.0,
        "compute": 0.5,
        "storage": 2.0,
        "online_writes": 3.0,
    }


amounts = st.integers(0, 10**12)


@settings(max_examples=cases(500, 50), deadline=None)
@given(st.lists(amounts, min_size=5, max_size=5), st.lists(amounts, min_size=5, max_size=5))
def test_two_backfills_cost_what_both_cost_together(one: list[int], other: list[int]) -> None:
    """Splitting a backfill gets nobody below a limit, if the parts are summed."""
    book = PriceBook.from_toml(BOOK)
    names = ("bytes_scanned", "read_requests", "seconds", "storage_bytes", "online_writes")

    def cost(values: list[int]) -> float:
        return sum(costs_usd(Quantities(**dict(zip(names, values, strict=True))), book).values())

    together = [a + b for a, b in zip(one, other, strict=True)]
    assert math.isclose(cost(one) + cost(other), cost(together), rel_tol=1e-9, abs_tol=1e-9)


def test_book_that_comes_along_is_a_book_and_names_its_date() -> None:
    book = load_prices({})
    assert book.name
    assert any(character.isdigit() for character in book.name)
    assert book.prices.usd_per_compute_hour > 0
    assert book.defaults.storage_months > 0


def test_variable_names_another_book(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(BOOK)
    book = load_prices({PRICES_VARIABLE: str(file)})
    assert book == PriceBook(
        "ours",
        Prices(
            usd_per_gb_scanned=0.5,
            usd_per_thousand_reads=0.25,
            usd_per_compute_hour=2.0,
            usd_per_gb_month=0.1,
            usd_per_million_online_writes=1.5,
        ),
        Defaults(
            storage_months=10.0,
            seconds_per_run=30.0,
            seconds_per_window=0.5,
            seconds_per_million_rows=4.0,
            rows_per_input_row=0.25,
        ),
    )


def test_book_that_is_not_there_is_refused_with_the_name_of_the_variable(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"{PRICES_VARIABLE} names .*absent.toml"):
        load_prices({PRICES_VARIABLE: str(tmp_path / "absent.toml")})


def test_refusal_of_a_named_book_says_which_file_it_is_of(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(BOOK.replace("storage_months = 10", ""))
    with pytest.raises(InvalidInput, match=r"ours.toml.*\[defaults\].*lacks \['storage_months'\]"):
        load_prices({PRICES_VARIABLE: str(file)})


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("usd_per_gb_month = 0.1", "", "lacks ['usd_per_gb_month']"),
        ("usd_per_gb_month = 0.1", "usd_per_gb_month = 0.1\nusd_per_tb = 3", "unknown names ['usd_per_tb']"),
        ("usd_per_gb_month = 0.1", "usd_per_gb_month = -0.1", "usd_per_gb_month is -0.1"),
        ("usd_per_gb_month = 0.1", "usd_per_gb_month = nan", "usd_per_gb_month is nan"),
        ("usd_per_gb_month = 0.1", "usd_per_gb_month = inf", "usd_per_gb_month is inf"),
        ("usd_per_gb_month = 0.1", "usd_per_gb_month = true", "usd_per_gb_month is True"),
        ("usd_per_gb_month = 0.1", 'usd_per_gb_month = "0.1"', "usd_per_gb_month is '0.1'"),
        ('name = "ours"', "", "lacks ['name']"),
        ("[prices]", "[prices", "no TOML"),
    ],
)
def test_book_with_anything_else_than_prices_is_refused(before: str, after: str, told: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        PriceBook.from_toml(BOOK.replace(before, after))
    assert told in str(refusal.value)


def test_book_with_a_number_in_the_place_of_a_table_is_refused() -> None:
    with pytest.raises(InvalidInput, match="It is a table of numbers"):
        PriceBook.from_toml('name = "ours"\nprices = 3\ndefaults = 4\n')
