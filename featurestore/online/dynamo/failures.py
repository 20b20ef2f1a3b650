"""What DynamoDB's failures mean: which pass by themselves, which leave open what happened, and what people are told.

Not here: repeating a request (`requests`). Messages name table and error code; what AWS says beside that may quote a request.
"""

from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
)

from featurestore.errors import FeatureStoreError, InvalidInput, StoreUnavailable

FAILURES = (BotoCoreError, ClientError)
CONDITION_FAILED = "ConditionalCheckFailedException"

_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "RequestLimitExceededException",
        "TooManyRequestsException",
    }
)
_PASSING = frozenset(
    {
        "InternalServerError",
        "InternalServerErrorException",
        "ServiceUnavailable",
        "RequestTimeout",
        "ReplicatedWriteConflictException",
    }
)
_NOT_LET_IN = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError)
_NEVER_SENT = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)


def code_of(error: Exception) -> str:
    """DynamoDB's code of an error that it answered with; '' if it did not answer."""
    return str(response_of(error).get("Error", {}).get("Code", ""))


def response_of(error: Exception) -> dict[str, Any]:
    """What DynamoDB answered with; {} if it did not answer."""
    return dict(error.response) if isinstance(error, ClientError) else {}


def is_throttled(error: Exception) -> bool:
    """Whether the table, the account or the partition takes no more requests just now."""
    return code_of(error) in _THROTTLED


def is_without_effect(error: Exception) -> bool:
    """Whether the request will surely never do anything, and may be sent again: refused as too many, or never sent."""
    return is_throttled(error) or isinstance(error, _NEVER_SENT)


def is_passing(error: Exception) -> bool:
    """Whether another try may succeed; what the failed one did is open, so only what may happen twice is tried again."""
    if is_without_effect(error) or code_of(error) in _PASSING:
        return True
    if isinstance(error, ClientError):
        return int(response_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500
    return isinstance(error, HTTPClientError)


def translated(error: Exception, table: str) -> FeatureStoreError:
    """The error that callers see."""
    code = code_of(error)
    if isinstance(error, (NoRegionError, ProfileNotFound)):
        return InvalidInput(f"DynamoDB cannot be reached: {error} Write dynamodb://{table}?region=...&profile=...")
    if isinstance(error, _NO_CREDENTIALS):
        return StoreUnavailable(
            f"No AWS credentials were found for table {table!r}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run under "
            "a role, or name a profile in the address."
        )
    if code in _NOT_LET_IN:
        return StoreUnavailable(
            f"DynamoDB refuses the credentials for table {table!r} ({code}): check them and their policy."
        )
    if code == "ResourceNotFoundException":
        return StoreUnavailable(
            f"There is no DynamoDB table {table!r} in this region and account. Make it: featurestore online provision."
        )
    if is_throttled(error):
        return StoreUnavailable(
            f"DynamoDB throttles table {table!r} ({code}), and did so until the time was up. Try later, or look at the table's limits."
        )
    if code == "ValidationException":
        return InvalidInput(
            f"DynamoDB refuses a request to table {table!r}: {error}. If its keys are others, run featurestore online provision, "
            "which says so."
        )
    said = code or type(error).__name__
    return StoreUnavailable(
        f"DynamoDB table {table!r} does not answer ({said}). Check that the region's endpoint can be reached from here, and the "
        "address in the settings."
    )
