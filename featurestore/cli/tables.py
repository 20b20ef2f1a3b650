"""Plain text in columns, and documents as JSON: the two forms in which commands print. Not here: what is in them."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from featurestore.cli.times import instant_text

GAP = "  "
WIDTH = 120
LONGEST_LIST = 3


def table_text(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Rows below upper-case headers, each column as wide as its widest cell, with no blanks at line ends.

    Args:
        headers: One a column.
        rows: As many cells each.
        right: Headers of the columns whose cells stand on the right.

    >>> print(table_text(["group", "rows"], [["a", "7"], ["long_name", "12"]], right=["rows"]))
    GROUP      ROWS
    a             7
    long_name    12
    """
    lines = [[header.upper() for header in headers], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    places = [(width, header in right) for width, header in zip(widths, headers, strict=True)]
    return "\n".join(
        GAP.join(_cell(text, *place) for text, place in zip(line, places, strict=True)).rstrip() for line in lines
    )


def pairs_text(pairs: Mapping[str, str]) -> str:
    """Names on the left, what they say on the right; empty ones are left out.

    >>> print(pairs_text({"Owner": "team:fleet", "Inputs": "planes", "Unit": ""}))
    Owner   team:fleet
    Inputs  planes
    """
    shown = {name: text for name, text in pairs.items() if text}
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name:<{width}}{GAP}{text}" for name, text in shown.items())


def wrapped_text(text: str, indent: str = "") -> str:
    """A long line over several, broken at blanks; those after the first stand four further in.

    >>> print(wrapped_text("+ group a", indent="  "))
      + group a
    """
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def value_text(value: Any) -> str:
    """A feature's value on one line: long lists are cut, and text that could be misread or move the cursor is quoted.

    >>> value_text(None), value_text(0.1 + 0.2), value_text("EWR"), value_text(" EWR")
    ('-', '0.3', 'EWR', '" EWR"')
    >>> value_text([1, 2, 3, 4, 5, 6])
    '[1, 2, 3, ... 6 items]'
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, str):
        return value if value.isprintable() and value.strip() == value != "-" and value else json.dumps(value)
    if isinstance(value, Sequence):
        shown = [value_text(item) for item in value[:LONGEST_LIST]]
        return f"[{', '.join(shown)}{f', ... {len(value)} items' if len(value) > LONGEST_LIST else ''}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def json_text(document: Any) -> str:
    """A document as JSON: instants in ISO 8601, durations in seconds, NaN and the infinities as strings.

    >>> print(json_text({"ttl_seconds": timedelta(minutes=1), "value": float("nan")}))
    {
      "ttl_seconds": 60.0,
      "value": "NaN"
    }
    """
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _cell(text: str, width: int, is_right: bool) -> str:
    return text.rjust(width) if is_right else text.ljust(width)
