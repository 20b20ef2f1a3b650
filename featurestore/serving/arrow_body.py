"""The answer as an Arrow IPC stream: one batch, a row an entity.

Columns are the keys, then for each feature its value under its own name, `{feature}__status` and `{feature}__event_time`,
and, where asked for, `{feature}__age_seconds` and `{feature}__tier`. Values have their declared types. The schema's metadata
has `freshness`: of each group its state, lag and SLO, as JSON; where values are INVALID also `causes`: by group, why.
"""

import json
from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow as pa

from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.serving.slices import Slice
from featurestore.serving.wire import AGE_SECONDS, CAUSES, EVENT_TIME, FRESHNESS, STATUS, TIER

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
    told = {FRESHNESS: part.result.freshness_json}
    if causes := part.causes:
        told[CAUSES] = json.dumps(causes).encode()
    return _stream(columns, told)


def _stream(columns: Sequence[pl.Series], told: Mapping[str, bytes]) -> bytes:
    """The stream as pyarrow writes it, column by column: Polars writes no metadata of a schema."""
    arrays = [series.to_arrow(compat_level=OLDEST) for series in columns]
    batch = pa.RecordBatch.from_arrays(arrays, names=[series.name for series in columns])
    batch = batch.replace_schema_metadata(told)
    written = pa.BufferOutputStream()
    with pa.ipc.new_stream(written, batch.schema) as stream:
        stream.write_batch(batch)
    body: bytes = written.getvalue().to_pybytes()
    return body
