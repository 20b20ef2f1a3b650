"""Computing the rows of one window, or of one load of a static group, and stamping their times.

Nothing is judged here (that is the gate's) and nothing is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import polars as pl

from featurestore.compute.inputs import Visible, WindowInputs
from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput
from featurestore.registry.snapshot import RegisteredGroup


@dataclass(frozen=True, slots=True)
class ComputedRows:
    """The rows of one window in stored form, without `created_at`, and what is worth saying about them.

    `null_key_rows` were returned by the transform without a key; they are refused and counted.
    `seconds` is what the computation took, where it was measured; `notes` say on what rows rest that no transform made.
    `population` are the distinct keys that the group's declared population had; None where it declares none.
    """

    rows: pl.DataFrame
    input_rows: int
    history_rows: int
    null_key_rows: int
    seconds: float = 0.0
    notes: Mapping[str, float | str] = field(default_factory=dict)
    population: pl.DataFrame | None = None


def compute_window(
    group: FeatureGroup, registered: RegisteredGroup, window: TimeWindow, inputs: WindowInputs
) -> ComputedRows:
    """Run a group's transform for one window on what was known by its cut-off.

    Raises:
        SchemaMismatch: the transform does not return what the group declares.
        InvalidInput: an event lies after the cut-off, or has no event time.
    """
    visible = inputs.of(window)
    rows = group.shape(group.run(window, visible.frames), window)
    if group.kind == "events":
        _check_events(group, rows, group.cut_off(window))
    stamps = {"knowledge_time": group.horizon(window), "window_start": window.start}
    return replace(stamped(registered, rows, stamps, visible), population=_population(registered, visible))


def _population(registered: RegisteredGroup, visible: Visible) -> pl.DataFrame | None:
    if not registered.population:
        return None
    return visible.frames[registered.population].select(registered.key_names).drop_nulls().unique().collect()


def compute_load(group: FeatureGroup, registered: RegisteredGroup, visible: Visible) -> ComputedRows:
    """Run a static group's transform; its rows have keys and features only, the load stamps their times."""
    rows = group.shape(group.run(None, visible.frames), None)
    return stamped(registered, rows, {}, visible)


def stamped(
    registered: RegisteredGroup, rows: pl.DataFrame, stamps: Mapping[str, datetime], visible: Visible
) -> ComputedRows:
    """Rows in stored form: the platform's columns set, rows without a key refused and counted."""
    keyed = rows.drop_nulls(registered.key_names)
    stored = keyed.with_columns(
        **{name: pl.lit(moment).cast(TIMESTAMP) for name, moment in stamps.items()},
        is_deleted=pl.lit(False),
        schema_number=pl.lit(registered.schema_number, dtype=pl.Int32),
    )
    columns = [pl.col(name).cast(dtype) for name, dtype in registered.stored_schema.items() if name in stored.columns]
    return ComputedRows(stored.select(columns), visible.rows, visible.history_rows, rows.height - keyed.height)


def _check_events(group: FeatureGroup, rows: pl.DataFrame, cut_off: datetime) -> None:
    if rows["event_time"].null_count():
        raise InvalidInput(
            f"Group {group.name!r} returned {rows['event_time'].null_count()} rows without an event_time. Set or drop them."
        )
    late = rows.filter(pl.col("event_time") > cut_off)
    if late.height:
        raise InvalidInput(
            f"Group {group.name!r} returned {late.height} events after the cut-off {cut_off.isoformat()}, the first at "
            f"{late['event_time'].min()!s}. An event cannot be known before it happens; drop them or correct their event_time."
        )
