"""The gate: its verdict on a partition, against a plain reading of the declaration, and what its report holds."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.declaration.dtypes import TIMESTAMP, dtype_name
from featurestore.gate.quality import EXAMPLES, gate_schema, judge, judge_windows, with_coverage
from featurestore.online.keys import entity_id
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup
from tests.catalogs import HOUR, T0
from tests.offline_rows import group_of
from tests.scale import cases

Row = dict[str, Any]
NAN = float("nan")

LIMITS: dict[str, dict[str, Any]] = {
    "ratio": {"dtype": pl.Float64(), "ge": -1.0, "le": 1.0, "max_null_fraction": 0.5},
    "count": {"dtype": pl.Int64(), "ge": 0.0, "max_null_fraction": 0.0},
    "pair": {"dtype": pl.Array(pl.Float32, 2)},
    "names": {"dtype": pl.List(pl.String), "max_length": 2, "max_null_fraction": 0.25},
}


def gated_group(kind: str = "events", min_coverage: float | None = None) -> RegisteredGroup:
    features = tuple(
        RegisteredFeature(
            name, dtype_name(limit["dtype"]), number, 1, **{k: v for k, v in limit.items() if k != "dtype"}
        )
        for number, (name, limit) in enumerate(LIMITS.items(), start=32)
    )
    group = group_of(kind=kind, keys=(("plane", "string"), ("day", "date")), min_coverage=min_coverage)
    return RegisteredGroup(**{**vars_of(group), "features": features})


def vars_of(group: RegisteredGroup) -> dict[str, Any]:
    return {name: getattr(group, name) for name in RegisteredGroup.__dataclass_fields__}


GROUP = gated_group()
SCHEMA = {name: dtype for name, dtype in GROUP.stored_schema.items() if name != "created_at"}


def good_row(number: int, **other: Any) -> Row:
    times = {"event_time": T0 + HOUR, "knowledge_time": T0 + 2 * HOUR, "window_start": T0}
    values = {"ratio": 0.5, "count": 1, "pair": [1.0, 2.0], "names": ["x"]}
    return {
        "plane": f"p{number}",
        "day": T0.date(),
        **times,
        "is_deleted": False,
        "schema_number": 1,
        **values,
        **other,
    }


def frame(rows: list[Row], group: RegisteredGroup = GROUP) -> pl.DataFrame:
    schema = {name: dtype for name, dtype in group.stored_schema.items() if name != "created_at"}
    return pl.DataFrame(rows, schema=schema, orient="row")


# The oracle: one row at a time.


def expected_checks(rows: list[Row]) -> set[tuple[str, str]]:
    found = set()
    for row in rows:
        ratio, count, pair, names = (row[name] for name in LIMITS)
        found |= {("range", "ratio")} if ratio is not None and ratio == ratio and not -1 <= ratio <= 1 else set()
        found |= {("range", "count")} if count is not None and count < 0 else set()
        found |= {("length", "pair")} if pair is not None and len(pair) != 2 else set()
        found |= {("length", "names")} if names is not None and len(names) > 2 else set()
        for name, value in (("pair", pair), ("names", names)):
            found |= {("null_items", name)} if value is not None and None in value else set()
    for name, limit in LIMITS.items():
        missing = [row[name] is None or row[name] != row[name] for row in rows]
        if rows and sum(missing) / len(rows) > limit.get("max_null_fraction", 1.0):
            found.add(("null_fraction", name))
    identities = [(row["plane"], row["day"], row["event_time"]) for row in rows]
    if len(set(identities)) < len(identities):
        found.add(("uniqueness", "plane, day, event_time"))
    return found


@st.composite
def partitions(draw: st.DrawFn, hour: int = 0) -> list[Row]:
    bad = draw(st.booleans())
    rows = []
    for number in range(draw(st.integers(0, 6))):
        row = good_row(number, window_start=T0 + hour * HOUR, event_time=T0 + hour * HOUR + HOUR)
        if bad:
            row["plane"] = f"p{draw(st.integers(0, 8))}"
            row["ratio"] = draw(st.sampled_from([0.0, 1.0, -1.0, None, NAN, 1.5, float("inf"), -float("inf")]))
            row["count"] = draw(st.sampled_from([0, 5, 5, 5, -1, None]))
            row["pair"] = draw(st.sampled_from([[1.0, NAN], [0.0, 0.0], None, [1.0], [None, 1.0], [1.0, 2.0, 3.0]]))
            row["names"] = draw(st.sampled_from([[], ["a", "b"], None, ["a", "b", "c"], ["a", None]]))
        rows.append(row)
    return rows


def checks_of(verdict: Any) -> set[tuple[str, str]]:
    return {(finding.check, finding.column) for finding in verdict.findings}


@settings(max_examples=cases(2000, 100), deadline=None)
@given(partitions())
def test_verdict_says_what_is_wrong_and_nothing_else(rows: list[Row]) -> None:
    verdict = judge(GROUP, frame(rows))
    assert checks_of(verdict) == expected_checks(rows)
    assert (verdict.passed, verdict.rows) == (not expected_checks(rows), len(rows))


@settings(max_examples=cases(1000, 50), deadline=None)
@given(st.tuples(partitions(0), partitions(1), partitions(2)))
def test_partitions_judged_together_fare_as_each_alone(parts: tuple[list[Row], ...]) -> None:
    together = judge_windows(GROUP, [frame(rows) for rows in parts])
    assert [checks_of(verdict) for verdict in together] == [expected_checks(rows) for rows in parts]
    assert [verdict.rows for verdict in together] == [len(rows) for rows in parts]


@settings(max_examples=cases(300, 30), deadline=None)
@given(partitions())
def test_every_report_can_be_written_as_json_with_at_most_ten_examples(rows: list[Row]) -> None:
    report = json.loads(json.dumps(judge(GROUP, frame(rows)).as_dict()))
    for finding in report["findings"]:
        assert len(finding["examples"]) <= EXAMPLES
        assert all({"plane", "day"} <= set(example) for example in finding["examples"])


def test_examples_name_the_failing_rows() -> None:
    rows = [good_row(n, ratio=2.0 if n % 2 else 0.0) for n in range(30)]
    [finding] = judge(GROUP, frame(rows)).findings
    assert (finding.check, finding.failing_rows, finding.observed, finding.limit) == (
        "range",
        15,
        "[2.0, 2.0]",
        "[-1.0, 1.0]",
    )
    assert [example["plane"] for example in finding.examples] == [f"p{n}" for n in range(1, 21, 2)]
    assert finding.examples[0] == {
        "plane": "p1",
        "day": "2026-03-01",
        "event_time": (T0 + HOUR).isoformat(),
        "ratio": 2.0,
    }
    assert str(finding) == "range of 'ratio' is [2.0, 2.0], limit [-1.0, 1.0] (15 rows)"


def held(
    keys: tuple[tuple[str, str], ...], tiers: tuple[str, ...] = ("hot", "warm"), *, is_online: bool = True
) -> RegisteredGroup:
    """A group of one text feature, one list of texts and one day."""
    features = tuple(
        RegisteredFeature(name, dtype, number, 1, max_length=length)
        for number, (name, dtype, length) in enumerate(
            [("note", "string", None), ("tags", "list<string>", 1000), ("since", "date", None)], start=32
        )
    )
    return replace(group_of(kind="events", keys=keys), features=features, tiers=tiers, is_online=is_online)


def held_rows(group: RegisteredGroup, **values: list[Any]) -> pl.DataFrame:
    count = len(next(iter(values.values())))
    times = {name: [T0] * count for name in ("event_time", "knowledge_time", "window_start")}
    rest = {"note": ["x"] * count, "tags": [["x"]] * count, "since": [None] * count}
    marks = {"is_deleted": [False] * count, "schema_number": [1] * count}
    return frame(
        [
            dict(zip(all_of, row, strict=True))
            for all_of in [{**times, **marks, **rest, **values}]
            for row in zip(*all_of.values(), strict=True)
        ],
        group,
    )


ID_TEXTS = st.one_of(
    st.text(max_size=30), st.text("ab:| %{}\xa0é", min_size=600, max_size=720), st.text(min_size=2040, max_size=2060)
)


@settings(max_examples=cases(1000, 50), deadline=None)
@given(st.lists(st.tuples(ID_TEXTS, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=5, unique=True))
def test_a_key_passes_if_and_only_if_dynamodb_takes_its_id(keys: list[tuple[str, int]]) -> None:
    group = held((("name", "string"), ("number", "int64")))
    verdict = judge(group, held_rows(group, name=[name for name, _ in keys], number=[number for _, number in keys]))
    sizes = [len(entity_id(key).encode()) for key in keys]
    room = len(str(-(2**63)))
    found = [finding for finding in verdict.findings if finding.check == "key_size"]
    assert bool(found) or all(size <= 2048 for size in sizes), "one that is too long passed"
    assert not found or any(len(entity_id([name]).encode()) + 1 + room > 2048 for name, _ in keys), "none was too long"


@pytest.mark.parametrize(
    ("case", "check", "column"),
    [
        ({"note": ["x", "x" * 16_383]}, None, None),
        ({"note": ["x", "x" * 16_384]}, "text_size", "note"),
        ({"name": ["a", "b" * 2049]}, "key_size", "held"),
        ({"tags": [["x"], ["y" * 500] * 900]}, "item_size", "held"),
        ({"tags": [["x"], ["y" * 400] * 900]}, None, None),
        ({"since": [0, 2_932_896]}, None, None),
        ({"since": [0, 2_932_897]}, "calendar", "since"),
        ({"since": [0, -719_163]}, "calendar", "since"),
        ({"event_time": [0, -62_135_596_800_000_001]}, "calendar", "event_time"),
        ({"knowledge_time": [0, 253_402_300_800_000_000]}, "calendar", "knowledge_time"),
    ],
)
def test_what_no_tier_holds_and_nothing_shows_is_found(
    case: dict[str, list[Any]], check: str | None, column: str
) -> None:
    group = held((("name", "string"),))
    rows = held_rows(group, name=["a", "b"])
    rows = rows.with_columns(pl.Series(name, values).cast(rows.schema[name]) for name, values in case.items())
    verdict = judge(group, rows)
    if check is None:
        assert verdict.passed
        return
    [finding] = verdict.findings
    assert (finding.check, finding.failing_rows) == (check, 1)
    assert finding.column == (group.name if column == "held" else column)
    assert finding.examples[0]["name"].startswith("b")
    assert all(len(str(value)) < 300 for value in finding.examples[0].values())
    json.dumps(verdict.as_dict())


@pytest.mark.parametrize(("tiers", "is_online", "found"), [(("hot",), True, 1), ((), True, 3), ((), False, 0)])
def test_sizes_are_those_of_the_tiers_that_a_group_may_have(
    tiers: tuple[str, ...], is_online: bool, found: int
) -> None:
    group = held((("name", "string"),), tiers, is_online=is_online)
    rows = held_rows(group, name=["a" * 3000], note=["x" * 20_000], tags=[["y" * 500] * 900])
    assert [finding.check for finding in judge(group, rows).findings] == ["text_size", "key_size", "item_size"][:found]


@pytest.mark.parametrize(("missing", "is_good"), [(4, True), (5, True), (6, False)])
def test_null_fraction_at_its_limit_passes(missing: int, is_good: bool) -> None:
    rows = [good_row(n, ratio=(None if n % 2 else NAN) if n < missing else 0.0) for n in range(10)]
    verdict = judge(GROUP, frame(rows))
    assert verdict.passed == is_good
    if not is_good:
        assert (verdict.findings[0].observed, verdict.findings[0].failing_rows) == ("0.6", 6)


@pytest.mark.parametrize(
    "change",
    [
        pl.col("count").cast(pl.Int32),
        pl.col("event_time").dt.cast_time_unit("ms"),
        pl.lit(1).alias("extra"),
        pl.lit(None, dtype=pl.Boolean).alias("is_deleted"),
        pl.lit(None, dtype=TIMESTAMP).alias("event_time"),
    ],
)
def test_rows_that_are_not_of_the_stored_schema_do_not_pass(change: pl.Expr) -> None:
    assert not judge(GROUP, frame([good_row(1)]).with_columns(change)).passed


def test_rows_without_a_declared_column_do_not_pass() -> None:
    assert not judge(GROUP, frame([good_row(1)]).drop("ratio")).passed


def test_a_load_is_judged_without_the_times_that_it_does_not_have_yet() -> None:
    static = gated_group(kind="static")
    rows = frame([good_row(1), good_row(1)]).drop("event_time", "knowledge_time", "window_start")
    assert judge(static, rows.head(1)).passed
    assert {finding.check for finding in judge(static, rows).findings} == {"uniqueness"}
    assert "created_at" not in gate_schema(static).columns


def test_one_entity_may_have_one_row_in_each_of_several_windows() -> None:
    rows = [good_row(1, window_start=T0 - n * HOUR, event_time=T0) for n in range(3)]
    assert all(verdict.passed for verdict in judge_windows(GROUP, [frame([row]) for row in rows]))


# Coverage.


def keys_of(*numbers: int) -> pl.DataFrame:
    return frame([good_row(n) for n in numbers]).select(GROUP.key_names)


@pytest.mark.parametrize(("present", "is_good"), [(4, True), (3, True), (2, False), (0, False)])
def test_coverage_is_the_share_of_the_population_that_is_there(present: int, is_good: bool) -> None:
    group = gated_group(min_coverage=0.75)
    rows = frame([good_row(n) for n in range(present)])
    verdict = with_coverage(group, judge(group, rows), rows, [keys_of(0, 1, 2, 3)])
    assert verdict.passed == is_good
    if not is_good:
        [finding] = verdict.findings
        assert (finding.check, finding.failing_rows) == ("coverage", 4 - present)
        assert json.loads(json.dumps(finding.examples))[0]["day"] == "2026-03-01"


@pytest.mark.parametrize("populations", [[], [keys_of()]])
def test_coverage_that_could_not_be_judged_is_warned_of(populations: list[pl.DataFrame]) -> None:
    group = gated_group(min_coverage=1.0)
    verdict = with_coverage(group, judge(group, frame([])), frame([]), populations)
    assert verdict.passed
    assert verdict.warnings == ("Coverage was not judged: there is no reference window that has rows.",)


@pytest.mark.parametrize("populations", [[], [keys_of(1, 2)]])
def test_group_without_min_coverage_is_neither_judged_by_it_nor_warned_of(populations: list[pl.DataFrame]) -> None:
    verdict = judge(GROUP, frame([]))
    assert with_coverage(GROUP, verdict, frame([]), populations) == verdict


def test_one_population_covered_is_enough_and_the_best_covered_one_is_told_of() -> None:
    group = gated_group(min_coverage=0.75)
    rows = frame([good_row(n) for n in range(4)])
    verdict = judge(group, rows)
    assert with_coverage(group, verdict, rows, [keys_of(*range(9)), keys_of(*range(5)), keys_of()]).passed
    [finding] = with_coverage(group, verdict, rows, [keys_of(*range(40)), keys_of(*range(8))]).findings
    assert (finding.observed, finding.failing_rows) == ("0.5", 4)


def test_new_entities_do_not_make_up_for_lost_ones() -> None:
    group = gated_group(min_coverage=0.5)
    rows = frame([good_row(n) for n in range(10, 20)])
    assert not with_coverage(group, judge(group, rows), rows, [keys_of(0, 1)]).passed


def test_coverage_is_added_to_what_was_found_before() -> None:
    group = gated_group(min_coverage=1.0)
    rows = frame([good_row(1, count=-1, knowledge_time=T0 + timedelta(hours=3))])
    verdict = with_coverage(group, judge(group, rows), rows, [keys_of(1, 2)])
    assert [finding.check for finding in verdict.findings] == ["range", "coverage"]
