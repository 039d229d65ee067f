"""State spaces against scipy and against their own definitions, and the experiment's rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from readtrack.papers import ssm
from readtrack.papers.ssm import (
    StateSpace,
    bilinear,
    convolve,
    hippo_legs,
    hold_diagonal,
    kernel,
    legendre,
    legs_memory,
    recurrence,
    zero_order_hold,
)

METHODS = {"bilinear": bilinear, "zoh": zero_order_hold}


def system(order=6, *systems):
    a, b = hippo_legs(order)
    a, b = -a + 0.1 * torch.randn(*systems, order, order).double(), b + torch.randn(*systems, order).double()
    return a, b, torch.rand(systems).double() / 10 + 0.01


def test_the_hippo_matrix_is_theorem_2s():
    a, b = hippo_legs(4)
    for n in range(4):
        assert b[n] == (2 * n + 1) ** 0.5
        for k in range(4):
            expected = ((2 * n + 1) * (2 * k + 1)) ** 0.5 if n > k else (n + 1 if n == k else 0)
            assert a[n, k].item() == pytest.approx(expected)


@pytest.mark.parametrize("method", ["bilinear", "zoh"])
def test_discretisation_is_scipys(method):
    signal = pytest.importorskip("scipy.signal", reason="the parity extra is not installed")
    a, b, step = system()
    ours = METHODS[method](a, b, step)
    theirs = signal.cont2discrete(
        (a.numpy(), b[:, None].numpy(), b[None].numpy(), np.zeros((1, 1))), step.item(), method=method
    )
    assert_close(ours[0], torch.from_numpy(theirs[0]), rtol=0, atol=1e-12)
    assert_close(ours[1], torch.from_numpy(theirs[1][:, 0]), rtol=0, atol=1e-12)


def test_the_recurrence_is_scipys():
    signal = pytest.importorskip("scipy.signal", reason="the parity extra is not installed")
    a, b, step = system()
    a, b = bilinear(a, b, step)
    c, u = torch.randn(6).double(), torch.randn(50).double()
    # Theirs shows the state before the input, ours after it: y_k = c (a x_k + b u_k) in their terms.
    system_ = a.numpy(), b[:, None].numpy(), (c @ a)[None].numpy(), (c @ b).reshape(1, 1).numpy(), 1
    _, theirs, _ = signal.dlsim(system_, u.numpy())
    assert_close(recurrence(a, b, c, u), torch.from_numpy(theirs[:, 0]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", [bilinear, zero_order_hold])
def test_many_systems_at_once_are_each_by_itself(method):
    a, b, step = system(5, 3)
    together = method(a, b, step)
    for i in range(3):
        for one, all_ in zip(method(a[i], b[i], step[i]), together, strict=True):
            assert_close(one, all_[i], rtol=0, atol=1e-13)


def test_a_diagonal_system_is_held_coefficient_by_coefficient():
    a, b, step = -torch.rand(4).double() - 0.1, torch.randn(4).double(), torch.tensor(0.3).double()
    full = zero_order_hold(a.diag(), b, step)
    ours = hold_diagonal(a, b, step)
    assert_close(ours[0].diag(), full[0], rtol=0, atol=1e-14)
    assert_close(ours[1], full[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("time", [1, 5, 8])
def test_the_kernel_is_the_powers_of_the_matrix(time):
    a, b, step = system(4, 2)
    a, b = bilinear(a, b, step)
    c = torch.randn(2, 4).double()
    powers = [(c * (torch.linalg.matrix_power(a, k) @ b[..., None])[..., 0]).sum(-1) for k in range(time)]
    assert_close(kernel(a, b, c, time), torch.stack(powers, -1), rtol=0, atol=1e-12)


def test_the_convolution_is_a_sum_over_the_past():
    u, response = torch.randn(2, 7).double(), torch.randn(7).double()
    expected = [sum(response[j] * u[:, k - j] for j in range(k + 1)) for k in range(7)]
    assert_close(convolve(u, response), torch.stack(expected, 1), rtol=0, atol=1e-13)


def test_recurrence_and_convolution_are_one_function(assert_parity):
    a, b, step = system(5, 3)
    a, b = zero_order_hold(a, b, step)
    assert_parity(
        recurrence,
        lambda a, b, c, u: convolve(u, kernel(a, b, c, u.shape[-1])),
        (a, b, torch.randn(3, 5), torch.randn(2, 3, 11)),
        atol=1e-10,
    )


def test_gradients_are_those_of_finite_differences():
    a, b, step = (tensor.requires_grad_() for tensor in system(3))
    c, u = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (3, 4))

    def run(a, b, step, c, u):
        a, b = bilinear(a, b, step)
        return convolve(u, kernel(a, b, c, 4))

    assert torch.autograd.gradcheck(run, (a, b, step, c, u))


# The memory


def test_the_memory_steps_by_the_papers_recurrence():
    a, b = hippo_legs(5)
    signal, identity, state = torch.randn(9).double(), torch.eye(5).double(), torch.zeros(5).double()
    for k, sample in enumerate(signal, 1):
        before = identity - a / (2 * (k - 1)) if k > 1 else identity
        state = torch.linalg.solve(identity + a / (2 * k), before @ state + b / k * sample)
    assert_close(legs_memory(5, 9) @ signal, state, rtol=0, atol=1e-12)


def test_the_state_is_the_projection_on_legendre_polynomials():
    special = pytest.importorskip("scipy.special", reason="the parity extra is not installed")
    time, order = 4000, 6
    x = (torch.arange(time).double() + 0.5) / time
    basis = legendre(order, time)
    for n in range(order):
        theirs = (2 * n + 1) ** 0.5 * special.eval_legendre(n, (2 * x - 1).numpy())
        assert_close(basis[:, n], torch.from_numpy(theirs))
    signal = torch.sin(7 * x) + x
    assert_close(legs_memory(order, time) @ signal, basis.mT @ signal / time, rtol=0, atol=2e-3)


def test_the_memory_has_no_time_scale():
    x = (torch.arange(2000).double() + 0.5) / 2000
    coefficients = [legs_memory(8, time) @ torch.sin(5 * x[:: 2000 // time]) for time in (500, 2000)]
    assert_close(*coefficients, rtol=0, atol=5e-3)


# The layer


def test_the_layer_is_the_same_by_convolution_and_step_by_step():
    layer, u = StateSpace(5, 8).double(), torch.randn(2, 30, 5).double()
    assert_close(layer(u), layer(u, recurrent=True), rtol=0, atol=1e-10)


def test_the_future_has_no_influence_and_the_whole_past_has():
    layer, u = StateSpace(3, 4).double(), torch.randn(1, 20, 3).double().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(u)[0, 12].sum(), u)
    assert gradient[0, :13].abs().min() > 1e-9
    assert gradient[0, 13:].abs().max() < 1e-12


def test_the_layer_has_a_readout_a_speed_and_a_bypass_for_each_channel():
    with torch.device("meta"):
        layer = StateSpace(512, 64)
    assert sum(weight.numel() for weight in layer.parameters()) == 512 * (64 + 2)


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(ssm)
    assert record.curves["loss"].keys() == {"LegS", "fixed step"}
    assert ("accuracy at a quarter of the speed", "LegS") in record.values
    assert [claim["verdict"] for claim in record.claims] == ["exact", "not judged", "not judged"]
    assert [artifact["name"] for artifact in record.artifacts] == ["memory"]


def test_the_rules_can_fail():
    names = [bound.metric for bound in ssm.TIMESCALE.rule]
    both_fail = dict(zip(names, (0.6, 0.6, 0.9), strict=True))
    assert ssm.TIMESCALE.judge(both_fail) == "not reproduced"
    assert ssm.TIMESCALE.judge(dict(zip(names, (0.15, 0.6, 0.9), strict=True))) == "weak"
    names = [bound.metric for bound in ssm.MEMORY.rule]
    assert ssm.MEMORY.judge(dict(zip(names, (1.0, 1.1, 1.0), strict=True))) == "not reproduced"
    names = [bound.metric for bound in ssm.VIEWS.rule]
    assert ssm.VIEWS.judge(dict(zip(names, (0.0, 1e-3), strict=True))) == "not reproduced"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(ssm)) == 1
