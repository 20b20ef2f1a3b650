"""When online assets move: every term of the condition has a name, and each name a reason."""

import dagster as dg

from featurestore.declaration import FeatureGroup, Hourly, Static


def follows_promotions(group: FeatureGroup) -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Move the online copy when a partition of any day was promoted, and when rows reach their horizon.

    A promotion needs no check condition: only partitions that passed their gate report a materialization. A row that
    was promoted before its horizon waits in the table, so the horizon itself is a second reason to move.
    """
    promoted = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated()).with_label(
        "a partition was promoted"
    )
    idle = ~dg.AutomationCondition.in_progress().with_label("not running")
    reason: dg.AutomationCondition = promoted  # type: ignore[type-arg]
    if (cron := horizon_cron(group)) is not None:
        reason = reason | dg.AutomationCondition.cron_tick_passed(cron).with_label("rows reached their horizon")
    return (reason.since(dg.AutomationCondition.newly_requested()) & idle).with_label("follows promotions")


def horizon_cron(group: FeatureGroup) -> str | None:
    """The minute after each horizon of a group, as a cron line in UTC; None for static groups."""
    if isinstance(group.cadence, Static):
        return None
    minutes = int((group.delay + group.publish).total_seconds() // 60) + 1
    if isinstance(group.cadence, Hourly):
        return f"{minutes % 60} * * * *"
    return f"{minutes % 60} {minutes // 60 % 24} * * *"
