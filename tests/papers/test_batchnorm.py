"""Batch normalisation against torch's, section 3's gradients, section 3.3's invariance, and the rules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.papers import batchnorm
from readtrack.papers.batchnorm import BatchNorm, batch_norm, standardize

SHAPES = [(7, 5), (3, 5, 6), (3, 5, 4, 7)]


def theirs(shape: tuple[int, ...], **options: float) -> nn.Module:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    return kind(shape[1], **options).double()


def pair(shape: tuple[int, ...]) -> tuple[BatchNorm, nn.Module, dict[str, Tensor]]:
    """Ours, torch's, and random weights for both."""
    weights = {"weight": torch.rand(shape[1]) + 0.5, "bias": torch.randn(shape[1])}
    return BatchNorm(shape[1]).double(), theirs(shape), weights


@pytest.mark.parametrize("shape", SHAPES)
def test_training_is_torchs(assert_parity, shape):
    ours, reference, weights = pair(shape)
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,)),
        lambda w, x: functional_call(reference, w, (x,)),
        (torch.randn(shape) * 3 + 2,),
        weights=weights,
    )
    assert_close(ours.running_mean, reference.running_mean, rtol=0, atol=1e-14)
    assert_close(ours.running_var, reference.running_var, rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_use_is_torchs(assert_parity, shape):
    ours, reference, weights = pair(shape)
    for layer in (ours, reference):
        layer.eval()
        layer.running_mean.copy_(torch.arange(5.0))
        layer.running_var.copy_(torch.arange(5.0) + 0.5)
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,)),
        lambda w, x: functional_call(reference, w, (x,)),
        (torch.randn(shape) * 3 + 2,),
        weights=weights,
    )


def test_averages_follow_torchs_over_many_batches():
    ours, reference = BatchNorm(5, momentum=0.3).double(), theirs((7, 5), momentum=0.3)
    for _ in range(20):
        x = torch.randn(7, 5, dtype=torch.float64) * 2 - 1
        ours(x), reference(x)
    assert_close(ours.running_mean, reference.running_mean, rtol=1e-13, atol=1e-13)
    assert_close(ours.running_var, reference.running_var, rtol=1e-13, atol=0)


def test_averages_come_to_the_mean_and_the_unbiased_variance_of_the_data():
    layer = BatchNorm(100, momentum=0.02).double()
    for _ in range(400):
        layer(torch.randn(4, 100, dtype=torch.float64) * 3 + 1)
    assert_close(layer.running_mean.mean().item(), 1.0, rtol=0, atol=0.1)
    assert_close(layer.running_var.mean().item(), 9.0, rtol=0.03, atol=0)  # the biased one would be 6.75


def test_state_can_be_exchanged_with_torchs():
    ours = BatchNorm(5)
    rest = ours.load_state_dict(nn.BatchNorm2d(5).state_dict(), strict=False)
    assert rest.missing_keys == []
    assert rest.unexpected_keys == ["num_batches_tracked"]


def test_the_gradient_is_that_of_finite_differences():
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *inputs: batch_norm(*inputs, eps=1e-5)[0], (x, weight, bias))


def test_the_gradient_is_section_3s():
    """The six equations as the paper lists them, m examples of one batch, against ours."""
    m, eps = 6, 1e-5
    x, dy = torch.randn(2, m, 5, dtype=torch.float64)
    gamma, beta = torch.randn(2, 5, dtype=torch.float64)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, gamma, beta)]
    batch_norm(*leaves, eps=eps)[0].backward(dy)

    mean, variance = x.mean(0), x.var(0, correction=0)
    normal = (x - mean) / (variance + eps).sqrt()
    d_normal = dy * gamma
    d_variance = (d_normal * (x - mean)).sum(0) * -0.5 * (variance + eps) ** -1.5
    d_mean = (-d_normal / (variance + eps).sqrt()).sum(0) + d_variance * (-2 * (x - mean)).mean(0)
    d_x = d_normal / (variance + eps).sqrt() + d_variance * 2 * (x - mean) / m + d_mean / m
    for leaf, expected in zip(leaves, (d_x, (dy * normal).sum(0), dy.sum(0)), strict=True):
        assert_close(leaf.grad, expected, rtol=1e-11, atol=1e-12)


def test_mean_and_variance_send_no_gradient_back():
    normal, mean, variance = standardize(torch.randn(4, 3, requires_grad=True), (0,), 1e-5)
    assert (normal.requires_grad, mean.requires_grad, variance.requires_grad) == (True, False, False)


