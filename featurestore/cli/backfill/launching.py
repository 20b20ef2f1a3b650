"""Launching backfills in Dagster from the command line, and launching what is left of one anew.

What would be done is planned first, in `planning.py`; a transform that fails its trial is never queued.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from featurestore.backfill.dagster_api import (
    Asset,
    AssetPath,
    check_partitions,
    find_backfill,
    launch_partition_backfill,
    page_url,
)
from featurestore.backfill.footprint import cadence_of
from featurestore.backfill.outcome import ended_windows, left_windows
from featurestore.backfill.tags import launch_of, launch_tags
from featurestore.cli.backfill.attempts import RESUMED, Attempt, Attempts, find_attempts
from featurestore.cli.backfill.planning import (
    PlannedGroup,
    approval_text,
    check_launch,
    chosen_windows,
    declared_catalog,
    group_text,
    plan,
    plan_document,
    plan_text,
    planned_group,
)
from featurestore.cli.deployment import Deployment
from featurestore.errors import AlreadyDecided, InvalidInput, UnknownName
from featurestore.launch import Launch
from featurestore.metadata.request import AuditEntry
from featurestore.offline.store import OfflineStore
from featurestore.quantities import count_text

__all__ = ["launch", "launch_text", "plan", "plan_text", "resume"]

OFFLINE = "offline"
LONGEST_TITLE = 100
"""Dagster refuses a backfill with a longer one."""


def launch(
    deployment: Deployment,
    dagster_url: str,
    requested_by: str,
    *,
    group: str,
    first: str | None,
    last: str | None,
    missing: bool,
    failed: bool,
    stale_code: bool,
    strategy: Any,
    accept_shift: bool,
    without: Sequence[str],
) -> dict[str, Any]:
    """Launch a backfill of a group's windows.

    Raises:
        UnknownName: no group has the name, or Dagster has no asset of it.
        InvalidInput: the windows cannot be backfilled, the transform fails its trial, or Dagster works on another store.
        StoreUnavailable: the web server does not answer.
    """
    catalog, asked = declared_catalog(), Launch("", strategy, accept_shift, tuple(without))
    declared, windows = chosen_windows(deployment, catalog, group, first, last, missing, failed, stale_code)
    check_launch(catalog, declared, asked)
    keys = [cadence_of(deployment.store.registry.group(declared.stored_name)).key_of(window) for window in windows]
    _check_dagster(deployment.store.offline, dagster_url, {declared.stored_name: keys})
    planned = planned_group(deployment, catalog, declared, windows, asked)
    twins = _twins(deployment, declared.stored_name, keys, asked)
    under_way = [twin for twin in twins["admitted"] if _is_under_way(dagster_url, twin)]
    launched = _launched(dagster_url, [planned], asked, requested_by)
    return {**launched, "waiting_twins": twins["pending"], "twins_under_way": under_way}


def resume(deployment: Deployment, dagster_url: str, backfill_id: str, requested_by: str) -> dict[str, Any]:
    """Launch the windows that a backfill is not done with, and none of those that carried it on is.

    What is launched is a backfill of its own, estimated, admitted and rolled back as any other. A tag names the first, and
    the first one's audit names it, so that the two are watched together.

    Args:
        backfill_id: The first backfill, or one that carries it on.

    Raises:
        UnknownName: neither the book nor Dagster knows the backfill.
        AlreadyDecided: it waits for a decision, was refused or rejected, or was rolled back.
        InvalidInput: it is still under way, or nothing of it is left.
        StoreUnavailable: the web server does not answer.
    """
    attempts = find_attempts(deployment.book, dagster_url, backfill_id)
    if (first := attempts.first.resumes) is not None:
        return resume(deployment, dagster_url, first, requested_by)
    _refuse_unresumable(attempts, dagster_url)
    store, keys = deployment.store.offline, _requested_keys(deployment.store.offline, attempts.first)
    left = {name: rest for name, asked in keys.items() if (rest := _not_done(store, name, asked, attempts.ids))}
    if not left:
        asked_for = count_text(sum(map(len, keys.values())), "window")
        raise InvalidInput(f"Nothing is left of backfill {backfill_id!r}: it is done with all of its {asked_for}.")
    _check_dagster(store, dagster_url, left)
    catalog, asked = declared_catalog(), _launch_of(attempts.first)
    planned = []
    for name, rest in left.items():
        cadence = cadence_of(store.registry.group(name))
        windows = [cadence.window_of(key) for key in rest]
        planned.append(planned_group(deployment, catalog, catalog.group(name), windows, asked))
    launched = _launched(dagster_url, planned, asked, requested_by, resumes=backfill_id)
    _note_resumption(deployment, attempts.first, launched, requested_by)
    return launched


def _launched(
    dagster_url: str, planned: Sequence[PlannedGroup], asked: Launch, requested_by: str, resumes: str = ""
) -> dict[str, Any]:
    for one in planned:
        if one.refusal:
            raise InvalidInput(
                f"Nothing is launched. {one.refusal.rstrip('.')}. Mend the transform or its declaration, apply it, reload the code "
                "location in Dagster, and launch again."
            )
    accepted = launch_partition_backfill(
        dagster_url,
        {(OFFLINE, one.group.name): one.keys for one in planned},
        tags=launch_tags(asked, requested_by, resumes),
        title=_title(planned, asked, resumes),
    )
    return {
        "backfill_id": accepted.backfill_id,
        "url": page_url(dagster_url, accepted.backfill_id),
        "resumes": resumes or None,
        "requested_by": requested_by,
        **plan_document(planned, asked),
    }


def _twins(deployment: Deployment, name: str, keys: Sequence[str], asked: Launch) -> dict[str, list[str]]:
    """The ids of backfills that ask for the same, the newest first: those that wait for approval, and those let go."""
    found: dict[str, list[str]] = {"pending": [], "admitted": []}
    for request in deployment.book.requests(group=name, states=["pending", "admitted", "approved"]):
        is_same = {part.group: list(part.keys) for part in request.groups} == {name: list(keys)}
        if is_same and (request.strategy, request.accept_shift) == (asked.strategy, asked.accept_shift):
            found["pending" if request.state == "pending" else "admitted"].append(request.backfill_id)
    return found


def _is_under_way(dagster_url: str, backfill_id: str) -> bool:
    found = find_backfill(dagster_url, backfill_id)
    return found is not None and not found.is_done


def _note_resumption(deployment: Deployment, first: Attempt, launched: Mapping[str, Any], requested_by: str) -> None:
    """The book names the resumption with the first backfill, if it knows that one."""
    if first.request is None:
        return
    details = {
        "backfill_id": launched["backfill_id"],
        "windows": sum(group["windows"] for group in launched["groups"]),
    }
    deployment.book.note(
        AuditEntry(first.backfill_id, deployment.clock(), RESUMED, requested_by, requested_by, "", details)
    )


def _title(planned: Sequence[PlannedGroup], asked: Launch, resumes: str) -> str:
    """What Dagster's list of backfills shows."""
    left = f", what is left of {resumes}" if resumes else ""
    return f"{asked.strategy}{left}: {', '.join(one.group.name for one in planned)}"[:LONGEST_TITLE]


