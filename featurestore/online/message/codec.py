"""The online message: one ordinary proto3 message per row, laid out so that NumPy reads a whole batch as views.

A row, in bytes (tags are two bytes, numbers little-endian)::

    header, 63 bytes
       0  tag 16  fence             sfixed64     newest rewind that the writer knew
      10  tag 17  message_checksum  fixed64      of the group, the dtypes and all that follows
      20  tag 18  schema_number     sfixed32     under which schema the row was computed
      26  tag 19  event_time        sfixed64 us  ┐
      36  tag 20  knowledge_time    sfixed64 us  ├ the version, compared in this order
      46  tag 21  created_at        sfixed64 us  ┘
      56  tag 22  field_count       varint, 2 B  features that follow, nulls included
      60  tag 23  is_deleted        bool         a tombstone: nothing follows
    features
      blocks   float64 | int64, timestamp | float32 | int32, date | bool     each a run of (tag, value), by field number
      vectors  tag, length, packed float32
      last     strings: tag, padded length, UTF-8; lists: tag, padded length, a nested message { repeated values = 1 }

A null is the tag of field 2047 with the wire type of the field it stands for, and a value of zeros: rows keep their size, one
compare yields all nulls, and any Protobuf parser skips it as unknown and sees the field absent. Lengths are varints padded to
a fixed width per field (overlong, yet legal), so that offsets are arithmetic.

`field_count` is what tells a message that was cut short between two fields, which proto3 takes for one with fewer fields.
Protobuf libraries keep unknown fields, so what they parse and write again still counts right; a writer that leaves nulls out
altogether leaves `field_count` out too.

The checksum (`checksum` has the sum and its proofs) tells bytes that were changed on the way or in a store, that were cut, put
together from two messages, or written for another group or for other dtypes under the same field numbers. Such a message is refused;
no value is read from it. What it does not tell:

- The fence is not in it, since servers lift it in place. A flipped bit of it changes no value and no status; it may keep writers
  away from the key until a rebuild, or let a writer in that a rewind had fenced off.
- The write rule compares the versions of stored messages without summing them up: one whose version was changed reads as
  UNAVAILABLE and may outlast what is written after it, until a rebuild or its expiry. The parity check counts it as wrong.
- A message with features that the reader's registry does not know, newer or removed, is verified but for their dtypes. A registry
  never gives a field number twice, and what the checksum starts from holds the features that the registry first had: only two
  copies of one registry that were changed apart, behind one store, could have two dtypes for it.
- It is no signature.

Other serialisations of the same message, as Protobuf libraries make them, carry the checksum of their own bytes: any writer that puts
out fields in the order of their numbers begins with fence and checksum, sums up from byte 20 on, and fills the checksum in.

This module is the public face; the work is in `layout`, `encode`, `decode`, `canonical`, `joined`, `checksum`, `integrity`, `wire` and
`proto_text`. No store, no socket.
"""

from featurestore.online.message.decode import decode
from featurestore.online.message.encode import encode
from featurestore.online.message.layout import BEFORE_EVERYTHING, MessageLayout, WireField
from featurestore.online.message.proto_text import proto_text

__all__ = ["BEFORE_EVERYTHING", "MessageLayout", "WireField", "decode", "encode", "proto_text"]
