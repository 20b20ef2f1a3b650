"""How far a run is, where Dagster's pages show it: a line in its log and a tag, every few seconds, and how it ended."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dagster as dg

from featurestore.declaration import FeatureGroup
from featurestore.promotion import Progress, Promotion, Status
from featurestore.quantities import count_text, size_text
from resources.run_tags import PROGRESS

EVERY_SECONDS = 5.0
ENDS: dict[str, tuple[Status, ...]] = {
    "promoted": ("promoted",),
    "held": ("quarantined",),
    "left as they were": ("current",),
    "not computed": ("not_due", "blocked"),
}


@dataclass
class ProgressReport:
    """Is called after each window. Says something after `EVERY_SECONDS` and then as often; of a short run only its end.

    The end of a run replaces what was said last, so that no finished run shows a time left. A scheduled run that said nothing
    before says nothing then: its pages tell of its one window.

    Args:
        is_backfill: Whether its end is of interest in any case.
    """

    context: dg.AssetExecutionContext
    group: FeatureGroup
    is_backfill: bool = False
    said_at: float = field(default_factory=time.monotonic)
    has_spoken: bool = False
    last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self.last = progress
        if time.monotonic() - self.said_at >= EVERY_SECONDS:
            self.said_at = time.monotonic()
            self._say(progress_text(self.group.stored_name, progress))

    @contextmanager
    def told_if_it_stops(self) -> Iterator[None]:
        """An error in this block is said before it goes on."""
        try:
            yield
        except Exception as error:
            self._say_at_the_end(stop_text(self.group.stored_name, self.last, error))
            raise

    def ended(self, promotion: Promotion, written_bytes: int) -> None:
        """Every window has ended.

        Args:
            written_bytes: The size of the files that the run's commit added.
        """
        self._say_at_the_end(end_text(self.group.stored_name, promotion, written_bytes))

    def _say_at_the_end(self, text: str) -> None:
        if self.is_backfill or self.has_spoken:
            self._say(text)

    def _say(self, text: str) -> None:
        self.has_spoken = True
        self.context.log.info(text)
        self.context.instance.add_run_tags(self.context.run.run_id, {PROGRESS: text})


def progress_text(name: str, progress: Progress) -> str:
    return (
        f"{name}: {progress.windows_done} of {count_text(progress.windows_total, 'window')} computed, {progress.rows:,} rows "
        f"({size_text(progress.size_bytes)}) from {progress.input_rows:,}, about {progress.seconds_left:.0f} s left"
    )


def end_text(name: str, promotion: Promotion, written_bytes: int) -> str:
    """How many windows ended how, and what was promoted."""
    counts = {what: len(promotion.having(*statuses)) for what, statuses in ENDS.items()}
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    rows = sum(outcome.verdict.rows for outcome in promotion.having("promoted"))
    windows = count_text(len(promotion.outcomes), "window")
    return f"{name}: ended. {windows}: {told}; {count_text(rows, 'row')} promoted, {size_text(written_bytes)} written"


def stop_text(name: str, last: Progress | None, error: Exception) -> str:
    """That a run failed, after how many windows, and the first line of why."""
    done = "before any window was" if last is None else f"with {last.windows_done} of {last.windows_total} windows"
    why = str(error).strip().partition("\n")[0]
    return f"{name}: stopped {done} computed. {type(error).__name__}: {why}"
