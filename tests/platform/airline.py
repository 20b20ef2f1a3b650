"""Rows of the demo's departures in small: what the tests of the real code location run on."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from feature_assets.groups.flights.sources import departures

FIRST = datetime(2025, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
REPOSITORY = Path(__file__).resolve().parents[2]


def flight(day: int, carrier: str, dep_delay: float) -> dict[str, Any]:
    """One departure at noon, known when it happened."""
    noon = FIRST + day * DAY + timedelta(hours=12)
    texts = {name: f"{carrier}{day}" for name, dtype in departures.schema.items() if dtype == pl.String}
    times = {name: noon for name, dtype in departures.schema.items() if isinstance(dtype, pl.Datetime)}
    days = {name: noon.date() for name, dtype in departures.schema.items() if dtype == pl.Date}
    rest = dict.fromkeys(departures.schema)
    return {**rest, **texts, **times, **days, "carrier": carrier, "dep_delay": dep_delay}


def key(day: int) -> str:
    """Partition key of the day that is so many days after the first."""
    return (FIRST + day * DAY).date().isoformat()


def dagster_home(folder: Path) -> Path:
    """A home with the repository's own configuration, its state kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = (REPOSITORY / "dagster.yaml").read_text()
    (folder / "dagster.yaml").write_text(configuration.replace(".dagster/", f"{folder}/.dagster/"))
    (folder / ".dagster").mkdir(exist_ok=True)
    return folder


def processes_marked(mark: str) -> dict[int, str]:
    """Process group and command line of the living processes that have a word in their environment."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
                found[int(entry.name)] = f"group {os.getpgid(int(entry.name))}: {command}"
        except OSError:
            continue
    return found
