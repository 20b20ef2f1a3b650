"""A breach in a real browser, on the board and on Dagster's own page of the asset: a job stands still, and catches up.

What the pages show was kept by the platform's own sensor. It needs Chromium and its driver, so it waits for the exam.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import redis
from selenium.webdriver.common.by import By
from sqlalchemy import delete

from featurestore.metadata.tables import GAPS
from featurestore.promotion import materialize_windows
from tests.browser import Page, needs_chromium, open_page
from tests.contract.board_process import Board, running_board
from tests.platform.airline import REPOSITORY, dagster_home
from tests.platform.crash_site import Site as Processes
from tests.platform.kiosks import (
    DAY,
    HOUR,
    MINUTE,
    kiosk_orders_hourly,
    kiosk_profile,
    kiosk_sales_daily,
    kiosks,
)
from tests.platform.sandbox import Sandbox
from tests.platform.test_freshness_sensor import Kiosk
from tests.waiting import wait_for

pytestmark = [pytest.mark.exam, needs_chromium]
LOCATION = REPOSITORY / "tests" / "platform" / "kiosk_location.py"
GROUP = kiosk_orders_hourly.name


@dataclass
class Site:
    """A kiosk that lived until now by an injected clock, and the board beside it by the real one."""

    kiosk: Kiosk
    board: Board
    variables: dict[str, str]

    def catch_up(self, hours: int) -> None:
        """Compute the last hours, as a mended job does; the sensor looks at once.

        The newest hour is to be served a quarter past: begun just before, it would be late again when it is looked at.
        """
        wait_for("a quarter past", lambda: not 12 <= datetime.now(UTC).minute < 15, 240, 1.0)
        sandbox = self.kiosk.sandbox
        sandbox.now = datetime.now(UTC)
        last_due = (sandbox.now - 10 * MINUTE).replace(minute=0, second=0, microsecond=0) - HOUR
        for back in reversed(range(hours)):
            self.kiosk.compute(last_due - back * HOUR)
        sandbox.store.materialize([GROUP])
        self.kiosk.tick()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return dagster_home(tmp_path / "home")


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """On disk, so that Dagster's web server can show it."""
    with dg.DagsterInstance.from_config(str(home)) as made:
        made.get_runs_count()
        yield made


@pytest.fixture
def site(sandbox: Sandbox, valkey_url: str, tmp_path: Path) -> Iterator[Site]:
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    sandbox.online_url, sandbox.now = valkey_url, hour - 20 * HOUR
    sandbox.use(kiosks(kiosk_orders_hourly, kiosk_sales_daily, kiosk_profile))
    kiosk = Kiosk(sandbox)
    # Its jobs run until six hours ago; its feed speaks to the end.
    kiosk.live(hour - 6 * HOUR)
    kiosk.live(hour - 10 * MINUTE, jobs=False)
    compute_days(sandbox)
    sandbox.now = datetime.now(UTC)
    kiosk.tick()
    forget_gaps(kiosk)
    variables = {
        "FEATURESTORE_ROOT": str(sandbox.root),
        "FEATURESTORE_LANDING": str(sandbox.landing),
        "FEATURESTORE_ONLINE_URL": valkey_url,
        "FEATURESTORE_METADATA_URL": "",
        "FEATURESTORE_SCHEDULE": "off",
    }
    with running_board(variables, tmp_path / "board.log", "--look-seconds", "1") as board:
        yield Site(kiosk, board, variables)


def forget_gaps(kiosk: Kiosk) -> None:
    """The kiosk was looked at every ten minutes; what its journal has is then as a sensor leaves it that looks every half a minute."""
    with kiosk.journal._database.writing() as connection:
        connection.execute(delete(GAPS))


def compute_days(sandbox: Sandbox) -> None:
    cadence = kiosk_sales_daily.cadence
    midnight = sandbox.now.replace(hour=0, minute=0)
    windows = [cadence.window_at(midnight - back * DAY) for back in (2, 1)]  # type: ignore[union-attr]
    materialize_windows(sandbox.offline, sandbox.catalog, kiosk_sales_daily, windows, run_id="days")
    sandbox.store.materialize([kiosk_sales_daily.name])


@pytest.fixture
def page(site: Site, tmp_path: Path) -> Iterator[Page]:
    with open_page(site.board.url, tmp_path, (1400, 760)) as opened:
        yield opened


def test_a_breach_is_shown_and_is_over_when_the_windows_are_caught_up(site: Site, page: Page) -> None:
    page.open("/")
    says(page, "BREACH 1", "NEVER 1", "beyond its SLO of 1 h", "windows are due and not promoted", "SLO 36 hours")
    page.until("the title", lambda: page.driver.title == "(1) Freshness")
    page.until("the worst group first", lambda: is_worst(page))
    page.picture("board")
    page.open("/?status=NEVER")
    says(page, kiosk_profile.name, "1 of 3")
    page.until("no other group", lambda: kiosk_profile.name in (shown := page.text) and GROUP not in shown)
    page.open("/")
    page.follow(GROUP)
    says(page, "BREACH since", "Attainment, 24h", "Inputs", "orders", "Changes of status")
    page.until("all of it", lambda: fits(page))
    page.driver.set_window_size(520, 1100)
    dark(page)
    page.until("all of it", lambda: fits(page))
    page.picture("board-group")
    page.open("/")
    page.until("all of it", lambda: fits(page))
    site.catch_up(10)
    page.until("the end of the breach", lambda: page.open("/") is None and "BREACH 0" in words(page))
    row = f"//tbody[contains(., '{GROUP}')]"
    page.until("the group well", lambda: "OK" in page.driver.find_element(By.XPATH, row).text)


def test_dagsters_own_page_of_the_asset_shows_the_breach(site: Site, home: Path, tmp_path: Path) -> None:
    with (
        Processes(home, LOCATION, site.variables).running() as dagster,
        open_page(dagster.url, tmp_path, (1400, 1000)) as page,
    ):
        page.open(f"/assets/online/{GROUP}?view=checks&checkDetail=freshness")
        page.shows("freshness", "Failed", "BREACH", "due and not promoted", "beyond its SLO of 1 h")
        page.picture("freshness-check")
        site.catch_up(10)
        page.open(f"/assets/online/{GROUP}?view=checks&checkDetail=freshness")
        page.until("the end of the breach", lambda: "Passed" in (shown := page.text) and "BREACH" not in shown)


def words(page: Page) -> str:
    """The page's text on one line."""
    return " ".join(page.text.split())


def says(page: Page, *told: str) -> None:
    for text in told:
        page.until(text, lambda text=text: text in words(page))


def is_worst(page: Page) -> bool:
    """Whether the group stands first, with its lag beyond the SLO; what a page has is gone when it comes anew."""
    worst = page.driver.find_element(By.CSS_SELECTOR, ".groups tbody")
    marks = [worst.find_elements(By.CSS_SELECTOR, mark) for mark in ("polyline.over", ".strip rect.BREACH")]
    return GROUP in worst.text and all(marks)


def fits(page: Page) -> bool:
    """Whether nothing of a whole page is wider than the window."""
    script = "return document.readyState === 'complete' && document.documentElement.scrollWidth <= window.innerWidth"
    return bool(page.driver.execute_script(script))


def dark(page: Page) -> None:
    """As a reader has it whose system is dark."""
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.until("light text", lambda: colour(page) == "rgba(230, 233, 236, 1)")


def colour(page: Page) -> str:
    return page.driver.find_element(By.TAG_NAME, "body").value_of_css_property("color")
