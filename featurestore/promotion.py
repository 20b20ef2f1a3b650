"""Stage, validate, promote: the one way in which computed rows reach production.

Every window of a run is computed and staged, each is judged alone, and all good ones are promoted in one commit. A bad
one goes to quarantine with a report, and production keeps its last good rows. A run cut short anywhere converges when
it is repeated: a promotion with nothing changed makes no commit.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal
from uuid import uuid4

import polars as pl

from featurestore.backfill.strategies.choice import versions_read, window_computer, windows_left
from featurestore.backfill.strategies.incremental import declaration_digest
from featurestore.compute.window import ComputedRows
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import DAY, TimeWindow
from featurestore.errors import AlreadyDecided, StaleWriter, StoreUnavailable
from featurestore.frontier import rows_behind
from featurestore.gate.judging import judge_computed
from featurestore.gate.quality import Finding, Verdict
from featurestore.launch import CORRECTNESS_OF, SCHEDULED, Correctness, Launch, Strategy
from featurestore.offline.commit import Commit
from featurestore.offline.ledger import LEFT, LedgerEntry
from featurestore.offline.log import BACKFILL_ID, standing_at
from featurestore.offline.store import OfflineStore
from featurestore.quality.holding import hold_drifted
from featurestore.quality.recording import Computed, keep_statistics, statistics_of
from featurestore.readiness import hindrances

NOTHING_JUDGED = Verdict(0)

Status = Literal["promoted", "quarantined", "not_due", "blocked", "current"]


@dataclass(frozen=True, slots=True)
class WindowOutcome:
    """How one window of a run ended.

    `current` is one that its strategy leaves as it is: its strategy, rows and history rows are those of the computation that it
    was promoted by, and its reason says why it is left. `changed` says whether the promotion moved any row; `behind_rows`
    counts events older than one known before them, which are stored and never served; `reason` is for a person, empty when
    promoted; `notes` say on what rows rest that no transform made.
    """

    window: TimeWindow
    status: Status
    verdict: Verdict = NOTHING_JUDGED
    input_rows: int = 0
    history_rows: int = 0
    null_key_rows: int = 0
    behind_rows: int = 0
    changed: bool = False
    compute_seconds: float = 0.0
    reason: str = ""
    strategy: Strategy = "full"
    notes: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def correctness(self) -> Correctness:
        return CORRECTNESS_OF[self.strategy]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `rows` are computed ones, `size_bytes` what they take in memory, `input_rows` what they were computed from."""

    windows_done: int
    windows_total: int
    rows: int
    input_rows: int
    seconds: float
    size_bytes: int = 0

    @property
    def seconds_left(self) -> float:
        """At the pace so far."""
        return self.seconds / self.windows_done * (self.windows_total - self.windows_done)


OnProgress = Callable[[Progress], None]
Permission = Callable[[], None]
"""Raises if a run may promote nothing, or no more."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a run did to a group: an outcome for each window asked for, and the table's version afterwards."""

    outcomes: tuple[WindowOutcome, ...]
    table_version: int | None

    def having(self, *statuses: Status) -> list[WindowOutcome]:
        return [outcome for outcome in self.outcomes if outcome.status in statuses]


def materialize_windows(
    store: OfflineStore,
    catalog: Catalog,
    group: FeatureGroup,
    windows: Sequence[TimeWindow],
    *,
    run_id: str,
    launch: Launch = SCHEDULED,
    on_progress: OnProgress | None = None,
    permission: Permission = lambda: None,
    is_scheduled: bool = True,
) -> Promotion:
    """Compute, stage, judge and promote windows of a windowed or event group.

    A window before its cut-off, one whose upstream windows are not promoted, and one that the strategy leaves as it is, is
    skipped and said so.

    Args:
        windows: Any windows of the group; they are taken oldest first.
        run_id: Names the run in commits, ledger and staging; a repeated run may reuse it.
        launch: The backfill that the run belongs to, and its strategy; by default a scheduled, full computation.
        on_progress: Called after each window that was computed, in this thread.
        is_scheduled: False for a run that a person launched past every queue. Windows that it computes later than a day after their
            cut-off are under its own id in the ledger, as a backfill's are: the schedule does not begin with them.
        permission: Asked before anything is computed, once more before the commit, and again when the ledger knows of it.

    Raises:
        StaleWriter: a newer run has computed one of the windows since this one began.
        AlreadyDecided: the backfill was rolled back: nothing is promoted; or, in the last moment, what is promoted may stand.
        InvalidInput: the group declares nothing for the strategy.
        PromotionRefused: a proxy does not follow its feature closely enough.
    """
    run = _Run(store, catalog, group, run_id, launch, permission, is_scheduled)
    return run.materialize(sorted(windows), on_progress or _say_nothing)


