"""A person's path in Dagster's own pages: sixty days launched, held for approval, approved, and one bad day left behind.

It needs Chromium and its driver, a web server and a daemon, so all of it waits for the exam.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
import redis
from click.testing import CliRunner
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from deploy.platform import running_platform
from feature_assets.groups.flights import catalog
from feature_assets.groups.flights.sources import departures
from featurestore.cli.main import main
from tests.platform.airline import DAY, FIRST, REPOSITORY, dagster_home, flight, key, processes_marked
from tests.platform.sandbox import Sandbox

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.exam,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="Chromium is not installed; on Debian: apt-get install chromium-driver"
    ),
]

GROUP = "carrier_delay_daily"
ASSET = f"offline/{GROUP}"
OWNER = "team:network-operations"
DAYS = 60
IMPOSSIBLE = 50_000.0
PATIENCE_SECONDS = 240.0


@dataclass
class Page:
    """A browser on one platform, with a folder for its pictures."""

    driver: webdriver.Chrome
    url: str
    pictures: Path

    def open(self, path: str) -> None:
        self.driver.get(f"{self.url}{path}")

    @property
    def text(self) -> str:
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def until(self, what: str, happened: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for something to be seen; elements that a page has just redrawn are looked for again."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if happened():
                    return
            except WebDriverException:
                pass
            assert time.monotonic() < deadline, f"not seen within {seconds:.0f} s: {what}\n{self.text}"
            time.sleep(0.5)

    def press(self, label: str) -> None:
        """Press the last button with a label: that of the dialog, where there is one."""
        self.until(f"button {label}", lambda: self._buttons(label)[-1].click() is None)

    def follow(self, label: str) -> None:
        """Press what has exactly a text and is no button."""
        self.until(label, lambda: self.driver.find_element(By.XPATH, f"//*[text()='{label}']").click() is None)

    def _buttons(self, label: str) -> list[WebElement]:
        return [b for b in self.driver.find_elements(By.XPATH, f"//button[contains(., '{label}')]") if b.is_enabled()]

    def shows(self, *words: str) -> None:
        for word in words:
            self.until(word, lambda word=word: word in self.text)

    def picture(self, name: str) -> None:
        target = self.pictures / f"{name}.png"
        self.driver.save_screenshot(str(target))
        assert target.stat().st_size > 20_000, f"{target} is as good as empty"


@dataclass
class Site:
    """A store with sixty days of departures, the last of them impossible, and a price book under which they are dear."""

    sandbox: Sandbox
    environment: dict[str, str]
    mark: str

    def command(self, *arguments: str) -> str:
        done = CliRunner().invoke(main, ["backfill", *arguments], env=self.environment)
        assert done.exit_code == 0, done.output
        return done.output


@pytest.fixture
def site(tmp_path: Path, valkey_url: str) -> Iterator[Site]:
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    home = dagster_home(tmp_path / "home")
    prices = (REPOSITORY / "featurestore/backfill/estimates/prices.toml").read_text()
    dear = tmp_path / "prices.toml"
    dear.write_text(
        "\n".join(
            "usd_per_compute_hour = 9000" if "usd_per_compute_hour" in line else line for line in prices.splitlines()
        )
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        sandbox = Sandbox(tmp_path, instance, catalog, now=FIRST + (DAYS + 30) * DAY, online_url=valkey_url)
        rows = [flight(day, carrier, 5.0 + day % 7) for day in range(DAYS) for carrier in ("UA", "B6")]
        sandbox.ingest(departures, [*rows, flight(DAYS - 1, "AA", IMPOSSIBLE)])
        mark = f"mark-{uuid4().hex}"
        environment = {
            "DAGSTER_HOME": str(home),
            "FEATURESTORE_SCHEDULE": "off",
            "FEATURESTORE_ROOT": str(sandbox.root),
            "FEATURESTORE_LANDING": str(sandbox.landing),
            "FEATURESTORE_ONLINE_URL": valkey_url,
            "FEATURESTORE_PRICES": str(dear),
            "FEATURESTORE_TEST_MARK": mark,
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONWARNINGS": "ignore",
        }
        yield Site(sandbox, environment, mark)


@pytest.fixture
def page(site: Site, tmp_path: Path) -> Iterator[Page]:
    pictures = Path(os.environ.get("FEATURESTORE_TEST_PICTURES", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1500,1000")
    with running_platform(site.environment, tmp_path / "logs") as platform:
        driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        try:
            yield Page(driver, platform.url, pictures)
        finally:
            driver.quit()
    assert processes_marked(site.mark) == {}


def test_sixty_days_are_held_approved_and_land_without_the_bad_one(site: Site, page: Page) -> None:
    launch_range(page, key(0), key(DAYS - 1))
    backfill_id = held_backfill(page, site)
    site.command("approve", backfill_id, "--as", OWNER, "--reason", "the formula was mended")
    page.open(f"/assets/{ASSET}?view=partitions&partition={key(DAYS - 1)}")
    landed = ("Failed (1)", f"Materialized ({DAYS - 1})", "Materializing (0)", key(DAYS - 1))
    page.shows(*landed)
    # The page keeps a banner of the run that it saw queued until it is loaded again.
    page.open(f"/assets/{ASSET}?view=partitions&partition={key(DAYS - 1)}")
    page.shows(*landed)
    page.picture("backfill-partitions")
    page.open(f"/assets/{ASSET}?view=checks")
    page.shows("gate", "Failed", key(DAYS - 1), "range of 'dep_delay_mean_7d' is")
    page.picture("backfill-checks")
    page.open(f"/assets/{ASSET}?view=partitions&partition={key(DAYS - 2)}")
    page.shows("correctness", "perfect", "difference")
    page.follow("[Show Markdown]")
    page.until(
        "the plot", lambda: page.driver.find_element(By.CSS_SELECTOR, "img[src^='data:image/svg']").size["height"] > 40
    )
    page.picture("backfill-difference")
    assert f"{DAYS - 1} promoted, 1 held" in site.command("status", backfill_id, "--dagster-url", page.url)
    assert site.sandbox.materialized(ASSET) == [key(day) for day in range(DAYS - 1)]


def launch_range(page: Page, first: str, last: str) -> None:
    """Choose a range in the launch dialog of the asset's page, and launch it."""
    page.open(f"/assets/{ASSET}?view=partitions")
    page.shows(f"{GROUP}", "Partitions Selected")
    page.press("Materialize")
    page.until("the launch dialog", lambda: page._buttons("Confirm") or "Launch runs to materialize" in page.text)
    if page._buttons(
        "Confirm"
    ):  # The rows were landed without a run of the raw assets, and the page asks if that is meant.
        page.press("Confirm")
    page.press("Show all partitions")
    boxes = page.driver.find_elements(By.CSS_SELECTOR, "input[type=text]")
    chosen = [box for box in boxes if box.is_displayed()][-1]
    chosen.send_keys(Keys.CONTROL, "a")
    chosen.send_keys(f"[{first}...{last}]", Keys.ENTER)
    page.shows(f"{DAYS} partitions")
    page.picture("backfill-launch")
    page.press("Launch backfill")


def held_backfill(page: Page, site: Site) -> str:
    """Wait until the backfill is seen to be held; its id."""
    book = site.sandbox.store.settings.book()
    page.until("the request", lambda: book.requests())
    (request,) = book.requests()
    assert (request.state, len(request.groups[0].keys)) == ("pending", DAYS)
    page.open(f"/runs/b/{request.backfill_id}?tab=runs")
    page.shows("Queued", "featurestore/admission: pending", "featurestore/estimate_usd")
    page.picture("backfill-held")
    assert site.sandbox.version(GROUP) is None
    return request.backfill_id
