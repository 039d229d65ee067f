"""Draws curves and pairs of arms as SVG. The plot is stretched to its column, but text is not.

Labels of the y axis are on their grid lines. Arms differ in colour, dashes and thickness, so that two
coinciding curves are both visible.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from readtrack.claims import Claim
from readtrack.present.scales import by_factors, is_timed, wants_log
from readtrack.report import sweeps
from readtrack.report.privacy import Discretion
from readtrack.report.words import number, sentence
from readtrack.runs.record import Record
from readtrack.svg import Drawn, Scale, element, percent, text

Points = Sequence[tuple[float, float]]

_POINTS = 60  # maximum number of points in a curve; longer curves are averaged in bins
_ARMS = 4  # in one chart
_HEIGHT, _TOP, _BOTTOM = 170, 18, 24  # pixels
_LEFT = 13.0  # percent
_ORDER = {"paper": 0, "control": 1, "arm": 2, "yardstick": 3, "reference": 4}
ROLE_WORDS = {
    "paper": "the paper’s",
    "control": "control",
    "yardstick": "yardstick",
    "reference": "reference",
}
_STYLES = {"paper": 0, "control": 1}
_FAR = 1e100  # larger values count as infinite


@dataclass(frozen=True, slots=True)
class Key:
    """An arm in a chart's key.

    role   "" if the record does not state it
    value  the last value; if settings are compared, the value at the best setting
    kind   the CSS class with the arm's colour and dashes
    """

    name: str
    role: str
    value: str
    kind: str


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    keys: list[Key]
    picture: Drawn
    better: str = ""
    note: str = ""


def told(record: Record, tell: Discretion) -> Record:
    """A copy of the record in which the names of metrics, arms and axes are safe to show."""
    line = tell.line
    return replace(
        record,
        curves={
            line(name): {line(arm): points for arm, points in arms.items()}
            for name, arms in record.curves.items()
        },
        values={(line(name), line(arm)): value for (name, arm), value in record.values.items()},
        axes={line(name): (line(x), line(y)) for name, (x, y) in record.axes.items()},
        roles={line(arm): role for arm, role in record.roles.items()},
        better={line(name): way for name, way in record.better.items()},
        headline_curve=line(record.headline_curve),
    )


def roles(record: Record, claims: Sequence[Claim]) -> dict[str, str]:
    """Maps arms to roles, from the run or else from the claims: the paper's arms first, then controls, then
    others.
    """
    controls = dict.fromkeys((claim.control_arm for claim in claims if claim.control_arm), "control")
    compared = [bound.of for claim in claims for bound in claim.bounds if bound.of]
    named = Counter(row.partition("@")[0] for of in compared for row in of.rows)
    found = {arm: "paper" for arm, _ in named.most_common()} | controls | record.roles
    return dict(sorted(found.items(), key=lambda one: _ORDER.get(one[1], len(_ORDER))))


def _styled(arms: Iterable[str], roles: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """The arms in drawing order, each with its role and style number (0 for the paper's arm, 1 for a
    control).
    """
    found = {
        arm: roles.get(arm) or roles.get(arm.partition("@")[0]) or roles.get(arm.rpartition(", ")[0], "")
        for arm in arms
    }
    ordered = sorted(found, key=lambda arm: _ORDER.get(found[arm], len(_ORDER)))[:_ARMS]
    free = list(range(len(ordered)))
    known = any(found[arm] in _STYLES for arm in ordered)
    styled = []
    for arm in ordered:
        style = _STYLES.get(found[arm], 2 if known else free[0])
        style = style if style in free else free[-1] if style == 2 else free[0]
        free.remove(style)
        styled.append((arm, found[arm], style))
    return styled


def _better(record: Record, *names: str) -> str:
    ways = {record.better.get(name) for name in names} & {"lower", "higher"}
    return f"{ways.pop()} is better" if len(ways) == 1 else ""


def curves(record: Record, roles: Mapping[str, str], most: int = 6) -> list[Chart]:
    """The run's charts, the headline's first. `roles` is the result of the function `roles`."""
    best = sweeps.chosen(record)
    record, notes = sweeps.at_the_best(record)
    names = [name for name, arms in record.curves.items() if any(len(points) > 3 for points in arms.values())]
    ranked = sorted(
        names,
        key=lambda name: (name != record.headline_curve, _is_choice(name), -len(record.curves[name])),
    )
    charts = [_chart(record, name, roles, best, notes.get(name, "")) for name in ranked[:most]]
    return [chart for chart in charts if chart is not None]


def _is_choice(name: str) -> bool:
    """Whether the curve only shows how a setting was chosen."""
    return "over rate" in name or "choos" in name


def _chart(
    record: Record, name: str, roles: Mapping[str, str], best: Mapping[str, Mapping[str, float]], note: str
) -> Chart | None:
    whole = {
        arm: sorted((x, y) for x, y in points if abs(x) < _FAR and abs(y) < _FAR)
        for arm, points in record.curves[name].items()
    }
    arms = {arm: points for arm, points in whole.items() if len(points) > 1}
    styled = _styled(arms, roles)
    if not styled:
        return None
    shown = {arm: (style, arms[arm]) for arm, _, style in styled}
    first = arms[styled[0][0]]
    x_name, y_name = record.axes.get(name, ("", ""))
    x_name = x_name or name.partition(" over ")[2]
    timed = is_timed(name, x_name, (x for x, _ in first))
    log_x = not timed and by_factors(x for x, _ in first)
    what = x_name
    x_name = x_name or ("step" if timed else "x (not named in this record)")
    keys = [
        Key(
            _in_words(arm),
            ROLE_WORDS.get(role, ""),
            number(arms[arm][-1][1]) if timed else _at_best(arms[arm], best.get(what, {}).get(arm)),
            f"arm{style}",
        )
        for arm, role, style in styled
    ]
    left = len(arms) - len(styled)
    notes = [note, f"{left} more {'arm is' if left == 1 else 'arms are'} not drawn." if left > 0 else ""]
    return Chart(
        sentence(f"{name.partition(' over ')[0] if not y_name else name}"),
        keys,
        _picture(shown, x_name, log_x=log_x, dots=not timed, title=name),
        _better(record, name),
        " ".join(filter(None, notes)),
    )


def _in_words(arm: str) -> str:
    """Text such as `layer norm at 32` for `layer norm@32`, an arm at one of its levels."""
    return arm.replace("@", " at ") or "value"


def _at_best(points: Points, best: float | None) -> str:
    """Text such as `best 0.159 at 0.02`; "" if the run did not choose a point."""
    found = next((y for x, y in points if best is not None and math.isclose(x, best, rel_tol=1e-3)), None)
    return "" if found is None or best is None else f"best {number(found)} at {number(best)}"


def thinned(points: Points) -> list[tuple[float, float]]:
    """The curve, reduced to at most 60 points by averaging neighbours."""
    size = math.ceil(len(points) / _POINTS)
    if size == 1:
        return list(points)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]


def _picture(
    styled: Mapping[str, tuple[int, Points]], x_name: str, *, log_x: bool, dots: bool, title: str
) -> Drawn:
    """The plot. dots: whether to mark each point, for example each setting that was tried."""
    arms = {arm: points for arm, (_, points) in styled.items()}
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
    for arm, points in reversed(thin.items()):
        path = " ".join(f"{across(x):.0f},{up(y):.0f}" for x, y in points)
        lines.append(
            element(
                "polyline", class_=f"arm{styled[arm][0]}", vector_effect="non-scaling-stroke", points=path
            )
        )
    marks = [
        element("circle", class_=f"tried{styled[arm][0]}", r=3.5,
                cx=percent(_LEFT + (100 - _LEFT) * across(x) / 1000), cy=_TOP + up(y) / 1000 * _HEIGHT)
        for arm, points in reversed(thin.items()) if dots for x, y in points
    ]  # fmt: skip
    bottom = _TOP + _HEIGHT
    where = ", ".join(filter(None, [x_name, "log scale" if across.log else ""]))
    told = "; ".join(
        f"{_in_words(arm)} from {number(points[0][1])} to {number(points[-1][1])}"
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
        *marks,
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


def pairs(record: Record, roles: Mapping[str, str], most: int = 3) -> list[Chart]:
    """Charts of metrics for two arms, such as `errors, hum` and `errors, echo`: one line per metric and one
    dot per arm.
    """
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for (name, arm), value in record.values.items():
        head, comma, tail = name.partition(", ")
        if comma and arm and abs(value) < _FAR:
            groups.setdefault(head, {}).setdefault(tail, {})[arm] = value
    charts = []
    for head, rows in groups.items():
        arms = _styled((arm for row in rows.values() for arm in row), roles)[:2]
        full = {tail: row for tail, row in rows.items() if all(arm in row for arm, _, _ in arms)}
        if len(arms) == 2 and len(full) >= 3:
            better = _better(record, head, *(f"{head}, {tail}" for tail in rows))
            charts.append(_pair_chart(head, full, arms, better))
    return charts[:most]


def _pair_chart(
    head: str, rows: Mapping[str, Mapping[str, float]], styled: Sequence[tuple[str, str, int]], better: str
) -> Chart:
    arms = [arm for arm, _, _ in styled]
    # The paper's dot is filled, and a control's is hollow.
    filled = next((index for index, (_, _, style) in enumerate(styled) if style == 0), 0)
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
            parts.append(
                element("circle", class_=f"pair{int(number_ != filled)}", cx=percent(place), cy=y, r=6)
            )
            parts.append(
                text(number(row[arm]), x=percent(place), dx=11 if right else -11, y=y + 4.5,
                     text_anchor="start" if right else "end")
            )  # fmt: skip
    told = "; ".join(
        f"{tail}: " + ", ".join(f"{arm} {number(row[arm])}" for arm in arms) for tail, row in rows.items()
    )
    keys = [
        Key(arm, ROLE_WORDS.get(role, ""), "", f"pair{int(index != filled)}")
        for index, (arm, role, _) in enumerate(styled)
    ]
    picture = element(
        "svg", *parts, class_="curve", width="100%", height=12 + 44 * len(rows), role="img",
        aria_label=f"{head}: {told}",
    )  # fmt: skip
    return Chart(sentence(head), keys, picture, better)
