"""Objects of an S3 bucket below a prefix, for `Location`: reads, puts and listings, with errors that say what to do."""

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from featurestore.errors import FeatureStoreError, InvalidInput, StoreUnavailable

CONNECT_TIMEOUT_SECONDS = 3
READ_TIMEOUT_SECONDS = 10
CONFLICT_TRIES = 5

ENDPOINT = re.compile(r"^https?://[\w.:\[\]-]+(/[^@]*)?$")

REFUSED_TOKENS = frozenset(["ExpiredToken", "InvalidToken", "TokenRefreshRequired"])


@dataclass(frozen=True)
class Bucket:
    """Objects of an S3 bucket below a prefix, which is empty or ends in a slash."""

    bucket: str
    prefix: str
    options: Mapping[str, str] = field(repr=False)

    def read(self, name: str) -> tuple[bytes, str] | None:
        with self._errors("read", name):
            try:
                reply = self._client(tries=2).get_object(Bucket=self.bucket, Key=self.prefix + name)
                return bytes(reply["Body"].read()), _mark(reply)
            except _botocore().ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    return None
                raise

    def put(self, name: str, data: bytes) -> bool:
        """A put is sent once: a repeat after a lost answer would find its own object and call it another's."""
        for _ in range(CONFLICT_TRIES):
            with self._errors("write", name):
                try:
                    self._client(tries=1).put_object(
                        Bucket=self.bucket, Key=self.prefix + name, Body=data, IfNoneMatch="*"
                    )
                    return True
                except _botocore().ClientError as error:
                    if _code(error) in ("PreconditionFailed", "412"):
                        return False
                    if _code(error) not in ("ConditionalRequestConflict", "409"):
                        raise
        raise StoreUnavailable(
            f"Cannot write {self._uri(name)}: another writer was in the way {CONFLICT_TRIES} times. Try again."
        )

    def write(self, name: str, data: bytes) -> None:
        with self._errors("write", name):
            self._client(tries=2).put_object(Bucket=self.bucket, Key=self.prefix + name, Body=data)

    def delete(self, name: str) -> None:
        with self._errors("delete", name):
            self._client(tries=2).delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def marks(self, prefix: str) -> dict[str, str]:
        found: dict[str, str] = {}
        with self._errors("list", prefix):
            pages = self._client(tries=2).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                found |= {item["Key"].removeprefix(self.prefix): _mark(item) for item in page.get("Contents", [])}
        return {name: mark for name, mark in found.items() if not name.endswith("/")}

    def _client(self, *, tries: int) -> Any:
        return _client(tuple(sorted(self.options.items())), tries)

    def _uri(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{name}"

    @contextmanager
    def _errors(self, action: str, name: str) -> Iterator[None]:
        botocore = _botocore()
        endpoint = _settings(self.options).get("endpoint_url", "AWS's own endpoint")
        what = f"Cannot {action} {self._uri(name)} at {endpoint}"
        try:
            yield
        except botocore.ClientError as error:
            raise _refusal(what, self.bucket, error) from error
        except (botocore.NoCredentialsError, botocore.PartialCredentialsError, botocore.NoRegionError) as error:
            raise InvalidInput(
                f"{what}: no credentials or region. Pass AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION as options."
            ) from error
        except botocore.BotoCoreError as error:
            raise StoreUnavailable(
                f"{what}: {type(error).__name__}. Check that the endpoint (option AWS_ENDPOINT_URL) is right and that "
                "the server is up and reachable from here."
            ) from error


def _mark(described: Mapping[str, Any]) -> str:
    """The ETag, which a listing and the answer to a read both have; without its quotes."""
    return str(described.get("ETag", "")).strip('"')


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(what: str, bucket: str, error: Any) -> FeatureStoreError:
    code = _code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return InvalidInput(f"{what}: there is no bucket {bucket!r}. Create it, or correct the location.")
    if code in REFUSED_TOKENS or status in (401, 403):
        return InvalidInput(
            f"{what}: access is refused ({code}). Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and what they allow."
        )
    if status in (301, 307, 400):
        return InvalidInput(f"{what}: the request is refused ({code}). Check AWS_REGION and AWS_ENDPOINT_URL.")
    return StoreUnavailable(f"{what}: the server answered {code}. Try again; if it stays, look at the server's log.")


def _settings(options: Mapping[str, str]) -> dict[str, str]:
    """Options by short name, as the object stores of deltalake and Polars read them: any case, `aws_` or not."""
    short = {name.lower().removeprefix("aws_"): value for name, value in options.items()}
    aliases = {"endpoint": "endpoint_url", "default_region": "region", "token": "session_token"}
    return {aliases.get(name, name): value for name, value in short.items()}


def _boto3() -> Any:
    try:
        return importlib.import_module("boto3")
    except ImportError as error:
        raise StoreUnavailable("S3 needs boto3, which is not installed: pip install 'featurestore[s3]'.") from error


def _botocore() -> Any:
    _boto3()
    return importlib.import_module("botocore.exceptions")


@lru_cache(maxsize=16)
def _client(options: tuple[tuple[str, str], ...], tries: int) -> Any:
    settings = _settings(dict(options))
    endpoint = settings.get("endpoint_url")
    if endpoint is not None and not ENDPOINT.fullmatch(endpoint):
        raise InvalidInput(
            "Option AWS_ENDPOINT_URL is not of the form http://host:port or https://host, with no user in it."
        )
    by_host = settings.get("virtual_hosted_style_request", "false").lower() == "true"
    config = importlib.import_module("botocore.config").Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"total_max_attempts": tries, "mode": "standard"},
        s3={"addressing_style": "path" if endpoint and not by_host else "auto"},
    )
    return _boto3().client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.get("region"),
        aws_access_key_id=settings.get("access_key_id"),
        aws_secret_access_key=settings.get("secret_access_key"),
        aws_session_token=settings.get("session_token"),
        config=config,
    )
