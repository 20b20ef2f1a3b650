"""The live feed of `make up`: it lands what has become known since the demo's last file, and ends with its block."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from deploy.platform import last_landed_day, running_feed
from featurestore.location import Location
from tests.platform.airline import processes_marked
from tests.waiting import wait_for


def test_feed_is_not_started_where_the_demo_has_landed_nothing(tmp_path: Path) -> None:
    for landing in (Location(str(tmp_path)), Location("s3://lake/landing")):
        with running_feed({}, tmp_path / "logs", landing) as said:
            assert said.startswith("not started")
    assert not list(tmp_path.iterdir())


def test_feed_lands_the_hours_since_the_last_file_and_ends_with_its_block(tmp_path: Path) -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    folder = tmp_path / "landing" / "departures"
    folder.mkdir(parents=True)
    (folder / f"{yesterday}.parquet").write_bytes(b"landed before")
    mark = f"mark-{uuid4().hex}"
    landing = Location(str(folder.parent))
    with running_feed({"FEATURESTORE_TEST_MARK": mark, "PATH": os.environ["PATH"]}, tmp_path / "logs", landing) as said:
        assert said.startswith("lands each hour")
        deadline = time.monotonic() + 600
        while not list((folder.parent / "schedules").glob(f"{yesterday}*.parquet")):
            assert time.monotonic() < deadline, (tmp_path / "logs" / "feed.log").read_text()
            time.sleep(0.5)
        assert processes_marked(mark)
    wait_for("the end of every process", lambda: processes_marked(mark) == {}, 60)
    assert (folder / f"{yesterday}.parquet").read_bytes() == b"landed before"
    assert last_landed_day(landing) in (yesterday, yesterday + timedelta(days=1), yesterday + timedelta(days=2))
