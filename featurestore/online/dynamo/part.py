"""The table as materialization sees it: one part, which is emptied and rebuilt as a whole.

A group's epoch is its generation. Whoever starts over takes a higher one, and everything written before lies under other keys
from then on: nothing is cleared, and no late request of a fill reaches what readers use. What an older writer still writes, it
writes where nobody looks; it is told so when its write ends.

Not here: the rule of a single write (`rule`), reads (`tier`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from secrets import randbelow

import polars as pl

from featurestore.clock import Clock, microseconds, system_clock, zoned
from featurestore.declaration.online import TierName
from featurestore.errors import FenceRefused, StoreUnavailable
from featurestore.online.advance import require_forward, require_owner
from featurestore.online.batch import WriteBatch, prepare_batch
from featurestore.online.dynamo.failures import CONDITION_FAILED
from featurestore.online.dynamo.fill import fill_items
from featurestore.online.dynamo.items import Offer, Place, in_lanes, offers_of
from featurestore.online.dynamo.record import GroupRecord, RecordBook
from featurestore.online.dynamo.requests import PATIENCE_SECONDS, Requests
from featurestore.online.dynamo.rule import Conditional, Outcome, Stored, first_request, next_request
from featurestore.online.message.layout import Flags
from featurestore.online.published import Published
from featurestore.online.tier import Fill, MaterializationState, WriteResult

_SPREAD = 1_000_000
"""A generation lies up to so many microseconds above clock and predecessor: a table made anew in one instant gets another."""


class DynamoPart:
    """A DynamoDB table as the one part of the warm tier; `TierPart` has the rules.

    Args:
        requests: Of the table.
        records: Of the table.
        clock: The writer's; refuses future times.
        allowed_skew: How far beyond the clock a row's event and knowledge time may lie.
        server_clock: Which the server's expiry follows. What is stored lives as long as the writer's clock says, from now on.
    """

    def __init__(
        self,
        requests: Requests,
        records: RecordBook,
        clock: Clock,
        *,
        allowed_skew: timedelta = timedelta(minutes=5),
        server_clock: Clock = system_clock,
    ) -> None:
        self._requests = requests
        self._records = records
        self._clock = clock
        self._allowed_skew = allowed_skew
        self._server_clock = server_clock
        self._spoiled: set[tuple[str, str]] = set()

    @property
    def tier(self) -> TierName:
        return "warm"

    @property
    def name(self) -> str:
        return f"warm {self._requests.address.table}"

    @property
    def can_resume(self) -> bool:
        """No: a batch write of the one before may still come, and looks at nothing."""
        return False

    def owns(self, keys: Sequence[bytes]) -> Flags | None:  # noqa: ARG002
        """All of them."""
        return None

    def ensure_epoch(self, group: str) -> str:
        """The group's generation; its first one, if the table has none."""
        first = GroupRecord(self._next_generation(0))
        return self._records.change(group, lambda seen: seen or first).epoch

    def state(self, group: str) -> MaterializationState | None:
        record = self._records.read(group)
        return record.state if record else None

    def begin_step(self, group: str, target: MaterializationState, *, epoch: str) -> None:
        """Only checks: nothing is repaired here, so that nothing needs to be held off."""
        record = self._current(group, self._records.read(group), epoch)
        require_forward(f"in {self.name}", group, record.state, target)

    def write(
        self,
        group: str,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        *,
        epoch: str,
        ttl: timedelta | None,
        removed: pl.DataFrame | None = None,
        basis: MaterializationState | None = None,  # noqa: ARG002 - a table evicts no keys
    ) -> WriteResult:
        """Write messages by the rule of versions and fences, atomically per key.

        Raises:
            InvalidInput: times or arguments that cannot be (nothing is sent), or an item that DynamoDB cannot hold.
            FenceRefused: the group has another generation, or got one meanwhile; then what was written counts for nobody.
            StoreUnavailable: the table does not answer, or throttles for too long. Some keys may have been written.
        """
        batch = self._prepared(group, keys, messages, ttl, removed)
        self._current(group, self._records.read(group), epoch)
        offers = self._offers(group, batch, epoch)
        done = self._requests.each(in_lanes(offers), self._offer_in_turn)
        self._current(group, self._records.read(group), epoch)
        outcomes = [pair for lane in done for pair in lane]
        refused = sorted(position for position, outcome in outcomes if outcome is Outcome.REFUSED)
        counts = [outcome for _, outcome in outcomes]
        return WriteResult(counts.count(Outcome.WRITTEN), counts.count(Outcome.LEFT), tuple(refused))

    def set_state(self, group: str, state: MaterializationState, *, epoch: str, is_rebuild: bool = False) -> None:
        def judge(seen: GroupRecord | None) -> GroupRecord:
            record = self._current(group, seen, epoch)
            if is_rebuild:
                self._refuse_spoiled(group, epoch)
            require_forward(f"in {self.name}", group, record.state, state, begins=is_rebuild)
            return replace(record, state=state, fill=None if is_rebuild else record.fill)

        self._records.change(group, judge)

    def start_over(self, group: str, *, epoch: str) -> str:
        """Take a new generation: the group is cold until its state is set."""
        new: list[GroupRecord] = []

        def judge(seen: GroupRecord | None) -> GroupRecord:
            if seen is not None and seen.generation in [record.generation for record in new]:
                return seen  # this call's own request, whose answer was lost
            last = self._current(group, seen, epoch).generation
            new.append(GroupRecord(self._next_generation(last)))
            return new[-1]

        return self._records.change(group, judge).epoch

    def fill_under_way(self, group: str) -> Fill | None:
        record = self._records.read(group)
        return record.fill if record else None

    def record_fill(self, group: str, fill: Fill, *, epoch: str, previous: str | None) -> None:
        """Begin a fill, or note a slice done. Another owner is refused: it starts over, under another generation."""

        def judge(seen: GroupRecord | None) -> GroupRecord:
            record = self._current(group, seen, epoch)
            if record.fill == fill:
                return record
            require_owner(f"in {self.name}", group, record.fill, previous)
            if record.state is not None or fill.owner != (previous or fill.owner):
                raise FenceRefused(
                    f"Generation {epoch} of group {group!r} in {self.name} is in use, or another's to fill. Start over, and fill that."
                )
            return replace(record, fill=fill)

        self._records.change(group, judge)

    def fill(
        self,
        group: str,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        *,
        epoch: str,
        ttl: timedelta | None,
        owner: str,
    ) -> None:
        """Write messages without looking at what is stored.

        Raises:
            FenceRefused: the group has another generation, or the fill another owner; then what was written counts for nobody.
            StoreUnavailable: the table does not answer, or throttles for too long. Start over, unless nothing was sent.
        """
        batch = self._prepared(group, keys, messages, ttl, None)
        offers = self._offers(group, batch, epoch)
        self._refuse_unless_filling(group, epoch, owner)
        try:
            fill_items(self._requests, offers)
        except StoreUnavailable:
            # A batch whose answer did not come may still be written, over newer values: this generation is never served.
            self._spoiled.add((group, epoch))
            raise
        self._refuse_unless_filling(group, epoch, owner)

    def publish(self, records: Mapping[str, Published]) -> None:
        """A conditional put for each group, so many at once as there are connections."""
        self._requests.each(list(records.items()), lambda one: self._records.publish(*one))

    def _offer_in_turn(self, lane: list[Offer]) -> list[tuple[int, Outcome]]:
        return [(offer.position, self._offer(offer)) for offer in lane]

    def _offer(self, offer: Offer) -> Outcome:
        until = self._requests.monotonic() + PATIENCE_SECONDS
        following: Conditional | Outcome = first_request(offer)
        while isinstance(following, Conditional):
            if self._requests.monotonic() > until:
                raise StoreUnavailable(
                    f"Others keep changing an item of group {offer.sort_key!r} in {self.name}. Write again."
                )
            following = self._send(offer, following, until)
        return following

    def _send(self, offer: Offer, request: Conditional, until: float) -> Conditional | Outcome:
        """What follows."""
        asked = {"TableName": self._requests.address.table, **request.parameters}
        answer = self._requests.ask(self._requests.writer, request.operation, asked, until, answers=[CONDITION_FAILED])
        return next_request(offer, Stored.of(answer.get("Item", {}))) if "Error" in answer else request.outcome

    def _prepared(
        self,
        group: str,
        keys: Sequence[bytes],
        messages: Sequence[bytes],
        ttl: timedelta | None,
        removed: pl.DataFrame | None,
    ) -> WriteBatch:
        return prepare_batch(group, keys, messages, ttl, removed, zoned(self._clock), self._allowed_skew)

    def _offers(self, group: str, batch: WriteBatch, epoch: str) -> list[Offer]:
        generation = int(epoch) if epoch.isdecimal() else -1  # not a generation: refused when it is compared
        return offers_of(Place(group, generation), batch, microseconds(self._server_clock()))

    def _next_generation(self, last: int) -> int:
        return max(last, microseconds(zoned(self._clock))) + 1 + randbelow(_SPREAD)

    def _current(self, group: str, record: GroupRecord | None, epoch: str) -> GroupRecord:
        if record is None or record.epoch != epoch:
            raise FenceRefused(
                f"Group {group!r}, or all of {self.name}, was emptied since this writer began: the epoch is another. What this "
                "call wrote counts for nobody. Read the epoch and the state again; an unknown state means rebuild."
            )
        return record

    def _refuse_unless_filling(self, group: str, epoch: str, owner: str) -> None:
        self._refuse_spoiled(group, epoch)
        record = self._current(group, self._records.read(group), epoch)
        require_owner(f"in {self.name}", group, record.fill, owner)

    def _refuse_spoiled(self, group: str, epoch: str) -> None:
        if (group, epoch) in self._spoiled:
            raise FenceRefused(
                f"A batch of the fill of group {group!r} in {self.name} was sent and never answered: it may still be written, over "
                "newer values. Start over."
            )
