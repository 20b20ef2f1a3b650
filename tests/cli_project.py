"""A small project as a user of the command line has it: a folder with declarations, a store, and rows promoted into it."""

import importlib
import io
import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from click.testing import CliRunner, Result

from featurestore.cli.main import main
from featurestore.declaration import Catalog, TimeWindow
from featurestore.loading import materialize_load
from featurestore.location import Location
from featurestore.offline.raw import LandingFile
from featurestore.promotion import Promotion, materialize_windows
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.offline_rows import SetClock

NOW = datetime(2026, 3, 10, 6, tzinfo=UTC)
DAY = timedelta(days=1)
LAST_WINDOW = datetime(2026, 3, 9, tzinfo=UTC)
DEADLINE_MS = 30_000
"""Of a read: patient, so that a busy machine is not taken for a server that is away."""

PYPROJECT = '[tool.featurestore]\ncatalog = "{module}:declared"\n'
DECLARATIONS = '''
from datetime import UTC, date, datetime, timedelta

import polars as pl

from featurestore.declaration import Catalog, Daily, Entity, Feature, FeatureService, Online, Source, Static, feature_group

TIME = pl.Datetime("us", "UTC")
carrier = Entity("carrier")
seat = Entity("seat", keys={"plane": pl.String, "row": pl.Int32, "installed": pl.Date, "is_window": pl.Boolean})

departures = Source(
    name="departures",
    schema={"flight": pl.String, "carrier": pl.String, "at": TIME, "delay": pl.Float64},
    keys=("flight",), event_time="at", known_at="at",
)
seats = Source(
    name="seats",
    schema={"plane": pl.String, "row": pl.Int32, "installed": pl.Date, "is_window": pl.Boolean, "pitch": pl.Int64, "tags": pl.List(pl.String)},
    keys=("plane", "row", "installed", "is_window"),
)


@feature_group(
    entity=carrier,
    features=[
        Feature("delay_mean_7d", pl.Float64, "Mean delay", unit="min", ge=-60, le=1800),
        Feature("flights_7d", pl.Int64, "Flights", ge=0, max_null_fraction=0),
    ],
    cadence=Daily(start=date(2026, 3, 1)),
    lookback=timedelta(days=7),
    delay=timedelta(hours=2),
    freshness=timedelta(hours=36),
    max_age=timedelta(days=3),
    online=Online(ttl=timedelta(days=7)),
    owner="team:ops",
)
def carrier_delay_daily(window, departures):
    """Delay of each carrier over its last seven days."""
    return departures.group_by("carrier").agg(delay_mean_7d=pl.col("delay").mean(), flights_7d=pl.len().cast(pl.Int64))


@feature_group(
    entity=seat,
    features=[
        Feature("pitch", pl.Int64, "Distance to the next row", unit="in"),
        Feature("tags", pl.List(pl.String), "What is said of it", max_length=8),
    ],
    cadence=Static(valid_from=datetime(2026, 1, 1, tzinfo=UTC)),
    online=Online(ttl=None),
    owner="team:fleet",
)
def seat_profile(seats):
    """What the register says of a seat."""
    return seats


delay_v1 = FeatureService("delay_v1", features=[carrier_delay_daily], owner="team:ops", description="Will it be late?")
declared = Catalog([departures, seats], [carrier_delay_daily, seat_profile], [delay_v1])
'''


@dataclass
class Project:
    """A folder to stand in, and the command line run in it at an instant that the test sets."""

    folder: Path
    clock: SetClock = field(default_factory=lambda: SetClock(NOW))
    online_url: str = ""

    @property
    def root(self) -> Path:
        return self.folder / "store"

    @property
    def module(self) -> str:
        return f"declared_{abs(hash(self.folder))}"

    def declare(self, *changes: tuple[str, str]) -> None:
        """Write the declarations, with some of their text replaced."""
        text = DECLARATIONS
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (self.folder / "pyproject.toml").write_text(PYPROJECT.format(module=self.module))
        (self.folder / f"{self.module}.py").write_text(text)
        sys.modules.pop(self.module, None)
        importlib.invalidate_caches()

    def run(self, *arguments: str, exit_code: int = 0) -> Result:
        """Run a command; its exit code is checked, and that it ended without a traceback."""
        places = ["--root", str(self.root), *(["--online-url", self.online_url] if self.online_url else [])]
        patient = {"FEATURESTORE_READ_DEADLINE_MS": str(DEADLINE_MS)}
        result = CliRunner().invoke(main, [*places, *arguments], obj=self.clock, prog_name="featurestore", env=patient)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == exit_code, result.output
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    @property
    def store(self) -> FeatureStore:
        return FeatureStore(
            Settings(
                Location(str(self.root)),
                Location(str(self.folder / "landing")),
                self.online_url,
                read_deadline_ms=DEADLINE_MS,
            ),
            clock=self.clock,
        )

    @property
    def catalog(self) -> Catalog:
        found = importlib.import_module(self.module).declared
        assert isinstance(found, Catalog)
        return found

    def land(self, source: str, rows: list[dict[str, Any]]) -> None:
        declared, buffer = self.catalog.source(source), io.BytesIO()
        pl.DataFrame(rows, schema=dict(declared.schema)).write_parquet(buffer)
        self.store.offline.source(declared).ingest(
            [LandingFile(f"2026-03-01T{len(rows):02}.parquet", buffer.getvalue())]
        )

    def promote(self, group: str, days: int = 3) -> Promotion:
        """Compute and promote the windows of the last days."""
        windows = [TimeWindow(LAST_WINDOW - n * DAY, LAST_WINDOW - n * DAY + DAY) for n in range(days)]
        return materialize_windows(self.store.offline, self.catalog, self.catalog.group(group), windows, run_id="test")

    def load(self, group: str) -> None:
        materialize_load(self.store.offline, self.catalog, self.catalog.group(group), run_id="test")


def departure(carrier: str, at: datetime, delay: float | None) -> dict[str, Any]:
    return {"flight": f"{carrier}-{at:%d%H%M}", "carrier": carrier, "at": at, "delay": delay}


def seat(plane: str, row: int, *, is_window: bool, pitch: int | None, tags: list[str]) -> dict[str, Any]:
    installed = datetime(2025, 5, 1, tzinfo=UTC).date()
    return {"plane": plane, "row": row, "installed": installed, "is_window": is_window, "pitch": pitch, "tags": tags}


def fill(project: Project) -> None:
    """Apply the declarations and promote three days of two carriers, and two seats."""
    project.declare()
    project.run("apply")
    flights = [
        departure(name, LAST_WINDOW - n * DAY + timedelta(hours=12), 10.0 * n)
        for n in range(3)
        for name in ("UA", "B6")
    ]
    project.land("departures", flights)
    assert len(project.promote("carrier_delay_daily").having("promoted")) == 3
    project.land(
        "seats",
        [
            seat("N1", 7, is_window=True, pitch=31, tags=["exit", "quiet"]),
            seat("N1", 8, is_window=False, pitch=None, tags=[]),
        ],
    )
    project.load("seat_profile")
