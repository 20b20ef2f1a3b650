"""`backfill inspect`, `diff`, `promote` and `rollback`: what a backfill holds back, what it changed, and how to change that."""

from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.backfill.diff import backfill_diff
from featurestore.backfill.diff_view import change_text
from featurestore.backfill.override import promote_override
from featurestore.backfill.quarantine import HeldWindow, held_windows
from featurestore.backfill.rollback import roll_back
from featurestore.cli.deployment import Deployment
from featurestore.cli.tables import pairs_text, table_text, value_text, wrapped_text
from featurestore.errors import UnknownName
from featurestore.quantities import count_text

LONGEST_SERIES = 40


def inspect(deployment: Deployment, backfill_id: str) -> dict[str, Any]:
    """The windows of a backfill in quarantine, each with the gate's findings, examples and where its rows lie.

    Raises:
        UnknownName: neither the book nor quarantine knows this backfill.
    """
    held = _known_held(deployment, backfill_id)
    return {"backfill_id": backfill_id, "windows": [_held_document(item) for item in held]}


def _known_held(deployment: Deployment, backfill_id: str) -> list[HeldWindow]:
    """The windows of a backfill in quarantine; none, and no error, only if it is known."""
    request = deployment.book.find(backfill_id)
    names = None if request is None else [part.group for part in request.groups]
    held = held_windows(deployment.store.offline, backfill_id, names)
    if request is None and not held and not deployment.book.audit(backfill_id):
        raise UnknownName(
            f"Backfill {backfill_id!r} is not known, and nothing in quarantine is of it. 'featurestore backfill list' has the ids."
        )
    return held


def _held_document(held: HeldWindow) -> dict[str, Any]:
    return {
        "group": held.group.name,
        "window": held.key,
        "run_id": held.run_id,
        "rows": held.report["rows"],
        "findings": held.report["findings"],
        "warnings": held.report.get("warnings", []),
        "staged_at": held.place,
    }


def inspect_text(document: Mapping[str, Any]) -> str:
    """A paragraph a window, and what to do about them."""
    if not document["windows"]:
        return f"Nothing of backfill {document['backfill_id']} is in quarantine."
    name = document["backfill_id"]
    todo = (
        f"Mend the transform or the source and run 'featurestore backfill resume {name}', or promote what is right all the same: "
        f"'featurestore backfill promote {name} --override --window KEY --as WHO --reason ...'."
    )
    return "\n\n".join([*map(_window_text, document["windows"]), wrapped_text(todo)])


def _window_text(window: Mapping[str, Any]) -> str:
    lines = [f"{window['group']} {window['window']}: {count_text(window['rows'], 'row')}, {window['staged_at']}"]
    for finding in window["findings"]:
        of = f" of {finding['column']}" if finding["column"] else ""
        far = f"{finding['check']}{of} is {finding['observed']}, limit {finding['limit']} ({count_text(finding['failing_rows'], 'row')})"
        lines.append(wrapped_text(far, indent="  "))
        lines += [f"    {line}" for line in _examples_text(finding["examples"])]
    return "\n".join([*lines, *(wrapped_text(warning, indent="  ") for warning in window["warnings"])])


def _examples_text(examples: Sequence[Mapping[str, Any]]) -> list[str]:
    if not examples:
        return []
    headers = list(examples[0])
    return table_text(headers, [[value_text(row[name]) for name in headers] for row in examples]).splitlines()


def diff(deployment: Deployment, backfill_id: str) -> dict[str, Any]:
    """What a backfill changed; compared now, or as it was kept."""
    request = deployment.book.find(backfill_id)
    names = None if request is None else [part.group for part in request.groups]
    return backfill_diff(deployment.store.offline, deployment.book, backfill_id, names)


def diff_text(document: Mapping[str, Any]) -> str:
    """Per group its rows, its features and its windows."""
    if not document["groups"]:
        return f"Backfill {document['backfill_id']} changed no row."
    return "\n\n".join(_group_diff_text(group) for group in document["groups"].values())


