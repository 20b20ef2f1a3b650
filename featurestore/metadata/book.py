"""The book of backfills: what was asked, at what estimate, how it was decided and by whom, and everything done since.

A request is a fact and never changes; its state does, in one transaction with the audit entry that says who changed it.
The book records what people claim to be: whoever may write the database may decide. Who ought to is in `rights.py`.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import delete, func, insert, select, update

from featurestore.errors import AlreadyDecided, InvalidInput
from featurestore.metadata.database import Book
from featurestore.metadata.request import AuditEntry, BackfillRequest, State
from featurestore.metadata.rows import (
    ENTRY,
    append_entry,
    find_request,
    get_request,
    insert_request,
    read_decisions,
    read_requests,
)
from featurestore.metadata.tables import AUDIT, BACKFILLS, GROUPS, KEPT, REQUESTS

STATES: tuple[State, ...] = get_args(State)
BEFORE: dict[State, tuple[State, ...]] = {
    "approved": ("pending",),
    "rejected": ("pending",),
    "refused": ("pending",),
    "cancelled": ("pending",),
    "rolled_back": ("admitted", "approved"),
}
"""The states from which each one can be decided."""
NEXT: dict[State, str] = {
    "pending": "Approve or reject it first.",
    "admitted": "It needs no approval. To stop it, cancel its runs in Dagster.",
    "approved": "It may run. To stop it, cancel its runs in Dagster.",
    **dict.fromkeys(
        ("rejected", "refused", "cancelled", "rolled_back"), "Launch a new one if its windows are still wanted."
    ),
}
"""What to do with a backfill that is in a state, when something else was asked."""


class BackfillBook(Book):
    """Backfills and their audit."""

    part = BACKFILLS

    def record(self, request: BackfillRequest) -> BackfillRequest:
        """Keep a request, with an audit entry 'requested'; one that is known stays as it is.

        Returns:
            What is kept: of several that record one backfill at once, all get the first one's.

        Raises:
            InvalidInput: it is in a state that only a decision leads to, or an estimate is not a sum of 0 or more.
        """
        _check(request)
        with self._database.writing() as connection:
            known = find_request(connection, request.backfill_id)
            if known is None:
                insert_request(connection, request, self._clock())
            return known or request

    def find(self, backfill_id: str) -> BackfillRequest | None:
        with self._database.reading() as connection:
            return find_request(connection, backfill_id)

    def get(self, backfill_id: str) -> BackfillRequest:
        """A backfill by its id.

        Raises:
            UnknownName: there is none; the message names those that come close.
        """
        with self._database.reading() as connection:
            return get_request(connection, backfill_id)

    def requests(
        self,
        *,
        group: str | None = None,
        states: Iterable[State] | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> list[BackfillRequest]:
        """Backfills, the newest first.

        Args:
            group: Only those with windows of this group.
            states: Only those in one of these states.
            since: Only those requested then or later.
        """
        chosen = select(REQUESTS).order_by(REQUESTS.c.requested_at.desc(), REQUESTS.c.backfill_id).limit(limit)
        if group is not None:
            chosen = chosen.where(
                REQUESTS.c.backfill_id.in_(select(GROUPS.c.backfill_id).where(GROUPS.c.group_name == group))
            )
        if states is not None:
            chosen = chosen.where(REQUESTS.c.state.in_(list(states)))
        if since is not None:
            chosen = chosen.where(REQUESTS.c.requested_at >= since)
        with self._database.reading() as connection:
            return read_requests(connection, chosen)

    def decide(self, backfill_id: str, state: State, entry: AuditEntry) -> BackfillRequest:
        """Put a backfill in another state, with the audit entry that says who did and why, in one transaction.

        Of several who decide at once exactly one does. The one who did may say the same again: nothing happens.

        Args:
            state: 'approved', 'rejected', 'refused' and 'cancelled' from 'pending'; 'rolled_back' from 'admitted' and 'approved'.
            entry: Its reason becomes that of the request.

        Raises:
            UnknownName: there is no such backfill.
            AlreadyDecided: it is in a state that this one does not follow, or someone else has decided the same.
        """
        if entry.backfill_id != backfill_id:
            raise InvalidInput(f"An audit entry of backfill {entry.backfill_id!r} cannot decide {backfill_id!r}.")
        with self._database.writing() as connection:
            request = get_request(connection, backfill_id)
            decision = read_decisions(connection, [backfill_id]).get(backfill_id)
            if request.state == state and decision is not None and decision.person == entry.person:
                return request
            if request.state not in BEFORE.get(state, ()):
                raise AlreadyDecided(_refusal(request, state.replace("_", " "), decision))
            connection.execute(
                update(REQUESTS).where(REQUESTS.c.backfill_id == backfill_id).values(state=state, reason=entry.reason)
            )
            append_entry(connection, entry, state)
            return get_request(connection, backfill_id)

    def require_may_run(self, backfill_id: str) -> None:
        """Refuse a backfill that is known and may not run: rolled back since, rejected, or never decided on.

        Raises:
            AlreadyDecided: it is in such a state; the message says since when, by whom and why.
        """
        with self._database.reading() as connection:
            request = find_request(connection, backfill_id)
            if request is None or request.may_run:
                return
            decision = read_decisions(connection, [backfill_id]).get(backfill_id)
        raise AlreadyDecided(_refusal(request, "computed", decision))

    def note(self, entry: AuditEntry) -> None:
        """Add an audit entry that changes no state."""
        with self._database.writing() as connection:
            append_entry(connection, entry, None)

    def audit(self, backfill_id: str) -> list[AuditEntry]:
        """What was done to a backfill, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(*ENTRY).where(AUDIT.c.backfill_id == backfill_id).order_by(AUDIT.c.number))
            return [AuditEntry(**row._mapping) for row in rows]

    def entries_after(
        self, number: int, *, actions: Iterable[str] | None = None, limit: int = 100
    ) -> list[tuple[int, AuditEntry]]:
        """Audit entries of all backfills after a number, with their numbers, which grow in the order of commits.

        Whoever keeps the last number that it saw as its cursor misses none; 0 reads from the start.
        """
        chosen = select(AUDIT.c.number, *ENTRY).where(AUDIT.c.number > number).order_by(AUDIT.c.number).limit(limit)
        if actions is not None:
            chosen = chosen.where(AUDIT.c.action.in_(list(actions)))
        with self._database.reading() as connection:
            return [(row[0], AuditEntry(*row[1:])) for row in connection.execute(chosen)]

    def decisions(self, backfill_ids: Iterable[str]) -> dict[str, AuditEntry]:
        """The newest decision on each backfill that a person has decided on."""
        with self._database.reading() as connection:
            return read_decisions(connection, list(backfill_ids))

    def spent_usd(self, group: str, since: datetime) -> float:
        """Sum of a group's estimates in backfills that were admitted without approval since an instant, in USD.

        A backfill counts from when it was recorded, and still counts after it is rolled back.
        """
        spent = (
            select(func.coalesce(func.sum(GROUPS.c.cost_usd), 0.0))
            .join(REQUESTS)
            .where(GROUPS.c.group_name == group, REQUESTS.c.admitted_at >= since)
        )
        with self._database.reading() as connection:
            return float(connection.execute(spent).scalar_one())

    def keep(self, backfill_id: str, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Keep a document with a backfill, e.g. a diff of one group, in the place of an earlier one."""
        place = {"backfill_id": backfill_id, "kind": kind, "name": name}
        with self._database.writing() as connection:
            connection.execute(delete(KEPT).filter_by(**place))
            connection.execute(insert(KEPT).values(**place, document=document))

    def kept(self, backfill_id: str, kind: str) -> dict[str, dict[str, Any]]:
        """The documents of a kind, by name."""
        chosen = select(KEPT.c.name, KEPT.c.document).filter_by(backfill_id=backfill_id, kind=kind)
        with self._database.reading() as connection:
            return {row.name: row.document for row in connection.execute(chosen.order_by(KEPT.c.name))}


def _check(request: BackfillRequest) -> None:
    if request.state not in ("pending", "admitted", "refused"):
        raise InvalidInput(
            f"Backfill {request.backfill_id!r} cannot be recorded as {request.state!r}: it is recorded as pending, "
            "admitted or refused, and decided afterwards."
        )
    for part in request.groups:
        if not (math.isfinite(part.cost_usd) and part.cost_usd >= 0):
            raise InvalidInput(
                f"Backfill {request.backfill_id!r}: the estimate of {part.group!r} is {part.cost_usd} USD. "
                "It is a sum of 0 or more."
            )


def _refusal(request: BackfillRequest, wish: str, decision: AuditEntry | None) -> str:
    was = request.state.replace("_", " ")
    whom = f"was {was} by {decision.person} at {decision.at:%Y-%m-%d %H:%M} UTC" if decision else f"is {was}"
    why = f" ({request.reason})" if request.reason else ""
    return f"Backfill {request.backfill_id!r} cannot be {wish}: it {whom}{why}. {NEXT[request.state]}"
