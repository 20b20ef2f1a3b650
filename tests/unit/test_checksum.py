"""The checksum: what it is made of, what it must show, and that no message that was changed is read."""

import hashlib
import itertools
import random
import struct
from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore.errors import InvalidInput
from featurestore.online.materialization.planning import contract_of, is_same_copy
from featurestore.online.message.checksum import BODY_START, base_of, sum_of, sums_of_messages, sums_of_rows, weights
from featurestore.online.message.codec import MessageLayout, WireField, decode, encode, proto_text
from featurestore.online.message.few import FewReader
from featurestore.online.message.integrity import are_intact, sealed
from featurestore.online.message.layout import FENCE_SLICE, HEADER_AT
from tests.messages import (
    NOW,
    TIMESTAMP,
    VALUES,
    frame_of,
    max_length_of,
    message_class,
    sealed_by_google,
    simple_rows,
)
from tests.scale import cases, exam_seed
from tests.unit.test_online_answers import group_of

FIRST_WEIGHTS = [16294208410971956419, 7960286520797903131, 487617020057297349]
FIRST_BASE = 120395671559893942
BASE = base_of("carrier_delay_daily", ((32, "float64"),))
FULL: dict[Any, Any] = {
    pl.Float64(): 1.5, pl.Float32(): 2.5, pl.Int64(): -7, pl.Int32(): 9, pl.Boolean(): True, pl.String(): "té",
    pl.Date(): NOW.date(), TIMESTAMP: NOW, pl.List(pl.Int64): [1, 2], pl.List(pl.Float64): [1.0], pl.List(pl.String): ["a", "b"],
    pl.Array(pl.Float32, 3): [1.0, 2.0, 3.0], pl.Array(pl.Float32, 40): [0.5] * 40,
}  # fmt: skip
SCALARS = [dtype for dtype in VALUES if not dtype.is_nested() and dtype != pl.String]
KINDS = {"no features": [], "numbers": SCALARS, "vectors": [pl.Array(pl.Float32, 3)], "every kind": list(VALUES)}


