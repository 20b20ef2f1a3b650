"""Of which class of correctness the rows of windows are: by the strategy that the ledger says they were computed with.

A label that takes a value from a window takes its class too; a demand for a class refuses those below it. Static
and pushed groups have no strategies: they are 'perfect'.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from featurestore.declaration.windows import Daily, Hourly
from featurestore.errors import InvalidInput
from featurestore.launch import CORRECTNESS, CORRECTNESS_OF, Correctness
from featurestore.offline.ledger import Ledger
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredGroup

CLASS = pl.Enum(CORRECTNESS)
UNRECORDED: Correctness = "low"
"""What rows count as that were promoted and not recorded, by a run cut short in between."""
WINDOWS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ClassUse:
    """How many labels take a value from one window of a group, and the class of its rows; `window` is its partition key."""

    group: RegisteredGroup
    window: str
    correctness: Correctness
    labels: int


def check_class(correctness: str) -> Correctness:
    """A class by its name.

    Raises:
        InvalidInput: there is none of that name.
    """
    for known in CORRECTNESS:
        if known == correctness:
            return known
    raise InvalidInput(f"Correctness {correctness!r} is not known. It is one of {list(CORRECTNESS)}, the lowest first.")


def row_classes(
    store: OfflineStore, group: RegisteredGroup, rows: pl.DataFrame, table_version: int | None = None
) -> pl.Series:
    """The class of each of some stored rows, by the ledger.

    Args:
        rows: `window_start` and `created_at` of each.
        table_version: The version of the table that the rows are of; default the newest.

    Returns:
        `CLASS`, as long as `rows`; `UNRECORDED` where a row is newer than what the ledger says of its window.
    """
    if not group.has_windows:
        return pl.repeat("perfect", rows.height, dtype=CLASS, eager=True).alias("correctness")
    recorded = store.ledger(group.name).in_production(table_version)
    classes = recorded.select("window_start", "recorded_at", correctness=_class_of_strategy())
    named = rows.select("window_start", "created_at").join(
        classes, on="window_start", how="left", maintain_order="left"
    )
    is_recorded = pl.col("created_at") <= pl.col("recorded_at")
    stands = pl.when(is_recorded).then("correctness").fill_null(pl.lit(UNRECORDED, dtype=CLASS))
    return named.select(correctness=stands)["correctness"]


def window_counts(ledger: Ledger) -> dict[Correctness, int]:
    """How many windows in production are of each class, the best first; classes without a window are left out."""
    found = ledger.in_production().select(correctness=_class_of_strategy())["correctness"]
    return {name: count for name in reversed(CORRECTNESS) if (count := int((found == name).sum()))}


def _class_of_strategy() -> pl.Expr:
    return pl.col("strategy").replace_strict(CORRECTNESS_OF, return_dtype=CLASS)


def class_uses(
    store: OfflineStore, group: RegisteredGroup, taken: pl.DataFrame, table_version: int | None = None
) -> list[ClassUse]:
    """Which windows of a group some labels take their values from, oldest first.

    Args:
        taken: `window_start` and `created_at` of the row that each label takes a value from; labels without one left out.
        table_version: The version of the table that the rows are of; default the newest.
    """
    classed = taken.select("window_start", row_classes(store, group, taken, table_version))
    counted = classed.group_by("window_start", "correctness").len().sort("window_start", "correctness")
    return [ClassUse(group, _key_text(group, start), name, labels) for start, name, labels in counted.rows()]


def lowest_class(uses: Iterable[ClassUse]) -> Correctness | None:
    """The lowest class among some uses; None without any."""
    return min((use.correctness for use in uses), key=CORRECTNESS.index, default=None)


def refuse_below(uses: Sequence[ClassUse], wanted: Correctness, labels: int) -> None:
    """Refuse labels whose values come from windows below a class.

    Args:
        uses: Those of every group asked.
        labels: How many labels there are.

    Raises:
        InvalidInput: there are such labels; the message names groups, windows and what to do.
    """
    below = [use for use in uses if CORRECTNESS.index(use.correctness) < CORRECTNESS.index(wanted)]
    found = lowest_class(below)
    if found is None:
        return
    groups = {use.group.name: [u for u in below if u.group == use.group] for use in below}
    parts = "; ".join(_group_text(name, part, labels) for name, part in groups.items())
    raise InvalidInput(
        f"Values of class {wanted!r} or better are demanded, and labels would take others. {parts}. "
        f"Compute these windows anew with strategy 'full' (featurestore backfill launch GROUP --from ... --to ... "
        f"--strategy full), or demand no more than {found!r}."
    )


def _group_text(name: str, below: Sequence[ClassUse], labels: int) -> str:
    shown = ", ".join(f"{use.window} ({use.correctness})" for use in below[:WINDOWS_SHOWN])
    more = f" and {len(below) - WINDOWS_SHOWN} more" if len(below) > WINDOWS_SHOWN else ""
    taking = sum(use.labels for use in below)
    windows = "1 window" if len(below) == 1 else f"{len(below):,} windows"
    return f"Group {name!r}: {taking:,} of {labels:,} labels, from {windows}: {shown}{more}"


def _key_text(group: RegisteredGroup, start: datetime) -> str:
    if not group.has_windows:
        return start.isoformat()
    cadence = (Hourly if group.cadence == "hourly" else Daily)(date.fromisoformat(group.start[:10]))
    return start.strftime(cadence.key_format)
