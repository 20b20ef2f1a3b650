"""`featurestore serve` as users run it: workers, signals, TLS, what it says."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from featurestore.clock import system_clock
from featurestore.location import Location
from featurestore.online.redis.embedded import embedded_folder
from featurestore.online.redis.valkey import EmbeddedValkey
from featurestore.serving.run import await_workers_before_judging
from tests.contract.couriers import WHOLE, deploy, environment
from tests.contract.serving_process import PATIENCE, PROGRAM, running
from tests.waiting import wait_for

ONLINE = "/get-online-features"
SERVICE = {"feature_service": "courier_v1", "entities": {"courier": [WHOLE]}}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of a deployment with values of just now, and a password in its address."""
    folder = tmp_path_factory.mktemp("couriers")
    with EmbeddedValkey(folder / "valkey") as server:
        redis.Redis.from_url(server.url).acl_setuser(
            "server", enabled=True, passwords=["+hushhush"], keys=["*"], commands=["+@all"]
        )
        variables = environment(folder, server.url.replace("redis://", "redis://server:hushhush@"))
        deploy(variables, system_clock).close()
        yield variables


def test_workers_answer_and_count_as_one_and_a_dead_one_is_replaced(deployment: dict[str, str]) -> None:
    with running(deployment, workers=2) as server:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: server.ask(ONLINE, SERVICE), range(60)))
        assert {status for status, _ in answers} == {200}
        assert {json.loads(body)["results"][1]["values"][0] for _, body in answers} == {2.5}
        counted = 'featurestore_requests_total{code="200",path="/get-online-features"} 60.0'
        for _ in range(6):  # whichever worker is scraped
            assert counted in server.ask("/metrics")[1].decode().splitlines()
        first = next(line for line in server.said if "Spawning worker-1" in line)
        os.kill(int(first.rsplit(" ", 1)[1]), signal.SIGKILL)
        server.wait_until_said("Started worker-", 3)
        server.wait_until(ONLINE, 200, SERVICE)
        # A worker says once a second how many it has, and may have said so during that last request.
        none = "featurestore_in_flight_requests 0.0"
        wait_for("no request", lambda: none in server.ask("/metrics")[1].decode().splitlines(), PATIENCE)


def test_beside_a_local_root_the_embedded_store_is_started_and_ended_with_the_server(tmp_path: Path) -> None:
    folder = embedded_folder(Location(str(tmp_path / "store")))
    variables = environment(tmp_path, "")
    with EmbeddedValkey(folder, append_only=True) as earlier:
        deploy({**variables, "FEATURESTORE_ONLINE_URL": earlier.url}, system_clock).close()
    assert EmbeddedValkey(folder).pid is None
    with running(variables) as server:
        status, body = server.ask(ONLINE, SERVICE)
        assert (status, json.loads(body)["results"][1]["statuses"]) == (200, ["PRESENT"])
        assert EmbeddedValkey(folder).pid is not None
        assert server.terminate() == 0
    assert EmbeddedValkey(folder).pid is None


def test_embedded_store_that_runs_already_is_left_running(tmp_path: Path) -> None:
    folder = embedded_folder(Location(str(tmp_path / "store")))
    variables = environment(tmp_path, "")
    with EmbeddedValkey(folder) as valkey:
        deploy({**variables, "FEATURESTORE_ONLINE_URL": valkey.url}, system_clock).close()
        before = valkey.pid
        with running(variables) as server:
            assert server.ask(ONLINE, SERVICE)[0] == 200
            assert server.terminate() == 0
        assert valkey.pid == before


@pytest.mark.exam
def test_the_start_says_what_is_served_and_who_may_ask_and_no_secret(deployment: dict[str, str]) -> None:
    with running(deployment, "--host", "127.0.0.1") as server:
        server.ask(ONLINE, SERVICE, {"authorization": "Bearer fs_secret"})
        server.ask(ONLINE, {"features": ["no:such"], "entities": {}})
        port = server.port
        code = server.terminate()
        said = "\n".join(server.said)
    assert code == 0
    assert (
        f"Serving 3 online groups and 1 services of {deployment['FEATURESTORE_ROOT']} at http://127.0.0.1:{port}"
        in said
    )
    assert "Auth is OFF" in said
    assert "hushhush" not in said
    assert "fs_secret" not in said


