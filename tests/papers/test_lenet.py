"""LeNet-5 compared with torch's layers and masked convolutions, the paper's table of sizes, and the rules."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack import data
from readtrack.papers import lenet
from readtrack.papers.lenet import TABLE_I, Convolution, FullyConnected, LeNet5, SubSampling, squash
from readtrack.papers.lenet.benchmark import by_windows, cost
from readtrack.papers.lenet.experiment import (
    ARMS,
    BLANK,
    INK,
    centred,
    centred_reader,
    enlarge,
    right,
    scatter,
    shuffled,
)
from readtrack.papers.lenet.model import typeset
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.lenet.experiment")


class Pool(nn.Module):
    """Subsampling by torch's average pooling."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(maps)), nn.Parameter(torch.empty(maps))
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return 4 * self.pool(x) * self.weight[:, None, None] + self.bias[:, None, None]


class Bend(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 * x / 3)


class Reference(nn.Module):
    """The same network from torch's layers, with a complete convolution C3."""

    def __init__(self, kernels: tuple[int, int, int], units: int, maps: tuple[int, int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, maps[0], kernels[0]), Bend(), Pool(maps[0]), Bend()),
            *(nn.Conv2d(maps[0], maps[1], kernels[1]), Bend(), Pool(maps[1]), Bend()),
            *(nn.Conv2d(maps[1], units, kernels[2]), Bend(), nn.Flatten(), nn.Linear(units, 84), Bend()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return Distances()(self.layers(x))


class Distances(nn.Module):
    def forward(self, drawn: Tensor) -> Tensor:
        return (drawn[:, None] - typeset().to(drawn)).square().sum(2)


THEIR_NAMES = {"c1": 0, "s2": 2, "c3": 4, "s4": 6, "c5": 8, "f6": 11}


def as_reference(model: LeNet5, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes of the reference: every filter is in its place, with zeros for unconnected maps."""
    theirs = {}
    for name, weight in weights.items():
        layer, kind = name.split(".")
        if layer in ("c1", "c3", "c5") and kind == "weight":
            convolution = getattr(model, layer)
            shape = (convolution.maps * convolution.maps_in, *weight.shape[1:])
            indices = convolution.places[:, None, None].expand_as(weight)
            scattered = weight.new_zeros(shape).scatter(0, indices, weight)
            weight = scattered.view(convolution.maps, convolution.maps_in, *weight.shape[1:])
        theirs[f"layers.{THEIR_NAMES[layer]}.{kind}"] = weight
    return theirs


def full_table(maps_in: int, maps: int) -> tuple[tuple[int, ...], ...]:
    return (tuple(range(maps_in)),) * maps


@pytest.mark.parametrize(
    ("kernels", "units", "table"),
    [
        ((5, 5, 5), 120, TABLE_I),
        ((5, 5, 5), 7, full_table(6, 16)),
        ((3, 2, 1), 5, ((0,), (1, 2), (0, 2))),
        ((2, 4, 3), 3, ((3,), (0, 1, 2, 3))),
    ],
)
def test_the_network_matches_torchs_layers(assert_parity, kernels, units, table):
    ours = LeNet5(kernels=kernels, units=units, table=table)
    theirs = Reference(kernels, units, (ours.c1.maps, len(table)))
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,)),
        lambda w, x: functional_call(theirs, as_reference(ours, w), (x,)),
        (torch.randn(3, 1, ours.side, ours.side),),
        weights=dict(ours.named_parameters()),
    )


@pytest.mark.parametrize(
    ("shape", "maps", "kernel"),
    [((2, 3, 7, 11), 4, 3), ((1, 1, 5, 5), 2, 5), ((3, 2, 6, 4), 1, 4), ((2, 4, 1, 9), 3, 1)],
)
def test_a_complete_layer_copies_every_window(assert_parity, shape, maps, kernel):
    layer = Convolution(full_table(shape[1], maps), kernel)
    assert_parity(
        lambda w, x: functional_call(layer, w, (x,)),
        lambda w, x: by_windows(x, w["weight"].view(maps, shape[1], kernel, kernel), w["bias"]),
        (torch.randn(shape),),
        weights=dict(layer.named_parameters()),
    )


def test_the_oracle_is_the_sum_over_each_window():
    x, weight, bias = torch.randn(2, 3, 5, 6), torch.randn(4, 3, 2, 2), torch.randn(4)
    y = by_windows(x, weight, bias)
    for n, m, r, c in [(0, 0, 0, 0), (1, 3, 3, 4), (0, 2, 1, 3)]:
        assert_close(y[n, m, r, c], (x[n, :, r : r + 2, c : c + 2] * weight[m]).sum() + bias[m])


@pytest.mark.parametrize("table", [TABLE_I, ((0, 2), (1,), (0, 1, 2), (2,))])
def test_an_incomplete_table_is_a_masked_convolution(assert_parity, table):
    layer = Convolution(table, 3)
    mask = torch.tensor([[seen in row for seen in range(layer.maps_in)] for row in table])[..., None, None]

    def masked(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        complete = weights["weight"].new_full((*mask.shape[:2], 3, 3), 7.0)
        filters = iter(weights["weight"])
        rows = [
            [next(filters) if mask[m, i] else complete[m, i] for i in range(layer.maps_in)]
            for m in range(layer.maps)
        ]
        return F.conv2d(x, torch.stack([torch.stack(row) for row in rows]) * mask, weights["bias"])

    assert_parity(
        lambda w, x: functional_call(layer, w, (x,)),
        masked,
        (torch.randn(2, layer.maps_in, 5, 8),),
        weights=dict(layer.named_parameters()),
    )


def test_unseen_maps_have_no_influence():
    layer = Convolution(TABLE_I, 3)
    x = torch.randn(1, 6, 4, 4)
    for seen in range(6):
        other = x.clone()
        other[:, seen] += 1
        changed = (layer(other) - layer(x)).abs().amax((0, 2, 3)) > 0
        assert changed.tolist() == [seen in row for row in TABLE_I]


def test_table_1():
    """As the paper describes it: six triples and six quadruples of neighbouring maps (cyclically), three
    other quadruples, and all maps. Every map of S2 is used ten times.
    """
    ring = [{(start + step) % 6 for step in range(length)} for length in (3, 4) for start in range(6)]
    rows = [set(row) for row in TABLE_I]
    assert rows[:12] == ring
    assert [len(row) for row in rows[12:]] == [4, 4, 4, 6]
    assert all(row not in ring for row in rows[12:15])
    assert [sum(seen in row for row in rows) for seen in range(6)] == [10] * 6


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 1, 2, 2), (3, 5, 6, 2)])
def test_sub_sampling_matches_torchs_average(assert_parity, shape):
    ours, theirs = SubSampling(shape[1]), Pool(shape[1])
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,)),
        lambda w, x: functional_call(theirs, w, (x,)),
        (torch.randn(shape),),
        weights={"weight": torch.randn(shape[1]), "bias": torch.randn(shape[1])},
    )


def test_squash(assert_parity):
    assert_parity(squash, lambda x: 1.7159 * torch.tanh(2 * x / 3), (torch.randn(5, 3) * 3,))
    one = torch.tensor([1.0, -1.0], dtype=torch.float64)
    assert_close(squash(one), one, rtol=0, atol=1e-4)


def test_there_are_second_derivatives():
    """The whole network has second derivatives, for training on how the answer changes with the image."""
    model = LeNet5(kernels=(2, 2, 1), units=3, table=((0, 1), (1,))).double()
    x = torch.randn(1, 1, model.side, model.side, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: model(x)[:, :2], (x,))


def test_a_shifted_image_gives_shifted_maps():
    layer, x = Convolution(((0,), (0,)), 3), torch.randn(1, 1, 9, 9)
    assert_close(layer(x.roll((1, 2), (2, 3)))[..., 1:, 2:], layer(x)[..., :-1, :-2])


def test_sizes_are_the_papers():
    with torch.device("meta"):
        model = LeNet5()
    assert model.side == 32
    assert model.sizes() == {
        "c1": (156, 122_304),
        "s2": (12, 5_880),
        "c3": (1_516, 151_600),
        "s4": (32, 2_000),
        "c5": (48_120, 48_120),
        "f6": (10_164, 10_164),
        "output": (0, 840),
    }
    assert sum(w.numel() for w in model.parameters()) == 60_000


def test_with_all_connections_it_has_the_weights_that_are_often_counted():
    """61,706, with a complete C3, no weights in subsampling, and ten trained outputs."""
    with torch.device("meta"):
        complete = LeNet5(table=full_table(6, 16))
    assert complete.sizes()["c3"] == (2_416, 241_600)
    without = sum(p for name, (p, _) in complete.sizes().items() if name not in ("s2", "s4"))
    assert without + 85 * 10 == 61_706


def test_first_weights_follow_the_fan_in_of_each_map():
    layer = Convolution(((0,), (0, 1, 2, 3)), 10)
    one, four = layer.weight[:1].abs().max().item(), layer.weight[1:].abs().max().item()
    assert 0.9 * 0.024 < one <= 0.024
    assert 0.9 * 0.006 < four <= 0.006


def test_coefficients_and_biases_of_sub_sampling_follow_their_four_inputs():
    layer = SubSampling(400)
    for weight in (layer.weight, layer.bias):
        assert 0.95 * 0.6 < weight.abs().max().item() <= 0.6
        assert abs(weight.mean().item()) < 0.1


@pytest.mark.parametrize(("side", "hidden"), [(20, 29), (3, 5)])
def test_the_control_matches_torchs_layers(assert_parity, side, hidden):
    """A hidden layer and F6, both with tanh, and the distances to the prototypes."""
    ours = FullyConnected(side, hidden)
    theirs = nn.Sequential(
        nn.Flatten(), nn.Linear(side**2, hidden), Bend(), nn.Linear(hidden, 84), Bend(), Distances()
    )
    names = {"hidden": "1", "f6": "3"}
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,)),
        lambda w, x: functional_call(
            theirs, {f"{names[n.split('.')[0]]}.{n.split('.')[1]}": v for n, v in w.items()}, (x,)
        ),
        (torch.randn(3, 1, side, side),),
        weights=dict(ours.named_parameters()),
    )
    for layer, bound in ((ours.hidden, 2.4 / side**2), (ours.f6, 2.4 / hidden)):
        assert 0.5 * bound < layer.weight.abs().max().item() <= bound


def test_penalties_are_squared_distances_to_the_pictures():
    drawn = torch.randn(3, 84, dtype=torch.float64)
    expected = torch.cdist(drawn, typeset().double()) ** 2
    assert_close(lenet.Output()(drawn), expected, rtol=1e-9, atol=1e-9)


def test_pictures_are_seven_by_twelve_and_all_different():
    codes = typeset()
    assert codes.shape == (10, 7 * 12)
    assert set(codes.flatten().tolist()) == {-1, 1}
    differing = (codes[:, None] != codes).sum(2) + 84 * torch.eye(10)
    assert differing.min() >= 8
    black = codes.view(10, 12, 7)[7] > 0
    assert black[0].all()
    assert black.sum() == 7 + 11  # the seven: a bar, and a dot in each row below


def test_loss_is_equation_9():
    penalties, labels, j = torch.rand(5, 10, dtype=torch.float64) * 4, torch.tensor([3, 0, 9, 3, 1]), 0.7
    terms = [
        row[label] + math.log(math.exp(-j) + sum(math.exp(-y) for y in row))
        for row, label in zip(penalties.tolist(), labels.tolist(), strict=True)
    ]
    assert_close(lenet.loss(penalties, labels, rubbish=j).item(), sum(terms) / 5)


# Experiment and benchmark


def world():
    images, labels = data.digits()
    parts = data.parts(enlarge(images, 16), labels, seed=0)
    return experiment_module.Fields(parts, 20, {"as many weights": 29, "larger": 100}, torch.arange(400))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(lenet)
    assert record.curves["loss at learning rate 0.015"].keys() == ARMS.keys()
    values = {event["claim"]["name"]: event["values"] for event in record.claims}
    weights = {arm: record.values["parameters", arm] for arm in ARMS}
    assert weights == {"LeNet": 14_580, "as many weights": 14_149, "larger": 48_584}
    assert values["fewer parameters"]["parameters, LeNet / larger"] == weights["LeNet"] / weights["larger"]
    assert [artifact["name"] for artifact in record.artifacts] == ["LeNet-5", "F6"]


def test_the_arms_are_lenet_and_fully_connected_networks(part_of_run):
    at = Trial(Workshop(part_of_run(), world()), Work(arm="LeNet"), arm="LeNet")
    assert [type(make(at)) for make in ARMS.values()] == [LeNet5, FullyConnected, FullyConnected]
    assert type(centred_reader(at).reader) is FullyConnected


def test_pictures_stand_anywhere_in_their_field():
    digits = enlarge(data.digits()[0][:400], 16)
    assert digits.shape == (400, 1, 16, 16)
    assert (digits.min().item(), digits.max().item()) == pytest.approx((BLANK, INK))
    fields = scatter(digits, torch.Generator().manual_seed(0), field=20, order=torch.arange(400))
    positions = set()
    for field, digit in zip(fields[:, 0], digits[:, 0], strict=True):
        windows = field.unfold(0, 16, 1).unfold(1, 16, 1)
        found = [(i, j) for i in range(5) for j in range(5) if torch.equal(windows[i, j], digit)]
        positions |= set(found)
        assert found
        assert_close(field.sum(), digit.sum() + (400 - 256) * BLANK)
    assert len(positions) == 25


def test_colour_pictures_become_grey():
    colours = torch.rand(2, 3, 32, 32)
    assert_close(enlarge(colours, 28), enlarge(colours.mean(1), 28))
    assert enlarge(colours, 28).shape == (2, 1, 28, 28)


def test_the_near_miss_puts_all_pixels_in_one_other_order():
    usual, broken = world(), shuffled(world())
    x = usual.parts.judge[0][:5]
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    straight = usual.placed(x, draws[0]).flatten(1)
    assert torch.equal(broken.placed(x, draws[1]).flatten(1), straight[:, broken.order])
    assert not torch.equal(broken.order, usual.order)
    assert torch.equal(broken.order.sort().values, usual.order)


def test_the_rival_reads_every_position_alike():
    x = enlarge(data.digits()[0][:50], 16)
    generator = torch.Generator().manual_seed(0)
    here, there = (scatter(x, generator, field=20, order=torch.arange(400)) for _ in range(2))
    assert not torch.equal(here, there)
    assert torch.equal(centred(here), centred(there))
    ink = (centred(here)[:, 0] - BLANK).sum(2)
    middle = (ink * torch.arange(20)).sum(1) / ink.sum(1)
    assert ((middle - 9.5).abs() <= 0.5001).all()


@pytest.mark.parametrize("network", [LeNet5, experiment_module.small_lenet])
def test_the_picture_of_f6_fits_fields_of_any_size(part_of_run, network):
    run, model = part_of_run(), network()
    x, y = torch.rand(10, 1, model.side, model.side), torch.arange(10)
    experiment_module.show(run, model, x, y)
    with Image.open(run.artifacts / "f6.png") as picture:
        assert picture.size == (10 * 4 * model.side, 3 * 4 * model.side)


def test_the_correct_class_has_the_smallest_penalty():
    x, y = torch.tensor([[3.0, 1, 2, 4], [1, 2, 3, 4]]).view(2, 1, 2, 2), torch.tensor([1, 2])
    assert right(nn.Flatten(), x, y).tolist() == [1.0, 0.0]


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(lenet)] == ["LeNet-5"]


def test_the_stated_cost_is_a_multiply_add_a_connection():
    assert cost(3, itemsize=4)["forward"].flops == 2 * 3 * 340_908
