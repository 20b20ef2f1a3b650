"""The Delta log read as what it says: each commit's files, and what this store wrote about it.

Entries are read from `_delta_log` itself. delta-rs' `history()` is not used: on a table opened at an earlier version it
counts its numbers back from that version over all commits, down to negative ones.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import unquote

from featurestore.declaration.windows import TimeWindow
from featurestore.errors import StoreUnavailable
from featurestore.location import Location

OWN_KEY = "featurestore"
NO_FENCE = 0

PUSHED_AT = "pushed_at"
"""In the metadata of a push's commit: the clock's instant at it, from which on its rows are known at the earliest."""

ROLLBACK_OF = "rollback_of"
"""In the metadata of a rollback's commit: the backfill that it took back."""
BACKFILL_ID = "backfill_id"
"""In the metadata of a promotion's commit: the backfill that it is of."""

Kind = Literal["windows", "load", "push", "compaction"]


@dataclass(frozen=True, slots=True)
class OwnCommit:
    """What this store writes into a commit of its own.

    Args:
        kind: An overwrite of windows, a load of a static group, a push, or a compaction, which changes no row.
        transaction: The caller's transaction id.
        digest: Hash of what was asked for: rows and windows.
        windows: The time whose rows changed, as merged spans.
        is_rewind: Some key's replaced or removed version is not followed by a higher one.
        previous_fence: The newest rewind before this commit, `NO_FENCE` if there was none.
        created_at: The `created_at` of the rows this commit changed.
        counts: Rows added, changed, removed and kept in the windows asked for.
        metadata: The caller's, e.g. its run id.
    """

    kind: Kind
    transaction: str
    digest: str = ""
    windows: tuple[TimeWindow, ...] = ()
    is_rewind: bool = False
    previous_fence: int = NO_FENCE
    created_at: datetime | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def run(self) -> str:
        return self.metadata.get("run_id", self.transaction)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "transaction": self.transaction,
            "digest": self.digest,
            "windows": [[w.start.isoformat(), w.end.isoformat()] for w in self.windows],
            "rewind": self.is_rewind,
            "previous_fence": self.previous_fence,
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "counts": dict(self.counts),
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "OwnCommit":
        spans = [(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in body["windows"]]
        return cls(
            kind=body["kind"],
            transaction=body["transaction"],
            digest=body["digest"],
            windows=tuple(TimeWindow(start, end) for start, end in spans),
            is_rewind=body["rewind"],
            previous_fence=body["previous_fence"],
            created_at=datetime.fromisoformat(body["created_at"]) if body["created_at"] else None,
            counts=body["counts"],
            metadata=body["metadata"],
        )


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One commit: its files by table-relative path, and our own words on it, if it is ours.

    `has_changed_data` is False for a commit that moves rows between files, or touches none; `added_bytes` is the size of
    the added files.
    """

    version: int
    operation: str
    own: OwnCommit | None
    added: tuple[str, ...]
    removed: tuple[str, ...]
    has_changed_data: bool
    added_bytes: int = 0


def entry_name(version: int) -> str:
    """A log entry's path below the table."""
    return f"_delta_log/{version:020d}.json"


def read_entry(table: Location, version: int) -> LogEntry | None:
    """The log entry of a version; None if it is not there (never was, or expired).

    Raises:
        StoreUnavailable: the entry is cut short, as a power cut on a local disk leaves it.
    """
    data = table.read_bytes(entry_name(version))
    return None if data is None else _parsed(table, version, data)


def _parsed(table: Location, version: int, data: bytes) -> LogEntry:
    try:
        actions = [json.loads(line) for line in data.splitlines() if line.strip()]
    except ValueError as error:
        raise cut_short(table, version) from error
    info = _info(actions)
    own = OwnCommit.from_json(info[OWN_KEY]) if OWN_KEY in info else None
    if not actions or (own is not None and not _is_whole(actions, info, own)):
        raise cut_short(table, version)
    moved = [action[verb] for action in actions for verb in ("add", "remove") if verb in action]
    return LogEntry(
        version=version,
        operation=str(info.get("operation", "unknown")),
        own=own,
        added=tuple(unquote(action["add"]["path"]) for action in actions if "add" in action),
        removed=tuple(unquote(action["remove"]["path"]) for action in actions if "remove" in action),
        has_changed_data=any(file.get("dataChange", True) for file in moved),
        added_bytes=sum(action["add"].get("size", 0) for action in actions if "add" in action),
    )


def _is_whole(actions: list[dict[str, Any]], info: Mapping[str, Any], own: OwnCommit) -> bool:
    """Whether a commit of ours has all its lines: cut between two lines, it would read as another commit."""
    if own.kind != "compaction":
        return any("txn" in action for action in actions)
    metrics = info.get("operationMetrics", {})
    wanted = {"add": metrics.get("numFilesAdded"), "remove": metrics.get("numFilesRemoved")}
    return all(sum(verb in action for action in actions) == count for verb, count in wanted.items())


def _info(actions: list[dict[str, Any]]) -> dict[str, Any]:
    return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})


def cut_short(table: Location, version: int) -> StoreUnavailable:
    return StoreUnavailable(
        f"Log entry {table.uri}/{entry_name(version)} is cut short: the machine stopped before that commit was acknowledged. "
        "Nothing acknowledged is lost. Move that one file away if it is the newest of its folder, and run its partitions again."
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """What every new commit carries on: the newest rewind, and the last `created_at` (None: look at the rows)."""

    fence: int
    last_created_at: datetime | None


def standing_at(table: Location, version: int) -> Standing:
    """What stood after a version, from the newest commit up to it that changed data.

    A commit that is not ours, or whose entry has expired, counts as a rewind: what it replaced is not known.
    """
    for earlier in range(version, -1, -1):
        entry = read_entry(table, earlier)
        if entry is None or (entry.has_changed_data and entry.own is None):
            return Standing(earlier, None)
        if entry.has_changed_data and entry.own is not None:
            return Standing(earlier if entry.own.is_rewind else entry.own.previous_fence, entry.own.created_at)
    return Standing(NO_FENCE, None)
