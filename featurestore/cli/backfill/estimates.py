"""An estimate as text: each figure with what it rests on, and what it costs. It reads what `Estimate.as_dict` wrote."""

from collections.abc import Mapping
from typing import Any

from featurestore.cli.tables import table_text, wrapped_text
from featurestore.quantities import count_text, usd_text

HEADERS = ["figure", "value", "rests on"]
APART = {"cost_usd"}


def estimate_text(estimate: Mapping[str, Any]) -> str:
    """Figures in a table, their unit in their name; below it the cost by part, the inputs and the notes."""
    costs, book = estimate.get("costs_usd", {}), estimate.get("price_book", "")
    by_part = ", ".join(f"{_words(name)} {usd_text(cost)}" for name, cost in costs.items())
    cost = f"Cost: {usd_text(estimate.get('cost_usd'))} USD{f' by {book}' if book else ''}{f': {by_part}' if by_part else ''}"
    inputs = [f"Reads {name}: {_input_text(read)}" for name, read in estimate.get("inputs", {}).items()]
    lines = [cost, *inputs, *estimate.get("notes", ())]
    return "\n".join([*_figures(estimate), *[wrapped_text(line) for line in lines]])


def _figures(estimate: Mapping[str, Any]) -> list[str]:
    rests_on = estimate.get("rests_on", {})
    rows = [
        [name, _number_text(name, value), str(rests_on.get(name, ""))]
        for name, value in estimate.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in APART
    ]
    return [table_text(HEADERS, rows, right=["value"])] if rows else []


def _number_text(name: str, value: float) -> str:
    if name.endswith("_usd"):
        return usd_text(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _input_text(read: Mapping[str, Any]) -> str:
    parts = [count_text(count, noun.removesuffix("s")) for noun, count in read.items() if isinstance(count, int)]
    return ", ".join(parts)
