"""Pixels in raster order: loops over positions, masks tested by gradients, and probabilities that sum to
one.
"""

from __future__ import annotations

import importlib
import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import pixelrnn
from readtrack.papers.pixelrnn import (
    DiagonalBiLSTM,
    MaskedConv2d,
    PixelNetwork,
    ResidualBlock,
    RowLSTM,
    sample,
    skew,
    unskew,
)
from readtrack.papers.pixelrnn.benchmark import of_all_pixels, of_receptive_fields, place_by_place
from readtrack.papers.pixelrnn.experiment import (
    Linear,
    convolutions,
    diagonal,
    independent,
    row,
    shallow,
    slopes_in_order,
    without_state,
)
from readtrack.papers.pixelrnn.model import mask

experiment = importlib.import_module("readtrack.papers.pixelrnn.experiment")  # the hook has the same name

LAYERS = {"diagonal": DiagonalBiLSTM, "row": RowLSTM, "cnn": ResidualBlock}


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 2), (1, 1)])
def test_diagonals_are_a_loop_over_places(assert_parity, shape):
    layer = DiagonalBiLSTM(6, 3)
    torch.nn.init.normal_(layer.bias)
    assert_parity(
        lambda w, x: functional_call(layer, w, (x,)),
        place_by_place,
        (torch.randn(2, 6, *shape),),
        weights=dict(layer.named_parameters()),
    )


def rows_in_loops(w, x):
    """Equation 3 position by position, from two positions of the input's row and three of the state above."""
    into, bias = w["input_to_state.weight"][:, :, 0], w["input_to_state.bias"]
    recurrent = w["state_to_state.weight"]
    height, width = x.shape[2:]
    zero = x.new_zeros(len(x), recurrent.shape[1])
    h, c, out = {}, {}, torch.zeros_like(x)
    for i, j in itertools.product(range(height), range(width)):
        gates = bias + x[:, :, i, j] @ into[:, :, 1].T
        if j:
            gates = gates + x[:, :, i, j - 1] @ into[:, :, 0].T
        for tap in range(3):
            gates = gates + h.get((i - 1, j + tap - 1), zero) @ recurrent[:, :, tap].T
        o, f, g, content = gates.chunk(4, 1)
        c[i, j] = torch.sigmoid(f) * c.get((i - 1, j), zero) + torch.sigmoid(g) * torch.tanh(content)
        h[i, j] = torch.sigmoid(o) * torch.tanh(c[i, j])
    columns = [torch.stack([h[i, j] for j in range(width)], 2) for i in range(height)]
    return x + out + F.conv2d(torch.stack(columns, 2), w["up.weight"], w["up.bias"])


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1, 2)])
def test_rows_are_a_loop_over_places(assert_parity, shape):
    layer = RowLSTM(6, 3)
    assert_parity(
        lambda w, x: functional_call(layer, w, (x,)),
        rows_in_loops,
        (torch.randn(2, 6, *shape),),
        weights=dict(layer.named_parameters()),
    )


def test_skew_and_back():
    x = torch.randn(2, 3, 4, 5)
    skewed = skew(x)
    assert skewed.shape == (2, 3, 6, 5)
    assert_close(unskew(skewed, 4), x)
    for i in range(3):
        assert_close(skewed[:, i, i : i + 4], x[:, i])
        assert not skewed[:, i, :i].any()
        assert not skewed[:, i, i + 4 :].any()


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_is_seen_before_it_is_drawn(name):
    network = PixelNetwork(LAYERS[name], 2, 3, levels=4).double()
    x = torch.rand(1, 1, 5, 6, dtype=torch.float64)
    slopes = slopes_in_order(network, x)
    assert not slopes.triu().any()
    seen = (slopes[-1] != 0).sum().item()
    assert seen == 29 if name == "diagonal" else seen > 5


def test_the_views():
    """Section 3: the diagonal variant sees all pixels up to its own, the row LSTM a triangle."""
    x = torch.randn(1, 4, 6, 7, dtype=torch.float64)
    views = {}
    for name, layer in (("diagonal", DiagonalBiLSTM(4, 3)), ("row", RowLSTM(4, 3))):
        slopes = torch.autograd.functional.jacobian(layer.double(), x).abs().sum((0, 1, 4, 5))
        views[name] = slopes[4, 3] != 0
    expected = torch.ones(6, 7, dtype=torch.bool)
    expected[4, 4:] = False
    expected[5] = False
    assert torch.equal(views["diagonal"], expected)
    assert views["row"][3].tolist() == [False, True, True, True, True, False, False]
    assert views["row"][:3, 6].tolist() == [True, True, False]


