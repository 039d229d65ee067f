"""The deconvnet compared with autograd and with loops over windows, occlusion square by square, and the
arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import zfnet
from readtrack.papers.saliency.network import Known
from readtrack.papers.zfnet import deconvnet, gradient, occlusion, pull_back

experiment_module = importlib.import_module("readtrack.papers.zfnet.experiment")


def network(relu: bool = True) -> nn.Sequential:
    layers = [
        nn.Conv2d(3, 5, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 4, 3, padding=1),
        nn.ReLU(),
    ]
    layers += [nn.MaxPool2d(3, stride=2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*(layer for layer in layers if relu or not isinstance(layer, nn.ReLU))).double()


def written(layers: nn.Sequential, image: Tensor, signal: Tensor) -> Tensor:
    """A deconvnet in loops: the maximum of each window separately, and each filter placed position by
    position.
    """
    x, passed = image[0], []
    for layer in layers:
        passed.append(x)
        x = layer(x[None])[0]
    back = signal[0]
    for layer, x in zip(reversed(layers), reversed(passed), strict=True):
        if isinstance(layer, nn.ReLU):
            back = back.clamp(min=0)
            continue
        below = torch.zeros_like(x)
        if isinstance(layer, nn.MaxPool2d):
            kernel, stride = layer.kernel_size, layer.stride
            for k in range(back.shape[0]):
                for i in range(back.shape[1]):
                    for j in range(back.shape[2]):
                        window = x[k, stride * i : stride * i + kernel, stride * j : stride * j + kernel]
                        place = int(window.argmax())
                        row, column = stride * i + place // kernel, stride * j + place % kernel
                        below[k, row, column] = back[k, i, j]
        else:
            size, pad = layer.weight.shape[-1], layer.padding[0]
            padded = torch.nn.functional.pad(below, (pad,) * 4)
            for k in range(back.shape[0]):
                for i in range(back.shape[1]):
                    for j in range(back.shape[2]):
                        padded[:, i : i + size, j : j + size] += back[k, i, j] * layer.weight[k]
            below = padded[:, pad : padded.shape[1] - pad, pad : padded.shape[2] - pad]
        back = below
    return back[None]


def test_the_way_back_is_a_deconvnet_in_loops():
    """Tests pooling without overlap, because overlapping windows may share a switch."""
    layers = network()[:5]
    image = torch.randn(1, 3, 8, 10, dtype=torch.float64)
    signal = torch.randn_like(layers(image))
    found = pull_back(layers, image, deconvnet, lambda maps: signal)
    assert_close(found, written(layers, image, signal), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_by_the_gradients_rule_it_matches_autograds(depth):
    layers = network()[:depth]
    image = torch.randn(2, 3, 8, 10, dtype=torch.float64, requires_grad=True)
    out = layers(image)
    signal = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, image, signal)
    found = pull_back(layers, image.detach(), gradient, lambda maps: signal)
    assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_without_relus_a_deconvnet_is_the_gradient():
    layers = network(relu=False)[:3]
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    signal = torch.randn(2, 4, 4, 4, dtype=torch.float64)
    found = [pull_back(layers, image, rule, lambda maps: signal) for rule in (deconvnet, gradient)]
    assert torch.equal(*found)


def test_the_rules():
    signal, x = torch.tensor([-1.0, 2, -3, 4]), torch.tensor([1.0, 1, -1, -1])
    assert deconvnet(signal, x).tolist() == [0, 2, 0, 4]
    assert gradient(signal, x).tolist() == [-1, 2, 0, 0]


def test_unknown_layers_are_refused():
    with pytest.raises(TypeError, match="Tanh"):
        pull_back(nn.Sequential(nn.Tanh()), torch.rand(1, 1, 2, 2), gradient, lambda maps: maps)


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (2, 3)])
def test_occlusion_is_square_by_square(side, stride):
    weight = torch.randn(4, 3 * 8 * 7)
    images, classes = torch.rand(2, 3, 8, 7), torch.tensor([3, 0])
    found = occlusion(lambda x: x.flatten(1) @ weight.T, images, classes, side=side, stride=stride)
    for q, label in enumerate(classes):
        for i, top in enumerate(range(0, 8 - side + 1, stride)):
            for j, left in enumerate(range(0, 7 - side + 1, stride)):
                cut = (slice(None), slice(top, top + side), slice(left, left + side))
                lost = ((images[q][cut] - 0.3) * weight[label].view(3, 8, 7)[cut]).sum()
                assert_close(found[q, i, j], lost, rtol=1e-3, atol=1e-4)
    assert found.shape == (2, (8 - side) // stride + 1, (7 - side) // stride + 1)


def test_one_activation_is_projected_at_a_time():
    maps = torch.rand(3, 5, 4, 4)
    found = experiment_module.strongest(maps, unit=2)
    assert (found != 0).sum((1, 2, 3)).tolist() == [1, 1, 1]
    assert torch.equal(found.amax((2, 3))[:, 2], maps[:, 2].amax((1, 2)))


def asked_for(comparisons, monkeypatch) -> tuple[list, list]:
    """The arguments of the experiment's comparisons, and the networks that it explains."""
    pair, networks = [], experiment_module.networks
    monkeypatch.setattr(experiment_module, "networks", lambda run: pair.append(networks(run)) or pair[0])
    return comparisons(zfnet), pair[0]


