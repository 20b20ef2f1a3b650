"""`featurestore alerts`: who is told, what is wrong, what waits, and a word to a sink."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from featurestore.alerts.book import AlertBook
from featurestore.alerts.outbox import Outbox
from featurestore.alerts.problem import watched_in
from featurestore.cli.main import main
from featurestore.location import Location
from featurestore.registry.history import RegistryHistory
from featurestore.settings import Settings
from tests.alert_problems import BLAMED, T0, look, problem
from tests.catalogs import shops
from tests.contract.receivers import http_receiver

NOW = T0 + timedelta(hours=1)
GROUP = "shop_sales_daily"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    RegistryHistory(Location(str(tmp_path / "store"))).apply(shops(), lambda: T0, "tests")
    routes = tmp_path / "alerts.toml"
    routes.write_text('default = ["chat"]\n[sinks.chat]\nkind = "slack"\nurl_env = "CHAT_URL"\n')
    monkeypatch.delenv("CHAT_URL", raising=False)
    return {"FEATURESTORE_ROOT": str(tmp_path / "store"), "FEATURESTORE_ALERTS": str(routes)}


def run(environment: dict[str, str], *arguments: str) -> Any:
    return CliRunner().invoke(main, ["alerts", *arguments], env=environment, obj=lambda: NOW)


def book_of(environment: dict[str, str]) -> AlertBook:
    settings = Settings.from_env(environment)
    book = settings.alert_book(lambda: T0)
    registry = RegistryHistory(settings.root).require_current()
    one = problem(GROUP, "BREACH", blamed=BLAMED)
    spoken = [("freshness", GROUP), ("freshness", "shop_profile")]
    for look_ in (
        look(T0, one, problem("shop_profile"), spoken=spoken),  # type: ignore[arg-type]
        look(T0 + timedelta(minutes=5), one, spoken=spoken),  # type: ignore[arg-type]
    ):
        book.reconcile(look_, watched_in(registry), settings.alert_routing())
    return book


def test_check_says_whom_alerts_of_each_group_reach_and_which_variables_are_not_set(
    environment: dict[str, str],
) -> None:
    shown = run(environment, "check").output
    assert "chat  slack  CHAT_URL" in shown
    assert f"{GROUP} " in shown
    document = json.loads(run({**environment, "CHAT_URL": "http://x"}, "check", "--kind", "drift", "--json").output)
    assert (document["kind"], document["sinks"][0]["not_set"]) == ("drift", [])
    assert {one["group"] for one in document["groups"]} >= {GROUP, "raw/sales"}
    assert all(one["breach"] == ["chat"] for one in document["groups"] if one["alerts"] != "off")


def test_without_a_file_it_says_that_nobody_is_told(environment: dict[str, str]) -> None:
    done = run({**environment, "FEATURESTORE_ALERTS": ""}, "check")
    assert (done.exit_code, "nobody is told of anything" in done.output) == (1, True)


def test_list_shows_what_goes_on_what_ended_lately_and_what_waits(environment: dict[str, str]) -> None:
    assert run(environment, "list").output == "Nothing is wrong, and nothing was lately.\n"
    outbox = Outbox(book_of(environment).database)
    outbox.lease("chat", "w", T0)
    outbox.unreachable("chat", T0, "No answer: refused.")
    shown = run(environment, "list").output
    assert "raw/orders" in shown
    assert "55 min ago" in shown
    assert "Sink chat could not be reached (tried: 1): No answer: refused." in shown
    assert shown.count("To chat: ") == 3
    document = json.loads(run(environment, "list", "--days", "0", "--json").output)
    (one,) = document["episodes"]
    assert (one["group"], one["status"], one["first_late"]["owner"]) == (GROUP, "BREACH", "team:tills")
    assert len(document["waiting"]) == 3


def test_a_test_goes_to_the_sink_at_once_and_what_fails_is_said(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "CHAT_URL is not set" in run(environment, "test", "chat").output
    assert "Did you mean 'chat'?" in run(environment, "test", "chatt").output
    with http_receiver() as chat:
        monkeypatch.setenv("CHAT_URL", f"{chat.url}/secretpath")
        assert "Sink chat took test alert" in run(environment, "test", "chat").output
        assert chat.documents()[0]["text"] == "Test: freshness of test"
        chat.answers.append(403)
        refused = run(environment, "test", "chat")
    assert (refused.exit_code, "HTTP 403" in refused.output, "secretpath" in refused.output) == (1, True, False)
