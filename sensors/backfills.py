"""The sensor that admits backfills, and tells Dagster what people have done to them since.

The run coordinator holds every backfill in the queue; this sensor, which knows the code, lets it go.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import dagster as dg

from feature_assets.catalogue import row_metadata
from featurestore.declaration import Catalog, FeatureGroup
from featurestore.declaration.windows import Windowless
from featurestore.launch import CORRECTNESS_OF
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import AuditEntry
from featurestore.offline.ledger import LedgerEntry
from resources.run_tags import HELD, OFFLINE
from resources.store import StoreResource
from sensors.admissions import GOES_ON, Admissions
from sensors.ended_backfills import EndedBackfills
from sensors.held_runs import HeldBackfill, held_backfills

MINIMUM_INTERVAL_SECONDS = 5
TICK_SECONDS = 30.0
"""After this long a tick leaves the other backfills to the next one; Dagster ends a tick at 60."""
REPORTED_ACTIONS = ("rolled_back", "overridden")
ENTRIES_A_TICK = 20


def backfill_admission(catalog: Catalog) -> dg.SensorDefinition:
    """The sensor of one code location; it runs from the first start of the daemon."""

    @dg.sensor(
        name="backfill_admission",
        minimum_interval_seconds=MINIMUM_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Assesses backfills that wait in the queue, and lets them go, holds them for approval, or cancels them; also those rolled back since.",
    )
    def admission(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
        book = store.settings().book(store.clock())
        settle_held(context, catalog, store, book)
        EndedBackfills(context.instance, catalog, book, store.clock(), context.log).close()
        entries = book.entries_after(int(context.cursor or 0), actions=REPORTED_ACTIONS, limit=ENTRIES_A_TICK)
        cursor = str(entries[-1][0]) if entries else context.cursor
        return dg.SensorResult(asset_events=list(asset_events(catalog, store, entries)), cursor=cursor)

    return admission


def settle_held(
    context: dg.SensorEvaluationContext, catalog: Catalog, store: StoreResource, book: BackfillBook
) -> None:
    """Stop what was let go and rolled back since; settle what waits, the oldest first. All for at most `TICK_SECONDS`."""
    deadline = time.monotonic() + TICK_SECONDS
    let_go, waiting = (held_backfills(context.instance, catalog, admissions) for admissions in (GOES_ON, HELD))
    if not (let_go or waiting):
        return
    admissions = Admissions(context.instance, catalog, store.offline(), book, context.log)

    def in_time(act: Callable[[HeldBackfill], None], held: HeldBackfill) -> None:
        if time.monotonic() < deadline:
            act(held)

    # An error that nobody foresaw in one of them stops none of the others: it is raised after the last.
    with ExitStack() as each:
        for held in reversed(waiting):
            each.callback(in_time, admissions.settle, held)
        for held in reversed(let_go):
            each.callback(in_time, admissions.stop, held)


def asset_events(
    catalog: Catalog, store: StoreResource, entries: Sequence[tuple[int, AuditEntry]]
) -> Iterator[dg.AssetMaterialization]:
    """What a rollback or an override did, as materializations of its windows, so that online assets follow.

    An event is reported before the cursor is: after a crash between the two it is reported again, and moves nothing.
    """
    own = {group.stored_name: group for group in catalog.groups}
    for _, entry in entries:
        group = own.get(str(entry.details.get("group")))
        if group is None or not (keys := entry.details.get("keys", ())):
            continue
        standing = _in_production(store, group, keys)
        for key in keys:
            yield dg.AssetMaterialization(
                dg.AssetKey([OFFLINE, group.stored_name]),
                partition=key,
                description=f"Backfill {entry.backfill_id}: {entry.action.replace('_', ' ')} by {entry.person}. {entry.reason}",
                metadata={
                    **standing[key],
                    "backfill": entry.backfill_id,
                    "action": entry.action,
                    "by": entry.person,
                    "reason": entry.reason,
                },
            )


def _in_production(
    store: StoreResource, group: FeatureGroup, keys: Sequence[str]
) -> dict[str, Mapping[str, int | str | None]]:
    """By key what a window's rows in production are by now: rows, strategy and class; one with no rows has only their number."""
    cadence = group.cadence
    if isinstance(cadence, Windowless):
        return {key: {} for key in keys}
    ledger = store.offline().ledger(group.stored_name).in_production()
    entries = {row["window_start"]: LedgerEntry(**row) for row in ledger.to_dicts()}
    found = {key: entries.get(cadence.window_of(key).start) for key in keys}
    return {key: row_metadata(rows=0) if entry is None else _told(entry) for key, entry in found.items()}


def _told(entry: LedgerEntry) -> Mapping[str, int | str | None]:
    numbers = row_metadata(rows=entry.rows, history_rows=entry.history_rows, table_version=entry.table_version)
    return {**numbers, "strategy": entry.strategy, "correctness": CORRECTNESS_OF[entry.strategy]}
