"""A person's path in Dagster's own pages: sixty days launched, held for approval, approved, and one bad day left behind.

It needs Chromium and its driver, a web server and a daemon, so all of it waits for the exam.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
import redis
from click.testing import CliRunner
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from deploy.platform import running_platform
from feature_assets.groups.flights import catalog
from feature_assets.groups.flights.sources import departures
from featurestore.cli.main import main
from tests.browser import Page, needs_chromium, open_page
from tests.platform.airline import DAY, FIRST, REPOSITORY, dagster_home, flight, key, processes_marked
from tests.platform.sandbox import Sandbox
from tests.waiting import wait_for

pytestmark = [pytest.mark.exam, needs_chromium]

GROUP = "carrier_delay_daily"
ASSET = f"offline/{GROUP}"
OWNER = "team:network-operations"
DAYS = 60
IMPOSSIBLE = 50_000.0


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
    with (
        running_platform(site.environment, tmp_path / "logs") as platform,
        open_page(platform.url, tmp_path, (1500, 1000)) as opened,
    ):
        yield opened
    wait_for("the end of every process", lambda: processes_marked(site.mark) == {}, 60)


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
    page.until("the launch dialog", lambda: is_asking_for_partitions(page))
    page.press("Show all partitions")
    page.until("the box of partitions", lambda: any(fill(box, f"[{first}...{last}]") for box in boxes(page)[-1:]))
    page.shows(f"{DAYS} partitions")
    page.picture("backfill-launch")
    page.press("Launch backfill")


def is_asking_for_partitions(page: Page) -> bool:
    """The rows were landed without a run of the raw assets: the page may ask before if that is meant."""
    for button in page.buttons("Confirm")[-1:]:
        button.click()
    return "Launch runs to materialize" in page.text


def fill(box: WebElement, text: str) -> bool:
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(text, Keys.ENTER)
    return True


def boxes(page: Page) -> list[WebElement]:
    return [box for box in page.driver.find_elements(By.CSS_SELECTOR, "input[type=text]") if box.is_displayed()]


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