def _check_dagster(store: OfflineStore, url: str, keys: Mapping[str, Sequence[str]]) -> None:
    """Refuse groups and windows that Dagster does not have, and a Dagster that works on another store."""
    partitions: dict[AssetPath, Sequence[str]] = {(OFFLINE, name): wanted for name, wanted in keys.items()}
    found = check_partitions(url, partitions)
    for name in keys:
        _refuse_other_store(store, url, name, found[(OFFLINE, name)])


def _refuse_other_store(store: OfflineStore, url: str, name: str, asset: Asset) -> None:
    """A run that materialized the group stands in the ledger of the store that it wrote to."""
    known = set(store.ledger(name).entries()["run_id"]) if asset.run_ids else set()
    if asset.run_ids and not known & set(asset.run_ids):
        raise InvalidInput(
            f"Dagster at {url} seems to work on another store: its run {asset.run_ids[0]} materialized {asset.name!r}, and "
            f"the ledger of {store.root.uri} knows none of its last {count_text(len(asset.run_ids), 'run')}. Give the store "
            "that it has as FEATURESTORE_ROOT (--root), or the web server of this one (--dagster-url). If this store is new, "
            "launch one window from Dagster's pages first."
        )


def _refuse_unresumable(attempts: Attempts, url: str) -> None:
    first = attempts.first
    if not attempts.is_known:
        raise UnknownName(
            f"The book of backfills does not know {first.backfill_id!r}. {attempts.note} 'featurestore backfill list' has the ids."
        )
    _refuse_undecided(first)
    for attempt in attempts.all:
        if attempt.dagster is not None and not attempt.dagster.is_done:
            page = page_url(url, attempt.backfill_id, is_run=attempt.dagster.is_run)
            raise InvalidInput(
                f"Backfill {first.backfill_id!r} is still under way: Dagster has {attempt.backfill_id} as "
                f"{attempt.dagster.status}. Wait for its end, or cancel it on {page}, and resume then."
            )


