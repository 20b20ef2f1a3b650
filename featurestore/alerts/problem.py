"""What is wrong now, as plain values: problems, what was looked at, and whom it concerns. Pure; not here: who looks, who is told.

A look hands in *every* problem that it sees, each time. Whether one is new, worse or gone is told from the episodes (`episode.py`),
so a look keeps nothing and may be repeated or left out.
"""

from dataclasses import dataclass
from datetime import datetime

from featurestore.alerts.kinds import Kind, Severity, Urgency
from featurestore.declaration.tier import Alerts
from featurestore.registry.snapshot import RegistrySnapshot

Key = tuple[Kind, str]
"""A kind and whom it is of: of each there is one episode at a time."""


@dataclass(frozen=True, slots=True)
class Blame:
    """The first late asset upstream: from where the lateness comes.

    Args:
        asset: 'raw/<source>', 'offline/<group>' or 'online/<group>'.
        owner: Who owns it; "" for a source that declares nobody.
        since: Since when it is late.
        text: For a person: what is the matter with it.
    """

    asset: str
    owner: str
    since: datetime
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong now.

    Args:
        kind: What sort of thing.
        group: Stored name of the group that suffers; 'raw/<source>' where it is a source's own.
        status: How bad it is.
        asset: What is late, held or wrong: the key of an asset.
        since: Since when.
        text: For a person: what, by how much, and what was to be.
        remedy: For a person: what to do.
        blamed: Where it comes from, if that is another asset.
        extent: How much of it there is, e.g. windows held; an episode is raised when that has doubled. 0: it has none.
    """

    kind: Kind
    group: str
    status: Severity
    asset: str
    since: datetime
    text: str
    remedy: str
    blamed: Blame | None = None
    extent: int = 0

    @property
    def key(self) -> Key:
        return self.kind, self.group


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look found.

    Args:
        at: When it looked.
        problems: Everything that is wrong, in the order of the registry; at most one of a key.
        spoken_for: The keys that it can vouch for: one without a problem is well. What could not be read is left out, and stays as it was.
        unchecked: The keys that nobody looks at any more, since what is declared asks for no such check. Others may have others: a look
            names only keys of what it would look at itself.
    """

    at: datetime
    problems: tuple[Problem, ...]
    spoken_for: frozenset[Key]
    unchecked: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Watched:
    """A group as far as alerts look at it; also a source, under its asset's name 'raw/<source>'.

    Args:
        owner: Who owns it; "" for a source that declares nobody.
        tier: Name of its freshness tier; "" for a source.
        alerts: Whom a breach reaches.
    """

    name: str
    owner: str
    tier: str
    alerts: Alerts

    def urgency(self, status: Severity) -> Urgency:
        """A breach of a group that pages is a page, and everything else a ticket."""
        return "page" if status == "BREACH" and self.alerts == "page" else "ticket"


def watched_in(registry: RegistrySnapshot) -> dict[str, Watched]:
    """Every group and source that is declared, by the name that problems know it by."""
    groups = [Watched(one.name, one.owner, one.tier, one.alerts) for one in registry.groups.values()]
    sources = [Watched(source_name(one.name), one.owner, "", "ticket") for one in registry.sources.values()]
    return {one.name: one for one in [*groups, *sources]}


def source_name(source: str) -> str:
    """The name that problems know a source by.

    >>> source_name("orders")
    'raw/orders'
    """
    return f"raw/{source}"
