"""Requests and audit entries as rows, within a transaction that someone else begins and ends."""

import difflib
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select

from featurestore.errors import UnknownName
from featurestore.metadata.request import AuditEntry, BackfillRequest, RequestedWindows, State
from featurestore.metadata.tables import AUDIT, GROUPS, REQUESTS

REMEMBERED = 1_000
SHOWN = 5
FACTS = [column.name for column in fields(BackfillRequest) if column.name != "groups"]
ENTRY = [AUDIT.c[column.name] for column in fields(AuditEntry)]


def insert_request(connection: Connection, request: BackfillRequest, now: datetime) -> None:
    facts = {name: getattr(request, name) for name in FACTS}
    connection.execute(insert(REQUESTS).values(**facts, admitted_at=now if request.state == "admitted" else None))
    for position, part in enumerate(request.groups):
        connection.execute(
            insert(GROUPS).values(
                backfill_id=request.backfill_id,
                position=position,
                group_name=part.group,
                keys=list(part.keys),
                estimate=part.estimate,
                cost_usd=part.cost_usd,
            )
        )
    details = {"state": request.state}
    append_entry(
        connection,
        AuditEntry(request.backfill_id, now, "requested", request.requested_by, "", request.reason, details),
        None,
    )


def append_entry(connection: Connection, entry: AuditEntry, state: State | None) -> None:
    values = {column.name: getattr(entry, column.name) for column in fields(AuditEntry)}
    connection.execute(insert(AUDIT).values(**values, decided_state=state))


def find_request(connection: Connection, backfill_id: str) -> BackfillRequest | None:
    return next(iter(read_requests(connection, select(REQUESTS).where(REQUESTS.c.backfill_id == backfill_id))), None)


def get_request(connection: Connection, backfill_id: str) -> BackfillRequest:
    found = find_request(connection, backfill_id)
    if found is None:
        raise _unknown(connection, backfill_id)
    return found


def _unknown(connection: Connection, backfill_id: str) -> UnknownName:
    newest = select(REQUESTS.c.backfill_id).order_by(REQUESTS.c.requested_at.desc()).limit(REMEMBERED)
    known = list(connection.execute(newest).scalars())
    close = difflib.get_close_matches(backfill_id, known, n=SHOWN)
    there = f"The newest are {known[:SHOWN]}." if known else "There is none yet."
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return UnknownName(
        f"Backfill {backfill_id!r} is not in the metadata database. If it was launched just now, it is not assessed yet: "
        f"featurestore backfill status {backfill_id}. {there}{hint}"
    )


def read_requests(connection: Connection, chosen: Select[Any]) -> list[BackfillRequest]:
    rows = connection.execute(chosen).all()
    groups: dict[str, list[RequestedWindows]] = {row.backfill_id: [] for row in rows}
    parts = select(GROUPS).where(GROUPS.c.backfill_id.in_(groups)).order_by(GROUPS.c.backfill_id, GROUPS.c.position)
    for part in connection.execute(parts) if groups else ():
        groups[part.backfill_id].append(RequestedWindows(part.group_name, tuple(part.keys), part.estimate))
    return [_request(row, groups[row.backfill_id]) for row in rows]


def _request(row: Row[Any], groups: Sequence[RequestedWindows]) -> BackfillRequest:
    return BackfillRequest(**{name: row._mapping[name] for name in FACTS}, groups=tuple(groups))


def read_decisions(connection: Connection, backfill_ids: Sequence[str]) -> dict[str, AuditEntry]:
    chosen = (
        select(*ENTRY)
        .where(AUDIT.c.backfill_id.in_(backfill_ids), AUDIT.c.decided_state.is_not(None))
        .order_by(AUDIT.c.number)
    )
    return {row.backfill_id: AuditEntry(**row._mapping) for row in connection.execute(chosen)}
