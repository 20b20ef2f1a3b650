"""One part's entities side by side: the values that it serves, and those of the point-in-time read; and what a difference is.

Not here: which entities are compared, or which part they are of (`parity`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import polars as pl

from featurestore.clock import instant_of
from featurestore.declaration.dtypes import TIMESTAMP
from featurestore.frontier import latest_as_of
from featurestore.historical import joined_features
from featurestore.offline.difference import VERSION
from featurestore.offline.table import FeatureTable
from featurestore.online.message.header import write_order
from featurestore.online.message.layout import BEFORE_EVERYTHING
from featurestore.online.reading.answer import answer_of, undecodable
from featurestore.online.reading.plan import GroupPlan
from featurestore.online.tier import MaterializationState, Replies
from featurestore.pit import OUTSIDE_MAX_AGE
from featurestore.references import RequestedGroup
from featurestore.registry.snapshot import RegisteredGroup

AS_OF = "__as_of"
UNREADABLE = "unreadable"
NOTHING_KNOWN = (BEFORE_EVERYTHING,) * 3
"""The version of a tombstone that a step left where no row was known, or none that had not expired."""
Version = tuple[datetime, ...]
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """Values by class, entities that are late, and every difference as a document."""

    counts: Mapping[str, int] = field(default_factory=dict)
    late: int = 0
    differences: tuple[Mapping[str, Any], ...] = ()


def compare(
    table: FeatureTable,
    state: MaterializationState,
    entities: pl.DataFrame,
    replies: Replies,
    now: datetime,
    *,
    absent: str,
) -> Compared:
    """Hold a part's replies against the point-in-time read of its table version at its instant.

    Args:
        state: R of the part.
        entities: The keys of the entities, without nulls.
        replies: A reply an entity.
        now: What has expired by now is gone, and what is known by now may be there.
        absent: The class of a value that the part does not have: "missing" or "evicted".
    """
    if entities.is_empty():
        return Compared()
    return _Sides(table, state, entities, replies, now, absent).compared()


@dataclass(frozen=True, eq=False)
class _Sides:
    """Both sides, entity by entity."""

    table: FeatureTable
    state: MaterializationState
    entities: pl.DataFrame
    replies: Replies
    now: datetime
    absent: str

    @property
    def group(self) -> RegisteredGroup:
        return self.table.group

    @cached_property
    def wanted(self) -> RequestedGroup:
        return RequestedGroup(self.group, tuple((feature, feature.name) for feature in self.group.features))

    @cached_property
    def keys(self) -> list[Key]:
        return self.entities.rows()

    @cached_property
    def truth(self) -> pl.DataFrame:
        """The table's rows of the entities at R."""
        known = self.table.scan(self.state.version, known_by=self.state.as_of)
        return known.join(self.entities.lazy(), on=list(self.group.key_names), how="semi").collect()

    @cached_property
    def since(self) -> dict[tuple[Key, Version], dict[str, Any]]:
        """The rows of the entities that came into the table, or to be known, after R."""
        newest = self.table.version()
        rows = self.table.scan(newest, known_by=self.now).join(
            self.entities.lazy(), on=list(self.group.key_names), how="semi"
        )
        if newest == self.state.version:
            rows = rows.filter(pl.col("knowledge_time") > self.state.as_of)
        return {(_key(row, self.group), tuple(row[n] for n in VERSION)): row for row in rows.collect().to_dicts()}

    @cached_property
    def expected_versions(self) -> dict[Key, Version]:
        last = latest_as_of(self.truth, keys=list(self.group.key_names), as_of=self.state.as_of)
        return {_key(row, self.group): tuple(row[n] for n in VERSION) for row in last.to_dicts()}

    @cached_property
    def unreadable(self) -> set[int]:
        """Positions of messages that no reader could decode."""
        return set(undecodable(GroupPlan(self.wanted), self.replies.messages))

    def _answer(self, replies: Replies) -> tuple[list[pl.Series], list[pl.Series]]:
        """Values and statuses as a reader at R's instant gets them."""
        answer = answer_of(GroupPlan(self.wanted), replies, self.state.as_of)
        return answer.values(), answer.statuses()

    def compared(self) -> Compared:
        messages = [None if at in self.unreadable else message for at, message in enumerate(self.replies.messages)]
        values, statuses = self._answer(replace(self.replies, messages=messages))
        spine = self.entities.with_columns(pl.lit(self.state.as_of).cast(TIMESTAMP).alias(AS_OF))
        joined = joined_features(self.truth, spine, self.wanted, AS_OF)
        counts: Counter[str] = Counter()
        found = []
        for index, name in enumerate(self.group.feature_names):
            served, truth = (values[index], statuses[index]), (joined.values[index], joined.statuses[index])
            differing = self._differing(served, truth)
            counts["equal"] += len(self.keys) - len(differing)
            found += [self._difference(at, name, _at(served, at), _at(truth, at)) for at in differing]
        counts.update(difference["class"] for difference in found)
        told = tuple(difference for difference in found if difference["class"] not in ("equal", "expired"))
        return Compared(dict(counts), self._late(), told)

    def _differing(self, served: tuple[pl.Series, pl.Series], truth: tuple[pl.Series, pl.Series]) -> list[int]:
        values = _equal(served[0], truth[0])
        statuses = served[1].cast(pl.String) == truth[1].cast(pl.String)
        differing = set((~(values & statuses)).arg_true().to_list())
        return sorted(differing | self.unreadable | set(self.replies.unanswered))

    def _difference(self, at: int, feature: str, served: tuple[Any, str], truth: tuple[Any, str]) -> dict[str, Any]:
        expected = self.expected_versions.get(self.keys[at])
        version = UNREADABLE if at in self.unreadable else self._version(at)
        return {
            "class": self._class(at, feature, served[0], truth[1], version, expected),
            "entity": dict(zip(self.group.key_names, self.keys[at], strict=True)),
            "feature": feature,
            "online": {"value": served[0], "status": served[1], "version": _spelled(version)},
            "offline": {"value": truth[0], "status": truth[1], "version": _spelled(expected)},
            "table_version": self.state.version,
            "as_of": self.state.as_of,
        }

    def _class(
        self, at: int, feature: str, value: Any, status: str, version: Version | str | None, expected: Version | None
    ) -> str:
        if at in self.replies.unanswered:
            return "unanswered"
        if version is None:
            return self._class_of_absence(status, expected)
        if version == NOTHING_KNOWN:
            found = self._class_of_absence(status, expected)
            return "wrong" if found == self.absent else found
        if isinstance(version, str) or (expected is not None and version <= expected):
            return "wrong"
        row = self.since.get((self.keys[at], version))
        if row is None:
            return "online_only" if self.group.kind == "pushed" else "wrong"
        return "ahead" if _is_same(row[feature], value) else "wrong"

    def _class_of_absence(self, status: str, expected: Version | None) -> str:
        """Past its ttl a value is gone online, where offline still says that it is too old."""
        ttl = self.group.ttl
        if expected is None or ttl is None:
            return self.absent
        if status == OUTSIDE_MAX_AGE and self.state.as_of - expected[0] > ttl:
            return "equal"
        return "expired" if self.now - expected[0] > ttl else self.absent

    def _version(self, at: int) -> Version | None:
        message = self.replies.messages[at]
        return None if message is None else tuple(map(instant_of, write_order(message)[1]))

    def _late(self) -> int:
        """Entities of which a newer row is known by now than the part serves."""
        newest: dict[Key, Version] = {}
        for key, version in self.since:
            if self.group.ttl is not None and self.now - version[0] > self.group.ttl:
                continue
            newest[key] = max(version, newest.get(key, version))
        places = {key: at for at, key in enumerate(self.keys)}
        readable = [key for key in newest if places[key] not in self.replies.unanswered | self.unreadable]
        return sum(newest[key] > (self._version(places[key]) or ()) for key in readable)


def _key(row: Mapping[str, Any], group: RegisteredGroup) -> Key:
    return tuple(row[name] for name in group.key_names)


def _at(side: Sequence[pl.Series], at: int) -> tuple[Any, str]:
    value = side[0][at]
    return value.to_list() if isinstance(value, pl.Series) else value, str(side[1][at])


def _equal(served: pl.Series, truth: pl.Series) -> pl.Series:
    if served.dtype.is_nested():
        return pl.Series(list(map(_is_same, served.to_list(), truth.to_list())), dtype=pl.Boolean)
    return served.eq_missing(truth)


def _is_same(left: Any, right: Any) -> bool:
    """Equality under which NaN equals NaN, inside lists too."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_is_same, left, right))
    return bool(left == right) or (left != left and right != right)


def _spelled(version: Version | str | None) -> Any:
    return [instant.isoformat() for instant in version] if isinstance(version, tuple) else version
