"""What other processes do in the tests of the book: open it, record, decide, follow it, or die in the middle.

`python -m tests.book_worker WHAT ...`, with the URL in BOOK_URL; what was seen goes to stdout as JSON.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, event

from featurestore.errors import AlreadyDecided
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import AuditEntry, BackfillRequest, RequestedWindows, State

REQUESTED_AT = datetime(2026, 3, 10, 6, 0, 0, 123456, tzinfo=UTC)


def request_of(backfill_id: str = "kxqzvbtw", state: State = "pending", **other: Any) -> BackfillRequest:
    windows = RequestedWindows("carrier_delay_daily", ("2026-03-01", "2026-03-02"), {"cost_usd": 40.0})
    facts: dict[str, Any] = {
        "requested_at": REQUESTED_AT,
        "requested_by": "ana@example.com",
        "strategy": "full",
        "groups": (windows,),
        "state": state,
    }
    return BackfillRequest(backfill_id, **{**facts, **other})


def entry_of(backfill_id: str = "kxqzvbtw", action: str = "approved", **other: Any) -> AuditEntry:
    facts: dict[str, Any] = {"at": REQUESTED_AT, "person": "ben@example.com", "os_user": "ben", "reason": "needed"}
    return AuditEntry(backfill_id, action=action, **{**facts, **other})


def record(url: str, name: str, start: str) -> dict[str, Any]:
    """Open a database that may be new and record one backfill at the instant at which others do too."""
    time.sleep(max(0.0, float(start) - time.time()))
    kept = BackfillBook.open(url).record(request_of(requested_by=name))
    return {"requested_by": kept.requested_by}


def decide(url: str, name: str, start: str) -> dict[str, Any]:
    """Approve or reject, by the parity of the name, at the instant at which others do too."""
    book = BackfillBook.open(url)
    state: State = "approved" if int(name) % 2 else "rejected"
    time.sleep(max(0.0, float(start) - time.time()))
    try:
        book.decide("kxqzvbtw", state, entry_of(action=state, person=name))
    except AlreadyDecided as error:
        return {"name": name, "refused": str(error)}
    return {"name": name, "state": state}


def note(url: str, name: str, count: str) -> dict[str, Any]:
    """Add numbered entries, one after the other."""
    book = BackfillBook.open(url)
    for number in range(int(count)):
        book.note(entry_of(name, str(number)))
    return {"noted": int(count)}


def die(url: str) -> dict[str, Any]:
    """Of each kind of write, kill a child at its first statement, the next at its second, and so on until one lives."""
    book = BackfillBook.open(url)
    acts: dict[str, Callable[[], object]] = {
        "record": lambda: book.record(request_of()),
        "decide": lambda: book.decide("kxqzvbtw", "approved", entry_of()),
        "keep": lambda: book.keep("kxqzvbtw", "diff", "g", {"rows_added": 1}),
        "keep again": lambda: book.keep("kxqzvbtw", "diff", "g", {"rows_added": 2}),
    }
    return {what: _deaths(book, act) for what, act in acts.items()}


def _deaths(book: BackfillBook, act: Callable[[], object]) -> dict[str, Any]:
    """What the database held before, after each kill, and in the end."""
    left = [_left(book)]
    while not _lives(act, len(left)):
        left.append(_left(book))
    return {"left": left, "done": _left(book)}


def fork(url: str) -> dict[str, Any]:
    """Use one opened book in a child and in its parent."""
    book = BackfillBook.open(url)
    book.record(request_of("parent"))
    child = os.fork()
    if child == 0:
        book.record(request_of("child"))
        os._exit(0)
    book.record(request_of("parent-again"))
    status = os.waitpid(child, 0)[1]
    return {"status": status, "kept": sorted(request.backfill_id for request in book.requests())}


def _lives(act: Callable[[], object], statement: int) -> bool:
    """Run something in a child that is killed when it has run that many statements, a commit being the last."""
    child = os.fork()
    if child == 0:
        _kill_at(statement)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL


def _kill_at(statement: int) -> None:
    seen = 0

    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "after_cursor_execute", count)
    event.listen(Engine, "commit", count)


def _left(book: BackfillBook) -> dict[str, Any]:
    request = book.find("kxqzvbtw")
    return {
        "state": request.state if request else None,
        "groups": len(request.groups) if request else 0,
        "actions": [entry.action for entry in book.audit("kxqzvbtw")],
        "diff": book.kept("kxqzvbtw", "diff"),
    }


if __name__ == "__main__":
    works: list[Callable[..., dict[str, Any]]] = [record, decide, note, die, fork]
    work = {work.__name__: work for work in works}[sys.argv[1]]
    print(json.dumps(work(os.environ["BOOK_URL"], *sys.argv[2:])))
