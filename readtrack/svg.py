"""SVG helpers: elements with escaped text, a clamped scale, and a mean with its interval.

The verdicts' forest plot uses pixels. The report uses percentages of the width for x, so that a chart scales
with its column while its text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

Place = Callable[[float], float]


class Drawn(str):
    """Safe markup, which Jinja2 does not escape again."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def element(name: str, *inside: str, **attributes: object) -> Drawn:
    """`<name ...>inside</name>`. `inside` is markup; use `text` for plain text.

    Underscores in attribute names become hyphens (`text_anchor`, `class_`), numbers get at most two decimals,
    and None omits the attribute.
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
    """A number with at most two decimals and no trailing zeros; other values unchanged."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def percent(value: float) -> str:
    return f"{shown(value)}%"


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values from `low` .. `high` to `start` .. `end`; values outside are clamped.

    log  logarithmic; a value that is not positive maps to the lower end
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
    """A mean as a dot on the line of its interval, with x as a percentage of the width.

    An arrow shows where the line leaves the scale; no dot is drawn for a mean outside it.

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
            # A path cannot use percentages, so it is nested in an svg element.
            tip = element("path", class_="tip", d=f"M{way} -4L0 0L{way} 4")
            parts.append(element("svg", tip, x=x(value), y=y, overflow="visible"))
    if not scale.cuts(mean):
        parts.append(element("circle", class_=dot, cx=x(mean), cy=y, r=r))
    return parts
