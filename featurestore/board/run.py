"""Running the board: one worker process over one socket, until SIGTERM or Ctrl-C.

Not here: the application (`app.py`).
"""

import logging
import multiprocessing
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from featurestore.board.options import BoardOptions
from featurestore.clock import Clock, system_clock

if TYPE_CHECKING:
    from starlette.applications import Starlette


def run_board(
    environment: Mapping[str, str],
    options: BoardOptions,
    clock: Clock = system_clock,
    *,
    announce: Callable[[], None] = lambda: None,
) -> None:
    """Serve the board until SIGTERM or SIGINT.

    Args:
        environment: The FEATURESTORE_* and AWS_* variables.
        options: Where to listen, and how often to look.
        clock: Of the worker; goes to it by pickle.
        announce: Called once the address is found good, before the worker starts.

    Raises:
        InvalidInput: the address is taken.
    """
    from granian import Granian
    from granian.constants import Interfaces

    from featurestore.serving.run import STOP_SECONDS, await_workers_before_judging, check_address

    check_address(options.host, options.port)
    multiprocessing.set_start_method("spawn", force=True)
    server = Granian(
        "featurestore",
        address=options.host,
        port=options.port,
        interface=Interfaces.ASGI,
        workers=1,
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
    )
    await_workers_before_judging(server)
    announce()
    server.serve(target_loader=partial(application, dict(environment), options, clock), wrap_loader=False)


def application(environment: Mapping[str, str], options: BoardOptions, clock: Clock = system_clock) -> "Starlette":
    """The application of the worker; called in its process."""
    from featurestore.board.app import create_app
    from featurestore.board.watching import BoardWatch
    from featurestore.settings import Settings
    from featurestore.store import FeatureStore

    logging.basicConfig(format="[%(levelname)s] %(message)s")
    settings = Settings.from_env(environment)
    return create_app(BoardWatch(lambda: FeatureStore(settings, clock=clock), clock, options.look_seconds))
