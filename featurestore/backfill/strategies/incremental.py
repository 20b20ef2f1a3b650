"""Which windows an incremental backfill computes: those that a computation of today might give other rows than they have."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from featurestore.backfill.strategies.arrivals import (
    NO_TABLE,
    Arrivals,
    ChangedWindows,
    LoadArrivals,
    RowArrivals,
    WindowArrivals,
)
from featurestore.declaration.catalog import Catalog, Input, input_schema
from featurestore.declaration.dtypes import dtype_name
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.offline.ledger import LedgerEntry
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredGroup

STAND_INS = ("snapshot", "proxy")


def windows_to_compute(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, windows: Sequence[TimeWindow]
) -> dict[TimeWindow, str]:
    """The windows whose rows may not be what a computation would give now, and why.

    Left out is a window that was promoted last by the present code and declaration, whose rows nobody has written since, and
    for which nothing has come since that its transform may see: rows of sources known by its cut-off, in the span that it
    reads; changes of upstream windows that it reads; loads of static groups. A window filled by a stand-in (snapshot,
    proxy) is left out as long as nothing has come that its transform may see; code has no part in it.

    Args:
        windows: Any windows of the group.

    Returns:
        Window to reason, in the order of `windows`.
    """
    entries = {row["window_start"]: LedgerEntry(**row) for row in store.ledger(group.stored_name).latest().to_dicts()}
    code = (group.code_version, declaration_digest(catalog, group, store.registry.group(group.stored_name)))
    found = {window: _own_reason(entries.get(window.start), *code) for window in windows}
    standing = {window: entries[window.start] for window in windows if not found[window]}
    found |= _rewritten(store, group, standing)
    unmoved = {window: entry for window, entry in standing.items() if not found[window]}
    for name, item in catalog.inputs_of(group).items():
        found |= _reached(store, group, name, item, {w: entry for w, entry in unmoved.items() if not found[w]})
    return {window: reason for window, reason in found.items() if reason}


def computed_otherwise(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, entries: Mapping[TimeWindow, LedgerEntry]
) -> dict[TimeWindow, str]:
    """Of windows in quarantine, those that a computation of today might find otherwise, and why.

    Args:
        entries: What the ledger says of each.
    """
    code = (group.code_version, declaration_digest(catalog, group, store.registry.group(group.stored_name)))
    found = {window: _other_code(entry, *code) for window, entry in entries.items()}
    for name, item in catalog.inputs_of(group).items():
        found |= _reached(store, group, name, item, {w: entry for w, entry in entries.items() if not found[w]})
    return {window: reason for window, reason in found.items() if reason}


def declaration_digest(catalog: Catalog, group: FeatureGroup, registered: RegisteredGroup) -> str:
    """A digest of what of the declarations decides a window's rows, beside the transform's code."""
    rules = {
        "kind": group.kind,
        "schema_number": registered.schema_number,
        "columns": {name: dtype_name(dtype) for name, dtype in group.row_schema.items()},
        "durations": [str(duration) for duration in (group.lookback, group.delay, group.publish)],
        "first": registered.start if group.kind == "events" else "",
        "inputs": {name: _reading_rule(item) for name, item in catalog.inputs_of(group).items()},
    }
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]


def _reading_rule(item: Input) -> list[object]:
    columns = {name: dtype_name(dtype) for name, dtype in input_schema(item).items()}
    if isinstance(item, Source):
        return [list(item.keys), item.event_time, columns]
    return [list(item.keys), item.kind, str(item.delay), str(item.publish), columns]


def _own_reason(entry: LedgerEntry | None, code_version: str, declaration: str) -> str:
    """Why a window is to be computed whatever has come to its inputs; empty if nothing of its own asks for it."""
    if entry is None or entry.status == "rolled_back":
        return "it is missing"
    if entry.status == "quarantined":
        return "it is in quarantine"
    return _other_code(entry, code_version, declaration)


def _other_code(entry: LedgerEntry, code_version: str, declaration: str) -> str:
    if entry.strategy in STAND_INS:
        return ""
    if entry.code_version != code_version:
        return f"its transform changed: it was computed by {entry.code_version}, now {code_version}"
    return "" if entry.declaration == declaration else "its declaration, or that of an input, changed"


def _rewritten(
    store: OfflineStore, group: FeatureGroup, entries: Mapping[TimeWindow, LedgerEntry]
) -> dict[TimeWindow, str]:
    """Windows whose rows were written after what the ledger says of them: a run cut short, or a rollback."""
    since = {window: _version(entry.table_version) for window, entry in entries.items()}
    changed = ChangedWindows(group, store.table(group.stored_name), min(since.values(), default=NO_TABLE))
    moved = {window for window, version in since.items() if changed.any_of([window], version)}
    return dict.fromkeys(moved, "its rows were written since it was recorded")


def _reached(
    store: OfflineStore, group: FeatureGroup, name: str, item: Input, entries: Mapping[TimeWindow, LedgerEntry]
) -> dict[TimeWindow, str]:
    """Windows for which something has come to one input."""
    if not entries:
        return {}
    recorded = {window: json.loads(entry.source_versions) for window, entry in entries.items()}
    since = {window: _version(versions[name]) for window, versions in recorded.items() if name in versions}
    arrivals = _arrivals(store, group, name, item, since)
    reached = {window for window in entries if window not in since or arrivals.reach(window, since[window])}
    return dict.fromkeys(reached, f"something came to {name!r} that it reads")


def _arrivals(
    store: OfflineStore, group: FeatureGroup, name: str, item: Input, since: Mapping[TimeWindow, int]
) -> Arrivals:
    if isinstance(item, Source):
        return RowArrivals(group, item, store.source(item), since)
    table, oldest = store.table(item.stored_name), min(since.values(), default=NO_TABLE)
    if isinstance(item.cadence, Windowless):
        return LoadArrivals(group, item, table, oldest)
    return WindowArrivals(group, name, item, table, oldest)


def _version(recorded: int | None) -> int:
    return NO_TABLE if recorded is None else recorded


def input_versions(store: OfflineStore, inputs: Mapping[str, Input]) -> dict[str, int | None]:
    """The version of each input's table; taken before rows are read, so that what comes meanwhile counts as new."""
    return {
        name: store.source(item).version() if isinstance(item, Source) else store.table(item.stored_name).version()
        for name, item in inputs.items()
    }
