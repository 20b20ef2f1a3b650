"""Where lateness comes from: the walk from a late group through late inputs to the first late asset upstream. Pure.

An input is late if it is a source that is silent for its reader, or a group that misses windows, is loaded or pushed too late,
or lacks a window that its reader waits for: in quarantine, or overtaken by newer ones. Of all late assets that are reached and have no late input themselves,
the one that was late first is to blame. A copy that is behind its table is nobody's fault upstream.

A source may be to blame before it has been silent for long: where a group never began and it never had a row, and where the gate
holds the window that is waited for and no source had an event for it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from featurestore.alerts.problem import Blame
from featurestore.freshness.facts import WindowFacts
from featurestore.freshness.judgement import Cause, GroupFreshness, SourceFreshness
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot

NEVER = datetime.min.replace(tzinfo=UTC)


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
    return [*roots, *(_own(registry, found[end], blocked[end]) for end in ends)]


def _late_groups(
    registry: RegistrySnapshot, found: Mapping[str, GroupFreshness], reader: str
) -> dict[str, datetime | None]:
    """The late groups that a group reads, each with the window that blocks it, if it lacks one."""
    inputs = [found[upstream] for upstream in registry.upstream_of(reader) if upstream in found]
    held = {one.group.name: blocking_window(found[reader], one) for one in inputs}
    return {
        one.group.name: held[one.group.name]
        for one in inputs
        if _cause(one) is not None or held[one.group.name] is not None
    }


def _silent(registry: RegistrySnapshot, source: SourceFreshness) -> Blame:
    return _source(registry, source, source.silent_since or NEVER, source.told)


def _source(registry: RegistrySnapshot, source: SourceFreshness, since: datetime, text: str) -> Blame:
    known = registry.groups if source.is_pushed else registry.sources
    return Blame(source.asset, known[source.name].owner if source.name in known else "", since, text)


def blocking_window(reader: GroupFreshness, upstream: GroupFreshness) -> datetime | None:
    """The first window that an upstream group lacks, in quarantine or overtaken, and that a missing window of its reader reads; else None."""
    windows, lacking = reader.facts.windows, upstream.facts.windows
    if windows is None or lacking is None:
        return None
    missing = [start for start in (windows.awaited, *windows.gaps[:1]) if start is not None]
    spans = [_read_by(reader.group, start) for start in missing]
    length = upstream.group.window_length
    starts = sorted((*lacking.held, *lacking.gaps)) if spans else []
    return next((one for one in starts if any(one < until and one + length > since for since, until in spans)), None)


def _read_by(group: RegisteredGroup, start: datetime) -> tuple[datetime, datetime]:
    """Of which time a window of a group reads what is upstream."""
    end = start + group.window_length
    since = min(start, end - timedelta(microseconds=group.lookback_us))
    return since, end + timedelta(microseconds=group.delay_us)


def _cause(one: GroupFreshness) -> Cause | None:
    """The worst cause that whoever reads the group suffers from: its copy is none of them, nor a window that nobody waits for."""
    return next((cause for cause in one.causes if cause.kind not in ("online", "hole")), None)


def _own(registry: RegistrySnapshot, one: GroupFreshness, blocking: datetime | None) -> Blame:
    """A late group without a late input: its gate holds a window that is waited for, or its job stands still; both perhaps for want of rows."""
    windows = one.facts.windows
    if windows is not None and blocking is None:
        blocking = _held_first(windows)
    if windows is not None and blocking is not None and blocking in windows.gaps:
        text = f"its window {one.group.window_key(blocking)} was never promoted"
        return Blame(f"offline/{one.group.name}", one.group.owner, blocking + one.group.window_length, text)
    if windows is not None and blocking is not None:
        text = f"its gate holds window {one.group.window_key(blocking)} in quarantine"
        own = Blame(f"offline/{one.group.name}", one.group.owner, windows.held_since or blocking, text)
        return _of_empty_window(registry, one, blocking) or own
    cause = _cause(one) or one.causes[0]
    own = Blame(f"offline/{one.group.name}", one.group.owner, cause.since, cause.text)
    return _of_group_that_cannot_begin(registry, one, cause.since) or own


def _held_first(windows: WindowFacts) -> datetime | None:
    """The window that a group waits for, if its gate holds it; of a group that never began the first that is held."""
    if windows.newest is None:
        return next(iter(windows.held), None)
    return windows.awaited if windows.awaited in windows.held else None


def _of_empty_window(registry: RegistrySnapshot, one: GroupFreshness, start: datetime) -> Blame | None:
    """The source that left a window with nothing to read: where all are silent since, the one that fell silent last, with its event the rows ended."""
    since, _ = _read_by(one.group, start)
    newest = {source.last_event_time or NEVER: source for source in one.sources}
    if not newest or max(newest) >= since or max(newest) == NEVER:
        return None
    source = newest[max(newest)]
    text = f"{source.told}, so window {one.group.window_key(start)}, which the gate of {one.group.name} holds, had none to read"
    return _source(registry, source, since, text)


def _of_group_that_cannot_begin(registry: RegistrySnapshot, one: GroupFreshness, since: datetime) -> Blame | None:
    """A source without a row: a group begins once all have some."""
    if one.facts.windows is None or one.last_materialized_at is not None:
        return None
    lacking = [source for source in one.sources if source.last_event_time is None]
    roots = [
        _source(registry, source, one.facts.declared_since.get(source.name, since), source.told) for source in lacking
    ]
    return min(roots, key=lambda blame: (blame.since, blame.asset), default=None)
