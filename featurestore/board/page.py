"""The board's pages: which groups are shown, what each line says, and the HTML. Every value is escaped by the template engine.

Not here: the pictures (`pictures.py`), or where the documents come from (`watching.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from featurestore.board.lags import DAY, DayOfLags
from featurestore.board.pictures import lag_picture, mark, status_strip
from featurestore.board.watching import BoardWatch, Look
from featurestore.cli.times import age_text, duration_text, instant_text, share_text
from featurestore.freshness.document import LONGEST_SPAN
from featurestore.freshness.journal import StatusHistory, stays
from featurestore.freshness.judgement import ORDER, span

SHOWN = 100
"""Lines of a page, unless all are asked for."""
CHANGES_SHOWN = 20
UNKEPT_SHOWN = 3
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which groups are shown. Empty: every one.

    Args:
        status, owner, tier: Exactly these.
        name: Part of a group's name.
        show_all: More than `SHOWN` of them too.
    """

    status: str = ""
    owner: str = ""
    tier: str = ""
    name: str = ""
    show_all: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Filter":
        """What a query string says; fields that it does not have are empty."""
        fields = {field: query.get(field, "").strip() for field in ("status", "owner", "tier", "name")}
        return cls(**fields, show_all=query.get("all", "") == "1")

    def takes(self, one: Document) -> bool:
        same = all(getattr(self, field) in ("", one[field]) for field in ("status", "owner", "tier"))
        return same and self.name.lower() in one["group"].lower()

    def link(self, **other: str) -> str:
        """The address of the same page with other fields."""
        fields = {field: getattr(self, field) for field in ("status", "owner", "tier", "name")}
        given = {field: value for field, value in {**fields, **other}.items() if value}
        return f"/?{urlencode(given)}" if given else "/"


def overview_page(watch: BoardWatch, wanted: Filter) -> str:
    """Every group on a line, the worst first."""
    look = watch.standing.look
    documents = look.documents if look else []
    taken = [one for one in documents if wanted.takes(one)]
    shown = taken if wanted.show_all else taken[:SHOWN]
    return _rendered(
        "overview.html",
        **_frame(watch),
        wanted=wanted,
        counts=Counter(one["status"] for one in documents),
        total=len(documents),
        found=len(taken),
        rows=[_row(one, look, watch.lags) for one in shown] if look else [],
        unseen=Counter(one["online_unknown"] for one in documents if one["online_unknown"]),
        choices={field: sorted({one[field] for one in documents}) for field in ("owner", "tier")},
    )


def group_page(watch: BoardWatch, name: str) -> str | None:
    """One group with everything that is known of it; None if the last look found no such group."""
    look = watch.standing.look
    one = next((one for one in look.documents if one["group"] == name), None) if look else None
    if look is None or one is None:
        return None
    history = look.history.get(name, [])
    return _rendered(
        "group.html",
        **_frame(watch),
        one=one,
        row=_row(one, look, watch.lags, width=640, height=110),
        month=status_strip(history, look.at, LONGEST_SPAN),
        changes=_changes(history, look.at),
    )


def missing_page(watch: BoardWatch, name: str) -> str:
    """That there is no such group, or none yet."""
    return _rendered("missing.html", **_frame(watch), name=name)


def data_limit(one: Document) -> timedelta | None:
    """How old the inputs of a group may be: what its oldest source may be silent for; of a pushed group, how late rows may come."""
    if one["arrival_seconds"] is not None:
        limit: timedelta = one["arrival_seconds"]
        return limit
    oldest = [source for source in one["sources"].values() if source["last_event_time"] == one["last_event_time"]]
    return min((source["silence_seconds"] for source in oldest), default=None)


def _row(one: Document, look: Look, lags: DayOfLags, *, width: int = 160, height: int = 34) -> dict[str, Any]:
    """What is shown of a group beside its document."""
    name, slo = one["group"], one["freshness_seconds"]
    limits = {"materialization": slo, "data": data_limit(one), "online": slo}
    series = dict(zip(limits, zip(*lags.series(name, look.at), strict=True), strict=True))
    return {
        "one": one,
        "limits": limits,
        "highest": {kind: _highest(lags) for kind, lags in series.items()},
        "strip": status_strip(look.history.get(name, []), look.at, DAY),
        "pictures": {
            kind: lag_picture(series[kind], _seconds(limit), f"{kind} lag of {name}", width=width, height=height)
            for kind, limit in limits.items()
        },
    }


def _highest(lags: Sequence[float | None]) -> timedelta | None:
    return max((timedelta(seconds=lag) for lag in lags if lag is not None), default=None)


def _changes(history: StatusHistory, now: datetime) -> list[dict[str, Any]]:
    """The last statuses, the newest first, and how long each lasted."""
    told = [
        {"status": status, "since": since.replace(microsecond=0), "lasted": end - since}
        for since, end, status in stays(history, now)
    ]
    return told[::-1][:CHANGES_SHOWN]


def _frame(watch: BoardWatch) -> dict[str, Any]:
    """What every page says: how old it is, and what is wrong with the board itself."""
    standing = watch.standing
    return {
        "look": standing.look,
        "age": standing.age(watch.clock()),
        "trouble": standing.trouble,
        "is_current": watch.is_current(),
        "unkept": _unkept_text(standing.look),
        "look_seconds": watch.look_seconds,
        "orders": tuple(reversed(ORDER)),
    }


def _unkept_text(look: Look | None) -> str:
    """Of which groups the platform's sensor does not keep what is to be kept; "" if it looks at every one."""
    names = look.unkept() if look else []
    if look is None or not names:
        return ""
    if len(names) == len(look.documents):
        return "any group"
    rest = len(names) - UNKEPT_SHOWN
    return ", ".join(names[:UNKEPT_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("featurestore.board", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        span=lambda lag: "–" if lag is None else span(lag),
        slo=lambda slo: "none" if slo is None else duration_text(slo),
        age=lambda age: "–" if age is None else age_text(age),
        instant=lambda at: "–" if at is None else instant_text(at.replace(microsecond=0)),
        share=lambda share: "–" if share is None else share_text(share),
        group_link=lambda name: f"/group/{quote(name, safe='')}",
    )
    environment.globals.update(mark=mark)
    return environment


def _rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
