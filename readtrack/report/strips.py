"""Draws a claim: thresholds bound coloured areas, and measured values are dots and lines.

The paper's side is on the right. x is in percent of the width, so that a strip scales with its column. Its
text is next to it in HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from readtrack.report.effects import Found
from readtrack.report.words import css_class, known, number
from readtrack.svg import Drawn, Scale, element, estimate, percent, text
from readtrack.verdicts import OUTCOMES

_LANE, _HEAD = 24, 34  # pixels
_ROOM = 0.1  # margin on both sides, as a fraction of the width
_MOST = 1.2  # largest extension of the scale by breaks, relative to the range of the claim's own numbers
_BREAKS = 3  # maximum number of breaks drawn next to the claim's own numbers
# The scale of the table of all claims: linear around "arms equal" (0) and "required" (1), compressed outside.
FOREST_TICKS = (-1, 0, 1, 2, 4)


@dataclass(frozen=True, slots=True)
class Lane:
    """A row of a strip. kind: a CSS class."""

    name: str
    note: str
    kind: str
    picture: Drawn
    value: str
    between: str


@dataclass(frozen=True, slots=True)
class Strip:
    head: Drawn
    lanes: list[Lane]


def strip(one: Found, *, with_breaks: bool) -> Strip | None:
    """The strip of a bound; None if it has no scale, because the value of equal arms is unknown."""
    effect = one.effect
    if one.scaled is None or effect.mean is None or effect.even is None:
        return None
    scale = _scale(one, with_breaks)
    low, high = (effect.mean if value is None else value for value in (effect.low, effect.high))
    found = (effect.mean, low, high)
    own = [*_fields(one, scale), *_dots(one.dots, scale, "seed"), *_dots(one.rings, scale, "ring")]
    own += estimate(scale, _LANE / 2, found, dot="mean", r=5.5)
    lanes = [Lane("Found here", _note(one), "own", _lane(own, one.way), one.mean, one.between)]
    for other in one.tried[: _BREAKS + 1] if with_breaks else ():
        said = other.said
        marks = estimate(scale, _LANE / 2, (said.mean, said.low, said.high), dot="mean", r=4)
        role = {"coarse": "break"}.get(other.role, other.role)
        what = f"{role}: {other.name}" if role else other.name
        value = f"{'≥ ' if said.at_least else ''}{number(said.mean, one.unit)}"
        between = "" if said.low == said.high else f"{number(said.low)} to {number(said.high)}"
        lanes.append(
            Lane(
                what[:1].upper() + what[1:],
                OUTCOMES[known(other.verdict)],
                "rival" if other.role == "rival" else "without",
                _lane([*_fields(one, scale), *marks], "range"),
                value,
                between,
            )
        )
    return Strip(_head(one, scale), lanes)


def _note(one: Found) -> str:
    if one.dots:
        seeds = (
            f"{len(one.dots)} seeds, 95 % interval"
            if one.way == "interval"
            else f"{len(one.dots)} seeds, range"
        )
        return seeds + (f"; {one.missing} more without a value" if one.missing else "")
    return {"interval": "95 % interval", "range": "mean and range", "one": ""}[one.way]


def _scale(one: Found, with_breaks: bool) -> Scale:
    effect = one.effect
    values = [effect.mean, effect.low, effect.high, effect.asked, effect.even, *one.dots]
    own = [value for value in values if value is not None and math.isfinite(value)]
    log = effect.ratio and min(own) > 0
    way, back = (math.log, math.exp) if log else (float, float)
    low, high = min(map(way, own)), max(map(way, own))
    reach = (high - low) or 1.0
    more = [x for t in one.tried[: _BREAKS + 1] for x in (t.said.mean,)] if with_breaks else []
    more += one.rings
    there = [way(x) for x in more if math.isfinite(x) and (not log or x > 0)]
    low = max(min([low, *there]), low - _MOST * reach)
    high = min(max([high, *there]), high + _MOST * reach)
    pad = _ROOM * (high - low)
    ends = (0.0, 100.0) if effect.op in (">=", ">") else (100.0, 0.0)
    return Scale(back(low - pad), back(high + pad), *ends, log=log)


def _fields(one: Found, scale: Scale) -> list[str]:
    """Draw areas for the claimed range and for weak evidence, with lines at their limits."""
    asked, even = scale(one.effect.asked), scale(one.effect.even or 0.0)
    return [
        element("rect", class_="zone", x=percent(asked), width=percent(100 - asked), height=_LANE),
        element(
            "rect", class_="half", x=percent(min(even, asked)), width=percent(abs(asked - even)), height=_LANE
        ),
        element("line", class_="even", x1=percent(even), x2=percent(even), y1=0, y2=_LANE),
        element("line", class_="asked", x1=percent(asked), x2=percent(asked), y1=0, y2=_LANE),
    ]


def _dots(values: Iterable[float], scale: Scale, kind: str) -> list[str]:
    inside = (value for value in values if not scale.cuts(value))
    return [element("circle", class_=kind, cx=percent(scale(v)), cy=_LANE / 2, r=3.5) for v in inside]


def _lane(marks: list[str], way: str) -> Drawn:
    kind = "lane range" if way == "range" else "lane"
    return element("svg", *marks, class_=kind, width="100%", height=_LANE, aria_hidden="true")


def _head(one: Found, scale: Scale) -> Drawn:
    """The names of both lines above the lanes, on two rows and apart from each other if there is room."""
    even, asked = scale(one.effect.even or 0.0), scale(one.effect.asked)
    parts: list[str] = []
    for x, words, y, kind, left in (
        (even, f"{one.even} {number(one.effect.even, one.unit)}", 12, "even", even <= asked),
        (asked, f"required {one.asked}", 27, "asked", asked < even),
    ):
        before = x > (30 if left else 80)
        anchor = "end" if before else "start"
        parts.append(text(words, x=percent(x), y=y, dx=-4 if before else 4, text_anchor=anchor, class_="at"))
        parts.append(element("line", class_=kind, x1=percent(x), x2=percent(x), y1=y - 9, y2=_HEAD))
    return element("svg", *parts, width="100%", height=_HEAD, class_="head", aria_hidden="true")


def forest_place(value: float) -> float:
    return math.asinh(1.2 * (value - 0.5))


_FOREST = Scale(forest_place(-2.2), forest_place(6.0), 1.5, 98.5)


def forest_lane(found: tuple[float, float, float], verdict: str, *, dashed: bool) -> Drawn:
    """A claim's strip for the table of all claims, on the scale of its rule."""
    zero, one = _FOREST(forest_place(0)), _FOREST(forest_place(1))
    marks = [
        element("rect", class_="zone", x=percent(one), width=percent(100 - one), height=_LANE),
        element("rect", class_="half", x=percent(zero), width=percent(one - zero), height=_LANE),
        element("line", class_="even", x1=percent(zero), x2=percent(zero), y1=0, y2=_LANE),
        *estimate(
            _FOREST, _LANE / 2, (forest_place(found[0]), forest_place(found[1]), forest_place(found[2])),
            dot="mean", r=4.5,
        ),
    ]  # fmt: skip
    kind = f"lane forest {css_class(verdict)}{' range' if dashed else ''}"
    return element("svg", *marks, class_=kind, width="100%", height=_LANE, aria_hidden="true")


def forest_axis() -> Drawn:
    marks = [
        text("opposite direction", x=0, y=12),
        text("as the paper claims", x="100%", y=12, text_anchor="end"),
    ]
    marks += [
        text(number(float(tick)), x=percent(_FOREST(forest_place(tick))), y=28, text_anchor="middle")
        for tick in FOREST_TICKS
    ]
    return element("svg", *marks, width="100%", height=34, aria_hidden="true")
