"""Weight normalisation compared with torch's, equation 3, the data-dependent initialisation, and the arms."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import weightnorm
from readtrack.papers.batchnorm import BatchNorm, convolutions
from readtrack.papers.weightnorm import (
    MeanOnlyBatchNorm,
    WeightNorm,
    line_by_line,
    start_from_data,
    weight_norm,
)
from readtrack.papers.weightnorm.experiment import ARMS, BREAKS, YARDSTICKS
from readtrack.plugin import Trial
from readtrack.runs.trial import Work, Workshop

# The hook has the same name.
EXPERIMENT = importlib.import_module("readtrack.papers.weightnorm.experiment")
LAYERS = {
    "linear": (lambda: nn.Linear(5, 7), (3, 5)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 6, 5)),
}
NAMES = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
    "bias": "bias",
}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_layer_matches_torchs(assert_parity, kind):
    make, shape = LAYERS[kind]
    layer = make()
    ours, theirs = WeightNorm(layer).double(), parametrizations.weight_norm(layer).double()

    def reference(weights, x):
        return functional_call(theirs, {NAMES[name]: weight for name, weight in weights.items()}, (x,))

    weights = {name: torch.randn_like(weight) for name, weight in ours.named_parameters()}
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,)), reference, (torch.randn(shape),), weights=weights
    )


@pytest.mark.parametrize("shape", [(4, 3), (5, 2, 3, 3), (1, 1)])
def test_the_fast_weight_is_the_slow_one(assert_parity, shape):
    g = torch.randn(shape[0], *[1] * (len(shape) - 1))
    assert_parity(weight_norm, line_by_line, (torch.randn(shape), g))


def test_half_precision_is_as_accurate_as_torchs(assert_half_precision):
    v, g = torch.randn(64, 64) * 3, torch.rand(64, 1) + 0.5
    assert_half_precision(
        weight_norm, lambda v, g: torch._weight_norm(v, g, 0), (v, g), dtypes=(torch.bfloat16,)
    )


def test_the_gradients_are_equation_3():
    v, g = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 5), (4, 1)))
    arriving = torch.randn(4, 5, dtype=torch.float64)
    for_v, for_g = torch.autograd.grad(weight_norm(v, g), (v, g), arriving)
    length = v.norm(dim=1, keepdim=True)
    along = (arriving * v).sum(1, keepdim=True) / length
    assert_close(for_g, along)
    assert_close(for_v, g / length * arriving - g * along / length**2 * v)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_starts_as_the_one_it_was_made_of_and_takes_old_names(kind):
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    ours = WeightNorm(layer)
    assert_close(ours(x), layer(x))
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(make())
    ours.load_state_dict(old.state_dict())
    assert_close(ours(x), old(x))


@pytest.mark.parametrize("kind", LAYERS)
def test_the_start_gives_each_unit_mean_0_and_variance_1(kind):
    make, shape = LAYERS[kind]
    layer, x = WeightNorm(make()), torch.randn(50, *shape[1:]) * 3 + 2
    v = layer.weight_v.detach().clone()
    y = layer.start(x)
    assert_close(y, layer(x))
    dims = (0, *range(2, y.ndim))
    assert_close(y.mean(dims), torch.zeros(y.shape[1]), atol=1e-5, rtol=0)
    assert_close(y.var(dims, correction=0), torch.ones(y.shape[1]))
    assert torch.equal(layer.weight_v, v)


def test_layers_start_in_order():
    net = nn.Sequential(WeightNorm(nn.Linear(5, 6)), nn.ReLU(), WeightNorm(nn.Linear(6, 4)))
    x = torch.randn(200, 5)
    start_from_data(net, x)
    y = net(x)
    assert_close(y.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert_close(y.std(0, correction=0), torch.ones(4))


def test_vgg_has_one_more_length_per_unit():
    with torch.device("meta"):
        first, last = WeightNorm(nn.Conv2d(3, 64, 3)), WeightNorm(nn.Linear(4096, 1000))
    assert sum(p.numel() for p in first.parameters()) == 64 * (3 * 9 + 1 + 1)
    assert sum(p.numel() for p in last.parameters()) == 1000 * (4096 + 1 + 1)


def test_mean_only_batch_normalisation_takes_the_mean_off():
    layer, x = MeanOnlyBatchNorm(3), torch.randn(8, 3, 2, 2) + 5
    assert_close(layer(x), x - x.mean((0, 2, 3), keepdim=True))
    assert_close(layer.running_mean, 0.1 * x.mean((0, 2, 3)))
    assert_close(layer.eval()(x[:1]), x[:1] - layer.running_mean.view(-1, 1, 1))


# Experiment and benchmark


@pytest.mark.parametrize("settings", [{"dilation": 2}, {"groups": 2}, {"padding": (1, 0)}])
def test_a_convolution_keeps_its_settings(settings):
    layer, x = nn.Conv2d(4, 6, 3, **settings), torch.randn(2, 4, 7, 6)
    assert_close(WeightNorm(layer)(x), layer(x))


def test_other_padding_than_zeros_is_refused():
    with pytest.raises(ValueError, match="reflect"):
        WeightNorm(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))


def test_a_unit_that_does_not_vary_keeps_its_length():
    layer = WeightNorm(nn.Linear(3, 2))
    length = layer.weight_g.detach().clone()
    assert_close(layer.start(torch.ones(5, 3)), torch.zeros(5, 2))
    assert_close(layer.weight_g.detach(), length)


def made(setting) -> nn.Sequential:
    torch.manual_seed(0)
    return setting.make(torch.rand(64, 1, 8, 8))


def kinds(net: nn.Sequential) -> set[type]:
    return {type(part) for part in net} - {nn.ReLU, nn.Identity, nn.Flatten, nn.AdaptiveAvgPool2d}


def test_the_arms():
    found = {name: made(setting) for name, setting in (ARMS | YARDSTICKS).items()}
    usual = {nn.Conv2d, nn.Linear}
    assert {arm: kinds(net) for arm, net in found.items()} == {
        "plain": usual,
        "same start": usual,
        "weight norm": {WeightNorm},
        "mean-only": {WeightNorm, MeanOnlyBatchNorm},
        "batch norm": usual | {BatchNorm},
    }
    x = torch.rand(64, 1, 8, 8)
    assert_close(found["same start"](x), found["weight norm"](x), rtol=1e-3, atol=1e-3)
    assert {setting.clip for setting in (ARMS | YARDSTICKS).values()} == {None}


def test_the_breaks():
    found = {one.name: made(setting) for one, (_, setting) in BREAKS.items()}
    x = torch.rand(64, 1, 8, 8)
    assert_close(found["no start"](x), made(YARDSTICKS["plain"])(x))
    assert kinds(found["same start, clipped gradients"]) == {nn.Conv2d, nn.Linear}
    layer = found["constant length"][0]
    layer(x).square().sum().backward()
    cosines = nn.functional.cosine_similarity(layer.weight_v.flatten(1), layer.weight_v.grad.flatten(1))
    assert cosines.abs().max() > 0.01
    assert [setting.clip for _, setting in BREAKS.values()] == [None, None, 1.0, None, None, None]


STARTED = ARMS | {one.name: setting for one, (_, setting) in BREAKS.items() if one.name != "no start"}


@pytest.mark.parametrize("name", STARTED)
def test_a_network_starts_from_the_images_with_small_logits(name):
    net = made(STARTED[name])
    torch.manual_seed(0)
    logits = net(torch.rand(64, 1, 8, 8))  # the images that `made` gives the network
    assert_close(logits.mean(0), torch.zeros(10), atol=1e-4, rtol=0)
    assert_close(logits.std(0, correction=0), torch.full((10,), 0.1), atol=1e-4, rtol=0)


def test_training_clips_gradients(part_of_run):
    run = part_of_run()
    at = Trial(Workshop(run, convolutions.digits(run)), Work(arm="weight norm"), arm="weight norm")
    for setting in (BREAKS[EXPERIMENT.CLIPPED][1], ARMS["weight norm"]):
        EXPERIMENT.train(at, setting, 0.06, steps=1)
    assert [how.partition(" clip ")[2] for how in at.work.how] == ["1.0", "None"]


def test_a_constant_mean_sends_no_gradient_to_the_other_examples():
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    layer, whole = EXPERIMENT.ConstantMean(3), MeanOnlyBatchNorm(3)
    assert_close(layer(x), whole(x))
    (ours,) = torch.autograd.grad(layer(x)[0].square().sum(), x)
    assert not ours[1:].any()
    assert_close(layer.eval()(x[:1]), x[:1] - layer.running_mean.view(-1, 1, 1))


def test_centred_filters_have_mean_0_and_the_given_length():
    v, g = torch.randn(4, 3, 2, 2) + 1, torch.rand(4, 1, 1, 1)
    weight = EXPERIMENT.Centred.normalise(v, g)
    assert_close(weight.mean((1, 2, 3)), torch.zeros(4), rtol=0, atol=1e-6)
    assert_close(weight.flatten(1).norm(dim=1), g.flatten())
    assert_close(
        EXPERIMENT.Centred.normalise(v[..., 0, 0], g[..., 0, 0]), weight_norm(v[..., 0, 0], g[..., 0, 0])
    )
    x = torch.randn(2, 3, 4, 4)
    layer = EXPERIMENT.Centred(nn.Conv2d(3, 4, 2))
    assert_close(layer(x + 1), layer(x))
    assert kinds(made(BREAKS[EXPERIMENT.CENTRED][1])) == {EXPERIMENT.Centred}
    assert BREAKS[EXPERIMENT.CENTRED][0] == "mean-only"
    assert EXPERIMENT.CENTRED in EXPERIMENT.MEAN_ONLY.breaks


def test_the_mean_of_an_example_needs_no_batch():
    x = torch.randn(4, 3, 2, 2)
    layer = EXPERIMENT.ExamplesMean(3)
    assert_close(layer(x)[:1], layer(x[:1]))
    assert_close(layer(x).mean((1, 2, 3)), torch.zeros(4), rtol=0, atol=1e-6)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(weightnorm)
    verdicts = {claim["claim"]["name"]: claim["verdict"] for claim in record.claims}
    assert verdicts["invariance to the length of v"] == "held"
    assert record.curves["loss on images at rate 0.02"].keys() == (ARMS | YARDSTICKS).keys()
    loss = {arm: record.values["loss on images", arm] for arm in ARMS | YARDSTICKS}
    values = record.claims[2]["values"]
    gains = [math.log(loss["plain"] / loss[arm]) for arm in ("mean-only", "batch norm")]
    assert values[EXPERIMENT.SHARE] == pytest.approx(gains[0] / gains[1], rel=1e-3)
    assert digest(EXPERIMENT) == "cea6de35e305"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(weightnorm)] == ["convolution"]
