"""Verdicts on a paper's claims over the seeds of several runs.

Measured claims are judged on seeds that are derived from a hash of the rules. `readtrack.procedure` looks at
the first 5, 10 and 20 of them; a claim that is decided at a look needs no further seeds.

- `reproduced`: every bound is cleared;
- `not specific`: every bound is cleared, but also by a rival in place of the paper's arm;
- `weak`: the bounds that are not cleared significantly pass their `direction`;
- `not reproduced`: some bound is significantly missed, and does not significantly pass its direction;
- `inconclusive`: twenty seeds do not decide;
- `not judged`: a run failed; or on more than a fifth of the seeds, the control did not pass its bounds or
too few items were judged; or this happened to a rival, although the claim is reproduced.

An identity or a theorem is `held` or `missed`, on all seeds, or not judged if there is nothing to compare
with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, mean
from typing import Any, Literal, NamedTuple

from readtrack.bench import judge as timing
from readtrack.bench.judge import BoundEstimate, Growth, Speedup
from readtrack.claims import Bound, Claim, Held
from readtrack.effects import Effect
from readtrack.procedure import (
    LOOKS,
    PROCEDURE,
    Column,
    Look,
    Side,
    chance_of_another,
    decided,
    interval,
    mean_interval,
    sides,
    summary,
)
from readtrack.text import counted, format_number

Verdict = Literal[
    "held",
    "missed",
    "reproduced",
    "not specific",
    "weak",
    "inconclusive",
    "not reproduced",
    "not judged",
]

# The verdicts of null runs and of runs with a break, in words. Such runs should fail the rule.
OUTCOMES: dict[str, str] = {
    "reproduced": "passes the rule",
    "not specific": "passes the rule",
    "weak": "an effect, not clearly as large as required",
    "inconclusive": "undecided",
    "not reproduced": "fails the rule",
    "not judged": "not judged",
    "held": "passes the rule",
    "missed": "fails the rule",
}

# The kinds of null runs: separate pipelines, a coin flip for each judged item, pipelines one of which counts
# as worse by the threshold, or times.
NullKind = Literal["pipelines", "items", "as good as", "times"]

_SMALLEST = 1_000  # smaller seeds are reserved for exploration
_CONTROL_FAILS = 5  # one seed in this many may have a failed control


class Spread(NamedTuple):
    """One metric over the seeds that gave a number; the mean is NaN if none did.

    For benchmark bounds, mean, low and high are the value and its 95 % interval.

    ratio    the mean is geometric
    at_least some seed gave only a lower bound
    missing  number of seeds without a number
    """

    metric: str
    mean: float
    low: float
    high: float
    ratio: bool = False
    at_least: bool = False
    missing: int = 0

    def __str__(self) -> str:
        middle, low, high = map(format_number, (self.mean, self.low, self.high))
        sign = "≥ " if self.at_least else ""
        spread = "" if low == high == middle else f" ({low} to {high})"
        missing = f", no number with {counted(self.missing, 'seed')}" if self.missing else ""
        return f"{self.metric} {sign}{middle}{spread}{missing}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim and its outcome over the seeds.

    seeds      the seeds that decided; `held` of them held individually
    numbers    every metric of the runs for the claim
    values     each metric's values by seed
    columns    for each bound of the rule, its values by seed
    effects    for a measured claim, the threshold and result of each bound
    wants      number of seeds that the verdict needs; more than the length of `seeds` while it is open
    why        why the verdict is not better, if the numbers do not show it
    edges      arms whose best value was at the edge of the grid for some seed
    null_kind  for null runs: what they redraw
    sides      the state of each bound of the rule; bounds on time come last
    guards     bounds of the rule that are shown but not counted, with the arm that clears them anyway
    alike      for runs with a break: pairs of arms that are equal in every number, for each seed
    before     the verdict before rivals or longer runs changed it, or None
    """

    paper: str
    claim: Claim
    verdict: Verdict
    seeds: tuple[int, ...]
    held: int
    numbers: tuple[Spread, ...]
    values: Mapping[str, tuple[float, ...]]
    columns: Sequence[Column]
    effects: tuple[Effect, ...]
    wants: int
    why: str = ""
    edges: tuple[str, ...] = ()
    null_kind: NullKind = "pipelines"
    sides: tuple[Side, ...] = ()
    guards: Mapping[str, str] = field(default_factory=dict)
    alike: tuple[str, ...] = ()
    before: Verdict | None = None

    @property
    def ours(self) -> str:
        return "; ".join(map(str, self.numbers))

    def beside(self, broken: Mapping[str, Verdict]) -> Judged:
        """The claim compared with its rivals: `broken` has the verdict with each break by name."""
        if self.verdict == "weak":
            also = [name for name in self.claim.rivals if broken.get(name) in ("weak", "reproduced")]
            said = f"with a rival, too: {', '.join(also)}" if also else ""
            return replace(self, why="; ".join(filter(None, (self.why, said))))
        rivals = self.claim.rivals if self.verdict == "reproduced" else []
        if won := [name for name in rivals if broken.get(name) == "reproduced"]:
            why = f"{', '.join(won)} passes the rule, too"
            return replace(self, verdict="not specific", why=why, before=self.verdict)
        if unknown := [name for name in rivals if broken.get(name) == "not judged"]:
            why = f"a rival could not be judged: {', '.join(unknown)}"
            return replace(self, verdict="not judged", why=why)
        return self

    def guarded(self, untrained: Judged | None, null: Judged | None) -> Judged:
        """The claim judged without the bounds that are cleared even without the idea. These become `guards`.

        untrained  the claim with the paper's arm untrained; bounds cleared there are guards
        null       the claim in null runs, where every arm is the control; bounds cleared there that do not
                   compare arms are guards

        A bound that these runs do not clear still counts. If no other bound remains, the claim is not judged.
        """
        alone = [bound for bound in self.claim.bounds if not (bound.of and bound.of.how)]
        by_control = null.cleared() if null and null.null_kind in ("pipelines", "as good as") else []
        guards = {str(bound): "the control by itself" for bound in by_control if bound in alone}
        guards |= {str(bound): "the untrained arm" for bound in (untrained.cleared() if untrained else [])}
        if self.sides:
            cleared = set(map(str, self.cleared()))
            guards = {bound: who for bound, who in guards.items() if bound in cleared}
        found = replace(self, guards=guards)
        if not guards or not self.sides:
            return found
        bounds = [*self.claim.bounds, *self.claim.timed]
        counted = [side for bound, side in zip(bounds, self.sides, strict=True) if str(bound) not in guards]
        if not counted:
            who = " and ".join(dict.fromkeys(guards.values()))
            return replace(found, verdict="not judged", why=f"no bound counts: {who} clears each")
        verdict = summary(counted)
        return found if verdict == self.verdict else replace(found, verdict=verdict, why="")

    def cleared(self) -> list[Bound]:
        """The bounds on the experiment's numbers that these runs clear."""
        return [
            bound for bound, side in zip(self.claim.bounds, self.sides, strict=False) if side == "cleared"
        ]

    def after_more(self, longer: Judged | None) -> Judged:
        """The claim after the longer runs that its sentence requires (`Claim.after_steps`).

        It is inconclusive if the sign of an effect flips, that is, if the mean over those runs lies on the
        other side of equality.
        """
        if longer is None or self.verdict not in ("reproduced", "weak", "not specific"):
            return self
        turned = [column.bound.metric for column in longer.columns if _turned(column)]
        if not turned:
            return self
        why = f"with more steps its sign turns: {', '.join(turned)}"
        return replace(self, verdict="inconclusive", why=why, before=self.before or self.verdict)

    def otherwise(self) -> float | None:
        """The probability that another verification gives another verdict; None if unknown.

        Rivals and longer runs are taken to come out as they did.
        """
        if self.claim.kind != "measured" or self.claim.timed or self.verdict == "not judged":
            return None
        counted = [column for column in self.columns if str(column.bound) not in self.guards]
        return chance_of_another(counted, self.before or self.verdict)


