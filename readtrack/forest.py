"""A forest plot of verdicts as SVG: effects with 95 % intervals on the scale of each rule."""

from __future__ import annotations

from collections.abc import Sequence

from readtrack.svg import Scale, element, text
from readtrack.verdict_table import VerdictRow

_LEFT, _WIDTH, _TOP, _LINE = 190, 420, 34, 16  # pixels
_SCALE = Scale(-1.0, 3.0, _LEFT, _LEFT + _WIDTH)  # values outside are cut off, with an arrow
_STYLE = (
    "text{font:12px sans-serif;fill:#24292f}.dim{fill:#57606a}line,path{stroke:#24292f;stroke-width:1.5}"
    ".axis{stroke:#8c959f;stroke-width:1;stroke-dasharray:3 3}"
    "circle{stroke:#24292f;stroke-width:1.5;fill:#fff}"
    ".full{fill:#24292f}path{fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#8b949e}line,path,circle{stroke:#e6edf3}"
    "circle{fill:#0d1117}.full{fill:#e6edf3}.axis{stroke:#6e7681}}"
)


def forest(rows: Sequence[VerdictRow]) -> str:
    """One line per row whose effect has a scale: 0 for equal arms, 1 for the rule's threshold.

    A filled dot marks a reproduced claim.
    """
    shown = [(row, scaled) for row in rows if row.effect and (scaled := row.effect.scaled)]
    width, height = _LEFT + _WIDTH + 110, _TOP + _LINE * len(shown) + 12
    parts: list[str] = [
        element("title", "Effects of the papers' claims with their 95 % intervals"),
        element("style", _STYLE),
    ]
    for at, label in ((0.0, "arms equal"), (1.0, "required")):
        x = _SCALE(at)
        parts.append(text(label, class_="dim", x=f"{x:.0f}", y=16, text_anchor="middle"))
        parts.append(element("line", class_="axis", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=22, y2=height - 6))
    for index, (row, found) in enumerate(shown):
        parts += _row(row, found, _TOP + _LINE * index + _LINE / 2)
    inside = "\n".join(["", *parts, ""])
    space = "http://www.w3.org/2000/svg"
    return element("svg", inside, xmlns=space, width=width, height=height, role="img") + "\n"


def _row(row: VerdictRow, found: tuple[float, float, float], y: float) -> list[str]:
    mean, low, high = found
    start, end = _SCALE(low), _SCALE(high)
    parts: list[str] = [
        text(row.paper, x=_LEFT - 12, y=f"{y + 4:.0f}", text_anchor="end"),
        element("line", x1=f"{start:.1f}", x2=f"{end:.1f}", y1=f"{y:.1f}", y2=f"{y:.1f}"),
    ]
    parts += [_arrow(start, y, 5)] if low < _SCALE.low else []
    parts += [_arrow(end, y, -5)] if high > _SCALE.high else []
    if not _SCALE.cuts(mean):
        full = "full" if row.verdict == "reproduced" else None
        parts.append(element("circle", class_=full, cx=f"{_SCALE(mean):.1f}", cy=f"{y:.1f}", r=4))
    return [*parts, text(row.verdict, class_="dim", x=_LEFT + _WIDTH + 12, y=f"{y + 4:.0f}")]


def _arrow(x: float, y: float, back: int) -> str:
    ends = [f"{x + back:.1f} {y + way:.1f}" for way in (-4, 4)]
    return element("path", d=f"M{ends[0]} L{x:.1f} {y:.1f} L{ends[1]}")
