"""The parity of tiers with the point-in-time read: what it calls equal, and that it finds whatever was brought in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import InvalidInput
from featurestore.online.materialization.materialize import materialize
from featurestore.online.memory import MemoryTier
from featurestore.online.message.encode import encode
from featurestore.online.message.schema import layout_of
from featurestore.online.parity import Parity, Sample, as_metadata, check_parity
from featurestore.online.tier import Tier
from tests.clicks import GROUP, HOUR, MINUTE, NOW, SECOND, TTL, Clicks, row
from tests.scale import cases

RIDERS = [f"r{number:02}" for number in range(20)]
VALUES = 4
"""Features of the group."""


class Served(Clicks):
    """Twenty riders, materialized at `NOW`; half of them with an older row too."""

    def __init__(self, folder: Path, *tiers: str, parts: int = 1) -> None:
        super().__init__(folder, tiers=[])
        self.tiers = [_tier(name, self, parts) for name in tiers or ("hot",)]
        self.push(*(row(rider, NOW - HOUR, clicks=1) for rider in RIDERS[::2]))
        self.push(*(row(rider, NOW - MINUTE, clicks=2, score=float("nan")) for rider in RIDERS))
        self.move()

    def move(self) -> None:
        materialize(self.table, self.parts, self.clock)

    @property
    def parts(self) -> list[Any]:
        return [part for tier in self.tiers for part in tier.parts()]

    def compared(self, **sample: Any) -> Parity:
        return check_parity(self.table, self.tiers, self.clock, Sample(**sample))

    def messages(self, part: Any) -> dict[bytes, Any]:
        """What a part holds, to be tampered with."""
        entries: dict[bytes, Any] = part._copies[GROUP].entries
        return entries

    def tamper(self, rider: str, change: Callable[[bytes], bytes], part: int = 0) -> None:
        entry = self.messages(self.parts[part])[f"{GROUP}:{rider}".encode()]
        entry.message = change(entry.message)

    def message(self, rider: str, **values: Any) -> bytes:
        """The message of a rider's newest row, with other values."""
        rows = self.table.scan().filter(pl.col("rider") == rider).sort("event_time").tail(1).collect()
        changed = rows.with_columns(pl.lit(value).cast(rows.schema[name]).alias(name) for name, value in values.items())
        (made,) = encode(layout_of(self.table.group), changed, schema_number=1, fence=0)
        return made


def _tier(name: str, world: Clicks, parts: int) -> Tier:
    return MemoryTier("warm" if name == "warm" else "hot", world.clock, parts=parts)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def kinds(found: Parity) -> dict[str, int]:
    return {name: found.count(name) for part in found.parts for name in part.counts if found.count(name)}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("tiers", [("hot",), ("warm",), ("warm", "hot")])
def test_healthy_copies_are_equal_in_every_tier_and_part(tmp_path: Path, tiers: tuple[str, ...], parts: int) -> None:
    world = Served(tmp_path, *tiers, parts=parts)
    found = world.compared()
    assert (found.passed, found.is_complete) == (True, True)
    assert kinds(found) == {"equal": len(RIDERS) * VALUES * len(tiers)}
    assert [part.part for part in found.parts] == [part.name for part in world.parts]
    assert sum(part.entities for part in found.parts) == len(RIDERS) * len(tiers)


def test_table_without_rows_has_nothing_to_compare(tmp_path: Path) -> None:
    world = Clicks(tmp_path)
    found = check_parity(world.table, world.tiers, world.clock)
    assert (found.passed, found.is_complete, found.examples) == (True, True, [])


def test_corrupted_value_is_wrong_and_shown(served: Served) -> None:
    served.tamper("r03", lambda _: served.message("r03", clicks=77))
    found = served.compared()
    assert not found.passed
    assert kinds(found) == {"equal": len(RIDERS) * VALUES - 1, "wrong": 1}
    (example,) = found.examples
    version = [(NOW - MINUTE).isoformat(), NOW.isoformat(), example["online"]["version"][2]]
    assert example == {
        "part": "hot memory 0",
        "class": "wrong",
        "entity": {"rider": "r03"},
        "feature": "clicks",
        "online": {"value": 77, "status": "PRESENT", "version": version},
        "offline": {"value": 2, "status": "PRESENT", "version": version},
        "table_version": 2,
        "as_of": NOW,
    }


