"""Whether a backfill may run, before it does: the rules of its groups, a trial of its transforms or their stand-ins, its estimate.

Everything is judged for the backfill as a whole, never for one of its runs; and what a group spent on other backfills
without approval in the last day counts with it, so that many small ones are no way around the limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from featurestore.backfill.estimates.estimate import estimate_windows
from featurestore.backfill.footprint import cadence_of
from featurestore.backfill.rights import SPENT, exceeds_limit
from featurestore.backfill.selection import first_backfillable
from featurestore.backfill.strategies.choice import check_strategy
from featurestore.backfill.trials import is_tried, trial
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.errors import FeatureStoreError, InvalidInput, PromotionRefused, StoreUnavailable
from featurestore.launch import Launch
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import BackfillRequest, RequestedWindows, State
from featurestore.offline.store import OfflineStore
from featurestore.quantities import count_text, usd_text
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot

SPENDING_PERIOD = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class AskedBackfill:
    """A backfill that somebody launched.

    Args:
        launch: Its id and how it is to be computed.
        requested_by: Who launched it; empty if that is not known.
        windows: By the stored name of each group, oldest first.
    """

    launch: Launch
    requested_by: str
    windows: Mapping[str, Sequence[TimeWindow]]


def assess(store: OfflineStore, catalog: Catalog, book: BackfillBook, asked: AskedBackfill) -> BackfillRequest:
    """Judge a backfill: `admitted`, `pending` if it is above a group's limit, or `refused` with the reason.

    Nothing is written, the book included.

    Raises:
        StoreUnavailable: a store cannot be reached; the backfill is not judged.
    """
    request = BackfillRequest(
        asked.launch.backfill_id,
        store.clock(),
        asked.requested_by,
        asked.launch.strategy,
        tuple(RequestedWindows(name, _keys(catalog, name, windows)) for name, windows in asked.windows.items()),
        "refused",
        accept_shift=asked.launch.accept_shift,
    )
    try:
        refuse_forbidden(store.registry, asked.windows)
        _refuse_failing_transforms(store, catalog, asked)
        parts = tuple(_estimated(store, catalog, book, request, part, asked) for part in request.groups)
    except StoreUnavailable:
        raise
    except FeatureStoreError as error:
        return replace(request, reason=str(error))
    state, reason = decide(store.registry, request.backfill_id, parts)
    return replace(request, groups=parts, state=state, reason=reason)


def decide(registry: RegistrySnapshot, backfill_id: str, parts: Sequence[RequestedWindows]) -> tuple[State, str]:
    """`pending` if any part exceeds the limit of its group, else `admitted`; and why.

    Args:
        parts: With their estimates, what each group spent without approval before among them.
    """
    above = [(part, registry.group(part.group)) for part in parts if exceeds_limit(part, registry.group(part.group))]
    if not above:
        return "admitted", ""
    return "pending", "; ".join(_above_text(part, group) for part, group in above) + (
        f". It waits for: featurestore backfill approve {backfill_id} --as WHO --reason WHY"
    )


def refuse_forbidden(registry: RegistrySnapshot, windows: Mapping[str, Sequence[TimeWindow]]) -> None:
    """Refuse windows that start before their group's `backfillable_from`.

    Raises:
        InvalidInput: there are some; the message says from when on windows may be backfilled.
    """
    for name, asked in windows.items():
        group = registry.group(name)
        early = [window for window in asked if window.start < first_backfillable(group)]
        if early:
            keys = [cadence_of(group).key_of(window) for window in early]
            span = keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"
            raise InvalidInput(
                f"Windows of group {name!r} before {group.backfillable_from} may not be backfilled (its backfillable_from); asked "
                f"for are {span}, {len(early)} of {len(asked)} windows. Begin at {group.backfillable_from}, or have its owner, "
                f"{group.owner}, declare another date and apply it."
            )


def _refuse_failing_transforms(store: OfflineStore, catalog: Catalog, asked: AskedBackfill) -> None:
    if not is_tried(asked.launch, sum(map(len, asked.windows.values()))):
        return
    for name, windows in asked.windows.items():
        check_strategy(catalog.group(name), asked.launch.strategy)
        tried = trial(store, catalog, catalog.group(name), windows, asked.launch)
        if not tried.passed:
            raise PromotionRefused(tried.reason)


def _estimated(
    store: OfflineStore,
    catalog: Catalog,
    book: BackfillBook,
    request: BackfillRequest,
    part: RequestedWindows,
    asked: AskedBackfill,
) -> RequestedWindows:
    windows = asked.windows[part.group]
    estimate = estimate_windows(store, catalog, catalog.group(part.group), windows, strategy=request.strategy)
    spent = book.spent_usd(part.group, request.requested_at - SPENDING_PERIOD)
    return replace(part, estimate={**estimate.as_dict(), SPENT: round(spent, 6)})


def _keys(catalog: Catalog, name: str, windows: Sequence[TimeWindow]) -> tuple[str, ...]:
    cadence = catalog.group(name).cadence
    return () if isinstance(cadence, Windowless) else tuple(cadence.key_of(window) for window in windows)


def _above_text(part: RequestedWindows, group: RegisteredGroup) -> str:
    spent = float(part.estimate.get(SPENT, 0.0))
    before = f" and {usd_text(spent)} USD admitted in the last 24 hours" if spent else ""
    return (
        f"Estimated {usd_text(part.cost_usd)} USD for {count_text(len(part.keys), 'window')}{before} are above the limit of "
        f"{usd_text(group.approval_limit_usd)} USD of {part.group!r}"
    )
