"""What a backfill will read, compute, store and write, and what that costs: said before anything runs.

No row of an input is read. What each figure rests on stands beside it. The arithmetic is told in `docs/backfills.md`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from featurestore.backfill.estimates.figures import Figure, Figures
from featurestore.backfill.estimates.reads import Weighed, reads_of, runs_of, weigh
from featurestore.backfill.strategies.choice import windows_left
from featurestore.cost import PriceBook, Quantities, costs_usd
from featurestore.declaration.catalog import Catalog
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.windows import TimeWindow, Windowless
from featurestore.errors import InvalidInput
from featurestore.launch import Launch, Strategy
from featurestore.offline.store import OfflineStore
from featurestore.quantities import count_text

PRICES_VARIABLE = "FEATURESTORE_PRICES"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the windows of one group will take.

    Args:
        figures: Quantities by name; the name says the unit.
        costs_usd: What each part costs; the sum is `cost_usd`.
        inputs: What is read of each input, all runs together.
        notes: What the figures leave out, for a person to read.
    """

    group: str
    strategy: Strategy
    figures: Mapping[str, Figure]
    costs_usd: Mapping[str, float]
    price_book: str
    inputs: Mapping[str, Weighed]
    notes: tuple[str, ...] = ()

    @property
    def cost_usd(self) -> float:
        return sum(self.costs_usd.values())

    def as_dict(self) -> dict[str, Any]:
        """A form that JSON can hold: whole numbers, but for seconds and dollars."""
        return {
            "group": self.group,
            "strategy": self.strategy,
            **{name: _plain(name, figure.value) for name, figure in self.figures.items()},
            "cost_usd": round(self.cost_usd, 6),
            "costs_usd": {name: round(cost, 6) for name, cost in self.costs_usd.items()},
            "price_book": self.price_book,
            "rests_on": {name: figure.rests_on for name, figure in self.figures.items()},
            "inputs": {
                name: {"files": read.files, "bytes": read.bytes, "requests": read.requests}
                for name, read in self.inputs.items()
            },
            "notes": list(self.notes),
        }


def load_prices(environment: Mapping[str, str] | None = None) -> PriceBook:
    """The price book that FEATURESTORE_PRICES names, else the one that comes with the library.

    Args:
        environment: Instead of `os.environ`.

    Raises:
        InvalidInput: the file is not there, or is no price book.
    """
    named = (os.environ if environment is None else environment).get(PRICES_VARIABLE)
    if not named:
        return PriceBook.from_toml(
            resources.files("featurestore.backfill.estimates").joinpath("prices.toml").read_text("utf-8")
        )
    try:
        text = Path(named).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{PRICES_VARIABLE} names {named!r}, which cannot be read: {error}. Name a TOML file, or unset it for the default prices."
        ) from error
    try:
        return PriceBook.from_toml(text)
    except InvalidInput as error:
        raise InvalidInput(f"{PRICES_VARIABLE} names {named!r}. {error}") from error


def estimate_windows(
    store: OfflineStore,
    catalog: Catalog,
    group: FeatureGroup,
    windows: Sequence[TimeWindow],
    *,
    strategy: Strategy = "full",
    prices: PriceBook | None = None,
) -> Estimate:
    """Estimate a backfill of some windows of a group.

    Args:
        windows: In any order; each counts once.
        strategy: Decides which windows are computed and what is read for them.
        prices: By default those of `load_prices`.

    Raises:
        InvalidInput: the group is static, or does not declare what the strategy needs.
    """
    if isinstance(group.cadence, Windowless):
        instead = "Load it as a whole." if group.kind == "static" else "Its rows arrive by push."
        raise InvalidInput(f"Group {group.stored_name!r} is {group.kind}: it has no windows to backfill. {instead}")
    book = prices or load_prices()
    launch, asked = Launch(strategy=strategy), sorted(set(windows))
    chosen = _chosen(store, catalog, group, asked, launch)
    runs = [[window for window in run if window in chosen] for run in runs_of(asked)]
    figures = Figures(store, catalog, group, runs, strategy, book.defaults)
    reads = reads_of(store, catalog, group, runs, launch)
    inputs = {name: weigh(figures.files(name), asked_for) for name, asked_for in reads.items()}
    found = {
        "partitions": Figure(len(chosen), _rests_on(len(chosen), len(asked))),
        "runs": Figure(len(runs), "a run ends at a gap and after 31 days"),
        "bytes_scanned": figures.bytes_scanned(inputs),
        "bytes_used": figures.bytes_used(reads),
        "read_requests": figures.read_requests(inputs),
        "rows": figures.rows,
        "compute_seconds": figures.compute_seconds,
        "overhead_seconds": figures.overhead_seconds,
        "storage_bytes": figures.storage_bytes,
        "replaced_bytes": figures.replaced_bytes,
        "online_writes": figures.online_writes,
    }
    costs = costs_usd(_quantities(found), book)
    return Estimate(group.stored_name, strategy, found, costs, book.name, inputs, _notes(figures, inputs))


def _chosen(
    store: OfflineStore, catalog: Catalog, group: FeatureGroup, windows: Sequence[TimeWindow], launch: Launch
) -> set[TimeWindow]:
    """The windows that would be computed, by the choice that the backfill itself makes."""
    return set(windows) - set(windows_left(store, catalog, group, windows, launch))


def _rests_on(chosen: int, asked: int) -> str:
    left = f", {asked - chosen} stay as they are by this strategy" if asked > chosen else ""
    return f"{count_text(asked, 'window')} asked for{left}"


def _quantities(found: Mapping[str, Figure]) -> Quantities:
    return Quantities(
        bytes_scanned=int(found["bytes_scanned"].value),
        read_requests=int(found["read_requests"].value),
        seconds=found["compute_seconds"].value + found["overhead_seconds"].value,
        storage_bytes=int(found["storage_bytes"].value),
        online_writes=int(found["online_writes"].value),
    )


def _notes(figures: Figures, inputs: Mapping[str, Weighed]) -> tuple[str, ...]:
    awaited = {name: missing for name, missing in figures.awaited.items() if missing}
    notes = [
        f"{missing} windows of {name!r} that are read are not promoted: what is to come of them is not counted."
        for name, missing in awaited.items()
    ]
    empty = sorted(name for name, read in inputs.items() if not read.files and name not in awaited)
    notes += [f"{name!r} holds nothing yet: what is to come of it is not counted." for name in empty]
    if figures.replaced_bytes.value:
        notes.append("Windows that come out as they are stored are not written again, and add nothing.")
    return tuple(notes)


def _plain(name: str, value: float) -> int | float:
    return round(value, 3) if name.endswith("_seconds") else round(value)
