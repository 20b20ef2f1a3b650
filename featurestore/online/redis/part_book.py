"""What a part of the hot tier keeps of itself: its epoch, for each group R and the fill under way, and what was published of it.

Not here: messages (`part`), how records are spelled (`records`).
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NoReturn
from uuid import uuid4

from featurestore.clock import microseconds
from featurestore.errors import StaleWriter
from featurestore.online.advance import furthest, require_forward
from featurestore.online.published import KEPT, Published
from featurestore.online.records import (
    Ownership,
    PartKeys,
    StateRecord,
    fill_record,
    group_epoch,
    is_warm,
    read_fill,
    read_state,
    state_record,
)
from featurestore.online.redis.connection import meaning_of
from featurestore.online.redis.line import ServerSaid
from featurestore.online.redis.server import Server
from featurestore.online.tier import Fill, MaterializationState

EPOCH_LENGTH = 32
_KEPT_MS = b"%d" % (KEPT // timedelta(milliseconds=1))
_TRIES = 5


class PartBook:
    """The records of one part.

    Rules: an epoch that a writer carries is the part's epoch, the group's generation once it was started over, and the run of
    the server. Whatever begins in one run of the server cannot end in another, which may have lost acknowledged writes of the
    first; what is recorded stays valid, since writes are only ever lost from the last one back.

    Args:
        server: Where they are.
        keys: Under which keys.
        ownership: What a state recorded now covers; None: all keys.
    """

    def __init__(self, server: Server, keys: PartKeys, ownership: Ownership | None = None) -> None:
        self._server = server
        self._keys = keys
        self._ownership = ownership

    def epoch(self) -> str | None:
        """The part's epoch; None if it was emptied or never used."""
        stored: bytes | None = self._server.call("GET", self._keys.epoch)
        return stored.decode() if stored else None

    def ensure_epoch(self, group: str | None) -> str:
        """The epoch that writes and states of a group carry, begun now if the part has none; without a group, the part's."""
        generation = [] if group is None else [self._keys.generation(group)]
        _, stored, info = self._server.call_all(
            [
                ("SET", self._keys.epoch, uuid4().hex, "NX"),
                ("MGET", self._keys.epoch, *generation),
                ("INFO", "server"),
            ]
        )
        return b"".join(part for part in stored if part).decode() + "@" + _run_in(info)

    def start_over(self, group: str, *, epoch: str) -> str:
        """Forget R and the fill, and give the group another epoch."""
        generation = uuid4().hex
        own = [self._keys.state(group), self._keys.fill(group)]
        self.run("clear.lua", group, epoch, [[generation, *own]])
        return epoch[:EPOCH_LENGTH] + generation + "@" + epoch.partition("@")[2]

    def state(self, group: str) -> MaterializationState | None:
        """R; None (rebuild) if that is unknown, of another epoch, or does not cover what the part owns now."""
        epoch, _, record = self._stored(group, self._keys.state(group))
        known = self._known(epoch, record)
        return None if known is None else known.state

    def begin_step(self, group: str, target: MaterializationState, *, epoch: str) -> None:
        """Say, before the first write of a step from R, what it moves to; R itself stays.

        Raises:
            StaleWriter: R is gone, of another table, or ahead of `target`, or others keep moving it.
        """
        for _ in range(_TRIES):
            known, record = self._read(group, epoch)
            state = require_forward(self._place, group, known.state if known else None, target)
            reached = furthest(known.reached if known else None, target)
            if self._swap(group, epoch, record, state_record(epoch, state, reached, self._ownership)):
                return
        self._give_up(group)

    def set_state(self, group: str, state: MaterializationState, *, epoch: str, is_rebuild: bool = False) -> None:
        """Record R after the last key of a step, or of a fill, was written.

        Rules: R never moves backwards, neither version nor instant, and stays with its table; only a rebuild begins it. What
        another step has announced beyond it stays announced: some of that may be written.

        Raises:
            StaleWriter: R is of another table or ahead of `state`, or gone and this is not a rebuild; or others keep moving it.
        """
        for _ in range(_TRIES):
            known, record = self._read(group, epoch)
            require_forward(self._place, group, known.state if known else None, state, begins=is_rebuild)
            reached = furthest(known.reached if known else None, state)
            renewed = state_record(epoch, state, None if reached == state else reached, self._ownership)
            if self._swap(group, epoch, record, renewed, ends_fill=is_rebuild):
                return
        self._give_up(group)

    def fill_under_way(self, group: str) -> Fill | None:
        """The fill that was begun and not ended under the group's epoch."""
        epoch, generation, record = self._stored(group, self._keys.fill(group))
        if epoch is None or record is None:
            return None
        of_epoch, fill = read_fill(record)
        return fill if of_epoch.encode() == epoch + (generation or b"") else None

    def record_fill(self, group: str, fill: Fill, *, epoch: str, previous: str | None) -> None:
        """Begin a fill, take it over, or note a slice done.

        Raises:
            FenceRefused: `previous` is not the owner recorded, or a new owner claims more slices than are done.
        """
        arguments: list[str | bytes] = [self._keys.fill(group), previous or "", fill_record(epoch, fill)]
        self.run("fill_record.lua", group, epoch, [arguments])

    def publish(self, records: Mapping[str, Published]) -> None:
        """Keep what a look found of groups, under no epoch; what a newer look, or the same, left there stays."""
        if not records:
            return
        told: list[str | bytes] = [_KEPT_MS]
        for group, one in records.items():
            told += [self._keys.freshness(group), b"%d" % microseconds(one.looked_at), one.record()]
        self._server.run("published.lua", self._keys.epoch, [told])

    def run(self, name: str, group: str, epoch: str, calls: Sequence[Sequence[str | bytes]]) -> list[Any]:
        """Run a script under the group's epoch, once for each list of arguments.

        Raises:
            FenceRefused: The group has another epoch, or the server was restarted since.
            StoreUnavailable: The server does not answer.
            ServerSaid: The script said something that `connection.meaning_of` does not know.
        """
        first: list[str | bytes] = [epoch, self._keys.generation(group)]
        return self._server.run(name, self._keys.epoch, [[*first, *arguments] for arguments in calls])

    def _stored(self, group: str, key: bytes) -> list[bytes | None]:
        """Epoch, generation, and what `key` holds."""
        found: list[bytes | None] = self._server.call("MGET", self._keys.epoch, self._keys.generation(group), key)
        return found

    def _known(self, epoch: bytes | None, record: bytes | None) -> StateRecord | None:
        if record is None or not is_warm(epoch, record):
            return None
        known = read_state(record)
        is_covered = self._ownership is None or self._ownership.is_covered_by(known.ownership)
        return known if is_covered else None

    def _read(self, group: str, epoch: str) -> tuple[StateRecord | None, bytes]:
        """The state's record as far as it counts, and as it is stored; refused under another epoch."""
        server_epoch, generation, record = self._stored(group, self._keys.state(group))
        if server_epoch is None or (server_epoch + (generation or b"")).decode() != group_epoch(epoch):
            raise meaning_of(self._server.address, ServerSaid("FSEPOCH"))
        return self._known(server_epoch, record), record or b""

    def _swap(self, group: str, epoch: str, record: bytes, renewed: str, *, ends_fill: bool = False) -> bool:
        ended = self._keys.fill(group) if ends_fill else b""
        arguments: list[str | bytes] = [self._keys.state(group), record, renewed, ended]
        return bool(self.run("state.lua", group, epoch, [arguments])[0])

    @property
    def _place(self) -> str:
        return f"at {self._server.address}"

    def _give_up(self, group: str) -> NoReturn:
        raise StaleWriter(
            f"Others keep moving the online state of group {group!r} at {self._server.address}. Take the step again."
        )


def _run_in(info: bytes) -> str:
    """The server's run in what INFO says."""
    _, found, rest = info.partition(b"run_id:")
    return rest.partition(b"\r\n")[0].decode() if found else ""
