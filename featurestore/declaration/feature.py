"""What a group is about (`Entity`) and what it says about it (`Feature`)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, NoneType
from typing import Literal, get_args

import polars as pl

from featurestore.declaration.dtypes import KEY_DTYPES, NUMERIC, REACH, as_dtype, dtype_name
from featurestore.declaration.types import require, require_mapping, require_number, require_text
from featurestore.errors import DeclarationError

NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
TIME_COLUMNS = ("event_time", "knowledge_time", "created_at", "label_time", "landed_at")
TABLE_COLUMNS = ("window", "window_start", "is_deleted", "schema_number", "year", "month", "bucket")
MESSAGE_FIELDS = ("fence", "message_checksum", "field_count", "found")
OWNER = "owner='team:network-operations' or owner='ada@example.org'"
RESERVED = frozenset(TIME_COLUMNS + TABLE_COLUMNS + MESSAGE_FIELDS)


def check_name(kind: str, name: str) -> None:
    """Refuse a name that cannot stand in a folder, a key, a column and a message field alike."""
    require(f"{kind} name", name, str, "a name such as 'dep_delay'")
    if not NAME.fullmatch(name):
        raise DeclarationError(
            f"{kind} name {name!r} is not allowed. Names match {NAME.pattern}, e.g. {_mended(name)!r}."
        )
    if name in RESERVED:
        raise DeclarationError(
            f"{kind} name {name!r} is reserved by the platform ({sorted(RESERVED)}). Choose another, e.g. '{name}_value'."
        )


def check_owner(what: str, owner: str) -> None:
    """Refuse an owner whom nobody could reach."""
    require(f"{what}: owner", owner, str, OWNER)
    if not re.fullmatch(r"team:[\w./-]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
        raise DeclarationError(f"{what}: owner {owner!r} is neither 'team:...' nor an e-mail address. Write {OWNER}.")


def checked_dtype(what: str, dtype: pl.DataType | type[pl.DataType]) -> pl.DataType:
    """The instance of a supported dtype; the refusal of any other names what it was declared for."""
    try:
        dtype_name(dtype)
    except DeclarationError as error:
        raise DeclarationError(f"{what}: {error}") from error
    return as_dtype(dtype)


def _mended(name: str) -> str:
    snake = re.sub(r"[^a-z0-9_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
    return snake[:63] if snake[:1].isalpha() else f"f_{snake}"[:63]


_BY_ITS_NAME: Mapping[str, pl.DataType | type[pl.DataType]] = MappingProxyType({})
"""The keys of an entity that declares none: one of its own name."""


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that features describe, known by one or more key columns.

    Args:
        name: The entity's name; with `keys` left out, also its one key column, a string.
        keys: Key columns and their dtypes (string, int64, int32, date or bool); never null.
        description: One line for the catalogue.
    """

    name: str
    keys: Mapping[str, pl.DataType | type[pl.DataType]] = field(default_factory=lambda: _BY_ITS_NAME)
    description: str = ""

    def __post_init__(self) -> None:
        check_name("Entity", self.name)
        what = f"Entity {self.name!r}"
        require_mapping(f"{what}: keys", self.keys, object, f"keys={{'{self.name}': pl.String}}")
        require(f"{what}: description", self.description, str, "one line of text")
        if not self.keys and self.keys is not _BY_ITS_NAME:
            raise DeclarationError(
                f"{what} declares no keys. Name its key columns, keys={{'{self.name}_id': pl.Int64}}, or leave keys out for "
                f"one string key {self.name!r}."
            )
        keys = dict(self.keys) or {self.name: pl.String()}
        for key, dtype in keys.items():
            check_name("Key", key)
            if dtype_name(checked_dtype(f"Key {key!r} of entity {self.name!r}", dtype)) not in KEY_DTYPES:
                raise DeclarationError(
                    f"Key {key!r} of entity {self.name!r} is {dtype_name(dtype)}. Keys are one of {list(KEY_DTYPES)}."
                )
        object.__setattr__(self, "keys", {key: as_dtype(dtype) for key, dtype in keys.items()})

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.keys)))


