"""The threshold and measured effect of each bound in a rule. Earlier verdicts store numbers as text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from readtrack.bench.judge import Growth, Speedup
from readtrack.claims import Bound, Op
from readtrack.effects import Effect
from readtrack.report.words import number
from readtrack.signs import relation
from readtrack.verdict_table import VerdictRow
from readtrack.verdicts import equal_at

_NUMBER = r"(?:nan|-?inf|-?[\d,]*\.?\d+(?:e[+-]?\d+)?)"
_VALUE = re.compile(rf" (≥ )?({_NUMBER})(?: \(({_NUMBER}) to ({_NUMBER})\))?(?=;|,|$)")
_ROLES = {"paper": "the paper", "naive": "the naive version", "strong": "the strong rival"}
Way = Literal["interval", "range", "one"]


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Parsed numbers of a text such as `gain ≥ 0.3 (0.2 to 0.4)`. at_least: the mean is a lower limit."""

    mean: float
    low: float
    high: float
    at_least: bool


@dataclass(frozen=True, slots=True)
class Tried:
    """The outcome of a bound in a null run or with a break. role: "" for a null run."""

    name: str
    role: str
    verdict: str
    said: NumberRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A bound of a rule with the measured results.

    label     the metric in words
    effect    as in `readtrack.effects`; low and high are a range or an interval, according to `way`
    dots      its value for each seed
    missing   number of seeds without a value
    rings     its value in the reader's own runs
    tried     the same bound in null runs and with breaks
    guard     the arm that clears the bound without the idea, so that the bound does not count; "" otherwise
    """

    label: str
    effect: Effect
    way: Way
    dots: tuple[float, ...] = ()
    missing: int = 0
    at_least: bool = False
    rings: tuple[float, ...] = ()
    tried: tuple[Tried, ...] = ()
    guard: str = ""

    @property
    def holds(self) -> bool:
        mean = self.effect.mean
        return mean is not None and Bound("", cast(Op, self.effect.op), self.effect.asked).holds(mean)

    @property
    def asked(self) -> str:
        """The threshold, such as `≥ 0.08`."""
        return f"{asked(self.effect.op, self.effect.asked)}{self.unit}"

    @property
    def unit(self) -> str:
        return "×" if self.effect.ratio else ""

    @property
    def even(self) -> str:
        """Label of the value at which the effect changes its sign."""
        equal = 1.0 if self.effect.ratio else 0.0
        return "no effect" if self.effect.even == equal else "weak from"

    @property
    def mean(self) -> str:
        return f"{'≥ ' if self.at_least else ''}{number(self.effect.mean, self.unit)}"

    @property
    def between(self) -> str:
        """The range, such as `0.121 to 0.197`; "" if there is only a mean."""
        low, high = self.effect.low, self.effect.high
        if self.way == "one" or low is None or high is None or low == high:
            return ""
        return f"{number(low)} to {number(high)}"

    @property
    def told(self) -> str:
        """The effect as a sentence, for screen readers."""
        spread = f", {'95 % interval' if self.way == 'interval' else 'range'} {self.between}"
        guard = f" It does not count: {self.guard} clears it." if self.guard else ""
        mean = f"{self.mean}{spread if self.between else ''}"
        return f"{self.label}: mean {mean}; the rule requires {self.asked}.{guard}"

    @property
    def scaled(self) -> tuple[float, float, float] | None:
        return self.effect.scaled


def asked(op: str, threshold: float) -> str:
    """The threshold, such as `≥ 0.08`."""
    return f"{relation(op)} {number(threshold)}"


def said(words: str, metric: str) -> NumberRange | None:
    """Parse a metric's numbers from `words`, the text in `Judged.ours` or a run's `ours`."""
    at = words.find(metric)
    while at >= 0:
        found = _VALUE.match(words, at + len(metric))
        if found and (at == 0 or words[at - 2 : at] in ("; ", ", ")):
            mean = _float(found[2])
            low, high = (_float(found[3]), _float(found[4])) if found[3] else (mean, mean)
            return NumberRange(mean, low, high, bool(found[1]))
        at = words.find(metric, at + 1)
    return None


def _float(text: str) -> float:
    return float(text.replace(",", ""))


def found(row: VerdictRow, own: Sequence[Mapping[str, float]] = ()) -> list[Found]:
    """The bounds of a claim's rule with results: the bound closest to failing first, guards last.

    own  metric to value in each of the reader's own runs of the paper
    """
    seen = [_found(row, bound, own) for bound in row.claim.rule]
    return sorted(seen, key=lambda one: (bool(one.guard), one.scaled[0] if one.scaled else math.inf))


def _found(row: VerdictRow, bound: Bound | Speedup | Growth, own: Sequence[Mapping[str, float]]) -> Found:
    effect, way = _effect(row, bound)
    words = said(row.ours, bound.metric)
    column = row.values.get(bound.metric, ())
    there = [value for value in column if value is not None and math.isfinite(value)]
    rings = [run[bound.metric] for run in own if math.isfinite(run.get(bound.metric, math.nan))]
    missed = effect.mean is None or not Bound("", bound.op, bound.threshold).holds(effect.mean)
    return Found(
        label=label(bound),
        effect=effect,
        way=way,
        dots=tuple(there),
        missing=len(column) - len(there),
        at_least=words is not None and words.at_least,
        rings=tuple(rings),
        tried=tuple(_tried(row, bound.metric)),
        guard="" if missed else row.guards.get(str(bound), ""),
    )


def _effect(row: VerdictRow, bound: Bound | Speedup | Growth) -> tuple[Effect, Way]:
    """The row's effect, or one parsed from its text."""
    kept = next((one for one in row.effects if _is_of(one, bound)), None)
    if kept is not None and kept.mean is not None:
        return kept, "interval"
    ratio = isinstance(bound, Speedup) or (isinstance(bound, Bound) and bound.ratio)
    empty = Effect(bound.metric, bound.op, bound.threshold, equal_at(bound), ratio, None, None, None)
    words = said(row.ours, bound.metric)
    if words is None:
        return empty, "one"
    way: Way = "range" if isinstance(bound, Bound) else "interval"
    return empty._replace(mean=words.mean, low=words.low, high=words.high), way


