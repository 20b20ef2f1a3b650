"""Talking to Dagster's web server the way its own pages do, over GraphQL."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.errors import FeatureStoreError, StoreUnavailable

LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
    ... on PartitionSetNotFoundError { message }
    ... on PartitionKeysNotFoundError { partitionKeys }
  }
}
"""
STATUS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill { status runs { id status } }
    ... on BackfillNotFoundError { message }
    ... on PythonError { message }
  }
}
"""


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill that the web server has accepted."""

    backfill_id: str


@dataclass(frozen=True, slots=True)
class BackfillStatus:
    """Where a backfill stands: Dagster's status, and how many runs it has launched."""

    status: str
    runs: int

    @property
    def is_done(self) -> bool:
        return self.status.startswith(("COMPLETED", "FAILED", "CANCELED"))


def launch_partition_backfill(url: str, assets: Sequence[Sequence[str]], partition_keys: Sequence[str]) -> Backfill:
    """Launch a backfill of some assets over some partitions.

    Args:
        url: Of the web server.
        assets: Asset keys, each as its path.
        partition_keys: Keys that all the assets have.

    Raises:
        FeatureStoreError: Dagster refuses it; its reason is quoted.
        StoreUnavailable: the web server does not answer.
    """
    params = {
        "assetSelection": [{"path": list(path)} for path in assets],
        "partitionNames": list(partition_keys),
        "fromFailure": False,
    }
    answer = post(url, LAUNCH, {"params": params})["launchPartitionBackfill"]
    if answer["__typename"] != "LaunchBackfillSuccess":
        raise FeatureStoreError(
            f"Dagster refuses the backfill: {answer['__typename']}: {answer.get('message') or answer}."
        )
    return Backfill(answer["backfillId"])


def backfill_status(url: str, backfill_id: str) -> BackfillStatus:
    """Where a backfill stands.

    Raises:
        FeatureStoreError: there is no such backfill.
        StoreUnavailable: the web server does not answer.
    """
    answer = post(url, STATUS, {"id": backfill_id})["partitionBackfillOrError"]
    if answer["__typename"] != "PartitionBackfill":
        raise FeatureStoreError(f"Dagster has no backfill {backfill_id}: {answer.get('message')}.")
    return BackfillStatus(answer["status"], len(answer["runs"]))


def post(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Send one GraphQL query and return its data."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        # Dagster answers an error of its own with status 500 and the data that names it.
        answer = _parsed(error.read().decode(errors="replace"))
        if not answer.get("data"):
            raise FeatureStoreError(f"Dagster at {url} refuses the query: {answer}") from error
    except (urllib.error.URLError, TimeoutError) as error:
        raise StoreUnavailable(f"Dagster at {url} does not answer: {error}. Start it with 'make up'.") from error
    if answer.get("errors"):
        raise FeatureStoreError(f"Dagster at {url} refuses the query: {answer['errors'][0]['message']}")
    data: dict[str, Any] = answer["data"]
    return data


def _parsed(body: str) -> dict[str, Any]:
    """An answer's JSON; what is none, as its message."""
    try:
        answer: dict[str, Any] = json.loads(body)
    except ValueError:
        return {"message": body[:500]}
    return answer
