"""The replay of real flights: what each source holds, when each row was known, and how files come to be."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from datetime import UTC, date, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from examples.flights import history
from examples.flights.replay import land, land_by_month, land_hours, main, write_whole
from examples.flights.zones import FALLBACK_ZONES, airport_zones
from feature_assets.groups.flights import catalog
from featurestore.errors import InvalidInput, UnknownName
from tests.scale import cases

REPOSITORY = Path(__file__).parents[2]
YEAR = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
FLIGHT_SOURCES = ("schedules", "departures", "arrivals", "cancellations")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


@cache
def raw_flights() -> pl.DataFrame:
    with zipfile.ZipFile(history.data_folder() / "flights.csv.zip") as archive:
        return pl.read_csv(BytesIO(archive.read("flights.csv")), null_values="NA", infer_schema_length=None)


@cache
def year_of(source: str) -> pl.DataFrame:
    return history.known_rows(source, *YEAR)


def landed_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def landed_rows(folder: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for path in sorted(folder.glob("*.parquet")))


# What the sources hold


def test_a_year_of_known_rows_holds_every_flight_of_2013_once() -> None:
    counts = {source: year_of(source).height for source in FLIGHT_SOURCES}
    assert counts == {"schedules": 336_776, "departures": 328_521, "arrivals": 328_521, "cancellations": 8_255}
    assert year_of("schedules")["flight_id"].n_unique() == 336_776


def test_every_scheduled_flight_either_departs_and_arrives_or_is_cancelled() -> None:
    ids = {
        source: set(history.rows_of_days(source, date(2025, 1, 1), date(2025, 12, 31))["flight_id"])
        for source in FLIGHT_SOURCES
    }
    assert not ids["departures"] & ids["cancellations"]
    assert ids["departures"] | ids["cancellations"] == ids["schedules"]
    assert ids["arrivals"] == ids["departures"]


def test_null_counts_are_those_of_the_data_set() -> None:
    schedules, arrivals = year_of("schedules"), year_of("arrivals")
    assert schedules["tailnum"].null_count() == 2_512
    assert year_of("cancellations")["tailnum"].null_count() == 2_512
    assert arrivals["arrived_at"].null_count() == 458
    assert arrivals["arr_delay"].null_count() == arrivals["is_diverted"].sum() == 458 + 717
    assert year_of("departures").null_count().sum_horizontal().item() == 0


def test_doubled_tail_and_minute_pairs_keep_their_own_flight_ids() -> None:
    doubled = year_of("schedules").drop_nulls("tailnum").group_by("tailnum", "scheduled_departure").agg(pl.len())
    assert doubled.filter(pl.col("len") > 1)["len"].to_list() == [2] * 31


def test_every_source_that_lands_is_declared_with_the_columns_that_land() -> None:
    declared = {source.name: dict(source.schema) for source in catalog.sources}
    assert set(declared) == set(history.SOURCES)
    for name, schema in declared.items():
        rows = history.TIMELESS[name]() if name in history.TIMELESS else year_of(name)
        assert {column: rows.schema.get(column) for column in schema} == schema


def test_planes_and_airports_keep_every_row() -> None:
    assert history.planes().height == history.planes()["tailnum"].n_unique() == 3_322
    assert history.airports().height == history.airports()["faa"].n_unique() == 1_458


@pytest.mark.parametrize("source", history.SHAPES)
def test_no_row_is_known_before_its_event_time(source: str) -> None:
    early = year_of(source).filter(history.known_time(source) < pl.col("event_time"))
    assert early.is_empty()


def test_times_are_utc_microseconds_and_measures_are_floats() -> None:
    for source in history.SHAPES:
        schema = year_of(source).schema
        times = [dtype for dtype in schema.values() if isinstance(dtype, pl.Datetime)]
        assert times
        assert set(times) == {pl.Datetime("us", "UTC")}
    assert {year_of("weather").schema[name] for name in history.READINGS} == {pl.Float64()}
    assert year_of("departures").schema["dep_delay"] == pl.Float64


def test_schedules_are_announced_at_noon_utc_of_the_day_before_the_local_departure() -> None:
    schedules = year_of("schedules").with_columns(
        ahead=pl.col("scheduled_departure") - pl.col("known_at"), clock=pl.col("known_at").dt.time()
    )
    assert schedules["clock"].n_unique() == 1
    assert schedules["known_at"][0].hour == 12
    assert schedules["ahead"].min() >= timedelta(hours=16)  # type: ignore[operator]
    assert schedules["ahead"].max() <= timedelta(hours=41)  # type: ignore[operator]


def test_departures_follow_their_schedule_by_the_delay_and_precede_their_arrival() -> None:
    days = (date(2025, 1, 1), date(2025, 12, 31))
    departures, arrivals = history.rows_of_days("departures", *days), history.rows_of_days("arrivals", *days)
    both = departures.join(arrivals, on="flight_id", validate="1:1")
    assert both.height == 328_521
    late_by = (pl.col("departed_at") - pl.col("scheduled_departure")).dt.total_minutes()
    assert both.filter(late_by != pl.col("dep_delay")).is_empty()
    assert both.filter(pl.col("known_at_right") <= pl.col("known_at")).is_empty()


def test_a_flight_that_never_arrives_is_known_four_hours_after_its_expected_arrival() -> None:
    lost = year_of("arrivals").filter(pl.col("arrived_at").is_null()).join(year_of("departures"), on="flight_id")
    planned = pl.col("scheduled_arrival") - pl.col("scheduled_departure")
    assert lost.height == 458
    assert lost.filter(pl.col("known_at") != pl.col("departed_at") + planned + timedelta(hours=4)).is_empty()


def test_no_flight_that_arrived_as_planned_would_have_been_given_up() -> None:
    lost_minutes = history.flights_2013().select((pl.col("arr_delay") - pl.col("dep_delay")).max()).item()
    assert lost_minutes == 196
    assert timedelta(minutes=lost_minutes) < history.DIVERSION_GRACE


def test_a_weather_row_is_true_of_the_last_minute_that_it_may_speak_of() -> None:
    # Rain at LaGuardia reported at 01:49 UTC on 8 June is in the row labelled 01:00.
    row = year_of("weather").row(
        by_predicate=(pl.col("origin") == "LGA") & (pl.col("observed_hour") == utc(2025, 6, 8, 1)), named=True
    )
    assert row["precip"] == 0.24
    assert row["event_time"] == utc(2025, 6, 8, 1, 51)
    assert "known_at" not in row


def test_weather_keeps_all_rows_and_both_hours_of_the_night_when_clocks_go_back() -> None:
    weather = year_of("weather")
    assert weather.height == 26_115
    assert not weather.select("origin", "event_time").is_duplicated().any()
    night = weather.filter(pl.col("observed_hour").is_between(utc(2025, 11, 3, 5), utc(2025, 11, 3, 6)))
    assert night.height == 6


# Zones


def test_the_fallback_zone_serves_exactly_the_four_missing_airports() -> None:
    destinations = raw_flights()["dest"].unique()
    absent = set(destinations) - set(history.airports().drop_nulls("tzone")["faa"])
    assert absent == set(FALLBACK_ZONES) == {"BQN", "PSE", "SJU", "STT"}
    assert raw_flights().filter(pl.col("dest").is_in(sorted(absent))).height == 7_602
    zones = airport_zones(history.airports(), destinations)
    assert {code for code, zone in zones.items() if zone == "America/Puerto_Rico"} == absent


def test_a_destination_without_a_zone_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"\['ZZZ'\].*FALLBACK_ZONES"):
        airport_zones(history.airports(), ["BOS", "ZZZ"])


def clock_at(day: date, number: int, zone: ZoneInfo) -> datetime:
    wall = datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(hours=number // 100, minutes=number % 100)
    return wall.astimezone(UTC)


def first_after(after: datetime, number: int, zone: ZoneInfo) -> datetime:
    day = after.astimezone(zone).date()
    return next(at for k in range(-1, 3) if (at := clock_at(day + k * DAY, number, zone)) > after)


@settings(max_examples=cases(5_000, 150), deadline=None)
@given(st.integers(0, 336_775))
def test_times_agree_with_the_standard_library_zone_rules(index: int) -> None:
    raw, flight = raw_flights().row(index, named=True), history.flights_2013().row(index, named=True)
    zones = dict(history.airports().select("faa", "tzone").iter_rows())
    zone = ZoneInfo(zones.get(raw["dest"]) or FALLBACK_ZONES[raw["dest"]])
    departure = clock_at(date(2013, raw["month"], raw["day"]), raw["sched_dep_time"], ZoneInfo("America/New_York"))
    assert flight["scheduled_departure"] == departure
    assert flight["scheduled_arrival"] == first_after(departure, raw["sched_arr_time"], zone)
    if raw["arr_time"] is not None:
        assert flight["arrived_at"] == first_after(flight["departed_at"], raw["arr_time"], zone)


def test_actual_times_show_the_recorded_clock_in_all_rows_but_one() -> None:
    flights = history.flights_2013().with_columns(raw_flights().select("dep_time", "arr_time"))
    new_york = pl.col("departed_at").dt.convert_time_zone("America/New_York").dt.strftime("%H%M").cast(pl.Int64)
    assert flights.filter(new_york != pl.col("dep_time") % 2400).is_empty()
    zones = airport_zones(history.airports(), flights["dest"].unique())
    wrong = pl.concat(
        part.with_columns(pl.col("arrived_at").dt.convert_time_zone(zones[dest]).dt.strftime("%H%M").alias("clock"))
        for (dest,), part in flights.group_by(pl.col("dest").cast(pl.String))
    ).filter(pl.col("clock").cast(pl.Int64) != pl.col("arr_time") % 2400)
    # Its recorded 02:03 does not exist on the night of 10 March; its delay gives 03:03.
    assert wrong.select("carrier", "flight", "dest", "arr_time", "clock").rows() == [("B6", 35, "PBI", 203, "0303")]


# The calendar


@pytest.mark.parametrize("source", history.SHAPES)
def test_29_february_lands_nothing_and_its_neighbours_land_whole(source: str) -> None:
    assert history.rows_of_days(source, date(2024, 2, 29), date(2024, 2, 29)).is_empty()
    around = history.rows_of_days(source, date(2024, 2, 28), date(2024, 3, 1))
    plain = history.rows_of_days(source, date(2013, 2, 28), date(2013, 3, 1))
    assert around.height == plain.height


def test_a_shifted_flight_keeps_its_utc_clock_and_its_distances() -> None:
    columns = ["scheduled_departure", "scheduled_arrival", "departed_at", "arrived_at"]
    plain = history.naive_flights(date(2013, 3, 8), utc(2013, 3, 13))
    moved = history.naive_flights(date(2026, 3, 8), utc(2026, 3, 13))
    days = date(2026, 3, 8) - date(2013, 3, 8)
    assert_frame_equal(plain.with_columns(pl.col(columns) + days).drop("flight_id"), moved.drop("flight_id"))


def test_a_range_over_new_year_has_every_flight_of_both_days_once() -> None:
    flights = history.naive_flights(date(2024, 12, 31), utc(2025, 1, 2))
    parts = [
        history.naive_flights(date(2024, 12, 31), utc(2025, 1, 1)),
        history.naive_flights(date(2025, 1, 1), utc(2025, 1, 2)),
    ]
    assert flights["flight_id"].is_unique().all()
    assert_frame_equal(pl.concat(parts), flights)
    evening = history.rows_of_days("departures", date(2024, 12, 31), date(2024, 12, 31))
    assert evening["known_at"].max() > utc(2025, 1, 1)  # type: ignore[operator]


def test_the_naive_table_is_the_whole_year_with_hindsight() -> None:
    flights = history.naive_flights(date(2025, 1, 1), utc(2026, 1, 1))
    assert flights.height == flights["flight_id"].n_unique() == 336_776
    assert flights["dep_delay"].null_count() == flights["is_cancelled"].sum() == 8_255
    assert flights["arr_delay"].null_count() == 8_255 + 458 + 717


@settings(max_examples=cases(300, 20), deadline=None)
@given(
    st.sampled_from(sorted(history.SHAPES)),
    st.datetimes(datetime(2019, 1, 1), datetime(2029, 1, 1)),  # noqa: DTZ001 - hypothesis wants naive bounds
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_known_rows_of_two_ranges_side_by_side_are_those_of_the_whole(
    source: str, start: datetime, first: int, second: int
) -> None:
    begin = start.replace(tzinfo=UTC)
    middle = begin + first * HOUR
    end = middle + second * HOUR
    parts = [history.known_rows(source, begin, middle), history.known_rows(source, middle, end)]
    assert_frame_equal(pl.concat(parts), history.known_rows(source, begin, end))


def test_a_naive_time_and_a_timeless_source_are_refused() -> None:
    with pytest.raises(InvalidInput, match="until=2025-01-02T00:00:00 has no time zone"):
        history.known_rows("arrivals", utc(2025, 1, 1), datetime(2025, 1, 2))  # noqa: DTZ001 - the point of the test
    with pytest.raises(UnknownName, match="planes"):
        history.known_rows("planes", *YEAR)


# Landing


@settings(max_examples=cases(200, 6), deadline=None)
@given(
    st.sampled_from(["departures", "arrivals", "weather", "cancellations"]),
    st.dates(date(2023, 1, 1), date(2027, 12, 31)),
    st.integers(0, 4_000),
    st.integers(-30, 100),
)
def test_files_hold_exactly_the_rows_known_in_their_hour_or_day(
    tmp_path_factory: pytest.TempPathFactory, source: str, start: date, minutes: int, hourly_after: int
) -> None:
    root = tmp_path_factory.mktemp("landing")
    begin = history.midnight(start)
    until = begin + timedelta(minutes=minutes)
    hourly_from = begin + hourly_after * HOUR
    report = land(root, start=start, until=until, hourly_from=hourly_from, sources=[source])
    expected = history.known_rows(source, begin, report.until)
    assert report.until <= until < report.until + HOUR
    assert report.rows.total() == expected.height
    parts = []
    for path in sorted((root / source).glob("*.parquet")):
        hourly = "T" in path.stem
        opening = datetime.strptime(path.stem, "%Y-%m-%dT%H" if hourly else "%Y-%m-%d").replace(tzinfo=UTC)
        assert hourly == (opening.date() >= min(hourly_from, report.until).date())
        part = pl.read_parquet(path)
        known = history.known_time(source)
        inside = known.is_between(opening, opening + (HOUR if hourly else DAY), closed="left")
        assert 0 < part.filter(inside).height == part.height
        parts.append(part)
    assert_frame_equal(pl.concat([expected.clear(), *parts]), expected)


def test_hourly_files_together_are_the_daily_file(tmp_path: Path) -> None:
    day = utc(2025, 7, 4)
    land(tmp_path / "daily", start=day.date(), until=day + DAY)
    land(tmp_path / "hourly", start=day.date(), until=day + DAY, hourly_from=day)
    for source in history.SHAPES:
        assert [path.name for path in (tmp_path / "daily" / source).iterdir()] == ["2025-07-04.parquet"]
        assert_frame_equal(landed_rows(tmp_path / "hourly" / source), landed_rows(tmp_path / "daily" / source))


def test_landing_again_changes_no_file(tmp_path: Path) -> None:
    span = {"start": date(2025, 7, 3), "until": utc(2025, 7, 5, 9, 30), "hourly_from": utc(2025, 7, 4)}
    first = land(tmp_path, **span)  # type: ignore[arg-type]
    before = landed_files(tmp_path)
    again = land(tmp_path, **span)  # type: ignore[arg-type]
    assert (again.written, again.found, again.rows.total()) == (0, first.written, 0)
    assert landed_files(tmp_path) == before


def test_two_landings_of_the_same_rows_have_equal_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        land(tmp_path / folder, start=date(2025, 11, 2), until=utc(2025, 11, 4), hourly_from=utc(2025, 11, 3))
    assert landed_files(tmp_path / "one") == landed_files(tmp_path / "two")


def test_a_later_landing_adds_hours_without_landing_a_row_twice(tmp_path: Path) -> None:
    land(tmp_path, start=date(2025, 7, 3), until=utc(2025, 7, 4, 9), hourly_from=utc(2025, 7, 4))
    land(tmp_path, start=date(2025, 7, 3), until=utc(2025, 7, 6, 5), hourly_from=utc(2025, 7, 6))
    for source in history.SHAPES:
        expected = history.known_rows(source, utc(2025, 7, 3), utc(2025, 7, 6, 5))
        assert_frame_equal(landed_rows(tmp_path / source), expected)
    names = {path.stem for path in (tmp_path / "departures").iterdir()}
    assert {"2025-07-03", "2025-07-04T23", "2025-07-05", "2025-07-06T01"} <= names
    assert "2025-07-04" not in names


def test_timeless_sources_land_once(tmp_path: Path) -> None:
    land(tmp_path, start=date(2025, 7, 3), until=utc(2025, 7, 3), sources=["planes", "airports"])
    report = land(tmp_path, start=date(2025, 7, 4), until=utc(2025, 7, 5), sources=["planes", "airports"])
    assert (report.written, report.found) == (0, 2)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.parquet"))] == [
        "airports/2025-07-03.parquet",
        "planes/2025-07-03.parquet",
    ]


def test_months_report_as_they_land_and_add_up(tmp_path: Path) -> None:
    span = {"start": date(2024, 12, 30), "until": utc(2025, 1, 2), "sources": ["departures", "planes"]}
    reports = list(land_by_month(tmp_path / "months", **span))  # type: ignore[arg-type]
    assert [(report.start, report.until) for report in reports] == [
        (utc(2024, 12, 30), utc(2025, 1, 1)),
        (utc(2025, 1, 1), utc(2025, 1, 2)),
    ]
    total = land(tmp_path / "whole", **span)  # type: ignore[arg-type]
    assert sum((report.rows for report in reports[1:]), reports[0].rows) == total.rows
    assert total.written == 4


class Timeline:
    """A clock that only sleeping moves, and what was landed at each moment it was asked to wait."""

    def __init__(self, now: datetime, root: Path) -> None:
        self.now = now
        self.root = root
        self.seen: dict[datetime, set[str]] = {}

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.seen[self.now] = {path.stem for path in self.root.rglob("*.parquet")}
        self.now += timedelta(seconds=seconds)


def test_an_hour_lands_when_it_is_over_and_never_before(tmp_path: Path) -> None:
    clock = Timeline(utc(2025, 7, 4, 14, 20), tmp_path)
    hours = land_hours(
        tmp_path,
        start=utc(2025, 7, 4, 12, 50),
        until=utc(2025, 7, 4, 16),
        clock=clock,
        sleep=clock.sleep,
        sources=["departures"],
    )
    reports = list(hours)
    assert [report.start.hour for report in reports] == [12, 13, 14, 15]
    assert clock.seen == {
        utc(2025, 7, 4, 14, 20): {"2025-07-04T12", "2025-07-04T13"},
        utc(2025, 7, 4, 15): {"2025-07-04T12", "2025-07-04T13", "2025-07-04T14"},
    }
    expected = history.known_rows("departures", utc(2025, 7, 4, 12), utc(2025, 7, 4, 16))
    assert_frame_equal(landed_rows(tmp_path / "departures"), expected)


def test_hours_of_a_day_that_landed_daily_are_found_not_landed_again(tmp_path: Path) -> None:
    day = utc(2025, 7, 4)
    land(tmp_path, start=day.date(), until=day + DAY, sources=["arrivals"])
    clock = Timeline(day + DAY, tmp_path)
    reports = list(land_hours(tmp_path, start=day, until=day + DAY, clock=clock, sources=["arrivals"]))
    assert sum(report.written for report in reports) == 0
    assert [path.stem for path in (tmp_path / "arrivals").iterdir()] == ["2025-07-04"]


def test_wrong_requests_are_refused_before_anything_lands(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"'arivals'.*Did you mean 'arrivals'"):
        land(tmp_path, start=date(2025, 7, 4), until=utc(2025, 7, 5), sources=["planes", "arivals"])
    with pytest.raises(InvalidInput, match="before start"):
        land(tmp_path, start=date(2025, 7, 4), until=utc(2025, 7, 3))
    with pytest.raises(InvalidInput, match="has no time zone"):
        land(tmp_path, start=date(2025, 7, 4), until=datetime(2025, 7, 5))  # noqa: DTZ001 - the point of the test
    assert list(tmp_path.iterdir()) == []


# Crashes


def test_a_crash_between_writing_and_naming_leaves_no_file_and_the_next_landing_completes_it(tmp_path: Path) -> None:
    crashing = (
        "import os, pathlib, datetime as d\n"
        "from examples.flights.replay import land\n"
        "os.replace = lambda *_: os._exit(9)\n"
        f"land(pathlib.Path({str(tmp_path)!r}), start=d.date(2025, 7, 4), "
        "until=d.datetime(2025, 7, 5, tzinfo=d.UTC), sources=['arrivals'])\n"
    )
    assert subprocess.run([sys.executable, "-c", crashing], cwd=REPOSITORY, check=False).returncode == 9
    folder = tmp_path / "arrivals"
    assert len(list(folder.iterdir())) == 1
    assert not list(folder.glob("*.parquet"))
    land(tmp_path, start=date(2025, 7, 4), until=utc(2025, 7, 5), sources=["arrivals"])
    assert_frame_equal(landed_rows(folder), history.known_rows("arrivals", utc(2025, 7, 4), utc(2025, 7, 5)))


def test_a_failed_rename_removes_the_hidden_file(tmp_path: Path) -> None:
    target = tmp_path / "2025-07-04.parquet"
    (target / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="irectory"):
        write_whole(target, history.planes())
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("files_before_kill", [1 + 15 * case for case in range(cases(20, 1))])
def test_a_killed_replay_leaves_only_whole_files(tmp_path: Path, files_before_kill: int) -> None:
    until = "2025-07-20T00:00:00Z"
    command = [sys.executable, "-m", "examples.flights.replay", "--landing", str(tmp_path / "killed"), "--until", until]
    options = ["--days", "4", "--hourly-days", "6"]
    replay = subprocess.Popen([*command, *options], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    while replay.poll() is None and len(list((tmp_path / "killed").rglob("*.parquet"))) < files_before_kill:
        time.sleep(0.002)
    if replay.poll() is None:
        os.kill(replay.pid, signal.SIGKILL)
    replay.wait()
    span = {"start": date(2025, 7, 16), "until": utc(2025, 7, 20), "hourly_from": utc(2025, 7, 15)}
    land(tmp_path / "whole", **span)  # type: ignore[arg-type]
    whole, killed = landed_files(tmp_path / "whole"), landed_files(tmp_path / "killed")
    assert killed.items() <= whole.items()
    land(tmp_path / "killed", **span)  # type: ignore[arg-type]
    assert landed_files(tmp_path / "killed") == whole


# The command


def test_the_command_lands_days_then_hours_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--landing", str(tmp_path), "--days", "2"], clock=lambda: utc(2025, 3, 1, 6, 10))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["2025-02-27T00", "2025-03-01T00"]
    assert "files written" in lines[0]
    assert {path.name for path in tmp_path.iterdir()} == set(history.SOURCES)
    departures = sorted(path.stem for path in (tmp_path / "departures").iterdir())
    assert departures[:3] == ["2025-02-27", "2025-02-28", "2025-03-01T00"]


def test_the_command_refuses_a_time_without_zone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--landing", str(tmp_path), "--until", "2025-03-01T06:00:00"])
    assert "has no time zone" in capsys.readouterr().err


def test_files_of_many_days_hold_every_known_row(tmp_path: Path) -> None:
    days = cases(365, 5)
    until = utc(2025, 3, 12)
    report = land(tmp_path, start=until.date() - days * DAY, until=until, hourly_from=until - DAY)
    expected = {source: history.known_rows(source, until - days * DAY, until).height for source in history.SHAPES}
    assert report.rows == {**expected, "planes": 3_322, "airports": 1_458}
    for source in history.SHAPES:
        assert landed_rows(tmp_path / source).height == expected[source]
