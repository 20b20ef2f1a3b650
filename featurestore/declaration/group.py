"""`@feature_group`: a transform with its contract. The result is a frozen value; calling it runs the transform on frames."""

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

import polars as pl

from featurestore.declaration.backfill import Backfill
from featurestore.declaration.dtypes import TIMESTAMP, as_dtype
from featurestore.declaration.feature import RESERVED, Entity, Feature, check_name, check_owner
from featurestore.declaration.online import Online
from featurestore.declaration.windows import Cadence, Hourly, Pushed, Static, TimeWindow, Windowless
from featurestore.errors import DeclarationError, InvalidInput, SchemaMismatch

Frame = pl.DataFrame | pl.LazyFrame
Transform = Callable[..., Frame]
Kind = Literal["windowed", "events", "static", "pushed"]

STATIC_COVERAGE = 0.9


@dataclass(frozen=True, kw_only=True)
class FeatureGroup:
    """A declared feature group; made by `@feature_group`, which documents every field, or by `pushed_group`."""

    name: str
    description: str
    transform: Transform
    inputs: tuple[str, ...]
    entity: Entity
    features: tuple[Feature, ...]
    cadence: Cadence
    emits: Literal["windows", "events"]
    lookback: timedelta
    delay: timedelta
    publish: timedelta
    freshness: timedelta | None
    max_age: timedelta | None
    online: Online | None
    owner: str
    version: int
    min_coverage: float | None
    backfill: Backfill
    tags: Mapping[str, str]

    def __call__(self, *args: TimeWindow, **inputs: Frame) -> pl.DataFrame:
        """Run the transform on frames, with no platform: the way to unit-test a group.

        Args:
            args: The window, for windowed and event groups.
            inputs: One frame for each input, by name; taken as they are, with no cut-off applied.

        Returns:
            One row per entity: keys, `event_time` (except for static groups) and the features, in declared order.

        Raises:
            InvalidInput: an input is missing or unknown.
            SchemaMismatch: the transform's columns or dtypes differ from the declared ones.
        """
        if self.kind == "pushed":
            raise InvalidInput(f"Group {self.name!r} is pushed: it has no transform to call. Its rows arrive by push.")
        if set(inputs) != set(self.inputs):
            raise InvalidInput(
                f"Group {self.name!r} reads {list(self.inputs)}; got {sorted(inputs)}. Pass each by name."
            )
        window = args[0] if args else None
        if (window is None) != (self.kind == "static") or len(args) > 1:
            raise InvalidInput(
                f"Group {self.name!r} is {self.kind}: call it with {'no' if self.kind == 'static' else 'one'} window."
            )
        return self.shape(self.run(window, inputs), window)

    def run(self, window: TimeWindow | None, inputs: Mapping[str, Frame]) -> pl.LazyFrame:
        """The transform's own result, lazy and unchecked."""
        frames = {name: frame.lazy() for name, frame in inputs.items()}
        result = self.transform(**frames) if window is None else self.transform(window, **frames)
        if not isinstance(result, pl.LazyFrame | pl.DataFrame):
            raise SchemaMismatch(
                f"The transform of {self.name!r} returned {type(result).__name__}. Return a Polars frame."
            )
        return result.lazy()

    def shape(self, result: pl.LazyFrame, window: TimeWindow | None) -> pl.DataFrame:
        """Check a transform's columns and dtypes, stamp the window's end, and collect in declared column order."""
        self.check_output(result.collect_schema())
        if self.kind == "windowed" and window is not None:
            result = result.with_columns(pl.lit(window.end).cast(TIMESTAMP).alias("event_time"))
        return result.select(list(self.row_schema)).collect()

    def check_output(self, schema: Mapping[str, pl.DataType]) -> None:
        """Refuse a transform's output schema that is not exactly the declared one, in any column order."""
        expected = dict(self.row_schema)
        if self.kind == "windowed":
            del expected["event_time"]
        if missing := [name for name in expected if name not in schema]:
            raise SchemaMismatch(
                f"The transform of {self.name!r} does not return {missing}; it returns {list(schema)}. {self._missing_hint(missing)}"
            )
        if extra := [name for name in schema if name not in expected]:
            raise SchemaMismatch(
                f"The transform of {self.name!r} returns {extra}, which are not declared. Declare them as features or drop them."
            )
        for name, dtype in expected.items():
            if schema[name] != dtype:
                raise SchemaMismatch(
                    f"Column {name!r} of {self.name!r} is {schema[name]}, declared {dtype}. Cast it in the transform: pl.col({name!r}).cast(...)."
                )

    def _missing_hint(self, missing: Sequence[str]) -> str:
        keys = [name for name in missing if name in self.entity.keys]
        if keys:
            return f"Entity {self.entity.name!r} needs its keys {keys} in every row."
        return (
            "An event group returns each row's own event_time."
            if "event_time" in missing
            else "Return them or remove their declaration."
        )

    @property
    def kind(self) -> Kind:
        if isinstance(self.cadence, Static):
            return "static"
        if isinstance(self.cadence, Pushed):
            return "pushed"
        return "events" if self.emits == "events" else "windowed"

    @property
    def stored_name(self) -> str:
        """The name everywhere outside the code: folder, key, asset. From version 2 on it carries the version."""
        return self.name if self.version == 1 else f"{self.name}_v{self.version}"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.entity.keys)

    @cached_property
    def code_version(self) -> str:
        """A digest of the transform's source: two windows computed under the same one ran the same code."""
        try:
            code = inspect.getsource(self.transform).encode()
        except OSError:
            code = self.transform.__code__.co_code
        return hashlib.sha256(code).hexdigest()[:16]

    @property
    def row_schema(self) -> dict[str, pl.DataType]:
        """Columns and dtypes of a computed row: keys, `event_time` unless static, features."""
        event_time = {} if self.kind == "static" else {"event_time": TIMESTAMP}
        keys = {key: as_dtype(dtype) for key, dtype in self.entity.keys.items()}
        return {**keys, **event_time, **{f.name: as_dtype(f.dtype) for f in self.features}}

    def cut_off(self, window: TimeWindow) -> datetime:
        """What the transform may know ends here, and the window is due."""
        return window.end + self.delay

    def horizon(self, window: TimeWindow) -> datetime:
        """When production serves the window's rows: their knowledge time."""
        return self.cut_off(window) + self.publish

    def __getitem__(self, feature: str) -> str:
        """The reference `group:feature`, for a `FeatureService`."""
        return f"{self.stored_name}:{feature}"

    def __hash__(self) -> int:
        return hash(self.stored_name)


