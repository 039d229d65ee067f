"""AlexNet as two columns of patches, its normalisation map by map, its sizes, and its arms."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.claims import AtLeast
from readtrack.papers import alexnet
from readtrack.papers.alexnet import AlexNet, SmallNet, response_norm
from readtrack.papers.alexnet.benchmark import map_by_map, torchs
from readtrack.papers.alexnet.model import final_side, neurons

experiment_module = importlib.import_module("readtrack.papers.alexnet.experiment")
task_module = importlib.import_module("readtrack.papers.alexnet.task")


def convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    x = F.pad(x, (padding,) * 4)
    side = weight.shape[-1]
    windows = x.unfold(2, side, stride).unfold(3, side, stride)
    return torch.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]


def pool(x: Tensor) -> Tensor:
    return x.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))


def two_columns(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network as figure 2 draws it: two networks that meet at the third convolution."""

    def both(columns: list[Tensor], layer: str, padding: int) -> list[Tensor]:
        parts = zip(columns, w[f"{layer}.weight"].chunk(2), w[f"{layer}.bias"].chunk(2), strict=True)
        return [convolve(x, weight, bias, padding=padding).clamp(min=0) for x, weight, bias in parts]

    x = pool(map_by_map(convolve(x, w["conv1.weight"], w["conv1.bias"], stride=4).clamp(min=0)))
    x = torch.cat(both(list(x.chunk(2, 1)), "conv2", 2), 1)
    x = pool(map_by_map(x))
    x = convolve(x, w["conv3.weight"], w["conv3.bias"], padding=1).clamp(min=0)
    columns = both(both(list(x.chunk(2, 1)), "conv4", 1), "conv5", 1)
    x = pool(torch.cat(columns, 1)).flatten(1)
    for layer in ("hidden1", "hidden2"):
        x = (x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]).clamp(min=0)
    return x @ w["scores.weight"].T + w["scores.bias"]


def test_the_network_is_two_columns(assert_parity):
    network = AlexNet(widths=(4, 6, 8, 4, 6), hidden=7, classes=5, side=99).double().eval()
    weights = {name: 0.2 * torch.randn_like(w) for name, w in network.named_parameters()}
    assert_parity(
        lambda w, x: functional_call(network, w, (x,)),
        two_columns,
        (torch.randn(2, 3, 99, 99),),
        weights=weights,
    )


@pytest.mark.parametrize("maps", [1, 2, 4, 5, 11])
@pytest.mark.parametrize("constants", [{}, {"n": 3, "k": 1.0, "alpha": 0.1, "beta": 0.5}, {"n": 7}])
def test_response_norm_is_torchs_with_alpha_times_n(assert_parity, maps, constants):
    given = {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75} | constants
    n = given["n"]
    assert_parity(
        lambda a: response_norm(a, **constants),
        lambda a: F.local_response_norm(a, n, alpha=given["alpha"] * n, beta=given["beta"], k=given["k"]),
        (40 * torch.randn(2, maps, 3, 4),),
    )


def test_response_norm_map_by_map(assert_parity):
    assert_parity(response_norm, map_by_map, (40 * torch.randn(2, 9, 3, 4),))


def test_response_norm_in_half_precision(assert_half_precision):
    assert_half_precision(response_norm, torchs, (20 * torch.randn(2, 32, 8, 8),))


def test_sizes():
    with torch.device("meta"):
        network = AlexNet()
        assert network(torch.empty(2, 3, 227, 227)).shape == (2, 1000)
        assert network.features(torch.empty(2, 3, 227, 227)).shape == (2, 256, 6, 6)
    assert sum(w.numel() for w in network.parameters()) == 60_965_224
    assert neurons(network, 227) == [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]


@pytest.mark.parametrize(("side", "last"), [(227, 6), (99, 2), (67, 1)])
def test_the_last_maps(side, last):
    assert final_side(side) == last


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match="67"):
        final_side(60)


def test_the_start_is_section_5s():
    network = AlexNet(widths=(16, 16, 16, 16, 16), hidden=64, classes=9, side=67)
    layers = {n: m for n, m in network.named_children() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {name: layer.bias.mean().item() for name, layer in layers.items()} == {
        "conv1": 0.0,
        "conv2": 1.0,
        "conv3": 0.0,
        "conv4": 1.0,
        "conv5": 1.0,
        "hidden1": 1.0,
        "hidden2": 1.0,
        "scores": 0.0,
    }
    assert_close(network.conv1.weight.std(), torch.tensor(0.01), rtol=0.1, atol=0)


@pytest.mark.parametrize("make", [lambda: AlexNet(widths=(4,) * 5, hidden=40, side=67), None])
def test_dropout_is_before_both_hidden_layers_while_training(make):
    make = make or (lambda: SmallNet(classes=5, hidden=(40, 40), dropout=0.5))
    network = make()
    x = torch.randn(2, 3, 67, 67) if isinstance(network, AlexNet) else torch.randn(2, 3, 16, 16)
    calls = []
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.5
            module.register_forward_hook(lambda *_: calls.append(1))
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    assert not torch.equal(network(x), network(x))
    assert len(calls) == 4
    assert torch.equal(network.eval()(x), network(x))


def test_the_arms():
    assert experiment_module.RATES == (0.01, 0.03, 0.09)
    assert (experiment_module.WINDOW, experiment_module.GOAL) == (20, 0.25)
    network = SmallNet(classes=5, activation=nn.Tanh)
    assert sum(isinstance(module, nn.Tanh) for module in network.modules()) == 3
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())
    optimizer = experiment_module.sgd(0.1, network)
    assert {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}.items() <= optimizer.defaults.items()


