"""The OpenAPI description of the server: every path, body and status, as clients and test generators read it."""

from functools import cache
from typing import Any

from featurestore.freshness.read_state import MODES, STATES
from featurestore.serving.slices import WIRE_STATUSES
from featurestore.serving.wire import (
    ARROW,
    FRESHNESS_HEADER,
    IDEMPOTENCY_HEADER,
    IDEMPOTENCY_KEY,
    JSON,
    PROTOBUF,
    STATE_HEADER,
    TIMEOUT_HEADER,
)

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
ANYTHING: Schema = {}
BINARY: Schema = {"type": "string", "format": "binary"}
REFUSALS = {
    400: "The body is no JSON, or a header cannot be read.",
    401: "No valid API key was given.",
    403: "The API key does not allow this.",
    404: "A group, feature or service is not registered.",
    406: "No body of the kind that Accept names.",
    408: "The body did not come in time.",
    409: "Someone else wrote meanwhile.",
    413: "The body, or the batch, is larger than the server takes.",
    415: "The body is not JSON, or is compressed.",
    422: "The request cannot be used as it is.",
    429: "The server answers as many requests as it may. Come again after Retry-After seconds.",
    500: "The server met an error that it does not know; its log has the traceback.",
    503: "A store, or the registry, does not answer; or a strict read touches a group that is in breach or unknown.",
}


