"""Parity: what a tier serves of some entities is what the point-in-time read of its table version gives at its instant.

Each part says up to where it is materialized (R); its keys are read from the very tier, decoded as a reader decodes them, and held
against the training read of R's table version at R's instant. Not here: Dagster, or healing what is found (a rebuild does).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from featurestore.clock import Clock
from featurestore.errors import InvalidInput
from featurestore.offline.table import FeatureTable
from featurestore.online.keys import entity_ids, online_keys
from featurestore.online.parity_rows import Compared, compare
from featurestore.online.tier import MaterializationState, Replies, Tier, TierPart

EXAMPLES = 10
TRIES = 3
READ_SECONDS = 5.0
FAILING = ("wrong", "missing")


@dataclass(frozen=True, slots=True)
class Sample:
    """Which entities are compared, of those that the table has at the copy's version.

    Args:
        entities: How many, at most.
        fraction: What share of them instead, above 0 and up to 1.
        seed: Decides which; None: another one each time, which the report says.
    """

    entities: int = 500
    fraction: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.entities < 1 or not (self.fraction is None or 0 < self.fraction <= 1):
            raise InvalidInput(
                f"A sample of {self.entities} entities or of the fraction {self.fraction} compares nothing. Give at least 1 "
                "entity, or a fraction above 0 and up to 1."
            )


@dataclass(frozen=True, slots=True)
class PartParity:
    """What was found in one part. `counts` are values (one a feature and entity) by class, `late` entities.

    | class | meaning | fails |
    |---|---|---|
    | equal | value and status are those of the point-in-time read | |
    | wrong | another value or status, an older version, a version that the table never had, or unreadable bytes | yes |
    | missing | the table has a value, the tier nothing | yes |
    | evicted | likewise in the hot tier, where the warm tier stands behind it | |
    | ahead | what the table holds since R: a push, or a step under way | |
    | online_only | of a pushed group: pushed to='online' alone | |
    | expired | the value's ttl has passed since R | |
    | unanswered | the part did not answer, or has no copy | |

    Args:
        state: R; None if the part has no copy.
        entities: How many entities of the part were compared.
        late: Of how many of them the table knows a newer value by now, which the next materialization brings.
    """

    part: str
    state: MaterializationState | None
    entities: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    late: int = 0
    examples: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Parity:
    """What a comparison of a group found, by part. Nothing to compare, as of a table without rows, has passed."""

    group: str
    seed: int
    parts: tuple[PartParity, ...]

    def count(self, *classes: str) -> int:
        """Values of some classes, in all parts."""
        return sum(part.counts.get(name, 0) for part in self.parts for name in classes)

    @property
    def passed(self) -> bool:
        """Whether nothing that was read is wrong or missing."""
        return self.count(*FAILING) == 0

    @property
    def is_complete(self) -> bool:
        """Whether every part answered for every entity asked of it."""
        return self.count("unanswered") == 0

    @property
    def examples(self) -> list[Mapping[str, Any]]:
        """At most ten differences, those that fail first."""
        found = [example for part in self.parts for example in part.examples]
        return sorted(found, key=lambda example: example["class"] not in FAILING)[:EXAMPLES]


def check_parity(table: FeatureTable, tiers: Sequence[Tier], clock: Clock, sample: Sample | None = None) -> Parity:
    """Compare sampled entities of a group in every part of some tiers with the point-in-time read.

    Args:
        table: The group's table.
        tiers: All tiers that serve the group.
        clock: Rules what has expired, and what is known, since R.
        sample: By default 500 entities.

    Raises:
        InvalidInput: a table version that a part says it is at cannot be read any more.
        StoreUnavailable: the offline store, or the list of a tier's parts, cannot be read.
    """
    asked = sample or Sample()
    seed = int(clock().timestamp() * 1e6) % 2**32 if asked.seed is None else asked.seed
    is_backed = any(tier.name == "warm" for tier in tiers)
    comparison = _Comparison(table, clock, asked, seed)
    parts = [comparison.of(tier, part, is_backed=is_backed) for tier in tiers for part in tier.parts()]
    return Parity(table.group.name, seed, tuple(parts))


class _Comparison:
    """One comparison: parts with the same R share the sample and the rows of the table."""

    def __init__(self, table: FeatureTable, clock: Clock, sample: Sample, seed: int) -> None:
        self._table, self._clock, self._sample, self._seed = table, clock, sample, seed
        self._sampled: dict[MaterializationState, pl.DataFrame] = {}

    def of(self, tier: Tier, part: TierPart, *, is_backed: bool) -> PartParity:
        """Compare a part; again if it was moved while it was read."""
        name = self._table.group.name
        for _ in range(TRIES):
            state = part.state(name)
            if state is None or state.table_id != self._table.table_id:
                return self._unbuilt(part)
            entities, replies = self._read(tier, part, state)
            if part.state(name) == state:
                kinds = ("evicted" if tier.name == "hot" and is_backed else "missing", state)
                return self._compared(part, entities, replies, *kinds)
        return self._unbuilt(part)

    def _read(self, tier: Tier, part: TierPart, state: MaterializationState) -> tuple[pl.DataFrame, Replies]:
        """The part's share of the sample, and what the tier says of it."""
        group, entities = self._table.group, self._entities(state)
        keys = online_keys(group.name, entity_ids(entities, group.key_names))
        if (mine := part.owns(keys)) is not None:
            entities = entities.filter(pl.Series(mine))
            keys = [key for key, is_mine in zip(keys, mine, strict=True) if is_mine]
        return entities, tier.read_many({group.name: keys}, timeout_seconds=READ_SECONDS)[group.name]

    def _compared(
        self, part: TierPart, entities: pl.DataFrame, replies: Replies, absent: str, state: MaterializationState
    ) -> PartParity:
        found = compare(self._table, state, entities, replies, self._clock(), absent=absent)
        counts = Counter(found.counts)
        examples = tuple({"part": part.name, **example} for example in _first(found))
        return PartParity(part.name, state, entities.height, dict(counts), found.late, examples)

    def _unbuilt(self, part: TierPart) -> PartParity:
        """Without a copy a part speaks for nobody; that is no difference, and no comparison either."""
        newest = self._table.version()
        count = 0 if newest is None else self._table.scan(newest, known_by=self._clock()).head(1).collect().height
        return PartParity(part.name, None, counts={"unanswered": count} if count else {})

    def _entities(self, state: MaterializationState) -> pl.DataFrame:
        """The sampled entities of the table at R."""
        if state not in self._sampled:
            self._sampled[state] = self._draw(state)
        return self._sampled[state]

    def _draw(self, state: MaterializationState) -> pl.DataFrame:
        group, ttl = self._table.group, self._table.group.ttl
        # Twice the ttl: values that have just expired are looked at too, and the oldest files of a long past are not.
        since = None if ttl is None else state.as_of - 2 * ttl
        known = self._table.scan(state.version, known_by=state.as_of, event_since=since)
        entities = known.select(group.key_names).unique().collect().sort(group.key_names)
        if self._sample.fraction is not None:
            return entities.sample(fraction=self._sample.fraction, seed=self._seed)
        return entities.sample(min(self._sample.entities, entities.height), seed=self._seed)


def _first(found: Compared) -> Iterator[Mapping[str, Any]]:
    """At most ten of what fails, then of the rest."""
    ordered = sorted(found.differences, key=lambda difference: difference["class"] not in FAILING)
    yield from ordered[:EXAMPLES]


def as_metadata(parity: Parity) -> dict[str, Any]:
    """A form that JSON can hold: the seed, counts by part and class, R of each part, and ten examples."""
    return {
        "seed": parity.seed,
        "parts": [
            {
                "part": part.part,
                "table_version": part.state.version if part.state else None,
                "as_of": part.state.as_of.isoformat() if part.state else None,
                "entities": part.entities,
                **part.counts,
                "late": part.late,
            }
            for part in parity.parts
        ],
        "examples": [{name: _plain(value) for name, value in example.items()} for example in parity.examples],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)