DriftReference = Literal["training", "last_week", "same_weekday"]
DriftPolicy = Literal["warn", "block"]


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the values of a window may lie from those of the windows that it is compared with. None switches one off.

    A window is held where a distance is above its bound, above what chance brings about once in ten thousand times, and
    above three times what the reference windows are usually apart themselves. With the default bounds none of 800 windows
    of nine unchanged features was held, at 200 and at 1,000 rows (`tests/unit/test_drift.py` counts it).

    Args:
        psi: Population stability index, of numbers. 0.2 is the customary bound of a change worth a look.
        ks: Kolmogorov-Smirnov distance, of numbers, up to 1: moving a normal value by half a deviation makes 0.2.
        chi_square: Cramér's V, of strings and booleans, up to 1; it does not grow with the number of rows.
        cosine: One less the cosine between the mean vectors, up to 2: 0.05 is a turn by 18 degrees.
        null_rise: How much larger the share of null or NaN values may be, beside `max_null_fraction`.
        reference: With what a promoted window is compared beyond the windows that the gate holds it against. 'training' is
            every deployed training set of a service that reads the feature, and last week where there is none; 'last_week'
            the windows of the seven days before; 'same_weekday' those of the same weekday (and hour) in the four weeks before.
        policy: What follows when a window is too far from its reference: 'warn' promotes it, and the check `drift` says so;
            'block' holds it in quarantine. The gate's own comparison holds a window under either.

    Numbers are also dates and times, as hours before their window, and lists, by their length.

    Raises:
        DeclarationError: a bound is not above 0 and at most what its measure can reach, or reference or policy is unknown.
    """

    psi: float | None = 0.2
    ks: float | None = 0.15
    chi_square: float | None = 0.15
    cosine: float | None = 0.05
    null_rise: float | None = 0.03
    reference: DriftReference = "training"
    policy: DriftPolicy = "warn"

    def __post_init__(self) -> None:
        for name, most in DRIFT_REACH.items():
            bound = getattr(self, name)
            if bound is None:
                continue
            require_number(f"Drift: {name}", bound, f"a number above 0 and at most {most:g}, or None to switch it off")
            if not (math.isfinite(bound) and 0 < bound <= most):
                raise DeclarationError(
                    f"Drift: {name} is {bound}. It is above 0 and at most {most:g}; None switches it off."
                )
            object.__setattr__(self, name, float(bound))
        for name, choices in (("reference", get_args(DriftReference)), ("policy", get_args(DriftPolicy))):
            if getattr(self, name) not in choices:
                raise DeclarationError(f"Drift: {name} is {getattr(self, name)!r}. It is one of {list(choices)}.")


DRIFT_REACH = {"psi": math.inf, "ks": 1.0, "chi_square": 1.0, "cosine": 2.0, "null_rise": 1.0}
DEFAULT_DRIFT = Drift()


@dataclass(frozen=True, slots=True)
class Feature:
    """One value that a group gives for each of its entities.

    Args:
        name: Column name; unique in the group.
        dtype: One of the supported Polars dtypes (`pl.Float64`, `pl.Array(pl.Float32, 16)`, `pl.List(pl.Int64)`, ...).
        description: One line: what the value is.
        unit: Unit of a number, such as 'min' or 'mi'.
        ge: Smallest value allowed; numbers only.
        le: Largest value allowed; numbers only.
        max_null_fraction: Largest share of null or NaN values in a partition that may be promoted; 1 allows any.
        max_length: Most items of a list; lists only, where it is required.
        drift: How far a window's values may lie from those of other windows; None compares nothing, for groups with too
            few rows to compare, and for values that have no reason to stay as they were.

    Raises:
        DeclarationError: anything above does not hold.
    """

    name: str
    dtype: pl.DataType | type[pl.DataType]
    description: str
    unit: str = ""
    ge: float | None = None
    le: float | None = None
    max_null_fraction: float = 1.0
    max_length: int | None = None
    drift: Drift | None = DEFAULT_DRIFT

    def __post_init__(self) -> None:
        check_name("Feature", self.name)
        if self.name.endswith("__status"):
            raise DeclarationError(
                f"Feature name {self.name!r} ends in '__status', which names status columns. Choose another."
            )
        object.__setattr__(self, "dtype", checked_dtype(f"Feature {self.name!r}", self.dtype))
        self._check_types()
        self._check_bounds()
        if not 0 <= self.max_null_fraction <= 1:
            raise DeclarationError(
                f"Feature {self.name!r}: max_null_fraction is {self.max_null_fraction}. It is a share from 0 to 1."
            )
        self._check_length()
        require_text(f"Feature {self.name!r}: description", self.description, "one line that says what the value is")

    def _check_length(self) -> None:
        if isinstance(self.dtype, pl.List) != (self.max_length is not None):
            remedy = (
                "Remove it." if self.max_length is not None else "Say how many items one has at most: max_length=10."
            )
            raise DeclarationError(
                f"Feature {self.name!r} is {self.dtype_name}: lists, and only lists, declare max_length. {remedy}"
            )
        if self.max_length is not None and self.max_length < 1:
            raise DeclarationError(
                f"Feature {self.name!r}: max_length is {self.max_length}. It is at least 1: write the most items that a list may have, "
                "e.g. max_length=10."
            )

    def _check_types(self) -> None:
        what = f"Feature {self.name!r}"
        require(f"{what}: unit", self.unit, str, "unit='min', or leave it out")
        for name, bound in (("ge", self.ge), ("le", self.le)):
            if bound is not None:
                require_number(f"{what}: {name}", bound, f"a number, {name}=0, or leave it out for no bound")
        require_number(f"{what}: max_null_fraction", self.max_null_fraction, "a share from 0 to 1, e.g. 0.05")
        if self.max_length is not None:
            require(f"{what}: max_length", self.max_length, int, "a number of items, max_length=10")
        require(f"{what}: drift", self.drift, (Drift, NoneType), "drift=Drift(psi=0.2), or None to compare nothing")

    def _check_bounds(self) -> None:
        bounded = self.ge is not None or self.le is not None
        if bounded and self.dtype_name not in NUMERIC:
            raise DeclarationError(
                f"Feature {self.name!r} is {self.dtype_name} and has bounds. Bounds (ge, le) are for {list(NUMERIC)}; remove them."
            )
        if not all(math.isfinite(bound) for bound in (self.ge, self.le) if bound is not None):
            raise DeclarationError(
                f"Feature {self.name!r}: ge={self.ge}, le={self.le}. Bounds are finite numbers; leave one out for no bound."
            )
        for name, bound in (("ge", self.ge), ("le", self.le)):
            self._check_reach(name, bound)
        if self.ge is not None and self.le is not None and self.ge > self.le:
            raise DeclarationError(f"Feature {self.name!r}: ge={self.ge} is above le={self.le}. Swap them.")

    def _check_reach(self, name: str, bound: float | None) -> None:
        """Refuse a bound that no value of the dtype can be."""
        smallest, largest = REACH.get(self.dtype_name, (0.0, 0.0))
        if bound is not None and not smallest <= bound <= largest:
            raise DeclarationError(
                f"Feature {self.name!r} is {self.dtype_name}, which holds {smallest:g} to {largest:g}, and {name} is {bound:g}. "
                "Leave the bound out, or declare a wider dtype."
            )

    @property
    def dtype_name(self) -> str:
        return dtype_name(self.dtype)
