"""SVG by hand: elements with escaped text, a scale that stops at its ends, and a mean with its interval.

The verdicts' forest plot has its places in pixels. The report has x in percent of the width, so that a chart
is as wide as its column and its words keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

Place = Callable[[float], float]


class Drawn(str):
    """Markup that is safe as it is: Jinja2 does not escape it again."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def element(name: str, *inside: str, **attributes: object) -> Drawn:
    """`<name ...>inside</name>`. `inside` is markup; `text` makes it of any text.

    An attribute's underscores become hyphens (`text_anchor`, `class_`), numbers get two decimals at most, and
    None leaves the attribute out.
    """
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(shown(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Drawn(f"<{name}{told}>{''.join(inside)}</{name}>" if inside else f"<{name}{told}/>")


def text(words: str, **attributes: object) -> Drawn:
    return element("text", escape(words, quote=False), **attributes)


def shown(value: object) -> str:
    """A number with at most two decimals and no needless zeros; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def percent(value: float) -> str:
    return f"{shown(value)}%"


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` on the way from `start` to `end`; what lies outside stays at the ends.

    log  by factors: a value that is not positive lies at the lower end
    """

    low: float
    high: float
    start: float = 0.0
    end: float = 100.0
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (self._way(self.low), self._way(self.high), self._way(value))
        share = (min(max(at, low), high) - low) / ((high - low) or 1.0)
        return self.start + share * (self.end - self.start)

    def cuts(self, value: float) -> bool:
        return not self.low <= value <= self.high

    def _way(self, value: float) -> float:
        if not self.log:
            return value
        return math.log(value) if value > 0 else math.log(self.low)


def estimate(scale: Scale, y: float, found: tuple[float, float, float], *, dot: str, r: float) -> list[str]:
    """A mean as a dot on the line of its interval, with x in percent of the width. Where the line leaves the
    scale, an arrow shows it; a mean outside has no dot.

    found  mean, lower and upper end
    dot    the class of the dot
    """
    mean, low, high = found

    def x(value: float) -> str:
        return percent(scale(value))

    parts: list[str] = [element("line", class_="ci", x1=x(low), x2=x(high), y1=y, y2=y)]
    back = 5 if scale.start < scale.end else -5
    for value, way, outside in (
        (min(low, high), back, min(low, high) < scale.low),
        (max(low, high), -back, max(low, high) > scale.high),
    ):
        if outside:
            # A path knows no percentages: it gets its own corner.
            tip = element("path", class_="tip", d=f"M{way} -4L0 0L{way} 4")
            parts.append(element("svg", tip, x=x(value), y=y, overflow="visible"))
    if not scale.cuts(mean):
        parts.append(element("circle", class_=dot, cx=x(mean), cy=y, r=r))
    return parts
