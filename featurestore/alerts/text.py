"""What a notice says to a person: a headline, and a line for each thing that there is to know. Pure."""

from datetime import UTC, datetime, timedelta

from featurestore.alerts.notice import Notice
from featurestore.freshness.judgement import span


def headline(notice: Notice) -> str:
    """The notice in one line, e.g. 'BREACH: freshness of carrier_delay_daily'."""
    what = f"{notice.kind} of {notice.group}"
    if notice.event == "test":
        return f"Test: {what}"
    if notice.event == "recovered":
        return f"Recovered: {what}, after {_between(notice.opened_at, notice.at)}"
    if notice.event == "closed":
        return f"Closed: {what}"
    if notice.event == "raised":
        return (
            f"{notice.status} (was {notice.before}): {what}"
            if notice.before != notice.status
            else f"{notice.status}, and more: {what}"
        )
    return f"{notice.status}: {what}"


def lines(notice: Notice) -> list[tuple[str, str]]:
    """What there is to know, as pairs of a label and a text."""
    blamed = notice.blamed
    owner = notice.owner or "nobody declared"
    told = [
        ("What" if not notice.is_over else "Was", notice.text),
        ("Since", f"{instant(notice.since)} ({_between(notice.since, notice.at)})"),
        ("First late", f"{blamed.asset} of {blamed.owner or 'nobody declared'}" + _why(notice)),
        ("Owner", f"{owner}, tier {notice.tier}" if notice.tier else owner),
    ]
    if notice.is_over:
        told = [told[0], ("From", f"{instant(notice.opened_at)} until {instant(notice.at)}"), told[3]]
        return [*told, *([("Why", notice.reason)] if notice.reason else []), *_page(notice)]
    return [*told, ("To do", notice.remedy), *_page(notice)]


def body(notice: Notice) -> str:
    """The lines of a notice as plain text."""
    told = lines(notice)
    width = max(len(label) for label, _ in told)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in told)


def instant(at: datetime) -> str:
    """An instant for a person, in UTC, to the second.

    >>> instant(datetime(2026, 3, 1, 7, 5, tzinfo=UTC))
    '2026-03-01 07:05:00 UTC'
    """
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _between(begin: datetime, end: datetime) -> str:
    """How long something went on; by a clock that was ahead at its beginning, not at all."""
    return span(max(end - begin, timedelta(0)))


def _why(notice: Notice) -> str:
    """Why the first late asset is late; nothing where the text has said it."""
    blamed = notice.blamed
    if blamed.text in notice.text:
        return ""
    return f", since {instant(blamed.since)}: {blamed.text}"


def _page(notice: Notice) -> list[tuple[str, str]]:
    return [("Page", notice.url)] if notice.url else []
