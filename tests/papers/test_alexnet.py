"""AlexNet compared with two columns of patches, its normalisation map by map, its sizes, and its arms."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.claims import AtLeast
from readtrack.papers import alexnet
from readtrack.papers.alexnet import AlexNet, SmallNet, response_norm
from readtrack.papers.alexnet.benchmark import map_by_map, torchs
from readtrack.papers.alexnet.model import final_side, neurons
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

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
    """The network as in figure 2: two networks that are joined at the third convolution."""

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
def test_response_norm_matches_torchs_with_alpha_times_n(assert_parity, maps, constants):
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
def test_half_of_each_hidden_layers_outputs_is_left_out_while_training(make):
    make = make or (lambda: SmallNet(classes=5, hidden=(40, 40), dropout=0.5))
    network = make()
    x = torch.randn(2, 3, 67, 67) if isinstance(network, AlexNet) else torch.randn(2, 3, 16, 16)
    left_out = []
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.5
            module.register_forward_hook(lambda _m, given, _: left_out.append(given[0].shape[-1]))
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    assert not torch.equal(network(x), network(x))
    assert left_out == [40] * 4
    assert torch.equal(network.eval()(x), network(x))


class Says(nn.Module):
    """Classifies every image as 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return F.one_hot(torch.zeros(len(x), dtype=torch.long), 5).float()


# A quarter of `choose` is wrong, and three quarters of `judge`.
PARTS = task_module.Parts(
    *(
        task_module.Pictures(torch.zeros(len(y), 3, 16, 16), torch.tensor(y))
        for y in ([0, 0], [0, 1, 0, 0], [1, 1, 1, 0])
    )
)


def a_trial(run, **fields) -> Trial:
    return Trial(Workshop(run, PARTS), Work(arm="any"), arm="any", **fields)


def test_networks_are_chosen_on_one_part_and_judged_on_another(part_of_run, monkeypatch):
    """The networks are untrained."""
    at = a_trial(part_of_run(), share=0.0)
    assert task_module.fit_by_adam(at, Says, 0.1, steps=3)[0] == 0.25
    monkeypatch.setattr(experiment_module.Regularised, "network", lambda _: Says())
    arm = experiment_module.Regularised(nn.Identity)
    assert experiment_module.fit_few(at, arm, 0.1, steps=3)[0] == 0.25
    sweep = Sweep(Says(), None, {})
    assert task_module.read_error(at, sweep)["error"].tolist() == [1, 1, 1, 0]
    found = experiment_module.read_fit(at, sweep)
    assert found["error"].tolist() == [1, 1, 1, 0]
    assert found["error on the training set"] == 0


@pytest.mark.parametrize("hidden", [(), (64, 32)])
def test_small_networks_start_with_variances_of_2_over_fan_in(hidden):
    """It is not the paper's 0.01: with pixels in [0, 1], such a small network would not start learning."""
    network = SmallNet(classes=200, hidden=hidden)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 4 + len(hidden)
    for layer in layers:
        assert_close(layer.weight.var(), torch.tensor(2 / layer.weight[0].numel()), rtol=0.15, atol=0)
        assert not layer.bias.any()


@pytest.mark.slow
def test_the_arms(comparisons):
    given = {one.claims[0].name: one for one in comparisons(alexnet)}
    few, race = (
        given["test error with and without dropout"],
        given["steps to 25 % training error, tanh and ReLU"],
    )
    made = {
        "with dropout": few.arms["with dropout"].make,
        **{name: change["with dropout"].make for name, change in few.breaks.items()},
    }
    left_out = {name: {type(m) for m in arm.network().dense[2::3]} for name, arm in made.items()}
    assert left_out == {
        "with dropout": {nn.Dropout},
        "no dropout": {nn.Identity},
        "fixed dropout mask": {experiment_module.SameHalf},
        "weight decay": {nn.Identity},
    }
    assert [layer.p for layer in made["with dropout"].network().dense[2::3]] == [0.5, 0.5]
    assert {name: arm.weight_decay for name, arm in made.items()} == {
        **dict.fromkeys(made, 5e-4),
        "weight decay": 0.01,
    }
    assert few.arms["without dropout"].make == made["no dropout"]
    starts = {**race.arms, **{name: change["ReLU"] for name, change in race.breaks.items()}}
    activations = {name: arm.make.activation for name, arm in starts.items()}
    assert activations == {
        "ReLU": nn.ReLU,
        "tanh": nn.Tanh,
        "tanh everywhere": nn.Tanh,
        "ReLU clipped at 1": experiment_module.Saturating,
        "scaled tanh": nn.Tanh,
    }
    assert [name for name, arm in starts.items() if not arm.make.as_paper] == ["scaled tanh"]
    network = SmallNet(classes=5, activation=nn.Tanh)
    assert sum(isinstance(module, nn.Tanh) for module in network.modules()) == 3
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())


