"""`training/<service>`: the training set of a model, by point-in-time join on the labels that its team declares."""

from collections.abc import Callable
from datetime import datetime

import dagster as dg
import polars as pl

from feature_assets.backfill import permanent_errors_fail_at_once
from feature_assets.catalogue import offline_key, owners, raw_key
from featurestore.declaration import Catalog, FeatureService, Source
from featurestore.declaration.windows import utc
from featurestore.errors import InvalidInput
from featurestore.training import build_training_set
from resources.store import StoreResource


class LabelSpan(dg.Config):
    """Which labels the set holds, by label time (an empty bound is open), and the class of correctness that windows must have.

    `start` and `end` are ISO 8601 with a zone, such as 2026-03-01T00:00:00Z.
    `min_correctness` is 'perfect', 'high', 'moderate' or 'low'; empty demands none.
    """

    start: str = ""
    end: str = ""
    min_correctness: str = ""


def training_asset(
    catalog: Catalog, service: FeatureService, labels: Callable[..., pl.LazyFrame], sources: list[Source]
) -> dg.AssetsDefinition:
    """The asset of a service's training set.

    Args:
        catalog: Resolves the service's groups.
        service: The model's inputs.
        labels: From one frame a source (by name) to the spine: entity keys, `label_time` and the label.
        sources: What `labels` reads.
    """
    groups = dict.fromkeys(reference.split(":")[0] for reference in service.references)

    @dg.asset(
        key=["training", service.name],
        deps=[*(raw_key(source) for source in sources), *(offline_key(catalog.group(name)) for name in groups)],
        description=service.description,
        owners=owners(service.owner),
        kinds={"parquet", "polars"},
        group_name="training",
        metadata={"features": len(service.references)},
    )
    def training(config: LabelSpan, store: StoreResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        offline = store.offline()
        with permanent_errors_fail_at_once():
            start, end = _bound("start", config.start), _bound("end", config.end)
            known = {source.name: offline.source(source).current().lazy() for source in sources}
            demanded = config.min_correctness or None
            made = build_training_set(
                offline, service.name, labels(**known), start=start, end=end, min_correctness=demanded
            )
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": made.rows,
                "uri": made.uri,
                "found": dg.MetadataValue.json(made.found_fractions),
                "table_versions": dg.MetadataValue.json(made.table_versions),
                "lowest_correctness": dg.MetadataValue.json(made.lowest_correctness),
            }
        )

    return training


def _bound(name: str, text: str) -> datetime | None:
    """A bound as it was typed in the launch pad; None if it was left empty."""
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            f"{name} is {text!r}, which is no time. Write it as ISO 8601 with a zone, e.g. 2026-03-01T00:00:00Z."
        ) from error
    return utc(instant, name=name)
