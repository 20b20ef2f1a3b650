"""`apply` and `history`: making declarations the registry, and who did so before."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from featurestore.cli.deployment import Deployment
from featurestore.cli.tables import wrapped_text
from featurestore.cli.times import instant_text
from featurestore.declaration import Catalog
from featurestore.quantities import count_text
from featurestore.registry.diff import Change
from featurestore.registry.history import RegistryHistory

SHOWN_DIGEST = 12
INDENT = "     "


def plan(deployment: Deployment, catalog: Catalog) -> list[Change]:
    """What applying would change, incompatible changes included; nothing is written."""
    return RegistryHistory(deployment.root).plan(catalog)


def plan_report(deployment: Deployment, changes: Sequence[Change]) -> dict[str, Any]:
    """A plan as a document; its digest is that of the registry as it is."""
    current = RegistryHistory(deployment.root).current()
    return _report(deployment, changes, digest=current.digest if current else None, is_dry_run=True)


def apply(deployment: Deployment, catalog: Catalog, applied_by: str, *, allow_removals: bool) -> dict[str, Any]:
    """Make a catalogue the registry, and say what that changed.

    Raises:
        IncompatibleChange: stored rows cannot follow; the message lists every such change.
        InvalidInput: something would be removed, and that is not allowed; the message lists all of it.
    """
    history = RegistryHistory(deployment.root)
    result = history.apply(catalog, deployment.clock, applied_by, allow_removals=allow_removals)
    return _report(deployment, result.changes, digest=result.snapshot.digest, is_dry_run=False)


def _report(
    deployment: Deployment, changes: Sequence[Change], *, digest: str | None, is_dry_run: bool
) -> dict[str, Any]:
    return {
        "root": deployment.root.uri,
        "digest": digest,
        "is_dry_run": is_dry_run,
        "is_compatible": all(change.is_compatible for change in changes),
        "changes": [
            {
                "sign": change.sign,
                "text": change.text,
                "is_compatible": change.is_compatible,
                "is_removal": change.is_removal,
            }
            for change in changes
        ],
    }


def apply_text(report: dict[str, Any]) -> str:
    """The changes, one a line, and what became of them; of a refused plan only the compatible ones, the error has the others."""
    changes = report["changes"]
    place = f"the registry at {report['root']}"
    if not changes:
        return f"Nothing changed in {place} ({report['digest'][:SHOWN_DIGEST]})."
    lines = [wrapped_text(f"{change['sign']} {change['text']}") for change in changes if change["is_compatible"]]
    if not report["is_dry_run"]:
        lines.append(f"Applied {count_text(len(changes), 'change')} to {place} ({report['digest'][:SHOWN_DIGEST]}).")
    elif report["is_compatible"]:
        lines.append(f"Dry run: {count_text(len(changes), 'change')}, nothing written to {place}.")
    return "\n".join(lines)


def list_history(deployment: Deployment) -> list[dict[str, Any]]:
    """Every apply that changed something, oldest first."""
    return [asdict(entry) for entry in RegistryHistory(deployment.root).entries()]


def history_text(entries: list[dict[str, Any]]) -> str:
    """One block an apply, the newest last."""
    return (
        "\n".join(_entry_text(entry) for entry in entries) or "Nothing has been applied yet. Run `featurestore apply`."
    )


def _entry_text(entry: dict[str, Any]) -> str:
    at = instant_text(entry["applied_at"].replace(microsecond=0))
    head = f"{entry['number']:>3}  {at}  {entry['applied_by']}  {entry['digest'][:SHOWN_DIGEST]}"
    return "\n".join([head, *(wrapped_text(change, INDENT) for change in entry["changes"])])
