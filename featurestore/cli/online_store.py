"""`featurestore online`: what the stores behind online reads need now and then, and how copies stand. Reading and materializing are commands of their own."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.deployment import Deployment
from featurestore.cli.surface import as_json, show
from featurestore.errors import InvalidInput

if TYPE_CHECKING:
    from featurestore.store import FeatureStore

WARM_HELP = "dynamodb://table?region=... of the warm tier."


@click.group("online")
@click.option("--warm-url", envvar="FEATURESTORE_WARM_URL", show_envvar=True, metavar="URL", help=WARM_HELP)
@click.pass_obj
def online_store(deployment: Deployment, warm_url: str | None) -> None:
    """Look at online copies; make and tidy up the warm tier."""


@online_store.command()
@click.argument("groups", nargs=-1, metavar="[GROUP]...")
@as_json
@click.pass_context
def status(ctx: click.Context, groups: tuple[str, ...], as_json: bool) -> None:
    """Show how far each part's copy of a group is.

    Of the groups named, or of all that are served online: the version and instant that each server, node or table reflects,
    beside the table's newest version, and whether a copy is being built. A part that does not answer says so in its line.
    """
    from featurestore.cli.copies import copies_text, list_copies

    show(list_copies(_store(ctx), groups), copies_text, as_json)


def _store(ctx: click.Context) -> "FeatureStore":
    """The deployment's, with the warm tier that the option names."""
    from featurestore.store import FeatureStore

    store: FeatureStore = ctx.obj.store
    warm_url = (ctx.parent or ctx).params["warm_url"]
    return FeatureStore(replace(store.settings, warm_url=warm_url), clock=store.clock) if warm_url else store


@online_store.command()
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag of a table made now; repeat it.")
@click.option("--point-in-time-recovery", is_flag=True, help="Keep backups. The copy needs none: it can be rebuilt.")
@as_json
@click.pass_context
def provision(ctx: click.Context, tags: tuple[str, ...], point_in_time_recovery: bool, as_json: bool) -> None:
    """Make the warm tier's table, if it is not there.

    It is billed by request and drops expired items; the command waits until it is active. Run again, it changes nothing. A
    table that has other keys is refused.
    """
    from featurestore.online.dynamo.provision import provision as make

    done = make(_warm_url(ctx), tags=_tags(tags), point_in_time_recovery=point_in_time_recovery)
    show(asdict(done), _provisioned_text, as_json)


@online_store.command()
@click.argument("group")
@as_json
@click.pass_context
def sweep(ctx: click.Context, group: str, as_json: bool) -> None:
    """Remove what earlier builds of a group left in the warm tier.

    A rebuild writes beside the last copy, under keys of its own. This waits ten seconds, so that no reader relies on the last
    one, then reads the whole table, which is billed, and deletes that group's items of earlier builds.
    """
    from featurestore.online.dynamo.sweep import sweep as remove

    show(asdict(remove(_warm_url(ctx), group)), _swept_text, as_json)


def _warm_url(ctx: click.Context) -> str:
    """The option's, which may stand in the environment that the command line was given."""
    from featurestore.settings import Settings

    url: str = (ctx.parent or ctx).params["warm_url"] or Settings.from_env(ctx.obj.environment).warm_url
    if not url:
        raise InvalidInput(
            "No warm tier is configured. Set FEATURESTORE_WARM_URL to dynamodb://featurestore-online?region=..., or give "
            "--warm-url."
        )
    return url


def _tags(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [tag.partition("=") for tag in given]
    if wrong := [f"{key}{sign}{value}" for key, sign, value in pairs if not (key and sign)]:
        raise InvalidInput(f"{wrong} are no tags. Write --tag team=flights.")
    return {key: value for key, _, value in pairs}


def _provisioned_text(done: dict[str, Any]) -> str:
    how = "was made" if done["was_made"] else "was there already"
    billing = {"PAY_PER_REQUEST": "billed by request", "PROVISIONED": "with provisioned capacity"}
    recovery = ", with point-in-time recovery" if done["point_in_time_recovery"] else ""
    return (
        f"Table {done['table']} {how}: active, {billing.get(done['billing'], done['billing'])}, items expire{recovery}."
    )


def _swept_text(done: dict[str, Any]) -> str:
    return f"Removed {done['removed']:,} items of earlier builds of {done['group']}; build {done['generation']} stays."
