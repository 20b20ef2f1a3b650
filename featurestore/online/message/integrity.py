"""Whether single messages, in any serialisation and by a registry of any age, are of a group and as they were written.

Not here: batches of canonical rows, which `canonical` verifies as it reads them; the sum itself (`checksum`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from featurestore.online.message.checksum import (
    BODY_START,
    are_sums_of_unknown_features,
    start_of,
    sum_of,
)
from featurestore.online.message.joined import Batch
from featurestore.online.message.layout import (
    CHECKSUM_SLICE,
    HEADER_AT,
    HEADER_DTYPE,
    HEADER_NUMBERS,
    HEADER_SIZE,
    HEADER_TAGS,
    Flags,
    MessageLayout,
    Rows,
)
from featurestore.online.message.wire import Malformed, read_records

_GUARDED = ("fence", "message_checksum")
"""The fields before the body: their tags are not summed up, and so must stand where they belong."""


def sealed(message: bytes, base: int) -> bytes:
    """A message with the checksum that it should have; `base` is its layout's."""
    checksum = sum_of(message, base).to_bytes(8, "little")
    return message[: CHECKSUM_SLICE.start] + checksum + message[CHECKSUM_SLICE.stop :]


def check_intact(layouts: Mapping[int, MessageLayout], message: bytes) -> None:
    """Verify the checksum of one message.

    Rules: a message under a known schema, whose features are all known, must carry the checksum of just these. Of one that has
    features which the registry does not know, any features will do: it cannot know their dtypes.

    Raises:
        Malformed: It is another, or there is none.
    """
    if len(message) < BODY_START or not _is_headed(message):
        raise Malformed("it does not begin with fence and checksum")
    written = int.from_bytes(message[CHECKSUM_SLICE], "little")
    own = _known_layout(layouts, message)
    if own is not None:
        is_intact = sum_of(message, own.base) == written
    else:
        group = layouts[max(layouts)].group
        gaps = np.array([written], np.uint64) - np.array([sum_of(message, start_of(group))], np.uint64)
        is_intact = bool(are_sums_of_unknown_features(gaps)[0])
    if not is_intact:
        raise Malformed("its checksum is another")


def _is_headed(message: bytes) -> bool:
    places = ((HEADER_AT[f"{name}_tag"], HEADER_TAGS[name]) for name in _GUARDED)
    return all(message[at : at + 2] == tag.to_bytes(2, "little") for at, tag in places)


def _known_layout(layouts: Mapping[int, MessageLayout], message: bytes) -> MessageLayout | None:
    """The layout of exactly the features that a message was written with; None if it has others."""
    found = dict(read_records(message))
    number = found.get(HEADER_NUMBERS["schema_number"], (0, b""))[1]
    layout = layouts.get(int.from_bytes(number, "little", signed=True))
    record = found.get(HEADER_NUMBERS["field_count"])
    count = None if record is None else sum(byte << 7 * i for i, byte in enumerate(record[1]))
    if count == 0:
        return layouts[max(layouts)].at(0)
    if layout is None or count not in (None, len(layout.fields)):
        return None
    return layout


def are_intact(messages: Sequence[bytes], group: str) -> Flags:
    """Which messages are a group's, with some features or other, and as they were written: for who passes messages on unread.

    Args:
        messages: Any bytes.
        group: Its `RegisteredGroup.message_name`.
    """
    batch = Batch.of(messages)
    flags: Flags = batch.sizes >= HEADER_SIZE
    positions = np.flatnonzero(flags)
    header: Rows = batch.rows(positions, HEADER_DTYPE)
    sums = batch.sums(positions, start_of(group))
    intact = are_sums_of_unknown_features(header["message_checksum"] - sums)
    for name in _GUARDED:
        intact &= header[f"{name}_tag"] == HEADER_TAGS[name]
    flags[flags] = intact
    return flags
