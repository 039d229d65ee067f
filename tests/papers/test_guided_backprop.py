"""Guided backpropagation compared with hooks on autograd, the all-convolutional networks, and the arms."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import guided_backprop
from readtrack.papers.guided_backprop import AllConvNet, guided
from readtrack.papers.guided_backprop.benchmark import explicit, with_hooks
from readtrack.papers.saliency.network import Known, PairNet
from readtrack.papers.zfnet import deconvnet, gradient, pull_back
from readtrack.papers.zfnet.experiment import of_scores
from readtrack.plugin import Run, Sweep, Trial
from readtrack.runs.trial import Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.guided_backprop.experiment")


def test_the_rule_passes_values_that_are_positive_both_ways():
    signal, x = torch.tensor([-1.0, 2, -3, 4]), torch.tensor([1.0, 1, -1, -1])
    assert guided(signal, x).tolist() == [0, 2, 0, 0]


def test_the_map_matches_hooks():
    network = PairNet().double().fold()
    images = torch.rand(2, 3, 12, 16, dtype=torch.float64)
    assert_close(explicit(network, images), with_hooks(network, images), rtol=1e-10, atol=1e-12)


def test_without_negative_values_it_is_the_gradient():
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3, padding=1)
    )
    for weight in layers.parameters():
        nn.init.uniform_(weight)
    image = torch.rand(2, 3, 6, 6)
    found = [pull_back(layers, image, rule, torch.ones_like) for rule in (guided, gradient)]
    assert_close(*found)
    assert found[0].all()


@pytest.mark.parametrize(
    ("kind", "parameters", "steps"),
    [
        ("model", 954_730, "c c M c c M c o o"),
        ("strided", 954_730, "c s c s c o o"),
        ("conv-pool", 1_369_738, "c c c M c c c M c o o"),
        ("all-conv", 1_369_738, "c c s c c s c o o"),
    ],
)
def test_the_networks_of_table_2(kind, parameters, steps):
    with torch.device("meta"):
        network = AllConvNet(kind)
        assert network(torch.empty(2, 3, 32, 32)).shape == (2, 10)
        assert network.layers(torch.empty(1, 3, 32, 32)).shape == (1, 10, 6, 6)
    assert sum(w.numel() for w in network.parameters()) == parameters
    found = []
    for layer in network.layers:
        if isinstance(layer, nn.Conv2d):
            found.append("o" if layer.kernel_size == (1, 1) else "s" if layer.stride == (2, 2) else "c")
        elif isinstance(layer, nn.MaxPool2d):
            found.append("M")
    assert found == steps.split()
    assert [layer.p for layer in network.layers if isinstance(layer, nn.Dropout)] == [0.2, 0.5, 0.5]


def test_the_all_convolutional_network_is_products_of_patches(assert_parity):
    network = AllConvNet("all-conv", classes=3, maps=4).double().eval()
    layers = [layer for layer in network.layers if isinstance(layer, nn.Conv2d)]

    def written(w, x):
        tensors = list(w.values())
        for layer, weight, bias in zip(layers, tensors[::2], tensors[1::2], strict=True):
            size, stride = layer.kernel_size[0], layer.stride[0]
            pad = 0 if layer is layers[6] else size // 2
            columns = weight.flatten(1) @ F.unfold(x, size, padding=pad, stride=stride) + bias[:, None]
            rows = [(side + 2 * pad - size) // stride + 1 for side in x.shape[2:]]
            x = columns.unflatten(2, rows).clamp(min=0)
        return x.mean((2, 3))

    weights = {name: 0.5 * torch.randn_like(w) for name, w in network.named_parameters()}
    assert_parity(
        lambda w, x: functional_call(network, w, (x,)),
        written,
        (torch.randn(2, 3, 11, 14),),
        weights=weights,
    )


def test_without_dropout_training_is_evaluation():
    x = torch.randn(2, 3, 12, 12)
    for dropout in (True, False):
        network = AllConvNet(maps=8, dropout=dropout)
        assert torch.equal(network(x), network.eval()(x)) is not dropout


def asked_for(comparisons, monkeypatch) -> tuple:
    """The arguments of the experiment's comparison, and the networks that it explains."""
    pair, networks = [], experiment_module.networks
    monkeypatch.setattr(experiment_module, "networks", lambda run: pair.append(networks(run)) or pair[0])
    (given,) = comparisons(guided_backprop)
    return given, pair[0]


