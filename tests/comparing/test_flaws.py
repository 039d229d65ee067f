"""Which planted flaws the checks of comparisons find in each kind of comparison, and which they miss."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from readtrack.checks import comparing as checks

from .toys import SHAPES, plugin

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
