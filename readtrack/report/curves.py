"""Curves and pairs of arms as SVG: the plot is stretched to its column, its words are not.

Labels of the y axis stand on their lines. The arms are told apart by colour, by dashes and by thickness, so
that two curves that coincide are seen as two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from readtrack.present.scales import by_factors, is_timed, wants_log
from readtrack.report.words import number, sentence
from readtrack.runs.record import Record
from readtrack.svg import Drawn, Scale, element, percent, text

Points = Sequence[tuple[float, float]]

_POINTS = 60  # of a curve; longer ones are means of neighbours
_ARMS = 4  # in one chart
_HEIGHT, _TOP, _BOTTOM = 170, 18, 24  # pixels
_LEFT = 13.0  # percent
_FAR = 1e100  # from there on a value counts as infinite


@dataclass(frozen=True, slots=True)
class Key:
    """An arm in a chart's key. kind: the class that gives it colour and dashes."""

    name: str
    last: str
    kind: str


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    keys: list[Key]
    picture: Drawn
    note: str = ""


def curves(record: Record, roles: Sequence[str], most: int = 6) -> list[Chart]:
    """The run's charts, the headline's first; `roles` are arms in the order in which they are drawn."""
    names = [name for name, arms in record.curves.items() if any(len(points) > 3 for points in arms.values())]
    ranked = sorted(
        names,
        key=lambda name: (name != record.headline_curve, _is_choice(name), -len(record.curves[name])),
    )
    charts = [_chart(record, name, roles) for name in ranked[:most]]
    return [chart for chart in charts if chart is not None]


def _is_choice(name: str) -> bool:
    """Whether the curve only shows how a setting was chosen."""
    return "over rate" in name or "choos" in name


