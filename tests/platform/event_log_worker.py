"""A process of its own that writes events: `python -m tests.platform.event_log_worker <way> <folder> <run id> <count>`.

It prints the storage id of each event once that is stored, so that whoever kills it knows what was acknowledged.
"""

import os
import sys
import time

import dagster as dg
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry

from resources.event_log import PooledSqliteEventLogStorage

ASSET = dg.AssetKey(["offline", "written"])


def entry(run_id: str, number: int) -> EventLogEntry:
    """The materialization of the partition of that number."""
    said = dg.AssetMaterialization(ASSET, partition=f"{run_id}-{number:05}", metadata={"number": number})
    event = DagsterEvent(
        "ASSET_MATERIALIZATION", "job", step_key="step", event_specific_data=StepMaterializationData(said)
    )
    return EventLogEntry(None, 10, "", run_id, time.time(), "step", "job", event)


def write(storage: PooledSqliteEventLogStorage, run_id: str, count: int) -> None:
    for number in range(count):
        storage.store_event(entry(run_id, number))
        print(number, flush=True)


def write_beside_a_fork(storage: PooledSqliteEventLogStorage, run_id: str, count: int) -> None:
    """Write, fork with the connection open, and write in both processes at once."""
    storage.store_event(entry(f"{run_id}-before", 0))
    child = os.fork()
    write(storage, f"{run_id}-{'child' if child == 0 else 'parent'}", count)
    if child == 0:
        storage.dispose()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    storage.store_event(entry(f"{run_id}-after", 0))
    sys.exit(os.waitstatus_to_exitcode(status))


def main(way: str, folder: str, run_id: str, count: str) -> None:
    ways = {"write": write, "fork": write_beside_a_fork}
    ways[way](PooledSqliteEventLogStorage(folder), run_id, int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
