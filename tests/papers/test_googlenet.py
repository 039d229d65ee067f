"""GoogLeNet's block branch by branch from patches, its table, its heads, and the experiment's arms."""

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
from readtrack.papers import googlenet
from readtrack.papers.googlenet import GoogLeNet, Inception, Widths, loss
from readtrack.papers.googlenet.benchmark import apart, of_patches, torchs
from readtrack.papers.googlenet.model import Auxiliary, Plain, SmallNet, multiply_adds

experiment_module = importlib.import_module("readtrack.papers.googlenet.experiment")
WIDTHS = Widths(5, 4, 6, 3, 4, 2)


def window_max(x: Tensor) -> Tensor:
    """3 × 3 with stride 1, without padding values."""
    padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).amax((-1, -2))


def naive(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The block of figure 2a."""
    branches = [
        of_patches(x, w[f"{name}.weight"], w[f"{name}.bias"]).clamp(min=0)
        for name in ("entry", "three", "five")
    ]
    return torch.cat((*branches, window_max(x)), 1)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: torch.randn_like(w) for name, w in module.named_parameters()}


def test_the_block_is_four_branches(assert_parity):
    block = Inception(7, WIDTHS).double()
    assert_parity(
        lambda w, x: functional_call(block, w, (x,)),
        lambda w, x: apart(w, x, widths=WIDTHS, convolve=of_patches),
        (torch.randn(2, 7, 5, 6),),
        weights=weights_of(block),
    )


def test_the_naive_block_is_figure_2a(assert_parity):
    block = Inception(7, Widths(3, 0, 4, 0, 2, 0)).double()
    assert block(torch.randn(1, 7, 4, 4, dtype=torch.float64)).shape == (1, 16, 4, 4)
    assert_parity(
        lambda w, x: functional_call(block, w, (x,)),
        naive,
        (torch.randn(2, 7, 5, 6),),
        weights=weights_of(block),
    )


def test_the_block_in_half_precision(assert_half_precision):
    block = Inception(16, Widths(8, 8, 16, 8, 8, 8))
    with torch.no_grad():
        weights = {name: torch.randn(w.shape) / w[0].numel() ** 0.5 for name, w in block.named_parameters()}
    assert_half_precision(
        lambda w, x: functional_call(block, w, (x,)),
        lambda w, x: apart(w, x, widths=block.widths, convolve=torchs),
        (torch.randn(2, 16, 12, 12),),
        weights=weights,
    )


def test_table_1():
    """Output sizes as in the paper's table, and parameters counted from it."""
    with torch.device("meta"):
        network = GoogLeNet().eval()
        sizes = {}
        for name, block in network.blocks.items():
            block.register_forward_hook(
                lambda _m, _i, out, name=name: sizes.update({name: tuple(out.shape[1:])})
            )
        assert network(torch.empty(1, 3, 224, 224)).shape == (1, 1000)
    assert sizes == {
        "3a": (256, 28, 28),
        "3b": (480, 28, 28),
        "4a": (512, 14, 14),
        "4b": (512, 14, 14),
        "4c": (512, 14, 14),
        "4d": (528, 14, 14),
        "4e": (832, 14, 14),
        "5a": (832, 7, 7),
        "5b": (1024, 7, 7),
    }
    own = sum(w.numel() for n, w in network.named_parameters() if not n.startswith("heads"))
    assert own == 6_998_552


def test_the_heads_are_for_training_alone():
    with torch.device("meta"):
        network = GoogLeNet(classes=10)
        images = torch.empty(1, 3, 224, 224)
        assert [tuple(scores.shape) for scores in network(images)] == [(1, 10)] * 3
        assert network.eval()(images).shape == (1, 10)
    assert [network.heads[name].project.in_channels for name in ("4a", "4d")] == [512, 528]
    assert [network.dropout.p, *(head.dropout.p for head in network.heads.values())] == [0.4, 0.7, 0.7]


def test_a_head_is_its_layers(assert_parity):
    head = Auxiliary(6, classes=3, hidden=5, side=2).double().eval()

    def written(w: dict[str, Tensor], x: Tensor) -> Tensor:
        means = x.unfold(2, 5, 3).unfold(3, 5, 3).mean((-1, -2))
        x = of_patches(means, w["project.weight"], w["project.bias"]).clamp(min=0).flatten(1)
        x = (x @ w["hidden.weight"].T + w["hidden.bias"]).clamp(min=0)
        return x @ w["scores.weight"].T + w["scores.bias"]

    assert_parity(
        lambda w, x: functional_call(head, w, (x,)),
        written,
        (torch.randn(2, 6, 8, 8),),
        weights=weights_of(head),
    )


def test_the_loss_weighs_the_heads_by_three_tenths():
    scores, labels = torch.randn(3, 4, 5), torch.randint(5, (4,))
    each = [F.cross_entropy(one, labels) for one in scores]
    assert_close(loss(tuple(scores), labels), each[0] + 0.3 * (each[1] + each[2]))


def test_the_arms_and_the_rivals_do_as_many_multiply_adds(comparisons):
    (given,) = comparisons(googlenet)
    blocks = {
        **{name: arm.make for name, arm in given.arms.items()},
        **{name: change["with reductions"].make for name, change in given.breaks.items()},
    }
    kinds = {name: (block.func, block.keywords) for name, block in blocks.items()}
    reduced, naive = {"widths": Widths(16, 16, 24, 8, 12, 12)}, {"widths": Widths(7, 0, 10, 0, 5, 0)}
    assert kinds == {
        "with reductions": (Inception, reduced),
        "naive": (Inception, naive),
        "no reductions": (Inception, naive),
        "frozen reductions": (experiment_module.FrozenReductions, reduced),
        "plain 3 × 3 layers": (Plain, {"outputs": 28}),
        "two 3 × 3 layers, normalised": (Plain, {"outputs": 18, "layers": 2, "norm": True}),
    }
    work = []
    for block in blocks.values():
        network = SmallNet(block, classes=5)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.randn(1, 3, 16, 16))
        work.append(multiply_adds(network))
        assert counter.get_total_flops() == 2 * work[-1]
    assert max(work) / min(work) < 1.05


