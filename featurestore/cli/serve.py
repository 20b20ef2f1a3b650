"""`serve`: the feature server from a shell. What it says when it starts; how it serves is in `featurestore.serving`."""

import signal
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from featurestore.cli.deployment import Deployment
from featurestore.serving.options import DEFAULT_HOST, DEFAULT_PORT, Limits, ServeOptions

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
USUAL = Limits()


@click.command()
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(1, 65_535), help="Port to listen on."
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes that answer.")
@click.option("--cert", type=FILE, help="Certificate chain for TLS, PEM.")
@click.option("--key", type=FILE, help="Its key, PEM, PKCS#8 without password.")
@click.option(
    "--timeout-ms",
    default=round(USUAL.timeout_seconds * 1000),
    show_default=True,
    type=click.IntRange(1),
    help="How long a request may take that does not say so itself.",
)
@click.option(
    "--max-timeout-ms",
    default=round(USUAL.longest_timeout_seconds * 1000),
    show_default=True,
    type=click.IntRange(1),
    help="What a request may say at most, in X-Request-Timeout-Ms.",
)
@click.option(
    "--max-body-bytes",
    default=USUAL.body_bytes,
    show_default=True,
    type=click.IntRange(1),
    help="Longest body of a request.",
)
@click.option(
    "--max-values",
    default=USUAL.values,
    show_default=True,
    type=click.IntRange(1),
    help="Entities times features of a request.",
)
@click.option(
    "--max-in-flight",
    default=USUAL.in_flight,
    show_default=True,
    type=click.IntRange(1),
    help="Reads that one worker answers at a time; the next ones get 429.",
)
@click.option(
    "--max-pushes",
    default=USUAL.pushes_in_flight,
    show_default=True,
    type=click.IntRange(1),
    help="Pushes that one worker takes at a time; the next ones get 429.",
)
@click.option(
    "--drain-seconds",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0),
    help="After SIGTERM: how long requests are still taken while /ready says no.",
)
@click.option(
    "--registry-seconds",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.05),
    help="How often the registry is looked at.",
)
@click.pass_obj
def serve(
    deployment: Deployment,
    host: str,
    port: int,
    workers: int,
    cert: Path | None,
    key: Path | None,
    timeout_ms: int,
    max_timeout_ms: int,
    max_body_bytes: int,
    max_values: int,
    max_in_flight: int,
    max_pushes: int,
    drain_seconds: float,
    registry_seconds: float,
) -> None:
    """Serve online values over HTTP, by Feast's contract.

    Beside a local root, with no address of an online store, it starts the embedded one and ends it again, unless one runs there already.
    A Feast client only changes its URL. GET /openapi.json has every path; answers come as JSON, as Arrow or as Protobuf, as Accept
    says. Ends at Ctrl-C; SIGTERM drains first.
    """
    # A shell that starts a job in the background of a script has it ignore Ctrl-C; this is how such a script ends it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    limits = Limits(max_body_bytes, max_values, max_in_flight, max_pushes, timeout_ms / 1000, max_timeout_ms / 1000)
    options = ServeOptions(host, port, workers, cert, key, drain_seconds, registry_seconds, limits)
    notices = "\n".join(_notices(deployment, options))
    from featurestore.serving.run import serve as run

    with _embedded_store(deployment):
        run(deployment.environment, options, deployment.clock, announce=lambda: click.echo(notices, err=True))


def _embedded_store(deployment: Deployment) -> AbstractContextManager[object]:
    """The embedded online store beside a local root, while this serves, if groups are read from it; else nothing."""
    from featurestore.online.redis.embedded import running_embedded

    settings, groups = deployment.store.settings, deployment.store.registry.groups.values()
    tiers = [group.tiers or (("warm",) if settings.warm_url else ("hot",)) for group in groups if group.is_online]
    if settings.online_url or not settings.root.is_local or not any("hot" in named for named in tiers):
        return nullcontext()
    return running_embedded(settings.root)


def _notices(deployment: Deployment, options: ServeOptions) -> list[str]:
    """What is served, where, and who may ask.

    Raises:
        UnknownName: nothing has been applied yet.
    """
    from featurestore.auth.authenticator import OpenAuthenticator, authenticator_of

    registry = deployment.store.registry
    online = sorted(name for name, group in registry.groups.items() if group.is_online)
    authenticator = authenticator_of(deployment.store.settings, deployment.clock)
    lines = [
        f"Serving {len(online)} online groups and {len(registry.services)} services of {deployment.root.uri} at {options.url}",
        authenticator.notice,
    ]
    if isinstance(authenticator, OpenAuthenticator) and not options.is_loopback:
        lines.append(f"{options.host} can be reached from other machines: everyone there may read and push.")
    return lines