def feature_group(
    *,
    entity: Entity,
    features: Sequence[Feature],
    cadence: Cadence,
    owner: str,
    lookback: timedelta | None = None,
    emits: Literal["windows", "events"] = "windows",
    delay: timedelta = timedelta(0),
    publish: timedelta | None = None,
    freshness: timedelta | None = None,
    max_age: timedelta | None = None,
    online: Online | None = None,
    version: int = 1,
    min_coverage: float | None = None,
    backfill: Backfill | None = None,
    tags: Mapping[str, str] | None = None,
) -> Callable[[Transform], FeatureGroup]:
    """Declare a feature group: the function's name is its name, its docstring the description, its parameters the inputs.

    The function takes the window first (static groups take none) and one `pl.LazyFrame` per input, named like a
    source or a group. It returns the entity's keys and the features; an event group also `event_time`.

    Args:
        entity: What the rows are about.
        features: At least one.
        cadence: `Hourly(start)`, `Daily(start)` or `Static(valid_from)`.
        owner: 'team:...' or an e-mail address.
        lookback: Inputs hold event times in [window.end - lookback, window.end); at least the window's length, which
            is the default for event groups. Required for windowed groups, refused for static ones.
        emits: 'windows' (one row per entity and window) or 'events' (rows with their own event time; the first input is the driver).
        delay: The transform knows what was known by window.end + delay, the cut-off.
        publish: From the cut-off to the horizon, when production serves the rows; default 5 minutes hourly, 15 daily.
        freshness: The service level for the age of the newest data.
        max_age: Values older than this are not served, offline or online; default the online ttl.
        online: `Online(ttl=...)` to serve the group online.
        version: Raised for an incompatible change; both versions live until the old one is retired.
        min_coverage: Smallest share of the entities of the previous seven windows that a window must have to be
            promoted (of the last load, for a static group, where the default is 0.9).
        backfill: How far back, at what cost and from what else than its sources the group may be backfilled.
        tags: Shown in the catalogue and in Dagster.

    Raises:
        DeclarationError: the declaration contradicts itself; the message says how to mend it.
    """

    if isinstance(cadence, Pushed):
        raise DeclarationError("A group whose rows arrive by push has no transform. Declare it with pushed_group(...).")

    def declare(function: Transform) -> FeatureGroup:
        inputs = _inputs(function, isinstance(cadence, Static))
        group = FeatureGroup(
            name=function.__name__,
            description=inspect.cleandoc(function.__doc__ or ""),
            transform=function,
            inputs=inputs,
            entity=entity,
            features=tuple(features),
            cadence=cadence,
            emits=emits,
            lookback=_lookback(function.__name__, cadence, emits, lookback),
            delay=delay,
            publish=_publish(cadence, publish),
            freshness=freshness,
            max_age=_max_age(cadence, max_age, online),
            online=_online(cadence, online),
            owner=owner,
            version=version,
            min_coverage=STATIC_COVERAGE if min_coverage is None and isinstance(cadence, Static) else min_coverage,
            backfill=backfill or Backfill(),
            tags=dict(tags or {}),
        )
        check_group(group)
        return group

    return declare