def test_a_drain_takes_requests_for_a_while_and_ends_those_under_way(deployment: dict[str, str]) -> None:
    """What is asked during the drain is held up by the online store until after it; everyone has patience enough for that."""
    drain_seconds, hold_milliseconds = 4, 5500
    client = redis.Redis.from_url(deployment["FEATURESTORE_ONLINE_URL"])
    url = deployment["FEATURESTORE_ONLINE_URL"].replace("socket_timeout=5", "socket_timeout=30")
    patient = {**deployment, "FEATURESTORE_ONLINE_URL": url, "FEATURESTORE_READ_DEADLINE_MS": "30000"}
    times = ["--timeout-ms", "30000", "--max-timeout-ms", "30000"]
    with running(patient, "--drain-seconds", str(drain_seconds), *times, workers=2) as server:
        assert server.ask(ONLINE, SERVICE)[0] == 200
        server.process.send_signal(signal.SIGTERM)
        server.wait_until("/ready", 503)
        assert server.ask(ONLINE, SERVICE)[0] == 200, "it still answers"
        client.client_pause(hold_milliseconds)  # what is asked now is under way when the server ends
        with ThreadPoolExecutor(4) as threads:
            late = list(threads.map(lambda _: server.ask(ONLINE, SERVICE), range(4)))
        assert server.process.wait(PATIENCE) == 0
    assert [status for status, _ in late] == [200] * 4
    assert [json.loads(body)["results"][1]["statuses"] for _, body in late] == [["PRESENT"]] * 4


def test_a_worker_that_ends_is_seen_to_have_ended_before_it_is_judged() -> None:
    """Granian's own wait may return at once, while the thread that also waits has not yet noted that the process is gone."""
    said: list[list[bool]] = []

    class LateWorker:
        def __init__(self) -> None:
            self.looks = 0

        def terminate(self) -> None:
            self.looks = 3

        def is_alive(self) -> bool:
            self.looks -= 1
            return self.looks > 0

    workers = [LateWorker(), LateWorker()]
    server = SimpleNamespace(wrks=workers)
    server._stop_workers = lambda: said.append([worker.is_alive() for worker in workers])
    await_workers_before_judging(server)
    server._stop_workers()
    assert said == [[False, False]]


def test_a_server_in_the_background_of_a_script_ends_at_ctrl_c(deployment: dict[str, str]) -> None:
    """The shell has it ignore SIGINT, which a program inherits."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with running(deployment) as server:
            assert server.ask(ONLINE, SERVICE)[0] == 200
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(PATIENCE) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.exam
def test_tls_with_a_certificate_of_one_s_own(deployment: dict[str, str], tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(cafile=cert)
    with running(deployment, "--cert", str(cert), "--key", str(key), context=context) as server:
        status, body = server.ask(ONLINE, SERVICE)
        assert (status, json.loads(body)["results"][1]["values"]) == (200, [2.5])
        assert any(f"https://127.0.0.1:{server.port}" in line for line in server.said)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine, signed by itself."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    now = system_clock()
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    encoded = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(encoded)
    return cert, key


@pytest.mark.exam
def test_what_cannot_be_served_is_refused_at_once(deployment: dict[str, str], tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_")}

    def refused(variables: dict[str, str], *options: str) -> str:
        command = [sys.executable, "-c", PROGRAM, "serve", *options]
        done = subprocess.run(command, env={**inherited, **variables}, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1, done.stderr
        assert "Serving" not in done.stderr, "nothing is served"
        return done.stderr

    cert, _ = certificate(tmp_path)
    (tmp_path / "wrong.pem").write_text("no key")
    assert "--cert and --key" in refused(deployment, "--cert", str(cert))
    assert "PKCS#8" in refused(deployment, "--cert", str(cert), "--key", str(tmp_path / "wrong.pem"))
    assert "featurestore apply" in refused({"FEATURESTORE_ROOT": str(tmp_path / "nothing")})
    assert "longest timeout" in refused(deployment, "--timeout-ms", "500", "--max-timeout-ms", "100")
    taken = EmbeddedValkey(tmp_path / "valkey").start()
    try:
        port = taken.url.rsplit(":", 1)[1].split("/")[0]
        assert "cannot be had" in refused(deployment, "--port", port)
    finally:
        taken.stop()