def _is_of(effect: Effect, bound: Bound | Speedup | Growth) -> bool:
    return (effect.metric, effect.op, effect.asked) == (bound.metric, bound.op, bound.threshold)


def _tried(row: VerdictRow, metric: str) -> Iterator[Tried]:
    """The null run, then the rivals and the other breaks."""
    roles = {one.name: one.role for one in row.claim.breaks}
    ordered = sorted(row.breaks, key=lambda name: roles.get(name) != "rival")
    runs = [("null run", "", row.null), *((name, roles.get(name, ""), row.breaks[name]) for name in ordered)]
    for name, role, verdict in runs:
        words = said(row.numbers.get(name, ""), metric)
        if verdict is not None and words is not None:
            yield Tried(name, role, verdict, words)


def label(bound: Bound | Speedup | Growth) -> str:
    """The metric, and a benchmark's setting, in words."""
    if isinstance(bound, Bound):
        return bound.metric.replace(" - ", " − ")
    axes = ((k, v) for k, v in bound.axes.items() if v is not False)
    mode = [] if bound.mode == "until" else [bound.mode]
    at = ", ".join([*(k if v is True else f"{k} {number_or_text(v)}" for k, v in axes), *mode])
    at = f" ({at})" if at else ""
    of = _ROLES.get(bound.of, bound.of)
    if isinstance(bound, Speedup):
        ours = "" if bound.of == "paper" else f" of {of}"
        return f"speed{ours} over {_ROLES.get(bound.over, bound.over)}, {bound.case}{at}"
    return f"{bound.case}: exponent of {of}’s {bound.what} over {bound.axis}{at}"


def number_or_text(value: object) -> str:
    return number(float(value)) if isinstance(value, int | float) else str(value)
