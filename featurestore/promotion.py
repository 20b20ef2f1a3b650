"""Stage, validate, promote: the one way in which computed rows reach production.

Every window of a run is computed and staged, each is judged alone, and all good ones are promoted in one commit. A bad
one goes to quarantine with a report, and production keeps its last good rows. A run cut short anywhere converges when
it is repeated: a promotion with nothing changed makes no commit.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import uuid4

import polars as pl

from featurestore.backfill.strategies import window_computer
from featurestore.compute.inputs import static_inputs, windows_read
from featurestore.compute.window import ComputedRows, compute_load
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.declaration.windows import Static, TimeWindow
from featurestore.errors import InvalidInput
from featurestore.frontier import rows_behind
from featurestore.judging import judge_computed
from featurestore.launch import SCHEDULED, Launch
from featurestore.offline.ledger import LedgerEntry
from featurestore.offline.store import OfflineStore
from featurestore.quality import Finding, Verdict, judge

NOTHING_JUDGED = Verdict(0)

Status = Literal["promoted", "quarantined", "not_due", "blocked"]


@dataclass(frozen=True, slots=True)
class WindowOutcome:
    """How one window of a run ended.

    `changed` says whether the promotion moved any row; `behind_rows` counts events older than one known before them,
    which are stored and never served; `reason` is for a person, empty when promoted.
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
) -> Promotion:
    """Compute, stage, judge and promote windows of a windowed or event group.

    A window before its cut-off, or one whose upstream windows are not promoted, is skipped and said so.

    Args:
        windows: Any windows of the group; they are taken oldest first.
        run_id: Names the run in commits, ledger and staging; a repeated run may reuse it.
        launch: The backfill that the run belongs to, and its strategy; by default a scheduled, full computation.

    Raises:
        StaleWriter: a newer run has promoted one of the windows since this one began.
    """
    return _Run(store, catalog, group, run_id, launch).materialize(sorted(windows))


