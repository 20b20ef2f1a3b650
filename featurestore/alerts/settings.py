"""What a sink needs to know, as the file says it: checked plain values without a secret in them. Not here: how a sink is reached.

Of secrets only the names of the environment variables are known; `secret` looks one up when something is sent.
"""

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from featurestore.errors import InvalidInput

Security = Literal["starttls", "tls", "none"]


@dataclass(frozen=True, slots=True)
class SlackSettings:
    """A Slack-compatible incoming webhook. Its address is a secret."""

    url_env: str


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Any HTTP address that takes our JSON; `token_env` names the variable of a bearer token."""

    url: str = ""
    url_env: str = ""
    token_env: str = ""


@dataclass(frozen=True, slots=True)
class AlertmanagerSettings:
    """Prometheus Alertmanager, by the address of its pages; a bearer token, or a user with a password, where one is asked for."""

    url: str = ""
    url_env: str = ""
    token_env: str = ""
    username: str = ""
    password_env: str = ""


@dataclass(frozen=True, slots=True)
class EmailSettings:
    """A mail server, and who writes to whom."""

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    security: Security = "starttls"
    username: str = ""
    password_env: str = ""


SinkSettings = SlackSettings | WebhookSettings | AlertmanagerSettings | EmailSettings
SETTINGS: dict[str, type[SinkSettings]] = {
    "slack": SlackSettings,
    "webhook": WebhookSettings,
    "alertmanager": AlertmanagerSettings,
    "email": EmailSettings,
}


def sink_settings(where: str, table: Mapping[str, Any]) -> SinkSettings:
    """The settings of one sink.

    Args:
        where: What to call it in messages.
        table: As the file has it, with its `kind`.

    Raises:
        InvalidInput: something is missing, unknown or of another type; the message has what to write.
    """
    kind = table.get("kind")
    if kind not in SETTINGS:
        raise InvalidInput(f"{where}: kind is {kind!r}. Write one of {sorted(SETTINGS)}.")
    given = {name: value for name, value in table.items() if name != "kind"}
    known = {one.name: one for one in fields(SETTINGS[kind])}
    if others := sorted(set(given) - set(known)):
        raise InvalidInput(f"{where} has {others}; a sink of kind {kind!r} knows {sorted(known)}.{_hint(others)}")
    if missing := [name for name, one in known.items() if one.default is MISSING and name not in given]:
        raise InvalidInput(f"{where} lacks {missing}: a sink of kind {kind!r} needs them.")
    for name, value in given.items():
        _check_value(f"{where}: {name}", name, value)
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    made = SETTINGS[kind](**values)
    _check_whole(where, made)
    return made


def secret(variable: str) -> str:
    """The value of an environment variable, looked up when it is needed.

    Raises:
        InvalidInput: it is not set.
    """
    value = os.environ.get(variable, "")
    if not value:
        raise InvalidInput(f"The environment variable {variable} is not set. Set it where the code location runs.")
    return value


def variables_of(settings: SinkSettings) -> list[str]:
    """The environment variables that a sink reads."""
    named = [getattr(settings, one.name) for one in fields(settings) if one.name.endswith("_env")]
    return [name for name in named if name]


def _hint(others: list[str]) -> str:
    """Who writes a secret into the file is told where it belongs."""
    secrets = [name for name in others if f"{name}_env" in ("url_env", "token_env", "password_env")]
    return (
        f" A secret stays out of the file: write {secrets[0]}_env = the name of an environment variable."
        if secrets
        else ""
    )


def _check_value(where: str, name: str, value: Any) -> None:
    if name == "to":
        if not isinstance(value, list) or not value or not all(isinstance(one, str) and "@" in one for one in value):
            raise InvalidInput(f'{where} is no list of addresses. Write to = ["team@example.org"].')
    elif name == "port":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
            raise InvalidInput(f"{where} is {value!r}. Write a number from 1 to 65535.")
    elif name == "security":
        if value not in get_args(Security):
            raise InvalidInput(f"{where} is {value!r}. Write one of {list(get_args(Security))}.")
    elif not isinstance(value, str) or not value:
        raise InvalidInput(f"{where} is no text. Write one in quotes.")
    elif name.endswith("_env") and not value.replace("_", "a").isalnum():
        raise InvalidInput(f"{where} is no name of an environment variable. Write its name, never what it holds.")
    elif name == "url":
        _check_url(where, value)
    elif name == "sender" and "@" not in value:
        raise InvalidInput(f"{where} is no address. Write featurestore@example.org.")


def _check_url(where: str, value: str) -> None:
    """What does not look like an address is not shown: it may be a secret in the wrong place."""
    try:
        parts = urlsplit(value)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_good, parts = False, urlsplit("")
    if not is_good:
        raise InvalidInput(f"{where} is no address. Write http://host:port/path or https://...")
    if "@" in value:  # also behind a '/' of a password, which would be taken for the end of the host
        raise InvalidInput(
            f"{where} holds a user or a password. Name the variable that holds the whole address: url_env. An @ of a path is "
            "written %40."
        )


def _check_whole(where: str, made: SinkSettings) -> None:
    if isinstance(made, WebhookSettings | AlertmanagerSettings) and bool(made.url) == bool(made.url_env):
        raise InvalidInput(f"{where} needs its address once: url, or url_env = the name of the variable that holds it.")
    if isinstance(made, AlertmanagerSettings | EmailSettings) and bool(made.username) != bool(made.password_env):
        raise InvalidInput(f"{where} has one of username and password_env. Write both, or neither.")
    if isinstance(made, AlertmanagerSettings) and made.token_env and made.username:
        raise InvalidInput(f"{where} has both token_env and username. Write one of them.")
    if isinstance(made, EmailSettings) and made.username and made.security == "none":
        raise InvalidInput(f"{where} would send its password in the clear. Write security = 'starttls' or 'tls'.")
