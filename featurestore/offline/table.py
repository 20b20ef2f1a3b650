"""The offline table of one feature group: what stores and readers see of it.

A small facade: reading is `view.py`, writing `commit.py` with `windows.py`, `static.py` and `pushed.py`, comparing `changes.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import uuid4

import polars as pl
from deltalake.exceptions import CommitFailedError

from featurestore.clock import Clock, system_clock
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.location import Location
from featurestore.offline.changes import Changes, Rebuild, changes_between
from featurestore.offline.commit import ATTEMPTS, Commit, Committer, pause
from featurestore.offline.content import content_hash
from featurestore.offline.intake import identity
from featurestore.offline.log import NO_FENCE, LogEntry, OwnCommit, read_entry, standing_at
from featurestore.offline.pushed import append_push
from featurestore.offline.spans import covering, merged, of_windows
from featurestore.offline.static import load_static
from featurestore.offline.storage import Storage
from featurestore.offline.view import TableView
from featurestore.offline.windows import overwrite_windows
from featurestore.registry.snapshot import RegisteredGroup


class FeatureTable:
    """One Delta table, `{root}/feature_group={name}/`, partitioned by the year and month of `window_start`.

    Cheap to make; nothing is opened before the first call, and each call looks at the table anew. Not for use in a forked
    child process: delta-rs fails there.

    Args:
        root: The store's root.
        group: The group as registered; its stored schema is the table's, year and month apart.
        clock: Sets `created_at`.

    Source: DESIGN, "Offline store".
    """

    def __init__(self, root: Location, group: RegisteredGroup, clock: Clock = system_clock) -> None:
        self.group = group
        self.location = root.child(f"feature_group={group.name}")
        self._committer = Committer(Storage(self.location), group, clock)

    def __repr__(self) -> str:
        return f"FeatureTable({self.location.uri!r})"

    def version(self) -> int | None:
        """The newest Delta version; None if there is no table yet."""
        return self._committer.view().version

    @property
    def table_id(self) -> str | None:
        """Delta's id of the table, which a table made anew at the same place does not share; None if there is none."""
        table = self._committer.storage.open()
        return None if table is None else str(table.metadata().id)

    def ensure(self) -> None:
        """Make the empty table, which is version 0, if there is none: a pushed group can be served before its first row.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        if self._committer.storage.open() is None:
            self._committer.storage.create(self.group.stored_schema)

    def newest(self) -> tuple[int, str] | None:
        """`version()` and `table_id` of one look; None if there is no table."""
        table = self._committer.storage.open()
        return None if table is None else (table.version(), str(table.metadata().id))

    def view(self, version: int | None = None) -> TableView:
        """One version, by default the newest, to be read several times without looking for it anew.

        Raises:
            InvalidInput: there is no such version.
        """
        return self._committer.view(version)

    def scan(
        self,
        version: int | None = None,
        *,
        windows: Sequence[TimeWindow] | None = None,
        known_by: datetime | None = None,
        event_since: datetime | None = None,
    ) -> pl.LazyFrame:
        """The rows at a version, lazily, with exactly the group's stored schema; without a table, none.

        Polars pushes filters on any column down to row groups. The arguments here prune whole files before any is opened.

        Args:
            version: A Delta version; default the newest.
            windows: Only rows of these windows.
            known_by: Only rows with `knowledge_time` up to this instant.
            event_since: Only rows with `event_time` from this instant on.

        Raises:
            InvalidInput: there is no such version. If its files were vacuumed, collecting raises FileNotFoundError.
        """
        spans = None if windows is None else covering(merged(windows))
        rows = self._committer.view(version).scan(spans=spans, known_by=known_by, event_since=event_since)
        return rows if windows is None else rows.filter(of_windows(windows))

    def content_hash(self, version: int | None = None, windows: Sequence[TimeWindow] | None = None) -> str:
        """SHA-256 of the rows at a version, `created_at` left out: equal content has equal hashes, in whatever files it lies."""
        return content_hash(self.scan(version, windows=windows).collect(), order=identity(self.group))

    def overwrite_windows(
        self,
        rows: pl.DataFrame,
        windows: Sequence[TimeWindow],
        *,
        seen_version: int | None,
        transaction: str,
        metadata: Mapping[str, str],
    ) -> Commit:
        """Put `rows` in the place of everything that the windows hold, in one commit.

        A row that is there already with the same content keeps its `created_at`; others get the commit's. Windows in which
        nothing changes stay out of the commit, and if nothing changes at all there is none. A window without rows is
        emptied. A rollback is the same call, fed with the rows of an earlier version and a transaction of its own.

        Args:
            rows: Stored columns without `created_at`, exact dtypes, any order; keys and times never null; each row's
                `window_start` is the start of one of the windows; no two share keys, `event_time` and window.
            windows: Every window to replace, of the group's cadence, in any order.
            seen_version: `version()` when the run started, before it read any input.
            transaction: Names this write. A repeat with the same rows and windows is recognised and returns the first commit.
            metadata: Kept in the commit; `run_id` names the run in messages to others.

        Raises:
            SchemaMismatch: columns or dtypes are not exactly the declared ones.
            InvalidInput: rows or windows break a rule above.
            StaleWriter: since `seen_version` another run has changed one of the windows.
            AlreadyDecided: since `seen_version` the backfill that `metadata` names was rolled back.
            StoreUnavailable: the store cannot be reached, or others were first too often.
        """
        return overwrite_windows(
            self._committer, rows, windows, seen_version=seen_version, transaction=transaction, metadata=metadata
        )

    def load_static(
        self,
        rows: pl.DataFrame,
        *,
        instant: datetime,
        valid_from: datetime,
        transaction: str,
        metadata: Mapping[str, str],
    ) -> Commit:
        """Load a static group: append what differs from the last state, and tombstones for what vanished, in one commit.

        Rows get event and knowledge time `instant`; those of the first load with any rows get `valid_from`. `window_start` is `instant`.

        Args:
            rows: One row per entity: keys (never null) and features in stored dtypes.
            instant: When the load was taken; later than that of the last load that changed anything.
            valid_from: Since when the first load counts as known; not after `instant`.
            transaction: Names this load; a repeat is recognised.
            metadata: Kept in the commit.

        Raises:
            PromotionRefused: the load lacks more of the live entities than the group's `min_coverage` allows. Without one, an
                empty load is refused.
            StaleWriter: a later load is there already.
            SchemaMismatch: columns or dtypes are not exactly the declared ones.
            InvalidInput: a null or doubled key, or instants out of order.
        """
        return load_static(
            self._committer, rows, instant=instant, valid_from=valid_from, transaction=transaction, metadata=metadata
        )

    def append_push(self, rows: pl.DataFrame, *, transaction: str, metadata: Mapping[str, str]) -> Commit:
        """Append the rows of a push to a pushed group, in one commit; whether their values make sense was judged before.

        Rows are known from the clock's instant of the commit on, one that is true of the future from its event time on.
        `window_start` is an instant of this push alone.

        Args:
            rows: Keys, `event_time` and features in stored dtypes; keys and times never null, no two of one entity at one time.
            transaction: Names this push; a repeat with the same rows is recognised and returns the first commit.
            metadata: Kept in the commit.

        Raises:
            SchemaMismatch: columns or dtypes are not exactly the declared ones.
            InvalidInput: the group is computed, a row breaks a rule above, or `transaction` named a push of other rows.
            StoreUnavailable: the store cannot be reached, or others were first too often.
        """
        return append_push(self._committer, rows, transaction=transaction, metadata=metadata)

    def fence(self, version: int) -> int:
        """The newest rewind up to a version, as its Delta version; 0 if there was none (version 0 makes the empty table).

        A commit that changed rows and is not of this store counts as a rewind.
        """
        return NO_FENCE if version <= 0 else standing_at(self.location, version).fence

    def changes(self, since: int, to: int, *, table_id: str | None = None) -> Changes | Rebuild:
        """The keys that commits after `since` up to `to` touched, with the versions they took away.

        Told commit by commit, not only from the two ends: a copy that was interrupted between them may hold a version that
        came and went. Commits that touch no window twice are read as one.

        Args:
            since: The version that a copy is known to hold in full.
            to: The version it is to hold.
            table_id: The table that `since` is of, if known.

        Returns:
            The changes, or `Rebuild` with the reason why they can no longer be told: files vacuumed, log entries expired, a commit
            of another engine, another table.
        """
        view = self._committer.view()
        found = None if view.table is None else str(view.table.metadata().id)
        if table_id is not None and table_id != found:
            return Rebuild(f"Group {self.group.name!r} now has table {found}; the copy is of {table_id}.")
        return changes_between(view, since, to)

    def entry(self, version: int) -> LogEntry | None:
        """What a commit did and what was written into it; None if there is none, or it has expired."""
        return read_entry(self.location, version)

    def compact(self, year: int, month: int) -> int | None:
        """Put the rows of one month into few files; no row changes. Best after its last window closed, under the writer lease.

        Returns:
            The Delta version of the commit, or None if there was nothing to do.
        """
        own = OwnCommit(kind="compaction", transaction=f"compaction/{uuid4().hex}")
        for attempt in range(ATTEMPTS):
            table = self._committer.storage.open()
            if table is None or not 1 <= month <= 12:
                raise InvalidInput(f"Group {self.group.name!r} has no month {year}-{month} to compact.")
            try:
                return self._committer.storage.compact(table, year, month, own)
            except CommitFailedError:
                pause(attempt)
        raise StoreUnavailable(
            f"Writers of {year}-{month} of group {self.group.name!r} were first {ATTEMPTS} times. Compact when fewer write."
        )
