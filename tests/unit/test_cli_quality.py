"""`quality` and `training` from a shell: what was kept, how far it is from its references, and which training set counts."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from featurestore.cli.main import main
from featurestore.loading import materialize_load
from featurestore.registry.history import RegistryHistory
from tests.catalogs import DAY, T0, Clock, Shops, register, shop_profile
from tests.unit.test_quality_recording import drifting, run, train

GROUP, SERVICE = "shop_sales_daily", "shop_model_v1"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Shops:
    """Nine calm days and a training set of the first ones."""
    chain = Shops(Path(tmp_path_factory.mktemp("store")), Clock(T0 + 100 * DAY, ticks=True))
    drifting(chain)
    RegistryHistory(chain.store.root).apply(chain.catalog, chain.clock, "anna")
    run(chain, 0, 9)
    train(chain, 3, 7)
    return chain


def call(chain: Shops, *words: str, exit_code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["--root", str(chain.root), *words], obj=chain.clock)
    assert done.exit_code == exit_code, done.output
    return done


def document(chain: Shops, *words: str) -> Any:
    return json.loads(call(chain, *words, "--json").stdout)


def test_newest_window_is_shown_with_each_feature_and_its_drift(chain: Shops) -> None:
    text = call(chain, "quality", GROUP).stdout
    assert [line.split()[:3] for line in text.splitlines()[1:]] == [
        ["2026-03-09", "00:00", "revenue"],
        ["2026-03-09", "00:00", "sales_2d"],
    ]
    assert "2 100%" in text
    assert "none (training set" in text


def test_json_has_the_windows_asked_for_and_every_measure(chain: Shops) -> None:
    found = document(chain, "quality", GROUP, "--feature", "revenue", "--from", "2026-03-06", "--to", "2026-03-08")
    assert [window["window"][:10] for window in found["windows"]] == ["2026-03-06", "2026-03-07", "2026-03-08"]
    assert [window["status"] for window in found["windows"]] == ["unjudged", "pass", "pass"]
    [feature] = found["windows"][-1]["features"]
    assert (feature["feature"], feature["count"], feature["null_fraction"]) == ("revenue", 250, 0)
    assert feature["min"] <= feature["p01"] <= feature["p50"] <= feature["p99"] <= feature["max"]
    [drift] = feature["drift"]
    assert set(drift["measures"]) == {"psi", "ks", "null_rise"}
    assert (drift["windows"], drift["is_beyond"]) == (4, False)


def test_static_group_has_its_load_and_no_drift(chain: Shops) -> None:
    chain.land(register, [{"shop": f"s{n}", "area": n + 1, "town": "a"} for n in range(10)])
    materialize_load(chain.store, chain.catalog, shop_profile, run_id="load")
    [window] = document(chain, "quality", "shop_profile", "--from", "2026-03-01")["windows"]
    assert window["status"] is None
    assert {one["feature"]: one["distinct"] for one in window["features"]} == {"area": 10, "town": 1}


def test_what_is_not_there_is_said(chain: Shops) -> None:
    assert "no window asked for" in call(chain, "quality", "shop_sales_hourly").stdout
    assert "revenu" in call(chain, "quality", GROUP, "--feature", "revenu", exit_code=1).stderr
    assert "is not a partition key" in call(chain, "quality", GROUP, "--from", "yesterday", exit_code=1).stderr
    assert "is not a day" in call(chain, "quality", "shop_profile", "--from", "yesterday", exit_code=1).stderr


def test_training_sets_are_listed_and_one_can_be_named_deployed(chain: Shops) -> None:
    before = document(chain, "training", SERVICE)
    assert (before["is_chosen"], len(before["sets"]), before["sets"][0]["windows"]) == (False, 1, 4)
    name = before["deployed"]
    assert "named" in call(chain, "training", SERVICE, "--deploy", name).stdout
    assert document(chain, "training", SERVICE)["is_chosen"]
    assert name in call(chain, "training", SERVICE, "--deploy", "nothing", exit_code=1).stderr
