"""What runs over windows read of their inputs: noted by letting them ask, and weighed by the files of the tables.

The ranges are asked for by the code that computes, of a store that notes them and has no rows. So what is estimated is what is
read, whatever rule decides it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from featurestore.backfill.estimates.files import ALWAYS, TableFiles
from featurestore.backfill.strategies.choice import check_strategy, window_computer
from featurestore.backfill.strategies.proxy import TIMES, proxy_groups
from featurestore.declaration.catalog import Catalog, Input
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.declaration.windows import TimeWindow
from featurestore.launch import Launch
from featurestore.offline.storage import Storage
from featurestore.offline.store import OfflineStore

RUN = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Read:
    """One read of an input: rows with `after <= knowledge_time <= until`, of these stored columns."""

    after: datetime | None
    until: datetime
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the runs of a backfill read of one input.

    `files` are opened once a run, each for its footer; `requests` are those and one for each column chunk that is read.
    """

    files: int
    bytes: int
    requests: int


@dataclass(frozen=True, slots=True)
class ReadMeter(OfflineStore):
    """A store that notes what is read of it, by input, and answers with no rows."""

    reads: dict[str, list[Read]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: OfflineStore) -> "ReadMeter":
        return cls(store.root, store.registry, store.clock)

    def source_rows(self, source: Source, after: datetime | None, until: datetime) -> pl.DataFrame:
        return self._note(source.name, self.source(source).schema, after, until)

    def group_rows(self, group: FeatureGroup, after: datetime | None, until: datetime) -> pl.DataFrame:
        return self._note(group.stored_name, self.registry.group(group.stored_name).stored_schema, after, until)

    def _note(
        self, name: str, schema: Mapping[str, pl.DataType], after: datetime | None, until: datetime
    ) -> pl.DataFrame:
        self.reads.setdefault(name, []).append(Read(after, until, tuple(schema)))
        return pl.DataFrame(schema=schema)


def runs_of(windows: Iterable[TimeWindow]) -> list[list[TimeWindow]]:
    """Windows as they are given to runs: oldest first, a run ending at a gap or after 31 days.

    >>> from datetime import UTC
    >>> day = lambda n: TimeWindow(datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=n), datetime(2026, 3, 2, tzinfo=UTC) + timedelta(days=n))
    >>> [len(run) for run in runs_of([*map(day, range(40)), day(50)])]
    [31, 9, 1]
    """
    runs: list[list[TimeWindow]] = []
    for window in sorted(windows):
        if runs and window.start == runs[-1][-1].end and window.end - runs[-1][0].start <= RUN:
            runs[-1].append(window)
        else:
            runs.append([window])
    return runs


def reads_of(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, runs: Iterable[Sequence[TimeWindow]], launch: Launch
) -> dict[str, list[Read]]:
    """What runs over some windows read, by input; a run without windows reads nothing.

    Raises:
        InvalidInput: the group declares nothing for the launch's strategy.
    """
    check_strategy(group, launch.strategy)
    meter = ReadMeter.of(store)
    for run in filter(None, runs):
        if launch.strategy == "proxy":
            _note_proxies(meter, catalog, group)
        else:
            window_computer(meter, catalog, group, run, launch)
    return meter.reads


def _note_proxies(meter: ReadMeter, catalog: Catalog, group: FeatureGroup) -> None:
    """A fit takes whole tables: the group's own, and of its proxies' groups keys, times and numbers."""
    for upstream in proxy_groups(catalog, group):
        registered = meter.registry.group(upstream.stored_name)
        numbers = [feature.name for feature in registered.features if feature.dtype.is_numeric()]
        columns = (*registered.key_names, *TIMES, *numbers)
        meter.reads.setdefault(upstream.stored_name, []).append(Read(None, ALWAYS, columns))
    meter.group_rows(group, None, ALWAYS)


def is_dimension(item: Input) -> bool:
    """Whether an input is read whole, as of a cut-off, whatever the window."""
    return item.is_timeless if isinstance(item, Source) else item.kind == "static"


def files_of(store: OfflineStore, item: Input, time: str = "knowledge_time") -> TableFiles:
    """The files of an input's table as it stands now."""
    location = store.source(item).location if isinstance(item, Source) else store.table(item.stored_name).location
    storage = Storage(location)
    return TableFiles.of(storage, storage.open(), time)


def weigh(files: TableFiles, reads: Sequence[Read]) -> Weighed:
    """What some reads of one input take."""
    held = [files.between(read.after, read.until).count for read in reads]
    chunks = sum(count * len(read.columns) for count, read in zip(held, reads, strict=True))
    return Weighed(
        files=files.count,
        bytes=sum(files.bytes_between(read.after, read.until, read.columns) for read in reads),
        requests=len(reads) * files.count + chunks,
    )