def by_hand(message: bytes, base: int) -> int:
    """The definition, a word at a time."""
    body = message[BODY_START:]
    size, body = len(body), body + bytes(-len(body) % 4)
    own = weights(0, 2 + len(body) // 4).tolist()
    words = [int.from_bytes(body[at : at + 4], "little") for at in range(0, len(body), 4)]
    total: int = base + own[1] * size + sum(a * b for a, b in zip(own[2:], words, strict=True))
    return total % 2**64


def test_all_ways_to_sum_up_give_what_the_definition_says() -> None:
    chance = random.Random(exam_seed())
    for _ in range(cases(2_000, 40)):
        size, count = chance.randint(BODY_START, 300), chance.choice([1, 3, 300])
        rows = [chance.randbytes(size) for _ in range(count)]
        wanted = [by_hand(row, BASE) for row in rows]
        assert [sum_of(row, BASE) for row in rows] == wanted
        matrix = np.frombuffer(b"".join(rows), np.uint8).reshape(count, size)
        assert sums_of_rows(matrix, BASE).tolist() == wanted
        uneven = [row + chance.randbytes(chance.choice([0, 0, 1, 2, 3, 4, 50])) for row in rows]
        ends = np.cumsum([len(row) for row in uneven])
        starts = ends - [len(row) for row in uneven]
        heads = np.ascontiguousarray(matrix[:, : chance.randint(BODY_START, size)])
        found = sums_of_messages(b"".join(uneven) + bytes(4), starts, ends, heads, BASE)
        assert found.tolist() == [by_hand(row, BASE) for row in uneven]


def test_a_message_longer_than_the_weights_that_are_kept_is_summed_up_alike() -> None:
    message = random.Random(1).randbytes(40_003)
    heads = np.frombuffer(message[:64], np.uint8).reshape(1, 64)
    found = sums_of_messages(message + bytes(4), np.array([0]), np.array([len(message)]), heads, BASE)
    assert sum_of(message, BASE) == by_hand(message, BASE) == found[0]


def test_weights_are_odd_and_no_two_are_equal_up_to_their_sign_in_their_lowest_33_bits() -> None:
    """What the proofs in the module's docstring rest on; the mix being one to one, it holds for all of them."""
    own = weights(0, cases(10_000_000, 200_000))
    lowest = own & np.uint64(2**33 - 1)
    assert (own & np.uint64(1)).all()
    assert (lowest < 2**32).all(), "so that none is another's negative"
    assert np.unique(lowest).size == own.size


def test_weights_are_the_same_for_ever() -> None:
    """Stored messages depend on them."""
    assert weights(0, 3).tolist() == weights(0, 9).tolist()[:3] == FIRST_WEIGHTS
    assert base_of("g", ()) == FIRST_BASE


def test_every_flipped_bit_and_every_pair_of_them_changes_the_sum() -> None:
    """Exhaustive over 32 words: by how much a flip moves the sum depends on its place and its direction only."""
    moves = [(int(w) << bit) % 2**64 for w in weights(2, 32) for bit in range(32)]
    both = set(moves) | {-move % 2**64 for move in moves}
    assert 0 not in both
    assert len(both) == 2 * len(moves), "else two flips could move the sum as far up as down"


def test_every_burst_of_up_to_32_bits_changes_the_sum() -> None:
    chance = random.Random(exam_seed())
    for _ in range(cases(1_000_000, 5_000)):
        message = chance.randbytes(80)
        at, burst = chance.randrange(8 * BODY_START, 8 * 80 - 32), chance.randrange(1, 2**32)
        changed = (int.from_bytes(message, "little") ^ burst << at).to_bytes(80, "little")
        assert sum_of(changed, BASE) != sum_of(message, BASE), (message, at, burst)


def test_zeros_at_the_end_change_the_sum() -> None:
    for size in range(BODY_START, 60):
        sums = {sum_of(b"x" * size + bytes(more), BASE) for more in range(50)}
        assert len(sums) == 50


def layout_of(dtypes: list[Any], group: str = "g") -> MessageLayout:
    fields = [WireField(32 + i, f"f{i}", dtype, max_length_of(dtype)) for i, dtype in enumerate(dtypes)]
    return MessageLayout(tuple(fields), group)


def written(layout: MessageLayout, *, with_nulls: bool = False, schema_number: int = 1) -> bytes:
    row: dict[str, Any] = dict.fromkeys(("event_time", "knowledge_time", "created_at"), NOW)
    row |= {"is_deleted": False, "schema_number": schema_number}
    row |= {f.name: None if with_nulls and i % 2 else FULL[f.dtype] for i, f in enumerate(layout.fields)}
    return encode(layout, frame_of(layout, [row]), schema_number=schema_number, fence=6)[0]


def refuse(layouts: dict[int, MessageLayout], message: bytes) -> None:
    """Nobody reads it."""
    newest = layouts[max(layouts)]
    good = written(newest.at(min(layouts)))
    assert FewReader(layouts, newest.fields).read([message]) is None
    assert FewReader(layouts, newest.fields).read([good] * 4 + [message]) is None
    with pytest.raises(InvalidInput, match=r"position 1\b.*not a message of this group as it was written"):
        decode(layouts, [good, message])


def flipped(message: bytes, bit: int) -> bytes:
    changed = bytearray(message)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def bits_of(message: bytes, share: int) -> range:
    """All bits in the exam, every so many in the gate; the fence's value is left out."""
    step = 1 if cases(1_000, 1) >= 1_000 else share
    return range(0, 8 * len(message), step)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_nulls", [False, True], ids=["whole", "with nulls"])
@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "googles"])
def test_a_message_with_one_flipped_bit_is_read_by_nobody(kind: str, with_nulls: bool, is_ours: bool) -> None:
    layout = layout_of(KINDS[kind])
    message = written(layout, with_nulls=with_nulls)
    if not is_ours:
        message = sealed_by_google(layout, message_class("G", proto_text("g", layout)).FromString(message))
    assert decode({1: layout}, [message])["found"].all()
    fence = range(8 * FENCE_SLICE.start, 8 * FENCE_SLICE.stop)
    every = [flipped(message, bit) for bit in range(8 * len(message)) if bit not in fence]
    assert not are_intact(every, "g").any()
    for bit in bits_of(message, 61):
        if bit not in fence:
            refuse({1: layout}, flipped(message, bit))


