"""What facts mean: lags, status and causes of one group. Pure: the clock's instant is handed in.

Two lags are never confused. The *materialization lag* is how long ago the group was last known to hold everything due:
`now - last_materialized_at`. The *data lag* is how old its inputs were then: `last_materialized_at - last_event_time`. Work that is
done on old windows moves neither: from the horizon of the first window that is missing, `last_materialized_at` stands still.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from featurestore.declaration.tier import warning_after
from featurestore.freshness.facts import GroupFacts
from featurestore.registry.snapshot import Origin, RegisteredGroup

Status = Literal["OK", "WARN", "BREACH", "NEVER"]
Kind = Literal["materialization", "late", "source", "arrival", "online", "hole"]
ORDER: tuple[Status, ...] = ("OK", "WARN", "NEVER", "BREACH")
"""From well to worst."""
NOTHING = timedelta(0)
USUAL_SILENCE = timedelta(days=1)
HOLES_SHOWN = 3
"""Holes that a text names."""
UNSERVED = timedelta(minutes=30)
"""How long the copy of a group without an SLO may lack what is due online."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a group is not OK.

    Args:
        kind: What is behind: computing, one window, a source, pushes, the online copy, or windows that newer ones have overtaken.
        status: What it makes of the group.
        asset: The asset that is late: 'offline/<group>', 'raw/<source>' or 'online/<group>'.
        since: Since when.
        text: For a person: what is late and by how much.
    """

    kind: Kind
    status: Status
    asset: str
    since: datetime
    text: str


@dataclass(frozen=True, slots=True)
class SourceFreshness:
    """A source as its readers find it; a pushed group that they read is one too.

    Args:
        last_event_time: Of its newest row; None while it has none.
        lag: How old that was when it was last used.
        silence: How long it may have no newer event.
        silent_since: When it had been silent for that long; None if it has not. Where windows are missing it may still be so: nothing
            uses the source then.
    """

    name: str
    last_event_time: datetime | None
    lag: timedelta | None
    silence: timedelta
    silent_since: datetime | None = None
    is_pushed: bool = False

    @property
    def asset(self) -> str:
        return f"offline/{self.name}" if self.is_pushed else f"raw/{self.name}"

    @property
    def is_silent(self) -> bool:
        return self.silent_since is not None

    @property
    def told(self) -> str:
        """What a person is told of its silence."""
        if self.last_event_time is None:
            return "it has never had a row"
        return f"it has had no event newer than {self.last_event_time.isoformat(timespec='seconds')}"


@dataclass(frozen=True, slots=True)
class GroupFreshness:
    """How fresh one group is at `at`. A lag is None where there is nothing to measure it by.

    Args:
        group: As registered.
        at: The instant that it was judged for.
        status: The worst of its causes; OK without any. NEVER before its first rows, until those are late by its SLO.
        materialization_lag: `at - last_materialized_at`.
        data_lag: `last_materialized_at -` the oldest of its sources' newest events.
        online_lag: For how long rows that are due online are not; zero: all are.
        last_materialized_at: When it was last known to hold everything due.
        last_event_time: The oldest of its sources' newest events.
        sources: Those that it rests on and that have events, pushed groups among them.
        causes: The worst first.
        facts: What all of it rests on.
    """

    group: RegisteredGroup
    at: datetime
    status: Status
    materialization_lag: timedelta | None
    data_lag: timedelta | None
    online_lag: timedelta | None
    last_materialized_at: datetime | None
    last_event_time: datetime | None
    sources: tuple[SourceFreshness, ...]
    causes: tuple[Cause, ...]
    facts: GroupFacts

    @property
    def slo_lag(self) -> timedelta | None:
        """The lag that its SLO is about: of a group that is judged by arrival, how old its newest row was when it came."""
        is_by_arrival = self.group.freshness is None and self.group.arrival is not None
        return self.data_lag if is_by_arrival else self.materialization_lag

    @property
    def holds_everything_due(self) -> bool:
        """Whether a refresh now would find nothing to compute."""
        windows = self.facts.windows
        return self.facts.materialized_at is not None and (windows is None or windows.due == 0)

    @property
    def is_served_whole(self) -> bool:
        """Whether everything that is to be online is; also of a group that is not served."""
        online = self.facts.online
        return online is None or (online.behind_since is None and not online.unknown)

    @property
    def is_spoken_for(self) -> bool:
        """Whether what is not among the causes is not so: of a copy that could not be asked nobody knows."""
        return self.facts.online is None or not self.facts.online.unknown

    @property
    def is_refresh_due(self) -> bool:
        """Whether it is to be confirmed now that the group holds everything due."""
        refresh, lag = self.group.refresh, self.materialization_lag
        return refresh is not None and lag is not None and lag >= refresh and self.holds_everything_due


def judge(group: RegisteredGroup, origins: Sequence[Origin], facts: GroupFacts, now: datetime) -> GroupFreshness:
    """How fresh a group is.

    Args:
        group: As registered; its SLO is `group.freshness`.
        origins: Every source of events and pushed group that it rests on.
        facts: What the stores say.
        now: The instant to judge for, in UTC.
    """
    last = _last_materialized_at(facts)
    seen = _sources(group, origins, facts, last, now)
    events = [source.last_event_time for source in seen if source.last_event_time is not None]
    if group.kind == "pushed":
        events = [event for event in facts.last_events.values() if event is not None]
    oldest = min(events, default=None)
    lag = None if last is None else max(NOTHING, now - last)
    data_lag = None if last is None or oldest is None else max(NOTHING, last - oldest)
    causes = [
        *_never(group, facts, now),
        *_materialization(group, lag, now),
        *_late_window(group, facts, now),
        *_silent_sources(seen, now),
        *_late_pushes(group, data_lag, last),
        *_silent_pushers(group, facts, now),
        *_online(group, facts, now),
        *_holes(group, facts, now),
    ]
    causes.sort(key=lambda cause: (-ORDER.index(cause.status), cause.kind == "hole", cause.since))
    status: Status = causes[0].status if causes else "OK"
    if last is None and status != "BREACH":
        status = "NEVER"
    return GroupFreshness(
        group, now, status, lag, data_lag, _online_lag(facts, now), last, oldest, seen, tuple(causes), facts
    )


def warning_of(group: RegisteredGroup) -> timedelta | None:
    """The materialization lag from which on a group is warned of; None without an SLO."""
    if group.freshness is None:
        return None
    return warning_after(group.freshness, group.refresh, timedelta(microseconds=group.delay_us + group.publish_us))


def online_limit(group: RegisteredGroup) -> timedelta:
    """How long a copy may lack what is due online: the SLO, and without one half an hour, or how late pushed rows may come."""
    return group.freshness or max(UNSERVED, group.arrival or NOTHING)


def _last_materialized_at(facts: GroupFacts) -> datetime | None:
    if facts.materialized_at is None:
        return None
    last = max(facts.materialized_at, facts.confirmed_at or facts.materialized_at)
    late_since = facts.windows.late_since if facts.windows else None
    return last if late_since is None else min(last, late_since)


def silence_of(origin: Origin, group: RegisteredGroup) -> timedelta:
    """How long a source may have no newer event for a reader of it: as declared, else a day or twice the reader's SLO.

    What a pushed group declares is the age of its newest push, whose event may be older by as long as rows may take.
    """
    usual = max(USUAL_SILENCE, 2 * (group.freshness or NOTHING))
    if isinstance(origin, RegisteredGroup):
        return (origin.freshness or usual) + (origin.arrival or NOTHING)
    if origin.freshness_us is not None:
        return timedelta(microseconds=origin.freshness_us)
    return usual + timedelta(microseconds=origin.typical_delay_us)


def _sources(
    group: RegisteredGroup,
    origins: Sequence[Origin],
    facts: GroupFacts,
    last: datetime | None,
    now: datetime,
) -> tuple[SourceFreshness, ...]:
    until = now if _is_missing_windows(facts) else last
    seen = []
    for origin in origins:
        event = facts.last_events.get(origin.name)
        lag = None if event is None or last is None else max(NOTHING, last - event)
        silence, start = silence_of(origin, group), event or facts.declared_since.get(origin.name)
        since = start + silence if until is not None and start is not None and until - start > silence else None
        seen.append(SourceFreshness(origin.name, event, lag, silence, since, isinstance(origin, RegisteredGroup)))
    return tuple(seen)


def _is_missing_windows(facts: GroupFacts) -> bool:
    """Whether a window is late. Its sources are not used then, perhaps because they are dead: what counts is that they are silent now."""
    windows = facts.windows
    return windows is not None and (windows.late_since is not None or windows.first_served_by is not None)


def _never(group: RegisteredGroup, facts: GroupFacts, now: datetime) -> list[Cause]:
    """A group whose first window should long have been there: it is not merely new."""
    served_by = facts.windows.first_served_by if facts.windows else None
    if served_by is None or group.freshness is None or now < served_by + group.freshness:
        return []
    asset = f"offline/{group.name}"
    text = f"{asset} has no window in production; the first was to be served {span(now - served_by)} ago, and its SLO is {span(group.freshness)}."
    return [Cause("materialization", "BREACH", asset, served_by + group.freshness, text)]


def _materialization(group: RegisteredGroup, lag: timedelta | None, now: datetime) -> list[Cause]:
    slo, warning = group.freshness, warning_of(group)
    if slo is None or warning is None or lag is None or lag < warning:
        return []
    asset = f"offline/{group.name}"
    if lag < slo:
        text = f"{asset} was last known to hold everything due {span(lag)} ago; its SLO is {span(slo)}."
        return [Cause("materialization", "WARN", asset, now - lag + warning, text)]
    text = f"{asset} was last known to hold everything due {span(lag)} ago, {span(lag - slo)} beyond its SLO of {span(slo)}."
    return [Cause("materialization", "BREACH", asset, now - lag + slo, text)]


def _late_window(group: RegisteredGroup, facts: GroupFacts, now: datetime) -> list[Cause]:
    windows = facts.windows
    if windows is None or windows.late_since is None:
        return []
    asset, late = f"offline/{group.name}", now - windows.late_since
    count = f"{windows.due} windows are" if windows.due > 1 else "1 window is"
    text = f"{asset}: {count} due and not promoted, the first of them {span(late)} after it was to be served."
    return [Cause("late", "WARN", asset, windows.late_since, text)]


def _holes(group: RegisteredGroup, facts: GroupFacts, now: datetime) -> list[Cause]:
    """Windows that newer ones have overtaken, and that are not there one SLO after they were to be served."""
    if facts.windows is None or group.freshness is None or not facts.windows.gaps:
        return []
    taken = group.window_length + timedelta(microseconds=group.delay_us + group.publish_us) + group.freshness
    gaps = [start for start in facts.windows.gaps if start + taken <= now]
    if not gaps:
        return []
    asset = f"offline/{group.name}"
    shown = ", ".join(group.window_key(start) for start in gaps[:HOLES_SHOWN])
    shown += f" and {len(gaps) - HOLES_SHOWN} more" if len(gaps) > HOLES_SHOWN else ""
    count = f"{len(gaps)} windows before the newest were" if len(gaps) > 1 else "1 window before the newest was"
    return [Cause("hole", "WARN", asset, gaps[0] + taken, f"{asset}: {count} never promoted: {shown}.")]


def _silent_sources(sources: Sequence[SourceFreshness], now: datetime) -> list[Cause]:
    found = []
    for source in sources:
        if source.silent_since is None:
            continue
        if source.last_event_time is None:
            text = f"{source.asset} has never had a row"
        else:
            newest, lag = source.last_event_time, source.lag
            is_used = lag is not None and lag > source.silence
            ago = f"{span(lag)} before it was last used" if is_used and lag else f"{span(now - newest)} ago"
            text = f"{source.asset} has no event newer than {newest.isoformat(timespec='seconds')}, {ago}"
        text += f"; it may be silent for {span(source.silence)}."
        found.append(Cause("source", "BREACH", source.asset, source.silent_since, text))
    return found


def _late_pushes(group: RegisteredGroup, data_lag: timedelta | None, last: datetime | None) -> list[Cause]:
    if group.arrival is None or data_lag is None or last is None or data_lag <= group.arrival:
        return []
    asset = f"offline/{group.name}"
    text = (
        f"{asset}: the newest pushed event was {span(data_lag)} old when it came; rows may take {span(group.arrival)}."
    )
    return [Cause("arrival", "BREACH", asset, last, text)]


def _silent_pushers(group: RegisteredGroup, facts: GroupFacts, now: datetime) -> list[Cause]:
    """A pushed group without a `freshness` of its own is as silent as a source would be."""
    if group.kind != "pushed" or group.freshness is not None:
        return []
    asset, silence, newest = f"offline/{group.name}", silence_of(group, group), facts.last_events.get(group.name)
    start = newest or facts.declared_since.get(group.name)
    if start is None or now - start <= silence:
        return []
    what = (
        f"no event newer than {newest.isoformat(timespec='seconds')}, {span(now - newest)} ago"
        if newest
        else "never had a row"
    )
    text = f"{asset} has {what}; whoever pushes may be silent for {span(silence)}."
    return [Cause("arrival", "BREACH", asset, start + silence, text)]


def _online(group: RegisteredGroup, facts: GroupFacts, now: datetime) -> list[Cause]:
    """What the copy lacks, and what nobody can say of it for long."""
    online, limit, asset = facts.online, online_limit(group), f"online/{group.name}"
    if online is None:
        return []
    found = []
    if online.behind_since is not None and (lag := now - online.behind_since) * 2 >= limit:
        status: Status = "BREACH" if lag >= limit else "WARN"
        what = "the SLO is" if group.freshness is not None else "it may lack them for"
        text = f"{asset} lacks rows that were to be served {span(lag)} ago; {what} {span(limit)}."
        since = online.behind_since + (limit if status == "BREACH" else limit / 2)
        found.append(Cause("online", status, asset, since, text))
    if online.unknown_since is not None and (unknown := now - online.unknown_since) * 2 >= limit:
        text = f"{asset}: for {span(unknown)} nobody could say what it holds. {online.unknown}"
        found.append(Cause("online", "WARN", asset, online.unknown_since + limit / 2, text))
    return found


def _online_lag(facts: GroupFacts, now: datetime) -> timedelta | None:
    if facts.online is None:
        return None
    if facts.online.behind_since is not None:
        return max(NOTHING, now - facts.online.behind_since)
    return None if facts.online.unknown else NOTHING


def span(duration: timedelta) -> str:
    """A duration for a person, in its two largest units.

    >>> span(timedelta(days=1, hours=2, minutes=3)), span(timedelta(seconds=90)), span(timedelta(milliseconds=300))
    ('1 d 2 h', '1 min 30 s', '0.3 s')
    """
    seconds = duration.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    counts, rest = [], int(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        counts.append((count, unit))
    first = next(i for i, (count, _) in enumerate(counts) if count)
    return " ".join(f"{count} {unit}" for count, unit in counts[first : first + 2] if count)