def test_null_where_the_table_has_a_value_is_wrong(served: Served) -> None:
    served.tamper("r03", lambda _: served.message("r03", page=None))
    assert kinds(served.compared())["wrong"] == 1


def test_nan_is_no_zero(served: Served) -> None:
    served.tamper("r03", lambda _: served.message("r03", score=0.0))
    assert kinds(served.compared())["wrong"] == 1


def test_changed_vector_is_wrong(served: Served) -> None:
    served.tamper("r03", lambda _: served.message("r03", taste=[1.0, 3.0]))
    (example,) = served.compared().examples
    assert (example["feature"], example["online"]["value"]) == ("taste", [1.0, 3.0])


def test_stale_value_is_wrong(served: Served) -> None:
    old = served.table.scan().filter(pl.col("clicks") == 1, pl.col("rider") == "r04").collect()
    (message,) = encode(layout_of(served.table.group), old, schema_number=1, fence=0)
    served.tamper("r04", lambda _: message)
    found = served.compared()
    # score and clicks differ between the rows, page and taste do not.
    assert kinds(found) == {"equal": len(RIDERS) * VALUES - 2, "wrong": 2}
    assert {example["online"]["version"][0] for example in found.examples} == {(NOW - HOUR).isoformat()}


def test_version_that_the_table_never_had_is_wrong_in_a_computed_group(served: Served) -> None:
    later = {"event_time": NOW, "clicks": 50}
    served.tamper("r03", lambda _: served.message("r03", **later))
    assert kinds(served.compared())["online_only"] == 1
    object.__setattr__(served.table.group, "kind", "events")
    assert kinds(served.compared())["wrong"] == 1


def test_missing_key_is_missing(served: Served) -> None:
    served.parts[0].evict([f"{GROUP}:r07".encode()])
    found = served.compared()
    assert not found.passed
    assert kinds(found) == {"equal": (len(RIDERS) - 1) * VALUES, "missing": VALUES}
    assert found.examples[0]["online"] == {"value": None, "status": "NOT_FOUND", "version": None}


def test_key_evicted_from_the_hot_tier_fails_nothing_where_the_warm_one_has_it(tmp_path: Path) -> None:
    world = Served(tmp_path, "warm", "hot")
    warm, hot = world.parts
    hot.evict([f"{GROUP}:r07".encode()])
    found = world.compared()
    assert found.passed
    assert kinds(found)["evicted"] == VALUES
    warm.evict([f"{GROUP}:r07".encode()])
    assert not world.compared().passed


@pytest.mark.parametrize("change", [lambda message: message[:40], lambda message: message + b"\xff", lambda _: b"junk"])
def test_bytes_that_nobody_can_read_are_wrong(served: Served, change: Callable[[bytes], bytes]) -> None:
    served.tamper("r05", change)
    found = served.compared()
    assert kinds(found) == {"equal": (len(RIDERS) - 1) * VALUES, "wrong": VALUES}
    assert found.examples[0]["online"]["version"] == "unreadable"


def test_part_that_does_not_answer_is_no_difference_and_no_comparison(tmp_path: Path) -> None:
    world = Served(tmp_path, parts=3)
    world.parts[1].lose_everything()
    found = world.compared()
    assert (found.passed, found.is_complete) == (True, False)
    assert found.parts[1].state is None


def test_push_since_the_last_step_is_ahead(served: Served) -> None:
    served.set_clock.now += SECOND
    served.push(row("r01", served.clock(), clicks=40), row("r02", served.clock() - 2 * HOUR, clicks=41))
    found = served.compared()
    assert found.passed
    assert kinds(found)["ahead"] == 2
    served.tamper("r01", lambda _: served.message("r01", clicks=41))
    assert kinds(served.compared())["wrong"] == 1


def test_push_that_went_to_the_table_alone_is_late(served: Served) -> None:
    served.set_clock.now += SECOND
    served.push(row("r01", served.clock(), clicks=40), to="offline")
    found = served.compared()
    assert found.passed
    assert [part.late for part in found.parts] == [1]
    served.move()
    assert [part.late for part in served.compared().parts] == [0]


