"""Which planted flaws the checks of comparisons find in each kind of comparison, and which they miss."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from readtrack.checks import comparing as checks
from readtrack.checks.experiment import run_experiment
from readtrack.plugin import Arm, Run, Trial

from .toys import BREAK, LEAD, SHAPES, fit, plugin

CHECKS = {
    "leak": checks.check_no_leak,
    "heard": checks.check_judge_heard,
    "starved": checks.check_equal_work,
    "differ": checks.check_arms_differ,
    "shared": checks.check_null,
}

# Nothing is chosen and no loss is logged, so the data that a deterministic program reads are not observed.
MISSED = {("leak", "no training")}


def found(runs: checks.ShortRuns) -> set[str]:
    names = set()
    for name, check in CHECKS.items():
        try:
            check(runs)
        except AssertionError:
            names.add(name)
    return names


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sound_comparison_passes_every_check(shape, tmp_path):
    assert found(checks.ShortRuns.of(plugin(SHAPES[shape]), tmp_path)) == set()


def test_parts_that_share_a_stream_are_found(tmp_path):
    def experiment(run):
        run.data("sentences", "choose")
        run.data("sentences", "judge")

    runs = checks.ShortRuns.of(
        SimpleNamespace(__name__="readtrack.papers.toy", experiment=experiment), tmp_path
    )
    with pytest.raises(AssertionError, match="choose and judge draw the same numbers"):
        checks.check_no_leak(runs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flaw", ["leak", "starved", "shared"])
def test_a_flaw_is_found_by_its_check(shape, flaw, tmp_path):
    runs = checks.ShortRuns.of(plugin(SHAPES[shape], flaw), tmp_path)
    assert (flaw in found(runs)) == ((flaw, shape) not in MISSED)


def by_momentum(run: Run, flaw: str, momentum: float) -> None:
    """SGD with and without momentum. Both have the same first update, and the last loss is judged."""

    def train(at: Trial, momentum: float, _: None) -> tuple[float, list[float]]:
        model = nn.Linear(6, 1)
        losses = fit(at, model, 0.1, flaw, momentum=momentum)
        return losses[-1], losses

    arms = {"all": Arm(momentum), "half": Arm(0.0)}
    run.compare(
        LEAD,
        arms=arms,
        attempt=train,
        read=lambda at, found: {"accuracy": found.chosen[-1]},
        breaks={BREAK.name: {"all": Arm(0.0)}},
        judged_on="training",
    )


def test_arms_that_differ_from_the_second_update_on_are_not_the_same(tmp_path):
    module = plugin(by_momentum, momentum=0.9)
    runs = checks.ShortRuns.of(module, tmp_path)
    with pytest.raises(AssertionError, match="'all' and 'half' are equal in every number of a run"):
        checks.check_arms_differ(runs)
    smoke = run_experiment(module, tmp_path / "smoke")[1]
    checks.check_arms_differ(runs, smoke)


def test_equal_arms_are_found_with_the_steps_of_smoke(tmp_path):
    module = plugin(by_momentum, momentum=0.0)
    runs = checks.ShortRuns.of(module, tmp_path)
    smoke = run_experiment(module, tmp_path / "smoke")[1]
    with pytest.raises(AssertionError, match="'all' and 'half' are equal in every number of a run"):
        checks.check_arms_differ(runs, smoke)


@pytest.mark.parametrize(("items", "passes"), [([1.0, 1.0], True), ([0.0, 0.0], True), ([0.0, 1.0], False)])
def test_only_items_at_their_limit_may_ignore_the_test_data(items, passes):
    claim = SimpleNamespace(
        name="toy", kind="measured", bounds=[SimpleNamespace(metric="error rate", of=None)]
    )
    table = SimpleNamespace(rows={"": {"error rate": torch.tensor(items)}})
    compared = SimpleNamespace(claims=[claim], judged_on="judge"), table
    runs = SimpleNamespace(pairs=[(compared, table)], other=SimpleNamespace(redrawn=True))
    if passes:
        checks.check_judge_heard(runs)
    else:
        with pytest.raises(AssertionError, match="ignores the test data"):
            checks.check_judge_heard(runs)
