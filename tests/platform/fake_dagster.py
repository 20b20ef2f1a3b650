"""A web server on loopback that answers the queries of `featurestore.backfill.graphql` as Dagster 1.13.27 was seen to.

It computes nothing: a test says what became of a backfill. `test_launching.py` holds the same commands to a real one.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from featurestore.backfill.graphql import ASSETS, FAILURE, LAUNCH, NEWEST, STATUS


@dataclass
class FakeBackfill:
    """A backfill that was launched; `params` as they came."""

    params: dict[str, Any]
    status: str = "REQUESTED"
    runs: list[dict[str, Any]] = field(default_factory=list)
    timestamp: float = field(default_factory=time.time)
    ended: float | None = None

    @property
    def names(self) -> list[str] | None:
        names: list[str] | None = self.params.get("partitionNames")
        return names

    @property
    def paths(self) -> list[list[str]]:
        return [
            *(one["path"] for one in self.params.get("assetSelection", [])),
            *(one["assetKey"]["path"] for one in self.params.get("partitionsByAssets", [])),
        ]

    @property
    def tags(self) -> dict[str, str]:
        return {tag["key"]: tag["value"] for tag in self.params["tags"]}

    def end(self, status: str, *run_statuses: str) -> None:
        self.status, self.ended = status, time.time()
        self.runs = [
            {"id": f"run{number}", "status": one, "startTime": self.timestamp + 1}
            for number, one in enumerate(run_statuses)
        ]


@dataclass
class FakeDagster:
    """What the server knows: assets with their keys and last runs, and the backfills that it accepted."""

    assets: dict[str, list[str]]
    run_ids: dict[str, list[str]] = field(default_factory=dict)
    backfills: dict[str, FakeBackfill] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refusal: str = ""
    url: str = ""

    def answer(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        answers: dict[str, Callable[..., dict[str, Any]]] = {
            ASSETS: self._assets,
            LAUNCH: self._launch,
            STATUS: self._status,
            NEWEST: self._newest,
            FAILURE: self._failure,
        }
        return answers[query](**variables)

    def _assets(self, keys: Sequence[Mapping[str, Any]], newest: int) -> dict[str, Any]:
        asked = ["/".join(key["path"]) for key in keys]
        return {"assetNodes": [self._asset(name, newest) for name in asked if name in self.assets]}

    def _asset(self, name: str, newest: int) -> dict[str, Any]:
        runs = [{"runId": run} for run in self.run_ids.get(name, [])][:newest]
        path = {"path": name.split("/")}
        return {"assetKey": path, "partitionKeys": self.assets[name], "assetMaterializations": runs}

    def _launch(self, params: dict[str, Any]) -> dict[str, Any]:
        if self.refusal:
            return {"launchPartitionBackfill": {"__typename": "UnauthorizedError", "message": self.refusal}}
        backfill_id = f"backfill{len(self.backfills)}"
        self.backfills[backfill_id] = FakeBackfill(params)
        return {"launchPartitionBackfill": {"__typename": "LaunchBackfillSuccess", "backfillId": backfill_id}}

    def _status(self, id: str, run: str) -> dict[str, Any]:
        missing = {"__typename": "BackfillNotFoundError", "message": f"Backfill {id} could not be found."}
        no_run = {"__typename": "RunNotFoundError"}
        known = self.backfills.get(id)
        return {
            "partitionBackfillOrError": missing if known is None else self._known(known),
            "runOrError": self.runs.get(run, no_run),
        }

    def _known(self, known: FakeBackfill) -> dict[str, Any]:
        counts = [
            {
                "assetKey": {"path": path},
                "numPartitionsTargeted": len(known.names or []),
                "numPartitionsInProgress": 0,
                "numPartitionsMaterialized": 0,
                "numPartitionsFailed": 0,
            }
            for path in known.paths
        ]
        return {
            "__typename": "PartitionBackfill",
            "status": known.status,
            "timestamp": known.timestamp,
            "endTimestamp": known.ended,
            "partitionNames": known.names,
            "assetSelection": [{"path": path} for path in known.paths],
            "tags": known.params["tags"],
            "error": None,
            "runs": known.runs,
            "assetBackfillData": {"assetBackfillStatuses": counts},
        }

    def _failure(self, run: str, cursor: str | None) -> dict[str, Any]:
        """The log of a run, an event a page."""
        page, events = int(cursor or 0), self.failures.get(run, [])
        shown = {"events": events[page : page + 1], "cursor": str(page + 1), "hasMore": page + 1 < len(events)}
        return {"logsForRun": {"__typename": "EventConnection", **shown}}

    def _newest(self, limit: int) -> dict[str, Any]:
        listed = [{"id": name, "tags": known.params["tags"]} for name, known in self.backfills.items()]
        return {"partitionBackfillsOrError": {"results": listed[::-1][:limit]}}


@contextmanager
def serving(dagster: FakeDagster) -> Iterator[FakeDagster]:
    """Serve while the block lasts; `dagster.url` is the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"data": dagster.answer(asked["query"], asked["variables"])}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        dagster.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield dagster
        finally:
            server.shutdown()
            thread.join()