def _inputs(function: Transform, is_static: bool) -> tuple[str, ...]:
    names = list(inspect.signature(function).parameters)
    if not is_static:
        if not names or names[0] != "window":
            raise DeclarationError(
                f"Group {function.__name__!r}: the first parameter must be 'window'; it has {names}. Write def {function.__name__}(window, ...)."
            )
        names = names[1:]
    if not names:
        raise DeclarationError(
            f"Group {function.__name__!r} reads nothing. Add a parameter for each source or group that it reads."
        )
    return tuple(names)


def _lookback(name: str, cadence: Cadence, emits: str, lookback: timedelta | None) -> timedelta:
    if isinstance(cadence, Windowless):
        if lookback is not None:
            raise DeclarationError(
                f"Group {name!r} is static and declares a lookback. Static groups read each key's newest row; remove it."
            )
        return timedelta(0)
    if lookback is None and emits == "windows":
        raise DeclarationError(
            f"Group {name!r} declares no lookback. Say how far back its windows read, e.g. lookback={cadence.length!r}."
        )
    length = cadence.length if lookback is None else lookback
    if length < cadence.length:
        raise DeclarationError(
            f"Group {name!r}: lookback {length} is shorter than its window, {cadence.length}. Raise it, or events would never be read."
        )
    return length


def _publish(cadence: Cadence, publish: timedelta | None) -> timedelta:
    if publish is not None:
        return publish
    if isinstance(cadence, Windowless):
        return timedelta(0)
    return timedelta(minutes=5) if isinstance(cadence, Hourly) else timedelta(minutes=15)


def _max_age(cadence: Cadence, max_age: timedelta | None, online: Online | None) -> timedelta | None:
    if max_age is not None or online is None or isinstance(cadence, Static):
        return max_age
    return online.ttl


def _online(cadence: Cadence, online: Online | None) -> Online | None:
    is_untold = online is not None and online.ttl == Online().ttl
    return replace(online, ttl=None) if online and is_untold and isinstance(cadence, Static) else online


