"""Quantities as people read them: counts with their noun, sums of money, sizes. Pure; not here: tables and their columns."""

CENT = 0.01
UNITS = ("B", "kB", "MB", "GB", "TB")


def count_text(count: int, noun: str) -> str:
    """A count with its noun.

    >>> count_text(1, "row"), count_text(12000, "row")
    ('1 row', '12,000 rows')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def usd_text(cost: float | None) -> str:
    """A sum in USD; below a cent as exact as it needs.

    >>> usd_text(1234.5), usd_text(0.00042), usd_text(0), usd_text(None)
    ('1,234.50', '0.00042', '0.00', '-')
    """
    if cost is None:
        return "-"
    return f"{cost:.2g}" if 0 < cost < CENT else f"{cost:,.2f}"


def size_text(size_bytes: int) -> str:
    """A size in the unit that leaves it below a thousand.

    >>> size_text(0), size_text(999), size_text(1234), size_text(56_789_000)
    ('0 B', '999 B', '1.2 kB', '56.8 MB')
    """
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {UNITS[unit]}" if unit else f"{size_bytes} B"
