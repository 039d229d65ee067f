"""The pace and the measures against loops, what is drawn, and the arms of the experiment."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from readtrack.papers import curriculum as module
from readtrack.papers.curriculum import by_letters, by_pairs, competence, draw


def test_the_pace_is_the_square_root_of_platanios():
    assert competence(0, 100) == pytest.approx(0.01)
    assert competence(100, 100) == competence(250, 100) == 1.0
    # The square of the competence grows evenly.
    squares = [competence(step, 100) ** 2 for step in (0, 20, 40)]
    assert squares[1] - squares[0] == pytest.approx(squares[2] - squares[1])
    assert competence(25, 100, first=0.0) == pytest.approx(0.5)


def test_measures_are_those_of_counters():
    windows = torch.randint(4, (6, 9))
    letters = Counter(windows.flatten().tolist())
    pairs = Counter((a, b) for row in windows.tolist() for a, b in itertools.pairwise(row))
    before = Counter(a for row in windows.tolist() for a in row[:-1])
    generator = torch.Generator()
    for row, one, two in zip(
        windows.tolist(), by_letters(windows, generator), by_pairs(windows, generator), strict=True
    ):
        expected = [-math.log(letters[a] / windows.numel()) for a in row]
        assert one.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
        expected = [-math.log(pairs[a, b] / before[a]) for a, b in itertools.pairwise(row)]
        assert two.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_only_the_easiest_part_is_drawn_each_as_likely():
    order = torch.randperm(50)
    drawn = draw(order, 0.2, torch.rand(4000))
    counts = torch.bincount(drawn, minlength=50)
    assert not counts[order[10:]].any()
    assert (counts[order[:10]] > 300).all()
    assert draw(order, 1e-9, torch.rand(3)).unique().tolist() == [order[0].item()]
    assert draw(order, 1.0, torch.tensor([0.0, 0.99999])).tolist() == [order[0].item(), order[-1].item()]


def test_training_goes_from_easy_to_all_of_the_text(run_experiment, monkeypatch):
    """Only a curriculum that is followed can be one that does not help."""
    train, drawn, hardness = module.train, {}, {}

    def noted(run, text, vocab, arm, plan, rate):
        def measure(windows, generator):
            hardness[arm] = plan.measure(windows, generator)
            return hardness[arm]

        def draw_noted(order, share, uniform):
            drawn.setdefault(arm, []).append((order, share))
            return draw(order, share, uniform)

        monkeypatch.setattr(module, "draw", draw_noted)
        watched = module.Plan(measure, plan.longer) if plan.measure else plan
        return train(run, text, vocab, arm, watched, rate)

    monkeypatch.setattr(module, "train", noted)
    run_experiment(module)
    for arm, steps in drawn.items():
        orders, shares = zip(*steps, strict=True)
        if arm in hardness:
            assert (hardness[arm][orders[0]].diff() >= 0).all()
            assert list(shares) == [competence(step, 4) for step in range(5)]  # all of it after 70 %
        else:
            assert set(shares) == {1.0}
    assert hardness.keys() == {"letters", "pairs", "at random"}
    assert len(drawn["more steps"]) == 2 * len(drawn["none"])


def plans(run_experiment, monkeypatch, **options):
    seen = {}

    def noted(run, text, vocab, arm, plan, rate):
        seen[arm] = plan
        run.metric("loss", 1.0, step=0)
        late = 3.0 - plan.longer
        return late, (3.5, late)

    monkeypatch.setattr(module, "train", noted)
    return seen, run_experiment(module, **options).claims[0]["values"]


def test_the_arms_their_null_run_and_their_break(run_experiment, monkeypatch):
    seen, values = plans(run_experiment, monkeypatch)
    assert seen == {
        "none": module.Plan(None),
        "letters": module.Plan(by_letters),
        "pairs": module.Plan(by_pairs),
        "at random": module.Plan(module.at_random),
        "more steps": module.Plan(None, 2.0),
    }
    assert values["loss saved by the better curriculum"] == 0
    assert values["loss saved by more steps"] == pytest.approx(1.0)
    for options in ({"null": True}, {"broken": "planted benefit"}):
        seen, values = plans(run_experiment, monkeypatch, **options)
        assert seen["none"] == module.Plan(None)
        assert seen["letters"].longer == seen["pairs"].longer == 2.0
        assert values["loss saved by the better curriculum"] == pytest.approx(1.0)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(module)
    assert record.curves["held-out loss over the part of the training"].keys() == {
        "none",
        "letters",
        "pairs",
        "at random",
        "more steps",
    }


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(module)] == ["a batch of the easiest third"]


def test_all_that_is_drawn_is_as_it_is_sorted():
    difficulty, uniform = torch.randn(30), torch.rand(9)
    assert_close(
        module.windows_in_order(difficulty.sort().values, uniform, share=0.5),
        module.sorted_anew(difficulty, uniform, share=0.5),
    )