class _Seed(NamedTuple):
    """One run's result for a claim."""

    values: Mapping[str, float]
    at_least: tuple[str, ...]
    held: Held
    why: str


def rule_seeds(claims: Sequence[Claim], count: int) -> list[int]:
    """The seeds on which a paper is judged: hashes of its rules and the procedure, so changing either
    changes them.

    Names, metrics, operators and thresholds count, prose does not. A smaller `count` gives a prefix of the
    same seeds.
    """
    rules = sorted(
        f"{name}|{claim.kind}|{bound.metric}|{bound.op}|{bound.threshold!r}|{bound.direction!r}"
        for claim in claims
        for name in [claim.seeded_as or claim.name]
        for bound in (*claim.rule, *claim.guards, *claim.conditions)
    )
    digest = "\n".join([f"procedure {PROCEDURE}", *rules])
    return [_SMALLEST + _hash(f"{digest}\n{index}") % 10**9 for index in range(count)]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def judge_over_seeds(
    paper: str,
    stated: Mapping[int, Sequence[Mapping[str, Any]] | None],
    benchmarks: Sequence[Sequence[Mapping[str, Any]]] = (),
) -> list[Judged]:
    """Judge a paper's claims from the `claim` events of its runs.

    stated        the events by seed, in order; None for a failed run. A claim is judged on the shortest
                  prefix of the seeds that decides
    benchmarks    the measurements of each benchmark run, for claims about time and memory

    If one of its runs failed, a claim is not judged, because the completed seeds may be the lucky ones. If a
    completed run did not state the claim, its values for that seed are NaN.
    """
    names = dict.fromkeys(str(event["claim"]["name"]) for said in stated.values() for event in said or ())
    return [_judge_claim(paper, name, stated, benchmarks) for name in names]


