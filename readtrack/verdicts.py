"""Judging over seeds: a paper's claims after several runs, and the verdict that may be said of each.

Five seeds, hashed from the rules, judge a measured claim. A bound is cleared when the mean over the seeds
clears it with 95 % one-sided confidence, or when every seed does; it is missed in the same way on the other
side.

- `reproduced`: every bound is cleared;
- `weak`: the metrics that are not cleared are as surely on the paper's side of `direction`;
- `not reproduced`: some bound is surely missed, and its direction is not as sure;
- `inconclusive`: the seeds do not decide;
- `not judged`: a run failed, or the control did not reach what it must.

If exactly one seed of the five dissents, five more are drawn, and nine of the ten must agree. An identity or
a theorem is `held` or `missed`, with every seed, or not judged where what it is compared with is not there.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, mean, stdev
from typing import Any, Literal, NamedTuple

from readtrack.bench import judge as timing
from readtrack.bench.judge import Found, Growth, Speedup
from readtrack.claims import Bound, Claim, Held, Op
from readtrack.text import format_number

Verdict = Literal["held", "missed", "reproduced", "weak", "inconclusive", "not reproduced", "not judged"]
_Side = Literal["cleared", "right way", "missed", "undecided"]

SEEDS = 5
MORE_SEEDS = 10  # when one of the five dissents
_AGREE = 9  # of the ten
_SMALLEST = 1_000  # small seeds are for exploring
_DRAWS = 400  # of five other seeds, for the chance of another verdict

# Student's t, one-sided 95 %, by degrees of freedom from 1.
_T95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)


class Spread(NamedTuple):
    """One metric over the seeds. A seed without the number makes the mean NaN; the range leaves it out.
    What the benchmark measured has its value and the 95 % interval in their places.

    ratio    the mean is the geometric one
    at_least some seed gave a lower limit only
    """

    metric: str
    mean: float
    low: float
    high: float
    ratio: bool = False
    at_least: bool = False

    def __str__(self) -> str:
        middle, low, high = map(format_number, (self.mean, self.low, self.high))
        sign = "≥ " if self.at_least else ""
        spread = "" if low == high == middle else f" ({low} to {high})"
        return f"{self.metric} {sign}{middle}{spread}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim and what became of it over the seeds.

    seeds      those that decided; `held` of them held by themselves
    numbers    every metric that the runs gave for the claim
    why        why there is no better verdict, where that is not plain from the numbers
    edges      arms whose best value lay at the edge of the grid, with some seed
    margins    each bound of the rule, in terms of its own margin, with the margins of the seeds; empty where
               some metric has no finite one
    """

    paper: str
    claim: Claim
    verdict: Verdict
    seeds: tuple[int, ...]
    held: int
    numbers: tuple[Spread, ...]
    why: str = ""
    edges: tuple[str, ...] = ()
    margins: tuple[tuple[Bound, tuple[float, ...]], ...] = ()

    @property
    def ours(self) -> str:
        return "; ".join(map(str, self.numbers))

    def otherwise(self) -> float | None:
        """The chance that five other seeds say something else; None where that cannot be told.

        How often draws from normal distributions, as uncertain as ours, come out with another verdict; the
        bounds are drawn independently of each other.
        """
        if not self.margins or self.verdict == "not judged":
            return None
        draw = random.Random(0)
        found = [
            _verdict([_side(bound, _another(draw, margins)) for bound, margins in self.margins])
            for _ in range(_DRAWS)
        ]
        return sum(verdict != self.verdict for verdict in found) / _DRAWS


class _Seed(NamedTuple):
    """What one run said of a claim."""

    values: Mapping[str, float]
    at_least: tuple[str, ...]
    held: Held
    why: str


def rule_seeds(claims: Sequence[Claim], count: int) -> list[int]:
    """The seeds that judge a paper: hashed from its rules, so that who changes a rule changes its seeds.

    Names, metrics, signs and thresholds count, prose does not. The first five of ten are the five.
    """
    rules = sorted(
        f"{claim.name}|{claim.kind}|{bound.metric}|{bound.op}|{bound.threshold!r}|{bound.direction!r}"
        for claim in claims
        for bound in (*claim.rule, *claim.guards, *claim.control_reaches)
    )
    digest = "\n".join(rules)
    return [_SMALLEST + _hash(f"{digest}\n{index}") % 10**9 for index in range(count)]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def judge_over_seeds(
    paper: str,
    stated: Mapping[int, Sequence[Mapping[str, Any]] | None],
    measurements: Sequence[Mapping[str, Any]] = (),
) -> list[Judged]:
    """Judge a paper's claims from the `claim` events of its runs: seed to events, None if the run failed.

    stated        in the order of the seeds: the first five decide, the others where one dissents
    measurements  of a run of the benchmark, for claims on time and memory
    With a failed run no verdict is passed: the seeds that completed may be the lucky ones. A claim that a
    completed run did not state counts as all NaN there.
    """
    names = dict.fromkeys(str(event["claim"]["name"]) for said in stated.values() for event in said or ())
    return [_judge_claim(paper, name, stated, measurements) for name in names]


