"""The frontier of an entity and its last row as of an instant."""

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from featurestore.errors import InvalidInput
from featurestore.frontier import frontier, latest_as_of, rows_behind
from tests.pit_oracle import (
    MICROSECOND,
    at,
    day,
    delays,
    expected_frontier,
    feature_rows,
    frontier_place,
    highest,
    is_same_entity,
    key_sets,
    small,
    version,
)
from tests.scale import cases

GOOD = delays((1, day(2), day(2), 7))

property_test = settings(
    max_examples=cases(2000, 150), deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


@property_test
@given(st.data())
def test_frontier_agrees_with_the_oracle(data: st.DataObject) -> None:
    keys = data.draw(key_sets())
    rows, table = data.draw(feature_rows(keys, nulls=False))
    assert_frame_equal(frontier(table, keys=keys), table[expected_frontier(rows, keys)])


@property_test
@given(st.data())
def test_latest_as_of_is_the_highest_version_and_the_last_frontier_row(data: st.DataObject) -> None:
    keys = data.draw(key_sets())
    rows, table = data.draw(feature_rows(keys, nulls=False))
    now = at(data.draw(small))
    best = {}
    for row in rows:
        entity = tuple(row[key] for key in keys)
        rivals = [(i, r) for i, r in enumerate(rows) if is_same_entity(row, r, keys) and frontier_place(r)[0] <= now]
        best[entity] = highest(rivals)
    numbers = {winner[0] for winner in best.values() if winner is not None}
    latest = latest_as_of(table, keys=keys, as_of=now)
    assert_frame_equal(latest, table[sorted(numbers, key=lambda i: (version(rows[i]), i))])
    ends = {
        tuple(rows[i][k] for k in keys): i for i in expected_frontier(rows, keys) if frontier_place(rows[i])[0] <= now
    }
    assert set(ends.values()) == numbers


def test_frontier_drops_what_was_already_out_of_date_when_it_became_known() -> None:
    features = delays((1, day(5), day(5), 7), (1, day(2), day(8), 8), (2, day(2), day(9), 9), (1, day(5), day(6), 1))
    assert frontier(features, keys="id")["delay"].to_list() == [7, 1, 9]


def test_frontier_and_latest_keep_tombstones() -> None:
    columns = "id event_time is_deleted delay"
    features = delays((1, day(3), True, 8), (1, day(2), False, 7), columns=columns)
    assert frontier(features, keys="id")["is_deleted"].to_list() == [False, True]
    assert latest_as_of(features, keys="id", as_of=day(3))["is_deleted"].to_list() == [True]


def test_latest_as_of_counts_what_is_known_at_that_instant() -> None:
    features = delays((1, day(1), day(2), 7), (1, day(2), day(4), 8))
    assert latest_as_of(features, keys="id", as_of=day(2) - MICROSECOND).is_empty()
    assert latest_as_of(features, keys="id", as_of=day(4) - MICROSECOND)["delay"].to_list() == [7]
    assert latest_as_of(features.lazy(), keys="id", as_of=day(4))["delay"].to_list() == [8]


def test_latest_as_of_compares_knowledge_before_commit() -> None:
    columns = "id event_time knowledge_time created_at delay"
    features = delays((1, day(2), day(4), day(5), 8), (1, day(2), day(3), day(9), 7), columns=columns)
    assert latest_as_of(features, keys="id", as_of=day(9))["delay"].to_list() == [8]


def test_latest_as_of_a_naive_instant_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"as_of is .*aware datetime"):
        latest_as_of(GOOD, keys="id", as_of=day(2).replace(tzinfo=None))


def test_null_keys_have_no_frontier() -> None:
    features = pl.concat([GOOD, GOOD.with_columns(pl.lit(None, pl.Int64).alias("id"))])
    refusal = r"Key 'id' of features is null in 1 of 2 rows.*drop_nulls"
    with pytest.raises(InvalidInput, match=refusal):
        frontier(features, keys="id")
    with pytest.raises(InvalidInput, match=refusal):
        latest_as_of(features, keys="id", as_of=day(3))


def test_rows_behind_are_those_that_the_frontier_leaves_out() -> None:
    late = {"entity": ["a", "a", "a", "b"], "event_time": [day(2), day(1), day(2), day(1)]}
    features = pl.DataFrame({**late, "knowledge_time": [day(3), day(4), day(5), day(4)], "value": [1, 2, 3, 4]})
    assert rows_behind(features, keys="entity")["value"].to_list() == [2]
    assert sorted([*frontier(features, keys="entity")["value"], 2]) == [1, 2, 3, 4]
