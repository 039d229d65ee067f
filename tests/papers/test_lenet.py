"""LeNet-5 against torch's layers and masked convolutions, the paper's table of sizes, and the rules."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.papers import lenet
from readtrack.papers.lenet import TABLE_I, Convolution, LeNet5, SubSampling, convolve, squash
from readtrack.papers.lenet.cases import by_windows, convolution_cost, lenet_cost
from readtrack.papers.lenet.network import typeset


class Pool(nn.Module):
    """Sub-sampling from torch's average."""

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
    """The same network from torch's layers, C3 a complete convolution."""

    def __init__(self, kernels: tuple[int, int, int], units: int, maps: tuple[int, int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, maps[0], kernels[0]), Bend(), Pool(maps[0]), Bend()),
            *(nn.Conv2d(maps[0], maps[1], kernels[1]), Bend(), Pool(maps[1]), Bend()),
            *(nn.Conv2d(maps[1], units, kernels[2]), Bend(), nn.Flatten(), nn.Linear(units, 84), Bend()),
        )

    def forward(self, x: Tensor) -> Tensor:
        drawn = self.layers(x)
        return (drawn[:, None] - typeset().to(drawn)).square().sum(2)


THEIR_NAMES = {"c1": 0, "s2": 2, "c3": 4, "s4": 6, "c5": 8, "f6": 11}


def as_reference(model: LeNet5, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes of the reference: every filter in its place, zeros where a map is not seen."""
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
def test_the_network_is_that_of_torchs_layers(assert_parity, kernels, units, table):
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
def test_convolution_is_torchs(assert_parity, shape, maps, kernel):
    x, weight, bias = torch.randn(shape), torch.randn(maps, shape[1], kernel, kernel), torch.randn(maps)
    assert_parity(convolve, F.conv2d, (x, weight, bias))
    assert_parity(convolve, by_windows, (x, weight, bias))
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)  # whatever lies how in memory
    assert_parity(convolve, F.conv2d, (turned, weight, bias))


def test_convolution_is_the_sum_over_each_window():
    x, weight, bias = torch.randn(2, 3, 5, 6), torch.randn(4, 3, 2, 2), torch.randn(4)
    y = convolve(x, weight, bias)
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


def test_what_is_not_seen_has_no_influence():
    layer = Convolution(TABLE_I, 3)
    x = torch.randn(1, 6, 4, 4)
    for seen in range(6):
        other = x.clone()
        other[:, seen] += 1
        changed = (layer(other) - layer(x)).abs().amax((0, 2, 3)) > 0
        assert changed.tolist() == [seen in row for row in TABLE_I]


def test_table_1():
    """As the paper describes it: six triples and six quadruples of neighbours in a ring, three quadruples
    that are not neighbours, and all; every map of S2 is used ten times."""
    ring = [{(start + step) % 6 for step in range(length)} for length in (3, 4) for start in range(6)]
    rows = [set(row) for row in TABLE_I]
    assert rows[:12] == ring
    assert [len(row) for row in rows[12:]] == [4, 4, 4, 6]
    assert all(row not in ring for row in rows[12:15])
    assert [sum(seen in row for row in rows) for seen in range(6)] == [10] * 6


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 1, 2, 2), (3, 5, 6, 2)])
def test_sub_sampling_is_torchs_average(assert_parity, shape):
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


def test_gradients_are_those_of_finite_differences():
    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(squash, (leaf(3, 4),))
    assert torch.autograd.gradcheck(convolve, (leaf(2, 2, 4, 5), leaf(3, 2, 3, 3), leaf(3)))
    images = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w, b: convolve(images, w, b), (leaf(3, 2, 3, 3), leaf(3)))


@pytest.mark.parametrize("call", [squash, lambda x: convolve(x, x[:, :, :2, :2], x[0, :1, 0, 0])])
def test_second_derivatives_are_refused(call):
    x = torch.randn(1, 1, 3, 3, requires_grad=True)
    (first,) = torch.autograd.grad(call(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_window_must_fit():
    with pytest.raises(ValueError, match="window of 5"):
        convolve(torch.randn(1, 1, 4, 9), torch.randn(2, 1, 5, 5), torch.randn(2))


def test_results_lie_as_the_next_convolution_wants_them():
    y = LeNet5().c1(torch.randn(2, 1, 32, 32))
    assert y.transpose(1, 2).is_contiguous()
    assert squash(SubSampling(6)(squash(y))).transpose(1, 2).is_contiguous()


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
    """61,706: C3 complete, no weights in sub-sampling, and ten trained outputs."""
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


def test_the_experiment_runs(run_experiment):
    record = run_experiment(lenet)
    arms = {"LeNet", *lenet.HIDDEN}
    assert record.curves["accuracy at rate 0.01"].keys() == arms
    assert [claim["verdict"] for claim in record.claims] == ["exact", "not judged", "not judged"]
    shifted = {arm: record.values["accuracy on shifted", arm] for arm in arms}
    best = max(shifted[arm] for arm in lenet.HIDDEN)
    assert list(record.claims[2]["values"].values()) == [shifted["LeNet"] - best]
    assert [artifact["name"] for artifact in record.artifacts] == ["LeNet-5", "F6"]


def test_controls_have_more_and_as_many_weights():
    with torch.device("meta"):
        ours, larger, equal = (
            sum(w.numel() for w in lenet.build(arm).parameters()) for arm in ("LeNet", *lenet.HIDDEN)
        )
    assert ours < 0.6 * larger
    assert 0.95 * ours < equal <= ours


def test_no_ink_leaves_the_field_when_digits_are_shifted():
    image = lenet.enlarge(torch.ones(1, 8, 8))
    assert image.shape == (1, 1, 20, 20)
    inked = (image > lenet.BLANK).squeeze()
    assert inked.sum() == 16 * 16
    assert not torch.cat((inked[:2], inked[-2:], inked[:, :2].T, inked[:, -2:].T)).any()
    assert image.max().item() == pytest.approx(lenet.INK)


@pytest.mark.parametrize("claim", [lenet.SIZE, lenet.FEWER, lenet.SHIFT], ids=lambda claim: claim.name)
def test_the_rules_can_fail(claim):
    held = {bound.metric: bound.threshold for bound in claim.rule}
    assert claim.judge(held) == ("exact" if claim.exact else "reproduced")
    for bound in claim.rule:
        wrong = 1e6 if bound.op == "<=" else -1e6
        assert claim.judge(held | {bound.metric: wrong}) == "not reproduced"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(lenet)] == [
        "convolution C1",
        "convolution C3, complete",
        "LeNet-5",
    ]


def test_the_stated_cost_of_a_convolution_is_what_torch_counts():
    stated = convolution_cost(2, 3, 7, 4, 3, itemsize=4)
    leaves = [torch.randn(s, requires_grad=True) for s in ((2, 3, 7, 7), (4, 3, 3, 3), (4,))]
    with FlopCounterMode(display=False) as counter:
        out = F.conv2d(*leaves)
        assert counter.get_total_flops() == stated["forward"].flops
        out.sum().backward()
    assert counter.get_total_flops() == stated["forward+backward"].flops
    assert stated["forward"].bytes == sum(tensor.nbytes for tensor in (*leaves, out))


def test_the_stated_cost_of_the_network_is_a_multiply_add_a_connection():
    assert lenet_cost(3, itemsize=4)["forward"].flops == 2 * 3 * 340_908
