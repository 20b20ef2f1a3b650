"""The tables of backfills, API keys, freshness and alerts in the metadata database, and how their values lie in columns.

Instants are `timestamptz` in PostgreSQL and ISO text in UTC in SQLite; both keep microseconds and come back aware.
Documents are JSON text. Not here: what is written when.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from featurestore.errors import InvalidInput


class Instant(TypeDecorator[datetime]):
    """An aware instant, in and out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise InvalidInput(f"Time {value.isoformat()} has no zone. Pass an aware time, in UTC.")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Document(TypeDecorator[Any]):
    """Lists and mappings of plain values; NaN and the infinities too, which Python's JSON reads back."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str:
        try:
            return json.dumps(dict(value) if isinstance(value, Mapping) else value)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"This document cannot be kept: {error}. Pass what JSON knows.") from error

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class PlainText(TypeDecorator[str]):
    """Text that both databases can hold: no NUL, and nothing that UTF-8 has no form for."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        if value is not None and ("\0" in value or not _is_utf8(value)):
            raise InvalidInput(f"Text {value!r} holds a NUL or half a character. Leave it out.")
        return value


def _is_utf8(text: str) -> bool:
    return text.encode(errors="ignore").decode() == text


METADATA = MetaData()

SCHEMA = Table(
    "featurestore_schema",
    METADATA,
    Column("part", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
)

REQUESTS = Table(
    "backfill_request",
    METADATA,
    Column("backfill_id", PlainText, primary_key=True),
    Column("requested_at", Instant, nullable=False, index=True),
    Column("requested_by", PlainText, nullable=False),
    Column("strategy", String(16), nullable=False),
    Column("accept_shift", Boolean, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", PlainText, nullable=False),
    Column("admitted_at", Instant, index=True),
)
"""`admitted_at` stays when an admitted backfill is taken back: its cost was spent without approval all the same."""

GROUPS = Table(
    "backfill_group",
    METADATA,
    Column("backfill_id", ForeignKey(REQUESTS.c.backfill_id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("group_name", PlainText, nullable=False, index=True),
    Column("keys", Document, nullable=False),
    Column("estimate", Document, nullable=False),
    Column("cost_usd", Float, nullable=False),
)

AUDIT = Table(
    "backfill_audit",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("backfill_id", PlainText, nullable=False, index=True),
    Column("at", Instant, nullable=False),
    Column("action", PlainText, nullable=False),
    Column("person", PlainText, nullable=False),
    Column("os_user", PlainText, nullable=False),
    Column("reason", PlainText, nullable=False),
    Column("details", Document, nullable=False),
    Column("decided_state", String(16)),
    sqlite_autoincrement=True,
)
"""Only ever appended to. `decided_state` is the state that the entry put its backfill in, null where it changed none."""

KEPT = Table(
    "backfill_document",
    METADATA,
    Column("backfill_id", PlainText, primary_key=True),
    Column("kind", PlainText, primary_key=True),
    Column("name", PlainText, primary_key=True),
    Column("document", Document, nullable=False),
)

KEYS = Table(
    "api_key",
    METADATA,
    Column("key_id", String(32), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("name", PlainText, nullable=False),
    Column("owner", PlainText, nullable=False),
    Column("note", PlainText, nullable=False),
    Column("actions", Document, nullable=False),
    Column("services", Document, nullable=False),
    Column("groups", Document, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    Column("last_used_at", Instant),
)
"""`last_used_at` is cut off to the hour. Who created and revoked a key is in its audit."""

KEY_AUDIT = Table(
    "api_key_audit",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("key_id", String(32), nullable=False, index=True),
    Column("at", Instant, nullable=False),
    Column("action", String(16), nullable=False),
    Column("person", PlainText, nullable=False),
    Column("os_user", PlainText, nullable=False),
    Column("reason", PlainText, nullable=False),
    Column("details", Document, nullable=False),
    sqlite_autoincrement=True,
)
"""Only ever appended to, so its highest number tells whether any key was created or revoked since."""


CONFIRMED = Table(
    "freshness_confirmed",
    METADATA,
    Column("group_name", PlainText, primary_key=True),
    Column("at", Instant, nullable=False),
)
"""When each group was last confirmed to hold everything that was due."""

FRESHNESS = Table(
    "freshness_status",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("group_name", PlainText, nullable=False, index=True),
    Column("since", Instant, nullable=False, index=True),
    Column("status", String(8), nullable=False),
    Column("causes", Document, nullable=False),
    sqlite_autoincrement=True,
)
"""A row whenever a group's status became another: it holds until the group's next row."""

LAGS = Table(
    "freshness_lag",
    METADATA,
    Column("group_name", PlainText, primary_key=True),
    Column("at", Instant, primary_key=True, index=True),
    Column("status", String(8), nullable=False),
    Column("materialization_seconds", Float),
    Column("data_seconds", Float),
    Column("online_seconds", Float),
)
"""Lags now and then, for pictures; null where there was nothing to measure by."""

LOOKED = Table(
    "freshness_looked",
    METADATA,
    Column("group_name", PlainText, primary_key=True),
    Column("first_at", Instant, nullable=False),
    Column("last_at", Instant, nullable=False),
    Column("lag_at", Instant, nullable=False),
)
"""When each group was looked at first and last, and when its lags were last kept. Without a row nothing is known of its past."""

GAPS = Table(
    "freshness_gap",
    METADATA,
    Column("group_name", PlainText, primary_key=True),
    Column("since", Instant, primary_key=True),
    Column("until", Instant, nullable=False, index=True),
)
"""From which look to which one a group was not looked at for so long that nothing is known of the time between."""

THINNED = Table("freshness_thinned", METADATA, Column("until", Instant, primary_key=True))
"""One row: before this instant a group has one row of lags in each step of the pictures, at most."""


EPISODES = Table(
    "alert_episode",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("episode_id", String(32), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("group_name", PlainText, nullable=False, index=True),
    Column("watched", Document, nullable=False),
    Column("problem", Document, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("ended_at", Instant, index=True),
    Column("told", Document, nullable=False),
    Column("notices", Integer, nullable=False),
    sqlite_autoincrement=True,
)
"""A row for each problem of a group, from the look that found it to the look that did not any more; `ended_at` is null until then."""

OUTBOX = Table(
    "alert_outbox",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("sink", PlainText, nullable=False, index=True),
    Column("notice_id", String(48), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("group_name", PlainText, nullable=False),
    Column("notice", Document, nullable=False),
    Column("made_at", Instant, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("delivered_at", Instant, index=True),
    Column("error", PlainText, nullable=False),
    UniqueConstraint("sink", "notice_id"),
    sqlite_autoincrement=True,
)
"""A row for each notice and each sink that is to have it, made in the transaction that changed the episode."""

SINKS = Table(
    "alert_sink",
    METADATA,
    Column("sink", PlainText, primary_key=True),
    Column("leased_by", String(32), nullable=False),
    Column("leased_until", Instant),
    Column("failures", Integer, nullable=False),
    Column("due_at", Instant),
    Column("repeated_at", Instant),
    Column("error", PlainText, nullable=False),
)
"""How each sink stands: who delivers to it just now, how often in a row it could not be reached, and when it is tried again."""


@dataclass(frozen=True, slots=True)
class Part:
    """Tables that are made together, beside other parts' in one database, and have a version of their own."""

    name: str
    version: int
    tables: tuple[Table, ...]


BACKFILLS = Part("backfills", 1, (REQUESTS, GROUPS, AUDIT, KEPT))
API_KEYS = Part("api_keys", 1, (KEYS, KEY_AUDIT))
FRESHNESS_KEPT = Part("freshness", 1, (CONFIRMED, FRESHNESS, LAGS))
FRESHNESS_LOOKS = Part("freshness_looks", 1, (LOOKED, GAPS, THINNED))
"""A part of its own: a database of the version before gets it beside what it has, and that version goes on beside it."""
ALERTS = Part("alerts", 1, (EPISODES, OUTBOX, SINKS))

HEARTBEATS = Table(
    "run_heartbeat",
    METADATA,
    Column("run_id", String(64), primary_key=True),
    Column("host", PlainText, primary_key=True),
    Column("machine", PlainText, primary_key=True),
    Column("pid", Integer, primary_key=True),
    Column("started", BigInteger, primary_key=True),
    Column("began_at", Instant, nullable=False),
    Column("beat_at", Instant, nullable=False),
    Column("beats", Integer, nullable=False),
    Column("doing", PlainText, nullable=False),
    Column("idle_seconds", Float, nullable=False),
    Column("silent_seconds", Float, nullable=False),
    Column("looked_at", Instant),
)
"""A row for each process that works on a run; `looked_at` and `silent_seconds` are the looks', and a beat sets them back."""

STUCK = Table(
    "run_stuck",
    METADATA,
    Column("run_id", String(64), primary_key=True),
    Column("assets", Document, nullable=False),
    Column("why", String(8), nullable=False),
    Column("since", Instant, nullable=False),
    Column("silent_seconds", Float, nullable=False),
    Column("host", PlainText, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("doing", PlainText, nullable=False),
    Column("found_at", Instant, nullable=False, index=True),
    Column("done", PlainText, nullable=False),
    Column("retried_as", String(64)),
    Column("over_at", Instant, index=True),
    Column("outcome", PlainText, nullable=False),
)
"""A row for each run that was ended because it stood still; open until `over_at` is set."""

HEARTBEATS_KEPT = Part("heartbeats", 1, (HEARTBEATS, STUCK))
