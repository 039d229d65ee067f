"""Dynamic tanh compared with its formula, its gradient, its names, and the experiment's arms."""

from __future__ import annotations

import importlib
import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack import data
from readtrack.checks.constants import digest
from readtrack.claims import AtLeast
from readtrack.papers import dyt
from readtrack.papers.dyt import DynamicTanh, dynamic_tanh, line_by_line, story
from readtrack.papers.layernorm import LayerNorm

EXPERIMENT = importlib.import_module("readtrack.papers.dyt.experiment")  # the hook has the same name


def by_exponentials(weights, x):
    """γ (e^2αx - 1) / (e^2αx + 1) + β, one feature at a time."""
    columns = []
    for i in range(x.shape[-1]):
        e = torch.exp(2 * weights["alpha"][0] * x[..., i])
        columns.append(weights["weight"][i] * (e - 1) / (e + 1) + weights["bias"][i])
    return torch.stack(columns, -1)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_the_layer_is_the_formula(assert_parity, shape):
    layer = DynamicTanh(5).double()
    weights = {"alpha": torch.tensor([0.7]), "weight": torch.randn(5), "bias": torch.randn(5)}
    assert_parity(
        lambda w, x: functional_call(layer, w, (x,)),
        by_exponentials,
        (torch.randn(shape) * 2,),
        weights=weights,
    )


@pytest.mark.parametrize("shape", [(7, 4), (2, 3, 4)])
def test_the_fast_gradient_is_the_slow_one(assert_parity, shape):
    inputs = torch.randn(shape) * 3, torch.tensor([0.8]), torch.randn(4), torch.randn(4)
    assert_parity(dynamic_tanh, line_by_line, inputs)


def test_first_and_second_derivatives_match_finite_differences():
    shapes = (4, 3), (1,), (3,), (3,)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(dynamic_tanh, inputs)
    assert torch.autograd.gradgradcheck(dynamic_tanh, inputs)


def test_half_precision_is_as_accurate_as_the_formula(assert_half_precision):
    inputs = torch.randn(64, 64) * 2, torch.tensor([0.5]), torch.rand(64) + 0.5, torch.randn(64)
    assert_half_precision(dynamic_tanh, line_by_line, inputs, dtypes=(torch.bfloat16,))


def test_it_starts_as_in_the_authors_code():
    layer = DynamicTanh(4)
    assert layer.alpha.tolist() == [0.5]
    assert DynamicTanh(4, alpha=0.2).alpha.item() == pytest.approx(0.2)
    assert {name: tuple(w.shape) for name, w in layer.named_parameters()} == {
        "alpha": (1,),
        "weight": (4,),
        "bias": (4,),
    }
    assert torch.equal(layer.weight, torch.ones(4))
    assert not layer.bias.any()


def test_vit_b_has_one_slope_a_layer_in_the_place_of_each_normalisation():
    with torch.device("meta"):
        layers = [DynamicTanh(768) for _ in range(2 * 12 + 1)]
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == 25 * (2 * 768 + 1)


# Experiment and benchmark


def test_the_arms_and_their_breaks():
    kinds = {name: type(setting.norm(8)) for name, setting in EXPERIMENT.DEEP_ARMS.items()}
    assert kinds == {"dynamic tanh": DynamicTanh, "layer norm": LayerNorm, "neither": nn.Identity}
    for name, setting in EXPERIMENT.ARMS.items():
        assert EXPERIMENT.DEEP_ARMS[name] == setting._replace(layers=6, glorot=True)
    linear, clipped = EXPERIMENT.BREAKS.values()
    assert list(EXPERIMENT.DEEP_BREAKS.values()) == [
        linear._replace(layers=6, glorot=True),
        clipped._replace(layers=6, glorot=True),
        EXPERIMENT.Setting(EXPERIMENT.neither, layers=6),
    ]
    x = torch.randn(3, 8) * 9
    assert_close(linear.norm(8)(x), 0.5 * x)
    assert (type(clipped.norm(8)), clipped.clip) == (nn.Identity, 1.0)
    assert {setting.clip for setting in (*EXPERIMENT.ARMS.values(), linear)} == {None}


