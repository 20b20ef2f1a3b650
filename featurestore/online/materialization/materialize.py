"""Materialization: moving a group's online copy, part by part, from what each part holds (R) to what the table holds now (V).

R is what a part itself records: the table, its Delta version, and the instant as of which rows were served. A step takes every
key with a row changed or removed in (R, V], or whose knowledge time has come since, and offers the key's frontier row of the
whole table as of now, or a tombstone. With no R that can be continued, the part's copy is built anew.

All parts of one move go to one version and one instant, the warm tier first: a value found there may be put back into the hot
tier only where the warm copy reflects no less. Where that cannot be at once (a rebuild is pinned when it begins, another writer
was ahead), the parts that are behind take one more step at the end.

Here: which parts move how, in which order, and what becomes of those that fail. The plan of a step is in `planning`, its taking
in `stepping`, a rebuild in `filling`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError, StaleWriter, StoreUnavailable
from featurestore.offline.table import FeatureTable
from featurestore.online.advance import furthest
from featurestore.online.materialization.filling import Filling, begin, run, take_over
from featurestore.online.materialization.moves import OnProgress, PartStep, Progress, Step, tell_nobody
from featurestore.online.materialization.planning import Plan, is_covered, plan_step, refuse_older_registry, target_of
from featurestore.online.materialization.slices import SLICE_BYTES
from featurestore.online.materialization.stepping import take_step
from featurestore.online.tier import MaterializationState, TierPart

__all__ = ["PartStep", "Progress", "Step", "materialize"]

TRIES = 3


def materialize(
    table: FeatureTable,
    parts: Sequence[TierPart],
    clock: Clock,
    *,
    rebuild: bool = False,
    progress: OnProgress = tell_nobody,
    slice_bytes: int = SLICE_BYTES,
) -> Step:
    """Bring a group's online copy to the table's newest version as of now, in every part of its tiers.

    Rules: rows go online at their knowledge time, never before. The warm tier moves before the hot one, and all parts that could
    be moved end at one version and instant, unless other writers keep moving them. A step cut short
    anywhere is taken again from the same R, a rebuild goes on with the first slice that is not written. A part that fails, fails alone:
    the others move first, then this raises. A writer refused for its fence, or overtaken by another, reads R, fence and rows again.

    Args:
        table: The group's offline table.
        parts: Of all tiers that serve the group, in any order.
        clock: Rules what is known and what is expired.
        rebuild: Build the copy anew in every part, whatever is there.
        progress: Is told after each batch of rows.
        slice_bytes: About what the rows of one slice may take in memory.

    Raises:
        InvalidInput: a row cannot be served as it is: true of the future, a list too long, of a newer schema. Nothing is written.
        FenceRefused: a part was emptied or started over meanwhile, or another goes on with the fill; take the step again.
        StaleWriter: others kept being ahead, or the copy is of a newer registry than this one; take the step again.
        StoreUnavailable: a part does not answer.
    """
    if table.group.kind == "pushed":  # it may be pushed to online alone, so that its table never gets a row
        table.ensure()
    move = _Move(table, clock, progress, slice_bytes)
    for tier in ("warm", "hot"):
        move.parts([part for part in parts if part.tier == tier], rebuild=rebuild)
    move.settle()
    move.raise_failures(len(parts))
    if not move.steps:  # there is no table
        return Step(None, clock(), was_rebuilt=False, keys=0, written=0, left=0)
    return Step.of(list(move.steps.values()))


class _Move:
    """One call: what was done in each part, by its name, and what kept others from it."""

    def __init__(self, table: FeatureTable, clock: Clock, progress: OnProgress, slice_bytes: int) -> None:
        self.table, self.clock, self.progress, self.slice_bytes = table, clock, progress, slice_bytes
        self.steps: dict[str, PartStep] = {}
        self.failures: dict[str, FeatureStoreError] = {}
        self._goal: MaterializationState | None = None
        """Where the parts go; None: it is looked up for the next one."""
        self._moved: list[TierPart] = []
        self._has_filled = False
        self._plans: dict[MaterializationState, Plan | None] = {}
        self._seen: dict[str, tuple[str, MaterializationState | None]] = {}
        """Epoch and R of parts that no step can go on from, as they were when that was found."""

    def parts(self, parts: Sequence[TierPart], *, rebuild: bool) -> None:
        """Move the parts of one tier: those that can go on by a step each, then the others together."""
        lost = [part for part in parts if rebuild or not self._step(part)]
        lost = [part for part in lost if part.name not in self.failures]
        for filling in self._filled(lost, start_over=rebuild):
            if filling.error is not None:
                self.failures[filling.part.name] = filling.error
            else:
                self._note(filling.part, filling.step)
                self._has_filled = True

    def settle(self) -> None:
        """Bring all parts that were moved to one version and instant, the warm ones first: the newest, if a copy was built anew."""
        if self._has_filled:  # what was published while its slices were written
            self._goal = None
            self._step_on(self._moved)
        for _ in range(TRIES):
            behind = [part for part in self._moved if self._is_behind(part)]
            if not behind:
                return
            self._step_on(behind)

    def _is_behind(self, part: TierPart) -> bool:
        step, goal = self.steps[part.name], self._goal
        if goal is None or part.name in self.failures:
            return False
        return step.table_version < goal.version or step.as_of < goal.as_of

    def _step_on(self, parts: Sequence[TierPart]) -> None:
        self._plans.clear()
        for part in parts:
            self._step(part)

    def _note(self, part: TierPart, step: PartStep) -> None:
        if part.name not in self.steps:
            self._moved.append(part)
        self.steps[part.name] = _both(self.steps.get(part.name), step)

    def _step(self, part: TierPart) -> bool:
        """Take a step, if the part has an R that can be continued; a failure is kept for the end.

        Where another writer is ahead, or the planned version's files were vacuumed while this one was held up, it begins anew.
        """
        with self._failing(part):
            for _ in range(TRIES):
                epoch = part.ensure_epoch(self.table.group.name)
                state = part.state(self.table.group.name)
                self._seen[part.name] = (epoch, state)
                if state is None:
                    return False
                with suppress(FileNotFoundError):
                    plan = self._plan(state)
                    if plan is None:
                        return False
                    step = take_step(part, plan, epoch, self.progress)
                    if step is not None:
                        self._note(part, step)
                        self._goal = furthest(self._goal, plan.target)
                        return True
                self._plans.pop(state, None)
                self._goal = None  # others have published more than it holds, or have vacuumed it
            raise StaleWriter(
                f"Other materializations of group {self.table.group.name!r} were ahead of this one, or its table was vacuumed "
                f"under it, {TRIES} times. Materialize again."
            )
        return False

    def _plan(self, state: MaterializationState) -> Plan | None:
        """Parts with the same R share a plan: it was made after that R was read in one of them, so it holds at least as much."""
        if state not in self._plans:
            target = self._target(state)
            plan = None if target is None else plan_step(self.table, state, target, self.slice_bytes)
            if plan is not None:
                plan.refuse_unservable()
            self._plans[state] = plan
        return self._plans[state]

    def _target(self, state: MaterializationState) -> MaterializationState | None:
        """Where this move goes already, if that holds at least what R does; else the newest."""
        if self._goal is None or not is_covered(state, self._goal):
            self._goal = target_of(self.table, self.clock())
        return self._goal

    def _filled(self, parts: Sequence[TierPart], *, start_over: bool) -> list[Filling]:
        """Build the copy anew in parts of one tier, going on with what others have begun."""
        if start_over:
            self._seen = {}
        taken = {} if start_over else {part.name: self._taken_over(part) for part in parts}
        fillings = [filling for filling in taken.values() if filling is not None]
        fresh = [part for part in parts if taken.get(part.name) is None and part.name not in self.failures]
        return self._run(fillings) + self._run(self._begun(fresh))

    def _taken_over(self, part: TierPart) -> Filling | None:
        with self._failing(part):
            return take_over(self.table, part, self.clock())
        return None

    def _begun(self, parts: Sequence[TierPart]) -> list[Filling]:
        """Fills that begin anew. A copy that another has built since it was found missing is left as it is."""
        name, epochs = self.table.group.name, dict[str, str]()
        for part in parts:
            with self._failing(part):
                found = (part.ensure_epoch(name), part.state(name))
                if found != self._seen.setdefault(part.name, found):
                    raise StaleWriter(
                        f"Another has built group {name!r} anew in {part.name} meanwhile. Materialize again."
                    )
                if found[1] is not None:
                    refuse_older_registry(self.table.group, found[1])
                epochs[part.name] = found[0]
        try:
            begun = begin(
                self.table, [part for part in parts if part.name in epochs], epochs, self.clock, self.slice_bytes
            )
        except FeatureStoreError as error:
            self.failures |= dict.fromkeys(epochs, error)
            return []
        for filling in begun:
            self._goal = furthest(self._goal, filling.fill.target)
        return begun

    def _run(self, fillings: list[Filling]) -> list[Filling]:
        """To the end; if the pinned version is vacuumed meanwhile, or was before, anew from the newest."""
        for _ in range(TRIES):
            try:
                run(self.table, fillings, self.progress)
            except FileNotFoundError:
                self._seen = {}
                fillings = self._begun([filling.part for filling in fillings])
            else:
                return fillings
        raise StaleWriter(
            f"The table of group {self.table.group.name!r} was vacuumed {TRIES} times while its copy was built from it. "
            "Materialize again, and keep its versions for longer than that takes."
        )

    @contextmanager
    def _failing(self, part: TierPart) -> Iterator[None]:
        """A part that fails, fails alone."""
        try:
            yield
        except FeatureStoreError as error:
            self.failures[part.name] = error

    def raise_failures(self, asked: int) -> None:
        """Tell what failed; one that others' trying again may mend is told as such."""
        found = list(self.failures.values())
        if not found:
            return
        if len(found) == asked and len({str(error) for error in found}) == 1:
            raise found[0]
        unavailable = [error for error in found if isinstance(error, StoreUnavailable)]
        told = " ".join(f"{name}: {error}" for name, error in self.failures.items())
        raise type((unavailable or found)[0])(
            f"Group {self.table.group.name!r} could not be moved in {len(found)} of {asked} parts; the others were. {told}"
        ) from found[0]


def _both(before: PartStep | None, step: PartStep) -> PartStep:
    """A rebuild and the step that follows it in one."""
    if before is None:
        return step
    return replace(
        step,
        was_rebuilt=before.was_rebuilt,
        keys=before.keys + step.keys,
        written=before.written + step.written,
        left=before.left + step.left,
    )
