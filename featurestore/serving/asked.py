"""What clients send: the bodies of requests as typed values. Fields that are not known are passed over, as Feast does."""

from typing import Any, Literal, TypeVar

import msgspec

from featurestore.freshness.read_state import Mode
from featurestore.serving.refusal import Refusal

T = TypeVar("T")
SHOWN_CHARACTERS = 200


class OnlineRequest(msgspec.Struct):
    """`POST /get-online-features`.

    Args:
        entities: Each key's values, one per entity; all of one length. Without any key there are no entities.
        features: References; what Feast sends empty along with a service.
        feature_service: Name of a service; if it is given, `features` is not looked at.
        full_feature_names: Name features 'group__feature'.
        include_feature_view_version_metadata: Add each group's name and version to `metadata`.
        include_serving_metadata: Add each value's age and tier, and how fresh the groups are. Ours, not Feast's.
        freshness: What becomes of groups that are late; where it is given, the answer has how fresh they are. Ours, not Feast's.
    """

    entities: dict[str, list[Any]]
    features: list[str] | None = None
    feature_service: str | None = None
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False
    include_serving_metadata: bool = False
    freshness: Mode | None = None


class PushRequest(msgspec.Struct):
    """`POST /push`.

    Args:
        push_source_name: What is pushed to.
        df: Each column's values, one per row.
        to: Which stores take the rows.
    """

    push_source_name: str
    df: dict[str, list[Any]]
    to: Literal["online", "offline", "online_and_offline"] = "online"


class WriteRequest(msgspec.Struct):
    """`POST /write-to-online-store`: what Feast's SDK writes to its remote online store.

    Args:
        feature_view_name: What is written to: a pushed group.
        df: Each column's values, one per row.
    """

    feature_view_name: str
    df: dict[str, list[Any]]


ONLINE_REQUEST = msgspec.json.Decoder(OnlineRequest)
PUSH_REQUEST = msgspec.json.Decoder(PushRequest)
WRITE_REQUEST = msgspec.json.Decoder(WriteRequest)


def parse(body: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """Read a body.

    Raises:
        Refusal: 400, it is no JSON; 422, it is JSON of another shape.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(
            422, "InvalidRequest", f"The body has another shape: {error}. GET /openapi.json has it."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = str(error)[:SHOWN_CHARACTERS]
        raise Refusal(400, "InvalidJson", f"The body cannot be read as JSON: {said}.") from error
