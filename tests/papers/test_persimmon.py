"""The decoder compared with transformers' Persimmon, skipped zeros with the full product, and the control
arms.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close
from transformers import PersimmonConfig, PersimmonForCausalLM

from readtrack.checks.constants import digest
from readtrack.papers import persimmon
from readtrack.papers.persimmon import (
    NormalisedAttention,
    Persimmon,
    from_released,
    squared_relu,
    without_zeros,
)
from readtrack.papers.persimmon.benchmark import normalised
from readtrack.plugin import AtLeast
from readtrack.runs.table import Sweep, Table

its = importlib.import_module("readtrack.papers.persimmon.experiment")


def reference() -> PersimmonForCausalLM:
    config = PersimmonConfig(
        vocab_size=17,
        hidden_size=24,
        num_attention_heads=3,
        num_hidden_layers=2,
        intermediate_size=20,
        rope_parameters={"rope_type": "default", "rope_theta": 25000.0, "partial_rotary_factor": 0.5},
        attn_implementation="eager",
        use_cache=False,
    )
    theirs = PersimmonForCausalLM(config).double()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return theirs


def small(**settings: object) -> Persimmon:
    return Persimmon(17, model=24, heads=3, layers=2, hidden=20, **settings).double()


def test_released_weights_speak_as_in_transformers(assert_parity):
    """Compares outputs and all gradients; the mapping of the weights is differentiable."""
    theirs, ours = reference(), small()
    ids = torch.randint(17, (2, 11))
    weights = dict(theirs.named_parameters())
    assert from_released(weights, dim=8).keys() == ours.state_dict().keys()
    assert_parity(
        lambda w: functional_call(ours, from_released(w, dim=8), (ids,)),
        lambda w: functional_call(theirs, w, (ids,)).logits,
        (),
        weights=weights,
        rtol=1e-6,  # the reference computes angles in single precision
        atol=2e-5,
    )


def test_names_of_other_models_are_refused():
    with pytest.raises(ValueError, match=r"Persimmon has no parameter model.layers.0.attn.bias"):
        from_released({"model.layers.0.attn.bias": torch.zeros(1)})


def test_half_precision_is_as_accurate_as_torchs_functions(assert_half_precision):
    attention = NormalisedAttention(32, 2)
    assert_half_precision(
        lambda weights, x: functional_call(attention, weights, (x,)),
        lambda weights, x: normalised(weights, x, 2, fused=False),
        (torch.randn(2, 40, 32),),
        weights={name: torch.randn(w.shape) / 4 for name, w in attention.named_parameters()},
    )


def test_squared_relu():
    x = torch.tensor([-2.0, 0.0, 0.5, 3.0], requires_grad=True)
    assert squared_relu(x).tolist() == [0.0, 0.0, 0.25, 9.0]
    squared_relu(x).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0, 6.0]


@pytest.mark.parametrize("zeros", [0, 3, 7])
def test_skipping_zeros_changes_nothing(zeros):
    hidden, rows = torch.randn(7, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    hidden[torch.randperm(7)[:zeros]] = 0
    assert_close(without_zeros(hidden, rows), hidden @ rows)


def test_the_norm_comes_before_the_rotation_and_only_half_is_rotated():
    attention, x = NormalisedAttention(24, 3), torch.randn(2, 5, 24)
    q, k, v = attention.project(x)
    raw = attention.qkv(x).unflatten(-1, (3, 3, 8)).permute(3, 0, 2, 1, 4)
    assert torch.equal(v, raw[2])
    for found, part in ((q, raw[0]), (k, raw[1])):
        expected = F.layer_norm(part, (8,))
        assert_close(found[..., 4:], expected[..., 4:])
        assert_close(found[:, :, 0], expected[:, :, 0])  # the first position is not rotated
        assert_close(found[..., :4].norm(dim=-1), expected[..., :4].norm(dim=-1))
        assert not torch.allclose(found[:, :, 1:, :4], expected[:, :, 1:, :4])


def test_heads_whose_half_is_odd_are_refused():
    with pytest.raises(ValueError, match="cannot have 4 heads of a size divisible by 4"):
        NormalisedAttention(24, 4)


def test_the_defaults_are_the_released_ones():
    with torch.device("meta"):
        model = Persimmon()
    assert sum(weight.numel() for weight in model.parameters()) == 9_397_175_296
    assert model.blocks[0].activation is squared_relu
    assert model.blocks[0].attention.base == 25000.0
    assert isinstance(NormalisedAttention(24, 3, normalised=False).query_norm, torch.nn.Identity)
    made = Persimmon(200, model=64, heads=2, layers=1, hidden=256)
    for weight in (made.embed.weight, made.readout.weight, made.blocks[0].down.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not made.blocks[0].down.bias.any()


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_its_parts_fire(silent_parts, training):
    silent = silent_parts(small().train(training), torch.randint(17, (2, 5)))
    assert silent == {"blocks", "blocks.0.norms", "blocks.1.norms"}


RATES = {"norm": (True, True, squared_relu, None), "no norm": (False, False, squared_relu, None)}
ZEROS = {
    "squared ReLU": (True, True, squared_relu, None),
    "ReLU": (True, True, F.relu, None),
    "GELU": (True, True, F.gelu, None),
}


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("", RATES | ZEROS),
        ("no norm", RATES | {"norm": RATES["no norm"]}),
        ("norm on queries only", RATES | {"norm": (True, False, squared_relu, None)}),
        ("gradient clipping", RATES | {"norm": (False, False, squared_relu, 1.0)}),
        ("leaky squared ReLU", ZEROS | {"squared ReLU": (True, True, its.leaky_squared, None)}),
        ("ReLU", ZEROS | {"squared ReLU": (True, True, F.relu, None)}),
    ],
)
def test_the_arms_match_their_names(part_of_run, monkeypatch, broken, expected):
    made = {}

    def watched(at, recipe, rate):
        network = at.world.network(**recipe.settings)
        if recipe.one_norm:
            network.blocks[0].attention.key_norm = torch.nn.Identity()
        block = network.blocks[0]
        norms = block.attention.query_norm, block.attention.key_norm
        normed = [not isinstance(norm, torch.nn.Identity) for norm in norms]
        made[at.name] = *normed, block.activation, recipe.clip
        return 1.0, network

    monkeypatch.setattr(its, "train", watched)
    its.experiment(part_of_run(broken=broken))
    assert made == expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((2.0, 2.1, 2.3, 3.0), 0.01 * 10**0.5),
        ((2.0, 2.0, math.inf, math.nan), 0.01),
        ((2.0, 2.0, 2.0, 2.1), AtLeast(1.0)),
        ((3.0, 3.0, 3.0, 3.0), math.nan),
        ((3.0, 2.0, 2.4, 2.0), AtLeast(1.0)),
    ],
)
def test_the_highest_rate_lies_where_the_loss_crosses_the_limit(losses, expected):
    found = its.highest_rate(dict(zip((0.001, 0.01, 0.1, 1.0), losses, strict=True)), 2.2)
    same = (
        found == expected if isinstance(expected, AtLeast) else found == pytest.approx(expected, nan_ok=True)
    )
    assert same


def test_both_highest_rates_have_the_controls_limit(part_of_run, monkeypatch):
    """The limit is 2.2 for both arms. The arm with the norm has no loss below its own lowest plus 10 %."""
    losses = {"norm": (2.0, 2.4, 9.0), "no norm": (2.0, 3.0, math.nan)}
    monkeypatch.setattr(its, "held_out", lambda run, text, net, part: torch.tensor([net - 1, net + 1]))
    table = Table(
        sweeps={
            arm: Sweep(None, None, dict(zip((0.01, 0.1, 1.0), of_arm, strict=True)))
            for arm, of_arm in losses.items()
        }
    )
    found = its.highest_rates(part_of_run(), table)
    assert found["norm"][its.HIGHEST] == pytest.approx(0.01 * 10**0.5)
    assert found["no norm"][its.HIGHEST] == pytest.approx(0.01 * 10**0.2)


def test_zeros_are_those_of_the_inputs_of_the_second_matrix(part_of_run):
    run = part_of_run()
    text = its.Text(its.data.Parts(*3 * ((torch.randint(5, (200,)),),)), 5)
    network, given = text.network(), []
    for block in network.blocks:
        block.down.register_forward_hook(lambda _, inputs, __: given.append(inputs[0]))
    network(text.windows(run, "judge")[:, :-1])
    expected = [(hidden == 0).double().mean((1, 2)) for hidden in given]
    found = its.zeros_by_layer(run, text, network)
    assert 0.3 < found[0].mean() < 0.7
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


def test_the_set_up_is_the_stated_one():
    assert digest(its) == "e9e1b9974a4e"
    assert (its.STEPS, its.WIDE, its.NEAR) == (90, (3e-3, 1e-2, 3e-2, 1e-1, 3e-1), 1.1)


def test_the_experiment_runs(run_experiment):
    """Two steps reach no learning rate at which a loss crosses the limit."""
    rates = "highest learning rate that trains well, norm / no norm"
    shown = run_experiment(persimmon, unreached={rates}).curves["share of zeros over layers"]
    assert shown.keys() == {"squared ReLU", "ReLU", "GELU"}


def test_no_score_exceeds_the_bound_by_the_norms():
    model = small()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(30)
    ids = torch.randint(17, (2, 9))
    q, k, _ = model.blocks[0].attention.project(model.embed(ids))
    norms = model.blocks[0].attention.query_norm, model.blocks[0].attention.key_norm
    longest = [norm.weight.abs().max() * 8**0.5 + norm.bias.norm() for norm in norms]
    assert (q @ k.mT).abs().max() <= longest[0] * longest[1]


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(persimmon)] == [
        "the second product",
        "normalised attention",
    ]
