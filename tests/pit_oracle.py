"""What the law of the point-in-time join says, one row at a time in plain Python, and generated inputs to try it on."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import strategies as st

from featurestore.pit import JoinMode

START = datetime(2025, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TIME = pl.Datetime("us", "UTC")
Row = dict[str, Any]


def at(microseconds: int) -> datetime:
    return START + microseconds * MICROSECOND


def day(number: int) -> datetime:
    return datetime(2025, 1, number, tzinfo=UTC)


def labels_at(*times: datetime | None, entity: int = 1) -> pl.DataFrame:
    return pl.DataFrame({"id": [entity] * len(times), "label_time": times}, schema={"id": pl.Int64, "label_time": TIME})


def delays(*rows: tuple[Any, ...], columns: str = "id event_time knowledge_time delay") -> pl.DataFrame:
    names = columns.split()
    schema = {name: TIME if name.endswith(("_time", "_at")) else None for name in names}
    return pl.DataFrame(rows, schema=schema, orient="row")


# The oracle: the law, one row at a time.


def version(row: Row) -> tuple[datetime, datetime, datetime]:
    event: datetime = row["event_time"]
    return (event, row.get("knowledge_time", event), row.get("created_at", START))


def frontier_place(row: Row) -> tuple[datetime, datetime, datetime]:
    event, known, created = version(row)
    return (known, event, created)


def is_same_entity(row: Row, other: Row, keys: list[str]) -> bool:
    return all(row[key] is not None and row[key] == other[key] for key in keys)


def may_see(label_time: datetime | None, row: Row, mode: JoinMode) -> bool:
    if label_time is None:
        return False
    event, known, _ = version(row)
    clock = known if mode.clock == "knowledge" else event
    return {"at_or_before": clock <= label_time, "before": clock < label_time, "exact": clock == label_time}[mode.match]


def highest(rows: list[tuple[int, Row]]) -> tuple[int, Row] | None:
    return max(rows, key=lambda numbered: (version(numbered[1]), numbered[0]), default=None)


def expected_match(
    label: Row, rows: list[Row], keys: list[str], max_age: timedelta | None, mode: JoinMode
) -> tuple[int | None, str, datetime | None]:
    numbered = list(enumerate(rows))
    seen = [(i, r) for i, r in numbered if is_same_entity(label, r, keys) and may_see(label["label_time"], r, mode)]
    best = highest(seen)
    if best is None or best[1].get("is_deleted"):
        return None, "NOT_FOUND", None
    number, row = best
    if max_age is not None and label["label_time"] - row["event_time"] > max_age:
        return None, "OUTSIDE_MAX_AGE", row["event_time"]
    return number, "PRESENT", row["event_time"]


def expected_frontier(rows: list[Row], keys: list[str]) -> list[int]:
    order = sorted(range(len(rows)), key=lambda i: frontier_place(rows[i]))
    kept: list[int] = []
    for place, i in enumerate(order):
        before = [rows[j]["event_time"] for j in order[:place] if is_same_entity(rows[i], rows[j], keys)]
        if all(rows[i]["event_time"] >= event for event in before):
            kept.append(i)
    return kept


# Generated cases: few entities and few instants, so that ties, repeats and exact boundaries are common.

NAMES: dict[str, list[Any]] = {
    "integer": [1, 2, 3],
    "text": ["a", "a:b", ""],
    "flag": [True, False],
    "day": [date(2025, 1, 1), date(2025, 1, 2)],
}
DTYPES = {"integer": pl.Int64(), "text": pl.String(), "flag": pl.Boolean(), "day": pl.Date()}
small = st.integers(0, 7)


@st.composite
def key_sets(draw: st.DrawFn) -> list[str]:
    return draw(st.lists(st.sampled_from(list(NAMES)), min_size=1, max_size=3, unique=True))


def key_values(draw: st.DrawFn, keys: list[str], *, nulls: bool) -> Row:
    return {key: draw(st.sampled_from([*NAMES[key], None] if nulls else NAMES[key])) for key in keys}


@st.composite
def feature_rows(draw: st.DrawFn, keys: list[str], *, nulls: bool = True) -> tuple[list[Row], pl.DataFrame]:
    optional = {name for name in ("knowledge_time", "created_at", "is_deleted") if draw(st.booleans())}
    rows: list[Row] = []
    for _ in range(draw(st.integers(0, 14))):
        event = draw(small)
        row = {**key_values(draw, keys, nulls=nulls), "event_time": at(event)}
        row["knowledge_time"] = at(event + draw(st.integers(-1, 5)))
        row |= {"created_at": at(draw(small)), "is_deleted": draw(st.booleans()) and draw(st.booleans())}
        row |= {"value": draw(st.none() | st.integers(-3, 3)), "items": draw(st.none() | st.lists(small, max_size=2))}
        rows.append(
            {k: v for k, v in row.items() if k not in ("knowledge_time", "created_at", "is_deleted") or k in optional}
        )
    schema: dict[str, Any] = {key: DTYPES[key] for key in keys} | {"event_time": TIME}
    schema |= {name: TIME for name in ("knowledge_time", "created_at") if name in optional}
    schema |= {"is_deleted": pl.Boolean()} if "is_deleted" in optional else {}
    return rows, pl.DataFrame(rows, schema=schema | {"value": pl.Int64(), "items": pl.List(pl.Int32())}, orient="row")


@st.composite
def label_rows(draw: st.DrawFn, keys: list[str]) -> tuple[list[Row], pl.DataFrame]:
    rows = [
        {**key_values(draw, keys, nulls=True), "label_time": draw(st.none() | small.map(at)), "target": draw(small)}
        for _ in range(draw(st.integers(0, 10)))
    ]
    rows += draw(st.lists(st.sampled_from(rows), max_size=3)) if rows else []
    schema: dict[str, Any] = {key: DTYPES[key] for key in keys} | {"label_time": TIME, "target": pl.Int64()}
    return rows, pl.DataFrame(rows, schema=schema, orient="row")


max_ages = st.none() | st.integers(0, 7).map(lambda us: us * MICROSECOND)
modes = st.builds(
    JoinMode, clock=st.sampled_from(["knowledge", "event"]), match=st.sampled_from(["at_or_before", "before", "exact"])
)