def _refuse_undecided(first: Attempt) -> None:
    request = first.request
    if request is None or request.state in ("admitted", "approved"):
        return
    remedies = {
        "pending": f"It waits for approval: featurestore backfill approve {first.backfill_id} --as WHO --reason WHY",
        "rolled_back": "What was taken back, a new backfill brings again: featurestore backfill launch",
    }
    why = f" ({request.reason})" if request.reason else ""
    raise AlreadyDecided(
        f"Backfill {first.backfill_id!r} cannot be resumed: it is {request.state.replace('_', ' ')}{why}. "
        f"{remedies.get(request.state, 'Mend what is wrong and launch a new one: featurestore backfill launch')}"
    )


def _launch_of(first: Attempt) -> Launch:
    """How the backfill was launched: by its tags, and by the book, which knows all but what was not to be waited for."""
    tagged = launch_of(first.dagster.tags if first.dagster is not None else {})
    if first.request is None:
        return tagged
    return replace(tagged, strategy=first.request.strategy, accept_shift=first.request.accept_shift)


def _requested_keys(store: OfflineStore, first: Attempt) -> dict[str, Sequence[str]]:
    """The windows asked for, by group: of the book, else of Dagster where all groups have the same."""
    if first.request is not None:
        return {part.group: part.keys for part in first.request.groups}
    if first.dagster is None or first.dagster.partition_keys is None:
        raise InvalidInput(
            f"The book does not know backfill {first.backfill_id!r}, and Dagster does not say its windows. Launch what is "
            "missing instead: featurestore backfill launch GROUP --missing --failed"
        )
    names = [path[-1] for path in first.dagster.assets if path[0] == OFFLINE and path[-1] in store.registry.groups]
    return {name: sorted(first.dagster.partition_keys) for name in names}


def _not_done(store: OfflineStore, name: str, keys: Sequence[str], backfill_ids: Sequence[str]) -> list[str]:
    ended = ended_windows(store, name, *backfill_ids)
    promoted = {entry.window_start for entry in ended if entry.status == "promoted"}
    done = promoted | left_windows(store, name, ended, *backfill_ids)
    cadence = cadence_of(store.registry.group(name))
    return [key for key in keys if cadence.window_of(key).start not in done]


def launch_text(document: Mapping[str, Any]) -> str:
    """The id, the page, the plan, and what to do next."""
    backfill_id, resumes = document["backfill_id"], document["resumes"]
    windows = count_text(sum(group["windows"] for group in document["groups"]), "window")
    what = f"the {windows} left of backfill {resumes}" if resumes else windows
    return "\n\n".join(
        [
            f"Dagster has accepted backfill {backfill_id}: {what}.\n  {document['url']}",
            *[group_text(group, document) for group in document["groups"]],
            f"It will wait for approval. {approval_text(document, backfill_id)}"
            if document["waits_for_approval"]
            else "It starts when Dagster's queue comes to it; nothing waits for approval.",
            *[
                f"Backfill {twin} asks for the same, and waits for approval. One of the two is enough:\n"
                f"  featurestore backfill reject {twin} --as WHO --reason WHY"
                for twin in document.get("waiting_twins", ())[:1]
            ],
            *[
                f"Backfill {twin} computes the same, and is under way: featurestore backfill status {twin}"
                for twin in document.get("twins_under_way", ())[:1]
            ],
            f"How far it is: featurestore backfill status {resumes or backfill_id}",
        ]
    )
