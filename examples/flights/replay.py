"""Lands the demo's sources as Parquet files, each row in the file of the hour or day in which it became known.

    python -m examples.flights.replay --landing DIR --days 60 [--until ISO] [--hourly-days 1] [--follow]

Belongs here: which file a row goes to, writing files whole, and the command. What the rows are and when each was known
is `history`'s business; the files are described in `docs/demo-data.md`.
"""

import argparse
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from examples.flights.history import SHAPES, SOURCES, TIMELESS, as_utc, known_rows, known_time, midnight
from featurestore.errors import InvalidInput, unknown_name

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_DAY_NAME, _HOUR_NAME = "%Y-%m-%d", "%Y-%m-%dT%H"
_SUFFIX = ".parquet"


@dataclass(frozen=True)
class LandingReport:
    """What a landing did: rows known in [start, until) are in files now, written by it or found there."""

    start: datetime
    until: datetime
    written: int
    found: int
    rows: Counter[str] = field(default_factory=Counter)
    """Rows written, by source."""

    def __add__(self, later: "LandingReport") -> "LandingReport":
        return LandingReport(
            self.start, later.until, self.written + later.written, self.found + later.found, self.rows + later.rows
        )

    def __str__(self) -> str:
        span = f"{self.start:%Y-%m-%dT%H:%M}Z to {self.until:%Y-%m-%dT%H:%M}Z"
        return f"{span}: {self.written} files written, {self.found} found, {self.rows.total():,} rows"


def land(
    landing_root: Path,
    *,
    start: date,
    until: datetime,
    hourly_from: datetime | None = None,
    sources: Sequence[str] = SOURCES,
) -> LandingReport:
    """Land every row that became known from `start` to the last full hour before `until`.

    - A file is whole and final from the moment it has its name: only hours and days that are over are landed.
    - A file that is there already is left alone, so a landing can be repeated, and resumed after a crash.
    - A day before `hourly_from` that is over gets one file per source, every other day one per hour. A day keeps the
      form that its first file gave it, whatever a later call asks for: no row is ever in two files.
    - An hour or day in which nothing became known has no file.
    - A timeless source gets one file, named by `start`, unless its folder has one.

    Args:
        landing_root: folder of the landing zone; made if missing.
        start: first UTC day of known time.
        until: end of known time, exclusive, taken down to the full hour.
        hourly_from: from the UTC day of this instant on, files are hourly; None for daily files wherever a day is over.
        sources: names out of `SOURCES`.

    Returns:
        Counts of files and rows; `until` is the full hour that was reached.

    Raises:
        InvalidInput: a time without a zone, or `until` before `start`.
        UnknownName: a source that the replay does not have.
    """
    chunks = land_by_month(landing_root, start=start, until=until, hourly_from=hourly_from, sources=sources)
    report = next(chunks)
    for chunk in chunks:
        report += chunk
    return report


def land_by_month(
    landing_root: Path,
    *,
    start: date,
    until: datetime,
    hourly_from: datetime | None = None,
    sources: Sequence[str] = SOURCES,
) -> Iterator[LandingReport]:
    """Do what `land` does, month by month: one report as each calendar month of the range is landed, at least one."""
    _check_sources(sources)
    end = _full_hour(as_utc(until, "until"))
    begin = midnight(start)
    if end < begin:
        raise InvalidInput(f"until={until.isoformat()} is before start={start}. Land from an earlier day.")
    hourly_day = end.date() if hourly_from is None else min(as_utc(hourly_from, "hourly_from").date(), end.date())
    timeless = _land_timeless(landing_root, start, [name for name in sources if name in TIMELESS])
    report = LandingReport(begin, begin, *timeless)
    for first, last in _months(begin, end):
        for name in sources:
            if name in SHAPES:
                report += _land_range(landing_root / name, name, first, last, hourly_day)
        yield LandingReport(first, last, report.written, report.found, report.rows)
        report = LandingReport(last, last, 0, 0)


def land_hours(
    landing_root: Path,
    *,
    start: datetime,
    until: datetime | None = None,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None] = time.sleep,
    sources: Sequence[str] = SOURCES,
) -> Iterator[LandingReport]:
    """Land hour by hour as time passes: each hour once `clock` says that it is over, missed ones without waiting.

    Rows of an hour whose day has a daily file are there already and are not landed again. Timeless sources are landed
    with the first hour.

    Args:
        landing_root: folder of the landing zone.
        start: the first hour to land, taken down to the full hour.
        until: stop before the hour that ends after this instant; None to go on for ever.
        clock: the time now, with a zone.
        sleep: waits for seconds.
        sources: names out of `SOURCES`.

    Yields:
        One report per hour, after its files are in place.

    Raises:
        InvalidInput: a time without a zone.
        UnknownName: a source that the replay does not have.
    """
    _check_sources(sources)
    hour = _full_hour(as_utc(start, "start"))
    end = None if until is None else as_utc(until, "until")
    _land_timeless(landing_root, hour.date(), [name for name in sources if name in TIMELESS])
    while end is None or hour + HOUR <= end:
        while (wait := (hour + HOUR - as_utc(clock(), "clock")).total_seconds()) > 0:
            sleep(wait)
        report = LandingReport(hour, hour, 0, 0)
        for name in sources:
            if name in SHAPES:
                report += _land_range(landing_root / name, name, hour, hour + HOUR, hour.date())
        yield LandingReport(hour, hour + HOUR, report.written, report.found, report.rows)
        hour += HOUR


