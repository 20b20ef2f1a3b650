"""How far a backfill is: by Dagster's runs, by the store's ledger and commits, and by the book. Each may know nothing of it.

What is left of one that failed or was cut short is done by others that carry it on; they count with it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from featurestore.backfill.dagster_api import page_url, run_failure
from featurestore.backfill.footprint import cadence_of
from featurestore.backfill.outcome import ended_windows, left_windows, standing_windows, taken_back, written_bytes
from featurestore.backfill.progress import EndedWindow, Progress, progress_of
from featurestore.cli.backfill.attempts import Attempt, Attempts, find_attempts
from featurestore.cli.backfill.progress_text import status_text
from featurestore.cli.deployment import Deployment
from featurestore.errors import FeatureStoreError, UnknownName
from featurestore.metadata.request import BackfillRequest
from featurestore.offline.ledger import LedgerEntry
from featurestore.offline.store import OfflineStore

__all__ = ["status", "status_text"]

OFFLINE = "offline"

Ended = Mapping[str, Sequence[LedgerEntry]]
Left = Mapping[str, int]
"""How many windows of each group were looked at and left as they were."""


def status(deployment: Deployment, dagster_url: str, backfill_id: str) -> dict[str, Any]:
    """How far a backfill is; one that carries on another is shown with that one.

    Raises:
        UnknownName: neither the book nor Dagster nor the store knows it.
    """
    attempts, store = find_attempts(deployment.book, dagster_url, backfill_id), deployment.store.offline
    if (first := attempts.first.resumes) is not None:
        return status(deployment, dagster_url, first)
    asked = _asked(attempts.first)
    ended = _ended(store, attempts, asked)
    if not attempts.is_known and not any(ended.values()):
        raise UnknownName(
            f"Backfill {backfill_id!r} is not in the book, and no window of the store is of it. {attempts.note} "
            "'featurestore backfill list' has the ids."
        )
    left = {name: len(left_windows(store, name, entries, *attempts.ids)) for name, entries in ended.items()}
    sizes = {name: written_bytes(store, name, entries, *attempts.ids) for name, entries in ended.items()}
    progress = _progress(deployment.clock(), attempts, asked, ended, left, sum(sizes.values()))
    groups = [
        _group_document(store, name, asked.get(name, 0), ended[name], left[name], sizes[name])
        | {"taken_back": len(taken_back(store, name, ended[name], *attempts.ids))}
        for name in ended
    ]
    return {
        "backfill_id": backfill_id,
        "at": deployment.clock(),
        "is_over": _is_over(attempts, asked, ended, left),
        "note": attempts.note,
        "attempts": [
            _attempt_document(attempt, dagster_url, bool(progress.waiting))
            | {"standing": _standing(store, attempt, ended)}
            for attempt in attempts.all
        ],
        "progress": _progress_document(progress)
        | {"taken_back": sum(group["taken_back"] for group in groups)}
        | {"since": "request" if attempts.last.dagster is None else "first run"},
        "groups": groups,
    }


def _asked(first: Attempt) -> dict[str, int]:
    """How many windows of each group are asked for, as far as anyone knows."""
    if first.request is not None:
        return {part.group: len(part.keys) for part in first.request.groups}
    counted = first.dagster.partitions if first.dagster is not None else {}
    return {path[-1]: counts["targeted"] for path, counts in counted.items() if path[0] == OFFLINE}


def _ended(store: OfflineStore, attempts: Attempts, asked: Mapping[str, int]) -> Ended:
    """How the windows of each group ended; of every group, if nobody knows which ones were asked for."""
    known = [name for name in asked if name in store.registry.groups]
    windowed = [group.name for group in store.registry.groups.values() if group.has_windows]
    ended = {name: ended_windows(store, name, *attempts.ids) for name in known or windowed}
    return {name: entries for name, entries in ended.items() if entries or name in known}


def _progress(
    now: datetime, attempts: Attempts, asked: Mapping[str, int], ended: Ended, left: Left, size_bytes: int
) -> Progress:
    windows = [
        EndedWindow(entry.recorded_at, entry.status == "promoted", entry.rows)
        for entries in ended.values()
        for entry in entries
    ]
    return progress_of(
        sum(asked.values()),
        windows,
        began_at=_began_at(attempts.last, bool(windows)),
        now=now,
        over_at=_over_at(now, attempts.last, windows) if _is_over(attempts, asked, ended, left) else None,
        estimated_seconds=_estimated_seconds(attempts.first.request),
        written_bytes=size_bytes,
        current=sum(left.values()),
    )


def _began_at(last: Attempt, has_windows: bool) -> datetime | None:
    """The start of its first run; without Dagster, when it was asked for, if it has done anything."""
    if last.dagster is not None:
        return last.dagster.began_at
    return last.request.requested_at if last.request is not None and has_windows else None


def _is_over(attempts: Attempts, asked: Mapping[str, int], ended: Ended, left: Left) -> bool:
    """Whether no attempt is under way in Dagster; where that is not known, whether every window has ended."""
    in_dagster = [attempt for attempt in attempts.all if attempt.dagster is not None]
    if in_dagster or attempts.last.is_over:
        return all(attempt.is_over for attempt in in_dagster)
    done = {name: len(entries) + left[name] for name, entries in ended.items()}
    return bool(asked) and all(done.get(name, 0) >= count for name, count in asked.items())


def _over_at(now: datetime, last: Attempt, windows: Sequence[EndedWindow]) -> datetime:
    if last.dagster is not None and last.dagster.ended_at is not None:
        return last.dagster.ended_at
    return max((window.ended_at for window in windows), default=now)


def _estimated_seconds(request: BackfillRequest | None) -> float | None:
    parts = [part.estimate for part in request.groups] if request is not None else []
    known = [part for part in parts if "compute_seconds" in part]
    return sum(part["compute_seconds"] + part.get("overhead_seconds", 0.0) for part in known) if known else None


def _attempt_document(attempt: Attempt, url: str, is_cut_short: bool) -> dict[str, Any]:
    return {
        "backfill_id": attempt.backfill_id,
        "request": _request_document(attempt),
        "dagster": _dagster(attempt, url),
        "failures": _failures(attempt, url) if is_cut_short else [],
    }


def _failures(attempt: Attempt, url: str) -> list[str]:
    """Why the first of its runs that failed did: the others mostly fail for the same reason."""
    failed = attempt.dagster.failed_runs if attempt.dagster is not None else ()
    return [f"Run {run_id} failed. {why}" for run_id in failed[:1] if (why := _why(url, run_id))]


def _why(url: str, run_id: str) -> str:
    """The rest of the status is known by now: it is shown whether or not Dagster still answers."""
    try:
        return run_failure(url, run_id)
    except FeatureStoreError as error:
        return f"Why cannot be read: {error}"


def _request_document(attempt: Attempt) -> dict[str, Any] | None:
    request = attempt.request
    if request is None:
        return None
    return {
        "state": request.state,
        "reason": request.reason,
        "requested_at": request.requested_at,
        "requested_by": request.requested_by,
        "strategy": request.strategy,
        "cost_usd": request.cost_usd,
        "estimated_seconds": _estimated_seconds(request),
    }


def _dagster(attempt: Attempt, url: str) -> dict[str, Any] | None:
    found = attempt.dagster
    if found is None:
        return None
    return {
        "url": page_url(url, found.backfill_id, is_run=found.is_run),
        "status": found.status,
        "error": found.error,
        "runs": dict(found.run_states),
        "partitions": {"/".join(path): dict(counts) for path, counts in found.partitions.items()},
    }


def _progress_document(progress: Progress) -> dict[str, Any]:
    return {
        "windows": progress.windows,
        "promoted": progress.promoted,
        "held": progress.held,
        "current": progress.current,
        "waiting": progress.waiting,
        "fraction": progress.fraction,
        "rows": progress.rows,
        "written_bytes": progress.written_bytes,
        "seconds": progress.seconds,
        "seconds_left": progress.seconds_left,
        "rests_on": progress.rests_on,
    }


def _group_document(
    store: OfflineStore, name: str, asked: int, ended: Sequence[LedgerEntry], left: int, size_bytes: int
) -> dict[str, Any]:
    cadence = cadence_of(store.registry.group(name))
    promoted = [entry for entry in ended if entry.status == "promoted"]
    held = [entry for entry in ended if entry.status == "quarantined"]
    return {
        "group": name,
        "windows": max(asked, len(ended) + left),
        "promoted": len(promoted),
        "current": left,
        "held": [cadence.key_of(cadence.window_at(entry.window_start)) for entry in held],
        "rows": sum(entry.rows for entry in promoted),
        "written_bytes": size_bytes,
    }


def _standing(store: OfflineStore, attempt: Attempt, ended: Ended) -> int:
    """Of how many windows production holds the rows that an attempt has promoted."""
    return sum(len(standing_windows(store, name, attempt.backfill_id)) for name in ended)
