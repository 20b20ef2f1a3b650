"""`online/<group>`: the copy that is served, moved one step from what it holds to what the table holds now."""

import time
from dataclasses import dataclass, field

import dagster as dg
from pydantic import Field

from feature_assets.automation import follows_promotions
from feature_assets.catalogue import group_metadata, group_tags, offline_key, online_key, owners
from feature_assets.freshness import policy_of
from feature_assets.progress import EVERY_SECONDS
from featurestore.declaration import FeatureGroup
from featurestore.online.materialization.moves import Progress
from resources.run_tags import PROGRESS
from resources.store import StoreResource


class OnlineConfig(dg.Config):
    """What a person may ask of a run beyond a step."""

    rebuild: bool = Field(
        default=False,
        description="Build the copy anew in every tier, whatever is there. The hot copy answers nobody meanwhile.",
    )


def online_asset(group: FeatureGroup) -> dg.AssetsDefinition:
    """The unpartitioned asset of a group that is served online; automation moves it, a person may at any time."""

    @dg.asset(
        key=online_key(group),
        deps=[offline_key(group)],
        description=f"The newest values of {group.stored_name}, by entity, as they are served.",
        owners=owners(group.owner),
        tags=group_tags(group),
        kinds={"redis", "protobuf"},
        group_name="online",
        metadata=group_metadata(group),
        automation_condition=follows_promotions(group),
        pool=f"online_{group.stored_name}",
        freshness_policy=policy_of(group, online_key(group)),
        retry_policy=dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL),
    )
    def online(context: dg.AssetExecutionContext, config: OnlineConfig, store: StoreResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        # A retry goes on with the rebuild that was cut short, and does not begin another.
        rebuild = config.rebuild and context.retry_number == 0
        report = MoveReport(context)
        steps = store.feature_store().materialize([group.stored_name], rebuild=rebuild, progress=report)
        return dg.MaterializeResult(metadata={**steps[group.stored_name].as_dict(), **report.speed()})

    return online


@dataclass
class MoveReport:
    """How far a run is, in its log and in a tag every few seconds; of a short run nothing."""

    context: dg.AssetExecutionContext
    said_at: float = field(default_factory=time.monotonic)
    last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self.last = progress
        if time.monotonic() - self.said_at < EVERY_SECONDS:
            return
        self.said_at = time.monotonic()
        self.context.log.info(str(progress))
        self.context.instance.add_run_tags(self.context.run.run_id, {PROGRESS: str(progress)})

    def speed(self) -> dict[str, float | int]:
        """Of the last piece of work, for the metadata."""
        if self.last is None:
            return {}
        return {"slices": self.last.slices, "rows_per_second": round(self.last.rows_per_second)}
