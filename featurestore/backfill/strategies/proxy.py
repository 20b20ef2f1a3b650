"""The proxy strategy: features of a window from correlated ones of other groups, mapped by a line.

The line is fitted, by least squares, on the overlap: entities of windows where both values exist, of class 'high' or
better. A proxy's value at a window is what production could have read of it at the window's cut-off. Sums are exact
(`math.fsum`), so that a fit depends on nothing but its pairs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from featurestore.compute.inputs import Visible
from featurestore.compute.window import ComputedRows, stamped
from featurestore.correctness import CLASS, row_classes
from featurestore.declaration.backfill import Proxy
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.dtypes import TIMESTAMP, as_dtype
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import PromotionRefused
from featurestore.launch import Correctness
from featurestore.offline.store import OfflineStore
from featurestore.pit import match_rows
from featurestore.registry.snapshot import RegisteredGroup

MIN_PAIRS = 200
FITTED_ON: Correctness = "high"
TIMES = ("event_time", "knowledge_time", "created_at", "is_deleted", "window_start")


@dataclass(frozen=True, slots=True)
class Line:
    """`y = slope * x + intercept`, with Pearson's correlation of the pairs that it was fitted on."""

    pairs: int
    correlation: float
    slope: float
    intercept: float


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """The least-squares line through pairs of finite numbers, whatever their order.

    Returns:
        None if there are no pairs, or one side does not vary as far as floats tell: then there is no correlation.

    >>> fit_line([1.0, 2.0, 3.0], [5.0, 7.0, 9.0])
    Line(pairs=3, correlation=1.0, slope=2.0, intercept=3.0)
    """
    if not x:
        return None
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    from_x, from_y = [value - mean_x for value in x], [value - mean_y for value in y]
    spread_x, spread_y = math.fsum(d * d for d in from_x), math.fsum(d * d for d in from_y)
    if not 0 < spread_x * spread_y < math.inf:
        return None
    together = math.fsum(a * b for a, b in zip(from_x, from_y, strict=True))
    slope = together / spread_x
    return Line(len(x), together / math.sqrt(spread_x * spread_y), slope, mean_y - slope * mean_x)


def proxy_groups(catalog: Catalog, group: FeatureGroup) -> list[FeatureGroup]:
    """The groups that a group's proxies are of, each once."""
    names = [proxy.reference.partition(":")[0] for _, proxy in sorted(group.backfill.proxies.items())]
    return [catalog.group(name) for name in dict.fromkeys(names)]


def proxy_computer(store: OfflineStore, catalog: Catalog, group: FeatureGroup) -> Callable[[TimeWindow], ComputedRows]:
    """What computes windows of a windowed group from its declared proxies.

    An entity has a row if one of its proxies has a value; features without a proxy are null.

    Raises:
        PromotionRefused: a proxy's correlation with its feature is below the bound, or rests on too few pairs.
    """
    readers = {upstream.stored_name: _Reader(store, upstream) for upstream in proxy_groups(catalog, group)}
    overlap = _overlap(store, group)
    stand_ins = [
        _fitted(group, feature, proxy, readers[proxy.reference.partition(":")[0]], overlap)
        for feature, proxy in sorted(group.backfill.proxies.items())
    ]
    registered = store.registry.group(group.stored_name)
    notes = {name: value for stand_in in stand_ins for name, value in stand_in.notes.items()}

    def compute(window: TimeWindow) -> ComputedRows:
        rows, read = _stood_in(group, window, stand_ins)
        stamps = {"knowledge_time": group.horizon(window), "window_start": window.start}
        return replace(stamped(registered, rows, stamps, Visible({}, read, 0)), notes=notes)

    return compute


class _Reader:
    """Values of one group as production could have read them at an instant, those of low classes left out."""

    def __init__(self, store: OfflineStore, group: FeatureGroup) -> None:
        self.registered: RegisteredGroup = store.registry.group(group.stored_name)
        numbers = [f.name for f in self.registered.features if f.dtype.is_numeric()]
        stored = store.table(group.stored_name).scan().select(*group.keys, *TIMES, *numbers).collect()
        self._rows = stored.with_columns(is_good=_is_good(store, self.registered, stored))

    def at(self, labels: pl.DataFrame, feature: str) -> pl.Series:
        """The value of a feature for each label (keys and `label_time`), null where there is none."""
        group = self.registered
        matches = match_rows(labels, self._rows, keys=list(group.key_names), max_age=group.max_age)
        values = self._rows.select(pl.when("is_good").then(feature))[feature]
        return values.gather(matches["row"]).cast(pl.Float64)

    def entities(self, window: TimeWindow, group: FeatureGroup) -> pl.DataFrame:
        """The keys known by a window's cut-off, with it as `label_time`."""
        known = self._rows.filter(pl.col("knowledge_time") <= group.cut_off(window))
        label_time = pl.lit(group.cut_off(window)).cast(TIMESTAMP)
        return known.select(group.keys).unique().sort(group.keys).with_columns(label_time=label_time)