def test_a_flipped_bit_of_the_fence_changes_the_fence_and_nothing_that_is_served() -> None:
    """It may keep writers out until a rebuild, or let one in that a rewind had fenced off; no read shows another value."""
    layout = layout_of(list(VALUES))
    message = written(layout)
    good = decode({1: layout}, [message]).drop("fence")
    for bit in range(8 * FENCE_SLICE.start, 8 * FENCE_SLICE.stop):
        changed = decode({1: layout}, [flipped(message, bit)])
        assert changed.drop("fence").equals(good, null_equal=True)
        assert changed["fence"].item() != 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_another_group_is_read_by_nobody(kind: str) -> None:
    message = written(layout_of(KINDS[kind], "other"))
    refuse({1: layout_of(KINDS[kind])}, message)
    assert are_intact([message, written(layout_of(KINDS[kind]))], "g").tolist() == [False, True]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ([pl.Float64()], [pl.Int64()]),
        ([pl.Int64()], [TIMESTAMP]),
        ([pl.Float32()], [pl.Date()]),
        ([pl.Int32()], [pl.Float32()]),
        ([pl.Float64(), pl.Int64()], [pl.Int64(), pl.Float64()]),
        ([pl.Array(pl.Float32, 3)], [pl.String()]),
        ([pl.List(pl.Int64)], [pl.List(pl.Float64)]),
        ([pl.List(pl.String)], [pl.String()]),
    ],
)
def test_a_message_of_other_dtypes_under_the_same_numbers_is_read_by_nobody(theirs: list[Any], ours: list[Any]) -> None:
    """Each of them takes the same bytes on the wire, or Protobuf's parser would read it as the other."""
    for with_nulls in (False, True):
        refuse({1: layout_of(ours)}, written(layout_of(theirs), with_nulls=with_nulls))


def test_two_messages_spliced_anywhere_are_read_by_nobody() -> None:
    layout = layout_of([pl.Float64(), pl.Int64(), pl.String()])
    texts = ["abc", "xyz"]
    rows = simple_rows(2, f0=[1.0, 2.0], f1=[3, 4], f2=texts)
    one, other = encode(layout, rows, schema_number=1, fence=0)
    for at in range(HEADER_AT["message_checksum"], len(one)):
        message = one[:at] + other[at:]
        if message not in (one, other) and message[10:] not in (one[10:], other[10:]):
            refuse({1: layout}, message)


def test_a_newer_schema_is_verified_by_an_older_reader_and_an_older_one_by_a_newer() -> None:
    newest = MessageLayout((WireField(32, "a", pl.Int64()), WireField(33, "b", pl.String(), since=2)), "g")
    row = simple_rows(1, a=[7], b=["x"])
    new = encode(newest, row, schema_number=2, fence=0)[0]
    old = encode(newest, row.with_columns(schema_number=1), schema_number=2, fence=0)[0]
    without_a = MessageLayout((newest.fields[1],), "g")
    assert decode({1: newest.at(1)}, [new])["a"].to_list() == [7]
    assert decode(newest.by_schema_number(2), [new, old])["a"].to_list() == [7, 7]
    assert decode(without_a.by_schema_number(2), [new])["b"].to_list() == ["x"], "though feature a is no more"
    for layouts in ({1: newest.at(1)}, without_a.by_schema_number(2)):
        for bit in range(8 * FENCE_SLICE.stop, 8 * len(new)):
            with pytest.raises(InvalidInput, match="as it was written"):
                decode(layouts, [flipped(new, bit)])


def test_google_reads_the_checksum_that_we_wrote() -> None:
    layout = layout_of([pl.Float64()])
    message = written(layout)
    parsed = message_class("G", proto_text("g", layout)).FromString(message)
    assert parsed.message_checksum == sum_of(message, layout.base)
    parsed.f0 = 7.0
    refuse({1: layout}, parsed.SerializeToString())


@pytest.mark.parametrize(
    ("dtype", "value"), [(TIMESTAMP, 2**62), (TIMESTAMP, -(2**62)), (pl.Date(), 2**31 - 1), (pl.Date(), -(2**31))]
)
def test_what_no_calendar_shows_is_neither_written_nor_read(dtype: Any, value: int) -> None:
    layout, numbers = layout_of([dtype]), layout_of([pl.Int64() if dtype == TIMESTAMP else pl.Int32()])
    column = pl.Series([value], dtype=numbers.fields[0].dtype)
    with pytest.raises(InvalidInput, match="'f0' is not of the years 1 to 9999 in 1 of 1 rows"):
        encode(layout, simple_rows(1, f0=column.cast(dtype)), schema_number=1, fence=0)
    message = sealed(encode(numbers, simple_rows(1, f0=column), schema_number=1, fence=0)[0], layout.base)
    assert FewReader({1: layout}, layout.fields).read([message]) is None
    with pytest.raises(InvalidInput, match=r"position 1: 'f0' is .* beyond the years 1 to 9999"):
        decode({1: layout}, [written(layout), message])


