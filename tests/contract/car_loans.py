"""The car loans that NannyML ships: 50,000 of a reference period, 50,000 after it, whose second half has drifted.

They are read out of NannyML's wheel, which is fetched when the exam first needs it, into the user's cache; its code is never imported.
"""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import polars as pl
import pytest

PACKAGE, VERSION = "nannyml", "0.13.1"
WHEEL = f"{PACKAGE}-{VERSION}-py3-none-any.whl"
SHA256 = "cf5f4a33489834ae6773cb1baa33a0f98c0a3ee6ed9b43049478b25ce22fe869"
FOLDER = "nannyml/datasets/data"
DTYPES = {
    "car_value": "float64",
    "salary_range": "string",
    "debt_to_income_ratio": "float64",
    "loan_length": "float64",
    "repaid_loan_on_prev_car": "bool",
    "size_of_downpayment": "string",
    "driver_tenure": "float64",
    "y_pred_proba": "float64",
}
"""The model's inputs and its score."""


@cache
def car_loans(part: str) -> pl.DataFrame:
    """The rows of 'reference' or 'analysis', in the order of time, with a `schema_number`. Skips where the wheel cannot be fetched."""
    with zipfile.ZipFile(_wheel()) as archive:
        text = archive.read(f"{FOLDER}/synthetic_car_loan_{part}.csv")
    rows = pl.read_csv(io.BytesIO(text)).sort("timestamp", maintain_order=True)
    return rows.select("timestamp", *DTYPES, schema_number=pl.lit(1, dtype=pl.Int32))


def _wheel() -> Path:
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featurestore-tests" / WHEEL
    if not cached.exists():
        made = cached.with_name(f"{WHEEL}.{os.getpid()}")
        made.mkdir(parents=True)
        _fetch(made)
        (made / WHEEL).replace(cached)
        made.rmdir()
    found = hashlib.sha256(cached.read_bytes()).hexdigest()
    assert found == SHA256, f"{cached} is not the wheel that was looked at. Remove it."
    return cached


def _fetch(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    fetched = subprocess.run(
        [*command, f"{PACKAGE}=={VERSION}"], capture_output=True, text=True, check=False, cwd=folder
    )
    if fetched.returncode != 0:
        folder.rmdir()
        pytest.skip(f"pip cannot fetch {WHEEL}: {fetched.stderr.strip()[-200:]}")
