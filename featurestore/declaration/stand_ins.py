"""Checks of what a group declares to be backfilled from when its own inputs are gone: snapshots, and proxies of features."""

from featurestore.declaration.backfill import Proxy
from featurestore.declaration.dtypes import NUMERIC, as_dtype, dtype_name
from featurestore.declaration.feature import Feature
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.errors import DeclarationError, unknown_name

WIDER = {"int32": ("int64", "float64"), "float32": ("float64",)}
"""Casts that keep every value."""


def check_windowed(group: FeatureGroup) -> None:
    """Refuse stand-ins of a group whose rows are events.

    Raises:
        DeclarationError: the group emits events and declares snapshots or proxies.
    """
    if group.kind == "windowed" or not (group.backfill.snapshots or group.backfill.proxies):
        return
    raise DeclarationError(
        f"Group {group.stored_name!r} is {group.kind} and declares snapshots or proxies. They give one row per entity and window, "
        "and cannot tell at which instants events happened. Remove them."
    )


def check_snapshots(group: FeatureGroup, source: Source) -> None:
    """Refuse a source of snapshots that lacks times, a key or a feature, or has one in a dtype that would lose values.

    Raises:
        DeclarationError: the message names the column and what to do.
    """
    if source.is_timeless:
        raise DeclarationError(
            f"Group {group.stored_name!r} takes snapshots from {source.name!r}, which has no event_time: nobody can tell when they "
            "were taken. Declare the source's event_time."
        )
    columns = {name: dtype_name(dtype) for name, dtype in source.schema.items()}
    keys = {key: dtype_name(dtype) for key, dtype in group.entity.keys.items()}
    features = {feature.name: feature.dtype_name for feature in group.features}
    for name, wanted in {**keys, **features}.items():
        allowed = [wanted] if name in keys else [wanted, *(n for n, wider in WIDER.items() if wanted in wider)]
        if columns.get(name) not in allowed:
            found = f"is {columns[name]}" if name in columns else f"is missing; it has {list(columns)}"
            raise DeclarationError(
                f"Group {group.stored_name!r} takes snapshots from {source.name!r}, where column {name!r} {found}. Give the source a "
                f"column {name!r} of dtype {' or '.join(allowed)}."
            )


def check_proxy(group: FeatureGroup, feature: str, proxy: Proxy, upstream: FeatureGroup) -> None:
    """Refuse a proxy that is not a number of the same entity in another group.

    Raises:
        DeclarationError: the message says which rule is broken.
        UnknownName: the other group has no such feature.
    """
    mine = f"'{group.stored_name}:{feature}'"
    if upstream.stored_name == group.stored_name:
        raise DeclarationError(
            f"Feature {mine} has proxy {proxy.reference!r} of its own group, which is missing where it is. Name one of another group."
        )
    if (group.entity.name, dict(group.entity.keys)) != (upstream.entity.name, dict(upstream.entity.keys)):
        raise DeclarationError(
            f"Feature {mine} is of entity {_entity_text(group)}, its proxy {proxy.reference!r} of {_entity_text(upstream)}. "
            "Name a feature of the same entity."
        )
    stand_in = _feature(upstream, proxy.reference)
    own = next(item for item in group.features if item.name == feature)
    for reference, found in ((mine, own), (repr(proxy.reference), stand_in)):
        if found.dtype_name not in NUMERIC:
            raise DeclarationError(
                f"Feature {mine} has proxy {proxy.reference!r}, and {reference} is {found.dtype_name}. A line maps numbers to numbers "
                f"({', '.join(NUMERIC)}); remove the proxy."
            )


def _feature(group: FeatureGroup, reference: str) -> Feature:
    name = reference.partition(":")[2]
    for feature in group.features:
        if feature.name == name:
            return feature
    known = [group[feature.name] for feature in group.features]
    raise unknown_name("Feature", reference, known, f"A proxy may be what group {group.stored_name!r}")


def _entity_text(group: FeatureGroup) -> str:
    keys = ", ".join(f"{key} {dtype_name(as_dtype(dtype))}" for key, dtype in group.entity.keys.items())
    return f"{group.entity.name!r} ({keys})"