def test_the_layers_of_the_plain_rivals():
    def kinds(block: Plain) -> list[type[nn.Module]]:
        return [type(layer) for layer in block.layers]

    assert kinds(Plain(6, 4)) == [nn.Conv2d, nn.ReLU]
    two = Plain(6, 4, layers=2, norm=True)
    assert kinds(two) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    convolutions = [layer for layer in two.layers if isinstance(layer, nn.Conv2d)]
    assert [tuple(layer.weight.shape) for layer in convolutions] == [(4, 6, 3, 3), (4, 4, 3, 3)]
    assert two(torch.randn(2, 6, 5, 5)).shape == (2, two.outputs, 5, 5)


def test_frozen_reductions_keep_their_weights_and_the_rest_learns():
    block = experiment_module.FrozenReductions(6, Widths(2, 3, 4, 3, 4, 2))
    nn.init.constant_(block.entry.bias, 5.0)  # no dead unit
    before = {name: weight.detach().clone() for name, weight in block.named_parameters()}
    optimizer = torch.optim.Adam(block.parameters(), lr=0.1)
    block(torch.rand(4, 6, 5, 5)).square().sum().backward()
    optimizer.step()
    moved = {
        name: (weight != before[name]).flatten(1).any(1)
        for name, weight in block.named_parameters()
        if weight.ndim == 4
    }
    assert moved["entry.weight"].tolist() == [True] * 2 + [False] * 6
    assert not moved["project.weight"].any()
    assert moved["three.weight"].any()
    assert moved["five.weight"].any()


def test_pictures_of_each_part_are_drawn_for_that_part(drawn_parts, run_experiment):
    run_experiment(googlenet)
    assert drawn_parts == ["train", "choose", "judge"]


def test_the_experiment_runs(run_experiment):
    record = run_experiment(googlenet)
    assert record.headline_curve == "error over the digit's height"
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["parameters of AlexNet and GoogLeNet"]["verdict"] == "held"
    ours, theirs = (record.values["error", arm] for arm in ("with reductions", "naive"))
    found = claims["error with 1 × 1 reductions and with naive blocks"]["values"][
        "error, with reductions / naive"
    ]
    assert found == pytest.approx(ours / theirs, rel=1e-5)


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "e0b0c5897d4c"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(googlenet)] == ["Inception block", "images"]
