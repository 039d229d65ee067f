"""Batch normalisation compared with torch's, section 3's gradients, section 3.3's invariance, and the
arms.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import batchnorm
from readtrack.papers.batchnorm import BatchNorm, batch_norm, convolutions, line_by_line
from readtrack.papers.batchnorm.experiment import (
    ARMS,
    BREAKS,
    CENTRED,
    CLIPPED,
    CONSTANT,
    NO_MEAN,
    NO_VARIANCE,
    OnlyStarted,
    Trained,
    highest,
    network,
    steps_and_rates,
    steps_below,
)
from readtrack.plugin import AtLeast, Sweep, Trial
from readtrack.runs.trial import Work, Workshop

EXPERIMENT = importlib.import_module("readtrack.papers.batchnorm.experiment")  # the hook has the same name
SHAPES = [(7, 5), (3, 5, 6), (3, 5, 4, 7)]


def theirs(shape: tuple[int, ...], **options: float) -> nn.Module:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    return kind(shape[1], **options).double()


def pair(shape: tuple[int, ...]) -> tuple[BatchNorm, nn.Module, dict[str, Tensor]]:
    """Our layer, torch's layer, and random weights for both."""
    weights = {"weight": torch.rand(shape[1]) + 0.5, "bias": torch.randn(shape[1])}
    return BatchNorm(shape[1]).double(), theirs(shape), weights


def called(layer: nn.Module):
    return lambda weights, x: functional_call(layer, weights, (x,))


