"""A difference for people: a small plot, and Markdown for pages that show metadata. Not here: what is compared."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.quantities import count_text

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 180, 44, 24, 28
MOST_BARS = 120
SHARE_COLOUR, SIZE_COLOUR, INK = "#5b8def", "#d9730d", "#555"


def diff_plot_svg(document: Mapping[str, Any]) -> str:
    """The share of rows that changed, as a bar for each window, and how far their numbers moved, as a line above them.

    Both axes run from 0 to 1; a relative change above 1 (a change of sign) is drawn at 1. Of very many windows, several that
    follow each other share a bar.

    Args:
        document: As `run_diff` gives it.
    """
    bars = _bars(document["windows"])
    step, floor = (WIDTH - LEFT) / max(1, len(bars)), HEIGHT - BOTTOM
    tall = floor - TOP
    columns = [
        f'<rect x="{LEFT + i * step:.1f}" y="{floor - share * tall:.1f}" width="{max(1.0, step * 0.8):.1f}" height="{share * tall:.1f}"/>'
        for i, (share, _) in enumerate(bars)
    ]
    points = [
        (LEFT + (i + 0.4) * step, floor - min(size, 1.0) * tall) for i, (_, size) in enumerate(bars) if size is not None
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in points)
    grid = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH}" y1="{floor - part * tall:.1f}" y2="{floor - part * tall:.1f}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{floor - part * tall + 4:.1f}" text-anchor="end">{part:.0%}</text>'
        for part in (0, 0.5, 1)
    )
    first, last = (document["windows"][i]["window"] if bars else "" for i in (0, -1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text x="{LEFT}" y="14" fill="{SHARE_COLOUR}">share of rows changed</text>'
        f'<text x="{LEFT + 160}" y="14" fill="{SIZE_COLOUR}">mean relative change of their numbers</text>{grid}'
        f'<g fill="{SHARE_COLOUR}">{"".join(columns)}</g>'
        f'<polyline points="{line}" fill="none" stroke="{SIZE_COLOUR}"/><g fill="{SIZE_COLOUR}">{dots}</g>'
        f'<text x="{LEFT}" y="{HEIGHT - 10}">{first}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 10}" text-anchor="end">{last}</text></svg>'
    )


def diff_markdown(document: Mapping[str, Any]) -> str:
    """A difference of one group as Markdown: its counts, its features, and the plot as an image."""
    rows = document["rows"]
    counts = ", ".join(f"{rows[name]:,} {name}" for name in ("added", "removed", "changed", "kept"))
    lines = [
        f"**{document['group']}**, {count_text(len(document['windows']), 'window')}: rows {counts}.",
        "",
        "| feature | changed | nulls before | nulls after | change |",
        "|---|---:|---:|---:|---|",
        *(
            f"| `{name}` | {feature['changed']:,} | {feature['nulls_before']:,} | {feature['nulls_after']:,} | {change_text(feature)} |"
            for name, feature in document["features"].items()
        ),
        "",
        f"![rows changed by window](data:image/svg+xml;base64,{b64encode(diff_plot_svg(document).encode()).decode()})",
    ]
    return "\n".join(lines)


def change_text(feature: Mapping[str, Any]) -> str:
    """How far a feature's values moved, on one line; empty if none did."""
    if not feature["changed"]:
        return ""
    if feature.get("mean_absolute") is not None:
        relative = feature["mean_relative"]
        share = "" if relative is None else f"; {relative:.3g} relative"
        return (
            f"mean {feature['mean']:+.4g}, by size: mean {feature['mean_absolute']:.4g}, median {feature['median_absolute']:.4g}, "
            f"p95 {feature['p95_absolute']:.4g}, largest {feature['max_absolute']:.4g}{share}"
        )
    if feature.get("mean_cosine") is not None:
        return f"mean cosine {feature['mean_cosine']:.4f}, lowest {feature['min_cosine']:.4f}"
    moves = [
        f"{_category(move['from'])} to {_category(move['to'])}: {move['rows']:,}" for move in feature.get("moves", [])
    ]
    return ", ".join(moves)


def _category(value: Any) -> str:
    """A category inside a table's cell."""
    text = "null" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= 40 else f"{text[:40]}..."


def _bars(windows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float | None]]:
    """The share of rows changed, and mean size of change, of at most `MOST_BARS` runs of windows."""
    length = -(-len(windows) // MOST_BARS) or 1
    return [_bar(windows[start : start + length]) for start in range(0, len(windows), length)]


def _bar(windows: Sequence[Mapping[str, Any]]) -> tuple[float, float | None]:
    moved = sum(window[name] for window in windows for name in ("added", "removed", "changed"))
    rows = moved + sum(window["kept"] for window in windows)
    sizes = [window["size"] for window in windows if window["size"] is not None]
    return moved / rows if rows else 0.0, sum(sizes) / len(sizes) if sizes else None
