"""Reading through the tiers: the hot one first, the warm one for what that missed or could not speak for.

Here: which tier is asked for which key and for how long, what both answers together say, which finds are put back, and that what
tiers tell of freshness is learned. Not here:
how a tier is reached, statuses (`retrieval`), or the queue of repairs (`repairs`).

A key is found where a tier has a message for it, a tombstone too; the hot tier's counts, for nobody asks the warm one then. It is
not there (None) if the last of the group's tiers says so. Else nobody can say, and it is unanswered: also a key that the hot
tier misses while the warm one is away, since a hot tier with another behind it may evict.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from featurestore.declaration.online import TierName
from featurestore.errors import StoreUnavailable
from featurestore.online.breaker import Breaker
from featurestore.online.published import KnownFreshness
from featurestore.online.reading.hot_keys import HotKeys
from featurestore.online.reading.repairs import Repair, Repairs
from featurestore.online.tier import Mark, MaterializationState, Replies, Tier

HOT_SHARE = 0.5
"""Of the deadline, where the warm tier may have to be asked too."""
LEAST_WARM_SECONDS = 0.002
"""With less time left, asking would only cost the warm tier: it answers in 3 ms at the best."""
SPENT = 0.9
"""Of its time: a call that leaves keys unanswered and took that much waited in vain. A copy never filled says so at once."""

HURRIED_SHARE = 0.25
"""Of the deadline: a warm tier that had less time than this has not failed. Callers in a hurry do not close it to the others."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a group is read.

    Args:
        tiers: Those that the group has, as `Settings.tiers_of` gives them.
        ttl: The group's, for what is put back.
        message_name: The group's, by which messages are verified that are kept or put back unread.
    """

    tiers: Sequence[TierName]
    ttl: timedelta | None
    message_name: str


Wanted = tuple[Route, Sequence[bytes]]
"""A group's route, and the keys that are read of it."""


class ReadThrough:
    """Reads of a deployment's tiers.

    Args:
        tier: Opens a tier, or hands out the open one; StoreUnavailable if it cannot be opened.
        repairs: Takes what is to be put back into the hot tier.
        breaker: Says when the warm tier is to be left alone.
        deadline_seconds: Limit on a whole read, both tiers together; what it takes to open a tier comes on top, once.
        hot_keys: The cache of this process; None: none.
        known_freshness: Learns what tiers have published of groups.
        monotonic: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        tier: Callable[[TierName], Tier],
        repairs: Repairs,
        breaker: Breaker,
        *,
        deadline_seconds: float,
        hot_keys: HotKeys | None = None,
        known_freshness: KnownFreshness | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tier = tier
        self._repairs = repairs
        self._breaker = breaker
        self._deadline_seconds = deadline_seconds
        self._hot_keys = hot_keys
        self._known_freshness = known_freshness or KnownFreshness()
        self._monotonic = monotonic

    def read(self, wanted: Mapping[str, Wanted], timeout_seconds: float | None = None) -> dict[str, Replies]:
        """Read several groups: one call to each tier, the warm one only if need be.

        Args:
            wanted: What is read, by group name; keys as `keys.online_keys` builds them, doubles allowed, any number.
            timeout_seconds: Where the caller has less time than the deadline.

        Returns:
            Replies by group name, in key order. What servers do shows in them, never as an error.

        Raises:
            StoreUnavailable: a tier cannot be opened at all (none is configured, none runs) and a group has no other.
        """
        seconds = self._deadline_seconds if timeout_seconds is None else min(self._deadline_seconds, timeout_seconds)
        if self._hot_keys is None:
            return self._read(wanted, seconds)
        known = {name: self._hot_keys.lookup(name, keys) for name, (_, keys) in wanted.items()}
        rest = {name: _rest(wanted[name], found) for name, found in known.items() if found.unanswered}
        asked = self._read(rest, seconds) if rest else {}
        return {name: _over(found, asked[name]) if name in asked else found for name, found in known.items()}

    def _read(self, wanted: Mapping[str, Wanted], seconds: float) -> dict[str, Replies]:
        end = self._monotonic() + seconds
        found, opening = self._ask_hot(wanted, seconds)
        end += opening
        gaps = {name: gap for name, want in wanted.items() if (gap := _gap(want, found.get(name)))}
        if not gaps:
            return found if len(found) == len(wanted) else {name: found.get(name) or Replies([]) for name in wanted}
        asked = {name: [wanted[name][1][at] for at in gap] for name, gap in gaps.items()}
        for name, warm in self._ask_warm(asked, wanted, end).items():
            if name in found:
                self._put_back(name, wanted[name], gaps[name], found[name], warm)
                found[name] = _over(replace(found[name], unanswered=frozenset(gaps[name])), warm)
            else:
                found[name] = warm
        return {name: found.get(name) or Replies([]) for name in wanted}

    def _ask_hot(self, wanted: Mapping[str, Wanted], seconds: float) -> tuple[dict[str, Replies], float]:
        asked = {name: keys for name, (route, keys) in wanted.items() if "hot" in route.tiers}
        if not asked:
            return {}, 0.0
        has_warm = any("warm" in route.tiers for route, _ in wanted.values())
        return self._ask("hot", asked, wanted, seconds * (HOT_SHARE if has_warm else 1.0))

    def _ask_warm(
        self, asked: Mapping[str, Sequence[bytes]], wanted: Mapping[str, Wanted], end: float
    ) -> dict[str, Replies]:
        begun = self._monotonic()
        seconds = end - begun
        if seconds < LEAST_WARM_SECONDS:
            return _nobody(asked, "no time was left to ask the warm tier")
        if not self._breaker.allows():
            return _nobody(asked, "the warm tier has not answered lately and is left alone for a moment")
        replies, opening = self._ask("warm", asked, wanted, seconds)
        is_spent = self._monotonic() - begun - opening >= SPENT * seconds
        if not ((is_spent and any(one.unanswered for one in replies.values())) or _has_nothing(replies)):
            self._breaker.succeeded()
        elif seconds >= HURRIED_SHARE * self._deadline_seconds:
            self._breaker.failed()
        return {name: _from_warm(one) for name, one in replies.items()}

    def _ask(
        self, name: TierName, asked: Mapping[str, Sequence[bytes]], wanted: Mapping[str, Wanted], seconds: float
    ) -> tuple[dict[str, Replies], float]:
        """Replies, and the seconds that it took to open the tier: they are not the server's, so not of its time or the deadline."""
        begun = self._monotonic()
        try:
            tier = self._tier(name)
        except StoreUnavailable as error:
            if any(len(wanted[group][0].tiers) == 1 for group in asked):
                raise
            return _nobody(asked, str(error)), 0.0
        opening = self._monotonic() - begun
        replies = tier.read_many(asked, timeout_seconds=seconds)
        for group, said in replies.items():
            if said.published is not None:
                self._known_freshness.learn(group, said.published)
        if self._hot_keys is not None:
            for group, keys in asked.items():
                self._hot_keys.store(group, name, keys, replies[group], wanted[group][0].message_name)
        return replies, opening

    def _put_back(self, name: str, want: Wanted, gap: Sequence[int], hot: Replies, warm: Replies) -> None:
        """Queue the warm finds for the hot parts that missed them, where the warm copy is not behind those."""
        if not hot.marks or not warm.warm or warm.state is None:
            return
        route, keys = want
        found = {gap[at]: warm.messages[at] for at in warm.warm}
        for mark in hot.marks:
            messages = {at: message for at in mark.positions if (message := found.get(at)) is not None}
            if messages and _is_enough(warm.state, mark):
                own, put = replace(mark, positions=list(messages)), [keys[at] for at in messages]
                self._repairs.offer(Repair(name, route.message_name, own, put, list(messages.values()), route.ttl))


