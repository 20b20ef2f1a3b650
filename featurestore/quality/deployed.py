"""Which training set of a service counts as the one of its deployed model: the one named so, else the one built last.

Beside the sets of `{root}/training/{service}/` lie `newest.json`, written by every build, and `deployed.json`, written by
`featurestore training SERVICE --deploy SET`. A set is named by its content: the stem of its files.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from featurestore.errors import InvalidInput, unknown_name
from featurestore.location import Location

NEWEST, DEPLOYED = "newest.json", "deployed.json"


@dataclass(frozen=True, slots=True)
class DeployedSet:
    """A service's training set and its manifest; `is_chosen` if someone named it deployed."""

    service: str
    name: str
    manifest: dict[str, Any]
    is_chosen: bool


def note_built(root: Location, service: str, name: str, at: datetime) -> None:
    """Remember which set of a service was built last."""
    _place(root, service).write(NEWEST, json.dumps({"set": name, "built_at": at.isoformat()}, indent=1).encode())


def deploy_training_set(root: Location, service: str, name: str, at: datetime, person: str) -> None:
    """Name the set that the deployed model of a service was trained on, until another is named.

    Raises:
        UnknownName: the service has no set of that name; the message lists those it has.
    """
    known = training_sets(root, service)
    if name not in known:
        raise unknown_name("Training set", name, known, f"Service {service!r}")
    told = {"set": name, "deployed_at": at.isoformat(), "by": person}
    _place(root, service).write(DEPLOYED, json.dumps(told, indent=1).encode())


def training_sets(root: Location, service: str) -> list[str]:
    """Names of the sets of a service, in the order of their names."""
    names = [name for name in _place(root, service).names() if name.endswith(".json")]
    return [name.removesuffix(".json") for name in names if name not in (NEWEST, DEPLOYED)]


def deployed_set(root: Location, service: str) -> DeployedSet | None:
    """The set that a service's features are held against; None if none was ever built."""
    for pointer in (DEPLOYED, NEWEST):
        name = _named_by(root, service, pointer)
        if name is not None:
            return DeployedSet(service, name, read_manifest(root, service, name), pointer == DEPLOYED)
    return None


def newest_set(root: Location, service: str) -> str | None:
    """The set of a service that was built last, whichever is deployed; None if none was ever built.

    Not the one whose file is newest: a build that comes to a set that is there already does not write it again.
    """
    return _named_by(root, service, NEWEST)


def read_manifest(root: Location, service: str, name: str) -> dict[str, Any]:
    """What a set says of itself.

    Raises:
        InvalidInput: the set is gone.
    """
    data = _place(root, service).read_bytes(f"{name}.json")
    if data is None:
        raise InvalidInput(
            f"Training set {name!r} of service {service!r} is the one that its features are held against, and has no manifest: "
            f"{_place(root, service).child(f'{name}.json').uri} is gone. Without it no drift is judged, and a group that "
            f"blocks on drift promotes nothing. Put the file back, or name another set, built anew if there is none: "
            f"featurestore training {service} --deploy SET. There are {training_sets(root, service)}."
        )
    manifest: dict[str, Any] = json.loads(data)
    return manifest


def _named_by(root: Location, service: str, pointer: str) -> str | None:
    told = _place(root, service).read_bytes(pointer)
    return None if told is None else str(json.loads(told)["set"])


def _place(root: Location, service: str) -> Location:
    return root.child("training", service)
