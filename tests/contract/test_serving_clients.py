"""Clients that others wrote: Feast's own SDK, in an environment of its own, and schemathesis. Only in the exam."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from featurestore.auth.caller import Rights
from featurestore.clock import EPOCH, system_clock
from featurestore.online.published import Published
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.store import FeatureStore
from tests.contract.couriers import ABSENT, EMPTY, EVERYTHING, FEATURES, OLD, WHOLE, deploy, environment
from tests.contract.serving_process import Server, running
from tests.scale import cases

pytestmark = pytest.mark.exam
REQUESTS = re.compile(
    r'featurestore_requests_total\{code="(\d+)",path="/(?:get-online-features|push|write-to-online-store)"\} (\S+)'
)
FEAST = "feast==0.67.0"
FEAST_PYTHON = "FEATURESTORE_FEAST_PYTHON"
READER = Path(__file__).parent / "feast_reader.py"
NAMES = [feature.name for feature in FEATURES]
COURIERS = [WHOLE, EMPTY, OLD, ABSENT]
AHEAD = itertools.count(1)
A_TIME = {"type": "string", "format": "date-time"}
ODD_TIMES = [
    "9999-12-31T23:59:59-10:00",
    "0001-01-01T00:00:00+14:00",
    "1970-01-01T00:00:00Z",
    "2016-12-31T23:59:60Z",
    "2026-03-01T12:00:00",
    "2026-03-01T24:00:00Z",
]
"""Beyond the calendar of UTC, at its zero, in a leap second, without a zone, at an hour that there is not."""
FEAST_STATUSES = {"PRESENT": 1, "NULL_VALUE": 2, "NOT_FOUND": 3, "OUTSIDE_MAX_AGE": 4}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    """A deployment with values of just now."""
    folder = tmp_path_factory.mktemp("couriers")
    with EmbeddedValkey(folder / "valkey") as server:
        yield deploy(environment(folder, server.url), system_clock)


@pytest.fixture(scope="module")
def server(deployment: FeatureStore) -> Iterator[Server]:
    variables = environment(Path(deployment.settings.root.uri).parent, deployment.settings.online_url)
    with running(variables) as made:
        yield made


def publish(deployment: FeatureStore, status: str) -> None:
    """Say how fresh all groups are, by a look that lies ahead: later than those before, and not outlived by any test."""
    now = system_clock()
    found = Published(
        now + next(AHEAD) * timedelta(days=1), status, now, now, cause="" if status == "OK" else "arrival"
    )
    for part in deployment.online.hot.parts():
        part.publish(dict.fromkeys(("courier_state", "courier_score", "depot_state"), found))


@pytest.fixture(scope="module")
def feast_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has Feast: the one that the environment names, or one made now."""
    if given := os.environ.get(FEAST_PYTHON):
        return Path(given)
    folder = tmp_path_factory.mktemp("feast")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", FEAST], check=True)
    return python


