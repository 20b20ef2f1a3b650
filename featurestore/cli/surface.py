"""What the commands share: the options for JSON and for who answers, how a document is shown, and who runs this."""

import getpass
import os
from collections.abc import Callable
from typing import Any

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
person = click.option(
    "--as", "person", required=True, metavar="WHO", help="Who does it: an e-mail address or 'team:...'."
)


def user() -> str:
    """Who runs this; in a container the user may have a number and no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def show(document: Any, as_text: Callable[[Any], str], as_json: bool) -> None:
    """Print a document as text, or as JSON; nothing where the text is empty."""
    from featurestore.cli.tables import json_text

    if text := json_text(document) if as_json else as_text(document):
        click.echo(text)
