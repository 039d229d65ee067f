"""docs/method.md says what its script simulates, and the script simulates the procedure that judges."""

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


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_method", DOCS / "method" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_what_the_script_simulates(make: ModuleType) -> None:
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    assert make.table() in text
    assert (DOCS / "method" / "curve.svg").read_text(encoding="utf-8") == make.picture()


def test_the_page_states_the_limits_of_the_code() -> None:
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    for look in LOOKS:
        assert f"| {look.seeds} | {look.t} | {look.agree} |" in text


def test_what_the_page_says_of_other_truths(make: ModuleType) -> None:
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
