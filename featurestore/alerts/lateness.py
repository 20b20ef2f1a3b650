"""The problems that a look at freshness finds: groups that are late, and windows that their gate holds. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType

from featurestore.alerts.blame import first_late
from featurestore.alerts.kinds import Severity
from featurestore.alerts.problem import Blame, Findings, Key, Problem
from featurestore.freshness.judgement import GroupFreshness, span
from featurestore.registry.snapshot import RegistrySnapshot

SHOWN = 3
"""Windows and causes that a text names."""


def late_groups(
    registry: RegistrySnapshot,
    found: Mapping[str, GroupFreshness],
    at: datetime,
    unreadable: Mapping[str, str] = MappingProxyType({}),
) -> Findings:
    """What is wrong with the freshness of groups, and which have windows in quarantine.

    Args:
        registry: The graph, for the blame.
        found: The freshness of groups as one look found it, in the registry's order.
        at: When it looked.
        unreadable: Groups of which it could say nothing, and why.

    Returns:
        A group whose online copy could not be asked is spoken for only in what was seen.
    """
    problems = [_unreadable(name, why, at) for name, why in unreadable.items()]
    spoken: set[Key] = set()
    for name, one in found.items():
        problems += [*_late(registry, found, one), *_held(one)]
        spoken.add(("quarantine", name))
        if one.is_spoken_for:
            spoken.add(("freshness", name))
    return Findings(at, tuple(problems), frozenset(spoken))


def _unreadable(name: str, why: str, at: datetime) -> Problem:
    asset = f"offline/{name}"
    text = f"{asset}: what it rests on cannot be read, so nobody knows how fresh it is. {why}"
    remedy = f"Mend what cannot be read. Until then nothing of {name} is computed or confirmed; what is served goes on being served."
    return Problem(kind="freshness", group=name, status="BREACH", asset=asset, since=at, text=text, remedy=remedy)


def _late(registry: RegistrySnapshot, found: Mapping[str, GroupFreshness], one: GroupFreshness) -> Iterator[Problem]:
    if one.status not in ("WARN", "BREACH"):
        return
    cause, blamed = one.causes[0], first_late(registry, found, one.group.name)
    status: Severity = "BREACH" if one.status == "BREACH" else "WARN"
    yield Problem(
        kind="freshness",
        group=one.group.name,
        status=status,
        asset=cause.asset,
        since=cause.since,
        text=_text(one),
        remedy=_remedy(registry, cause.asset, blamed, one),
        blamed=blamed,
    )


def _text(one: GroupFreshness) -> str:
    """Every cause, the worst first; the SLO too, where none of them names it."""
    texts = [cause.text for cause in one.causes[:SHOWN]]
    slo = one.group.freshness
    if slo is not None and not any("SLO" in text for text in texts):
        texts.append(f"The SLO of {one.group.name} is {span(slo)}.")
    return " ".join(texts)


def _remedy(registry: RegistrySnapshot, asset: str, blamed: Blame | None, one: GroupFreshness) -> str:
    """What to do about the asset that is to blame."""
    place = blamed.asset if blamed is not None else asset
    folder, _, name = place.partition("/")
    if folder == "raw":
        whom = f"Ask {blamed.owner} why" if blamed is not None and blamed.owner else "Find out why"
        return f"{whom} source {name} has nothing newer. What lands is taken in, and computed, by itself."
    if folder == "online" and not one.is_spoken_for:
        return f"See why the online store does not answer: featurestore online status {name}."
    if folder == "online":
        return f"featurestore materialize {name}; then see why {place} does not follow by itself."
    if blamed is not None and "quarantine" in blamed.text:
        return f"featurestore describe {name} says what its gate found. Mend what it reads, or its transform; then it is computed by itself."
    if name in registry.groups and registry.groups[name].kind == "pushed":
        return f"Find out why whoever pushes to {name} is late or silent."
    if blamed is not None and "no window in production" in blamed.text:
        return f"See why no run of {place} succeeds. A group begins once every source, static and pushed group that it reads has rows."
    return f"See why the runs of {place} fail or wait; its windows are computed by themselves as soon as one succeeds."


def _held(one: GroupFreshness) -> Iterator[Problem]:
    windows = one.facts.windows
    if windows is None or not windows.held:
        return
    shown = ", ".join(one.group.window_key(start) for start in windows.held[:SHOWN])
    shown += f" and {windows.quarantined - SHOWN} more" if windows.quarantined > SHOWN else ""
    asset = f"offline/{one.group.name}"
    count = "1 window is" if windows.quarantined == 1 else f"{windows.quarantined} windows are"
    newest = one.group.window_key(windows.held[-1])
    found = f" Found of {newest}: {windows.held_for}." if windows.held_for else ""
    yield Problem(
        kind="quarantine",
        group=one.group.name,
        status="WARN",
        asset=asset,
        since=windows.held_since or one.at,
        text=f"{asset}: {count} held by the gate: {shown}.{found} Production keeps its last good rows.",
        remedy=f"featurestore backfill inspect {windows.held_by} says what was found. Mend what is read, or the transform; or promote "
        f"it all the same: featurestore backfill promote {windows.held_by} --override --as WHO --reason WHY.",
        extent=windows.quarantined,
    )
