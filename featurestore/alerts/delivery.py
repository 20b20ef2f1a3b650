"""Delivering the outbox: each sink for itself, in a thread of its own, so that one that is down or slow holds up no other.

A notice is delivered at least once: a worker that dies between the sink's answer and the word of it in the database leaves it to be
sent again, with the same id. A sink that cannot be reached is tried again after 10 s, 20 s, 40 s and so on, at most 5 minutes apart.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from featurestore.alerts.notice import Notice
from featurestore.alerts.outbox import Outbox, Waiting
from featurestore.alerts.sinks.sink import Sink
from featurestore.clock import Clock
from featurestore.errors import AlertRefused, FeatureStoreError, InvalidInput, SinkUnavailable

BUDGET_SECONDS = 20.0
"""After that no further batch is begun, and the round is left; a send that is under way goes on behind it, and keeps its lease."""

log = logging.getLogger("featurestore.alerts")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A round of delivery. It may be made by several workers at once.

    Args:
        outbox: What is to be delivered.
        sinks: By name.
        clock: What leases, waits and the time of a delivery are told by.
        budget_seconds: How long a round may take, by the real clock.
        timer: The real clock.
    """

    outbox: Outbox
    sinks: Mapping[str, Sink]
    clock: Clock
    budget_seconds: float = BUDGET_SECONDS
    timer: Callable[[], float] = time.monotonic
    worker: str = field(default_factory=lambda: uuid4().hex)

    def deliver(self) -> dict[str, int]:
        """Deliver what is due.

        Returns:
            By sink how many notices it took; sinks that took none, or are still at it when time is up, are left out.
        """
        deadline, done = self.timer() + self.budget_seconds, dict[str, int]()
        busy = [name for name, one in self.sinks.items() if self.outbox.has_work(name, self.clock(), one.repeat_every)]
        threads = [
            threading.Thread(target=self._serve, args=(name, deadline, done), name=f"alerts-{name}", daemon=True)
            for name in busy
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - self.timer()))
        return {name: count for name, count in dict(done).items() if count}

    def _serve(self, name: str, deadline: float, done: dict[str, int]) -> None:
        """One sink's part of a round. A database that fails is logged: the next round tries again."""
        worker = f"{self.worker[:16]}{uuid4().hex[:16]}"
        try:
            if self.outbox.lease(name, worker, self.clock()):
                try:
                    done[name] = self._send_due(name, worker, deadline)
                finally:
                    self.outbox.release(name, worker)
        except FeatureStoreError:
            log.exception(f"Alerts of sink {name!r} could not be delivered now.")

    def _send_due(self, name: str, worker: str, deadline: float) -> int:
        sink, sent = self.sinks[name], 0
        due = self.outbox.due(name, self.clock())
        by_id = {one.notice.notice_id: one for one in due}
        blocked: set[tuple[str, str]] = set()
        for batch in sink.batches([one.notice for one in due]):
            rows = [by_id[one.notice_id] for one in batch if (one.kind, one.group) not in blocked]
            if self.timer() >= deadline or not self.outbox.lease(name, worker, self.clock()):
                return sent
            taken = self._send(name, sink, rows, blocked) if rows else 0
            if taken is None:
                return sent
            sent += taken
        self._repeat(name, worker, sink)
        return sent

    def _send(self, name: str, sink: Sink, rows: Sequence[Waiting], blocked: set[tuple[str, str]]) -> int | None:
        """Send some notices together; those refused, one by one. None: the sink cannot be reached."""
        numbers = [row.number for row in rows]
        try:
            remark = _sent(sink, [row.notice for row in rows])
        except SinkUnavailable as error:
            log.warning(f"Sink {name!r} of alerts cannot be reached: {error}")
            self.outbox.unreachable(name, self.clock(), str(error))
            return None
        except (AlertRefused, InvalidInput) as error:
            if len(rows) > 1:
                return self._one_by_one(name, sink, rows, blocked)
            log.error(f"Sink {name!r} does not take alert {rows[0].notice.notice_id}: {error}")
            self.outbox.refused(numbers, self.clock(), str(error))
            blocked.add((rows[0].notice.kind, rows[0].notice.group))
            return 0
        self.outbox.delivered(name, numbers, self.clock(), remark)
        return len(rows)

    def _one_by_one(self, name: str, sink: Sink, rows: Sequence[Waiting], blocked: set[tuple[str, str]]) -> int | None:
        sent = 0
        for row in rows:
            taken = self._send(name, sink, [row], blocked)
            if taken is None:
                return None
            sent += taken
        return sent

    def _repeat(self, name: str, worker: str, sink: Sink) -> None:
        """Tell a sink again of what is open, if it forgets; one that cannot be told now is told a minute later."""
        if sink.repeat_every is None:
            return
        open_notices = self.outbox.to_repeat(name, self.clock(), sink.repeat_every)
        if open_notices is None:
            return
        for batch in sink.batches(open_notices):
            try:
                if not self.outbox.lease(name, worker, self.clock()):
                    return
                _sent(sink, batch)
            except SinkUnavailable as error:
                self.outbox.unreachable(name, self.clock(), str(error))
                return
            except (AlertRefused, InvalidInput) as error:
                log.error(f"Sink {name!r} does not take what is repeated: {error}")
        self.outbox.repeated(name, self.clock())


def _sent(sink: Sink, notices: Sequence[Notice]) -> str:
    """Send notices together. What a sink did not foresee counts as no answer: it waits like that, and is shown.

    Only its type and where it arose are told: what it says, or a traceback, may hold an address or a token.
    """
    try:
        return sink.send(notices)
    except (SinkUnavailable, AlertRefused, InvalidInput):
        raise
    except Exception as error:  # noqa: BLE001 - a thread that ended would try again every 10 s, and tell nobody
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "/".join(Path(last.filename).parts[-2:])
        raise SinkUnavailable(f"Unforeseen {type(error).__name__} in {place}, line {last.lineno}.") from None
