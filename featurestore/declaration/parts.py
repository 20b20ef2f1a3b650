"""The types of the parts that the declaration of a group is made of. Not here: whether they fit each other (`consistency.py`)."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from featurestore.declaration.backfill import Backfill
from featurestore.declaration.feature import OWNER, Entity, Feature
from featurestore.declaration.online import Online
from featurestore.declaration.tier import FreshnessTier, check_alerts
from featurestore.declaration.types import (
    require,
    require_duration,
    require_items,
    require_mapping,
    require_number,
    shown,
)
from featurestore.declaration.windows import Daily, Hourly, Pushed, Static
from featurestore.errors import DeclarationError

CADENCE = (
    "cadence=Daily(start=date(2025, 1, 1)), Hourly(start=...) or Static(valid_from=datetime(2013, 1, 1, tzinfo=UTC))"
)
REQUIRED: dict[str, tuple[type | tuple[type, ...], str]] = {
    "entity": (Entity, "entity=Entity('carrier')"),
    "owner": (str, OWNER),
    "version": (int, "a whole number, version=2"),
}
OPTIONAL: dict[str, tuple[type | tuple[type, ...], str]] = {
    "cadence": ((Daily, Hourly, Static, Pushed), CADENCE),
    "tier": (FreshnessTier, "one of HOURLY, DAILY, ... of featurestore.declaration, tier=DAILY"),
    "start": (date, "start=date(2025, 1, 1)"),
    "online": (Online, "online=Online(ttl=timedelta(days=7)), or leave it out for a group that is not served"),
    "population": (str, "the name of an input, population='plane_profile'"),
    "backfill": (Backfill, "backfill=Backfill(...)"),
}
DURATIONS = ("lookback", "publish", "freshness", "refresh", "max_age")
"""Each may be left out."""


def check_parts(what: str, parts: Mapping[str, Any]) -> None:
    """Refuse a part of a group's declaration that is of another type.

    Args:
        what: The group, such as "Group 'carrier_delay_daily'".
        parts: What was declared, by the names of the parameters; those that are not there are not looked at.

    Raises:
        DeclarationError: the message names the group and the part, and says what to write.
    """
    for name, (kind, write) in REQUIRED.items():
        require(f"{what}: {name}", parts[name], kind, write)
    require_items(
        f"{what}: features", parts["features"], Feature, "a list, features=[Feature('mean', pl.Float64, '...')]"
    )
    for name, (kind, write) in OPTIONAL.items():
        if parts.get(name) is not None:
            require(f"{what}: {name}", parts[name], kind, write)
    if isinstance(parts.get("start"), datetime):
        raise DeclarationError(f"{what}: start is {shown(parts['start'])}, an instant. Write start=date(2025, 1, 1).")
    if "description" in parts:
        require(f"{what}: description", parts["description"], str, "one line that says what its rows are")
    if "delay" in parts:
        require_duration(f"{what}: delay", parts["delay"], "delay=timedelta(hours=2)")
    for name in DURATIONS:
        if parts.get(name) is not None:
            require_duration(f"{what}: {name}", parts[name], f"{name}=timedelta(days=7)")
    if parts.get("alerts") is not None:
        check_alerts(what, parts["alerts"])
    if parts.get("min_coverage") is not None:
        require_number(f"{what}: min_coverage", parts["min_coverage"], "a share from 0 to 1, min_coverage=0.9")
    if parts.get("tags") is not None:
        require_mapping(f"{what}: tags", parts["tags"], str, "tags={'domain': 'operations'}")
