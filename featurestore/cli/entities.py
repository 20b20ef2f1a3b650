"""Entities as they are written on the command line: `key=value`, read by the dtype that the entity declares."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import polars as pl

from featurestore.errors import InvalidInput
from featurestore.references import RequestedGroup

INTEGER = re.compile(r"-?[0-9]+")
INT_LIMITS = {"int64": 2**63, "int32": 2**31}
BOOLS = {"true": True, "false": False}


def parse_entities(requested: Sequence[RequestedGroup], shared: Sequence[str], entities: Sequence[str]) -> pl.DataFrame:
    """The entity rows of a request.

    Args:
        requested: Groups asked; their keys are needed, and no others.
        shared: `key=value` of every row.
        entities: A row each, `key=value,key=value`; a pair that holds a comma is quoted as in CSV. None: one row, of `shared`.

    Returns:
        A row an entity, a column a key, in the dtypes declared.

    Raises:
        InvalidInput: a key is missing, unknown or given twice, or a value is not of its dtype.
    """
    dtypes = {key: dtype for wanted in requested for key, dtype in wanted.group.keys}
    rows = [_row(dtypes, [*shared, *_split(entity)]) for entity in entities or [""]]
    schema = {key: dtype for wanted in requested for key, dtype in wanted.group.key_schema.items()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _split(entity: str) -> list[str]:
    try:
        return next(csv.reader([entity], strict=True), [])
    except csv.Error as error:
        raise InvalidInput(
            f'{entity!r} cannot be split at its commas: {error}. Quote a pair that holds one: "key=a,b",other=c.'
        ) from error


def _row(dtypes: Mapping[str, str], pairs: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise InvalidInput(f"{pair!r} is not of the form key=value. The features asked need {_needs(dtypes)}.")
        if key not in dtypes:
            raise InvalidInput(f"No feature asked has the key {key!r}. They need {_needs(dtypes)}.")
        if key in row:
            raise InvalidInput(
                f"Key {key!r} is given twice for one entity. Ask for several with --entity {key}=... --entity {key}=..."
            )
        row[key] = parse_key(key, dtypes[key], text)
    if missing := [key for key in dtypes if key not in row]:
        raise InvalidInput(
            f"Keys {missing} are missing. The features asked need {_needs(dtypes)}; write each as key=value."
        )
    return row


def parse_key(key: str, dtype_name: str, text: str) -> Any:
    """The value of a key.

    Args:
        key: Its name, for the message.
        dtype_name: string, int64, int32, date or bool.
        text: What was written: strings as they are, decimal integers, ISO dates, true or false.

    Raises:
        InvalidInput: the text is not of that dtype.

    >>> parse_key("seat", "int32", "12")
    12
    """
    try:
        return PARSERS[dtype_name](text)
    except ValueError as error:
        raise InvalidInput(
            f"{text!r} is no value of key {key!r}, which is {dtype_name}. Write it as {EXAMPLES[dtype_name]}."
        ) from error


def _needs(dtypes: Mapping[str, str]) -> str:
    return ", ".join(f"{key} ({dtype})" for key, dtype in dtypes.items())


def _integer(text: str, dtype_name: str) -> int:
    number = int(text) if INTEGER.fullmatch(text) else None
    if number is None or not -INT_LIMITS[dtype_name] <= number < INT_LIMITS[dtype_name]:
        raise ValueError(text)
    return number


def _bool(text: str) -> bool:
    if text not in BOOLS:
        raise ValueError(text)
    return BOOLS[text]


PARSERS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "int64": lambda text: _integer(text, "int64"),
    "int32": lambda text: _integer(text, "int32"),
    "date": date.fromisoformat,
    "bool": _bool,
}
EXAMPLES = {
    "string": "text",
    "int64": "12 (64 bits)",
    "int32": "12 (32 bits)",
    "date": "2026-03-01",
    "bool": "true or false",
}