@pytest.mark.parametrize("shape", SHAPES)
def test_training_matches_torchs(assert_parity, shape):
    ours, reference, weights = pair(shape)
    assert_parity(called(ours), called(reference), (torch.randn(shape) * 3 + 2,), weights=weights)
    assert_close(ours.running_mean, reference.running_mean, rtol=0, atol=1e-14)
    assert_close(ours.running_var, reference.running_var, rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_use_matches_torchs(assert_parity, shape):
    ours, reference, weights = pair(shape)
    for layer in (ours, reference):
        layer.eval()
        layer.running_mean.copy_(torch.arange(5.0))
        layer.running_var.copy_(torch.arange(5.0) + 0.5)
    assert_parity(called(ours), called(reference), (torch.randn(shape) * 3 + 2,), weights=weights)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_gradient_is_the_slow_ones(assert_parity, shape):
    features = torch.rand(shape[1]) + 0.5, torch.randn(shape[1])
    assert_parity(
        lambda *given: batch_norm(*given, eps=0.5)[0],
        lambda *given: line_by_line(*given, eps=0.5),
        (torch.randn(shape) * 3 + 2, *features),
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
    assert_close(layer.running_var.mean().item(), 9.0, rtol=0.03, atol=0)  # the biased estimate would be 6.75


def test_state_can_be_exchanged_with_torchs():
    ours = BatchNorm(5)
    rest = ours.load_state_dict(nn.BatchNorm2d(5).state_dict(), strict=False)
    assert rest.missing_keys == []
    assert rest.unexpected_keys == ["num_batches_tracked"]
    assert (ours.eps, ours.momentum) == (nn.BatchNorm2d(5).eps, nn.BatchNorm2d(5).momentum)
    assert torch.equal(ours.weight, torch.ones(5))
    assert not ours.bias.any()


def test_first_and_second_derivatives_match_finite_differences():
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    given = x, weight, bias
    assert torch.autograd.gradcheck(lambda *inputs: batch_norm(*inputs, eps=1e-5)[0], given)
    assert torch.autograd.gradgradcheck(lambda *inputs: batch_norm(*inputs, eps=1e-5)[0], given)


def test_the_gradient_is_section_3s():
    """Compares ours with the six equations of the paper, for m examples of one batch."""
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
    y, mean, variance = batch_norm(torch.randn(4, 3, requires_grad=True), *torch.ones(2, 3), eps=1e-5)
    assert (y.requires_grad, mean.requires_grad, variance.requires_grad) == (True, False, False)


def test_one_tensor_is_kept_where_autograd_keeps_three():
    def kept(call) -> int:
        x = torch.randn(64, 8, requires_grad=True)
        weight, bias = (torch.randn(8, requires_grad=True) for _ in range(2))
        seen = {}
        with saved_tensors_hooks(lambda t: seen.setdefault(t.data_ptr(), t), lambda t: t):
            call(x, weight, bias)
        return sum(tensor.numel() == x.numel() for tensor in seen.values())

    assert kept(lambda *inputs: batch_norm(*inputs, eps=1e-5)) == 1
    assert kept(line_by_line) == 3


@pytest.mark.parametrize("shape", [(64, 32), (8, 16, 6, 6)])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_is_nearly_as_accurate_as_torchs(assert_half_precision, shape, training):
    features = torch.rand(shape[1]) + 0.5, torch.randn(shape[1])

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        layer = BatchNorm(shape[1]).to(x.dtype).train(training)
        return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    def reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, variance = torch.zeros_like(weight), torch.ones_like(weight)
        return F.batch_norm(x, mean, variance, weight, bias, training=training)

    assert_half_precision(ours, reference, (torch.randn(shape) * 3 + 2, *features))


def test_autocast_goes_through_and_keeps_averages_in_single():
    linear, ours, reference = nn.Linear(8, 5), BatchNorm(5), nn.BatchNorm1d(5)
    for layer in (ours, reference):
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16):
                y = layer(linear(torch.ones(6, 8) * torch.arange(6)[:, None]))
            y.float().square().sum().backward()
        layer.eval()
    assert_close(ours.running_mean, reference.running_mean, rtol=1e-5, atol=1e-5)
    assert_close(ours.running_var, reference.running_var, rtol=1e-5, atol=1e-5)
    assert_close(ours.bias.grad, reference.bias.grad, rtol=0.02, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(linear(torch.randn(6, 8))).dtype == reference(linear(torch.randn(6, 8))).dtype


def test_a_batch_comes_out_with_mean_0_and_variance_1():
    y = BatchNorm(5).double()(torch.randn(3, 5, 4, 7, dtype=torch.float64) * 30 + 20)
    assert_close(y.mean((0, 2, 3)), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert_close(y.var((0, 2, 3), correction=0), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_scale_of_the_weights_does_not_matter():
    """Section 3.3: BN((aW)u) = BN(Wu). The gradient with respect to u is unchanged, and the gradient with
    respect to the weights is divided by a.
    """
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


# The arms


def test_the_control_is_figure_1s_network_without_and_starts_from_the_same_weights():
    networks = []
    for norm in (BatchNorm, nn.Identity):
        torch.manual_seed(0)
        networks.append(network(norm))
    kinds = [[type(layer) for layer in net] for net in networks]
    assert kinds[1] == [nn.Linear, nn.Identity, nn.Sigmoid] * 3 + [nn.Linear]
    assert kinds[0] == [nn.Linear, BatchNorm, nn.Sigmoid] * 3 + [nn.Linear]
    assert [layer.weight.shape for layer in networks[1] if isinstance(layer, nn.Linear)] == [
        (100, 64),
        (100, 100),
        (100, 100),
        (10, 100),
    ]
    for one, other in zip(*networks, strict=True):
        if isinstance(one, nn.Linear):
            assert torch.equal(one.weight, other.weight)
            assert not one.bias.any()
            assert one.weight.std().item() == pytest.approx(
                (2 / sum(one.weight.shape)) ** 0.5, rel=0.1
            )  # Xavier


def test_only_started_is_batch_norm_on_the_first_batch_and_a_fixed_scale_after_it():
    layer, x = OnlyStarted(5).double().train(), torch.randn(9, 5, dtype=torch.float64) * 3 + 1
    first = layer(x)
    assert_close(first.mean(0), torch.zeros(5).double(), rtol=0, atol=1e-12)
    assert_close(first.var(0), torch.ones(5).double(), rtol=1e-4, atol=0)
    layer.train()
    assert_close(layer(x * 7)[:1], layer(x[:1] * 7), rtol=0, atol=1e-12)
    assert_close(layer(x), first)
    assert sum(p.requires_grad for p in layer.parameters()) == 2


def test_a_resumed_network_keeps_the_first_batchs_statistics():
    before, after = OnlyStarted(5), OnlyStarted(5)
    before(torch.randn(9, 5))
    after.load_state_dict(before.state_dict())
    x = torch.randn(9, 5) * 3
    assert torch.equal(after.train()(x), before(x))


def test_the_arms_and_their_breaks():
    assert dict(ARMS) == {
        "with": (BatchNorm, None, False),
        "without": (nn.Identity, None, False),
        "only started so": (OnlyStarted, None, False),
    }
    assert {one.name: setting for one, setting in BREAKS.items() if one.role == "rival"} == {
        "normalised start alone": (OnlyStarted, None, False),
        "normalised start and clipped gradients": (OnlyStarted, 1.0, False),
        "normalised start and centred filters": (OnlyStarted, None, True),
    }


def test_the_rival_clips_gradients_in_both_networks(part_of_run):
    run = part_of_run()
    at = Trial(Workshop(run, convolutions.digits(run)), Work(arm="with"), arm="with")
    EXPERIMENT.train(at, BREAKS[CLIPPED], 1.0)
    EXPERIMENT.of_images(at, BREAKS[CLIPPED], 0.06, steps=1)
    assert [how.partition(" clip ")[2] for how in at.work.how] == ["1.0", "1.0"]
    assert CLIPPED in EXPERIMENT.HIGHER_RATES.breaks
    assert CLIPPED in EXPERIMENT.IMAGES.breaks


def test_the_rival_centres_every_filter_and_its_gradient(part_of_run, monkeypatch):
    run, built = part_of_run(), []

    def attempt(at, make, rate, *, steps, clip):
        built.append(make(torch.zeros(1)))
        return 0.0, {}

    monkeypatch.setattr(EXPERIMENT, "attempt", attempt)
    at = Trial(Workshop(run, convolutions.digits(run)), Work(arm="with"), arm="with")
    for setting in (BREAKS[CENTRED], ARMS["only started so"]):
        torch.manual_seed(0)
        EXPERIMENT.of_images(at, setting, 0.06, steps=1)
    ours, plain = ([layer for layer in net if isinstance(layer, nn.Conv2d)] for net in built)
    assert len(ours) == 7
    for one, other in zip(ours, plain, strict=True):
        assert_close(one.weight, other.weight - other.weight.mean((1, 2, 3), keepdim=True))
        (one.weight * torch.randn_like(one.weight)).sum().backward()
        original = one.parametrizations.weight.original
        assert_close(original.grad.mean((1, 2, 3)), torch.zeros(len(original)), rtol=0, atol=1e-6)
    assert torch.equal(built[0][-1].weight, built[1][-1].weight)
    assert CENTRED in EXPERIMENT.IMAGES.breaks


def test_the_near_miss_without_mean_divides_by_the_standard_deviation_only():
    x = torch.randn(9, 4, 3, requires_grad=True)
    layer = BREAKS[NO_MEAN].norm(4)
    assert_close(layer(x), x / (x.var((0, 2), correction=0) + layer.eps).sqrt()[:, None])
    (through,) = torch.autograd.grad(layer(x)[0].sum(), x)
    assert through[1:].any()
    layer.running_var.fill_(4.0)
    layer.eval()
    assert_close(layer(x), x / (4 + layer.eps) ** 0.5)
    assert NO_MEAN in EXPERIMENT.IMAGES.breaks


@pytest.mark.parametrize("broken", [NO_VARIANCE, CONSTANT])
def test_near_misses_are_batch_norm_but_for_one_thing(broken):
    x = torch.randn(9, 4, requires_grad=True)
    layer, whole = BREAKS[broken].norm(4), BatchNorm(4)
    y, expected = layer(x), (x - x.mean(0)) if broken == NO_VARIANCE else whole(x)
    assert_close(y, expected)
    (ours,) = torch.autograd.grad(y[0].sum(), x)
    (its,) = torch.autograd.grad(expected[0].sum(), x)
    assert its[1:].any()
    # The contribution of the other examples goes through mean and variance.
    assert ours[1:].any() == (broken == NO_VARIANCE)
    layer.eval()
    assert layer(x[:1]).isfinite().all()


def test_the_deep_network_of_the_images():
    torch.manual_seed(0)
    net = convolutions.network(nn.Identity)
    layers = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [16, 32, 32, 64, 64, 64, 64]
    x = torch.randn(2, 1, 8, 8)
    assert net[:21](x).shape == (2, 64, 4, 4)
    assert net(x).shape == (2, 10)
    for layer in layers[2:]:
        fan_in = layer.in_channels * 9
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)  # He
        assert not layer.bias.any()
    clean, draw = torch.zeros(100, 1, 8, 8), torch.Generator().manual_seed(0)
    assert convolutions.noisy(clean, draw).std().item() == pytest.approx(convolutions.NOISE, rel=0.05)


class Spy(nn.Module):
    """A linear classifier that keeps the inputs of training steps."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(64, 10), []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.flatten(1))
        return self.linear(x.flatten(1))


def test_images_are_noisy_in_training_and_the_rate_decays(part_of_run):
    run, spy = part_of_run(), Spy()
    at = Trial(Workshop(run, convolutions.digits(run)), Work(arm="with"), arm="with")
    (x, _), (chosen_by, y), (judge, _) = at.world
    score, found = convolutions.attempt(at, lambda _: spy, 0.06, steps=4)
    assert [len(batch) for batch in spy.seen] == [32] * 4
    off = torch.cdist(torch.cat(spy.seen), x.flatten(1)).min(1).values
    assert off.mean().item() == pytest.approx(convolutions.NOISE * 64**0.5, rel=0.1)
    assert at.work.rates == pytest.approx([0.06, 0.06 * (1 + math.cos(0.75 * math.pi)) / 2])

    assert len(found["loss"]) == len(judge) != len(chosen_by)
    again = convolutions.measures(spy.eval(), chosen_by, y, run.data("noise to choose", "choose"))
    assert score == pytest.approx(again["loss"].mean().item())


def test_the_network_of_figure_1_sees_60_of_all_training_images_a_step(part_of_run, monkeypatch):
    run, spy = part_of_run(), Spy()
    monkeypatch.setattr(EXPERIMENT, "network", lambda norm, *, pixels: spy)
    at = Trial(Workshop(run, convolutions.digits(run)), Work(arm="with"), arm="with")
    EXPERIMENT.train(at, ARMS["with"], 0.1)
    assert [len(batch) for batch in spy.seen] == [60] * 20
    distance, rows = torch.cdist(torch.cat(spy.seen), at.world.train[0].flatten(1)).min(1)
    assert distance.max() < 0.01
    assert rows.double().mean().item() == pytest.approx(len(at.world.train[0]) / 2, rel=0.1)


def test_each_part_has_its_accuracy_and_the_last_part_the_loss(part_of_run):
    right, wrong = (torch.eye(10), torch.arange(10)), (torch.eye(10), torch.arange(10).roll(1))
    mixed = (torch.eye(10), torch.arange(10) * (torch.arange(10) < 4))
    accuracy, loss = EXPERIMENT.evaluate(part_of_run(), nn.Identity(), [wrong, right, mixed])
    assert accuracy == pytest.approx([0.0, 1.0, 0.4])
    assert loss == pytest.approx(F.cross_entropy(*mixed).item())


def test_the_rate_is_chosen_on_validation_images(part_of_run, monkeypatch):
    def evaluate(run, model, parts):
        return [0.7, 0.5, 1.0][-len(parts) :], 0.25

    monkeypatch.setattr(EXPERIMENT, "evaluate", evaluate)
    run = part_of_run()
    at = Trial(Workshop(run, convolutions.digits(run)), Work(arm="with"), arm="with")
    score, found = EXPERIMENT.train(at, ARMS["with"], 0.1)
    assert score == pytest.approx(0.4)  # 90 % - 50 %
    assert found == Trained({10: 1.0, 20: 1.0}, 0.25, 0.7)


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    claims = batchnorm.FEWER_STEPS, batchnorm.HIGHER_RATES
    short = {bound.metric for claim in claims for bound in (*claim.rule, *claim.control_reaches)}
    record = run_experiment(batchnorm, unreached=short - {"best accuracy, without"})
    assert record.curves["accuracy at the best rate"].keys() == ARMS.keys()
    assert record.curves["end loss over rate"].keys() == ARMS.keys()
    assert record.curves["loss on images at rate 0.06"].keys() == ARMS.keys()
    assert {name for name, _ in record.values} >= {"best rate", "error on images"}
    assert digest(EXPERIMENT) == "d98442381bcc"
    assert digest(convolutions) == "803ab103dfe6"


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((0.1, 0.1, 9.0), 10.0),
        ((9.0, 0.1, math.nan), 10.0),
        ((0.1, 9.0, 0.1), AtLeast(100.0)),
        ((1.1, math.nan, 9.0), 1.0),
        ((1.2, math.nan, 9.0), None),  # no arm works: 1.2 is above half of ln 10
    ],
)
def test_the_highest_rate_that_works_is_read_off_the_losses_at_the_end(losses, expected):
    found = highest(dict(zip((1.0, 10.0, 100.0), losses, strict=True)))
    assert math.isnan(found) if expected is None else found == expected


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [((0.8, 0.95, 0.95), 20.0), ((0.95, 0.8, 0.95), 20.0), ((0.1, 0.95, 0.8), AtLeast(30.0))],
)
def test_steps_below_90_per_cent(accuracy, expected):
    assert steps_below(dict(zip((10, 20, 30), accuracy, strict=True))) == expected


def test_the_metrics_of_a_sweep(part_of_run):
    at = Trial(Workshop(part_of_run()), Work(arm="with"), arm="with")
    points = {1.0: Trained({10: 0.8, 20: 0.95}, 0.3, 0.9), 3.0: Trained({10: 0.1, 20: 0.1}, 2.3, 0.1)}
    assert steps_and_rates(at, Sweep(points[1.0], 1.0, points)) == {
        "steps below 90 %": 20.0,
        "best accuracy": 0.95,
        "training accuracy": 0.9,
        "highest learning rate that works": 1.0,
    }


def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(batchnorm)
    assert {case.name for case in cases} == {"batch norm of vectors", "batch norm of images"}


def test_the_stated_bytes_are_the_necessary_reads_and_writes():
    cost = batchnorm.cost((8, 4), itemsize=2)
    x = torch.empty(8, 4, dtype=torch.bfloat16)
    assert cost["forward"].bytes == 2 * x.nbytes  # x and y
    assert cost["forward+backward"].bytes == 4 * x.nbytes  # and their gradients