def _group_diff_text(group: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{group['rows'][name]:,} {name}" for name in ("added", "removed", "changed", "kept"))
    features = [
        [name, f"{f['changed']:,}", f"{f['nulls_before']:,}", f"{f['nulls_after']:,}", change_text(f)]
        for name, f in group["features"].items()
    ]
    headers = ["feature", "changed", "nulls before", "nulls after", "change"]
    numbers = headers[1:4]
    note = "The files of then were vacuumed: this is what the runs of the backfill kept."
    return "\n\n".join(
        [
            *([wrapped_text(note)] if group.get("is_of_runs") else []),
            f"{group['group']}, {count_text(len(group['windows']), 'window')}: rows {rows}",
            table_text(headers, features, right=numbers),
            _series_text(group["windows"]),
        ]
    )


def _series_text(windows: Sequence[Mapping[str, Any]]) -> str:
    """A line a window; of very many, the first ones."""
    headers = ["window", "added", "removed", "changed", "kept", "mean change"]
    lines = [
        [
            w["window"],
            *(f"{w[name]:,}" for name in headers[1:5]),
            "-" if w["size"] is None else f"{w['size']:.3g}",
        ]
        for w in windows[:LONGEST_SERIES]
    ]
    more = len(windows) - len(lines)
    table = table_text(headers, lines, right=headers[1:])
    return f"{table}\n... {count_text(more, 'more window')}; --json has them all" if more else table


def promote(
    deployment: Deployment, backfill_id: str, windows: Sequence[str], person: str, os_user: str, reason: str
) -> dict[str, Any]:
    """Promote windows from quarantine, as they are staged.

    Raises:
        UnknownName: neither the book nor quarantine knows this backfill, or a window of it is not in quarantine.
    """
    _known_held(deployment, backfill_id)
    done = promote_override(
        deployment.store.offline,
        deployment.book,
        backfill_id,
        windows,
        person=person,
        os_user=os_user,
        reason=reason,
    )
    return {
        "backfill_id": backfill_id,
        "groups": [
            {
                "group": item.group,
                "windows": list(item.keys),
                "rows": item.rows,
                "table_version": item.version,
                "was_done_before": item.is_done_before,
            }
            for item in done
        ],
    }


def promote_text(document: Mapping[str, Any]) -> str:
    """A line a group."""
    if not document["groups"]:
        return f"Nothing of backfill {document['backfill_id']} is in quarantine."
    lines = []
    for group in document["groups"]:
        what = "was promoted before" if group["was_done_before"] else f"promoted, {count_text(group['rows'], 'row')}"
        lines.append(f"{group['group']} {', '.join(group['windows'])}: {what}; table version {group['table_version']}")
    return "\n".join(wrapped_text(line) for line in lines)


def rollback(deployment: Deployment, backfill_id: str, person: str, os_user: str, reason: str) -> dict[str, Any]:
    """Return the windows of a backfill to what they were, and move the online copies."""
    done = roll_back(deployment.store, deployment.book, backfill_id, person=person, os_user=os_user, reason=reason)
    return {
        "backfill_id": backfill_id,
        "groups": [
            {
                "group": item.group,
                "windows": list(item.keys),
                "table_version": item.version,
                "rows": dict(item.counts),
                "was_done_before": item.was_done,
                "online": done.online[item.group],
            }
            for item in done.groups
        ],
    }


def rollback_text(document: Mapping[str, Any]) -> str:
    """A paragraph a group."""
    return "\n\n".join(_rollback_text(group) for group in document["groups"])


def _rollback_text(group: Mapping[str, Any]) -> str:
    keys = group["windows"]
    span = "" if not keys else f" ({keys[0]}{f' to {keys[-1]}' if len(keys) > 1 else ''})"
    rows = ", ".join(f"{count:,} {name}" for name, count in group["rows"].items())
    return pairs_text(
        {
            "Group": group["group"],
            "Windows": f"{count_text(len(keys), 'window')}{span}",
            "Table": _table_text(group),
            "Rows": rows,
            "Online": group["online"],
        }
    )


def _table_text(group: Mapping[str, Any]) -> str:
    if group["table_version"] is None:
        return "no row differs from what was there before"
    return f"version {group['table_version']}{', returned before' if group['was_done_before'] else ''}"
