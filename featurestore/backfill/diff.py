"""What a backfill changed: the rows it promoted beside those that were there before, by feature and by window.

Compared are two versions of the table, window by window; a row is the same row if keys, event time and window agree. A
difference of numbers is after minus before; its relative size is by the larger of the two, so that it lies between 0 and 2.
Of vectors it is 1 - cosine. NaN counts as null. Not here: how a difference is drawn or printed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from featurestore.backfill.footprint import WindowChange, cadence_of, footprint
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput, UnknownName
from featurestore.metadata.book import BackfillBook
from featurestore.offline.intake import identity
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup

KIND, RUN_KIND = "diff", "run_diff"
"""Of what is kept: what a backfill changed in a group; what one run of it did, kept by the run itself."""
TOP_MOVES = 5
SUMMED = ("changed", "nulls_before", "nulls_after")
IN, OUT = "_in", "_out"
"""Columns of a compared row: it is among those after, among those before."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Windows whose rows lie between the same two versions."""

    before: int
    after: int
    windows: tuple[TimeWindow, ...]


def backfill_diff(
    store: OfflineStore, book: BackfillBook | None, backfill_id: str, groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """Compare what a backfill promoted with what was there before, group by group.

    What was compared is kept in the book, and taken from there for as long as the backfill changes nothing more: a rollback
    or a vacuum does not take it away. If nobody compared before a vacuum, what the runs kept is put together: rows, windows and
    counts of each feature, without the sizes of change, which cannot be added up.

    Args:
        book: None keeps nothing.
        groups: Stored names; default every group with windows.

    Returns:
        `backfill_id` and `groups`: by name what `run_diff` gives, for those that it changed.

    Raises:
        UnknownName: no commit is of this backfill.
        InvalidInput: the rows of then were vacuumed, and nothing was kept.
    """
    kept = {} if book is None else book.kept(backfill_id, KIND)
    documents = {
        name: document
        for name in (store.registry.groups if groups is None else groups)
        if (document := _document(store, store.registry.group(name), backfill_id, kept.get(name), book)) is not None
    }
    for name, document in documents.items():
        if book is not None and document != kept.get(name) and not document.get("is_of_runs"):
            book.keep(backfill_id, KIND, name, document)
    if not documents and (book is None or book.find(backfill_id) is None):
        raise UnknownName(
            f"No commit is of backfill {backfill_id!r}: it changed no row. 'featurestore backfill list' has the ids."
        )
    return {"backfill_id": backfill_id, "groups": documents}


def keep_run_diff(book: BackfillBook, backfill_id: str, run_id: str, document: Mapping[str, Any]) -> None:
    """Keep what one run of a backfill changed in a group, as `run_diff` gives it."""
    book.keep(backfill_id, RUN_KIND, f"{document['group']}/{run_id}", document)


def _document(
    store: OfflineStore,
    group: RegisteredGroup,
    backfill_id: str,
    kept: dict[str, Any] | None,
    book: BackfillBook | None,
) -> dict[str, Any] | None:
    """What is kept, if it is of the same versions, else a new comparison; None if the backfill changed no row."""
    if not group.has_windows:
        return None
    pairs = _pairs(footprint(store.table(group.name), backfill_id).changes)
    if not pairs or (kept is not None and kept["versions"] == [[pair.before, pair.after] for pair in pairs]):
        return kept
    try:
        return _compared(store, group, pairs)
    except InvalidInput:
        of_runs = {} if book is None else book.kept(backfill_id, RUN_KIND)
        parts = [document for document in of_runs.values() if document["group"] == group.name]
        if not parts and kept is None:
            raise
        return _of_runs(parts) if parts else kept


def _of_runs(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several runs changed, put together: one run as it is, of more what can be added up."""
    if len(parts) == 1:
        return {**parts[0], "is_of_runs": True}
    features: dict[str, dict[str, Any]] = {}
    for name, feature in (item for part in parts for item in part["features"].items()):
        known = features.setdefault(name, {"dtype": feature["dtype"], **dict.fromkeys(SUMMED, 0)})
        features[name] = known | {count: known[count] + feature[count] for count in SUMMED}
    return {
        "group": parts[0]["group"],
        "versions": sorted(pair for part in parts for pair in part["versions"]),
        "rows": {name: sum(part["rows"][name] for part in parts) for name in parts[0]["rows"]},
        "features": features,
        "windows": sorted((line for part in parts for line in part["windows"]), key=lambda line: str(line["window"])),
        "is_of_runs": True,
    }


def run_diff(
    store: OfflineStore, group_name: str, before_version: int | None, after_version: int, windows: Sequence[TimeWindow]
) -> dict[str, Any]:
    """Compare windows of a group at two versions of its table, as one promotion left them.

    Args:
        before_version: The table's version before; None if there was no table.
        windows: Those to compare, e.g. the changed ones of the commit.

    Returns:
        `rows` (added, removed, changed, kept), `features` (for each: values changed, nulls before and after, and by its dtype
        the sizes of change), `windows` (the same counts for each, and `size`, the mean relative change of the numbers and
        vectors that changed), and `versions`.

    Raises:
        InvalidInput: rows of these versions were vacuumed.
    """
    return _compared(
        store, store.registry.group(group_name), [_Pair(before_version or 0, after_version, tuple(sorted(windows)))]
    )


def _pairs(changes: Iterable[WindowChange]) -> list[_Pair]:
    together: dict[tuple[int, int], list[TimeWindow]] = {}
    for change in changes:
        together.setdefault((change.before, change.after), []).append(change.window)
    return [_Pair(*versions, tuple(windows)) for versions, windows in sorted(together.items())]


def _compared(store: OfflineStore, group: RegisteredGroup, pairs: Sequence[_Pair]) -> dict[str, Any]:
    rows = pl.concat([_joined(store, group, pair) for pair in pairs])
    windows = sorted(window for pair in pairs for window in pair.windows)
    numbered = {feature: _sizes(feature) for feature in group.features}
    measured = rows.with_columns(
        is_changed=_is_both() & pl.any_horizontal(pl.lit(False), *[_is_moved(f) for f in group.features]),
        size=pl.mean_horizontal([size for size in numbered.values() if size is not None] or [pl.lit(None, pl.Float64)]),
    )
    return {
        "group": group.name,
        "versions": [[pair.before, pair.after] for pair in pairs],
        "rows": measured.select(**_counts()).row(0, named=True),
        "features": {feature.name: _feature(feature, rows) for feature in group.features},
        "windows": _by_window(group, measured, windows),
    }


def _joined(store: OfflineStore, group: RegisteredGroup, pair: _Pair) -> pl.DataFrame:
    """Rows of both versions side by side: those before with the suffix `_out` on each feature."""
    table, names = store.table(group.name), identity(group)
    features = list(group.feature_names)
    try:
        before, after = (
            table.scan(version, windows=pair.windows).select(*names, *features).collect()
            for version in (pair.before, pair.after)
        )
    except FileNotFoundError as error:
        raise InvalidInput(
            f"Versions {pair.before} and {pair.after} of group {group.name!r} cannot be compared any more: their files were vacuumed, and "
            "no comparison was kept. What each run changed stands in Dagster, in the metadata of the last window that it changed."
        ) from error
    old = before.rename({name: f"{name}{OUT}" for name in features}).with_columns(pl.lit(True).alias(OUT))
    new = after.with_columns(pl.lit(True).alias(IN))
    joined = new.join(old, on=names, how="full", coalesce=True).with_columns(pl.col(IN, OUT).fill_null(False))
    return joined.with_columns(_without_nan(name, feature) for feature in group.features for name in _both(feature))


def _both(feature: RegisteredFeature) -> tuple[str, str]:
    return feature.name, f"{feature.name}{OUT}"


def _without_nan(name: str, feature: RegisteredFeature) -> pl.Expr:
    return pl.col(name).fill_nan(None) if feature.dtype.is_float() else pl.col(name)


def _is_both() -> pl.Expr:
    return pl.col(IN) & pl.col(OUT)


def _counts() -> dict[str, pl.Expr]:
    return {
        "added": (pl.col(IN) & ~pl.col(OUT)).sum(),
        "removed": (pl.col(OUT) & ~pl.col(IN)).sum(),
        "changed": pl.col("is_changed").sum(),
        "kept": (_is_both() & ~pl.col("is_changed")).sum(),
    }


def _is_moved(feature: RegisteredFeature) -> pl.Expr:
    after, before = _both(feature)
    return pl.col(after).ne_missing(pl.col(before))


def _is_number(feature: RegisteredFeature) -> bool:
    return feature.dtype.is_numeric() or feature.dtype.is_temporal()


def _sizes(feature: RegisteredFeature) -> pl.Expr | None:
    """The relative size of a row's change of a feature; null where it did not change, None for dtypes without one."""
    moved = pl.when(_is_both() & _is_moved(feature))
    if isinstance(feature.dtype, pl.Array):
        return moved.then(1 - _cosine(feature)).alias(feature.name)
    if not feature.dtype.is_numeric():
        return None
    after, before = (pl.col(name).cast(pl.Float64) for name in _both(feature))
    larger = pl.max_horizontal(after.abs(), before.abs())
    return moved.then((after - before).abs() / larger).fill_nan(None).alias(feature.name)


def _cosine(feature: RegisteredFeature) -> pl.Expr:
    """Null beside a null or a vector of length 0."""
    after, before = (pl.col(name).cast(pl.List(pl.Float64)) for name in _both(feature))
    lengths = (after * after).list.sum().sqrt() * (before * before).list.sum().sqrt()
    return pl.when(lengths > 0).then((after * before).list.sum() / lengths)


def _feature(feature: RegisteredFeature, rows: pl.DataFrame) -> dict[str, Any]:
    after, before = _both(feature)
    both = rows.filter(_is_both())
    moved = both.filter(_is_moved(feature))
    document: dict[str, Any] = {
        "dtype": feature.dtype_name,
        "changed": moved.height,
        "nulls_before": rows.filter(OUT)[before].null_count(),
        "nulls_after": rows.filter(IN)[after].null_count(),
    }
    if isinstance(feature.dtype, pl.Array):
        cosines = moved.select(_cosine(feature)).to_series().drop_nulls()
        return document | {"mean_cosine": cosines.mean(), "min_cosine": cosines.min()}
    if _is_number(feature):
        return document | _number_sizes(feature, moved)
    return document if isinstance(feature.dtype, pl.List) else document | {"moves": _moves(feature, moved)}


def _number_sizes(feature: RegisteredFeature, moved: pl.DataFrame) -> dict[str, Any]:
    """Sizes of change of what is a number before and after; of times and dates in seconds."""
    after, before = (pl.col(name) for name in _both(feature))
    if feature.dtype.is_temporal():
        after, before = (column.cast(pl.Datetime("us")).cast(pl.Int64) / 1e6 for column in (after, before))
    else:
        after, before = after.cast(pl.Float64), before.cast(pl.Float64)
    sizes = moved.select(by=(after - before)).to_series().drop_nulls()
    relative = pl.Series(dtype=pl.Float64)
    if feature.dtype.is_numeric():
        larger = pl.max_horizontal(after.abs(), before.abs())
        relative = moved.select((after - before).abs() / larger).to_series().drop_nulls().drop_nans()
    return {
        "mean": sizes.mean(),
        "mean_absolute": sizes.abs().mean(),
        "median_absolute": sizes.abs().median(),
        "p95_absolute": sizes.abs().quantile(0.95, "nearest"),
        "max_absolute": sizes.abs().max(),
        "mean_relative": relative.mean(),
        "max_relative": relative.max(),
    }


def _moves(feature: RegisteredFeature, moved: pl.DataFrame) -> list[dict[str, Any]]:
    """The most frequent changes from one category to another."""
    after, before = _both(feature)
    counted = moved.group_by(pl.col(before).alias("from"), pl.col(after).alias("to")).agg(rows=pl.len())
    ordered = counted.sort("rows", "from", "to", descending=[True, False, False], nulls_last=True)
    return ordered.head(TOP_MOVES).to_dicts()


def _by_window(group: RegisteredGroup, rows: pl.DataFrame, windows: Sequence[TimeWindow]) -> list[dict[str, Any]]:
    """A line a window, also of one that is empty before and after."""
    counted = rows.group_by("window_start").agg(size=pl.col("size").mean(), **_counts())
    found = {row.pop("window_start"): row for row in counted.to_dicts()}
    nothing = {"size": None, "added": 0, "removed": 0, "changed": 0, "kept": 0}
    cadence = cadence_of(group)
    return [{"window": cadence.key_of(window), **found.get(window.start, nothing)} for window in windows]
