"""What a whole exam cannot do without fails it, and what is waived, or lacks in a smaller one, is skipped."""

import sys
from pathlib import Path

import pytest

from tests import browser
from tests.scale import WITHOUT, require_programs

MISSING = "no-such-program-anywhere"


def asked(monkeypatch: pytest.MonkeyPatch, scale: str, without: str) -> str:
    """How a test ends that needs a program which is not there."""
    monkeypatch.setenv("FEATURESTORE_EXAM_SCALE", scale)
    monkeypatch.setenv(WITHOUT, without)
    with pytest.raises(BaseException, match=MISSING) as ended:
        require_programs("a-server", MISSING, remedy="apt-get install a-server")
    if ended.errisinstance(pytest.fail.Exception):
        assert "apt-get install a-server" in str(ended.value)
        assert f"{WITHOUT}=a-server" in str(ended.value)
    return type(ended.value).__name__


@pytest.mark.parametrize(
    ("scale", "without", "end"),
    [
        ("0", "", "Skipped"),
        ("0.1", "", "Skipped"),
        ("1", "", "Failed"),
        ("1", "another-server", "Failed"),
        ("1", "another-server, a-server", "Skipped"),
        ("2", "", "Failed"),
    ],
)
def test_a_whole_exam_fails_without_a_server_that_is_not_waived(
    monkeypatch: pytest.MonkeyPatch, scale: str, without: str, end: str
) -> None:
    assert asked(monkeypatch, scale, without) == end


def test_what_is_there_is_not_missed() -> None:
    require_programs("a shell", "sh", remedy="none")


@pytest.mark.parametrize("lacked", ["CHROMIUM", "DRIVER"])
def test_a_whole_exam_fails_without_a_browser_that_is_not_waived(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacked: str
) -> None:
    for name in ("CHROMIUM", "DRIVER"):
        monkeypatch.setattr(browser, name, sys.executable)
    monkeypatch.setattr(browser, lacked, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("FEATURESTORE_EXAM_SCALE", "1")
    monkeypatch.delenv(WITHOUT, raising=False)
    with pytest.raises(
        pytest.fail.Exception, match=f"apt-get install chromium chromium-driver; or set {WITHOUT}=chromium"
    ):
        browser.require_chromium()
    monkeypatch.setenv(WITHOUT, "chromium")
    with pytest.raises(pytest.skip.Exception):
        browser.require_chromium()
