"""The sensor that evaluates automation conditions; declared, because the implicit one is stopped by default."""

import dagster as dg

MINIMUM_INTERVAL_SECONDS = 30


def online_automation() -> dg.AutomationConditionSensorDefinition:
    """Runs from the first start of the daemon and moves online assets after promotions."""
    return dg.AutomationConditionSensorDefinition(
        "online_follows_offline",
        target=dg.AssetSelection.key_prefixes("online"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=MINIMUM_INTERVAL_SECONDS,
    )
