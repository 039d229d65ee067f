"""AdamW compared with torch's, and the effect of decoupling: none for SGD, some for Adam."""

from __future__ import annotations

import importlib
import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import adamw
from readtrack.papers.adam import Adam
from readtrack.papers.adamw import SGDW, AdamW
from readtrack.papers.adamw.experiment import RATES
from readtrack.papers.sgd import trials
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment = importlib.import_module("readtrack.papers.adamw.experiment")


@pytest.mark.parametrize("weight_decay", [0.01, 3.0])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.95)])
def test_every_step_matches_torchs(assert_same_walk, weight_decay, betas):
    settings = {"lr": 0.01, "betas": betas, "weight_decay": weight_decay}
    torchs = partial(torch.optim.AdamW, **settings)
    assert_same_walk(partial(AdamW, **settings), torchs, rtol=0, atol=1e-11)


def test_the_defaults_match_torchs(assert_same_walk):
    assert_same_walk(AdamW, torch.optim.AdamW, rtol=0, atol=1e-12)


def test_for_sgd_the_decay_matches_torchs_penalty(assert_same_walk):
    """`weight_decay` of torch's SGD adds λw to the gradient (proposition 1)."""
    torchs = partial(torch.optim.SGD, lr=0.1, weight_decay=0.3)
    assert_same_walk(partial(SGDW, lr=0.1, weight_decay=0.3), torchs, rtol=0, atol=1e-11)


def test_for_adam_it_is_not(assert_same_walk):
    torchs = partial(torch.optim.Adam, lr=0.1, weight_decay=0.3)
    with pytest.raises(AssertionError, match="step 0"):
        assert_same_walk(partial(AdamW, lr=0.1, weight_decay=0.3), torchs, rtol=0, atol=1e-3)


def test_a_schedule_scales_the_decay_too(assert_same_walk):
    settings = {"lr": 0.1, "weight_decay": 0.5}
    torchs = partial(torch.optim.AdamW, **settings)
    assert_same_walk(partial(AdamW, **settings), torchs, schedule=lambda t: 1 / (1 + t), rtol=0, atol=1e-11)


def test_a_group_may_have_a_separate_decay():
    """Biases and norms are usually not decayed."""
    decayed, spared, late = (torch.ones(2, requires_grad=True) for _ in range(3))
    optimizer = AdamW([{"params": [decayed]}, {"params": [spared], "weight_decay": 0.0}], weight_decay=0.5)
    optimizer.add_param_group({"params": [late]})
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0, 0.5]
    for w in (decayed, spared, late):
        w.grad = torch.zeros(2)
    optimizer.step()
    assert_close(torch.stack([decayed, spared, late])[:, 0].detach(), torch.tensor([0.9995, 1.0, 0.9995]))


def test_without_decay_it_is_adam(assert_same_walk):
    assert_same_walk(partial(AdamW, weight_decay=0.0), Adam, rtol=0, atol=0)


def test_the_defaults_are_pinned():
    group = AdamW([torch.ones(1)]).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (
        1e-3,
        (0.9, 0.999),
        1e-8,
        0.01,
    )
    assert SGDW([torch.ones(1)], lr=0.1).param_groups[0]["weight_decay"] == 0.01


# Experiment and benchmark


def values(record, claim):
    return next(c["values"] for c in record.claims if c["claim"]["name"] == claim.name)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(adamw)
    arms = {f"{arm}, rate {rate:g}" for arm in ("AdamW", "Adam with penalty") for rate in RATES[:2]}
    assert record.curves["held-out loss over decay"].keys() == arms
    assert [artifact["kind"] for artifact in record.artifacts] == ["table", "image"] * 2
    verdicts = {claim["claim"]["name"]: claim["verdict"] for claim in record.claims}
    assert [verdicts[claim.name] for claim in (adamw.IDENTITY, adamw.NO_PENALTY)] == ["held", "held"]
    found = values(record, adamw.EVENLY)
    assert found["AdamW: 9th / 1st decile of the decay"] == pytest.approx(1, abs=1e-6)
    assert found["Adam with penalty: rank correlation of decay and gradients' size"] < -0.8


