"""What a group declares for its backfills: how far back, at what cost, by whom, and from what else than its sources."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from types import NoneType
from typing import Any

from featurestore.declaration.feature import check_owner
from featurestore.declaration.types import (
    require,
    require_duration,
    require_items,
    require_mapping,
    require_number,
    shown,
)
from featurestore.errors import DeclarationError

APPROVAL_LIMIT_USD = 25.0
MIN_CORRELATION = 0.8
FIRST_DAY = "backfillable_from=date(2025, 1, 1)"


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Periodic snapshots of a group's own features, to backfill what the events no longer tell.

    Args:
        source: Name of a source of the catalogue with the entity's keys and a column for each feature, by its name.
        carry: How long after its event time a snapshot still stands in for a window.
    """

    source: str
    carry: timedelta

    def __post_init__(self) -> None:
        require("Snapshots: source", self.source, str, "the name of a source, source='carrier_snapshots'")
        require_duration(f"Snapshots of {self.source!r}: carry", self.carry)
        if self.carry <= timedelta(0):
            raise DeclarationError(f"Snapshots of {self.source!r}: carry is {self.carry}. It is longer than zero.")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A correlated feature that stands in for one whose inputs are gone.

    Args:
        reference: 'group:feature', of the same entity; both features are numbers.
        min_correlation: Pearson's correlation on the windows where both exist must reach this, in absolute value.
    """

    reference: str
    min_correlation: float = MIN_CORRELATION

    def __post_init__(self) -> None:
        require("Proxy: reference", self.reference, str, "'group:feature', e.g. group['feature']")
        require_number(f"Proxy {self.reference!r}: min_correlation", self.min_correlation, "a share, e.g. 0.8")
        group, colon, feature = self.reference.partition(":")
        if not (group and colon and feature):
            raise DeclarationError(
                f"Proxy {self.reference!r} is not of the form 'group:feature'. Write group['feature'], e.g. "
                "carrier_delay_daily['flights_7d']."
            )
        if not 0 < self.min_correlation <= 1:
            raise DeclarationError(
                f"Proxy {self.reference!r}: min_correlation is {self.min_correlation}. It is above 0 and at most 1."
            )


@dataclass(frozen=True, slots=True)
class KnownValue:
    """A value that the owner is sure of, which every computation of its window must give.

    Args:
        window: Partition key of the window: '2026-03-01', or '2026-03-01-05:00' of an hourly group.
        keys: The entity's keys.
        feature: Name of the feature.
        value: What it must be; None for null.
        tolerance: Largest difference allowed of a number.
    """

    window: str
    keys: Mapping[str, Any]
    feature: str
    value: Any
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        what = f"Known value of {self.feature!r}"
        require(f"{what}: window", self.window, str, "the key of a window, e.g. '2026-03-01'")
        require(f"{what}: feature", self.feature, str, "the name of a feature")
        require_mapping(f"{what}: keys", self.keys, object, "keys={'carrier': 'UA'}")
        require_number(f"{what}: tolerance", self.tolerance, "a number of 0 or more")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise DeclarationError(f"Known value of {self.feature!r}: tolerance is {self.tolerance}. It is 0 or more.")
        object.__setattr__(self, "keys", dict(self.keys))

    def __hash__(self) -> int:
        return hash((self.window, self.feature))


@dataclass(frozen=True, slots=True)
class RowCount:
    """How many rows a window may have, against the median of the windows that it is compared with.

    A count that one of those windows reached passes. Where the median is under 200 rows the check warns that it could not judge;
    only an empty window of a windowed group is held, if the median is 7 or more and none of those windows is empty.

    Args:
        fall: Smallest share of the median.
        rise: Largest multiple of the median.
    """

    fall: float = 0.5
    rise: float = 3.0

    def __post_init__(self) -> None:
        require_number("RowCount: fall", self.fall, "a share from 0 to 1, e.g. 0.5")
        require_number("RowCount: rise", self.rise, "a multiple from 1 on, e.g. 3.0")
        if not (0 <= self.fall <= 1 <= self.rise < math.inf):
            raise DeclarationError(
                f"RowCount: fall is {self.fall}, rise is {self.rise}. A fall is a share from 0 to 1, a rise a multiple from 1 on."
            )


@dataclass(frozen=True, slots=True)
class Backfill:
    """The rules for backfills of one group.

    Args:
        backfillable_from: First day that may be backfilled; windows that start before it are refused, however they are
            launched. None allows every window since the cadence's start.
        approval_limit_usd: A backfill whose summed estimate is above this waits until someone approves it.
        approvers: Who may approve, reject and override, beside the group's owner: 'team:...' or e-mail addresses.
        snapshots: For the snapshot strategy.
        proxies: For the proxy strategy: the stand-in of each feature, by the feature's name. Features without one are null.
        known_values: Spot checks.
        row_count: Bounds of the number of rows of a window, scheduled ones included; None for no bounds, and no
            warning where they cannot be judged.

    Raises:
        DeclarationError: a rule is not possible.
    """

    backfillable_from: date | None = None
    approval_limit_usd: float = APPROVAL_LIMIT_USD
    approvers: tuple[str, ...] = ()
    snapshots: Snapshots | None = None
    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    known_values: tuple[KnownValue, ...] = ()
    row_count: RowCount | None = RowCount()

    def __post_init__(self) -> None:
        self._check_types()
        if not (math.isfinite(self.approval_limit_usd) and self.approval_limit_usd >= 0):
            raise DeclarationError(f"approval_limit_usd is {self.approval_limit_usd}. It is a sum of 0 or more.")
        for approver in self.approvers:
            check_owner("Backfill", approver)
        object.__setattr__(self, "approvers", tuple(self.approvers))
        object.__setattr__(self, "proxies", dict(self.proxies))
        object.__setattr__(self, "known_values", tuple(self.known_values))

    def _check_types(self) -> None:
        first = self.backfillable_from
        require("Backfill: backfillable_from", first, (date, NoneType), FIRST_DAY)
        if isinstance(first, datetime):
            raise DeclarationError(f"Backfill: backfillable_from is {shown(first)}, an instant. Write {FIRST_DAY}.")
        require_number("Backfill: approval_limit_usd", self.approval_limit_usd, "a sum of 0 or more, e.g. 25.0")
        require_items("Backfill: approvers", self.approvers, str, "a list, approvers=['team:data-platform']")
        require(
            "Backfill: snapshots",
            self.snapshots,
            (Snapshots, NoneType),
            "Snapshots('a_source', carry=timedelta(days=1))",
        )
        require_mapping("Backfill: proxies", self.proxies, Proxy, "proxies={'my_feature': Proxy('group:feature')}")
        require_items("Backfill: known_values", self.known_values, KnownValue, "a list of KnownValue(...)")
        require("Backfill: row_count", self.row_count, (RowCount, NoneType), "RowCount(fall=0.5, rise=3.0), or None")

    def __hash__(self) -> int:
        return hash((self.backfillable_from, self.approval_limit_usd, self.approvers))
