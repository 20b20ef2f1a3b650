"""GraphQL to Dagster's web server: the queries that are asked of it, and how one travels. Plain HTTP, no Dagster."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from featurestore.errors import FeatureStoreError, InvalidInput, StoreUnavailable

TIMEOUT_SECONDS = 60

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
ASSETS = """
query ($keys: [AssetKeyInput!], $newest: Int!) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    partitionKeys
    assetMaterializations(limit: $newest) { runId }
  }
}
"""
STATUS = """
query ($id: String!, $run: ID!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill {
      status
      timestamp
      endTimestamp
      partitionNames
      assetSelection { path }
      tags { key value }
      error { message }
      runs { id status startTime }
      assetBackfillData {
        assetBackfillStatuses {
          ... on AssetPartitionsStatusCounts {
            assetKey { path }
            numPartitionsTargeted
            numPartitionsInProgress
            numPartitionsMaterialized
            numPartitionsFailed
          }
        }
      }
    }
    ... on BackfillNotFoundError { message }
    ... on PythonError { message }
  }
  runOrError(runId: $run) {
    __typename
    ... on Run { status creationTime startTime endTime assetSelection { path } tags { key value } }
  }
}
"""
FAILURE = """
query ($run: ID!, $cursor: String) {
  logsForRun(runId: $run, afterCursor: $cursor) {
    __typename
    ... on EventConnection {
      cursor
      hasMore
      events {
        __typename
        ... on ExecutionStepFailureEvent { stepKey error { message } failureMetadata { description } }
        ... on RunFailureEvent { message error { message } }
      }
    }
  }
}
"""
NEWEST = """
query ($limit: Int!) {
  partitionBackfillsOrError(limit: $limit) {
    ... on PartitionBackfills { results { id tags { key value } } }
    ... on PythonError { message }
  }
}
"""


def post(url: str, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Send one GraphQL query and return its data.

    Raises:
        InvalidInput: the address is none of a web server, or not Dagster's.
        FeatureStoreError: Dagster refuses the query.
        StoreUnavailable: nothing answers.
    """
    answer = _parsed(url, _answer(url, json.dumps({"query": query, "variables": variables}).encode()))
    if answer.get("errors"):
        raise FeatureStoreError(f"Dagster at {url} refuses the query: {answer['errors'][0]['message']}")
    data: dict[str, Any] = answer["data"]
    return data


def _answer(url: str, body: bytes) -> bytes:
    """What the server says to a query, also when it says it with an error's status."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"{url!r} is no address of a web server. Write it as http://127.0.0.1:3000.")
    headers = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/graphql", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        # Dagster answers an error of its own with status 500 and the data that names it.
        return error.read()
    except (OSError, http.client.HTTPException) as error:
        raise StoreUnavailable(
            f"Dagster at {url} does not answer: {getattr(error, 'reason', None) or error}. Start it with 'make up', or "
            "give its address: --dagster-url or FEATURESTORE_DAGSTER_URL."
        ) from error


def _parsed(url: str, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not (answer.get("data") or answer.get("errors")):
        shown = " ".join(body[:200].decode(errors="replace").split())
        raise InvalidInput(
            f"What answers at {url} is not Dagster's web server: it says {shown!r}. Give its address: --dagster-url."
        )
    return answer
