"""`readtrack run --bet`, `readtrack bets` and the bets of `readtrack stats`."""

from __future__ import annotations

import json

import pytest

from readtrack.bets import BetBook
from readtrack.home import Home

PLUGIN = """
from readtrack.plugin import Bound, Claim, Figure, hookimpl

CLAIM = Claim(
    name="falls",
    sentence="The loss falls.",
    paper=Figure("from 1 to 0.1"),
    rule=(Bound("last loss", "<=", 0.5),),
    control_arm="the old way",
)


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    run.phase("train")
    run.claim(CLAIM, {"last loss": 0.1 if run.seed == 0 else 0.9})


@hookimpl
def benchmark(bench):
    return iter(())
"""


@pytest.fixture(autouse=True)
def plugin(papers, home: Home) -> None:
    home.ensure(home.plugins)
    (home.plugins / "toy_sgd.py").write_text(PLUGIN, encoding="utf-8")


@pytest.mark.slow
def test_a_bet_is_placed_compared_and_shown(cli, home: Home) -> None:
    assert cli("bets").returncode == 3
    ran = cli("run", "toy_sgd", "--bet", "paper:80")
    assert ran.returncode == 0
    assert "Bet: the paper's wins, 80 %." in ran.stderr
    assert "the paper's wins if the claim holds: last loss ≤ 0.5" in ran.stderr
    assert "Your bet, the paper's at 80 %: right." in ran.stderr
    wrong = cli("run", "toy_sgd", "--bet", "paper:70", "--seed", "1")
    assert "Your bet, the paper's at 70 %: wrong." in wrong.stderr
    listed = cli("bets").stdout
    assert "toy_sgd  Bet: the paper's wins, 80 %.  right" in listed
    assert "2 decided bets; 8 more until there is a calibration curve" in listed
    assert "8 more until there is a calibration curve" in cli("stats").stdout
    document = json.loads(cli("stats", "--json").stdout)["bets"]
    assert [bet["state"] for bet in document["bets"]] == ["right", "wrong"]
    assert document["bets"][0]["topic"] == "Optimisers"
    assert cli("bets", "--withdraw").returncode == 3


def test_an_invalid_bet_starts_no_run(cli, home: Home) -> None:
    assert cli("run", "toy_sgd", "--bet", "nobody:80").returncode == 2
    assert cli("run", "toy_sgd", "--bet", "paper:80", "--budget", "smoke").returncode == 3
    (home.plugins / "toy_adam.py").write_text(PLUGIN.replace('control_arm="the old way"', 'kind="identity"'))
    assert cli("run", "toy_adam", "--bet", "paper:80").returncode == 3
    assert not home.runs.exists() or not list(home.runs.iterdir())
    refused = cli("run", "toy_sgd", "--bet", "paper:80", "--device", "cuda:7")
    assert refused.returncode != 0
    (bet,) = BetBook(home).bets()
    assert not bet.open
    assert not bet.counts
