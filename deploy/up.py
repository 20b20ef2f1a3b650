"""`make up`: the platform for a person, until Ctrl-C.

Dagster's pages and daemon, the embedded online store beside the demo's data, the feature server, the board of freshness, and the
demo's live feed. It ends what it started and nothing else.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from deploy.platform import (
    demo_environment,
    prepare_instance,
    running_board,
    running_feature_server,
    running_feed,
    running_platform,
)
from featurestore.board.options import DEFAULT_PORT as BOARD_PORT
from featurestore.location import Location
from featurestore.online.redis.embedded import embedded_folder
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.registry.history import RegistryHistory
from featurestore.serving.options import DEFAULT_PORT
from featurestore.settings import Settings

PORT = 3000


def main() -> None:
    """Run until Ctrl-C or SIGTERM, at any moment, also while starting."""
    # A shell that starts a job in the background has it ignore Ctrl-C; ask for it explicitly.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        _run()
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)


def _run() -> None:
    environment = demo_environment()
    os.environ.update(environment)
    prepare_instance()
    root = Location(environment["FEATURESTORE_ROOT"])
    logs = Path(environment["DAGSTER_HOME"]) / ".dagster" / "logs"
    with EmbeddedValkey(embedded_folder(root), append_only=True) as valkey:
        print(f"online store   {valkey.url.partition('?')[0]}", flush=True)
        with (
            _feature_server(root, environment, logs) as server,
            running_board(environment, logs, int(os.environ.get("BOARD_PORT", BOARD_PORT))) as board,
            running_platform(environment, logs, int(os.environ.get("PORT", PORT))) as platform,
            running_feed(environment, logs, Settings.from_env().landing) as feed,
        ):
            print(f"feature server {server}")
            print(f"freshness      {board}")
            print(f"Dagster        {platform.url}")
            print(f"asset graph    {platform.url}/locations/__repository__@flights/asset-groups/offline/lineage")
            print(f"live feed      {feed}")
            print(f"store          {root.uri}\nCtrl-C stops everything.", flush=True)
            signal.pause()


@contextmanager
def _feature_server(root: Location, environment: dict[str, str], logs: Path) -> Iterator[str]:
    """The feature server's address; why there is none while nothing has been applied that it could serve."""
    if RegistryHistory(root).current() is None:
        yield "not started, since nothing has been applied yet: .venv/bin/featurestore apply, and make up again"
        return
    with running_feature_server(environment, logs, int(os.environ.get("SERVE_PORT", DEFAULT_PORT))) as url:
        yield f"{url}/openapi.json"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
