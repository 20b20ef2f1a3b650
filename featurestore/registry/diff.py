"""What differs between two registry snapshots, in words, and which of it stored rows cannot follow.

A change is incompatible if rows already stored would be read as something that they are not: another dtype, key, time
or field. Such a change needs a new group version, which is another stored name with rows of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal

from featurestore.declaration.feature import DEFAULT_DRIFT, Drift
from featurestore.errors import IncompatibleChange, InvalidInput
from featurestore.registry.snapshot import (
    RegisteredFeature,
    RegisteredGroup,
    RegisteredService,
    RegisteredSource,
    RegistrySnapshot,
)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    `text` says what changes. `group` is the stored name of the group that needs a new version, for a change that its
    stored rows cannot follow; None for every other change. `is_removal` says that a group, service or source is gone.
    """

    sign: Literal["+", "-", "~"]
    text: str
    group: RegisteredGroup | None = None
    is_removal: bool = False

    @property
    def is_compatible(self) -> bool:
        return self.group is None

    def __str__(self) -> str:
        return f"{self.sign} {self.text}"


def changes(previous: RegistrySnapshot | None, current: RegistrySnapshot) -> list[Change]:
    """Every difference between two snapshots, groups before services before sources, by name; empty if and only if they are equal.

    A group that returns is compared with what it was when it was last declared.
    """
    before = previous or RegistrySnapshot(groups={}, services={})
    names = sorted({*before.groups, *current.groups})
    groups = [change for name in names for change in _group_changes(name, before, current)]
    services = list(_service_changes(before.services, current.services))
    return groups + services + list(_source_changes(before.sources, current.sources))


def refuse_incompatible(found: Sequence[Change]) -> None:
    """Refuse changes that stored rows cannot follow.

    Raises:
        IncompatibleChange: there are some; the message lists every one and says which versions to raise.
    """
    refused = [change for change in found if change.group is not None]
    if not refused:
        return
    lines = "\n".join(str(change) for change in refused)
    groups = {change.group.name: change.group for change in refused if change.group is not None}
    remedies = "\n".join(_remedy(group) for group in groups.values())
    raise IncompatibleChange(f"Rows already stored cannot follow these changes:\n{lines}\n{remedies}")


def refuse_removals(found: Sequence[Change]) -> None:
    """Refuse a catalogue that leaves out groups, services or sources of the registry, which may be another team's.

    Raises:
        InvalidInput: it does; the message lists them all and says what to do, whether they are to go or not.
    """
    lines = "\n".join(str(change) for change in found if change.is_removal)
    if lines:
        raise InvalidInput(
            f"The catalogue leaves out what the registry holds, which would be gone for all readers:\n{lines}\n"
            "A store has one registry, of all its teams. If these are another team's, apply one catalogue that holds both: "
            "Catalog([*ours.sources, *theirs.sources], [*ours.groups, *theirs.groups], [*ours.services, *theirs.services]). "
            "If they are to go: featurestore apply --allow-removals."
        )


def _remedy(group: RegisteredGroup) -> str:
    base = group.name.removesuffix(f"_v{group.version}")
    version = group.version + 1
    return (
        f"Undo them, or declare {base} with version={version}: {base}_v{version} is filled by a backfill and "
        f"{group.name}, declared as it was, lives on beside it until its last reader has moved."
    )


def _group_changes(name: str, before: RegistrySnapshot, current: RegistrySnapshot) -> Iterator[Change]:
    old, new = before.groups.get(name), current.groups.get(name)
    if new is None:
        yield Change("-", f"group {name} (its rows and field numbers are kept)", is_removal=True)
        return
    if old is None:
        old = before.retired.get(name)
        returns = "returns, " if old else ""
        yield Change("+", f"group {name} ({returns}{new.kind}, {new.cadence}, features {list(new.feature_names)})")
    if old is not None:
        yield from _fixed_changes(old, new)
        yield from _free_changes(old, new)
        yield from _feature_changes(old, new)


def _fixed_changes(old: RegisteredGroup, new: RegisteredGroup) -> Iterator[Change]:
    """What decides the meaning of stored keys and times."""
    for name, show in FIXED.items():
        if (was := getattr(old, name)) != (now := getattr(new, name)):
            yield Change("~", f"{_words(name)} of {new.name}{_change(was, now, show)}", old)
    if old.schema_number > new.schema_number:
        yield Change("~", f"schema number of {new.name} {old.schema_number} -> {new.schema_number}", old)


def _free_changes(old: RegisteredGroup, new: RegisteredGroup) -> Iterator[Change]:
    for name, show in FREE.items():
        if (was := getattr(old, name)) != (now := getattr(new, name)):
            rebuilt = " (the online copy is rebuilt)" if name in REBUILDS and old.is_online and new.is_online else ""
            yield Change("~", f"{_words(name)} of {new.name}{_change(was, now, show)}{rebuilt}")


def _feature_changes(old: RegisteredGroup, new: RegisteredGroup) -> Iterator[Change]:
    was = {feature.name: feature for feature in old.features}
    now = {feature.name: feature for feature in new.features}
    for name, feature in was.items():
        if name not in now:
            yield Change("-", f"feature {old.name}:{name} (its column and its number {feature.number} are kept)")
    for name, feature in now.items():
        if name in was:
            yield from _kept_feature_changes(old, was[name], feature)
        else:
            yield from _new_feature_changes(old, feature)


