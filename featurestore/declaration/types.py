"""Of which Python type each part of a declaration is: the refusal of any other says what to write instead.

Not here: whether a value of the right type makes sense (the module of each declaration), or the dtypes of columns (`dtypes.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from featurestore.errors import DeclarationError

LONGEST = timedelta(days=36_525)
"""A hundred years: a longer duration is a slip, and would leave the calendar."""
SHOWN_LETTERS = 60


def require(what: str, value: object, wanted: type | tuple[type, ...], write: str) -> None:
    """Refuse a part of a declaration that is of another type; a bool is no number.

    Args:
        what: Whose part it is and which, such as "Group 'delays': lookback".
        value: What was declared.
        wanted: The types that it may have.
        write: What to write instead, as code.

    Raises:
        DeclarationError: the value is of another type.

    >>> require("Group 'delays': lookback", 7, timedelta, "lookback=timedelta(days=7)")
    Traceback (most recent call last):
    featurestore.errors.DeclarationError: Group 'delays': lookback is 7 (int). Write lookback=timedelta(days=7).
    """
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    is_stray_bool = isinstance(value, bool) and bool not in kinds
    if is_stray_bool or not isinstance(value, kinds):
        raise DeclarationError(f"{what} is {shown(value)}. Write {write}.")


def require_text(what: str, value: object, write: str) -> None:
    """Refuse what is no text, or only space.

    Raises:
        DeclarationError: the message says what to write.
    """
    require(what, value, str, write)
    if not str(value).strip():
        raise DeclarationError(f"{what} is empty. Write {write}.")


def require_number(what: str, value: object, write: str) -> None:
    """Refuse what is no number, or one that no float can hold.

    Raises:
        DeclarationError: the message says what to write.
    """
    require(what, value, (int, float), write)
    if isinstance(value, int) and abs(value) > 2**1023:
        raise DeclarationError(f"{what} is an integer of {value.bit_length()} bits. Write {write}.")


def require_duration(what: str, value: object, write: str = "timedelta(days=7)") -> None:
    """Refuse what is no `timedelta`, or is longer than a hundred years, either way.

    Raises:
        DeclarationError: the message says what to write.
    """
    require(what, value, timedelta, write)
    if isinstance(value, timedelta) and not -LONGEST <= value <= LONGEST:
        raise DeclarationError(
            f"{what} is {value.days:,} days. Durations are at most {LONGEST.days:,} days, a hundred years; write a shorter one, "
            f"such as {write}."
        )


def require_items(what: str, value: object, wanted: type | tuple[type, ...], write: str) -> None:
    """Refuse what is no list or tuple, or holds an item of another type.

    Raises:
        DeclarationError: the message names the item, and says what to write.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DeclarationError(f"{what} is {shown(value)}, not a list or tuple. Write {write}.")
    for index, item in enumerate(value):
        require(f"{what}[{index}]", item, wanted, write)


def require_mapping(what: str, value: object, wanted: type | tuple[type, ...], write: str) -> None:
    """Refuse what is no mapping of names, or holds a value of another type.

    Raises:
        DeclarationError: the message names the entry, and says what to write.
    """
    require(what, value, Mapping, write)
    for name, item in _items(value):
        require(f"{what}: name {name!r}", name, str, write)
        require(f"{what}[{name!r}]", item, wanted, write)


def _items(value: object) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else ()


def shown(value: object) -> str:
    """A value as a message shows it: short, with its type.

    >>> shown("7d"), shown(timedelta), shown(None)
    ("'7d' (str)", 'the class timedelta', 'None')
    """
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    name = getattr(value, "name", None) or getattr(value, "__name__", None)
    if isinstance(name, str):
        return f"{kind} {name!r}"
    text = repr(value)
    return f"{text if len(text) <= SHOWN_LETTERS else text[:SHOWN_LETTERS] + '...'} ({kind})"
