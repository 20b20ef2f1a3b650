"""How far a backfill is, and how long it will still take."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.backfill.progress import EndedWindow, Progress, progress_of
from tests.scale import cases

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def ended(at_seconds: float, rows: int = 10, *, is_promoted: bool = True) -> EndedWindow:
    return EndedWindow(BEGAN + at_seconds * SECOND, is_promoted, rows)


def progress(windows: int, *ends: EndedWindow, at_seconds: float = 0, **other: object) -> Progress:
    given_: dict[str, object] = {"began_at": BEGAN, "now": BEGAN + at_seconds * SECOND, **other}
    return progress_of(windows, ends, **given_)  # type: ignore[arg-type]


def test_pace_of_the_windows_that_ended_tells_what_is_left() -> None:
    found = progress(10, ended(10), ended(20), at_seconds=20)
    assert (found.seconds, found.seconds_left, found.rests_on) == (20, 80, "pace")


def test_time_since_the_last_window_counts_for_those_to_come() -> None:
    # A run of five windows ended at 50 s: the next five end at 100 s, whenever one looks.
    run = [ended(50)] * 5
    assert [progress(10, *run, at_seconds=now).seconds_left for now in (50, 70, 100, 130)] == [50, 30, 0, 0]


def test_windows_left_as_they_were_are_done_and_say_nothing_of_the_pace() -> None:
    found = progress(10, ended(10), ended(20), at_seconds=20, current=6)
    assert (found.seconds_left, found.waiting, found.fraction) == (20, 2, 0.8)
    assert progress(10, at_seconds=20, current=10, estimated_seconds=50).rests_on == "nothing is left"


def test_before_the_first_window_ends_the_estimate_tells_what_is_left() -> None:
    assert progress(4, at_seconds=30, estimated_seconds=100).seconds_left == 70
    waiting = progress(4, at_seconds=30, began_at=None, estimated_seconds=100)
    assert (waiting.seconds, waiting.seconds_left, waiting.rests_on) == (None, 100, "estimate")


def test_without_pace_or_estimate_nothing_is_told() -> None:
    found = progress(4, at_seconds=30)
    assert (found.seconds_left, found.rests_on) == (None, "nothing is known")


def test_start_that_nobody_knows_leaves_the_estimate_for_the_windows_to_come() -> None:
    assert progress(4, ended(10), at_seconds=30, began_at=None, estimated_seconds=100).seconds_left == 75


def test_windows_from_before_a_resumption_are_done_and_say_nothing_of_the_pace() -> None:
    before, since = [ended(-9_000), ended(-8_000)], ended(10)
    assert progress(5, *before, since, at_seconds=10).seconds_left == 20
    assert progress(5, *before, at_seconds=10, estimated_seconds=100).seconds_left == 50


def test_held_windows_count_as_ended_and_their_rows_do_not() -> None:
    found = progress(4, ended(10), ended(10, rows=5, is_promoted=False), at_seconds=10)
    assert (found.promoted, found.held, found.waiting, found.rows, found.fraction) == (1, 1, 2, 10, 0.5)
    assert found.seconds_left == 10


def test_backfill_that_is_over_has_nothing_left_although_windows_were_left_out() -> None:
    found = progress(4, ended(10), at_seconds=900, over_at=BEGAN + 12 * SECOND, estimated_seconds=100)
    assert (found.waiting, found.seconds, found.seconds_left, found.rests_on) == (3, 12, 0, "nothing is left")


def test_backfill_of_which_every_window_ended_has_nothing_left() -> None:
    assert progress(1, ended(10), at_seconds=10, estimated_seconds=100).seconds_left == 0


def test_more_windows_than_were_known_to_be_asked_for_count() -> None:
    found = progress(0, ended(10), ended(20), at_seconds=20)
    assert (found.windows, found.fraction, found.waiting) == (2, 1, 0)


def test_no_windows_at_all_are_all_done() -> None:
    assert progress(0).fraction == 1


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=cases(5000, 200), deadline=None)
def test_windows_that_take_equally_long_end_when_it_was_told_at_any_moment(
    windows: int, done: int, seconds_a_window: int, since_last: int, estimate: int
) -> None:
    done = min(done, windows)
    since_last = min(since_last, seconds_a_window) if done < windows else since_last
    ends = [ended(seconds_a_window * number) for number in range(1, done + 1)]
    at_seconds = seconds_a_window * done + since_last
    found = progress(windows, *ends, at_seconds=at_seconds, estimated_seconds=estimate)
    whole = seconds_a_window * windows if done else estimate
    assert found.seconds == at_seconds
    assert found.seconds_left == (max(0, whole - at_seconds) if done < windows else 0)
    assert found.promoted + found.held + found.waiting == windows
    assert 0 <= found.fraction <= 1
