"""`FeatureStore`: the SDK's facade. It resolves what is asked and delegates; it holds no logic of its own."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from featurestore.clock import Clock, system_clock
from featurestore.errors import InvalidInput
from featurestore.frames import FeatureFrame, Rows, as_polars
from featurestore.historical import check_keys, historical_features
from featurestore.offline.store import OfflineStore
from featurestore.references import Request, RequestedGroup, resolve
from featurestore.registry.history import RegistryHistory
from featurestore.registry.snapshot import RegistrySnapshot
from featurestore.settings import Settings

if TYPE_CHECKING:
    from featurestore.online.materialization import Step
    from featurestore.online.redis import RedisOnlineStore
    from featurestore.online.retrieval import OnlineFeatures


class FeatureStore:
    """One deployment's features, for training and for serving. Nothing connects before the first call.

    Args:
        settings: Where the deployment keeps things.
        clock: Rules what is expired online, and what a materialization may publish.

    >>> store = FeatureStore.from_env()  # doctest: +SKIP
    >>> store.get_online_features("departure_delay_v1", [{"carrier": "UA", ...}]).to_dict()  # doctest: +SKIP
    """

    def __init__(self, settings: Settings, *, clock: Clock = system_clock) -> None:
        self.settings = settings
        self.clock = clock

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> "FeatureStore":
        """A store as the FEATURESTORE_* variables say; `Settings` lists them."""
        return cls(Settings.from_env(environment))

    @cached_property
    def registry(self) -> RegistrySnapshot:
        """What is declared, as of the first use; a new `FeatureStore` sees a later `apply`.

        Raises:
            InvalidInput: nothing has been applied yet.
        """
        return RegistryHistory(self.settings.root).require_current()

    @cached_property
    def offline(self) -> OfflineStore:
        return OfflineStore(self.settings.root, self.registry, self.clock)

    @cached_property
    def online(self) -> "RedisOnlineStore":
        """The hot tier: the address of the settings, else the embedded server that runs beside a local root.

        Raises:
            StoreUnavailable: there is no address and no embedded server is running.
        """
        from featurestore.online.embedded import embedded_url
        from featurestore.online.redis import RedisOnlineStore

        return RedisOnlineStore(self.settings.online_url or embedded_url(self.settings.root), self.clock)

    def get_historical_features(
        self,
        entity_df: Rows,
        features: Request,
        *,
        label_time: str = "label_time",
        full_feature_names: bool = False,
        with_status: bool = False,
        versions: Mapping[str, int] | None = None,
        min_correctness: str | None = None,
    ) -> FeatureFrame:
        """The values that production could have served, for each row of a spine at its label time.

        One output row for each input row, in input order, always; integers stay integers where a value is missing.

        Args:
            entity_df: Entity keys and an aware label time, with any other columns; Polars, Arrow, pandas, list of
                dicts or dict of lists.
            features: References 'group:feature', or a feature service or its name.
            label_time: Name of the time column.
            full_feature_names: Name columns 'group__feature'.
            with_status: Add '{column}__status': PRESENT, NULL_VALUE, NOT_FOUND or OUTSIDE_MAX_AGE.
            versions: Delta versions of groups to read instead of the newest.
            min_correctness: 'perfect', 'high', 'moderate' or 'low': the class that every window must have that a row takes a
                value from, in the version that is read.

        Raises:
            UnknownName: a group, feature or service is not registered.
            InvalidInput: a key or the time column is missing, a time is naive, a column name is taken, or a row takes a value
                from a window below `min_correctness`.
            SchemaMismatch: a key has another dtype than its entity.
        """
        requested = resolve(self.registry, features, full_feature_names=full_feature_names)
        spine = as_polars(entity_df, "entity_df")
        joined = historical_features(
            self.offline,
            spine,
            requested,
            label_time=label_time,
            with_status=with_status,
            versions=versions,
            min_correctness=min_correctness,
        )
        return FeatureFrame(joined.rows)

    def get_online_features(
        self, features: Request, entity_rows: Rows, *, full_feature_names: bool = False
    ) -> "OnlineFeatures":
        """The newest values, for each entity row, in one round trip.

        Args:
            features: References 'group:feature', or a feature service or its name.
            entity_rows: Entity keys of every group asked; list of dicts, dict of lists, Polars, Arrow or pandas.
            full_feature_names: Name columns 'group__feature'.

        Raises:
            UnknownName: a group, feature or service is not registered.
            InvalidInput: a group is not served online, a key column is missing, or a column has a feature's name.
            SchemaMismatch: a key has another dtype than its entity.
            StoreUnavailable: the online store does not answer.
        """
        from featurestore.online.retrieval import aligned, assemble, entity_frame, group_keys

        requested = resolve(self.registry, features, full_feature_names=full_feature_names)
        rows = entity_frame(entity_rows, requested)
        for wanted in requested:
            _require_online(wanted)
            check_keys(rows, wanted)
        keys = {wanted.group.name: group_keys(rows, wanted.group) for wanted in requested}
        replies = self.online.read_many(
            {name: [key for key in named if key is not None] for name, named in keys.items()}
        )
        found = {name: aligned(named, replies[name]) for name, named in keys.items()}
        return assemble(rows, requested, found, self.clock())

    def materialize(self, groups: Sequence[str] | None = None) -> "dict[str, Step]":
        """Move the online copy of some groups, or of all that are served online, to what the tables hold now.

        Returns:
            What each step did.

        Raises:
            UnknownName: a group is not registered.
            InvalidInput: a group is not served online.
        """
        from featurestore.online.materialization import materialize

        chosen = (
            [self.registry.group(name) for name in groups]
            if groups is not None
            else [g for g in self.registry.groups.values() if g.is_online]
        )
        for group in chosen:
            _require_online(RequestedGroup(group, ()))
        return {group.name: materialize(self.offline.table(group.name), self.online, self.clock) for group in chosen}


def _require_online(wanted: RequestedGroup) -> None:
    if not wanted.group.is_online:
        raise InvalidInput(
            f"Group {wanted.group.name!r} is not served online. Declare online=Online(ttl=...) and apply."
        )
