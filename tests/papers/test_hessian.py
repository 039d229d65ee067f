"""Hessian-vector products compared with the full matrix, torch's and finite differences, for several
models, and Lanczos's method with the full decomposition.
"""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import hessian
from readtrack.papers.hessian import (
    density,
    full_hessian,
    hessian_product,
    lanczos,
    module_loss,
    reverse_product,
)
from readtrack.papers.hessian.experiment import (
    attempt,
    clusters,
    covariance,
    kernel_matrix,
    network,
    outliers,
    read,
    spectrum,
)
from readtrack.papers.hessian.model import Lanczos, flatten
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perceptron() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    return network, torch.randn(11, 4, dtype=torch.float64), torch.randint(2, (11,))


def test_the_product_is_that_with_the_full_matrix() -> None:
    network, x, y = perceptron()
    of_weights, weights = module_loss(network, lambda call: F.cross_entropy(call(x), y))
    start = flatten(weights).detach()

    def of_vector(w: torch.Tensor) -> torch.Tensor:
        parts = dict(zip(weights, w.split([p.numel() for p in weights.values()]), strict=True))
        return of_weights({name: part.view_as(weights[name]) for name, part in parts.items()})

    H = torch.autograd.functional.hessian(of_vector, start)
    product = hessian_product(of_weights, weights)
    v = torch.randn(len(start), dtype=torch.float64)
    for call in (product, reverse_product(of_weights, weights)):
        assert_close(call(v), H @ v, rtol=1e-10, atol=1e-12)
    assert_close(product(v), torch.autograd.functional.hvp(of_vector, start, v)[1], rtol=1e-10, atol=1e-12)
    found = full_hessian(product, start)
    assert_close(found, H, rtol=1e-10, atol=1e-12)
    assert torch.equal(found, found.mT)
    slope = torch.func.grad(of_vector)
    differences = (slope(start + 1e-5 * v) - slope(start - 1e-5 * v)) / 2e-5
    assert_close(product(v), differences, rtol=1e-6, atol=1e-8)


def gpt2(**settings) -> tuple[nn.Module, torch.Tensor]:
    from readtrack.papers.gpt2 import GPT2

    return GPT2(11, context=8, model=8, heads=2, layers=2, **settings), torch.randint(11, (2, 6))


def gpt2_in_tiles() -> tuple[nn.Module, torch.Tensor]:
    from readtrack.papers.flashattention import flash_attention

    return gpt2(attend=flash_attention)


def lenet() -> tuple[nn.Module, torch.Tensor]:
    from readtrack.papers.lenet import LeNet5

    return LeNet5(), torch.randn(2, 1, 32, 32, dtype=torch.float64)