def _is_good(store: OfflineStore, group: RegisteredGroup, rows: pl.DataFrame) -> pl.Series:
    classes = row_classes(store, group, rows).to_frame("found")
    return classes.select(pl.col("found") >= pl.lit(FITTED_ON, dtype=CLASS)).to_series()


def _overlap(store: OfflineStore, group: FeatureGroup) -> pl.DataFrame:
    """The group's own good rows, each with its window's cut-off as `label_time`."""
    registered = store.registry.group(group.stored_name)
    rows = store.table(group.stored_name).scan().collect()
    good = rows.filter(_is_good(store, registered, rows))
    # A windowed row is true at its window's end.
    return good.with_columns(label_time=pl.col("event_time") + group.delay)


@dataclass(frozen=True, slots=True)
class _StandIn:
    """A proxy that was fitted to its feature."""

    feature: str
    proxy: Proxy
    reader: _Reader
    line: Line

    @property
    def column(self) -> str:
        return self.proxy.reference.partition(":")[2]

    def mapped(self, labels: pl.DataFrame) -> pl.Series:
        """The line's value for each label; null without a finite value of the proxy."""
        x = self.reader.at(labels, self.column)
        y = (x * self.line.slope + self.line.intercept).alias(self.feature)
        return y.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()

    @property
    def notes(self) -> Mapping[str, float | str]:
        return {
            f"{self.feature}_proxy": self.proxy.reference,
            f"{self.feature}_correlation": self.line.correlation,
            f"{self.feature}_pairs": self.line.pairs,
            f"{self.feature}_slope": self.line.slope,
            f"{self.feature}_intercept": self.line.intercept,
        }


def _fitted(group: FeatureGroup, feature: str, proxy: Proxy, reader: _Reader, overlap: pl.DataFrame) -> _StandIn:
    x = reader.at(overlap.select(*group.keys, "label_time"), proxy.reference.partition(":")[2])
    pairs = pl.DataFrame({"x": x, "y": overlap[feature].cast(pl.Float64)}).drop_nulls()
    finite = pairs.filter(pl.all_horizontal(pl.all().is_finite()))
    if finite.height < MIN_PAIRS:
        raise PromotionRefused(
            f"Proxy {proxy.reference!r} of '{group.stored_name}:{feature}' overlaps with it on {finite.height} pairs of entity "
            f"and window of class {FITTED_ON!r} or better; a line is fitted on {MIN_PAIRS} or more. Nothing is written. Compute "
            "more windows of both in full first, or remove the proxy."
        )
    line = fit_line(finite["x"].to_list(), finite["y"].to_list())
    if line is None or abs(line.correlation) < proxy.min_correlation:
        found = "not defined, as one of them never varies" if line is None else f"{line.correlation:.4f}"
        raise PromotionRefused(
            f"The correlation of proxy {proxy.reference!r} with '{group.stored_name}:{feature}' is {found}, on {finite.height} pairs "
            f"of entity and window; its bound is {proxy.min_correlation}, in absolute value. Nothing is written. Declare a "
            "proxy that follows the feature, or a lower min_correlation."
        )
    return _StandIn(feature, proxy, reader, line)


def _stood_in(group: FeatureGroup, window: TimeWindow, stand_ins: Sequence[_StandIn]) -> tuple[pl.DataFrame, int]:
    """The rows of a window, and how many values of proxies they rest on."""
    readers = {stand_in.reader.registered.name: stand_in.reader for stand_in in stand_ins}
    parts = [reader.entities(window, group) for reader in readers.values()]
    labels = pl.concat(parts).unique().sort(group.keys)
    values = [stand_in.mapped(labels) for stand_in in stand_ins]
    valued = labels.with_columns(values).filter(
        ~pl.all_horizontal(pl.col(stand_in.feature).is_null() for stand_in in stand_ins)
    )
    read = sum(len(column) - column.null_count() for column in values)
    return valued.select(_column(group, name, window, valued) for name in group.row_schema), read


def _column(group: FeatureGroup, name: str, window: TimeWindow, valued: pl.DataFrame) -> pl.Expr:
    dtype = as_dtype(group.row_schema[name])
    if name == "event_time":
        return pl.lit(window.end).cast(TIMESTAMP).alias(name)
    if name not in valued.columns:
        return pl.lit(None, dtype=dtype).alias(name)
    is_rounded = name not in group.keys and dtype.is_integer()
    return (pl.col(name).round() if is_rounded else pl.col(name)).cast(dtype)
