"""Landing zones on a folder and on a real S3 server: what a listing shows, and that each content is taken in once."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path

import boto3
import pytest
from dagster_aws.s3.sensor import get_objects

from featurestore.ingestion import TakenIn, take_in
from featurestore.location import Location
from featurestore.offline.store import OfflineStore
from featurestore.registry.compile import compile_snapshot
from featurestore.schedule.landings import Landings
from tests.catalogs import DAY, HOUR, T0, Clock, landing_file, sale, sales, shops
from tests.contract.seaweed import BUCKET, seaweed

NUMBERS = count()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as location:
        yield location


@dataclass
class Zone:
    """A store and its landing zone, and what a process keeps of the receipts."""

    place: Location
    landings: Landings

    @property
    def root(self) -> Location:
        return self.place.child("store")

    @property
    def landing(self) -> Location:
        return self.place.child("landing")

    def land(self, name: str, *ids: str) -> None:
        self.landing.child("sales").write(
            name, landing_file(sales, [sale(number, T0 + HOUR) for number in ids], name).data
        )

    def unread(self) -> list[str]:
        return list(self.landings.unread(self.root, self.landing, sales, date(2026, 3, 1)))

    def take_in(self, *days: str) -> TakenIn:
        store = OfflineStore(self.root, compile_snapshot(shops(), None), Clock(T0 + DAY))
        return take_in(store, shops(), self.landing, sales, days, "run")


@pytest.fixture(params=["folder", "s3"])
def zone(request: pytest.FixtureRequest, tmp_path: Path) -> Zone:
    place = Location(str(tmp_path)) if request.param == "folder" else request.getfixturevalue("bucket")
    return Zone(Location(place.uri, place.options).child(f"zone-{next(NUMBERS)}"), Landings(date(2026, 1, 1)))


def test_empty_zone_has_nothing_to_take_in(zone: Zone) -> None:
    assert zone.unread() == []


def test_new_late_and_corrected_files_are_taken_in_once_each(zone: Zone) -> None:
    zone.land("2026-03-01.parquet", "a")
    assert zone.unread() == ["2026-03-01.parquet"]
    assert zone.take_in("2026-03-01").ingestion.files == 1
    assert zone.unread() == []
    zone.land("2026-02-20T07.parquet", "b")
    zone.land("2026-03-01.parquet", "a", "c")
    assert zone.unread() == ["2026-02-20T07.parquet", "2026-03-01.parquet"]
    assert zone.take_in("2026-02-20", "2026-03-01").ingestion.files == 2
    assert zone.unread() == []
    zone.landings = Landings(date(2026, 1, 1))
    assert zone.unread() == [], "a process that starts anew takes nothing in again"


def test_file_that_was_taken_in_is_not_read_again(zone: Zone) -> None:
    zone.land("2026-03-01T01.parquet", "a")
    zone.take_in("2026-03-01")
    zone.land("2026-03-01T02.parquet", "b")
    done = zone.take_in("2026-03-01")
    assert (done.ingestion.files, done.ingestion.files_known_before, done.files_unchanged) == (1, 0, 1)


def test_file_that_was_landed_again_with_the_same_content_adds_no_row(zone: Zone) -> None:
    zone.land("2026-03-01.parquet", "a")
    zone.take_in("2026-03-01")
    zone.land("2026-03-01.parquet", "a")
    zone.take_in("2026-03-01")
    assert zone.unread() == []
    store = OfflineStore(zone.root, compile_snapshot(shops(), None), Clock(T0))
    assert store.source(sales).scan().collect()["sale_id"].to_list() == ["a"]


def test_refused_file_has_a_receipt_and_is_refused_again_by_hand(zone: Zone) -> None:
    zone.landing.child("sales").write("2026-03-01.parquet", b"PAR1 and no end")
    for _ in range(2):
        assert list(zone.take_in("2026-03-01").ingestion.refused_files) == ["2026-03-01.parquet"]
        assert zone.unread() == []


def test_raw_table_that_was_deleted_is_filled_again_whatever_the_receipts_say(tmp_path: Path) -> None:
    zone = Zone(Location(str(tmp_path)), Landings(date(2026, 1, 1)))
    zone.land("2026-03-01.parquet", "a")
    zone.take_in("2026-03-01")
    (tmp_path / "store" / "raw" / "source=sales").rename(tmp_path / "away")
    assert zone.take_in("2026-03-01").ingestion.files == 1


def test_mark_of_a_file_that_was_read_is_the_one_that_its_listing_shows(zone: Zone) -> None:
    zone.land("2026-03-01.parquet", "a")
    folder = zone.landing.child("sales")
    read = folder.read_marked("2026-03-01.parquet")
    assert read is not None
    assert folder.marks() == {"2026-03-01.parquet": read[1]}
    assert folder.read_marked("absent") is None


def test_bucket_is_listed_as_dagster_aws_lists_it(bucket: Location) -> None:
    zone = Zone(bucket.child("listed"), Landings(date(2026, 1, 1)))
    for day in range(1, 6):
        zone.land(f"2026-03-0{day}.parquet", f"s{day}")
    client = boto3.client(
        "s3",
        endpoint_url=bucket.options["AWS_ENDPOINT_URL"],
        region_name=bucket.options["AWS_REGION"],
        aws_access_key_id=bucket.options["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=bucket.options["AWS_SECRET_ACCESS_KEY"],
    )
    prefix = f"{zone.landing.uri.removeprefix(f's3://{BUCKET}/')}/sales/"
    theirs = {o["Key"].removeprefix(prefix): o["ETag"].strip('"') for o in get_objects(BUCKET, prefix, client=client)}
    assert zone.landing.child("sales").marks() == theirs
    assert len(theirs) == 5
