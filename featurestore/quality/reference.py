"""What a window is held against by choice of its declaration: the training set of a service, last week, the same weekday.

Pure: it knows starts of windows and what was kept of them. Where they are read is `evaluation.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from featurestore.declaration.feature import DriftReference
from featurestore.gate.reference_profiles import ReferenceProfiles
from featurestore.quality.frame import WindowStatistics
from featurestore.quality.profile import profile_of_statistics
from featurestore.registry.snapshot import RegisteredFeature

WEEK = timedelta(days=7)
WEEKS = 4
REACH = WEEKS * WEEK
"""How far before a window the windows lie that it may be compared with, training sets apart."""
ALIKE = 4
MOST_WINDOWS = 28


@dataclass(frozen=True, slots=True)
class Reference:
    """Windows to be compared with, oldest first. Without any, `lacking` says why.

    What comparing takes of them is worked out once, for all windows that are held against the same reference.
    """

    name: str
    windows: tuple[WindowStatistics, ...]
    lacking: str = ""
    _profiles: dict[str, ReferenceProfiles | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def profiles(self, feature: RegisteredFeature) -> ReferenceProfiles | None:
        """A feature in those of the windows that have it, as the type that it is of; None if none has."""
        if feature.name not in self._profiles:
            found = [one for window in self.windows if (one := window.feature(feature.name)) is not None]
            parts = [profile_of_statistics(feature, one) for one in found if one.dtype_name == feature.dtype_name]
            self._profiles[feature.name] = ReferenceProfiles(parts) if parts else None
        return self._profiles[feature.name]


@dataclass(frozen=True, slots=True)
class TrainingWindows:
    """The windows of one group that labels of a deployed training set take values from.

    Args:
        name: For people.
        windows: At least those that `reference_starts` names.
        lacking: Why nothing can be compared with the set, else empty.
        starts: Of all of them, oldest first; by default `windows` are all.
    """

    name: str
    windows: Mapping[datetime, WindowStatistics]
    lacking: str = ""
    starts: Sequence[datetime] = ()
    _references: dict[int | None, Reference] = field(default_factory=dict, init=False, repr=False, compare=False)

    def reference(self, hour: int | None) -> Reference:
        """What windows of an hour of the day are compared with; the same object at each call."""
        if hour not in self._references:
            chosen = _chosen(self.all_starts, hour)
            self._references[hour] = Reference(self.name, tuple(self.windows[start] for start in chosen))
        return self._references[hour]

    @property
    def all_starts(self) -> Sequence[datetime]:
        return self.starts or sorted(self.windows)


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
    if not trained.windows or window <= trained.all_starts[-1]:
        return None
    return trained.reference(window.hour if is_hourly else None)


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
    chosen = _chosen(sorted(starts), window.hour if is_hourly else None)
    lacking = "" if chosen else "there is no reference window"
    return Reference(name, tuple(known[start] for start in chosen), lacking)


def reference_starts(starts: Sequence[datetime], *, is_hourly: bool) -> set[datetime]:
    """Those of a training set's windows, oldest first, that some later window is compared with: all others need not be read."""
    hours = range(24) if is_hourly else [None]
    return {start for hour in hours for start in _chosen(starts, hour)}


def _chosen(starts: Sequence[datetime], hour: int | None) -> list[datetime]:
    """Of windows, oldest first, those to compare with: of an hour those of that hour, where there are four."""
    of_hour = [start for start in starts if start.hour == hour]
    return _thinned(of_hour if len(of_hour) >= ALIKE else starts)


def _thinned(starts: Sequence[datetime]) -> list[datetime]:
    """At most 28 of them, evenly spread: what is usual between windows is judged by their pairs."""
    if len(starts) <= MOST_WINDOWS:
        return list(starts)
    return [starts[number * len(starts) // MOST_WINDOWS] for number in range(MOST_WINDOWS)]
