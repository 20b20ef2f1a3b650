"""How a declaration looks in Dagster's catalogue: keys, owners, tags, kinds and column schemas."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from featurestore.declaration import Catalog, Feature, FeatureGroup
from featurestore.declaration.dtypes import as_dtype, dtype_name
from featurestore.declaration.lineage import Columns, feature_lineage
from featurestore.declaration.source import Source


def raw_key(source: Source) -> dg.AssetKey:
    return dg.AssetKey(["raw", source.name])


def offline_key(group: FeatureGroup) -> dg.AssetKey:
    return dg.AssetKey(["offline", group.stored_name])


def online_key(group: FeatureGroup) -> dg.AssetKey:
    return dg.AssetKey(["online", group.stored_name])


def owners(owner: str) -> list[str]:
    """Dagster's form of an owner; none for a source that declares none."""
    return [owner] if owner else []


def group_tags(group: FeatureGroup) -> dict[str, str]:
    """What the catalogue can be searched by."""
    return {
        "entity": group.entity.name,
        "cadence": group.cadence.name,
        "emits": group.kind,
        "version": str(group.version),
        **group.tags,
    }


def group_metadata(group: FeatureGroup) -> dict[str, Any]:
    """The declaration's contract, shown on the asset."""
    spans = {
        "lookback": group.lookback,
        "delay": group.delay,
        "publish": group.publish,
        "max_age": group.max_age,
        "freshness": group.freshness,
    }
    shown = {name: str(span) for name, span in spans.items() if span is not None}
    return {"dagster/column_schema": group_columns(group), "entity_keys": ", ".join(group.keys), **shown}


def group_columns(group: FeatureGroup) -> dg.TableSchema:
    """Keys, event time and features with their types, units and bounds."""
    keys = [
        _column(key, dtype_name(dtype), f"Key of {group.entity.name}.", nullable=False)
        for key, dtype in group.entity.keys.items()
    ]
    times = [_column("event_time", "timestamp", "When the values are true of.", nullable=False)]
    return dg.TableSchema(keys + times + [_feature_column(feature) for feature in group.features])


def lineage_metadata(catalog: Catalog, group: FeatureGroup) -> dict[str, Any]:
    """The input columns that each feature is computed from, found by running the transform on empty frames.

    Dagster+ draws `dagster/column_lineage`; the open-source pages show it nowhere, so the same stands in a table too.
    """
    read = feature_lineage(catalog, group)
    return {"dagster/column_lineage": _column_lineage(catalog, group, read), "computed_from": lineage_table(read)}


def lineage_table(read: Mapping[str, Columns]) -> dg.TableMetadataValue:
    """A line for each feature: the columns that it rests on, as input.column."""
    lines = {
        feature: [f"{name}.{column}" for name, columns in inputs.items() for column in columns]
        for feature, inputs in read.items()
    }
    return dg.MetadataValue.table(
        [dg.TableRecord({"feature": name, "computed from": ", ".join(found)}) for name, found in lines.items()],
        schema=dg.TableSchema([dg.TableColumn("feature", "string"), dg.TableColumn("computed from", "string")]),
    )


def _column_lineage(catalog: Catalog, group: FeatureGroup, read: Mapping[str, Columns]) -> dg.TableColumnLineage:
    inputs = catalog.inputs_of(group)
    keys = {name: raw_key(item) if isinstance(item, Source) else offline_key(item) for name, item in inputs.items()}
    return dg.TableColumnLineage(
        {
            feature: [dg.TableColumnDep(keys[name], column) for name, columns in used.items() for column in columns]
            for feature, used in read.items()
        }
    )


def source_columns(source: Source) -> dg.TableSchema:
    """The declared columns of a landing file."""
    return dg.TableSchema(
        [
            _column(name, dtype_name(as_dtype(dtype)), "", nullable=name not in source.keys)
            for name, dtype in source.schema.items()
        ]
    )


def _feature_column(feature: Feature) -> dg.TableColumn:
    bounds = [f"{sign} {limit:g}" for sign, limit in ((">=", feature.ge), ("<=", feature.le)) if limit is not None]
    unit = f" [{feature.unit}]" if feature.unit else ""
    return dg.TableColumn(
        feature.name,
        feature.dtype_name,
        description=feature.description + unit,
        constraints=dg.TableColumnConstraints(nullable=feature.max_null_fraction > 0, other=bounds),
    )


def _column(name: str, dtype: str, description: str, *, nullable: bool) -> dg.TableColumn:
    return dg.TableColumn(
        name, dtype, description=description or None, constraints=dg.TableColumnConstraints(nullable=nullable)
    )


def row_metadata(**numbers: int | None) -> Mapping[str, Any]:
    """Counts of one materialization; `rows` is shown by Dagster as the partition's row count."""
    shown = {name: number for name, number in numbers.items() if number is not None}
    rows = shown.pop("rows", None)
    return ({"dagster/partition_row_count": rows} if rows is not None else {}) | shown
