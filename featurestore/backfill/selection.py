"""Which windows of a group a backfill is to compute: a range of keys, and of those what the ledger says of each.

A range never reaches a window that is not complete, or one that may not be backfilled; asked for by name, either is refused.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from featurestore.backfill.footprint import cadence_of
from featurestore.backfill.standings import standings_of
from featurestore.declaration.windows import DAY, Daily, Hourly, TimeWindow
from featurestore.errors import InvalidInput
from featurestore.offline.ledger import LedgerEntry
from featurestore.offline.store import OfflineStore
from featurestore.registry.snapshot import RegisteredGroup

DATE = "%Y-%m-%d"


def select_windows(
    store: OfflineStore,
    group: RegisteredGroup,
    *,
    first: str | None = None,
    last: str | None = None,
    missing: bool = False,
    failed: bool = False,
    stale_code: bool = False,
    code_version: str = "",
    now: datetime,
) -> list[TimeWindow]:
    """The windows of a range, oldest first; with conditions, those that meet any of them.

    Args:
        store: Whose ledger says how windows ended.
        group: As registered.
        first: Partition key of the first window; for an hourly group also a date, for its whole day. Default: the first
            window that may be backfilled.
        last: Likewise of the last one. Default: the last complete window, whose cut-off has passed.
        missing: Windows that were never promoted.
        failed: Windows whose last computation is in quarantine.
        stale_code: Windows promoted last by another version of the transform than `code_version`.
        code_version: `FeatureGroup.code_version` as it is declared now.
        now: The instant that rules which windows are complete.

    Returns:
        At least one window.

    Raises:
        InvalidInput: a key is none of the group's, the range reaches a window that is not complete or may not be
            backfilled, or nothing is left to compute; the message says why.
    """
    _refuse_windowless(group)
    windows = _Bounds(group, now).windows(first, last)
    if not (missing or failed or stale_code):
        return windows
    ledger = store.ledger(group.name).entries().to_dicts()
    standings = standings_of([LedgerEntry(**entry) for entry in ledger])
    chosen = [
        window
        for window in windows
        if _meets(standings.get(window.start, []), missing, failed, code_version if stale_code else None)
    ]
    if not chosen:
        raise InvalidInput(_nothing_left(group, windows, missing=missing, failed=failed, stale_code=stale_code))
    return chosen


def _refuse_windowless(group: RegisteredGroup) -> None:
    if group.cadence == "pushed":
        raise InvalidInput(
            f"Group {group.name!r} is pushed: there is nothing to compute, and so nothing to backfill. Push the rows that it "
            "lacks, with their own event times: FeatureStore.push."
        )
    if group.cadence == "static":
        raise InvalidInput(
            f"Group {group.name!r} is static: it has no windows to backfill. Materialize offline/{group.name} in Dagster: "
            "each load is compared with the last."
        )


def _meets(standing: Sequence[LedgerEntry], missing: bool, failed: bool, code_version: str | None) -> bool:
    """Whether a window meets a condition, by the entries that count for it, the oldest first."""
    promoted_by = [entry.code_version for entry in standing if entry.status == "promoted"]
    return (
        (missing and not promoted_by)
        or (failed and bool(standing) and standing[-1].status == "quarantined")
        or (code_version is not None and bool(promoted_by) and promoted_by[-1] != code_version)
    )


def first_backfillable(group: RegisteredGroup) -> datetime:
    """The start of the first window that may be backfilled."""
    origin = cadence_of(group).origin
    if group.backfillable_from is None:
        return origin
    return max(origin, datetime.combine(date.fromisoformat(group.backfillable_from), time.min, UTC))


def complete_until(group: RegisteredGroup, now: datetime) -> datetime:
    """The end of the last window whose cut-off has passed; not after the group's start if there is none."""
    cadence = cadence_of(group)
    known = now - timedelta(microseconds=group.delay_us)
    return cadence.origin + (known - cadence.origin) // cadence.length * cadence.length


def ranges_text(cadence: Daily | Hourly, windows: Sequence[TimeWindow], most: int = 4) -> str:
    """Windows as ranges of keys, the first ones.

    >>> origin = Daily(date(2026, 3, 1)).origin
    >>> ranges_text(Daily(date(2026, 3, 1)), [TimeWindow(origin + n * DAY, origin + (n + 1) * DAY) for n in (0, 1, 4)])
    '2026-03-01 to 2026-03-02, 2026-03-05'
    """
    runs: list[list[TimeWindow]] = []
    for window in windows:
        if runs and runs[-1][-1].end == window.start:
            runs[-1].append(window)
        else:
            runs.append([window])
    ends = [(cadence.key_of(run[0]), cadence.key_of(run[-1])) for run in runs[:most]]
    shown = [begin if begin == end else f"{begin} to {end}" for begin, end in ends]
    return ", ".join([*shown, *([f"and {len(runs) - most} more ranges"] if runs[most:] else [])])


