"""What the declaration of a group may not say: it must not contradict itself. Not here: what only shows beside others (`catalog.py`)."""

import re
from datetime import timedelta

from featurestore.declaration.backfill import Backfill
from featurestore.declaration.feature import RESERVED, check_name, check_owner
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.tier import check_level
from featurestore.declaration.windows import Static, Windowless
from featurestore.errors import DeclarationError, InvalidInput


def check_group(group: FeatureGroup) -> None:
    """Refuse a declaration that contradicts itself.

    Raises:
        DeclarationError: the message says how to mend it.
    """
    check_name("Group", group.name)
    if re.search(r"_v\d+$", group.name):
        raise DeclarationError(f"Group name {group.name!r} ends like a version. Drop the suffix and declare version=n.")
    if group.version < 1:
        raise DeclarationError(
            f"Group {group.name!r}: version is {group.version}. Versions start at 1; write version=1 or leave it out."
        )
    if not group.description:
        raise DeclarationError(
            f"Group {group.name!r} has no docstring. Write one under its def: its first line is its entry in the catalogue."
        )
    check_owner(f"Group {group.name!r}", group.owner)
    if group.min_coverage is not None and not 0 <= group.min_coverage <= 1:
        raise DeclarationError(
            f"Group {group.name!r}: min_coverage is {group.min_coverage}. It is a share from 0 to 1."
        )
    _check_population(group)
    if group.emits not in ("windows", "events"):
        raise DeclarationError(f"Group {group.name!r}: emits is {group.emits!r}. It is 'windows' or 'events'.")
    if isinstance(group.cadence, Static) and group.emits == "events":
        raise DeclarationError(
            f"Group {group.name!r} is static and emits events. Give it a cadence, e.g. Hourly(start=...)."
        )
    _check_columns(group)
    _check_durations(group)
    if not isinstance(group.cadence, Windowless):
        check_level(f"Group {group.name!r}", group.level, group.delay, group.publish)
    _check_backfill(group)


def _check_columns(group: FeatureGroup) -> None:
    if not group.features:
        raise DeclarationError(
            f"Group {group.name!r} declares no features. Name each column that it gives: features=[Feature(...)]."
        )
    names = [feature.name for feature in group.features]
    for name in names:
        if names.count(name) > 1 or name in group.entity.keys:
            raise DeclarationError(
                f"Group {group.name!r} declares {name!r} twice (features {names}, keys {list(group.entity.keys)}). Rename one."
            )
    if clash := RESERVED & set(names):
        raise DeclarationError(f"Group {group.name!r} declares reserved names {sorted(clash)}.")


def _check_population(group: FeatureGroup) -> None:
    if not group.population:
        return
    what = f"Group {group.name!r}: population is {group.population!r}"
    if isinstance(group.cadence, Static):
        raise DeclarationError(
            f"{what}, and the group is static: it is held against its last load. Leave population out."
        )
    if group.min_coverage is None:
        raise DeclarationError(
            f"{what}, of which no share is asked. Declare min_coverage=0.9, or leave population out."
        )
    if group.population not in group.inputs:
        raise DeclarationError(
            f"{what}, which is no input of the group; it reads {list(group.inputs)}. Make it a parameter of the transform."
        )


def _check_durations(group: FeatureGroup) -> None:
    ttl = group.online.ttl if group.online else None
    durations = {"lookback": group.lookback, "delay": group.delay, "publish": group.publish}
    if negative := [f"{name}={value}" for name, value in durations.items() if value < timedelta(0)]:
        raise DeclarationError(
            f"Group {group.name!r} declares {negative}. Durations cannot be negative: declare zero or more, or leave it out."
        )
    spans = {"freshness": group.freshness, "refresh": group.level.refresh, "max_age": group.max_age, "ttl": ttl}
    if empty := [f"{name}={value}" for name, value in spans.items() if value is not None and value <= timedelta(0)]:
        raise DeclarationError(f"Group {group.name!r} declares {empty}. Each must be longer than zero.")
    if isinstance(group.cadence, Static):
        if group.max_age is not None or ttl is not None or group.delay or group.publish:
            raise DeclarationError(
                f"Group {group.name!r} is static: it has no max_age, ttl, delay or publish. Remove them (online=Online(ttl=None))."
            )
    elif group.online is not None and ttl is None:
        raise DeclarationError(
            f"Group {group.name!r} is online without a ttl. Only static groups live for ever; write Online(ttl=timedelta(days=7))."
        )
    if ttl is not None and group.max_age is not None and ttl < group.max_age:
        raise DeclarationError(
            f"Group {group.name!r}: ttl {ttl} is below max_age {group.max_age}, so online would lose what offline has. Raise ttl to max_age."
        )


def _check_backfill(group: FeatureGroup) -> None:
    rules, names = group.backfill, [feature.name for feature in group.features]
    if isinstance(group.cadence, Windowless):
        if rules != Backfill(approvers=rules.approvers):
            raise DeclarationError(
                f"Group {group.name!r} is {group.kind} and declares rules for backfills. It has no past to fill; remove them."
            )
        return
    named = [*rules.proxies, *(known.feature for known in rules.known_values)]
    if unknown := sorted(set(named) - set(names)):
        raise DeclarationError(f"Group {group.name!r}: its backfill names features {unknown}; it declares {names}.")
    for known in rules.known_values:
        if set(known.keys) != set(group.entity.keys):
            raise DeclarationError(
                f"Group {group.name!r}: the known value of {known.feature!r} has keys {sorted(known.keys)}; "
                f"entity {group.entity.name!r} has {list(group.entity.keys)}."
            )
        _check_known_window(group, known.window)


def _check_known_window(group: FeatureGroup, key: str) -> None:
    if isinstance(group.cadence, Windowless):
        return
    try:
        group.cadence.window_of(key)
    except InvalidInput as error:
        raise DeclarationError(f"Group {group.name!r}: a known value names window {key!r}. {error}") from error