def test_glorot_weights_have_equal_variances_in_both_directions():
    model = EXPERIMENT.Characters(50, nn.Identity, model=64, layers=1)
    before = model.embed.weight.clone()
    model.start_by_glorot()
    for part in model.modules():
        if isinstance(part, nn.Linear):
            assert part.weight.std().item() == pytest.approx((2 / sum(part.weight.shape)) ** 0.5, rel=0.1)
    assert torch.equal(model.embed.weight, before)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((2.0, 2.0, 9.0), 0.03),
        ((2.0, 9.0, math.nan), 0.01),
        ((2.0, 2.0, 2.0), AtLeast(0.1)),
        ((9.0, 9.0, math.nan), None),
    ],
)
def test_the_highest_rate_that_works(losses, expected):
    found = EXPERIMENT.highest(dict(zip((0.01, 0.03, 0.1), losses, strict=True)), 3.0)
    assert math.isnan(found) if expected is None else found == expected


def test_the_bar_is_below_the_frequencies():
    """Unigram counts of the training text, evaluated on the test text."""
    ids = torch.randint(5, (400,)).square() % 5
    text = data.stretches(ids, 0)
    counts = Counter(torch.cat(text.train).tolist())
    total = sum(counts.values()) + 0.5
    (judge,) = text.judge
    expected = -sum(math.log((counts[i] + 0.1) / total) for i in judge.tolist()) / len(judge)
    assert EXPERIMENT.unigram_loss(text, 5) == pytest.approx(expected, rel=1e-5)


def test_the_story_follows_the_order_of_the_papers_and_ticks_read_ones(part_of_run):
    run, tables = part_of_run(), {}
    run.table = lambda name, columns, rows, caption="": tables.update({name: rows})
    texts = {}
    run.text = lambda name, text, caption="": texts.update({name: text})
    run.claim = lambda claim, values: None
    story.tell(run)
    heads = [
        line.split("  ") for line in texts["normalisation layers by year"].splitlines() if line[0].isdigit()
    ]
    years, names = zip(*heads, strict=True)
    assert list(years) == sorted(years)
    ticks = {name: "".join(row) for name, *row in tables["invariances"]}
    assert list(ticks) == ["none", *names]
    # Weights: all × 3, all + a vector, one unit's × 3. Examples: all × 3, all + a vector, this one × 3, the
    # others. Last: at inference.
    assert ticks == {
        "none": "✗✗✗✗✗✗✓✓",
        "batch norm": "✓✗✓✓✓✗✗✗",
        "weight norm": "✓✗✓✗✗✗✓✓",
        "layer norm": "✓✓✗✓✗✓✓✓",
        "instance norm": "✓✗✓✓✓✓✓✓",
        "group norm": "✓✗✗✓✗✓✓✓",
        "RMSNorm": "✓✗✗✓✗✓✓✓",
        "query-key norm": "✓✗✗✓✗✓✓✓",
        "dynamic tanh": "✗✗✗✗✗✗✓✓",
    }


def test_every_block_has_two_places_for_a_norm_and_the_model_one():
    model = EXPERIMENT.Characters(11, DynamicTanh)
    assert sum(isinstance(part, DynamicTanh) for part in model.modules()) == 2 * 4 + 1
    assert model.loss(torch.randint(11, (2, 6))).isfinite()


def test_a_tanh_fits_a_tanh_and_a_line_a_line():
    x = torch.randn(2000)
    assert EXPERIMENT.fit(x, torch.tanh(2 * x) + 0.01 * torch.randn(2000)) > 10
    assert EXPERIMENT.fit(x, x + 0.1 * torch.randn(2000)) < 1.05
    picture = EXPERIMENT.scatter(torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0]), side=5)
    assert picture[4, 0] == 0
    assert picture[0, 4] == 0
    assert picture.sum() == 23


@pytest.mark.slow
def test_the_experiment_runs(run_experiment):
    highest = {bound.metric for bound in (*dyt.STABLE.rule, dyt.STABLE.control_reaches[1])}
    record = run_experiment(dyt, unreached=highest)
    assert len(record.curves["what a line leaves over a tanh"]["layer norm"]) == 13
    loss = {arm: record.values["held-out loss", arm] for arm in (*EXPERIMENT.DEEP_ARMS, "bigram")}
    assert list(record.claims[-1]["values"].values()) == pytest.approx(
        [
            loss["dynamic tanh"] / loss["layer norm"],
            loss["dynamic tanh"] / loss["neither"],
            loss["layer norm"] - loss["bigram"],
            loss["neither"] / loss["layer norm"],
        ]
    )
    assert digest(EXPERIMENT) == "dc5d5100eed1"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(dyt)] == ["dynamic tanh"]
