"""Freshness as Dagster shows it: a check of the group's last asset, failed in breach, a warning before.

Dagster's own policy sees only how long ago anything was materialized; this check sees windows, sources and the online copy.
"""

import dagster as dg

from featurestore.declaration import FeatureGroup
from featurestore.freshness.judgement import GroupFreshness

FRESHNESS = "freshness"


def last_asset(group: FeatureGroup) -> dg.AssetKey:
    """Where a group's freshness is reported: its online copy, which has nothing downstream, or the table of one that has none."""
    return dg.AssetKey(["online" if group.online else "offline", group.stored_name])


def freshness_spec(group: FeatureGroup) -> dg.AssetCheckSpec:
    """The check of a group."""
    return dg.AssetCheckSpec(
        FRESHNESS,
        asset=last_asset(group),
        description="The group holds everything due, its sources are alive, and what is served has all of it, within its SLO.",
    )


def freshness_evaluation(spec: dg.AssetCheckSpec, found: GroupFreshness) -> dg.AssetCheckEvaluation:
    """What a look found, to be reported without a run."""
    result = freshness_result(spec, found)
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata or {},
    )


def freshness_result(spec: dg.AssetCheckSpec, found: GroupFreshness) -> dg.AssetCheckResult:
    """What a look found, as the result of a run of the check."""
    lags = {
        "materialization_lag": found.materialization_lag,
        "data_lag": found.data_lag,
        "online_lag": found.online_lag,
        "slo": found.group.slo,
    }
    return dg.AssetCheckResult(
        passed=found.status == "OK",
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=dg.AssetCheckSeverity.ERROR if found.status == "BREACH" else dg.AssetCheckSeverity.WARN,
        description="\n".join(cause.text for cause in found.causes) or _well(found),
        metadata={
            "status": found.status,
            **{f"{name}_seconds": lag.total_seconds() for name, lag in lags.items() if lag is not None},
        },
    )


def _well(found: GroupFreshness) -> str:
    return "No rows were promoted yet." if found.status == "NEVER" else "Everything due is there."
