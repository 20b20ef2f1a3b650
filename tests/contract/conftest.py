"""Servers that contract tests share."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from featurestore.online.redis.valkey import EmbeddedValkey
from tests.contract import dynamo
from tests.contract.dynamo_tables import Table
from tests.contract.postgres import Postgres, postgres
from tests.contract.tiers import redis_seven
from tests.contract.valkey_cluster import EmbeddedCluster

collect_ignore = ["feast_reader.py"]
"""Runs where Feast is installed, in an environment of its own."""
_schemas = count()


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Valkey server; whoever uses it empties it first."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    """Three real Valkey servers as a cluster; whoever uses it empties it first, and leaves nodes and slots as they are."""
    with EmbeddedCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_seven_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of this machine's own Redis 7; whoever uses it empties it first."""
    with EmbeddedValkey(tmp_path_factory.mktemp("redis"), binary=redis_seven()) as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real PostgreSQL server; who stops it starts it again."""
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a metadata database that is empty; a SQLite file is not there yet, nor is its folder."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new folder' / 'metadata.db'}"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.make_schema(f"schema_{next(_schemas)}")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """Address of a moto server that speaks DynamoDB; whoever uses it makes tables of its own."""
    with dynamo.moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def dynamodb_local_endpoint() -> Iterator[str]:
    """Address of the real DynamoDB Local; for the exam."""
    with dynamo.dynamodb_local() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def moto_proxy(moto_endpoint: str) -> Iterator[dynamo.Proxy]:
    """Stands in front of the moto server; a test tells it what to do."""
    with dynamo.Proxy(moto_endpoint) as made:
        yield made


@pytest.fixture
def dynamo_table(moto_endpoint: str, moto_proxy: dynamo.Proxy) -> Iterator[Table]:
    """An empty table of DynamoDB."""
    moto_proxy.faults.clear()
    moto_proxy.requests.clear()
    made = Table(moto_endpoint, moto_proxy)
    yield made
    for tier in made.tiers:
        tier.close()
