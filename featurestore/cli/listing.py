"""`groups`: every feature group on a line, and the services that read them."""

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from featurestore.cli.copies import tiers_of
from featurestore.cli.standing import table_standing
from featurestore.cli.tables import table_text
from featurestore.cli.times import age_text, duration_of, duration_text, instant_text
from featurestore.registry.snapshot import RegisteredGroup, RegisteredService, RegistrySnapshot
from featurestore.store import FeatureStore

GROUP_HEADERS = [
    "group",
    "entity",
    "cadence",
    "features",
    "online",
    "freshness",
    "owner",
    "table version",
    "newest event time",
    "age",
]
WINDOW = {"hourly": timedelta(hours=1), "daily": timedelta(days=1)}
SERVICE_HEADERS = ["service", "features", "groups", "owner", "description"]


def list_groups(store: FeatureStore) -> list[dict[str, Any]]:
    """Every registered group with what its table holds, by name."""
    now = store.clock()
    groups = [_group(store, group) for _, group in sorted(store.registry.groups.items())]
    return [
        {**group, "age_seconds": now - group["newest_event_time"] if group["newest_event_time"] else None}
        for group in groups
    ]


def _group(store: FeatureStore, group: RegisteredGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "entity": group.entity,
        "cadence": group.cadence,
        "features": len(group.features),
        "is_online": group.is_online,
        "tiers": tiers_of(store, group),
        "freshness_seconds": duration_of(group.freshness_us),
        "owner": group.owner,
        **asdict(table_standing(store.offline.table(group.name))),
    }


def list_services(registry: RegistrySnapshot) -> list[dict[str, Any]]:
    """Every registered service, by name."""
    return [_service(service) for _, service in sorted(registry.services.items())]


def _service(service: RegisteredService) -> dict[str, Any]:
    groups = list(dict.fromkeys(reference.rpartition(":")[0] for reference in service.references))
    return {
        "name": service.name,
        "features": list(service.references),
        "groups": groups,
        "owner": service.owner,
        "description": service.description,
    }


def listing_text(found: dict[str, Any]) -> str:
    """The table of groups and, if they are listed, that of services."""
    parts = [groups_text(found["groups"])]
    return "\n\n".join([*parts, services_text(found["services"])] if "services" in found else parts)


def groups_text(groups: list[dict[str, Any]]) -> str:
    """A line a group; marked is an age that no group within its freshness reaches."""
    if not groups:
        return "No groups are declared."
    return table_text(GROUP_HEADERS, [_group_line(group) for group in groups], right=["features", "table version"])


def _group_line(group: dict[str, Any]) -> list[str]:
    return [
        group["name"],
        group["entity"],
        group["cadence"],
        str(group["features"]),
        ", ".join(group["tiers"]) or "no",
        duration_text(group["freshness_seconds"]) if group["freshness_seconds"] else "-",
        group["owner"],
        "-" if group["table_version"] is None else str(group["table_version"]),
        instant_text(group["newest_event_time"]),
        _age_text(group),
    ]


def _age_text(group: dict[str, Any]) -> str:
    age, freshness = group["age_seconds"], group["freshness_seconds"]
    if age is None:
        return "-"
    # The newest window of a healthy group ended up to one window before its freshness.
    is_stale = freshness is not None and age > freshness + WINDOW.get(group["cadence"], timedelta(0))
    return f"{age_text(age)}, stale" if is_stale else age_text(age)


def services_text(services: list[dict[str, Any]]) -> str:
    """A line a service."""
    if not services:
        return "No services are declared."
    lines = [
        [s["name"], str(len(s["features"])), str(len(s["groups"])), s["owner"], s["description"]] for s in services
    ]
    return table_text(SERVICE_HEADERS, lines, right=["features", "groups"])
