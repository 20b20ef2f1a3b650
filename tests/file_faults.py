"""Faults at every file call of a store: the nth one fails, as a broken disk would have it, or the process seems to end there.

Counted are the calls of Python itself (told by the interpreter's audit events: open, link, rename, remove, list, make), what
delta-rs and Polars are asked to do, before and after, and every statement and commit of the metadata database.
"""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from sqlalchemy import Engine, event

EVENTS = {"open", "os.link", "os.rename", "os.remove", "os.listdir", "os.scandir", "os.mkdir", "sqlite3.connect"}


class Ended(BaseException):
    """Where the process would have ended: nothing catches it but what every exit runs."""


class FileCalls:
    """Counts the file calls below a folder, and lets one of them fail.

    Args:
        folder: Calls elsewhere do not count.
        fails_at: Number of the call that fails, from 0; None lets all pass.
        is_end: Whether the process ends there, or is told of an error of the disk.
    """

    def __init__(self, folder: Path, fails_at: int | None = None, *, is_end: bool = False) -> None:
        self.folder, self.fails_at, self.is_end = str(folder), fails_at, is_end
        self.count = 0
        self.where: list[str] = []

    def point(self, what: str) -> None:
        """A call that may fail; after the end of the process there are no more calls."""
        number, self.count = self.count, self.count + 1
        self.where.append(what)
        if number == self.fails_at or (self.is_end and self.fails_at is not None and number > self.fails_at):
            raise Ended if self.is_end else OSError(errno.EIO, f"injected at call {number}, {what}")

    def audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in EVENTS and arguments and str(arguments[0]).startswith(self.folder):
            self.point(f"{name} {str(arguments[0]).removeprefix(self.folder)}")


_watching: list[FileCalls] = []


def _hook(name: str, arguments: tuple[Any, ...]) -> None:
    for calls in _watching:
        calls.audit(name, arguments)


sys.addaudithook(_hook)


@contextmanager
def counted(calls: FileCalls) -> Iterator[FileCalls]:
    """Count, and fail, for as long as this is open."""

    def around(function: Callable[..., Any], what: str) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            calls.point(f"before {what}")
            result = function(*arguments, **options)
            calls.point(f"after {what}")
            return result

        return called

    class Opened(DeltaTable):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            calls.point("open a table")
            super().__init__(*arguments, **options)

    def statement(*_: Any) -> None:
        calls.point("statement of the database")

    def commit(*_: Any) -> None:
        calls.point("commit of the database")

    with pytest.MonkeyPatch.context() as patch:
        for module in ("storage", "journal"):
            patch.setattr(f"featurestore.offline.{module}.write_deltalake", around(write_deltalake, "a commit"))
        patch.setattr("featurestore.offline.storage.DeltaTable", Opened)
        patch.setattr("featurestore.offline.view.pl.scan_parquet", around(pl.scan_parquet, "a scan"))
        event.listen(Engine, "before_cursor_execute", statement)
        event.listen(Engine, "commit", commit)
        _watching.append(calls)
        try:
            yield calls
        finally:
            _watching.remove(calls)
            event.remove(Engine, "before_cursor_execute", statement)
            event.remove(Engine, "commit", commit)
