"""One read of the store for all requests that were joined, and each one's body out of it. Runs in a worker thread."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from time import monotonic

import polars as pl

from featurestore.clock import microseconds
from featurestore.errors import FeatureStoreError, NotFresh
from featurestore.frames import Rows
from featurestore.freshness.read_state import Freshness, Mode
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
    freshness: Mode | None = None
    """As asked; None: nothing was said of it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A request's answer: its body, and what its header says of freshness."""

    body: bytes
    state: bytes


class Reader:
    """Reads for several requests at once.

    Rules: what the store cannot answer has no values and is INVALID; nothing that a store does is an error here.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told: dict[str, float] = {}

    def __call__(self, asks: Sequence[Ask]) -> list[Answered | NotFresh]:
        """The answer to each request, in their order, or why a strict one has none.

        Args:
            asks: Requests for the same features.
        """
        prepared = asks[0].prepared
        result = ReadResult(prepared, self._read(asks), _count(asks), len(asks), _now(prepared))
        self._tell_causes(result)
        self._metrics.observe_read(len(asks), prepared.requested, result.columns, result.now)
        self._metrics.count_states(len(asks), result.freshness.groups)
        writers = {body_format: ENCODE[body_format](result) for body_format in {ask.body_format for ask in asks}}
        answers: list[Answered | NotFresh] = []
        refusal, state, start = _refusal_of(result, asks), state_header(result.freshness), 0
        for ask in asks:
            if refusal is not None and ask.freshness == "strict":
                answers.append(refusal)
            else:
                answers.append(Answered(writers[ask.body_format](_slice(ask, result, start)), state))
            start += ask.entities.count
        return answers

    def without_values(self, ask: Ask) -> Answered:
        """The answer to a request whose time was up before the store answered.

        Raises:
            NotFresh: it is a strict one, and by what is known its groups are not fresh.
        """
        self._metrics.count_gap(DEADLINE)
        nothing = ReadResult(ask.prepared, None, ask.entities.count, 1, 0)
        self._metrics.count_states(1, nothing.freshness.groups)
        if refusal := _refusal_of(nothing, [ask]):
            raise refusal
        return Answered(ENCODE[ask.body_format](nothing)(_slice(ask, nothing, 0)), state_header(nothing.freshness))

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
    keys, count = ask.entities.keys, ask.entities.count
    has_freshness = ask.freshness is not None
    return Slice(result, start, keys, count, ask.with_versions, ask.with_serving_metadata, has_freshness)


def _refusal_of(result: ReadResult, asks: Sequence[Ask]) -> NotFresh | None:
    """Why strict requests among these get nothing."""
    if not any(ask.freshness == "strict" for ask in asks):
        return None
    try:
        result.freshness.require()
    except NotFresh as refusal:
        return refusal
    return None


def state_header(freshness: Freshness) -> bytes:
    """The worst group for a response header, such as `BREACH;group=carrier_delay_daily;lag=90061.5;slo=86400`."""
    worst = freshness.worst
    if worst is None:
        return b"NONE"
    lag, slo = (None if span is None else span.total_seconds() for span in (worst.lag, worst.slo))
    said = f"{worst.state};group={worst.group}"
    said += "" if lag is None else f";lag={lag:.3f}"
    return (said if slo is None else f"{said};slo={slo:.3f}").encode()
