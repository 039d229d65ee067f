"""Computes how often null runs win: `python docs/method/nulls.py` writes two tables into docs/method.md, from
the null runs in nulls.json. It takes half a minute.

The runs are of five papers, on seeds that were not used for choosing a rule. In a null run the paper's arm is
a second copy of the control, with its own weights and batches. For each claim, nulls.json contains whether
the rule held in each run, and for each bound the margins of the runs and of its direction.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from readtrack.claims import Bound
from readtrack.procedure import LOOKS, MOST_SEEDS, Column, decided, sides, summary

HERE = Path(__file__).parent
PAGE, RUNS = HERE.parent / "method.md", HERE / "nulls.json"
DRAWS = 1000
ITEMS = ("grad_cam",)  # papers whose null runs flip a coin for each judged item
Margins = list[list[float]]  # for each bound, with the runs in the same order


class Null(NamedTuple):
    """The null runs of one claim.

    held        whether the rule held in each run
    directions  the margin of each bound's direction
    """

    paper: str
    claim: str
    held: list[bool]
    margins: Margins
    directions: list[float]


def nulls() -> Iterator[Null]:
    recorded: Mapping[str, Any] = json.loads(RUNS.read_text(encoding="utf-8"))
    for paper, runs in recorded.items():
        for claim, one in runs["claims"].items():
            bounds = one["bounds"].values()
            directions = [bound["direction"] for bound in bounds]
            yield Null(paper, claim, one["held"], [bound["margins"] for bound in bounds], directions)


def verdict(margins: Margins, directions: list[float]) -> str:
    """The verdict of a verification. margins: those of each bound, for 20 seeds."""
    columns = [
        Column(Bound("margin", ">=", 0.0, direction), tuple(values))
        for values, direction in zip(margins, directions, strict=True)
    ]
    for look in LOOKS:
        found = sides(columns, look)
        if decided(found):
            break
    return summary(found)


def verdicts(null: Null, draw: Callable[[Null, random.Random], Margins]) -> Counter[str]:
    """Verdicts of `DRAWS` verifications."""
    chance = random.Random(0)
    return Counter(verdict(draw(null, chance), null.directions) for _ in range(DRAWS))


def from_runs(null: Null, chance: random.Random) -> Margins:
    """Margins of 20 different runs."""
    taken = chance.sample(range(len(null.held)), MOST_SEEDS)
    return [[values[i] for i in taken] for values in null.margins]


def from_normal(null: Null, chance: random.Random) -> Margins:
    """Margins of 20 seeds from normal distributions with the runs' means and standard deviations. Bounds are
    drawn independently.
    """
    return [[chance.gauss(fmean(v), stdev(v)) for _ in range(MOST_SEEDS)] for v in null.margins]


def wilson(won: int, runs: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927, equation 7)."""
    z = 1.96
    centre, scale = won / runs + z**2 / (2 * runs), 1 + z**2 / runs
    reach = z * math.sqrt(won / runs * (1 - won / runs) / runs + z**2 / (4 * runs**2))
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def table() -> str:
    """A table of each claim's null runs, in Markdown."""
    lines = [
        (
            "| claim | null runs | runs that hold | 95 % | closest bound, sd | reproduced, drawn "
            "| normal | weak, drawn | normal |"
        ),
        "| --- |" + " ---: |" * 8,
    ]
    for null in nulls():
        won, runs = sum(null.held), len(null.held)
        low, high = (f"{100 * share:.0f}" for share in wilson(won, runs))
        closest = min(fmean(values) / stdev(values) for values in null.margins)
        drawn, normal = (verdicts(null, draw) for draw in (from_runs, from_normal))
        counts = [found[word] for word in ("reproduced", "weak") for found in (drawn, normal)]
        shares = " | ".join(f"{count / DRAWS:.3f}" for count in counts)
        name = f"{null.paper}: {null.claim}"
        lines.append(f"| {name} | {runs} | {won} | {low} to {high} % | {closest:.1f} | {shares} |")
    return "\n".join(lines) + "\n"


def rates() -> str:
    """A table of single runs for each kind of null run, in Markdown. Claims of one paper share their runs."""
    kinds: dict[str, list[Null]] = {"pipelines": [], "items": []}
    for null in nulls():
        kinds["items" if null.paper in ITEMS else "pipelines"].append(null)
    lines = ["| kind of null run | claims | single runs | runs that hold | 95 % |", "| --- |" + " ---: |" * 4]
    for kind, found in kinds.items():
        won, runs = (sum(count) for count in zip(*((sum(n.held), len(n.held)) for n in found), strict=True))
        low, high = (f"{100 * share:.0f}" for share in wilson(won, runs))
        lines.append(f"| {kind} | {len(found)} | {runs} | {won} | {low} to {high} % |")
    return "\n".join(lines) + "\n"


def page(text: str, found: str) -> str:
    """The page with its table of null runs replaced by `found`."""
    between = r"(?<=<!-- null runs -->\n\n).*?(?=<!-- end of null runs -->)"
    return re.sub(between, lambda _: found + "\n", text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), f"{rates()}\n{table()}"), encoding="utf-8")
