"""One suite over every kind of location: a local folder and a real S3 server."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from featurestore import bucket as buckets
from featurestore.errors import FeatureStoreError, InvalidInput, StoreUnavailable
from featurestore.location import Location
from tests.contract.seaweed import seaweed
from tests.scale import cases

NUMBERS = count()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as location:
        yield location


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    root = Location(str(tmp_path)) if request.param == "folder" else request.getfixturevalue("bucket")
    return Location(root.uri, root.options).child(f"store-{next(NUMBERS)}")


def test_what_was_put_is_read_back(location: Location) -> None:
    content = bytes(range(256)) * 1000
    assert location.put_if_absent("a/b=1/c d+é.bin", content)
    assert location.put_if_absent("empty", b"")
    assert location.read_bytes("a/b=1/c d+é.bin") == content
    assert location.read_bytes("empty") == b""


def test_absent_file_reads_as_none(location: Location) -> None:
    assert location.read_bytes("x") is None
    location.put_if_absent("x/y", b"1")
    assert location.read_bytes("x/z") is None


def test_second_put_is_told_so_and_changes_nothing(location: Location) -> None:
    assert location.put_if_absent("x", b"first")
    assert not location.put_if_absent("x", b"second")
    assert location.read_bytes("x") == b"first"


def test_write_takes_the_place_of_what_is_there(location: Location) -> None:
    for content in (b"first", b"second", b""):
        location.write("a/x", content)
        assert location.read_bytes("a/x") == content
    assert location.names() == ["a/x"]
    assert not location.put_if_absent("a/x", b"third")


def write_all(location: Location, contents: list[bytes]) -> None:
    for content in contents:
        location.write("x", content)


def test_readers_see_the_old_or_the_new_content_whole(location: Location) -> None:
    contents = [bytes([i]) * 300_000 for i in range(cases(40, 10))]
    location.write("x", contents[0])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_all, location, contents)
        while not writing.done():
            assert location.read_bytes("x") in contents
        writing.result()
    assert location.read_bytes("x") == contents[-1]


def test_deleted_file_is_gone_and_its_name_is_free(location: Location) -> None:
    location.delete("a/x")
    location.put_if_absent("a/x", b"first")
    location.delete("a/x")
    assert location.read_bytes("a/x") is None
    assert location.names() == []
    assert location.put_if_absent("a/x", b"second")


def test_names_are_sorted_relative_and_filtered_by_prefix(location: Location) -> None:
    assert location.names() == []
    for name in ("history/10", "history/9", "snapshots/a", "his", "history2/1"):
        location.put_if_absent(name, b"")
    assert location.names() == ["his", "history/10", "history/9", "history2/1", "snapshots/a"]
    assert location.names("history/") == ["history/10", "history/9"]
    assert location.names("history/1") == ["history/10"]
    assert location.names("hist") == ["history/10", "history/9", "history2/1"]
    assert location.names("absent/") == []


def test_names_of_a_child_are_its_own(location: Location) -> None:
    location.child("a").put_if_absent("x", b"")
    location.child("ab").put_if_absent("y", b"")
    assert location.child("a").names() == ["x"]
    assert location.names() == ["a/x", "ab/y"]


def test_of_racing_writers_exactly_one_wins(location: Location) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(cases(20, 5)):
            won = list(pool.map(lambda i, name=f"race/{number}": location.put_if_absent(name, b"%d" % i), range(8)))
            assert sum(won) == 1
            assert location.read_bytes(f"race/{number}") == b"%d" % won.index(True)


def every_error(location: Location) -> list[FeatureStoreError]:
    """What reading, writing and listing raise."""
    found: list[FeatureStoreError] = []
    reads = (lambda: location.read_bytes("x"), location.names)
    writes = (lambda: location.put_if_absent("x", b""), lambda: location.write("x", b""))
    for action in (*reads, *writes):
        with pytest.raises(FeatureStoreError) as caught:
            action()
        found.append(caught.value)
    return found


def changed(bucket: Location, uri: str = "", **options: str) -> Location:
    return Location(uri or bucket.uri, {**bucket.options, **options})


def test_missing_bucket_is_named(bucket: Location) -> None:
    for error in every_error(changed(bucket, uri="s3://nowhere/store")):
        assert isinstance(error, InvalidInput)
        assert "there is no bucket 'nowhere'. Create it" in str(error)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_named_and_never_shown(name: str, bucket: Location) -> None:
    for error in every_error(changed(bucket, **{name: "not-the-right-one"})):
        assert isinstance(error, InvalidInput)
        assert "access is refused" in str(error)
        assert "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(error)
        shown = f"{error} {error.__cause__}"
        assert not any(secret in shown for secret in ("not-the-right-one", bucket.options["AWS_SECRET_ACCESS_KEY"]))


def test_missing_credentials_are_named(bucket: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    options = {name: bucket.options[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION")}
    for error in every_error(Location(bucket.uri, options)):
        assert isinstance(error, InvalidInput)
        assert "no credentials or region. Pass AWS_ACCESS_KEY_ID" in str(error)


def test_options_may_be_written_as_polars_and_deltalake_allow(bucket: Location) -> None:
    short = {name.lower().removeprefix("aws_"): value for name, value in bucket.options.items()}
    assert Location(bucket.uri, short).child("spelled").names() == []


def test_server_that_is_not_there_is_named_within_seconds(bucket: Location) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        started = time.monotonic()
        for error in every_error(changed(bucket, AWS_ENDPOINT_URL=endpoint)):
            assert isinstance(error, StoreUnavailable)
            assert endpoint in str(error)
            assert "Check that the endpoint (option AWS_ENDPOINT_URL) is right" in str(error)
    assert time.monotonic() - started < 30


def test_server_that_never_answers_is_given_up_within_seconds(
    bucket: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two instead of ten here; of its own accord botocore would wait for sixty."""
    monkeypatch.setattr(buckets, "READ_TIMEOUT_SECONDS", 2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="ReadTimeoutError"):
            changed(bucket, AWS_ENDPOINT_URL=endpoint).put_if_absent("x", b"")
    assert time.monotonic() - started < 30
