"""The gate between staging and production: a pandera schema generated from the declaration, and its verdict on a partition.

Checked are dtypes, null keys, uniqueness, ranges, null (and NaN) fractions, lengths of vectors and lists, what could be neither
shown nor stored online, and coverage.
The module is pure: it is handed rows and says what is wrong with them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from operator import not_
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaError, SchemaErrors

from featurestore.frames import plain_rows
from featurestore.gate.servable import limits_of
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup

EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a partition breaks its declaration, or differs from what it is compared with.

    `failing_rows` counts the rows that the finding rests on: of a distribution, all that were compared. `examples` are at
    most ten of them, the furthest out first; `details` a table of what was compared, such as shares by bin.
    """

    check: str
    column: str
    observed: str
    limit: str
    failing_rows: int
    examples: tuple[dict[str, Any], ...] = ()
    details: tuple[dict[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.check} of {self.column!r} is {self.observed}, limit {self.limit} ({self.failing_rows} rows)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a partition; `passed` if there is no finding.

    `warnings` say what could not be judged and why, and what was accepted although it is beyond a bound.
    """

    rows: int
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """A form that JSON can hold, with at most ten example rows a finding."""
        findings = [asdict(finding) for finding in self.findings]
        return {"passed": self.passed, "rows": self.rows, "findings": findings, "warnings": list(self.warnings)}

    def having(self, *findings: Finding, warnings: Sequence[str] = ()) -> "Verdict":
        """The same with more findings and warnings."""
        return replace(self, findings=(*self.findings, *findings), warnings=(*self.warnings, *warnings))


def judge(group: RegisteredGroup, rows: pl.DataFrame) -> Verdict:
    """Hold the rows of one partition (or of several: fractions count by window) against the declaration.

    Args:
        group: The declaration as registered.
        rows: Stored rows without `created_at`.
    """
    findings: list[Finding] = []
    try:
        gate_schema(group).validate(rows, lazy=True)
    except SchemaErrors as errors:
        findings += _findings(group, rows, errors)
    findings += _limit_findings(group, rows)
    return Verdict(rows.height, tuple(findings))


def judge_windows(group: RegisteredGroup, parts: Sequence[pl.DataFrame]) -> list[Verdict]:
    """Hold the rows of several partitions against the declaration, coverage apart.

    All of them at once, and only if something is found each by itself: a gate that passes costs one pass over the rows.
    """
    together = judge(group, pl.concat(parts)) if parts else Verdict(0)
    if together.passed:
        return [Verdict(rows.height) for rows in parts]
    return [judge(group, rows) for rows in parts]


def with_coverage(
    group: RegisteredGroup, verdict: Verdict, rows: pl.DataFrame, populations: Sequence[pl.DataFrame]
) -> Verdict:
    """A verdict with what the coverage of the partition adds to it: a finding, or a warning that it was not judged.

    Args:
        group: The declaration as registered. One without `min_coverage` is neither judged nor warned of.
        verdict: What was found so far.
        rows: Rows of the partition.
        populations: Sets of distinct entity keys, of which it is to cover any one; none while there is no reference window.
    """
    known = [population for population in populations if population.height]
    if group.min_coverage is None:
        return verdict
    if not known:
        return verdict.having(warnings=[_no_population(group)])
    found = coverage_finding(group, rows, known)
    return verdict if found is None else verdict.having(found)


def _no_population(group: RegisteredGroup) -> str:
    if group.population:
        return f"Coverage was not judged: the population {group.population!r} has no rows."
    return "Coverage was not judged: there is no reference window that has rows."


@lru_cache(maxsize=4096)
def _schema(
    name: str,
    features: tuple[RegisteredFeature, ...],
    stored: tuple[tuple[str, pl.DataType], ...],
    keys: tuple[str, ...],
) -> pa.DataFrameSchema:
    declared = {feature.name: feature for feature in features}
    columns = {
        column: pa.Column(dtype, _checks(declared.get(column)), nullable=column in declared, name=column)
        for column, dtype in stored
    }
    unique = [*keys, *(time for time in ("event_time", "window_start") if time in columns)]
    return pa.DataFrameSchema(columns, unique=unique, strict=True, name=name)


def gate_schema(group: RegisteredGroup) -> pa.DataFrameSchema:
    """The pandera schema of a partition of a group, for use in Dagster, in a notebook or in a test."""
    unstamped = (
        {"created_at"} if group.kind != "static" else {"created_at", "event_time", "knowledge_time", "window_start"}
    )
    stored = tuple((name, dtype) for name, dtype in group.stored_schema.items() if name not in unstamped)
    return _schema(group.name, group.features, stored, group.key_names)


def _checks(feature: RegisteredFeature | None) -> list[pa.Check]:
    if feature is None:
        return []
    checks = []
    if feature.ge is not None or feature.le is not None:
        checks.append(pa.Check(lambda data: data.lazyframe.select(_in_range(feature)), name="range"))
    if feature.max_null_fraction < 1:
        checks.append(pa.Check(lambda data: _within_null_fraction(feature, data.lazyframe), name="null_fraction"))
    if isinstance(feature.dtype, pl.Array | pl.List):
        checks.append(pa.Check(lambda data: data.lazyframe.select(_has_length(feature)), name="length"))
        checks.append(pa.Check(lambda data: data.lazyframe.select(_has_all_items(feature)), name="null_items"))
    return checks


def _in_range(feature: RegisteredFeature) -> pl.Expr:
    column = pl.col(feature.name)
    inside = pl.lit(True)
    if feature.ge is not None:
        inside &= column >= feature.ge
    if feature.le is not None:
        inside &= column <= feature.le
    return (inside | _is_missing(feature)).fill_null(True).alias(feature.name)


def _has_length(feature: RegisteredFeature) -> pl.Expr:
    length = pl.col(feature.name).list.len()
    fits = length == feature.dtype.size if isinstance(feature.dtype, pl.Array) else length <= (feature.max_length or 0)
    return fits.fill_null(True).alias(feature.name)


def _has_all_items(feature: RegisteredFeature) -> pl.Expr:
    """A value may be null as a whole; a null inside it can be stored neither offline nor online."""
    items = pl.col(feature.name).list
    return (items.drop_nulls().list.len() == items.len()).fill_null(True).alias(feature.name)


def _is_missing(feature: RegisteredFeature) -> pl.Expr:
    column = pl.col(feature.name)
    return column.is_null() | column.is_nan() if feature.dtype.is_float() else column.is_null()


def _within_null_fraction(feature: RegisteredFeature, rows: pl.LazyFrame) -> pl.LazyFrame:
    """False for the missing values of a window that has too large a share of them.

    Row by row also because pandera (0.35) cannot report a check of one answer beside others.
    """
    missing = _is_missing(feature)
    share = missing.mean().over("window_start") if "window_start" in rows.collect_schema() else missing.mean()
    return rows.select((~missing | (share <= feature.max_null_fraction)).alias(feature.name))


def _findings(group: RegisteredGroup, rows: pl.DataFrame, errors: SchemaErrors) -> list[Finding]:
    out: dict[tuple[str, str], Finding] = {}
    for error in errors.schema_errors:
        check = _check_name(error)
        column = str(getattr(error.schema, "name", None) or group.name)
        out.setdefault((check, column), _finding(group, rows, check, column, str(error)))
    return list(out.values())


def _check_name(error: SchemaError) -> str:
    if isinstance(error.check, pa.Check):
        return str(error.check.name)
    return error.reason_code.name.lower() if error.reason_code else str(error.check)


def _finding(group: RegisteredGroup, rows: pl.DataFrame, check: str, column: str, message: str) -> Finding:
    feature = next((f for f in group.features if f.name == column), None)
    if feature is not None and (seen := _seen(feature, rows, check)) is not None:
        bad, observed, limit = seen
        return Finding(check, column, observed, limit, bad.height, example_rows(group, bad, column))
    keys = [key for key in (*group.key_names, "event_time") if key in rows.columns]
    doubled = rows.filter(pl.struct(keys).is_duplicated())
    if doubled.height and column == group.name:
        examples = example_rows(group, doubled, keys[0])
        return Finding("uniqueness", ", ".join(keys), "repeated", "one row each", doubled.height, examples)
    return Finding(check, column, message.splitlines()[0][:300], "the declared schema", rows.height)


def _seen(feature: RegisteredFeature, rows: pl.DataFrame, check: str) -> tuple[pl.DataFrame, str, str] | None:
    """The rows that a check of values found, what they have, and its limit; None for a check of the schema."""
    column = feature.name
    if check == "range":
        bad = rows.filter(~_in_range(feature))
        return bad, f"[{bad[column].min()!s}, {bad[column].max()!s}]", f"[{feature.ge}, {feature.le}]"
    if check == "null_fraction":
        bad = rows.filter(_is_missing(feature))
        return bad, f"{bad.height / rows.height:.4g}", f"{feature.max_null_fraction:g}"
    if check == "length":
        bad = rows.filter(~_has_length(feature))
        return bad, str(bad[column].list.len().unique().to_list()), feature.dtype_name
    if check == "null_items":
        return rows.filter(~_has_all_items(feature)), "null inside a value", "none"
    return None


def _limit_findings(group: RegisteredGroup, rows: pl.DataFrame) -> list[Finding]:
    """One cheap pass for all limits, and a closer look at those that may be passed."""
    limits = limits_of(group, rows.schema)
    sieves = [limit.is_kept if limit.sieve is None else limit.sieve for limit in limits]
    kept = rows.select(sieve.all().alias(str(number)) for number, sieve in enumerate(sieves)).row(0) if limits else ()
    findings = []
    for limit in itertools.compress(limits, map(not_, kept)):
        bad = rows.filter(~limit.is_kept)
        if bad.height:
            observed = f"{bad.select(limit.measure.max()).item()}{limit.unit}"
            shown = limit.column if limit.column in rows.columns else group.key_names[0]
            examples = example_rows(group, bad, shown)
            findings.append(Finding(limit.check, limit.column, observed, limit.most, bad.height, examples))
    return findings


def coverage_finding(group: RegisteredGroup, rows: pl.DataFrame, populations: Sequence[pl.DataFrame]) -> Finding | None:
    """That rows cover too little of each of some populations, by the one that they cover best; None if they cover enough.

    Args:
        group: The declaration as registered.
        rows: Any with the entity keys.
        populations: Distinct entity keys; at least one, none of them empty.
    """
    lacking = [(population.join(rows, on=group.key_names, how="anti"), population.height) for population in populations]
    missing, height = min(lacking, key=lambda pair: pair[0].height / pair[1])
    coverage = 1 - missing.height / height
    if group.min_coverage is None or coverage >= group.min_coverage:
        return None
    examples = plain_rows(missing.head(EXAMPLES))
    return Finding("coverage", group.entity, f"{coverage:.4g}", f"{group.min_coverage:g}", missing.height, examples)


def example_rows(group: RegisteredGroup, bad: pl.DataFrame, column: str) -> tuple[dict[str, Any], ...]:
    """The first ten rows, as plain values: keys, event time and one column."""
    columns = dict.fromkeys([*group.key_names, *(c for c in ("event_time",) if c in bad.columns), column])
    return plain_rows(bad.head(EXAMPLES).select(list(columns)))