def _is_enough(warm: MaterializationState, mark: Mark) -> bool:
    """Whether what the warm copy holds reflects at least what the hot part does, or is moving to."""
    reached = mark.reached
    is_same_copy = (warm.table_id, warm.contract) == (reached.table_id, reached.contract)
    return is_same_copy and warm.version >= reached.version and warm.as_of >= reached.as_of


def _gap(want: Wanted, hot: Replies | None) -> Sequence[int]:
    """Positions of the keys that the warm tier is to be asked for."""
    route, keys = want
    if "warm" not in route.tiers:
        return ()
    if hot is None:
        return range(len(keys))
    return [at for at, message in enumerate(hot.messages) if message is None] if None in hot.messages else ()


def _rest(want: Wanted, known: Replies) -> Wanted:
    route, keys = want
    return route, [keys[at] for at in sorted(known.unanswered)]


def _over(known: Replies, asked: Replies) -> Replies:
    """Replies whose unanswered keys were asked elsewhere, with what was said of them there, in the order of their positions."""
    at, messages = sorted(known.unanswered), list(known.messages)
    for position, message in zip(at, asked.messages, strict=True):
        messages[position] = message
    unanswered = frozenset(at[i] for i in asked.unanswered)
    causes = [cause for cause in (known.cause, asked.cause) if cause]
    return Replies(
        messages,
        unanswered,
        known.warm | {at[i] for i in asked.warm},
        "; ".join(causes) if unanswered else "",
        state=known.state,
    )


def _has_nothing(replies: Mapping[str, Replies]) -> bool:
    """Whether not one key was answered, and not for want of a copy: throttling ends a call before its time is up."""
    is_empty = all(len(one.unanswered) == len(one.messages) for one in replies.values())
    return is_empty and any(one.has_failed for one in replies.values())


def _from_warm(replies: Replies) -> Replies:
    return replace(replies, warm=frozenset(at for at, message in enumerate(replies.messages) if message is not None))


def _nobody(asked: Mapping[str, Sequence[bytes]], cause: str) -> dict[str, Replies]:
    return {name: Replies([None] * len(keys), frozenset(range(len(keys))), cause=cause) for name, keys in asked.items()}
