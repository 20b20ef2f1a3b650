"""`make up`: the platform for a person, until Ctrl-C.

Dagster's pages and daemon, and the embedded online store beside the demo's data. It ends what it started and nothing else.
"""

import os
import signal
from pathlib import Path
from types import FrameType

from deploy.platform import demo_environment, prepare_instance, running_platform
from featurestore.location import Location
from featurestore.online.redis.embedded import embedded_folder
from featurestore.online.redis.valkey import EmbeddedValkey

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
        with running_platform(environment, logs, int(os.environ.get("PORT", PORT))) as platform:
            print(f"Dagster        {platform.url}")
            print(f"asset graph    {platform.url}/locations/__repository__@flights/asset-groups/offline/lineage")
            print(f"store          {root.uri}\nCtrl-C stops everything.", flush=True)
            signal.pause()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