@pytest.mark.parametrize("name", ["event_time", "knowledge_time", "created_at"])
def test_a_row_of_no_calendars_year_is_neither_written_nor_read(name: str) -> None:
    layout = layout_of([pl.Float64()])
    rows = simple_rows(1, f0=[1.0])
    with pytest.raises(InvalidInput, match=f"'{name}' is not of the years 1 to 9999"):
        encode(layout, rows.with_columns(pl.Series(name, [2**62]).cast(TIMESTAMP)), schema_number=1, fence=0)
    message = bytearray(written(layout))
    message[HEADER_AT[name] : HEADER_AT[name] + 8] = (2**62).to_bytes(8, "little")
    forged = sealed(bytes(message), layout.base)
    assert FewReader({1: layout}, layout.fields).read([forged]) is None
    with pytest.raises(InvalidInput, match=f"position 0: '{name}' is"):
        decode({1: layout}, [forged])


def test_a_message_of_the_format_before_is_read_by_nobody_and_its_copy_built_anew() -> None:
    layout = layout_of([pl.Float64()], "g0")
    values, last = [1, *3 * [1_772_366_400_000_000], 0], b"\xa8\x01\x81\x00\xb0\x01\x00"
    tags = [number << 3 & 0x7F | kind | 0x80 | 1 << 8 for number, kind in ((16, 5), (17, 1), (18, 1), (19, 1), (20, 1))]
    header = struct.pack("<HiHqHqHqHq", *itertools.chain(*zip(tags, values, strict=True))) + last
    before = header + struct.pack("<Hd", layout.fields[0].tag, 7.5)
    assert len(before) == 63
    refuse({1: layout}, before)
    assert not are_intact([before], "g0").any()
    group = group_of("g0", layout, {"k0": "int64"})
    stated = f"{group.ttl_us}/{group.max_age_us}/{[(32, 'float64')]}"
    assert is_same_copy(group, contract_of(group))
    assert not is_same_copy(group, f"3/{hashlib.sha256(stated.encode()).hexdigest()[:16]}")


def test_random_damage_of_messages_of_every_kind_is_never_read_as_another_message() -> None:
    seed = exam_seed()
    chance = random.Random(seed)
    dtypes = list(VALUES)
    for count in range(cases(4_000, 40)):
        layout = layout_of(chance.choices(dtypes, k=chance.randint(0, 8)))
        message = written(layout, with_nulls=chance.random() < 0.5)
        for _ in range(25):
            changed = damaged(chance, message)
            if changed[: FENCE_SLICE.start] + changed[FENCE_SLICE.stop :] != without_fence(message):
                assert is_refused(layout, changed), (seed, count, changed)


def is_refused(layout: MessageLayout, message: bytes) -> bool:
    try:
        decode({1: layout}, [message])
    except InvalidInput:
        return FewReader({1: layout}, layout.fields).read([message]) is None
    return False


def without_fence(message: bytes) -> bytes:
    return message[: FENCE_SLICE.start] + message[FENCE_SLICE.stop :]


def damaged(chance: random.Random, message: bytes) -> bytes:
    """Bytes changed, left out, put in or moved."""
    changed, at = bytearray(message), chance.randrange(len(message))
    match chance.randrange(5):
        case 0:
            del changed[at:]
        case 1:
            for _ in range(chance.randint(1, 9)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
        case 2:
            for _ in range(chance.randint(1, 4)):
                changed[4 * chance.randrange(len(changed) // 4) + 3] ^= 0x80
        case 3:
            changed[at:at] = chance.choice([bytes(4), chance.randbytes(chance.randint(1, 12))])
        case 4:
            to = chance.randrange(len(message))
            changed[at : at + 10], changed[to : to + 10] = changed[to : to + 10], changed[at : at + 10]
    return bytes(changed)
