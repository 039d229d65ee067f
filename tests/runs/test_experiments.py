"""The interface of experiments: arms, sweeps, claims, and networks that are trained once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from readtrack.bench.judge import Speedup
from readtrack.claims import AtLeast, Bound, Break, Claim, Figure
from readtrack.runs.events import Event, EventReader, EventWriter
from readtrack.runs.run import Run

GATE = Break("no gate", "The gate stays open.")
MEASURED = Claim(
    name="gain", sentence="It gains.", paper=Figure("2"), rule=(Bound("gain", ">=", 1.5),), breaks=(GATE,)
)
IDENTITY = Claim(
    name="equal", sentence="It is.", paper=Figure("0"), kind="identity", rule=(Bound("gap", "<=", 1e-6),)
)
TIMED = Claim(
    name="fast",
    sentence="As good in half of the time.",
    paper=Figure("2x"),
    rule=(Bound("loss", "<=", 1.0), Speedup("norm", over="naive", threshold=2.0)),
)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Run, Callable[[], list[Event]]]]:
    """A run, and a function that returns its events so far."""

    def make(**fields: object) -> tuple[Run, Callable[[], list[Event]]]:
        fields = {"seed": 0, "budget": "quick", "settings": {}, **fields}
        run = Run(
            folder=tmp_path,
            events=EventWriter(tmp_path),
            device=torch.device("cpu"),
            dtype=torch.float32,
            **fields,  # type: ignore[arg-type]
        )
        return run, lambda: EventReader(tmp_path).read_new()

    return make


def test_a_null_run_has_the_control_under_every_name(made):
    builders = {"paper": "P", "plain": "C"}
    assert made()[0].arms(builders, control="plain") == builders
    assert made(null=True)[0].arms(builders, control="plain") == {"paper": "C", "plain": "C"}
    with pytest.raises(KeyError):
        made()[0].arms(builders, control="plian")


def test_a_run_needs_the_claims_of_its_kind(made):
    plain, null, broken = made()[0], made(null=True)[0], made(broken="no gate")[0]
    assert [run.wants(MEASURED) for run in (plain, null, broken)] == [True, True, True]
    assert [run.wants(IDENTITY) for run in (plain, null, broken)] == [True, False, False]
    assert broken.wants(IDENTITY, MEASURED)
    assert broken.without("no gate")
    assert not plain.without("no gate")


def test_a_sweep_keeps_the_best_by_the_score_to_choose_by(made):
    run, events = made()
    best = run.sweep("plain", (0.1, 1.0, 10.0), lambda rate: ((rate - 1.0) ** 2, f"net {rate}"))
    assert (best.value, best.score, best.result, best.edge) == (1.0, 0.0, "net 1.0", False)
    points = [(e["step"], e["value"], e["arm"]) for e in events() if e.get("step") is not None]
    assert points == [(0.1, 0.81, "plain"), (1.0, 0.0, "plain"), (10.0, 81.0, "plain")]


def test_a_best_value_at_the_edge_is_marked_and_nan_loses(made):
    run, events = made()
    up = run.sweep("a", (1.0, 2.0, 3.0), lambda rate: (rate, None), keep="highest")
    down = run.sweep("b", (1.0, 2.0, 3.0), lambda rate: (math.nan if rate == 1.0 else rate, None))
    assert (up.value, up.edge) == (3.0, True)
    assert (down.value, down.edge) == (2.0, False)
    run.claim(MEASURED, {"gain": 2.0}, tuned=[up, down])
    assert events()[-1]["edges"] == ["a: rate 3"]
    nothing = run.sweep("c", (1.0, 2.0), lambda rate: (math.nan, None))
    assert math.isnan(nothing.value)


def test_the_arms_of_a_claim_share_one_grid(made):
    run, _ = made()
    narrow = run.sweep("a", (1.0, 2.0, 3.0), lambda rate: (rate, None))
    wide = run.sweep("b", (0.1, 2.0, 30.0), lambda rate: (rate, None))
    with pytest.raises(ValueError, match="different grids"):
        run.claim(MEASURED, {"gain": 2.0}, tuned=[narrow, wide])


def test_a_value_that_was_never_reached_is_kept_as_such(made):
    run, events = made()
    run.claim(MEASURED, {"gain": AtLeast(2.0)})
    claim = events()[-1]
    assert (claim["values"], claim["at_least"], claim["verdict"]) == ({"gain": 2.0}, ["gain"], "held")
    assert claim["ours"] == "gain ≥ 2"


def test_smoke_judges_identities_and_theorems_that_it_reaches(made):
    run, events = made(budget="smoke")
    theorem = replace(IDENTITY, name="in the limit", kind="theorem")
    run.claim(MEASURED, {"gain": 2.0})
    run.claim(IDENTITY, {"gap": 0.0})
    run.claim(IDENTITY, {"gap": 1.0})
    run.claim(theorem, {"gap": 0.0})
    run.claim(theorem, {"gap": 1.0})
    verdicts = ["not judged", "held", "missed", "held", "not judged"]
    assert [event["verdict"] for event in events()] == verdicts


def test_a_claim_on_time_waits_for_the_benchmark(made):
    run, events = made()
    run.claim(TIMED, {"loss": 0.5})
    assert events() == []
    run.judge_timed([MEASURED, TIMED], None)
    (claim,) = events()
    assert (claim["verdict"], claim["why"]) == ("not judged", "the benchmark did not run")
    times = {"naive": 300.0, "paper": 100.0}
    rows = [
        {
            "case": "norm",
            "axes": {},
            "mode": "forward",
            "variant": role,
            "role": role,
            "flags": [],
            "t_ns": {"value": time, "medians": [time, time * 1.01, time * 0.99, time, time]},
        }
        for role, time in times.items()
    ]
    run.judge_timed([TIMED], rows)
    claim = events()[-1]
    assert claim["verdict"] == "held"
    assert claim["values"]["speed of paper over naive, norm, forward"] == pytest.approx(3.0)


def test_a_step_down_the_loss_matches_the_optimisers(made):
    run, events = made()
    w = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.SGD([w], lr=1.0)
    for step in run.steps(1, "loop"):
        loss = run.descend((w * torch.tensor([3.0, 4.0])).sum(), optimizer, step=step, arm="a", clip=1.0)
    assert loss == 25.0
    assert torch.allclose(w.detach(), torch.tensor([3.0 - 0.6, 4.0 - 0.8]))  # a gradient of norm 5, clipped
    points = [(e["name"], e["step"], e["value"], e["arm"]) for e in events() if e["event"] == "metric"]
    assert points == [("training loss", 0, 25.0, "a")]


def test_a_long_loop_logs_about_a_hundred_points(made):
    run, events = made()
    w = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([w], lr=0.0)
    for step in run.steps(1000):
        run.descend(w * 1.0, optimizer, step=step)
    steps = [event["step"] for event in events() if event["event"] == "metric"]
    assert 100 <= len(steps) <= 102
    assert steps[-1] == 999


def learn(network: nn.Module) -> None:
    with torch.no_grad():
        network.weight += 1.0
    learn.times += 1


def test_a_network_is_trained_once(made, home):
    learn.times = 0
    run, _ = made()
    first = run.trained("toy", lambda: nn.Linear(2, 2), learn)
    again = run.trained("toy", lambda: nn.Linear(2, 2), learn)
    assert learn.times == 1
    assert torch.equal(first.network.weight, again.network.weight)
    assert torch.allclose(first.network.weight, first.untrained.weight + 1.0)
    other = made(seed=1)[0].trained("toy", lambda: nn.Linear(2, 2), learn)
    assert learn.times == 2
    assert not torch.equal(other.network.weight, first.network.weight)
    for file in (home.cache / "trained").iterdir():
        file.write_bytes(b"damaged")
    mended = run.trained("toy", lambda: nn.Linear(2, 2), learn)
    assert learn.times == 3
    assert torch.equal(mended.network.weight, first.network.weight)


def test_other_settings_train_another_network(made, home):
    learn.times = 0
    for settings in ({}, {"images": "a"}, {"images": "b"}, {"images": "a"}):
        made(settings=settings)[0].trained("toy", lambda: nn.Linear(2, 2), learn)
    assert learn.times == 3


def test_streams_are_named_and_differ(made):
    run = made()[0]
    a, again, b = (torch.rand(3, generator=run.generator(name)) for name in ("x", "x", "y"))
    assert torch.equal(a, again)
    assert not torch.equal(a, b)