def convolutions() -> tuple[nn.Module, torch.Tensor]:
    convolution = nn.Conv2d(1, 2, 3, padding=1)
    layers = nn.Sequential(convolution, nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    return layers, torch.randn(3, 1, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("make", [gpt2, gpt2_in_tiles, lenet, convolutions])
def test_through_any_of_the_models(make) -> None:
    model, inputs = make()
    model = model.double().eval()

    def loss(call) -> torch.Tensor:
        found = call(inputs)
        return (found[0] if isinstance(found, tuple) else found).square().mean()

    of_weights, weights = module_loss(model, loss)
    product = reverse_product(of_weights, weights)
    v = torch.randn(sum(w.numel() for w in weights.values()), dtype=torch.float64)
    v /= v.norm()
    found = product(v)
    start = [w.detach().clone() for w in weights.values()]

    def slope(along: float) -> torch.Tensor:
        with torch.no_grad():
            pieces = v.split([w.numel() for w in start])
            for w, before, piece in zip(weights.values(), start, pieces, strict=True):
                w.copy_(before + along * piece.view_as(w))
        gradients = torch.autograd.grad(loss(model), list(weights.values()), materialize_grads=True)
        return torch.cat([g.reshape(-1) for g in gradients])

    differences = (slope(1e-5) - slope(-1e-5)) / 2e-5
    assert_close(found, differences, rtol=1e-4, atol=1e-6 * differences.abs().max().item())


def symmetric(n: int) -> torch.Tensor:
    A = torch.randn(n, n, generator=generator(), dtype=torch.float64)
    return A + A.mT


def test_lanczos_finds_the_whole_spectrum_with_n_products_and_its_ends_with_fewer() -> None:
    A = symmetric(30)
    exact = torch.linalg.eigvalsh(A)
    start = torch.randn(30, generator=generator(1), dtype=torch.float64)
    whole = lanczos(lambda v: A @ v, start, 30)
    assert_close(whole.values, exact, rtol=1e-9, atol=1e-9)
    vectors = torch.linalg.eigh(A).eigenvectors
    assert_close(whole.weights, (vectors.mT @ start / start.norm()).square(), rtol=1e-6, atol=1e-9)
    spread = torch.cat([torch.randn(290, generator=generator()).double(), torch.tensor([30.0, 50.0, -40.0])])
    few = lanczos(lambda v: spread * v, torch.ones(293, dtype=torch.float64), 25)
    assert_close(few.values[[-1, -2, 0]], torch.tensor([50.0, 30.0, -40.0], dtype=torch.float64))


def test_eigenvalues_are_not_repeated_and_the_iteration_ends_early() -> None:
    values = torch.tensor([1.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    found = lanczos(lambda v: values * v, torch.ones(4, dtype=torch.float64), 50)
    assert_close(found.values, torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
    assert_close(found.weights, torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64))


def test_the_density_of_a_whole_spectrum() -> None:
    grid = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    alone = Lanczos(torch.tensor([-2.0, 3.0]).double(), torch.tensor([0.25, 0.75]).double())
    curve = density([alone], grid, 0.1)
    assert curve.sum().item() * 0.01 == pytest.approx(1, rel=1e-6)
    assert curve[grid < 0].sum().item() * 0.01 == pytest.approx(0.25, rel=1e-6)


def test_outliers_lie_above_the_largest_gap() -> None:
    for lowest in (-0.1, -2.0):
        assert outliers(torch.tensor([lowest, 0.01, 0.02, 3.0, 4.0])) == 2
    assert outliers(torch.tensor([0.0, 0.001, 5.0])) == 1


def test_the_clusters_lie_on_a_circle_with_alternating_labels() -> None:
    x, y = clusters(4, generator())
    angle = torch.atan2(x[:, 1], x[:, 0]) / (2 * torch.pi) * 4
    which = angle.round()
    assert (angle - which).abs().max() < 0.2
    assert x.norm(dim=1).mean().item() == pytest.approx(2, rel=0.02)
    assert 0.05 < ((which % 2 == 1) != (y == 1)).float().mean() < 0.16
    ring, same = clusters(4, generator(), parted=False)
    assert torch.equal(y, same)
    turns = torch.atan2(ring[:, 1], ring[:, 0]) / (2 * torch.pi) * 4
    assert (turns - turns.round()).abs().max() > 0.45
    assert 0.05 < ((turns.round() % 2 == 1) != (y == 1)).float().mean() < 0.2


def test_the_experiment_and_its_breaks(run_experiment) -> None:
    record = run_experiment(hessian)
    assert record.curves["outliers, 8 wide"].keys() == {"network", "linear model"}
    broken = run_experiment(hessian, broken="covariance of the inputs")
    counts = dict(broken.curves["outliers, 8 wide"]["network"])
    assert set(counts.values()) <= {1.0, 2.0}
    assert dict(broken.curves["outliers, 32 wide"]["network"]) == counts
    rival = run_experiment(hessian, broken="kernel matrix of the inputs")
    for width in (8, 32):
        assert dict(rival.curves[f"outliers, {width} wide"]["network"]) == {2: 2, 4: 4}


def test_the_control_is_a_linear_model_that_is_trained_alike() -> None:
    module = sys.modules["readtrack.papers.hessian.experiment"]
    assert digest(module) == "6e0a9199563a"
    assert [type(layer) for layer in module.linear(8)] == [nn.Linear]
    assert [tuple(w.shape) for w in module.network(8).parameters()] == [(8, 2), (8,), (1, 8), (1,)]


def test_the_rivals_see_only_the_inputs() -> None:
    x, _ = clusters(4, generator())
    assert_close(covariance(x), (x - x.mean(0)).mT @ (x - x.mean(0)) / 319)
    distance = (x[3] - x[5]).norm()
    found = kernel_matrix(x)
    assert found[3, 5].item() == pytest.approx(torch.exp(-2 * distance**2).item() / 320)
    assert found.trace().item() == pytest.approx(1)
    for count in (2, 4, 8):
        assert outliers(torch.linalg.eigvalsh(kernel_matrix(clusters(count, generator())[0]))) == count


def any_trial(run, world=None) -> Trial:
    return Trial(Workshop(run, world), Work(arm="any"), arm="any")


def test_the_spectrum_is_that_of_torchs_loss_at_the_trained_weights(part_of_run) -> None:
    torch.manual_seed(0)
    (x, y), model = clusters(4, generator()), network(3)
    before = flatten(dict(model.named_parameters())).detach().double()
    found = spectrum(any_trial(part_of_run()), model, x, y, 3)
    weights = dict(model.named_parameters())
    assert not torch.allclose(flatten(weights), before)
    of_weights, _ = module_loss(model, lambda call: F.binary_cross_entropy_with_logits(call(x)[:, 0], y))

    def of_vector(w: torch.Tensor) -> torch.Tensor:
        parts = zip(weights.items(), w.split([p.numel() for p in weights.values()]), strict=True)
        return of_weights({name: part.view_as(p) for (name, p), part in parts})

    H = torch.autograd.functional.hessian(of_vector, flatten(weights).detach())
    assert_close(found, torch.linalg.eigvalsh(H), rtol=1e-9, atol=1e-12)


def test_each_width_and_each_number_of_clusters_has_its_spectra(part_of_run) -> None:
    world = {2: [clusters(2, generator())], 4: [clusters(4, generator(k)) for k in range(2)]}
    found = attempt(any_trial(part_of_run(), world), network, None, steps=1)[1]
    lengths = {case: [len(eigenvalues) for eigenvalues in draws] for case, draws in found.items()}
    assert lengths == {(8, 2): [33], (8, 4): [33, 33], (32, 2): [129], (32, 4): [129, 129]}


def test_the_numbers_of_the_claim_come_from_the_medians(part_of_run) -> None:
    def spectra(*counts: int) -> list[torch.Tensor]:
        return [torch.tensor([1e-4, 1e-2] + count * [1.0], dtype=torch.float64) for count in counts]

    chosen = {
        (8, 2): spectra(2, 2, 5),
        (8, 4): spectra(1, 3, 3),
        (32, 2): spectra(2, 1, 2),
        (32, 4): spectra(6, 4, 4),
    }
    assert read(any_trial(part_of_run(), {2: [], 4: []}), Sweep(chosen, None, {})) == {
        "rank correlation, outliers and clusters": pytest.approx(4 / 18**0.5),
        "outliers, mean distance from clusters": 0.25,
        "outliers, 32 wide - 8 wide, size of the mean": 0.5,
    }


def test_the_benchmark(check_benchmark) -> None:
    check_benchmark(hessian, tolerance=1e-8)
