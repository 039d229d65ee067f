"""docs/method.md agrees with its simulation, and the simulation with the procedure that judges claims."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from readtrack.claims import Bound
from readtrack.procedure import LOOKS, Column, decided, sides, summary

DOCS = Path(__file__).parents[1] / "docs"
WORDS = ("reproduced", "weak", "inconclusive", "not reproduced")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "method" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make() -> ModuleType:
    return script("make")


@pytest.mark.slow
def test_the_page_matches_the_scripts_simulation(make: ModuleType) -> None:
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    assert make.table() in text
    assert (DOCS / "method" / "curve.svg").read_text(encoding="utf-8") == make.picture()


def test_the_page_states_the_limits_of_the_code() -> None:
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    for look in LOOKS:
        assert f"| {look.seeds} | {look.t} | {look.agree} |" in text


def test_other_true_effects_on_the_page(make: ModuleType) -> None:
    between = np.bincount(make.three_looks(make.normal(make.DRAWS, 1) - 1)[0], minlength=4) / make.DRAWS
    assert between.round(2).tolist() == [0, 0.68, 0, 0.32]


@pytest.mark.parametrize("bounds", [1, 3])
@pytest.mark.parametrize("effect", [-2.0, -0.5, 0.0, 0.5, 1.0])
def test_the_script_simulates_the_procedure_that_judges(make: ModuleType, bounds: int, effect: float) -> None:
    margins = make.normal(100, bounds) + effect
    simulated = [(WORDS[verdict], seeds) for verdict, seeds in zip(*make.three_looks(margins), strict=True)]
    assert simulated == [judged(claim) for claim in margins.tolist()]


def judged(claim: list[list[float]]) -> tuple[str, int]:
    columns = [Column(Bound("gain", ">=", 0.0, -2.0), tuple(margins)) for margins in claim]
    for look in LOOKS:
        found = sides(columns, look)
        if decided(found):
            break
    return summary(found), look.seeds


def test_the_page_has_the_table_of_the_recorded_null_runs() -> None:
    nulls = script("nulls")
    found = list(nulls.nulls())
    assert sum({null.paper: len(null.held) for null in found}.values()) == 396
    for null in found:
        assert {len(null.held)} == {len(values) for values in null.margins}
        # A run holds if it passes each bound, unless its control has not learned.
        passed = [all(margin >= 0 for margin in run) for run in zip(*null.margins, strict=True)]
        assert all(not held or ok for held, ok in zip(null.held, passed, strict=True))
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    assert nulls.rates() in nulls.PAGE.read_text(encoding="utf-8")
    nulls.DRAWS = 50
    few = [line.split(" | ")[:5] for line in nulls.table().splitlines()]
    shown = text.split("<!-- null runs -->")[1].split("<!-- end of null runs -->")[0].strip()
    shown = shown.removeprefix(nulls.rates()).strip()
    assert few == [line.split(" | ")[:5] for line in shown.splitlines()]


@pytest.mark.slow
def test_constant_wins_are_reproduced_and_constant_losses_are_not() -> None:
    nulls = script("nulls")
    for centre, expected in ((1.0, "reproduced"), (-1.0, "not reproduced")):
        runs = [[centre + 0.01 * i for i in range(30)]]
        null = nulls.Null("paper", "claim", [centre > 0] * 30, runs, [None])
        assert nulls.verdicts(null, nulls.from_runs) == {expected: nulls.DRAWS}
        assert nulls.verdicts(null, nulls.from_normal) == {expected: nulls.DRAWS}
    low, high = nulls.wilson(1, 10)
    assert (round(low, 4), round(high, 4)) == (0.0179, 0.4042)  # R's prop.test(1, 10, correct = FALSE)
