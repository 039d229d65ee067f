"""Benchmarks for the report: the setting shown on a paper's page, and all papers against their strongest
rivals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from readtrack.bench.judge import Speedup
from readtrack.bench.profile import standings
from readtrack.claims import Claim
from readtrack.present.benchmarks import VariantView, measured
from readtrack.report.privacy import Discretion
from readtrack.report.words import number, sentence
from readtrack.runs.record import Record
from readtrack.svg import Drawn, Scale, element, percent, text

_OURS = ("paper", "paper compiled")
_ROLES = {"paper": "the paper", "paper compiled": "the paper, compiled"}
_HEIGHT = 220  # size of the profile in pixels


@dataclass(frozen=True, slots=True)
class VariantLine:
    """A variant in a table. bar: its share of the ceiling."""

    name: str
    role: str
    time: str
    half: str
    naive: str
    strong: str
    bar: Drawn
    ceiling: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One case at one point in one mode. others: number of settings that are not shown."""

    point: str
    machine: str
    day: str
    contended: bool
    rows: list[VariantLine]
    others: int


def setting(record: Record, claims: Sequence[Claim], tell: Discretion) -> Setting | None:
    """The setting in which a claim is judged, or the slowest one. None if nothing was timed."""
    groups: dict[tuple[Any, ...], list[VariantView]] = {}
    events: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for event in record.measurements:
        one = measured(event)
        key = (one.case, tuple(one.axes.items()), one.mode, one.dtype)
        groups.setdefault(key, []).append(one)
        events.setdefault(key, event)
    timed = {key: rows for key, rows in groups.items() if any(row.nanoseconds for row in rows)}
    if not timed:
        return None
    asked = [bound for claim in claims for bound in claim.timed if isinstance(bound, Speedup)]
    judged = [key for key in timed for bound in asked if _is_at(events[key], bound)]
    key = next(iter(judged), None) or max(timed, key=lambda key: max(r.nanoseconds or 0 for r in timed[key]))
    rows = sorted(timed[key], key=lambda row: row.nanoseconds or math.inf)
    facts = record.environment
    device = str(facts.get("device_name") or facts.get("device") or "")
    where = ", ".join(filter(None, [device, _threads(facts)]))
    return Setting(
        point=sentence(tell.line(rows[0].point)),
        machine=tell.line(where),
        day=tell.line(record.started[:10]),
        contended=any("contended" in row.flags for row in rows),
        rows=[_line(row, tell) for row in rows],
        others=len(groups) - 1,
    )


def _threads(facts: Mapping[str, Any]) -> str:
    count = facts.get("threads")
    return f"{count} thread{'' if count == 1 else 's'}" if count else ""


def _is_at(event: Mapping[str, Any], bound: Speedup) -> bool:
    axes = event.get("axes")
    same = event.get("case") == bound.case and event.get("mode") == bound.mode
    return same and isinstance(axes, Mapping) and all(axes.get(k) == v for k, v in bound.axes.items())


def _line(row: VariantView, tell: Discretion) -> VariantLine:
    share = min(100.0, row.ceiling or 0.0)
    kind = "bar" if row.role in _OURS else "other"
    marks = [
        element("rect", width="100%", height=9),
        element("rect", class_=kind, width=percent(share), height=9),
    ]
    bar = element("svg", *marks, class_="barb", width=90, height=9, aria_hidden="true")
    return VariantLine(
        name=tell.line(row.name),
        role=_ROLES.get(row.role, "") if row.role in _OURS else tell.line(row.role),
        time=row.time or f"no time: {tell.line(row.missing)}",
        half=row.half,
        naive=row.naive.text if row.naive else "",
        strong=row.strong.text if row.strong else "",
        bar=bar if row.ceiling is not None else Drawn(""),
        ceiling=f"{row.ceiling:.0f} %" if row.ceiling is not None else "",
    )


# All papers


@dataclass(frozen=True, slots=True)
class Against:
    """A paper's fastest variant over all measured settings.

    strong, closeness  medians over the settings; closeness is None if unknown
    least, most        the range of `strong`
    contended          other programs used the machine in most settings, so the times do not count
    """

    paper: str
    settings: int
    strong: float
    least: float
    most: float
    closeness: float | None
    contended: bool


def against(record: Record) -> Against | None:
    """The summary of a record; None if the paper's variant has no rival with a time."""
    found = standings([record])
    if not found:
        return None
    speeds = [one.speed for one in found]
    close = [one.closeness for one in found if one.closeness is not None]
    return Against(
        paper=record.paper,
        settings=len(found),
        strong=median(speeds),
        least=min(speeds),
        most=max(speeds),
        closeness=median(close) if close else None,
        contended=2 * sum(one.contended for one in found) > len(found),
    )


def profile(found: Sequence[Against]) -> Drawn:
    """A plot of how many papers are at least p times as fast as their strongest rival, against p."""
    ratios = sorted((one.strong for one in found), reverse=True)
    low, high = min(0.5, ratios[-1] / 1.1), max(4.0, ratios[0] * 1.1)
    across = Scale(low, high, 8, 100, log=True)
    up = Scale(0, len(ratios), _HEIGHT, 16)
    marks: list[str] = []
    for tick in _ticks(low, high):
        x = percent(across(tick))
        kind = "asked" if tick == 1 else "grid"
        marks.append(element("line", class_=kind, x1=x, x2=x, y1=16, y2=_HEIGHT))
        marks.append(text(f"{number(tick)}×", x=x, y=_HEIGHT + 17, text_anchor="middle"))
    for count in sorted({len(ratios), len(ratios) // 2} - {0}):
        marks.append(element("line", class_="grid", x1="8%", x2="100%", y1=up(count), y2=up(count)))
        marks.append(text(str(count), x="7%", y=up(count) + 4, text_anchor="end"))
    steps, before = [], low
    for index, ratio in reversed(list(enumerate(ratios))):
        steps.append((before, ratio, index + 1))
        before = ratio
    for start, end, count in steps:
        y = up(count)
        a, b = percent(across(start)), percent(across(end))
        marks.append(element("line", class_="arm0", x1=a, x2=b, y1=y, y2=y))
        marks.append(element("line", class_="arm0", x1=b, x2=b, y1=y, y2=up(count - 1)))
    faster = sum(ratio >= 1 for ratio in ratios)
    told = f"{faster} of {len(ratios)} papers are at least as fast as their strongest rival."
    return element(
        "svg", *marks, class_="curve", width="100%", height=_HEIGHT + 26, role="img", aria_label=told
    )


def _ticks(low: float, high: float) -> Iterable[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [tick for tick in every if low <= tick <= high]


def nearness(one: Against) -> Drawn:
    """Closeness from 0 to 1 on a line, with the rival in the middle and the machine's limit on the right."""
    marks: list[str] = [
        element("line", class_="grid", x1="0", x2="100%", y1=9, y2=9),
        element("line", class_="even", x1="50%", x2="50%", y1=2, y2=16),
    ]
    if one.closeness is not None:
        marks.append(element("circle", class_="pair1" if one.contended else "pair0",
                             cx=percent(3 + 94 * min(1.0, max(0.0, one.closeness))), cy=9, r=5))  # fmt: skip
    return element("svg", *marks, width="100%", height=18, aria_hidden="true")
