"""AdamW against torch's, and what decoupling is: for SGD nothing, for Adam something."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from readtrack.papers import adamw
from readtrack.papers.adam import Adam
from readtrack.papers.adamw import SGDW, AdamW


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


def test_a_scheduler_scales_the_decay_too(assert_same_walk):
    def scheduled(kind):
        def make(weights):
            optimizer = kind(weights, lr=0.1, weight_decay=0.5)
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5)
            return optimizer

        return make

    assert_same_walk(scheduled(AdamW), scheduled(torch.optim.AdamW), rtol=0, atol=1e-11)


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


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(adamw)
    assert record.curves["batch loss of the best"].keys() == {"AdamW", "Adam with penalty"}
    assert [claim["verdict"] for claim in record.claims] == ["exact", "not judged"]
    assert [artifact["kind"] for artifact in record.artifacts] == ["table", "image"] * 2


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(adamw, seed=1), run_experiment(adamw, seed=2)
    assert first.curves != other.curves


def test_decoupled_decay_is_even(run_experiment):
    record = run_experiment(adamw)
    assert record.values["9th / 1st decile of the decay", "AdamW"] == pytest.approx(1, abs=1e-6)


def test_the_rules_can_fail():
    sgd, adam = "SGD: largest difference of weights", "Adam: largest difference of weights"
    assert adamw.IDENTITY.judge({sgd: 0.0, adam: 1e-9}) == "not reproduced"
    assert adamw.IDENTITY.judge({sgd: 1e-3, adam: 0.1}) == "not reproduced"
    through, beside = (
        "Adam with penalty: 9th / 1st decile of the decay",
        "AdamW: 9th / 1st decile of the decay",
    )
    assert adamw.EVENLY.judge({through: 2.0, beside: 1.0}) == "weak"
    assert adamw.EVENLY.judge({through: 100.0, beside: 1.5}) == "not reproduced"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(adamw)) == 2
