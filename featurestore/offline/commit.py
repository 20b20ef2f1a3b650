"""The one way in which rows reach a group's table: recognise, refuse, plan, commit, and again if another was first.

A commit lands exactly on the version that was looked at. Of writers at the same time one wins, and the others look again.
What a plan holds is said by its maker: `windows.py` for overwrites, `static.py` for loads, `pushed.py` for pushes.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from featurestore.clock import Clock
from featurestore.declaration.windows import TimeWindow, utc
from featurestore.errors import AlreadyDecided, InvalidInput, StaleWriter, StoreUnavailable
from featurestore.offline.difference import is_rewind
from featurestore.offline.log import BACKFILL_ID, ROLLBACK_OF, Kind, LogEntry, OwnCommit, read_entry, standing_at
from featurestore.offline.spans import INSTANT, inside, merged, overlapping, year_month
from featurestore.offline.storage import PARTITIONS, Storage
from featurestore.offline.view import TableView
from featurestore.registry.snapshot import RegisteredGroup

ATTEMPTS = 30
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Commit:
    """What a write did.

    Args:
        version: The Delta version of the commit; None if nothing was to change, and no commit was made.
        table_version: The table's version afterwards; None if there is no table.
        changed_windows: The windows named by the caller whose rows changed.
        created_at: The `created_at` of the rows that this commit added or changed.
        is_rewind: Some key's replaced or removed version is not followed by a higher one.
        counts: Rows added, changed, removed and kept in the windows asked for.
        metadata: What the commit keeps of its caller's; empty if none was made.
        was_recognised: The commit was there already, by an earlier try with the same transaction.
    """

    version: int | None
    table_version: int | None
    changed_windows: tuple[TimeWindow, ...] = ()
    created_at: datetime | None = None
    is_rewind: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    was_recognised: bool = False

    @property
    def is_unchanged(self) -> bool:
        return self.version is None


@dataclass(frozen=True, slots=True)
class Request:
    """Who writes, and what was asked for.

    Args:
        transaction: Names this write: a repeat with the same content is recognised.
        digest: Hash of what was asked for.
        windows: The windows it may touch.
        seen_version: The table's version when the run started; it bounds which commits are newer than the run.
        is_fenced: Whether a newer commit to one of the windows stops it.
    """

    kind: Kind
    transaction: str
    digest: str
    windows: tuple[TimeWindow, ...]
    metadata: Mapping[str, str]
    seen_version: int | None = None
    is_fenced: bool = True

    def __post_init__(self) -> None:
        named = [self.transaction, *self.metadata, *self.metadata.values()]
        if not self.transaction or not all(isinstance(text, str) for text in named):
            raise InvalidInput("A write needs a transaction id that is not empty, and metadata of strings by strings.")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to commit on top of one version of the table.

    Args:
        rows: Every row that the table is to have in the spans: stored columns, `created_at` null where it is to be set.
        spans: The time to replace; it covers the changed windows, and may cover others whose rows are in `rows`. Empty if the
            rows are only added.
        changed: The windows whose rows change.
        asked: The rows of all windows asked for, as they are to be: keys and version.
        gone: Stored rows that are changed or removed: keys and version.
        metadata: What the commit is to keep beside the request's.
    """

    rows: pl.DataFrame
    spans: list[TimeWindow]
    changed: tuple[TimeWindow, ...]
    asked: pl.DataFrame
    gone: pl.DataFrame
    counts: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)


Planner = Callable[[TableView], Plan | None]


