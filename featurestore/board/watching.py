"""Looking at the stores for the board, again and again, in a thread of its own: a request never waits for a store, nor costs it a read.

Not here: what a look finds (`featurestore.freshness`), or how that is shown.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from featurestore.board.lags import DAY, DayOfLags
from featurestore.board.metrics import group_metrics
from featurestore.board.options import LOST_LOOKS
from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.freshness.document import LONGEST_SPAN, freshness_documents
from featurestore.freshness.journal import FreshnessJournal, StatusHistory
from featurestore.freshness.looks import UNSEEN
from featurestore.freshness.watch import FreshnessWatch
from featurestore.registry.history import RegistryHistory
from featurestore.store import FeatureStore

log = logging.getLogger("featurestore.board")
READ_TOGETHER = 50
"""Groups whose lags of a day are read at one time."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found.

    Args:
        at: The instant that it is of.
        took_seconds: How long it took.
        documents: Of every group, as `featurestore freshness --json` prints them, the worst first.
        history: By group its statuses of the last thirty days, as the journal has them, UNKNOWN where the sensor did not look.
        looked_at: By group when the platform's sensor last kept a look at it; groups that it never looked at are missing.
        metrics: What is exported of the groups.
    """

    at: datetime
    took_seconds: float
    documents: list[dict[str, Any]]
    history: Mapping[str, StatusHistory]
    looked_at: Mapping[str, datetime]
    metrics: bytes

    @property
    def recorded_at(self) -> datetime | None:
        """When the sensor last looked at the group that it has not looked at for longest; None: at one it never did, or there is none."""
        kept = [self.looked_at.get(document["group"]) for document in self.documents]
        return None if None in kept else min((at for at in kept if at is not None), default=None)

    def unkept(self) -> list[str]:
        """The groups whose history and attainment nobody keeps just now."""
        names = [document["group"] for document in self.documents]
        return [name for name in names if (kept := self.looked_at.get(name)) is None or self.at - kept > UNSEEN]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the board knows at one moment.

    Args:
        look: The last look that succeeded; None before the first.
        trouble: Why the last one did not; "" if it did.
        looks: How many succeeded so far.
        failures: How many did not.
    """

    look: Look | None = None
    trouble: str = ""
    looks: int = 0
    failures: int = 0

    def age(self, now: datetime) -> timedelta | None:
        """How old the figures are; None if there are none."""
        return None if self.look is None else max(timedelta(0), now - self.look.at)


@dataclass(slots=True)
class _Opened:
    """A store with the registry of one number, and what follows it."""

    number: int
    store: FeatureStore
    watch: FreshnessWatch
    journal: FreshnessJournal


@dataclass(slots=True)
class BoardWatch:
    """Looks, and what they found. `look_once` is for one thread; everything else is for any.

    Rules: a look that fails leaves the last one that did not, and says why; the next one reads everything anew, since the store that
    comes back may not be the one that went. A changed registry is taken up by the next look.

    Args:
        open_store: Makes a store that reads the newest registry.
        clock: Tells the instant of a look.
        look_seconds: From the start of one look to that of the next.
    """

    open_store: Callable[[], FeatureStore]
    clock: Clock
    look_seconds: float
    lags: DayOfLags = field(default_factory=DayOfLags)
    standing: Standing = field(default_factory=Standing)
    _opened: _Opened | None = None
    _read: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="board-looks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more; a look under way is waited for, for a moment."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def is_current(self) -> bool:
        """Whether the last look that succeeded is recent enough to be taken for the present."""
        look = self.standing.look
        lasts = LOST_LOOKS * self.look_seconds
        return look is not None and self.clock() - look.at <= timedelta(seconds=lasts + look.took_seconds)

    def look_once(self) -> None:
        """Look at everything once; a store that cannot be reached, or any other failure, becomes the standing's trouble."""
        before = self.standing
        try:
            opened = self._current()
            look = self._look(opened)
            self.standing = Standing(look, looks=before.looks + 1, failures=before.failures)
            self._read_kept_lags(opened, look)
        except FeatureStoreError as error:
            log.warning("The stores could not be looked at: %s", error)
            self._failed(str(error))
        except Exception as error:
            log.exception("The look failed")
            # Its words may hold an address with a password, and whoever reaches the board reads them.
            self._failed(f"{type(error).__name__}; the board's log has the rest.")

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.look_once()
            self._stop.wait(max(0.0, began + self.look_seconds - time.monotonic()))
        self._close_store()

    def _look(self, opened: _Opened) -> Look:
        now, began = self.clock(), time.perf_counter()
        found = list(opened.watch.look(opened.journal.confirmed(), now=now).values())
        history = opened.journal.history(now - LONGEST_SPAN, now)
        documents = freshness_documents(found, history, now)
        looked_at = opened.journal.looked_at()
        took = time.perf_counter() - began
        self.lags.take_look(found)
        return Look(now, took, documents, history, looked_at, group_metrics(documents))

    def _read_kept_lags(self, opened: _Opened, look: Look) -> None:
        """The lags of the day before, of groups seen for the first time or after a gap. Each look brings its own from then on."""
        new = [document["group"] for document in look.documents if document["group"] not in self._read]
        for first in range(0, len(new), READ_TOGETHER):
            names = new[first : first + READ_TOGETHER]
            kept = opened.journal.lags(look.at - DAY, names)
            for name, lags in kept.items():
                self.lags.take_kept(name, lags)
            self._read.update(names)

    def _current(self) -> _Opened:
        """The store as the newest registry has it."""
        opened = self._opened
        if opened is not None and opened.number == _registry_number(opened.store):
            return opened
        self._close_store()
        store = self.open_store()
        number = _registry_number(store)
        watch = FreshnessWatch(store.offline, store.online.parts_of)
        self._opened = _Opened(number, store, watch, store.settings.freshness_journal(self.clock))
        return self._opened

    def _failed(self, trouble: str) -> None:
        self._close_store()
        self._read.clear()  # what the sensor keeps meanwhile is read once this board sees again
        self.standing = replace(self.standing, trouble=trouble, failures=self.standing.failures + 1)

    def _close_store(self) -> None:
        if self._opened is not None:
            self._opened.store.close()
            self._opened = None


def _registry_number(store: FeatureStore) -> int:
    return RegistryHistory(store.settings.root).newest_number()
