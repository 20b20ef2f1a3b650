"""Backfills as the book has them: listed, shown, approved and rejected. Not here: what they changed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from featurestore.backfill.rights import check_may_approve, check_may_reject, deciding_groups, exceeds_limit
from featurestore.cli.backfill.estimates import estimate_text
from featurestore.cli.deployment import Deployment
from featurestore.cli.tables import pairs_text, table_text, value_text, wrapped_text
from featurestore.cli.times import instant_text
from featurestore.errors import InvalidInput
from featurestore.metadata.book import STATES
from featurestore.metadata.request import AuditEntry, BackfillRequest, RequestedWindows, State
from featurestore.quantities import count_text, usd_text
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot

LIST_HEADERS = [
    "id",
    "state",
    "group",
    "windows",
    "from",
    "to",
    "strategy",
    "cost usd",
    "requested",
    "by",
    "decided by",
]
GROUP_HEADERS = ["group", "windows", "from", "to", "cost usd", "limit usd", "above limit"]
AUDIT_HEADERS = ["at", "action", "by", "account", "reason", "details"]


def list_backfills(deployment: Deployment, *, group: str | None, state: str | None, limit: int) -> dict[str, Any]:
    """The newest backfills, each with its windows, its cost and who decided.

    Raises:
        UnknownName: no group has the name.
        InvalidInput: no state has the name.
    """
    stored = None if group is None else _stored_name(deployment.store.registry, group)
    wanted = None if state is None else _state(state)
    book = deployment.book
    found = book.requests(group=stored, states=None if wanted is None else [wanted], limit=limit)
    decisions = book.decisions(request.backfill_id for request in found)
    return {
        "backfills": [_summary(request, decisions.get(request.backfill_id)) for request in found],
        "filter": {"group": stored, "state": wanted},
    }


def show_backfill(deployment: Deployment, backfill_id: str) -> dict[str, Any]:
    """One backfill: its windows and estimate by group, who may decide, and its audit.

    Raises:
        UnknownName: there is no such backfill.
    """
    return _document(deployment, deployment.book.get(backfill_id))


def approve(deployment: Deployment, backfill_id: str, person: str, os_user: str, reason: str) -> dict[str, Any]:
    """Let a backfill go that waits; once more by the same person changes nothing.

    Raises:
        UnknownName: there is no such backfill.
        InvalidInput: the reason is empty.
        NotAllowed: the person lacks the right on a group whose limit is exceeded.
        AlreadyDecided: it does not wait.
    """
    if not reason.strip():
        raise InvalidInput(
            f"Backfill {backfill_id!r} is not approved without a reason: the audit keeps who, when and why."
        )
    request = deployment.book.get(backfill_id)
    check_may_approve(request, deployment.store.registry, person)
    return _decide(deployment, backfill_id, "approved", person, os_user, reason)


def reject(deployment: Deployment, backfill_id: str, person: str, os_user: str, reason: str) -> dict[str, Any]:
    """Cancel a backfill that waits; once more by the same person changes nothing.

    Raises:
        UnknownName: there is no such backfill.
        InvalidInput: the reason is empty.
        NotAllowed: the person lacks the right on all of its groups.
        AlreadyDecided: it does not wait.
    """
    if not reason.strip():
        raise InvalidInput(f"Backfill {backfill_id!r} is not rejected without a reason: whoever launched it reads it.")
    request = deployment.book.get(backfill_id)
    check_may_reject(request, deployment.store.registry, person)
    return _decide(deployment, backfill_id, "rejected", person, os_user, reason)


def _decide(
    deployment: Deployment, backfill_id: str, state: State, person: str, os_user: str, reason: str
) -> dict[str, Any]:
    entry = AuditEntry(backfill_id, deployment.clock(), state, person, os_user, reason)
    return _document(deployment, deployment.book.decide(backfill_id, state, entry))


def _stored_name(registry: RegistrySnapshot, name: str) -> str:
    return name if name in registry.retired else registry.group(name).name


def _state(name: str) -> State:
    for state in STATES:
        if state == name.replace("-", "_"):
            return state
    raise InvalidInput(f"No backfill is ever {name!r}. States are {list(STATES)}.")


def _summary(request: BackfillRequest, decision: AuditEntry | None) -> dict[str, Any]:
    return {
        "backfill_id": request.backfill_id,
        "state": request.state,
        "reason": request.reason,
        "strategy": request.strategy,
        "accept_shift": request.accept_shift,
        "requested_at": request.requested_at,
        "requested_by": request.requested_by,
        "decided_at": decision.at if decision else None,
        "decided_by": decision.person if decision else None,
        "windows": sum(len(part.keys) for part in request.groups),
        "cost_usd": request.cost_usd,
        "groups": [_span(part) for part in request.groups],
    }


def _span(part: RequestedWindows) -> dict[str, Any]:
    return {
        "group": part.group,
        "windows": len(part.keys),
        "first": part.keys[0] if part.keys else None,
        "last": part.keys[-1] if part.keys else None,
        "cost_usd": part.cost_usd,
    }


def _document(deployment: Deployment, request: BackfillRequest) -> dict[str, Any]:
    registry, book = deployment.store.registry, deployment.book
    decision = book.decisions([request.backfill_id]).get(request.backfill_id)
    return {
        **_summary(request, decision),
        "groups": [_estimated(part, registry.groups.get(part.group)) for part in request.groups],
        "deciders": _deciders(request, registry),
        "audit": [asdict(entry) for entry in book.audit(request.backfill_id)],
    }


def _estimated(part: RequestedWindows, group: RegisteredGroup | None) -> dict[str, Any]:
    """A group that is no longer declared has no limit to compare with."""
    return {
        **_span(part),
        "limit_usd": group.approval_limit_usd if group else None,
        "exceeds_limit": exceeds_limit(part, group) if group else None,
        "estimate": dict(part.estimate),
        "keys": list(part.keys),
    }


def _deciders(request: BackfillRequest, registry: RegistrySnapshot) -> dict[str, list[str]]:
    """Who may approve, by group, of a backfill that waits; an approval takes someone who is in each list."""
    if request.state != "pending" or any(part.group not in registry.groups for part in request.groups):
        return {}
    groups = deciding_groups(request, registry)
    return {group.name: list(dict.fromkeys([group.owner, *group.approvers])) for group in groups}


def list_text(document: Mapping[str, Any]) -> str:
    """A line a backfill; what to do next where there is none."""
    if not document["backfills"]:
        return _empty_text(document["filter"]["group"], document["filter"]["state"])
    lines = [_line(backfill) for backfill in document["backfills"]]
    return table_text(LIST_HEADERS, lines, right=["windows", "cost usd"])


def _empty_text(group: str | None, state: str | None) -> str:
    if group is None and state is None:
        return "There are no backfills yet. Launch one in Dagster, or: featurestore backfill launch GROUP --from KEY --to KEY"
    of_group = f" of {group}" if group else ""
    is_state = f" is {_state_text(state)}" if state else ""
    return f"No backfill{of_group}{is_state or ' is there'}. See all: featurestore backfill list"


def _line(backfill: Mapping[str, Any]) -> list[str]:
    groups = backfill["groups"]
    firsts, lasts = _present(groups, "first"), _present(groups, "last")
    return [
        value_text(backfill["backfill_id"]),
        _state_text(backfill["state"]),
        groups[0]["group"] if len(groups) == 1 else count_text(len(groups), "group"),
        f"{backfill['windows']:,}",
        min(firsts, default="-"),
        max(lasts, default="-"),
        backfill["strategy"],
        usd_text(backfill["cost_usd"]),
        instant_text(backfill["requested_at"].replace(second=0, microsecond=0)),
        value_text(backfill["requested_by"] or None),
        value_text(backfill["decided_by"]),
    ]


def _present(groups: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    return [group[name] for group in groups if group[name] is not None]


def _state_text(state: str | None) -> str:
    return (state or "").replace("_", " ")


def show_text(document: Mapping[str, Any]) -> str:
    """What was asked, its estimate by group, the audit, and what to do if it waits."""
    groups = [_group_line(group) for group in document["groups"]]
    parts = [
        f"Backfill {document['backfill_id']}: {_state_text(document['state'])}",
        pairs_text(_facts(document)),
        table_text(GROUP_HEADERS, groups, right=["windows", "cost usd", "limit usd"]),
        *[f"{group['group']}\n{estimate_text(group['estimate'])}" for group in document["groups"] if group["estimate"]],
        table_text(AUDIT_HEADERS, [_audit_line(entry) for entry in document["audit"]]),
        *_next_steps(document),
    ]
    return "\n\n".join(parts)


def decided_text(document: Mapping[str, Any]) -> str:
    """What was decided, of what, and where to look on."""
    windows = count_text(document["windows"], "window")
    groups = ", ".join(group["group"] for group in document["groups"])
    lines = [
        f"Backfill {document['backfill_id']}: {_state_text(document['state'])} by {document['decided_by']}. "
        f"{value_text(document['reason'])}",
        f"{windows} of {groups}, {usd_text(document['cost_usd'])} USD, estimated.",
    ]
    look = "status" if document["state"] == "approved" else "show"
    return "\n".join([*map(wrapped_text, lines), f"  featurestore backfill {look} {document['backfill_id']}"])


def _facts(document: Mapping[str, Any]) -> dict[str, str]:
    decided = document["decided_at"]
    requester = value_text(document["requested_by"]) if document["requested_by"] else "someone unknown"
    return {
        "Reason": value_text(document["reason"]) if document["reason"] else "",
        "Strategy": document["strategy"] + (", accepts a shift" if document["accept_shift"] else ""),
        "Windows": f"{document['windows']:,}",
        "Cost": f"{usd_text(document['cost_usd'])} USD, estimated",
        "Requested": f"{instant_text(document['requested_at'])} by {requester}",
        "Decided": f"{instant_text(decided)} by {document['decided_by']}" if decided else "",
    }


def _group_line(group: Mapping[str, Any]) -> list[str]:
    above = {None: "no longer declared", True: "yes", False: "no"}[group["exceeds_limit"]]
    return [
        group["group"],
        f"{group['windows']:,}",
        group["first"] or "-",
        group["last"] or "-",
        usd_text(group["cost_usd"]),
        usd_text(group["limit_usd"]),
        above,
    ]


def _audit_line(entry: Mapping[str, Any]) -> list[str]:
    """One line of the audit; why it was requested into its state stands above the tables."""
    reason = "" if entry["action"] == "requested" else entry["reason"]
    return [
        instant_text(entry["at"].replace(microsecond=0)),
        _state_text(entry["action"]),
        value_text(entry["person"] or None),
        value_text(entry["os_user"] or None),
        value_text(reason or None),
        "; ".join(f"{name} {value_text(value)}" for name, value in entry["details"].items()),
    ]


def _next_steps(document: Mapping[str, Any]) -> Sequence[str]:
    if document["state"] != "pending":
        return []
    backfill_id, deciders = document["backfill_id"], document["deciders"]
    people = "; ".join(f"{group}: {' or '.join(names)}" for group, names in deciders.items())
    return [
        wrapped_text(f"It waits for approval. These may decide: {people}." if people else "It waits for approval."),
        f"  featurestore backfill approve {backfill_id} --as WHO --reason WHY\n"
        f"  featurestore backfill reject {backfill_id} --as WHO --reason WHY",
    ]
