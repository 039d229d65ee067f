"""State spaces compared with scipy and with their definitions, and the experiment's rules."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from readtrack import data
from readtrack.checks.constants import digest
from readtrack.papers import ssm
from readtrack.papers.ssm import (
    StateSpace,
    bilinear,
    convolve,
    hippo_legs,
    hold_diagonal,
    kernel,
    layers,
    legendre,
    legs_memory,
    recurrence,
    zero_order_hold,
)
from readtrack.papers.ssm.benchmark import by_kernel
from readtrack.papers.ssm.experiment import solve, uncoupled_memory
from readtrack.papers.ssm.layers import ORDER, PixelReader, hippo, random_stable, turned_hippo
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.ssm.experiment")

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
def test_discretisation_matches_scipys(method):
    signal = pytest.importorskip("scipy.signal", reason="the parity extra is not installed")
    a, b, step = system()
    ours = METHODS[method](a, b, step)
    theirs = signal.cont2discrete(
        (a.numpy(), b[:, None].numpy(), b[None].numpy(), np.zeros((1, 1))), step.item(), method=method
    )
    assert_close(ours[0], torch.from_numpy(theirs[0]), rtol=0, atol=1e-12)
    assert_close(ours[1], torch.from_numpy(theirs[1][:, 0]), rtol=0, atol=1e-12)


def test_the_recurrence_matches_scipys():
    signal = pytest.importorskip("scipy.signal", reason="the parity extra is not installed")
    a, b, step = system()
    a, b = bilinear(a, b, step)
    c, u = torch.randn(6).double(), torch.randn(50).double()
    # scipy outputs the state before the input, ours the state after it: y_k = c (a x_k + b u_k) in its
    # notation.
    system_ = a.numpy(), b[:, None].numpy(), (c @ a)[None].numpy(), (c @ b).reshape(1, 1).numpy(), 1
    _, theirs, _ = signal.dlsim(system_, u.numpy())
    assert_close(recurrence(a, b, c, u), torch.from_numpy(theirs[:, 0]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", [bilinear, zero_order_hold])
def test_a_batch_of_systems_equals_single_ones(method):
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


@pytest.mark.parametrize("time", [1, 2, 3, 5, 8, 9])
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


def test_gradients_match_finite_differences():
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


def test_the_layer_starts_with_hippos_matrix_at_all_speeds_and_passes_by():
    layer = StateSpace(5, 8)
    a, b = hippo_legs(8)
    assert_close(layer.a, -a.float())
    assert_close(layer.b, b.float())
    assert_close(layer.log_step.exp(), torch.tensor([1 / 1000, 10**-2.5, 1 / 100, 10**-1.5, 1 / 10]))
    assert torch.equal(layer.bypass, torch.ones(5))
    u = torch.randn(2, 7, 5)
    with torch.no_grad():
        layer.c.zero_()
    assert torch.equal(layer(u), u)


def test_the_layer_is_its_channels_systems_discretised_by_the_bilinear_method():
    layer, u = StateSpace(3, 4).double(), torch.randn(2, 9, 3).double()
    a, b = (tensor.double() for tensor in (layer.a, layer.b))
    for channel in range(3):
        system = bilinear(a, b, layer.log_step[channel].exp())
        y = recurrence(*system, layer.c[channel], u[..., channel]) + layer.bypass[channel] * u[..., channel]
        assert_close(layer(u)[..., channel], y, rtol=0, atol=1e-10)


def test_half_precision_is_as_accurate_as_the_recurrence(assert_half_precision):
    a, b = hippo_legs(16)
    a, b = (tensor.float() for tensor in bilinear(-a, b, torch.tensor(1 / 64).double()))
    c, u = torch.randn(16), torch.randn(32, 64)
    assert_half_precision(by_kernel, recurrence, (a, b, c, u))


def test_the_layer_keeps_its_precision_inside():
    layer, u = StateSpace(4, 16), torch.randn(2, 50, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(u)
    assert_close(y, layer(u))
    halved = layer.bfloat16()(u.bfloat16())
    assert halved.dtype == torch.bfloat16
    assert_close(halved.float(), y, rtol=0, atol=0.05)
    halved.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in layer.parameters())


# The arms


def test_the_control_is_a_stable_matrix_of_the_same_size():
    for seed in range(5):
        matrix = random_stable(torch.Generator().manual_seed(seed))
        values = torch.linalg.eigvals(matrix)
        assert matrix.shape == (ORDER, ORDER)
        assert values.real.max().item() == pytest.approx(-0.5)
        off = matrix[~torch.eye(ORDER, dtype=torch.bool)]
        assert off.std().item() == pytest.approx(1, abs=0.2)


def test_another_basis_has_hippos_eigenvalues():
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.eigvals(turned_hippo(generator)).real.sort().values
    assert_close(turned, torch.linalg.eigvals(hippo(generator)).real.sort().values)


def test_pixels_are_read_from_the_last_step():
    reader, pixels = PixelReader(4, hippo(torch.Generator())), torch.randn(2, 9)
    x = reader.into(pixels[..., None])
    x = x + reader.mix(torch.nn.functional.gelu(reader.space(reader.norm(x))))
    assert_close(reader(pixels), reader.readout(x[:, -1]))
    assert_close(reader.space.a, hippo(torch.Generator()).float())


def test_the_uncoupled_memory_is_the_diagonal_equations_solution():
    """dc/dt = -n c / t + b f / t, whose solution is t^-n times the integral of b s^(n-1) f(s)."""
    signal, found = torch.rand(6).double(), uncoupled_memory(3, 6)
    _, b = hippo_legs(3)
    for n in range(1, 4):
        fine = (torch.arange(60_000).double() + 0.5) / 60_000
        expected = (b[n - 1] * fine ** (n - 1) * signal.repeat_interleave(10_000)).mean()
        assert_close(found[n - 1] @ signal, expected, rtol=1e-6, atol=0)


def test_leaky_averages_forget_at_their_time_constants():
    memory = experiment_module.leaky_averages(3, 50, 16)
    time_constants = torch.tensor([1.0, 4.0, 16.0]).double()
    kept = torch.exp(-1 / time_constants)
    state, signal = torch.zeros(3).double(), torch.rand(50).double()
    for value in signal:
        state = kept * state + value / time_constants
    assert_close(memory @ signal, state)


def test_whitened_states_are_uncorrelated():
    states = torch.randn(200, 5).double() @ torch.randn(5, 5).double()
    states = states - states.mean(0)
    white = states @ experiment_module.whitening(states)
    assert_close(white.mT @ white / len(white), torch.eye(5).double())


def test_the_solver_holds_the_input_between_samples():
    a, b, c = (torch.tensor(value).double() for value in ([[-2.0]], [3.0], [1.0]))
    decay = torch.exp(torch.tensor(-0.2).double())
    first = 3 / 2 * (1 - decay)
    assert_close(solve(a, b, c, torch.tensor([1.0, 0.0]).double(), 0.1), torch.stack((first, first * decay)))


# Experiment and benchmark


def values(record, claim):
    return next(one["values"] for one in record.claims if one["claim"]["name"] == claim.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_experiment_runs(run_experiment, dtype):
    record = run_experiment(ssm, dtype=dtype)
    readouts = {name.partition(", rate ")[0] for name in record.curves["loss of the readout"]}
    assert readouts == {"LegS", "fixed step"}
    assert record.curves["loss of the layer"].keys() == {"HiPPO, rate 0.03", "random, rate 0.03"}
    assert ("accuracy at a quarter of the speed", "LegS") in record.values
    verdicts = {claim["claim"]["name"]: claim["verdict"] for claim in record.claims}
    assert verdicts["recurrence, convolution and differential equation"] == "held"
    assert [artifact["name"] for artifact in record.artifacts] == ["memory"]


def test_breaks_remove_the_named_ingredient(run_experiment):
    plain = run_experiment(ssm)
    for broken, curve in (
        ("constant step", "loss of the readout"),
        ("leaky averages", "loss of the readout"),
        ("random eigenvectors", "loss of the layer"),
    ):
        other = run_experiment(ssm, broken=broken).curves[curve]
        for arm, points in plain.curves[curve].items():
            assert (points == other[arm]) == arm.startswith(("fixed step", "random"))


def test_a_classifier_reads_sequences_of_any_length(part_of_run):
    run = part_of_run()
    world = data.Parts(*[(torch.rand(20, 64, dtype=torch.float64), torch.arange(20) % 10)] * 3)
    at = Trial(Workshop(run, world), Work(arm="LegS"), arm="LegS")
    score, classify = experiment_module.train_readout(at, uncoupled_memory, 0.1)
    pixels, _ = world.judge
    assert_close(classify(pixels), classify(pixels.repeat_interleave(4, 1)), rtol=1e-3, atol=1e-3)
    found = experiment_module.at_both_speeds(at, Sweep(classify, 0.1, {}))
    assert score == found["accuracy"].mean().item()
    assert set(found["accuracy"].tolist()) <= {0.0, 1.0}
    assert not found["accuracy lost at a quarter of the speed"].any()


def test_each_network_has_its_own_matrix(part_of_run):
    run, made = part_of_run(), []
    world = data.Parts(*[(torch.rand(9, 64), torch.arange(9))] * 3)
    at = Trial(Workshop(run, world), Work(arm="random"), arm="random")

    def make(generator):
        made.append(random_stable(generator))
        return made[-1]

    _, networks = layers.train_layer(at, make, 0.1)
    assert len(networks) == len(made) == 3
    assert not torch.equal(made[0], made[1])
    for network, matrix in zip(networks, made, strict=True):
        assert_close(network.space.a.double(), matrix, rtol=1e-5, atol=1e-5)
    right = layers.correct(run, networks, world.judge)
    assert_close(
        right,
        torch.stack([(n(world.judge[0]).argmax(1) == torch.arange(9)).double() for n in networks]).mean(0),
    )


def test_the_rival_only_decays():
    generator = torch.Generator()
    found = layers.decays(generator)
    assert torch.equal(found, hippo(generator).diagonal().diag())


def test_the_second_rival_is_eight_independent_oscillators():
    found = layers.evenly_spaced(torch.Generator())
    expected = torch.zeros(16, 16, dtype=torch.float64)
    for n in range(8):
        expected[2 * n : 2 * n + 2, 2 * n : 2 * n + 2] = torch.tensor(
            [[-0.5, -n * torch.pi], [n * torch.pi, -0.5]]
        )
    assert_close(found, expected, rtol=1e-6, atol=1e-6)
    eigenvalues = torch.linalg.eigvals(found)
    assert_close(eigenvalues.real, torch.full((16,), -0.5, dtype=torch.float64))
    frequencies = torch.arange(8, dtype=torch.float64).repeat_interleave(2)
    assert_close(eigenvalues.imag.abs().sort().values, torch.pi * frequencies)


def test_the_breaks_replace_hippos_matrix_alone(comparisons):
    given = next(one for one in comparisons(ssm) if layers.MATRIX in one.claims)
    made = {name: {arm: new.make for arm, new in arms.items()} for name, arms in given.breaks.items()}
    assert made == {
        "random eigenvectors": {"HiPPO": turned_hippo},
        "diagonal matrix": {"HiPPO": layers.decays},
        "evenly spaced frequencies": {"HiPPO": layers.evenly_spaced},
    }
    start = layers.hippo_legs(16)[1].float()
    for make in (hippo, random_stable, layers.evenly_spaced):
        network = PixelReader(3, make(torch.Generator()))
        assert torch.equal(network.space.b, start)
        assert not network.space.a.requires_grad


def test_the_set_up_is_the_stated_one():
    assert digest(layers) == "ecc0fcde8e5c"
    assert digest(experiment_module) == "813b286c2811"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(ssm)) == 1
