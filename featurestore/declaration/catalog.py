"""All declarations together, and what only shows when they stand side by side.

A `Catalog` resolves every parameter of a transform to a source or a group, runs each transform on empty frames to see
that it returns what it declares, and refuses cycles, cut-offs that come before an upstream's horizon, and stand-ins that cannot be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

import polars as pl

from featurestore.declaration.dtypes import as_dtype
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.service import FeatureService
from featurestore.declaration.source import Source
from featurestore.declaration.stand_ins import check_proxy, check_snapshots, check_windowed
from featurestore.declaration.types import require_items
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.errors import DeclarationError, FeatureStoreError, unknown_name

Input = Source | FeatureGroup
CATALOG = "Catalog([a_source, ...], [a_group, ...], [a_service, ...]), groups made by @feature_group or pushed_group"


@dataclass(frozen=True)
class Catalog:
    """Sources, groups and services that belong together.

    Args:
        sources: Every source that a group reads.
        groups: Every feature group, in any order; inputs of groups included.
        services: Consumers of the groups.

    Raises:
        DeclarationError: two declarations share a name or contradict each other, or a transform does not return on
            empty frames what its group declares.
        UnknownName: a parameter or a reference names nothing that is declared.
    """

    sources: Sequence[Source]
    groups: Sequence[FeatureGroup]
    services: Sequence[FeatureService] = ()

    def __post_init__(self) -> None:
        for name, kind in (("sources", Source), ("groups", FeatureGroup), ("services", FeatureService)):
            require_items(f"Catalog: {name}", getattr(self, name), kind, CATALOG)
        _refuse_duplicates(
            "source or group", [source.name for source in self.sources] + [group.stored_name for group in self.groups]
        )
        _refuse_duplicates("service", [service.name for service in self.services])
        for group in self.ordered_groups:
            for upstream in self.inputs_of(group).values():
                _check_cut_off(group, upstream)
            if group.population:
                _check_population(group, self.inputs_of(group)[group.population])
            if group.kind != "pushed":
                _check_driver(group, self.inputs_of(group))
                self._check_transform(group)
            self._check_stand_ins(group)
        for service in self.services:
            self._check_service(service)

    @cached_property
    def _named(self) -> dict[str, Input]:
        return {source.name: source for source in self.sources} | {group.stored_name: group for group in self.groups}

    def inputs_of(self, group: FeatureGroup) -> dict[str, Input]:
        """The sources and groups that a group's transform reads, by parameter name."""
        for name in group.inputs:
            if name not in self._named:
                raise unknown_name("Input", name, self._named, f"Group {group.stored_name!r} may read what the catalog")
        return {name: self._named[name] for name in group.inputs}

    def group(self, name: str) -> FeatureGroup:
        """The group stored under a name.

        Raises:
            UnknownName: there is none.
        """
        for group in self.groups:
            if group.stored_name == name:
                return group
        raise unknown_name("Group", name, [group.stored_name for group in self.groups], "The catalog")

    def source(self, name: str) -> Source:
        """The source of a name.

        Raises:
            UnknownName: there is none.
        """
        for source in self.sources:
            if source.name == name:
                return source
        raise unknown_name("Source", name, [source.name for source in self.sources], "The catalog")

    @cached_property
    def ordered_groups(self) -> tuple[FeatureGroup, ...]:
        """Every group after those that it reads.

        Raises:
            DeclarationError: groups read each other in a circle.
        """
        names = {group.stored_name: group for group in self.groups}
        graph = {name: [i for i in self.inputs_of(group) if i in names] for name, group in names.items()}
        try:
            return tuple(names[name] for name in TopologicalSorter(graph).static_order())
        except CycleError as error:
            raise DeclarationError(
                f"Groups read each other in a circle: {' <- '.join(error.args[1])}. Break it."
            ) from error

    def sources_of(self, group: FeatureGroup) -> tuple[Source, ...]:
        """Every source that a group rests on, directly or through other groups."""
        found: dict[str, Source] = {}
        for item in self.inputs_of(group).values():
            upstream = (item,) if isinstance(item, Source) else self.sources_of(item)
            found |= {source.name: source for source in upstream}
        return tuple(found.values())

    def _check_transform(self, group: FeatureGroup) -> None:
        frames = {name: pl.LazyFrame(schema=input_schema(item)) for name, item in self.inputs_of(group).items()}
        try:
            group.check_output(group.run(any_window(group), frames).collect_schema())
        except FeatureStoreError as error:
            raise DeclarationError(str(error)) from error
        except pl.exceptions.PolarsError as error:
            raise DeclarationError(
                f"The transform of {group.stored_name!r} fails on empty inputs: {type(error).__name__}: {_first_paragraph(error)}. "
                f"Its inputs have { {name: list(frame.collect_schema()) for name, frame in frames.items()} }. "
                "Correct the transform, or declare what it reads in the source's schema."
            ) from error

    def _check_stand_ins(self, group: FeatureGroup) -> None:
        check_windowed(group)
        if group.backfill.snapshots is not None:
            check_snapshots(group, self.source(group.backfill.snapshots.source))
        for feature, proxy in group.backfill.proxies.items():
            check_proxy(group, feature, proxy, self.group(proxy.reference.partition(":")[0]))

    def _check_service(self, service: FeatureService) -> None:
        for reference in service.references:
            name, feature = reference.split(":")
            group = self.group(name)
            names = [f.name for f in group.features]
            if feature not in names:
                raise unknown_name(
                    "Feature",
                    reference,
                    [group[n] for n in names],
                    f"Service {service.name!r} may read what group {name!r}",
                )


