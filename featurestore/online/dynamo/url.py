"""The address of a warm tier, as text. Not here: boto3, or any connection.

    dynamodb://featurestore-online?region=eu-central-1&max_connections=64&profile=serving

| parameter | meaning | default |
|---|---|---|
| region | AWS region of the table | the one that AWS's own settings name |
| endpoint | http(s) address instead of AWS's: a VPC endpoint, or a server for tests | AWS's |
| max_connections | requests under way at once, for reads and again for writes | 32 |
| timeout_seconds | how long a read may take if its caller says nothing | 1 |
| profile | profile of AWS's configuration; one with `role_arn` assumes that role | the environment's credentials |
| reads | `strong`, or `eventual`: half the price, and nothing read can repair the hot tier | strong |
| dax | dax:// or daxs:// endpoint of a DAX cluster that answers reads, then eventual ones | none |

Credentials are never part of it: boto3 finds them as every AWS program does.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from featurestore.errors import InvalidInput

SCHEME = "dynamodb://"
EXAMPLE = "dynamodb://featurestore-online?region=eu-central-1"
_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_PARAMETERS = ("region", "endpoint", "max_connections", "timeout_seconds", "profile", "reads", "dax")
_LARGEST_POOL = 1000


@dataclass(frozen=True, slots=True)
class TableAddress:
    """Where a warm tier is, and how it is asked; the module's table says what each part means."""

    table: str
    region: str = ""
    endpoint: str = ""
    max_connections: int = 32
    timeout_seconds: float = 1.0
    profile: str = ""
    reads: str = "strong"
    dax: str = ""

    @property
    def is_consistent(self) -> bool:
        """Whether a read sees every write that was answered before it: what a repair of the hot tier needs."""
        return self.reads == "strong" and not self.dax


def parse_url(url: str) -> TableAddress:
    """Read an address.

    Raises:
        InvalidInput: it is none; the message repeats no part that may hold a secret.

    >>> parse_url("dynamodb://featurestore-online?region=eu-central-1").table
    'featurestore-online'
    """
    if not url.startswith(SCHEME):
        scheme = url.partition("://")[0] if "://" in url else "none"
        raise InvalidInput(f"The address of the warm tier is not readable (scheme: {scheme}). Write {EXAMPLE}.")
    place, _, query = url.removeprefix(SCHEME).partition("?")
    table = place.rstrip("/")
    if "@" in table or any("@" in part for part in query.split("&") if part.partition("=")[0] not in _PARAMETERS):
        raise InvalidInput(
            f"The address of the warm tier holds credentials. Leave them out ({EXAMPLE}) and give them as every AWS program "
            "takes them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a role, or profile=NAME."
        )
    if not _TABLE.fullmatch(table):
        raise InvalidInput(
            f"{table!r} is no name of a DynamoDB table: 3 to 255 letters, digits, '_', '-' and '.'. Write {EXAMPLE}."
        )
    return _with_parameters(table, query)


def _with_parameters(table: str, query: str) -> TableAddress:
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(given.keys() - set(_PARAMETERS)):
        raise InvalidInput(
            f"The address of the warm tier has parameters {unknown}; there are {list(_PARAMETERS)}. A role is assumed "
            "through a profile that names it."
        )
    address = TableAddress(
        table,
        region=given.get("region", ""),
        endpoint=given.get("endpoint", ""),
        max_connections=int(_number(given, "max_connections", 32, 1, _LARGEST_POOL)),
        timeout_seconds=_number(given, "timeout_seconds", 1.0, 0.001, 60),
        profile=given.get("profile", ""),
        reads=given.get("reads", "strong"),
        dax=given.get("dax", ""),
    )
    _check(address)
    return address


def _number(given: dict[str, str], name: str, default: float, least: float, most: float) -> float:
    try:
        number = float(given.get(name, default))
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise InvalidInput(
            f"{name}={given[name]!r} in the address of the warm tier is not a number from {least} to {most}."
        )
    return number


def _check(address: TableAddress) -> None:
    if address.reads not in ("strong", "eventual"):
        raise InvalidInput(
            f"reads={address.reads!r} in the address of the warm tier is neither 'strong' nor 'eventual'."
        )
    for name, place, schemes in (
        ("endpoint", address.endpoint, ("http://", "https://")),
        ("dax", address.dax, ("dax://", "daxs://")),
    ):
        if place and (not place.startswith(schemes) or "@" in place):
            raise InvalidInput(
                f"{name} in the address of the warm tier must start with {' or '.join(schemes)}, and hold no user."
            )
