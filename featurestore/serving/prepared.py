"""A request made ready once for all that ask the same: its groups, keys and columns, checked. And whose entities they are.

After this nothing a client did can fail a read, so that many clients' entities can be read together.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

import msgspec
import polars as pl

from featurestore.auth.caller import ANYONE, Caller, Rights
from featurestore.errors import StoreUnavailable, UnknownName
from featurestore.frames import Rows
from featurestore.freshness.on_read import Bounds, judge_all
from featurestore.freshness.read_state import Freshness
from featurestore.online.reading.retrieval import OnlineFeatures
from featurestore.references import RequestedGroup, resolve
from featurestore.registry.snapshot import RegisteredGroup
from featurestore.serving.refusal import Refusal
from featurestore.store import FeatureStore

ONE_BY_ONE = "-"
"""What metrics call requests that name no service: the set of their names must stay small."""
_TYPES: dict[pl.DataType, type] = {pl.String(): str, pl.Boolean(): bool, pl.Date(): str}
_DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,18}")
_LAST_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class KeyKind:
    """What JSON values a key takes.

    Args:
        dtype: The key's.
        types: Of Python, of those values; null names no entity.
        limit: Of whole numbers, from -limit to below it; 0 for others.
        is_date: Whether the text is a date.
    """

    dtype: pl.DataType
    types: frozenset[type]
    limit: int
    is_date: bool

    @classmethod
    def of(cls, dtype: pl.DataType) -> "KeyKind":
        wanted = int if dtype.is_integer() else _TYPES[dtype]
        limit = 0 if wanted is not int else 2**31 if dtype == pl.Int32() else 2**63
        return cls(dtype, frozenset((wanted, type(None))), limit, dtype == pl.Date())


@dataclass(frozen=True, eq=False)
class PreparedRead:
    """Features asked of one state of the registry.

    Args:
        store: Reads them.
        request: A service's name, or references.
        full_feature_names: As asked.
        requested: The groups in the order of the answer, with their features.
        keys: Every key column that is needed, with its dtype.
        serves_old: Whether values beyond their max_age are given too.
        allowed: Rights that were found to allow this.
        heads: The first bytes of JSON bodies, by the order of keys and whether versions are told.
    """

    store: FeatureStore
    request: str | tuple[str, ...]
    full_feature_names: bool
    requested: Sequence[RequestedGroup]
    keys: Mapping[str, pl.DataType]
    serves_old: bool = False
    allowed: set[Rights] = field(default_factory=set)
    heads: dict[tuple[tuple[str, ...], bool], bytes] = field(default_factory=dict)

    @property
    def service(self) -> str:
        return self.request if isinstance(self.request, str) else ONE_BY_ONE

    @cached_property
    def key_kinds(self) -> dict[str, KeyKind]:
        return {name: KeyKind.of(dtype) for name, dtype in self.keys.items()}

    @cached_property
    def columns(self) -> list[tuple[str, pl.DataType]]:
        """Name and dtype of every feature, in the order of the answer."""
        return [(column, feature.dtype) for wanted in self.requested for feature, column in wanted.features]

    @property
    def groups(self) -> list[RegisteredGroup]:
        return [wanted.group for wanted in self.requested]

    @cached_property
    def _freshness_bounds(self) -> list[Bounds]:
        return [Bounds.of(group) for group in self.groups]

    def freshness(self) -> Freshness:
        """How fresh the groups are by what is known now: of a request that the store has not answered."""
        return judge_all(self._freshness_bounds, self.store.online.known_freshness, self.store.clock())

    def read(self, rows: Rows, timeout_seconds: float | None = None) -> OnlineFeatures:
        """The newest values of some entities; `FeatureStore.get_online_features` has the rules."""
        request = self.request if isinstance(self.request, str) else list(self.request)
        return self.store.get_online_features(
            request,
            rows,
            full_feature_names=self.full_feature_names,
            timeout_seconds=timeout_seconds,
            freshness="stale_ok" if self.serves_old else "degrade",
        )

    def require(self, caller: Caller) -> None:
        """Refuse a caller who may not read this.

        Raises:
            NotAllowed: some feature is not allowed.
        """
        if caller.rights not in self.allowed:
            caller.require_features(self.requested, self.store.registry.services)
            self.allowed.add(caller.rights)


def prepare(
    store: FeatureStore,
    request: str | tuple[str, ...],
    caller: Caller = ANYONE,
    *,
    full_feature_names: bool,
    serves_old: bool = False,
) -> PreparedRead:
    """Resolve what is asked, for all callers. Touches no store.

    Args:
        caller: Who asks first: told of what is registered no more than it may read.

    Raises:
        UnknownName: a group, feature or service is not registered.
        InvalidInput: nothing is asked, or names collide.
    """
    asked = request if isinstance(request, str) else list(request)
    try:
        requested = resolve(store.registry, asked, full_feature_names=full_feature_names)
    except UnknownName:
        resolve(caller.seen_of(store.registry, "read"), asked, full_feature_names=full_feature_names)
        raise
    keys = {name: dtype for wanted in requested for name, dtype in wanted.group.key_schema.items()}
    return PreparedRead(store, request, full_feature_names, requested, keys, serves_old)


def check(prepared: PreparedRead) -> None:
    """Read what is asked for no entities: whatever the library would refuse later, it refuses here.

    Raises:
        InvalidInput: a group is not served online, or a feature has a key's name.
        SchemaMismatch: two groups have a key of one name and different dtypes.
    """
    nobody = pl.DataFrame(schema=dict(prepared.keys))
    with suppress(StoreUnavailable):  # then the request is right, and its values are not there at the moment
        prepared.read(nobody)


@dataclass(slots=True)
class Entities:
    """The entities of one request.

    Args:
        keys: Values of each key column, in the order the client gave them, as it gave them.
        typed: The same as the store takes them: dates are dates.
        count: How many there are.
    """

    keys: dict[str, list[Any]]
    typed: dict[str, list[Any]]
    count: int


def take_entities(given: Mapping[str, list[Any]], keys: Mapping[str, KeyKind]) -> Entities:
    """The entities of a request's body. Columns that are no keys are passed over, as Feast does.

    Raises:
        Refusal: 422, columns differ in length, a key is missing, or a value is of another type than its key.
    """
    counts = set(map(len, given.values()))
    if len(counts) > 1:
        sizes = {name: len(values) for name, values in given.items()}
        raise Refusal(422, "InvalidInput", f"Columns of 'entities' must be of one length; they have {sizes}.")
    if missing := [name for name in keys if name not in given]:
        raise Refusal(
            422,
            "InvalidInput",
            f"These features are found by {list(keys)}; 'entities' has {list(given)}. Add {missing}.",
        )
    own = {name: _fitting(name, values, keys[name]) for name, values in given.items() if name in keys}
    typed = {name: _dates(name, values) if keys[name].is_date else values for name, values in own.items()}
    return Entities(own, typed, counts.pop())


def _fitting(name: str, values: list[Any], kind: KeyKind) -> list[Any]:
    """Values of the key's type; whole numbers also of clients that write them as text or as floats: Feast takes those too."""
    if not set(map(type, values)) <= kind.types:
        values = [whole_number(value) for value in values] if kind.limit else values
        given = set(map(type, values))
        if given - kind.types:
            said = "dates, such as '2026-03-01'" if kind.is_date else f"JSON values for {kind.dtype}"
            kinds = sorted(one.__name__ for one in given)
            raise Refusal(422, "SchemaMismatch", f"Key {name!r} is {kinds}; it takes {said}, or null for no entity.")
    if kind.limit:
        _check_range(name, values, kind)
    return values


def whole_number(value: Any) -> Any:
    """The number that is meant; the value itself if that is not certain."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LAST_EXACT:
        return int(value)
    return value


def _check_range(name: str, values: list[int | None], kind: KeyKind) -> None:
    numbers = [value for value in values if value is not None]
    if numbers and not (-kind.limit <= min(numbers) and max(numbers) < kind.limit):
        said = f"Key {name!r} is {kind.dtype}; it has values from {min(numbers)} to {max(numbers)}."
        raise Refusal(422, "SchemaMismatch", said)


def _dates(name: str, values: list[str | None]) -> list[date | None]:
    return [None if value is None else _date(name, value) for value in values]


def _date(name: str, value: str) -> date:
    try:
        return msgspec.convert(value, date)
    except msgspec.ValidationError as error:
        said = f"Key {name!r} has {value[:40]!r}; it takes dates, such as '2026-03-01'."
        raise Refusal(422, "SchemaMismatch", said) from error
