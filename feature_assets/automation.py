"""When online assets move: every term of the condition has a name, and each name a reason."""

import dagster as dg

from featurestore.declaration import FeatureGroup, Hourly
from featurestore.declaration.windows import Windowless


def follows_promotions(group: FeatureGroup) -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Move the online copy when a partition of any day was promoted, and when rows reach their horizon.

    A promotion needs no check condition: only partitions that passed their gate report a materialization. A row that
    was promoted before its horizon waits in the table, so the horizon itself is a second reason to move. The first look
    at a group sees no update, so one promoted before the daemon ever looked (a static group above all) is a third.

    A request settles what came before it. A promotion between a request and the next look is not settled by it: plain
    `since(newly_requested())` would forget it, and the copy would stay behind until the next one.
    """
    promoted = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated()).with_label(
        "a partition was promoted"
    )
    idle = ~dg.AutomationCondition.in_progress().with_label("not running")
    has_rows = dg.AutomationCondition.any_deps_match(~dg.AutomationCondition.missing())
    never_moved = (dg.AutomationCondition.missing() & has_rows).newly_true().with_label("has rows and was never moved")
    reason: dg.AutomationCondition = promoted | never_moved  # type: ignore[type-arg]
    if (cron := horizon_cron(group)) is not None:
        horizon = (dg.AutomationCondition.cron_tick_passed(cron) & has_rows).with_label("rows reached their horizon")
        reason = reason | horizon
    settled = (dg.AutomationCondition.newly_requested() & ~reason).with_label("requested, and nothing came since")
    return (reason.since(settled) & idle).with_label("follows promotions")


def horizon_cron(group: FeatureGroup) -> str | None:
    """The minute after each horizon of a group, as a cron line in UTC; None for groups without windows."""
    if isinstance(group.cadence, Windowless):
        return None
    minutes = int((group.delay + group.publish).total_seconds() // 60) + 1
    if isinstance(group.cadence, Hourly):
        return f"{minutes % 60} * * * *"
    return f"{minutes % 60} {minutes // 60 % 24} * * *"
