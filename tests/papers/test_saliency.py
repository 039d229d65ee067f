"""Saliency maps compared with finite differences and torch's Jacobian, folding, scores in boxes, and the
arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import saliency
from readtrack.papers.saliency import class_gradient, class_model, edges
from readtrack.papers.saliency import network as network_module
from readtrack.papers.saliency.network import PairNet, energy, inside, shown
from readtrack.plugin import Run
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.saliency.experiment")


def folded() -> PairNet:
    """A network in float64 with statistics that differ from their initial values."""
    network = PairNet().double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network.fold()


def test_the_gradient_is_a_finite_difference():
    network = folded()
    image, direction = torch.rand(2, 1, 3, 12, 12, dtype=torch.float64)
    classes = torch.tensor([3])
    step = 1e-6 * direction
    slope = (network(image + step) - network(image - step))[0, 3] / 2e-6
    assert_close((class_gradient(network, image, classes) * direction).sum(), slope, rtol=1e-5, atol=1e-8)


def test_the_map_is_the_largest_magnitude_of_torchs_jacobian():
    network, images = folded(), torch.rand(3, 3, 12, 8, dtype=torch.float64)
    classes = torch.tensor([4, 0, 4])
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: network(x[None])[0]))(images)
    expected = jacobian[torch.arange(3), classes].abs().amax(1)
    assert_close(saliency.saliency(network, images, classes), expected, rtol=1e-10, atol=1e-14)


def test_the_map_of_a_linear_score_is_its_weights():
    weight = torch.randn(5, 3 * 4 * 4)
    map_ = saliency.saliency(lambda x: x.flatten(1) @ weight.T, torch.rand(2, 3, 4, 4), torch.tensor([1, 3]))
    assert_close(map_, weight[[1, 3]].view(2, 3, 4, 4).abs().amax(1))


def test_the_picture_of_a_class_climbs_towards_a_quadratics_top():
    """For a linear score, the best image is the weights divided by twice the penalty."""
    weight = torch.randn(2, 3 * 4 * 4, dtype=torch.float64)
    found = class_model(
        lambda x: x.flatten(1) @ weight.T,
        torch.zeros(2, 3, 4, 4, dtype=torch.float64),
        torch.arange(2),
        mean=0.0,
        steps=3000,
        rate=0.01,
        decay=24.0,
    )
    assert_close(found.flatten(1), weight / (2 * 24.0 / 48), rtol=0, atol=0.02)


def test_folding_changes_nothing():
    network = PairNet().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    x = torch.rand(2, 3, 20, 20, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
    plain = network.fold()
    assert_close(plain(x), expected, rtol=1e-10, atol=1e-12)
    kinds = [type(layer).__name__ for layer in plain.layers]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d"] * 2 + ["Conv2d", "ReLU"] * 2
    assert not any(weight.requires_grad for weight in plain.parameters())


def test_the_network_and_its_scenes():
    assert (network_module.CLASSES, network_module.SIDE, network_module.WIDTHS) == (5, 20, (16, 32, 48, 64))
    assert folded().features(torch.rand(1, 3, 20, 20, dtype=torch.float64)).shape == (1, 64, 5, 5)
    assert shown(torch.tensor([[0, 3], [4, 1]])).tolist() == [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1]]


def test_edges_are_differences_to_four_neighbours():
    image = torch.rand(1, 3, 4, 5)
    expected = torch.zeros(1, 4, 5)
    for i in range(4):
        for j in range(5):
            for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= a < 4 and 0 <= b < 5:
                    expected[0, i, j] += (image[0, :, i, j] - image[0, :, a, b]).abs().max()
    assert_close(edges(image), expected)


def test_energy_is_the_share_in_a_box():
    map_ = torch.rand(2, 6, 7)
    boxes = torch.tensor([[1.0, 2.0, 4.0, 6.0], [0.0, 0.0, 7.0, 6.0]])
    assert_close(
        energy(map_, boxes), torch.stack((map_[0, 2:6, 1:4].sum() / map_[0].sum(), torch.tensor(1.0)))
    )
    assert inside(boxes, (6, 7)).sum((1, 2)).tolist() == [12, 42]
    assert energy(torch.zeros(2, 6, 7), boxes).tolist() == [0, 0]


def test_questions_are_about_scenes_whose_digits_are_named():
    run = object.__new__(Run)
    run.device, run.dtype, run.seed = torch.device("cpu"), torch.float32, 0
    scene = network_module.draw(run, "judge", 40)
    answers = F.one_hot(scene.labels, 5).amax(1).float()
    answers[:10] = torch.tensor([1.0, 0, 0, 0, 0.5])
    found = network_module.known(run, lambda x: answers[: len(x)], "judge", 40)
    right = [row for row, labels in enumerate(scene.labels.tolist()) if row >= 10 or set(labels) == {0, 4}]
    assert torch.equal(found.images[::2], scene.images[right])
    assert found.classes.view(-1, 2).tolist() == scene.labels[right].tolist()
    assert torch.equal(found.boxes[::2], scene.boxes[right, 0])
    assert torch.equal(found.others[::2], scene.boxes[right, 1])
    assert torch.equal(found.boxes[1::2], found.others[::2])
    assert found.named > 0.75


def asked_for(comparisons, monkeypatch) -> tuple:
    """The arguments of the experiment's comparison, and the networks that it explains."""
    pair, networks = [], experiment_module.networks
    monkeypatch.setattr(experiment_module, "networks", lambda run: pair.append(networks(run)) or pair[0])
    (given,) = comparisons(saliency)
    return given, pair[0]


