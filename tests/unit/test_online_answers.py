"""What an online read answers, against a brute force of it: Google's parser, row by row, and the rules in plain Python.

Also the two ways of reading, few rows and batches, against each other on bytes that are wrong.
"""

import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.declaration.dtypes import dtype_name
from featurestore.errors import InvalidInput
from featurestore.online.keys import entity_id
from featurestore.online.message.codec import MessageLayout, WireField, decode, encode, proto_text
from featurestore.online.message.decode import Decoder
from featurestore.online.message.few import FewReader
from featurestore.online.message.layout import FENCE_SLICE, HEADER_AT
from featurestore.online.reading.answer import FEW_ROWS
from featurestore.online.reading.plan import ReadPlan, read_plan
from featurestore.online.reading.retrieval import ONLINE_STATUS, TIER, OnlineFeatures, read_features
from featurestore.online.tier import Replies
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup, RegistrySnapshot
from tests.messages import (
    NOW,
    TIMESTAMP,
    VALUES,
    frame_of,
    google_value,
    layouts,
    max_length_of,
    message_class,
    rows_of,
    same,
    sealed_by_google,
    value_in,
)
from tests.scale import cases, exam_seed

SCHEMA_NUMBER = 3
MICROSECOND = timedelta(microseconds=1)
KEY_VALUES: dict[str, list[Any]] = {
    "string": ["a", "b|c", "ø", "", None],
    "int64": [0, -7, 2**63 - 1, None],
    "int32": [5, -(2**31), None],
    "bool": [True, False, None],
    "date": [date(1969, 7, 20), date(2026, 2, 28), None],
}
SPANS = st.none() | st.integers(0, 10 * 86_400_000_000)
Cell = tuple[Any, str, int | None, str | None]
"""A value, its status, its event time and its tier."""


@dataclass
class World:
    """A registry, what is stored under each key, and what a reader asks when."""

    registry: RegistrySnapshot
    stored: dict[bytes, bytes]
    down: set[bytes]
    warm: set[bytes]
    rows: list[dict[str, Any]]
    now: datetime

    @property
    def references(self) -> list[str]:
        return [f"{group.name}:{name}" for group in self.registry.groups.values() for name in group.feature_names]

    @property
    def plan(self) -> ReadPlan:
        return read_plan(self.registry, self.references, True)

    def read_many(self, keys_by_group: Mapping[str, Sequence[bytes]]) -> dict[str, Replies]:
        return {group: self._replies(keys) for group, keys in keys_by_group.items()}

    def _replies(self, keys: Sequence[bytes]) -> Replies:
        messages = [self.stored.get(key) for key in keys]
        down = frozenset(i for i, key in enumerate(keys) if key in self.down and messages[i] is None)
        return Replies(messages, down, frozenset(i for i, key in enumerate(keys) if key in self.warm))

    def read(self, rows: Any) -> OnlineFeatures:
        return read_features(self.plan, rows, self.read_many, lambda: self.now)

    def expected(self, group: RegisteredGroup, feature: RegisteredFeature, row: dict[str, Any]) -> Cell:
        """The law, for one value."""
        keys = [row[name] for name in group.key_names]
        if None in keys:
            return None, "NOT_FOUND", None, None
        key = f"{group.name}:{entity_id(keys)}".encode()
        message = self.stored.get(key)
        if message is None:
            return None, "UNAVAILABLE" if key in self.down else "NOT_FOUND", None, None
        parsed, tier = google_of(group).FromString(message), "warm" if key in self.warm else "hot"
        age = google_value(self.now) - parsed.event_time
        if parsed.is_deleted or (group.ttl_us is not None and age > group.ttl_us):
            return None, "NOT_FOUND", None, tier
        if group.max_age_us is not None and age > group.max_age_us:
            return None, "OUTSIDE_MAX_AGE", parsed.event_time, tier
        if parsed.schema_number < feature.since:
            return None, "NOT_FOUND", None, tier
        value = value_in(parsed, layout_of(group).field(feature.name))
        return value, "NULL_VALUE" if value is None else "PRESENT", parsed.event_time, tier