class _Run:
    def __init__(self, store: OfflineStore, catalog: Catalog, group: FeatureGroup, run_id: str, launch: Launch) -> None:
        self.store, self.catalog, self.group, self.run_id, self.launch = store, catalog, group, run_id, launch
        self.registered = store.registry.group(group.stored_name)
        self.table = store.table(group.stored_name)
        self.staging = store.staging(group.stored_name)
        self.seen_version = self.table.version()
        self.now = store.clock()

    def materialize(self, windows: Sequence[TimeWindow]) -> Promotion:
        skipped = self._skipped(windows)
        due = [window for window in windows if window not in skipped]
        computed, failed = self._compute(due)
        self.staging.stage(self.run_id, _rows_of(computed))
        outcomes = self._judge(computed) | failed
        good = [window for window in due if outcomes[window].status == "promoted"]
        changed = self._promote(good, computed)
        self._quarantine(outcomes, computed)
        self._record(outcomes)
        self.staging.discard(self.run_id)
        behind = self._behind({window: computed[window] for window in good})
        marked = {w: replace(o, changed=w in changed, behind_rows=behind.get(w.start, 0)) for w, o in outcomes.items()}
        return Promotion(tuple((skipped | marked)[window] for window in windows), self.table.version())

    def _skipped(self, windows: Sequence[TimeWindow]) -> dict[TimeWindow, WindowOutcome]:
        awaited = set(self._windowed_upstreams()) - set(self.launch.without)
        waiting = {name: set(self.store.ledger(name).promoted()) for name in awaited}
        skipped = {}
        for window in windows:
            if self.group.cut_off(window) > self.now:
                reason = f"due at its cut-off, {self.group.cut_off(window).isoformat()}; now is {self.now.isoformat()}"
                skipped[window] = WindowOutcome(window, "not_due", reason=reason)
            elif missing := self._missing_upstream(window, waiting):
                skipped[window] = WindowOutcome(
                    window, "blocked", reason=f"upstream windows are not promoted: {missing}"
                )
        return skipped

    def _windowed_upstreams(self) -> dict[str, FeatureGroup]:
        inputs = self.catalog.inputs_of(self.group)
        return {name: item for name, item in inputs.items() if isinstance(item, FeatureGroup) and item.kind != "static"}

    def _missing_upstream(self, window: TimeWindow, promoted: Mapping[str, set[datetime]]) -> list[str]:
        missing = []
        for name, upstream in self._windowed_upstreams().items():
            if isinstance(upstream.cadence, Static) or name not in promoted:
                continue
            read = windows_read(self.group, name, upstream, window)
            missing += [f"{name} {upstream.cadence.key_of(w)}" for w in read if w.start not in promoted[name]]
        return missing

    def _compute(
        self, due: Sequence[TimeWindow]
    ) -> tuple[dict[TimeWindow, ComputedRows], dict[TimeWindow, WindowOutcome]]:
        computed: dict[TimeWindow, ComputedRows] = {}
        failed: dict[TimeWindow, WindowOutcome] = {}
        if not due:
            return computed, failed
        compute = window_computer(self.store, self.catalog, self.group, due, self.launch)
        for window in due:
            began = time.perf_counter()
            try:
                computed[window] = replace(compute(window), seconds=time.perf_counter() - began)
            except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - a transform is user code: whatever it raises fails its own window alone
                finding = Finding("transform", "", f"{type(error).__name__}: {error}", "runs without an error", 0)
                failed[window] = WindowOutcome(window, "quarantined", Verdict(0, (finding,)), reason=str(finding))
        return computed, failed

    def _judge(self, computed: Mapping[TimeWindow, ComputedRows]) -> dict[TimeWindow, WindowOutcome]:
        verdicts = judge_computed(self.store, self.group, self.launch, computed)
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
            )
            for window, result in computed.items()
        }

    def _promote(self, good: Sequence[TimeWindow], computed: Mapping[TimeWindow, ComputedRows]) -> set[TimeWindow]:
        if not good:
            return set()
        commit = self.table.overwrite_windows(
            _rows_of({window: computed[window] for window in good}),
            good,
            seen_version=self.seen_version,
            transaction=f"promote/{self.run_id}/{uuid4().hex}",
            metadata={
                "run_id": self.run_id,
                "code_version": self.group.code_version,
                "backfill_id": self.launch.backfill_id,
                "strategy": self.launch.strategy,
            },
        )
        return set(commit.changed_windows)

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
                    **outcome.verdict.as_dict(),
                }
                self.staging.quarantine(window.start, rows, report)
            elif held:
                self.staging.release(window.start)

    def _record(self, outcomes: Mapping[TimeWindow, WindowOutcome]) -> None:
        versions = json.dumps({name: self._input_version(name) for name in self.group.inputs}, sort_keys=True)
        entries = [
            LedgerEntry(
                window_start=window.start,
                recorded_at=self.store.clock(),
                status="promoted" if outcome.status == "promoted" else "quarantined",
                run_id=self.run_id,
                code_version=self.group.code_version,
                source_versions=versions,
                verdict_digest=hashlib.sha256(json.dumps(outcome.verdict.as_dict(), default=str).encode()).hexdigest(),
                rows=outcome.verdict.rows,
                history_rows=outcome.history_rows,
                null_key_rows=outcome.null_key_rows,
                strategy=self.launch.strategy,
                backfill_id=self.launch.backfill_id,
                compute_seconds=outcome.compute_seconds,
            )
            for window, outcome in outcomes.items()
        ]
        self.store.ledger(self.group.stored_name).append(entries)

    def _input_version(self, name: str) -> int | None:
        item = self.catalog.inputs_of(self.group)[name]
        return (
            self.store.source(item).version()
            if isinstance(item, Source)
            else self.store.table(item.stored_name).version()
        )


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """How a load of a static group ended; `rows_changed` counts appended rows, tombstones included."""

    verdict: Verdict
    computed: ComputedRows
    rows_changed: int
    table_version: int | None


def materialize_load(store: OfflineStore, catalog: Catalog, group: FeatureGroup, *, run_id: str) -> LoadOutcome:
    """Load a static group as it is now: changed entities are appended, vanished ones become tombstones.

    A load that fails its gate writes nothing, and production keeps the last one.

    Raises:
        PromotionRefused: the load lacks more of the live entities than the group's `min_coverage` allows.
        StaleWriter: a later load is there already.
    """
    if not isinstance(group.cadence, Static):
        raise InvalidInput(f"Group {group.stored_name!r} has windows; materialize_windows promotes them.")
    registered, instant, table = store.registry.group(group.stored_name), store.clock(), store.table(group.stored_name)
    computed = compute_load(group, registered, static_inputs(catalog, group, instant, store))
    verdict = judge(registered, computed.rows)
    if not verdict.passed:
        return LoadOutcome(verdict, computed, 0, table.version())
    commit = table.load_static(
        computed.rows,
        instant=instant,
        valid_from=group.cadence.valid_from,
        transaction=f"load/{run_id}/{uuid4().hex}",
        metadata={"run_id": run_id, "code_version": group.code_version},
    )
    changed = sum(commit.counts.get(name, 0) for name in ("added", "changed", "removed"))
    return LoadOutcome(verdict, computed, changed, commit.table_version)


def _rows_of(computed: Mapping[TimeWindow, ComputedRows]) -> pl.DataFrame:
    parts = [result.rows for result in computed.values()]
    return pl.concat(parts) if parts else pl.DataFrame()