def test_the_network_of_each_compared_map(comparisons, monkeypatch):
    given, (trained, untrained) = asked_for(comparisons, monkeypatch)
    images, classes = torch.rand(2, 3, 20, 20), torch.tensor([1, 4])
    every = torch.stack([class_gradient(trained, images, torch.full((2,), k)) for k in range(5)]).sum(0)
    wanted = {
        "gradient": saliency.saliency(trained, images, classes),
        "brightness": images.amax(1),
        "untrained": saliency.saliency(untrained, images, classes),
        "edges": edges(images),
    }
    for name, map_ in wanted.items():
        assert_close({**given.arms, **given.yardsticks}[name].make(images, classes), map_)
    broken = {name: change["gradient"].make(images, classes) for name, change in given.breaks.items()}
    assert_close(broken["initial weights"], wanted["untrained"])
    assert_close(broken["all classes at once"], every.abs().amax(1))
    assert_close(broken["edges"], wanted["edges"])
    weights, places = trained.classifier.weight[classes], trained.features(images)
    added = sum(weights[:, k, None, None] * places[:, k] for k in range(64)).clamp(min=0)
    large = F.interpolate(added[None], (20, 20), mode="bilinear", align_corners=False)[0]
    assert_close(broken["class activation map"], large)
    (asked,) = given.attempt.args
    assert given.references[""]["digits that the network names"] == asked.named < 1
    assert given.null == "items"
    at = Trial(Workshop(object.__new__(Run)), Work(arm="any"), arm="any")
    _, told = given.attempt(at, lambda images, classes: images[:, 0] * classes[:, None, None], None)
    assert_close(told, asked.images[:, 0] * asked.classes[:, None, None])
    assert given.read.args == (asked,)


def test_the_strongest_twentieth_of_the_pixels_is_counted(part_of_run):
    maps = torch.zeros(2, 20, 20)
    maps[0, :4, :4], maps[0, 10:12, 10:12] = 2.0, 1.0  # sixteen pixels in the box, four outside
    maps[1, 10:15, 10:14] = 3.0
    boxes, others = torch.tensor([[0.0, 0, 4, 4]] * 2), torch.tensor([[10.0, 10, 14, 15]] * 2)
    assert_close(experiment_module.strongest(maps, boxes), torch.tensor([0.8, 0.0]))
    asked = network_module.Known(torch.zeros(2, 3, 20, 20), torch.tensor([0, 1]), boxes, others, 0.9)
    at = Trial(Workshop(part_of_run()), Work(arm="any"), arm="any")
    found = experiment_module.score(asked, at, Sweep(maps, None, {}))
    assert_close(found["strongest pixels in the asked box"], torch.tensor([[0.8, 0.0]]))
    assert_close(found["asked box over other"], torch.tensor([[1.0, 0.0]]))
    ties = experiment_module.score(asked, at, Sweep(torch.zeros(2, 20, 20), None, {}))
    assert_close(ties["asked box over other"], torch.tensor([[0.5, 0.5]]))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(saliency)
    hits = {
        arm: record.values["strongest pixels in the asked box", arm]
        for arm in ("gradient", "brightness", "untrained")
    }
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    for other in ("brightness", "untrained"):
        found = claims["localisation by the map"]["values"][
            f"strongest pixels in the asked box, gradient / {other}"
        ]
        assert found == pytest.approx(hits["gradient"] / hits[other])
    over = [record.values["asked box over other", arm] for arm in ("gradient", "untrained")]
    found = claims["class specificity of the map"]["values"]["asked box over other, gradient - untrained"]
    assert found == pytest.approx(over[0] - over[1])


def test_the_set_up_is_the_stated_one():
    assert digest(saliency) == "7427b98e4b59"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(saliency)] == ["maps of all classes"]
