"""The online message: round trips, Google's parser in both directions, and nothing wrong from bytes that are wrong."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import DeclarationError, InvalidInput, SchemaMismatch, UnknownName
from featurestore.online.message.codec import MessageLayout, WireField, decode, encode, proto_text
from featurestore.online.message.integrity import sealed
from featurestore.online.message.layout import HEADER_SIZE
from tests.messages import (
    NOW,
    TIMESTAMP,
    VALUES,
    expected_value,
    frame_of,
    google_value,
    layouts,
    max_length_of,
    message_class,
    rows_of,
    same,
    sealed_by_google,
    set_in,
    simple_rows,
    value_in,
)
from tests.scale import cases

SETTINGS = settings(
    max_examples=cases(5_000, 100),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def assert_decoded(layout: MessageLayout, decoded: pl.DataFrame, rows: list[dict[str, Any]], fence: int) -> None:
    assert decoded.schema == {**decoded.schema, **{field.name: field.dtype for field in layout.fields}}
    for found, row in zip(decoded.to_dicts(), rows, strict=True):
        assert found["found"]
        assert found["fence"] == fence
        for name in ("event_time", "knowledge_time", "created_at", "is_deleted", "schema_number"):
            assert found[name] == row[name]
        for field in layout.fields:
            assert same(found[field.name], expected_value(field, row)), (field, found[field.name], row[field.name])


@SETTINGS
@given(data=st.data())
def test_every_value_comes_back_as_it_was_written(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    rows = data.draw(rows_of(layout))
    fence = data.draw(st.integers(0, 2**40))
    messages = encode(layout, frame_of(layout, rows), schema_number=3, fence=fence)
    assert_decoded(layout, decode(layout.by_schema_number(3), messages), rows, fence)


@SETTINGS
@given(data=st.data())
def test_missing_replies_leave_the_others_where_they_are(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    rows = data.draw(rows_of(layout))
    messages = encode(layout, frame_of(layout, rows), schema_number=3, fence=1)
    replies: list[bytes | None] = []
    for message in messages:
        replies += [None] * data.draw(st.integers(0, 2)) + [message]
    decoded = decode(layout.by_schema_number(3), replies)
    assert decoded["found"].to_list() == [reply is not None for reply in replies]
    missed = decoded.filter(~pl.col("found")).drop("found")
    assert all(column.null_count() == missed.height for column in missed)
    assert_decoded(layout, decoded.filter("found"), rows, 1)


@SETTINGS
@given(data=st.data())
def test_googles_parser_reads_what_we_write_and_we_read_what_it_writes(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    rows = data.draw(rows_of(layout))
    google = message_class("G", proto_text("g", layout))
    again = []
    for message, row in zip(encode(layout, frame_of(layout, rows), schema_number=3, fence=9), rows, strict=True):
        parsed = google.FromString(message)
        assert parsed.fence == 9
        assert parsed.is_deleted == row["is_deleted"]
        assert parsed.event_time == google_value(row["event_time"])
        for field in layout.fields:
            expected = expected_value(field, row)
            assert same(value_in(parsed, field), google_value(expected)), field
        again.append(sealed_by_google(layout, parsed))
    assert_decoded(layout, decode(layout.by_schema_number(3), again), rows, 9)


@SETTINGS
@given(data=st.data())
def test_a_message_built_by_google_alone_decodes(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    rows = data.draw(rows_of(layout))
    google = message_class("G", proto_text("g", layout))
    messages = []
    for row in rows:
        message = google(fence=4, is_deleted=row["is_deleted"], schema_number=row["schema_number"])
        for name in ("event_time", "knowledge_time", "created_at"):
            setattr(message, name, google_value(row[name]))
        for field in layout.fields:
            set_in(message, field, expected_value(field, row))
        messages.append(sealed_by_google(layout, message))
    assert_decoded(layout, decode(layout.by_schema_number(3), messages), rows, 4)


@SETTINGS
@given(data=st.data())
def test_a_message_cut_short_anywhere_is_refused_by_position(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    rows = data.draw(rows_of(layout).filter(bool))
    messages = encode(layout, frame_of(layout, rows), schema_number=3, fence=0)
    if data.draw(st.booleans()):
        google = message_class("G", proto_text("g", layout))
        messages = [sealed_by_google(layout, google.FromString(message)) for message in messages]
    position = data.draw(st.integers(0, len(messages) - 1))
    cut = data.draw(st.integers(0, len(messages[position]) - 1))
    messages[position] = messages[position][:cut]
    with pytest.raises(InvalidInput, match=rf"position {position}\b"):
        decode(layout.by_schema_number(3), messages)


def test_a_message_cut_between_any_two_fields_is_not_taken_for_a_shorter_one() -> None:
    layout = MessageLayout(
        tuple(WireField(32 + i, f"f{i}", dtype, max_length_of(dtype)) for i, dtype in enumerate(VALUES))
    )
    row = {field.name: None for field in layout.fields[::3]}
    full: dict[Any, Any] = {pl.Boolean(): True, pl.String(): "text", pl.Date(): NOW.date(), TIMESTAMP: NOW}
    full |= {pl.List(pl.Int64): [1], pl.List(pl.Float64): [1.0], pl.List(pl.String): ["a", "b"]}
    full |= {pl.Array(pl.Float32, 3): [1.0] * 3, pl.Array(pl.Float32, 40): [1.0] * 40}
    columns = {
        field.name: pl.Series([None if field.name in row else full.get(field.dtype, 1)], dtype=field.dtype)
        for field in layout.fields
    }
    ours = encode(layout, simple_rows(1, **columns), schema_number=1, fence=0)[0]
    theirs = sealed_by_google(layout, message_class("G", proto_text("g", layout)).FromString(ours))
    for message in (ours, theirs):
        assert decode({1: layout}, [message])["found"].all()
        for cut in range(len(message)):
            with pytest.raises(InvalidInput, match="position 0"):
                decode({1: layout}, [message[:cut]])


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"\x98\x81\x80\x80\x80\x00\x00", "tag or a length"),  # six bytes of tag
        (b"\x80\x80\x80\x80\x10\x00", "tag or a length"),  # a tag of 33 bits
        (b"\x9a\x01\x80\x80\x80\x80\x08", "tag or a length"),  # a length of 2**31
        (b"\x98\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "longer than 64 bits"),
        (b"\x00\x00", "field number 0"),
        (b"\x9b\x01\x9c\x01", "wire type 3"),
    ],
)
def test_what_no_parser_reads_is_refused_though_no_field_of_ours_is_in_it(tail: bytes, said: str) -> None:
    layout = MessageLayout((WireField(32, "x", pl.Int64()),))
    message = encode(layout, simple_rows(1, x=[1]), schema_number=1, fence=0)[0]
    with pytest.raises(InvalidInput, match=said):
        decode({1: layout}, [sealed(message + tail, layout.base)])


def test_packed_pieces_that_are_whole_only_together_are_refused() -> None:
    strings = MessageLayout((WireField(32, "x", pl.List(pl.String), 5),))
    numbers = MessageLayout((WireField(32, "x", pl.List(pl.Float64), 5),))
    rows = simple_rows(1, x=pl.Series([["a" * 9, "b" * 7]]))
    message = encode(strings, rows, schema_number=1, fence=0)[0]
    with pytest.raises(InvalidInput, match="holds 2 values of 8 bytes"):
        decode({1: numbers}, [sealed(message, numbers.base)])


@pytest.mark.parametrize(
    ("dtype", "pieces", "said"),
    [
        (pl.String(), [b"\xc3", b"good"], "not UTF-8"),
        (pl.List(pl.String), [b"\x0a\x05ab", b"\x0a\x01c"], "needs 5 bytes"),
        (pl.List(pl.String), [b"\x0a\x01\xc3", b"\x0a\x01c"], "not UTF-8"),
        (pl.List(pl.Int64), [b"\x0a\x08" + bytes(4), bytes(4)], "needs 8 bytes"),
    ],
)
def test_a_field_given_twice_is_refused_unless_each_of_them_is_whole(
    dtype: pl.DataType, pieces: list[bytes], said: str
) -> None:
    """Though only the last string counts, and lists are joined: other parsers refuse the message."""

    def message_of(contents: list[bytes]) -> bytes:
        message = header + b"".join(b"\x82\x02" + bytes([len(one)]) + one for one in contents)
        return sealed(message, layout.base)

    layout = MessageLayout((WireField(32, "a", dtype, max_length_of(dtype)), WireField(33, "b", pl.Int64())))
    good = encode(layout, simple_rows(1, a=pl.Series([None], dtype=dtype), b=[1]), schema_number=1, fence=0)[0]
    header = good[:HEADER_SIZE]
    google = message_class("Twice", proto_text("Twice", layout))
    with pytest.raises(DecodeError):
        google.FromString(message_of(pieces))
    with pytest.raises(InvalidInput, match=said):
        decode({1: layout}, [good, message_of(pieces)])
    whole = message_of([pieces[-1], pieces[-1]] if dtype != pl.List(pl.Int64) else [b"\x0a\x08" + bytes(8)] * 2)
    assert decode({1: layout}, [whole])["a"].to_list() == [value_in(google.FromString(whole), layout.field("a"))]


def test_strings_that_are_utf8_only_together_are_refused_by_position() -> None:
    layout = MessageLayout((WireField(32, "a", pl.String()), WireField(33, "b", pl.String())))
    good = encode(layout, simple_rows(3, a=["é", "é", ""], b=["x", None, "ü"]), schema_number=1, fence=0)
    assert decode({1: layout}, good)["a"].to_list() == ["é", "é", ""]
    torn = sealed(good[1].replace("é".encode(), b"x\xc3"), layout.base)
    with pytest.raises(InvalidInput, match="position 1: 'a'"):
        decode({1: layout}, [good[0], torn, good[2]])


def test_large_batches_read_as_small_ones_do() -> None:
    layout = MessageLayout(
        (WireField(32, "x", pl.Float64()), WireField(33, "s", pl.String()), WireField(34, "l", pl.List(pl.Int64), 3))
    )
    count = 9000
    rows = simple_rows(
        count,
        x=[None if i % 7 == 0 else i / 3 for i in range(count)],
        s=[None if i % 5 == 0 else f"é{i}" * (i % 3) for i in range(count)],
        l=pl.Series([None if i % 11 == 0 else list(range(i % 4)) for i in range(count)], dtype=pl.List(pl.Int64)),
    )
    messages = encode(layout, rows, schema_number=1, fence=0)
    whole = decode({1: layout}, messages)
    assert whole.select("x", "s", "l").equals(rows.select("x", "s", "l"))
    assert whole.equals(pl.concat([decode({1: layout}, messages[at : at + 100]) for at in range(0, count, 100)]))


def test_floats_keep_every_bit() -> None:
    bits = np.array([0x7FF8000000000001, 0xFFF80000DEADBEEF, 0x8000000000000000, 0x7FF0000000000000, 1], np.uint64)
    layout = MessageLayout((WireField(32, "x", pl.Float64()), WireField(33, "l", pl.List(pl.Float64), 5)))
    floats = pl.Series(bits.view(np.float64))
    rows = simple_rows(5, x=floats, l=pl.Series([floats] * 5))
    decoded = decode({1: layout}, encode(layout, rows, schema_number=1, fence=0))
    assert decoded["x"].to_numpy().view(np.uint64).tolist() == bits.tolist()
    assert decoded["l"][3].to_numpy().view(np.uint64).tolist() == bits.tolist()


def test_a_feature_newer_than_a_rows_schema_is_absent_and_not_null() -> None:
    layout = MessageLayout((WireField(32, "old", pl.Int64()), WireField(33, "new", pl.Int64(), since=2)))
    rows = simple_rows(2, old=[1, 2], new=pl.Series([5, None], dtype=pl.Int64), schema_number=[1, 2])
    decoded = decode(layout.by_schema_number(2), [*encode(layout, rows, schema_number=2, fence=0), None])
    assert decoded["new"].to_list() == [None, None, None]
    assert decoded.select(layout.absent("new")).to_series().to_list() == [True, False, False]


def test_an_old_reader_skips_what_a_newer_schema_added() -> None:
    newest = MessageLayout((WireField(32, "a", pl.Int64()), WireField(33, "b", pl.String(), since=2)))
    messages = encode(newest, simple_rows(1, a=[7], b=["x"]), schema_number=2, fence=0)
    decoded = decode({1: newest.at(1)}, messages)
    assert decoded["a"].to_list() == [7]
    assert decoded["schema_number"].to_list() == [2]


def test_a_tombstone_is_its_header_only() -> None:
    layout = MessageLayout((WireField(32, "v", pl.Array(pl.Float32, 128)),))
    rows = simple_rows(1, v=pl.Series([[1.0] * 128], dtype=pl.Array(pl.Float32, 128))).with_columns(
        is_deleted=pl.lit(True)
    )
    assert [len(message) for message in encode(layout, rows, schema_number=1, fence=0)] == [HEADER_SIZE] == [63]


def test_only_the_wanted_features_are_decoded_in_their_order() -> None:
    layout = MessageLayout(tuple(WireField(32 + i, name, pl.Int64()) for i, name in enumerate("abc")))
    messages = encode(layout, simple_rows(1, a=[1], b=[2], c=[3]), schema_number=1, fence=0)
    assert decode({1: layout}, messages, ["c", "a"]).columns[-2:] == ["c", "a"]
    with pytest.raises(UnknownName, match="'d'"):
        decode({1: layout}, messages, ["d"])


def test_a_vector_may_come_as_a_list_of_its_length() -> None:
    layout = MessageLayout((WireField(32, "v", pl.Array(pl.Float32, 2)),))
    given = pl.Series([[1.0, 2.0], None], dtype=pl.List(pl.Float32))
    decoded = decode({1: layout}, encode(layout, simple_rows(2, v=given), schema_number=1, fence=0))
    assert decoded["v"].to_list() == [[1.0, 2.0], None]
    with pytest.raises(InvalidInput, match="must have 2 values"):
        encode(layout, simple_rows(1, v=pl.Series([[1.0]], dtype=pl.List(pl.Float32))), schema_number=1, fence=0)


@pytest.mark.parametrize(
    ("field", "column", "message"),
    [
        (WireField(32, "x", pl.List(pl.Int64), 3), pl.Series([[1, None]]), "null elements"),
        (WireField(32, "x", pl.List(pl.String), 3), pl.Series([["a", None]]), "null elements"),
        (
            WireField(32, "x", pl.Array(pl.Float32, 2)),
            pl.Series([[1, None]], dtype=pl.Array(pl.Float32, 2)),
            "null elements",
        ),
        (WireField(32, "x", pl.List(pl.Int64), 1), pl.Series([[1, 2]]), "its limit is 1"),
        (WireField(32, "x", pl.String(), 2), pl.Series(["abc"]), "its limit is 2 characters"),
        (WireField(32, "x", pl.String()), pl.Series(["é" * 8200]), "its limit is 16383 bytes"),
    ],
)
def test_values_that_do_not_fit_are_refused(field: WireField, column: pl.Series, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        encode(MessageLayout((field,)), simple_rows(1, x=column), schema_number=1, fence=0)


def test_frames_that_do_not_match_are_refused() -> None:
    layout = MessageLayout((WireField(32, "x", pl.Int64()),))
    with pytest.raises(SchemaMismatch, match="'x' must be Int64"):
        encode(layout, simple_rows(1, x=[1.5]), schema_number=1, fence=0)
    with pytest.raises(SchemaMismatch, match="no such column"):
        encode(layout, simple_rows(1), schema_number=1, fence=0)
    nulled = simple_rows(1, x=[1]).with_columns(created_at=pl.lit(None, TIMESTAMP))
    with pytest.raises(InvalidInput, match="'created_at' has 1 nulls"):
        encode(layout, nulled, schema_number=1, fence=0)
    with pytest.raises(InvalidInput, match="from 1 to 1"):
        encode(layout, simple_rows(1, x=[1], schema_number=[2]), schema_number=1, fence=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((31, "x", pl.Int64()), "outside 32..2046"),
        ((2047, "x", pl.Int64()), "outside 32..2046"),
        ((32, "fence", pl.Int64()), "another name"),
        ((32, "x", pl.UInt8()), "no wire type"),
        ((32, "x", pl.Datetime("ms")), "no wire type"),
        ((32, "x", pl.List(pl.Int64)), "without `max_length`"),
        ((32, "x", pl.Int64(), None, 0), "start at 1"),
    ],
)
def test_fields_that_cannot_be_stored_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        WireField(*arguments)


def test_numbers_and_names_are_used_once() -> None:
    with pytest.raises(DeclarationError, match="share the number 32"):
        MessageLayout((WireField(32, "a", pl.Int64()), WireField(32, "b", pl.Int64())))
    with pytest.raises(DeclarationError, match="share the name a"):
        MessageLayout((WireField(32, "a", pl.Int64()), WireField(33, "a", pl.Int64())))


def test_messages_take_less_than_half_of_named_json() -> None:
    random = np.random.default_rng(1)
    names = [f"dep_delay_mean_{i}d" for i in range(20)]
    layout = MessageLayout(tuple(WireField(32 + i, name, pl.Float64()) for i, name in enumerate(names)))
    row = {name: [float(random.normal())] for name in names}
    size = len(encode(layout, simple_rows(1, **row), schema_number=1, fence=0)[0])
    header = {"schema_number": 1, "event_time": "2026-03-01T12:00:00Z", "knowledge_time": "2026-03-01T12:00:00Z"}
    header |= {"created_at": "2026-03-01T12:00:00Z", "fence": 0, "is_deleted": False}
    named = json.dumps(header | {name: value[0] for name, value in row.items()})
    assert size == HEADER_SIZE + 20 * 10
    assert size < len(named) / 2


def test_the_codec_does_not_import_redis() -> None:
    code = "import sys, featurestore, featurestore.online.message.codec, featurestore.online.keys; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
