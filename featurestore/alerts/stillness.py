"""The problems that runs which stood still make: of each group and source the first run that is not made good yet. Pure."""

from collections.abc import Collection, Iterable
from datetime import datetime

from featurestore.alerts.problem import Findings, Problem, source_name
from featurestore.freshness.judgement import span
from featurestore.heartbeat.stuck import StuckRun


def still_runs(names: Collection[str], runs: Iterable[StuckRun], at: datetime) -> Findings:
    """What is wrong with the runs of groups and sources.

    Args:
        names: The groups and sources to speak for, as problems know them.
        runs: Those that stood still and whose work is not done yet.
        at: When it was looked.
    """
    first: dict[str, Problem] = {}
    for run in sorted(runs, key=lambda one: (one.since, one.run_id)):
        for asset in run.assets:
            name = _name(asset)
            if name in names and name not in first:
                first[name] = _problem(name, asset, run)
    problems = tuple(first[name] for name in names if name in first)
    return Findings(at, problems, frozenset(("stuck", name) for name in names))


def _name(asset: str) -> str:
    """The group or source whose asset it is: 'raw/orders', or the last part of 'offline/<group>' and 'online/<group>'."""
    folder, _, name = asset.partition("/")
    return source_name(name) if folder == "raw" else name


def _problem(name: str, asset: str, run: StuckRun) -> Problem:
    what = "gave no sign of life" if run.why == "silent" else "did not get on with its work"
    text = f"Run {run.run_id} of {asset} {what} for {span(run.silent_for)}: process {run.pid} on {run.host}, last seen in {run.doing}."
    return Problem(
        kind="stuck",
        group=name,
        status="WARN",
        asset=asset,
        since=run.since,
        text=f"{text} {run.done.removesuffix('.')}." if run.done else text,
        remedy=f"{_next(run)} If it comes again, see what {run.host} waits for: a disk, a lock, or memory.",
    )


def _next(run: StuckRun) -> str:
    if run.retried_as:
        return f"Run {run.retried_as} repeats it; nothing is to be done unless that stands still too."
    return run.then or "Its log says what comes next."
