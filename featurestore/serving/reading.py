"""One read of the store for all requests that were joined, and each one's body out of it. Runs in a worker thread."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from time import monotonic

import polars as pl

from featurestore.clock import microseconds
from featurestore.errors import FeatureStoreError
from featurestore.frames import Rows
from featurestore.online.reading.retrieval import OnlineFeatures
from featurestore.serving.arrow_body import encode_arrow
from featurestore.serving.json_body import JsonWriter
from featurestore.serving.metrics import Metrics
from featurestore.serving.negotiation import BodyFormat
from featurestore.serving.prepared import Entities, PreparedRead
from featurestore.serving.protobuf_body import encode_protobuf
from featurestore.serving.slices import ReadResult, Slice

ENCODE: dict[BodyFormat, Callable[[ReadResult], Callable[[Slice], bytes]]] = {
    "json": lambda result: JsonWriter(result).write,
    "arrow": lambda _: encode_arrow,
    "protobuf": lambda _: encode_protobuf,
}
"""What writes bodies out of a read."""
DEADLINE, NO_COPY, NO_ANSWER = "deadline", "no copy", "no answer"
STORE_SHARE = 0.9
"""Of the time that is left, what the stores may take: what one tier has not answered by then leaves time to tell the rest."""
LOG_SECONDS = 10.0
"""A store that is away is logged that often for a group, not for each read."""
log = logging.getLogger("featurestore.serving")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, checked: what remains is to read and to write its body by a moment of `time.monotonic`."""

    prepared: PreparedRead
    deadline: float
    entities: Entities
    body_format: BodyFormat
    with_versions: bool
    with_serving_metadata: bool


class Reader:
    """Reads for several requests at once.

    Rules: what the store cannot answer has no values and is INVALID; nothing that a store does is an error here.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told: dict[str, float] = {}

    def __call__(self, asks: Sequence[Ask]) -> list[bytes]:
        """The body of each request, in their order.

        Args:
            asks: Requests for the same features.
        """
        prepared = asks[0].prepared
        result = ReadResult(prepared, self._read(asks), _count(asks), len(asks), _now(prepared))
        self._tell_causes(result)
        self._metrics.observe_read(len(asks), prepared.requested, result.columns, result.now)
        writers = {body_format: ENCODE[body_format](result) for body_format in {ask.body_format for ask in asks}}
        bodies, start = [], 0
        for ask in asks:
            bodies.append(writers[ask.body_format](_slice(ask, result, start)))
            start += ask.entities.count
        return bodies

    def without_values(self, ask: Ask) -> bytes:
        """The body of a request whose time was up before the store answered."""
        self._metrics.count_gap(DEADLINE)
        nothing = ReadResult(ask.prepared, None, ask.entities.count, 1, 0)
        return ENCODE[ask.body_format](nothing)(_slice(ask, nothing, 0))

    def _tell_causes(self, result: ReadResult) -> None:
        """Count, and now and then log, why groups had no answer."""
        for group, cause in (result.answer.causes if result.answer else {}).items():
            self._metrics.count_gap(NO_COPY if NO_COPY in cause else NO_ANSWER)
            if monotonic() - self._told.get(group, float("-inf")) >= LOG_SECONDS:
                self._told[group] = monotonic()
                log.warning("Values of %s are INVALID: %s", group, cause)

    def _read(self, asks: Sequence[Ask]) -> OnlineFeatures | None:
        prepared = asks[0].prepared
        left = max(ask.deadline for ask in asks) - monotonic()
        try:
            return prepared.read(_rows(asks), STORE_SHARE * left)
        except FeatureStoreError as error:
            # What clients ask was checked before: this is the store's trouble, whatever it is called.
            log.warning("A read of %s failed: %s", prepared.service, error)
            self._metrics.count_gap(type(error).__name__)
            return None


def _rows(asks: Sequence[Ask]) -> Rows:
    """The entities of all requests as plain columns, which the library reads without a frame."""
    if len(asks) == 1 and asks[0].entities.count:
        return asks[0].entities.typed
    keys = asks[0].prepared.keys
    columns = {name: list(chain.from_iterable(ask.entities.typed[name] for ask in asks)) for name in keys}
    return columns if any(columns.values()) else pl.DataFrame(schema=dict(keys))


def _count(asks: Sequence[Ask]) -> int:
    return sum(ask.entities.count for ask in asks)


def _now(prepared: PreparedRead) -> int:
    return microseconds(prepared.store.clock())


def _slice(ask: Ask, result: ReadResult, start: int) -> Slice:
    return Slice(result, start, ask.entities.keys, ask.entities.count, ask.with_versions, ask.with_serving_metadata)
