"""The registry snapshot: what SDK, server and stores know of the declarations, as plain values with one JSON form.

User code is never needed to read it. How declarations become a snapshot is in `compile.py`, where snapshots live in
`history.py`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import polars as pl

from featurestore.declaration.backfill import APPROVAL_LIMIT_USD
from featurestore.declaration.dtypes import TIMESTAMP, parse_dtype, storage_dtype
from featurestore.declaration.feature import DEFAULT_DRIFT, Drift
from featurestore.declaration.group import Kind
from featurestore.declaration.online import TierName
from featurestore.declaration.tier import Alerts, usual_refresh
from featurestore.errors import InvalidInput, unknown_name

FORMAT = 1


WINDOW_LENGTHS = {"hourly": timedelta(hours=1), "daily": timedelta(days=1)}
"""Of the cadences that are cut into windows."""
WINDOW_KEYS = {"hourly": "%Y-%m-%d-%H:%M", "daily": "%Y-%m-%d"}
"""How a window's start is written as a partition key."""


@dataclass(frozen=True, slots=True)
class RegisteredFeature:
    """A feature with what the registry adds: its field number, and the schema number it appeared with."""

    name: str
    dtype_name: str
    number: int
    since: int
    description: str = ""
    unit: str = ""
    ge: float | None = None
    le: float | None = None
    max_null_fraction: float = 1.0
    max_length: int | None = None
    drift: Drift | None = DEFAULT_DRIFT

    @property
    def dtype(self) -> pl.DataType:
        return parse_dtype(self.dtype_name)