def _first_paragraph(error: Exception) -> str:
    """What Polars says, without the plan that it appends."""
    return str(error).strip().partition("\n\n")[0].rstrip(".")


def input_schema(item: Input) -> dict[str, pl.DataType]:
    """The columns that a transform sees of an input: a source's declared ones, a group's computed ones."""
    if isinstance(item, Source):
        return {name: as_dtype(dtype) for name, dtype in item.schema.items()}
    return item.row_schema


def _refuse_duplicates(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DeclarationError(
                f"Two declarations are named {name!r}. Each {kind} has a name of its own; rename one or raise its version."
            )
        seen.add(name)


def any_window(group: FeatureGroup) -> TimeWindow | None:
    """The first window of a group, for a trial run; None for a group without windows."""
    if isinstance(group.cadence, Windowless):
        return None
    return group.cadence.window_at(datetime.combine(group.cadence.start, datetime.min.time(), tzinfo=UTC))


def _check_driver(group: FeatureGroup, inputs: Mapping[str, Input]) -> None:
    driver = next(iter(inputs.values()))
    if group.kind != "events":
        return
    if (isinstance(driver, Source) and driver.is_timeless) or (
        isinstance(driver, FeatureGroup) and driver.kind == "static"
    ):
        raise DeclarationError(
            f"Event group {group.stored_name!r} is driven by {group.inputs[0]!r}, which has no event time. "
            "Its first input after the window is the feed whose new rows make its events; put that one first."
        )


def _check_population(group: FeatureGroup, item: Input) -> None:
    columns = input_schema(item)
    if lacking := {key: dtype for key, dtype in group.entity.keys.items() if columns.get(key) != dtype}:
        raise DeclarationError(
            f"Group {group.stored_name!r}: its population {group.population!r} has {columns}, and not the keys {lacking}. Name an "
            f"input that has one row for each {group.entity.name}, under the keys' own names."
        )


def _check_cut_off(group: FeatureGroup, upstream: Input) -> None:
    if isinstance(upstream, Source) or upstream.kind != "windowed" or group.kind == "static":
        return
    if not isinstance(upstream.cadence, Windowless) and group.lookback < upstream.cadence.length:
        raise DeclarationError(
            f"Group {group.stored_name!r} looks back {group.lookback}, and no {upstream.cadence.name} window of "
            f"{upstream.stored_name!r} lies inside that. Declare lookback={upstream.cadence.length!r} or more."
        )
    needed: timedelta = upstream.delay + upstream.publish
    if group.delay < needed:
        raise DeclarationError(
            f"Group {group.stored_name!r} reads {upstream.stored_name!r}, whose windows are served {needed} after they end, "
            f"but its own cut-off is {group.delay} after its window's end. Declare delay={needed!r} or more."
        )
