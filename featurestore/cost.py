"""What a computation costs: a price book, and the arithmetic from quantities to dollars.

Pure: where the prices are read, and how quantities are found, is `featurestore.backfill.estimates.estimate`'s.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from featurestore.errors import InvalidInput

GB = 10**9
HOUR_SECONDS = 3600.0

_Table = TypeVar("_Table", "Prices", "Defaults")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What one unit costs, in USD; a GB is 10^9 bytes.

    Args:
        usd_per_gb_scanned: Bytes that leave the object store for the machine that computes.
        usd_per_thousand_reads: GET requests.
        usd_per_compute_hour: The machine that a run has to itself.
        usd_per_gb_month: Storage.
        usd_per_million_online_writes: Values written to the online store.
    """

    usd_per_gb_scanned: float
    usd_per_thousand_reads: float
    usd_per_compute_hour: float
    usd_per_gb_month: float
    usd_per_million_online_writes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What is assumed where a group has no past to measure, and how long storage is paid for.

    Args:
        storage_months: Months for which what is added to storage counts.
        seconds_per_run: What a run takes beside its windows: starting a process and loading the code.
        seconds_per_window: What a window takes beside its transform: staging, gate, promotion, events.
        seconds_per_million_rows: A transform's time for a million input rows.
        rows_per_input_row: Rows that a windowed group gives for each input row that a window sees.
    """

    storage_months: float
    seconds_per_run: float
    seconds_per_window: float
    seconds_per_million_rows: float
    rows_per_input_row: float


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices and defaults, as one TOML file holds them.

    Args:
        name: What the book is and of when, for people to read beside a sum.
    """

    name: str
    prices: Prices
    defaults: Defaults

    @classmethod
    def from_toml(cls, text: str) -> "PriceBook":
        """Read a book: `name`, and the tables `[prices]` and `[defaults]` with exactly the fields above.

        Raises:
            InvalidInput: the text is no TOML, or a value is missing, unknown, negative or no number.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(f"The price book is no TOML: {error}.") from error
        _refuse_other_names("The price book", document, ("name", "prices", "defaults"))
        return cls(str(document["name"]), _table(Prices, document["prices"]), _table(Defaults, document["defaults"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantities:
    """What a computation uses. `seconds` is the whole time that its runs hold a machine."""

    bytes_scanned: int
    read_requests: int
    seconds: float
    storage_bytes: int
    online_writes: int


def costs_usd(used: Quantities, book: PriceBook) -> dict[str, float]:
    """What each part of a computation costs, in USD; their sum is the whole.

    >>> book = PriceBook(
    ...     "round numbers",
    ...     Prices(usd_per_gb_scanned=1, usd_per_thousand_reads=1, usd_per_compute_hour=1, usd_per_gb_month=1,
    ...            usd_per_million_online_writes=1),
    ...     Defaults(storage_months=12, seconds_per_run=0, seconds_per_window=0, seconds_per_million_rows=0,
    ...              rows_per_input_row=0),
    ... )
    >>> costs_usd(Quantities(bytes_scanned=2 * GB, read_requests=500, seconds=1800, storage_bytes=GB, online_writes=0), book)
    {'scan': 2.0, 'read_requests': 0.5, 'compute': 0.5, 'storage': 12.0, 'online_writes': 0.0}
    """
    prices = book.prices
    return {
        "scan": used.bytes_scanned / GB * prices.usd_per_gb_scanned,
        "read_requests": used.read_requests / 1000 * prices.usd_per_thousand_reads,
        "compute": used.seconds / HOUR_SECONDS * prices.usd_per_compute_hour,
        "storage": used.storage_bytes / GB * prices.usd_per_gb_month * book.defaults.storage_months,
        "online_writes": used.online_writes / 10**6 * prices.usd_per_million_online_writes,
    }


def _table(kind: type[_Table], given: Any) -> _Table:
    where = f"Table [{kind.__name__.lower()}] of the price book"
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{where} is {given!r}. It is a table of numbers.")
    names = [field.name for field in fields(kind)]
    _refuse_other_names(where, given, names)
    return kind(**{name: _amount(where, name, given[name]) for name in names})


def _refuse_other_names(where: str, given: Mapping[str, Any], expected: Any) -> None:
    missing, unknown = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    if missing or unknown:
        raise InvalidInput(f"{where} lacks {missing} and has unknown names {unknown}. It has exactly {list(expected)}.")


def _amount(where: str, name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise InvalidInput(f"{where}: {name} is {value!r}. It is a number of 0 or more.")
    return float(value)