@dataclass(frozen=True)
class Committer:
    """Commits plans to one group's table."""

    storage: Storage
    group: RegisteredGroup
    clock: Clock

    def view(self, version: int | None = None) -> TableView:
        return TableView(self.storage, self.group, self.storage.open(version))

    def commit(self, request: Request, planner: Planner) -> Commit:
        """Commit what the planner plans; None from it means that nothing is to change.

        The planner is asked again whenever another commit came first, each time with the table as it then is.

        Raises:
            StaleWriter: a commit since `seen_version` has touched one of the windows.
            AlreadyDecided: one has taken back the backfill that this write is of.
            StoreUnavailable: other writers were first `ATTEMPTS` times, or the store cannot be reached.
        """
        for attempt in range(ATTEMPTS):
            view = self.view()
            if (done := self._recognised(view, request)) is not None:
                return done
            self._refuse_stale(view, request)
            plan = planner(view)
            if plan is None:
                return self._unchanged(view)
            if view.table is None:
                self.storage.create(self.group.stored_schema)
            elif (written := self._try_write(view, request, plan)) is not None:
                return written
            else:
                pause(attempt)
        raise StoreUnavailable(
            f"Other writers of group {self.group.name!r} were first {ATTEMPTS} times; nothing of {request.transaction!r} is written. "
            "Run it again when fewer write, best under the group's writer lease."
        )

    def _recognised(self, view: TableView, request: Request) -> Commit | None:
        version = None if view.table is None else view.table.transaction_version(request.transaction)
        entry = None if version is None else read_entry(self.storage.location, version)
        if entry is None or entry.own is None or entry.own.digest != request.digest:
            return None
        self.storage.sync(entry.version)
        changed = tuple(inside(request.windows, entry.own.windows))
        return _commit(entry.version, view.version, entry.own, changed, was_recognised=True)

    def _unchanged(self, view: TableView) -> Commit:
        """An earlier try may have committed this and stopped before it was durable."""
        if view.version is not None:
            self.storage.sync(view.version)
        return Commit(version=None, table_version=view.version)

    def _refuse_stale(self, view: TableView, request: Request) -> None:
        if not request.is_fenced:
            return
        seen, newest = (-1 if version is None else version for version in (request.seen_version, view.version))
        if seen > newest:
            raise InvalidInput(
                f"Write {request.transaction!r} saw version {request.seen_version} of group {self.group.name!r}, which has {view.version}. "
                "Take seen_version from this table when the run starts."
            )
        for version in range(seen + 1, newest + 1):
            self._refuse_newer(request, version, read_entry(self.storage.location, version))

    def _refuse_newer(self, request: Request, version: int, entry: LogEntry | None) -> None:
        if entry is not None and (
            not entry.has_changed_data or (entry.own and entry.own.transaction == request.transaction)
        ):
            return
        if entry is not None and entry.own is not None:
            self._refuse_taken_back(request, version, entry.own)
            both = overlapping(request.windows, entry.own.windows)
            if both is None:
                return
            who, where = f"Run {entry.own.run!r}", f"window {both.start.isoformat()}"
        else:
            who, where = (
                f"A commit that is not of this store ({entry.operation if entry else 'expired'})",
                "windows not known",
            )
        raise StaleWriter(
            f"{who} has written {where} of group {self.group.name!r} in version {version}, after this write ({request.transaction!r}) "
            f"started at version {request.seen_version}. The newer rows stay. Run the partition again to compute from what is there now."
        )

    def _refuse_taken_back(self, request: Request, version: int, own: OwnCommit) -> None:
        """What a backfill writes after its rollback, to whatever windows, nobody would take back."""
        backfill_id = own.metadata.get(ROLLBACK_OF)
        if backfill_id is not None and backfill_id == request.metadata.get(BACKFILL_ID):
            raise AlreadyDecided(
                f"Backfill {backfill_id!r} was rolled back in version {version} of group {self.group.name!r}, after this write "
                f"({request.transaction!r}) started at version {request.seen_version}. Nothing of it is written. Launch a new backfill "
                "if its windows are still wanted."
            )

    def _try_write(self, view: TableView, request: Request, plan: Plan) -> Commit | None:
        """Commit once; None if another commit came between. An error after the commit is recognised, not raised."""
        try:
            return self._write(view, request, plan)
        except CommitFailedError:
            return None
        except (DeltaError, OSError):
            done = self._recognised(self.view(), request)
            if done is None:
                raise
            return done

    def _write(self, view: TableView, request: Request, plan: Plan) -> Commit | None:
        if view.table is None or view.version is None:
            return None
        standing = standing_at(self.storage.location, view.version)
        now = utc(self.clock(), name="clock")
        created_at = next_created_at(view, standing.last_created_at, now)
        stamp = pl.col("created_at").fill_null(pl.lit(created_at))
        own = OwnCommit(
            kind=request.kind,
            transaction=request.transaction,
            digest=request.digest,
            windows=tuple(merged(plan.changed)),
            is_rewind=is_rewind(plan.gone, plan.asked.with_columns(stamp), view, now),
            previous_fence=standing.fence,
            created_at=created_at,
            counts=plan.counts,
            metadata={**request.metadata, **plan.metadata},
        )
        version = self._store(view.table, _laid_out(view, plan.rows.with_columns(stamp)), plan.spans, own)
        return _commit(version, version, own, plan.changed)

    def _store(self, table: DeltaTable, rows: pl.DataFrame, spans: list[TimeWindow], own: OwnCommit) -> int:
        return self.storage.overwrite(table, rows, spans, own) if spans else self.storage.append(table, rows, own)


def next_created_at(view: TableView, last: datetime | None, now: datetime) -> datetime:
    """The clock's instant, or the first one after every commit so far if the clock is behind."""
    newest = last if last is not None else view.scan(columns=["created_at"]).collect()["created_at"].max()
    return max(now, newest + INSTANT) if isinstance(newest, datetime) else now


def pause(attempt: int) -> None:
    """Wait a random time, longer after more attempts."""
    time.sleep(random.uniform(0, min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**attempt)))


def _commit(
    version: int,
    table_version: int | None,
    own: OwnCommit,
    changed: Sequence[TimeWindow],
    *,
    was_recognised: bool = False,
) -> Commit:
    return Commit(
        version=version,
        table_version=table_version,
        changed_windows=tuple(changed),
        created_at=own.created_at,
        is_rewind=own.is_rewind,
        counts=own.counts,
        metadata=own.metadata,
        was_recognised=was_recognised,
    )


def _laid_out(view: TableView, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows as they are stored: every column of the table, sorted by keys, then `event_time`."""
    absent = [
        pl.lit(None, dtype=dtype).alias(name) for name, dtype in view.undeclared.items() if name not in rows.columns
    ]
    columns = [*view.group.stored_schema, *view.undeclared, *PARTITIONS]
    return rows.with_columns(*absent, *year_month()).select(columns).sort(*view.group.key_names, "event_time")
