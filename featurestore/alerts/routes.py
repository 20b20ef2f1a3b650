"""Who is told of what: the file that `FEATURESTORE_ALERTS` names, read and checked. Not here: how a sink is reached.

Every mistake is refused with what to write. Secrets are never in the file: it names the environment variables that hold them.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

from featurestore.alerts.kinds import Kind, Severity, Urgency
from featurestore.alerts.problem import Watched
from featurestore.alerts.settings import SETTINGS, SinkSettings, sink_settings
from featurestore.errors import InvalidInput

MATCHERS: dict[str, tuple[str, ...]] = {
    "owner": (),
    "tier": (),
    "group": (),
    "kind": get_args(Kind),
    "urgency": get_args(Urgency),
}
"""What a route can look at, and which values there are; () for any, with '*' and '?'."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who is told of what matches: every matcher that is there, by one of its patterns."""

    sinks: tuple[str, ...]
    matchers: Mapping[str, tuple[str, ...]]

    def takes(self, told: Mapping[str, str]) -> bool:
        return all(any(fnmatchcase(told[name], one) for one in patterns) for name, patterns in self.matchers.items())


@dataclass(frozen=True, slots=True)
class Routing:
    """Sinks, and who is told of what.

    Args:
        sinks: By their names.
        routes: Every one that matches applies.
        default: Who is told of what no route takes.
    """

    sinks: Mapping[str, SinkSettings] = field(default_factory=dict)
    routes: Sequence[Route] = ()
    default: tuple[str, ...] = ()

    def sinks_of(self, kind: Kind, watched: Watched, status: Severity) -> tuple[str, ...]:
        """Names of the sinks that are told of a problem, in the order of the file."""
        told = {
            "owner": watched.owner,
            "tier": watched.tier,
            "group": watched.name,
            "kind": kind,
            "urgency": watched.urgency(status),
        }
        taken = [name for route in self.routes if route.takes(told) for name in route.sinks]
        chosen = set(taken or self.default)
        return tuple(name for name in self.sinks if name in chosen)


NOBODY = Routing()
"""Without a file nobody is told; episodes are kept all the same."""


def read_routing(path: str) -> Routing:
    """Read the file; "" means that there is none.

    Raises:
        InvalidInput: it cannot be read, or says what cannot be; the message has what to write.
    """
    if not path:
        return NOBODY
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise InvalidInput(f"FEATURESTORE_ALERTS names {path!r}, which cannot be read: {error.strerror}.") from error
    return routing_from(text, path)


def routing_from(text: str, where: str) -> Routing:
    """The routing that a TOML text describes.

    Args:
        where: What to call it in messages.

    Raises:
        InvalidInput: it says what cannot be; the message has what to write.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{where} is no TOML: {error}.") from error
    _refuse_others(where, document, ("default", "sinks", "routes"))
    sinks = {name: sink_settings(f"{where}: [sinks.{name}]", one) for name, one in _tables(where, document).items()}
    if not sinks:
        raise InvalidInput(f"{where} has no sink. Write [sinks.team] with kind = one of {sorted(SETTINGS)}.")
    routes = document.get("routes", [])
    if not isinstance(routes, list) or not all(isinstance(one, dict) for one in routes):
        raise InvalidInput(f"{where}: routes is not a list of tables. Write each as [[routes]].")
    return Routing(
        sinks,
        tuple(_route(f"{where}: [[routes]] number {number}", one, sinks) for number, one in enumerate(routes, 1)),
        _named_sinks(f"{where}: default", document.get("default", []), sinks),
    )


def _tables(where: str, document: Mapping[str, Any]) -> dict[str, Any]:
    sinks = document.get("sinks", {})
    if not isinstance(sinks, dict) or not all(isinstance(one, dict) for one in sinks.values()):
        raise InvalidInput(f"{where}: sinks is not a table of tables. Write each sink as [sinks.NAME].")
    return sinks


def _route(where: str, table: Mapping[str, Any], sinks: Mapping[str, SinkSettings]) -> Route:
    _refuse_others(where, table, ("sinks", *MATCHERS))
    if not table.get("sinks"):
        raise InvalidInput(f"{where} tells nobody. Write sinks = {list(sinks)[:1]}.")
    matchers = {name: _patterns(f"{where}: {name}", table[name], MATCHERS[name]) for name in MATCHERS if name in table}
    return Route(_named_sinks(f"{where}: sinks", table["sinks"], sinks), matchers)


def _patterns(where: str, value: Any, known: Sequence[str]) -> tuple[str, ...]:
    patterns = _texts(where, value)
    for pattern in patterns:
        if known and not any(fnmatchcase(one, pattern) for one in known):
            raise InvalidInput(f"{where} is {pattern!r}, which matches none of {list(known)}.")
    return patterns


def _named_sinks(where: str, value: Any, sinks: Mapping[str, SinkSettings]) -> tuple[str, ...]:
    names = _texts(where, value) if value else ()
    if unknown := [name for name in names if name not in sinks]:
        raise InvalidInput(
            f"{where} names {unknown}; the sinks are {list(sinks)}. Add [sinks.{unknown[0]}], or name one of them."
        )
    return names


def _texts(where: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one for one in texts):
        raise InvalidInput(f'{where} is {value!r}. Write a text, or a list of texts: ["a", "b"].')
    return tuple(texts)


def _refuse_others(where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    if others := sorted(set(table) - set(known)):
        raise InvalidInput(f"{where} has {others}. What can be said there: {sorted(known)}.")
