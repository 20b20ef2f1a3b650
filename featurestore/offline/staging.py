"""Where computed partitions wait for their gate, and where those that fail it stay until someone has looked.

`{root}/staging/feature_group={name}/` holds `run={id}.parquet` (every window of a run, until its good ones are promoted)
and `quarantine/{window}.parquet` with `{window}.json`, the gate's report.
"""

import io
import json
import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from featurestore.location import Location

LONGEST_LINE = 200
"""Characters of a finding in a line."""


class Staging:
    """The staging area of one feature group."""

    def __init__(self, root: Location, group_name: str) -> None:
        self._location = root.child("staging", f"feature_group={group_name}")

    def stage(self, run_id: str, rows: pl.DataFrame) -> None:
        """Keep the computed rows of a run before anything judges them."""
        self._location.write(f"run={run_id}.parquet", _parquet(rows))

    def discard(self, run_id: str) -> None:
        """Forget a run's rows once each of its windows is promoted or quarantined."""
        self._location.delete(f"run={run_id}.parquet")

    def staged_runs(self) -> list[str]:
        """Runs whose rows are still staged: under way, or cut short."""
        return [name.removeprefix("run=").removesuffix(".parquet") for name in self._location.names("run=")]

    def quarantine(self, window_start: datetime, rows: pl.DataFrame, report: Mapping[str, Any]) -> str:
        """Keep a window that failed its gate, with the report; a later failure of the same window replaces it.

        Returns:
            Where the rows are.
        """
        name = f"quarantine/{_stem(window_start)}"
        self._location.write(f"{name}.parquet", _parquet(rows))
        self._location.write(f"{name}.json", json.dumps(report, indent=1, default=str).encode())
        return self._location.child(f"{name}.parquet").uri

    def release(self, window_start: datetime) -> None:
        """Forget a quarantined window, once it has passed."""
        for suffix in ("json", "parquet"):
            self._location.delete(f"quarantine/{_stem(window_start)}.{suffix}")

    def quarantined(self) -> list[str]:
        """The starts of the windows in quarantine, as in their file names, oldest first."""
        names = self._location.names("quarantine/")
        return [name.removeprefix("quarantine/").removesuffix(".json") for name in names if name.endswith(".json")]

    def report(self, window: str) -> dict[str, Any] | None:
        """The gate's report on a quarantined window; None if it is not in quarantine."""
        data = self._location.read_bytes(f"quarantine/{window}.json")
        return None if data is None else json.loads(data)

    def first_finding(self, window_start: datetime) -> str:
        """The first thing that the gate found of a quarantined window, in one line of bounded length; "" if it is not in quarantine.

        Raises:
            StoreUnavailable: the report cannot be read.
            ValueError: it is damaged.
        """
        report = self.report(_stem(window_start)) or {}
        return next((_line(finding) for finding in report.get("findings", [])), "")

    def place(self, window_start: datetime) -> str:
        """Where the rows of a quarantined window lie."""
        return self._location.child("quarantine").uri + f"/{_stem(window_start)}.parquet"

    def quarantined_rows(self, window_start: datetime) -> pl.DataFrame | None:
        """The rows of a window that failed its gate; None if it is not in quarantine."""
        data = self._location.read_bytes(f"quarantine/{_stem(window_start)}.parquet")
        return None if data is None else pl.read_parquet(io.BytesIO(data))


def _line(finding: Mapping[str, Any]) -> str:
    """A finding as the gate wrote it, without its examples."""
    of = f" of {finding['column']!r}" if finding["column"] else ""
    return textwrap.shorten(f"{finding['check']}{of} is {finding['observed']}, limit {finding['limit']}", LONGEST_LINE)


def _stem(window_start: datetime) -> str:
    return window_start.strftime("%Y-%m-%dT%H%MZ")


def _parquet(rows: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    return buffer.getvalue()
