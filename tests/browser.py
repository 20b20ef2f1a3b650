"""A headless Chromium for tests of pages; without it and its driver they say so and are skipped, and a whole exam fails."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.scale import require_programs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.usefixtures("chromium")
PATIENCE_SECONDS = 600.0


def require_chromium() -> None:
    """Skip a test where there is no Chromium or no driver of it; fail it in a whole exam."""
    programs = (CHROMIUM or "chromium", DRIVER or "chromedriver")
    require_programs("chromium", *programs, remedy="on Debian: apt-get install chromium chromium-driver")


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
        self.until(f"button {label}", lambda: any(button.click() is None for button in self.buttons(label)[-1:]))

    def follow(self, label: str) -> None:
        """Press what has exactly a text and is no button."""
        self.until(label, lambda: self.driver.find_element(By.XPATH, f"//*[text()='{label}']").click() is None)

    def buttons(self, label: str) -> list[WebElement]:
        return [b for b in self.driver.find_elements(By.XPATH, f"//button[contains(., '{label}')]") if b.is_enabled()]

    def shows(self, *words: str) -> None:
        for word in words:
            self.until(word, lambda word=word: word in self.text)

    def picture(self, name: str) -> None:
        """Take a picture; one of a page that is just being drawn is as good as empty, and is taken again."""
        target = self.pictures / f"{name}.png"

        def is_taken() -> bool:
            return bool(self.driver.save_screenshot(str(target))) and target.stat().st_size > 20_000

        self.until(f"something on {target}", is_taken, 60)


@contextmanager
def open_page(url: str, folder: Path, size: tuple[int, int]) -> Iterator[Page]:
    """A browser with a window of so many pixels; its pictures go to `folder`, or where `FEATURESTORE_TEST_PICTURES` says."""
    pictures = Path(os.environ.get("FEATURESTORE_TEST_PICTURES", folder))
    pictures.mkdir(parents=True, exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={size[0]},{size[1]}")
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield Page(driver, url, pictures)
    finally:
        driver.quit()
