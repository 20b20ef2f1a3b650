"""What a command asks for: a feature service, or references with commas between them."""

from featurestore.errors import unknown_name
from featurestore.references import Request
from featurestore.registry.snapshot import RegistrySnapshot


def parse_request(registry: RegistrySnapshot, text: str) -> Request:
    """A request as the SDK takes it.

    Args:
        registry: Where a service's name is looked up.
        text: A service's name, or 'group:feature,group:feature'; 'group:*' is every feature of the group.

    Raises:
        UnknownName: it is neither a reference nor the name of a service.
    """
    if ":" in text:
        return [
            reference for part in text.split(",") if part.strip() for reference in _references(registry, part.strip())
        ]
    if text not in registry.services:
        where = (
            "To ask for features, write 'group:feature' or 'group:*'. The registry"
            if text in registry.groups
            else "The registry"
        )
        raise unknown_name("Service", text, registry.services, where)
    return text


def _references(registry: RegistrySnapshot, part: str) -> list[str]:
    group, _, feature = part.rpartition(":")
    return [f"{group}:{name}" for name in registry.group(group).feature_names] if feature == "*" else [part]
