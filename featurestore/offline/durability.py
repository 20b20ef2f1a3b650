"""Making a commit survive a power cut on a local disk; delta-rs itself syncs nothing. An object store needs none of it."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from featurestore.location import Location
from featurestore.offline.log import LogEntry, entry_name, read_entry


def sync_commit(table: Location, entry: LogEntry) -> None:
    """Wait until a commit is on the disk: its data files, then its log entry and checkpoint, then their folders.

    Only after this may a commit be acknowledged. Files that a later clean-up took away are passed over.
    """
    if not table.is_local:
        return
    root = table.path
    data = [root / name for name in entry.added]
    log = root / entry_name(entry.version)
    _sync(data)
    _sync(_folders(data, root))
    _sync([log, log.with_suffix(".checkpoint.parquet"), log.parent / "_last_checkpoint"])
    _sync([log.parent, root, root.parent])


def sync_since(table: Location, before: int | None, after: int) -> None:
    """Make every commit after version `before` (None: of a new table) up to `after` durable."""
    if not table.is_local:
        return
    for version in range(0 if before is None else before + 1, after + 1):
        if (entry := read_entry(table, version)) is not None:
            sync_commit(table, entry)


def _folders(files: Iterable[Path], root: Path) -> list[Path]:
    parents = {parent for file in files for parent in file.parents if parent.is_relative_to(root)}
    return sorted(parents, reverse=True)


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
