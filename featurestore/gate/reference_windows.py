"""What each window of a run is compared with: read from the table once, or taken from the run itself.

A scheduled window is held against the last promoted ones, windows of the run that passed before it among them. In a full
recompute for a backfill it is held against its neighbours of the same backfill, and beside its own promoted version.
"""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow
from featurestore.gate.comparison import MIN_ROWS, Comparison, Excess, compare, moved
from featurestore.gate.drift_report import drift_finding
from featurestore.gate.neighbours import Candidates, Chosen
from featurestore.gate.profile import SAMPLE_ROWS, Profile, compared_features, pooled_profile, profile_of, sampled
from featurestore.gate.quality import Finding, Verdict, coverage_finding
from featurestore.gate.row_counts import ROW_COUNT, changed_count, empty_finding, lacking_counts, row_count_finding
from featurestore.gate.shift import Moved
from featurestore.launch import Launch
from featurestore.offline.store import OfflineStore

NO_REFERENCE = "there is no reference window"


class ReferenceWindows:
    """The reference windows of one run of a group.

    Args:
        store: Where promoted windows are read.
        group: The declaration.
        launch: Decides what a window is compared with.
        computed: The rows of every window of the run that is sound in itself, by window start.
    """

    def __init__(
        self, store: OfflineStore, group: FeatureGroup, launch: Launch, computed: Mapping[datetime, pl.DataFrame]
    ) -> None:
        self._registered = store.registry.group(group.stored_name)
        self._features = compared_features(self._registered)
        self._row_count = group.backfill.row_count
        self._table = store.table(group.stored_name)
        self._rows = dict(computed)
        self._own: dict[datetime, Profile] = {}
        self._stored: dict[datetime, Profile] = {}
        self._stored_rows: dict[datetime, pl.DataFrame] = {}
        self._counts: dict[datetime, int] = {}
        self.is_recompute = launch.is_backfill and launch.strategy == "full"
        is_hourly = self._registered.cadence == "hourly"
        self._earlier, self._around = (Candidates([], is_hourly=is_hourly) for _ in range(2))
        has_neighbours = self.is_recompute and self._registered.min_coverage is not None
        if computed and (self._features or self._row_count or has_neighbours):
            self._look(store, launch, is_hourly)

    def _look(self, store: OfflineStore, launch: Launch, is_hourly: bool) -> None:
        ledger = store.ledger(self._registered.name).in_production()
        self._counts = dict(ledger.select("window_start", "rows").rows())
        others = [start for start in self._counts if start not in self._rows]
        self._earlier = Candidates(others, is_hourly=is_hourly)
        if self.is_recompute:
            of_backfill = set(ledger.filter(pl.col("backfill_id") == launch.backfill_id)["window_start"])
            mates = [start for start in others if start in of_backfill]
            self._around = Candidates([*mates, *self._rows], is_hourly=is_hourly)
        self._stored_rows = self._read()

    def _read(self) -> dict[datetime, pl.DataFrame]:
        """Stored rows of every window that some window of the run may be compared with, only columns that are compared."""
        large = [start for start, rows in self._rows.items() if rows.height >= MIN_ROWS]
        wanted = {other for start in large for other in self._chosen(start).starts} - set(self._rows)
        wanted |= set(large) if self.is_recompute else set()
        if not (wanted and self._features):
            return {}
        length = self._registered.window_length
        rows = self._table.scan(windows=[TimeWindow(start, start + length) for start in sorted(wanted)])
        if max(self._counts.get(start, 0) for start in wanted) >= 2 * SAMPLE_ROWS:
            rows = rows.filter(sampled(self._registered))
        columns = ["window_start", "schema_number", *(feature.name for feature in self._features)]
        return {start: part for (start,), part in rows.select(columns).collect().group_by("window_start")}

    def passed(self, window: TimeWindow) -> None:
        """Let a window of the run stand as a reference for later ones."""
        self._earlier.add(window.start)

    def judged(self, window: TimeWindow, verdict: Verdict) -> Verdict:
        """A verdict with what comparing the window adds: findings, or one warning that says what was not compared."""
        if window.start not in self._rows:
            return verdict
        chosen = self._chosen(window.start)
        compared = self._compared(window.start, chosen)
        findings = [self._drift_finding(excess, window.start, chosen) for excess in compared.beyond]
        counted, lacking = self._counted(window.start, chosen)
        unjudged = {**compared.unjudged, **({ROW_COUNT: lacking} if lacking else {})}
        return verdict.having(*findings, *counted, warnings=_not_compared("reference windows", unjudged))

    def neighbours(self, window: TimeWindow) -> tuple[datetime, ...]:
        """In a full recompute for a backfill the windows of the same backfill around a window, else none."""
        return self._around.around(window.start).starts

    def moved(self, window: TimeWindow, keys: pl.DataFrame | None) -> Moved | None:
        """A window beside its promoted version; None if it has none, or one of which nothing can be compared.

        Args:
            window: One that is sound in itself.
            keys: Distinct keys of its promoted version, if it is to cover them; at least one.
        """
        start, rows = window.start, self._rows[window.start]
        promoted_rows = self._counts.get(start, 0)
        count = changed_count(self._row_count, rows.height, promoted_rows) if self._row_count else ""
        loss = None if keys is None else coverage_finding(self._registered, rows, [keys])
        if start in self._stored_rows and self._features:
            before, now = self._stored_profile(start), self._profile(start)
            return Moved(moved(self._features, now, before), now, before, count, loss)
        is_counted = promoted_rows >= MIN_ROWS and self._row_count is not None
        return Moved(Comparison(), {}, {}, count, loss) if is_counted or keys is not None else None

    def _drift_finding(self, excess: Excess, start: datetime, chosen: Chosen) -> Finding:
        name = excess.feature.name
        pool = pooled_profile([self._profile(other)[name] for other in chosen.starts])
        return drift_finding(self._registered, excess, self._rows[start], start, self._profile(start)[name], pool)

    def _counted(self, start: datetime, chosen: Chosen) -> tuple[list[Finding], str]:
        """What is wrong with the number of rows, and why it was not judged if it was not.

        A group of events may have none in an hour in which nothing happened; of that one is warned.
        """
        if self._row_count is None:
            return [], ""
        rows = self._rows[start].height
        counts = [self._count(other) for other in chosen.starts] if chosen.is_alike else []
        if not (lacking := lacking_counts(rows, counts)):
            found = row_count_finding(self._row_count, rows, counts)
        else:
            found = empty_finding(rows, counts) if self._registered.kind == "windowed" else None
        return ([] if found is None else [found]), lacking if found is None else ""

    def _compared(self, start: datetime, chosen: Chosen) -> Comparison:
        """Without a profile where a glance tells that there is nothing to compare: small windows cost nothing."""
        height = self._rows[start].height
        if height >= MIN_ROWS and chosen.starts:
            return compare(self._features, self._profile(start), [self._profile(other) for other in chosen.starts])
        reason = f"{height} rows" if chosen.starts else NO_REFERENCE
        return Comparison((), {feature.name: reason for feature in self._features})

    def _chosen(self, start: datetime) -> Chosen:
        neighbours = self._around.around(start)
        return neighbours if neighbours.starts else self._earlier.before(start)

    def _count(self, start: datetime) -> int:
        return self._rows[start].height if start in self._rows else self._counts[start]

    def _profile(self, start: datetime) -> Profile:
        """Of a window of the run as it was computed now, of any other as it is stored."""
        if start not in self._rows:
            return self._stored_profile(start)
        if start not in self._own:
            rows = self._rows[start]
            few = rows.filter(sampled(self._registered)) if rows.height >= 2 * SAMPLE_ROWS else rows
            self._own[start] = profile_of(self._features, few, start)
        return self._own[start]

    def _stored_profile(self, start: datetime) -> Profile:
        if start not in self._stored:
            rows = self._stored_rows.get(start, self._nothing)
            self._stored[start] = profile_of(self._features, rows, start)
        return self._stored[start]

    @property
    def _nothing(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self._registered.stored_schema)


def _not_compared(what: str, unjudged: Mapping[str, str]) -> list[str]:
    """One line for everything that was not judged, by reason."""
    names: dict[str, list[str]] = {}
    for name, reason in unjudged.items():
        names.setdefault(reason, []).append(name)
    said = "; ".join(f"{', '.join(those)} ({reason})" for reason, those in names.items())
    return [f"Not compared with {what}, which takes {MIN_ROWS} rows on each side: {said}."] if said else []


def not_compared_with_promoted(change: Moved) -> list[str]:
    """The same of a window beside its promoted version."""
    return _not_compared("what was promoted", change.comparison.unjudged)
