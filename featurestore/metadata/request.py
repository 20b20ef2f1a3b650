"""A backfill as it was asked for: which windows of which groups, at what estimate, and how it was decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from featurestore.launch import Strategy

State = Literal["pending", "admitted", "approved", "rejected", "refused", "cancelled", "rolled_back"]
"""`pending` waits for a person; `admitted` was below the limit; `refused` breaks a rule (a forbidden range, a transform
that fails its dry run); `cancelled` ended in Dagster before anyone decided."""


@dataclass(frozen=True, slots=True)
class RequestedWindows:
    """The windows of one group in a backfill.

    Args:
        group: Stored name.
        keys: Partition keys, oldest first.
        estimate: `Estimate.as_dict()` of these windows; `cost_usd` is what counts against the group's limit.
    """

    group: str
    keys: tuple[str, ...]
    estimate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cost_usd(self) -> float:
        return float(self.estimate.get("cost_usd", 0.0))


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """One backfill: Dagster's backfill id, or the id of a run that was launched by hand.

    Args:
        requested_by: Who launched it, as far as that is known; the launch dialog knows nobody.
        reason: Why it is in its state: for a person to read.
    """

    backfill_id: str
    requested_at: datetime
    requested_by: str
    strategy: Strategy
    groups: tuple[RequestedWindows, ...]
    state: State
    reason: str = ""
    accept_shift: bool = False

    @property
    def cost_usd(self) -> float:
        return sum(part.cost_usd for part in self.groups)

    @property
    def may_run(self) -> bool:
        return self.state in ("admitted", "approved")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that someone did to a backfill: `action` is 'approved', 'rejected', 'overridden', 'rolled_back', ..."""

    backfill_id: str
    at: datetime
    action: str
    person: str
    os_user: str
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)
