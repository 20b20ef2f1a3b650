"""Running the server: worker processes over one socket, TLS, and an end that lets requests finish.

Not here: the application (`app.py`). Workers are started anew (spawned), never forked: the stores' clients run threads.
"""

import gc
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.clock import Clock, system_clock
from featurestore.errors import InvalidInput
from featurestore.serving.options import COUNTERS_VARIABLE, ServeOptions

if TYPE_CHECKING:
    from granian.server.mp import MPServer
    from granian.server.mt import MTServer
    from starlette.types import ASGIApp

DRAINING = "draining"
STOP_SECONDS = 30
LOOK_SECONDS = 0.01
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": 512 * 1024 * 1024, "MALLOC_MMAP_THRESHOLD_": 256 * 1024 * 1024}
"""For workers on glibc: memory of large bodies is kept for the next ones. Given back and asked for anew each time, its page
faults were half of the system time of large reads."""
SWITCH_SECONDS = 0.0005
"""A read has its answer in less time than the interpreter lets another thread wait for its turn by itself (5 ms)."""


def serve(
    environment: Mapping[str, str],
    options: ServeOptions,
    clock: Clock = system_clock,
    *,
    announce: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    SIGTERM drains: /ready says no while requests are still taken for `drain_seconds`, then no connection is taken and those
    under way are answered. SIGINT, or a second SIGTERM, leaves out the wait.

    Args:
        environment: The FEATURESTORE_* and AWS_* variables.
        clock: Of the workers; goes to them by pickle.
        announce: Called once the address and the certificate are found good, before the workers start.

    Raises:
        InvalidInput: the address is taken, or the certificate cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="featurestore-serve-") as folder:
        os.environ[COUNTERS_VARIABLE] = folder
        for name, size_bytes in ALLOCATOR.items():
            os.environ.setdefault(name, str(size_bytes))
        multiprocessing.set_start_method("spawn", force=True)
        loader = partial(application, dict(environment), options, Path(folder), clock)
        server = _server(options)
        await_workers_before_judging(server)
        server.on_startup(partial(_drain_on_sigterm, server, Path(folder) / DRAINING, options.drain_seconds))
        check_address(options.host, options.port)
        announce()
        server.serve(target_loader=loader, wrap_loader=False)


def application(
    environment: Mapping[str, str], options: ServeOptions, folder: Path, clock: Clock = system_clock
) -> "ASGIApp":
    """The application of one worker; called in its process."""
    from featurestore.auth.authenticator import authenticator_of
    from featurestore.serving.app import Serving, create_app
    from featurestore.settings import Settings
    from featurestore.store import FeatureStore

    logging.basicConfig(format="[%(levelname)s] %(message)s")
    logging.getLogger("featurestore").setLevel(logging.INFO)
    settings = Settings.from_env(environment)
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # modules stay: looking through them again and again would hold up requests for tens of milliseconds
    return create_app(
        Serving(
            lambda: FeatureStore(settings, clock=clock),
            authenticator_of(settings, clock),
            options.limits,
            options.registry_seconds,
            (folder / DRAINING).exists,
        )
    )


def _server(options: ServeOptions) -> "MPServer | MTServer":
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols

    try:
        return Granian(
            "featurestore",
            address=options.host,
            port=options.port,
            interface=Interfaces.ASGI,
            workers=options.workers,
            http=HTTPModes.auto,
            websockets=False,
            loop=Loops.auto,
            respawn_failed_workers=True,
            workers_kill_timeout=STOP_SECONDS,
            ssl_cert=options.cert,
            ssl_key=options.key,
            ssl_protocol_min=SSLProtocols.tls12,
        )
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"The certificate {options.cert} with the key {options.key} cannot be used: {error}. Give PEM files; the key without "
            "password, in PKCS#8: openssl pkcs8 -topk8 -nocrypt -in key.pem -out key8.pem."
        ) from error


def check_address(host: str, port: int) -> None:
    """Say it before workers are started if the address cannot be had.

    Raises:
        InvalidInput: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise InvalidInput(
            f"Address {host}:{port} cannot be had: {error}. Choose another with --host and --port."
        ) from error


def await_workers_before_judging(server: Any) -> None:
    """Let workers end, and be seen to have ended, before Granian looks which of them must be killed.

    Each of its workers is waited for by a thread too. If that one takes the exit code first, the main thread's wait returns at once
    and the worker seems alive for a moment: Granian then said that it refuses to stop, and killed its number.
    """
    stop = server._stop_workers

    def stop_patiently() -> None:
        for worker in server.wrks:
            worker.terminate()
        end = time.monotonic() + STOP_SECONDS
        while any(worker.is_alive() for worker in server.wrks) and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
        stop()

    server._stop_workers = stop_patiently


def _drain_on_sigterm(server: "MPServer | MTServer", marker: Path, seconds: float) -> None:
    """Replace Granian's handler, which would stop at once."""

    def drain(*_: object) -> None:
        if marker.exists():
            server.signal_handler_interrupt()  # type: ignore[no-untyped-call]
            return
        marker.touch()
        timer = threading.Timer(seconds, server.signal_handler_interrupt)
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, drain)
