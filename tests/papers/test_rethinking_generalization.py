"""Theorem 1's network compared with a dense solve, the five kinds of data, and the arms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.claims import AtLeast
from readtrack.papers import rethinking_generalization as module
from readtrack.papers.rethinking_generalization import Memory, memorise
from readtrack.runs.trial import Trial, Work, Workshop


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_differences_of_slopes_solve_the_system(assert_parity, count):
    z = torch.randperm(count) + torch.rand(count) * 0.5

    def dense(z, y):
        """Lemma 1 with loops: row i is max(z_i - b_j, 0)."""
        order = z.argsort()
        z, y = z[order], y[order]
        b = torch.stack([z[0] - 1, *z[:-1]])
        rows = [torch.stack([torch.clamp(zi - bj, min=0) for bj in b]) for zi in z]
        return b, torch.linalg.solve(torch.stack(rows), y)

    assert_parity(memorise, dense, (z, torch.randn(count)), rtol=1e-8, atol=1e-8)


def test_the_network_holds_every_example_in_any_order():
    x, y, a = torch.randn(60, 5).double(), torch.randn(60).double(), torch.randn(5).double()
    network = Memory(x, y, a)
    shuffled = torch.randperm(60)
    assert_close(network(x[shuffled]), y[shuffled], rtol=1e-8, atol=1e-9)
    assert sum(weight.numel() for weight in network.parameters()) == 2 * 60 + 5


def images() -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    return torch.rand(200, 64), torch.randint(10, (200,)), torch.Generator().manual_seed(0)


def test_labels_are_drawn_for_the_named_part():
    x, y, draw = images()
    same, labels = module.random_labels(x, y, draw)
    assert same is x
    assert (labels == y).float().mean() < 0.2
    assert sorted(set(labels.tolist())) == list(range(10))
    some = module.random_labels(x, y, torch.Generator().manual_seed(0), 0.25)[1]
    assert 0.7 < (some == y).float().mean() < 0.9
    assert module.as_they_are(x, y, draw) == (x, y)


def test_pixels_are_shuffled_alike_or_each_image_by_itself():
    x, y, draw = images()
    x[1] = x[0]
    alike, _ = module.shuffled_pixels(x, y, draw)
    assert torch.equal(alike[1], alike[0])
    assert not torch.equal(alike[0], x[0])
    apart, _ = module.random_pixels(x, y, draw)
    assert not torch.equal(apart[1], apart[0])
    for changed in (alike, apart):
        assert torch.equal(changed.sort(1).values, x.sort(1).values)
    noise, labels = module.gaussian(x, y, draw)
    assert_close(noise.mean(), x.mean(), rtol=0, atol=0.02)
    assert_close(noise.std(), x.std(), rtol=0.05, atol=0)
    assert labels is y


def test_a_time_that_was_not_reached_is_a_lower_limit():
    assert module.ratio(30.0, 20.0) == 1.5
    assert module.ratio(AtLeast(60.0), 20.0) == AtLeast(3.0)
    assert module.ratio(30.0, AtLeast(60.0)) != module.ratio(30.0, AtLeast(60.0))


def trainings(run_experiment, monkeypatch, **options):
    """The arguments of each training, by arm and kind of data, with made-up results."""
    seen = {}

    def noted(at, kind, recipe, rate):
        arm = at.name.partition(", as")[0]
        given = module.KINDS[kind](*at.world.train, at.run.data(f"noise, {kind}", "train"))
        seen[arm, kind] = recipe.make(given[0].shape[1]), *given, rate, recipe.weight_decay
        at.metric("loss", 1.0, step=0)
        steps = {module.TRUE: 10.0, module.RANDOM: 25.0}.get(kind, 99.0)
        accuracies = {"linear": 0.5, "dropout": 0.75}
        fitted = 0.875 if kind == "Gaussian" else accuracies.get(arm, 1.0)
        return 1.0, module.Trained(fitted, 0.9 if kind == module.TRUE else 0.1, steps)

    monkeypatch.setattr(module, "train", noted)
    return seen, run_experiment(module, **options)


def test_every_arm_learns_every_kind_of_data(run_experiment, monkeypatch):
    seen, record = trainings(run_experiment, monkeypatch)
    networks = {"network": (256, 0.0, 0.0), "weight decay": (256, 5e-4, 0.0), "dropout": (256, 0.0, 0.2)}
    assert seen.keys() == {(arm, kind) for arm in (*networks, "linear") for kind in module.KINDS}
    for (arm, kind), (network, x, y, _, decay) in seen.items():
        if arm == "linear":
            assert [layer.out_features for layer in network] == [10]
            assert decay == 0
        else:
            width, expected, dropped = networks[arm]
            widths = [layer.out_features for layer in network if isinstance(layer, nn.Linear)]
            assert widths == [width, width, 10]
            assert decay == expected
            assert {layer.p for layer in network if isinstance(layer, nn.Dropout)} == {dropped}
            assert all(weight.requires_grad for weight in network.parameters())
        true = seen[arm, module.TRUE]
        assert torch.equal(y, true[2]) == ("random labels" not in kind)
        assert torch.equal(x, true[1]) == ("pixels" not in kind and kind != "Gaussian")
        assert torch.equal(y, seen["linear", kind][2])
    found = {name: value for claim in record.claims for name, value in claim["values"].items()}
    assert found["steps to 99 %, random labels / true labels, network"] == 2.5
    assert found["training accuracy, random labels, network - linear"] == 0.5
    assert found["training accuracy, random labels, dropout"] == 0.75
    assert found["lowest training accuracy of five kinds of data, network"] == 0.875
    assert found["accuracy on new images, linear"] == 0.9


def test_nothing_is_tuned_on_noise(run_experiment, monkeypatch):
    rates = []

    def noted(at, kind, recipe, rate):
        rates.append((kind, rate))
        at.metric("loss", 1.0, step=0)
        return abs(rate - 0.1) - (kind != module.TRUE), module.Trained(1.0, 0.9, 9.0)

    monkeypatch.setattr(module, "train", noted)
    run_experiment(module, budget="quick")
    assert {rate for kind, rate in rates if kind != module.TRUE} == {0.1}
    assert {rate for kind, rate in rates if kind == module.TRUE} == {0.03, 0.1, 0.3}


@pytest.mark.parametrize(
    ("broken", "width", "trained"), [("few units", 8, 6), ("fixed hidden layers", 256, 2)]
)
def test_breaks_change_the_networks_alone(run_experiment, monkeypatch, broken, width, trained):
    seen, _ = trainings(run_experiment, monkeypatch, broken=broken)
    for arm in ("network", "weight decay", "dropout"):
        network = seen[arm, "Gaussian"][0]
        assert network[0].out_features == width
        assert sum(weight.requires_grad for weight in network.parameters()) == trained
    assert len(seen["linear", module.TRUE][0]) == 1


def test_a_null_run_has_linear_models(run_experiment, monkeypatch):
    null, _ = trainings(run_experiment, monkeypatch, null=True)
    assert {len(network) for network, *_ in null.values()} == {1}


def test_the_rate_falls_after_each_pass_and_training_stops_when_all_is_right(part_of_run, monkeypatch):
    run = part_of_run()
    monkeypatch.setattr(run, "pick", lambda **values: 4 if values["smoke"] == 1 else values["smoke"])
    rights = iter([0.5, 0.99, 1.0, 1.0, 0.25])
    monkeypatch.setattr(module, "accuracy", lambda model, x, y: next(rights))
    at = Trial(Workshop(run, module.images_of(run)), Work(arm="linear"), arm="linear")
    at.start()
    seen = []
    descend = at.descend

    def noted(loss, optimizer, *, step, **rest):
        if step % 12 == 0:
            seen.append(optimizer.param_groups[0]["lr"])
        return descend(loss, optimizer, step=step, **rest)

    monkeypatch.setattr(at, "descend", noted)
    _, found = module.train(at, module.RANDOM, module.Recipe(module.linear), 0.5)
    assert found == module.Trained(1.0, 0.25, 24.0)
    assert at.work.updates == 36
    assert at.work.rates == [0.5]
    assert seen == pytest.approx([0.5, 0.5 * 0.99, 0.5 * 0.99**2])


def test_new_images_are_the_part_to_judge_by(part_of_run):
    run = part_of_run()
    train, choose, judge = run.source("images").parts
    world = module.images_of(run)
    assert torch.equal(world.new[0], judge[0].flatten(1))
    assert torch.equal(world.choose[1], choose[1])
    assert torch.equal(world.train[1], train[1][:600])


def test_the_full_budget_standardises_each_image(part_of_run, monkeypatch):
    run = part_of_run()
    plain = module.images_of(run)
    monkeypatch.setattr(run, "pick", lambda **values: values["full"])
    for (x, y), (before, labels) in zip(module.images_of(run), plain, strict=True):
        assert_close(x.mean(1), torch.zeros(len(x)), rtol=0, atol=1e-5)
        assert_close(x.std(1), torch.ones(len(x)), rtol=1e-4, atol=0)
        assert torch.equal(y[: len(labels)], labels)
        assert_close(x[: len(before)] * before.std(1, keepdim=True) + before.mean(1, keepdim=True), before)
    assert torch.equal(module.standardised(torch.full((1, 4), 0.5)), torch.zeros(1, 4))


def test_the_experiment_runs(run_experiment):
    assert digest(module) == "1142a7d15f53"
    record = run_experiment(module, unreached=("steps to 99 %, random labels / true labels, network",))
    curve = record.curves["accuracy over the part of random labels"]
    assert [part for part, _ in curve["network, training images"]] == [0, 0.25, 0.5, 0.75, 1]


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(module)] == ["memorise"]
