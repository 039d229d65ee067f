"""Short runs detect lines that smoke does not reach, and networks evaluated in training mode."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from readtrack.checks import comparing
from readtrack.checks.experiment import Watched, run_experiment

from .toys import ARMS, BLIND, LEAD, RATES, accuracy, fit, nats, plugin

PLUGIN = """
def experiment(run):
    run.metric("loss at rate 0.1" if run.pick(smoke=1, quick=0, full=0) else "loss at rate 1e-3", 1.0)
    for step in run.pick(smoke=range(1), quick=range(2), full=range(2)):
        if step % run.pick(smoke=1, quick=2, full=2) == 0:
            run.log("every second step")
    CHANGED
"""


def smoke_reaches(folder: Path, change: str) -> None:
    file = folder / "toy_reach.py"
    file.write_text(PLUGIN.replace("CHANGED", change), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("toy_reach", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _, smoke = run_experiment(module, folder / "smoke", traced=True)
    comparing.check_smoke_reaches(comparing.ShortRuns.of(module, folder), smoke, module)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("run.log('the end')", None),
        ("for _ in range(run.pick(smoke=0, quick=2, full=2)): run.log('again')", None),  # one line, reached
        (
            "if run.pick(smoke=0, quick=1, full=1):\n        run.log('longer')",
            r"1 lines.*: run.log\('longer'\)",
        ),
        ("if run.pick(smoke=0, quick=1, full=1):\n        run.log('x')  # not at smoke: it has no x", None),
        ("run.metric(run.pick(smoke='a', quick='b', full='b'), 1.0)", "does not log b"),
        ("run.log(run.budget)", "toy_reach.py:7 reads the budget's name"),
    ],
)
def test_smoke_covers_the_code_of_quick(tmp_path, change, message):
    with pytest.raises(AssertionError, match=message) if message else nullcontext():
        smoke_reaches(tmp_path, change)


class Net(nn.Module):
    """A network with a linear layer after `layer`."""

    def __init__(self, width, layer):
        super().__init__()
        self.layer, self.out, self.in_features = layer, nn.Linear(width, 1), width

    def forward(self, x):
        return self.out(self.layer(x))


class Dropping(nn.Linear):
    """A layer with hand-written dropout."""

    def forward(self, x):
        return super().forward(x * (torch.rand_like(x) > 0.5) if self.training else x)


class Functional(nn.Linear):
    def __init__(self, width, classes, p=0.5):
        super().__init__(width, classes)
        self.p = p

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, self.p, self.training))


class Always(Functional):
    """Drops in evaluation mode, too."""

    def forward(self, x):
        return nn.Linear.forward(self, nn.functional.dropout(x, self.p, training=True))


class Meant(Functional):
    """Drops in evaluation mode, too, and says so."""

    def forward(self, x):
        x = nn.functional.dropout(x, self.p)  # in evaluation, too: as in the paper
        return nn.Linear.forward(self, x)


Dropping.__module__ = "readtrack.papers.toy"


def evaluated(how: str, layer):
    """A comparison of networks with `layer`, whose loss `nats` is evaluated in one of several ways."""

    def train(at, width, rate):
        model = layer(width)
        if how == "in a loop":
            for _ in at.steps(2):
                nats(at.run, model, "choose")
        if how == "early stopping":
            stopping = at.early_stopping(lambda: (nats(at.run, model, "choose"), None), "lowest")
            for _ in at.steps(2):
                stopping.check()
        fit(at, model, rate, "")
        with at.run.evaluating(model):
            score = nats(at.run, model, "choose")
        if how == "as trained":
            nats(at.run, model, "choose")
        return score, model.eval()

    given = {"arms": ARMS, "attempt": train, "read": accuracy, "grid": RATES, "breaks": BLIND}
    return lambda run, flaw: run.compare(LEAD, **given)


@pytest.mark.parametrize(
    ("how", "layer", "found"),
    [
        ("as trained", lambda width: nn.Linear(width, 1), set()),
        ("in eval mode", lambda width: Net(width, nn.Dropout(0.5)), set()),
        ("as trained", lambda width: Net(width, nn.Dropout(0.0)), set()),
        ("as trained", lambda width: Net(width, nn.Dropout(0.5)), {"Dropout", "F.dropout"}),
        ("early stopping", lambda width: Net(width, nn.Dropout(0.5)), {"Dropout", "F.dropout"}),
        ("in a loop", lambda width: Net(width, nn.Dropout(0.5)), set()),
        ("as trained", lambda width: Net(width, nn.LazyBatchNorm1d()), {"BatchNorm1d", "F.batch_norm"}),
        ("as trained", lambda width: Dropping(width, 1), {"Dropping"}),
        ("as trained", lambda width: Functional(width, 1), {"F.dropout"}),
        ("as trained", lambda width: Functional(width, 1, 0.0), set()),
        ("in eval mode", lambda width: Always(width, 1), {"F.dropout"}),
        ("in eval mode", lambda width: Meant(width, 1), set()),
    ],
)
def test_networks_are_evaluated_in_evaluation_mode(tmp_path, how, layer, found):
    _, run = run_experiment(plugin(evaluated(how, layer)), tmp_path, traced=True)
    assert run.modes.found == found


def test_the_check_names_modules_that_are_evaluated_in_training_mode(tmp_path):
    runs = comparing.ShortRuns.of(
        plugin(evaluated("as trained", lambda width: Dropping(width, 1))), tmp_path / "a"
    )
    with pytest.raises(AssertionError, match=r"Dropping; evaluate within run.evaluating"):
        comparing.check_modes(runs)
    comparing.check_modes(comparing.ShortRuns.of(plugin(evaluated("", lambda w: Dropping(w, 1))), tmp_path))


def test_evaluating_gives_each_module_its_mode_back(tmp_path):
    seen = []

    def experiment(run, flaw):
        network = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
        network[1].eval()
        with run.evaluating(network):
            seen.append((network.training, network[0].training, torch.is_grad_enabled()))
        seen.append((network.training, network[0].training, network[1].training, torch.is_grad_enabled()))

    run_experiment(plugin(experiment), tmp_path)
    assert seen == [(False, False, False), (True, True, False, True)]


def test_checks_keep_no_network_that_they_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))
    trained = []

    def train(network):
        trained.append(network)

    def experiment(run, flaw):
        run.trained("toy", lambda: nn.Linear(2, 1), train)

    for name in ("once", "again"):
        run_experiment(plugin(experiment), tmp_path / name)
    assert len(trained) == 2
    assert not list((tmp_path / "home").rglob("*.pt"))
    assert not Watched.keeps_trained
