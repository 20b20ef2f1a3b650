"""`FeatureStore`: the SDK's facade. It resolves what is asked and delegates; it holds no logic of its own."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from featurestore.clock import Clock, system_clock
from featurestore.errors import InvalidInput
from featurestore.frames import FeatureFrame, Rows, as_polars
from featurestore.historical import historical_features
from featurestore.offline.store import OfflineStore
from featurestore.references import Request, RequestedGroup, resolve
from featurestore.registry.history import RegistryHistory
from featurestore.registry.snapshot import RegistrySnapshot
from featurestore.settings import Settings

if TYPE_CHECKING:
    from featurestore.freshness.read_state import Mode
    from featurestore.online.materialization.materialize import Step
    from featurestore.online.materialization.moves import OnProgress
    from featurestore.online.reading.retrieval import OnlineFeatures
    from featurestore.online.stores import OnlineStores
    from featurestore.push import Destination, PushResult


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
    def online(self) -> "OnlineStores":
        """The online tiers of the settings; each is opened when it is first needed."""
        from featurestore.online.stores import OnlineStores

        return OnlineStores(self.settings, self.clock, lambda name: self.registry.group(name))

    def close(self) -> None:
        """Close what was opened to read or write online; a later call opens it again."""
        if "online" in self.__dict__:
            self.online.close()
            del self.online

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
        self,
        features: Request,
        entity_rows: Rows,
        *,
        full_feature_names: bool = False,
        timeout_seconds: float | None = None,
        freshness: "Mode" = "degrade",
    ) -> "OnlineFeatures":
        """The newest values, for each entity row, in one round trip, and how fresh their groups are.

        Values are read and checked before it returns; frames of them are built when they are first looked at. Of an entity
        that no tier could speak for the status is UNAVAILABLE. The answer's `freshness` has each group's state, lag and SLO.

        Args:
            features: References 'group:feature', or a feature service or its name.
            entity_rows: Entity keys of every group asked; list of dicts, dict of lists, Polars, Arrow or pandas.
            full_feature_names: Name columns 'group__feature'.
            timeout_seconds: How long to wait for the stores; at most, and by default, as long as the settings say. What has
                not come by then is UNAVAILABLE.
            freshness: "strict" refuses to answer where a group is in breach of its SLO, or nobody knows that it is not; "degrade"
                answers, and says so; "stale_ok" also gives values beyond their max_age, with their status, while the store has them.

        Raises:
            UnknownName: a group, feature or service is not registered.
            NotFresh: `freshness` is "strict", and it is not so.
            InvalidInput: a group is not served online, a key column is missing, or a column has a feature's name.
            SchemaMismatch: a key has another dtype than its entity.
            StoreUnavailable: there is no online store: no address of one, and none runs beside the root.
        """
        from featurestore.online.reading.plan import read_plan
        from featurestore.online.reading.retrieval import read_features

        plan = read_plan(self.registry, features, full_feature_names)
        read_many = (
            self.online.read_many
            if timeout_seconds is None
            else partial(self.online.read_many, timeout_seconds=timeout_seconds)
        )
        known = self.online.known_freshness
        return read_features(plan, entity_rows, read_many, self.clock, published=known, freshness=freshness)

    async def get_online_features_async(
        self,
        features: Request,
        entity_rows: Rows,
        *,
        full_feature_names: bool = False,
        timeout_seconds: float | None = None,
        freshness: "Mode" = "degrade",
    ) -> "OnlineFeatures":
        """`get_online_features` without blocking the event loop: it runs in a thread of the loop's default executor."""
        read = partial(
            self.get_online_features,
            features,
            entity_rows,
            full_feature_names=full_feature_names,
            timeout_seconds=timeout_seconds,
            freshness=freshness,
        )
        return await asyncio.to_thread(read)

    def materialize(
        self,
        groups: Sequence[str] | None = None,
        *,
        rebuild: bool = False,
        progress: "OnProgress | None" = None,
    ) -> "dict[str, Step]":
        """Move the online copy of some groups, or of all that are served online, to what the tables hold now.

        Args:
            groups: Stored names; None: all that are served online.
            rebuild: Build their copies anew in every part of every tier, whatever is there.
            progress: Is told after each batch of rows.

        Returns:
            What each step did.

        Raises:
            UnknownName: a group is not registered.
            InvalidInput: a group is not served online, or has a row that cannot be.
            StoreUnavailable: a part of the online store does not answer; the others were moved.
        """
        from featurestore.online.materialization.materialize import materialize
        from featurestore.online.materialization.moves import tell_nobody

        chosen = (
            [self.registry.group(name) for name in groups]
            if groups is not None
            else [g for g in self.registry.groups.values() if g.is_online]
        )
        for group in chosen:
            _require_online(RequestedGroup(group, ()))
        return {
            group.name: materialize(
                self.offline.table(group.name),
                self.online.parts_of(group),
                self.clock,
                rebuild=rebuild,
                progress=progress or tell_nobody,
            )
            for group in chosen
        }

    def push(
        self,
        group: str,
        rows: Rows,
        to: "Destination" = "online_and_offline",
        *,
        idempotency_key: str | None = None,
    ) -> "PushResult":
        """Push rows to a group declared by `pushed_group`: to its table in one commit, and to every online copy that is built.
        The first push builds them.

        A push is taken or refused as a whole. Its rows are known from the clock's instant on; of two pushes for one entity
        and event time the later one counts. The table comes first: a failure after its commit does not raise, is told in the
        result, and is made good by the next materialization. A commit takes tens of milliseconds, and those of one group
        follow each other: push batches, not rows one by one.

        Args:
            group: Stored name of the group.
            rows: Keys, `event_time` (aware, at most five minutes ahead) and every feature; dtypes as declared, or such that
                a cast keeps every value. Polars, Arrow, pandas, list of dicts or dict of lists.
            to: 'online' writes values that the table does not know: they last until the copy is built anew. Event times may
                not be ahead then, since nothing keeps a row until its time. The table is made, empty, if there is none.
            idempotency_key: Names this push to the table: a repeat with the same rows adds none. Not used with to='online'.

        Raises:
            UnknownName: the group is not registered.
            SchemaMismatch: columns or dtypes are not those declared.
            InvalidInput: the group is computed; or rows break the declaration, lack a key, are doubled or of the future: the
                message names them, and nothing is written.
            StoreUnavailable: the offline store cannot be reached, or others were first too often; with to='online', no
                online copy took the rows.
        """
        from featurestore.push import push_rows

        declared = self.registry.group(group)
        table = self.offline.table(declared.name)
        return push_rows(
            table, lambda: self.online.tiers_of(declared), self.clock, rows, to=to, idempotency_key=idempotency_key
        )


def _require_online(wanted: RequestedGroup) -> None:
    if not wanted.group.is_online:
        raise InvalidInput(
            f"Group {wanted.group.name!r} is not served online. Declare online=Online(ttl=...) and apply."
        )
