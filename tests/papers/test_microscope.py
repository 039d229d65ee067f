"""Optimised inputs, maximally activating data by brute force, and the arms."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import microscope
from readtrack.papers.microscope import optimised, responses, strongest
from readtrack.papers.microscope.units import CUTS, SEEN
from readtrack.papers.saliency.network import BRIGHTNESS, PairNet

experiment_module = importlib.import_module("readtrack.papers.microscope.experiment")


def network() -> PairNet:
    return PairNet().double().fold()


@pytest.mark.parametrize(
    ("layer", "units"), [("layer 1", 16), ("layer 2", 32), ("layer 3", 48), ("layer 4", 64)]
)
def test_activities_are_means_before_the_relu(layer, units):
    net, images = network(), torch.rand(2, 3, 20, 20, dtype=torch.float64)
    x = images - BRIGHTNESS
    convolutions = 0
    for module in net.layers:
        x = module(x)
        convolutions += isinstance(module, torch.nn.Conv2d)
        if convolutions == int(layer[-1]):
            break
    assert x.min() < 0
    found = responses(net, layer)(images)
    assert found.shape == (2, units)
    assert_close(found, x.mean((2, 3)))
    assert torch.equal(responses(net, "classes")(images), net(images))


@pytest.mark.parametrize("layer", CUTS)
def test_the_receptive_field_of_a_position(layer):
    """The gradient of one central position, with positive filters, is nonzero at this number of pixels."""
    net = network()
    for weight in net.parameters():
        weight.data.fill_(0.01)
    middle = net.layers[: CUTS[layer]](torch.rand(1, 3, 60, 60, dtype=torch.float64)).shape[-1] // 2
    used = torch.zeros(60, 60, dtype=torch.bool)
    for seed in range(8):
        torch.manual_seed(seed)
        fresh = torch.rand(1, 3, 60, 60, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(net.layers[: CUTS[layer]](fresh)[0, 0, middle, middle], fresh)
        used |= gradient[0].abs().sum(0) > 0
    rows = used.any(1).nonzero()
    extent = int(rows.max() - rows.min()) + 1
    assert SEEN[layer] - 1 <= min(extent, 20) <= SEEN[layer]


def test_the_strongest_pieces_by_brute_force():
    net, images = network(), torch.rand(6, 3, 20, 20, dtype=torch.float64)
    found = strongest(net, "layer 1", images, best=2)
    assert found.patches.shape == (16, 2, 3, 5, 5)
    maps = net.layers[:1](images - BRIGHTNESS)
    assert_close(found.activity, maps.mean((2, 3)).amax(0))
    for unit in range(16):
        most_active = sorted(range(6), key=lambda row: -maps[row, unit].mean().item())[:2]
        for place, row in enumerate(most_active):
            y, x = divmod(int(maps[row, unit].argmax()), 20)
            top, left = min(max(y - 2, 0), 15), min(max(x - 2, 0), 15)
            assert torch.equal(found.patches[unit, place], images[row, :, top : top + 5, left : left + 5])


@pytest.mark.parametrize("layer", [*CUTS, "classes"])
def test_optimised_inputs_excite_their_own_unit(layer):
    net, own = network(), []
    activity, units = responses(net, layer), torch.arange(5)
    for steps in (0, 20):
        noise = torch.Generator().manual_seed(0)
        images = optimised(activity, units, noise, side=20, steps=steps, dtype=torch.float64)
        own.append(activity(images).gather(1, units[:, None])[:, 0])
        assert images.min() >= 0
        assert images.max() <= 1
    assert (own[1] > own[0]).all()


def test_both_networks_start_from_other_weights(run_experiment, monkeypatch):
    keys = []
    original = experiment_module.Run.trained
    monkeypatch.setattr(
        experiment_module.Run,
        "trained",
        lambda run, key, make, train: keys.append(key) or original(run, key, make, train),
    )
    run_experiment(microscope)
    assert keys == ["scenes.pairs", "scenes.pairs.other"]


def test_the_experiment_runs(run_experiment):
    record = run_experiment(microscope)
    names = [artifact["name"] for artifact in record.artifacts]
    units = {"layer 1": 16, "layer 2": 32, "layer 3": 48, "layer 4": 64}
    pages = [
        name for layer, n in units.items() for name in (layer, *(f"{layer}, unit {u}" for u in range(n)))
    ]
    assert names == [*pages, "classes, trained", "classes, untrained"]
    share = [record.values["classified correctly", arm] for arm in ("trained", "untrained")]
    (claim,) = record.claims
    assert claim["values"]["classified correctly, trained - untrained"] == pytest.approx(share[0] - share[1])


def test_without_training_the_arms_are_equal(run_experiment):
    (claim,) = run_experiment(microscope, broken="initial weights").claims
    assert claim["values"]["classified correctly, trained - untrained"] == 0.0


def test_the_near_miss_has_a_classifier_that_the_layers_have_not_learned_with(run_experiment, monkeypatch):
    pairs, seen = [], []
    networks, optimise = experiment_module.networks, experiment_module.optimised
    monkeypatch.setattr(
        experiment_module, "networks", lambda *given: pairs.append(networks(*given)) or pairs[-1]
    )
    monkeypatch.setattr(
        experiment_module,
        "optimised",
        lambda net, *given, **named: seen.append(net) or optimise(net, *given, **named),
    )
    run_experiment(microscope, broken="initial classifier weights")
    (looked_into, other), half = pairs, next(net for net in seen if isinstance(net, PairNet))
    assert torch.equal(half.layers[0].weight, looked_into.trained.layers[0].weight)
    assert torch.equal(half.classifier.weight, other.untrained.classifier.weight)
    assert not torch.equal(half.classifier.weight, looked_into.untrained.classifier.weight)


def test_the_other_network_is_the_judge(comparisons, monkeypatch):
    pairs, networks = [], experiment_module.networks
    monkeypatch.setattr(
        experiment_module, "networks", lambda *given: pairs.append(networks(*given)) or pairs[-1]
    )
    (given,) = comparisons(microscope)
    looked_into, other = pairs
    assert given.read.args == (other.trained,)
    assert given.null == "items"
    made = {name: arm.make.args for name, arm in given.arms.items()}
    assert made == {"trained": (looked_into.trained,), "untrained": (looked_into.untrained,)}
    assert given.breaks["highest-scoring scenes"]["trained"].make.args[0] is looked_into.trained


def test_the_strongest_scenes_of_each_class_stand_in_turn(part_of_run):
    run, images, net = part_of_run(), torch.rand(6, 3, 20, 20, dtype=torch.float64), network()
    scores = net(images)
    found = experiment_module.scenes_of_classes(net, images, run)
    assert found.shape == (10, 3, 20, 20)
    for place, image in enumerate(found):
        row = scores[:, place % 5].argsort(descending=True)[place // 5]
        assert torch.equal(image, images[row])


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "43faa0145c4f"


def test_every_variant_is_right(check_benchmark):
    names = [case.name for case in check_benchmark(microscope)]
    assert names == ["gradients of a layer's units", "pictures of a layer's units"]