def judge_null_times(
    paper: str, claim: Claim, seeds: Sequence[int], benchmarks: Sequence[Sequence[Mapping[str, Any]]]
) -> Judged | None:
    """The verdict of benchmark null runs on a claim that only speed-ups decide; None for other claims.

    A bound that equal times satisfy is replaced by a test of whether one is significantly faster.
    """
    rule = tuple(
        replace(bound, threshold=1.0, direction=None) if bound.holds(1.0) else bound
        for bound in claim.timed
        if isinstance(bound, Speedup)
    )
    if claim.bounds or not rule or not benchmarks:
        return None
    alike = replace(claim, rule=rule, guards=(), control_reaches=(), learned=(), rival_variants=())
    stated = {seed: [{"claim": alike.to_json(), "values": {}}] for seed in seeds}
    return replace(judge_over_seeds(paper, stated, benchmarks)[0], null_kind="times")


def _judge_claim(
    paper: str,
    name: str,
    stated: Mapping[int, Sequence[Mapping[str, Any]] | None],
    benchmarks: Sequence[Sequence[Mapping[str, Any]]],
) -> Judged:
    events = {
        seed: next((event for event in said if event["claim"]["name"] == name), None)
        for seed, said in stated.items()
        if said is not None
    }
    claim = Claim.from_json(next(event for event in events.values() if event is not None)["claim"])
    every = {seed: _seed(claim, events[seed]) if seed in events else None for seed in stated}
    look = LOOKS[0]
    if claim.kind == "measured":
        look, every = _until_decided(claim, every)
    seeds = {seed: said for seed, said in every.items() if said is not None}
    timed = _timed(claim, "paper", benchmarks)
    rivals = {variant: _timed(claim, variant, benchmarks) for variant in claim.rival_variants}
    columns = _columns(claim, list(seeds.values()))
    of_seeds = [event for event in map(events.get, seeds) if event is not None]
    verdict: Verdict
    found: list[Side] = []
    if failed := [seed for seed, said in every.items() if said is None]:
        verdict, why = "not judged", f"no completed run with seed {', '.join(map(str, failed))}"
    elif any(_rule(Claim.from_json(event["claim"])) != _rule(claim) for event in of_seeds):
        verdict, why = "not judged", "the rule differs between seeds"
    elif claim.kind != "measured":
        verdict, why = _of_each(list(seeds.values()))
    elif why := _obstacle(list(seeds.values())):
        verdict = "not judged"
    elif len(seeds) < look.seeds:
        verdict, why = "not judged", f"{len(seeds)} of {look.seeds} seeds have run"
    else:
        verdict, why, found = _over_seeds(columns, look, timed)
        if verdict == "reproduced" and rivals:
            verdict, why = _beside_variants(rivals)
    return Judged(
        paper=paper,
        claim=claim,
        verdict=verdict,
        seeds=tuple(seeds),
        held=sum(seed.held == "held" for seed in seeds.values()),
        numbers=(
            *_spreads(claim, list(seeds.values())),
            *_timed_spreads({bound: found for one in (timed, *rivals.values()) for bound, found in one}),
        ),
        values=_values(list(seeds.values())),
        columns=columns,
        effects=_effects(columns, timed) if claim.kind == "measured" else (),
        wants=look.seeds,
        why=why,
        edges=tuple(dict.fromkeys(edge for event in of_seeds for edge in event.get("edges", ()))),
        null_kind=_null_kind(claim, of_seeds),
        sides=tuple(found),
        alike=_in_each([event.get("alike", ()) for event in of_seeds]),
    )


