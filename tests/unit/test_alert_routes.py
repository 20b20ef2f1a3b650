"""The file of sinks and routes: who is told of what, and what each mistake is answered with."""

import re
from pathlib import Path

import pytest

from featurestore.alerts.kinds import Kind, Severity
from featurestore.alerts.problem import Watched
from featurestore.alerts.routes import read_routing, routing_from
from featurestore.alerts.settings import EmailSettings, variables_of
from featurestore.errors import InvalidInput

CHAT = '[sinks.chat]\nkind = "slack"\nurl_env = "CHAT_URL"\n'
HOOK = '[sinks.hook]\nkind = "webhook"\nurl = "https://example.org/x"\n'
MAIL = '[sinks.mail]\nkind = "email"\nhost = "mail.example.org"\nsender = "a@example.org"\nto = ["b@example.org"]\n'
SECRET = "averysecrettext"

FLIGHTS = Watched("carrier_delay_daily", "team:network-operations", "daily", "ticket")
PAGING = Watched("weather_origin_hourly", "team:flight-data", "hourly", "page")
SOURCE = Watched("raw/weather", "team:flight-data", "", "ticket")


def told(text: str, watched: Watched, status: Severity = "BREACH", kind: Kind = "freshness") -> list[str]:
    return list(routing_from(text, "alerts.toml").sinks_of(kind, watched, status))


def test_every_route_that_matches_applies_and_what_none_takes_goes_to_the_default() -> None:
    text = (
        'default = ["mail"]\n' + CHAT + HOOK + MAIL
        + '[[routes]]\nurgency = "page"\nsinks = ["hook"]\n'
        + '[[routes]]\nowner = "team:flight-*"\ntier = ["hourly", "daily"]\nsinks = ["chat", "hook"]\n'
        + '[[routes]]\ngroup = "raw/*"\nkind = "landing"\nsinks = "chat"\n'
    )  # fmt: skip
    assert told(text, PAGING) == ["chat", "hook"]
    assert told(text, PAGING, "WARN") == ["chat", "hook"]
    assert told(text, FLIGHTS) == ["mail"]
    assert told(text, SOURCE, "WARN", "landing") == ["chat"]
    assert told(text, SOURCE, "WARN", "drift") == ["mail"]


def test_only_a_breach_of_a_group_that_pages_is_a_page() -> None:
    text = CHAT + '[[routes]]\nurgency = "page"\nsinks = ["chat"]\n'
    assert [told(text, one, status) for one in (PAGING, FLIGHTS) for status in ("BREACH", "WARN")] == [
        ["chat"], [], [], [],
    ]  # fmt: skip


def test_without_a_file_nobody_is_told() -> None:
    assert read_routing("").sinks == {}


def test_settings_name_the_variables_that_they_read() -> None:
    text = MAIL + 'username = "store"\npassword_env = "MAIL_PASSWORD"\n'
    (settings,) = routing_from(text, "alerts.toml").sinks.values()
    assert isinstance(settings, EmailSettings)
    assert (variables_of(settings), settings.port, settings.security) == (["MAIL_PASSWORD"], 587, "starttls")


MISTAKES = {
    "no TOML": ("[sinks", "alerts.toml is no TOML"),
    "no sink": ("", "has no sink. Write [sinks.team]"),
    "unknown table": (CHAT + "[route]\n", "has ['route']. What can be said there: ['default', 'routes', 'sinks']"),
    "unknown kind of sink": ('[sinks.x]\nkind = "pigeon"\n', "Write one of ['alertmanager', 'email', 'slack', 'webhook']"),
    "sink that is no table": ("[sinks]\nx = 1\n", "Write each sink as [sinks.NAME]"),
    "missing field": ('[sinks.x]\nkind = "slack"\n', "lacks ['url_env']"),
    "unknown field": (CHAT + 'chanel = "x"\n', "has ['chanel']; a sink of kind 'slack' knows ['url_env']"),
    "secret address": (f'[sinks.x]\nkind = "slack"\nurl = "https://x/{SECRET}"\n', "write url_env = the name of"),
    "secret token": (HOOK + f'token = "{SECRET}"\n', "write token_env = the name of"),
    "password with a slash": (
        f'[sinks.x]\nkind = "webhook"\nurl = "https://user:12/{SECRET}@x"\n',
        "holds a user or a password",
    ),
    "address as variable": (f'[sinks.x]\nkind = "slack"\nurl_env = "https://x/{SECRET}"\n', "never what it holds"),
    "password in the address": (
        f'[sinks.x]\nkind = "webhook"\nurl = "https://ana:{SECRET}@example.org"\n', "Name the variable that holds the whole",
    ),
    "no address": (f'[sinks.x]\nkind = "webhook"\nurl = "{SECRET}"\n', "is no address. Write http://host:port/path"),
    "two addresses": (HOOK + 'url_env = "X"\n', "needs its address once"),
    "user without password": (MAIL + 'username = "ana"\n', "has one of username and password_env"),
    "password in the clear": (
        MAIL + 'username = "ana"\npassword_env = "X"\nsecurity = "none"\n', "would send its password in the clear",
    ),
    "no addressee": (MAIL.replace('["b@example.org"]', "[]"), 'Write to = ["team@example.org"]'),
    "no port": (MAIL + "port = 70000\n", "Write a number from 1 to 65535"),
    "unknown security": (MAIL + 'security = "ssl"\n', "Write one of ['starttls', 'tls', 'none']"),
    "unknown default": ('default = ["chta"]\n' + CHAT, "names ['chta']; the sinks are ['chat']"),
    "default that is no list": ("default = 3\n" + CHAT, "Write a text, or a list of texts"),
    "route to nobody": (CHAT + '[[routes]]\ntier = "daily"\n', "tells nobody. Write sinks = ['chat']"),
    "route to an unknown sink": (CHAT + '[[routes]]\nsinks = ["pager"]\n', "names ['pager']; the sinks are ['chat']"),
    "unknown matcher": (CHAT + '[[routes]]\nteam = "x"\nsinks = ["chat"]\n', "has ['team']. What can be said there"),
    "unknown urgency": (CHAT + '[[routes]]\nurgency = "high"\nsinks = ["chat"]\n', "matches none of ['page', 'ticket']"),
    "unknown kind": (CHAT + '[[routes]]\nkind = "late"\nsinks = ["chat"]\n', "matches none of ['freshness'"),
    "matcher that is no text": (CHAT + '[[routes]]\ntier = 3\nsinks = ["chat"]\n', "Write a text, or a list of texts"),
    "routes as a table": (CHAT + '[routes]\nsinks = ["chat"]\n', "Write each as [[routes]]"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_refused_with_what_to_write_and_without_a_secret(mistake: str, tmp_path: Path) -> None:
    text, answer = MISTAKES[mistake]
    (tmp_path / "alerts.toml").write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(answer)) as refused:
        read_routing(str(tmp_path / "alerts.toml"))
    assert SECRET not in str(refused.value)
    assert "alerts.toml" in str(refused.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"FEATURESTORE_ALERTS names '/nowhere/alerts.toml', which cannot be read"):
        read_routing("/nowhere/alerts.toml")
