"""Where registry snapshots live: content-addressed files, and an append-only sequence that says which one rules.

    {root}/registry/snapshots/<sha256>.json    a snapshot; its name is the digest of its bytes
    {root}/registry/history/00000001.json      who applied which snapshot when, and what changed; the last one rules

Both are written once and never changed. A history number has one winner; another apply at the same time reads the
winner's snapshot and compiles again on top of it, so that field numbers are given out once. Nothing here compiles.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime

from featurestore.clock import Clock
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.windows import utc
from featurestore.errors import InvalidInput, StaleWriter, UnknownName
from featurestore.location import Location
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.diff import Change, changes, refuse_incompatible, refuse_removals
from featurestore.registry.snapshot import RegistrySnapshot

APPLY_TRIES = 100
DECLARED = re.compile(r"^\+ ((?:group|source) \S+)(?: \(|$)")
ENTRY_NAME = re.compile(r"^history/(\d{8})\.json$")


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One apply that changed something. Numbers start at 1; `applied_at` is UTC."""

    number: int
    digest: str
    applied_at: datetime
    applied_by: str
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """The snapshot that rules after an apply, what changed, and whether anything was written."""

    snapshot: RegistrySnapshot
    changes: tuple[Change, ...]
    is_new: bool


@dataclass(frozen=True, slots=True)
class RegistryHistory:
    """The registry of one store.

    Args:
        location: The store's root; the registry's files are below its `registry`.
    """

    location: Location

    def current(self) -> RegistrySnapshot | None:
        """The snapshot that rules now; None before the first apply.

        Raises:
            InvalidInput: a file of the registry is missing or damaged.
            StoreUnavailable: the store cannot be reached.
        """
        number = self._last_number()
        return self.at(number) if number else None

    def require_current(self) -> RegistrySnapshot:
        """The snapshot that rules now.

        Raises:
            UnknownName: nothing has been applied yet.
            InvalidInput: a file of the registry is missing or damaged.
            StoreUnavailable: the store cannot be reached.
        """
        snapshot = self.current()
        if snapshot is None:
            raise UnknownName(
                f"The store at {self.location.uri} has no registry yet. Run `featurestore apply` where the feature "
                "groups are declared, or correct the store's root."
            )
        return snapshot

    def plan(self, catalog: Catalog) -> list[Change]:
        """What applying a catalogue would change now, incompatible changes included; nothing is written.

        Raises:
            DeclarationError, IncompatibleChange: field numbers do not suffice.
        """
        previous = self.current()
        return changes(previous, compile_snapshot(catalog, previous))

    def apply(self, catalog: Catalog, clock: Clock, applied_by: str, *, allow_removals: bool = False) -> ApplyResult:
        """Make a catalogue the store's registry; write nothing if it is so already.

        Of several applies at once each is compiled on top of the one before it. After an error the change may have been
        made: apply again, which then finds nothing to do.

        Args:
            catalog: Every declaration of the store, of all its teams.
            clock: Gives `applied_at`.
            applied_by: Who applies, for the history.
            allow_removals: Groups, services and sources that the catalogue leaves out are no longer declared.

        Raises:
            IncompatibleChange: stored rows cannot follow a change; the message lists all such changes.
            InvalidInput: the catalogue leaves out a group, service or source and that is not allowed; or a file of the
                registry is damaged.
            StaleWriter: others kept winning; try again.
            StoreUnavailable: the store cannot be reached.
        """
        for _ in range(APPLY_TRIES):
            last = self._last_number()
            previous = self.at(last) if last else None
            snapshot = compile_snapshot(catalog, previous)
            found = tuple(changes(previous, snapshot))
            refuse_incompatible(found)
            if not allow_removals:
                refuse_removals(found)
            if previous is not None and not found:
                return ApplyResult(previous, (), is_new=False)
            self._keep(snapshot)
            entry = HistoryEntry(last + 1, snapshot.digest, utc(clock()), applied_by, tuple(str(c) for c in found))
            if self._files.put_if_absent(_entry_name(entry.number), _entry_bytes(entry)):
                return ApplyResult(snapshot, found, is_new=True)
        raise StaleWriter(f"Other applies to {self.location.uri} won {APPLY_TRIES} times in a row. Apply again later.")

    def newest_number(self) -> int:
        """The number of the entry that rules now, for a cheap look whether anything changed; 0 before the first apply.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        return self._last_number()

    def entries(self) -> list[HistoryEntry]:
        """Every apply that changed something, oldest first.

        Raises:
            InvalidInput: an entry is missing or damaged.
        """
        return [self.entry(number) for number in range(1, self._last_number() + 1)]

    def declared_since(self) -> dict[str, datetime]:
        """Since when each 'group NAME' and 'source NAME' is declared: of one that was away for a time, since it returned.

        Raises:
            InvalidInput: an entry is missing or damaged.
        """
        since: dict[str, datetime] = {}
        for entry in self.entries():
            for change in entry.changes:
                if found := DECLARED.match(change):
                    since[found[1]] = entry.applied_at
        return since

    def entry(self, number: int) -> HistoryEntry:
        """One entry of the history.

        Raises:
            UnknownName: there is none of that number.
            InvalidInput: it is damaged, or missing from the middle.
        """
        data = self._files.read_bytes(_entry_name(number)) if number > 0 else None
        if data is not None:
            return _parse_entry(number, data, self._files)
        last = self._last_number()
        if 1 <= number <= last:
            raise _damaged(self._files, _entry_name(number), "is missing")
        raise UnknownName(f"The registry at {self._files.uri} has no entry {number}. It has {last}, numbered from 1.")

    def at(self, number: int) -> RegistrySnapshot:
        """The snapshot of a history entry.

        Raises:
            UnknownName: there is no entry of that number.
            InvalidInput: the entry or its snapshot is missing or damaged.
        """
        return self._read(self.entry(number).digest)

    def by_digest(self, digest: str) -> RegistrySnapshot:
        """The snapshot of a digest, whether it rules or not.

        Raises:
            UnknownName: there is none.
            InvalidInput: it is damaged.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or self._files.read_bytes(_snapshot_name(digest)) is None:
            raise UnknownName(
                f"The registry at {self._files.uri} has no snapshot {digest!r}. Its history names those that were applied."
            )
        return self._read(digest)

    @property
    def _files(self) -> Location:
        return self.location.child("registry")

    def _last_number(self) -> int:
        numbers = [int(match[1]) for name in self._files.names("history/") if (match := ENTRY_NAME.match(name))]
        return max(numbers, default=0)

    def _keep(self, snapshot: RegistrySnapshot) -> None:
        """Store a snapshot; one that is there already is checked."""
        if not self._files.put_if_absent(_snapshot_name(snapshot.digest), snapshot.to_json().encode()):
            self._read(snapshot.digest)

    def _read(self, digest: str) -> RegistrySnapshot:
        name = _snapshot_name(digest)
        data = self._files.read_bytes(name)
        if data is None:
            raise _damaged(self._files, name, "is missing")
        if hashlib.sha256(data).hexdigest() != digest:
            raise _damaged(self._files, name, f"does not hold what its name says ({len(data)} bytes)")
        return RegistrySnapshot.from_json(data.decode())


def _snapshot_name(digest: str) -> str:
    return f"snapshots/{digest}.json"


def _entry_name(number: int) -> str:
    return f"history/{number:08}.json"


def _entry_bytes(entry: HistoryEntry) -> bytes:
    body = {
        "digest": entry.digest,
        "applied_at": entry.applied_at.isoformat(timespec="microseconds"),
        "applied_by": entry.applied_by,
        "changes": list(entry.changes),
    }
    return (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode()


def _parse_entry(number: int, data: bytes, files: Location) -> HistoryEntry:
    try:
        body = json.loads(data)
        applied_at = utc(datetime.fromisoformat(body["applied_at"]))
        return HistoryEntry(number, str(body["digest"]), applied_at, str(body["applied_by"]), tuple(body["changes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(files, _entry_name(number), f"is not a history entry ({error})") from error


def _damaged(files: Location, name: str, fault: str) -> InvalidInput:
    return InvalidInput(
        f"The registry is damaged: {files.uri}/{name} {fault}. Restore that file from a backup or an earlier version of "
        "the bucket; nothing is applied until then, since field numbers could be given out twice."
    )
