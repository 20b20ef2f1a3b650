"""`board`: the freshness of every group as a web page and as metrics, from a shell. How it looks and answers is in `featurestore.board`."""

import signal

import click

from featurestore.board.options import DEFAULT_PORT, LOOK_SECONDS, BoardOptions
from featurestore.cli.deployment import Deployment
from featurestore.serving.options import DEFAULT_HOST


@click.command()
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(1, 65_535), help="Port to listen on."
)
@click.option(
    "--look-seconds",
    default=LOOK_SECONDS,
    show_default=True,
    type=click.FloatRange(0.1),
    help="How often the stores are looked at.",
)
@click.pass_obj
def board(deployment: Deployment, host: str, port: int, look_seconds: float) -> None:
    """Serve the freshness of every group as a web page.

    / has all groups, /group/NAME one of them, /freshness.json the documents of `featurestore freshness --json`, /metrics the same for
    Prometheus. It only reads, asks nobody who they are, and looks off the path of requests. Ends at Ctrl-C or SIGTERM.
    """
    # A shell that starts a job in the background of a script has it ignore Ctrl-C; this is how such a script ends it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = BoardOptions(host, port, look_seconds)
    from featurestore.board.run import run_board

    notices = "\n".join(_notices(deployment, options))
    run_board(deployment.environment, options, deployment.clock, announce=lambda: click.echo(notices, err=True))


def _notices(deployment: Deployment, options: BoardOptions) -> list[str]:
    lines = [f"The board of {deployment.root.uri} is at {options.url}"]
    if not options.is_loopback:
        lines.append(f"{options.host} can be reached from other machines: everyone there may read it.")
    return lines