def test_value_whose_ttl_has_passed_since_the_step_is_not_missed(served: Served) -> None:
    served.set_clock.now += TTL
    found = served.compared()
    assert found.passed
    assert kinds(found) == {"expired": len(RIDERS) * VALUES}


def test_value_past_its_max_age_is_told_apart_from_one_that_is_gone(served: Served) -> None:
    served.set_clock.now = NOW + 4 * HOUR
    served.move()
    assert kinds(served.compared()) == {"equal": len(RIDERS) * VALUES}
    served.parts[0].evict([f"{GROUP}:r07".encode()])
    assert kinds(served.compared())["missing"] == VALUES
    served.set_clock.now = NOW + TTL
    served.move()
    assert kinds(served.compared()) == {"equal": len(RIDERS) * VALUES}


def test_tombstone_is_equal_to_nothing(tmp_path: Path) -> None:
    world = Served(tmp_path)
    rows = world.stored.filter(pl.col("rider") == "r01").with_columns(is_deleted=pl.lit(True))
    (tombstone,) = encode(layout_of(world.table.group), rows.tail(1), schema_number=1, fence=0)
    world.tamper("r01", lambda _: tombstone)
    assert kinds(world.compared())["wrong"] == VALUES


def test_sample_is_drawn_by_its_seed_and_says_it(served: Served) -> None:
    served.tamper("r03", lambda _: served.message("r03", clicks=77))
    found = [served.compared(entities=8, seed=seed) for seed in range(10)]
    assert [served.compared(entities=8, seed=seed) for seed in range(10)] == found
    assert {part.entities for one in found for part in one.parts} == {8}
    assert {one.passed for one in found} == {True, False}
    assert [one.seed for one in found] == list(range(10))
    assert served.compared(fraction=0.5).parts[0].entities == 10


@pytest.mark.parametrize("sample", [{"entities": 0}, {"fraction": 0.0}, {"fraction": 1.5}])
def test_sample_of_nothing_is_refused(sample: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="compares nothing"):
        Sample(**sample)


def test_step_taken_while_the_part_is_read_is_compared_again(served: Served) -> None:
    tier = served.tiers[0]
    read_many, moves = tier.read_many, list[bool]()

    def moved(keys: Any, **other: Any) -> Any:
        if not moves:
            moves.append(True)
            served.set_clock.now += MINUTE
            served.push(row("r01", served.clock(), clicks=9))
            served.move()
        return read_many(keys, **other)

    tier.read_many = moved  # type: ignore[method-assign, assignment]
    found = served.compared()
    assert kinds(found) == {"equal": len(RIDERS) * VALUES}
    assert found.parts[0].state is not None
    assert found.parts[0].state.version == 3


def test_metadata_can_be_written_as_json(served: Served) -> None:
    import json

    served.tamper("r03", lambda _: served.message("r03", clicks=77))
    told = json.loads(json.dumps(as_metadata(served.compared(seed=4))))
    assert told["seed"] == 4
    assert told["parts"][0]["wrong"] == 1
    assert told["examples"][0]["as_of"] == NOW.isoformat()


changes: dict[str, dict[str, Any]] = {
    "clicks": {"clicks": 500},
    "score": {"score": 2.5},
    "page": {"page": "elsewhere"},
    "older": {"event_time": NOW - 3 * HOUR, "clicks": 7},
    "gone": {},
}


@settings(max_examples=cases(200, 6), deadline=None)
@given(st.dictionaries(st.sampled_from(RIDERS), st.sampled_from(sorted(changes)), max_size=6), st.integers(1, 3))
def test_every_tampered_entity_is_found_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, tampered: dict[str, str], parts: int
) -> None:
    world = Served(tmp_path_factory.mktemp("world"), parts=parts)
    owner = {key: part for part in world.parts for key in world.messages(part)}
    for rider, change in tampered.items():
        key = f"{GROUP}:{rider}".encode()
        if change == "gone":
            owner[key].evict([key])
        else:
            world.messages(owner[key])[key].message = world.message(rider, **changes[change])
    found = world.compared()
    assert found.passed == (not tampered)
    wrong = {rider for rider, change in tampered.items() if change != "gone"}
    assert found.count("missing") == VALUES * (len(tampered) - len(wrong))
    assert found.count("wrong") == len(wrong)
    assert {example["entity"]["rider"] for example in found.examples} <= set(tampered)
