"""What requests say in their headers, and holding them to what they may cost. Not here: bodies (`body.py`), the limits themselves."""

import re
from collections.abc import Mapping

from featurestore.freshness.read_state import MODES, Mode
from featurestore.serving.options import Limits
from featurestore.serving.refusal import Refusal
from featurestore.serving.wire import (
    FRESHNESS_HEADER,
    IDEMPOTENCY_FORM,
    IDEMPOTENCY_HEADER,
    IDEMPOTENCY_KEY,
    TIMEOUT_HEADER,
)

_FRESHNESS_HEADER = FRESHNESS_HEADER.lower().encode()
_MODES: dict[bytes, Mode] = {mode.encode(): mode for mode in MODES}
_TIMEOUT_HEADER = TIMEOUT_HEADER.lower().encode()
_IDEMPOTENCY_HEADER = IDEMPOTENCY_HEADER.lower().encode()
_MILLISECONDS = re.compile(rb"[0-9]+")

Headers = Mapping[bytes, bytes]
"""By lower-case name."""


def timeout_of(headers: Headers, limits: Limits, usual: float | None = None) -> float:
    """Seconds that a request may take, from its header: at most what the server gives, however much that asks for.

    Args:
        usual: For one that does not say; None: as the limits have it.

    Raises:
        Refusal: 400, the header is no whole number of milliseconds above 0.
    """
    value = headers.get(_TIMEOUT_HEADER)
    if value is None:
        return limits.timeout_seconds if usual is None else usual
    milliseconds = float(value) if _MILLISECONDS.fullmatch(value) else 0.0
    if not milliseconds:
        said = value.decode("latin-1")
        raise Refusal(
            400,
            "InvalidHeader",
            f"Header {TIMEOUT_HEADER} is {said[:80]!r}. Give whole milliseconds from 1 on, or leave it out.",
        )
    return min(milliseconds / 1000, limits.longest_timeout_seconds)


def freshness_of(headers: Headers) -> Mode | None:
    """What a request says in its header of groups that are late; None if it says nothing.

    Raises:
        Refusal: 400, it is no mode.
    """
    value = headers.get(_FRESHNESS_HEADER)
    if value is None:
        return None
    mode = _MODES.get(value.replace(b"-", b"_"))
    if mode is None:
        said = value.decode("latin-1")
        raise Refusal(
            400,
            "InvalidHeader",
            f"Header {FRESHNESS_HEADER} is {said[:80]!r}. Give one of {list(MODES)}, or leave it out.",
        )
    return mode


def idempotency_key_of(headers: Headers) -> str | None:
    """The name that a push has; None if it has none.

    Raises:
        Refusal: 400, it is none that may be given.
    """
    value = headers.get(_IDEMPOTENCY_HEADER)
    if value is None:
        return None
    said = value.decode("latin-1")
    if not IDEMPOTENCY_KEY.fullmatch(said):
        raise Refusal(
            400,
            "InvalidHeader",
            f"Header {IDEMPOTENCY_HEADER} is {said[:80]!r}. Give {IDEMPOTENCY_FORM}, or leave it out.",
        )
    return said


def check_values(entities: int, features: int, limits: Limits) -> None:
    """Refuse a request for more values than the server gives at once.

    Raises:
        Refusal: 413.
    """
    if entities * features > limits.values:
        raise Refusal(
            413,
            "BatchTooLarge",
            f"{entities:,} entities of {features:,} features are {entities * features:,} values; this server gives "
            f"{limits.values:,} at once. Ask for {max(1, limits.values // features):,} entities at a time.",
        )
