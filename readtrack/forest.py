"""A forest plot of verdicts as SVG: effects with 95 % intervals, on the scale of each rule."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from readtrack.verdict_table import Row

_LEFT, _WIDTH, _TOP, _LINE = 190, 420, 34, 16  # pixels
_FROM, _TO = -1.0, 3.0  # what lies outside is cut, with an arrow
_STYLE = (
    "text{font:12px sans-serif;fill:#24292f}.dim{fill:#57606a}line,path{stroke:#24292f;stroke-width:1.5}"
    ".axis{stroke:#8c959f;stroke-width:1;stroke-dasharray:3 3}"
    "circle{stroke:#24292f;stroke-width:1.5;fill:#fff}"
    ".full{fill:#24292f}path{fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#8b949e}line,path,circle{stroke:#e6edf3}"
    "circle{fill:#0d1117}.full{fill:#e6edf3}.axis{stroke:#6e7681}}"
)


def forest(rows: Sequence[Row]) -> str:
    """One line for each row whose effect has a scale: 0 where the compared arms are equal, 1 where the rule's
    threshold lies. A filled dot is a claim that is reproduced."""
    shown = [(row, scaled) for row in rows if row.effect and (scaled := row.effect.scaled)]
    width, height = _LEFT + _WIDTH + 110, _TOP + _LINE * len(shown) + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">',
        "<title>Effects of the papers' claims with their 95 % intervals</title>",
        f"<style>{_STYLE}</style>",
    ]
    for at, label in ((0.0, "arms equal"), (1.0, "asked")):
        x = _x(at)
        lines.append(f'<text class="dim" x="{x:.0f}" y="16" text-anchor="middle">{label}</text>')
        lines.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="22" y2="{height - 6}"/>')
    for index, (row, (mean, low, high)) in enumerate(shown):
        lines += _row(row, mean, low, high, _TOP + _LINE * index + _LINE / 2)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _row(row: Row, mean: float, low: float, high: float, y: float) -> list[str]:
    start, end = _x(low), _x(high)
    full = ' class="full"' if row.verdict == "reproduced" else ""
    parts = [
        f'<text x="{_LEFT - 12}" y="{y + 4:.0f}" text-anchor="end">{escape(row.paper)}</text>',
        f'<line x1="{start:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>',
    ]
    if low < _FROM:
        parts.append(
            f'<path d="M{start + 5:.1f} {y - 4:.1f} L{start:.1f} {y:.1f} L{start + 5:.1f} {y + 4:.1f}"/>'
        )
    if high > _TO:
        parts.append(f'<path d="M{end - 5:.1f} {y - 4:.1f} L{end:.1f} {y:.1f} L{end - 5:.1f} {y + 4:.1f}"/>')
    if _FROM <= mean <= _TO:
        parts.append(f'<circle{full} cx="{_x(mean):.1f}" cy="{y:.1f}" r="4"/>')
    parts.append(f'<text class="dim" x="{_LEFT + _WIDTH + 12}" y="{y + 4:.0f}">{escape(row.verdict)}</text>')
    return parts


def _x(value: float) -> float:
    return _LEFT + _WIDTH * (min(max(value, _FROM), _TO) - _FROM) / (_TO - _FROM)
