"""Problems that the latest results of Dagster's checks say: parity, drift, refused landings, and refused loads of static groups.

Freshness and quarantine are not read here: the sensor `freshness` knows them first-hand. Nor is `quality`: it sums up what drift and
quarantine say. A check that is under way, or was cut short, says nothing, and leaves its episode as it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from checks.gate import GATE
from checks.landing import REFUSED_FILES, landing_spec
from checks.parity import parity_spec
from checks.quality import drift_spec
from featurestore.alerts.kinds import Kind
from featurestore.alerts.problem import Findings, Key, Problem, source_name
from featurestore.clock import Clock
from featurestore.declaration import Catalog, FeatureGroup
from featurestore.declaration.tier import LOOK_EVERY
from featurestore.settings import Settings

CHECKS_A_QUERY = 500
OF_GROUPS: tuple[Kind, ...] = ("parity", "drift", "gate")
"""The kinds that some groups have a check for, and others none."""
TOLD = {
    AssetCheckExecutionRecordStatus.SUCCEEDED: True,
    AssetCheckExecutionRecordStatus.FAILED: False,
}
"""Records that say something, and whether it is good."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A check that is looked at, and what a problem of it is; `extent` names its metadata that says how much of it there is."""

    kind: Kind
    name: str
    remedy: str
    extent: str = ""


def latest_checks(catalog: Catalog) -> Callable[[dg.SensorEvaluationContext, Settings, Clock], Findings | None]:
    """The finder of one code location; it looks as often as freshness is looked at."""
    return _LatestChecks(dict(_looked_at(catalog)), [group.stored_name for group in catalog.groups]).look


@dataclass
class _LatestChecks:
    checks: Mapping[dg.AssetCheckKey, Looked]
    groups: Sequence[str]
    looked_at: datetime | None = field(default=None)

    def look(self, context: dg.SensorEvaluationContext, _settings: Settings, clock: Clock) -> Findings | None:
        """The problems of now; None if it has looked just before."""
        now = clock()
        if self.looked_at is not None and self.looked_at <= now < self.looked_at + LOOK_EVERY:
            return None
        found = list(_told(context.instance, [*self.checks]))
        spoken = frozenset((self.checks[key].kind, self.checks[key].name) for key, _ in found)
        problems = tuple(
            problem for key, record in found if (problem := _problem(self.checks[key], key, record, now)) is not None
        )
        self.looked_at = now
        return Findings(now, problems, spoken, self._unchecked())

    def _unchecked(self) -> frozenset[Key]:
        """The kinds that the groups of this location have no check for; those of other locations are theirs to speak of."""
        checked = {(one.kind, one.name) for one in self.checks.values()}
        return frozenset((kind, name) for kind in OF_GROUPS for name in self.groups if (kind, name) not in checked)


def _looked_at(catalog: Catalog) -> Iterator[tuple[dg.AssetCheckKey, Looked]]:
    for source in catalog.sources:
        remedy = (
            "Mend what the feed delivers. It ends with a run of the source after refused files are landed again or taken away, refused rows "
            "deleted, and files that no run reads renamed."
        )
        yield landing_spec(source).key, Looked("landing", source_name(source.name), remedy, REFUSED_FILES)
    for group in catalog.groups:
        yield from _of_group(group)


def _of_group(group: FeatureGroup) -> Iterator[tuple[dg.AssetCheckKey, Looked]]:
    name = group.stored_name
    if group.online:
        remedy = f"featurestore online status {name} shows its parts; featurestore materialize {name} --rebuild builds the copy anew."
        yield parity_spec(group).key, Looked("parity", name, remedy)
    if group.kind != "pushed" and any(feature.drift is not None for feature in group.features):
        remedy = (
            f"featurestore quality {name} shows every distance. If the world has changed, train anew and name the set: "
            "featurestore training SERVICE --deploy SET."
        )
        yield drift_spec(group).key, Looked("drift", name, remedy)
    if group.kind == "static":
        remedy = f"Mend what it reads, or its transform, and materialize offline/{name} again. Production keeps the last load."
        yield dg.AssetCheckKey(dg.AssetKey(["offline", name]), GATE), Looked("gate", name, remedy)


def _told(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> Iterator[tuple[dg.AssetCheckKey, AssetCheckExecutionRecord]]:
    """The latest results of checks that have one, in a query for many."""
    for first in range(0, len(keys), CHECKS_A_QUERY):
        some = keys[first : first + CHECKS_A_QUERY]
        records = instance.event_log_storage.get_latest_asset_check_execution_by_key(some)
        yield from ((key, records[key]) for key in some if key in records and records[key].status in TOLD)


def _problem(looked: Looked, key: dg.AssetCheckKey, record: AssetCheckExecutionRecord, now: datetime) -> Problem | None:
    evaluation = record.evaluation
    if TOLD[record.status] or evaluation is None:
        return None
    asset = key.asset_key.to_user_string()
    is_warning = evaluation.severity == dg.AssetCheckSeverity.WARN
    return Problem(
        kind=looked.kind,
        group=looked.name,
        status="WARN" if is_warning else "BREACH",
        asset=asset,
        since=min(now, datetime.fromtimestamp(record.create_timestamp, UTC)),
        text=f"{asset}: {_text(evaluation) or f'check {key.name} failed.'}",
        remedy=looked.remedy,
        extent=_extent(looked, evaluation),
    )


def _extent(looked: Looked, evaluation: dg.AssetCheckEvaluation) -> int:
    """How much of it there is, as far as the check says so."""
    found = evaluation.metadata.get(looked.extent)
    return int(found.value or 0) if isinstance(found, dg.IntMetadataValue) else 0


def _text(evaluation: dg.AssetCheckEvaluation) -> str:
    """What the check said; of a gate, which says it in a table, what it found."""
    if evaluation.description:
        return evaluation.description
    findings = evaluation.metadata.get("findings")
    if not isinstance(findings, dg.TableMetadataValue):
        return ""
    told = [
        f"{one['check']} of {one['column']!r} is {one['observed']}, limit {one['limit']} ({one['failing_rows']} rows)"
        for one in (record.data for record in findings.records)
    ]
    return f"its gate refused what was computed: {'; '.join(told)}."
