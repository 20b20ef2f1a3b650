"""The online message: one ordinary proto3 message per row, laid out so that NumPy reads a whole batch as views.

A row, in bytes (tags are two bytes, numbers little-endian)::

    header, 53 bytes
      0  tag 16  schema_number   sfixed32     under which schema the row was computed
      6  tag 17  event_time      sfixed64 us  ┐
     16  tag 18  knowledge_time  sfixed64 us  ├ the version, compared in this order
     26  tag 19  created_at      sfixed64 us  ┘
     36  tag 20  fence           sfixed64     newest rewind that the writer knew
     46  tag 21  field_count     varint, 2 B  features that follow, nulls included
     50  tag 22  is_deleted      bool         a tombstone: nothing follows
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

There is no checksum: bytes that are cut short, or are no message of the layout, are refused, and nothing is read that Google's
parser would not read in the same bytes; a flipped bit inside a number is another number. TCP and TLS guard the way, the parity
check what is stored.

This module is the public face; the work is in `layout`, `encode`, `decode`, `wire` and `proto_text`. No store, no socket.
"""

from featurestore.online.message.decode import decode
from featurestore.online.message.encode import encode
from featurestore.online.message.layout import BEFORE_EVERYTHING, MessageLayout, WireField
from featurestore.online.message.proto_text import proto_text

__all__ = ["BEFORE_EVERYTHING", "MessageLayout", "WireField", "decode", "encode", "proto_text"]
