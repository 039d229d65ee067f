"""Grad-CAM pixel by pixel, compared with CAM, behind a deeper head, and the arms."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import grad_cam as module
from readtrack.papers.grad_cam import cam, enlarge, grad_cam, side_by_side
from readtrack.papers.grad_cam.maps import grad_cam_of
from readtrack.papers.saliency import saliency
from readtrack.papers.saliency.network import Known, PairNet
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.grad_cam.experiment")


def body() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3), nn.Tanh()
    ).double()


def test_the_map_is_equations_1_and_2_place_by_place():
    """Uses a head of two layers, and computes the gradient of each position separately."""
    features = body()
    head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 3 * 2, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    images, classes = torch.rand(2, 3, 12, 10, dtype=torch.float64), torch.tensor([4, 1])
    found = grad_cam(features, head, images, classes)
    maps = features(images).detach()
    slopes = torch.func.vmap(torch.func.jacrev(lambda m: head(m[None])[0]))(maps)
    for q, label in enumerate(classes):
        weights = [slopes[q, label, k].sum() / 6 for k in range(4)]
        expected = sum(weight * maps[q, k] for k, weight in enumerate(weights)).clamp(min=0)
        assert_close(found[q], expected, rtol=1e-10, atol=1e-14)
    assert found.max() > 0


def test_behind_a_mean_and_a_linear_layer_it_is_cam():
    features, linear = body(), nn.Linear(4, 5).double()
    images, classes = torch.rand(3, 3, 12, 10, dtype=torch.float64), torch.tensor([4, 1, 4])
    found = grad_cam(features, lambda m: linear(m.mean((2, 3))), images, classes)
    exact = cam(features(images), linear.weight, classes)
    assert_close(found, exact.clamp(min=0) / 6, rtol=1e-10, atol=1e-14)
    for q, label in enumerate(classes):
        by_hand = sum(linear.weight[label, k] * features(images)[q, k] for k in range(4))
        assert_close(exact[q], by_hand)


def test_no_gradient_goes_to_the_pixels_or_the_weights():
    features, linear = body(), nn.Linear(4, 5).double()
    images = torch.rand(1, 3, 12, 10, dtype=torch.float64, requires_grad=True)
    found = grad_cam(features, lambda m: linear(m.mean((2, 3))), images, torch.tensor([0]))
    assert not found.requires_grad
    assert images.grad is None
    assert all(weight.grad is None for weight in (*features.parameters(), *linear.parameters()))


def test_enlarging_is_bilinear():
    heat = torch.rand(2, 3, 4)
    large = enlarge(heat, 12, 16)
    assert_close(large, F.interpolate(heat[None], (12, 16), mode="bilinear")[0])
    assert large.shape == (2, 12, 16)


def test_the_unweighted_map_does_not_know_the_class():
    network = PairNet().fold()
    images = torch.rand(2, 3, 20, 20)
    for question, same in ((experiment_module.unweighted, True), (experiment_module.last_maps, False)):
        maps = [question(network)(images, torch.tensor([label, label])) for label in (0, 3)]
        assert torch.equal(*maps) is same


def test_the_experiment_runs(run_experiment):
    record = run_experiment(module)
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["CAM as a special case"]["verdict"] == "held"
    part = {
        arm: record.values["asked box of both boxes", arm] for arm in ("Grad-CAM", "gradient", "untrained")
    }
    found = claims["class specificity of the map"]["values"]
    for other in ("gradient", "untrained"):
        difference = part["Grad-CAM"] - part[other]
        assert found[f"asked box of both boxes, Grad-CAM - {other}"] == pytest.approx(difference)


def questions(count: int = 3) -> Known:
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(count, 1)
    return Known(torch.rand(count, 3, 20, 20), torch.arange(count), boxes, boxes + 10, 1.0)


def test_every_explanation_is_as_large_as_its_picture_and_never_negative():
    maps = side_by_side.explanations(PairNet().fold(), questions())
    assert list(maps) == [
        *("gradient", "occlusion", "deconvnet", "guided backprop", "Grad-CAM", "Guided Grad-CAM"),
    ]
    assert all(map_.shape == (3, 20, 20) and map_.min() >= 0 for map_ in maps.values())
    assert torch.equal(maps["Guided Grad-CAM"], maps["guided backprop"] * maps["Grad-CAM"])


def test_a_map_points_where_it_is_largest():
    maps = torch.zeros(3, 20, 20)
    maps[0, 7, 7] = maps[1, 7, 8] = 1.0  # the last pixel of the box, and the one next to it
    assert side_by_side.pointing(maps, questions()).tolist() == [1.0, 0.0, 0.0]


def test_explanations_are_shown_side_by_side(run_experiment):
    names = [artifact["name"] for artifact in run_experiment(module).artifacts]
    assert names == ["maps", "all explanations", "localisation"]
    assert [artifact["name"] for artifact in run_experiment(module, null=True).artifacts] == ["maps"]


def test_a_null_run_tosses_a_coin_for_each_scene(run_experiment):
    plain, null = run_experiment(module), run_experiment(module, null=True)
    assert plain.values == null.values  # the maps are those of the plain run
    # The number of scenes with a coin flip depends on the network, and with few scenes the flips may change
    # nothing.
    kept = {name: value for name, value in plain.claims[-1]["values"].items() if " - " not in name}
    assert kept
    assert kept == {name: null.claims[-1]["values"][name] for name in kept}


def test_the_break_takes_the_weights_away(run_experiment, monkeypatch):
    asked = []
    unweighted = experiment_module.unweighted

    def watched(network):
        question = unweighted(network)
        return lambda images, classes: asked.append(1) or question(images, classes)

    monkeypatch.setattr(experiment_module, "unweighted", watched)
    run_experiment(module)
    assert asked == []
    run_experiment(module, broken="unweighted")
    assert asked == [1]


def test_the_network_of_each_compared_map(comparisons, part_of_run, monkeypatch):
    """Each arm and each break explains the network that it names, for the requested digit."""
    pair, networks = [], experiment_module.networks
    monkeypatch.setattr(experiment_module, "networks", lambda run: pair.append(networks(run)) or pair[0])
    (given,) = comparisons(module)
    (asked,) = given.attempt.args
    assert given.null == "items"
    at = Trial(Workshop(part_of_run()), Work(arm="any"), arm="any")
    _, told = given.attempt(at, lambda images, classes: images[:, 0] * classes[:, None, None], None)
    assert_close(told, asked.images[:, 0] * asked.classes[:, None, None])
    trained, untrained = pair[0]
    images, classes = asked.images, asked.classes
    wanted = {
        "Grad-CAM": grad_cam_of(trained, images, classes),
        "gradient": saliency(trained, images, classes),
        "untrained": grad_cam_of(untrained, images, classes),
    }
    for name, maps in wanted.items():
        assert_close(given.arms[name].make(images, classes), maps)
    for broken in ("unweighted", "guided backpropagation", "strongest tenth of the gradient", "occlusion"):
        question = given.breaks[broken]["Grad-CAM"].make
        theirs = question(images, classes)
        assert theirs.shape == wanted["Grad-CAM"].shape
        assert not any(torch.allclose(theirs, maps) for maps in wanted.values())
    kept = given.breaks["strongest tenth of the gradient"]["Grad-CAM"].make(images, classes)
    strong = torch.stack([map_ * (map_ > map_.flatten().sort().values[359]) for map_ in wanted["gradient"]])
    assert_close(kept, strong)  # 40 of 400 pixels
    before, after = trained(images).gather(1, classes[:, None]), []
    for place in range(25):
        down, across = 4 * (place // 5), 4 * (place % 5)
        grey = images.clone()
        grey[:, :, down : down + 4, across : across + 4] = 0.3
        after.append(trained(grey).gather(1, classes[:, None]))
    lost = (before - torch.cat(after, 1)).clamp(min=0).view(1, -1, 5, 5)
    large = F.interpolate(lost, (20, 20), mode="bilinear")[0]
    assert_close(given.breaks["occlusion"]["Grad-CAM"].make(images, classes), large, rtol=1e-4, atol=1e-6)
    said = given.references[""]["digits that the network names"]
    assert said == asked.named < 1


def test_the_share_of_the_requested_box_is_relative_to_both(part_of_run):
    maps = torch.zeros(4, 32, 32)
    maps[0, 0, 0], maps[0, 20, 20], maps[0, 10, 10] = 3.0, 1.0, 4.0  # requested box, other box, neither
    maps[1, 20, 20] = 1.0
    maps[2, 0, 0] = 1.0  # the last map is empty
    boxes, others = torch.tensor([[0.0, 0, 4, 4]] * 4), torch.tensor([[18.0, 18, 24, 24]] * 4)
    asked = Known(torch.zeros(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]), boxes, others, 0.9)
    at = Trial(Workshop(part_of_run()), Work(arm="Grad-CAM"), arm="Grad-CAM")
    found = experiment_module.where(asked, at, Sweep(maps, None, {}))["asked box of both boxes"]
    assert_close(found, torch.tensor([[0.75, 0.0], [1.0, 0.0]]))


def test_a_difference_from_cam_is_seen(monkeypatch):
    network = PairNet().eval()
    asked = Known(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), torch.zeros(2, 4), torch.zeros(2, 4), 1.0)
    assert experiment_module.difference(network, asked) < 1e-5
    exact = experiment_module.cam
    monkeypatch.setattr(experiment_module, "cam", lambda *given: 1.5 * exact(*given))
    assert experiment_module.difference(network, asked) == pytest.approx(1 / 3, rel=1e-3)


def test_the_set_up_is_the_stated_one():
    assert digest(module) == "c87fd25eef78"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(module)] == ["maps of all classes"]
