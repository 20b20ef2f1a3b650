"""`online/<group>` as a person asks for more than a step: built anew, with its progress told."""

from typing import Any

import dagster as dg
import pytest
import redis

import feature_assets.online as online
from tests.platform.kiosks import MINUTE, T0, register
from tests.platform.sandbox import QUIET, Sandbox

GROUP = "kiosk_profile"


@pytest.fixture
def filled(sandbox: Sandbox, valkey_url: str) -> Sandbox:
    """A static group of three kiosks, served."""
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    sandbox.online_url = valkey_url
    sandbox.now = T0 + MINUTE
    sandbox.ingest(register, [{"kiosk": name, "seats": 3} for name in "abc"])
    assert sandbox.run(f"offline/{GROUP}", f"online/{GROUP}").success
    return sandbox


def run(sandbox: Sandbox, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    job = sandbox.definitions().resolve_implicit_global_asset_job_def()
    asked = {"ops": {f"online__{GROUP}": {"config": config}}} if config else {}
    return job.execute_in_process(
        instance=sandbox.instance, asset_selection=[dg.AssetKey(["online", GROUP])], run_config={**QUIET, **asked}
    )


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(f"online__{GROUP}")
    return {name: value.value for name, value in event.metadata.items()}


def test_a_run_builds_the_copy_anew_only_when_asked(filled: Sandbox) -> None:
    assert (told(run(filled, {}))["was_rebuilt"], told(run(filled, {}))["keys"]) == (False, 0)
    rebuilt = told(run(filled, {"rebuild": True}))
    assert (rebuilt["was_rebuilt"], rebuilt["written"], rebuilt["slices"]) == (True, 3, 1)
    assert rebuilt["rows_per_second"] > 0
    answer = filled.store.get_online_features([f"{GROUP}:seats"], [{"kiosk": "b"}])
    assert answer.to_dict()["seats"] == [3]


def test_an_emptied_server_is_filled_by_an_ordinary_run(filled: Sandbox, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    assert told(run(filled, {}))["was_rebuilt"]


def test_a_long_run_says_how_far_it_is(filled: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "EVERY_SECONDS", 0.0)
    result = run(filled, {"rebuild": True})
    tags = filled.instance.get_run_by_id(result.run_id)
    assert tags is not None
    said = tags.tags["featurestore/progress"]
    assert said.startswith(f"{GROUP} is built anew in hot 127.0.0.1:")
    assert "1 of 1 slices done, 3 rows" in said
