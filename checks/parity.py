"""Parity as Dagster shows it: a blocking check on `online/<group>`, failed by one value that is not the table's."""

import dagster as dg

from featurestore.declaration import FeatureGroup
from featurestore.online.parity import Parity, as_metadata

PARITY = "parity"


def parity_spec(group: FeatureGroup) -> dg.AssetCheckSpec:
    """The check of a group that is served online."""
    return dg.AssetCheckSpec(
        PARITY,
        asset=dg.AssetKey(["online", group.stored_name]),
        description="For sampled entities, every tier serves what the point-in-time read gives of the table version that its copy "
        "was built from. A warning says that a part did not answer, and blocks nothing.",
        blocking=True,
    )


def parity_result(spec: dg.AssetCheckSpec, parity: Parity) -> dg.AssetCheckResult:
    """Fail for what is wrong or missing; warn where a part could not be compared."""
    told = as_metadata(parity)
    return dg.AssetCheckResult(
        passed=parity.passed and parity.is_complete,
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=dg.AssetCheckSeverity.WARN if parity.passed else dg.AssetCheckSeverity.ERROR,
        description=_description(parity),
        metadata={
            "entities": sum(part.entities for part in parity.parts),
            "values": parity.count("equal", "wrong", "missing", "evicted", "ahead", "online_only", "expired"),
            "wrong": parity.count("wrong"),
            "missing": parity.count("missing"),
            "seed": told["seed"],
            "parts": dg.MetadataValue.json(told["parts"]),
            "examples": dg.MetadataValue.json(told["examples"]),
        },
    )


def _description(parity: Parity) -> str | None:
    if not parity.passed:
        first = parity.examples[0]
        return (
            f"{parity.count('wrong')} values are wrong and {parity.count('missing')} are missing online, first {first['feature']!r} "
            f"of {first['entity']} in {first['part']}: {first['online']}, and the table has {first['offline']}. Build the copy anew: "
            f"featurestore materialize {parity.group} --rebuild."
        )
    return (
        None
        if parity.is_complete
        else "A part of the online store did not answer, or has no copy: it was not compared."
    )
