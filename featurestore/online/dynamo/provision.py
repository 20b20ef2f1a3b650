"""Making the table of a warm tier, and finding out whether one that is there will do. Not here: items, or the command line."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.online.dynamo.items import EXPIRY, PARTITION_KEY, SORT_KEY
from featurestore.online.dynamo.requests import PATIENCE_SECONDS, Requests
from featurestore.online.dynamo.url import parse_url

CREATION_SECONDS = 300.0
_POLL_SECONDS = 1.0
_FIRST_POLL_SECONDS = 0.05
_ABOUT_THE_TABLE = ("ResourceNotFoundException", "ResourceInUseException")
_KEY_SCHEMA = [
    {"AttributeName": PARTITION_KEY, "KeyType": "HASH"},
    {"AttributeName": SORT_KEY, "KeyType": "RANGE"},
]
_ATTRIBUTES = [{"AttributeName": name, "AttributeType": "S"} for name in (PARTITION_KEY, SORT_KEY)]


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A table that is ready.

    Args:
        table: Its name.
        was_made: Now, and not before.
        billing: PAY_PER_REQUEST, or PROVISIONED if it was made so by someone else.
        expiry: The attribute that the server expires items by.
        point_in_time_recovery: Whether it was asked for, and is on.
    """

    table: str
    was_made: bool
    billing: str
    expiry: str
    point_in_time_recovery: bool


def provision(
    url: str,
    *,
    tags: Mapping[str, str] | None = None,
    point_in_time_recovery: bool = False,
    session: Any = None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Provisioned:
    """Make the table if it is not there, wait until it is active, and let DynamoDB drop expired items.

    Rules: repeating it changes nothing. A table that is there keeps its billing and its tags; the copy needs no backup, so that
    point-in-time recovery is off unless asked for.

    Args:
        url: Of the warm tier.
        tags: Of a table made now.
        point_in_time_recovery: Turn it on.
        session: A boto3 session; None: what the environment, or the address's profile, gives.
        monotonic: Seconds of a clock that only rises.
        sleep: Waits between looks at the table.

    Raises:
        InvalidInput: the table has other keys, or expires items by another attribute.
        StoreUnavailable: DynamoDB does not answer or refuses the credentials, or the table does not become active.
    """
    requests = Requests(parse_url(url), session, monotonic=monotonic, sleep=sleep)
    try:
        return _provision(requests, tags or {}, point_in_time_recovery, sleep)
    finally:
        requests.close()


def _provision(
    requests: Requests, tags: Mapping[str, str], point_in_time_recovery: bool, sleep: Callable[[float], None]
) -> Provisioned:
    table = requests.address.table
    was_made = _describe(requests) is None and _create(requests, tags)
    description = _wait_until_active(requests, sleep)
    _refuse_other_keys(table, description)
    _expire(requests)
    if point_in_time_recovery:
        recovery = {"PointInTimeRecoveryEnabled": True}
        _ask(requests, "update_continuous_backups", PointInTimeRecoverySpecification=recovery)
    billing = description.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
    return Provisioned(table, was_made, billing, EXPIRY, point_in_time_recovery)


def _ask(requests: Requests, operation: str, **parameters: Any) -> dict[str, Any]:
    """One request about the table; {} if there is no such table, or it exists already."""
    asked = {"TableName": requests.address.table, **parameters}
    until = requests.monotonic() + PATIENCE_SECONDS
    answer = requests.ask(requests.filler, operation, asked, until, answers=_ABOUT_THE_TABLE)
    return {} if "Error" in answer else answer


def _describe(requests: Requests) -> dict[str, Any] | None:
    return _ask(requests, "describe_table").get("Table")


def _create(requests: Requests, tags: Mapping[str, str]) -> bool:
    """Whether it was made by this call, and not by another at the same time."""
    labels = [{"Key": key, "Value": value} for key, value in tags.items()]
    made = _ask(
        requests,
        "create_table",
        KeySchema=_KEY_SCHEMA,
        AttributeDefinitions=_ATTRIBUTES,
        BillingMode="PAY_PER_REQUEST",
        **({"Tags": labels} if labels else {}),
    )
    return bool(made)


def _wait_until_active(requests: Requests, sleep: Callable[[float], None]) -> dict[str, Any]:
    until, seconds = requests.monotonic() + CREATION_SECONDS, _FIRST_POLL_SECONDS
    while requests.monotonic() < until:
        description = _describe(requests)
        if description is not None and description["TableStatus"] in ("ACTIVE", "UPDATING"):
            return description
        sleep(seconds)
        seconds = min(_POLL_SECONDS, 2 * seconds)
    raise StoreUnavailable(
        f"DynamoDB table {requests.address.table!r} did not become active in {CREATION_SECONDS:.0f} s. Look at it in the console, "
        "then run this again."
    )


def _refuse_other_keys(table: str, description: Mapping[str, Any]) -> None:
    types = {one["AttributeName"]: one["AttributeType"] for one in description["AttributeDefinitions"]}
    keys = {one["KeyType"]: (one["AttributeName"], types[one["AttributeName"]]) for one in description["KeySchema"]}
    if keys != {"HASH": (PARTITION_KEY, "S"), "RANGE": (SORT_KEY, "S")}:
        found = " and ".join(f"{name} ({kind})" for name, kind in keys.values())
        raise InvalidInput(
            f"Table {table!r} exists with keys {found}; the warm tier needs {PARTITION_KEY} (S) and {SORT_KEY} (S). It belongs to "
            "another program: name another table in the address."
        )


def _expire(requests: Requests) -> None:
    expiry = _ask(requests, "describe_time_to_live")["TimeToLiveDescription"]
    if expiry["TimeToLiveStatus"] in ("DISABLED", "DISABLING"):
        wanted = {"Enabled": True, "AttributeName": EXPIRY}
        _ask(requests, "update_time_to_live", TimeToLiveSpecification=wanted)
    elif expiry.get("AttributeName") != EXPIRY:
        raise InvalidInput(
            f"Table {requests.address.table!r} expires items by attribute {expiry.get('AttributeName')!r}; the warm tier needs "
            f"{EXPIRY!r}. Name another table in the address, or turn that off and run this again in an hour."
        )
