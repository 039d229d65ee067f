"""Simulates the procedure behind the verdicts, and writes its operating curve into docs/method.md and
curve.svg: `python docs/method/make.py`. It takes some seconds, and its numbers are deterministic.

A seed's margin is its signed distance from a bound, in standard deviations. All bounds of a claim have the
same true mean margin, the effect, and `Bound.direction` lies 2 standard deviations below each threshold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from readtrack.procedure import LOOKS, MOST_SEEDS

HERE = Path(__file__).parent
PAGE, PICTURE = HERE.parent / "method.md", HERE / "curve.svg"
EFFECTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
DRAWS = 20_000
DIRECTION = 2.0  # distance of a bound's direction below its threshold
REPRODUCED, WEAK, INCONCLUSIVE, NOT_REPRODUCED = range(4)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Procedure = Callable[[Floats], tuple[Ints, Ints]]


class Point(NamedTuple):
    """Results of verifications with one true effect.

    reproduced  the probability of the verdict "reproduced"
    disagree    the probability that two verifications with different seeds give different verdicts
    seeds       the average number of seeds
    """

    reproduced: float
    disagree: float
    seeds: float


def three_looks(margins: Floats) -> tuple[Ints, Ints]:
    """The verdicts of `readtrack.procedure`, and the seeds taken. margins: (draws, bounds, 20)."""
    verdicts, seeds = np.full(len(margins), -1), np.zeros(len(margins), int)
    for look in LOOKS:
        seen, last = margins[..., : look.seeds], look is LOOKS[-1]
        cleared, missed = _t(seen) > look.t, _t(seen) < -look.t
        towards = (missed | last) & ~cleared & (_t(seen + DIRECTION) > look.t)
        found = _summary(missed & ~towards, ~cleared & ~missed & ~towards, towards)
        ends = (verdicts < 0) & ((found != INCONCLUSIVE) | last)
        verdicts[ends], seeds[ends] = found[ends], look.seeds
    return verdicts, seeds


def nine_of_ten(margins: Floats) -> tuple[Ints, Ints]:
    """The previous procedure: five seeds, or ten if one of the five disagrees, of which nine must agree."""
    held = (margins > 0).all(1)
    of_five, of_ten = held[:, :5].sum(-1), held[:, :10].sum(-1)
    one_dissents = (of_five == 1) | (of_five == 4)
    split = (of_ten > 1) & (of_ten < 9)
    ten = np.where(split, INCONCLUSIVE, _by_sides(margins[..., :10], 1, 1.833))
    return np.where(one_dissents, ten, _by_sides(margins[..., :5], 0, 2.132)), np.where(one_dissents, 10, 5)


def _by_sides(margins: Floats, allowed: int, needed: float) -> Ints:
    """The decision for a bound: all but `allowed` seeds must agree, or t must exceed `needed`."""

    def sure(values: Floats, sign: int) -> NDArray[np.bool_]:
        passed = (sign * values > 0).sum(-1)
        clear = passed >= values.shape[-1] - allowed
        other = passed <= allowed
        return clear | (~other & (sign * _t(values) > needed))

    cleared, towards = sure(margins, 1), sure(margins + DIRECTION, 1)
    missed = sure(margins, -1) & ~cleared & ~towards
    return _summary(missed, ~cleared & ~towards & ~missed, towards & ~cleared)


def _t(values: Floats) -> Floats:
    count = values.shape[-1]
    t: Floats = values.mean(-1) / (values.std(-1, ddof=1) / np.sqrt(count))
    return t


def _summary(missed: NDArray[np.bool_], undecided: NDArray[np.bool_], towards: NDArray[np.bool_]) -> Ints:
    """Verdicts of claims from the states of their bounds, each (draws, bounds)."""
    conditions = [missed.any(1), undecided.any(1), towards.any(1)]
    return np.select(conditions, [NOT_REPRODUCED, INCONCLUSIVE, WEAK], REPRODUCED)


def normal(draws: int, bounds: int) -> Floats:
    return np.random.default_rng(0).standard_normal((draws, bounds, MOST_SEEDS))


def one_in_five_fails(draws: int, bounds: int) -> Floats:
    """Margins of which one in five is far below the others, by 2.4 standard deviations; mean 0, variance
    1.
    """
    random = np.random.default_rng(0)
    shape, gap = (draws, bounds, MOST_SEEDS), 2.4
    centres = np.where(random.random(shape) < 0.2, -0.8 * gap, 0.2 * gap)
    noise: Floats = centres + np.sqrt(1 - 0.16 * gap**2) * random.standard_normal(shape)
    return noise


def curve(procedure: Procedure, noise: Floats, effects: tuple[float, ...] = EFFECTS) -> list[Point]:
    points = []
    for effect in effects:
        verdicts, seeds = procedure(noise + effect)
        shares = np.bincount(verdicts, minlength=4) / len(verdicts)
        points.append(Point(shares[REPRODUCED], 1 - (shares**2).sum(), seeds.mean()))
    return points


CASES = (
    ("one bound", normal, 1),
    ("two bounds", normal, 2),
    ("five bounds", normal, 5),
    ("one bound, one seed in five fails", one_in_five_fails, 1),
)
PROCEDURES: tuple[tuple[str, Procedure], ...] = (("three looks", three_looks), ("before", nine_of_ten))


def table(draws: int = DRAWS) -> str:
    """The operating curve in Markdown."""
    lines = [
        f"| effect over the bound, sd | {' | '.join(f'{effect:g}' for effect in EFFECTS)} |",
        "| --- |" + " ---: |" * len(EFFECTS),
    ]
    for case, noise, bounds in CASES:
        drawn = noise(draws, bounds)
        for name, procedure in PROCEDURES:
            points = curve(procedure, drawn)
            lines.append(f"| **{case}**, {name}: reproduced | {_cells(points, 0, '.3f')} |")
            lines.append(f"| two verifications disagree | {_cells(points, 1, '.3f')} |")
            lines.append(f"| seeds on average | {_cells(points, 2, '.1f')} |")
    return "\n".join(lines) + "\n"


def _cells(points: list[Point], index: int, digits: str) -> str:
    return " | ".join(f"{point[index]:{digits}}" for point in points)


WIDTH, HEIGHT, LEFT, TOP = 560, 300, 50, 32
LINES = (
    ("three looks, one bound", three_looks, 1, "#1f6feb", ""),
    ("three looks, five bounds", three_looks, 5, "#1f6feb", "6 4"),
    ("before, one bound", nine_of_ten, 1, "#b35900", ""),
    ("before, five bounds", nine_of_ten, 5, "#b35900", "6 4"),
)


def picture(draws: int = DRAWS) -> str:
    """A plot of the probability of `reproduced` over the effect, as SVG."""
    effects = tuple(step / 4 for step in range(-2, 13))

    def at(effect: float, chance: float) -> str:
        return f"{LEFT + (effect + 0.5) / 3.5 * WIDTH:.1f},{TOP + (1 - chance) * HEIGHT:.1f}"

    def text(x: float, y: float, said: str, anchor: str = "start") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{said}</text>'

    def line(start: str, end: str) -> str:
        (x1, y1), (x2, y2) = start.split(","), end.split(",")
        return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#ddd"/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 70}" height="{HEIGHT + 80}" role="img">',
        "<title>Chance of the verdict reproduced over the true effect</title>",
        '<g font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for chance in (0, 0.25, 0.5, 0.75, 1):
        parts += [line(at(-0.5, chance), at(3, chance))]
        parts += [text(LEFT - 6, TOP + (1 - chance) * HEIGHT + 4, f"{chance:g}", "end")]
    for effect in (-0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3):
        x = LEFT + (effect + 0.5) / 3.5 * WIDTH
        parts += [line(at(effect, 0), at(effect, 1)), text(x, TOP + HEIGHT + 18, f"{effect:g}", "middle")]
    below = "true mean over the bound, in standard deviations of a seed"
    parts.append(text(LEFT - 30, TOP - 14, "chance of the verdict reproduced"))
    parts.append(text(LEFT + WIDTH / 2, TOP + HEIGHT + 40, below, "middle"))
    for index, (name, procedure, bounds, colour, dashes) in enumerate(LINES):
        points = zip(effects, curve(procedure, normal(draws, bounds), effects), strict=True)
        path = " ".join(at(effect, point.reproduced) for effect, point in points)
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
        parts.append(f'<polyline points="{path}" {style}/>')
        y = TOP + HEIGHT - 80 + 18 * index
        parts.append(f'<polyline points="{LEFT + 360},{y - 4} {LEFT + 390},{y - 4}" {style}/>')
        parts.append(text(LEFT + 396, y, name))
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def page(text: str, found: str) -> str:
    """The page with its table replaced by `found`."""
    return re.sub(
        r"(?<=<!-- table -->\n\n).*?(?=<!-- end -->)", lambda _: found + "\n", text, flags=re.DOTALL
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
