"""VGG compared with matrix multiplications of patches, the published sizes, dense evaluation window by
window, and its arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.checks.constants import digest
from readtrack.papers import vgg
from readtrack.papers.alexnet import ResponseNorm
from readtrack.papers.vgg import TABLE_1, VGG, Stages, dense_head
from readtrack.papers.vgg.benchmark import all_windows, of_patches, pooled, pooled_first
from readtrack.papers.vgg.model import multiply_adds, seen, weights_of
from readtrack.plugin import Run

experiment_module = importlib.import_module("readtrack.papers.vgg.experiment")


def by_patches(weights: dict[str, Tensor], x: Tensor, configuration: str) -> Tensor:
    """The same network as matrix multiplications, with its weights taken in order and without dropout."""
    tensors = iter(weights.values())
    for layer in configuration.split():
        if layer == "M":
            x = pooled(x)
        elif layer == "L":
            near = F.pad(x.square(), (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
            x = x / (2 + 1e-4 * near) ** 0.75
        else:
            weight, bias = next(tensors), next(tensors)
            side = weight.shape[-1]
            columns = weight.flatten(1) @ F.unfold(x, side, padding=side // 2) + bias[:, None]
            x = columns.unflatten(2, x.shape[2:]).clamp(min=0)
    x = x.flatten(1)
    for last in (False, False, True):
        x = x @ next(tensors).T + next(tensors)
        x = x if last else x.clamp(min=0)
    return x


@pytest.mark.parametrize("configuration", ["4 L M 5 M", "3 4 M 4 4 5- M", "4 4 4 M"])
def test_the_network_is_products_of_patches(assert_parity, configuration):
    pools = configuration.count("M")
    side = 12 // 2**pools
    network = VGG(configuration, hidden=7, classes=5, side=side).eval()
    weights = {name: 0.3 * torch.randn_like(w) for name, w in network.named_parameters()}
    assert_parity(
        lambda w, x: functional_call(network.double(), w, (x,)),
        lambda w, x: by_patches(w, x, configuration),
        (torch.randn(3, 3, 12, 12),),
        weights=weights,
    )


@pytest.mark.parametrize("name", TABLE_1)
def test_columns_of_table_1(name):
    with torch.device("meta"):
        network = VGG(name)
        assert network.features(torch.empty(1, 3, 224, 224)).shape == (1, 512, 7, 7)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    depth = {"A": 11, "A-LRN": 11, "B": 13, "C": 16, "D": 16, "E": 19}[name]
    parameters = {"A": 132_863_336, "A-LRN": 132_863_336, "B": 133_047_848, "D": 138_357_544}
    count = sum(weight.numel() for weight in network.parameters())
    assert len(layers) == depth
    assert count == (parameters | {"C": 133_638_952, "E": 143_667_240})[name]
    assert sum(isinstance(layer, ResponseNorm) for layer in network.modules()) == (name == "A-LRN")


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("A", (0, 3, 6, 8, 11, 13, 16, 18)),
        ("D", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
        ("E", (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)),
    ],
)
def test_names_match_the_released_weights(name, places):
    """The files of torchvision's vgg11, vgg16 and vgg19 have their layers at these indices."""
    with torch.device("meta"):
        names = [name for name, _ in VGG(name).named_parameters()]
    layers = [f"features.{place}" for place in places] + [f"classifier.{place}" for place in (0, 3, 6)]
    assert names == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


