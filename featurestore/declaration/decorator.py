"""`@feature_group`: declaring a group whose rows a transform computes."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import wraps
from typing import Literal, ParamSpec, TypeVar

from featurestore.declaration.backfill import Backfill
from featurestore.declaration.consistency import check_group
from featurestore.declaration.feature import Entity, Feature
from featurestore.declaration.group import FeatureGroup, Transform
from featurestore.declaration.online import Online
from featurestore.declaration.parts import check_parts
from featurestore.declaration.tier import Alerts, FreshnessTier, service_level
from featurestore.declaration.windows import Cadence, Hourly, Pushed, Static, Windowless
from featurestore.errors import DeclarationError

STATIC_COVERAGE = 0.9

Parts = ParamSpec("Parts")
Declared = TypeVar("Declared")


def _with_parts(declaring: Callable[Parts, Declared]) -> Callable[Parts, Declared]:
    """Refuse a decorator that stands over a function without its parts, with what to write."""

    @wraps(declaring)
    def checked(*positional: Parts.args, **named: Parts.kwargs) -> Declared:
        if positional:
            bare = getattr(positional[0], "__name__", repr(positional[0]))
            raise DeclarationError(
                f"Group {bare!r}: @feature_group takes its parts by name. Write @feature_group(entity=..., features=[...], "
                "cadence=Daily(start=date(2025, 1, 1)), lookback=timedelta(days=7), owner='team:...') over the function."
            )
        return declaring(*positional, **named)

    return checked


@_with_parts
def feature_group(
    *,
    entity: Entity,
    features: Sequence[Feature],
    owner: str,
    cadence: Cadence | None = None,
    tier: FreshnessTier | None = None,
    start: date | None = None,
    lookback: timedelta | None = None,
    emits: Literal["windows", "events"] = "windows",
    delay: timedelta = timedelta(0),
    publish: timedelta | None = None,
    freshness: timedelta | None = None,
    refresh: timedelta | None = None,
    alerts: Alerts | None = None,
    max_age: timedelta | None = None,
    online: Online | None = None,
    version: int = 1,
    min_coverage: float | None = None,
    population: str | None = None,
    backfill: Backfill | None = None,
    tags: Mapping[str, str] | None = None,
) -> Callable[[Transform], FeatureGroup]:
    """Declare a feature group: the function's name is its name, its docstring the description, its parameters the inputs.

    The function takes the window first (static groups take none) and one `pl.LazyFrame` per input, named like a
    source or a group. It returns the entity's keys and the features; an event group also `event_time`.

    Args:
        entity: What the rows are about.
        features: At least one.
        owner: 'team:...' or an e-mail address.
        cadence: `Hourly(start)`, `Daily(start)` or `Static(valid_from)`; that of the tier, if `start` is given instead.
        tier: `HOURLY`, `DAILY`, ... of `featurestore.declaration.tier`; default the one of the cadence. It decides freshness,
            refresh, alerts and the online tiers where they are not declared.
        start: First day of the tier's cadence.
        lookback: Inputs hold event times in [window.end - lookback, window.end); at least the window's length, which
            is the default for event groups. Required for windowed groups, refused for static ones.
        emits: 'windows' (one row per entity and window) or 'events' (rows with their own event time; the first input is the driver).
        delay: The transform knows what was known by window.end + delay, the cut-off.
        publish: From the cut-off to the horizon, when production serves the rows; default 5 minutes hourly, 15 daily.
        freshness: The service level (SLO): the age that the data must not reach. It must be longer than refresh + delay + publish.
        refresh: How often the group is confirmed to hold everything due; default twice within what delay and publish leave
            of its SLO.
        alerts: Whom a breach reaches: 'page', 'ticket' or 'off'.
        max_age: Values older than this are not served, offline or online; default the online ttl.
        online: `Online(ttl=...)` to serve the group online.
        version: Raised for an incompatible change; both versions live until the old one is retired.
        min_coverage: Smallest share of the entities of the previous seven windows that a window must have to be
            promoted (of its neighbours, in a full recompute for a backfill; of the last load, for a static group, where
            the default is 0.9).
        population: The input whose entities a window is to cover instead, as the transform is given it; of a windowed group
            that declares `min_coverage`.
        backfill: How far back, at what cost and from what else than its sources the group may be backfilled.
        tags: Shown in the catalogue and in Dagster.

    Raises:
        DeclarationError: the declaration contradicts itself; the message says how to mend it.
    """
    parts = dict(locals())

    def declare(function: Transform) -> FeatureGroup:
        what = f"Group {function.__name__!r}"
        check_parts(what, parts)
        chosen = _cadence(what, cadence, tier, start)
        span = _publish(chosen, publish)
        inputs = _inputs(function, isinstance(chosen, Static))
        group = FeatureGroup(
            name=function.__name__,
            description=inspect.cleandoc(function.__doc__ or ""),
            transform=function,
            inputs=inputs,
            entity=entity,
            features=tuple(features),
            cadence=chosen,
            emits=emits,
            lookback=_lookback(function.__name__, chosen, emits, lookback),
            delay=delay,
            publish=span,
            level=service_level(chosen, tier, freshness, refresh, alerts, taken=delay + span),
            max_age=_max_age(chosen, max_age, online),
            online=_online(chosen, online, tier),
            owner=owner,
            version=version,
            min_coverage=STATIC_COVERAGE if min_coverage is None and isinstance(chosen, Static) else min_coverage,
            backfill=backfill or Backfill(),
            tags=dict(tags or {}),
            population=population or "",
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


def _cadence(what: str, cadence: Cadence | None, tier: FreshnessTier | None, start: date | None) -> Cadence:
    if (cadence is None) == (start is None):
        declared = "no cadence" if cadence is None else "a cadence and a start"
        raise DeclarationError(
            f"{what} declares {declared}. A group has one cadence: cadence=Daily(start=date(2025, 1, 1)), or tier=DAILY with "
            "start=date(2025, 1, 1)."
        )
    if isinstance(cadence, Pushed):
        raise DeclarationError(
            f"{what}: a group whose rows arrive by push has no transform. Declare it with pushed_group(...)."
        )
    if cadence is not None:
        return cadence
    if tier is None or start is None:
        raise DeclarationError(f"{what}: start= goes with a tier: tier=DAILY, start=date(2025, 1, 1).")
    return tier.cadence(start)


def _online(cadence: Cadence, online: Online | None, tier: FreshnessTier | None) -> Online | None:
    if online is not None and online.tiers is None and tier is not None:
        online = replace(online, tiers=tier.online)
    is_untold = online is not None and online.ttl == Online().ttl
    return replace(online, ttl=None) if online and is_untold and isinstance(cadence, Static) else online
