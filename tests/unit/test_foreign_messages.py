"""Two registries that know a group of the same name behind one online store: nobody reads the other's messages."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from featurestore.declaration import Catalog, Entity, Feature, FeatureGroup, Source, Static, feature_group
from featurestore.declaration.dtypes import dtype_name
from featurestore.errors import InvalidInput
from featurestore.online.materialization.planning import contract_of, is_same_copy
from featurestore.online.message.codec import decode, encode
from featurestore.online.message.few import FewReader
from featurestore.online.message.integrity import are_intact
from featurestore.online.message.schema import layout_of, layouts_of
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.diff import changes, refuse_incompatible
from featurestore.registry.snapshot import RegisteredGroup, RegistrySnapshot
from tests.messages import VALUES, simple_rows
from tests.offline_rows import group_of
from tests.scale import cases, exam_seed

NAME = "carrier_facts"
SHOP = Entity("shop")
DTYPES = [dtype for dtype in VALUES if not isinstance(dtype, pl.List)]
SHOPS = Source(name="shops", schema={"shop": pl.String}, keys=("shop",))
Features = dict[str, pl.DataType]


def declared(features: Features) -> FeatureGroup:
    made = [Feature(name, dtype, f"The {name}") for name, dtype in features.items()]

    def facts(shops: pl.LazyFrame) -> pl.LazyFrame:
        """Facts of each shop."""
        return shops.select("shop", *(pl.lit(None, dtype).alias(name) for name, dtype in features.items()))

    facts.__name__ = NAME
    cadence = Static(datetime(2026, 1, 1, tzinfo=UTC))
    return feature_group(entity=SHOP, features=made, cadence=cadence, owner="team:shops")(facts)


def registered(history: Sequence[Features]) -> list[RegisteredGroup]:
    """What one registry knew after each declaration."""
    snapshot: RegistrySnapshot | None = None
    known = []
    for features in history:
        before, snapshot = snapshot, compile_snapshot(Catalog(sources=[SHOPS], groups=[declared(features)]), snapshot)
        refuse_incompatible(changes(before, snapshot))
        known.append(RegistrySnapshot.from_json(snapshot.to_json()).groups[NAME])
    return known


def random_history(chance: random.Random) -> list[Features]:
    """A group that begins with some features, and then gains and loses others."""
    dtypes = {name: chance.choice(DTYPES) for name in "abcdef"}
    current = set(chance.sample("abcdef", chance.randint(1, 4)))
    history = [current]
    for _ in range(chance.randint(0, 2)):
        current = (current | set(chance.sample("abcdef", chance.randint(0, 2)))) - set(chance.sample("abcdef", 1))
        history.append(current or {"a"})
    return [{name: dtypes[name] for name in sorted(names)} for names in history]


@dataclass(frozen=True)
class Written:
    message: bytes
    values: dict[str, Any]


def written_by(group: RegisteredGroup, *, is_deleted: bool = False) -> Written:
    values = {name: _value_of(feature.dtype) for name, feature in zip(group.feature_names, group.features, strict=True)}
    columns = {name: pl.Series([values[name]], dtype=feature.dtype) for name, feature in _by_name(group).items()}
    rows = simple_rows(1, **columns).with_columns(is_deleted=pl.lit(is_deleted))
    return Written(encode(layout_of(group), rows, schema_number=group.schema_number, fence=0)[0], values)


def _by_name(group: RegisteredGroup) -> dict[str, Any]:
    return dict(zip(group.feature_names, group.features, strict=True))


def _value_of(dtype: pl.DataType) -> Any:
    if isinstance(dtype, pl.Array):
        return [0.5] * dtype.size
    return "one" if dtype == pl.String else pl.Series([1]).cast(dtype)[0]


def is_refused(group: RegisteredGroup, message: bytes) -> bool:
    layouts = layouts_of(group)
    try:
        decode(layouts, [message])
    except InvalidInput:
        return FewReader(layouts, layout_of(group).fields).read([message]) is None
    return False


def test_every_message_of_the_other_registry_is_refused_and_every_own_one_is_read() -> None:
    seed = exam_seed()
    chance = random.Random(seed)
    for count in range(cases(3_000, 60)):
        one, other = (registered(random_history(chance)) for _ in range(2))
        if one[0].first_schema == other[0].first_schema:
            continue
        for writer in other:
            for is_deleted in (False, True):
                message = written_by(writer, is_deleted=is_deleted).message
                for reader in one:
                    assert is_refused(reader, message), (seed, count, writer, reader)
                assert not are_intact([message], one[-1].message_name).any()
        for writer in one:
            own = written_by(writer)
            assert are_intact([own.message], one[0].message_name).all()
            for reader in one:
                _assert_read(own, writer, reader)


def _assert_read(own: Written, writer: RegisteredGroup, reader: RegisteredGroup) -> None:
    """Features that both know have the value that was written, under the number that both have for it."""
    read = decode(layouts_of(reader), [own.message]).row(0, named=True)
    numbers = {feature.name: feature.number for feature in writer.features}
    for feature in reader.features:
        wanted = own.values[feature.name] if numbers.get(feature.name) == feature.number else None
        assert read[feature.name] == wanted, (feature, writer, reader)


@pytest.mark.parametrize("more", [{}, {"c": pl.Float64()}, {"c": pl.Float64(), "d": pl.String()}])
def test_numbers_of_another_dtype_are_not_read_as_ours_though_the_features_after_them_are_unknown(
    more: Features,
) -> None:
    """Before registries had names of their own, eight bytes of an integer were read as a double as soon as the counts differed."""
    (ours,), (theirs,) = registered([{"a": pl.Float64()}]), registered([{"a": pl.Int64(), **more}])
    for number in (1, 2):
        foreign = written_by(replace(theirs, schema_number=number))
        assert is_refused(ours, foreign.message)


def test_a_registry_begun_without_a_first_schema_goes_on_as_it_was() -> None:
    old = group_of({"a": pl.Float64()})
    assert (old.first_schema, old.message_name) == ("", old.name)
    (new,) = registered([{"a": pl.Float64()}])
    known = RegistrySnapshot(groups={NAME: replace(new, first_schema="")}, services={})
    again = compile_snapshot(
        Catalog(sources=[SHOPS], groups=[declared({"a": pl.Float64(), "b": pl.Int64()})]), known
    ).groups[NAME]
    assert again.first_schema == ""
    assert is_same_copy(again, contract_of(known.groups[NAME]))


def test_a_copy_that_another_registry_made_is_built_anew() -> None:
    (ours,), (theirs,) = registered([{"a": pl.Float64()}]), registered([{"b": pl.Float64()}])
    assert [dtype_name(f.dtype) for f in ours.features] == [dtype_name(f.dtype) for f in theirs.features]
    assert is_same_copy(ours, contract_of(ours))
    assert not is_same_copy(ours, contract_of(theirs))