@pytest.mark.parametrize("name", LAYERS)
def test_all_probabilities_sum_to_one(name):
    network = PixelNetwork(LAYERS[name], 1, 3, levels=3).double()
    images = torch.tensor(list(itertools.product((0.0, 0.5, 1.0), repeat=6))).double().view(-1, 1, 2, 3)
    with torch.no_grad():
        assert network.log_likelihood(images).exp().sum().item() == pytest.approx(1)


def test_colours_see_those_before_them():
    """Section 3.4: red sees no colour of its own pixel, green sees red, and blue sees both; with mask B,
    each colour also sees itself.
    """
    for kind, own in (("A", 0), ("B", 1)):
        seen = mask(kind, 6, 6, 3, 3, colours=3)
        for out, into in itertools.product(range(6), repeat=2):
            assert seen[out, into, 1, 1].item() == (into % 3 < out % 3 + own)
            assert seen[out, into, 0].all()
            assert seen[out, into, 1, 0]
            assert not seen[out, into, 1, 2]
            assert not seen[out, into, 2].any()


@pytest.mark.parametrize("name", LAYERS)
def test_whole_networks_draw_red_then_green_then_blue(name):
    """Checks the gradients of each colour's logits with respect to its own pixel and the next one."""
    network = PixelNetwork(LAYERS[name], 2, 12, colours=3, levels=5).double()
    for convolution in (network.first, network.hidden):
        torch.nn.init.constant_(convolution.bias, 1.0)  # so that enough ReLUs are active
    slopes = torch.autograd.functional.jacobian(network, torch.rand(1, 3, 3, 3, dtype=torch.float64))
    slopes = slopes.abs().sum(2)  # over the logits of a value
    own = slopes[0, :, 1, 1, 0, :, 1, 1] != 0
    assert own.tolist() == [[False] * 3, [True, False, False], [True, True, False]]
    assert (slopes[0, :, 1, 1, 0, :, 1, 0] != 0).all()
    assert not slopes[0, :, 1, 1, 0, :, 1, 2].any()
    assert not slopes_in_order(network, torch.rand(1, 3, 2, 2, dtype=torch.float64)).triu().any()


def test_a_sample_in_colour_is_drawn_colour_by_colour(monkeypatch):
    """Green equals the sampled red of the same pixel, and blue is the opposite of green."""
    network = PixelNetwork(ResidualBlock, 1, 3, colours=3, levels=2)

    def odds(x):
        red, green = x[:, 0], x[:, 1]
        on = 100 * torch.stack((torch.zeros_like(red), red - 0.5, 0.5 - green), 1)
        return torch.stack((torch.zeros_like(on), on), 2)

    monkeypatch.setattr(network, "forward", odds)
    drawn = sample(network, torch.zeros(4, 3, 4, 4), 0, torch.Generator().manual_seed(0))
    assert 0 < drawn[:, 0].mean() < 1
    assert torch.equal(drawn[:, 1], drawn[:, 0])
    assert torch.equal(drawn[:, 2], 1 - drawn[:, 1])


def test_masks_are_not_weights():
    layer = MaskedConv2d("A", 1, 2, (3, 3))
    assert layer.state_dict().keys() == {"weight", "bias"}
    network = PixelNetwork(ResidualBlock, 1, 2)
    hidden = 4 * 25 + 2 * 2 * 4  # 7 x 7 without 24 positions, 3 x 3 without 5
    assert network.size() == sum(weight.numel() for weight in network.parameters()) - hidden


def test_the_arms_are_of_equal_size():
    sizes = [make().size() for make in (diagonal, row, convolutions)]
    assert max(sizes) <= 1.05 * min(sizes), sizes
    assert shallow().size() == pytest.approx(min(sizes), rel=0.02)
    assert [type(make().layers[0]) for make in (diagonal, row, convolutions)] == list(LAYERS.values())


def test_the_linear_rival_sees_all_earlier_pixels_and_has_no_more_weights():
    assert Linear(8, 8).size() == 6 * 64 * 63 // 2 + 64 * 17 * 6 + 64 * 17
    assert Linear(8, 8).size() <= min(make().size() for make in (diagonal, row, convolutions))
    network = Linear(3, 2, levels=4).double()
    slopes = slopes_in_order(network, torch.rand(1, 1, 3, 2, dtype=torch.float64)) != 0
    assert torch.equal(slopes, torch.ones(6, 6).tril(-1).bool())


