"""Feature references: what a caller may ask for, resolved against the registry.

A reference is 'group:feature' ('group@v2:feature' for a version). A request is a list of references or a service's name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.declaration.service import FeatureService
from featurestore.errors import InvalidInput
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup, RegistrySnapshot

Request = str | FeatureService | Sequence[str]


@dataclass(frozen=True, slots=True)
class RequestedGroup:
    """The features asked of one group, each with the name of its output column."""

    group: RegisteredGroup
    features: tuple[tuple[RegisteredFeature, str], ...]


def resolve(registry: RegistrySnapshot, request: Request, *, full_feature_names: bool = False) -> list[RequestedGroup]:
    """Resolve a request to groups, in the order of first mention.

    Args:
        registry: Where names are looked up.
        request: References, or a service or its name.
        full_feature_names: Name columns 'group__feature' instead of 'feature'.

    Raises:
        UnknownName: a group, feature or service is not registered.
        InvalidInput: the request is empty, repeats itself, or two features would share a column name.
    """
    by_group: dict[str, list[tuple[RegisteredFeature, str]]] = {}
    names: set[str] = set()
    for reference in _references(registry, request):
        group_name, _, feature_name = reference.rpartition(":")
        group = registry.group(group_name)
        feature = group.feature(feature_name)
        column = f"{group.name}__{feature.name}" if full_feature_names else feature.name
        if column in names:
            is_same = any(one is feature for one, _ in by_group.get(group.name, ()))
            raise _repeated(reference, column, is_same=is_same, is_full=full_feature_names)
        names.add(column)
        by_group.setdefault(group.name, []).append((feature, column))
    return [RequestedGroup(registry.group(name), tuple(features)) for name, features in by_group.items()]


def _repeated(reference: str, column: str, *, is_same: bool, is_full: bool) -> InvalidInput:
    if is_same:
        return InvalidInput(f"Feature {reference!r} is asked for twice. Ask for it once.")
    way = "Ask for one of them only." if is_full else "Ask with full_feature_names=True, or for one of them only."
    return InvalidInput(f"Two requested features would be named {column!r}. {way}")


def _references(registry: RegistrySnapshot, request: Request) -> Sequence[str]:
    if isinstance(request, FeatureService):
        return request.references
    if isinstance(request, str):
        if ":" in request:
            raise InvalidInput(f"{request!r} is a reference, not a service. Pass a list: [{request!r}].")
        return registry.service(request).references
    if not request:
        raise InvalidInput(
            "No features were asked for. Pass references such as ['group:feature'], or a service's name."
        )
    for reference in request:
        if not isinstance(reference, str) or ":" not in reference:
            raise InvalidInput(f"{reference!r} is not a feature reference. References look like 'group:feature'.")
    return request
