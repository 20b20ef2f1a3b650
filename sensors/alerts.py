"""The sensor that tells people: it adds what checks say is wrong to what is late, and delivers what is to be said.

Every tick is whole in itself: problems are compared with the episodes of the metadata database, and what is to be delivered waits there
too, so a tick that is lost or repeated loses and doubles nothing.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import dagster as dg

from featurestore.alerts.delivery import Delivery
from featurestore.alerts.outbox import Outbox
from featurestore.alerts.problem import Findings, watched_in
from featurestore.alerts.routes import NOBODY
from featurestore.alerts.sinks.sink import sink_of
from featurestore.clock import Clock
from featurestore.declaration import Catalog
from featurestore.errors import FeatureStoreError, InvalidInput
from featurestore.registry.history import RegistryHistory
from featurestore.registry.snapshot import RegistrySnapshot
from featurestore.settings import Settings
from resources.store import StoreResource
from sensors.latest_checks import latest_checks

EVERY = timedelta(seconds=10)
NOT_APPLIED = "Nothing has been applied yet: featurestore apply."
Finder = Callable[[dg.SensorEvaluationContext, Settings, Clock], Findings | None]
"""Looks for problems and says which kinds and groups it speaks for; None: it did not look this time. No two speak for the same."""

log = logging.getLogger("featurestore.alerts")


def alerts_sensor(catalog: Catalog, finders: Iterable[Finder] = ()) -> dg.SensorDefinition:
    """The sensor of one code location; it runs from the first start of the daemon.

    Args:
        catalog: The declarations of the location; the checks of its groups and sources are looked at.
        finders: Who else looks for problems.
    """
    desk = _Desk((latest_checks(catalog), *finders))

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=int(EVERY.total_seconds()),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells people once of each thing that is late, held, drifted or wrong, and when it is well again.",
    )
    def alerts(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SkipReason:
        settings, clock, is_applied = store.settings(), store.clock(), True
        try:
            is_applied = desk.look(context, settings, clock)
        finally:
            told = desk.deliver(settings, clock) if is_applied else NOT_APPLIED
        return dg.SkipReason(told)

    return alerts


def book_alerts(settings: Settings, registry: RegistrySnapshot, findings: Findings, clock: Clock) -> None:
    """Bring the episodes to what a look found. Nobody is told yet; a file of routes that cannot be read keeps nothing from being booked."""
    try:
        routing = settings.alert_routing()
    except InvalidInput:
        log.exception("Nobody can be told of anything until the file of routes is mended: featurestore alerts check.")
        routing = NOBODY
    settings.alert_book(clock).reconcile(findings, watched_in(registry), routing, settings.dagster_url)


@dataclass
class _Desk:
    """What the ticks of one code server share: the registry as it was last read; one delivers at a time, whatever its leases."""

    finders: Sequence[Finder]
    lock: threading.Lock = field(default_factory=threading.Lock)
    registry: RegistrySnapshot | None = None

    def look(self, context: dg.SensorEvaluationContext, settings: Settings, clock: Clock) -> bool:
        """Ask every finder; one that cannot look leaves its episodes as they are, and keeps no other from looking.

        Returns:
            Whether anything has been applied.

        Raises:
            FeatureStoreError: the registry cannot be read, and never was; or nothing can be booked.
        """
        registry = self._read(settings)
        if registry is None:
            return False
        for finder in self.finders:
            try:
                found = finder(context, settings, clock)
            except FeatureStoreError:
                log.exception("Some problems could not be looked for; their alerts stay as they are.")
                continue
            if found is not None:
                book_alerts(settings, registry, found, clock)
        return True

    def _read(self, settings: Settings) -> RegistrySnapshot | None:
        """The registry; while the store cannot be reached, as it was before: the checks and the heartbeats are elsewhere."""
        try:
            self.registry = RegistryHistory(settings.root).current()
        except FeatureStoreError as error:
            if self.registry is None:
                raise
            log.warning(f"What is wrong is booked by what was declared before: {error}")
        return self.registry

    def deliver(self, settings: Settings, clock: Clock) -> str:
        """Deliver what waits; what was done, for the page of the sensor.

        Raises:
            InvalidInput: the file of routes cannot be read, or says what cannot be.
        """
        routing = settings.alert_routing()
        if not routing.sinks:
            return "FEATURESTORE_ALERTS names no file: episodes are kept, and nobody is told."
        sinks = {name: sink_of(one, clock) for name, one in routing.sinks.items()}
        with self.lock:
            told = Delivery(Outbox(settings.alert_book(clock).database), sinks, clock).deliver()
        return (
            ", ".join(f"{name} was told of {count}" for name, count in told.items())
            or "Nobody is to be told of anything."
        )
