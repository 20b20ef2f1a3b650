"""The receipts of a source: what was done with each landing file, and how many of its rows came too late for a window.

They say which files are still to be taken in, across restarts of everything: a listing that shows a file under another mark
than its receipt shows a new content. That a file's rows are in the table is for the table itself to say.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.location import Location
from featurestore.offline.journal import Journal

SCHEMA: dict[str, pl.DataType] = {
    "file": pl.String(),
    "mark": pl.String(),
    "identity": pl.String(),
    "status": pl.String(),
    "reason": pl.String(),
    "recorded_at": TIMESTAMP,
    "run_id": pl.String(),
    "rows": pl.Int64(),
    "rows_refused": pl.Int64(),
    "late": pl.String(),
}
LATE: dict[str, pl.DataType] = {
    "file": pl.String(),
    "recorded_at": TIMESTAMP,
    "group": pl.String(),
    "window": pl.String(),
    "rows": pl.Int64(),
}

LateRows = Mapping[str, Mapping[str, int]]
"""Of each group, by partition key, how many rows came too late for that window."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done with one content of one landing file.

    `mark` is that of the listing (`Location.marks`), `identity` name and content as the table knows them; `late` is JSON.
    """

    file: str
    mark: str
    identity: str
    status: Literal["appended", "known", "refused"]
    reason: str
    recorded_at: datetime
    run_id: str = ""
    rows: int = 0
    rows_refused: int = 0
    late: str = "{}"

    @property
    def late_rows(self) -> LateRows:
        return json.loads(self.late)  # type: ignore[no-any-return]


class Receipts:
    """The append-only receipts of one source at `{root}/raw/receipts/source={name}/`."""

    def __init__(self, root: Location, source_name: str) -> None:
        self.journal = Journal(root.child("raw", "receipts", f"source={source_name}"), SCHEMA)

    def append(self, receipts: Sequence[Receipt]) -> None:
        """Record what was done with files, in one commit."""
        self.journal.append([asdict(receipt) for receipt in receipts])

    def latest(self) -> dict[str, Receipt]:
        """The last receipt of each file, by its name."""
        last = self.journal.records().unique("file", keep="last", maintain_order=True)
        return {row["file"]: Receipt(**row) for row in last.to_dicts()}

    def late_rows(self) -> pl.DataFrame:
        """Rows that came too late, a line for each file, group and window that they would have reached; the oldest file first."""
        records = self.journal.records().filter(pl.col("late") != "{}")
        lines = [
            (row["file"], row["recorded_at"], group, window, rows)
            for row in records.to_dicts()
            for group, windows in json.loads(row["late"]).items()
            for window, rows in windows.items()
        ]
        return pl.DataFrame(lines, schema=LATE, orient="row")