class _Bounds:
    """From where to where windows may be asked for at an instant."""

    def __init__(self, group: RegisteredGroup, now: datetime) -> None:
        self.group, self.now, self.cadence = group, now, cadence_of(group)
        self.allowed = first_backfillable(group)
        self.complete = complete_until(group, now)

    def windows(self, first: str | None, last: str | None) -> list[TimeWindow]:
        """The windows of a range, each of its ends checked."""
        begin, end = self.allowed, self.complete
        if first is not None:
            begin, _ = self._checked("--from", first, self.cadence.length)
        if last is not None:
            start, length = self._checked("--to", last, None)
            end = start + length
        if begin >= end:
            raise InvalidInput(
                f"--from {first} lies after --to {last}. Give the earlier one first."
                if first is not None and last is not None
                else self._nothing_complete()
            )
        return list(self.cadence.windows_between(begin, end))

    def _checked(self, option: str, key: str, needed: timedelta | None) -> tuple[datetime, timedelta]:
        """Start and length of what a key names; of its time, `needed` must be complete, or all."""
        start, length = self._span(option, key)
        if start < self.cadence.origin:
            raise InvalidInput(
                f"{option} {key} lies before the first window of group {self.group.name!r}, {self._key(self.cadence.origin)}."
            )
        if start < self.allowed:
            raise InvalidInput(
                f"{option} {key}: windows of group {self.group.name!r} before {self.group.backfillable_from} may not be "
                f"backfilled (its backfillable_from). Begin with --from {self._key(self.allowed)}, or have its owner, "
                f"{self.group.owner}, declare another and apply it."
            )
        if start > self.complete - (needed or length):
            raise InvalidInput(f"{option} {key} reaches windows that are not complete. {self._last_complete(option)}")
        return start, length

    def _span(self, option: str, key: str) -> tuple[datetime, timedelta]:
        """The window of a key, or the day of a date."""
        for form, length in ((self.cadence.key_format, self.cadence.length), (DATE, DAY)):
            try:
                start = datetime.strptime(f"{key} +0000", f"{form} %z")
            except ValueError:
                continue
            if start.strftime(form) == key and not (start - self.cadence.origin) % self.cadence.length:
                return start, length
        dates = "" if self.cadence.length == DAY else f", or a date for its whole day: {self.cadence.start}"
        raise InvalidInput(
            f"{option} {key!r} is no partition key of group {self.group.name!r}. Its keys look like "
            f"{self._key(self.cadence.origin)}{dates}."
        )

    def _nothing_complete(self) -> str:
        start = f"Nothing to backfill in group {self.group.name!r}: "
        if self.complete > self.cadence.origin:
            return (
                f"{start}windows before {self.group.backfillable_from} may not be backfilled. {self._last_complete()}"
            )
        return start + self._last_complete()

    def _last_complete(self, option: str = "--to") -> str:
        """Which window is the last complete one, and what to do about an option that asks for later ones."""
        length, delay = self.cadence.length, timedelta(microseconds=self.group.delay_us)
        if self.complete <= self.cadence.origin:
            due = self.cadence.origin + length + delay
            return f"Its first window, {self._key(self.cadence.origin)}, is due at {_at(due)}; now is {_at(self.now)}."
        remedy = "begin there or before" if option == "--from" else "end there with --to, or leave --to out"
        return (
            f"The last complete one at {_at(self.now)} is {self._key(self.complete - length)}: {remedy}. The next is due "
            f"at {_at(self.complete + length + delay)}."
        )

    def _key(self, start: datetime) -> str:
        return start.strftime(self.cadence.key_format)


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _nothing_left(
    group: RegisteredGroup, windows: Sequence[TimeWindow], *, missing: bool, failed: bool, stale_code: bool
) -> str:
    asked = {
        "was never promoted": missing,
        "is in quarantine": failed,
        "was promoted by another version of the transform": stale_code,
    }
    conditions = " or ".join(text for text, is_asked in asked.items() if is_asked)
    windows_text = f"{len(windows)} windows" if len(windows) > 1 else "1 window"
    return (
        f"Nothing to backfill in group {group.name!r}: of its {windows_text}, {ranges_text(cadence_of(group), windows)}, "
        f"none {conditions}."
    )
