"""Publishing what a look found to every part of the online store, for readers. Not here: what they make of it (`on_read`)."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor

from featurestore.errors import FeatureStoreError
from featurestore.freshness.judgement import GroupFreshness
from featurestore.online.published import Published
from featurestore.online.stores import OnlineStores
from featurestore.online.tier import Tier, TierPart

TOLD_AT_ONCE = 16


def publish(online: OnlineStores, found: Iterable[GroupFreshness]) -> list[str]:
    """Publish a look: one request to each part, for all groups that it serves.

    Rules: a part keeps what a newer look has left there. One that does not answer keeps no other waiting.

    Args:
        online: The tiers.
        found: What the look found; groups that are not served are passed over.

    Returns:
        For people, what could not be told and why; nothing: every part has it.
    """
    told: dict[str, tuple[Tier, dict[str, Published]]] = {}
    troubles = []
    for one in found:
        if not one.group.is_online:
            continue
        try:
            for tier in online.tiers_of(one.group):
                told.setdefault(tier.name, (tier, {}))[1][one.group.name] = published_of(one)
        except FeatureStoreError as error:
            troubles.append(f"{one.group.name}: {error}")
    with ThreadPoolExecutor(TOLD_AT_ONCE) as tellers:
        for tier, records in told.values():
            troubles += _tell(tier, records, tellers)
    return list(dict.fromkeys(troubles))


def published_of(found: GroupFreshness) -> Published:
    """The record of one group."""
    worst, online = (found.causes[0] if found.causes else None), found.facts.online
    return Published(
        looked_at=found.at,
        status=found.status,
        last_materialized_at=found.last_materialized_at,
        newest_event=found.last_event_time,
        behind_since=online.behind_since if online else None,
        since=worst.since if worst else None,
        cause=worst.kind if worst else "",
    )


def _tell(tier: Tier, records: Mapping[str, Published], tellers: Executor) -> list[str]:
    try:
        parts = tier.parts()
    except FeatureStoreError as error:
        return [str(error)]
    return [trouble for trouble in tellers.map(lambda part: _tell_part(part, records), parts) if trouble]


def _tell_part(part: TierPart, records: Mapping[str, Published]) -> str:
    try:
        part.publish(records)
    except FeatureStoreError as error:
        return f"{part.name}: {error}"
    return ""
