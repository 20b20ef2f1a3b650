"""`make up`: the platform for a person, until Ctrl-C.

Dagster's pages and daemon, and the embedded online store beside the demo's data. It ends what it started and nothing else.
"""

import os
import signal
import threading
from pathlib import Path

from deploy.platform import demo_environment, prepare_instance, running_platform
from featurestore.location import Location
from featurestore.online.embedded import embedded_folder
from featurestore.online.valkey import EmbeddedValkey

PORT = 3000


def main() -> None:
    environment = demo_environment()
    os.environ.update(environment)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    prepare_instance()
    root = Location(environment["FEATURESTORE_ROOT"])
    with EmbeddedValkey(embedded_folder(root), append_only=True) as valkey:
        print(f"online store   {valkey.url}", flush=True)
        with running_platform(
            environment, Path(environment["DAGSTER_HOME"]) / ".dagster" / "logs", int(os.environ.get("PORT", PORT))
        ) as platform:
            print(f"Dagster        {platform.url}  (asset graph: {platform.url}/asset-groups)")
            print(f"store          {root.uri}\nCtrl-C stops everything.", flush=True)
            stop.wait()
            print("\nStopping.", flush=True)


if __name__ == "__main__":
    main()
