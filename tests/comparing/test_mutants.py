"""Mistakes that `plugins check --mutants` puts into comparisons, and what every measured claim must have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from readtrack.checks.comparing import ShortRuns, check_breaks
from readtrack.checks.mutants import MUTANTS, outcomes
from readtrack.claims import UNTRAINED

from .toys import ARMS, BLIND, BREAK, LEAD, RATES, SHAPES, accuracy, attempt, plugin

NEAR = replace(BREAK, role="near miss")
RIVAL = replace(BREAK, name="a rival", role="rival")


@pytest.mark.parametrize(
    ("shape", "survivors"),
    [
        ("simple", set()),
        ("own stage", set()),
        ("points", {"the control has a tenth of each rate"}),  # its points are not numbers
        ("relation", set()),
    ],
)
def test_the_checks_find_the_mistakes(shape, survivors, tmp_path):
    found = {one.mutant: one.fate for one in outcomes(plugin(SHAPES[shape]), tmp_path)}
    assert found.keys() == {mutant.says for mutant in MUTANTS}
    alive = {what for what, fate in found.items() if fate != "killed"}
    missing = {what for what in alive if found[what] == "does not apply"}
    assert {what for what in alive if found[what] == "survived"} <= survivors
    assert missing <= {"the stage of the control is trained for half of the steps"} | survivors


def with_breaks(*breaks, **more):
    claim = replace(LEAD, breaks=breaks, **more)
    built = {one.name: BLIND[BREAK.name] for one in breaks if one.name != UNTRAINED.name}
    given = {"arms": ARMS, "attempt": attempt(""), "read": accuracy, "grid": RATES, "breaks": built}
    return lambda run, flaw: run.compare(claim, **given)


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        (with_breaks(BREAK, RIVAL, UNTRAINED), "no break is a near miss"),
        (with_breaks(NEAR, UNTRAINED), "rival"),
        (with_breaks(NEAR, RIVAL, UNTRAINED, no_rival="none is cheaper"), "rival"),
        (with_breaks(NEAR, RIVAL), "UNTRAINED"),
    ],
)
def test_a_measured_claim_has_a_near_miss_a_rival_and_an_untrained_arm(compare, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        check_breaks(ShortRuns.of(plugin(compare), tmp_path))


def test_a_reason_stands_for_a_rival(tmp_path):
    check_breaks(ShortRuns.of(plugin(with_breaks(NEAR, RIVAL, UNTRAINED)), tmp_path / "a"))
    check_breaks(ShortRuns.of(plugin(with_breaks(NEAR, UNTRAINED, no_rival="it is linear")), tmp_path / "b"))
