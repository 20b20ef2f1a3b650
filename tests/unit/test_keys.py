"""Online keys: distinct entities never share one, and none steers the server."""

import random
import re
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import InvalidInput, SchemaMismatch
from featurestore.online.keys import entity_id, entity_ids, escape, online_keys
from featurestore.online.redis.topology import SLOTS, slots_of
from tests.scale import cases, exam_seed

AWKWARD = st.text(st.sampled_from(list('ab:|{}%25\x00\n é\x85\u2028*?[]\\#"')), max_size=5)
PAIRS = st.tuples(AWKWARD | st.text(max_size=4), AWKWARD | st.text(max_size=4))
BATCH = 200


@settings(max_examples=cases(100_000 // BATCH, 50), deadline=None)
@given(pairs=st.lists(PAIRS, min_size=1, max_size=BATCH, unique=True))
def test_distinct_entities_never_share_a_key(pairs: list[tuple[str, str]]) -> None:
    frame = pl.DataFrame(pairs, schema={"a": pl.String, "b": pl.String}, orient="row")
    keys = online_keys("carrier_delay_daily", entity_ids(frame, ["a", "b"]))
    assert len(set(keys)) == len(pairs)
    assert keys == online_keys("carrier_delay_daily", [entity_id(pair) for pair in pairs])
    for key in keys:
        assert key.startswith(b"carrier_delay_daily:")
        assert not re.search(rb'[\x00-\x20\x7f:{}*?\[\]\\"#]', key.split(b":", 1)[1])


GROUP_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}(_v[1-9])?", fullmatch=True)


@settings(max_examples=cases(100_000 // BATCH, 40), deadline=None)
@given(named=st.lists(st.tuples(GROUP_NAMES, PAIRS), min_size=1, max_size=BATCH, unique=True))
def test_distinct_groups_and_entities_never_share_a_key(named: list[tuple[str, tuple[str, str]]]) -> None:
    keys = [online_keys(group, [entity_id(pair)])[0] for group, pair in named]
    assert len(set(keys)) == len(named)
    assert [key.partition(b":")[0].decode() for key in keys] == [group for group, _ in named]


def awkward_pairs(seed: int, count: int) -> list[tuple[str, tuple[str, ...]]]:
    """So many different groups with entities of one to three keys, most of them made to be mistaken for another.

    Half of the values are a change of one character away from another one, or are what its encoding looks like.
    """
    draw, found = random.Random(seed), dict[tuple[str, tuple[str, ...]], None]()
    alphabet = [
        *'ab:|{}%25*?[]\\#"',
        " ",
        "\x00",
        "\n",
        "\xa0",
        "é",
        "\u2028",
        "🥪",
        "%3A",
        "%7C",
        "%25",
        "{a}",
        "a|b",
        "g:",
    ]
    names = ["g", "gg", "g_v2", "g_v22", "g_2", "carrier_delay_daily", "carrier_delay_daily_v2"]
    while len(found) < count:
        parts = [draw.choices(alphabet, k=draw.randint(0, 6)) for _ in range(draw.randint(1, 3))]
        found[draw.choice(names), tuple(map("".join, parts))] = None
        whole = "|".join("".join(part) for part in parts)
        near = (whole, escape(whole), whole.lower(), whole.replace("|", ":"), f"{whole}|", whole.replace("%", "%25"))
        for text in draw.sample(near, 2):
            found[draw.choice(names), tuple(text.split("|")) if draw.random() < 0.5 else (text,)] = None
    return list(found)[:count]


def test_of_100_000_different_pairs_no_two_share_a_key() -> None:
    """One set of them, drawn from the exam's seed; entities of one group have the same number of keys, and so here."""
    pairs = awkward_pairs(exam_seed(), 100_000)
    named = {(f"{group}{len(values)}", values) for group, values in pairs}
    assert len(named) == 100_000
    keys = {online_keys(group, [entity_id(values)])[0] for group, values in named}
    assert len(keys) == 100_000
    assert len({key.lower() for key in keys}) > 90_000, "they differ in more than their case"


def test_keys_spread_over_the_slots_of_a_cluster_and_none_is_pinned() -> None:
    """Entities that try to: of 100,000 with hash tags of their own, a slot has as many as chance gives it."""
    count = cases(100_000, 20_000)
    ids = [entity_id([f"{{tag}}{number}", f"{{{number % 7}}}"]) for number in range(count)]
    slots = slots_of(online_keys("carrier_delay_daily", ids))
    sizes = np.bincount(slots, minlength=SLOTS)
    expected_empty = SLOTS * np.exp(-count / SLOTS)
    assert abs(int((sizes == 0).sum()) - expected_empty) < 6 * np.sqrt(expected_empty)
    assert sizes.max() < count / SLOTS + 8 * np.sqrt(count / SLOTS) + 6


@settings(max_examples=cases(2_000, 50), deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.booleans(), st.dates(), st.text(max_size=3))))
def test_columns_and_single_values_spell_the_same_id(rows: list[tuple[int, bool, date, str]]) -> None:
    frame = pl.DataFrame(rows, schema={"i": pl.Int64, "b": pl.Boolean, "d": pl.Date, "s": pl.String}, orient="row")
    assert entity_ids(frame, ["i", "b", "d", "s"]).to_list() == [entity_id(row) for row in rows]


def test_an_ordinary_id_is_written_as_it_is() -> None:
    frame = pl.DataFrame({"tailnum": ["N14228", "N24211"]})
    assert online_keys("plane_profile", entity_ids(frame, ["tailnum"])) == [
        b"plane_profile:N14228",
        b"plane_profile:N24211",
    ]


def test_the_separator_in_a_value_is_not_the_separator_between_values() -> None:
    frame = pl.DataFrame({"a": ["x|y", "x"], "b": ["z", "y|z"]})
    assert entity_ids(frame, ["a", "b"]).to_list() == ["x%7Cy|z", "x|y%7Cz"]


def test_null_keys_are_refused() -> None:
    with pytest.raises(InvalidInput, match="Key column 'k' has 1 nulls in 2 rows"):
        entity_ids(pl.DataFrame({"k": ["a", None]}), ["k"])
    with pytest.raises(InvalidInput, match="None"):
        entity_id([None])


@pytest.mark.parametrize("value", [1.5, datetime(2026, 1, 1, tzinfo=UTC), b"a", ["a"]])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="keys are int, str, bool or date"):
        entity_id([value])


def test_missing_and_mistyped_key_columns_are_refused() -> None:
    frame = pl.DataFrame({"k": [1.5]})
    with pytest.raises(SchemaMismatch, match="'k' must be"):
        entity_ids(frame, ["k"])
    with pytest.raises(SchemaMismatch, match="no such column"):
        entity_ids(frame, ["other"])
    with pytest.raises(InvalidInput, match="at least one"):
        entity_ids(frame, [])
