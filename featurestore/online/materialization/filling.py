"""Building a group's copy anew in parts that lost it, a slice of its entities after the other, in bounded memory.

A fill is pinned to one table version and one instant. Each part records which slices are written, so that whoever comes after
a filler that died goes on with the first undone one; a step brings in what happened since. Parts filled together read the
table once. Not here: which parts need it (materialization).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.offline.table import FeatureTable
from featurestore.online.materialization.batches import Batch, ahead, batches
from featurestore.online.materialization.moves import Meter, OnProgress, PartStep
from featurestore.online.materialization.planning import CLOCK_SKEW, refuse_older_registry, refuse_unservable, target_of
from featurestore.online.materialization.served_rows import ServedRows
from featurestore.online.materialization.slices import in_slice, slice_count, slicing
from featurestore.online.tier import Fill, MaterializationState, TierPart
from featurestore.registry.snapshot import RegisteredGroup


class Filling:
    """A fill of one part, as this writer has it. What the part refuses, or its silence, ends it and is kept as `error`.

    Args:
        group: Whose copy it is.
        part: Where.
        epoch: The group's epoch there.
        fill: What the part has recorded.
    """

    def __init__(self, group: RegisteredGroup, part: TierPart, epoch: str, fill: Fill) -> None:
        self.group, self.part, self.epoch, self.fill = group, part, epoch, fill
        self.rows = 0
        self.error: FeatureStoreError | None = None

    @property
    def plan(self) -> tuple[MaterializationState, int]:
        """Fills with the same plan have the same rows in the same slices."""
        return self.fill.target, self.fill.slices

    @property
    def step(self) -> PartStep:
        """What this writer did; slices that another wrote are not counted."""
        target = self.fill.target
        return PartStep(
            self.part.name, self.part.tier, target.version, target.as_of, True, self.rows, self.rows, left=0
        )

    @contextmanager
    def working(self) -> Iterator[None]:
        """One part's trouble is not the others'."""
        try:
            yield
        except FeatureStoreError as error:
            self.error = error

    def start_over(self) -> None:
        self.epoch = self.part.start_over(self.group.name, epoch=self.epoch)

    def record(self, fill: Fill, *, previous: str | None) -> None:
        self.part.record_fill(self.group.name, fill, epoch=self.epoch, previous=previous)
        self.fill = fill

    def write(self, batch: Batch, number: int) -> None:
        """A batch of slice `number`, and with its last batch the record that it is done."""
        keys, messages = batch.owned_by(self.part)
        name, owner = self.group.name, self.fill.owner
        if keys:
            self.part.fill(name, keys, messages, epoch=self.epoch, ttl=self.group.ttl, owner=owner)
            self.rows += len(keys)
        if batch.share == 1:
            self.record(replace(self.fill, done=number + 1), previous=owner)

    def end(self) -> None:
        """Record R: the part answers reads of the group from now on."""
        self.part.set_state(self.group.name, self.fill.target, epoch=self.epoch, is_rebuild=True)


def take_over(table: FeatureTable, part: TierPart, now: datetime) -> Filling | None:
    """Go on with the fill that another has begun in a part; None if there is none that can be gone on with.

    Rules: the pinned version must still be in the log of the same table, under the same contract, and the entities cut into
    slices in the same way. From now on the last owner's writes are refused.

    Raises:
        FenceRefused: yet another was first.
        StaleWriter: the fill is of a newer registry than this process has.
        StoreUnavailable: the part does not answer.
    """
    group = table.group
    epoch = part.ensure_epoch(group.name)
    begun = part.fill_under_way(group.name) if part.can_resume else None
    if begun is None:
        return None
    refuse_older_registry(group, begun.target)
    if not _can_go_on(table, begun, now):
        return None
    filling = Filling(group, part, epoch, begun)
    filling.record(replace(begun, owner=_token()), previous=begun.owner)
    return filling


def _can_go_on(table: FeatureTable, begun: Fill, now: datetime) -> bool:
    pinned, newest = begun.target, target_of(table, now)
    return (
        newest is not None
        and (pinned.table_id, pinned.contract) == (newest.table_id, newest.contract)
        and pinned.version <= newest.version
        and pinned.as_of <= now + CLOCK_SKEW
        and table.entry(pinned.version) is not None
        and begun.owner.endswith(slicing())
    )


def _token() -> str:
    """Names this writer, and how it cuts slices."""
    return f"{uuid4().hex}-{slicing()}"


def begin(
    table: FeatureTable, parts: Sequence[TierPart], epochs: Mapping[str, str], clock: Clock, slice_bytes: int
) -> list[Filling]:
    """Empty the group's copy in some parts, and begin to fill them from what is the newest version after that.

    Args:
        epochs: The group's epoch in each part, by its name, as it was when the part was found to need it. One that has another
            by now is not emptied: its filling ends with the error.

    Raises:
        InvalidInput: a row cannot be served as it is; nothing was emptied.
    """
    seen = target_of(table, clock()) if parts else None
    if seen is None:
        return []
    refuse_unservable(ServedRows(table, seen))
    fillings = [Filling(table.group, part, epochs[part.name], Fill(seen, 1, 0, _token())) for part in parts]
    for filling in fillings:
        with filling.working():
            filling.start_over()
    # Others may have published more while this writer was held up: what is pinned is looked up after the last start-over.
    target = target_of(table, clock()) or seen
    slices = slice_count(ServedRows(table, target).count(), table.group, slice_bytes)
    for filling in _alive(fillings):
        with filling.working():
            filling.record(Fill(target, slices, 0, filling.fill.owner), previous=None)
    return fillings


def run(table: FeatureTable, fillings: Sequence[Filling], on_progress: OnProgress) -> None:
    """Write every undone slice, and record R in each part that took them all.

    Raises:
        FileNotFoundError: files of the pinned version were vacuumed.
    """
    for plan in dict.fromkeys(filling.plan for filling in _alive(fillings)):
        together = [filling for filling in _alive(fillings) if filling.plan == plan]
        _run_together(table, together, on_progress)


def _run_together(table: FeatureTable, fillings: Sequence[Filling], on_progress: OnProgress) -> None:
    _, slices = fillings[0].plan
    first = min(filling.fill.done for filling in fillings)
    names = tuple(filling.part.name for filling in fillings)
    meter = Meter(table.group.name, names, True, slices, first, on_progress)
    for number, batch in ahead(_batches(table, fillings, first)):
        for filling in _alive(fillings):
            if filling.fill.done <= number:
                with filling.working():
                    filling.write(batch, number)
        if not _alive(fillings):
            return
        meter.sent(len(batch.keys), batch.share)
        if batch.share == 1:
            meter.slice_done()
    for filling in _alive(fillings):
        with filling.working():
            filling.end()


def _batches(table: FeatureTable, fillings: Sequence[Filling], first: int) -> Iterator[tuple[int, Batch]]:
    target, slices = fillings[0].plan
    served, parts = ServedRows(table, target), [filling.part for filling in fillings]
    for number in range(first, slices):
        rows = served.of(within=in_slice(table.group, number, slices))
        for batch in batches(table.group, rows, None, parts, fence=served.fence):
            yield number, batch


def _alive(fillings: Sequence[Filling]) -> list[Filling]:
    return [filling for filling in fillings if filling.error is None]