def layout_of(group: RegisteredGroup) -> MessageLayout:
    return read_plan(RegistrySnapshot({group.name: group}, {}), [f"{group.name}:f0"], False).groups[0].layouts[3]


def google_of(group: RegisteredGroup) -> Any:
    return message_class("G", proto_text("g", layout_of(group)))


def group_of(name: str, layout: MessageLayout, keys: dict[str, str], **other: Any) -> RegisteredGroup:
    features = tuple(
        RegisteredFeature(field.name, dtype_name(field.dtype), field.number, field.since, max_length=field.max_length)
        for field in layout.fields
    )
    return RegisteredGroup(
        name=name, version=1, kind="events", cadence="hourly", start="2026-03-01T00:00:00+00:00", entity="thing",
        keys=tuple(keys.items()), features=features, schema_number=SCHEMA_NUMBER, retired_numbers=(), retired_columns=(),
        inputs=(), delay_us=0, publish_us=0, lookback_us=0, freshness_us=None, is_online=True, min_coverage=None,
        owner="team:tests", description="", **{"max_age_us": None, "ttl_us": None, **other},
    )  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> World:
    keys = draw(st.lists(st.sampled_from(list(KEY_VALUES)), min_size=1, max_size=3, unique=True))
    stored, down, warm, groups, instants = {}, set(), set(), {}, [NOW]
    row_count = draw(st.sampled_from([1, 2, FEW_ROWS, FEW_ROWS + 1, 40]))
    pool = st.fixed_dictionaries({f"k{i}": st.sampled_from(KEY_VALUES[kind]) for i, kind in enumerate(keys)})
    rows = draw(st.lists(pool, min_size=row_count, max_size=row_count))
    for number in range(draw(st.integers(1, 2))):
        own = draw(st.integers(1, len(keys)))
        layout = draw(layouts().filter(lambda one: len(one.fields) > 0))
        group = group_of(
            f"g{number}", layout, {f"k{i}": keys[i] for i in range(own)}, max_age_us=draw(SPANS), ttl_us=draw(SPANS)
        )
        groups[group.name] = group
        values = draw(rows_of(layout).filter(bool))
        layout = layout_of(group)
        messages = encode(layout, frame_of(layout, values), schema_number=SCHEMA_NUMBER, fence=0)
        if draw(st.integers(0, 3)) == 0:
            messages = [sealed_by_google(layout, google_of(group).FromString(message)) for message in messages]
        instants += [one["event_time"] for one in values]
        instants += [t + timedelta(microseconds=us) for t in instants for us in (group.max_age_us, group.ttl_us) if us]
        for row in rows:
            entity = [row[name] for name in group.key_names]
            if None in entity:
                continue
            key, where = f"{group.name}:{entity_id(entity)}".encode(), draw(st.integers(0, 9))
            if where == 0:
                down.add(key)
            elif where > 1:
                stored[key] = draw(st.sampled_from(messages))
                warm |= {key} if where > 7 else set()
    now = draw(st.sampled_from(instants)) + draw(st.sampled_from([-MICROSECOND, 0 * MICROSECOND, MICROSECOND]))
    return World(RegistrySnapshot(groups, {}), stored, down, warm, rows, now)