def test_the_linear_rival_is_a_softmax_of_sums_of_earlier_pixels():
    network = Linear(3, 2, sums=2, levels=4).double()
    torch.nn.init.normal_(network.bias)
    images = torch.randint(4, (5, 1, 3, 2)).double() / 3
    for x, found in zip(images.flatten(1), network.log_likelihood(images), strict=True):
        expected = 0.0
        for p in range(6):
            sums = [sum(network.into[s, p, q] * x[q] for q in range(p)) for s in range(2)]
            logits = network.bias[p] + network.out[p, :, 0] * sums[0] + network.out[p, :, 1] * sums[1]
            expected = expected + logits.log_softmax(0)[round(3 * x[p].item())]
        assert_close(found, expected)


def test_the_rivals_replace_both_lstm_networks(comparisons):
    (given,) = comparisons(pixelrnn)
    for broken, size in (("shallow PixelCNN", shallow().size()), ("linear autoregression", 19_712)):
        arms = given.breaks[broken]
        assert arms.keys() == {"diagonal", "row"}
        assert {arm.make().size() for arm in arms.values()} == {size}


def test_without_state_nothing_is_carried():
    for make, own in ((diagonal, [False, False, True]), (row, [False, True, True])):
        layer = without_state(make).layers[0].double()
        x = torch.randn(1, layer.layer.up.out_channels, 3, 4, dtype=torch.float64)
        slopes = torch.autograd.functional.jacobian(layer, x).abs().sum((0, 1, 4, 5))[1, 2] != 0
        assert not slopes[[0, 2]].any()
        assert slopes[1].tolist() == [*own, False]


def test_a_sample_keeps_the_given_part():
    network = PixelNetwork(ResidualBlock, 1, 3, levels=5)
    x = (torch.rand(4, 1, 5, 5) > 0.5).float()
    drawn = sample(network, x, 2, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, :, :2], x[:, :, :2])
    assert set(drawn.unique().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    torch.nn.init.zeros_(network.out.weight)
    network.out.bias.data.copy_(torch.tensor([0.0, 0, 0, 50, 0]))
    assert (sample(network, x, 2, torch.Generator().manual_seed(0))[:, :, 2:] == 0.75).all()


def test_the_likelihood_is_normalised_over_the_existing_levels():
    network = PixelNetwork(ResidualBlock, 1, 3, levels=17).double()
    x = torch.randint(17, (3, 1, 4, 4)).double() / 16
    odds, expected = network(x)[:, 0].log_softmax(1), torch.zeros(3, dtype=torch.float64)
    for image, i, j in itertools.product(range(3), range(4), range(4)):
        expected[image] += odds[image, int(x[image, 0, i, j] * 16), i, j]
    assert_close(network.log_likelihood(x), expected)


def test_the_paper_has_256_values_for_each_colour():
    with torch.device("meta"):
        network = PixelNetwork(DiagonalBiLSTM, 1, 6, colours=3)
    assert network(torch.zeros(1, 3, 4, 5, device="meta")).shape == (1, 3, 256, 4, 5)


def test_independent_pixels_are_counted():
    train, judge = torch.zeros(3, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    judge[..., 0, 0] = 1.0
    expected = -(63 * torch.tensor(4 / 20.0).log() + torch.tensor(1 / 20.0).log())
    assert independent(train, judge) == pytest.approx(expected.item(), rel=1e-5)


def test_the_set_up_is_the_stated_one():
    assert digest(experiment) == "84ceae892581"


def test_the_experiment_runs(run_experiment):
    record = run_experiment(pixelrnn)
    assert {artifact["name"] for artifact in record.artifacts} == {"completions", "samples"}
    assert record.values["receptive field of the last of 64 pixels", "diagonal"] == 63


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(pixelrnn)] == ["diagonal BiLSTM", "pictures"]


def test_a_pixels_receptive_field_is_enough_to_generate_it():
    network = PixelNetwork(ResidualBlock, 2, 4, colours=2, levels=3).double()
    blank = torch.zeros(2, 2, 8, 9, dtype=torch.float64)
    whole, near = (
        generate(network, blank, torch.Generator().manual_seed(0))
        for generate in (of_all_pixels, of_receptive_fields)
    )
    assert torch.equal(whole, near)


def test_layers_are_built_anywhere():
    with torch.device("meta"):
        for layer in LAYERS.values():
            assert partial(layer, 4, 2)().up.weight.is_meta
