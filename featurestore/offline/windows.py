"""Overwriting windows: what is to be written where computed rows take the place of whole windows."""

import hashlib
from collections.abc import Mapping, Sequence

import polars as pl

from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput
from featurestore.offline.commit import Commit, Committer, Plan, Request
from featurestore.offline.content import content_hash
from featurestore.offline.difference import Difference, difference
from featurestore.offline.intake import check_rows, check_windows, identity
from featurestore.offline.spans import covering, merged, of_windows, started_in
from featurestore.offline.view import TableView


def overwrite_windows(
    committer: Committer,
    rows: pl.DataFrame,
    windows: Sequence[TimeWindow],
    *,
    seen_version: int | None,
    transaction: str,
    metadata: Mapping[str, str],
) -> Commit:
    """See `FeatureTable.overwrite_windows`."""
    group = committer.group
    if group.kind == "pushed":
        raise InvalidInput(f"Group {group.name!r} is pushed: it has no windows to overwrite. Use append_push.")
    named = check_windows(group, windows)
    checked = check_rows(group, rows, named)
    text = "".join(f"{window.start.isoformat()}/{window.end.isoformat()}\n" for window in named)
    digest = hashlib.sha256((text + content_hash(checked, order=identity(group))).encode()).hexdigest()
    request = Request("windows", transaction, digest, tuple(named), dict(metadata), seen_version)
    return committer.commit(request, lambda view: _plan(view, checked, named))


def _plan(view: TableView, rows: pl.DataFrame, windows: Sequence[TimeWindow]) -> Plan | None:
    everything = [*view.group.stored_schema, *view.undeclared]
    stored = view.scan(spans=covering(merged(windows)), columns=everything).filter(of_windows(windows)).collect()
    found = difference(view.group, rows, stored, list(view.undeclared))
    changed = tuple(window for window in windows if window.start in found.starts)
    if not changed:
        return None
    spans = covering(merged(changed))
    written = pl.concat([found.rows.filter(started_in(spans)), *_bridged(view, found, spans, windows)], how="diagonal")
    return Plan(written, spans, changed, found.rows, found.gone, found.counts)


def _bridged(
    view: TableView, found: Difference, spans: Sequence[TimeWindow], windows: Sequence[TimeWindow]
) -> list[pl.DataFrame]:
    """Stored rows between the windows, where so many were changed that a span covers what lies between."""
    if len(spans) == len(merged(window for window in windows if window.start in found.starts)):
        return []
    everything = [*view.group.stored_schema, *view.undeclared]
    return [view.scan(spans=spans, columns=everything).filter(~of_windows(windows)).collect()]
