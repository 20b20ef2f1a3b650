"""The point-in-time join against a brute-force oracle, for any input."""

import bisect
import random
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from featurestore.frontier import latest_as_of
from featurestore.pit import JoinMode, match_rows, point_in_time_join
from tests.pit_oracle import (
    NAMES,
    TIME,
    Row,
    at,
    expected_match,
    feature_rows,
    key_sets,
    label_rows,
    max_ages,
    modes,
    small,
    version,
)
from tests.scale import cases

property_test = settings(
    max_examples=cases(2000, 150), deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


def check_join(
    labels: list[Row], spine: pl.DataFrame, rows: list[Row], table: pl.DataFrame, keys: list[str], **rules: Any
) -> None:
    expected = [expected_match(label, rows, keys, rules["max_age"], rules["mode"]) for label in labels]
    matches = match_rows(spine, table, keys=keys, **rules)
    assert matches.rows() == [(number, status, event) for number, status, event in expected]
    joined = point_in_time_join(spine, table, keys=keys, with_status=True, event_time_as="found_at", **rules)
    assert_frame_equal(joined.select(spine.columns), spine)
    assert joined.schema["value"] == pl.Int64
    assert joined.schema["items"] == pl.List(pl.Int32)
    for name in ("value", "items"):
        served = [None if number is None else rows[number][name] for number, _, _ in expected]
        assert joined[name].to_list() == served
        statuses = [
            "NULL_VALUE" if status == "PRESENT" and value is None else status
            for (_, status, _), value in zip(expected, served, strict=True)
        ]
        assert joined[f"{name}__status"].to_list() == statuses
    assert joined["found_at"].to_list() == [event for _, _, event in expected]


@property_test
@given(st.data())
def test_join_agrees_with_the_oracle_for_any_input(data: st.DataObject) -> None:
    keys = data.draw(key_sets())
    rows, table = data.draw(feature_rows(keys))
    labels, spine = data.draw(label_rows(keys))
    check_join(labels, spine, rows, table, keys, max_age=data.draw(max_ages), mode=JoinMode())


@property_test
@given(st.data())
def test_every_mode_agrees_with_the_oracle(data: st.DataObject) -> None:
    keys = data.draw(key_sets())
    rows, table = data.draw(feature_rows(keys))
    labels, spine = data.draw(label_rows(keys))
    check_join(labels, spine, rows, table, keys, max_age=data.draw(max_ages), mode=data.draw(modes))


@property_test
@given(st.data())
def test_online_now_equals_the_join_at_now(data: st.DataObject) -> None:
    _, table = data.draw(feature_rows(["integer"], nulls=False))
    now = at(data.draw(small))
    spine = pl.DataFrame({"integer": NAMES["integer"], "label_time": [now] * 3})
    online = latest_as_of(table, keys="integer", as_of=now)
    if "is_deleted" in online.columns:
        online = online.filter(~pl.col("is_deleted"))
    served = spine.join(online.select("integer", "value"), on="integer", how="left", maintain_order="left")
    assert_frame_equal(point_in_time_join(spine, table, keys="integer", values=["value"]), served)


@property_test
@given(st.data(), st.integers(0, 2**32))
def test_input_order_matters_only_for_exact_ties(data: st.DataObject, seed: int) -> None:
    rows, table = data.draw(feature_rows(["integer"]))
    distinct = {(row["integer"], *version(row)): i for i, row in enumerate(rows)}
    table = table[sorted(distinct.values())]
    _, spine = data.draw(label_rows(["integer"]))
    spine = spine.with_row_index("line")
    shuffled = point_in_time_join(
        spine.sample(fraction=1, shuffle=True, seed=seed),
        table.sample(fraction=1, shuffle=True, seed=seed),
        keys="integer",
    )
    assert_frame_equal(shuffled.sort("line"), point_in_time_join(spine, table, keys="integer"))


@pytest.mark.parametrize("order", ["shuffled", "by_time", "by_entity"])
def test_large_frames_agree_with_bisection(order: str) -> None:
    chance = random.Random(7)
    rows = [
        (chance.randrange(500), event := chance.randrange(10**6), event + chance.randrange(50_000))
        for _ in range(60_000)
    ]
    rows.sort(
        key={"by_time": lambda r: (r[2], r[1]), "by_entity": lambda r: (r[0], r[2], r[1])}.get(order, lambda _: 0)
    )
    labels = [(chance.randrange(520), chance.randrange(10**6)) for _ in range(20_000)]
    history: dict[int, list[tuple[int, tuple[int, int, int]]]] = {}
    for number, (entity, event, known) in sorted(enumerate(rows), key=lambda line: (line[1][2], line[1][1], line[0])):
        line = history.setdefault(entity, [])
        line.append((known, max((event, known, number), line[-1][1]) if line else (event, known, number)))
    expected = []
    for entity, when in labels:
        line = history.get(entity, [])
        place = bisect.bisect_right(line, when, key=lambda seen: seen[0])
        expected.append(line[place - 1][1][2] if place else None)
    table = pl.DataFrame(rows, schema=["id", "event_time", "knowledge_time"], orient="row")
    spine = pl.DataFrame(labels, schema=["id", "label_time"], orient="row")
    table = table.with_columns(pl.col("event_time", "knowledge_time").cast(TIME))
    assert (
        match_rows(spine.with_columns(pl.col("label_time").cast(TIME)), table, keys="id")["row"].to_list() == expected
    )