def test_the_covered_boxes_and_projected_units(comparisons, monkeypatch):
    (covers, projects), (trained, untrained) = asked_for(comparisons, monkeypatch)
    images = torch.rand(2, 3, 20, 20)
    images[0, :, 12:16, 2:8] += 2  # the brightest box of 6 × 4
    images[1, :, 3:8, 9:12] += 2
    boxes, others = torch.tensor([[1.0, 2, 7, 6], [10, 8, 13, 13]]), torch.tensor([[12.0, 2, 16, 8]] * 2)
    asked = Known(images, torch.tensor([1, 4]), boxes, others, 0.9)
    assert covers.null == projects.null == "items"

    def after(network, masks):
        hidden = torch.where(torch.stack(masks)[:, None], 0.3, images)
        score = lambda x: network(x)[torch.arange(2), asked.classes].sigmoid()  # noqa: E731
        return score(images) - score(hidden)

    def mask(x1, y1, x2, y2):
        found = torch.zeros(20, 20, dtype=torch.bool)
        found[y1:y2, x1:x2] = True
        return found

    digit = [mask(1, 2, 7, 6), mask(10, 8, 13, 13)]
    wanted = {
        "asked digit": after(trained, digit),
        "all but the asked digit": after(trained, [~one for one in digit]),
        "asked digit, untrained": after(untrained, digit),
        "other digit": after(trained, [mask(12, 2, 16, 8)] * 2),
    }
    for name, expected in wanted.items():
        assert_close({**covers.arms, **covers.yardsticks}[name].make(asked), expected)
    broken = {name: change["asked digit"].make(asked) for name, change in covers.breaks.items()}
    assert_close(broken["initial weights"], wanted["asked digit, untrained"])
    moved = [mask(7, 2, 13, 6), mask(13, 8, 16, 13)]
    assert_close(broken["box beside the digit covered"], after(trained, moved))
    assert_close(broken["brightest box covered"], after(trained, [mask(2, 12, 8, 16), mask(9, 3, 12, 8)]))

    def back(network, rule, **options):
        signal = experiment_module.of_scores(network, asked.classes)
        return pull_back(network.layers, images - 0.3, rule, signal, **options).abs().amax(1)

    assert_close(projects.arms["deconvnet"].make(asked), back(trained, deconvnet))
    assert_close(projects.arms["deconvnet, untrained"].make(asked), back(untrained, deconvnet))
    broken = {name: change["deconvnet"].make(asked) for name, change in projects.breaks.items()}
    assert_close(broken["initial weights"], back(untrained, deconvnet))
    assert_close(broken["gradient"], back(trained, gradient))
    assert_close(broken["no switches"], back(trained, deconvnet, switches=False))


def test_the_box_beside_a_digit_is_to_the_left_where_the_right_has_no_room():
    boxes = torch.tensor([[9.0, 0, 15, 4]])
    covered = experiment_module.beside(Known(torch.zeros(1, 3, 20, 20), torch.tensor([0]), boxes, boxes, 1.0))
    assert torch.equal(covered, experiment_module.inside(torch.tensor([[3.0, 0, 9, 4]]), (20, 20)))


def test_questions_are_about_scenes_that_the_trained_network_knows(comparisons, monkeypatch):
    calls, known = [], experiment_module.known

    def watched(run, network, part, count):
        calls.append((network, part))
        return known(run, network, part, count)

    monkeypatch.setattr(experiment_module, "known", watched)
    (covers, projects), (trained, _) = asked_for(comparisons, monkeypatch)
    ((network, part),) = calls
    assert network is trained
    assert part == "judge"
    (asked,) = covers.attempt.args
    assert projects.attempt.args == (asked,)
    for compared in (covers, projects):
        assert compared.references[""]["digits that the network names"] == asked.named < 1


def test_without_switches_a_value_is_spread_over_its_window():
    layers = nn.Sequential(nn.MaxPool2d(2))
    image = torch.rand(1, 1, 4, 6)
    found = pull_back(layers, image, deconvnet, lambda maps: maps, switches=False)
    assert_close(found, layers(image).repeat_interleave(2, 2).repeat_interleave(2, 3) / 4)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(zfnet)
    named = "digits that the network names"
    assert all(claim["values"][named] == record.values[named, ""] for claim in record.claims)
    claims = {claim["claim"]["name"]: claim["values"] for claim in record.claims}
    lost = {
        arm: record.values["probability lost", arm]
        for arm in ("asked digit", "all but the asked digit", "asked digit, untrained")
    }
    found = claims["occlusion of the object against its surroundings"]
    for other in ("all but the asked digit", "asked digit, untrained"):
        expected = lost["asked digit"] - lost[other]
        assert found[f"probability lost, asked digit - {other}"] == pytest.approx(expected)
    over = [record.values["asked box over other", arm] for arm in ("deconvnet", "deconvnet, untrained")]
    found = claims["deconvnet projection of a score"]
    assert found["asked box over other, deconvnet - deconvnet, untrained"] == pytest.approx(over[0] - over[1])


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "5ff51b8584bf"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(zfnet)] == ["occlusion", "the way back"]
