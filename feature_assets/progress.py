"""How far a run is, where Dagster's pages show it: a line in its log and a tag, every few seconds."""

import time
from dataclasses import dataclass, field

import dagster as dg

from featurestore.declaration import FeatureGroup
from featurestore.promotion import Progress
from resources.run_tags import PROGRESS

EVERY_SECONDS = 5.0


@dataclass
class ProgressReport:
    """Is called after each window. Says something after `EVERY_SECONDS` and then as often; of a short run nothing."""

    context: dg.AssetExecutionContext
    group: FeatureGroup
    said_at: float = field(default_factory=time.monotonic)

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self.said_at < EVERY_SECONDS:
            return
        self.said_at = time.monotonic()
        text = progress_text(self.group.stored_name, progress)
        self.context.log.info(text)
        self.context.instance.add_run_tags(self.context.run.run_id, {PROGRESS: text})


def progress_text(name: str, progress: Progress) -> str:
    return (
        f"{name}: {progress.windows_done} of {progress.windows_total} windows computed, {progress.rows:,} rows from "
        f"{progress.input_rows:,}, about {progress.seconds_left:.0f} s left"
    )
