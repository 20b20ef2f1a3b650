"""The answer as an Arrow IPC stream: one batch, a row an entity.

Columns are the keys, then for each feature its value under its own name, `{feature}__status` and `{feature}__event_time`,
and, where asked for, `{feature}__age_seconds` and `{feature}__tier`. Values have their declared types. Where values are INVALID
the schema's metadata has `causes`: by group, why, as JSON.
"""

import json
from io import BytesIO

import polars as pl

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.serving.slices import Slice
from featurestore.serving.wire import AGE_SECONDS, CAUSES, EVENT_TIME, STATUS, TIER

OLDEST = pl.CompatLevel.oldest()


def encode_arrow(part: Slice) -> bytes:
    """The body of one request's answer."""
    columns = [pl.Series(name, values, part.result.prepared.keys[name]) for name, values in part.keys.items()]
    values = part.result.values.slice(part.start, part.count)
    for series, column in zip(values, part.result.columns, strict=True):
        times = column.event_times[part.start : part.end]
        columns += [
            series,
            pl.Series(f"{column.name}{STATUS}", column.statuses[part.start : part.end], pl.String),
            pl.Series(f"{column.name}{EVENT_TIME}", times, pl.Int64).cast(TIMESTAMP),
        ]
        if part.with_serving_metadata:
            columns += [
                pl.Series(f"{column.name}{AGE_SECONDS}", part.ages(times), pl.Float64),
                pl.Series(f"{column.name}{TIER}", column.tiers[part.start : part.end], pl.String),
            ]
    causes = part.causes
    return _with_causes(pl.DataFrame(columns), causes) if causes else _stream(pl.DataFrame(columns))


def _stream(table: pl.DataFrame) -> bytes:
    written = BytesIO()
    table.write_ipc_stream(written, compat_level=OLDEST)
    return written.getvalue()


def _with_causes(table: pl.DataFrame, causes: dict[str, str]) -> bytes:
    """The stream as pyarrow writes it: Polars writes no metadata of a schema. Imported when something is amiss, and not before."""
    import pyarrow as pa

    found = table.to_arrow(compat_level=OLDEST).replace_schema_metadata({CAUSES: json.dumps(causes)})
    written = BytesIO()
    with pa.ipc.new_stream(written, found.schema) as stream:
        stream.write_table(found)
    return written.getvalue()
