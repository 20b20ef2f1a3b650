"""Pushes: what is declared, refused and appended, and what the point-in-time join then sees."""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import point_in_time_join
from featurestore.backfill.dry_run import dry_run
from featurestore.backfill.estimates.estimate import estimate_windows
from featurestore.backfill.footprint import cadence_of
from featurestore.backfill.quarantine import held_windows
from featurestore.backfill.selection import select_windows
from featurestore.backfill.strategies.arrivals import NO_TABLE, LoadArrivals
from featurestore.cli.description import describe
from featurestore.cli.listing import list_groups, listing_text
from featurestore.compute.inputs import WindowInputs, windows_read
from featurestore.declaration import Backfill, Catalog, Feature, Hourly, Online, Pushed, TimeWindow, feature_group
from featurestore.declaration.consistency import check_group
from featurestore.errors import DeclarationError, FeatureStoreError, IncompatibleChange, InvalidInput, SchemaMismatch
from featurestore.loading import materialize_load
from featurestore.location import Location
from featurestore.lossless import cast_lossless
from featurestore.offline.store import OfflineStore
from featurestore.offline.table import FeatureTable
from featurestore.push import push_rows
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.diff import changes, refuse_incompatible
from featurestore.registry.history import RegistryHistory
from featurestore.registry.snapshot import RegistrySnapshot
from featurestore.settings import Settings
from featurestore.store import FeatureStore
from tests.clicks import FEATURES, GROUP, HOUR, MICROSECOND, MINUTE, NOW, TTL, Clicks, batch, clicks, registered, row
from tests.scale import cases

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def world(tmp_path: Path) -> Clicks:
    return Clicks(tmp_path)


# What is declared.


def test_pushed_group_is_hot_and_lives_as_long_as_it_says() -> None:
    group = clicks(max_age=None)
    assert (group.kind, group.cadence, group.max_age) == ("pushed", Pushed(), TTL)
    assert group.online == Online(ttl=TTL, tiers=("hot",))
    assert clicks(online=Online(ttl=TTL, tiers=("hot", "warm"))).online == Online(ttl=TTL, tiers=("hot", "warm"))
    assert clicks(online=None, max_age=None).max_age is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": []},
        {"owner": "nobody"},
        {"description": ""},
        {"name": "Clicks"},
        {"online": Online(ttl=None), "max_age": None},
        {"online": Online(ttl=HOUR), "max_age": 2 * HOUR},
        {"version": 0},
    ],
)
def test_declaration_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        clicks(**wrong)


def clicked(window: TimeWindow, feed: pl.LazyFrame) -> pl.LazyFrame:
    """Clicks."""
    return feed


def test_pushed_cadence_of_a_transform_is_refused() -> None:
    with pytest.raises(DeclarationError, match="pushed_group"):
        feature_group(entity=clicks().entity, features=list(FEATURES), cadence=Pushed(), owner="team:app")(clicked)


def test_pushed_group_cannot_be_called() -> None:
    with pytest.raises(InvalidInput, match="no transform"):
        clicks()()


def test_registry_keeps_a_pushed_group_and_reads_it_back() -> None:
    snapshot = compile_snapshot(Catalog([], [clicks()]), None)
    group = RegistrySnapshot.from_json(snapshot.to_json()).groups[GROUP]
    assert (group.kind, group.cadence, group.start, group.tiers, group.has_windows) == (
        "pushed",
        "pushed",
        "",
        ("hot",),
        False,
    )
    assert [str(change) for change in changes(None, snapshot)] == [
        f"+ group {GROUP} (pushed, pushed, features ['clicks', 'score', 'page', 'taste'])"
    ]


def test_group_that_becomes_pushed_needs_a_new_version() -> None:
    @feature_group(
        entity=clicks().entity,
        features=list(FEATURES),
        cadence=Hourly(start=NOW.date()),
        lookback=HOUR,
        online=Online(ttl=TTL),
        max_age=3 * HOUR,
        owner="team:app",
    )
    def rider_click(window: Any, upstream: pl.LazyFrame) -> pl.LazyFrame:
        """What a rider clicked last."""
        values = [pl.lit(None, dtype=feature.dtype).alias(feature.name) for feature in FEATURES]
        return upstream.select("rider", *values)

    upstream = clicks(name="upstream")
    before = compile_snapshot(Catalog([], [upstream, rider_click]), None)
    after = compile_snapshot(Catalog([], [upstream, clicks()]), before)
    with pytest.raises(IncompatibleChange, match="kind of rider_click windowed -> pushed"):
        refuse_incompatible(changes(before, after))


