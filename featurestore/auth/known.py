"""A server process's copy of the API keys: read by requests in memory, kept up by one thread that asks for changes.

Requests never wait for the database, with two exceptions that are bounded: the first, and one that comes when the last
check is older than `STALE_SECONDS` without any having failed (a process that was frozen). So of two things one holds when a
key is accepted: the database said so within that time; or it cannot be asked, and said so within the grace. After the
grace nothing is vouched for.

The thread belongs to the process that first asks: a child of a fork starts its own. A fork waits while the thread is in a
database's client, whose locks nobody would release in the child (SQLite's allocator has one).
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from featurestore.auth.book import KeyBook, StoredKey
from featurestore.errors import FeatureStoreError, StoreUnavailable

GRACE_SECONDS = 60.0
POLL_SECONDS = 0.4
STALE_SECONDS = 0.8
WAIT_SECONDS = 0.25
START_SECONDS = 10.0
FLUSH_SECONDS = 10.0
RELOAD_SECONDS = 30.0
"""Keys are read in full that often, change or not: someone may have changed a row by hand."""

log = logging.getLogger("featurestore.auth")
_in_database = threading.Lock()
os.register_at_fork(
    before=_in_database.acquire, after_in_parent=_in_database.release, after_in_child=_in_database.release
)


class KnownKeys:
    """The keys of a book, as of less than a second ago; where the book cannot be read, for a grace as they were.

    Args:
        book: Where they are. Its writers should wait for little: the thread that checks also records use.
        grace_seconds: How long keys are good after the last time that the book could be read.
        poll_seconds: How often the book is asked for changes.
        wait_seconds: How long a request waits for a check, where the last one is too old.
        monotonic: Seconds that never go back.
    """

    def __init__(
        self,
        book: KeyBook,
        *,
        grace_seconds: float = GRACE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book = book
        self._grace_seconds = grace_seconds
        self._poll_seconds = poll_seconds
        self._wait_seconds = wait_seconds
        self._monotonic = monotonic
        self._keys: Mapping[str, StoredKey] = {}
        self._number: int | None = None
        self._checked_at = self._loaded_at = float("-inf")
        self._flushed_at = monotonic()
        self._problem: FeatureStoreError | None = None
        self._used: dict[str, datetime] = {}
        self._unrecorded: dict[str, datetime] = {}
        self._thread: threading.Thread | None = None
        self._own_process()

    def __repr__(self) -> str:
        return f"KnownKeys({self._book!r})"

    @property
    def address(self) -> str:
        return self._book.address

    def start(self, wait_seconds: float = START_SECONDS) -> None:
        """Begin to follow the book, and wait for the first look at it, so that the first request need not.

        It fails nothing: a book that cannot be read now may be later, and until then no key is accepted.
        """
        self._await_check(wait_seconds)

    def current(self) -> Mapping[str, StoredKey]:
        """The keys by id, revoked and expired ones too.

        Raises:
            StoreUnavailable: the book was not read within the grace, so nobody knows which keys are good.
        """
        if not self._is_fresh():
            self._await_check(self._wait_seconds)
        if self._monotonic() - self._checked_at > self._grace_seconds:
            raise self._unknown()
        return self._keys

    def note_used(self, key_id: str, now: datetime) -> None:
        """Remember that a key was used; the hour of it is recorded some seconds later."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        if self._used.get(key_id) != hour:
            self._used[key_id] = self._unrecorded[key_id] = hour

    def close(self) -> None:
        """Record what was used, and stop."""
        self._is_closed = True
        self._wake.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join()
        self._thread = None

    def _unknown(self) -> StoreUnavailable:
        when = "yet" if self._number is None else f"for {self._grace_seconds:g} s"
        why = f": {self._problem}" if self._problem else ""
        return StoreUnavailable(f"API keys could not be checked {when}, so none is accepted{why}")

    def _is_fresh(self) -> bool:
        return self._pid == os.getpid() and self._monotonic() - self._checked_at <= STALE_SECONDS

    def _own_process(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._checked = threading.Condition()
        self._wake = threading.Event()
        self._thread = None
        self._is_closed = False

    def _await_check(self, wait_seconds: float) -> None:
        """Have a check made now. If none ends in time the book cannot be asked, and requests no longer wait for it."""
        self._ensure_thread()
        if self._problem is not None:
            return
        with self._checked:
            self._wake.set()
            if not self._checked.wait_for(lambda: self._is_fresh() or self._problem is not None, wait_seconds):
                self._fail(StoreUnavailable(f"The metadata database {self.address} does not answer."))

    def _ensure_thread(self) -> None:
        if self._pid != os.getpid():
            self._own_process()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._follow, name="api-keys", daemon=True)
                self._thread.start()

    def _follow(self) -> None:
        while not self._is_closed:
            self._wake.clear()
            self._check()
            self._record_use(self._monotonic() - self._flushed_at >= FLUSH_SECONDS)
            self._wake.wait(self._poll_seconds)
        self._record_use(True)

    def _check(self) -> None:
        """A check counts from when it began: what it did not see came later."""
        began = self._monotonic()
        try:
            with _in_database:
                self._read(began)
        except FeatureStoreError as error:
            self._fail(error)
        else:
            self._recover(began)
        with self._checked:
            self._checked.notify_all()

    def _read(self, began: float) -> None:
        if self._number is None:
            self._book.prepare()
        elif began - self._loaded_at < RELOAD_SECONDS and self._book.changes() == self._number:
            return
        self._number, self._keys = self._book.snapshot()
        self._loaded_at = began

    def _fail(self, error: FeatureStoreError) -> None:
        if self._problem is None:
            log.warning("API keys cannot be checked, known ones are good for %g s: %s", self._grace_seconds, error)
        self._problem = error

    def _recover(self, began: float) -> None:
        self._checked_at = began
        if self._problem is not None:
            log.warning("API keys are checked again, at %s", self.address)
        self._problem = None

    def _record_use(self, is_due: bool) -> None:
        """Which hour it was is worth one attempt: if that fails, the next one is made with the next hours."""
        if not (is_due and self._unrecorded):
            return
        self._flushed_at = self._monotonic()
        hours = dict(self._unrecorded.popitem() for _ in range(len(self._unrecorded)))  # requests add to it meanwhile
        try:
            with _in_database:
                self._book.note_used(hours)
        except FeatureStoreError as error:
            self._unrecorded.update({**hours, **self._unrecorded})
            log.info("When keys were used could not be recorded: %s", error)
