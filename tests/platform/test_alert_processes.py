"""Alerts with Dagster's real daemon and code server, by the real clock: how long from a breach, and from its end, to the webhook."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from featurestore.clock import system_clock
from featurestore.loading import materialize_load
from featurestore.location import Location
from featurestore.offline.store import OfflineStore
from featurestore.registry.history import RegistryHistory
from tests.contract.receivers import HttpReceiver, Posted, http_receiver
from tests.platform.airline import REPOSITORY, dagster_home
from tests.platform.alert_location import SLO, aging_profile, catalog
from tests.platform.crash_site import Site
from tests.platform.kiosks import register
from tests.platform.sandbox import Sandbox
from tests.scale import cases
from tests.waiting import wait_for

pytestmark = pytest.mark.exam

LOCATION = REPOSITORY / "tests" / "platform" / "alert_location.py"
WITHIN_SECONDS = 60
START_SECONDS = 600
SECOND = timedelta(seconds=1)


@dataclass
class Watch:
    """A running platform, its webhook, and a group that somebody loads."""

    sandbox: Sandbox
    hook: HttpReceiver
    heard: int = 0

    def load(self, seats: int) -> tuple[datetime, datetime]:
        """Load the group now; the instants before and after the load."""
        self.sandbox.now = began = system_clock()
        self.sandbox.ingest(register, [{"kiosk": name, "seats": seats} for name in "abc"])
        root = Location(str(self.sandbox.root))
        store = OfflineStore(root, RegistryHistory(root).require_current(), system_clock)
        materialize_load(store, self.sandbox.catalog, aging_profile, run_id=f"load-{seats}")
        return began, system_clock()

    def hear(self, seconds: float, *wanted: tuple[str, str]) -> Posted:
        """The next notice, which is to be one of these events and statuses; it is waited for."""
        wait_for(f"one of {wanted}", lambda: len(self.hook.posted) > self.heard, seconds, 0.05)
        posted = self.hook.posted[self.heard]
        self.heard += 1
        assert (posted.document["event"], posted.document["status"]) in wanted
        return posted


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    home = dagster_home(tmp_path / "home")
    with http_receiver() as hook, dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs_count()
        sandbox = Sandbox(tmp_path, instance, catalog, now=system_clock())
        routes = tmp_path / "alerts.toml"
        routes.write_text(f'default = ["hook"]\n[sinks.hook]\nkind = "webhook"\nurl = "{hook.url}/alerts"\n')
        made = Watch(sandbox, hook)
        made.load(1)
        variables = {
            "FEATURESTORE_ROOT": str(sandbox.root),
            "FEATURESTORE_LANDING": str(sandbox.landing),
            "FEATURESTORE_METADATA_URL": "",
            "FEATURESTORE_ONLINE_URL": "",
            "FEATURESTORE_ALERTS": str(routes),
            "FEATURESTORE_SCHEDULE": "off",
        }
        with Site(home, LOCATION, variables).running(pages=False):
            wait_for("the first alert", lambda: bool(hook.posted), START_SECONDS)
            yield made


def test_from_a_breach_to_the_webhook_and_from_its_end_less_than_a_minute_passes(watch: Watch) -> None:
    wait_for("the first breach", lambda: watch.hook.posted[-1].document["status"] == "BREACH", START_SECONDS)
    watch.heard = len(watch.hook.posted)
    waits: list[float] = []
    for turn in range(cases(3, 1)):
        began, ended = watch.load(10 + turn)
        over = watch.hear(WITHIN_SECONDS, ("recovered", "BREACH"))
        assert over.at > began.timestamp()
        waits.append(over.at - ended.timestamp())
        # It is warned of for a quarter of its SLO, which may lie between two looks.
        opened = watch.hear(SLO.total_seconds() + WITHIN_SECONDS, ("opened", "WARN"), ("opened", "BREACH"))
        breach = opened
        if opened.document["status"] == "WARN":
            waits.append(wait_of(opened))
            breach = watch.hear(SLO.total_seconds() + WITHIN_SECONDS, ("raised", "BREACH"))
        since = datetime.fromisoformat(breach.document["since"])
        assert began - SECOND < since - SLO < ended + SECOND
        waits.append(wait_of(breach))
    time.sleep(1)
    assert len(watch.hook.posted) == watch.heard, "nothing was told twice"
    print(f"from the change to the webhook, in seconds: {[round(wait, 1) for wait in waits]}")
    assert max(waits) < WITHIN_SECONDS, waits


def wait_of(opened: Posted) -> float:
    """How long after its beginning a problem was told of."""
    seconds = opened.at - datetime.fromisoformat(opened.document["since"]).timestamp()
    assert seconds > 0
    return seconds
