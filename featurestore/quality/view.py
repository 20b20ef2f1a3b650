"""Statistics and drift for people: small plots as images inside Markdown, for pages that show metadata. Not here: what is compared."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.quality.drift import FeatureDrift, WindowDrift

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 170, 44, 24, 28
MOST_PLOTS = 4
REFERENCE_COLOUR, WINDOW_COLOUR, LIMIT_COLOUR, INK = "#b8bfca", "#5b8def", "#c0392b", "#555"
HIGHEST = 3.0
"""A distance beyond three times its limit is drawn at the top."""


def drift_markdown(windows: Sequence[WindowDrift], *, shown: WindowDrift) -> str:
    """One window in words, the shares of what is too far as bars, and how near to their limits all windows came.

    Args:
        windows: Oldest first.
        shown: The one to speak of.
    """
    lines = [
        f"**{shown.window_start:%Y-%m-%d %H:%M} UTC**: {_verdict(shown)}",
        "",
        "| feature | against | windows | measure | distance | limit |",
        "|---|---|---:|---|---:|---:|",
        *(_row(one) for one in shown.features),
        "",
        image("how near to the limit", nearness_svg(windows)),
    ]
    plots = [one for one in shown.beyond if one.shares][:MOST_PLOTS]
    for one in plots:
        lines += ["", image(f"{one.feature} against {one.reference}", shares_svg(one))]
    return "\n".join(lines)


def image(name: str, svg: str) -> str:
    """A picture inside Markdown."""
    return f"![{name}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"


def nearness_svg(windows: Sequence[WindowDrift]) -> str:
    """The largest distance of each window as a multiple of its limit, a bar a window; the line is the limit."""
    step, floor = (WIDTH - LEFT) / max(1, len(windows)), HEIGHT - BOTTOM
    tall = floor - TOP
    bars = ""
    for number, window in enumerate(windows):
        near = min(max((_nearness(one) for one in window.features), default=0.0), HIGHEST)
        colour = LIMIT_COLOUR if window.beyond else WINDOW_COLOUR
        high = near / HIGHEST * tall
        bars += (
            f'<rect x="{LEFT + number * step:.1f}" y="{floor - high:.1f}" width="{max(1.0, step * 0.8):.1f}" '
            f'height="{high:.1f}" fill="{colour}"/>'
        )
    limit = floor - tall / HIGHEST
    line = f'<line x1="{LEFT}" x2="{WIDTH}" y1="{limit:.1f}" y2="{limit:.1f}" stroke="{LIMIT_COLOUR}"/>'
    named = f'<text x="{LEFT - 6}" y="{limit + 4:.1f}" text-anchor="end">limit</text>'
    ends = [f"{windows[i].window_start:%Y-%m-%d %H:%M}" for i in (0, -1)] if windows else ["", ""]
    return _framed("largest distance of any feature, as a multiple of its limit", bars + line + named, *ends)


def shares_svg(one: FeatureDrift) -> str:
    """Shares by bin or category: of the reference in grey, of the window in blue."""
    shares: Sequence[Mapping[str, Any]] = one.shares
    most = max((max(row["reference"], row["window"]) for row in shares), default=1.0) or 1.0
    step, floor = (WIDTH - LEFT) / max(1, len(shares)), HEIGHT - BOTTOM
    tall = floor - TOP
    bars = ""
    for number, row in enumerate(shares):
        for side, (name, colour) in enumerate((("reference", REFERENCE_COLOUR), ("window", WINDOW_COLOUR))):
            high = row[name] / most * tall
            x = LEFT + number * step + side * step * 0.4
            bars += f'<rect x="{x:.1f}" y="{floor - high:.1f}" width="{step * 0.38:.1f}" height="{high:.1f}" fill="{colour}"/>'
    top = f'<text x="{LEFT - 6}" y="{TOP + 4}" text-anchor="end">{most:.0%}</text>'
    ends = (_escaped(str(shares[0]["values"])), _escaped(str(shares[-1]["values"]))) if shares else ("", "")
    title = f"{_escaped(one.feature)}: shares in the window (blue) and in {_escaped(one.reference)} (grey)"
    return _framed(title, bars + top, *ends)


def _framed(title: str, body: str, first: str, last: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text x="{LEFT}" y="14">{title}</text>{body}<text x="{LEFT}" y="{HEIGHT - 10}">{first}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 10}" text-anchor="end">{last}</text></svg>'
    )


def _verdict(window: WindowDrift) -> str:
    if not window.beyond:
        return "no feature is too far from its reference." if window.status == "pass" else "nothing could be compared."
    names = ", ".join(dict.fromkeys(f"`{one.feature}`" for one in window.beyond))
    return f"too far from the reference: {names}."


def _row(one: FeatureDrift) -> str:
    if one.worst is None:
        return f"| `{one.feature}` | {one.reference} | {one.windows} | not compared: {one.unjudged} | | |"
    name, measured = one.worst
    mark = "**" if measured.is_beyond else ""
    return f"| `{one.feature}` | {one.reference} | {one.windows} | {name} | {mark}{measured.value:.4g}{mark} | {measured.limit:.4g} |"


def _nearness(one: FeatureDrift) -> float:
    return 0.0 if one.worst is None else one.worst[1].value / one.worst[1].limit


def _escaped(text: str) -> str:
    short = text if len(text) <= 40 else f"{text[:40]}..."
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
