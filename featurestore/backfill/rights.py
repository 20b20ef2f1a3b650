"""Who may decide on a backfill: the owners and approvers that the groups declare.

A person is who they say they are. The check keeps honest people from deciding on what is not theirs, and the audit
keeps beside the claim the name of the account that made it. It does not stop someone who lies: whoever may write the
metadata database may decide. Give that right to few, or to a service that knows who asks.
"""

from collections.abc import Sequence

from featurestore.errors import NotAllowed
from featurestore.metadata.request import BackfillRequest, RequestedWindows
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot

SPENT = "spent_unapproved_usd"
"""Key of an estimate: what the group had already spent without approval when this backfill was judged."""


def has_right(group: RegisteredGroup, person: str) -> bool:
    """Whether someone is the owner of a group, or among its approvers."""
    return person == group.owner or person in group.approvers


def check_right(group: RegisteredGroup, person: str) -> None:
    """Refuse someone who is neither the owner of a group nor among its approvers.

    Raises:
        NotAllowed: the message says who may.
    """
    if not has_right(group, person):
        raise NotAllowed(
            f"{person!r} may not decide on backfills of {group.name!r}. {_people(group)} may: ask one of them, or add "
            "an approver to the group's declaration and apply."
        )


def exceeds_limit(part: RequestedWindows, group: RegisteredGroup) -> bool:
    """Whether a part of a backfill costs more than its group allows without approval.

    Counted with it is what the group had spent without approval by then, if the estimate says so.
    """
    return part.cost_usd + float(part.estimate.get(SPENT, 0.0)) > group.approval_limit_usd


def deciding_groups(request: BackfillRequest, registry: RegistrySnapshot) -> list[RegisteredGroup]:
    """The groups whose limit a backfill exceeds; all of its groups, if it exceeds none's.

    Raises:
        UnknownName: a group is not registered.
    """
    groups = [(part, registry.group(part.group)) for part in request.groups]
    above = [group for part, group in groups if exceeds_limit(part, group)]
    return above or [group for _, group in groups]


def check_may_approve(request: BackfillRequest, registry: RegistrySnapshot, person: str) -> None:
    """Refuse an approval by someone without the right on every group whose limit is exceeded.

    Raises:
        NotAllowed: the right is missing on one of them, or the backfill has no groups.
        UnknownName: a group is not registered.
    """
    groups = deciding_groups(request, registry)
    if not groups:
        raise NotAllowed(f"Backfill {request.backfill_id!r} names no group, so nobody may approve it. Reject it.")
    for group in groups:
        check_right(group, person)


def check_may_reject(request: BackfillRequest, registry: RegistrySnapshot, person: str) -> None:
    """Refuse a rejection by someone without the right on any group of a backfill: one owner's no is enough.

    Raises:
        NotAllowed: the right is missing on all of them.
    """
    groups = _registered(request, registry)
    if groups and not any(has_right(group, person) for group in groups):
        people = "; ".join(f"{group.name}: {_people(group)}" for group in groups)
        raise NotAllowed(f"{person!r} may not reject backfill {request.backfill_id!r}. These may: {people}.")


def _registered(request: BackfillRequest, registry: RegistrySnapshot) -> Sequence[RegisteredGroup]:
    """Groups that are no longer declared keep their owners."""
    known = {**registry.retired, **registry.groups}
    return [known[part.group] for part in request.groups if part.group in known]


def _people(group: RegisteredGroup) -> str:
    return " or ".join(dict.fromkeys([group.owner, *group.approvers]))