def _chart(record: Record, name: str, roles: Sequence[str]) -> Chart | None:
    whole = {
        arm: sorted((x, y) for x, y in points if abs(x) < _FAR and abs(y) < _FAR)
        for arm, points in record.curves[name].items()
    }
    arms = {arm: points for arm, points in whole.items() if len(points) > 1}
    order = sorted(arms, key=lambda arm: roles.index(arm) if arm in roles else len(roles))
    if not order:
        return None
    shown = {arm: arms[arm] for arm in order[:_ARMS]}
    x_name, y_name = record.axes.get(name, ("", ""))
    x_name = x_name or name.partition(" over ")[2]
    timed = is_timed(name, x_name, (x for x, _ in shown[order[0]]))
    log_x = not timed and by_factors(x for x, _ in shown[order[0]])
    x_name = x_name or ("step" if timed else "")
    keys = [
        Key(arm or "value", number(arms[arm][-1][1]), f"arm{index}")
        for index, arm in enumerate(order[:_ARMS])
    ]
    left = len(order) - _ARMS
    return Chart(
        sentence(f"{name.partition(' over ')[0] if not y_name else name}"),
        keys,
        _picture(shown, x_name, log_x=log_x, title=name),
        f"{left} more arms are not drawn." if left > 0 else "",
    )


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most 60 points: means of neighbours."""
    size = math.ceil(len(points) / _POINTS)
    if size == 1:
        return list(points)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]


def _picture(arms: Mapping[str, Points], x_name: str, *, log_x: bool, title: str) -> Drawn:
    thin = {arm: thinned(points) for arm, points in arms.items()}
    xs = [x for points in arms.values() for x, _ in points]
    ys = [y for points in thin.values() for _, y in points]
    log_y = wants_log(ys) or (min(ys) > 0 and max(ys) > 30 * min(ys))
    low = min(ys)
    if not log_y and 0 <= low < 0.6 * max(ys):
        low = 0.0
    across = Scale(min(xs), max(xs), 0, 1000, log=log_x and min(xs) > 0)
    flat = max(ys) - low <= 1e-9 * abs(low)
    up = Scale(low, low + (abs(low) or 1.0) if flat else max(ys), 1000, 0, log=log_y and not flat)
    grid = []
    for tick in _ticks(low, up.high, up.log):
        y = _TOP + up(tick) / 1000 * _HEIGHT
        grid.append(element("line", class_="grid", x1="0", x2="100%", y1=y, y2=y))
        grid.append(text(number(tick), x=0, y=y - 3))
    lines = []
    for index, points in reversed(list(enumerate(thin.values()))):
        path = " ".join(f"{across(x):.0f},{up(y):.0f}" for x, y in points)
        lines.append(
            element("polyline", class_=f"arm{index}", vector_effect="non-scaling-stroke", points=path)
        )
    bottom = _TOP + _HEIGHT
    where = ", ".join(filter(None, [x_name, "log scale" if across.log else ""]))
    told = "; ".join(
        f"{arm or 'value'} from {number(points[0][1])} to {number(points[-1][1])}"
        for arm, points in arms.items()
    )
    plot = element(
        "svg", *lines, x=percent(_LEFT), y=_TOP, width=percent(100 - _LEFT), height=_HEIGHT,
        viewBox="0 0 1000 1000", preserveAspectRatio="none",
    )  # fmt: skip
    return element(
        "svg",
        *grid,
        plot,
        element("line", class_="axis", x1="0", x2="100%", y1=bottom, y2=bottom),
        text(number(min(xs)), x=percent(_LEFT), y=bottom + 17),
        text(where, x="56%", y=bottom + 17, text_anchor="middle"),
        text(number(max(xs)), x="100%", y=bottom + 17, text_anchor="end"),
        *([text("log scale", x="100%", y=11, text_anchor="end")] if up.log else []),
        class_="curve",
        width="100%",
        height=bottom + _BOTTOM,
        role="img",
        aria_label=f"{title}, {low if low == 0 else number(low)} to {number(max(ys))} over {where}: {told}",
    )


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        return [10.0**power for power in powers][:: max(1, len(powers) // 4)]
    step = 10.0 ** math.floor(math.log10((high - low or 1) / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 4.2)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(count * step, 12) for count in range(first, last + 1)]


def pairs(record: Record, roles: Sequence[str], most: int = 3) -> list[Chart]:
    """Metrics such as `errors, hum` and `errors, echo` of two arms: a line for each, the arms as dots."""
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for (name, arm), value in record.values.items():
        head, comma, tail = name.partition(", ")
        if comma and arm and abs(value) < _FAR:
            groups.setdefault(head, {}).setdefault(tail, {})[arm] = value
    charts = []
    for head, rows in groups.items():
        arms = _two_arms(rows.values(), roles)
        full = {tail: values for tail, values in rows.items() if all(arm in values for arm in arms)}
        if len(arms) == 2 and len(full) >= 3:
            charts.append(_pair_chart(head, full, arms))
    return charts[:most]


def _two_arms(rows: Iterable[Mapping[str, float]], roles: Sequence[str]) -> list[str]:
    """The arms of the most rows, the paper's first."""
    found = list(dict.fromkeys(arm for row in rows for arm in row))
    return sorted(found, key=lambda arm: roles.index(arm) if arm in roles else len(roles))[:2]


def _pair_chart(head: str, rows: Mapping[str, Mapping[str, float]], arms: Sequence[str]) -> Chart:
    values = [value for row in rows.values() for value in row.values()]
    scale = Scale(min(0.0, *values), max(values) or 1.0, 12, 88)
    parts: list[str] = []
    for index, (tail, row) in enumerate(rows.items()):
        y = 34 + 44 * index
        places = [scale(row[arm]) for arm in arms]
        parts.append(text(tail, x=0, y=y - 13, class_="v"))
        parts.append(element("line", class_="grid", x1="12%", x2="88%", y1=y, y2=y))
        parts.append(
            element("line", class_="between", x1=percent(places[0]), x2=percent(places[1]), y1=y, y2=y)
        )
        for number_, (arm, place) in reversed(list(enumerate(zip(arms, places, strict=True)))):
            right = place > places[1 - number_] or (place == places[1 - number_] and number_ == 1)
            parts.append(element("circle", class_=f"pair{number_}", cx=percent(place), cy=y, r=6))
            parts.append(
                text(number(row[arm]), x=percent(place), dx=11 if right else -11, y=y + 4.5,
                     text_anchor="start" if right else "end")
            )  # fmt: skip
    told = "; ".join(
        f"{tail}: " + ", ".join(f"{arm} {number(row[arm])}" for arm in arms) for tail, row in rows.items()
    )
    keys = [Key(arm, "", f"pair{index}") for index, arm in enumerate(arms)]
    picture = element(
        "svg", *parts, class_="curve", width="100%", height=12 + 44 * len(rows), role="img",
        aria_label=f"{head}: {told}",
    )  # fmt: skip
    return Chart(sentence(head), keys, picture)
