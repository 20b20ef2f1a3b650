"""What a request means for online reads, worked out once and kept: groups, keys, layouts, columns, readers.

Not here: entities, messages, or statuses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import polars as pl

from featurestore.declaration.service import FeatureService
from featurestore.errors import InvalidInput
from featurestore.freshness.on_read import Bounds
from featurestore.online.message.decode import Decoder
from featurestore.online.message.few import FewReader
from featurestore.online.message.layout import MessageLayout, WireField
from featurestore.online.message.schema import layouts_of
from featurestore.references import Request, RequestedGroup, resolve
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup, RegistrySnapshot

KEPT_PLANS = 1024


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """One group of a request: its features in the order asked, and whatever reading them needs."""

    requested: RequestedGroup

    @cached_property
    def group(self) -> RegisteredGroup:
        return self.requested.group

    @cached_property
    def name(self) -> str:
        return self.group.name

    @cached_property
    def features(self) -> tuple[RegisteredFeature, ...]:
        return tuple(feature for feature, _ in self.requested.features)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the output columns, one a feature."""
        return tuple(column for _, column in self.requested.features)

    @cached_property
    def key_names(self) -> tuple[str, ...]:
        return self.group.key_names

    @cached_property
    def key_dtypes(self) -> tuple[pl.DataType, ...]:
        return tuple(self.group.key_schema.values())

    @cached_property
    def freshness_bounds(self) -> Bounds:
        """What its freshness is judged by."""
        return Bounds.of(self.group)

    @cached_property
    def layouts(self) -> dict[int, MessageLayout]:
        return layouts_of(self.group)

    @cached_property
    def fields(self) -> tuple[WireField, ...]:
        """The features as fields of the newest layout."""
        newest = self.layouts[max(self.layouts)]
        return tuple(newest.field(feature.name) for feature in self.features)

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self.layouts, self.fields)

    @cached_property
    def few_reader(self) -> FewReader:
        return FewReader(self.layouts, self.fields)

    @cached_property
    def newest_since(self) -> int:
        """Rows of this schema number and above have every feature asked."""
        return max(feature.since for feature in self.features)


@dataclass(frozen=True, eq=False)
class ReadPlan:
    """A request's groups, in the order of first mention."""

    groups: tuple[GroupPlan, ...]

    @cached_property
    def columns(self) -> frozenset[str]:
        """Names of all output columns."""
        return frozenset(column for one in self.groups for column in one.columns)

    @cached_property
    def key_schema(self) -> dict[str, pl.DataType]:
        """Key columns of all groups."""
        return {name: dtype for one in self.groups for name, dtype in one.group.key_schema.items()}


def read_plan(registry: RegistrySnapshot, request: Request, full_feature_names: bool) -> ReadPlan:
    """The plan of a request; the same one for the same request and the same registry.

    Raises:
        UnknownName: a group, feature or service is not registered.
        InvalidInput: the request is empty or repeats itself, two features would share a column, or a group is not served.
    """
    if isinstance(request, FeatureService):
        request = request.references
    asked = request if isinstance(request, str) else tuple(request)
    try:
        return _kept_plan(_SameRegistry(registry), asked, full_feature_names)
    except TypeError:  # something in the list cannot be hashed, and so is no reference: `resolve` says so
        return _plan(registry, asked, full_feature_names)


class _SameRegistry:
    """A registry as a key of the kept plans: equal to itself only, and alive as long as they are."""

    __slots__ = ("snapshot",)

    def __init__(self, snapshot: RegistrySnapshot) -> None:
        self.snapshot = snapshot

    def __hash__(self) -> int:
        return id(self.snapshot)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameRegistry) and self.snapshot is other.snapshot


@lru_cache(maxsize=KEPT_PLANS)
def _kept_plan(registry: _SameRegistry, request: str | tuple[str, ...], full_feature_names: bool) -> ReadPlan:
    return _plan(registry.snapshot, request, full_feature_names)


def _plan(registry: RegistrySnapshot, request: str | Sequence[str], full_feature_names: bool) -> ReadPlan:
    requested = resolve(registry, request, full_feature_names=full_feature_names)
    for one in requested:
        require_online(one.group)
    return ReadPlan(tuple(GroupPlan(one) for one in requested))


def require_online(group: RegisteredGroup) -> None:
    """Refuse a group that has no online copy."""
    if not group.is_online:
        raise InvalidInput(f"Group {group.name!r} is not served online. Declare online=Online(ttl=...) and apply.")
