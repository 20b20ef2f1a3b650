"""From a registered group to its online message layout."""

from functools import lru_cache

from featurestore.online.message.layout import MessageLayout, WireField
from featurestore.registry.snapshot import RegisteredFeature, RegisteredGroup


def layout_of(group: RegisteredGroup) -> MessageLayout:
    """The newest message layout of a group."""
    return _layout(group.features, group.message_name)


@lru_cache(maxsize=4096)
def _layout(features: tuple[RegisteredFeature, ...], name: str) -> MessageLayout:
    return MessageLayout(tuple(WireField(f.number, f.name, f.dtype, f.max_length, f.since) for f in features), name)


def layouts_of(group: RegisteredGroup) -> dict[int, MessageLayout]:
    """The layout of every schema number that a stored message may have."""
    return _layouts(group.features, group.message_name, group.schema_number)


@lru_cache(maxsize=4096)
def _layouts(features: tuple[RegisteredFeature, ...], name: str, newest: int) -> dict[int, MessageLayout]:
    return _layout(features, name).by_schema_number(newest)