@dataclass(frozen=True)
class RegisteredGroup:
    """A feature group as stores and readers see it. Durations are whole microseconds, times ISO 8601 in UTC.

    `name` is the stored name: from version 2 on it carries the version. `start` is empty for a pushed group. `first_schema` is a
    digest of the features that it was first registered with, kept for life; empty in registries that were begun without it.
    """

    name: str
    version: int
    kind: Kind
    cadence: Literal["hourly", "daily", "static", "pushed"]
    start: str
    entity: str
    keys: tuple[tuple[str, str], ...]
    features: tuple[RegisteredFeature, ...]
    schema_number: int
    retired_numbers: tuple[int, ...]
    retired_columns: tuple[tuple[str, str], ...]
    inputs: tuple[str, ...]
    delay_us: int
    publish_us: int
    lookback_us: int
    freshness_us: int | None
    max_age_us: int | None
    is_online: bool
    ttl_us: int | None
    min_coverage: float | None
    owner: str
    description: str
    backfillable_from: str | None = None
    approval_limit_usd: float = APPROVAL_LIMIT_USD
    approvers: tuple[str, ...] = ()
    tiers: tuple[TierName, ...] = ()
    """Declared online tiers; none declared: the deployment decides."""
    tier: str = ""
    refresh_us: int | None = None
    """As declared; None: as follows from the SLO."""
    alerts: Alerts = "ticket"
    arrival_us: int | None = None
    first_schema: str = ""
    population: str = ""
    """The input whose entities windows are to cover; empty: those of the windows before."""

    @property
    def message_name(self) -> str:
        """What the checksums of its online messages start from: no other registry has it for other features, even by chance."""
        return f"{self.name}/{self.first_schema}" if self.first_schema else self.name

    @property
    def has_windows(self) -> bool:
        """Whether its rows are computed window by window, so that there is something to backfill."""
        return self.cadence in WINDOW_LENGTHS

    @property
    def window_length(self) -> timedelta:
        """Length of a window of a group that has some."""
        return WINDOW_LENGTHS[self.cadence]

    def window_key(self, start: datetime) -> str:
        """The partition key of a window of a group that has some."""
        return start.strftime(WINDOW_KEYS[self.cadence])

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.keys)

    @cached_property
    def key_schema(self) -> dict[str, pl.DataType]:
        return {name: parse_dtype(dtype) for name, dtype in self.keys}

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def max_age(self) -> timedelta | None:
        return None if self.max_age_us is None else timedelta(microseconds=self.max_age_us)

    @property
    def freshness(self) -> timedelta | None:
        """The SLO: the age that the group's data must not reach."""
        return None if self.freshness_us is None else timedelta(microseconds=self.freshness_us)

    @property
    def refresh(self) -> timedelta | None:
        """How often the group is confirmed to hold everything due; None for one without windows, or without an SLO."""
        if self.refresh_us is not None:
            return timedelta(microseconds=self.refresh_us)
        if self.freshness is None or not self.has_windows:
            return None
        return usual_refresh(self.freshness - timedelta(microseconds=self.delay_us + self.publish_us))

    @property
    def arrival(self) -> timedelta | None:
        """How long after its event time a pushed row may arrive."""
        return None if self.arrival_us is None else timedelta(microseconds=self.arrival_us)

    @property
    def slo(self) -> timedelta | None:
        """What it promises, as people are told: `freshness`; of a pushed group that declares none, how late its rows may come."""
        return self.arrival if self.freshness is None else self.freshness

    @property
    def ttl(self) -> timedelta | None:
        return None if self.ttl_us is None else timedelta(microseconds=self.ttl_us)

    @cached_property
    def stored_schema(self) -> dict[str, pl.DataType]:
        """Columns and dtypes of a stored row, in table order."""
        times = dict.fromkeys(("event_time", "knowledge_time", "created_at", "window_start"), TIMESTAMP)
        flags = {"is_deleted": pl.Boolean(), "schema_number": pl.Int32()}
        features = {feature.name: storage_dtype(feature.dtype) for feature in self.features}
        return {**self.key_schema, **times, **flags, **features}

    def feature(self, name: str) -> RegisteredFeature:
        """A feature by name.

        Raises:
            UnknownName: the group has none of that name; the message lists those it has.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise unknown_name(
            "Feature", f"{self.name}:{name}", [f"{self.name}:{n}" for n in self.feature_names], f"Group {self.name!r}"
        )


@dataclass(frozen=True, slots=True)
class RegisteredService:
    """A feature service: its references are 'group:feature'."""

    name: str
    references: tuple[str, ...]
    owner: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class RegisteredSource:
    """A source, as those who watch it need it; `event_time` is empty for a timeless one.

    `freshness_us` is how long it may have no newer event, as declared; `typical_delay_us` how late it usually is.
    """

    name: str
    event_time: str
    freshness_us: int | None = None
    typical_delay_us: int = 0
    owner: str = ""


Origin = RegisteredSource | RegisteredGroup
"""Where rows come from: a source, or a pushed group, whose source is whoever pushes."""


@dataclass(frozen=True)
class RegistrySnapshot:
    """Every group, source and service at one moment. Equal snapshots have equal digests.

    `retired` holds groups no longer declared as they last were, so that one that returns keeps its field numbers.
    """

    groups: Mapping[str, RegisteredGroup]
    services: Mapping[str, RegisteredService]
    retired: Mapping[str, RegisteredGroup] = field(default_factory=dict)
    sources: Mapping[str, RegisteredSource] = field(default_factory=dict)

    def group(self, name: str) -> RegisteredGroup:
        """A group by stored name; also by Feast's form 'name@v2'.

        Raises:
            UnknownName: there is none.
        """
        base, _, version = name.partition("@v")
        stored = base if version in ("", "1") else f"{base}_v{version}"
        if stored not in self.groups:
            raise unknown_name("Group", stored, self.groups, "The registry")
        return self.groups[stored]

    def upstream_of(self, name: str) -> tuple[str, ...]:
        """The sources and groups that a group reads; none of a source."""
        return self.groups[name].inputs if name in self.groups else ()

    def origins_of(self, name: str) -> tuple[Origin, ...]:
        """Every source of events and pushed group that a group rests on, directly or through other groups, in the order of its inputs."""
        found: dict[str, Origin] = {}
        for upstream in self.upstream_of(name):
            found |= {origin.name: origin for origin in self._origins(upstream)}
        return tuple(found.values())

    def _origins(self, upstream: str) -> tuple[Origin, ...]:
        if upstream in self.sources:
            source = self.sources[upstream]
            return (source,) if source.event_time else ()
        if upstream in self.groups and self.groups[upstream].kind == "pushed":
            return (self.groups[upstream],)
        return self.origins_of(upstream)

    def service(self, name: str) -> RegisteredService:
        """A feature service by name.

        Raises:
            UnknownName: there is none.
        """
        if name not in self.services:
            raise unknown_name("Service", name, self.services, "The registry")
        return self.services[name]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the JSON form: the snapshot's address."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The one JSON form: sorted keys, no white space but line ends."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "groups": {name: asdict(group) for name, group in self.groups.items()},
            "retired": {name: asdict(group) for name, group in self.retired.items()},
            "services": {name: asdict(service) for name, service in self.services.items()},
            "sources": {name: asdict(source) for name, source in self.sources.items()},
        }
        return json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RegistrySnapshot":
        """Read what `to_json` wrote.

        Raises:
            InvalidInput: the text is not a snapshot, or one of a newer format.
        """
        try:
            body = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"This text is no registry snapshot: {error}.") from error
        found = body.get("format") if isinstance(body, dict) else None
        if found != FORMAT:
            raise InvalidInput(
                f"Registry snapshot has format {found!r}; this library reads {FORMAT}. Upgrade featurestore."
            )
        return cls(
            groups={name: _group(fields) for name, fields in body["groups"].items()},
            retired={name: _group(fields) for name, fields in body["retired"].items()},
            services={
                name: RegisteredService(**{**fields, "references": tuple(fields["references"])})
                for name, fields in body["services"].items()
            },
            sources={name: RegisteredSource(**fields) for name, fields in body.get("sources", {}).items()},
        )


def _group(fields: dict[str, Any]) -> RegisteredGroup:
    features = tuple(_feature(feature) for feature in fields["features"])
    pairs = {name: tuple((column, dtype) for column, dtype in fields[name]) for name in ("keys", "retired_columns")}
    lists = ("retired_numbers", "inputs", "approvers", "tiers")
    tuples = {name: tuple(fields[name]) for name in lists if name in fields}
    return RegisteredGroup(**{**fields, **tuples, **pairs, "features": features})


def _feature(fields: dict[str, Any]) -> RegisteredFeature:
    drift = fields.get("drift")
    return RegisteredFeature(**{**fields, "drift": Drift(**drift)} if drift else fields)
