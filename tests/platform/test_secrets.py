"""Passwords of a deployment, and what Dagster shows and keeps of it: its storage, its pages, the logs of its runs."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from featurestore.errors import InvalidInput
from featurestore.settings import Settings
from resources.store import StoreResource
from tests.platform.sandbox import ONLINE_URL, Sandbox, failure_of, log_of

SECRET = "hushhush"
ADDRESS = f"redis://user:{SECRET}@127.0.0.1:1/0"
ONLINE = "online/kiosk_sales_daily"


@pytest.fixture
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses with passwords, at which nobody answers."""
    monkeypatch.setenv("FEATURESTORE_METADATA_URL", f"postgresql://user:{SECRET}@127.0.0.1:1/metadata")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{SECRET}-of-aws")


@pytest.mark.exam
def test_no_password_is_in_a_runs_storage_its_log_or_what_the_pages_show(
    tmp_path: Path, passwords: None, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The run fails where the address is used, which is where it could be shown; its retries wait for half a minute."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        sandbox = Sandbox(tmp_path, instance, online_url=ADDRESS)
        result = sandbox.run(ONLINE)
        assert "127.0.0.1:1" in failure_of(result), "the address was used"
        shown = [failure_of(result), log_of(sandbox, result), caplog.text, *capfd.readouterr()]
        shown.append(dg.serialize_value(RepositorySnap.from_def(sandbox.definitions().get_repository_def())))
    assert ONLINE_URL in shown[-1], "resources are part of what the pages show"
    assert [text for text in shown if SECRET in text] == []
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"kiosk_sales_daily" in kept
    assert SECRET.encode() not in kept


def test_a_resource_names_the_variable_that_holds_an_address_and_repeats_nothing_else(
    monkeypatch: pytest.MonkeyPatch, passwords: None
) -> None:
    monkeypatch.setenv("FEATURESTORE_ONLINE_URL", "redis://usual")
    monkeypatch.setenv("OTHER", ADDRESS)
    monkeypatch.setenv("FEATURESTORE_AUTH", "on")
    assert StoreResource().settings() == Settings.from_env()
    other = StoreResource(online_url_variable="OTHER")
    assert other.settings().online_url == ADDRESS
    assert SECRET not in f"{other!r} {other.settings()!r} {other.feature_store()!r} {other.model_dump()}"
    with pytest.raises(InvalidInput, match="never the address") as refused:
        StoreResource(online_url_variable=ADDRESS).settings()
    assert SECRET not in str(refused.value)
