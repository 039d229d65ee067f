"""The decoder compared with transformers' Mistral, band and rolling cache with masks, and the control
arms.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch.func import functional_call
from torch.nn.attention.flex_attention import flex_attention
from torch.testing import assert_close
from transformers import MistralConfig, MistralForCausalLM

from readtrack.papers import sliding_window
from readtrack.papers.gqa import grouped_attention
from readtrack.papers.sliding_window import Mistral, SwiGLU, from_released, window_attention
from readtrack.papers.sliding_window.benchmark import band, masked
from readtrack.papers.sliding_window.model import positions_in
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

its = importlib.import_module("readtrack.papers.sliding_window.experiment")
timed = importlib.import_module("readtrack.papers.sliding_window.benchmark")


def reference(window: int | None) -> MistralForCausalLM:
    config = MistralConfig(
        vocab_size=17,
        hidden_size=24,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=4,
        num_hidden_layers=2,
        intermediate_size=20,
        sliding_window=window,
        rms_norm_eps=1e-5,
        attn_implementation="eager",
        use_cache=False,
    )
    theirs = MistralForCausalLM(config).double()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return theirs


def small(window: int | None = 4, **settings: object) -> Mistral:
    made = Mistral(17, model=24, heads=6, groups=2, layers=2, hidden=20, window=window, **settings)
    return made.double()


@pytest.mark.parametrize("window", [4, None])
def test_released_weights_speak_as_in_transformers(assert_parity, window):
    """Compares outputs and all gradients; the mapping of the weights is differentiable."""
    theirs, ours = reference(window), small(window)
    ids = torch.randint(17, (2, 11))
    weights = dict(theirs.named_parameters())
    assert from_released(weights, dim=4).keys() == ours.state_dict().keys()
    assert_parity(
        lambda w: functional_call(ours, from_released(w, dim=4), (ids,)),
        lambda w: functional_call(theirs, w, (ids,)).logits,
        (),
        weights=weights,
        rtol=1e-6,  # the reference computes angles and norms in single precision
        atol=1e-5,
    )


def test_names_of_other_models_are_refused():
    with pytest.raises(ValueError, match=r"Mistral has no parameter model.layers.0.attn.bias"):
        from_released({"model.layers.0.attn.bias": torch.zeros(1)})


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 8, 11, 17])
@pytest.mark.parametrize("window", [1, 4, 7])
def test_blocks_are_the_masked_band(assert_parity, tokens, window):
    inputs = [torch.randn(2, heads, tokens, 3) for heads in (4, 2, 2)]
    mask = band(tokens, window, torch.device("cpu"))
    assert_parity(
        lambda *qkv: window_attention(*qkv, window), lambda *qkv: grouped_attention(*qkv, mask=mask), inputs
    )


def test_half_precision_is_as_accurate_as_the_mask(assert_half_precision):
    inputs = [torch.randn(2, heads, 50, 16) for heads in (4, 2, 2)]
    mask = band(50, 8, torch.device("cpu"))
    assert_half_precision(
        lambda *qkv: window_attention(*qkv, 8), lambda *qkv: grouped_attention(*qkv, mask=mask), inputs
    )


@pytest.mark.parametrize("window", [1, 4, 6, None])
@pytest.mark.parametrize("parts", [[1] * 13, [3, 1, 1, 5, 2, 1], [9, 1, 1, 1, 1], [13], [2, 11]])
@torch.no_grad()
def test_reading_in_parts_equals_reading_at_once(window, parts):
    model, ids = small(window), torch.randint(17, (2, 13))
    cache = model.empty_cache(2, 13)
    cache.kv.fill_(math.nan)  # unwritten entries have no influence
    found = torch.cat([model(part, cache) for part in ids.split(parts, 1)], 1)
    assert_close(found, model(ids), rtol=0, atol=1e-5)  # angles are in single precision
    assert cache.length == 13
    assert cache.kv.shape[-2] == (window or 13)


def test_a_cache_without_window_needs_room():
    with pytest.raises(ValueError, match="as `room`"):
        small(None).empty_cache(1)


def test_the_slot_of_each_token():
    cpu = torch.device("cpu")
    assert positions_in(4, 0, cpu).tolist() == [-4, -3, -2, -1]
    assert positions_in(4, 2, cpu).tolist() == [0, 1, -2, -1]
    assert positions_in(4, 6, cpu).tolist() == [4, 5, 2, 3]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_receptive_field_is_layers_times_window_less_one(layers):
    model = Mistral(17, model=24, heads=6, groups=2, layers=layers, hidden=20, window=4).double()
    x = model.embed(torch.randint(17, (1, 14))).detach().requires_grad_()
    hidden = x
    for block in model.blocks:
        hidden = block(hidden)
    hidden[0, -1].sum().backward()
    seen = x.grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [distance <= 3 * layers for distance in range(13, -1, -1)]


def test_the_defaults_are_the_papers():
    with torch.device("meta"):
        model = Mistral()
    assert sum(weight.numel() for weight in model.parameters()) == 7_241_732_096
    attention = model.blocks[0].attention
    assert (attention.window, attention.heads, attention.groups, attention.base) == (4096, 32, 8, 10000.0)
    assert model.norm.eps == 1e-5


def test_swiglu_gates_with_w1():
    layer, x = SwiGLU(3, 5), torch.randn(2, 3)
    gate, up = x @ layer.w1.weight.T, x @ layer.w3.weight.T
    assert_close(layer(x), (gate * gate.sigmoid() * up) @ layer.w2.weight.T)


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_its_parts_fire(silent_parts, training):
    silent = silent_parts(small().train(training), torch.randint(17, (2, 5)))
    assert silent == {"blocks", "blocks.0.norms", "blocks.1.norms"}


def test_the_text_has_one_value_at_the_stated_position():
    distance = torch.arange(1, its.TOKENS)
    ids, value = its.draw(distance, torch.Generator().manual_seed(0))
    assert torch.equal((ids < its.VALUES).sum(1), torch.ones(len(ids), dtype=torch.long))
    for row, (d, v) in enumerate(zip(distance.tolist(), value.tolist(), strict=True)):
        assert ids[row, its.TOKENS - 1 - d] == v
    assert (ids[:, -1] == its.VALUES + its.NOISE).all()


def test_reach_is_the_last_distance_without_a_gap():
    assert its.reach([1.0, 0.95, 0.9, 0.5, 1.0]) == 3
    assert its.reach([0.5, 1.0]) == 0
    assert its.reach([1.0] * 11) == 11


def test_fixed_blocks_pass_no_state_across_borders():
    q, k, v = torch.randn(3, 1, 2, 12, 4)
    other = v.clone()
    other[:, :, :8] += 1
    assert torch.equal(
        its.within_fixed_blocks(q, k, v, 4)[:, :, 8:], its.within_fixed_blocks(q, k, other, 4)[:, :, 8:]
    )


def test_averages_are_of_the_window():
    q, k, v = torch.randn(3, 2, 2, 6, 3)
    found = its.averages(q, k, v, 4)
    assert_close(found, its.averages(k, q, v, 4))  # only this matters
    for token in range(6):
        assert_close(found[:, :, token], v[:, :, max(token - 3, 0) : token + 1].sum(2) / 4)


def arms_of(run_experiment, monkeypatch, **options):
    """Layers, window and attention of each arm."""
    made: dict[str, Mistral] = {}
    train = its.train

    def watched(at, make, rate):
        made[at.name] = make()
        return train(at, make, rate)

    monkeypatch.setattr(its, "train", watched)
    run_experiment(sliding_window, **options)
    return {arm: (len(m.blocks), m.window, m.blocks[0].attention.attend) for arm, m in made.items()}


ONE, FULL = (1, 4, window_attention), (1, None, window_attention)


@pytest.mark.parametrize(
    ("broken", "attend"),
    [
        ("", window_attention),
        ("fixed blocks", its.within_fixed_blocks),
        ("averages of the window", its.averages),
    ],
)
def test_the_arms_match_their_names(run_experiment, monkeypatch, broken, attend):
    arms = arms_of(run_experiment, monkeypatch, broken=broken)
    assert arms == {"three layers": (3, 4, attend), "one layer": ONE, "full attention": FULL}


def test_a_null_run_has_one_layer_under_both_names(run_experiment, monkeypatch):
    arms = arms_of(run_experiment, monkeypatch, null=True)
    assert arms == {"three layers": ONE, "one layer": ONE, "full attention": FULL}


def test_judged_values_follow_from_the_accuracy_at_each_distance(part_of_run, monkeypatch):
    accuracy = [1.0, 0.95, 0.9, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.1]
    monkeypatch.setattr(its, "answered", lambda run, network: accuracy)
    at = Trial(Workshop(part_of_run()), Work(arm="three layers"), arm="three layers")
    assert its.by_distance(at, Sweep(small(), 0.01, {})) == {
        "reach": 3.0,
        "half of the reach": 1.5,
        "lowest accuracy": 0.1,
        "accuracy beyond three windows": 0.2,
    }


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
def test_flex_attention_sees_the_band(monkeypatch):
    """Tests only the eager forward pass; everything else requires CUDA."""
    monkeypatch.setattr(timed, "compiled_flex", lambda: flex_attention)
    inputs = [torch.randn(1, heads, 150, 4, dtype=torch.float64) for heads in (4, 2, 2)]
    assert_close(timed.flex(*inputs, 37), masked(*inputs, 37))


def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(sliding_window)
    assert [case.name for case in cases] == ["a whole text", "one token"]