class Says(nn.Module):
    """Names every picture 0."""

    def forward(self, x):
        return F.one_hot(torch.zeros(len(x), dtype=torch.long), 5).float()


# A quarter is wrong on what chooses, three quarters on what judges.
PARTS = {
    part: task_module.Pictures(torch.zeros(len(y), 3, 16, 16), torch.tensor(y))
    for part, y in {"train": [0, 0], "choose": [0, 1, 0, 0], "judge": [1, 1, 1, 0]}.items()
}


def test_what_is_reported_chose_nothing(part_of_run, monkeypatch):
    monkeypatch.setattr(task_module, "train", lambda *_, **__: Says())
    parts = tuple(PARTS.values())
    best = task_module.learnt_at_best_rates(part_of_run(), {"a": Says}, (0.1, 0.2), parts, steps=1)["a"]
    assert (best.score, best.result.error) == (0.25, 0.75)


def test_dropout_is_judged_on_pictures_that_chose_nothing(part_of_run, monkeypatch):
    monkeypatch.setattr(experiment_module, "pictures", lambda run, part, count: PARTS[part])
    monkeypatch.setattr(experiment_module, "train", lambda *_, **__: Says())
    run, stated = part_of_run(), []
    monkeypatch.setattr(run, "claim", lambda claim, values, tuned: stated.append((values, tuned)))
    experiment_module.overfit(run)
    ((values, tuned),) = stated
    assert values["error on new pictures, without dropout"] == 0.75
    assert values["accuracy on the training set, without dropout"] == 1
    assert [best.score for best in tuned] == [0.25, 0.25]


@pytest.mark.parametrize("hidden", [(), (64, 32)])
def test_small_networks_start_with_variances_of_2_over_fan_in(hidden):
    """Not the paper's 0.01: with it so small a network does not leave its start."""
    network = SmallNet(classes=200, hidden=hidden)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 4 + len(hidden)
    for layer in layers:
        assert_close(layer.weight.var(), torch.tensor(2 / layer.weight[0].numel()), rtol=0.15, atol=0)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [({}, (0.5, 0.0)), ({"null": True}, (0.0, 0.0)), ({"broken": "no dropout"}, (0.0, 0.0))],
)
def test_the_arms_of_dropout(part_of_run, monkeypatch, condition, expected):
    """They differ in nothing but the share that is left out."""
    made: dict[str, nn.Module] = {}
    monkeypatch.setattr(experiment_module, "pictures", lambda run, part, count: PARTS[part])

    def watched(run, arm, make, known, optimizer, **_):
        made[arm] = make()
        return Says()

    monkeypatch.setattr(experiment_module, "train", watched)
    run = part_of_run(**condition)
    monkeypatch.setattr(run, "claim", lambda *_, **__: None)
    experiment_module.overfit(run)
    ours, control = (made[arm] for arm in ("with dropout", "without dropout"))
    shares = [{m.p for m in one.modules() if isinstance(m, nn.Dropout)} for one in (ours, control)]
    assert shares == [{share} for share in expected]
    assert [w.shape for w in ours.parameters()] == [w.shape for w in control.parameters()]


def test_errors_are_told_by_the_height_of_the_digit(part_of_run, monkeypatch):
    """Of ten pictures the odd ones are named wrongly, and those are the high ones."""
    run, told = part_of_run(), []
    monkeypatch.setattr(run, "metric", lambda name, value, *, step, arm: told.append((arm, step, value)))
    y = torch.tensor([0, 1] * 5)
    heights = torch.tensor([float(i + 10 * (i % 2)) for i in range(10)])
    held_out = task_module.Pictures(torch.zeros(10, 3, 16, 16), y)
    task_module.error_by_height(run, {"a": Says()}, held_out, heights)
    assert told == [("a", 1.0, 0.0), ("a", 5.0, 0.0), ("a", 9.5, 0.5), ("a", 14.0, 1.0), ("a", 18.0, 1.0)]


def test_the_experiment_runs(run_experiment):
    record = run_experiment(alexnet)
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["sizes"]["verdict"] == "held"
    with_it, without = (record.values["error on new pictures", f"{w} dropout"] for w in ("with", "without"))
    assert claims["dropout"]["values"]["error on new pictures, with dropout / without"] == with_it / without


def test_a_null_run_compares_equals(run_experiment):
    record = run_experiment(alexnet, null=True)
    assert [v for c in record.claims for name, v in c["values"].items() if "/" in name] == [1.0, 1.0]


@pytest.mark.parametrize("broken", ["no dropout", "tanh everywhere"])
def test_breaks_make_the_arms_equal(run_experiment, broken):
    record = run_experiment(alexnet, broken=broken)
    assert [v for c in record.claims for name, v in c["values"].items() if "/" in name] == [1.0]


def test_a_limit_is_no_number_of_steps():
    assert experiment_module.number(AtLeast(400.0)) == experiment_module.number(400.0) == 400.0


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(alexnet)] == ["response normalisation", "two columns"]