def needs_more(judged: Sequence[Judged]) -> bool:
    """Whether five more seeds are to be drawn: one of the five dissents."""
    return any(one.claim.kind == "measured" and _one_dissents(one.held, len(one.seeds)) for one in judged)


def _one_dissents(held: int, count: int) -> bool:
    return count == SEEDS and held in (1, SEEDS - 1)


def _judge_claim(
    paper: str,
    name: str,
    stated: Mapping[int, Sequence[Mapping[str, Any]] | None],
    measurements: Sequence[Mapping[str, Any]],
) -> Judged:
    events = {
        seed: next((event for event in said if event["claim"]["name"] == name), None)
        for seed, said in stated.items()
        if said is not None
    }
    claim = Claim.from_json(next(event for event in events.values() if event is not None)["claim"])
    seeds = {seed: _seed(claim, event) for seed, event in events.items()}
    failed = [seed for seed, said in stated.items() if said is None]
    other_rule = any(
        e is not None and _rule(Claim.from_json(e["claim"])) != _rule(claim) for e in events.values()
    )
    if claim.kind == "measured":
        first = dict(list(seeds.items())[:SEEDS])
        if not (len(seeds) > SEEDS and _one_dissents(_held(first), len(first))):
            seeds = first
    timed = [(bound, timing.judge(bound, measurements)) for bound in claim.timed]
    verdict: Verdict
    why = ""
    if failed:
        verdict, why = "not judged", f"no completed run with seed {', '.join(map(str, failed))}"
    elif other_rule:
        verdict, why = "not judged", "the rule differs between seeds"
    elif claim.kind != "measured":
        found = {seed.held for seed in seeds.values()}
        verdict = "missed" if "missed" in found else "not judged" if "not judged" in found else "held"
        why = next((seed.why for seed in seeds.values() if seed.why), "")
    else:
        verdict, why = _over_seeds(claim, list(seeds.values()), timed)
    return Judged(
        paper=paper,
        claim=claim,
        verdict=verdict,
        seeds=tuple(seeds),
        held=_held(seeds),
        numbers=(*_spreads(claim, list(seeds.values())), *_timed_spreads(timed)),
        why=why,
        edges=tuple(dict.fromkeys(edge for e in events.values() if e for edge in e.get("edges", ()))),
        margins=_all_margins(claim, list(seeds.values())) if claim.kind == "measured" else (),
    )


def _seed(claim: Claim, event: Mapping[str, Any] | None) -> _Seed:
    if event is None:
        return _Seed({}, (), "missed", "the run did not report it")
    at_least = tuple(event.get("at_least", ()))
    values = {
        metric: math.nan if value is None else float(value) for metric, value in event["values"].items()
    }
    return _Seed(values, at_least, *claim.judge(values, at_least))


def _held(seeds: Mapping[int, _Seed]) -> int:
    return sum(seed.held == "held" for seed in seeds.values())


def _rule(claim: Claim) -> tuple[object, ...]:
    return claim.rule, claim.kind, claim.guards, claim.control_reaches


def _over_seeds(
    claim: Claim, seeds: Sequence[_Seed], timed: Sequence[tuple[Speedup | Growth, Found]]
) -> tuple[Verdict, str]:
    """The verdict of a measured claim."""
    if guard := next((seed.why for seed in seeds if seed.held == "missed" and seed.why), ""):
        return "not judged", guard
    without_control = [seed for seed in seeds if seed.held == "not judged"]
    if len(without_control) > 1:
        return "not judged", f"{without_control[0].why} ({len(without_control)} of {len(seeds)} seeds)"
    if len(seeds) < SEEDS:
        if _settled(claim, seeds):
            return "not reproduced", f"settled by {len(seeds)} seeds"
        return "not judged", f"{len(seeds)} of {SEEDS} seeds have run"
    held = sum(seed.held == "held" for seed in seeds)
    if len(seeds) == MORE_SEEDS and _AGREE > held > MORE_SEEDS - _AGREE:
        return "inconclusive", f"{held} of {MORE_SEEDS} seeds held"
    sides = [
        _side(bound, [bound.value(seed.values, seed.at_least) for seed in seeds]) for bound in claim.bounds
    ]
    for bound, found in timed:
        if found.obstacle:
            return "not judged", f"{bound.metric}: {found.obstacle}"
        sides.append(_timed_side(bound, found))
    return _verdict(sides), ""


def _timed_side(bound: Speedup | Growth, found: Found) -> _Side:
    """A benchmark brings its own interval: it decides with all of it, or not at all."""
    verdict = found.verdict(bound)
    if verdict == "held":
        return "cleared"
    if bound.direction is not None:
        towards = replace(bound, threshold=bound.direction)
        if found.verdict(towards) == "held":
            return "right way"
    return "missed" if verdict == "missed" else "undecided"


def _verdict(sides: Sequence[_Side]) -> Verdict:
    if "missed" in sides:
        return "not reproduced"
    if "undecided" in sides:
        return "inconclusive"
    return "weak" if "right way" in sides else "reproduced"