def check_group(group: FeatureGroup) -> None:
    """Refuse a declaration that contradicts itself.

    Raises:
        DeclarationError: the message says how to mend it.
    """
    check_name("Group", group.name)
    if re.search(r"_v\d+$", group.name):
        raise DeclarationError(f"Group name {group.name!r} ends like a version. Drop the suffix and declare version=n.")
    if group.version < 1:
        raise DeclarationError(f"Group {group.name!r}: version is {group.version}. Versions start at 1.")
    if not group.description:
        raise DeclarationError(f"Group {group.name!r} has no docstring. Its first line is its entry in the catalogue.")
    check_owner(f"Group {group.name!r}", group.owner)
    if group.min_coverage is not None and not 0 <= group.min_coverage <= 1:
        raise DeclarationError(
            f"Group {group.name!r}: min_coverage is {group.min_coverage}. It is a share from 0 to 1."
        )
    if group.emits not in ("windows", "events"):
        raise DeclarationError(f"Group {group.name!r}: emits is {group.emits!r}. It is 'windows' or 'events'.")
    if isinstance(group.cadence, Static) and group.emits == "events":
        raise DeclarationError(
            f"Group {group.name!r} is static and emits events. Give it a cadence, e.g. Hourly(start=...)."
        )
    _check_columns(group)
    _check_durations(group)
    _check_backfill(group)


def _check_columns(group: FeatureGroup) -> None:
    if not group.features:
        raise DeclarationError(f"Group {group.name!r} declares no features.")
    names = [feature.name for feature in group.features]
    for name in names:
        if names.count(name) > 1 or name in group.entity.keys:
            raise DeclarationError(
                f"Group {group.name!r} declares {name!r} twice (features {names}, keys {list(group.entity.keys)}). Rename one."
            )
    if clash := RESERVED & set(names):
        raise DeclarationError(f"Group {group.name!r} declares reserved names {sorted(clash)}.")


def _check_durations(group: FeatureGroup) -> None:
    ttl = group.online.ttl if group.online else None
    durations = {"lookback": group.lookback, "delay": group.delay, "publish": group.publish}
    if negative := [f"{name}={value}" for name, value in durations.items() if value < timedelta(0)]:
        raise DeclarationError(f"Group {group.name!r} declares {negative}. Durations cannot be negative.")
    spans = {"freshness": group.freshness, "max_age": group.max_age, "ttl": ttl}
    if empty := [f"{name}={value}" for name, value in spans.items() if value is not None and value <= timedelta(0)]:
        raise DeclarationError(f"Group {group.name!r} declares {empty}. Each must be longer than zero.")
    if isinstance(group.cadence, Static):
        if group.max_age is not None or ttl is not None or group.delay or group.publish:
            raise DeclarationError(
                f"Group {group.name!r} is static: it has no max_age, ttl, delay or publish. Remove them (online=Online(ttl=None))."
            )
    elif group.online is not None and ttl is None:
        raise DeclarationError(
            f"Group {group.name!r} is online without a ttl. Only static groups live for ever; write Online(ttl=timedelta(days=7))."
        )
    if ttl is not None and group.max_age is not None and ttl < group.max_age:
        raise DeclarationError(
            f"Group {group.name!r}: ttl {ttl} is below max_age {group.max_age}, so online would lose what offline has. Raise ttl to max_age."
        )


def _check_backfill(group: FeatureGroup) -> None:
    rules, names = group.backfill, [feature.name for feature in group.features]
    if isinstance(group.cadence, Windowless):
        if rules != Backfill(approvers=rules.approvers):
            raise DeclarationError(
                f"Group {group.name!r} is {group.kind} and declares rules for backfills. It has no past to fill; remove them."
            )
        return
    named = [*rules.proxies, *(known.feature for known in rules.known_values)]
    if unknown := sorted(set(named) - set(names)):
        raise DeclarationError(f"Group {group.name!r}: its backfill names features {unknown}; it declares {names}.")
    for known in rules.known_values:
        if set(known.keys) != set(group.entity.keys):
            raise DeclarationError(
                f"Group {group.name!r}: the known value of {known.feature!r} has keys {sorted(known.keys)}; "
                f"entity {group.entity.name!r} has {list(group.entity.keys)}."
            )
        _check_known_window(group, known.window)


def _check_known_window(group: FeatureGroup, key: str) -> None:
    if isinstance(group.cadence, Windowless):
        return
    try:
        group.cadence.window_of(key)
    except InvalidInput as error:
        raise DeclarationError(f"Group {group.name!r}: a known value names window {key!r}. {error}") from error