def _until_decided(claim: Claim, every: Mapping[int, _Seed | None]) -> tuple[Look, dict[int, _Seed | None]]:
    """The look that decides, or the first with too few seeds, and the seeds up to it."""
    for look in LOOKS:
        first = dict(list(every.items())[: look.seeds])
        there = [said for said in first.values() if said is not None]
        enough = len(there) == look.seeds
        if not enough or _obstacle(there) or decided(sides(_columns(claim, there), look)):
            break
    return look, first


def _seed(claim: Claim, event: Mapping[str, Any] | None) -> _Seed:
    if event is None:
        return _Seed({}, (), "missed", "the run did not report it")
    by_time = claim.timed and not claim.bounds  # judged only by the benchmark's own runs
    if event.get("verdict") == "not judged" and not event["values"] and not by_time:
        return _Seed({}, (), "not judged", str(event.get("why", "")))
    at_least = tuple(event.get("at_least", ()))
    values = {
        metric: math.nan if value is None else float(value) for metric, value in event["values"].items()
    }
    held, why = claim.judge(values, at_least)
    if (vague := event.get("vague")) and held != "not judged":
        held, why = "not judged", f"too few judged items: {'; '.join(vague)}"
    return _Seed(values, at_least, held, why)


def _in_each(said: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(one for one in (said[0] if said else ()) if all(one in other for other in said))


def _null_kind(claim: Claim, events: Sequence[Mapping[str, Any]]) -> NullKind:
    if any(event.get("null") == "items" for event in events):
        return "items"
    compared = [bound for bound in claim.bounds if bound.of and bound.of.how]
    as_good = [bound for bound in compared if bound.holds(1.0 if bound.ratio else 0.0)]
    return "as good as" if as_good and len(as_good) == len(compared) else "pipelines"


def _columns(claim: Claim, seeds: Sequence[_Seed]) -> list[Column]:
    return [
        Column(
            bound,
            tuple(bound.value(seed.values, seed.at_least) for seed in seeds),
            any(bound.metric in seed.at_least for seed in seeds),
        )
        for bound in claim.bounds
    ]


def _rule(claim: Claim) -> tuple[object, ...]:
    return claim.rule, claim.kind, claim.guards, claim.conditions


def _of_each(seeds: Sequence[_Seed]) -> tuple[Verdict, str]:
    """The verdict on an identity or a theorem: the worst over the seeds."""
    found = {seed.held for seed in seeds}
    verdict: Verdict = "missed" if "missed" in found else "not judged" if "not judged" in found else "held"
    return verdict, next((seed.why for seed in seeds if seed.why), "")


def _turned(column: Column) -> bool:
    """Whether the order of compared arms is reversed.

    The mean lies beyond the value of equal arms. If equal arms satisfy the bound or its direction, the mean
    lies beyond that instead.
    """
    bound = column.bound
    if bound.of is None or not bound.of.how:
        return False
    even = 1.0 if bound.ratio else 0.0
    asked = [limit for limit in (bound.threshold, bound.direction) if limit is not None]
    satisfied = (limit for limit in asked if replace(bound, threshold=limit).holds(even))
    found = replace(column, bound=replace(bound, threshold=next(satisfied, even)))
    if found.margins is None:
        return 2 * sum(map(found.bound.holds, found.values)) < len(found.values)
    return fmean(found.margins) < 0


def _obstacle(seeds: Sequence[_Seed]) -> str:
    """Why a measured claim cannot be judged regardless of its bounds, or ""."""
    if guard := next((seed.why for seed in seeds if seed.held == "missed" and seed.why), ""):
        return guard
    failed = [seed for seed in seeds if seed.held == "not judged"]
    if len(failed) > max(len(seeds), LOOKS[0].seeds) // _CONTROL_FAILS:
        return f"{failed[0].why} ({len(failed)} of {len(seeds)} seeds)"
    return ""


def _over_seeds(
    columns: Sequence[Column], look: Look, timed: Sequence[tuple[Speedup | Growth, BoundEstimate]]
) -> tuple[Verdict, str, list[Side]]:
    """The verdict on a measured claim, intervals of bounds that are not cleared, and each bound's state.

    The intervals are given only if the verdict is weak or inconclusive.
    """
    for bound, measured in timed:
        if measured.obstacle:
            return "not judged", f"{bound.metric}: {measured.obstacle}", []
    found = sides(columns, look)
    every = [*found, *(_timed_side(bound, measured) for bound, measured in timed)]
    verdict = summary(every)
    if verdict not in ("weak", "inconclusive"):
        return verdict, "", every
    short = [column for column, side in zip(columns, found, strict=True) if side != "cleared"]
    return verdict, "; ".join(map(interval, short)), every


def _timed(
    claim: Claim, variant: str, benchmarks: Sequence[Sequence[Mapping[str, Any]]]
) -> list[tuple[Speedup | Growth, BoundEstimate]]:
    """The bounds on the benchmark and their estimates, with `variant` in place of the paper's variants."""
    bounds = [replace(bound, of=variant) if bound.of == "paper" else bound for bound in claim.timed]
    return [(bound, timing.judge_runs(bound, benchmarks)) for bound in bounds]


def _beside_variants(
    rivals: Mapping[str, Sequence[tuple[Speedup | Growth, BoundEstimate]]],
) -> tuple[Verdict, str]:
    """The verdict on a reproduced claim, given the estimates with each rival variant, and the reason."""
    for name, timed in rivals.items():
        for bound, found in timed:
            if found.obstacle:
                return "not judged", f"a rival could not be judged: {bound.metric}: {found.obstacle}"
        outcomes = {found.verdict(bound) for bound, found in timed}
        if outcomes == {"held"}:
            return "not specific", f"{name} passes the rule, too"
        if "missed" not in outcomes:
            return "not judged", f"a rival could not be judged: {name} is too close to the threshold"
    return "reproduced", ""


def _timed_side(bound: Speedup | Growth, found: BoundEstimate) -> Side:
    """The state of a bound on the benchmark: decided if the whole interval agrees."""
    verdict = found.verdict(bound)
    if verdict == "held":
        return "cleared"
    if bound.direction is not None:
        towards = replace(bound, threshold=bound.direction)
        if found.verdict(towards) == "held":
            return "right way"
    return "missed" if verdict == "missed" else "undecided"


def _effects(
    columns: Sequence[Column], timed: Sequence[tuple[Speedup | Growth, BoundEstimate]]
) -> tuple[Effect, ...]:
    found = []
    for column in columns:
        bound = column.bound
        interval = mean_interval(column) or (None, None, None)
        found.append(Effect(bound.metric, bound.op, bound.threshold, equal_at(bound), bound.ratio, *interval))
    for speed, run in timed:
        numbers = (None, None, None) if run.obstacle else (run.value, run.low, run.high)
        ratio = isinstance(speed, Speedup)
        found.append(Effect(speed.metric, speed.op, speed.threshold, equal_at(speed), ratio, *numbers))
    return tuple(found)


def equal_at(bound: Bound | Speedup | Growth) -> float | None:
    """The value at which the arms that the bound compares are equal; None without a comparison."""
    if isinstance(bound, Speedup):
        return 1.0
    if bound.direction is not None or isinstance(bound, Growth):
        return bound.direction
    return float(bound.ratio) if bound.of is not None and bound.of.against else None


def _values(seeds: Sequence[_Seed]) -> dict[str, tuple[float, ...]]:
    metrics = dict.fromkeys(metric for seed in seeds for metric in seed.values)
    return {metric: tuple(seed.values.get(metric, math.nan) for seed in seeds) for metric in metrics}


def _spreads(claim: Claim, seeds: Sequence[_Seed]) -> tuple[Spread, ...]:
    ratios = {bound.metric for bound in claim.bounds if bound.ratio}
    spreads = []
    for metric, column in _values(seeds).items():
        there = [value for value in column if not math.isnan(value)]
        missing = len(column) - len(there)
        there = there or [math.nan]
        geometric = metric in ratios and all(math.isfinite(value) and value > 0 for value in there)
        # `mean` is exactly rounded, so the mean of equal numbers is that number.
        middle = math.exp(fmean(map(math.log, there))) if geometric else mean(there)
        limited = any(metric in seed.at_least for seed in seeds)
        spreads.append(Spread(metric, middle, min(there), max(there), geometric, limited, missing))
    return tuple(spreads)


def _timed_spreads(timed: Mapping[Speedup | Growth, BoundEstimate]) -> Iterator[Spread]:
    for bound, found in timed.items():
        if not found.obstacle:
            yield Spread(bound.metric, found.value, found.low, found.high, ratio=True)
