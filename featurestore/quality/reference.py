"""What a window is held against by choice of its declaration: the training set of a service, last week, the same weekday.

Pure: it knows starts of windows and what was kept of them. Where they are read is `evaluation.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from featurestore.declaration.feature import DriftReference
from featurestore.quality.frame import WindowStatistics

WEEK = timedelta(days=7)
WEEKS = 4
REACH = WEEKS * WEEK
"""How far before a window the windows lie that it may be compared with, training sets apart."""
ALIKE = 4
MOST_WINDOWS = 28


@dataclass(frozen=True, slots=True)
class TrainingWindows:
    """The windows of one group that labels of a deployed training set take values from.

    `name` is for people; `lacking` says why nothing can be compared with the set, else it is empty.
    """

    name: str
    windows: Mapping[datetime, WindowStatistics]
    lacking: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """Windows to be compared with, oldest first. Without any, `lacking` says why."""

    name: str
    windows: tuple[WindowStatistics, ...]
    lacking: str = ""


def last_week(window: datetime, known: Mapping[datetime, WindowStatistics], *, is_hourly: bool) -> Reference:
    """The windows of the seven days before; of hourly ones those of the same hour, where there are four."""
    starts = [start for start in known if window - WEEK <= start < window]
    return _reference("last week", window, starts, known, is_hourly=is_hourly)


def same_weekday(window: datetime, known: Mapping[datetime, WindowStatistics], *, is_hourly: bool) -> Reference:
    """The windows of the same weekday, and hour, in the four weeks before."""
    starts = [start for weeks in range(1, WEEKS + 1) if (start := window - weeks * WEEK) in known]
    return _reference("same weekday", window, starts, known, is_hourly=is_hourly)


def training(window: datetime, trained: TrainingWindows, *, is_hourly: bool) -> Reference | None:
    """The windows of a training set; None for a window that is not later than they are: drift is what came since."""
    if trained.lacking:
        return Reference(trained.name, (), trained.lacking)
    if not trained.windows or window <= max(trained.windows):
        return None
    return _reference(trained.name, window, trained.windows, trained.windows, is_hourly=is_hourly)


def references(
    kind: DriftReference,
    window: datetime,
    known: Mapping[datetime, WindowStatistics],
    trained: Sequence[TrainingWindows],
    *,
    is_hourly: bool,
) -> list[Reference]:
    """What a window is held against for one feature.

    Args:
        kind: As declared.
        window: Its start.
        known: Windows in production, by start; later ones are left alone.
        trained: Of each service that reads the feature and has a deployed training set; without any, 'training' is last week.
        is_hourly: Whether hours of the day are told apart.

    Returns:
        Of 'training' one a service, none for windows that the sets were made of; else exactly one.
    """
    if kind == "same_weekday":
        return [same_weekday(window, known, is_hourly=is_hourly)]
    if kind == "last_week" or not trained:
        return [last_week(window, known, is_hourly=is_hourly)]
    found = [training(window, one, is_hourly=is_hourly) for one in trained]
    return [reference for reference in found if reference is not None]


def _reference(
    name: str,
    window: datetime,
    starts: Iterable[datetime],
    known: Mapping[datetime, WindowStatistics],
    *,
    is_hourly: bool,
) -> Reference:
    ordered = sorted(starts)
    of_hour = [start for start in ordered if start.hour == window.hour] if is_hourly else []
    chosen = _thinned(of_hour if len(of_hour) >= ALIKE else ordered)
    lacking = "" if chosen else "there is no reference window"
    return Reference(name, tuple(known[start] for start in chosen), lacking)


def _thinned(starts: Sequence[datetime]) -> list[datetime]:
    """At most 28 of them, evenly spread: what is usual between windows is judged by their pairs."""
    if len(starts) <= MOST_WINDOWS:
        return list(starts)
    return [starts[number * len(starts) // MOST_WINDOWS] for number in range(MOST_WINDOWS)]
