"""The gate as Dagster shows it: one blocking check per partition, and a roll-up that says which partitions are held."""

import dagster as dg

from featurestore.declaration import FeatureGroup
from featurestore.offline.staging import Staging

GATE = "gate"
ROLL_UP = "quarantine"


def gate_spec(group: FeatureGroup, partitions: dg.PartitionsDefinition | None) -> dg.AssetCheckSpec:
    """The blocking check that `offline/<group>` evaluates for each partition before it is promoted."""
    return dg.AssetCheckSpec(
        GATE,
        asset=dg.AssetKey(["offline", group.stored_name]),
        description="Schema, ranges, nulls, uniqueness, coverage, known values, row count and distributions of a partition, "
        "before it is promoted. A warning says what could not be compared, and blocks nothing.",
        blocking=True,
        partitions_def=partitions,
        metadata={"features": len(group.features)},
    )


def quarantine_spec(group: FeatureGroup) -> dg.AssetCheckSpec:
    """The roll-up over all partitions: passes while no window of the group is in quarantine.

    It belongs to the step that promotes: as a step of its own it would not run after a step that failed, which is when
    it has something to say.
    """
    return dg.AssetCheckSpec(
        ROLL_UP,
        asset=dg.AssetKey(["offline", group.stored_name]),
        description="No window of the group is held in staging.",
    )


def quarantine_result(spec: dg.AssetCheckSpec, staging: Staging) -> dg.AssetCheckResult:
    """Which windows are held now, and what was found in the first fifty."""
    held = staging.quarantined()
    reports = {
        window: [finding["check"] for finding in (staging.report(window) or {}).get("findings", [])]
        for window in held[:50]
    }
    return dg.AssetCheckResult(
        passed=not held,
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"windows": len(held), "held": dg.MetadataValue.json(reports)},
    )
