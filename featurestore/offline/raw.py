"""The raw layer: one append-only Delta table per source, each landing file in it once, each row with when it was known.

Which landing files there are is the caller's to find; what a transform may see of the rows is `featurestore.compute`'s.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from featurestore.clock import Clock, system_clock
from featurestore.declaration.dtypes import CALENDAR, TIMESTAMP, as_dtype, as_written, in_calendar, storage_dtype
from featurestore.declaration.source import Source
from featurestore.errors import InvalidInput, SchemaMismatch, StoreUnavailable
from featurestore.frontier import how_to_make_aware
from featurestore.location import Location
from featurestore.offline.commit import ATTEMPTS, pause
from featurestore.offline.durability import sync_since
from featurestore.offline.storage import Storage
from featurestore.offline.view import scan_files

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
CLOCK_SKEW = timedelta(minutes=5)
PARTITIONS = ("known_year", "known_month")
"""Not `year` and `month`, which feeds have columns of."""
PLATFORM_COLUMNS: dict[str, pl.DataType] = {
    "knowledge_time": TIMESTAMP,
    "landed_at": TIMESTAMP,
    "is_history": pl.Boolean(),
    "landing_file": pl.String(),
    "landing_row": pl.Int64(),
}

NO_TIMES = pl.DataFrame(schema={"landing_file": pl.String, "event_time": TIMESTAMP, "knowledge_time": TIMESTAMP})


@dataclass(frozen=True, slots=True)
class LandingFile:
    """A Parquet file that a feed left: its name within the feed's folder, its bytes, and the mark that its listing shows."""

    name: str
    data: bytes
    mark: str = ""

    @property
    def identity(self) -> str:
        """Name and content: a corrected file of the same name is another file."""
        return f"{self.name}@{hashlib.sha256(self.data).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class TakenFile:
    """What became of one landing file: `reason` says why it was refused, and is empty for another."""

    file: LandingFile
    status: Literal["appended", "known", "refused"]
    rows: int = 0
    rows_refused: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ingestion:
    """What one call of `SourceTable.ingest` did; `live_times` are those of the rows it appended that are no history."""

    files: int = 0
    files_known_before: int = 0
    rows: int = 0
    rows_refused: int = 0
    refused_files: dict[str, str] = field(default_factory=dict)
    taken: tuple[TakenFile, ...] = field(default=(), compare=False, repr=False)
    live_times: pl.DataFrame = field(default_factory=lambda: NO_TIMES, compare=False, repr=False)
    refused_because: dict[str, int] = field(default_factory=dict)
    """How many rows were refused for each reason."""


def raw_location(root: Location, source_name: str) -> Location:
    """Where the raw rows of a source are."""
    return root.child("raw", f"source={source_name}")


