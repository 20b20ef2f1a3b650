"""The board in a real browser: a job stands still, the page shows the breach, and it is well again when the windows are caught up.

What the page shows was kept by the platform's own sensor. It needs Chromium and its driver, so it waits for the exam.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from featurestore.promotion import materialize_windows
from tests.contract.board_process import Board, running_board
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
from tests.platform.test_backfill_in_browser import Page
from tests.platform.test_freshness_sensor import Kiosk

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.exam,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="Chromium is not installed; on Debian: apt-get install chromium-driver"
    ),
]
GROUP = kiosk_orders_hourly.name


@dataclass
class Site:
    """A kiosk that lived until now by an injected clock, and the board beside it by the real one."""

    kiosk: Kiosk
    board: Board

    def catch_up(self, hours: int) -> None:
        """Compute the last hours, as a mended job does; the sensor looks at once."""
        sandbox = self.kiosk.sandbox
        sandbox.now = datetime.now(UTC)
        last_due = (sandbox.now - 10 * MINUTE).replace(minute=0, second=0, microsecond=0) - HOUR
        for back in reversed(range(hours)):
            self.kiosk.compute(last_due - back * HOUR)
        sandbox.store.materialize([GROUP])
        self.kiosk.tick()


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
    variables = {"FEATURESTORE_ROOT": str(sandbox.root), "FEATURESTORE_ONLINE_URL": valkey_url}
    with running_board(variables, tmp_path / "board.log", "--look-seconds", "1") as board:
        yield Site(kiosk, board)


def compute_days(sandbox: Sandbox) -> None:
    cadence = kiosk_sales_daily.cadence
    midnight = sandbox.now.replace(hour=0, minute=0)
    windows = [cadence.window_at(midnight - back * DAY) for back in (2, 1)]  # type: ignore[union-attr]
    materialize_windows(sandbox.offline, sandbox.catalog, kiosk_sales_daily, windows, run_id="days")
    sandbox.store.materialize([kiosk_sales_daily.name])


@pytest.fixture
def page(site: Site, tmp_path: Path) -> Iterator[Page]:
    pictures = Path(os.environ.get("FEATURESTORE_TEST_PICTURES", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1400,760")
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield Page(driver, site.board.url, pictures)
    finally:
        driver.quit()


def test_a_breach_is_shown_and_is_over_when_the_windows_are_caught_up(site: Site, page: Page) -> None:
    page.open("/")
    says(page, "BREACH 1", "NEVER 1", "beyond its SLO of 1 h", "windows are due and not promoted", "SLO 36 hours")
    assert page.driver.title == "(1) Freshness"
    worst = page.driver.find_element(By.CSS_SELECTOR, ".groups tbody")
    assert GROUP in worst.text
    assert worst.find_elements(By.CSS_SELECTOR, "polyline.over")
    assert worst.find_elements(By.CSS_SELECTOR, ".strip rect.BREACH")
    page.picture("board")
    page.open("/?status=NEVER")
    says(page, kiosk_profile.name, "1 of 3")
    assert GROUP not in page.text
    page.open("/")
    page.follow(GROUP)
    says(page, "BREACH since", "Attainment, 24h", "Inputs", "orders", "Changes of status")
    assert fits(page)
    page.driver.set_window_size(520, 1100)
    dark(page)
    assert fits(page)
    page.picture("board-group")
    page.open("/")
    assert fits(page)
    site.catch_up(10)
    page.until("the end of the breach", lambda: page.open("/") is None and "BREACH 0" in words(page))
    assert "OK" in page.driver.find_element(By.XPATH, f"//tbody[contains(., '{GROUP}')]").text


def words(page: Page) -> str:
    """The page's text on one line."""
    return " ".join(page.text.split())


def says(page: Page, *told: str) -> None:
    for text in told:
        page.until(text, lambda text=text: text in words(page))


def fits(page: Page) -> bool:
    """Whether nothing is wider than the window."""
    return bool(page.driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"))


def dark(page: Page) -> None:
    """As a reader has it whose system is dark."""
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert page.driver.find_element(By.TAG_NAME, "body").value_of_css_property("color") == "rgba(230, 233, 236, 1)"
