"""Talking to Dagster's web server the way its own pages do, over GraphQL. No Dagster is imported: only its address is known.

Here is what can be asked, and the values that answers become; the queries, and how they travel, are in `graphql.py`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from featurestore.backfill.graphql import ASSETS, FAILURE, LAUNCH, NEWEST, STATUS, post
from featurestore.errors import FeatureStoreError, InvalidInput, UnknownName

AssetPath = tuple[str, ...]

NEWEST_MATERIALIZATIONS = 10
NEWEST_BACKFILLS = 100
SHOWN_KEYS = 5
SHOWN_LINES = 4
FAILED_RUN = "FAILURE"
LOG_PAGES = 20
FINISHED = ("COMPLETED", "FAILED", "CANCELED", "SUCCESS", "FAILURE")


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset as Dagster has it.

    Args:
        partition_keys: Every key that there is at this moment, oldest first; none for an unpartitioned asset.
        run_ids: Of the runs that materialized it last, the newest first.
    """

    path: AssetPath
    partition_keys: tuple[str, ...]
    run_ids: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "/".join(self.path)


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill that the web server has accepted."""

    backfill_id: str


@dataclass(frozen=True, slots=True)
class BackfillStatus:
    """Where a backfill stands, or a run that was launched by hand.

    Args:
        status: Dagster's word for it.
        run_states: How many runs are in which of Dagster's states.
        partitions: By asset path, how many partitions are targeted, in progress, materialized and failed.
        partition_keys: The keys, if all assets have the same ones.
        began_at: When its first run started; None before that.
        failed_runs: The ids of its runs that failed, in Dagster's order.
    """

    backfill_id: str
    status: str
    run_states: Mapping[str, int]
    created_at: datetime
    began_at: datetime | None = None
    ended_at: datetime | None = None
    partitions: Mapping[AssetPath, Mapping[str, int]] = field(default_factory=dict)
    partition_keys: tuple[str, ...] | None = None
    assets: tuple[AssetPath, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    is_run: bool = False
    failed_runs: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        return self.status.startswith(FINISHED)

    @property
    def runs(self) -> int:
        return sum(self.run_states.values())


def page_url(url: str, backfill_id: str, *, is_run: bool = False) -> str:
    """The page of a backfill in Dagster's web server, or of a run.

    >>> page_url("http://127.0.0.1:3000/", "abcdefgh")
    'http://127.0.0.1:3000/runs/b/abcdefgh'
    """
    return f"{url.rstrip('/')}/runs/{'' if is_run else 'b/'}{backfill_id}"


def find_assets(url: str, paths: Iterable[AssetPath]) -> dict[AssetPath, Asset]:
    """Those of some assets that Dagster has.

    Raises:
        StoreUnavailable: the web server does not answer.
    """
    keys = [{"path": list(path)} for path in paths]
    answer = post(url, ASSETS, {"keys": keys, "newest": NEWEST_MATERIALIZATIONS})["assetNodes"]
    return {asset.path: asset for asset in map(_asset, answer)}


def check_partitions(url: str, partitions: Mapping[AssetPath, Sequence[str]]) -> dict[AssetPath, Asset]:
    """The assets of a backfill, each with every key that is asked of it.

    Dagster itself answers unknown keys with an error that does not name them.

    Raises:
        UnknownName: an asset is not there.
        InvalidInput: an asset lacks keys; the message says which.
        StoreUnavailable: the web server does not answer.
    """
    found = find_assets(url, partitions)
    for path, keys in partitions.items():
        if path not in found:
            raise UnknownName(
                f"Dagster at {url} has no asset {'/'.join(path)!r}. Load the code location that declares it there "
                "(workspace.yaml), or name another web server: --dagster-url."
            )
        _refuse_unknown_keys(url, found[path], keys)
    return found


def launch_partition_backfill(
    url: str,
    partitions: Mapping[AssetPath, Sequence[str]],
    *,
    tags: Mapping[str, str] | None = None,
    title: str = "",
) -> Backfill:
    """Launch a backfill of some assets, each over some of its partitions.

    Args:
        url: Of the web server.
        partitions: Partition keys, oldest first, by asset path.
        tags: Of the backfill; Dagster gives them to each of its runs.
        title: Shown in Dagster's list of backfills.

    Raises:
        UnknownName: an asset is not there.
        InvalidInput: an asset lacks keys; the message says which.
        FeatureStoreError: Dagster refuses it; its reason is quoted.
        StoreUnavailable: the web server does not answer.
    """
    assets = check_partitions(url, partitions)
    params = {
        **_selection(assets, partitions),
        "tags": [{"key": key, "value": value} for key, value in (tags or {}).items()],
        **({"title": title} if title else {}),
    }
    answer = post(url, LAUNCH, {"params": params})["launchPartitionBackfill"]
    if answer["__typename"] != "LaunchBackfillSuccess":
        raise FeatureStoreError(
            f"Dagster at {url} refuses the backfill: {answer['__typename']}: {answer.get('message') or answer}."
        )
    return Backfill(answer["backfillId"])


def find_backfill(url: str, backfill_id: str) -> BackfillStatus | None:
    """Where a backfill stands, or the run of that id; None if Dagster knows neither.

    Raises:
        StoreUnavailable: the web server does not answer.
    """
    answer = post(url, STATUS, {"id": backfill_id, "run": backfill_id})
    backfill, run = answer["partitionBackfillOrError"], answer["runOrError"]
    if backfill["__typename"] == "PartitionBackfill":
        return _backfill_status(backfill_id, backfill)
    return _run_status(backfill_id, run) if run["__typename"] == "Run" else None


def backfill_status(url: str, backfill_id: str) -> BackfillStatus:
    """Where a backfill stands.

    Raises:
        UnknownName: there is no such backfill.
        StoreUnavailable: the web server does not answer.
    """
    if (found := find_backfill(url, backfill_id)) is None:
        raise UnknownName(
            f"Dagster at {url} has no backfill {backfill_id}. Its pages list those that it has: {url}/runs."
        )
    return found


def run_failure(url: str, run_id: str) -> str:
    """The first lines of why a run failed: of its first step that did, else of the run; empty if its log does not tell.

    Raises:
        StoreUnavailable: the web server does not answer.
    """
    cursor: str | None = None
    said = ""
    for _ in range(LOG_PAGES):
        page = post(url, FAILURE, {"run": run_id, "cursor": cursor})["logsForRun"]
        for event in page.get("events", ()):
            if event["__typename"] == "ExecutionStepFailureEvent":
                return f"Step {event['stepKey']}: {_first_lines(event)}"
            if event["__typename"] == "RunFailureEvent":
                said = _first_lines(event)
        if not page.get("hasMore"):
            break
        cursor = page["cursor"]
    return said


def _first_lines(event: Mapping[str, Any]) -> str:
    told = (event.get("failureMetadata") or {}).get("description") or (event.get("error") or {}).get("message")
    lines = [line for line in (told or event.get("message") or "").splitlines() if line.strip()]
    return "\n".join([*lines[:SHOWN_LINES], *(["..."] if len(lines) > SHOWN_LINES else [])])


def backfills_tagged(url: str, key: str, value: str) -> list[str]:
    """The ids of the newest backfills that have a tag, the newest first; of the last hundred that Dagster has.

    Raises:
        StoreUnavailable: the web server does not answer.
    """
    answer = post(url, NEWEST, {"limit": NEWEST_BACKFILLS})["partitionBackfillsOrError"]
    return [one["id"] for one in answer.get("results", []) if _tags(one).get(key) == value]


def _asset(node: Mapping[str, Any]) -> Asset:
    runs = dict.fromkeys(event["runId"] for event in node["assetMaterializations"] if event["runId"])
    return Asset(tuple(node["assetKey"]["path"]), tuple(node["partitionKeys"]), tuple(runs))


def _refuse_unknown_keys(url: str, asset: Asset, keys: Sequence[str]) -> None:
    known = set(asset.partition_keys)
    if not (unknown := [key for key in keys if key not in known]):
        return
    shown = ", ".join(unknown[:SHOWN_KEYS]) + (f" and {len(unknown) - SHOWN_KEYS} more" if unknown[SHOWN_KEYS:] else "")
    there = f"{asset.partition_keys[0]} to {asset.partition_keys[-1]}" if asset.partition_keys else "none"
    raise InvalidInput(
        f"Dagster at {url} has no partitions {shown} of {asset.name!r}; those it has: {there}. Nothing is launched. "
        "Ask for others, or reload the code location there if the group's start was changed."
    )


def _selection(assets: Mapping[AssetPath, Asset], partitions: Mapping[AssetPath, Sequence[str]]) -> dict[str, Any]:
    """Keys by name where all assets have the same, as the launch dialog sends them; else ranges for each asset."""
    if len({tuple(keys) for keys in partitions.values()}) == 1:
        names = list(next(iter(partitions.values())))
        return {"assetSelection": [{"path": list(path)} for path in partitions], "partitionNames": names}
    selected = [
        {"assetKey": {"path": list(path)}, "partitions": {"ranges": _ranges(assets[path].partition_keys, keys)}}
        for path, keys in partitions.items()
    ]
    return {"partitionsByAssets": selected}


def _ranges(known: Sequence[str], keys: Sequence[str]) -> list[dict[str, str]]:
    """Keys as ranges of neighbours."""
    asked = set(keys)
    runs = [list(run) for is_asked, run in groupby(known, key=asked.__contains__) if is_asked]
    return [{"start": run[0], "end": run[-1]} for run in runs]


def _backfill_status(backfill_id: str, answer: Mapping[str, Any]) -> BackfillStatus:
    counted = (answer["assetBackfillData"] or {}).get("assetBackfillStatuses", [])
    starts = [run["startTime"] for run in answer["runs"] if run["startTime"]]
    return BackfillStatus(
        backfill_id,
        answer["status"],
        dict(Counter(run["status"] for run in answer["runs"])),
        _instant(answer["timestamp"]),
        _instant(min(starts)) if starts else None,
        _instant(answer["endTimestamp"]) if answer["endTimestamp"] else None,
        {tuple(one["assetKey"]["path"]): _counts(one) for one in counted if one},
        None if answer["partitionNames"] is None else tuple(answer["partitionNames"]),
        _paths(answer),
        _tags(answer),
        (answer["error"] or {}).get("message", ""),
        failed_runs=tuple(run["id"] for run in answer["runs"] if run["status"] == FAILED_RUN),
    )


def _run_status(run_id: str, answer: Mapping[str, Any]) -> BackfillStatus:
    return BackfillStatus(
        run_id,
        answer["status"],
        {answer["status"]: 1},
        _instant(answer["creationTime"]),
        _instant(answer["startTime"]) if answer["startTime"] else None,
        _instant(answer["endTime"]) if answer["endTime"] else None,
        assets=_paths(answer),
        tags=_tags(answer),
        is_run=True,
        failed_runs=(run_id,) if answer["status"] == FAILED_RUN else (),
    )


def _counts(counted: Mapping[str, Any]) -> dict[str, int]:
    return {
        "targeted": counted["numPartitionsTargeted"],
        "in_progress": counted["numPartitionsInProgress"],
        "materialized": counted["numPartitionsMaterialized"],
        "failed": counted["numPartitionsFailed"],
    }


def _paths(answer: Mapping[str, Any]) -> tuple[AssetPath, ...]:
    return tuple(tuple(one["path"]) for one in answer["assetSelection"] or ())


def _tags(answer: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in answer["tags"]}


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