def of_relus(network, asked, rules):
    """A backward pass with a separate rule for each ReLU, starting with the one next to the scores."""
    rules = iter(rules)
    signal = of_scores(network, asked.classes)
    return pull_back(network.layers, asked.images - 0.3, lambda back, x: next(rules)(back, x), signal)


def test_the_network_of_each_compared_map(comparisons, monkeypatch):
    given, (trained, untrained) = asked_for(comparisons, monkeypatch)
    box = torch.tensor([[2.0, 2, 9, 9]] * 2)
    asked = Known(torch.rand(2, 3, 20, 20), torch.tensor([1, 4]), box, box, 0.9)
    every = {
        "guided": (trained, [guided] * 4),
        "gradient": (trained, [gradient] * 4),
        "deconvnet": (trained, [deconvnet] * 4),
        "guided, untrained": (untrained, [guided] * 4),
    }
    for name, (network, rules) in every.items():
        assert_close(given.arms[name].make(asked), of_relus(network, asked, rules))
    (named,) = given.attempt.args
    assert given.references[""]["digits that the network names"] == named.named < 1
    assert given.null == "items"
    at = Trial(Workshop(object.__new__(Run)), Work(arm="any"), arm="any")
    assert torch.equal(given.attempt(at, lambda known: known.boxes, None)[1], named.boxes)
    assert given.read.args == (named,)
    broken = {name: change["guided"].make(asked) for name, change in given.breaks.items()}
    plain = of_relus(trained, asked, [gradient] * 4)
    assert_close(broken["initial weights"], of_relus(untrained, asked, [guided] * 4))
    assert_close(broken["last ReLU only"], of_relus(trained, asked, [guided] + [gradient] * 3))
    assert_close(broken["first ReLU only"], of_relus(trained, asked, [gradient] * 3 + [guided]))
    assert_close(broken["gradient × brightness"], plain * asked.images)
    spread = F.conv2d(plain.abs(), torch.full((3, 1, 3, 3), 1 / 9), padding=1, groups=3)
    assert_close(broken["smoothed gradient"], spread)
    product = (plain * asked.images).abs()
    wide = F.conv2d(product, torch.full((3, 1, 5, 5), 1 / 25), padding=2, groups=3)
    assert_close(broken["smoothed gradient × brightness"], wide)


def test_the_strongest_twentieth_outside_the_box_is_counted(part_of_run):
    back = torch.zeros(2, 3, 20, 20)
    back[0, 1, :4, :4], back[0, 2, 10:12, 10:12] = -2.0, 1.0  # sixteen pixels in the box, four outside
    back[1, 0, 10:15, 10:14] = 3.0
    boxes, others = torch.tensor([[0.0, 0, 4, 4]] * 2), torch.tensor([[10.0, 10, 14, 15]] * 2)
    asked = Known(torch.zeros(2, 3, 20, 20), torch.tensor([0, 1]), boxes, others, 0.9)
    at = Trial(Workshop(part_of_run()), Work(arm="any"), arm="any")
    found = experiment_module.score(asked, at, Sweep(back, None, {}))
    assert_close(found["strongest pixels outside the asked box"], torch.tensor([[0.2, 1.0]]))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(guided_backprop)
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["parameter counts"]["verdict"] == "held"
    outside = "strongest pixels outside the asked box"
    share = {
        arm: record.values[outside, arm] for arm in ("guided", "gradient", "deconvnet", "guided, untrained")
    }
    found = claims["guided map against gradient and deconvnet"]["values"]
    for other in ("gradient", "deconvnet", "guided, untrained"):
        assert found[f"{outside}, guided / {other}"] == pytest.approx(share["guided"] / share[other])


def test_the_set_up_is_the_stated_one():
    assert digest(guided_backprop) == "e11e34f70e22"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(guided_backprop)] == ["guided maps"]
