"""Where the embedded server of a local root keeps itself, and its address while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import StoreUnavailable
from featurestore.location import Location


def embedded_folder(root: Location) -> Path:
    """The folder of the embedded online server of a local root."""
    return root.path / "online"


def embedded_url(root: Location) -> str:
    """The address of the embedded server that runs beside a root.

    Raises:
        StoreUnavailable: the root is remote, or no server is running there.
    """
    from featurestore.online.redis.valkey import EmbeddedValkey

    if not root.is_local:
        raise StoreUnavailable(
            f"No online store is configured for {root.uri}. Set FEATURESTORE_ONLINE_URL=redis://host:port/0."
        )
    server = EmbeddedValkey(embedded_folder(root))
    if server.pid is None:
        raise StoreUnavailable(
            f"No online store runs beside {root.uri}. Start one with 'make up' or 'featurestore serve', or set "
            "FEATURESTORE_ONLINE_URL=redis://host:port/0."
        )
    return server.url


@contextmanager
def running_embedded(root: Location) -> Iterator[str]:
    """The embedded server of a local root while the block lasts; gives its address.

    One that runs already is used and left running; one that the block starts keeps its data, and ends with the block.

    Raises:
        StoreUnavailable: the server is not installed, or did not come up.
    """
    from featurestore.online.redis.valkey import EmbeddedValkey

    with EmbeddedValkey(embedded_folder(root), append_only=True) as server:
        yield server.url
