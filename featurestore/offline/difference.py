"""What an overwrite of windows changes: new rows against the stored ones, row by row.

Rows are the same row if key, `event_time` and `window_start` agree, and unchanged if everything but `created_at` does.
Values that compare equal are unchanged: NaN equals NaN, and -0.0 equals 0.0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from featurestore.offline.intake import identity, row_schema
from featurestore.offline.view import TableView
from featurestore.registry.snapshot import RegisteredGroup

VERSION = ("event_time", "knowledge_time", "created_at")


@dataclass(frozen=True, slots=True)
class Difference:
    """New rows next to what they replace.

    Args:
        rows: The new rows with `created_at`, kept where a row is unchanged and null elsewhere; columns of features no
            longer declared are carried on for unchanged rows.
        gone: Stored rows that are changed or removed: keys, `window_start` and the version.
        starts: Windows with a row added, changed or removed, by their starts.
        counts: Rows added, changed, removed and kept.
    """

    rows: pl.DataFrame
    gone: pl.DataFrame
    starts: frozenset[datetime]
    counts: Mapping[str, int]


def difference(
    group: RegisteredGroup, new: pl.DataFrame, stored: pl.DataFrame, undeclared: Sequence[str]
) -> Difference:
    """Compare checked new rows with the stored rows of the same windows (all columns of the table)."""
    named = identity(group)
    pairs = new.select(named).with_row_index("_new").join(stored.select(named).with_row_index("_old"), on=named)
    kept = pairs.filter(_unchanged(group, new, stored, pairs)).select("_new", "_old")
    source = (
        new.select(named[:1]).with_row_index("_new").join(kept, on="_new", how="left", maintain_order="left")["_old"]
    )
    rows = new.with_columns(stored[name].gather(source) for name in ("created_at", *undeclared))
    gone = (
        stored.with_row_index("_old")
        .join(kept, on="_old", how="anti")
        .select(*group.key_names, "window_start", *VERSION)
    )
    touched = pl.concat([rows.filter(pl.col("created_at").is_null())["window_start"], gone["window_start"]])
    changed = pairs.height - kept.height
    counts = {
        "added": new.height - pairs.height,
        "changed": changed,
        "removed": gone.height - changed,
        "kept": kept.height,
    }
    return Difference(rows, gone, frozenset(touched.unique()), counts)


def _unchanged(group: RegisteredGroup, new: pl.DataFrame, stored: pl.DataFrame, pairs: pl.DataFrame) -> pl.Series:
    same = pl.repeat(True, pairs.height, dtype=pl.Boolean, eager=True)
    for name in row_schema(group):
        if name not in identity(group):
            same &= new[name].gather(pairs["_new"]).eq_missing(stored[name].gather(pairs["_old"]))
    return same


def is_rewind(gone: pl.DataFrame, written: pl.DataFrame, view: TableView, now: datetime) -> bool:
    """Whether some replaced or removed version is not followed by a higher one that a reader of it may have had instead.

    The follower must be servable: known by now, or no later than the version that is gone. One still ahead of its knowledge
    time keeps nobody from serving the version that is gone.

    Args:
        gone: Rows replaced or removed, with keys and version.
        written: The rows of the same windows as they will be, with keys and version.
        view: The table before the commit. What it holds in those windows is in `gone`, or unchanged in `written`.
        now: The writer's clock.
    """
    keys = list(view.group.key_names)
    open_ended = _unfollowed(gone.select(*keys, *VERSION), written.select(*keys, *VERSION), keys, now)
    if open_ended.is_empty() or view.version is None:
        return not open_ended.is_empty()
    earliest = open_ended["event_time"].min()
    rows = view.scan(event_since=earliest if isinstance(earliest, datetime) else None, columns=[*keys, *VERSION])
    others = rows.join(open_ended.lazy(), on=keys, how="semi").collect()
    return not _unfollowed(open_ended, others, keys, now).is_empty()


def _unfollowed(gone: pl.DataFrame, after: pl.DataFrame, keys: Sequence[str], now: datetime) -> pl.DataFrame:
    """Rows of `gone` that no servable row of `after` follows."""
    served = _highest(after.filter(pl.col("knowledge_time") <= now), keys)
    left = _paired(gone, served, keys, how="left").filter(~_is_higher().fill_null(False)).select(gone.columns)
    ahead = left.filter(pl.col("knowledge_time") > now)
    no_later = pl.col("_knowledge_time") <= pl.col("knowledge_time")
    followed = _paired(ahead, after, keys, how="inner").filter(_is_higher() & no_later)
    return left.join(followed, on=[*keys, *VERSION], how="anti")


def _highest(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    return rows.select(*keys, *VERSION).sort(VERSION).unique(keys, keep="last")


def _paired(
    gone: pl.DataFrame, after: pl.DataFrame, keys: Sequence[str], *, how: Literal["left", "inner"]
) -> pl.DataFrame:
    """Rows of `gone` beside rows of `after` of the same key, whose version columns are prefixed with `_`."""
    return gone.join(after.rename({name: f"_{name}" for name in VERSION}), on=list(keys), how=how)


def _is_higher() -> pl.Expr:
    """Whether the prefixed version is above the other."""
    event, knowledge, created = (pl.col(f"_{name}") - pl.col(name) for name in VERSION)
    zero = pl.duration()
    return (event > zero) | ((event == zero) & ((knowledge > zero) | ((knowledge == zero) & (created > zero))))
