"""The gate as Dagster shows it: one blocking check per partition, and a roll-up that says which partitions are held."""

import dagster as dg

from featurestore.declaration import FeatureGroup

GATE = "gate"
ROLL_UP = "quarantine"


def gate_spec(group: FeatureGroup, partitions: dg.PartitionsDefinition | None) -> dg.AssetCheckSpec:
    """The blocking check that `offline/<group>` evaluates for each partition before it is promoted."""
    return dg.AssetCheckSpec(
        GATE,
        asset=dg.AssetKey(["offline", group.stored_name]),
        description="Schema, ranges, null fractions, uniqueness and coverage of a partition, before it is promoted.",
        blocking=True,
        partitions_def=partitions,
        metadata={"features": len(group.features)},
    )


def quarantine_check(group: FeatureGroup) -> dg.AssetChecksDefinition:
    """The roll-up over all partitions: passes while no window of the group is in quarantine."""

    @dg.asset_check(
        asset=dg.AssetKey(["offline", group.stored_name]),
        name=ROLL_UP,
        description="No window of the group is held in staging.",
        required_resource_keys={"store"},
    )
    def quarantine(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        staging = context.resources.store.offline().staging(group.stored_name)
        held = staging.quarantined()
        reports = {
            window: [finding["check"] for finding in (staging.report(window) or {}).get("findings", [])]
            for window in held[:50]
        }
        metadata: dict[str, dg.RawMetadataValue] = {"windows": len(held), "held": dg.MetadataValue.json(reports)}
        return dg.AssetCheckResult(passed=not held, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)

    return quarantine