# What is refused, as a whole.

ON_TIME = NOW - MINUTE
REFUSED: dict[str, tuple[list[dict[str, Any]], type[FeatureStoreError], str]] = {
    "a bound": ([row("a"), row("b", clicks=-1)], InvalidInput, r"range of 'clicks'.*'rider': 'b'"),
    "nulls": ([row("a", page=None), row("b", page=None)], InvalidInput, "null_fraction of 'page' is 1, limit 0.5"),
    "a short vector": ([row("a"), row("b", taste=[1.0])], InvalidInput, "length of 'taste'"),
    "a null in a vector": ([row("a"), row("b", taste=[1.0, None])], InvalidInput, "null_items of 'taste'"),
    "a null key": ([row("a"), row(None)], InvalidInput, "null key or event_time: .*'row': 1"),
    "a null time": ([row("a"), {**row("b"), "event_time": None}], InvalidInput, "'row': 1, 'rider': 'b'"),
    "one entity twice at one time": ([row("a"), row("b"), row("a")], InvalidInput, "'row': 0.*'row': 2"),
    "the future": ([row("a"), row("b", NOW + 5 * MINUTE + MICROSECOND)], InvalidInput, "true of the future.*'row': 1"),
    "a naive time": ([row("a", NOW.replace(tzinfo=None))], SchemaMismatch, "never guessed"),
    "a fraction of a click": ([row("a", clicks=1), row("b", clicks=1.5)], InvalidInput, "'row': 1, 'clicks': 1.5"),  # type: ignore[arg-type]
    "a time before the calendar": (
        [row("a"), {**row("b"), "event_time": datetime.fromisoformat("0001-01-01T00:00:00+14:00")}],
        InvalidInput,
        r"calendar of 'event_time' is 0000-12-31T10:00:00, limit years 1 to 9999.*'rider': 'b'",
    ),
    "a time after the calendar": (
        [row("a"), {**row("b"), "event_time": datetime.fromisoformat("9999-12-31T23:59:59-10:00")}],
        InvalidInput,
        r"true of the future.*'row': 1.*\+10000-01-01T09:59:59",
    ),
    "a time before the calendar twice": (
        [{**row("b"), "event_time": datetime.fromisoformat("0001-01-01T00:00:00+14:00")}] * 2,
        InvalidInput,
        r"one entity at one event time: .*0000-12-31T10:00:00\+00:00",
    ),
    "a number in words": ([row("a", clicks="1")], SchemaMismatch, "column 'clicks' is String"),  # type: ignore[arg-type]
    "more digits than fit": ([row("a", score=0.1)], InvalidInput, "do not fit Float32 without change"),
    "a column too many": (
        [{**row("a"), "knowledge_time": NOW}],
        SchemaMismatch,
        "'rider_click' have unknown ones .'knowledge_time'",
    ),
    "a column too few": (
        [{k: v for k, v in row("a").items() if k != "page"}],
        SchemaMismatch,
        "lack columns .'page'.. Give exactly",
    ),
    "text that no message holds": (
        [row("a"), row("b"), row("c", page="x" * 20_000)],
        InvalidInput,
        r"text_size of 'page' is 20000 bytes, limit 16383 bytes \(1 rows\), e.g. .*'rider': 'c'.*\(20000 characters\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_push_writes_nothing_and_names_the_rows(world: Clicks, case: str) -> None:
    rows, error, message = REFUSED[case]
    with pytest.raises(error, match=f"(?s){message}"):
        world.push(*rows)
    assert world.table.version() is None


def test_push_to_a_computed_group_is_refused_with_the_reason(world: Clicks) -> None:
    object.__setattr__(world.table.group, "kind", "windowed")
    with pytest.raises(InvalidInput, match="computed by its transform"):
        world.push(row("a"))


def test_push_online_of_a_group_that_is_not_is_refused(tmp_path: Path) -> None:
    world = Clicks(tmp_path, group=clicks(online=None))
    with pytest.raises(InvalidInput, match="not served online"):
        world.push(row("a"), to="online")
    result = world.push(row("a"))
    assert (result.table_version, result.parts, result.note) == (1, (), f"Group {GROUP!r} is not served online.")


def test_destination_that_is_none_is_refused(world: Clicks) -> None:
    with pytest.raises(InvalidInput, match="not to 'both'"):
        world.push(row("a"), to="both")  # type: ignore[arg-type]


def test_values_that_fit_are_cast(world: Clicks) -> None:
    frame = pl.DataFrame(
        {
            "rider": pl.Series(["a", "b"], dtype=pl.Categorical),
            "event_time": pl.Series([NOW, NOW]).dt.convert_time_zone("Europe/Oslo").dt.cast_time_unit("ns"),
            "clicks": [3.0, None],
            "score": [0.5, float("nan")],
            "page": pl.Series(["x", None]),
            "taste": pl.Series([[1.0, 2.0], None], dtype=pl.Array(pl.Float64, 2)),
        }
    )

    push_rows(world.table, list, world.clock, frame)
    stored = world.stored
    assert stored["clicks"].to_list() == [3, None]
    assert stored["taste"].to_list() == [[1.0, 2.0], None]
    assert stored["event_time"].to_list() == [NOW, NOW]
    assert stored["score"].is_nan().to_list() == [False, True]


numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.none())


@settings(max_examples=cases(2000, 60), deadline=None)
@given(st.lists(numbers, min_size=1, max_size=5), st.sampled_from([pl.Int32(), pl.Int64(), pl.Float32(), pl.Float64()]))
def test_cast_keeps_every_value_or_refuses(values: list[int | float | None], dtype: pl.DataType) -> None:

    given_type = pl.Float64() if any(isinstance(v, float) for v in values) else pl.Int128()
    given = pl.Series(
        "a", [None if v is None else (float(v) if given_type == pl.Float64() else v) for v in values], given_type
    )
    fits = all(v is None or _fits(v, dtype) for v in given.to_list())
    try:
        cast = cast_lossless(given.to_frame(), {"a": dtype}, "Rows")["a"]
    except InvalidInput:
        assert not fits
        return
    assert fits
    assert cast.dtype == dtype
    assert all(g == c or (g != g and c != c) for g, c in zip(given.to_list(), cast.to_list(), strict=True))


def _fits(value: float, dtype: pl.DataType) -> bool:
    """By Python's exact comparison of integers and floats."""
    is_number = value == value and abs(value) != float("inf")
    if dtype.is_integer():
        bits = 31 if dtype == pl.Int32() else 63
        return is_number and value == int(value) and -(2**bits) <= value < 2**bits
    if not is_number:
        return True

    with np.errstate(over="ignore"):
        kept = float(np.float32(value)) if dtype == pl.Float32() else float(value)
    return kept == value


# What is appended.


def test_rows_are_known_from_their_push_on(world: Clicks) -> None:
    result = world.push(row("a", ON_TIME), row("b", NOW + 2 * MINUTE), to="offline")
    stored = world.stored
    assert (result.rows, result.table_version, result.pushed_at, result.waiting) == (2, 1, NOW, 0)
    assert stored["knowledge_time"].to_list() == [NOW, NOW + 2 * MINUTE]
    assert stored["window_start"].to_list() == [NOW, NOW]
    assert stored["created_at"].to_list() == [NOW, NOW]
    assert stored["is_deleted"].to_list() == [False, False]


def test_pushes_at_one_instant_stay_apart_and_the_later_one_counts(world: Clicks) -> None:
    for number in range(3):
        world.push(row("a", ON_TIME, clicks=number), to="offline")
    stored = world.stored
    assert stored["window_start"].n_unique() == 3
    assert stored["created_at"].is_sorted()
    label = pl.DataFrame({"rider": ["a"], "label_time": [NOW]})
    assert point_in_time_join(label, stored, keys="rider")["clicks"].to_list() == [2]


def test_repeated_push_with_its_key_adds_nothing(world: Clicks) -> None:
    first = world.push(row("a"), row("b"), to="offline", key="k")
    world.push(row("c"), to="offline", key="other")
    world.set_clock.now += HOUR
    again = world.push(row("b"), row("a"), to="offline", key="k")
    assert (again.table_version, again.pushed_at, again.was_repeated) == (first.table_version, NOW, True)
    assert world.stored.height == 3


def test_key_of_another_push_is_refused(world: Clicks) -> None:
    world.push(row("a"), to="offline", key="k")
    with pytest.raises(InvalidInput, match="another key"):
        world.push(row("a", clicks=2), to="offline", key="k")
    assert world.stored.height == 1


def test_push_without_a_key_adds_its_rows_each_time(world: Clicks) -> None:
    world.push(row("a"), to="offline")
    world.push(row("a"), to="offline")
    assert world.stored.height == 2


def test_empty_push_does_nothing(world: Clicks) -> None:
    assert world.push().rows == 0
    assert world.table.version() is None


def test_changes_name_the_keys_that_were_pushed(world: Clicks) -> None:
    world.push(row("a"), to="offline")
    world.push(row("b"), to="offline")
    world.push(row("a", ON_TIME), row("c"), to="offline")
    found = world.table.changes(1, 3)
    assert found.keys["rider"].to_list() == ["a", "b", "c"]  # type: ignore[union-attr]
    assert found.removed.is_empty()  # type: ignore[union-attr]
    assert world.table.fence(3) == 0


def test_compaction_leaves_what_was_pushed(world: Clicks) -> None:
    for number in range(4):
        world.push(row("a", ON_TIME, clicks=number), to="offline", key=str(number))
    before = world.stored
    assert world.table.compact(NOW.year, NOW.month) == 5
    assert world.stored.equals(before)
    assert world.push(row("a", ON_TIME, clicks=3), to="offline", key="3").was_repeated


def test_table_of_pushes_takes_no_windows(world: Clicks) -> None:

    with pytest.raises(InvalidInput, match="pushed"):
        world.table.load_static(world.stored, instant=NOW, valid_from=NOW, transaction="t", metadata={})
    with pytest.raises(InvalidInput, match="pushed"):
        world.table.overwrite_windows(
            world.stored, [TimeWindow(NOW, NOW + HOUR)], seen_version=None, transaction="t", metadata={}
        )


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[timedelta, list[tuple[str, timedelta, int]]]]:
    """Pushes with the time since the one before; event times late, early and repeated."""
    made = []
    for number in range(draw(st.integers(1, 6))):
        riders = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
        shifts = [draw(st.sampled_from([0, 0, -1, -30, -200, 3])) * MINUTE for _ in riders]
        made.append(
            (
                draw(st.sampled_from([0, 0, 1, 90])) * MINUTE,
                [(r, s, number) for r, s in zip(riders, shifts, strict=True)],
            )
        )
    return made


