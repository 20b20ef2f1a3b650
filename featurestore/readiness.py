"""Which windows can be computed now: those past their cut-off, with the upstream windows that they read in production."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal

from featurestore.backfill.strategies.incremental import STAND_INS
from featurestore.compute.inputs import windows_read
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.launch import Launch
from featurestore.offline.store import OfflineStore

Hindrance = tuple[Literal["not_due", "blocked"], str]


def hindrances(
    store: OfflineStore,
    catalog: Catalog,
    group: FeatureGroup,
    windows: Sequence[TimeWindow],
    launch: Launch,
    now: datetime,
) -> dict[TimeWindow, Hindrance]:
    """The windows that cannot be computed now, each with its status and the reason.

    A window waits for the upstream windows that it reads, unless launched without their group; one that a stand-in
    fills reads none.
    """
    upstreams = {} if launch.strategy in STAND_INS else _awaited(catalog, group, launch.without)
    promoted = {name: store.ledger(name).promoted() for name in upstreams}
    found: dict[TimeWindow, Hindrance] = {}
    for window in windows:
        if group.cut_off(window) > now:
            reason = f"due at its cut-off, {group.cut_off(window).isoformat()}; now is {now.isoformat()}"
            found[window] = ("not_due", reason)
        elif missing := _missing(group, window, upstreams, promoted):
            found[window] = ("blocked", f"upstream windows are not promoted: {missing}")
    return found


def _awaited(catalog: Catalog, group: FeatureGroup, without: Collection[str]) -> dict[str, FeatureGroup]:
    """The windowed and event groups that a group reads, and waits for."""
    inputs = catalog.inputs_of(group)
    groups = {name: item for name, item in inputs.items() if isinstance(item, FeatureGroup)}
    return {
        name: item for name, item in groups.items() if not isinstance(item.cadence, Windowless) and name not in without
    }


def _missing(
    group: FeatureGroup,
    window: TimeWindow,
    upstreams: Mapping[str, FeatureGroup],
    promoted: Mapping[str, Collection[datetime]],
) -> list[str]:
    missing = []
    for name, upstream in upstreams.items():
        if not isinstance(upstream.cadence, Windowless):
            read = windows_read(group, name, upstream, window)
            missing += [f"{name} {upstream.cadence.key_of(w)}" for w in read if w.start not in promoted[name]]
    return missing
