"""Messages in one buffer: wherever they stand in it, each is found whole, and one of another size is never taken for its neighbours."""

import random

import numpy as np

from featurestore.online.message.checksum import BODY_START, base_of, sum_of
from featurestore.online.message.joined import Batch
from tests.scale import cases, exam_seed

BASE = base_of("g", ())


def batches(chance: random.Random) -> tuple[list[bytes], int]:
    """Messages, and the size that each is expected to have; some have another."""
    size = chance.randint(BODY_START, 90)
    others = chance.choice([[size], [size, size - 1], [size, 0], range(120), [size, 5_000]])
    sizes = [chance.choice(list(others)) for _ in range(chance.randint(0, 40))]
    return [chance.randbytes(chance.choice([one, one, size])) for one in sizes], size


def test_each_message_is_found_where_the_batch_says_however_they_were_put_together() -> None:
    chance = random.Random(exam_seed())
    kinds = set()
    for _ in range(cases(20_000, 400)):
        messages, size = batches(chance)
        for batch in (Batch.of(messages), Batch.of(messages, size)):
            kinds.add((batch.step > 0, batch.size > 0))
            found = zip(batch.starts.tolist(), batch.ends.tolist(), strict=True)
            assert [batch.joined[start:end] for start, end in found] == messages
            assert batch.size == 0 or {len(one) for one in messages} == {size}
            if chance.random() < 0.5:
                look_at(batch, messages, np.flatnonzero([len(one) >= BODY_START for one in messages]))
            some = [at for at, one in enumerate(messages) if len(one) >= BODY_START and chance.random() < 0.5]
            look_at(batch, messages, np.array(some, np.int64))
    assert kinds == {(True, True), (True, False), (False, False)}


def look_at(batch: Batch, messages: list[bytes], positions: np.ndarray) -> None:
    """All that a batch says of some of its messages, none shorter than fence and checksum."""
    own = [messages[at] for at in positions.tolist()]
    assert batch.sums(positions, BASE).tolist() == [sum_of(one, BASE) for one in own]
    assert [row.tobytes() for row in batch.rows(positions, np.dtype("V20"))] == [one[:20] for one in own]
    places = np.array([0, 3, 18])
    expected = [[int.from_bytes(one[at : at + 2], "little") for at in places.tolist()] for one in own]
    assert batch.pairs(positions, places).tolist() == expected
    words = batch.words(batch.starts[positions] + 7)
    assert words.tolist() == [int.from_bytes(one[7:15], "little") for one in own]


def test_two_messages_that_share_their_bytes_otherwise_are_not_of_one_size() -> None:
    """Their sizes add up to the same, and all bytes stand where those of two right ones would."""
    whole = [bytes(64)] * 3
    for moved in range(1, 65):
        assert Batch.of([whole[0] + bytes(moved), whole[1][moved:], whole[2]], 64).size == 0
        assert Batch.of([whole[0][moved:], whole[1], whole[2] + bytes(moved)], 64).size == 0
    assert Batch.of(whole, 64).size == 64


def test_bytes_above_ascii_are_counted_over_all_messages_from_a_place_on() -> None:
    messages = [b"\xff" * 20 + "Zürich".encode(), b"\xff" * 20 + b"Oslo", b"\xff" * 20 + b"Bergen"]
    batch = Batch.of(messages)
    assert batch.step
    assert batch.is_ascii_from(20, 2)
    assert not batch.is_ascii_from(20, 0)
    assert batch.is_ascii_from(19, 5)
    assert not Batch.of([*messages, bytes(5_000)]).is_ascii_from(20, 2), "they stand end to end, so that nobody knows"