def test_the_set_up_is_the_stated_one():
    assert digest(experiment) == "fa722271d4d1"


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(adamw, seed=1), run_experiment(adamw, seed=2)
    assert first.curves != other.curves


def test_without_the_decoupling_the_arms_are_the_same(run_experiment):
    record = run_experiment(adamw, broken="coupled")
    assert values(record, adamw.SEPARABLE)[adamw.SEPARABLE.rule[0].metric] == 0.0
    assert values(record, adamw.GENERALISES)[adamw.GENERALISES.rule[0].metric] == 1.0


def test_the_arms_have_the_papers_decay_and_the_penalty():
    """AdamW's decay is the same λ at every learning rate; the penalty's arm has it in the loss instead."""
    for rate in RATES:
        optimizer, penalty = experiment.decoupled([torch.ones(1)], rate, 0.01)
        assert (type(optimizer), penalty) == (AdamW, 0.0)
        assert optimizer.param_groups[0]["lr"] == rate
        assert rate * optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.01)
        optimizer, penalty = experiment.coupled([torch.ones(1)], rate, 0.01)
        assert (type(optimizer), penalty) == (Adam, 0.01)
        optimizer, penalty = experiment.with_sgd([torch.ones(1)], rate, 0.01)
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (10 * rate, 0.9)
        assert penalty == 0.01


def test_a_rescaled_decay_is_divided_as_the_gradient_is():
    w = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer, _ = experiment.rescaled([w], 0.1, 0.01)
    w.grad = torch.tensor([4.0, 0.5], dtype=torch.float64)
    optimizer.step()
    assert_close(w.detach(), 1 - 0.1 - 0.1 * 0.01 / w.grad, rtol=0, atol=1e-7)


def test_the_best_decay_is_a_soft_minimum():
    points = {0.0: -9.0} | {10 ** (e / 2): 0.1 * (e / 2 + 2.1) ** 2 for e in range(-8, -1)}
    assert experiment.lowest(points) == pytest.approx(-2.1, abs=0.03)
    assert experiment.lowest({1e-3: 1.0, 1e-2: 2.0, 1e-1: 3.0}) == pytest.approx(-3)
    assert experiment.lowest({1e-3: 0.5, 1e-2: 0.5}) == pytest.approx(-2.5)


def test_the_metrics_of_a_grid(part_of_run):
    """The best decay falls by two decades between the two learning rates, and by 0.2 nats per decade."""
    found = {}
    for rate, best in ((0.01, -1), (0.1, -3)):
        for decay in (0.0, 1e-3, 1e-2, 1e-1):
            loss = 0.2 * abs(math.log10(decay) - best) + 0.3 if decay else rate + 0.5
            found[rate, decay] = (9.0, (loss, 0.25 if decay else 0.5))
    at = Trial(Workshop(part_of_run()), Work(arm="AdamW"), arm="AdamW")
    assert experiment.read(at, Sweep(found[0.1, 1e-3], (0.1, 1e-3), found)) == {
        "decades that the best decay moves": pytest.approx(2, abs=0.01),
        "loss, best decay / none": pytest.approx(0.3 / 0.51),
        "test error": 0.25,
    }


def test_three_draws_of_digits_with_a_fifth_of_the_labels_random(part_of_run):
    run = part_of_run()
    world = experiment.few_and_noisy(run, draws=3)
    (images, labels), choose, judge = trials.digits(run)
    assert torch.equal(world.choose[0], choose[0])
    assert torch.equal(world.judge[1], judge[1])
    assert not torch.equal(world.problems[0].inputs, world.problems[1].inputs)
    changed = []
    for problem in world.problems:
        assert problem.inputs.shape == (200, 64)
        row = (problem.inputs[:, None] == images).all(-1).float().argmax(1)
        changed.append((labels[row] != problem.targets).float().mean().item())
    assert 0.1 < sum(changed) / 3 < 0.26


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(adamw)) == 2