def _new_feature_changes(old: RegisteredGroup, feature: RegisteredFeature) -> Iterator[Change]:
    yield Change("+", f"feature {old.name}:{feature.name} ({feature.dtype_name})")
    stored = dict(old.retired_columns).get(feature.name, feature.dtype_name)
    if stored != feature.dtype_name:
        text = f"dtype of {old.name}:{feature.name} {stored} -> {feature.dtype_name} (the table has its old column)"
        yield Change("~", text, old)
    owner = {f.number: f"feature {f.name}" for f in old.features}
    owner |= dict.fromkeys(old.retired_numbers, "a removed feature")
    if feature.number in owner:
        text = f"field number {feature.number} of {owner[feature.number]} is given to {old.name}:{feature.name}"
        yield Change("~", text, old)


def _kept_feature_changes(group: RegisteredGroup, old: RegisteredFeature, new: RegisteredFeature) -> Iterator[Change]:
    reference = f"{group.name}:{new.name}"
    for name in FEATURE_FIXED:
        if (was := getattr(old, name)) != (now := getattr(new, name)):
            yield Change("~", f"{FEATURE_FIXED[name]} of {reference}{_change(was, now)}", group)
    for name, show in FEATURE_FREE.items():
        if (was := getattr(old, name)) != (now := getattr(new, name)):
            is_shorter = name == "max_length" and (now or 0) < (was or 0)
            yield Change("~", f"{name} of {reference}{_change(was, now, show)}", group if is_shorter else None)


def _service_changes(
    before: Mapping[str, RegisteredService], current: Mapping[str, RegisteredService]
) -> Iterator[Change]:
    for name in sorted({*before, *current}):
        old, new = before.get(name), current.get(name)
        if new is None:
            yield Change("-", f"service {name}", is_removal=True)
        elif old is None:
            yield Change("+", f"service {name} (features {list(new.references)})")
        else:
            yield from _one_service_changes(old, new)


def _one_service_changes(old: RegisteredService, new: RegisteredService) -> Iterator[Change]:
    for name in ("references", "owner", "description"):
        if (was := getattr(old, name)) != (now := getattr(new, name)):
            label = "features" if name == "references" else name
            yield Change("~", f"{label} of service {new.name}{_change(was, now)}")


def _source_changes(
    before: Mapping[str, RegisteredSource], current: Mapping[str, RegisteredSource]
) -> Iterator[Change]:
    for name in sorted({*before, *current}):
        old, new = before.get(name), current.get(name)
        if new is None:
            yield Change("-", f"source {name} (its rows are kept)", is_removal=True)
        elif old is None:
            yield Change("+", f"source {name}")
        else:
            for field_name, show in SOURCE.items():
                if (was := getattr(old, field_name)) != (now := getattr(new, field_name)):
                    yield Change("~", f"{_words(field_name)} of source {name}{_change(was, now, show)}")


def _words(name: str) -> str:
    return name.removesuffix("_us")


def _plain(value: Any) -> str:
    if value is None or value == "":
        return "none"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _bounds(drift: Drift | None) -> str:
    if drift is None:
        return "none"
    told = {field.name: _plain(getattr(drift, field.name)) for field in fields(drift)}
    usual = {name: getattr(DEFAULT_DRIFT, name) for name in ("reference", "policy")}
    return ", ".join(f"{name} {value}" for name, value in told.items() if usual.get(name) != value)


def _change(was: Any, now: Any, show: Callable[[Any], str] = _plain) -> str:
    """Old and new value; of texts of several lines only that they differ."""
    shown = f"{show(was)} -> {show(now)}"
    return f" {shown}" if "\n" not in shown else " is reworded"


def _duration(microseconds: int | None) -> str:
    """A duration in the largest unit that divides it: 3 days, 90 minutes."""
    if microseconds is None:
        return "none"
    duration = timedelta(microseconds=microseconds)
    for unit, length in UNITS.items():
        if duration and not duration % length:
            count = duration // length
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return str(duration)


UNITS = {"day": timedelta(days=1), "hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
FIXED: dict[str, Callable[[Any], str]] = {
    "kind": _plain,
    "cadence": _plain,
    "start": _plain,
    "entity": _plain,
    "keys": _plain,
    "delay_us": _duration,
    "publish_us": _duration,
    "first_schema": _plain,
}
FREE: dict[str, Callable[[Any], str]] = {
    "inputs": _plain,
    "lookback_us": _duration,
    "tier": _plain,
    "freshness_us": _duration,
    "refresh_us": _duration,
    "alerts": _plain,
    "arrival_us": _duration,
    "max_age_us": _duration,
    "is_online": _plain,
    "ttl_us": _duration,
    "min_coverage": _plain,
    "population": _plain,
    "owner": _plain,
    "description": _plain,
    "backfillable_from": _plain,
    "approval_limit_usd": _plain,
    "approvers": _plain,
    "tiers": _plain,
}
SOURCE: dict[str, Callable[[Any], str]] = {
    "event_time": _plain,
    "freshness_us": _duration,
    "typical_delay_us": _duration,
    "owner": _plain,
}
REBUILDS = frozenset(["max_age_us", "ttl_us"])
FEATURE_FIXED = {"dtype_name": "dtype", "number": "field number", "since": "first schema number"}
FEATURE_FREE: dict[str, Callable[[Any], str]] = {
    "description": _plain,
    "unit": _plain,
    "ge": _plain,
    "le": _plain,
    "max_null_fraction": _plain,
    "max_length": _plain,
    "drift": _bounds,
}
