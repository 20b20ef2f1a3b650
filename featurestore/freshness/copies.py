"""What the parts of the online store hold of groups: asked side by side, and one that does not answer is left alone for the look.

A part that hangs costs a look its patience once, however many groups it serves. What it was known to lack stays known meanwhile: that
it says nothing makes no copy well. Not here: what a lag means (`judgement`).
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from featurestore.errors import FeatureStoreError, StoreUnavailable
from featurestore.freshness.facts import OnlineFacts
from featurestore.freshness.follow import served_after
from featurestore.offline.follower import Written
from featurestore.online.tier import MaterializationState, TierPart
from featurestore.registry.snapshot import RegisteredGroup

ASKED_AT_ONCE = 16
NO_PART = ""
"""Stands for parts of which not even the names can be had."""
Parts = Callable[[RegisteredGroup], Sequence[TierPart]]


@dataclass(frozen=True, slots=True)
class Served:
    """A group that is served, and what was written of it lately."""

    group: RegisteredGroup
    written: Iterable[Written]


@dataclass(frozen=True, slots=True)
class _Said:
    """What one part said of one group: its state, or why there is none to be had."""

    part: str
    state: MaterializationState | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a group's copy in one part.

    Args:
        behind_since: Since when rows were lacking when the part was last heard of it.
        silent_since: The first look in a row at which the part said nothing of it.
    """

    behind_since: datetime | None = None
    silent_since: datetime | None = None


@dataclass
class Copies:
    """The copies of the groups of one registry, from look to look.

    Args:
        parts_of: The parts that a group is served from.
    """

    parts_of: Parts
    _known: dict[str, dict[str, _Known]] = field(default_factory=dict)
    """By group, and in it by part."""

    def look(self, served: Sequence[Served], now: datetime) -> dict[str, OnlineFacts]:
        """What is served of each group at an instant, by its name. Never raises for what parts do."""
        said = self._ask([one.group for one in served])
        return {one.group.name: self._facts(one, said[one.group.name], now) for one in served}

    def _ask(self, groups: Sequence[RegisteredGroup]) -> dict[str, list[_Said]]:
        said: dict[str, list[_Said]] = {group.name: [] for group in groups}
        parts_by_tiers: dict[tuple[str, ...], Sequence[TierPart] | str] = {}
        asked: list[tuple[str, TierPart]] = []
        for group in groups:
            if group.tiers not in parts_by_tiers:
                parts_by_tiers[group.tiers] = self._parts(group)
            parts = parts_by_tiers[group.tiers]
            if isinstance(parts, str):
                said[group.name].append(_Said(NO_PART, trouble=parts))
            else:
                asked += [(group.name, part) for part in parts]
        silent: dict[str, str] = {}
        with ThreadPoolExecutor(ASKED_AT_ONCE) as askers:
            for (name, _), answer in zip(
                asked, askers.map(lambda one: _state(one[0], one[1], silent), asked), strict=True
            ):
                said[name].append(answer)
        return said

    def _parts(self, group: RegisteredGroup) -> Sequence[TierPart] | str:
        """The parts of all groups that declare the same tiers, or why they cannot be told."""
        try:
            return self.parts_of(group)
        except FeatureStoreError as error:
            return str(error)

    def _facts(self, served: Served, said: Sequence[_Said], now: datetime) -> OnlineFacts:
        name = served.group.name
        before = self._known.get(name, {})
        if any(one.part == NO_PART for one in said):
            said = [*said, *(_Said(part, trouble=said[0].trouble) for part in before if part != NO_PART)]
        known = self._known[name] = {one.part: _known(one, before.get(one.part, _Known()), served, now) for one in said}
        return OnlineFacts(
            behind_since=min((one.behind_since for one in known.values() if one.behind_since), default=None),
            unknown="; ".join(dict.fromkeys(one.trouble for one in said if one.trouble)),
            unknown_since=min((one.silent_since for one in known.values() if one.silent_since), default=None),
        )


def _known(said: _Said, before: _Known, served: Served, now: datetime) -> _Known:
    if said.trouble:
        return _Known(before.behind_since, before.silent_since or now)
    return _Known(min(_lacking(said.state, served.written, served_after(served.group), now), default=None))


def _state(group: str, part: TierPart, silent: dict[str, str]) -> _Said:
    """Ask a part for a group, unless it has been silent; threads share what is known of that."""
    name = part.name
    if name not in silent:
        try:
            return _Said(name, part.state(group))
        except StoreUnavailable as error:
            silent[name] = str(error)
        except FeatureStoreError as error:
            return _Said(name, trouble=str(error))
    return _Said(name, trouble=silent[name])


def _lacking(
    state: MaterializationState | None, written: Iterable[Written], after: timedelta, now: datetime
) -> list[datetime]:
    """Since when rows that are known by now are not in a part.

    Args:
        after: How long after the start of what was written its rows are served.
    """
    moments = []
    for one in written:
        if state is None or one.version > state.version:
            moments.append(max(one.recorded_at, one.first + after))
        elif one.last + after > state.as_of:
            moments.append(max(one.recorded_at, one.last + after))
    return [moment for moment in moments if moment <= now]
