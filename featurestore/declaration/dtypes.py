"""The types that a feature, a key or a source column may have: their names, and how the offline table stores them.

Only types that survive the whole way belong here: transform, Delta table, Protobuf message, training frame.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import polars as pl

from featurestore.errors import DeclarationError

TIMESTAMP = pl.Datetime("us", "UTC")

SCALARS: dict[str, pl.DataType] = {
    "float64": pl.Float64(),
    "float32": pl.Float32(),
    "int64": pl.Int64(),
    "int32": pl.Int32(),
    "bool": pl.Boolean(),
    "string": pl.String(),
    "date": pl.Date(),
    "timestamp": TIMESTAMP,
}
LIST_ITEMS = ("int64", "float64", "string")
KEY_DTYPES = ("string", "int64", "int32", "date", "bool")
NUMERIC = ("float64", "float32", "int64", "int32")
_LARGEST_FLOAT32, _LARGEST_FLOAT64 = (2 - 2**-23) * 2.0**127, math.nextafter(math.inf, 0)
REACH: dict[str, tuple[float, float]] = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "float32": (-_LARGEST_FLOAT32, _LARGEST_FLOAT32),
    "float64": (-_LARGEST_FLOAT64, _LARGEST_FLOAT64),
}
"""The smallest and the largest number that each numeric dtype holds."""
BOUNDS: Mapping[pl.DataType, tuple[int, int]] = MappingProxyType(
    {TIMESTAMP: (-62_135_596_800_000_000, 253_402_300_799_999_999), pl.Date(): (-719_162, 2_932_896)}
)
"""The first and the last instant and day that can be shown: of the years 1 to 9999, as Python's calendar has them."""
CALENDAR = "years 1 to 9999"


def in_calendar(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Whether an instant or a day can be shown; a null can."""
    return column.to_physical().is_between(*BOUNDS[dtype]).fill_null(True)


def as_dtype(dtype: pl.DataType | type[pl.DataType] | pl.datatypes.DataTypeClass) -> pl.DataType:
    """An instance for a dtype given as class or instance.

    Raises:
        DeclarationError: a class that is no dtype, or says too little by itself, such as `pl.List`.
    """
    if not isinstance(dtype, type):
        return dtype
    if not issubclass(dtype, pl.DataType):
        raise DeclarationError(f"Dtype {dtype!r} is not one of Polars. Write pl.Float64, pl.Int64, pl.String, ...")
    try:
        instance: pl.DataType = dtype()
    except TypeError as error:
        raise DeclarationError(
            f"Dtype {dtype.__name__} does not say of what. Write pl.List(pl.Int64) or pl.Array(pl.Float32, n)."
        ) from error
    return instance


def dtype_name(dtype: pl.DataType | type[pl.DataType]) -> str:
    """The name of a supported dtype: `float64`, `timestamp`, `float32[16]`, `list<int64>`.

    Raises:
        DeclarationError: the dtype is not supported; the message lists those that are.
    """
    given = as_dtype(dtype)
    if isinstance(given, pl.Array):
        return _vector_name(given)
    if isinstance(given, pl.List):
        item = dtype_name(as_dtype(given.inner))
        if item in LIST_ITEMS:
            return f"list<{item}>"
    for name, scalar in SCALARS.items():
        if given == scalar and type(given) is type(scalar):
            return name
    raise DeclarationError(
        f"Dtype {given!r} is not supported. Use one of {list(SCALARS)}, a vector pl.Array(pl.Float32, n), "
        f"or pl.List of {list(LIST_ITEMS)}. Timestamps are pl.Datetime('us', 'UTC')."
    )


def _vector_name(dtype: pl.Array) -> str:
    if len(dtype.shape) != 1 or dtype.inner != pl.Float32() or dtype.size < 1:
        raise DeclarationError(f"Vector {dtype!r} is not supported: vectors are pl.Array(pl.Float32, n) with n >= 1.")
    return f"float32[{dtype.size}]"


def parse_dtype(name: str) -> pl.DataType:
    """The dtype of a name that `dtype_name` gave.

    >>> parse_dtype("float32[3]")
    Array(Float32, shape=(3,))
    """
    if name.startswith("list<"):
        return pl.List(SCALARS[name[5:-1]])
    if name.startswith("float32["):
        return pl.Array(pl.Float32, int(name[8:-1]))
    return SCALARS[name]


def as_written(dtype: pl.DataType) -> str:
    """A dtype as one types it.

    >>> as_written(pl.Datetime("us", "UTC")), as_written(pl.List(pl.String)), as_written(pl.Array(pl.Float32, 3))
    ("pl.Datetime('us', 'UTC')", 'pl.List(pl.String)', 'pl.Array(pl.Float32, 3)')
    """
    if isinstance(dtype, pl.Datetime):
        zone = "" if dtype.time_zone is None else f", {dtype.time_zone!r}"
        return f"pl.Datetime({dtype.time_unit!r}{zone})"
    if isinstance(dtype, pl.Array):
        return f"pl.Array({as_written(as_dtype(dtype.inner))}, {dtype.size})"
    if isinstance(dtype, pl.List):
        return f"pl.List({as_written(as_dtype(dtype.inner))})"
    return f"pl.{dtype}"


def storage_dtype(dtype: pl.DataType) -> pl.DataType:
    """The dtype in the Delta table: a vector is stored as a list, since Polars cannot read fixed-size lists back."""
    return pl.List(pl.Float32) if isinstance(dtype, pl.Array) else dtype
