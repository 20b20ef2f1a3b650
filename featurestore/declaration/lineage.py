"""Which columns of its inputs each feature of a group is computed from, as Polars itself plans it.

The transform runs on empty inputs that note which columns the optimiser asks them for. A transform that collects on its
own asks for every column, and its lineage says so.
"""

from collections.abc import Iterator, Mapping

import polars as pl
from polars.io.plugins import register_io_source

from featurestore.declaration.catalog import Catalog, any_window, input_schema
from featurestore.declaration.group import FeatureGroup

Columns = dict[str, tuple[str, ...]]


def feature_lineage(catalog: Catalog, group: FeatureGroup) -> dict[str, Columns]:
    """For each feature the columns it rests on, by input: values and whatever decides which rows count.

    Returns:
        By feature name, by input name: column names in the input's order; inputs that do not matter are left out.
    """
    return {feature.name: _columns_read(catalog, group, feature.name) for feature in group.features}


def _columns_read(catalog: Catalog, group: FeatureGroup, feature: str) -> Columns:
    read: dict[str, set[str]] = {}
    schemas = {name: input_schema(item) for name, item in catalog.inputs_of(group).items()}
    frames = {name: _noting(name, schema, read) for name, schema in schemas.items()}
    group.run(any_window(group), frames).select(feature).collect()
    return {
        name: tuple(column for column in schema if column in read[name])
        for name, schema in schemas.items()
        if read.get(name)
    }


def _noting(name: str, schema: Mapping[str, pl.DataType], read: dict[str, set[str]]) -> pl.LazyFrame:
    """An empty input that notes the columns asked of it."""

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, *_limits: int | None
    ) -> Iterator[pl.DataFrame]:
        columns = list(schema) if with_columns is None else with_columns
        noted = set(columns) | (set(predicate.meta.root_names()) if predicate is not None else set())
        read.setdefault(name, set()).update(noted)
        yield pl.DataFrame(schema={column: schema[column] for column in columns})

    return register_io_source(source, schema=pl.Schema(schema))