class SourceTable:
    """The raw rows of one source at `{root}/raw/source={name}/`, partitioned by the month of their knowledge time."""

    def __init__(self, root: Location, source: Source, clock: Clock = system_clock) -> None:
        self.source = source
        self.location = raw_location(root, source.name)
        self.refused_location = root.child("raw", "refused", f"source={source.name}")
        self._storage = Storage(self.location)
        self._clock = clock

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of a raw row: the declared ones, then what the platform knows of it."""
        return {**{name: pl.Schema(self.source.schema)[name] for name in self.source.schema}, **PLATFORM_COLUMNS}

    @property
    def _stored_schema(self) -> dict[str, pl.DataType]:
        return {name: storage_dtype(dtype) for name, dtype in self.schema.items()}

    @property
    def _vectors(self) -> dict[str, pl.DataType]:
        return {name: dtype for name, dtype in self.schema.items() if isinstance(dtype, pl.Array)}

    def open(self) -> DeltaTable | None:
        """The Delta table; None before the first file."""
        return self._storage.open()

    def version(self) -> int | None:
        """The table's Delta version; None before the first file."""
        table = self.open()
        return None if table is None else table.version()

    def scan(self) -> pl.LazyFrame:
        """Every raw row, in no order."""
        table = self.open()
        names = [] if table is None else pl.DataFrame(table.get_add_actions(flatten=True))["path"].to_list()
        rows = scan_files(self._storage, sorted(names), self._stored_schema)
        return rows.with_columns(pl.col(name).cast(dtype) for name, dtype in self._vectors.items())

    def current(self) -> pl.DataFrame:
        """The newest version of each record, whenever it became known; declared columns."""
        version = ["knowledge_time", "landed_at", "landing_file", "landing_row"]
        newest = (
            self.scan().sort(version, maintain_order=True).unique(self.source.keys, keep="last", maintain_order=True)
        )
        return newest.select(list(self.source.schema)).collect()

    def ingest(self, files: Sequence[LandingFile]) -> Ingestion:
        """Append the rows of files not seen before, in one commit.

        A file that cannot be read or lacks declared columns is refused whole and named in the result; it stays where it
        landed. A row with a null key, no event time, or times that cannot be (known before it happened, true of
        the future) is set aside as Parquet under `raw/refused/`, with the reason, and counted.

        Args:
            files: Landing files in any order, known or not.

        Returns:
            Counts, and the refused files with the reason for each.
        """
        for attempt in range(ATTEMPTS):
            done = self._try_ingest(files)
            if done is not None:
                return done
            pause(attempt)
        raise StoreUnavailable(
            f"Other writers of source {self.source.name!r} were first {ATTEMPTS} times; nothing is appended. Ingest again when fewer write."
        )

    def _try_ingest(self, files: Sequence[LandingFile]) -> Ingestion | None:
        """Ingest on top of the version looked at; None if another process committed meanwhile, perhaps the same files."""
        table = self.open()
        known = [f for f in files if table is not None and table.transaction_version(f.identity) is not None]
        refused: dict[str, str] = {}
        frames: dict[str, pl.DataFrame] = {}
        for file in files:
            if file in known:
                continue
            try:
                frames[file.identity] = self._rows(file)
            except (InvalidInput, SchemaMismatch) as error:
                refused[file.name] = str(error)
        if not frames:
            return Ingestion(0, len(known), 0, 0, refused, _taken(files, refused, {}, {}))
        because = {identity: self._set_aside(identity, frame) for identity, frame in frames.items()}
        bad = {identity: reasons.total() for identity, reasons in because.items()}
        good = pl.concat(frames.values()).filter(pl.col("refusal").is_null()).drop("refusal")
        if not self._append(good, list(frames), table):
            return None
        return Ingestion(
            files=len(frames),
            files_known_before=len(known),
            rows=good.height,
            rows_refused=sum(bad.values()),
            refused_files=refused,
            taken=_taken(files, refused, {name: frame.height - bad[name] for name, frame in frames.items()}, bad),
            live_times=self._live_times(good),
            refused_because=dict(sum(because.values(), Counter[str]())),
        )

    def has(self, identities: Iterable[str]) -> set[str]:
        """Those of some files, by name and content, that were appended."""
        table = self.open()
        return {name for name in identities if table is not None and table.transaction_version(name) is not None}

    def live_times_of(self, file_names: Sequence[str]) -> pl.DataFrame:
        """Times of the rows, no history, that each of some files brought when it landed last."""
        rows = self.scan().filter(pl.col("landing_file").is_in(list(file_names)) & ~pl.col("is_history"))
        newest = rows.filter(pl.col("landed_at") == pl.col("landed_at").max().over("landing_file"))
        return self._live_times(newest.collect())

    def _live_times(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self.source.event_time is None:
            return NO_TIMES
        event_time = pl.col(self.source.event_time).alias("event_time")
        return rows.filter(~pl.col("is_history")).select("landing_file", event_time, "knowledge_time")

    def _rows(self, file: LandingFile) -> pl.DataFrame:
        try:
            frame = pl.read_parquet(io.BytesIO(file.data))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise InvalidInput(
                f"Landing file {file.name!r} of source {self.source.name!r} is not a whole Parquet file ({len(file.data)} bytes). "
                f"Land it again, by an atomic rename: {error}"
            ) from error
        for column, dtype in self.source.schema.items():
            self._check_column(frame, column, as_dtype(dtype), file)
        return self._stamped(frame.select(list(self.source.schema)), file)

    def _check_column(self, frame: pl.DataFrame, column: str, declared: pl.DataType, file: LandingFile) -> None:
        if column not in frame.columns:
            raise SchemaMismatch(
                f"Landing file {file.name!r} of source {self.source.name!r} lacks column {column!r}; it has {frame.columns}. "
                f"Land it again with a column {column!r} of {as_written(declared)}."
            )
        given = frame.schema[column]
        if given != declared:
            raise SchemaMismatch(
                f"Column {column!r} of landing file {file.name!r} is {as_written(given)}; source {self.source.name!r} declares "
                f"{as_written(declared)}. {_how_to_land(column, given, declared)}"
            )

    def _stamped(self, frame: pl.DataFrame, file: LandingFile) -> pl.DataFrame:
        landed_at = self._clock()
        is_history = self.source.live_from is None or landed_at < self.source.live_from
        stamped = frame.with_columns(
            knowledge_time=self._knowledge_time(landed_at, is_history),
            landed_at=pl.lit(landed_at).cast(TIMESTAMP),
            is_history=pl.lit(is_history),
            landing_file=pl.lit(file.name),
            landing_row=pl.int_range(pl.len(), dtype=pl.Int64),
        )
        return stamped.with_columns(refusal=self._refusal(landed_at))

    def _knowledge_time(self, landed_at: datetime, is_history: bool) -> pl.Expr:
        if self.source.is_timeless:
            return pl.lit(ALWAYS if is_history else landed_at).cast(TIMESTAMP)
        declared = self._declared_knowledge()
        if is_history:
            return declared
        # A feed's clock may be ahead of ours: nothing is known before it happens.
        return pl.max_horizontal(declared, pl.col(self.source.event_time or ""), pl.lit(landed_at).cast(TIMESTAMP))

    def _declared_knowledge(self) -> pl.Expr:
        if self.source.known_at is not None:
            return pl.col(self.source.known_at)
        return pl.col(self.source.event_time or "") + (self.source.typical_delay or timedelta(0))

    def _refusal(self, landed_at: datetime) -> pl.Expr:
        reason = pl.lit(None, dtype=pl.String)
        if self.source.event_time is not None:
            event_time = pl.col(self.source.event_time)
            latest = pl.lit(landed_at + CLOCK_SKEW).cast(TIMESTAMP)
            reason = (
                pl.when(event_time.is_null() | pl.col("knowledge_time").is_null())
                .then(pl.lit("no event time or no knowledge time"))
                .when(~in_calendar(event_time, TIMESTAMP) | ~in_calendar(pl.col("knowledge_time"), TIMESTAMP))
                .then(pl.lit(f"a time that is not of the {CALENDAR}"))
                .when(event_time > latest)
                .then(pl.lit("event time in the future"))
                .when(self._declared_knowledge() < event_time)
                .then(pl.lit("known before its event time"))
                .otherwise(reason)
            )
        null_key = pl.any_horizontal(pl.col(key).is_null() for key in self.source.keys)
        return pl.when(null_key).then(pl.lit(f"null key {list(self.source.keys)}")).otherwise(reason)

    def _set_aside(self, identity: str, frame: pl.DataFrame) -> Counter[str]:
        """Keep the refused rows of a landing file, once however often its ingestion is tried; how many they are by reason."""
        bad = frame.filter(pl.col("refusal").is_not_null())
        if bad.height:
            buffer = io.BytesIO()
            bad.write_parquet(buffer)
            name = f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.parquet"
            self.refused_location.put_if_absent(name, buffer.getvalue())
        return Counter(dict(bad["refusal"].value_counts().iter_rows()))

    def _append(self, rows: pl.DataFrame, identities: Sequence[str], table: DeltaTable | None) -> bool:
        """Commit on exactly the version that was looked at; False if another commit came between."""
        if table is None:
            self._storage.create(self._stored_schema, PARTITIONS)
            return False
        before = table.version()
        lists = [pl.col(name).cast(storage_dtype(dtype)) for name, dtype in self._vectors.items()]
        known = pl.col("knowledge_time").dt
        month = [known.year().alias(PARTITIONS[0]), known.month().cast(pl.Int32).alias(PARTITIONS[1])]
        stored = rows.sort("knowledge_time").with_columns(*lists, *month)
        transactions = [Transaction(identity, 1) for identity in identities]
        try:
            write_deltalake(
                table,
                stored,
                mode="append",
                commit_properties=CommitProperties(max_commit_retries=0, app_transactions=transactions),
            )
        except CommitFailedError:
            return False
        sync_since(self.location, before, before + 1)
        return True


def _how_to_land(column: str, given: pl.DataType, declared: pl.DataType) -> str:
    """What makes a column of one dtype the declared one. A cast would take a time without a zone for UTC, and say nothing."""
    if declared == TIMESTAMP and getattr(given, "time_zone", None) is None:
        return f"Land it again as an instant. {how_to_make_aware(column, given)}"
    return f"Land it again with that dtype: pl.col({column!r}).cast({as_written(declared)})."


def _taken(
    files: Sequence[LandingFile], refused: Mapping[str, str], rows: Mapping[str, int], bad: Mapping[str, int]
) -> tuple[TakenFile, ...]:
    """What became of each file; rows by the files' identities."""
    return tuple(
        TakenFile(file, "refused", reason=refused[file.name])
        if file.name in refused
        else TakenFile(file, "appended", rows[file.identity], bad[file.identity])
        if file.identity in rows
        else TakenFile(file, "known")
        for file in files
    )
