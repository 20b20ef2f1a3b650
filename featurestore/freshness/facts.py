"""What the stores say of a group at one instant: the facts that its freshness is judged by. Pure values; nothing is read here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFacts:
    """The windows of a group that has some. A window is due from its cut-off on, and late from its horizon on.

    Args:
        newest: Start of the newest promoted window; None before the first.
        due: How many windows after it are due and not promoted.
        late_since: Horizon of the first of those, if it has passed.
        holes: Windows between the first promoted one and the newest that are neither promoted, taken back nor in quarantine.
        gaps: Starts of the windows before the newest that the schedule owes, the oldest first.
        quarantined: Windows that failed their gate when they were last computed.
        awaited: Start of the first window that is due and not promoted.
        held: Starts of the windows in quarantine, the oldest first; of very many the newest ones.
        held_since: When the first of those was held.
        held_by: The backfill, or else the run, that computed the newest of them; "" if none is held.
        held_for: What its gate found of the newest of them, the first of it; "" if that is not known.
        first_served_by: While no window is in production, when the first one was to be served that came due since the group is
            declared; None: none has, or that is not known.
    """

    newest: datetime | None = None
    due: int = 0
    late_since: datetime | None = None
    holes: int = 0
    gaps: tuple[datetime, ...] = ()
    quarantined: int = 0
    awaited: datetime | None = None
    held: tuple[datetime, ...] = ()
    held_since: datetime | None = None
    held_by: str = ""
    held_for: str = ""
    first_served_by: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineFacts:
    """The copy that is served, beside its table.

    Args:
        behind_since: When the oldest row that is known by now, and not online in every part, was to be served; None: it has all.
        unknown: Why a part could not say; "" if all did.
        unknown_since: Since which look; None if all did. What is known of the copy stays as it was before.
    """

    behind_since: datetime | None = None
    unknown: str = ""
    unknown_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """One group at one instant.

    Args:
        materialized_at: When the newest promoted window was first promoted, the last load was made, or the newest pushed event came;
            None: never.
        confirmed_at: When the group was last confirmed to hold everything that was due; None: never.
        last_events: By source, or pushed group that is read, the event time of its newest row; None where it has none. Of a pushed
            group: its own name.
        declared_since: By those without a row, since when each is declared; some may be missing.
        windows: None for a group without windows.
        online: None for a group that is not served.
    """

    materialized_at: datetime | None = None
    confirmed_at: datetime | None = None
    last_events: Mapping[str, datetime | None] = field(default_factory=dict)
    declared_since: Mapping[str, datetime] = field(default_factory=dict)
    windows: WindowFacts | None = None
    online: OnlineFacts | None = None
