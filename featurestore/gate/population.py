"""Which entities a window is expected to have: those of the windows before it, or of its neighbours in the same backfill.

A window of a full recompute that looked back at production would lack whatever a mended transform rightly leaves out; and
since one that fails leaves in production what was there, all that follow would fail as well. So it is held against what the
backfill itself computes. What it lacks of its own promoted version is judged with the shift.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from featurestore.declaration.windows import TimeWindow
from featurestore.gate.reference_windows import ReferenceWindows
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredGroup

PREVIOUS_WINDOWS = 7


class Population:
    """Entity keys by window, for groups that declare a coverage; of others nothing is read, nor of groups that name their population,
    but what a full recompute is held against.

    Args:
        store: Where promoted windows are read.
        group: As registered.
        references: Says which windows are neighbours.
        windows: Every computed window of the run, oldest first.
        sound: The rows of those that are sound in themselves, by window start.
    """

    def __init__(
        self,
        store: OfflineStore,
        group: RegisteredGroup,
        references: ReferenceWindows,
        windows: Sequence[TimeWindow],
        sound: Mapping[datetime, pl.DataFrame],
    ) -> None:
        self._group, self._references, self._sound = group, references, sound
        self._promoted: dict[datetime, pl.DataFrame] = {}
        self._computed: dict[datetime, pl.DataFrame] = {}
        self._passed: set[datetime] = set()
        if group.min_coverage is not None and windows and (references.is_recompute or not group.population):
            self._promoted = self._read(store, windows)

    def _read(self, store: OfflineStore, windows: Sequence[TimeWindow]) -> dict[datetime, pl.DataFrame]:
        """The keys of the promoted windows that those of the run may be held against, in a full recompute also of their own."""
        length, wanted = self._group.window_length, set[datetime]()
        for window in windows:
            before, after = self._sides(window)
            wanted.update(before or (window.start - n * length for n in range(1, PREVIOUS_WINDOWS + 1)), after)
            wanted.update([window.start] if self._references.is_recompute else ())
        asked = [TimeWindow(start, start + length) for start in sorted(wanted)]
        keys = store.table(self._group.name).scan(windows=asked).select("window_start", *self._group.key_names)
        parts = keys.unique().collect().group_by("window_start")
        return {start: part.drop("window_start") for (start,), part in parts}

    def passed(self, window: TimeWindow) -> None:
        """Let a window of the run stand before later ones, in the place of its promoted version."""
        self._passed.add(window.start)

    def of(self, window: TimeWindow) -> list[pl.DataFrame]:
        """Sets of distinct keys, of which a window is to cover any one; none where nobody was there before it.

        They are those of the last windows before it and, in a full recompute, of the next ones: a population may grow or
        shrink, and a bad window spoils but one side.
        """
        if self._group.min_coverage is None:
            return []
        before, after = self._sides(window)
        earlier = self._together(before or self._previous(window))
        return [earlier, self._together(after)] if earlier.height else []

    def promoted(self, window: TimeWindow) -> pl.DataFrame | None:
        """The keys of a window's promoted version, in a full recompute; None if it has no rows, or no coverage is declared."""
        return self._promoted.get(window.start)

    def _sides(self, window: TimeWindow) -> tuple[list[datetime], list[datetime]]:
        """Its neighbours in the same backfill before it, and after it."""
        near = self._references.neighbours(window)
        return [start for start in near if start < window.start], [start for start in near if start > window.start]

    def _previous(self, window: TimeWindow) -> list[datetime]:
        since = window.start - PREVIOUS_WINDOWS * self._group.window_length
        return [start for start in self._promoted.keys() | self._passed if since <= start < window.start]

    def _together(self, starts: Sequence[datetime]) -> pl.DataFrame:
        nobody = pl.DataFrame(schema=self._group.key_schema)
        return pl.concat([nobody, *map(self._keys, starts)]).unique()

    def _keys(self, start: datetime) -> pl.DataFrame:
        """Of a window of the run as it was computed, of others as production has them."""
        if start not in (self._sound if self._references.is_recompute else self._passed):
            return self._promoted.get(start, pl.DataFrame(schema=self._group.key_schema))
        if start not in self._computed:
            self._computed[start] = self._sound[start].select(self._group.key_names).unique()
        return self._computed[start]
