"""Finding the landing files of a source: `{landing}/{source}/{YYYY-MM-DD}[T{HH}...].parquet`.

A file belongs to the day its name starts with. Names that start with a dot or an underscore are not finished yet.
"""

from collections.abc import Iterable, Sequence
from datetime import date

from featurestore.declaration.windows import Daily
from featurestore.errors import InvalidInput
from featurestore.location import Location
from featurestore.offline.raw import LandingFile

SUFFIX = ".parquet"


def landed_marks(landing: Location, source_name: str) -> dict[str, str]:
    """The finished landing files of a source in name order, each with the mark of its content; none is read."""
    marks = landing.child(source_name).marks()
    return {name: mark for name, mark in marks.items() if name.endswith(SUFFIX) and not name.startswith("_")}


def day_of(name: str) -> str:
    """The day that a landing file belongs to, as its name says."""
    return name[:10]


def landing_day(name: str) -> date | None:
    """The day that a landing file belongs to; None if its name starts with none, written as YYYY-MM-DD."""
    try:
        day = date.fromisoformat(day_of(name))
    except ValueError:
        return None
    return day if day.isoformat() == day_of(name) else None


def landing_files(landing: Location, source_name: str, days: Sequence[str] | None) -> list[LandingFile]:
    """Read the landing files of some days, in name order; of every day, when `days` is None.

    Raises:
        InvalidInput: the source has no landing folder, or an empty one.
    """
    wanted = set(days or ())
    names = require_landed(landing, source_name)
    return read_landed(landing, source_name, [name for name in names if days is None or day_of(name) in wanted])


def require_landed(landing: Location, source_name: str) -> dict[str, str]:
    """What `landed_marks` finds.

    Raises:
        InvalidInput: it finds none.
    """
    if marks := landed_marks(landing, source_name):
        return marks
    raise InvalidInput(
        f"No landing file of source {source_name!r} under {landing.child(source_name).uri}. Land one as <YYYY-MM-DD>.parquet or set "
        "FEATURESTORE_LANDING."
    )


def read_landed(landing: Location, source_name: str, names: Iterable[str]) -> list[LandingFile]:
    """The files of some names, as they are now; one that was taken away meanwhile is left out."""
    folder = landing.child(source_name)
    found = [(name, folder.read_marked(name)) for name in names]
    return [LandingFile(name, *read) for name, read in found if read is not None]


def misnamed_files(landing: Location, source_name: str, days: Daily) -> list[str]:
    """The finished files that belong to no day from `days.start` on: no run over days ever reads them."""
    return [name for name in landed_marks(landing, source_name) if not _has_day(name, days)]


def _has_day(name: str, days: Daily) -> bool:
    try:
        days.window_of(name[:10])
    except InvalidInput:
        return False
    return True
