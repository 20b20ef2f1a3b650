"""What a backfill would do: its windows, a trial of the transform, the estimate, and whether it would wait for approval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.backfill.admission import SPENDING_PERIOD
from featurestore.backfill.dry_run import DryRun
from featurestore.backfill.estimates.estimate import Estimate, estimate_windows, load_prices
from featurestore.backfill.footprint import cadence_of
from featurestore.backfill.rights import SPENT, exceeds_limit
from featurestore.backfill.selection import ranges_text, select_windows
from featurestore.backfill.strategies.choice import check_strategy
from featurestore.backfill.trials import is_tried, trial
from featurestore.cli.backfill.estimates import estimate_text
from featurestore.cli.catalog import load_catalog
from featurestore.cli.deployment import Deployment
from featurestore.cli.tables import pairs_text, wrapped_text
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow
from featurestore.errors import InvalidInput
from featurestore.launch import CORRECTNESS_OF, Launch
from featurestore.metadata.request import RequestedWindows
from featurestore.quantities import count_text, usd_text
from featurestore.registry.snapshot import RegisteredGroup


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """The windows of one group in a backfill that is not launched yet.

    Args:
        trial: Of the transform on one recent window, or of what stands in for it; None if one window is its own trial.
        spent_usd: What backfills of the group that nobody approved were estimated at lately.
    """

    group: RegisteredGroup
    windows: tuple[TimeWindow, ...]
    trial: DryRun | None
    estimate: Estimate
    spent_usd: float

    @property
    def keys(self) -> list[str]:
        return [cadence_of(self.group).key_of(window) for window in self.windows]

    @property
    def _tried_key(self) -> str | None:
        tried = self.trial.window if self.trial is not None else None
        return None if tried is None else cadence_of(self.group).key_of(tried)

    @property
    def refusal(self) -> str:
        """Why the backfill would be refused; empty if it would not."""
        return self.trial.reason if self.trial is not None else ""

    @property
    def exceeds_limit(self) -> bool:
        estimate = {**self.estimate.as_dict(), SPENT: self.spent_usd}
        return exceeds_limit(RequestedWindows(self.group.name, (), estimate), self.group)

    def as_dict(self) -> dict[str, Any]:
        return {
            "group": self.group.name,
            "windows": len(self.windows),
            "ranges": ranges_text(cadence_of(self.group), self.windows),
            "keys": self.keys,
            "dry_run": None if self.trial is None else self.trial.as_dict() | {"key": self._tried_key},
            "estimate": self.estimate.as_dict(),
            "limit_usd": self.group.approval_limit_usd,
            "spent_24h_usd": self.spent_usd,
            "exceeds_limit": self.exceeds_limit,
            "deciders": list(dict.fromkeys([self.group.owner, *self.group.approvers])),
        }


def declared_catalog() -> Catalog:
    """The declarations of the project that the command runs in."""
    return load_catalog(None, Path.cwd())


def plan(
    deployment: Deployment,
    *,
    group: str,
    first: str | None,
    last: str | None,
    missing: bool,
    failed: bool,
    stale_code: bool,
    strategy: Any,
) -> dict[str, Any]:
    """What a backfill of a group would do. Nothing is launched, and nothing is written.

    Raises:
        UnknownName: no group has the name.
        InvalidInput: the windows cannot be backfilled, or the group declares nothing for the strategy.
    """
    catalog, launch = declared_catalog(), Launch(strategy=strategy)
    declared, windows = chosen_windows(deployment, catalog, group, first, last, missing, failed, stale_code)
    check_launch(catalog, declared, launch)
    return plan_document([planned_group(deployment, catalog, declared, windows, launch)], launch)


def chosen_windows(
    deployment: Deployment,
    catalog: Catalog,
    name: str,
    first: str | None,
    last: str | None,
    missing: bool,
    failed: bool,
    stale_code: bool,
) -> tuple[FeatureGroup, list[TimeWindow]]:
    """A group as it is declared, and its windows that the options choose."""
    registered = deployment.store.registry.group(name)
    declared = catalog.group(registered.name)
    windows = select_windows(
        deployment.store.offline,
        registered,
        first=first,
        last=last,
        missing=missing,
        failed=failed,
        stale_code=stale_code,
        code_version=declared.code_version,
        now=deployment.clock(),
    )
    return declared, windows


def planned_group(
    deployment: Deployment, catalog: Catalog, declared: FeatureGroup, windows: Sequence[TimeWindow], launch: Launch
) -> PlannedGroup:
    """Try the transform or what stands in for it, and estimate the windows."""
    store = deployment.store.offline
    return PlannedGroup(
        store.registry.group(declared.stored_name),
        tuple(windows),
        trial(store, catalog, declared, windows, launch) if is_tried(launch, len(windows)) else None,
        estimate_windows(
            store,
            catalog,
            declared,
            windows,
            strategy=launch.strategy,
            prices=load_prices(deployment.environment),
        ),
        deployment.book.spent_usd(declared.stored_name, deployment.clock() - SPENDING_PERIOD),
    )


def check_launch(catalog: Catalog, declared: FeatureGroup, launch: Launch) -> None:
    """Refuse a launch that a group's declaration does not allow.

    Raises:
        InvalidInput: the group declares nothing for the strategy, or does not read a group that is not to be waited for.
    """
    check_strategy(declared, launch.strategy)
    read = [name for name, item in catalog.inputs_of(declared).items() if isinstance(item, FeatureGroup)]
    if unread := [name for name in launch.without if name not in read]:
        there = f"It reads the groups {read}." if read else "It reads sources alone, which are never waited for."
        raise InvalidInput(f"--without {unread[0]}: no group of that name is read by {declared.stored_name!r}. {there}")


def plan_document(planned: Sequence[PlannedGroup], launch: Launch) -> dict[str, Any]:
    """What is planned, as JSON has it."""
    return {
        "strategy": launch.strategy,
        "correctness": CORRECTNESS_OF[launch.strategy],
        "accept_shift": launch.accept_shift,
        "without": list(launch.without),
        "cost_usd": sum(one.estimate.cost_usd for one in planned),
        "refusal": "\n".join(one.refusal for one in planned if one.refusal),
        "waits_for_approval": any(one.exceeds_limit for one in planned),
        "groups": [one.as_dict() for one in planned],
    }


def plan_text(document: Mapping[str, Any]) -> str:
    """Windows, trial and estimate of each group, and what would become of the backfill."""
    parts = [group_text(group, document) for group in document["groups"]]
    return "\n\n".join([*parts, _outlook(document), "Nothing was launched."])


def group_text(group: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What is planned of one group."""
    facts = {
        "Windows": f"{count_text(group['windows'], 'window')}, {group['ranges']}",
        "Strategy": f"{document['strategy']}, correctness {document['correctness']}",
        "Dry run": _trial_text(group["dry_run"]),
        "Limit": limit_text(group),
    }
    return f"{group['group']}\n\n{pairs_text(facts)}\n\n{estimate_text(group['estimate'])}"


