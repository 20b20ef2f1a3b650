"""The offline store as a whole: one root, and the tables of every group and source under it."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from featurestore.clock import Clock, system_clock
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.source import Source
from featurestore.location import Location
from featurestore.offline.ledger import Ledger
from featurestore.offline.raw import SourceTable
from featurestore.offline.receipts import Receipts
from featurestore.offline.shifts import Shifts
from featurestore.offline.staging import Staging
from featurestore.offline.statistics import KeptStatistics
from featurestore.offline.table import FeatureTable
from featurestore.registry.snapshot import RegistrySnapshot


@dataclass(frozen=True, slots=True)
class OfflineStore:
    """Hands out tables; also the `InputReader` of transforms.

    Args:
        root: The store's root; groups, raw rows, staging, ledgers, statistics and the registry lie under it.
        registry: What is declared, as applied.
        clock: Rules what is due, landed and written.
    """

    root: Location
    registry: RegistrySnapshot
    clock: Clock = system_clock

    def table(self, group_name: str) -> FeatureTable:
        """The table of a registered group; it need not hold anything yet."""
        return FeatureTable(self.root, self.registry.group(group_name), self.clock)

    def source(self, source: Source) -> SourceTable:
        return SourceTable(self.root, source, self.clock)

    def receipts(self, source: Source) -> Receipts:
        return Receipts(self.root, source.name)

    def ledger(self, group_name: str) -> Ledger:
        return Ledger(self.root, group_name)

    def shifts(self, group_name: str) -> Shifts:
        return Shifts(self.root, group_name)

    def statistics(self, group_name: str) -> KeptStatistics:
        return KeptStatistics(self.root, group_name)

    def staging(self, group_name: str) -> Staging:
        return Staging(self.root, group_name)

    def source_rows(self, source: Source, after: datetime | None, until: datetime) -> pl.DataFrame:
        """Raw rows known in [after, until]."""
        return _known_between(self.source(source).scan(), after, until).collect()

    def group_rows(self, group: FeatureGroup, after: datetime | None, until: datetime) -> pl.DataFrame:
        """Stored rows known in [after, until]."""
        return _known_between(self.table(group.stored_name).scan(), after, until).collect()


def _known_between(rows: pl.LazyFrame, after: datetime | None, until: datetime) -> pl.LazyFrame:
    known = rows.filter(pl.col("knowledge_time") <= until)
    return known if after is None else known.filter(pl.col("knowledge_time") >= after)
