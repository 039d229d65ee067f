"""The pace and the difficulty measures compared with loops, the sampling, and the experiment's arms."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import curriculum as module
from readtrack.papers.curriculum import by_letters, by_pairs, competence, draw
from readtrack.runs.trial import Trial


def test_the_pace_is_the_square_root_of_platanios():
    assert competence(0, 100) == pytest.approx(0.01)
    assert competence(100, 100) == competence(250, 100) == 1.0
    # The square of the competence grows linearly.
    squares = [competence(step, 100) ** 2 for step in (0, 20, 40)]
    assert squares[1] - squares[0] == pytest.approx(squares[2] - squares[1])
    assert competence(25, 100, first=0.0) == pytest.approx(0.5)


def test_measures_match_counters():
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


def test_training_goes_from_easy_to_all_of_the_text(part_of_run, monkeypatch):
    """A curriculum must be followed before one can conclude that it does not help."""
    train, drawn, hardness, works = module.train, {}, {}, {}

    def noted(at, plan, rate):
        def measure(windows, generator):
            hardness[at.name] = plan.measure(windows, generator)
            return hardness[at.name]

        def draw_noted(order, share, uniform):
            drawn.setdefault(at.name, []).append((order, share, len(uniform)))
            return draw(order, share, uniform)

        works[at.name] = rate, at.work
        monkeypatch.setattr(module, "draw", draw_noted)
        return train(at, plan._replace(measure=measure) if plan.measure else plan, rate)

    monkeypatch.setattr(Trial, "length", lambda at, steps: 20)
    monkeypatch.setattr(module, "train", noted)
    module.experiment(part_of_run())
    for arm, steps in drawn.items():
        orders, shares, rows = zip(*steps, strict=True)
        assert set(rows) == {8}
        if arm in hardness:
            assert (hardness[arm][orders[0]].diff() >= 0).all()
            assert list(shares) == [competence(step, 14) for step in range(20)]  # everything after 70 %
        else:
            assert set(shares) == {1.0}
        rate, work = works[arm]
        assert work.rates == [rate, pytest.approx(rate / len(steps))]  # decays to 0
    assert hardness.keys() == {"rare letters last", "rare pairs last", "random order"}
    assert len(drawn["text in any order"]) == 20
    assert len(drawn["a quarter more steps"]) == 25


@pytest.mark.parametrize(
    ("broken", "longer"),
    [("", 1.0), ("curricula with a quarter more steps", 1.25), ("curricula with twice the steps", 2.0)],
)
def test_the_plan_of_each_arm(part_of_run, monkeypatch, broken, longer):
    made = {}

    def watched(at, plan, rate):
        made[at.name] = plan
        return 1.0, module.Trained(None, 2.0)

    monkeypatch.setattr(module, "train", watched)
    monkeypatch.setattr(module, "nats", lambda model, windows: torch.ones(len(windows)))
    module.experiment(part_of_run(broken=broken))
    assert made == {
        "rare letters last": module.Plan(by_letters, longer),
        "rare pairs last": module.Plan(by_pairs, longer),
        "text in any order": module.Plan(None),
        "random order": module.Plan(module.at_random),
        "a quarter more steps": module.Plan(None, 1.25),
    }


def test_the_yardstick_knows_how_often_letters_occur():
    pool, judged = torch.tensor([[0, 0, 1, 0]]), torch.tensor([[1, 0, 1]])
    world = module.World(3, pool, judged, judged)
    expected = -(math.log(4 / 7) + math.log(2 / 7)) / 2  # add-one smoothing
    assert world.letters().tolist() == [pytest.approx(expected)]


def test_nats_are_of_each_window():
    model, windows = module.GPT2(5, context=4, model=8, heads=2, layers=1), torch.randint(5, (3, 5))
    found = module.nats(model, windows)
    assert_close(found, torch.stack([model.loss(row[None]) for row in windows]).detach())


def test_the_experiment_runs(run_experiment):
    assert digest(module) == "974166d84c10"
    record = run_experiment(module)
    assert record.headline_curve == "validation loss over fraction of training"
    assert record.curves[record.headline_curve].keys() == {
        "rare letters last",
        "rare pairs last",
        "text in any order",
        "random order",
        "a quarter more steps",
    }


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(module)] == ["batch from the easiest third"]


def test_the_drawing_order_is_the_sort_order():
    difficulty, uniform = torch.randn(30), torch.rand(9)
    assert_close(
        module.windows_in_order(difficulty.sort().values, uniform, share=0.5),
        module.sorted_anew(difficulty, uniform, share=0.5),
    )
