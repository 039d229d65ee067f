"""AdamW against torch's, and what decoupling is: for SGD nothing, for Adam something."""

from __future__ import annotations

import importlib
from functools import partial

import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from readtrack.papers import adamw
from readtrack.papers.adam import Adam
from readtrack.papers.adamw import SGDW, AdamW
from readtrack.papers.adamw.experiment import DECAYS, RATES, lost, rank_correlation

experiment = importlib.import_module("readtrack.papers.adamw.experiment")


@pytest.mark.parametrize("weight_decay", [0.01, 3.0])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.95)])
def test_every_step_is_torchs(assert_same_walk, weight_decay, betas):
    settings = {"lr": 0.01, "betas": betas, "weight_decay": weight_decay}
    torchs = partial(torch.optim.AdamW, **settings)
    assert_same_walk(partial(AdamW, **settings), torchs, rtol=0, atol=1e-11)


def test_the_defaults_are_torchs(assert_same_walk):
    assert_same_walk(AdamW, torch.optim.AdamW, rtol=0, atol=1e-12)


def test_for_sgd_the_decay_is_torchs_penalty(assert_same_walk):
    """`weight_decay` of torch's SGD adds λw to the gradient: proposition 1."""
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


def test_a_group_may_have_a_decay_of_its_own():
    """Biases and norms usually go undecayed."""
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
    assert record.curves["validation loss over decay"].keys() == arms
    assert [artifact["kind"] for artifact in record.artifacts] == ["table", "image"] * 2
    verdicts = {claim["claim"]["name"]: claim["verdict"] for claim in record.claims}
    assert [verdicts[claim.name] for claim in (adamw.IDENTITY, adamw.NO_PENALTY)] == ["held", "held"]
    found = values(record, adamw.EVENLY)
    assert found["AdamW: 9th / 1st decile of the decay"] == pytest.approx(1, abs=1e-6)
    assert found["Adam with penalty: rank correlation of decay and gradients' size"] < -0.8


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(adamw, seed=1), run_experiment(adamw, seed=2)
    assert first.curves != other.curves


@pytest.mark.parametrize("how", [{"null": True}, {"broken": "coupled"}])
def test_without_the_decoupling_the_arms_are_the_same(run_experiment, how):
    record = run_experiment(adamw, **how)
    assert [c["claim"]["name"] for c in record.claims] == [adamw.SEPARABLE.name, adamw.GENERALISES.name]
    assert values(record, adamw.SEPARABLE)[adamw.SEPARABLE.rule[0].metric] == 0.0
    assert values(record, adamw.GENERALISES)[adamw.GENERALISES.rule[0].metric] == 1.0


def test_the_rank_correlation_is_spearmans():
    x = torch.randn(50, dtype=torch.float64)
    y = x.exp() + 0.3 * torch.randn(50, dtype=torch.float64)
    assert rank_correlation(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)


def test_the_grid_is_searched_with_the_papers_decay(run_experiment, monkeypatch):
    """The same λ comes off at every learning rate; the penalty's arm has it in the loss instead."""
    made = []

    class Recorded(AdamW):
        def __init__(self, weights, **settings):
            made.append(settings)
            super().__init__(weights, **settings)

    penalties = []
    monkeypatch.setattr(experiment, "AdamW", Recorded)
    monkeypatch.setattr(
        experiment, "train", lambda model, optimizer, problem, **_: penalties.append(problem.penalty) or ()
    )
    monkeypatch.setattr(experiment, "compare_penalty_and_decay", lambda run: None)
    monkeypatch.setattr(experiment, "measure_decay", lambda run: None)
    with pytest.raises(AssertionError):  # two claims are not stated
        run_experiment(adamw)
    decoupled, coupled = slice(0, 4), slice(4, 8)
    taken_off = [settings["lr"] * settings["weight_decay"] for settings in made]
    assert taken_off[decoupled] == pytest.approx([*DECAYS[2:4]] * 2)
    assert taken_off[coupled] == [0.0] * 4
    assert penalties[decoupled] == [0.0] * 4
    assert penalties[coupled] == pytest.approx([*DECAYS[2:4]] * 2)


def test_what_tuning_one_at_a_time_loses():
    grid = {
        ("arm", 0.1, 1.0): (1.0, 10.0, 0.0),
        ("arm", 0.1, 2.0): (2.0, 20.0, 0.0),
        ("arm", 0.2, 1.0): (4.0, 40.0, 0.0),
        ("arm", 0.2, 2.0): (3.0, 30.0, 0.0),
        ("other", 0.2, 2.0): (0.0, 0.0, 0.0),
    }
    # Decay 1 is best at rate 0.1, and then that rate: nothing lost. Decay 2 at 0.2, and then 0.1: 20 − 10.
    assert lost(grid, "arm", [1.0, 2.0]) == 5.0


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(adamw)) == 2
