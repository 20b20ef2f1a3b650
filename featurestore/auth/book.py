"""The book of API keys in the metadata database: created, listed, revoked, and by whom. Not here: who may do so.

Of a key only its hash is kept (`key.py`). Every change has its audit entry in the same transaction, and the number of the
newest entry tells a reader whether anything changed.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import URL, Connection, Row, Select, Text, func, insert, select, type_coerce, update

from featurestore.auth.caller import Rights
from featurestore.auth.key import KEY_ID, digest_of, make_key
from featurestore.clock import Clock, system_clock
from featurestore.errors import InvalidInput, unknown_name
from featurestore.metadata.database import Database
from featurestore.metadata.tables import API_KEYS, KEY_AUDIT, KEYS

AUDITED = (KEY_AUDIT.c.key_id, KEY_AUDIT.c.at, KEY_AUDIT.c.action, KEY_AUDIT.c.person, KEY_AUDIT.c.os_user)
AUDITED_WHY = (KEY_AUDIT.c.reason, KEY_AUDIT.c.details)
LISTS = ("actions", "services", "groups")
READ = [type_coerce(column, Text).label(column.name) if column.name in LISTS else column for column in KEYS.c]
"""Lists are read as text: one that cannot be read fails its key alone."""

log = logging.getLogger("featurestore.auth")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is kept.

    Args:
        key_id: Public.
        sha256: Of the whole key, in hexadecimal.
        name: What it is for, in a word or two.
        owner: Who answers for it: 'team:...' or an e-mail address.
        note: For people.
        rights: What it allows.
        created_at: UTC.
        expires_at: From then on it is refused; None: never.
        revoked_at: When it was revoked; None: it was not.
        last_used_at: The hour, UTC, in which it was last used, as far as servers have said; None: not yet.
    """

    key_id: str
    sha256: str = field(repr=False)
    name: str
    owner: str
    note: str
    rights: Rights
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def state(self, now: datetime) -> str:
        """'active', 'expired' or 'revoked'."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """Something that someone did to a key: `action` is 'created' or 'revoked'."""

    key_id: str
    at: datetime
    action: str
    person: str
    os_user: str
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


class KeyBook:
    """API keys and their audit, in one metadata database. Several processes and threads may use it at once.

    Args:
        database: Where it is; `prepare` makes the tables.
        clock: When keys are created and revoked.
    """

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    def open(cls, url: str | URL, clock: Clock = system_clock) -> "KeyBook":
        """The book at a URL, with its tables made if there are none.

        Raises:
            InvalidInput: the URL cannot be used, or the tables are of another version of this library.
            StoreUnavailable: the database cannot be reached.
        """
        book = cls(Database(url), clock)
        book.prepare()
        return book

    def __repr__(self) -> str:
        return f"KeyBook({self.address!r})"

    @property
    def address(self) -> str:
        """Where the database is; never a password."""
        return self._database.address

    def prepare(self) -> None:
        """Make the tables if there are none."""
        self._database.prepare(API_KEYS)

    def create(
        self,
        name: str,
        rights: Rights,
        *,
        owner: str,
        person: str,
        expires_at: datetime | None,
        note: str = "",
        os_user: str = "",
    ) -> tuple[StoredKey, str]:
        """Make a key and keep its hash.

        Args:
            person: Who makes it, for the audit.
            expires_at: From then on it is refused; None: never.

        Returns:
            What is kept, and the key itself, which nothing can show again.

        Raises:
            InvalidInput: it has no name or owner, or expires in the past.
        """
        now = self._clock()
        if not (name.strip() and owner.strip()):
            raise InvalidInput("A key has a name and an owner, so that people know whom to ask. Give both.")
        if expires_at is not None and expires_at <= now:
            raise InvalidInput(f"A key that expires at {expires_at.isoformat()} is of no use: it is {now.isoformat()}.")
        key_id, key = make_key()
        stored = StoredKey(key_id, digest_of(key), name, owner, note, rights, now, expires_at)
        details = {"name": name, "owner": owner, **_scopes(rights), "expires_at": expires_at and expires_at.isoformat()}
        with self._database.writing() as connection:
            connection.execute(insert(KEYS).values(_columns(stored)))
            _append(connection, KeyEntry(key_id, now, "created", person, os_user, note, details))
        return stored, key

    def revoke(self, key_id: str, *, person: str, reason: str, os_user: str = "") -> StoredKey:
        """Refuse a key from now on; one that is revoked stays as it is, and says since when.

        Args:
            key_id: The id; `fs_<id>` and a whole key are taken too.

        Raises:
            UnknownName: there is none of that id.
            InvalidInput: it is not of the form of one.
        """
        now, key_id = self._clock(), _id_of(key_id)
        with self._database.writing() as connection:
            before = _find(connection, key_id)
            if before.revoked_at is None:
                connection.execute(update(KEYS).where(KEYS.c.key_id == key_id).values(revoked_at=now))
                _append(connection, KeyEntry(key_id, now, "revoked", person, os_user, reason))
            return _find(connection, key_id)

    def all_keys(self) -> list[StoredKey]:
        """Every key, the newest first."""
        with self._database.reading() as connection:
            return _read(connection, select(*READ).order_by(KEYS.c.created_at.desc(), KEYS.c.key_id))

    def audit(self, key_id: str | None = None) -> list[KeyEntry]:
        """What was done to a key, or to all, the oldest first."""
        chosen = select(*AUDITED, *AUDITED_WHY).order_by(KEY_AUDIT.c.number)
        if key_id is not None:
            chosen = chosen.where(KEY_AUDIT.c.key_id == key_id)
        with self._database.reading() as connection:
            return [KeyEntry(**row._mapping) for row in connection.execute(chosen)]

    def changes(self) -> int:
        """A number that is another after each change of any key; cheap to ask."""
        with self._database.reading() as connection:
            return _newest(connection)

    def snapshot(self) -> tuple[int, dict[str, StoredKey]]:
        """That number, and the keys by id as of it."""
        with self._database.reading() as connection:
            number = _newest(connection)  # read first: what comes in between is read again, never missed
            return number, {key.key_id: key for key in _read(connection, select(*READ))}

    def note_used(self, hours: Mapping[str, datetime]) -> None:
        """Record the hour in which each of some keys was used, where that is later than what is there."""
        with self._database.writing() as connection:
            for key_id, hour in hours.items():
                is_later = KEYS.c.last_used_at.is_(None) | (KEYS.c.last_used_at < hour)
                connection.execute(update(KEYS).where(KEYS.c.key_id == key_id, is_later).values(last_used_at=hour))


def _newest(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(KEY_AUDIT.c.number), 0))).scalar_one())


def _id_of(text: str) -> str:
    """What was given is not repeated: it may be a secret that was pasted in the place of an id."""
    key_id = text.strip().removeprefix("fs_").partition("_")[0]
    if not KEY_ID.fullmatch(key_id):
        raise InvalidInput("This is not the id of a key. An id has twelve characters, 0-9 and a-f; list the keys.")
    return key_id


def _find(connection: Connection, key_id: str) -> StoredKey:
    found = _read(connection, select(*READ).where(KEYS.c.key_id == key_id))
    if not found:
        known = connection.execute(select(KEYS.c.key_id)).scalars()
        raise unknown_name("Key", key_id, known, "The metadata database")
    return found[0]


def _append(connection: Connection, entry: KeyEntry) -> None:
    values = {column.name: getattr(entry, column.name) for column in (*AUDITED, *AUDITED_WHY)}
    connection.execute(insert(KEY_AUDIT).values(values))


def _scopes(rights: Rights) -> dict[str, list[str]]:
    return {"actions": list(rights.actions), "services": list(rights.services), "groups": list(rights.groups)}


def _columns(key: StoredKey) -> dict[str, Any]:
    plain = {column.name: getattr(key, column.name) for column in KEYS.c if hasattr(key, column.name)}
    return {**plain, **_scopes(key.rights)}


def _read(connection: Connection, chosen: Select[Any]) -> list[StoredKey]:
    return [key for row in connection.execute(chosen) if (key := _stored(row)) is not None]


def _stored(row: Row[Any]) -> StoredKey | None:
    """A key from its row; None, which no caller gets past, for a row that was damaged by hand: the others stay good."""
    facts = dict(row._mapping)
    try:
        rights = Rights(*(_scopes_in(facts.pop(name)) for name in LISTS))
    except (InvalidInput, ValueError) as error:
        log.warning("Key %s is refused, what it allows cannot be read: %s", row.key_id, error)
        return None
    return StoredKey(**facts, rights=rights)


def _scopes_in(text: str) -> tuple[Any, ...]:
    """A text taken for a list of its characters could allow anything, so the form is checked."""
    scopes = json.loads(text)
    if not (isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)):
        raise InvalidInput("it is not kept as lists of names.")
    return tuple(scopes)
