"""The attempts at a backfill: itself, and those that carried it on, each as the book and Dagster have it."""

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.backfill.dagster_api import BackfillStatus, backfills_tagged, find_backfill
from featurestore.backfill.tags import RESUMES
from featurestore.errors import InvalidInput, StoreUnavailable
from featurestore.metadata.book import BackfillBook
from featurestore.metadata.request import BackfillRequest

RESUMED = "resumed"
"""In the audit of a backfill: another one carries it on, whose id the details have."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One backfill; either of the two may not know it, or not yet."""

    backfill_id: str
    request: BackfillRequest | None
    dagster: BackfillStatus | None

    @property
    def resumes(self) -> str | None:
        """The backfill that it carries on."""
        named = self.dagster.tags.get(RESUMES, "") if self.dagster is not None else ""
        return named if named not in ("", self.backfill_id) else None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it, as far as is known."""
        if self.dagster is not None:
            return self.dagster.is_done
        return self.request is not None and self.request.state in ("rejected", "refused", "cancelled", "rolled_back")


@dataclass(frozen=True, slots=True)
class Attempts:
    """The first attempt and those that carried it on, in that order; `note` says why Dagster says nothing."""

    all: tuple[Attempt, ...]
    note: str = ""

    @property
    def first(self) -> Attempt:
        return self.all[0]

    @property
    def last(self) -> Attempt:
        return self.all[-1]

    @property
    def ids(self) -> list[str]:
        return [attempt.backfill_id for attempt in self.all]

    @property
    def is_known(self) -> bool:
        return any(attempt.request is not None or attempt.dagster is not None for attempt in self.all)


def find_attempts(book: BackfillBook, url: str, backfill_id: str) -> Attempts:
    """What the book and Dagster say of a backfill and of those that carry it on; Dagster need not answer."""
    resumptions = [str(entry.details["backfill_id"]) for entry in book.audit(backfill_id) if entry.action == RESUMED]
    try:
        newest_first = backfills_tagged(url, RESUMES, backfill_id)
        ids = list(dict.fromkeys([backfill_id, *resumptions, *reversed(newest_first)]))
        found = [find_backfill(url, one) for one in ids]
    except (StoreUnavailable, InvalidInput) as error:
        return Attempts(_attempts(book, [backfill_id, *resumptions], None), str(error))
    note = "" if any(found) else f"Dagster at {url} has no backfill {backfill_id}."
    return Attempts(_attempts(book, ids, found), note)


def _attempts(
    book: BackfillBook, ids: Sequence[str], found: Sequence[BackfillStatus | None] | None
) -> tuple[Attempt, ...]:
    in_dagster = found if found is not None else [None] * len(ids)
    return tuple(Attempt(one, book.find(one), status) for one, status in zip(ids, in_dagster, strict=True))