def write_whole(path: Path, rows: pl.DataFrame) -> None:
    """Write a Parquet file so that its name appears only when all of it is on disk.

    The bytes go to a hidden neighbour that no `*.parquet` pattern matches, are synced, and take their name by a rename;
    the folder is synced after it. Equal rows give equal bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with hidden.open("xb") as file:
            rows.write_parquet(file, compression="zstd", statistics=True)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _land_range(folder: Path, source: str, start: datetime, until: datetime, hourly_day: date) -> LandingReport:
    """Land one source's rows known in [start, until); days from `hourly_day` on are hourly unless landed daily."""
    landed = {path.stem for path in folder.glob(f"*{_SUFFIX}")}
    rows = known_rows(source, start, until)
    files = rows.with_columns(_file_name(known_time(source), landed, hourly_day).alias("file"))
    written: Counter[str] = Counter()
    found = 0
    for (name,), part in files.group_by("file", maintain_order=True):
        if name in landed:
            found += 1
            continue
        write_whole(folder / f"{name}{_SUFFIX}", part.drop("file"))
        written[str(name)] = part.height
    return LandingReport(start, until, len(written), found, Counter({source: written.total()}))


def _file_name(known: pl.Expr, landed: set[str], hourly_day: date) -> pl.Expr:
    """The file of a row by its known time: a day keeps the form of the files that it has."""
    day, hour = known.dt.strftime(_DAY_NAME), known.dt.strftime(_HOUR_NAME)
    has_day = day.is_in(sorted(landed))
    has_hours = day.is_in(sorted({name.partition("T")[0] for name in landed if "T" in name}))
    return pl.when(~has_day & (has_hours | (known.dt.date() >= hourly_day))).then(hour).otherwise(day)


def _land_timeless(root: Path, day: date, sources: Sequence[str]) -> tuple[int, int, Counter[str]]:
    """Land the timeless sources that have no file yet; the numbers of files written and found, and rows written."""
    missing = [name for name in sources if not any((root / name).glob(f"*{_SUFFIX}"))]
    for name in missing:
        write_whole(root / name / f"{day:{_DAY_NAME}}{_SUFFIX}", TIMELESS[name]())
    rows = Counter({name: TIMELESS[name]().height for name in missing})
    return len(missing), len(sources) - len(missing), rows


def _months(start: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Split [start, until) at the first instant of each month; an empty range is one empty piece."""
    while True:
        following = (start.replace(day=1, hour=0) + timedelta(days=32)).replace(day=1)
        yield start, min(following, until)
        if following >= until:
            return
        start = following


def _full_hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)


def _check_sources(sources: Sequence[str]) -> None:
    for name in sources:
        if name not in SOURCES:
            raise unknown_name("Source", name, SOURCES, "The replay")


def main(arguments: Sequence[str] | None = None, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
    """Land history up to now, and with `--follow` every hour from then on."""
    parser = argparse.ArgumentParser(prog="python -m examples.flights.replay", description=main.__doc__)
    parser.add_argument("--landing", type=Path, required=True, help="folder of the landing zone")
    parser.add_argument("--days", type=int, default=60, help="whole days of history before the day of --until")
    parser.add_argument("--until", help="end of what is known, ISO 8601 with its zone; now if left out")
    parser.add_argument("--hourly-days", type=int, default=1, help="last days that get hourly files, today included")
    parser.add_argument("--follow", action="store_true", help="go on landing each hour as it ends")
    options = parser.parse_args(arguments)
    try:
        until = as_utc(datetime.fromisoformat(options.until), "--until") if options.until else clock()
        for report in _land_for_command(options, until):
            print(report, flush=True)
    except ValueError as error:
        parser.error(str(error))
    if options.follow:
        for report in land_hours(options.landing, start=until, clock=clock):
            print(report, flush=True)


def _land_for_command(options: argparse.Namespace, until: datetime) -> Iterator[LandingReport]:
    today = until.date()
    hourly_from = midnight(today) - (options.hourly_days - 1) * DAY
    start = today - options.days * DAY
    return land_by_month(options.landing, start=start, until=until, hourly_from=hourly_from)


if __name__ == "__main__":
    main()
