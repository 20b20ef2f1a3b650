"""A place for files: a local folder or a prefix in an S3 bucket.

Small files that are written once (registry snapshots, history entries, markers) are read and claimed here. Tables are
not: Delta and Polars take `uri` and `options` as they are. Nothing connects before the first read or write.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from featurestore.bucket import Bucket
from featurestore.errors import InvalidInput, StoreUnavailable

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")
BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")


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
        found = self._files.read(_checked(name))
        return None if found is None else found[0]

    def read_marked(self, name: str) -> tuple[bytes, str] | None:
        """The content of a file and the mark under which `marks` lists that content; None if there is none.

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
        return sorted(self._files.marks(prefix))

    def marks(self, prefix: str = "") -> dict[str, str]:
        """The files that `names` lists, sorted, each with a mark that another content gives another value.

        A mark tells a changed file without reading it. Of a folder it is made of modification time, size and inode, of a bucket
        it is the object's ETag.

        Raises:
            InvalidInput: the bucket or the credentials are refused.
            StoreUnavailable: the store cannot be reached or read.
        """
        return dict(sorted(self._files.marks(prefix).items()))

    @property
    def _files(self) -> "_Folder | Bucket":
        if self.is_local:
            return _Folder(self.path)
        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        return Bucket(bucket, f"{prefix}/" if prefix else "", self.options)


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

    def read(self, name: str) -> tuple[bytes, str] | None:
        with _folder_errors("read", self.root / name):
            try:
                with (self.root / name).open("rb") as file:
                    mark = _mark(os.fstat(file.fileno()))
                    return file.read(), mark
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

    def marks(self, prefix: str) -> dict[str, str]:
        found: dict[str, str] = {}
        with _folder_errors("list", self.root):
            for folder, _, files in os.walk(self.root / prefix.rpartition("/")[0], onerror=_raise_unless_missing):
                below = Path(folder).relative_to(self.root)
                shown = [name for name in files if not name.startswith(".")]
                found |= {(below / name).as_posix(): _mark_at(folder, name) for name in shown}
        return {name: mark for name, mark in found.items() if mark and name.startswith(prefix)}


def _mark(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"


def _mark_at(folder: str, name: str) -> str:
    """The mark of a file; empty for one that was taken away since it was listed."""
    try:
        return _mark(os.stat(os.path.join(folder, name)))
    except FileNotFoundError:
        return ""


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
