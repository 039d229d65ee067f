"""Mistakes that `plugins check --mutants` inserts into comparisons, and requirements of every measured
claim.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
from torch import nn

from readtrack.checks.comparing import ShortRuns, check_breaks, check_learned
from readtrack.checks.experiment import check_claims, check_history
from readtrack.checks.mutants import MUTANTS, outcomes
from readtrack.claims import UNTRAINED, at_least

from .toys import ARMS, BLIND, BREAK, LEAD, RATES, SHAPES, accuracy, attempt, fit, plugin

NEAR = replace(BREAK, role="near miss")
RIVAL = replace(BREAK, name="a rival", role="rival")


@pytest.mark.parametrize(
    ("shape", "survivors"),
    [
        ("simple", set()),
        ("own stage", set()),
        ("points", {"the control has a tenth of each learning rate"}),  # its points are not numbers
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


def test_a_reason_can_replace_a_rival(tmp_path):
    check_breaks(ShortRuns.of(plugin(with_breaks(NEAR, RIVAL, UNTRAINED)), tmp_path / "a"))
    check_breaks(ShortRuns.of(plugin(with_breaks(NEAR, UNTRAINED, no_rival="it is linear")), tmp_path / "b"))


@pytest.mark.parametrize(
    ("lengthened", "sentence", "message"),
    [
        (True, "After 8 steps who sees more tells more.", None),
        (True, "Who sees more tells more.", "does not say: after 8 steps"),
        (False, "After 8 steps who sees more tells more.", "lengthens no loop of"),
    ],
)
def test_a_claim_with_a_number_of_steps_can_be_given_more(lengthened, sentence, message, tmp_path):
    def train(at, width, rate):
        model = nn.Linear(width, 1)
        fit(at, model, rate, "", at.length(8) if lengthened else 8)
        return 0.0, model

    stated = replace(LEAD, after_steps=8, sentence=sentence)
    given = {"arms": ARMS, "attempt": train, "read": accuracy, "grid": RATES, "breaks": BLIND}
    runs = ShortRuns.of(plugin(lambda run, flaw: run.compare(stated, **given)), tmp_path)
    with pytest.raises(AssertionError, match=message) if message else nullcontext():
        check_learned(runs)


def test_a_control_far_from_its_ceiling_has_not_learned(tmp_path):
    def compare(run, flaw):
        far = replace(LEAD, learned=(at_least("accuracy", "half", 0.5, over="the law"),))
        given = {"arms": ARMS, "attempt": attempt(""), "read": accuracy, "grid": RATES, "breaks": BLIND}
        return run.compare(far, references={"the law": {"accuracy": 1.0}}, **given)

    with pytest.raises(AssertionError, match="far from what can be learned"):
        check_learned(ShortRuns.of(plugin(compare), tmp_path))


def test_a_measured_claim_states_how_its_set_up_differs_from_the_papers():
    with pytest.raises(AssertionError, match="deviations do not state"):
        check_claims([replace(LEAD, headline=True, deviations="")])
    check_claims([replace(LEAD, headline=True, deviations="Smaller.")])


@pytest.mark.parametrize(
    ("changed", "caught"),
    [
        ({"rule": (at_least("accuracy", "all", 0.05, minus="half", toward=0.0),)}, True),
        ({"rule": (at_least("accuracy", "all", 0.1, minus="half"),)}, True),
        ({"rule": (*LEAD.rule, at_least("accuracy", "all", 0.5))}, True),
        ({"rule": (at_least("accuracy", "all", 0.1, minus="half", toward=0.0, called="lead"),)}, False),
        ({"sentence": "It tells more."}, False),
    ],
)
def test_a_rule_that_changes_after_its_verdict_keeps_the_earlier_one(changed, caught):
    judged = {LEAD.name: replace(LEAD, history=("It began.",))}
    now = replace(LEAD, **changed, history=("It began.",))
    with pytest.raises(AssertionError, match="history does not say so") if caught else nullcontext():
        check_history([now], judged)
    check_history([replace(now, history=("It began.", "It was 0.1, reproduced; chance gave 0.09."))], judged)
    check_history([replace(now, name="another")], judged)