def limit_text(group: Mapping[str, Any]) -> str:
    """What the group may cost without approval, and how much of that is spent."""
    spent = usd_text(group["spent_24h_usd"])
    return f"{usd_text(group['limit_usd'])} USD without approval; {spent} USD of it spent in the last 24 hours"


def approval_text(document: Mapping[str, Any], backfill_id: str) -> str:
    """Who may approve, and how."""
    above = [group for group in document["groups"] if group["exceeds_limit"]]
    people = "; ".join(f"{group['group']}: {' or '.join(group['deciders'])}" for group in above)
    return f"These may decide: {people}.\n  featurestore backfill approve {backfill_id} --as WHO --reason WHY"


def _trial_text(trial: Mapping[str, Any] | None) -> str:
    if trial is None:
        return "not needed"
    if trial["reason"]:
        return "failed"
    tried = f"passed on {trial['key']}, {count_text(trial['rows'], 'row')}" if trial["key"] else "not possible"
    return f"{tried}. {trial['note']}" if trial["note"] else tried


def _outlook(document: Mapping[str, Any]) -> str:
    if document["refusal"]:
        return wrapped_text(f"It would be refused. {document['refusal']}")
    if document["waits_for_approval"]:
        return f"It would wait for approval. {approval_text(document, 'ID')}"
    return "It would start at once."
