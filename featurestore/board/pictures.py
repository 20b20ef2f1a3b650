"""Pictures of the board's pages as inline SVG: lags against their limit, and statuses over a day. They need no script and no file.

What a picture says by colour it says by form too: a lag beyond its limit is drawn thick, a status by the height of its bar.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from markupsafe import Markup, escape

from featurestore.cli.times import instant_text
from featurestore.freshness.journal import StatusHistory, stays
from featurestore.freshness.judgement import span

HEADROOM = 1.15
"""How far above the highest of lags and limit a picture ends."""
STRIP_WIDTH, STRIP_HEIGHT = 160, 18
HEIGHTS = {"OK": 5, "NEVER": 9, "WARN": 12, "BREACH": 18}
SEEN_SECONDS = 300
"""The shortest stay in a status that is drawn to its own length; a shorter one is made as wide as this, so that it is seen."""
Point = tuple[float, float]


def lag_picture(
    lags: Sequence[float | None], limit: float | None, what: str, *, width: int = 160, height: int = 34
) -> Markup:
    """A line of lags, the oldest on the left, below or above the dashed line of their limit.

    Args:
        lags: In seconds, one a step; None: not known, a gap.
        limit: In seconds; None: there is none.
        what: Which lag it is, for who cannot see it.
    """
    known = [lag for lag in lags if lag is not None]
    title = escape(_lag_title(known, limit, what))
    if not known:
        return _svg("", title, width, height, "lags")
    top = max([*known, limit or 0, 1e-9]) * HEADROOM
    drawn = "".join(_line(points, "lag") for points in _runs(lags, top, width, height))
    if limit is not None:
        over = [lag if lag is not None and lag >= limit else None for lag in lags]
        drawn += _limit(limit, top, width, height)
        drawn += "".join(_line(points, "over") for points in _runs(over, top, width, height))
    return _svg(drawn, title, width, height, "lags")


def status_strip(history: StatusHistory, now: datetime, length: timedelta) -> Markup:
    """Bars of the statuses of a span that ends now: the higher, the worse. Nothing is drawn where none is known."""
    first = now - length
    bars, told = [], []
    for since, end, status in stays(history, now):
        if end <= first:
            continue
        if status != "UNKNOWN":
            bars.append(_bar(max(since, first), end, status, now, length))
        told.append(f"{status} from {instant_text(max(since, first).replace(microsecond=0))}")
    title = f"status over {span(length)}: {', '.join(told[-12:]) or 'nothing was kept'}"
    return _svg("".join(bars), escape(title), STRIP_WIDTH, STRIP_HEIGHT, "strip")


def mark(status: str) -> Markup:
    """The form of a status: a circle, a triangle, a square, a ring; a dash where none is known."""
    forms = {
        "OK": '<circle cx="6" cy="6" r="5"/>',
        "WARN": '<path d="M6 0.5 11.7 11 0.3 11Z"/>',
        "BREACH": '<rect x="0.5" y="0.5" width="11" height="11"/>',
        "NEVER": '<circle cx="6" cy="6" r="4" fill="none" stroke-width="2"/>',
        "UNKNOWN": '<rect x="1" y="5" width="10" height="2"/>',
    }
    return Markup('<svg class="mark {}" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">{}</svg>').format(
        status, Markup(forms[status])
    )


def _lag_title(known: Sequence[float], limit: float | None, what: str) -> str:
    limited = "" if limit is None else f", limit {span(timedelta(seconds=limit))}"
    if not known:
        return f"{what}: not known{limited}"
    highest = span(timedelta(seconds=max(known)))
    return f"{what} over 24 h: {span(timedelta(seconds=known[-1]))} last, {highest} at most{limited}"


def _runs(lags: Sequence[float | None], top: float, width: int, height: int) -> Iterable[list[Point]]:
    """Points of each stretch without a gap."""
    step = width / max(1, len(lags) - 1)
    for is_known, places in groupby(range(len(lags)), key=lambda place: lags[place] is not None):
        if is_known:
            yield [(place * step, _height_of(lags[place] or 0.0, top, height)) for place in places]


def _height_of(lag: float, top: float, height: int) -> float:
    return 1 + (height - 2) * (1 - lag / top)


def _line(points: Sequence[Point], kind: str) -> str:
    """A line; of one point a dot, since its line has no length."""
    if len(points) == 1:
        ((x, y),) = points
        return f'<circle class="{kind} dot" cx="{x:.1f}" cy="{y:.1f}" r="1.5"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def _limit(limit: float, top: float, width: int, height: int) -> str:
    y = _height_of(limit, top, height)
    return f'<line class="limit" x1="0" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _bar(since: datetime, end: datetime, status: str, now: datetime, length: timedelta) -> str:
    right = STRIP_WIDTH * (1 - (now - end) / length)
    wide = STRIP_WIDTH * max((end - since) / length, timedelta(seconds=SEEN_SECONDS) / length)
    high = HEIGHTS[status]
    return f'<rect class="{status}" x="{max(0.0, right - wide):.1f}" y="{STRIP_HEIGHT - high}" width="{wide:.1f}" height="{high}"/>'


def _svg(drawn: str, title: str, width: int, height: int, kind: str) -> Markup:
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" width="{}" height="{}" role="img" preserveAspectRatio="none"><title>{}</title>{}</svg>'
    ).format(kind, width, height, width, height, title, Markup(drawn))
