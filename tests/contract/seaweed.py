"""A SeaweedFS server of our own, on loopback and free ports: the S3 that contract tests run on."""

import os
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import FeatureStoreError
from featurestore.location import Location
from featurestore.ports import free_ports

BUCKET = "lake"
KEY_ID = "seaweed-test-key"
SECRET = "seaweed-test-secret"
START_SECONDS = 120
STOP_SECONDS = 60
PORTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc")]


@contextmanager
def seaweed(folder: Path) -> Iterator[Location]:
    """Start a server that keeps its data in `folder`, yield the location of an empty bucket, and stop it."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    identity = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **identity}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "seaweed.log").open("wb") as log:
        process = subprocess.Popen(
            _command(ports), stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environment, start_new_session=True
        )
        try:
            location = Location(f"s3://{BUCKET}", _options(endpoint))
            _wait_until_up(process, location, folder / "seaweed.log")
            yield location
        finally:
            _stop(process)


def _command(ports: dict[str, int]) -> list[str]:
    """Paths are relative to the working folder: a socket's path may have 107 characters at most."""
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    switched_off = [
        "webdav=false",
        "admin.ui=false",
        "master.telemetry=false",
        "s3.port.iceberg=0",
        "s3.port.lance=0",
        "s3.autoCreateBucket=false",
    ]
    sockets = ["filer.localSocket=filer.sock", "s3.localSocket=s3.sock"]
    settings = ["dir=.", "ip=127.0.0.1", "ip.bind=127.0.0.1", f"bucket={BUCKET}", *switched_off, *sockets]
    return [str(weed), "mini", *(f"-{s}" for s in settings), *(f"-{name}={port}" for name, port in ports.items())]


def _options(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ALLOW_HTTP": "true",
        "aws_conditional_put": "etag",
    }


def _wait_until_up(process: subprocess.Popen[bytes], location: Location, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            location.names()
        except FeatureStoreError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"SeaweedFS did not start (exit code {process.poll()}):\n{log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
