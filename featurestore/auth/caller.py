"""What a caller may do: actions on feature services and groups. What is not allowed is denied. Not here: who the caller is.

A scope is a name, or a name's beginning with `*` behind it; `*` alone is every one. A group's scope allows that group's
features, those of later versions only by `*` or by their own name. A service's scope allows reading the features that the
service names, by its name or one by one. Pushing is allowed by groups alone.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from featurestore.errors import InvalidInput, NotAllowed
from featurestore.references import RequestedGroup
from featurestore.registry.snapshot import RegisteredService, RegistrySnapshot

Action = Literal["read", "push"]
ACTIONS: tuple[Action, ...] = get_args(Action)
SCOPE = re.compile(r"[a-z0-9_]+\*?|\*")
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key allows.

    Args:
        actions: 'read', 'push' or both.
        services: Scopes of services.
        groups: Scopes of groups, by stored name.

    Raises:
        InvalidInput: it would allow nothing, a scope is not of the form above, or pushing has no group.
    """

    actions: tuple[Action, ...]
    services: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := [action for action in self.actions if action not in ACTIONS]:
            raise InvalidInput(f"Actions {unknown} are not known. They are {list(ACTIONS)}.")
        if bad := [scope for scope in (*self.services, *self.groups) if not SCOPE.fullmatch(scope)]:
            raise InvalidInput(f"Scopes {bad} are no names. Write a name, its beginning and '*', or '*' for all.")
        if not self.actions or not (self.services or self.groups):
            raise InvalidInput("A key that allows nothing is of no use. Name an action, and a service or a group.")
        if "push" in self.actions and not self.groups:
            raise InvalidInput("Pushing is allowed by groups, and none is named. Name those to push to, or '*'.")

    def __str__(self) -> str:
        kinds = {"services": self.services, "groups": self.groups}
        return f"{' and '.join(self.actions)}, {', '.join(f'{kind} {list(s)}' for kind, s in kinds.items() if s)}"


EVERYTHING = Rights(ACTIONS, ("*",), ("*",))


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone that a server knows: a key, or anyone where auth is off.

    Args:
        key_id: Public id of the key; empty where auth is off.
        name: The key's name.
        owner: Who answers for the key.
        rights: What it allows.
    """

    key_id: str
    name: str
    owner: str
    rights: Rights

    def require(self, action: Action, *, groups: Iterable[str] = (), services: Iterable[str] = ()) -> None:
        """Refuse an action on things that this caller may not do it to; all of them must be allowed.

        Args:
            action: What is to be done.
            groups: Stored names.
            services: Names; only for reading.

        Raises:
            NotAllowed: one of them is not allowed, or nothing is named.
        """
        may_read = self.rights.services if action == "read" else ()
        asked = [(f"group {name!r}", _covers(self.rights.groups, name)) for name in groups]
        asked += [(f"service {name!r}", _covers(may_read, name)) for name in services]
        is_action = action in self.rights.actions
        denied = [what for what, is_covered in asked if not (is_action and is_covered)]
        if denied or not asked:
            raise self._refusal(action, denied)

    def require_features(self, requested: Sequence[RequestedGroup], services: Mapping[str, RegisteredService]) -> None:
        """Refuse to read features that neither a scope of their group nor one of a service that names them allows.

        Args:
            requested: As `references.resolve` gives them, whether a service was asked by its name or features one by one.
            services: The registry's.

        Raises:
            NotAllowed: one of them is not allowed, or nothing is requested.
        """
        may_read = "read" in self.rights.actions
        left = [wanted for wanted in requested if not (may_read and _covers(self.rights.groups, wanted.group.name))]
        if requested and not left:
            return
        named = self._named_by_services(services) if may_read else frozenset()
        denied = [reference for wanted in left for reference in _references(wanted) if reference not in named]
        if denied or not requested:
            raise self._refusal("read", denied)

    def seen_of(self, registry: RegistrySnapshot, action: Action) -> RegistrySnapshot:
        """What of a registry there is for this caller: the groups that it may do this to, and the services that it may read, with
        the features that those name."""
        if self.rights == EVERYTHING:
            return registry
        if action not in self.rights.actions:
            return RegistrySnapshot({}, {})
        groups = {name: one for name, one in registry.groups.items() if _covers(self.rights.groups, name)}
        if action == "push":
            return RegistrySnapshot(groups, {})
        named = self._named_by_services(registry.services)
        for name, group in registry.groups.items():
            features = tuple(feature for feature in group.features if f"{name}:{feature.name}" in named)
            if features and name not in groups:
                groups[name] = replace(group, features=features)
        services = {name: one for name, one in registry.services.items() if _covers(self.rights.services, name)}
        return RegistrySnapshot(groups, services)

    def _named_by_services(self, services: Mapping[str, RegisteredService]) -> frozenset[str]:
        mine = [one for name, one in services.items() if _covers(self.rights.services, name)]
        return frozenset(_stored(reference) for one in mine for reference in one.references)

    def _refusal(self, action: Action, denied: Sequence[str]) -> NotAllowed:
        shown = ", ".join(denied[:SHOWN]) or "what it does not name"
        more = f" and {len(denied) - SHOWN} more" if len(denied) > SHOWN else ""
        return NotAllowed(
            f"Key {self.key_id} ({self.name!r}) may not {action} {shown}{more}. It may {self.rights}. "
            f"Ask {self.owner} for a key that allows it."
        )


ANYONE = Caller("", "auth is off", "", EVERYTHING)


def _covers(scopes: Iterable[str], name: str) -> bool:
    return any(name.startswith(scope[:-1]) if scope.endswith("*") else scope == name for scope in scopes)


def _references(wanted: RequestedGroup) -> list[str]:
    return [f"{wanted.group.name}:{feature.name}" for feature, _ in wanted.features]


def _stored(reference: str) -> str:
    """A reference with its group's stored name: Feast's 'group@v2:feature' too."""
    group, _, feature = reference.rpartition(":")
    base, _, version = group.partition("@v")
    return f"{base if version in ('', '1') else f'{base}_v{version}'}:{feature}"
