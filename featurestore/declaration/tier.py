"""Freshness tiers: how old a group's data may be, how often that is confirmed, and whom it wakes when it is not.

A tier is a value that a declaration takes as a whole; each part can be declared by itself. Not here: how freshness is
measured (`featurestore.freshness`).
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, get_args

from featurestore.declaration.online import TierName
from featurestore.declaration.types import require_duration, require_text, shown
from featurestore.declaration.windows import Cadence, Daily, Hourly, Pushed, Windowless
from featurestore.errors import DeclarationError

Alerts = Literal["page", "ticket", "off"]
"""Whom an alert reaches: somebody now, somebody today, nobody."""


def check_alerts(what: str, alerts: object) -> None:
    """Refuse an addressee of alerts that nobody knows.

    Raises:
        DeclarationError: the message lists those that are known.
    """
    if alerts not in get_args(Alerts):
        raise DeclarationError(f"{what}: alerts is {shown(alerts)}. Write one of {list(get_args(Alerts))}.")


LOOK_EVERY = timedelta(seconds=30)
"""How often the platform looks what is due: no refresh is more frequent."""


@dataclass(frozen=True, slots=True)
class FreshnessTier:
    """A class of groups by how fresh they are.

    Args:
        name: For people and for alert routing.
        slo: The age that a group's data must not reach; None: it is updated when somebody does.
        alerts: Whom a breach reaches.
        online: Where its groups are served from, if they name no tiers; None: the deployment decides.
    """

    name: str
    slo: timedelta | None
    alerts: Alerts
    online: tuple[TierName, ...] | None = None

    def __post_init__(self) -> None:
        require_text("FreshnessTier: name", self.name, "a name, such as 'daily'")
        if self.slo is not None:
            require_duration(f"Tier {self.name!r}: slo", self.slo, "slo=timedelta(hours=24)")
        check_alerts(f"Tier {self.name!r}", self.alerts)

    def cadence(self, start: date) -> Cadence:
        """The cadence that goes with the tier.

        Raises:
            DeclarationError: it has none that is cut into windows.
        """
        if self.name == "hourly":
            return Hourly(start)
        if self.name != "daily":
            raise DeclarationError(
                f"Tier {self.name!r} has no windows of its own. Pushed groups are declared with pushed_group(...), static ones "
                "with cadence=Static(...); for windows name the cadence, e.g. cadence=Hourly(start=date(2025, 1, 1))."
            )
        return Daily(start)


REAL_TIME = FreshnessTier("real_time", timedelta(seconds=1), "page", ("hot",))
NEAR_REAL_TIME = FreshnessTier("near_real_time", timedelta(minutes=5), "page", ("hot",))
HOURLY = FreshnessTier("hourly", timedelta(hours=1), "page")
DAILY = FreshnessTier("daily", timedelta(hours=24), "ticket")
STATIC = FreshnessTier("static", None, "ticket")


def usual_tier(cadence: Cadence) -> FreshnessTier:
    """The tier of a group that declares none."""
    if isinstance(cadence, Pushed):
        return NEAR_REAL_TIME
    return {"hourly": HOURLY, "daily": DAILY}.get(cadence.name, STATIC)


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """How fresh one group is to be, as it was declared or follows from its tier.

    Args:
        tier: Name of the tier.
        slo: The age that its data must not reach; None: none.
        refresh: How often it is confirmed to hold everything due; None for groups without windows.
        alerts: Whom a breach reaches.
        arrival: How long after its event time a pushed row may arrive; None for groups that are computed.
    """

    tier: str
    slo: timedelta | None
    refresh: timedelta | None
    alerts: Alerts
    arrival: timedelta | None = None


def service_level(
    cadence: Cadence,
    tier: FreshnessTier | None,
    slo: timedelta | None,
    refresh: timedelta | None,
    alerts: Alerts | None,
    *,
    taken: timedelta = timedelta(0),
) -> ServiceLevel:
    """The service level of a group: what is declared, and for the rest what its tier says.

    Args:
        taken: Delay and publish together: of the SLO, what no refresh can save.
    """
    chosen = tier or usual_tier(cadence)
    if isinstance(cadence, Pushed):
        return ServiceLevel(chosen.name, slo, None, alerts or chosen.alerts, arrival=chosen.slo)
    bound = chosen.slo if slo is None else slo
    if isinstance(cadence, Windowless) or bound is None:
        return ServiceLevel(chosen.name, bound, None, alerts or chosen.alerts)
    return ServiceLevel(
        chosen.name, bound, refresh if refresh is not None else usual_refresh(bound - taken), alerts or chosen.alerts
    )


def usual_refresh(left: timedelta) -> timedelta:
    """Twice within what delay and publish leave of the SLO, in whole seconds."""
    return max(LOOK_EVERY, timedelta(seconds=left // timedelta(seconds=2)))


def warning_after(slo: timedelta, refresh: timedelta | None, taken: timedelta) -> timedelta:
    """The materialization lag from which on a group is warned of: halfway from what a healthy one reaches to its SLO.

    Args:
        slo: The age that its data must not reach.
        refresh: How often it is confirmed to hold everything due; None for groups without windows.
        taken: Delay and publish together.

    >>> warning_after(timedelta(hours=24), timedelta(hours=10), timedelta(hours=2))
    datetime.timedelta(seconds=64800)
    """
    return slo * 3 / 4 if refresh is None else (refresh + taken + slo) / 2


def check_level(what: str, level: ServiceLevel, delay: timedelta, publish: timedelta) -> None:
    """Refuse a service level that a group without any fault would miss.

    Raises:
        DeclarationError: what a healthy group takes reaches its SLO; the message has the sum.
    """
    if level.slo is None or level.refresh is None:
        return
    if level.refresh < LOOK_EVERY:
        raise DeclarationError(
            f"{what} declares refresh {level.refresh}; the platform looks every {LOOK_EVERY}. Declare that, or more."
        )
    taken = level.refresh + delay + publish
    if taken >= level.slo:
        raise DeclarationError(
            f"{what} cannot hold freshness {level.slo} (tier {level.tier!r}): refresh {level.refresh} + delay {delay} + publish {publish} = {taken}, "
            f"so its data is that old without any fault. Declare freshness above {taken}, or lower one of the three."
        )
