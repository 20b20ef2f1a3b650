"""Instances and servers that platform tests share; tests marked `exam` wait for the exam."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from featurestore.online.redis.valkey import EmbeddedValkey
from tests.platform.sandbox import Sandbox
from tests.scale import exam_scale

for category in (dg.PreviewWarning, dg.BetaWarning):
    warnings.simplefilter("ignore", category)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("exam") and exam_scale() == 0:
        pytest.skip("runs in `make exam`")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def sandbox(tmp_path: Path, instance: dg.DagsterInstance) -> Sandbox:
    """A store of kiosks with nothing in it."""
    return Sandbox(tmp_path, instance)


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Valkey server; whoever uses it empties it first."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url
