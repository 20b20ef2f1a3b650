"""How far a backfill is, as text: the document of `watching.py` for a person to read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from featurestore.cli.tables import pairs_text, table_text, wrapped_text
from featurestore.cli.times import age_text, instant_text
from featurestore.quantities import count_text, size_text

HEADERS = ["group", "windows", "promoted", "held", "current", "to come", "rows", "written"]
SHOWN_HELD = 20
WITHOUT_REST = ("rejected", "refused", "cancelled", "rolled_back")
DECIDED = ("approved", "rejected", "rolled_back")


def status_text(document: Mapping[str, Any]) -> str:
    """The state, the progress, a line a group, and what to do next."""
    parts = [
        f"Backfill {document['backfill_id']}: {_state_text(document['attempts'][0])}",
        pairs_text(_facts(document)),
        *([_groups_text(document)] if document["groups"] else []),
        *[wrapped_text(note) for note in _notes(document)],
    ]
    return "\n\n".join(parts)


def _words(state: str) -> str:
    return state.replace("_", " ")


def _state_text(attempt: Mapping[str, Any]) -> str:
    request, dagster = attempt["request"], attempt["dagster"]
    known = _words(request["state"]) if request else "not in the book yet"
    return f"{known}; in Dagster {dagster['status']}" if dagster else known


def _facts(document: Mapping[str, Any]) -> dict[str, str]:
    attempts, progress = document["attempts"], document["progress"]
    request = attempts[0]["request"]
    runs = sum((Counter(one["dagster"]["runs"]) for one in attempts if one["dagster"]), Counter[str]())
    pages = [one["dagster"]["url"] for one in attempts if one["dagster"]]
    return {
        "Requested": _requested_text(request) if request else "",
        "Resumed by": ", ".join(f"{one['backfill_id']} ({_state_text(one)})" for one in attempts[1:]),
        "Strategy": request["strategy"] if request else "",
        "Runs": ", ".join(f"{count} {state.lower().replace('_', ' ')}" for state, count in sorted(runs.items())),
        "Windows": _windows_text(progress),
        "Rows": f"{progress['rows']:,}",
        "Written": size_text(progress["written_bytes"]),
        # Without Dagster nobody knows when the first run started.
        "Time" if progress["since"] == "first run" else "Since requested": _time_text(progress),
        "Page": pages[-1] if pages else "",
    }


def _requested_text(request: Mapping[str, Any]) -> str:
    return f"{instant_text(request['requested_at'].replace(microsecond=0))} by {request['requested_by'] or 'someone unknown'}"


def _windows_text(progress: Mapping[str, Any]) -> str:
    done = f"{progress['windows'] - progress['waiting']:,} of {progress['windows']:,} done"
    current = f", {progress['current']:,} left as they were" if progress["current"] else ""
    parts = f"{_promoted_text(progress)}, {progress['held']:,} held{current}"
    return f"{done} ({int(100 * progress['fraction'])}%): {parts}"


def _promoted_text(progress: Mapping[str, Any]) -> str:
    promoted, back = progress["promoted"], progress["taken_back"]
    if not back:
        return f"{promoted:,} promoted"
    return f"{promoted:,} promoted" + (
        " and taken back since" if back == promoted else f" ({back:,} of them taken back since)"
    )


def _time_text(progress: Mapping[str, Any]) -> str:
    so_far, left = progress["seconds"], progress["seconds_left"]
    if progress["rests_on"] == "nothing is left":
        return "" if so_far is None else _span_text(so_far)
    begun = "not begun" if so_far is None else f"{_span_text(so_far)} so far"
    return begun if left is None else f"{begun}, about {_span_text(left)} left by the {progress['rests_on']}"


def _span_text(seconds: float) -> str:
    return age_text(timedelta(seconds=round(seconds)))


def _groups_text(document: Mapping[str, Any]) -> str:
    lines = [
        [
            group["group"],
            f"{group['windows']:,}",
            f"{group['promoted']:,}",
            f"{len(group['held']):,}",
            f"{group['current']:,}",
            f"{group['windows'] - group['promoted'] - len(group['held']) - group['current']:,}",
            f"{group['rows']:,}",
            size_text(group["written_bytes"]),
        ]
        for group in document["groups"]
    ]
    return table_text(HEADERS, lines, right=HEADERS[1:])


def _notes(document: Mapping[str, Any]) -> list[str]:
    """What a person should know or do, in full sentences."""
    notes = [document["note"], *(note for attempt in document["attempts"] for note in _attempt_notes(attempt))]
    held = [f"{group['group']} {_listed(group['held'])}" for group in document["groups"] if group["held"]]
    if held:
        why = f"Why: featurestore backfill inspect {document['backfill_id']}"
        notes.append(f"Held by their gate: {'; '.join(held)}. {why}")
    notes.append(_left_out(document))
    return [note for note in notes if note]


def _attempt_notes(attempt: Mapping[str, Any]) -> list[str]:
    request, dagster, backfill_id = attempt["request"], attempt["dagster"], attempt["backfill_id"]
    reason, error = request["reason"] if request else "", dagster["error"] if dagster else ""
    is_decided = request and request["state"] in DECIDED
    why = f"{_words(request['state'])}, for the reason {reason!r}" if request and reason and is_decided else reason
    notes = [why, "" if reason and reason in error else error, *attempt["failures"]]
    if request and request["state"] == "pending" and "backfill approve" not in reason:
        notes.append(f"It waits for approval: featurestore backfill approve {backfill_id} --as WHO --reason WHY")
    if request and request["state"] == "rolled_back" and attempt["standing"]:
        notes.append(_standing_text(backfill_id, attempt["standing"]))
    return [f"{backfill_id}: {note}" for note in notes if note]


def _standing_text(backfill_id: str, standing: int) -> str:
    """What to do about windows that production holds although their backfill was rolled back."""
    which = (
        "window was promoted after the rollback and stands"
        if standing == 1
        else "windows were promoted after the rollback and stand"
    )
    return f"{standing:,} {which}. To take back what is left: featurestore backfill rollback {backfill_id} --as WHO --reason WHY"


def _left_out(document: Mapping[str, Any]) -> str:
    """What to do about windows that an ended backfill has not come to: not due, cut short, or written elsewhere."""
    progress, request = document["progress"], document["attempts"][0]["request"]
    if not (document["is_over"] and progress["waiting"]) or (request and request["state"] in WITHOUT_REST):
        return ""
    if progress["waiting"] == progress["windows"]:
        return (
            "Dagster's runs have ended, and this store has no window of them. They failed before they computed any, or "
            "work on another store: compare FEATURESTORE_ROOT there with --root here. Their logs tell."
        )
    rest = f"{count_text(progress['waiting'], 'window')} {'was' if progress['waiting'] == 1 else 'were'} not computed"
    return f"{rest}. What is left: featurestore backfill resume {document['backfill_id']}"


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SHOWN_HELD} more" if len(keys) > SHOWN_HELD else ""
    return ", ".join(keys[:SHOWN_HELD]) + more
