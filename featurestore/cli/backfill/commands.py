"""The surface of `featurestore backfill`: every command, its arguments and what its help says.

As in `cli/main.py`, each command imports its work when it runs: launching and watching in `launching.py`, approvals in
`deciding.py`, what was promoted and how to take it back in `changing.py`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from featurestore.cli.deployment import Deployment
from featurestore.cli.surface import as_json, person, show, user
from featurestore.launch import STRATEGIES

F = TypeVar("F", bound=Callable[..., Any])
DAGSTER_URL = "http://127.0.0.1:3000"

backfill_id = click.argument("backfill_id", metavar="ID")
dagster_url = click.option(
    "--dagster-url",
    envvar="FEATURESTORE_DAGSTER_URL",
    default=DAGSTER_URL,
    show_default=True,
    metavar="URL",
    help="Dagster's web server, as 'make up' starts it.",
)
WINDOWS = (
    click.argument("group"),
    click.option(
        "--from", "first", metavar="KEY", help="First partition key; default: the first that may be backfilled."
    ),
    click.option("--to", "last", metavar="KEY", help="Last partition key; default: the last complete window."),
    click.option("--missing", is_flag=True, help="Only windows that were never promoted."),
    click.option("--failed", is_flag=True, help="Only windows in quarantine."),
    click.option("--stale-code", is_flag=True, help="Only windows promoted by another version of the transform."),
    click.option("--strategy", type=click.Choice(STRATEGIES), default="full", show_default=True),
)


def of_windows(command: F) -> F:
    """The argument and options that choose windows of a group."""
    for option in reversed(WINDOWS):
        command = option(command)
    return command


def _require_override(_context: click.Context, _option: click.Parameter, is_given: bool) -> None:
    """Promoting past the gate is said in so many words."""
    if not is_given:
        raise click.UsageError(
            "Windows that failed their gate are promoted only with --override. Look first: inspect ID."
        )


@click.group()
def backfill() -> None:
    """Plan, launch, approve, inspect, compare and take back backfills."""


@backfill.command()
@of_windows
@as_json
@click.pass_obj
def plan(deployment: Deployment, /, as_json: bool, **selection: Any) -> None:
    """Say what a backfill would read, write and cost, and whether it would wait for approval."""
    from featurestore.cli.backfill import launching

    show(launching.plan(deployment, **selection), launching.plan_text, as_json)


@backfill.command()
@of_windows
@click.option("--accept-shift", is_flag=True, help="Promote although many windows differ from what was promoted.")
@click.option(
    "--without", multiple=True, metavar="GROUP", help="Do not wait for missing windows of this upstream group."
)
@dagster_url
@as_json
@click.pass_obj
def launch(
    deployment: Deployment,
    /,
    accept_shift: bool,
    without: tuple[str, ...],
    dagster_url: str,
    as_json: bool,
    **selection: Any,
) -> None:
    """Launch a backfill in Dagster, as its launch dialog does.

    The transform is tried on one recent window first; nothing is queued if that fails.
    """
    from featurestore.cli.backfill import launching

    launched = launching.launch(
        deployment, dagster_url, user(), accept_shift=accept_shift, without=without, **selection
    )
    show(launched, launching.launch_text, as_json)


@backfill.command()
@backfill_id
@dagster_url
@as_json
@click.pass_obj
def status(deployment: Deployment, backfill_id: str, dagster_url: str, as_json: bool) -> None:
    """Show how far a backfill is: windows, rows, bytes, and the time that is left."""
    from featurestore.cli.backfill import watching

    show(watching.status(deployment, dagster_url, backfill_id), watching.status_text, as_json)


@backfill.command()
@backfill_id
@dagster_url
@as_json
@click.pass_obj
def resume(deployment: Deployment, backfill_id: str, dagster_url: str, as_json: bool) -> None:
    """Launch anew the windows of a backfill that are not promoted: after a failure, a kill or a mended transform."""
    from featurestore.cli.backfill import launching

    show(launching.resume(deployment, dagster_url, backfill_id, user()), launching.launch_text, as_json)


@backfill.command("list")
@click.option("--group", default=None, help="Only of this group.")
@click.option("--state", default=None, help="Only in this state, e.g. pending.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1))
@as_json
@click.pass_obj
def list_command(deployment: Deployment, group: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List backfills, the newest first, with what they were estimated to cost and who decided."""
    from featurestore.cli.backfill import deciding

    show(deciding.list_backfills(deployment, group=group, state=state, limit=limit), deciding.list_text, as_json)


