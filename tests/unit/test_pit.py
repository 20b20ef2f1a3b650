"""The law of the point-in-time join, its modes and what it refuses, by examples."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from featurestore.errors import InvalidInput, SchemaMismatch
from featurestore.pit import JoinMode, feature_status, gather_values, match_rows, point_in_time_join
from tests.pit_oracle import MICROSECOND, TIME, day, delays, labels_at


def read(labels: pl.DataFrame, features: pl.DataFrame, **options: Any) -> list[Any]:
    return point_in_time_join(labels, features, keys="id", **options)["delay"].to_list()


def test_label_before_first_feature_keeps_its_row() -> None:
    assert read(labels_at(day(1), day(3)), delays((1, day(2), day(2), 7))) == [None, 7]


def test_label_of_unknown_entity_keeps_its_row() -> None:
    assert read(labels_at(day(3), entity=99), delays((1, day(2), day(2), 7))) == [None]


def test_repeated_labels_are_not_merged() -> None:
    assert read(labels_at(day(3), day(3), day(3)), delays((1, day(2), day(2), 7))) == [7, 7, 7]


def test_labels_keep_their_order() -> None:
    features = delays((1, day(2), day(2), 7), (1, day(3), day(3), 8))
    assert read(labels_at(day(4), day(1), day(3), day(2)), features) == [8, None, 8, 7]


def test_value_known_exactly_at_label_time_is_seen() -> None:
    assert read(labels_at(day(2) - MICROSECOND, day(2)), delays((1, day(1), day(2), 7))) == [None, 7]


def test_value_true_but_not_yet_known_is_not_seen() -> None:
    assert read(labels_at(day(3)), delays((1, day(1), day(1), 7), (1, day(2), day(4), 8))) == [7]


def test_late_row_never_displaces_a_newer_one() -> None:
    assert read(labels_at(day(9)), delays((1, day(5), day(5), 7), (1, day(2), day(8), 8))) == [7]


def test_correction_of_the_same_event_wins_once_known() -> None:
    features = delays((1, day(2), day(5), 8), (1, day(2), day(2), 7))
    assert read(labels_at(day(4), day(5)), features) == [7, 8]


def test_later_commit_wins_among_equal_times() -> None:
    columns = "id event_time knowledge_time created_at delay"
    features = delays((1, day(2), day(2), day(6), 8), (1, day(2), day(2), day(3), 7), columns=columns)
    assert read(labels_at(day(4)), features) == [8]


def test_exact_tie_takes_the_last_row_in_input_order() -> None:
    features = delays((1, day(2), day(2), 7), (1, day(2), day(2), 8))
    assert read(labels_at(day(4)), features) == [8]
    assert read(labels_at(day(4)), features.reverse()) == [7]


def test_forecast_is_seen_before_the_time_it_is_true_of() -> None:
    assert read(labels_at(day(2)), delays((1, day(5), day(1), 7))) == [7]


def test_max_age_is_inclusive_to_the_microsecond() -> None:
    labels = labels_at(day(4), day(4) + MICROSECOND)
    features = delays((1, day(2), day(2), 7))
    joined = point_in_time_join(
        labels, features, keys="id", max_age=timedelta(days=2), with_status=True, event_time_as="at"
    )
    assert joined["delay"].to_list() == [7, None]
    assert joined["delay__status"].to_list() == ["PRESENT", "OUTSIDE_MAX_AGE"]
    assert joined["at"].to_list() == [day(2), day(2)]


def test_max_age_of_zero_serves_only_the_same_instant() -> None:
    assert read(labels_at(day(2), day(2) + MICROSECOND), delays((1, day(2), day(2), 7)), max_age=timedelta(0)) == [
        7,
        None,
    ]


def test_longest_possible_max_age_is_no_limit() -> None:
    assert read(labels_at(day(4)), delays((1, day(2), day(2), 7)), max_age=timedelta.max) == [7]


def test_max_age_is_not_filled_from_an_older_row() -> None:
    features = delays((1, day(2), day(2), 7), (1, day(1), day(1), 6))
    assert read(labels_at(day(9)), features, max_age=timedelta(days=3)) == [None]


def test_tombstone_hides_the_values_before_it_until_a_newer_row() -> None:
    columns = "id event_time knowledge_time is_deleted delay"
    features = delays(
        (1, day(2), day(2), False, 7), (1, day(4), day(4), True, 7), (1, day(6), day(6), False, 9), columns=columns
    )
    joined = point_in_time_join(
        labels_at(day(3), day(5), day(7)), features, keys="id", with_status=True, event_time_as="at"
    )
    assert joined["delay"].to_list() == [7, None, 9]
    assert joined["delay__status"].to_list() == ["PRESENT", "NOT_FOUND", "PRESENT"]
    assert joined["at"].to_list() == [day(2), None, day(6)]
    assert "is_deleted" not in joined.columns


def test_old_tombstone_is_not_found_rather_than_outside_max_age() -> None:
    features = delays((1, day(2), True, 7), columns="id event_time is_deleted delay")
    assert match_rows(labels_at(day(9)), features, keys="id", max_age=timedelta(1))["status"].to_list() == ["NOT_FOUND"]


def test_knowledge_time_is_event_time_when_absent() -> None:
    assert read(labels_at(day(1), day(2)), delays((1, day(2), 7), columns="id event_time delay")) == [None, 7]


def test_null_value_is_told_apart_from_no_row() -> None:
    features = delays((1, day(2), day(2), None)).cast({"delay": pl.Float64})
    joined = point_in_time_join(labels_at(day(1), day(3)), features, keys="id", with_status=True)
    assert joined["delay__status"].to_list() == ["NOT_FOUND", "NULL_VALUE"]


def test_newer_null_value_is_not_filled_from_an_older_row() -> None:
    assert read(labels_at(day(4)), delays((1, day(2), day(2), 7), (1, day(3), day(3), None))) == [None]


def test_nan_is_a_value() -> None:
    features = delays((1, day(2), day(2), float("nan")))
    assert (
        point_in_time_join(labels_at(day(3)), features, keys="id", with_status=True)["delay__status"].item()
        == "PRESENT"
    )


def test_null_label_time_keeps_its_row_and_finds_nothing() -> None:
    features = delays((1, datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), 7))
    for mode in (JoinMode(), JoinMode(match="before"), JoinMode(match="exact")):
        matches = match_rows(labels_at(None), features, keys="id", mode=mode)
        assert matches.rows() == [(None, "NOT_FOUND", None)]


def test_null_keys_never_match() -> None:
    labels = labels_at(day(3)).with_columns(pl.lit(None, pl.Int64).alias("id"))
    features = delays((None, day(2), day(2), 7), (1, day(2), day(2), 8)).cast({"id": pl.Int64})
    assert read(labels, features) == [None]


def test_half_null_composite_key_never_matches() -> None:
    labels = pl.DataFrame({"a": ["x", "x"], "b": [None, 1], "label_time": [day(3)] * 2})
    features = pl.DataFrame({"a": ["x", "x"], "b": [None, 1], "event_time": [day(1)] * 2, "delay": [7, 8]})
    assert point_in_time_join(labels, features, keys=["a", "b"])["delay"].to_list() == [None, 8]


def test_composite_keys_are_compared_part_by_part() -> None:
    labels = pl.DataFrame({"a": ["x", "x:y"], "b": ["y:z", "z"], "label_time": [day(3)] * 2})
    features = pl.DataFrame({"b": ["y:z", "z"], "a": ["x", "x:y"], "event_time": [day(1)] * 2, "delay": [7, 8]})
    assert point_in_time_join(labels, features, keys=["a", "b"])["delay"].to_list() == [7, 8]


@pytest.mark.parametrize(
    "dtype",
    [
        pl.Int8,
        pl.UInt64,
        pl.Boolean,
        pl.Date,
        pl.Categorical,
        pl.Enum(["1"]),
        pl.List(pl.Int16),
        pl.Array(pl.Float32, 1),
    ],
)
def test_dtypes_are_kept_after_a_miss(dtype: Any) -> None:
    value = {pl.Boolean: True, pl.Date: day(1).date(), pl.Categorical: "1"}.get(dtype, 1)
    value = "1" if isinstance(dtype, pl.Enum) else [1] if dtype in (pl.List, pl.Array) else value
    features = pl.DataFrame({"id": [1], "event_time": [day(2)], "delay": pl.Series([value], dtype=dtype)})
    joined = point_in_time_join(labels_at(day(1), day(3)), features, keys="id")
    assert joined.schema["delay"] == dtype
    assert joined["delay"].null_count() == 1


def test_empty_frames_give_empty_or_null_columns() -> None:
    labels, features = labels_at(day(3)), delays((1, day(2), day(2), 7))
    assert point_in_time_join(labels.clear(), features, keys="id").schema == {**labels.schema, "delay": pl.Int64}
    assert read(labels.clear(), features) == read(labels.clear(), features.clear()) == []
    assert read(labels, features.clear()) == [None]


def test_lazy_frames_and_a_choice_of_values_read_only_what_is_named() -> None:
    features = delays((1, day(2), day(2), 7)).with_columns(other=pl.lit(1))
    joined = point_in_time_join(labels_at(day(3)).lazy(), features.lazy(), keys=["id"], values=["delay"])
    assert joined.columns == ["id", "label_time", "delay"]
    assert joined["delay"].item() == 7


def test_labels_may_name_their_time_column_otherwise() -> None:
    labels = labels_at(day(3)).rename({"label_time": "event_time"})
    joined = point_in_time_join(labels, delays((1, day(2), day(2), 7)), keys="id", label_time="event_time")
    assert joined.columns == ["id", "event_time", "delay"]
    assert joined.row(0) == (1, day(3), 7)


def test_columns_may_have_any_names() -> None:
    inner = ["row", "entity", "label", "seen", "key0", "status", "asked", "label_time_right"]
    labels = labels_at(day(3)).rename({"id": "row"}).with_columns(entity=pl.lit("x"), seen=pl.lit(1))
    features = delays((1, day(2), day(2), 7)).rename({"id": "row"})
    features = features.with_columns(pl.lit(5).alias(name) for name in inner if name not in ("row", "entity", "seen"))
    joined = point_in_time_join(labels, features, keys="row")
    assert joined["delay"].item() == 7
    assert joined["status"].item() == 5


def test_other_zones_and_units_are_the_same_instant() -> None:
    features = delays((1, day(2), day(2), 7))
    for unit in ("ms", "us", "ns"):
        zoned = labels_at(day(2)).with_columns(pl.col("label_time").cast(pl.Datetime(unit, "UTC")))
        zoned = zoned.with_columns(pl.col("label_time").dt.convert_time_zone("America/New_York"))
        joined = point_in_time_join(zoned, features, keys="id", max_age=timedelta(0))
        assert joined["delay"].item() == 7
        assert joined.schema["label_time"] == zoned.schema["label_time"]


def test_halves_of_the_join_serve_columns_one_at_a_time() -> None:
    features = delays((1, day(2), day(2), 7), (1, day(3), day(3), None))
    matches = match_rows(labels_at(day(1), day(2), day(3)), features.drop("delay"), keys="id")
    assert matches.schema["row"] == pl.UInt32
    assert matches["row"].to_list() == [None, 0, 1]
    values = gather_values(features["delay"], matches)
    assert feature_status(values, matches).to_list() == ["NOT_FOUND", "PRESENT", "NULL_VALUE"]


# Other systems' rules.


def test_strict_mode_does_not_see_the_same_instant() -> None:
    features = delays((1, day(2), day(2), 7), (1, day(3), day(3), 8))
    assert read(labels_at(day(3)), features, mode=JoinMode(match="before")) == [7]


def test_exact_mode_sees_only_the_same_instant() -> None:
    features = delays((1, day(2), day(2), 7), (1, day(4), day(4), 8))
    assert read(labels_at(day(2), day(3), day(4)), features, mode=JoinMode(match="exact")) == [7, None, 8]


def test_exact_mode_sees_a_row_that_a_newer_one_known_before_would_hide() -> None:
    features = delays((1, day(5), day(6), 8), (1, day(2), day(7), 7))
    assert read(labels_at(day(7)), features, mode=JoinMode(match="exact")) == [7]


def test_event_mode_breaks_ties_by_knowledge_before_commit() -> None:
    columns = "id event_time knowledge_time created_at delay"
    features = delays((1, day(2), day(4), day(5), 8), (1, day(2), day(3), day(9), 7), columns=columns)
    assert read(labels_at(day(3)), features, mode=JoinMode(clock="event")) == [8]


def test_event_mode_ignores_when_a_row_became_known() -> None:
    features = delays((1, day(2), day(9), 7))
    assert read(labels_at(day(3)), features, mode=JoinMode(clock="event")) == [7]


# Inputs that are refused.

GOOD = delays((1, day(2), day(2), 7))


@pytest.mark.parametrize("column", ["label_time", "event_time", "knowledge_time", "created_at"])
def test_naive_time_is_refused_and_never_guessed(column: str) -> None:
    labels, features = labels_at(day(3)), GOOD.with_columns(created_at="event_time")
    frame = labels if column == "label_time" else features
    naive = frame.with_columns(pl.col(column).dt.replace_time_zone(None))
    with pytest.raises(InvalidInput, match=rf"Column '{column}' .* time zone is needed.*replace_time_zone"):
        read(naive, features) if column == "label_time" else read(labels, naive)


@pytest.mark.parametrize("values", [[date(2025, 1, 1)], ["2025-01-01"], [1]])
def test_time_that_is_no_instant_is_refused(values: list[Any]) -> None:
    with pytest.raises(InvalidInput, match=r"Column 'label_time' of labels is .*a Datetime with a time zone is needed"):
        read(labels_at(day(3)).with_columns(label_time=pl.Series(values)), GOOD)


def test_nanoseconds_below_a_microsecond_are_refused() -> None:
    fine = pl.col("label_time").cast(pl.Datetime("ns", "UTC")) + pl.duration(nanoseconds=1)
    with pytest.raises(InvalidInput, match=r"not whole microseconds.*dt\.truncate"):
        read(labels_at(day(3), None).with_columns(fine), GOOD)


@pytest.mark.parametrize("column", ["event_time", "knowledge_time", "created_at"])
def test_feature_row_without_its_times_is_refused(column: str) -> None:
    features = GOOD.with_columns(created_at="event_time").with_columns(pl.lit(None, TIME).alias(column))
    with pytest.raises(InvalidInput, match=f"Column '{column}' of features is null in 1 of 1 rows"):
        read(labels_at(day(3)), features)


@pytest.mark.parametrize("bad", [pl.Series([None], dtype=pl.Boolean), pl.Series([1]), pl.Series(["no"])])
def test_tombstone_flag_that_is_not_true_or_false_is_refused(bad: pl.Series) -> None:
    with pytest.raises(InvalidInput, match="Column 'is_deleted' of features"):
        read(labels_at(day(3)), GOOD.with_columns(is_deleted=bad))


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32, pl.List(pl.Int64), pl.Null])
def test_key_that_does_not_compare_exactly_is_refused(dtype: Any) -> None:
    key = (
        pl.Series([None], dtype=dtype) if dtype == pl.Null else pl.Series([[1] if dtype == pl.List else 1], dtype=dtype)
    )
    with pytest.raises(InvalidInput, match=r"Key 'id' of labels is .*cast the column first"):
        read(labels_at(day(3)).with_columns(id=key), GOOD.with_columns(id=key))


def test_nan_key_is_refused_with_all_floats() -> None:
    nan = pl.lit(float("nan")).alias("id")
    with pytest.raises(InvalidInput, match="Key 'id' of labels is Float64"):
        read(labels_at(day(3)).with_columns(nan), GOOD.with_columns(nan))


def test_key_of_another_dtype_is_refused_not_cast() -> None:
    with pytest.raises(SchemaMismatch, match=r"Key 'id' is Int32 in labels and Int64 in features.*cast\(pl\.Int64\)"):
        read(labels_at(day(3)).cast({"id": pl.Int32}), GOOD)


def test_missing_columns_are_named() -> None:
    with pytest.raises(InvalidInput, match=r"labels has no column \['id'\]; it has \['label_time'\]"):
        read(labels_at(day(3)).drop("id"), GOOD)
    with pytest.raises(InvalidInput, match=r"features has no column \['id'\]"):
        read(labels_at(day(3)), GOOD.drop("id"))
    with pytest.raises(InvalidInput, match=r"labels has no column \['label_time'\]"):
        read(labels_at(day(3)).drop("label_time"), GOOD)
    with pytest.raises(InvalidInput, match=r"features has no column \['event_time'\]"):
        read(labels_at(day(3)), GOOD.drop("event_time"))


@pytest.mark.parametrize("keys", [[], ["id", "id"], ["event_time"], ["id", "is_deleted"]])
def test_unusable_key_names_are_refused(keys: list[str]) -> None:
    with pytest.raises(InvalidInput, match="keys "):
        point_in_time_join(labels_at(day(3)), GOOD, keys=keys)


def test_a_key_that_is_misspelt_is_missed_and_no_taken_name() -> None:
    with pytest.raises(InvalidInput, match=r"labels has no column \['idd'\]"):
        point_in_time_join(labels_at(day(3)), GOOD, keys="idd")
    renamed = labels_at(day(3)).with_columns(idd=pl.col("id"))
    with pytest.raises(InvalidInput, match=r"features has no column \['idd'\]"):
        point_in_time_join(renamed, GOOD, keys="idd")


@pytest.mark.parametrize("options", [{}, {"with_status": True}, {"event_time_as": "delay__status"}])
def test_taken_column_name_is_refused(options: dict[str, Any]) -> None:
    taken = "delay__status" if options else "delay"
    with pytest.raises(InvalidInput, match=rf"two columns named \['{taken}'\]"):
        read(labels_at(day(3)).with_columns(pl.lit(1).alias(taken)), GOOD, **options)


def test_value_named_like_another_ones_status_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"two columns named \['delay__status'\]"):
        read(labels_at(day(3)), GOOD.with_columns(delay__status=pl.lit(1)), with_status=True)


@pytest.mark.parametrize("values", [["dely"], ["event_time"], ["id"], ["delay", "delay"], "delay"])
def test_unknown_or_repeated_values_are_refused(values: Any) -> None:
    with pytest.raises(InvalidInput, match=r"values is .*They are \['delay'\]"):
        point_in_time_join(labels_at(day(3)).lazy(), GOOD.lazy(), keys="id", values=values)


@pytest.mark.parametrize("max_age", [timedelta(microseconds=-1), 3600, "1d"])
def test_negative_or_unitless_max_age_is_refused(max_age: Any) -> None:
    with pytest.raises(InvalidInput, match="max_age is "):
        read(labels_at(day(3)), GOOD, max_age=max_age)


@pytest.mark.parametrize("mode", [{"clock": "wall"}, {"match": "after"}])
def test_unknown_mode_is_refused(mode: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="choose one of"):
        JoinMode(**mode)


def test_frame_of_another_library_is_refused() -> None:
    frame: Any = {"id": [1]}
    with pytest.raises(InvalidInput, match=r"labels is a builtins\.dict; a Polars DataFrame or LazyFrame is needed"):
        point_in_time_join(frame, GOOD, keys="id")
    with pytest.raises(InvalidInput, match=r"features is a builtins\.dict"):
        point_in_time_join(labels_at(day(3)), frame, keys="id")
