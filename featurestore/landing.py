"""Finding the landing files of a source: `{landing}/{source}/{YYYY-MM-DD}[T{HH}...].parquet`.

A file belongs to the day its name starts with. Names that start with a dot or an underscore are not finished yet.
"""

from collections.abc import Sequence

from featurestore.declaration.windows import Daily
from featurestore.errors import InvalidInput
from featurestore.location import Location
from featurestore.offline.raw import LandingFile


def landing_files(landing: Location, source_name: str, days: Sequence[str] | None) -> list[LandingFile]:
    """Read the landing files of some days, in name order; of every day, when `days` is None.

    Raises:
        InvalidInput: the source has no landing folder, or an empty one.
    """
    folder = landing.child(source_name)
    names = _finished(folder)
    if not names:
        raise InvalidInput(
            f"No landing file of source {source_name!r} under {folder.uri}. Land one as <YYYY-MM-DD>.parquet or set FEATURESTORE_LANDING."
        )
    wanted = set(days or ())
    chosen = [name for name in names if days is None or name[:10] in wanted]
    return [LandingFile(name, folder.read_bytes(name) or b"") for name in chosen]


def misnamed_files(landing: Location, source_name: str, days: Daily) -> list[str]:
    """The finished files that belong to no day from `days.start` on: no run over days ever reads them."""
    return [name for name in _finished(landing.child(source_name)) if not _has_day(name, days)]


def _finished(folder: Location) -> list[str]:
    return [name for name in folder.names() if name.endswith(".parquet") and not name.startswith("_")]


def _has_day(name: str, days: Daily) -> bool:
    try:
        days.window_of(name[:10])
    except InvalidInput:
        return False
    return True
