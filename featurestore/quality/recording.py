"""Keeping the statistics of windows with their promotion, and making good what a promotion cut short, a rollback or an
override left without.

A window's statistics are of the promotion that the ledger names last: same run, same version of the table. Where it is not so,
they are computed from the rows that production has.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import polars as pl

from featurestore.compute.window import ComputedRows
from featurestore.declaration.windows import TimeWindow
from featurestore.offline.store import OfflineStore
from featurestore.quality.frame import STORED, WindowStatistics, from_stored_rows, readable_rows
from featurestore.quality.statistics import FeatureStatistics, window_statistics
from featurestore.registry.snapshot import RegisteredGroup

Computed = Mapping[TimeWindow, Sequence[FeatureStatistics]]
Promotions = Mapping[datetime, tuple[str, int | None, datetime]]
"""By window start: run, version and time of the promotion that the rows in production are by."""


def statistics_of(group: RegisteredGroup, computed: Mapping[TimeWindow, ComputedRows]) -> Computed:
    """The statistics of computed windows, before anything is promoted: what cannot be computed stops the run here."""
    return {window: window_statistics(group.features, result.rows, window.start) for window, result in computed.items()}


def keep_statistics(
    store: OfflineStore, group_name: str, statistics: Computed, *, run_id: str, version: int | None, at: datetime
) -> None:
    """Keep the statistics of promoted windows, in one file.

    Args:
        statistics: By window, of the rows that were promoted.
        run_id: The run that promoted them.
        version: The table's version after the promotion.
        at: When it was recorded.
    """
    store.statistics(group_name).append(
        [WindowStatistics(window.start, tuple(of), version, run_id, at) for window, of in statistics.items()]
    )


def keep_load_statistics(
    store: OfflineStore,
    group: RegisteredGroup,
    rows: pl.DataFrame,
    instant: datetime,
    *,
    run_id: str,
    version: int | None,
) -> None:
    """Keep the statistics of a load of a static group under its instant, unless the newest kept ones are of the same version.

    A load that changed nothing has the version of the one before, so that only what was cut short is made good.
    """
    table = store.statistics(group.name)
    kept = table.windows()
    if kept and kept[-1].table_version == version:
        return
    of = tuple(window_statistics(group.features, rows, instant))
    table.append([WindowStatistics(instant, of, version, run_id, instant)])
    table.compact()


def production_statistics(
    store: OfflineStore,
    group_name: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    starts: Collection[datetime] | None = None,
    table_version: int | None = None,
    is_kept: bool = False,
) -> list[WindowStatistics]:
    """The statistics of every window in production, oldest first: as they were kept, or computed now where they were not.

    Args:
        since: Only windows that start at or after this.
        until: Only windows that start before this.
        starts: Only these windows, of a group that has any; what is kept of others is not decoded.
        table_version: Look back to this version of the group's table.
        is_kept: Keep what is computed, so that the next reader finds it, and merge files where they have become many.
    """
    group = store.registry.group(group_name)
    if not group.has_windows:
        return [one for one in store.statistics(group_name).windows() if _is_between(one.window_start, since, until)]
    promotions = _in_production(store, group_name, since, until, table_version)
    wanted = {start: by for start, by in promotions.items() if starts is None or start in starts}
    rows = store.statistics(group_name).rows(since, until)
    found = {one.window_start: one for one in from_stored_rows(_of_promotions(rows, wanted))}
    lacking = {start: promotion for start, promotion in wanted.items() if start not in found}
    made = _from_rows(store, group, lacking, table_version)
    if is_kept:
        store.statistics(group_name).append(list(made.values()))
        store.statistics(group_name).compact()
    return [(found | made)[start] for start in sorted(wanted)]


def _of_promotions(rows: pl.DataFrame, wanted: Promotions) -> pl.DataFrame:
    """The rows that are of the promotions that count; one that was kept twice counts once."""
    named = [(start, run_id, version) for start, (run_id, version, _) in wanted.items()]
    keys = {name: STORED[name] for name in ("window_start", "run_id", "table_version")}
    counted = rows.join(pl.DataFrame(named, schema=keys, orient="row"), on=list(keys), how="semi", nulls_equal=True)
    return counted.unique(["window_start", "feature"], keep="last", maintain_order=True)


def _is_between(start: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or start >= since) and (until is None or start < until)


def quality_frame(
    store: OfflineStore,
    group_name: str,
    *,
    features: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> pl.DataFrame:
    """The statistics of windows in production as a frame: one row a window and feature, `READABLE`, oldest window first.

    Args:
        features: Only these; none gives all.
        since: Only windows that start at or after this.
        until: Only windows that start before this.
    """
    rows = readable_rows(production_statistics(store, group_name, since=since, until=until))
    return rows.filter(pl.col("feature").is_in(list(features))) if features else rows


def _in_production(
    store: OfflineStore, group_name: str, since: datetime | None, until: datetime | None, table_version: int | None
) -> Promotions:
    entries = store.ledger(group_name).in_production(table_version)
    entries = entries if since is None else entries.filter(pl.col("window_start") >= since)
    entries = entries if until is None else entries.filter(pl.col("window_start") < until)
    rows = entries.select("window_start", "run_id", "table_version", "recorded_at").rows()
    return {start: (run_id, version, at) for start, run_id, version, at in rows}


def _from_rows(
    store: OfflineStore, group: RegisteredGroup, lacking: Promotions, table_version: int | None
) -> dict[datetime, WindowStatistics]:
    """Statistics of windows as the table has them, now or at a version."""
    if not lacking:
        return {}
    length = group.window_length
    columns = ["window_start", "schema_number", *group.feature_names]
    windows = [TimeWindow(start, start + length) for start in sorted(lacking)]
    rows = store.table(group.name).scan(table_version, windows=windows)
    parts = {start: part for (start,), part in rows.select(columns).collect().group_by("window_start")}
    nothing = pl.DataFrame(schema={name: group.stored_schema[name] for name in columns})
    return {
        start: WindowStatistics(
            start, tuple(window_statistics(group.features, parts.get(start, nothing), start)), version, run_id, at
        )
        for start, (run_id, version, at) in lacking.items()
    }
