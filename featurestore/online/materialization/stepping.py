"""Taking a planned step in one part: each entity's row or tombstone is offered, and what is stored of it is decided in the server."""

from collections.abc import Iterator

from featurestore.errors import StaleWriter
from featurestore.online.materialization.batches import Batch, ahead, batches
from featurestore.online.materialization.moves import Meter, OnProgress, PartStep
from featurestore.online.materialization.planning import Plan
from featurestore.online.tier import TierPart


def take_step(part: TierPart, plan: Plan, epoch: str, on_progress: OnProgress) -> PartStep | None:
    """Offer everything that is planned, then record R.

    Rules: a step cut short anywhere is taken again from the same R. What it moves to is announced before the first write.

    Args:
        part: Where.
        plan: From the part's R.
        epoch: As read before that R.
        on_progress: Is told after each batch.

    Returns:
        What was done; None if another writer was ahead: R, fence and rows are to be read again.

    Raises:
        FenceRefused: the part was emptied or started over meanwhile.
        StoreUnavailable: it does not answer.
    """
    group = plan.group.name
    try:
        if plan.portion_count:
            part.begin_step(group, plan.target, epoch=epoch)
        counts = _write(part, plan, epoch, on_progress)
        if counts is None:
            return None
        part.set_state(group, plan.target, epoch=epoch)
    except StaleWriter:
        return None
    return PartStep(part.name, part.tier, plan.target.version, plan.target.as_of, False, *counts)


def _write(part: TierPart, plan: Plan, epoch: str, on_progress: OnProgress) -> tuple[int, int, int] | None:
    """How many keys were offered, written and left; None if one was refused."""
    group = plan.group
    meter = Meter(group.name, (part.name,), False, plan.portion_count, 0, on_progress)
    written = left = 0
    for batch in ahead(_batches(part, plan)):
        if batch.keys:
            result = part.write(
                group.name,
                batch.keys,
                batch.messages,
                epoch=epoch,
                ttl=group.ttl,
                removed=batch.removed,
                basis=plan.target,
            )
            written, left = written + result.written, left + result.left
            if result.refused:
                return None
        meter.sent(len(batch.keys), batch.share)
        if batch.share == 1:
            meter.slice_done()
    return meter.rows, written, left


def _batches(part: TierPart, plan: Plan) -> Iterator[Batch]:
    for portion in plan.portions():
        yield from batches(plan.group, portion.rows, portion.removed, [part], fence=plan.served.fence)