def ask_feast(
    python: Path, folder: Path, url: str, requests: list[dict[str, Any]], key: str | None = None
) -> list[dict[str, Any]]:
    command = [str(python), str(READER), str(folder), url]
    environment = {**os.environ, **({"FEATURES_KEY": key} if key else {})}
    done = subprocess.run(
        command, input=json.dumps(requests), capture_output=True, text=True, timeout=900, env=environment
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def request_of(features: list[str] | str, couriers: list[int], full: bool = False) -> dict[str, Any]:
    return {"features": features, "rows": [{"courier": one} for one in couriers], "full_feature_names": full}


def test_feast_s_sdk_reads_from_this_server_as_its_remote_online_store(
    deployment: FeatureStore, server: Server, feast_python: Path, tmp_path: Path
) -> None:
    publish(deployment, "BREACH")
    ask = {"feature_service": "courier_v1", "entities": {"courier": [WHOLE]}}
    _until_state(server, ask, "BREACH")
    two = ["courier_state:speed", "courier_score:speed"]
    write = {"view": "courier_score", "columns": {"courier": [71, 72], "score": [1.5, -2.0], "speed": [0.25, 3.0]}}
    instant = system_clock().replace(microsecond=0)
    written_rows = {"write": {**write, "times": [instant.isoformat()] * 2}}
    values, service, both, one, unknown, written, times = ask_feast(
        feast_python,
        tmp_path,
        server.url,
        [
            request_of(EVERYTHING, COURIERS),
            request_of("courier_v1", COURIERS),
            request_of(two, [WHOLE], full=True),
            request_of(["courier_state:parcels"], [WHOLE]),
            request_of(["courier_state:sped"], [WHOLE]),
            {**request_of(["courier_score:score", "courier_score:speed"], [71, 72, 73]), **written_rows},
            {"times_of": COURIERS, "view": "courier_state"},
        ],
    )
    truth = deployment.get_online_features(EVERYTHING, {"courier": COURIERS})
    assert set(values["columns"]) == {"courier", *NAMES}
    for name in NAMES:
        statuses = [FEAST_STATUSES[status] for status in truth.statuses[name].to_list()]
        assert values["statuses"][name] == statuses, name
        expected = truth.frame[name].to_list()
        if name in ("hired_on", "seen_at"):  # Feast has seconds for those
            expected = [None if value is None else seconds_of(value) for value in expected]
            assert [one for one in values["values"][name] if one is not None] == pytest.approx(
                [one for one in expected if one is not None], abs=1e-6
            ), name
            assert [one is None for one in values["values"][name]] == [one is None for one in expected], name
        else:
            assert values["values"][name] == expected, name
    event_times = [datetime.fromisoformat(text) for text in times["times"]]
    expected_times = [EPOCH if time is None else time for time in truth.event_times["speed"].to_list()]
    assert event_times == expected_times, "to the microsecond"
    assert service["values"]["parcels"] == [2**60, None, None, None]
    assert both["values"] == {"courier": [WHOLE], "courier_state__speed": [2.5], "courier_score__speed": [9.0]}
    assert one["values"] == {"courier": [WHOLE], "parcels": [2**60]}
    assert "Did you mean 'courier_state:speed'?" in unknown["error"]
    assert written["values"] == {"courier": [71, 72, 73], "score": [1.5, -2.0, None], "speed": [0.25, 3.0, None]}
    own = deployment.get_online_features(["courier_score:score"], {"courier": [71, 72]})
    assert own.event_times["score"].to_list() == [instant] * 2


def test_feast_s_sdk_sends_a_key_where_the_server_asks_for_one(
    deployment: FeatureStore, feast_python: Path, tmp_path: Path
) -> None:
    book = deployment.settings.key_book(system_clock)
    book.prepare()
    until = system_clock() + timedelta(days=1)
    rights = Rights(("read",), ("courier_v1",))
    key = book.create("feast", rights, owner="team:couriers", person="tests", expires_at=until)[1]
    variables = environment(Path(deployment.settings.root.uri).parent, deployment.settings.online_url)
    asked = [request_of("courier_v1", [WHOLE]), request_of(["courier_score:score"], [WHOLE])]
    with running({**variables, "FEATURESTORE_AUTH": "on"}) as server:
        allowed, other = ask_feast(feast_python, tmp_path / "key", server.url, asked, key)
        (nobody,) = ask_feast(feast_python, tmp_path / "none", server.url, asked[:1])
    assert allowed["values"]["parcels"] == [2**60]
    assert "may not read" in other["error"]
    assert "A valid API key is needed" in nobody["error"]


def _until_state(server: Server, ask: dict[str, Any], state: str) -> None:
    """Workers learn what is published within a second; then a breach stands in every body, beside what Feast reads."""
    end = time.monotonic() + 60
    while json.loads(server.ask("/get-online-features", ask)[1]).get("freshness", {}).get("state") != state:
        assert time.monotonic() < end
        time.sleep(0.1)


def seconds_of(value: date) -> float:
    """Since 1970 UTC, as Feast has times and dates."""
    if isinstance(value, datetime):
        return value.timestamp()
    return float((value - date(1970, 1, 1)).days * 86_400)


def one_row(time: str) -> dict[str, list[Any]]:
    return {"courier": [1, 1], "event_timestamp": [time] * 2, "score": [1.0, 2.0], "speed": [1.0, 2.0]}


def described(server: Server) -> dict[str, Any]:
    """The server's description, with names that are registered here: else hardly a request would get past its names."""
    document: dict[str, Any] = json.loads(server.ask("/openapi.json")[1])
    schemas = document["components"]["schemas"]
    online = schemas["OnlineRequest"]["properties"]
    push, write = (schemas[name]["properties"] for name in ("PushRequest", "WriteRequest"))
    names = [*EVERYTHING, "courier_score:score", "depot_state:vans", "courier_past:trips", "courier_state:sped"]
    online["features"] = {"type": ["array", "null"], "items": {"enum": names}, "uniqueItems": True}
    online["feature_service"] = {"enum": ["courier_v1", "courier_v2", None]}
    online["entities"]["properties"] = {"courier": {"type": "array", "items": {"type": ["integer", "null"]}}}
    online["entities"]["required"] = ["courier"]
    push["push_source_name"] = write["feature_view_name"] = {"enum": ["courier_score", "depot_state", "courier_scores"]}
    for body in (push, write):
        body["df"]["properties"] = {name: {"type": "array", "items": {"type": "number"}} for name in ("score", "speed")}
        body["df"]["properties"]["courier"] = {"type": "array", "items": {"type": ["integer", "null"]}}
        body["df"]["properties"]["event_timestamp"] = {
            "type": "array",
            "items": {"anyOf": [A_TIME, {"enum": ODD_TIMES}]},
        }
    schemas["PushRequest"]["examples"] = [
        {"push_source_name": "courier_score", "df": one_row(time), "to": to}
        for time in ODD_TIMES
        for to in ("online", "offline", "online_and_offline")
    ]
    schemas["WriteRequest"]["examples"] = [
        {"feature_view_name": "courier_score", "df": one_row(time)} for time in ODD_TIMES
    ]
    return document


@pytest.mark.parametrize("is_named", [False, True])
def test_schemathesis_finds_no_server_error_and_no_answer_beside_the_description(
    deployment: FeatureStore, server: Server, tmp_path: Path, is_named: bool
) -> None:
    # Else a strict read is refused by 503, as it is to be, which counts as a server's error here.
    publish(deployment, "OK")
    _until_state(
        server, {"feature_service": "courier_v1", "entities": {"courier": [WHOLE]}, "freshness": "degrade"}, "OK"
    )
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(described(server)))
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        str(document) if is_named else f"{server.url}/openapi.json",
        f"--url={server.url}",
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        f"--max-examples={cases(400, 20)}",
        "--phases=examples,coverage,fuzzing",
        "--no-color",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    codes = answered_codes(server)
    assert not [code for code in codes if code >= 500]
    assert codes.keys() >= ({200, 404, 422} if is_named else {404, 422})


def answered_codes(server: Server) -> dict[int, float]:
    """How often each status was answered to reads and pushes."""
    found: dict[int, float] = {}
    for line in server.ask("/metrics")[1].decode().splitlines():
        match = REQUESTS.match(line)
        if match:
            found[int(match[1])] = found.get(int(match[1]), 0.0) + float(match[2])
    return found
