"""Drift and quality as Dagster shows them: how the newest window stands, and a roll-up of the windows of lately.

Both belong to the step that promotes, and are reported once a run, not once a partition: events are what a ranged run
spends its time on. Neither blocks: a window that must not pass is held by the gate before (`Drift(policy="block")`).
"""

from collections import Counter
from typing import Any

import dagster as dg

from featurestore.declaration import FeatureGroup
from featurestore.errors import FeatureStoreError
from featurestore.offline.store import OfflineStore
from featurestore.quality.drift import FeatureDrift, WindowDrift
from featurestore.quality.evaluation import Lately, lately
from featurestore.quality.view import drift_markdown

DRIFT = "drift"
QUALITY = "quality"


def quality_specs(group: FeatureGroup) -> list[dg.AssetCheckSpec]:
    """The roll-up, and the check of drift where some feature is compared: of a group that compares none it would say nothing."""
    is_compared = any(feature.drift is not None for feature in group.features)
    return [*([drift_spec(group)] if is_compared else []), quality_spec(group)]


def drift_spec(group: FeatureGroup) -> dg.AssetCheckSpec:
    """How far the newest window in production is from what its features are held against."""
    return dg.AssetCheckSpec(
        DRIFT,
        asset=dg.AssetKey(["offline", group.stored_name]),
        description="The newest window's values against the training set of the deployed service, last week or the same weekday, "
        "as each feature declares: PSI and KS of numbers, chi-square of categories, mean cosine of vectors.",
    )


def quality_spec(group: FeatureGroup) -> dg.AssetCheckSpec:
    """The roll-up: how many windows passed, drifted or were held lately."""
    return dg.AssetCheckSpec(
        QUALITY,
        asset=dg.AssetKey(["offline", group.stored_name]),
        description="Of the windows of lately (two weeks of daily ones, two days of hourly ones) none is held and none has drifted.",
    )


def quality_results(group: FeatureGroup, store: OfflineStore) -> list[dg.AssetCheckResult]:
    """The results of both, from what was kept of the windows; statistics that a run cut short left out are made good here.

    The run's windows are promoted by now: what cannot be evaluated is a warning, and keeps none of them from being reported.
    """
    names = [spec.name for spec in quality_specs(group)]
    try:
        found = lately(store, group.stored_name, is_kept=True)
    except FeatureStoreError as error:
        return [_result(group, name, False, f"Not evaluated: {error}", {}) for name in names]
    since = found.drift[0].window_start if found.drift else None
    held = [
        window
        for window in store.staging(group.stored_name).quarantined()
        if since is None or window >= since.strftime("%Y-%m-%dT%H%MZ")
    ]
    drift = [_drift_result(group, found)] if DRIFT in names else []
    return [*drift, _quality_result(group, found, held)]


def _drift_result(group: FeatureGroup, found: Lately) -> dg.AssetCheckResult:
    if not found.drift:
        return _result(group, DRIFT, True, "No window is in production.", {"compared": 0})
    newest = found.drift[-1]
    metadata = {
        "window": newest.window_start.isoformat(),
        "compared": sum(bool(one.measures) for one in newest.features),
        "drifted": dg.MetadataValue.json(sorted({one.feature for one in newest.beyond})),
        "plots": dg.MetadataValue.md(drift_markdown(found.drift, shown=newest)),
    }
    return _result(group, DRIFT, not newest.beyond, _drift_text(newest), metadata)


def _quality_result(group: FeatureGroup, found: Lately, held: list[str]) -> dg.AssetCheckResult:
    counts = Counter("warn" if window.beyond else window.status for window in found.drift)
    records = _records(found)
    metadata: dict[str, Any] = {
        "windows": len(found.drift) + len(held),
        "passed": counts["pass"],
        "warned": counts["warn"],
        "failed": len(held),
        "not_compared": counts["unjudged"],
        "held": dg.MetadataValue.json(held),
        **({"drifted": dg.MetadataValue.table(records)} if records else {}),
    }
    passed = not held and not counts["warn"]
    text = (
        None
        if passed
        else f"Of {metadata['windows']} windows lately {len(held)} are held and {counts['warn']} have drifted."
    )
    return _result(group, QUALITY, passed, text, metadata)


def _records(found: Lately) -> list[dg.TableRecord]:
    return [
        dg.TableRecord(
            {
                "window": window.window_start.isoformat(),
                "feature": one.feature,
                "against": one.reference,
                "measure": one.worst[0],
                "distance": round(one.worst[1].value, 4),
                "limit": round(one.worst[1].limit, 4),
            }
        )
        for window in reversed(found.drift)
        for one in window.beyond
        if one.worst is not None
    ][:50]


def _drift_text(newest: WindowDrift) -> str | None:
    if not newest.beyond:
        return None if newest.status == "pass" else f"Nothing was compared: {_reasons(newest)}."
    return f"Window {newest.window_start.isoformat()}: {'; '.join(map(_excess_text, newest.beyond[:5]))}."


def _reasons(newest: WindowDrift) -> str:
    return "; ".join(sorted({one.unjudged for one in newest.features if one.unjudged})) or "no feature is compared"


def _excess_text(one: FeatureDrift) -> str:
    name, measured = one.worst or ("", None)
    return (
        ""
        if measured is None
        else (
            f"{name} of {one.feature!r} is {measured.value:.4g}, limit {measured.limit:.4g} (against {one.reference})"
        )
    )


def _result(
    group: FeatureGroup, name: str, passed: bool, text: str | None, metadata: dict[str, Any]
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=dg.AssetKey(["offline", group.stored_name]),
        check_name=name,
        severity=dg.AssetCheckSeverity.WARN,
        description=text,
        metadata=metadata,
    )
