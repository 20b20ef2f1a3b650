"""Names and addresses of locations; what stores do with them is in the contract suite."""

import os
from pathlib import Path

import pytest

from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.location import Location

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/data/store/", "/data/store"),
        ("relative/store", "relative/store"),
        ("file:///data/store", "/data/store"),
        ("/", "/"),
        ("s3://lake", "s3://lake"),
        ("s3://lake/", "s3://lake"),
        ("s3://lake//features///v1/", "s3://lake/features/v1"),
    ],
)
def test_uris_of_one_place_become_equal(given: str, kept: str) -> None:
    assert Location(given).uri == kept
    assert Location(given) == Location(kept)
    assert hash(Location(given)) == hash(Location(kept))


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("", "Give a folder or s3://bucket/prefix"),
        ("  ", "Give a folder or s3://bucket/prefix"),
        ("gs://lake/features", "Use a folder or s3://bucket/prefix"),
        ("s3:/lake/features", "Use a folder or s3://bucket/prefix"),
        ("file://server/share", "Use a folder or s3://bucket/prefix"),
        ("s3://", "Write s3://bucket/prefix"),
        ("s3://Lake_1/features", "Write s3://bucket/prefix"),
        (f"s3://key:{SECRET}@lake/features", "AWS_ACCESS_KEY_ID"),
        (f"https://key:{SECRET}@host/lake", "Use a folder or s3://bucket/prefix"),
    ],
)
def test_uri_that_is_no_place_is_refused_with_the_form_to_write(uri: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Location(uri)
    assert hint in str(caught.value)
    assert SECRET not in str(caught.value)


def test_options_are_never_shown() -> None:
    location = Location("s3://lake", {"AWS_SECRET_ACCESS_KEY": SECRET})
    assert SECRET not in f"{location!r} {location} {location.child('a')!r}"


def test_options_are_kept_by_children_and_tell_locations_apart() -> None:
    location = Location("s3://lake", {"AWS_REGION": "eu-central-1"})
    assert location.child("a", "b/c") == Location("s3://lake/a/b/c", {"AWS_REGION": "eu-central-1"})
    assert location != Location("s3://lake")


def test_options_changed_by_the_caller_later_do_not_reach_the_location() -> None:
    options = {"AWS_REGION": "eu-central-1"}
    location = Location("s3://lake", options)
    options["AWS_REGION"] = "us-east-1"
    assert location.options["AWS_REGION"] == "eu-central-1"


def test_only_a_folder_has_a_path() -> None:
    assert Location("/data/store").is_local
    assert Location("/").child("store").path == Path("/store")
    assert not Location("s3://lake").is_local
    with pytest.raises(InvalidInput, match="s3://lake is not a folder"):
        _ = Location("s3://lake").path


@pytest.mark.parametrize("name", ["", "/etc/passwd", "a//b", "../b", "a/../b", ".hidden", "a/.tmp", "a/", "a\0b"])
def test_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    for action in (location.read_bytes, location.child, lambda name: location.put_if_absent(name, b"")):
        with pytest.raises(InvalidInput, match="cannot stand below a location"):
            action(name)


def test_write_that_was_cut_short_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / ".0123.tmp").write_bytes(b"half")
    location = Location(str(tmp_path))
    assert location.names() == []
    assert location.put_if_absent("whole", b"whole")
    assert location.names() == ["whole"]


def test_nothing_but_the_file_is_left_behind(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    assert [location.put_if_absent("a/b", b"1"), location.put_if_absent("a/b", b"2")] == [True, False]
    assert os.listdir(tmp_path / "a") == ["b"]


def test_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    location = Location(str(tmp_path / "file"))
    assert location.read_bytes("x") is None
    assert location.names() == []
    with pytest.raises(StoreUnavailable, match=r"Cannot write .*file/x: .*disk is mounted"):
        location.put_if_absent("x", b"")


def test_folder_that_cannot_be_read_as_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnavailable, match=r"Cannot read .*folder: Is a directory"):
        Location(str(tmp_path)).read_bytes("folder")


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", f"http://key:{SECRET}@127.0.0.1:9000", "ftp://host"])
def test_endpoint_that_is_no_address_is_refused_without_showing_it(endpoint: str) -> None:
    location = Location("s3://lake", {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"})
    with pytest.raises(InvalidInput, match="AWS_ENDPOINT_URL is not of the form") as caught:
        location.names()
    assert SECRET not in str(caught.value)


def test_missing_boto3_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(StoreUnavailable, match=r"pip install 'featurestore\[s3\]'"):
        Location("s3://lake").read_bytes("x")
