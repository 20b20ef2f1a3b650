"""Servers that contract tests share."""

from collections.abc import Iterator

import pytest

from featurestore.online.valkey import EmbeddedValkey


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Valkey server; whoever uses it empties it first."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url
