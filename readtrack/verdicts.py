"""The second tier of judging: a paper's claims over several seeds, and the table of verdicts.

A run judges its claims on its own numbers. Here the same rules meet all seeds: an exact claim and one that
says `every_seed` must hold with each seed, any other is judged on the mean of each metric.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, NamedTuple

from readtrack.claims import Claim, Verdict
from readtrack.text import number, one_line

# From the best to the worst: a claim that every seed must bear is as good as its worst seed.
_ORDER: tuple[Verdict, ...] = ("exact", "reproduced", "weak", "not reproduced")

_MARKDOWN = re.compile(r"([\\|<*_`\[\]~$&])")
_HEAD = (
    "paper",
    "claim",
    "rule",
    "ours: mean (range)",
    "the paper's figure",
    "verdict",
    "control",
    "deviations",
    "seeds",
)

_INTRODUCTION = (
    "Written by `readtrack verify`; not to be edited. The rules stood in the papers' modules before the "
    "runs. Exact claims, and those that say so, must hold with each seed; the others are judged on the mean "
    "of each metric. All verdicts are results: `weak` and `not reproduced` too."
)


class Spread(NamedTuple):
    """One metric over the seeds. A seed without the number makes the mean NaN; the range leaves it out."""

    metric: str
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        middle, low, high = map(number, (self.mean, self.low, self.high))
        return (
            f"{self.metric} {middle}"
            if low == high == middle
            else f"{self.metric} {middle} ({low} to {high})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim and what became of it over the seeds.

    seeds    those whose run completed, and `by_seed` the verdict of each by itself
    numbers  every metric that the runs gave for the claim
    why      why there is no verdict, where there is none
    """

    paper: str
    claim: Claim
    verdict: Verdict
    seeds: tuple[int, ...]
    by_seed: tuple[Verdict, ...]
    numbers: tuple[Spread, ...]
    why: str = ""

    @property
    def ours(self) -> str:
        return "; ".join(map(str, self.numbers))


def judge(paper: str, stated: Mapping[int, Sequence[Mapping[str, Any]] | None]) -> list[Judged]:
    """Judge a paper's claims from the `claim` events of its runs: seed to events, None if the run failed.

    With a failed run no verdict is passed: the seeds that completed may be the lucky ones. A claim that a
    completed run did not state counts as all NaN there.
    """
    completed = {
        seed: {str(event["claim"]["name"]): event for event in events}
        for seed, events in stated.items()
        if events is not None
    }
    failed = [seed for seed, events in stated.items() if events is None]
    names = dict.fromkeys(name for events in completed.values() for name in events)
    return [_judge_claim(paper, name, completed, failed) for name in names]


def _judge_claim(
    paper: str, name: str, completed: Mapping[int, Mapping[str, Mapping[str, Any]]], failed: list[int]
) -> Judged:
    claims = [Claim.from_json(events[name]["claim"]) for events in completed.values() if name in events]
    values = [dict(events[name]["values"]) if name in events else {} for events in completed.values()]
    claim = claims[0]
    numbers = _spreads(values)
    by_seed = tuple(claim.judge(ours) for ours in values)
    verdict: Verdict
    why = ""
    if failed:
        verdict, why = "not judged", f"no completed run with seed {', '.join(map(str, failed))}"
    elif any(_rule(other) != _rule(claim) for other in claims):
        verdict, why = "not judged", "the rule is not the same with every seed"
    elif claim.exact or claim.every_seed:
        verdict = max(by_seed, key=_ORDER.index)
    else:
        verdict = claim.judge({spread.metric: spread.mean for spread in numbers})
    return Judged(
        paper=paper,
        claim=claim,
        verdict=verdict,
        seeds=tuple(completed),
        by_seed=by_seed,
        numbers=numbers,
        why=why,
    )


def _rule(claim: Claim) -> tuple[object, ...]:
    return claim.rule, claim.exact, claim.every_seed


def _spreads(values: Sequence[Mapping[str, float]]) -> tuple[Spread, ...]:
    spreads = []
    for metric in dict.fromkeys(metric for ours in values for metric in ours):
        column = [ours.get(metric, math.nan) for ours in values]
        there = [value for value in column if not math.isnan(value)] or [math.nan]
        # Exactly rounded, so that the mean of equal numbers is that number and "==" can hold.
        spreads.append(Spread(metric, mean(column), min(there), max(there)))
    return tuple(spreads)


def seeds_wanted(events: Iterable[Mapping[str, Any]]) -> int:
    """How many seeds the claims among `events` ask for; exact ones ask for none in particular."""
    claims = (Claim.from_json(event["claim"]) for event in events)
    return max((claim.seeds for claim in claims if not claim.exact), default=0)


def tally(judged: Iterable[Judged]) -> str:
    """`12 exact, 3 reproduced, 1 weak`."""
    counts = Counter(one.verdict for one in judged)
    order: tuple[Verdict, ...] = (*_ORDER, "not judged")
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])


def markdown(
    judged: Sequence[Judged], *, facts: Iterable[tuple[str, str]], remarks: Iterable[tuple[str, str]] = ()
) -> str:
    """The table of verdicts as a page.

    facts    (label, text): what it was measured on, and when
    remarks  (paper, text): runs that did not complete, papers without a claim
    """
    lines = ["# Verdicts", "", _INTRODUCTION, ""]
    lines += [f"- {_cell(label)}: {_cell(text)}" for label, text in facts]
    lines += ["", f"{_cell(tally(judged)) or 'No claims'}.", ""]
    if judged:
        lines += [_row(_HEAD), _row(["---"] * len(_HEAD)), *(_row(_cells(one)) for one in judged), ""]
    left = [f"- {_cell(paper)}: {_cell(text)}" for paper, text in remarks]
    if left:
        lines += ["## Without a verdict", "", *left, ""]
    return "\n".join(lines)


def _cells(one: Judged) -> list[str]:
    claim = one.claim
    how = "exact" if claim.exact else "each seed" if claim.every_seed else "mean"
    rule = f"{_rules(claim)} ({how})"
    verdict = f"{one.verdict}: {one.why}" if one.why else one.verdict
    cells = [one.paper, f"{claim.name}: {claim.sentence}", rule, one.ours, claim.paper, verdict]
    return [_cell(text) for text in (*cells, claim.control, claim.deviations, _seeds(one))]


def _rules(claim: Claim) -> str:
    """The bounds, those of one metric together: `loss ≥ 0.4, ≤ 0.6; accuracy > 0.9`."""
    of_metric: dict[str, list[str]] = {}
    for bound in claim.rule:
        of_metric.setdefault(bound.metric, []).append(str(bound).removeprefix(bound.metric).strip())
    return "; ".join(f"{metric} {', '.join(bounds)}" for metric, bounds in of_metric.items())


def _seeds(one: Judged) -> str:
    seeds = sorted(one.seeds)
    consecutive = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    said = f"{seeds[0]} to {seeds[-1]}" if consecutive else ", ".join(map(str, seeds))
    if not (one.claim.exact or one.claim.every_seed):
        return said
    held = sum(verdict in ("exact", "reproduced") for verdict in one.by_seed)
    return said if held == len(seeds) else f"{said} ({held} of {len(seeds)} held)"


def _cell(text: str) -> str:
    """`text` on one line, with no sign left that Markdown would take for its own."""
    return _MARKDOWN.sub(r"\\\1", one_line(text)).strip()


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
