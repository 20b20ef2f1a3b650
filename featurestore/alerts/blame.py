"""Where lateness comes from: the walk from a late group through late inputs to the first late asset upstream. Pure.

An input is late if it is a source that is silent for its reader, or a group that misses windows, is loaded or pushed too late,
or holds a window in quarantine that its reader waits for. Of all late assets that are reached and have no late input themselves,
the one that was late first is to blame. A copy that is behind its table is nobody's fault upstream.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from featurestore.alerts.problem import Blame
from featurestore.freshness.judgement import Cause, GroupFreshness, SourceFreshness
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot

NEVER = datetime.min.replace(tzinfo=UTC)
KEYS = {"hourly": "%Y-%m-%d-%H:%M", "daily": "%Y-%m-%d"}


def first_late(registry: RegistrySnapshot, found: Mapping[str, GroupFreshness], name: str) -> Blame | None:
    """The first late asset upstream of a group, which may be the group's own.

    Args:
        registry: The graph: which groups and sources a group reads.
        found: The freshness of groups; of one that is missing nothing is known, and nobody is blamed by way of it.
        name: The late group.

    Returns:
        None if the group is not late. Of assets that are late since the same instant, the first by name.
    """
    one = found.get(name)
    if one is None or not one.causes:
        return None
    if one.causes[0].kind == "online":
        cause = one.causes[0]
        return Blame(cause.asset, one.group.owner, cause.since, cause.text)
    return min(_roots(registry, found, name), key=lambda blame: (blame.since, blame.asset))


def _roots(registry: RegistrySnapshot, found: Mapping[str, GroupFreshness], name: str) -> list[Blame]:
    """The late assets without late inputs that a late group leads to; each group is looked at once."""
    blocked: dict[str, datetime | None] = {name: None}
    roots: list[Blame] = []
    ends: list[str] = []
    for reader in (waiting := [name]):
        silent = [_silent(registry, source) for source in found[reader].sources if source.is_silent]
        groups = _late_groups(registry, found, reader)
        waiting += [upstream for upstream in groups if upstream not in blocked]
        for upstream, held in groups.items():
            blocked[upstream] = min(filter(None, (blocked.get(upstream), held)), default=None)
        roots += silent
        ends += [] if silent or groups else [reader]
    return [*roots, *(_own(found[end], blocked[end]) for end in ends)]


def _late_groups(
    registry: RegistrySnapshot, found: Mapping[str, GroupFreshness], reader: str
) -> dict[str, datetime | None]:
    """The late groups that a group reads, each with the window in quarantine that blocks it, if one does."""
    inputs = [found[upstream] for upstream in registry.upstream_of(reader) if upstream in found]
    held = {one.group.name: blocking_window(found[reader], one) for one in inputs}
    return {
        one.group.name: held[one.group.name]
        for one in inputs
        if _cause(one) is not None or held[one.group.name] is not None
    }


def _silent(registry: RegistrySnapshot, source: SourceFreshness) -> Blame:
    owner = registry.sources[source.name].owner if source.name in registry.sources else ""
    return Blame(f"raw/{source.name}", owner, source.silent_since or NEVER, source.told)


def blocking_window(reader: GroupFreshness, upstream: GroupFreshness) -> datetime | None:
    """The first window in quarantine of an upstream group that a missing window of its reader overlaps in what it reads; else None."""
    windows, held = reader.facts.windows, upstream.facts.windows
    if windows is None or windows.awaited is None or held is None or not held.held:
        return None
    group = reader.group
    end = windows.awaited + group.window_length
    since = min(windows.awaited, end - timedelta(microseconds=group.lookback_us))
    until = end + timedelta(microseconds=group.delay_us)
    length = upstream.group.window_length
    return next((start for start in held.held if start < until and start + length > since), None)


def window_key(group: RegisteredGroup, start: datetime) -> str:
    """The partition key of a window of a group that has some."""
    return start.strftime(KEYS[group.cadence])


def _cause(one: GroupFreshness) -> Cause | None:
    """The worst cause that whoever reads the group suffers from: its copy is none of them."""
    return next((cause for cause in one.causes if cause.kind != "online"), None)


def _own(one: GroupFreshness, blocking: datetime | None) -> Blame:
    """A late group that nothing upstream explains: its gate holds a window that is waited for, or its job stands still."""
    windows = one.facts.windows
    if windows is not None and blocking is None and windows.awaited in windows.held:
        blocking = windows.awaited
    if windows is not None and blocking is not None:
        text = f"its gate holds window {window_key(one.group, blocking)} in quarantine"
        return Blame(f"offline/{one.group.name}", one.group.owner, windows.held_since or blocking, text)
    cause = _cause(one) or one.causes[0]
    return Blame(f"offline/{one.group.name}", one.group.owner, cause.since, cause.text)