SETTINGS = settings(
    max_examples=cases(4_000, 40),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@SETTINGS
@given(world=worlds(), form=st.sampled_from(["dicts", "lists", "frame"]))
def test_every_value_status_time_and_tier_is_what_the_rules_give_row_by_row(world: World, form: str) -> None:
    schema = {name: pl.Date if type(value) is date else None for name, value in world.rows[0].items()}
    lists = {name: [row[name] for row in world.rows] for name in schema}
    given: Any = {"dicts": world.rows, "lists": lists, "frame": pl.DataFrame(lists)}[form]
    answer = world.read(given)
    columns = {column.name: column for column in answer.feature_columns()}
    expected_columns = []
    for group in world.registry.groups.values():
        for feature in group.features:
            name = f"{group.name}__{feature.name}"
            expected_columns.append(name)
            cells = [world.expected(group, feature, row) for row in world.rows]
            assert_same_column(columns[name], cells)
            assert_same_series(answer, name, feature.dtype, cells)
    assert list(columns) == expected_columns == answer.statuses.columns == answer.event_times.columns
    assert answer.frame.columns == [*lists, *expected_columns]
    assert answer.to_dict().keys() == answer.frame.to_dict().keys()
    assert all(same(answer.to_dict()[name], answer.frame[name].to_list()) for name in answer.frame.columns)
    assert answer.frame.select(list(lists)).equals(pl.DataFrame(lists))


def assert_same_column(column: Any, cells: list[Cell]) -> None:
    for found, cell in zip(
        zip(column.values, column.statuses, column.event_times, column.tiers, strict=True), cells, strict=True
    ):
        assert same(google_value(found[0]), cell[0]), (column.name, found, cell)
        assert found[1:] == cell[1:], column.name


def assert_same_series(answer: OnlineFeatures, name: str, dtype: pl.DataType, cells: list[Cell]) -> None:
    assert answer.frame.schema[name] == dtype
    assert (answer.statuses.schema[name], answer.tiers.schema[name]) == (ONLINE_STATUS, TIER)
    assert answer.event_times.schema[name] == TIMESTAMP
    found = (
        [google_value(value) for value in answer.frame[name].to_list()],
        answer.statuses[name].to_list(),
        answer.event_times[name].to_physical().to_list(),
        answer.tiers[name].to_list(),
    )
    for part, wanted in zip(found, zip(*cells, strict=True), strict=True):
        assert all(same(one, other) for one, other in zip(part, wanted, strict=True)), name


@pytest.mark.parametrize("count", [1, FEW_ROWS, FEW_ROWS + 1, 300])
@pytest.mark.parametrize(("limit", "status"), [("max_age_us", "OUTSIDE_MAX_AGE"), ("ttl_us", "NOT_FOUND")])
def test_one_row_past_its_age_among_many_is_found_out(count: int, limit: str, status: str) -> None:
    layout = MessageLayout((WireField(32, "f0", pl.Int64()),), "g0")
    group = group_of("g0", layout, {"k0": "int64"}, **{limit: 10})
    rows: list[dict[str, Any]] = [
        {**dict.fromkeys(("event_time", "knowledge_time", "created_at"), NOW), "is_deleted": False, "f0": number}
        for number in range(count)
    ]
    rows[-1]["event_time"] = NOW - MICROSECOND
    messages = encode(layout, frame_of(layout, [{**row, "schema_number": 3} for row in rows]), schema_number=3, fence=0)
    stored = {b"g0:%d" % number: message for number, message in enumerate(messages)}
    asked = [{"k0": number} for number in range(count)]
    world = World(RegistrySnapshot({"g0": group}, {}), stored, set(), set(), asked, NOW + 9 * MICROSECOND)
    for now, last in ((world.now, "PRESENT"), (world.now + MICROSECOND, status)):
        world.now = now
        answer = world.read(asked)
        wanted = ["PRESENT"] * (count - 1) + [last]
        assert answer.feature_columns()[0].statuses == answer.statuses["g0__f0"].to_list() == wanted


@pytest.mark.parametrize("count", [1, FEW_ROWS, FEW_ROWS + 1, 300])
def test_a_message_that_cannot_be_decoded_is_unavailable_and_nobody_else_suffers(count: int) -> None:
    layout = MessageLayout((WireField(32, "f0", pl.Int64()), WireField(33, "f1", pl.String())))
    groups = {name: group_of(name, layout, {"k0": "int64"}) for name in ("g0", "g1")}
    rows: list[dict[str, Any]] = [
        {**dict.fromkeys(("event_time", "knowledge_time", "created_at"), NOW), "is_deleted": False, "f0": n, "f1": "é"}
        for n in range(count)
    ]
    frame = frame_of(layout, [{**row, "schema_number": 3} for row in rows])
    written = {name: encode(replace(layout, group=name), frame, schema_number=3, fence=0) for name in groups}
    stored = {b"%s:%d" % (name.encode(), n): one for name in groups for n, one in enumerate(written[name])}
    dated = bytearray(written["g0"][1 % count])
    dated[HEADER_AT["event_time"] + 7] ^= (
        0x40  # of the year 148,000 and something, which neither JSON nor Polars can show
    )
    torn = {0: b"", 1 % count: bytes(dated), count // 2: written["g0"][0][:70], count - 1: written["g1"][-1]}
    stored |= {b"g0:%d" % n: one for n, one in torn.items()}
    asked = [{"k0": n} for n in range(count)]
    answer = World(RegistrySnapshot(groups, {}), stored, set(), set(), asked, NOW).read(asked)
    for name in ("f0", "f1"):
        wanted = ["UNAVAILABLE" if n in torn else "PRESENT" for n in range(count)]
        assert answer.statuses[f"g0__{name}"].to_list() == wanted
        assert set(answer.statuses[f"g1__{name}"]) == {"PRESENT"}
    assert answer.frame["g0__f0"].to_list() == [None if n in torn else n for n in range(count)]
    assert answer.frame["g1__f0"].to_list() == list(range(count))
    what = "1 message is" if len(torn) == 1 else f"{len(torn)} messages are each"
    assert answer.causes == {"g0": f"{what} not a message of g0 as it was written; rebuild its online copy"}


@SETTINGS
@given(data=st.data())
def test_few_rows_and_batches_read_alike_or_leave_it_to_the_batch(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    rows = data.draw(rows_of(layout))
    messages: list[bytes | None] = [*encode(layout, frame_of(layout, rows), schema_number=3, fence=0), None]
    by_number = layout.by_schema_number(3)
    few = FewReader(by_number, layout.fields).read(messages)
    assert few is not None, "what we wrote is canonical"
    whole = decode(by_number, messages)
    for row, found in zip(few, whole.to_dicts(), strict=True):
        assert (row is not None) == found["found"]
        if row is not None:
            assert row[:3] == (found["schema_number"], google_value(found["event_time"]), found["is_deleted"])
            for field, stored in zip(layout.fields, row[3:], strict=True):
                assert same(plain(field, stored), google_value(found[field.name])), field


@pytest.mark.parametrize("is_canonical", [True, False], ids=["ours", "googles"])
def test_wrong_bytes_give_an_error_and_never_a_value(is_canonical: bool) -> None:
    seed = exam_seed()
    chance = random.Random(seed)
    for count in range(cases(50_000, 1_000) // 50):
        world = fuzz_world(chance, is_canonical)
        for _ in range(50):
            assert_never_wrong(world, chance, f"seed {seed}, layout {count}")


@dataclass
class FuzzWorld:
    """A layout with good messages of it and of another group, and Google's parser."""

    layout: MessageLayout
    messages: list[bytes]
    foreign: list[bytes]
    google: Any
    decoder: Decoder
    few: FewReader


def fuzz_world(chance: random.Random, is_canonical: bool) -> FuzzWorld:
    layout, messages = fuzz_messages(chance, "g")
    google = message_class("G", proto_text("g", layout))
    if not is_canonical:
        messages = [sealed_by_google(layout, google.FromString(message)) for message in messages]
    by_number = layout.by_schema_number(3)
    _, foreign = fuzz_messages(chance, "other")
    return FuzzWorld(
        layout, messages, foreign, google, Decoder(by_number, layout.fields), FewReader(by_number, layout.fields)
    )


def fuzz_messages(chance: random.Random, group: str) -> tuple[MessageLayout, list[bytes]]:
    numbers = chance.sample(range(32, 60), chance.randint(1, 8))
    fields = [
        WireField(number, f"f{number}", dtype, max_length_of(dtype), since=chance.randint(1, 3))
        for number, dtype in ((number, chance.choice(list(VALUES))) for number in numbers)
    ]
    layout = MessageLayout(tuple(fields), group)
    rows = [fuzz_row(chance, layout) for _ in range(4)]
    return layout, encode(layout, frame_of(layout, rows), schema_number=3, fence=chance.randrange(2**40))


def fuzz_row(chance: random.Random, layout: MessageLayout) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(("event_time", "knowledge_time", "created_at"), NOW)
    row |= {"is_deleted": chance.random() < 0.1, "schema_number": chance.choice([1, 2, 3, 3, 3])}
    return row | {field.name: fuzz_value(chance, field.dtype) for field in layout.fields}


def fuzz_value(chance: random.Random, dtype: pl.DataType) -> Any:
    if chance.random() < 0.2:
        return None
    if isinstance(dtype, pl.Array):
        return [chance.randint(-9, 9) / 2 for _ in range(dtype.shape[0])]
    if isinstance(dtype, pl.List):
        return [fuzz_scalar(chance, dtype.inner) for _ in range(chance.randint(0, 4))]
    return fuzz_scalar(chance, dtype)


def fuzz_scalar(chance: random.Random, dtype: Any) -> Any:
    number = chance.choice([0, 1, 127, 128, 16_384, chance.randrange(2**31)]) * chance.choice([1, -1])
    made: dict[Any, Any] = {
        pl.Boolean(): number > 0,
        pl.String(): "aé🥪 "[: chance.randint(0, 4)] * chance.randint(0, 3),
        pl.Date(): date(1970, 1, 1) + timedelta(days=number % 40_000),
        TIMESTAMP: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        pl.Float64(): number / 4,
        pl.Float32(): float(number % 1000),
    }
    return made.get(dtype() if isinstance(dtype, type) else dtype, number)


def broken(chance: random.Random, world: FuzzWorld) -> bytes:
    """A message with something wrong."""
    message = bytearray(chance.choice(world.messages))
    at = chance.randrange(len(message))
    match chance.randrange(7):
        case 0:
            del message[at:]
        case 1 | 2:
            for _ in range(chance.randint(1, 3)):
                message[chance.randrange(len(message))] ^= 1 << chance.randrange(8)
        case 3:
            message[at] = chance.choice([chance.randrange(256), message[at] | 0x80])
        case 4:
            message[at:at] = chance.randbytes(chance.randint(1, 12))
        case 5:
            return chance.choice(world.foreign)
        case 6:
            other = chance.choice(world.foreign + world.messages)
            message[at:] = other[chance.choice([at, chance.randrange(len(other))]) :]
    return bytes(message)


def assert_never_wrong(world: FuzzWorld, chance: random.Random, where: str) -> None:
    message = broken(chance, world)
    place = chance.randrange(3)
    messages = [world.messages[0], world.messages[-1]]
    messages.insert(place, message)
    few = world.few.read([message])
    try:
        found = world.decoder.read(messages)
    except InvalidInput as refusal:
        said = str(refusal)
        assert f"position {place}" in said, (where, said)
        assert few is None, (where, message)
        return
    assert without_fence(message) in map(without_fence, world.messages), (where, message)
    parsed = world.google.FromString(message)
    numbers = {"schema_number": parsed.schema_number, "event_time": parsed.event_time, "fence": parsed.fence}
    assert {name: int(found.header[name][place]) for name in numbers} == numbers, (where, message)
    assert bool(found.header["is_deleted"][place]) == parsed.is_deleted, (where, message)
    for index, field in enumerate(world.layout.fields):
        wanted, read = value_in(parsed, field), physical(found.columns[index].to_series(None)[place : place + 1])
        assert same(read, wanted), (where, message, field, read, wanted)
        if few is not None and few[0] is not None:
            assert same(plain(field, few[0][3 + index]), wanted), (where, message, field, few[0])


def without_fence(message: bytes) -> bytes:
    return message[: FENCE_SLICE.start] + message[FENCE_SLICE.stop :]


def plain(field: WireField, stored: Any) -> Any:
    """A value as `few` gives it, as Google's parser does."""
    if stored is None or not (field.is_vector or field.dtype == pl.Boolean):
        return stored
    return list(struct.unpack(f"<{field.width}f", stored)) if field.is_vector else bool(stored)


def physical(one: pl.Series) -> Any:
    """The value of a Series of one; days and microseconds as numbers, since not every one is a date."""
    return one.to_physical().to_list()[0] if one.dtype in (pl.Date, TIMESTAMP) else one.to_list()[0]
