"""Trying a group's transform on one recent window before a backfill is queued: real inputs, the gate's verdict, nothing written."""

import inspect
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from featurestore.backfill.estimates.reads import files_of, is_dimension
from featurestore.compute.inputs import Visible, WindowInputs, windows_read
from featurestore.compute.window import compute_window
from featurestore.declaration.catalog import Catalog, Input
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.errors import InvalidInput
from featurestore.gate.quality import Verdict, judge
from featurestore.offline.store import OfflineStore

TRIED_WINDOWS = 8
"""How many windows are looked at, newest first, for one that has input rows."""
TRIALS = 3
"""A transform that fails on one window may have met a bad day; one that fails on this many that share no events is wrong."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """How a trial ended.

    Args:
        window: The window that was tried; None if no window has any input rows.
        rows: Rows that the transform gave.
        input_rows: Rows that it was given.
        verdict: What the gate says of them; None if the transform failed or was not tried.
        error: Why the transform failed, with the line of its file; empty otherwise.
        note: Why it was not tried on data, or not on the last window that is due.
    """

    group: str
    window: TimeWindow | None
    rows: int = 0
    input_rows: int = 0
    verdict: Verdict | None = None
    error: str = ""
    note: str = ""

    @property
    def passed(self) -> bool:
        return not self.error and (self.verdict is None or self.verdict.passed)

    @property
    def reason(self) -> str:
        """Why it did not pass, for a person; empty if it did."""
        if self.passed:
            return ""
        where = (
            f"The dry run of {self.group!r} on window {self.window.start.isoformat() if self.window else ''} failed: "
        )
        findings = self.verdict.findings if self.verdict is not None else ()
        return where + (self.error or "; ".join(map(str, findings)))

    def as_dict(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return {
            "group": self.group,
            "passed": self.passed,
            "window": self.window.start.isoformat() if self.window else None,
            "rows": self.rows,
            "input_rows": self.input_rows,
            "findings": self.verdict.as_dict()["findings"] if self.verdict is not None else [],
            "reason": self.reason,
            "note": self.note,
        }


def dry_run(store: OfflineStore, catalog: Catalog, group: FeatureGroup, window: TimeWindow | None = None) -> DryRun:
    """Run a group's transform on the inputs of one window, and judge its rows as the gate would. Nothing is written.

    Args:
        window: By default the last one that is due, whose upstream windows are promoted, and that has input rows beside those of
            its dimensions. If that fails, earlier ones are tried: one that passes says that the definition is right.

    Raises:
        InvalidInput: the group is static.
    """
    if isinstance(group.cadence, Windowless):
        instead = "Load it as a whole." if group.kind == "static" else "Its rows arrive by push."
        raise InvalidInput(f"Group {group.stored_name!r} is {group.kind}: it has no windows to try. {instead}")
    if window is not None:
        inputs = WindowInputs(catalog, group, [window], store)
        return _tried(store, group, window, inputs, inputs.of(window), _note(store, group, window))
    failed: DryRun | None = None
    for trial in islice(_trials(store, catalog, group), TRIALS):
        if trial.passed:
            return trial if failed is None else replace(trial, note=f"{trial.note} {failed.reason}".strip())
        failed = failed or trial
    note = "No due window has rows of its inputs: the transform could not be tried on data."
    return failed or DryRun(group.stored_name, None, note=note)


def _trials(store: OfflineStore, catalog: Catalog, group: FeatureGroup) -> Iterator[DryRun]:
    """Trials on windows that have input rows, newest first, no two of which read the same events."""
    looked_at, before = 0, None
    for candidate in _candidates(store, catalog, group):
        if before is not None and candidate.end > before:
            continue
        if looked_at == TRIED_WINDOWS:
            return
        looked_at += 1
        inputs = WindowInputs(catalog, group, [candidate], store)
        visible = inputs.of(candidate)
        if _has_rows(catalog, group, visible):
            yield _tried(store, group, candidate, inputs, visible, _note(store, group, candidate))
            before = candidate.end - max(group.lookback, candidate.end - candidate.start)


def _tried(
    store: OfflineStore, group: FeatureGroup, window: TimeWindow, inputs: WindowInputs, visible: Visible, note: str
) -> DryRun:
    registered = store.registry.group(group.stored_name)
    try:
        computed = compute_window(group, registered, window, inputs)
    except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - a transform is user code: whatever it raises is what the trial is for
        return DryRun(group.stored_name, window, input_rows=visible.rows, error=_told(group, error), note=note)
    verdict = judge(registered, computed.rows)
    return DryRun(group.stored_name, window, computed.rows.height, visible.rows, verdict, note=note)


def _told(group: FeatureGroup, error: BaseException) -> str:
    """Type and message of an error, and the last line of the transform's file that it passed."""
    file = inspect.getsourcefile(group.transform)
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno}: {lines[-1].line})" if lines else ""
    return f"{type(error).__name__}: {error}{place}"


def _note(store: OfflineStore, group: FeatureGroup, window: TimeWindow) -> str:
    last = next(_due(group, store.clock()), None)
    if last is None or window.start >= last.start:
        return ""
    return f"Tried on {window.start.isoformat()}: later windows have no input rows yet, or wait for upstream windows."


def _has_rows(catalog: Catalog, group: FeatureGroup, visible: Visible) -> bool:
    """Whether there is any row of an input that is no dimension; of a group with only dimensions, any row."""
    timed = [name for name, item in catalog.inputs_of(group).items() if not is_dimension(item)]
    heights = [visible.frames[name].select(pl.len()).collect().item() for name in timed]
    return any(heights) if timed else visible.rows > 0


def _candidates(store: OfflineStore, catalog: Catalog, group: FeatureGroup) -> Iterator[TimeWindow]:
    """Due windows, newest first, that may have input rows by the statistics of the inputs, and wait for no upstream."""
    inputs = catalog.inputs_of(group)
    spans = [_known_span(store, item) for item in inputs.values() if not is_dimension(item)]
    upstreams = {
        n: i for n, i in inputs.items() if isinstance(i, FeatureGroup) and not isinstance(i.cadence, Windowless)
    }
    promoted = {name: store.ledger(name).promoted() for name in upstreams}
    if not all(promoted.values()):
        return
    for window in _due(group, store.clock()):
        reach = (window.end - group.lookback, group.cut_off(window))
        if spans and not any(span and span[0] <= reach[1] and span[1] >= reach[0] for span in spans):
            continue
        if all(
            w.start in promoted[n]
            for n, upstream in upstreams.items()
            for w in windows_read(group, n, upstream, window)
        ):
            yield window


def _due(group: FeatureGroup, now: datetime) -> Iterator[TimeWindow]:
    """Windows whose cut-off has passed, newest first."""
    if isinstance(group.cadence, Windowless):
        return
    length = group.cadence.length
    start = group.cadence.origin + (now - group.delay - group.cadence.origin) // length * length - length
    while start >= group.cadence.origin:
        yield TimeWindow(start, start + length)
        start -= length


def _known_span(store: OfflineStore, item: Input) -> tuple[datetime, datetime] | None:
    """When the first and the last row of an input became known; None if it has none."""
    files = files_of(store, item).files
    ends: Sequence[object] = (files["first"].min(), files["last"].max())
    first, last = ends
    return (first, last) if isinstance(first, datetime) and isinstance(last, datetime) else None
