"""`online status`: how each part's copy of each group stands beside its table. Nothing is moved; moving is `materialize`.

Keys are not counted: a server that holds many groups, and a table that bills each item read, would have to be read whole.
"""

from collections.abc import Sequence
from typing import Any

from featurestore.cli.tables import table_text
from featurestore.cli.times import instant_text
from featurestore.errors import FeatureStoreError, InvalidInput
from featurestore.online.tier import Tier, TierPart
from featurestore.registry.snapshot import RegisteredGroup
from featurestore.store import FeatureStore

HEADERS = ["group", "tier", "part", "version", "table version", "as of", "note"]


def tiers_of(store: FeatureStore, group: RegisteredGroup) -> list[str]:
    """The tiers that serve a group, the one that is read first in front; none if it is not served online.

    A group declared for a tier that this deployment lacks is shown as declared.
    """
    if not group.is_online:
        return []
    return sorted(group.tiers) if group.tiers else list(store.settings.tiers_of(group))


def list_copies(store: FeatureStore, names: Sequence[str]) -> list[dict[str, Any]]:
    """Every part of every group, by group; hot before warm.

    Args:
        names: Stored names; none: all groups that are served online.

    Raises:
        UnknownName: a group is not registered.
        InvalidInput: a group is not served online.
    """
    groups = [store.registry.group(name) for name in names] or [
        group for _, group in sorted(store.registry.groups.items()) if group.is_online
    ]
    if missing := [group.name for group in groups if not group.is_online]:
        raise InvalidInput(f"Groups {missing} are not served online. Declare online=Online(ttl=...) and apply.")
    return [copy for group in groups for copy in _copies(store, group)]


def _copies(store: FeatureStore, group: RegisteredGroup) -> list[dict[str, Any]]:
    newest = store.offline.table(group.name).newest()
    found: list[dict[str, Any]] = []
    for name in tiers_of(store, group):
        try:
            tier: Tier = store.online.hot if name == "hot" else store.online.warm
            found += [_copy(part, group, newest) for part in tier.parts()]
        except FeatureStoreError as error:
            found.append({**_nothing(group, name, newest), "trouble": str(error)})
    return found


def _nothing(group: RegisteredGroup, tier: str, newest: tuple[int, str] | None) -> dict[str, Any]:
    return {
        "group": group.name,
        "tier": tier,
        "part": None,
        "version": None,
        "as_of": None,
        "table_version": newest[0] if newest else None,
        "is_of_this_table": None,
        "fill": None,
        "trouble": "",
    }


def _copy(part: TierPart, group: RegisteredGroup, newest: tuple[int, str] | None) -> dict[str, Any]:
    """What a part records of a group; nothing is begun in it by looking."""
    copy = {**_nothing(group, part.tier, newest), "part": part.name.partition(" ")[2]}
    try:
        state, fill = part.state(group.name), part.fill_under_way(group.name)
    except FeatureStoreError as error:
        return {**copy, "trouble": str(error)}
    if fill is not None:
        copy["fill"] = {"version": fill.target.version, "slices_done": fill.done, "slices": fill.slices}
    if state is not None:
        is_same = newest is not None and state.table_id == newest[1]
        copy |= {"version": state.version, "as_of": state.as_of, "is_of_this_table": is_same}
    return copy


def copies_text(copies: Sequence[dict[str, Any]]) -> str:
    """A line a part."""
    if not copies:
        return "No group is served online. Declare online=Online(ttl=...) and apply."
    return table_text(HEADERS, [_line(copy) for copy in copies], right=["version", "table version"])


def _line(copy: dict[str, Any]) -> list[str]:
    return [
        copy["group"],
        copy["tier"],
        copy["part"] or "-",
        "-" if copy["version"] is None else str(copy["version"]),
        "-" if copy["table_version"] is None else str(copy["table_version"]),
        instant_text(copy["as_of"]),
        _note(copy),
    ]


def _note(copy: dict[str, Any]) -> str:
    fill = copy["fill"]
    if copy["trouble"]:
        return str(copy["trouble"])
    if fill is not None:
        return f"being built from version {fill['version']}: {fill['slices_done']} of {fill['slices']} slices done"
    if copy["version"] is None:
        return "no copy"
    if not copy["is_of_this_table"]:
        return "of another table"
    return "" if copy["version"] == copy["table_version"] else "behind"
