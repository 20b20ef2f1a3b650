"""`describe`: the whole contract of a group or a service, with what the stores hold of it now."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from featurestore.cli.copies import tiers_of
from featurestore.cli.standing import table_standing, window_standing
from featurestore.cli.tables import pairs_text, table_text
from featurestore.cli.times import age_text, duration_of, duration_text, instant_text
from featurestore.correctness import window_counts
from featurestore.errors import unknown_name
from featurestore.quantities import count_text
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup, RegisteredService, RegistrySnapshot
from featurestore.store import FeatureStore

FEATURE_HEADERS = ["feature", "number", "type", "unit", "bounds", "nulls", "since", "description"]
INPUT_HEADERS = ["feature", "type", "unit", "key", "online", "description"]


def describe(store: FeatureStore, name: str) -> tuple[dict[str, Any], str]:
    """The contract of a group, or of a service if no group has the name: as a document, and as text.

    Raises:
        UnknownName: there is neither.
    """
    registry = store.registry
    if name in registry.services and name not in registry.groups:
        return _service_document(registry, registry.services[name]), _service_text(registry, registry.services[name])
    if "@v" not in name and name not in registry.groups:
        raise unknown_name("Group or service", name, [*registry.groups, *registry.services], "The registry")
    group = registry.group(name)
    document = _group_document(store, group)
    return document, _group_text(group, document, store.clock())


def _group_document(store: FeatureStore, group: RegisteredGroup) -> dict[str, Any]:
    return {
        "group": asdict(group),
        "tiers": tiers_of(store, group),
        "services": _readers(store.registry, group),
        "table": asdict(table_standing(store.offline.table(group.name))),
        "windows": _window_document(store, group) if group.has_windows else None,
    }


def _window_document(store: FeatureStore, group: RegisteredGroup) -> dict[str, Any]:
    ledger = store.offline.ledger(group.name)
    standing = window_standing(ledger, store.offline.staging(group.name))
    return {**standing, "correctness": window_counts(ledger)}


def _readers(registry: RegistrySnapshot, group: RegisteredGroup) -> list[str]:
    """The services that read a group."""
    return [
        name
        for name, service in sorted(registry.services.items())
        if any(ref.rpartition(":")[0] == group.name for ref in service.references)
    ]


def _group_text(group: RegisteredGroup, document: Mapping[str, Any], now: datetime) -> str:
    contract = pairs_text(
        _contract(group)
        | {"Online": _online_text(group, document["tiers"])}
        | {"Read by": ", ".join(document["services"])}
    )
    features = table_text(
        FEATURE_HEADERS, [_feature_line(feature) for feature in group.features], right=["number", "since"]
    )
    held = pairs_text(_held(document, now))
    return "\n\n".join([f"{group.name}: {group.description}", contract, features, held])


def _contract(group: RegisteredGroup) -> dict[str, str]:
    retired = ", ".join(f"{name} ({dtype})" for name, dtype in group.retired_columns)
    return {
        "Entity": f"{group.entity} ({', '.join(f'{key} {dtype}' for key, dtype in group.keys)})",
        "Kind": _kind_text(group),
        "Inputs": ", ".join(group.inputs),
        "Lookback": duration_text(duration_of(group.lookback_us)) if group.has_windows else "",
        "Cut-off": _after(group.delay_us, "the window's end") if group.has_windows else "",
        "Horizon": _after(group.publish_us, "the cut-off") if group.has_windows else "",
        "Freshness": duration_text(duration_of(group.freshness_us)),
        "Max age": duration_text(group.max_age),
        "Online": "",
        "Coverage": _coverage_text(group),
        "Owner": group.owner,
        "Version": f"{group.version}, schema number {group.schema_number}",
        "Removed": retired,
    }


def _kind_text(group: RegisteredGroup) -> str:
    if group.kind == "pushed":
        return "pushed, each row known from its push on"
    if group.kind == "static":
        return f"static, first load valid from {_start_text(group)}"
    return f"{group.kind}, {group.cadence} since {_start_text(group)}"


def _start_text(group: RegisteredGroup) -> str:
    return instant_text(datetime.fromisoformat(group.start))


def _after(microseconds: int, what: str) -> str:
    return f"{duration_text(duration_of(microseconds))} after {what}" if microseconds else f"at {what}"


def _coverage_text(group: RegisteredGroup) -> str:
    if group.min_coverage is None:
        return ""
    before = "the last load" if group.kind == "static" else group.population or "the windows before"
    return f"at least {100 * group.min_coverage:.6g}% of the entities of {before}"


def _online_text(group: RegisteredGroup, tiers: Sequence[str]) -> str:
    if not tiers:
        return "no"
    where = " and ".join(tiers)
    return f"{where}, never expires" if group.ttl is None else f"{where}, expires after {duration_text(group.ttl)}"


def _feature_line(feature: RegisteredFeature) -> list[str]:
    nulls = {0.0: "none", 1.0: "any"}.get(feature.max_null_fraction, f"up to {feature.max_null_fraction:.4g}")
    return [
        feature.name,
        str(feature.number),
        _type_text(feature),
        feature.unit,
        _bounds_text(feature),
        nulls,
        str(feature.since),
        feature.description,
    ]


def _type_text(feature: RegisteredFeature) -> str:
    return feature.dtype_name if feature.max_length is None else f"{feature.dtype_name} up to {feature.max_length}"


def _bounds_text(feature: RegisteredFeature) -> str:
    if feature.ge is not None and feature.le is not None:
        return f"{feature.ge:.10g} to {feature.le:.10g}"
    return (
        f">= {feature.ge:.10g}" if feature.ge is not None else f"<= {feature.le:.10g}" if feature.le is not None else ""
    )


def _held(document: Mapping[str, Any], now: datetime) -> dict[str, str]:
    table, windows = document["table"], document["windows"]
    if table["table_version"] is None:
        held = {"Table": "none yet: no rows were promoted or pushed"}
    else:
        newest = table["newest_event_time"]
        held = {
            "Table": f"version {table['table_version']}, {count_text(table['rows'], 'row')}",
            "Newest": f"{instant_text(newest)}, {age_text(now - newest)} ago" if newest else "",
        }
    return held | ({} if windows is None else _windows(windows))


def _windows(windows: Mapping[str, Any]) -> dict[str, str]:
    span = f", {instant_text(windows['first'])} to {instant_text(windows['last'])}" if windows["promoted"] else ""
    held = {
        "Windows": f"{windows['promoted']:,} promoted{span}",
        "Correctness": ", ".join(f"{count:,} {name}" for name, count in windows["correctness"].items()),
        "Quarantine": count_text(len(windows["quarantined"]), "window") if windows["quarantined"] else "empty",
    }
    return held | {f"  {w['window']}": "; ".join(w["findings"]) or "no report" for w in windows["quarantined"]}


def _service_document(registry: RegistrySnapshot, service: RegisteredService) -> dict[str, Any]:
    return {
        "service": asdict(service),
        "keys": {key: dtype for group in _groups(registry, service) for key, dtype in group.keys},
    }


def _service_text(registry: RegistrySnapshot, service: RegisteredService) -> str:
    keys = {key: dtype for group in _groups(registry, service) for key, dtype in group.keys}
    contract = {
        "Keys": ", ".join(f"{key} {dtype}" for key, dtype in keys.items()),
        "Features": f"{len(service.references)}, of {count_text(len(_groups(registry, service)), 'group')}",
        "Owner": service.owner,
    }
    lines = [_input_line(registry, reference) for reference in service.references]
    return "\n\n".join(
        [
            f"{service.name}: {service.description or 'a feature service'}",
            pairs_text(contract),
            table_text(INPUT_HEADERS, lines),
        ]
    )


def _groups(registry: RegistrySnapshot, service: RegisteredService) -> list[RegisteredGroup]:
    return [
        registry.group(name) for name in dict.fromkeys(reference.rpartition(":")[0] for reference in service.references)
    ]


def _input_line(registry: RegistrySnapshot, reference: str) -> list[str]:
    name, _, feature_name = reference.rpartition(":")
    group = registry.group(name)
    feature = group.feature(feature_name)
    return [
        reference,
        _type_text(feature),
        feature.unit,
        ", ".join(group.key_names),
        "yes" if group.is_online else "no",
        feature.description,
    ]
