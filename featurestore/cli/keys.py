"""`featurestore keys`: API keys made, listed and revoked. Not here: what a key is (`featurestore/auth`).

A key is printed once, by `create`, and nowhere else.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.deployment import Deployment
from featurestore.cli.surface import as_json, person, show, user
from featurestore.cli.times import instant_text

if TYPE_CHECKING:
    from featurestore.auth.book import KeyBook, KeyEntry, StoredKey
    from featurestore.auth.caller import Rights

DEFAULT_DAYS = 90
HEADERS = ["id", "name", "owner", "may", "services", "groups", "state", "expires", "last used"]


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of the feature server."""


@keys.command()
@click.argument("name")
@click.option("--owner", required=True, metavar="WHO", help="Who answers for it: an e-mail address or 'team:...'.")
@click.option("--service", "services", multiple=True, metavar="NAME", help="May read this service; repeat it.")
@click.option(
    "--group", "groups", multiple=True, metavar="NAME", help="May read the features of this group; repeat it."
)
@click.option("--push", is_flag=True, help="May push rows to its groups too.")
@click.option("--push-only", is_flag=True, help="May push rows, and read nothing.")
@click.option("--days", type=click.IntRange(min=1), help=f"Until it expires. [default: {DEFAULT_DAYS}]")
@click.option("--never-expires", is_flag=True, help="Good until it is revoked.")
@click.option("--note", default="", help="For people; also kept in the audit.")
@person
@as_json
@click.pass_obj
def create(
    deployment: Deployment,
    name: str,
    owner: str,
    services: tuple[str, ...],
    groups: tuple[str, ...],
    push: bool,
    push_only: bool,
    days: int | None,
    never_expires: bool,
    note: str,
    person: str,
    as_json: bool,
) -> None:
    """Make a key and print it: once, for only its hash is kept.

    A NAME of a service or group may end in '*': every one that begins so; '*' alone is all of them.
    """
    from featurestore.auth.caller import Rights

    _check_options(services, push, push_only, days, never_expires)
    rights = Rights(_actions(push, push_only), services, groups)
    _check_names(deployment, rights)
    book, now = _book(deployment), deployment.clock()
    expires_at = None if never_expires else now.replace(microsecond=0) + timedelta(days=days or DEFAULT_DAYS)
    stored, key = book.create(
        name, rights, owner=owner, person=person, expires_at=expires_at, note=note, os_user=user()
    )
    show({**_document(stored, book.audit(stored.key_id), now), "key": key}, _created_text, as_json)


@keys.command("list")
@click.option("--all", "is_all", is_flag=True, help="Expired and revoked ones too.")
@as_json
@click.pass_obj
def list_command(deployment: Deployment, is_all: bool, as_json: bool) -> None:
    """List the keys, the newest first: what each may do, until when, and the hour of its last use."""
    book, now = _book(deployment), deployment.clock()
    audit = book.audit()
    found = [_document(key, audit, now) for key in book.all_keys() if is_all or key.state(now) == "active"]
    show(found, _list_text, as_json)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--reason", required=True, help="Why; kept in the audit.")
@person
@as_json
@click.pass_obj
def revoke(deployment: Deployment, key_id: str, reason: str, person: str, as_json: bool) -> None:
    """Refuse a key from now on; every server notices within a second."""
    book = _book(deployment)
    revoked = book.revoke(key_id, person=person, reason=reason, os_user=user())
    show(_document(revoked, book.audit(revoked.key_id), deployment.clock()), _revoked_text, as_json)


def _book(deployment: Deployment) -> "KeyBook":
    book = deployment.store.settings.key_book(deployment.clock)
    book.prepare()
    return book


def _check_options(
    services: tuple[str, ...], push: bool, push_only: bool, days: int | None, never_expires: bool
) -> None:
    """Refuse options of which one would quietly undo the other."""
    if never_expires and days is not None:
        raise click.UsageError("A key with --days expires. Leave out one of --days and --never-expires.")
    if push and push_only:
        raise click.UsageError("--push lets a key read and push, --push-only push alone. Leave out one of them.")
    if push_only and services:
        raise click.UsageError(
            "--service lets a key read, and one with --push-only reads nothing. Leave out one of them; name what it pushes to with "
            "--group."
        )


def _actions(push: bool, push_only: bool) -> tuple[Any, ...]:
    return ("push",) if push_only else ("read", "push") if push else ("read",)


def _check_names(deployment: Deployment, rights: "Rights") -> None:
    """A key for a misspelt name would be refused later, far from whoever made it."""
    for service in rights.services:
        if not service.endswith("*"):
            deployment.store.registry.service(service)
    for group in rights.groups:
        if not group.endswith("*"):
            deployment.store.registry.group(group)


def _document(key: "StoredKey", audit: "Sequence[KeyEntry]", now: datetime) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "owner": key.owner,
        "actions": list(key.rights.actions),
        "services": list(key.rights.services),
        "groups": list(key.rights.groups),
        "state": key.state(now),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "note": key.note,
        "audit": [
            {"at": entry.at, "action": entry.action, "person": entry.person, "reason": entry.reason}
            for entry in audit
            if entry.key_id == key.key_id
        ],
    }


def _created_text(document: dict[str, Any]) -> str:
    until = f"until {instant_text(document['expires_at'])}" if document["expires_at"] else "until it is revoked"
    return (
        f"{document['key']}\n\nKey {document['id']} ({document['name']}) of {document['owner']} is good {until}. "
        "It is shown this once: keep it where secrets are kept."
    )


def _list_text(found: Sequence[dict[str, Any]]) -> str:
    from featurestore.cli.tables import table_text

    if not found:
        return "There is no key. Make one: featurestore keys create NAME --owner WHO --service NAME --as WHO"
    return table_text(HEADERS, [_line(key) for key in found])


def _line(key: dict[str, Any]) -> list[str]:
    named = [", ".join(key[kind]) or "-" for kind in ("actions", "services", "groups")]
    expires = instant_text(key["expires_at"]) if key["expires_at"] else "never"
    return [key["id"], key["name"], key["owner"], *named, key["state"], expires, instant_text(key["last_used_at"])]


def _revoked_text(document: dict[str, Any]) -> str:
    last = document["audit"][-1]
    return (
        f"Key {document['id']} ({document['name']}) of {document['owner']} is revoked since "
        f"{instant_text(document['revoked_at'])}, by {last['person']}: {last['reason']}"
    )
