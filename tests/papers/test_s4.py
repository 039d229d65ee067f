"""S4's matrix compared with HiPPO's, its kernel with explicit powers and `ssm`, its recurrence, and the
arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close

from readtrack import data
from readtrack.checks.constants import digest
from readtrack.papers import s4, ssm
from readtrack.papers.s4 import (
    S4,
    discretised,
    hippo_dplr,
    kernel_by_cauchy,
    kernel_by_powers,
    recurrent_c,
    whole,
)
from readtrack.runs.trial import Trial, Work, Workshop

EXPERIMENT = importlib.import_module("readtrack.papers.s4.experiment")  # the hook has the same name


def systems(channels: int, order: int, time: int):
    """Perturbed HiPPO systems in float64 with c and c̃."""
    half = order // 2
    lamb, p, b = (
        part.expand(channels, -1) * (1 + 0.1 * torch.rand(channels, half)) for part in hippo_dplr(order)
    )
    c = torch.randn(channels, half, dtype=torch.cdouble)
    step = torch.logspace(-2, -0.5, channels, dtype=torch.float64)
    a, _ = discretised(lamb, p, b, step)
    rest = torch.eye(order) - torch.linalg.matrix_power(a, time)
    return lamb, p, b, c, (whole(c)[:, None] @ rest)[:, 0, :half], step


@pytest.mark.parametrize("order", [2, 8, 32])
def test_the_form_is_hippos_matrix_in_another_basis(order):
    lamb, p, b = hippo_dplr(order)
    a, b_legs = ssm.hippo_legs(order)
    form = torch.diag(whole(lamb)) - whole(p)[:, None] * whole(p).conj()
    # Traces of powers and impulse responses are equal in any basis.
    size = torch.eye(order, dtype=torch.float64)
    for shift in (1.0, 3.0):
        ours = torch.linalg.solve(form - shift * size, whole(b))
        theirs = torch.linalg.solve(-a - shift * size, b_legs)
        assert_close((whole(b).conj() * ours).sum().real, b_legs @ theirs, rtol=1e-9, atol=1e-9)
    assert_close(form.trace().real, -a.trace())
    assert_close(lamb.real, torch.full((order // 2,), -0.5, dtype=torch.float64))


def test_an_odd_state_has_no_pairs():
    with pytest.raises(ValueError, match="state size must be even, not 7"):
        hippo_dplr(7)


@pytest.mark.parametrize("time", [1, 2, 17, 64])
def test_cauchy_sums_give_the_kernel_of_literal_powers(time):
    lamb, p, b, c, c_tilde, step = systems(3, 8, time)
    expected = []
    for channel in range(3):
        a = torch.diag(whole(lamb[channel])) - whole(p[channel])[:, None] * whole(p[channel]).conj()
        inverse = torch.linalg.inv(torch.eye(8) - step[channel] / 2 * a)
        bar, vector = (
            inverse @ (torch.eye(8) + step[channel] / 2 * a),
            inverse @ (step[channel] * whole(b[channel])),
        )
        powers = [torch.linalg.matrix_power(bar, k) for k in range(time)]
        expected.append(torch.stack([(whole(c[channel]) @ power @ vector).real for power in powers]))
    expected = torch.stack(expected)
    assert_close(kernel_by_powers(lamb, p, b, c, step, time), expected, rtol=1e-9, atol=1e-12)
    assert_close(kernel_by_cauchy(lamb, p, b, c_tilde, step, time), expected, rtol=1e-9, atol=1e-12)
    assert_close(recurrent_c(lamb, p, b, c_tilde, step, time), c, rtol=1e-9, atol=1e-10)


def test_its_gradients_match_finite_differences():
    lamb, p, b, _, c_tilde, step = systems(2, 4, 5)
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (lamb, p, b, c_tilde, step)]
    assert torch.autograd.gradcheck(lambda *given: kernel_by_cauchy(*given, 5), inputs)


def test_the_layer_matches_ssm_where_both_have_hippo():
    time, order, channels = 20, 8, 3
    layer, dense = S4(channels, order, time).double(), ssm.StateSpace(channels, order).double()
    lamb, p, b, c_tilde, step = layer.system()
    with torch.no_grad():
        c = recurrent_c(lamb, p, b, c_tilde, step, time)
        # In HiPPO's own basis, `ssm` gets the c with which both systems have the same kernel.
        a, b_bar = ssm.bilinear(dense.a.expand(channels, -1, -1), dense.b.expand(channels, -1), step)
        vectors, columns = b_bar[..., None], []
        for _ in range(order):
            columns.append(vectors[..., 0])
            vectors = a @ vectors
        wanted = kernel_by_powers(lamb, p, b, c, step, order)
        dense.c.copy_(torch.linalg.solve(torch.stack(columns, -1).mT, wanted[..., None])[..., 0])
        dense.log_step.copy_(layer.log_step)
        u = torch.randn(2, time, channels, dtype=torch.float64)
        assert_close(layer(u), dense(u), rtol=1e-4, atol=1e-4)


def test_the_recurrence_is_the_convolution():
    layer, u = S4(3, 8, 20).double(), torch.randn(2, 20, 3).double()
    recurrence, outputs = layer.recurrence(), []
    state = recurrence.empty(2)
    for sample in u.unbind(1):
        y, state = recurrence.step(sample, state)
        outputs.append(y)
    assert_close(torch.stack(outputs, 1), layer(u), rtol=1e-9, atol=1e-10)
    assert_close(layer(u[:, :7]), layer(u)[:, :7])
    with pytest.raises(ValueError, match="kernels have only 20"):
        layer(torch.randn(1, 21, 3).double())


def test_no_output_sees_a_later_sample():
    layer, u = S4(3, 8, 12).double(), torch.randn(1, 12, 3).double()
    changed = u.clone()
    changed[:, 5] += 1
    difference = (layer(changed) - layer(u)).abs()
    assert difference[:, :5].max() < 1e-12
    assert difference[:, 5:].min() > 0


def test_every_weight_learns_and_autocast_computes_in_single():
    layer, u = S4(3, 8, 12), torch.randn(2, 12, 3)
    layer(u).square().sum().backward()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in layer.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(layer(u), functional_call(layer, dict(layer.named_parameters()), (u,)))
    assert layer(u.bfloat16()).dtype == torch.bfloat16


def test_it_starts_from_hippo_at_many_speeds():
    layer = S4(5, 8, 12)
    lamb, p, b, _, step = layer.system()
    for ours, start in zip((lamb, p, b), hippo_dplr(8), strict=True):
        assert_close(ours, start.cfloat().expand(5, -1))
    assert_close(step[[0, -1]], torch.tensor([0.001, 0.1]))


# Experiment and benchmark


def test_the_starts_of_the_arms():
    generator = torch.Generator().manual_seed(0)
    start, random = hippo_dplr(32), EXPERIMENT.random_dplr(generator)
    assert_close(EXPERIMENT.hippo(generator).lamb, start.lamb)
    assert (random.lamb.imag > 0).all()
    assert_close(random.lamb.real, torch.full((16,), -0.5, dtype=torch.float64))
    assert not torch.equal(EXPERIMENT.random_dplr(generator).lamb, random.lamb)
    assert not EXPERIMENT.without_frequencies(generator).lamb.imag.any()


def test_the_rival_is_as_fast_and_else_the_control():
    random, rival = (
        make(torch.Generator().manual_seed(0)) for make in (EXPERIMENT.random_dplr, EXPERIMENT.as_fast)
    )
    assert rival.lamb.imag.max().item() == pytest.approx(hippo_dplr(32).lamb.imag.max().item())
    assert torch.equal(rival.lamb.real, random.lamb.real)
    assert torch.equal(rival.p, random.p)
    assert torch.equal(rival.b, random.b)


def test_the_second_rival_has_evenly_spaced_frequencies_and_remains_diagonal():
    start = EXPERIMENT.evenly_spaced(torch.Generator())
    assert_close(start.lamb.real, torch.full((16,), -0.5, dtype=torch.float64))
    assert_close(start.lamb.imag, torch.pi * torch.arange(16).double())
    assert not start.p.any()
    assert (start.b == 1).all()
    layer = EXPERIMENT.PixelReader(start).layer
    layer(torch.randn(2, 144, 16)).square().sum().backward()
    assert not layer.p.grad.any()
    assert all(weight.grad.any() for name, weight in layer.named_parameters() if name != "p")


def test_the_breaks_replace_hippos_matrix_alone(comparisons):
    (given,) = comparisons(s4)
    made = {name: {arm: new.make for arm, new in arms.items()} for name, arms in given.breaks.items()}
    assert made == {
        "real eigenvalues": {"HiPPO": EXPERIMENT.without_frequencies},
        "random matrix with HiPPO's highest frequency": {"HiPPO": EXPERIMENT.as_fast},
        "evenly spaced frequencies": {"HiPPO": EXPERIMENT.evenly_spaced},
    }


def test_the_matrix_learns_at_its_own_rate_and_each_network_has_its_own(part_of_run, monkeypatch):
    run, rates, starts = part_of_run(), [], []
    world = data.Parts(*[(torch.rand(9, 144), torch.arange(9))] * 3)
    at = Trial(Workshop(run, world), Work(arm="random"), arm="random")
    adam = torch.optim.Adam

    def noted(groups, lr):
        rates.append({len(group["params"]): group.get("lr", lr) for group in groups})
        return adam(groups, lr=lr)

    def made(generator):
        starts.append(EXPERIMENT.random_dplr(generator))
        return starts[-1]

    monkeypatch.setattr(torch.optim, "Adam", noted)
    _, networks = EXPERIMENT.train(at, made, 0.1)
    assert len(networks) == len(starts) == 3
    assert not torch.equal(starts[0].lamb, starts[1].lamb)
    # log_decay, frequency, P, B and the step, compared with c, the skip connection and the four surrounding
    # layers.
    assert rates == [{5: 0.001, 10: 0.1}] * 3


def test_accuracy_is_the_networks_mean(part_of_run):
    class Says(torch.nn.Module):
        def __init__(self, digit):
            super().__init__()
            self.digit = digit

        def forward(self, x):
            return torch.eye(10)[torch.full((len(x),), self.digit)]

    labels = torch.tensor([1, 2, 3])
    found = EXPERIMENT.correct(
        part_of_run(), [Says(1), Says(1), Says(2), Says(4)], (torch.zeros(3, 144), labels)
    )
    assert found.tolist() == [0.5, 0.25, 0.0]


def test_the_set_up_is_the_stated_one():
    assert digest(EXPERIMENT) == "60dac03f9347"


def test_the_experiment_runs(run_experiment):
    record = run_experiment(s4)
    assert record.curves["loss on pixels"].keys() == {f"{arm}, rate 0.01" for arm in ("HiPPO", "random")}


def test_every_variant_is_right(check_benchmark):
    names = [case.name for case in check_benchmark(s4)]
    assert names == ["kernel", "one more sample", "images read pixel by pixel"]
