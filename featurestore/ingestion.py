"""Taking in what landed: each content of each file once, with a receipt, and its late rows counted.

A crash between the rows' commit and the receipts' leaves files without one. They are taken in again, are found to be known,
and get it then.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from featurestore.declaration.catalog import Catalog
from featurestore.declaration.source import Source
from featurestore.landing import day_of, read_landed, require_landed
from featurestore.lateness import late_rows
from featurestore.location import Location
from featurestore.offline.raw import Ingestion, SourceTable
from featurestore.offline.receipts import LateRows, Receipt
from featurestore.offline.store import OfflineStore


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What was done with the landing files of some days.

    Args:
        ingestion: Of the files that had to be read.
        files_unchanged: Files that were not read, because their receipts show them as they are.
        late: Rows that came too late, by group and window.
    """

    ingestion: Ingestion
    files_unchanged: int
    late: LateRows


def take_in(
    store: OfflineStore, catalog: Catalog, landing: Location, source: Source, days: Sequence[str] | None, run_id: str
) -> TakenIn:
    """Append what is new of the landing files of some days (None: of all), and write receipts.

    A refused file is named in the result, and tried again each time it is asked for.

    Raises:
        InvalidInput: the source has no landing file at all.
    """
    wanted = set(days or ())
    marks = {n: mark for n, mark in require_landed(landing, source.name).items() if days is None or day_of(n) in wanted}
    table, receipts = store.source(source), store.receipts(source)
    before = receipts.latest()
    settled = _settled(marks, before, table)
    ingestion = table.ingest(read_landed(landing, source.name, [name for name in marks if name not in settled]))
    late = _late_by_file(catalog, source, table, ingestion, before)
    receipts.append(
        [
            Receipt(
                file=taken.file.name,
                mark=taken.file.mark,
                identity=taken.file.identity,
                status=taken.status,
                reason=taken.reason,
                recorded_at=store.clock(),
                run_id=run_id,
                rows=taken.rows,
                rows_refused=taken.rows_refused,
                late=json.dumps(late.get(taken.file.name, {})),
            )
            for taken in ingestion.taken
        ]
    )
    return TakenIn(ingestion, len(settled), _summed(late.values()))


def unread(marks: Mapping[str, str], receipts: Mapping[str, Receipt]) -> dict[str, str]:
    """The files of a listing that have no receipt under their mark: new ones, late ones and corrected ones."""
    return {name: mark for name, mark in marks.items() if name not in receipts or receipts[name].mark != mark}


def _settled(marks: Mapping[str, str], receipts: Mapping[str, Receipt], table: SourceTable) -> set[str]:
    """The files whose content the table has, as their receipts and the table itself say."""
    new = unread(marks, receipts)
    same = {name: receipts[name].identity for name in marks if name not in new and receipts[name].status != "refused"}
    there = table.has(same.values())
    return {name for name, identity in same.items() if identity in there}


def _late_by_file(
    catalog: Catalog, source: Source, table: SourceTable, ingestion: Ingestion, before: Mapping[str, Receipt]
) -> dict[str, LateRows]:
    """By file name; also of files that were appended and never got their receipt."""
    taken = [taken.file.name for taken in ingestion.taken if taken.status == "known"]
    known = [name for name in taken if name not in before]
    times = [ingestion.live_times, *([table.live_times_of(known)] if known and source.live_from is not None else [])]
    parts = pl.concat(times).partition_by("landing_file", as_dict=True)
    return {str(name): late_rows(catalog, source, rows) for (name,), rows in parts.items()}


def _summed(files: Iterable[LateRows]) -> LateRows:
    total: dict[str, dict[str, int]] = {}
    for late in files:
        for group, windows in late.items():
            counts = total.setdefault(group, {})
            for window, rows in windows.items():
                counts[window] = counts.get(window, 0) + rows
    return total