@backfill.command("show")
@backfill_id
@as_json
@click.pass_obj
def show_command(deployment: Deployment, backfill_id: str, as_json: bool) -> None:
    """Show one backfill: what was asked, its estimate, who decided and why, and everything done to it since."""
    from featurestore.cli.backfill import deciding

    show(deciding.show_backfill(deployment, backfill_id), deciding.show_text, as_json)


@backfill.command()
@backfill_id
@person
@click.option("--reason", required=True, help="Why; kept in the audit.")
@as_json
@click.pass_obj
def approve(deployment: Deployment, backfill_id: str, person: str, reason: str, as_json: bool) -> None:
    """Let a backfill go that waits because its estimate is above the limit of a group."""
    from featurestore.cli.backfill import deciding

    show(deciding.approve(deployment, backfill_id, person, user(), reason), deciding.decided_text, as_json)


@backfill.command()
@backfill_id
@person
@click.option("--reason", required=True, help="Why; shown to whoever launched it.")
@as_json
@click.pass_obj
def reject(deployment: Deployment, backfill_id: str, person: str, reason: str, as_json: bool) -> None:
    """Cancel a backfill that waits for approval."""
    from featurestore.cli.backfill import deciding

    show(deciding.reject(deployment, backfill_id, person, user(), reason), deciding.decided_text, as_json)


@backfill.command()
@backfill_id
@as_json
@click.pass_obj
def inspect(deployment: Deployment, backfill_id: str, as_json: bool) -> None:
    """Show the windows of a backfill that stay in staging: which feature, how far off, and example rows."""
    from featurestore.cli.backfill import changing

    show(changing.inspect(deployment, backfill_id), changing.inspect_text, as_json)


@backfill.command()
@backfill_id
@as_json
@click.pass_obj
def diff(deployment: Deployment, backfill_id: str, as_json: bool) -> None:
    """Compare what a backfill promoted with what was there before: rows and features, and by how much."""
    from featurestore.cli.backfill import changing

    show(changing.diff(deployment, backfill_id), changing.diff_text, as_json)


@backfill.command()
@backfill_id
@click.option(
    "--override",
    is_flag=True,
    expose_value=False,
    callback=_require_override,
    help="Promote windows although they failed their gate.",
)
@click.option(
    "--window", "windows", multiple=True, metavar="KEY", help="Only this window; repeat it. Default: all held."
)
@person
@click.option("--reason", required=True, help="Why; kept in the audit.")
@as_json
@click.pass_obj
def promote(
    deployment: Deployment,
    backfill_id: str,
    windows: tuple[str, ...],
    person: str,
    reason: str,
    as_json: bool,
) -> None:
    """Promote windows of a backfill that failed their gate, as they are staged."""
    from featurestore.cli.backfill import changing

    show(changing.promote(deployment, backfill_id, windows, person, user(), reason), changing.promote_text, as_json)


@backfill.command()
@backfill_id
@person
@click.option("--reason", required=True, help="Why; kept in the audit.")
@as_json
@click.pass_obj
def rollback(deployment: Deployment, backfill_id: str, person: str, reason: str, as_json: bool) -> None:
    """Return exactly the windows that a backfill promoted to what they were, and the online copies with them."""
    from featurestore.cli.backfill import changing

    show(changing.rollback(deployment, backfill_id, person, user(), reason), changing.rollback_text, as_json)
