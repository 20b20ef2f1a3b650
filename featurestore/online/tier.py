"""What any online tier answers with and is asked for. Not here: any server."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Replies:
    """What a read found.

    Args:
        messages: One per key, in key order; None where the tier has none.
        is_cold: The tier was emptied, restarted or never filled with this group: a None says nothing about the entity.
    """

    messages: list[bytes | None]
    is_cold: bool


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a write's keys.

    Args:
        written: Keys that now hold the message given.
        left: Keys that keep a value which is not lower; their fence was lifted.
        refused: Positions of the keys whose stored fence is above the message's: read fence and row from the table again.
    """

    written: int
    left: int
    refused: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MaterializationState:
    """R: up to where a group's online copy reflects its table.

    Args:
        table_id: Identity of the Delta table; a table created anew has another.
        version: Delta version.
        as_of: Rows known by then are online; UTC.
        contract: Digest of whatever a change of which needs a rebuild, such as ttl and max_age; "" if unused.
    """

    table_id: str
    version: int
    as_of: datetime
    contract: str = ""
