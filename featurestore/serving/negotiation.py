"""Which body a client wants, by its `Accept` header, and which one it sent, by `Content-Type` and `Content-Encoding`."""

from functools import lru_cache
from typing import Literal

from featurestore.serving.refusal import Refusal
from featurestore.serving.wire import ARROW, JSON, PROTOBUF

BodyFormat = Literal["json", "arrow", "protobuf"]
MEDIA_TYPES: dict[BodyFormat, str] = {"json": JSON, "arrow": ARROW, "protobuf": PROTOBUF}


@lru_cache(maxsize=256)
def format_of(accept: bytes | None) -> BodyFormat:
    """The format that an `Accept` header likes best; JSON where it leaves the choice, or says nothing.

    Raises:
        Refusal: 406, it takes none that there is.
    """
    if not accept:
        return "json"
    ranges = [_media_range(part) for part in accept.decode("latin-1").split(",")]
    weights = {body_format: _weight(ranges, media_type) for body_format, media_type in MEDIA_TYPES.items()}
    best = max(weights, key=lambda body_format: weights[body_format])
    if weights[best] <= 0:
        offered = ", ".join(MEDIA_TYPES.values())
        raise Refusal(406, "NotAcceptable", f"Accept is {accept.decode('latin-1')!r}. Bodies come as {offered}.")
    return best


def _media_range(part: str) -> tuple[str, float]:
    """A media range and its weight; one that cannot be read counts 1, as if it had none."""
    name, *parameters = (text.strip().lower() for text in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, float(value)
            except ValueError:
                return name, 1.0
    return name, 1.0


def _weight(ranges: list[tuple[str, float]], media_type: str) -> float:
    """The weight that the most specific range gives a media type; 0 if none has it."""
    family = media_type.partition("/")[0] + "/*"
    given = dict(ranges)
    return next((given[name] for name in (media_type, family, "*/*") if name in given), 0.0)


@lru_cache(maxsize=256)
def require_json(content_type: bytes | None, content_encoding: bytes | None) -> None:
    """Refuse a body that is said to be something else than JSON, or to be compressed.

    Raises:
        Refusal: 415.
    """
    said = (content_type or b"").decode("latin-1").partition(";")[0].strip().lower()
    if said not in ("", JSON) and not said.endswith("+json"):
        raise Refusal(415, "UnsupportedMediaType", f"The body is {said!r}. Send {JSON}, and say so in Content-Type.")
    encoding = (content_encoding or b"").decode("latin-1").strip().lower()
    if encoding not in ("", "identity"):
        message = f"The body is said to be compressed ({encoding[:80]!r}). Send it as it is, without Content-Encoding."
        raise Refusal(415, "UnsupportedMediaType", message)
