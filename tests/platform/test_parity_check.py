"""The parity check of online assets: it runs after each move and by itself, and fails a run visibly for what is not the table's."""

import struct
from typing import Any

import dagster as dg
import pytest
import redis

from definitions import build_definitions
from featurestore.declaration import Daily
from resources.store import StoreResource
from tests.platform.kiosks import (
    HOUR,
    MINUTE,
    START,
    T0,
    hour_key,
    kiosk_orders_hourly,
    kiosk_profile,
    kiosks,
    order,
    orders,
    register,
)
from tests.platform.sandbox import QUIET, Sandbox, failure_of

HOURLY = "kiosk_orders_hourly"
ONLINE = f"online/{HOURLY}"
HORIZON = T0 + HOUR + 15 * MINUTE


@pytest.fixture
def served(sandbox: Sandbox, valkey_url: str) -> Sandbox:
    """Three kiosks with an order each in the first hour, computed and served."""
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    sandbox.online_url = valkey_url
    sandbox.use(kiosks(kiosk_orders_hourly, kiosk_profile))
    sandbox.ingest(orders, [order(at, T0 + 20 * MINUTE, 10.0, kiosk=kiosk) for at, kiosk in enumerate("abc")])
    sandbox.now = HORIZON
    assert sandbox.run(f"offline/{HOURLY}", partitions=[hour_key(0)]).success
    assert sandbox.run(ONLINE).success
    return sandbox


def check_alone(sandbox: Sandbox, **config: Any) -> dg.ExecuteInProcessResult:
    """Run the check without moving the copy."""
    job = sandbox.definitions().resolve_implicit_global_asset_job_def()
    key = dg.AssetCheckKey(dg.AssetKey(["online", HOURLY]), "parity")
    run_config = {**QUIET, "ops": {f"parity__{HOURLY}": {"config": config}}}
    return job.get_subset(asset_check_selection={key}).execute_in_process(
        instance=sandbox.instance, run_config=run_config, raise_on_error=False
    )


def last(sandbox: Sandbox) -> Any:
    """The newest evaluation of the check."""
    (newest, *_) = sandbox.checks(ONLINE, "parity")
    assert newest.event is not None
    assert newest.event.dagster_event is not None
    return newest.event.dagster_event.event_specific_data


def metadata(sandbox: Sandbox) -> dict[str, Any]:
    return {name: entry.value for name, entry in last(sandbox).metadata.items()}


def test_every_online_asset_has_the_blocking_check() -> None:
    definitions = build_definitions(kiosks(), landing=Daily(start=START), training=[], store=StoreResource())
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        checks = {check.name: graph.get_check_spec(check) for check in graph.get_check_keys_for_assets({key})}
        assert ("parity" in checks) == (key.path[0] == "online")
        assert all(spec.blocking for name, spec in checks.items() if name == "parity")


def test_move_of_a_copy_is_followed_by_its_check(served: Sandbox) -> None:
    assert last(served).passed
    told = metadata(served)
    assert (told["entities"], told["values"], told["wrong"], told["missing"]) == (3, 6, 0, 0)
    (part,) = told["parts"]
    assert part["equal"] == 6
    assert part["as_of"] == HORIZON.isoformat()
    assert part["table_version"] == served.version(HOURLY)


def test_static_group_without_a_ttl_is_checked_too(served: Sandbox) -> None:
    served.ingest(register, [{"kiosk": "a", "seats": 4}])
    assert served.run("offline/kiosk_profile", "online/kiosk_profile").success
    (check,) = served.checks("online/kiosk_profile", "parity")
    data: Any = check.event.dagster_event.event_specific_data  # type: ignore[union-attr]
    assert data.passed
    assert data.metadata["entities"].value == 1


def test_copy_of_a_group_without_rows_passes(served: Sandbox) -> None:
    assert served.run("online/kiosk_profile").success


def test_missing_key_fails_the_run_and_shows_the_entity(served: Sandbox, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as server:
        assert server.delete(f"{HOURLY}:b") == 1
    result = check_alone(served, entities=50, seed=7)
    assert not result.success
    evaluation = last(served)
    assert (evaluation.passed, evaluation.severity, evaluation.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
    assert "2 are missing online" in evaluation.description
    assert f"featurestore materialize {HOURLY} --rebuild" in evaluation.description
    told = metadata(served)
    assert (told["missing"], told["wrong"], told["seed"]) == (2, 0, 7)
    assert [example["entity"] for example in told["examples"]] == [{"kiosk": "b"}, {"kiosk": "b"}]
    assert "parity" in failure_of(result)


def test_move_that_changes_nothing_still_fails_for_a_corrupted_value(served: Sandbox, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as server:
        corrupted = server.get(f"{HOURLY}:b").replace(struct.pack("<d", 10.0), struct.pack("<d", 11.0))
        server.set(f"{HOURLY}:b", corrupted)
    result = served.run(ONLINE)
    assert not result.success
    assert [event.asset_key for event in result.get_asset_materialization_events()] == [dg.AssetKey(["online", HOURLY])]
    examples = metadata(served)["examples"]
    assert {(one["class"], one["entity"]["kiosk"], one["online"]["version"]) for one in examples} == {
        ("wrong", "b", "unreadable")
    }
    shown = {one["feature"]: (one["online"]["value"], one["offline"]["value"]) for one in examples}
    assert len(examples) == 2, "the whole message is refused"
    assert shown["amount_2h"] == (None, 10.0)


def test_stale_value_fails_the_run_and_a_rebuild_mends_it(served: Sandbox, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as server:
        stale = server.get(f"{HOURLY}:a")
        served.ingest(orders, [order("late", T0 + 80 * MINUTE, 5.0, kiosk="a")])
        served.now = HORIZON + HOUR
        assert served.run(f"offline/{HOURLY}", partitions=[hour_key(1)]).success
        assert served.run(ONLINE).success
        server.set(f"{HOURLY}:a", stale)
    assert not check_alone(served).success
    assert {example["offline"]["value"] for example in metadata(served)["examples"]} == {15.0, 2}
    served.store.materialize([HOURLY], rebuild=True)
    assert check_alone(served).success


def test_part_without_a_copy_is_a_warning_that_blocks_nothing(served: Sandbox, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    assert check_alone(served).success
    evaluation = last(served)
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "was not compared" in evaluation.description
