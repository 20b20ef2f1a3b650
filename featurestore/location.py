"""A place for files: a local folder or a prefix in an S3 bucket.

Small files that are written once (registry snapshots, history entries, markers) are read and claimed here. Tables are
not: Delta and Polars take `uri` and `options` as they are. Nothing connects before the first read or write.
"""

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from featurestore.errors import FeatureStoreError, InvalidInput, StoreUnavailable

CONNECT_TIMEOUT_SECONDS = 3
READ_TIMEOUT_SECONDS = 10
CONFLICT_TRIES = 5

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")
ENDPOINT = re.compile(r"^https?://[\w.:\[\]-]+(/[^@]*)?$")
BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")

REFUSED_TOKENS = frozenset(["ExpiredToken", "InvalidToken", "TokenRefreshRequired"])


@dataclass(frozen=True)
class Location:
    """A folder or `s3://bucket/prefix`, with the options that an object store needs.

    Two locations are equal if uri and options are. Options are never shown: they may hold credentials.

    Args:
        uri: A path, `file:///path` or `s3://bucket/prefix`; a closing slash is dropped.
        options: Object-store options in the form that deltalake and Polars take as `storage_options`
            (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, ...); what is left out, boto3 and they find themselves.

    Raises:
        InvalidInput: the uri is empty, of another scheme, without a bucket, or holds credentials.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", _normalised(self.uri))
        object.__setattr__(self, "options", dict(self.options))

    @property
    def is_local(self) -> bool:
        return not self.uri.startswith("s3://")

    @property
    def path(self) -> Path:
        """The folder, for a local location.

        Raises:
            InvalidInput: the location is in a bucket.
        """
        if not self.is_local:
            raise InvalidInput(f"{self.uri} is not a folder of this machine. Use a path here, or read it as an object.")
        return Path(self.uri)

    def child(self, *parts: str) -> "Location":
        """The location below this one, with the same options.

        >>> Location("s3://lake/features").child("registry", "history").uri
        's3://lake/features/registry/history'
        """
        return Location("/".join([self.uri.rstrip("/"), *(_checked(part) for part in parts)]), self.options)

    def read_bytes(self, name: str) -> bytes | None:
        """The content of a file below this location; None if there is none.

        Raises:
            InvalidInput: the name leads elsewhere, or the bucket or the credentials are refused.
            StoreUnavailable: the store cannot be reached or read.
        """
        return self._files.read(_checked(name))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one of that name: whole and durable, or not at all.

        Of several writers at once, in any processes, exactly one is told True. After an error the file may be there.

        Raises:
            InvalidInput: the name leads elsewhere, or the bucket or the credentials are refused.
            StoreUnavailable: the store cannot be reached or written.
        """
        return self._files.put(_checked(name), data)

    def write(self, name: str, data: bytes) -> None:
        """Write a file in the place of whatever has that name: readers see the old one or the new one, whole.

        Raises:
            InvalidInput: the name leads elsewhere, or the bucket or the credentials are refused.
            StoreUnavailable: the store cannot be reached or written.
        """
        self._files.write(_checked(name), data)

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if there is none.

        Raises:
            InvalidInput: the name leads elsewhere, or the bucket or the credentials are refused.
            StoreUnavailable: the store cannot be reached or written.
        """
        self._files.delete(_checked(name))

    def names(self, prefix: str = "") -> list[str]:
        """Every file below this location whose name starts with `prefix`, sorted; folders are part of the names.

        Raises:
            InvalidInput: the bucket or the credentials are refused.
            StoreUnavailable: the store cannot be reached or read.
        """
        return sorted(self._files.names(prefix))

    @property
    def _files(self) -> "_Folder | _Bucket":
        if self.is_local:
            return _Folder(self.path)
        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        return _Bucket(bucket, f"{prefix}/" if prefix else "", self.options)


def _normalised(uri: str) -> str:
    scheme = SCHEME.match(uri)
    if not uri.strip():
        raise InvalidInput("A location is empty. Give a folder or s3://bucket/prefix.")
    if scheme is None or uri.startswith("file:///"):
        return uri.removeprefix("file://").rstrip("/") or "/"
    if not uri.startswith("s3://"):
        shown = re.sub(r"//[^/]*@", "//", uri)
        raise InvalidInput(f"Location {shown!r} is of a kind not known here. Use a folder or s3://bucket/prefix.")
    bucket = uri.removeprefix("s3://").partition("/")[0]
    if "@" in bucket:
        raise InvalidInput("A location's uri holds credentials. Pass them as options: AWS_ACCESS_KEY_ID, ...")
    if not BUCKET.fullmatch(bucket):
        raise InvalidInput(f"Location {uri!r} names no valid bucket. Write s3://bucket/prefix.")
    return "s3://" + re.sub("/+", "/", uri.removeprefix("s3://")).rstrip("/")


def _checked(name: str) -> str:
    parts = name.split("/")
    if any(not part or part.startswith(".") or "\0" in part for part in parts):
        raise InvalidInput(
            f"Name {name!r} cannot stand below a location: its parts are not empty and do not start with a dot."
        )
    return name


@dataclass(frozen=True)
class _Folder:
    """Files of a local folder. A name that starts with a dot is a write that has not ended, or never did."""

    root: Path

    def read(self, name: str) -> bytes | None:
        with _folder_errors("read", self.root / name):
            try:
                return (self.root / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, name: str, data: bytes) -> bool:
        target = self.root / name
        with _folder_errors("write", target):
            _make_folder(target.parent)
            return _link_new(target, data)

    def write(self, name: str, data: bytes) -> None:
        target = self.root / name
        with _folder_errors("write", target):
            _make_folder(target.parent)
            _replace(target, data)

    def delete(self, name: str) -> None:
        with _folder_errors("delete", self.root / name):
            (self.root / name).unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        found: list[str] = []
        with _folder_errors("list", self.root):
            for folder, _, files in os.walk(self.root / prefix.rpartition("/")[0], onerror=_raise_unless_missing):
                below = Path(folder).relative_to(self.root)
                found += [(below / name).as_posix() for name in files if not name.startswith(".")]
        return [name for name in found if name.startswith(prefix)]


@contextmanager
def _folder_errors(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"Cannot {action} {path}: {error.strerror or error}. Check that the disk is mounted and has room, "
            "and that this user may write there."
        ) from error


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each one durable in its parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _link_new(target: Path, data: bytes) -> bool:
    """Give durable content a name, which only one writer can: `link` refuses a name that exists."""
    temporary = target.parent / f".{uuid4().hex}.tmp"
    try:
        _write_durably(temporary, data)
        os.link(temporary, target)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
    return True


def _replace(target: Path, data: bytes) -> None:
    """Give durable content a name that may be taken."""
    temporary = target.parent / f".{uuid4().hex}.tmp"
    try:
        _write_durably(temporary, data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Bucket:
    """Objects of an S3 bucket below a prefix, which is empty or ends in a slash."""

    bucket: str
    prefix: str
    options: Mapping[str, str] = field(repr=False)

    def read(self, name: str) -> bytes | None:
        with self._errors("read", name):
            try:
                reply = self._client(tries=2).get_object(Bucket=self.bucket, Key=self.prefix + name)
                return bytes(reply["Body"].read())
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

    def names(self, prefix: str) -> list[str]:
        found: list[str] = []
        with self._errors("list", prefix):
            pages = self._client(tries=2).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                found += [item["Key"].removeprefix(self.prefix) for item in page.get("Contents", [])]
        return [name for name in found if not name.endswith("/")]

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
