"""How a person says by which strategy windows are to be computed: in an asset's config, or in tags of the launch.

The launch dialog shows the config of one asset; tags hold for every asset of a backfill.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg
from pydantic import Field, ValidationError

from featurestore.backfill import tags as launch_tags
from featurestore.backfill.admission import refuse_forbidden
from featurestore.backfill.diff import keep_run_diff
from featurestore.declaration import FeatureGroup, TimeWindow
from featurestore.declaration.windows import DAY
from featurestore.errors import FeatureStoreError, InvalidInput, StoreUnavailable
from featurestore.launch import Launch
from featurestore.offline.store import OfflineStore
from featurestore.promotion import Permission
from resources.run_tags import ESTIMATE, backfill_of
from resources.store import StoreResource


class BackfillConfig(dg.Config):
    """How the windows of a launch are computed. What is left out is read from the launch's tags, and else is a full recompute."""

    strategy: str | None = Field(
        default=None,
        description="full, incremental, snapshot or proxy. Default: the tag featurestore/strategy, else full.",
    )
    accept_shift: bool | None = Field(
        default=None,
        description="Promote although many windows differ from what was promoted. Default: the tag featurestore/accept_shift.",
    )
    without: list[str] | None = Field(
        default=None,
        description="Upstream groups whose missing windows do not hold these back. Default: the tag featurestore/without.",
    )


def step_name(group_name: str) -> str:
    """The name under which run config has the config of `offline/<group>`."""
    return f"offline__{group_name}"


def launch_of_run(run: dg.DagsterRun, group_name: str) -> Launch:
    """The launch that a run asks for of one of its groups, by its run config and tags.

    Raises:
        InvalidInput: the config has other fields, or the strategy is not known.
    """
    try:
        return launch_of(BackfillConfig.model_validate(_config_of(run.run_config, step_name(group_name))), run.tags)
    except ValidationError as error:
        raise InvalidInput(f"The run config of {step_name(group_name)!r} cannot be read: {error}") from error


def launch_of(config: BackfillConfig, tags: Mapping[str, str]) -> Launch:
    """The launch that config and tags describe; what the config says goes first.

    Raises:
        InvalidInput: the strategy is not known.
    """
    by_tags = replace(launch_tags.launch_of(tags), backfill_id=backfill_of(tags))
    said = {name: value for name, value in dict(config).items() if value is not None}
    return replace(by_tags, **{**said, "without": tuple(said.get("without", by_tags.without))})


def estimate_of_run(tags: Mapping[str, str]) -> dict[str, float]:
    """What the whole backfill of a run was estimated to take, as its admission wrote it; empty if nobody estimated it."""
    return {name.removeprefix("featurestore/"): float(tags[name]) for name in tags if name.startswith(ESTIMATE)}


def refuse_forbidden_windows(
    store: OfflineStore, group: FeatureGroup, windows: Sequence[TimeWindow], launch: Launch
) -> None:
    """Refuse windows before the group's `backfillable_from`, also of a run that no admission has seen.

    A scheduled computation is of windows that became due just now, in the last day. Those are never refused, so that a date
    to come stops backfills and nothing else.

    Raises:
        InvalidInput: there are some.
    """
    lately = store.clock() - DAY
    asked = windows if launch.is_backfill else [window for window in windows if group.cut_off(window) <= lately]
    refuse_forbidden(store.registry, {group.stored_name: asked})


def permission_of(store: StoreResource, launch: Launch) -> Permission:
    """What a run of a backfill asks before it computes and before it promotes: the book, as it is then.

    Returns:
        What raises AlreadyDecided once the backfill is rolled back; of a run that is none it asks nobody.
    """
    if not launch.is_backfill:
        return lambda: None
    return partial(store.settings().book(store.clock()).require_may_run, launch.backfill_id)


def difference_keeper(store: StoreResource, launch: Launch, run_id: str) -> Callable[[Mapping[str, Any]], None]:
    """What keeps the difference that a run made with its backfill, for as long as the book stands."""
    return lambda document: keep_run_diff(store.settings().book(store.clock()), launch.backfill_id, run_id, document)


@contextmanager
def permanent_errors_fail_at_once(but: type[FeatureStoreError] = StoreUnavailable) -> Iterator[None]:
    """Errors that another try would meet again fail the step without one; a store that cannot be reached is tried again.

    Args:
        but: A further kind of error that passes as it is.
    """
    try:
        yield
    except (StoreUnavailable, but):
        raise
    except FeatureStoreError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error


def _config_of(run_config: Any, step: str) -> dict[str, Any]:
    """The config of one step, as the run was given it; empty if it has none."""
    for name in ("ops", step, "config"):
        run_config = run_config.get(name, {}) if isinstance(run_config, Mapping) else {}
    return dict(run_config)