def test_second_derivatives_are_refused():
    x = torch.randn(4, 3, requires_grad=True)
    (first,) = torch.autograd.grad(standardize(x, (0,), 1e-5)[0].pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_one_tensor_is_kept_where_autograd_keeps_three():
    def kept(call) -> int:
        x = torch.randn(64, 8, requires_grad=True)
        weight, bias = (torch.randn(8, requires_grad=True) for _ in range(2))
        seen = {}
        with saved_tensors_hooks(lambda t: seen.setdefault(t.data_ptr(), t), lambda t: t):
            call(x, weight, bias)
        return sum(tensor.numel() == x.numel() for tensor in seen.values())

    assert kept(lambda *inputs: batch_norm(*inputs, eps=1e-5)) == 1
    assert kept(batchnorm.line_by_line) == 3


def test_a_batch_comes_out_with_mean_0_and_variance_1():
    y = BatchNorm(5).double()(torch.randn(3, 5, 4, 7, dtype=torch.float64) * 30 + 20)
    assert_close(y.mean((0, 2, 3)), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert_close(y.var((0, 2, 3), correction=0), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_scale_of_the_weights_does_not_matter():
    """Section 3.3: BN((aW)u) = BN(Wu), the gradient to u is the same, that to the weights 1/a of it."""
    u, dy = torch.randn(2, 9, 4, dtype=torch.float64)
    w, one, zero = (tensor.double() for tensor in (torch.randn(4, 4), torch.ones(4), torch.zeros(4)))
    results = []
    for scale in (1.0, 100.0):
        inputs = u.clone().requires_grad_()
        weights = (scale * w).requires_grad_()
        y, _, _ = batch_norm(inputs @ weights, one, zero, eps=0.0)
        y.backward(dy)
        results.append((y.detach(), inputs.grad, weights.grad * scale))
    for first, second in zip(*results, strict=True):
        assert_close(first, second, rtol=1e-10, atol=1e-10)


def test_in_use_an_example_is_alone():
    layer = BatchNorm(5)
    layer(torch.randn(8, 5))
    layer.eval()
    x = torch.randn(8, 5)
    assert_close(layer(x)[:1], layer(x[:1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1, 1)])
def test_a_single_value_has_no_variance(shape):
    with pytest.raises(ValueError, match="a single value"):
        BatchNorm(5)(torch.randn(shape))


def test_parameters_are_two_a_feature():
    with torch.device("meta"):
        assert sum(p.numel() for p in BatchNorm(512).parameters()) == 1024


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(batchnorm)
    curves = record.curves["accuracy at rate 1"]
    assert {arm: [step for step, _ in curve] for arm, curve in curves.items()} == {
        "with": [10, 20, 30, 40, 50, 60],
        "without": [10, 20, 30, 40, 50, 60],
    }
    first = min((step for step, accuracy in curves["with"] if accuracy >= 0.9), default=60)
    assert record.values["steps to 90 %", "with"] == first < 60
    assert record.values["steps to 90 %", "without"] == 60
    assert record.claims[0]["values"] == {"steps to 90 %, without / with": 60 / first}
    assert [artifact["name"] for artifact in record.artifacts] == ["accuracy"]


def test_both_networks_start_from_the_same_weights():
    networks = []
    for normalised in (True, False):
        torch.manual_seed(0)
        networks.append([m for m in batchnorm.network(normalised=normalised) if isinstance(m, nn.Linear)])
    for one, other in zip(*networks, strict=True):
        assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize(
    ("steps", "verdict"), [(14.0, "reproduced"), (3.0, "weak"), (0.5, "not reproduced"), (1.0, "weak")]
)
def test_the_rule_on_steps_can_fail(steps, verdict):
    assert batchnorm.FEWER_STEPS.judge({"steps to 90 %, without / with": steps}) == verdict


@pytest.mark.parametrize(("ratio", "verdict"), [(10.0, "reproduced"), (3.0, "weak"), (1.0, "not reproduced")])
def test_the_rule_on_rates_can_fail(ratio, verdict):
    assert batchnorm.HIGHER_RATES.judge({"highest rate that works, with / without": ratio}) == verdict


def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(batchnorm)
    assert {case.name for case in cases} == {"batch norm of vectors", "batch norm of images"}


def test_the_stated_bytes_are_those_of_what_must_be_read_and_written():
    cost = batchnorm.cost((8, 4), itemsize=2)
    x = torch.empty(8, 4, dtype=torch.bfloat16)
    assert cost["forward"].bytes == 2 * x.nbytes  # x and y
    assert cost["forward+backward"].bytes == 4 * x.nbytes  # and their gradients
