"""What Dagster makes of `definitions.py`, as JSON: `tests/platform/asset_graph.json` is a copy that a test compares.

After a change that is meant, look at the difference and keep it:

    python -m tests.platform.asset_graph --write
"""

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("asset_graph.json")


def describe(definitions: dg.Definitions) -> dict[str, Any]:
    """Everything by which an unintended change of the platform would show, sorted."""
    graph = definitions.resolve_asset_graph()
    keys = sorted(graph.get_all_asset_keys())
    return {
        "code locations": yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"],
        "assets": {key.to_user_string(): _asset(graph, key) for key in keys},
        "sensors": {
            sensor.name: {
                "status": sensor.default_status.value,
                "every seconds": sensor.minimum_interval_seconds,
                "target": str(sensor.asset_selection) if sensor.asset_selection else None,
            }
            for sensor in definitions.sensors or ()
        },
        "schedules": sorted(schedule.name for schedule in definitions.schedules or ()),
        "resources": {name: type(resource).__name__ for name, resource in (definitions.resources or {}).items()},
        "executor": getattr(definitions.executor, "name", None),
    }


def _asset(graph: Any, key: dg.AssetKey) -> dict[str, Any]:
    node = graph.get(key)
    definition: dg.AssetsDefinition = node.assets_def
    spec = definition.get_asset_spec(key)
    op = definition.op
    return {
        "deps": {dep.asset_key.to_user_string(): _text(dep.partition_mapping) for dep in spec.deps},
        "partitions": _partitions(spec.partitions_def),
        "group": spec.group_name,
        "owners": sorted(spec.owners),
        "kinds": sorted(spec.kinds),
        "tags": {name: value for name, value in sorted(spec.tags.items()) if not name.startswith("dagster/kind/")},
        "columns": _columns(spec.metadata.get("dagster/column_schema")),
        "freshness": _text(spec.freshness_policy),
        "automation": spec.automation_condition.get_label() if spec.automation_condition else None,
        "skippable": spec.skippable,
        "pools": sorted(op.pools) if hasattr(op, "pools") else sorted({op.pool} if op.pool else set()),
        "backfill": _text(definition.backfill_policy),
        "checks": {
            check.name: {"blocking": check.blocking, "partitions": _partitions(check.partitions_def)}
            for check in sorted(
                (graph.get_check_spec(name) for name in graph.get_check_keys_for_assets({key})), key=lambda c: c.name
            )
        },
    }


def _partitions(partitions: dg.PartitionsDefinition | None) -> str | None:  # type: ignore[type-arg]
    if not isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        return None if partitions is None else str(partitions)
    start = partitions.start.isoformat()
    return f"{partitions.cron_schedule} {partitions.timezone} from {start} to now{partitions.end_offset:+d}"


def _columns(schema: dg.TableSchema | None) -> list[str]:
    if schema is None:
        return []
    return [f"{c.name}: {c.type}{'' if c.constraints.nullable else ' not null'}" for c in schema.columns]


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def as_json(definitions: dg.Definitions) -> str:
    return json.dumps(describe(definitions), indent=1) + "\n"


def main() -> None:
    from definitions import flights

    text = as_json(flights)
    if "--write" in sys.argv[1:]:
        SNAPSHOT.write_text(text)
        print(f"{SNAPSHOT.relative_to(REPOSITORY)} is written. Look at it with git diff.")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