def test_the_same_half_is_left_out_in_use_too():
    x = torch.ones(2, 6)
    assert experiment_module.SameHalf()(x).tolist() == [[0, 1, 0, 1, 0, 1]] * 2
    assert experiment_module.Saturating()(torch.tensor([-1.0, 0.5, 3.0])).tolist() == [0.0, 0.5, 1.0]


def test_the_race_starts_as_the_paper_says():
    start = experiment_module.Start(nn.ReLU)
    layers = [m for m in start.network().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert_close(torch.cat([m.weight.flatten() for m in layers]).std(), torch.tensor(0.01), rtol=0.05, atol=0)
    assert not any(m.bias.any() for m in layers)
    known = task_module.Pictures(torch.rand(4, 3, 2, 2) - 0.3, torch.zeros(4, dtype=torch.long))
    x = start.pixels(known).x
    assert_close(x.mean(0), torch.zeros(3, 2, 2), atol=1e-4, rtol=0)
    assert_close((x[1] - x[0]) / 255, known.x[1] - known.x[0])
    assert start._replace(as_paper=False).pixels(known) is known


def test_a_race_ends_at_25_percent(part_of_run, monkeypatch):
    """With wrong answers in the first six steps only, five of the last twenty are wrong after 21 steps."""
    run = part_of_run()
    known = task_module.Pictures(torch.zeros(32, 3, 16, 16), torch.zeros(32, dtype=torch.long))

    class Learns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.weight = 0, nn.Parameter(torch.zeros(1))

        def forward(self, x):
            self.seen += 1
            named = torch.full((len(x),), int(self.seen <= 6))
            return F.one_hot(named, 5) * (1 + self.weight)

    monkeypatch.setattr(experiment_module.Start, "network", lambda _: Learns())
    start = experiment_module.Start(nn.ReLU)
    score, course = experiment_module.to_25_percent(known, a_trial(run), start, 0.0)
    assert (score, course.steps, course.errors) == (21.0, 21.0, [0.3, 0.25])
    untrained = experiment_module.to_25_percent(known, a_trial(run, share=0.0), start, 0.0)
    assert untrained == (22.0, experiment_module.Course(AtLeast(21.0), []))


def test_errors_are_split_by_the_height_of_the_digit(part_of_run, monkeypatch):
    """Of ten images, the odd ones are classified wrongly, and these have tall digits."""
    run, told = part_of_run(), []
    monkeypatch.setattr(run, "metric", lambda name, value, *, step, arm: told.append((arm, step, value)))
    y = torch.tensor([0, 1] * 5)
    heights = torch.tensor([float(i + 10 * (i % 2)) for i in range(10)])
    held_out = task_module.Pictures(torch.zeros(10, 3, 16, 16), y)
    task_module.error_by_height(run, {"a": Says()}, held_out, heights)
    assert told == [("a", 1.0, 0.0), ("a", 5.0, 0.0), ("a", 9.5, 0.5), ("a", 14.0, 1.0), ("a", 18.0, 1.0)]


@pytest.mark.slow
def test_the_experiment_runs(run_experiment):
    record = run_experiment(alexnet, unreached=["steps to 25 %, tanh / ReLU"])
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["sizes"]["verdict"] == "held"
    with_it, without = (record.values["error on new pictures", f"{w} dropout"] for w in ("with", "without"))
    found = claims["test error with and without dropout"]["values"][
        "error on new pictures, with dropout / without"
    ]
    assert found == pytest.approx(with_it / without)


def test_the_set_up_is_the_stated_one():
    assert (digest(experiment_module), digest(task_module)) == ("bfcf1805e026", "652ed54da7c6")


def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(alexnet)
    assert [case.name for case in cases] == ["response normalisation", "two columns", "images"]
