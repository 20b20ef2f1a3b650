"""What the gate found of the windows that it holds: of each group the newest one's first finding, read once.

Not here: which windows are held (`follow.py`).
"""

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from featurestore.errors import FeatureStoreError
from featurestore.offline.store import OfflineStore

READERS = 16
Held = tuple[datetime, datetime]
"""The start of a window, and when it was held."""

log = logging.getLogger("featurestore.freshness")


class HeldFindings:
    """The findings of one store, from look to look. Not for several threads at once."""

    def __init__(self, store: OfflineStore) -> None:
        self._store = store
        self._known: dict[str, tuple[Held, str]] = {}

    def look(self, newest: Mapping[str, Held]) -> None:
        """Read what is not known yet. What cannot be read is told without, and asked for again.

        Args:
            newest: By group the newest window that its gate holds.
        """
        unknown = [name for name, held in newest.items() if self.of(name, held) is None]
        if unknown:
            with ThreadPoolExecutor(READERS) as readers:
                found = list(readers.map(lambda name: self._read(name, newest[name][0]), unknown))
            self._keep(
                (name, newest[name], text) for name, text in zip(unknown, found, strict=True) if text is not None
            )

    def of(self, group: str, held: Held) -> str | None:
        """What is known of a window; None: nothing yet."""
        known = self._known.get(group)
        return known[1] if known is not None and known[0] == held else None

    def _keep(self, found: Iterable[tuple[str, Held, str]]) -> None:
        self._known |= {name: (held, text) for name, held, text in found}

    def _read(self, group: str, start: datetime) -> str | None:
        try:
            return self._store.staging(group).first_finding(start)
        except (FeatureStoreError, ValueError) as error:
            log.warning("What the gate found of window %s of %s cannot be read: %s", start.isoformat(), group, error)
            return None