@cache
def openapi(version: str) -> Schema:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "featurestore",
            "version": version,
            "description": "Feast's feature server contract. Values that a store cannot give are INVALID; they are no error.",
        },
        "paths": {
            "/get-online-features": {"post": _online()},
            "/push": {"post": _push()},
            "/write-to-online-store": {"post": _write()},
            "/health": {
                "get": _probe("The process lives and knows a registry.", "The registry could not be read yet.")
            },
            "/ready": {"get": _probe("Requests can be answered.", "Draining, or no store answers.")},
            "/openapi.json": {"get": _get("This document.", JSON, {"type": "object"})},
            "/metrics": {
                "get": {**_get("Counters for Prometheus.", "text/plain", TEXT, 401, 500, 503), "security": _SECURITY}
            },
        },
        "components": {"schemas": _schemas(), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


_SECURITY: list[dict[str, list[str]]] = [{}, {"key": []}]


def _online() -> Schema:
    timeout = {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "description": "Milliseconds that the answer may take, at most what the server gives; values that did not come by then are INVALID.",
        "schema": {"type": "integer", "minimum": 1},
    }
    freshness = {
        "name": FRESHNESS_HEADER,
        "in": "header",
        "description": "As the field `freshness`, for clients that cannot change their bodies; the field counts.",
        "schema": {"enum": list(MODES)},
    }
    answer = {
        "headers": {STATE_HEADER: {"description": _STATE, "schema": TEXT}},
        "description": "Keys and features, a block each, in the order of metadata.feature_names.",
        "content": {
            JSON: {"schema": _reference("OnlineFeatures")},
            ARROW: {"schema": BINARY},
            PROTOBUF: {"schema": BINARY},
        },
    }
    return {
        "operationId": "get_online_features",
        "summary": "The newest values of some entities.",
        "parameters": [timeout, freshness],
        "requestBody": _body("OnlineRequest"),
        "security": _SECURITY,
        "responses": {"200": answer, **_refusals(400, 401, 403, 404, 406, 408, 413, 415, 422, 429, 500, 503)},
    }


_STATE = "The worst group's state, with `group`, `lag` and `slo` in seconds as parameters."


def _push() -> Schema:
    repeat = {
        "name": IDEMPOTENCY_HEADER,
        "in": "header",
        "description": "Names this push: a repeat with the same rows adds none.",
        "schema": {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY.pattern}$"},
    }
    return {
        "operationId": "push",
        "summary": "Add rows to a pushed group.",
        "parameters": [repeat],
        "requestBody": _body("PushRequest"),
        "security": _SECURITY,
        "responses": {
            "200": {"description": "The rows were taken.", "content": {JSON: {"schema": _reference("Pushed")}}},
            **_refusals(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503),
        },
    }


def _write() -> Schema:
    return {
        "operationId": "write_to_online_store",
        "summary": "Add rows to the online copy of a pushed group alone, as Feast's remote online store does.",
        "requestBody": _body("WriteRequest"),
        "security": _SECURITY,
        "responses": {
            "200": {"description": "The rows were taken.", "content": {JSON: {"schema": _reference("Pushed")}}},
            **_refusals(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503),
        },
    }


def _probe(fine: str, trouble: str) -> Schema:
    schema = _reference("Probe")
    return {
        "responses": {
            "200": {"description": fine, "content": {JSON: {"schema": schema}}},
            "503": {"description": trouble, "content": {JSON: {"schema": schema}}},
        }
    }


def _get(description: str, media_type: str, schema: Schema, *refused: int) -> Schema:
    answer = {"description": description, "content": {media_type: {"schema": schema}}}
    return {"responses": {"200": answer, **_refusals(*refused)}}


def _body(name: str) -> Schema:
    return {"required": True, "content": {JSON: {"schema": _reference(name)}}}


def _refusals(*statuses: int) -> Schema:
    return {
        str(status): {"description": REFUSALS[status], "content": {JSON: {"schema": _reference("Refusal")}}}
        for status in statuses
    }


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> Schema:
    return {
        "OnlineRequest": _online_request(),
        "PushRequest": _push_request(),
        "WriteRequest": _write_request(),
        "OnlineFeatures": _object(
            ["metadata", "results"],
            metadata=_reference("Metadata"),
            results=_list(_reference("Block")),
            causes={"type": "object", "additionalProperties": TEXT},
            freshness=_reference("Freshness"),
        ),
        "Freshness": _object(
            state={"enum": list(STATES)},
            degraded={"type": "boolean"},
            at=_INSTANT,
            groups=_list(_reference("GroupState")),
        ),
        "GroupState": _group_state(),
        "Metadata": _object(
            ["feature_names"],
            feature_names=_list(TEXT),
            feature_view_metadata=_list(_object(name=TEXT, version={"type": "integer"})),
        ),
        "Block": _object(
            ["values", "statuses", "event_timestamps"],
            values=_list(ANYTHING),
            statuses=_list({"enum": list(WIRE_STATUSES)}),
            event_timestamps=_list({"type": "string", "format": "date-time"}),
            age_seconds=_list({"type": ["number", "null"]}),
            tiers=_list({"enum": ["hot", "warm", None]}),
        ),
        "Pushed": _object(
            group=TEXT,
            rows={"type": "integer"},
            table_version={"type": ["integer", "null"]},
            was_repeated={"type": "boolean"},
            is_online={"type": "boolean"},
            waiting={"type": "integer"},
            note=TEXT,
        ),
        "Probe": _object(["status"], status=TEXT, message=TEXT),
        "Refusal": _object(["error", "message"], error=TEXT, message=TEXT, groups=_list(_reference("GroupState"))),
    }


_INSTANT: Schema = {"type": ["string", "null"], "format": "date-time"}


def _group_state() -> Schema:
    seconds = {"type": ["number", "null"]}
    return _object(
        group=TEXT,
        state={"enum": list(STATES)},
        lag_seconds=seconds,
        slo_seconds=seconds,
        since=_INSTANT,
        cause=TEXT,
        last_materialized_at=_INSTANT,
        newest_event=_INSTANT,
        looked_at=_INSTANT,
    )


def _online_request() -> Schema:
    flag = {"type": "boolean", "default": False}
    return _object(
        ["entities"],
        entities={"type": "object", "additionalProperties": _list(ANYTHING)},
        features={"type": ["array", "null"], "items": TEXT},
        feature_service={"type": ["string", "null"]},
        full_feature_names=flag,
        include_feature_view_version_metadata=flag,
        include_serving_metadata={
            **flag,
            "description": "Add each value's age and tier, and how fresh the groups are. Not in Feast's contract.",
        },
        freshness={
            "enum": [*MODES, None],
            "description": "What becomes of groups that are late; the answer then has how fresh they are. Not in Feast's contract.",
        },
    )


def _push_request() -> Schema:
    return _object(
        ["push_source_name", "df"],
        push_source_name={**TEXT, "description": "Name of a pushed group."},
        df={"type": "object", "additionalProperties": _list(ANYTHING)},
        to={"enum": ["online", "offline", "online_and_offline"], "default": "online"},
    )


def _write_request() -> Schema:
    return _object(
        ["feature_view_name", "df"],
        feature_view_name={**TEXT, "description": "Name of a pushed group."},
        df={"type": "object", "additionalProperties": _list(ANYTHING)},
    )


def _object(required: list[str] | None = None, **properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties) if required is None else required, "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}