def _side(bound: Bound, values: Sequence[float]) -> _Side:
    allowed = 1 if len(values) == MORE_SEEDS else 0
    if _sure(bound, values, bound.threshold, allowed) > 0:
        return "cleared"
    # An arm that equals its control goes no way at all.
    strictly: Op = ">" if bound.op == ">=" else "<" if bound.op == "<=" else bound.op
    if (
        bound.direction is not None
        and _sure(replace(bound, op=strictly), values, bound.direction, allowed) > 0
    ):
        return "right way"
    return "missed" if _sure(bound, values, bound.threshold, allowed) < 0 else "undecided"


def _sure(bound: Bound, values: Sequence[float], threshold: float, allowed: int) -> int:
    """1 when the values surely pass `threshold`, -1 when they surely do not, else 0.

    allowed  how many values may dissent where all others agree
    """
    as_if = Bound(bound.metric, bound.op, threshold)
    passed = sum(map(as_if.holds, values))
    if passed >= len(values) - allowed:
        return 1
    if passed <= allowed:
        return -1
    margins = _margins(bound, values, threshold)
    if margins is None:
        return 0
    error = stdev(margins) / math.sqrt(len(margins))
    needed = _t95(len(margins) - 1) * error
    middle = fmean(margins)
    return 1 if middle > needed else -1 if middle < -needed else 0


def _margins(bound: Bound, values: Sequence[float], threshold: float) -> list[float] | None:
    """How far each value lies on the right side of the threshold; None where a mean says nothing."""
    if bound.op == "==" or not all(map(math.isfinite, values)):
        return None
    sign = 1.0 if bound.op in (">=", ">") else -1.0
    if bound.ratio:
        if threshold <= 0 or min(values) <= 0:
            return None
        return [sign * math.log(value / threshold) for value in values]
    return [sign * (value - threshold) for value in values]


def _t95(freedom: int) -> float:
    return _T95[freedom - 1] if freedom <= len(_T95) else 1.645 + 1.7 / freedom


def settled(claim: Claim, events: Sequence[Mapping[str, Any] | None]) -> bool:
    """Whether no further seed of the five can make `claim` reproduced: three of them miss one bound.

    Then the mean cannot clear it either: with three margins of five at or below zero it is less than 2.13
    standard errors above zero, whatever the other two are.
    """
    return _settled(claim, [_seed(claim, event) for event in events])


def _settled(claim: Claim, seeds: Sequence[_Seed]) -> bool:
    """Two seeds whose control failed settle it too: it is not judged."""
    judged = [seed for seed in seeds if seed.held != "not judged"]
    return len(seeds) - len(judged) > 1 or any(
        sum(not bound.holds(bound.value(seed.values, seed.at_least)) for seed in judged) >= 3
        for bound in claim.bounds
    )


def _all_margins(claim: Claim, seeds: Sequence[_Seed]) -> tuple[tuple[Bound, tuple[float, ...]], ...]:
    columns = []
    for bound in claim.bounds:
        margins = _margins(bound, [bound.value(s.values, s.at_least) for s in seeds], bound.threshold)
        if margins is None or len(margins) < SEEDS or claim.timed:
            return ()
        columns.append((_relative(bound), tuple(margins)))
    return tuple(columns)


def _relative(bound: Bound) -> Bound:
    """The bound in terms of its own margin."""
    direction = None
    if bound.direction is not None:
        margins = _margins(bound, [bound.direction], bound.threshold)
        direction = margins[0] if margins else None
    return Bound(bound.metric, ">=", 0.0, direction)


def _another(draw: random.Random, margins: Sequence[float]) -> list[float]:
    """Margins of five other seeds: the mean and the spread are uncertain, too."""
    count = len(margins)
    sigma = stdev(margins) * math.sqrt((count - 1) / draw.gammavariate((count - 1) / 2, 2))
    centre = draw.gauss(fmean(margins), sigma / math.sqrt(count))
    return [draw.gauss(centre, sigma) for _ in range(SEEDS)]


def _spreads(claim: Claim, seeds: Sequence[_Seed]) -> tuple[Spread, ...]:
    ratios = {bound.metric for bound in claim.bounds if bound.ratio}
    spreads = []
    for metric in dict.fromkeys(metric for seed in seeds for metric in seed.values):
        column = [seed.values.get(metric, math.nan) for seed in seeds]
        there = [value for value in column if not math.isnan(value)] or [math.nan]
        geometric = metric in ratios and all(math.isfinite(value) and value > 0 for value in column)
        # `mean` is exactly rounded, so that the mean of equal numbers is that number.
        middle = math.exp(fmean(map(math.log, column))) if geometric else mean(column)
        limited = any(metric in seed.at_least for seed in seeds)
        spreads.append(Spread(metric, middle, min(there), max(there), geometric, limited))
    return tuple(spreads)


def _timed_spreads(timed: Sequence[tuple[Speedup | Growth, Found]]) -> Iterator[Spread]:
    for bound, found in timed:
        if not found.obstacle:
            yield Spread(bound.metric, found.value, found.low, found.high, ratio=True)
