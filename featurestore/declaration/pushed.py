"""`pushed_group`: a group with a contract and no transform. Its rows are what callers push.

Not here: how rows are pushed (`featurestore.push`), or groups that are computed (`group.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from inspect import cleandoc

from featurestore.declaration.backfill import Backfill
from featurestore.declaration.consistency import check_group
from featurestore.declaration.feature import Entity, Feature, check_name
from featurestore.declaration.group import FeatureGroup, Frame
from featurestore.declaration.online import Online
from featurestore.declaration.parts import check_parts
from featurestore.declaration.tier import Alerts, FreshnessTier, service_level
from featurestore.declaration.windows import Pushed
from featurestore.errors import InvalidInput


def pushed_group(
    *,
    name: str,
    entity: Entity,
    features: Sequence[Feature],
    owner: str,
    description: str,
    online: Online | None = None,
    max_age: timedelta | None = None,
    tier: FreshnessTier | None = None,
    freshness: timedelta | None = None,
    alerts: Alerts | None = None,
    version: int = 1,
    tags: Mapping[str, str] | None = None,
) -> FeatureGroup:
    """Declare a group whose rows arrive by push: `FeatureStore.push`, or the feature server's `/push`.

    A row is known from its push on; one that is true of the next five minutes, from its event time on. Reads, joins and the online
    copy treat its rows like those of any group; there is nothing to compute, so there are no windows, backfills or quarantine.

    Args:
        name: The group's name, as a function's would be.
        entity: What the rows are about.
        features: At least one; bounds, null fractions and lengths hold for every push by itself.
        owner: 'team:...' or an e-mail address.
        description: Its first line is its entry in the catalogue.
        online: `Online(ttl=...)` to serve the group online; from the hot tier, unless it names tiers.
        max_age: Values older than this are not served, offline or online; default the online ttl.
        tier: `REAL_TIME` or `NEAR_REAL_TIME` (the default): how late its rows may arrive, and whom a breach reaches.
        freshness: The service level for the age of the newest push; None: it may be silent for as long as a source that declares
            nothing, a day.
        alerts: Whom a breach reaches: 'page', 'ticket' or 'off'.
        version: Raised for an incompatible change; both versions live until the old one is retired.
        tags: Shown in the catalogue and in Dagster.

    Raises:
        DeclarationError: the declaration contradicts itself; the message says how to mend it.

    >>> import polars as pl
    >>> clicks = pushed_group(
    ...     name="rider_click", entity=Entity("rider"), features=[Feature("page", pl.String, "Last page seen")],
    ...     online=Online(ttl=timedelta(days=1)), owner="team:app", description="What a rider looked at last.",
    ... )
    >>> clicks.kind, clicks.max_age
    ('pushed', datetime.timedelta(days=1))
    """
    parts = dict(locals())
    check_name("Group", name)
    check_parts(f"Group {name!r}", parts)
    group = FeatureGroup(
        name=name,
        description=cleandoc(description),
        transform=_no_transform,
        inputs=(),
        entity=entity,
        features=tuple(features),
        cadence=Pushed(),
        emits="events",
        lookback=timedelta(0),
        delay=timedelta(0),
        publish=timedelta(0),
        level=service_level(Pushed(), tier, freshness, None, alerts),
        max_age=online.ttl if max_age is None and online is not None else max_age,
        online=_hot(online),
        owner=owner,
        version=version,
        min_coverage=None,
        backfill=Backfill(),
        tags=dict(tags or {}),
    )
    check_group(group)
    return group


def _hot(online: Online | None) -> Online | None:
    """A pushed value is wanted at once: the hot tier, where the declaration names none."""
    return replace(online, tiers=("hot",)) if online is not None and online.tiers is None else online


def _no_transform() -> Frame:
    raise InvalidInput("A pushed group has no transform. Its rows arrive by push.")
