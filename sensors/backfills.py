"""The sensor that admits backfills, and tells Dagster what people have done to them since.

The run coordinator holds every backfill in the queue; this sensor, which knows the code, lets it go.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import dagster as dg

from featurestore.declaration import Catalog
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import AuditEntry
from resources.run_tags import OFFLINE
from resources.store import StoreResource
from sensors.admissions import Admissions
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
        description="Assesses backfills that wait in the queue, and lets them go, holds them for approval, or cancels them.",
    )
    def admission(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
        book = store.settings().book(store.clock())
        settle_held(context, catalog, store, book)
        entries = book.entries_after(int(context.cursor or 0), actions=REPORTED_ACTIONS, limit=ENTRIES_A_TICK)
        cursor = str(entries[-1][0]) if entries else context.cursor
        return dg.SensorResult(asset_events=list(asset_events(catalog, entries)), cursor=cursor)

    return admission


def settle_held(
    context: dg.SensorEvaluationContext, catalog: Catalog, store: StoreResource, book: BackfillBook
) -> None:
    """Settle the backfills that wait, the oldest first, for at most `TICK_SECONDS`."""
    deadline = time.monotonic() + TICK_SECONDS
    if not (waiting := held_backfills(context.instance, catalog)):
        return
    admissions = Admissions(context.instance, catalog, store.offline(), book, context.log)

    def settle(held: HeldBackfill) -> None:
        if time.monotonic() < deadline:
            admissions.settle(held)

    # An error that nobody foresaw in one of them stops none of the others: it is raised after the last.
    with ExitStack() as each:
        for held in reversed(waiting):
            each.callback(settle, held)


def asset_events(catalog: Catalog, entries: Sequence[tuple[int, AuditEntry]]) -> Iterator[dg.AssetMaterialization]:
    """What a rollback or an override did, as materializations of its windows, so that online assets follow.

    An event is reported before the cursor is: after a crash between the two it is reported again, and moves nothing.
    """
    own = {group.stored_name for group in catalog.groups}
    for _, entry in entries:
        group = entry.details.get("group")
        for key in entry.details.get("keys", ()) if group in own else ():
            yield dg.AssetMaterialization(
                dg.AssetKey([OFFLINE, str(group)]),
                partition=key,
                description=f"Backfill {entry.backfill_id}: {entry.action.replace('_', ' ')} by {entry.person}. {entry.reason}",
                metadata={
                    "backfill": entry.backfill_id,
                    "action": entry.action,
                    "by": entry.person,
                    "reason": entry.reason,
                },
            )