@settings(max_examples=cases(150, 5), deadline=None)
@given(histories())
def test_point_in_time_join_gives_what_was_pushed_last_and_true_of_last(history: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world, told = Clicks(Path(folder)), list[tuple[datetime, datetime, int, str]]()
        for pause, rows in history:
            world.set_clock.now += pause
            now = world.set_clock.now
            world.push(*(row(r, now + shift, clicks=n) for r, shift, n in rows), to="offline")
            told += [(now + shift, max(now, now + shift), n, r) for r, shift, n in rows]
        instants = [known + wait for _, known, _, _ in told for wait in (-MICROSECOND, 0 * MINUTE, 2 * HOUR)]
        spine = pl.DataFrame([{"rider": r, "label_time": at} for at in instants for r in "abc"])
        joined = point_in_time_join(spine, world.stored, keys="rider", max_age=3 * HOUR)
        for asked in joined.iter_rows(named=True):
            known = [t for t in told if t[3] == asked["rider"] and t[1] <= asked["label_time"]]
            best = max(known, key=lambda t: t[:3], default=None)
            is_live = best is not None and asked["label_time"] - best[0] <= 3 * HOUR
            assert asked["clicks"] == (best[2] if best is not None and is_live else None)


# What else walks groups.


def test_pushed_group_is_an_input_by_event_time_as_far_as_it_is_known(tmp_path: Path) -> None:

    @feature_group(
        entity=clicks().entity,
        features=[Feature("clicks_1h", pl.Int64, "Clicks of an hour")],
        cadence=Hourly(start=NOW.date()),
        lookback=HOUR,
        delay=10 * MINUTE,
        owner="team:app",
    )
    def rider_clicks_hourly(window: TimeWindow, rider_click: pl.LazyFrame) -> pl.LazyFrame:
        """Clicks of an hour."""
        return rider_click.group_by("rider").agg(clicks_1h=pl.col("clicks").sum())

    catalog = Catalog([], [clicks(), rider_clicks_hourly])
    world = Clicks(tmp_path)
    window = TimeWindow(NOW, NOW + HOUR)
    for pushed_at, event_time, count in (
        (NOW, NOW - MINUTE, 1),
        (NOW, NOW, 2),
        (NOW + HOUR, NOW + 59 * MINUTE, 4),
        (NOW + HOUR, NOW + HOUR, 8),
        (NOW + HOUR + 10 * MINUTE, NOW + 5 * MINUTE, 16),
        (NOW + HOUR + 11 * MINUTE, NOW + 6 * MINUTE, 32),
        (NOW + HOUR + 5 * MINUTE, NOW, 64),
    ):
        world.set_clock.now = pushed_at
        world.push(row("a", event_time, clicks=count), to="offline")
    store = OfflineStore(Location(str(tmp_path)), compile_snapshot(catalog, None), world.clock)
    seen = WindowInputs(catalog, rider_clicks_hourly, [window], store).of(window)
    assert sorted(seen.frames["rider_click"].collect()["clicks"]) == [4, 16, 64]
    assert windows_read(rider_clicks_hourly, "rider_click", clicks(), window) == []


def test_incremental_backfill_sees_pushes_known_by_the_cut_off_alone(tmp_path: Path) -> None:

    @feature_group(
        entity=clicks().entity,
        features=[Feature("clicks_1h", pl.Int64, "Clicks of an hour")],
        cadence=Hourly(start=NOW.date()),
        lookback=HOUR,
        owner="team:app",
    )
    def rider_clicks_hourly(window: TimeWindow, rider_click: pl.LazyFrame) -> pl.LazyFrame:
        """Clicks of an hour."""
        return rider_click.group_by("rider").agg(clicks_1h=pl.col("clicks").sum())

    world = Clicks(tmp_path)
    world.push(row("a"), to="offline")
    arrivals = LoadArrivals(rider_clicks_hourly, clicks(), world.table, NO_TABLE)
    before, after = TimeWindow(NOW - 2 * HOUR, NOW - HOUR), TimeWindow(NOW, NOW + HOUR)
    assert [arrivals.reach(window, NO_TABLE) for window in (before, after)] == [False, True]
    assert not arrivals.reach(after, 1)


def test_backfill_of_a_pushed_group_is_refused_with_a_clear_word(tmp_path: Path) -> None:

    catalog = Catalog([], [clicks()])
    store = OfflineStore(Location(str(tmp_path)), compile_snapshot(catalog, None), lambda: NOW)
    with pytest.raises(InvalidInput, match="nothing to compute"):
        select_windows(store, registered(), now=NOW)
    with pytest.raises(InvalidInput, match="arrive by push"):
        estimate_windows(store, catalog, clicks(), [])
    with pytest.raises(InvalidInput, match="arrive by push"):
        dry_run(store, catalog, clicks())
    with pytest.raises(InvalidInput, match="arrive by push"):
        materialize_load(store, catalog, clicks(), run_id="r")
    with pytest.raises(InvalidInput, match="a push is not taken back"):
        cadence_of(registered())
    assert held_windows(store, "b") == []


def test_rules_for_backfills_are_refused() -> None:

    with pytest.raises(DeclarationError, match="is pushed and declares rules for backfills"):
        check_group(replace(clicks(), backfill=Backfill(approval_limit_usd=1.0)))


def test_describe_and_list_show_a_pushed_group(tmp_path: Path) -> None:

    root = Location(str(tmp_path))
    RegistryHistory(root).apply(Catalog([], [clicks()]), lambda: NOW, "tests")
    store = FeatureStore(Settings(root, root.child("landing")), clock=lambda: NOW)
    assert "none yet: no rows were promoted or pushed" in describe(store, GROUP)[1]
    store.push(GROUP, [row("a", ON_TIME)], to="offline")
    document, text = describe(store, GROUP)
    assert document["windows"] is None
    assert "pushed, each row known from its push on" in text
    assert "version 1, 1 row" in text
    assert "Horizon" not in text
    listed = list_groups(store)
    assert (listed[0]["cadence"], listed[0]["table_version"], listed[0]["newest_event_time"]) == ("pushed", 1, ON_TIME)
    assert "pushed" in listing_text({"groups": listed})


def test_training_set_reads_a_pushed_group(tmp_path: Path) -> None:

    root = Location(str(tmp_path))
    RegistryHistory(root).apply(Catalog([], [clicks()]), lambda: NOW, "tests")
    store = FeatureStore(Settings(root, root.child("landing")), clock=lambda: NOW)
    store.push(
        GROUP,
        {"rider": ["a"], "event_time": [ON_TIME], "clicks": [7], "score": [0.5], "page": ["p"], "taste": [[1, 2]]},
        "offline",
    )
    spine = pl.DataFrame({"rider": ["a", "a", "b"], "label_time": [NOW, NOW - MICROSECOND, NOW]})
    rows = store.get_historical_features(
        spine, [f"{GROUP}:clicks", f"{GROUP}:taste"], with_status=True, min_correctness="perfect"
    ).to_polars()
    assert rows["clicks"].to_list() == [7, None, None]
    assert rows["clicks__status"].to_list() == ["PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert rows["taste"].dtype == pl.Array(pl.Float32, 2)


# Several at once.


def pushers(folder: Path, count: int, pushes: int) -> list[subprocess.Popen[str]]:
    environment_free = [sys.executable, "-m", "tests.clicks", str(folder)]
    return [
        subprocess.Popen(
            [*environment_free, str(number), str(pushes)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for number in range(count)
    ]


def assert_whole_pushes(folder: Path) -> pl.DataFrame:
    """Every push is in the table as a whole, once."""
    table = FeatureTable(Location(str(folder)), registered())
    rows = table.scan().collect()
    by_push = rows.group_by("window_start").agg(
        pl.col("event_time").n_unique().alias("times"), pl.len(), pl.col("clicks").first(), pl.col("rider").first()
    )
    assert by_push["times"].to_list() == [1] * by_push.height
    assert by_push["len"].to_list() == [5] * by_push.height
    assert rows.select("rider", "event_time").is_unique().all()
    return by_push


def test_four_threads_at_once_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    pushes = cases(25, 3)

    def push_all(pusher: int) -> None:
        world = Clicks(tmp_path, tiers=[])
        for number in range(pushes):
            world.push(*batch(pusher, number), to="offline")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(push_all, range(4)))
    assert assert_whole_pushes(tmp_path).height == 4 * pushes


@pytest.mark.exam
def test_four_pushers_at_once_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    pushes = cases(25, 3)
    running = pushers(tmp_path, 4, pushes)
    assert [process.wait(300 + pushes * 10) for process in running] == [0] * 4
    by_push = assert_whole_pushes(tmp_path)
    assert by_push.height == 4 * pushes
    rows = FeatureTable(Location(str(tmp_path)), registered()).scan().collect()
    expected = {(r["rider"], r["event_time"]) for p in range(4) for n in range(pushes) for r in batch(p, n)}
    assert set(rows.select("rider", "event_time").rows()) == expected


@pytest.mark.exam
def test_killed_pushers_leave_whole_pushes_and_go_on_with_their_keys(tmp_path: Path) -> None:
    pushes = 4
    for round_number in range(cases(12, 1)):
        running = pushers(tmp_path, 2, pushes)
        for process in running:
            assert process.stdout is not None
            for _ in range(1 + round_number % 3):
                process.stdout.readline()
            process.kill()
            process.wait()
            process.stdout.close()
        assert_whole_pushes(tmp_path)
    done = pushers(tmp_path, 2, pushes)
    assert [process.wait(300) for process in done] == [0, 0]
    assert assert_whole_pushes(tmp_path).height == 2 * pushes