def test_dense_evaluation_is_the_head_at_every_window():
    network = VGG("4 M 5 M", hidden=7, classes=3, side=3).double().eval()
    images = torch.randn(2, 3, 24, 20, dtype=torch.float64)
    maps, dense = network.features(images), network.dense(images)
    assert dense.shape == (2, 3, 4, 3)
    for i in range(4):
        for j in range(3):
            window = maps[:, :, i : i + 3, j : j + 3].flatten(1)
            assert_close(dense[:, :, i, j], network.classifier(window), rtol=1e-10, atol=1e-12)
    crop = images[:, :, :12, :12]
    assert_close(network.dense(crop)[:, :, 0, 0], network(crop), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_in_the_hidden_layers_while_training(training):
    network = VGG("4 M", hidden=50, classes=3, side=2).train(training)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(network(x), network(x)) is not training
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_weights_start_with_a_variance_of_2_over_their_inputs():
    layer = VGG("64 64 M", hidden=8, classes=3, side=2).features[2]
    assert_close(layer.weight.var(), torch.tensor(2 / (9 * 64)), rtol=0.05, atol=0)
    assert not layer.bias.any()


def test_the_receptive_field_and_weights_of_small_filters():
    assert (seen((3, 3)), seen((5,)), seen((3, 3, 3)), seen((7,))) == (5, 5, 7, 7)
    assert weights_of((3, 3, 3), 10) == 2700
    assert weights_of((7,), 10) == 4900
    for filters in ((3, 3), (5,)):
        stack = nn.Sequential(*(nn.Conv2d(1, 1, size, padding=size // 2) for size in filters)).double()
        x = torch.rand(1, 1, 15, 15, dtype=torch.float64, requires_grad=True)
        stack(x)[0, 0, 7, 7].backward()
        assert x.grad[0, 0].nonzero().amax(0).tolist() == [9, 9]


def test_half_precision_is_as_accurate_as_torchs(assert_half_precision):
    x, *weights = (
        torch.randn(2, 8, 12, 12),
        torch.randn(8, 8, 3, 3) / 8,
        torch.randn(8),
        torch.randn(8, 8, 3, 3) / 8,
        torch.randn(8),
    )
    with torch.no_grad():
        assert_half_precision(
            lambda *given: pooled_first(*given).detach(),
            lambda *given: of_patches(*given).detach(),
            (x, *weights),
        )


def test_the_arms_and_their_replacements(comparisons):
    (given,) = comparisons(vgg)
    networks = {name: arm.make.network() for name, arm in given.arms.items()}
    for name, change in given.breaks.items():
        networks[name] = change["two of 3 × 3"].make.network()
    shapes = {
        name: [tuple(layer.weight.shape) for layer in network.stages if hasattr(layer, "weight")]
        for name, network in networks.items()
    }
    assert shapes["two of 3 × 3"] == [
        *((16, 3, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3)),
        *((32, 32, 3, 3), (48, 32, 3, 3), (48, 48, 3, 3)),
    ]
    assert shapes["one of 5 × 5"] == [(16, 3, 5, 5), (32, 16, 5, 5), (48, 32, 5, 5)]
    assert shapes["one of 3 × 3"] == [(16, 3, 3, 3), (32, 16, 3, 3), (48, 32, 3, 3)]
    assert shapes["one 5 × 5 layer"] == shapes["one of 5 × 5"]
    assert shapes["no ReLU between"] == shapes["two of 3 × 3"]
    relus = {
        name: sum(isinstance(m, nn.ReLU) for m in network.modules()) for name, network in networks.items()
    }
    assert relus == {**dict.fromkeys(networks, 3), "two of 3 × 3": 6}
    rival = "one wider 3 × 3 layer, normalised"
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d)
    assert [type(layer) for layer in networks[rival].stages] == [*kinds] * 3
    assert shapes[rival][::2] == shapes["one wider 3 × 3 layer"]
    normalised = [
        name for name, one in networks.items() if any(isinstance(m, kinds[1]) for m in one.modules())
    ]
    assert normalised == [rival]
    work = {name: multiply_adds(network) for name, network in networks.items()}
    for rival in ("one wider 3 × 3 layer", "one wider 3 × 3 layer, normalised", "one wider 5 × 5 layer"):
        assert 0.99 < work[rival] / work["two of 3 × 3"] < 1.02


def test_pictures_of_each_part_are_drawn_for_that_part(drawn_parts, run_experiment):
    run_experiment(vgg)
    assert drawn_parts == ["train", "choose", "judge"]


def test_with_data_the_networks_name_its_pictures(run_experiment, monkeypatch):
    worlds, compare = [], Run.compare

    def noted(run, *claims, **asked):
        worlds.append(asked["world"])
        return compare(run, *claims, **asked)

    monkeypatch.setattr(Run, "compare", noted)
    record = run_experiment(vgg, images="digits")
    (world,) = worlds
    assert world.classes == 10
    assert world.train.x.shape == (300, 3, 8, 8)
    assert torch.equal(world.judge.x[:, 0], world.judge.x[:, 2])  # grey
    assert 0.5 < record.values["error", "two of 3 × 3"] <= 1  # after three steps


def test_multiply_adds_are_those_that_torch_counts():
    network = Stages((5,), classes=5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(1, 3, 16, 16))
    assert counter.get_total_flops() == 2 * multiply_adds(network)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(vgg)
    assert record.headline_curve == "error over the digit's height"
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["parameter counts and receptive field"]["verdict"] == "held"
    two, one, three = (
        record.values["error", f"{arm}"] for arm in ("two of 3 × 3", "one of 5 × 5", "one of 3 × 3")
    )
    found = claims["two 3 × 3 layers per stage against one 5 × 5 layer"]["values"][
        "error, two of 3 × 3 / one of 5 × 5"
    ]
    assert found == pytest.approx(two / one, rel=1e-5)
    found = claims["two 3 × 3 layers per stage against one"]["values"]["error, two of 3 × 3 / one of 3 × 3"]
    assert found == pytest.approx(two / three, rel=1e-5)


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "a6ccec370740"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(vgg)] == ["stage", "head at every place", "images"]


def test_the_head_of_several_images():
    layers = [torch.randn(s) for s in ((6, 36), (6,), (6, 6), (6,), (5, 6), (5,))]
    maps = torch.randn(2, 4, 5, 4)
    assert_close(dense_head(maps, *layers, side=3), all_windows(maps, *layers, side=3), rtol=1e-4, atol=1e-4)
