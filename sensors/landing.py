"""The sensor of landing files: what has landed and was not taken in, new, late or corrected, is taken in by `raw/<source>`.

What was taken in is in the receipts of each source, beside its rows; so each content of each file is taken in once, whatever
is restarted, and by whomever it was launched. The cursor only remembers which files were launched for without a receipt since.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import dagster as dg

from feature_assets.catalogue import raw_key
from feature_assets.partitions import MAX_DAYS_A_RUN
from featurestore.declaration import Catalog, Source
from featurestore.errors import FeatureStoreError
from featurestore.landing import day_of, landing_day
from featurestore.schedule.attempts import Tried
from featurestore.schedule.landings import Landings
from resources.run_tags import RAW
from resources.store import StoreResource
from sensors.launches import SWITCHED_OFF, Run, request, unfinished_runs

NAME = "landing_files"
MINIMUM_INTERVAL_SECONDS = 30
PRIORITY = 20
"""Above due windows, which wait for the files."""
DAY = timedelta(days=1)

Days = tuple[date, date]
Marks = Mapping[str, str]


def landing_files(catalog: Catalog, landings: Landings) -> list[dg.SensorDefinition]:
    """The sensor of one code location; none where there is no source.

    Args:
        catalog: The declarations of the location.
        landings: Shared with the sensor of due windows.
    """

    @dg.sensor(
        name=NAME,
        asset_selection=dg.AssetSelection.assets(*(raw_key(source) for source in catalog.sources)),
        minimum_interval_seconds=MINIMUM_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in landing files of folders and buckets: new, late and corrected ones, each content once.",
    )
    def landed(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
        if not store.settings().schedule:
            return dg.SkipReason(SWITCHED_OFF)
        unread = _unread(context, catalog, landings, store)
        memory, now = Launched.from_cursor(context.cursor, unread), store.clock()()
        runs = unfinished_runs(context.instance, RAW, NAME) if unread else []
        wanted = {source: _spans(source, unread[source.name], memory, runs, now) for source in _of(catalog, unread)}
        requests = list(_requests(wanted, now))
        for source, spans in wanted.items():
            memory.note(source, [name for name in unread[source.name] if _is_in(name, spans)], now)
        return dg.SensorResult(run_requests=requests, cursor=memory.to_cursor())

    return [landed] if catalog.sources else []


@dataclass
class Launched:
    """The files without a receipt for which runs were launched: their marks, how often, and when last."""

    unread: Mapping[str, Marks]
    files: dict[str, dict[str, Tried]] = field(default_factory=dict)

    @classmethod
    def from_cursor(cls, cursor: str | None, unread: Mapping[str, Marks]) -> "Launched":
        """What a cursor says of files that are still there under the same mark, and still without a receipt."""
        kept: dict[str, dict[str, Tried]] = {}
        for source, files in json.loads(cursor or "{}").items():
            for name, (mark, times, last) in files.items():
                if unread.get(source, {}).get(name) == mark:
                    kept.setdefault(source, {})[name] = Tried(times, datetime.fromisoformat(last))
        return cls(unread, kept)

    def to_cursor(self) -> str:
        return json.dumps(
            {
                source: {n: (self.unread[source][n], tried.times, tried.last.isoformat()) for n, tried in files.items()}
                for source, files in self.files.items()
            }
        )

    def waits(self, source: Source, name: str, now: datetime) -> bool:
        tried = self.files.get(source.name, {}).get(name)
        return tried is not None and now < tried.waits_until

    def note(self, source: Source, names: Sequence[str], now: datetime) -> None:
        files = self.files.setdefault(source.name, {}) if names else {}
        for name in names:
            files[name] = files[name].again(now) if name in files else Tried(1, now)


def _unread(
    context: dg.SensorEvaluationContext, catalog: Catalog, landings: Landings, store: StoreResource
) -> dict[str, dict[str, str]]:
    """The unread files of each source that has some; a source whose folder cannot be read stops no other."""
    settings, today, found = store.settings(), store.clock()().date(), {}
    for source in catalog.sources:
        try:
            found[source.name] = landings.unread(settings.root, settings.landing, source, today)
        except FeatureStoreError:
            context.log.exception(
                f"Landing files of source {source.name!r} cannot be looked at; the next tick tries again."
            )
    return {name: marks for name, marks in found.items() if marks}


def _of(catalog: Catalog, unread: Mapping[str, Marks]) -> list[Source]:
    return [source for source in catalog.sources if source.name in unread]


def _spans(source: Source, marks: Marks, memory: Launched, runs: Sequence[Run], now: datetime) -> list[Days | None]:
    """The days to launch of a source, as spans without a gap; [None] for a timeless one that has something new."""
    busy = [run for run in runs if source.name in run.names]
    ready = [name for name in marks if not memory.waits(source, name, now)]
    if source.is_timeless:
        return [None] if ready and not busy else []
    days = {day for name in ready if (day := landing_day(name)) is not None}
    return list(_consecutive(sorted(day for day in days if not any(_covers(run, day) for run in busy))))


def _covers(run: Run, day: date) -> bool:
    return run.keys is None or run.keys[0] <= day.isoformat() <= run.keys[1]


def _consecutive(days: Sequence[date]) -> Iterator[Days]:
    """Days as spans in which none is missing, of at most `MAX_DAYS_A_RUN`."""
    first = last = None
    for day in days:
        if first is not None and last is not None and (day != last + DAY or day - first >= MAX_DAYS_A_RUN * DAY):
            yield first, last
            first = None
        first, last = first or day, day
    if first is not None and last is not None:
        yield first, last


def _is_in(name: str, spans: Sequence[Days | None]) -> bool:
    return any(span is None or span[0].isoformat() <= day_of(name) <= span[1].isoformat() for span in spans)


def _requests(wanted: Mapping[Source, Sequence[Days | None]], now: datetime) -> Iterator[dg.RunRequest]:
    """One run for the sources that have something new on the same days."""
    together: dict[Days | None, list[Source]] = {}
    for source, spans in wanted.items():
        for span in spans:
            together.setdefault(span, []).append(source)
    for span, sources in together.items():
        keys = None if span is None else (span[0].isoformat(), span[1].isoformat())
        yield request([raw_key(source) for source in sources], keys, NAME, now, PRIORITY)