def _say_nothing(_: Progress) -> None:
    pass


class _Run:
    def __init__(
        self,
        store: OfflineStore,
        catalog: Catalog,
        group: FeatureGroup,
        run_id: str,
        launch: Launch,
        permission: Permission,
        is_scheduled: bool,
    ) -> None:
        self.store, self.catalog, self.group, self.run_id, self.launch = store, catalog, group, run_id, launch
        self.permission, self.is_scheduled = permission, is_scheduled
        self.registered = store.registry.group(group.stored_name)
        self.table = store.table(group.stored_name)
        self.staging = store.staging(group.stored_name)
        self.ledger = store.ledger(group.stored_name)
        self.seen_version, self.seen_ledger = self.table.version(), self.ledger.version()
        self.versions = versions_read(store, catalog, group, launch.strategy)
        self.now = store.clock()
        self.left: dict[TimeWindow, LedgerEntry] = {}

    def materialize(self, windows: Sequence[TimeWindow], on_progress: OnProgress) -> Promotion:
        self.permission()
        skipped = self._skipped(windows)
        due = [window for window in windows if window not in skipped]
        computed, failed = self._compute(due, on_progress)
        self.staging.stage(self.run_id, _rows_of(computed))
        statistics = statistics_of(self.registered, computed)
        outcomes = self._judge(computed, statistics) | failed
        self._refuse_overtaken(due)
        self.permission()
        good = [window for window in due if outcomes[window].status == "promoted"]
        commit = self._promote(good, computed)
        self._quarantine(outcomes, computed)
        version = None if commit is None else commit.table_version
        recorded_at = self._instant_after(version)
        # Before the ledger: a run cut short in between is computed again, and its statistics are written again.
        kept = {window: statistics[window] for window in good}
        keep_statistics(self.store, self.registered.name, kept, run_id=self.run_id, version=version, at=recorded_at)
        self._record(outcomes, version, recorded_at)
        self.staging.discard(self.run_id)
        self._confirm_permission(good)
        behind = self._behind({window: computed[window] for window in good})
        changed = set() if commit is None else set(commit.changed_windows)
        marked = {w: replace(o, changed=w in changed, behind_rows=behind.get(w.start, 0)) for w, o in outcomes.items()}
        return Promotion(tuple((skipped | marked)[window] for window in windows), self.table.version())

    def _skipped(self, windows: Sequence[TimeWindow]) -> dict[TimeWindow, WindowOutcome]:
        hindered = hindrances(self.store, self.catalog, self.group, windows, self.launch, self.now)
        ready = [window for window in windows if window not in hindered]
        left = windows_left(self.store, self.catalog, self.group, ready, self.launch)
        production = {row["window_start"]: LedgerEntry(**row) for row in self.ledger.in_production().to_dicts()}
        self.left = {window: production[window.start] for window in left if window.start in production}
        return {w: WindowOutcome(w, status, reason=reason) for w, (status, reason) in hindered.items()} | {
            window: _left_as_it_is(window, entry, left[window]) for window, entry in self.left.items()
        }

    def _compute(
        self, due: Sequence[TimeWindow], on_progress: OnProgress
    ) -> tuple[dict[TimeWindow, ComputedRows], dict[TimeWindow, WindowOutcome]]:
        computed: dict[TimeWindow, ComputedRows] = {}
        failed: dict[TimeWindow, WindowOutcome] = {}
        if not due:
            return computed, failed
        started = time.perf_counter()
        compute = window_computer(self.store, self.catalog, self.group, due, self.launch)
        for done, window in enumerate(due, start=1):
            began = time.perf_counter()
            try:
                computed[window] = replace(compute(window), seconds=time.perf_counter() - began)
            except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - a transform is user code: whatever it raises fails its own window alone
                finding = Finding("transform", "", f"{type(error).__name__}: {error}", "runs without an error", 0)
                failed[window] = WindowOutcome(
                    window, "quarantined", Verdict(0, (finding,)), reason=str(finding), strategy=self.launch.strategy
                )
            on_progress(_progress(done, len(due), computed, time.perf_counter() - started))
        return computed, failed

    def _judge(
        self, computed: Mapping[TimeWindow, ComputedRows], statistics: Computed
    ) -> dict[TimeWindow, WindowOutcome]:
        judged = judge_computed(self.store, self.group, self.launch, computed)
        verdicts = hold_drifted(self.store, self.registered, self.launch, judged, statistics)
        return {
            window: WindowOutcome(
                window,
                "promoted" if verdicts[window].passed else "quarantined",
                verdicts[window],
                result.input_rows,
                result.history_rows,
                result.null_key_rows,
                compute_seconds=result.seconds,
                reason="; ".join(map(str, verdicts[window].findings)),
                strategy=self.launch.strategy,
                notes=result.notes,
            )
            for window, result in computed.items()
        }

    def _refuse_overtaken(self, due: Sequence[TimeWindow]) -> None:
        """A newer run that left rows as they were, or held them, made no commit: only the ledger knows of it."""
        newer = self.ledger.entries_since(self.seen_ledger).filter(
            pl.col("window_start").is_in([window.start for window in due]) & (pl.col("run_id") != self.run_id)
        )
        if not newer.is_empty():
            entry = newer.row(0, named=True)
            raise StaleWriter(
                f"Run {entry['run_id']!r} has {entry['status']} window {entry['window_start'].isoformat()} of group "
                f"{self.group.stored_name!r} since run {self.run_id!r} began. What it found stays. Run the partition again to "
                "compute from what is there now."
            )

    def _confirm_permission(self, good: Sequence[TimeWindow]) -> None:
        """A rollback that looked at the table before this commit, and was written down after permission was given, missed it."""
        try:
            self.permission()
        except StoreUnavailable:  # nor can a rollback be written down in it just now
            return
        except AlreadyDecided as error:
            if good:
                raise AlreadyDecided(
                    f"{error} Run {self.run_id!r} was promoting windows of group {self.group.stored_name!r} meanwhile, which may "
                    f"stand. Take them back too: featurestore backfill rollback {self.launch.backfill_id} --as WHO --reason WHY"
                ) from error
            raise

    def _promote(self, good: Sequence[TimeWindow], computed: Mapping[TimeWindow, ComputedRows]) -> Commit | None:
        if not good:
            return None
        return self.table.overwrite_windows(
            _rows_of({window: computed[window] for window in good}),
            good,
            seen_version=self.seen_version,
            transaction=f"promote/{self.run_id}/{uuid4().hex}",
            metadata={
                "run_id": self.run_id,
                "code_version": self.group.code_version,
                BACKFILL_ID: self.launch.backfill_id,
                "strategy": self.launch.strategy,
            },
        )

    def _behind(self, promoted: Mapping[TimeWindow, ComputedRows]) -> dict[datetime, int]:
        """By window start, the events older than one known before them; windowed groups have none."""
        rows = _rows_of(promoted)
        if self.group.kind != "events" or rows.is_empty():
            return {}
        columns = [*self.registered.key_names, "event_time", "knowledge_time", "window_start"]
        oldest = rows["event_time"].min()
        since = oldest if isinstance(oldest, datetime) else None
        stored = self.table.scan(known_by=self.group.horizon(max(promoted)), event_since=since).select(columns)
        behind = rows_behind(stored.collect(), keys=list(self.registered.key_names))
        return dict(behind.group_by("window_start").len().rows())

    def _quarantine(
        self, outcomes: Mapping[TimeWindow, WindowOutcome], computed: Mapping[TimeWindow, ComputedRows]
    ) -> None:
        held = set(self.staging.quarantined())
        for window, outcome in outcomes.items():
            if outcome.status == "quarantined":
                rows = computed[window].rows if window in computed else pl.DataFrame()
                report = {
                    "group": self.group.stored_name,
                    "window": window.start.isoformat(),
                    "run_id": self.run_id,
                    "backfill_id": self.launch.backfill_id,
                    "seen_version": self.seen_version,
                    **outcome.verdict.as_dict(),
                }
                self.staging.quarantine(window.start, rows, report)
            elif held:
                self.staging.release(window.start)

    def _record(self, outcomes: Mapping[TimeWindow, WindowOutcome], version: int | None, recorded_at: datetime) -> None:
        declaration = declaration_digest(self.catalog, self.group, self.registered)
        versions = json.dumps(self.versions, sort_keys=True)
        entries = [
            LedgerEntry(
                window_start=window.start,
                recorded_at=recorded_at,
                status="promoted" if outcome.status == "promoted" else "quarantined",
                run_id=self.run_id,
                code_version=self.group.code_version,
                source_versions=versions,
                verdict_digest=hashlib.sha256(json.dumps(outcome.verdict.as_dict(), default=str).encode()).hexdigest(),
                rows=outcome.verdict.rows,
                history_rows=outcome.history_rows,
                null_key_rows=outcome.null_key_rows,
                strategy=self.launch.strategy,
                backfill_id=self._owner_of(window),
                compute_seconds=outcome.compute_seconds,
                declaration=declaration,
                table_version=version if outcome.status == "promoted" else None,
            )
            for window, outcome in outcomes.items()
        ]
        self.ledger.append([*entries, *self._left_entries(recorded_at)])

    def _owner_of(self, window: TimeWindow) -> str:
        """The backfill that the ledger is to name: a person's run over history is one, even where nobody had to admit it."""
        is_history = self.group.cut_off(window) <= self.now - DAY
        by_hand = self.run_id if is_history and not self.is_scheduled else ""
        return self.launch.backfill_id or by_hand

    def _left_entries(self, recorded_at: datetime) -> list[LedgerEntry]:
        """That a backfill is done with the windows it leaves; of a scheduled run nobody asks."""
        if not self.launch.is_backfill:
            return []
        return [
            replace(
                entry,
                status=LEFT,
                recorded_at=recorded_at,
                run_id=self.run_id,
                backfill_id=self.launch.backfill_id,
                compute_seconds=0.0,
            )
            for entry in self.left.values()
        ]

    def _instant_after(self, version: int | None) -> datetime:
        """Now, and not before the rows of a version of the table were made, by whatever clock."""
        made = None if version is None else standing_at(self.table.location, version).last_created_at
        return max(self.store.clock(), made or self.now)


def _left_as_it_is(window: TimeWindow, entry: LedgerEntry, reason: str) -> WindowOutcome:
    return WindowOutcome(
        window,
        "current",
        Verdict(entry.rows),
        history_rows=entry.history_rows,
        null_key_rows=entry.null_key_rows,
        reason=reason,
        strategy=entry.strategy,
    )


def _rows_of(computed: Mapping[TimeWindow, ComputedRows]) -> pl.DataFrame:
    parts = [result.rows for result in computed.values()]
    return pl.concat(parts) if parts else pl.DataFrame()


def _progress(done: int, total: int, computed: Mapping[TimeWindow, ComputedRows], seconds: float) -> Progress:
    results = computed.values()
    rows, input_rows = sum(result.rows.height for result in results), sum(result.input_rows for result in results)
    size_bytes = sum(int(result.rows.estimated_size()) for result in results)
    return Progress(done, total, rows, input_rows, seconds, size_bytes)
