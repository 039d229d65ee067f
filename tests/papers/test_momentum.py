"""The heavy ball compared with torch's, Polyak's own two-step form, and the rates of his theorem."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from readtrack.papers import momentum
from readtrack.papers.momentum import Momentum, best_descent, best_heavy_ball
from readtrack.papers.sgd import SGD


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_every_step_matches_torchs(assert_same_walk, share):
    torchs = partial(torch.optim.SGD, lr=0.03, momentum=share)
    assert_same_walk(partial(Momentum, lr=0.03, momentum=share), torchs, rtol=0, atol=1e-12)


class TwoStep(torch.optim.Optimizer):
    """wₜ₊₁ = wₜ − lr g + momentum (wₜ − wₜ₋₁), Polyak's form."""

    def __init__(self, weights, lr, momentum):
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                last = self.state[w].get("last", w.clone())
                self.state[w]["last"] = w.clone()
                w += -group["lr"] * w.grad + group["momentum"] * (w - last)


def test_the_velocity_is_polyaks_last_step(assert_same_walk):
    settings = {"lr": 0.03, "momentum": 0.9}
    assert_same_walk(partial(Momentum, **settings), partial(TwoStep, **settings), rtol=0, atol=1e-11)


def test_a_checkpoint_continues_where_it_was():
    w, again = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = Momentum([w], lr=0.1)
    w.grad = torch.arange(3.0, dtype=torch.float64)
    optimizer.step()
    with torch.no_grad():
        again.copy_(w)
    resumed = Momentum([again], lr=0.5)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    again.grad = w.grad.clone()
    optimizer.step()
    resumed.step()
    assert torch.equal(w, again)
    assert resumed.state[again]["t"] == 2


def spectral_radius(lr, share, curvature):
    """The spectral radius of the map (wₜ, wₜ₋₁) → (wₜ₊₁, wₜ) on a quadratic of one weight."""
    step = torch.tensor([[1 + share - lr * curvature, -share], [1.0, 0.0]], dtype=torch.float64)
    return torch.linalg.eigvals(step).abs().max().item()


@pytest.mark.parametrize(("lowest", "highest"), [(0.01, 1.0), (0.5, 200.0)])
def test_the_best_constants_reach_the_papers_rates(lowest, highest):
    kappa = highest / lowest
    between = torch.linspace(lowest, highest, 20).tolist()
    lr = best_descent(lowest, highest)
    slowest = max(abs(1 - lr * curvature) for curvature in (lowest, highest))
    assert slowest == pytest.approx((kappa - 1) / (kappa + 1), rel=1e-12)
    rates = [spectral_radius(*best_heavy_ball(lowest, highest), curvature) for curvature in between]
    root = kappa**0.5
    # At both ends of the spectrum the two eigenvalues coincide, which costs more than half of the digits.
    assert max(rates) == pytest.approx((root - 1) / (root + 1), rel=1e-4)


def test_without_momentum_it_is_descent(assert_same_walk):
    assert_same_walk(partial(Momentum, lr=0.1, momentum=0.0), partial(SGD, lr=0.1), rtol=0, atol=0)


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(momentum)
    assert record.curves.keys() == {"steps to 1e-8", "relative error, kappa 30"}
    assert [claim["claim"]["kind"] for claim in record.claims] == ["theorem", "theorem"]
    assert [artifact["name"] for artifact in record.artifacts] == ["steps"]
    fewer, more = (dict(record.curves["steps to 1e-8"][arm]) for arm in ("heavy ball", "gradient descent"))
    assert all(fewer[kappa] < more[kappa] for kappa in more)


@pytest.mark.slow
def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(momentum, seed=1), run_experiment(momentum, seed=2)
    assert first.curves != other.curves


def test_slopes_are_powers():
    assert momentum.slope((1.0, 10.0, 100.0), [5, 50, 500]) == pytest.approx(1)
    assert momentum.slope((1.0, 100.0), [3, 30]) == pytest.approx(0.5)


def test_both_arms_have_their_best_constants():
    """The control is as strong as the theorem allows: no other step size is faster on these curvatures."""
    descent = momentum.optimiser_for("gradient descent", 100.0)([torch.ones(1)])
    assert isinstance(descent, SGD)
    lr = descent.param_groups[0]["lr"]
    slowest = [max(abs(1 - step * c) for c in (0.01, 1.0)) for step in (lr, 0.99 * lr, 1.01 * lr)]
    assert min(slowest) == slowest[0]
    ball = momentum.optimiser_for("heavy ball", 100.0)([torch.ones(1)])
    assert isinstance(ball, Momentum)
    assert (ball.param_groups[0]["lr"], ball.param_groups[0]["momentum"]) == best_heavy_ball(0.01, 1.0)
    assert Momentum([torch.ones(1)], lr=0.1).param_groups[0]["momentum"] == 0.9


def test_the_quadratic_that_is_timed_is_the_experiments():
    start, curvature = momentum.quadratic(torch.Generator().manual_seed(0), kappa=100.0)
    assert start.shape == (50,)
    assert_close(curvature.double(), momentum.curvatures(100.0), rtol=1e-6, atol=0)
    assert (curvature.min().item(), curvature.max().item()) == pytest.approx((0.01, 1.0))
    slow = momentum.descend_to(1e-4, partial(SGD, lr=1e-3), 50)
    assert slow(start, curvature) == {"reached": False, "steps": 50}


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(momentum)) == 2


def test_the_measured_rate_is_the_formulas(run_experiment):
    record = run_experiment(momentum)
    [rate] = [claim for claim in record.claims if claim["claim"]["name"] == "contraction per step"]
    assert_close(rate["values"]["contraction, measured / formula"], 1.0, rtol=0, atol=0.01)
