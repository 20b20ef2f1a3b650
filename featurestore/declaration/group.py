"""`FeatureGroup`: a transform with its contract, a frozen value. Calling it runs the transform on frames.

Not here: how one is declared (`decorator.py`, `pushed.py`), or what a declaration may not say (`consistency.py`).
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

import polars as pl

from featurestore.declaration.backfill import Backfill
from featurestore.declaration.dtypes import TIMESTAMP, as_dtype
from featurestore.declaration.feature import Entity, Feature
from featurestore.declaration.online import Online
from featurestore.declaration.tier import ServiceLevel
from featurestore.declaration.windows import Cadence, Pushed, Static, TimeWindow
from featurestore.errors import InvalidInput, SchemaMismatch

Frame = pl.DataFrame | pl.LazyFrame
Transform = Callable[..., Frame]
Kind = Literal["windowed", "events", "static", "pushed"]


@dataclass(frozen=True, kw_only=True)
class FeatureGroup:
    """A declared feature group; made by `@feature_group`, which documents every field, or by `pushed_group`."""

    name: str
    description: str
    transform: Transform
    inputs: tuple[str, ...]
    entity: Entity
    features: tuple[Feature, ...]
    cadence: Cadence
    emits: Literal["windows", "events"]
    lookback: timedelta
    delay: timedelta
    publish: timedelta
    level: ServiceLevel
    max_age: timedelta | None
    online: Online | None
    owner: str
    version: int
    min_coverage: float | None
    backfill: Backfill
    tags: Mapping[str, str]
    population: str = ""

    def __call__(self, *args: TimeWindow, **inputs: Frame) -> pl.DataFrame:
        """Run the transform on frames, with no platform: the way to unit-test a group.

        Args:
            args: The window, for windowed and event groups.
            inputs: One frame for each input, by name; taken as they are, with no cut-off applied.

        Returns:
            One row per entity: keys, `event_time` (except for static groups) and the features, in declared order.

        Raises:
            InvalidInput: an input is missing or unknown.
            SchemaMismatch: the transform's columns or dtypes differ from the declared ones.
        """
        if self.kind == "pushed":
            raise InvalidInput(f"Group {self.name!r} is pushed: it has no transform to call. Its rows arrive by push.")
        if set(inputs) != set(self.inputs):
            raise InvalidInput(
                f"Group {self.name!r} reads {list(self.inputs)}; got {sorted(inputs)}. Pass each by name."
            )
        window = args[0] if args else None
        if (window is None) != (self.kind == "static") or len(args) > 1:
            raise InvalidInput(
                f"Group {self.name!r} is {self.kind}: call it with {'no' if self.kind == 'static' else 'one'} window."
            )
        return self.shape(self.run(window, inputs), window)

    def run(self, window: TimeWindow | None, inputs: Mapping[str, Frame]) -> pl.LazyFrame:
        """The transform's own result, lazy and unchecked."""
        frames = {name: frame.lazy() for name, frame in inputs.items()}
        result = self.transform(**frames) if window is None else self.transform(window, **frames)
        if not isinstance(result, pl.LazyFrame | pl.DataFrame):
            raise SchemaMismatch(
                f"The transform of {self.name!r} returned {type(result).__name__}. Return a Polars frame."
            )
        return result.lazy()

    def shape(self, result: pl.LazyFrame, window: TimeWindow | None) -> pl.DataFrame:
        """Check a transform's columns and dtypes, stamp the window's end, and collect in declared column order."""
        self.check_output(result.collect_schema())
        if self.kind == "windowed" and window is not None:
            result = result.with_columns(pl.lit(window.end).cast(TIMESTAMP).alias("event_time"))
        return result.select(list(self.row_schema)).collect()

    def check_output(self, schema: Mapping[str, pl.DataType]) -> None:
        """Refuse a transform's output schema that is not exactly the declared one, in any column order."""
        expected = dict(self.row_schema)
        if self.kind == "windowed":
            del expected["event_time"]
        if missing := [name for name in expected if name not in schema]:
            raise SchemaMismatch(
                f"The transform of {self.name!r} does not return {missing}; it returns {list(schema)}. {self._missing_hint(missing)}"
            )
        if extra := [name for name in schema if name not in expected]:
            raise SchemaMismatch(
                f"The transform of {self.name!r} returns {extra}, which are not declared. Declare them as features or drop them."
            )
        for name, dtype in expected.items():
            if schema[name] != dtype:
                raise SchemaMismatch(
                    f"Column {name!r} of {self.name!r} is {schema[name]}, declared {dtype}. Cast it in the transform: pl.col({name!r}).cast(...)."
                )

    def _missing_hint(self, missing: Sequence[str]) -> str:
        keys = [name for name in missing if name in self.entity.keys]
        if keys:
            return f"Entity {self.entity.name!r} needs its keys {keys} in every row."
        return (
            "An event group returns each row's own event_time."
            if "event_time" in missing
            else "Return them or remove their declaration."
        )

    @property
    def kind(self) -> Kind:
        if isinstance(self.cadence, Static):
            return "static"
        if isinstance(self.cadence, Pushed):
            return "pushed"
        return "events" if self.emits == "events" else "windowed"

    @property
    def stored_name(self) -> str:
        """The name everywhere outside the code: folder, key, asset. From version 2 on it carries the version."""
        return self.name if self.version == 1 else f"{self.name}_v{self.version}"

    @property
    def freshness(self) -> timedelta | None:
        """The SLO: the age that the group's data must not reach; None if there is none."""
        return self.level.slo

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.entity.keys)

    @cached_property
    def code_version(self) -> str:
        """A digest of the transform's source: two windows computed under the same one ran the same code."""
        try:
            code = inspect.getsource(self.transform).encode()
        except OSError:
            code = self.transform.__code__.co_code
        return hashlib.sha256(code).hexdigest()[:16]

    @property
    def row_schema(self) -> dict[str, pl.DataType]:
        """Columns and dtypes of a computed row: keys, `event_time` unless static, features."""
        event_time = {} if self.kind == "static" else {"event_time": TIMESTAMP}
        keys = {key: as_dtype(dtype) for key, dtype in self.entity.keys.items()}
        return {**keys, **event_time, **{f.name: as_dtype(f.dtype) for f in self.features}}

    def cut_off(self, window: TimeWindow) -> datetime:
        """What the transform may know ends here, and the window is due."""
        return window.end + self.delay

    def horizon(self, window: TimeWindow) -> datetime:
        """When production serves the window's rows: their knowledge time."""
        return self.cut_off(window) + self.publish

    def __getitem__(self, feature: str) -> str:
        """The reference `group:feature`, for a `FeatureService`."""
        return f"{self.stored_name}:{feature}"

    def __hash__(self) -> int:
        return hash(self.stored_name)
