"""Declarations -> registry snapshot: field numbers, schema numbers, and what is remembered of things no longer declared.

A pure function of the catalogue and the snapshot before it. What a change means to stored rows is judged in `diff.py`.
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from featurestore.declaration.catalog import Catalog
from featurestore.declaration.dtypes import dtype_name
from featurestore.declaration.feature import Feature
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.service import FeatureService
from featurestore.declaration.source import Source
from featurestore.declaration.tier import usual_refresh
from featurestore.declaration.windows import Cadence, Hourly, Pushed, Static
from featurestore.errors import DeclarationError, IncompatibleChange
from featurestore.registry.snapshot import (
    RegisteredFeature,
    RegisteredGroup,
    RegisteredService,
    RegisteredSource,
    RegistrySnapshot,
)

FIRST_NUMBER = 32
LAST_NUMBER = 2046
MICROSECOND = timedelta(microseconds=1)


def compile_snapshot(catalog: Catalog, previous: RegistrySnapshot | None) -> RegistrySnapshot:
    """The snapshot of a catalogue that follows another one.

    A feature keeps its number and `since` as long as it is declared; a new one, or one that was away, gets the next
    number of its group and the group's new schema number. Numbers are never used twice, also not after a group was away.
    Features stand in the order of their numbers, so that reordering a declaration changes nothing.

    Args:
        catalog: Every declaration of the store.
        previous: The snapshot that this one is to follow; None for the first.

    Raises:
        DeclarationError: a group declares more features than there are field numbers.
        IncompatibleChange: a group's field numbers are used up.
    """
    known = {} if previous is None else {**previous.retired, **previous.groups}
    groups = {group.stored_name: _register(group, known.get(group.stored_name)) for group in catalog.groups}
    return RegistrySnapshot(
        groups=groups,
        services={service.name: _service(service) for service in catalog.services},
        retired={name: group for name, group in known.items() if name not in groups},
        sources={source.name: _source(source) for source in catalog.sources},
    )


def _register(group: FeatureGroup, known: RegisteredGroup | None) -> RegisteredGroup:
    features = _features(group, known)
    ttl, first = group.online.ttl if group.online else None, group.backfill.backfillable_from
    return RegisteredGroup(
        name=group.stored_name,
        version=group.version,
        kind=group.kind,
        cadence=_cadence_name(group.cadence),
        start=_start(group.cadence),
        entity=group.entity.name,
        keys=tuple((key, dtype_name(dtype)) for key, dtype in group.entity.keys.items()),
        features=features,
        schema_number=_schema_number(group, known),
        retired_numbers=_retired_numbers(features, known),
        retired_columns=_retired_columns(features, known),
        inputs=group.inputs,
        delay_us=group.delay // MICROSECOND,
        publish_us=group.publish // MICROSECOND,
        lookback_us=group.lookback // MICROSECOND,
        freshness_us=_microseconds(group.freshness),
        max_age_us=_microseconds(group.max_age),
        is_online=group.online is not None,
        ttl_us=_microseconds(ttl),
        min_coverage=_number(group.min_coverage),
        owner=group.owner,
        description=group.description,
        backfillable_from=None if first is None else first.isoformat(),
        approval_limit_usd=float(group.backfill.approval_limit_usd),
        approvers=group.backfill.approvers,
        tiers=tuple(sorted(group.online.tiers or ())) if group.online else (),
        tier=group.level.tier,
        refresh_us=_declared_refresh(group),
        alerts=group.level.alerts,
        arrival_us=_microseconds(group.level.arrival),
        population=group.population,
        first_schema=_digest_of(features) if known is None else known.first_schema,
    )


def _digest_of(features: Sequence[RegisteredFeature]) -> str:
    text = ",".join(f"{feature.number}:{feature.name}:{feature.dtype_name}" for feature in features)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _features(group: FeatureGroup, known: RegisteredGroup | None) -> tuple[RegisteredFeature, ...]:
    declared = {feature.name: feature for feature in group.features}
    kept = [f for f in known.features if f.name in declared] if known else []
    stayed = {feature.name for feature in kept}
    new = [feature for feature in group.features if feature.name not in stayed]
    since = _schema_number(group, known)
    return (
        *(_feature(declared[old.name], old.number, old.since) for old in kept),
        *(_feature(f, number, since) for f, number in zip(new, _new_numbers(group, known, len(new)), strict=True)),
    )


def _feature(feature: Feature, number: int, since: int) -> RegisteredFeature:
    return RegisteredFeature(
        name=feature.name,
        dtype_name=feature.dtype_name,
        number=number,
        since=since,
        description=feature.description,
        unit=feature.unit,
        ge=_number(feature.ge),
        le=_number(feature.le),
        max_null_fraction=float(feature.max_null_fraction),
        max_length=feature.max_length,
        drift=feature.drift,
    )


def _schema_number(group: FeatureGroup, known: RegisteredGroup | None) -> int:
    if known is None:
        return 1
    is_changed = {feature.name for feature in group.features} != set(known.feature_names)
    return known.schema_number + is_changed


def _new_numbers(group: FeatureGroup, known: RegisteredGroup | None, count: int) -> range:
    used = [*known.retired_numbers, *(feature.number for feature in known.features)] if known else []
    first = max(used, default=FIRST_NUMBER - 1) + 1
    room = LAST_NUMBER + 1 - first
    if count > room and known is None:
        raise DeclarationError(
            f"Group {group.stored_name!r} declares {count} features; a group holds {room}. Split it, or use vectors."
        )
    if count > room:
        raise IncompatibleChange(
            f"Group {group.stored_name!r} adds {count} features, and {room} field numbers are left of those that a group "
            f"ever has. Declare version={group.version + 1}: it starts with all numbers, and the old one lives on beside it."
        )
    return range(first, first + count)


def _retired_numbers(features: Sequence[RegisteredFeature], known: RegisteredGroup | None) -> tuple[int, ...]:
    used = {*known.retired_numbers, *(feature.number for feature in known.features)} if known else set[int]()
    return tuple(sorted(used - {feature.number for feature in features}))


def _retired_columns(
    features: Sequence[RegisteredFeature], known: RegisteredGroup | None
) -> tuple[tuple[str, str], ...]:
    seen = {**dict(known.retired_columns), **{f.name: f.dtype_name for f in known.features}} if known else {}
    declared = {feature.name for feature in features}
    return tuple(sorted((name, dtype) for name, dtype in seen.items() if name not in declared))


def _service(service: FeatureService) -> RegisteredService:
    return RegisteredService(service.name, tuple(service.references), service.owner, service.description)


def _declared_refresh(group: FeatureGroup) -> int | None:
    """None where it is what follows from the SLO, delay and publish anyway."""
    slo, refresh = group.level.slo, group.level.refresh
    if slo is None or refresh is None or refresh == usual_refresh(slo - group.delay - group.publish):
        return None
    return _microseconds(refresh)


def _source(source: Source) -> RegisteredSource:
    usually_late = _microseconds(source.typical_delay) or 0
    return RegisteredSource(
        source.name, source.event_time or "", _microseconds(source.freshness), usually_late, source.owner
    )


def _cadence_name(cadence: Cadence) -> Literal["hourly", "daily", "static", "pushed"]:
    if isinstance(cadence, Static):
        return "static"
    if isinstance(cadence, Pushed):
        return "pushed"
    return "hourly" if isinstance(cadence, Hourly) else "daily"


def _start(cadence: Cadence) -> str:
    """Since when there are windows, or the first load is valid; empty for a pushed group, which begins with its first push."""
    if isinstance(cadence, Pushed):
        return ""
    return (cadence.valid_from if isinstance(cadence, Static) else cadence.origin).isoformat()


def _microseconds(duration: timedelta | None) -> int | None:
    return None if duration is None else duration // MICROSECOND


def _number(value: float | None) -> float | None:
    """One form for 1 and 1.0, which are equal and print differently."""
    return None if value is None else float(value)
