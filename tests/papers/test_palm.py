"""The block compared with one assembled from transformers' Llama, the cache with recomputation, and the
control arms.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRotaryEmbedding

from readtrack.checks.constants import digest
from readtrack.papers import palm
from readtrack.papers.palm import PALM_8B, PALM_62B, PALM_540B, PaLM, ParallelBlock
from readtrack.papers.rope import halves_to_pairs
from readtrack.runs.table import Table

its = importlib.import_module("readtrack.papers.palm.experiment")

MODEL, HEADS, DIM, HIDDEN = 24, 3, 4, 14  # heads * dim differs from the model size


def llama_in_parallel(weights: dict[str, Tensor], x: Tensor, groups: int) -> Tensor:
    """x + Llama's attention + Llama's feed-forward layer, both with the same normalised input."""
    config = LlamaConfig(
        hidden_size=MODEL,
        num_attention_heads=HEADS,
        num_key_value_heads=groups,
        head_dim=DIM,
        intermediate_size=HIDDEN,
        attn_implementation="eager",
    )
    attention, mlp = LlamaAttention(config, 0).double(), LlamaMLP(config).double()
    widths = HEADS * DIM, groups * DIM, groups * DIM, HIDDEN, HIDDEN
    q, k, v, gate, up = weights["read.weight"].split(widths)
    back = halves_to_pairs(DIM).argsort()
    q, k = (matrix.unflatten(0, (-1, DIM))[:, back].flatten(0, 1) for matrix in (q, k))
    out, down = weights["write.weight"].split((HEADS * DIM, HIDDEN), 1)
    tokens = x.shape[1]
    turns = LlamaRotaryEmbedding(config)(x, torch.arange(tokens)[None])
    hidden = torch.full((tokens, tokens), -torch.inf, dtype=x.dtype).triu(1)[None, None]
    normed = F.layer_norm(x, (MODEL,), weights["norm.weight"])
    names = zip(("q_proj", "k_proj", "v_proj", "o_proj"), (q, k, v, out), strict=True)
    attended = functional_call(
        attention,
        {f"{name}.weight": matrix for name, matrix in names},
        (normed,),
        {"position_embeddings": turns, "attention_mask": hidden},
    )[0]
    names = zip(("gate_proj", "up_proj", "down_proj"), (gate, up, down), strict=True)
    return (
        x + attended + functional_call(mlp, {f"{name}.weight": matrix for name, matrix in names}, (normed,))
    )


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("tokens", [1, 7])
def test_a_block_matches_llamas_halves_in_parallel(assert_parity, groups, tokens):
    block = ParallelBlock(MODEL, HEADS, DIM, groups, HIDDEN).double()
    weights = {name: torch.randn(w.shape) / 3 for name, w in block.named_parameters()}
    assert_parity(
        lambda w, x: functional_call(block, w, (x,)),
        lambda w, x: llama_in_parallel(w, x, groups),
        (torch.randn(2, tokens, MODEL),),
        weights=weights,
        rtol=1e-6,  # the reference computes angles in single precision
        atol=1e-6,
    )


def small(**settings: object) -> PaLM:
    return PaLM(11, model=MODEL, heads=HEADS, layers=2, dim=DIM, hidden=HIDDEN, **settings).double()


@pytest.mark.parametrize("parts", [[1] * 9, [4, 1, 3, 1], [9]])
@torch.no_grad()
def test_reading_in_parts_equals_reading_at_once(parts):
    model, ids = small(), torch.randint(11, (2, 9))
    cache = model.empty_cache(2, 9)
    cache.kv.fill_(math.nan)  # unwritten entries have no influence
    found = torch.cat([model(part, cache) for part in ids.split(parts, 1)], 1)
    assert_close(found, model(ids), rtol=0, atol=1e-5)  # angles are in single precision
    assert cache.kv.shape == (2, 2, 2, 1, 9, DIM)


def test_the_readout_is_the_embedding_scaled():
    model, ids = small(), torch.randint(11, (2, 5))
    x = model.embed(ids)
    for block in model.blocks:
        x = block(x)
    expected = model.norm(x) @ model.embed.weight.T / math.sqrt(MODEL)
    assert_close(model(ids), expected)


def test_the_loss_keeps_the_normaliser_near_one():
    model, ids = small(), torch.randint(11, (2, 6))
    logits = model(ids[:, :-1])
    nats = -logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).mean()
    assert_close(model.loss(ids), nats + 1e-4 * (logits.exp().sum(-1).log() ** 2).mean())


def test_sizes_initial_weights_and_defaults():
    counts = []
    for size in (PALM_8B, PALM_62B, PALM_540B):
        with torch.device("meta"):
            counts.append(round(sum(w.numel() for w in PaLM(**size).parameters() if w.ndim > 1) / 1e9, 2))
    assert counts == [8.63, 62.5, 540.35]
    with torch.device("meta"):
        default = PaLM()
    assert sum(w.numel() for w in default.parameters()) == 8_632_012_800
    assert not any(name.endswith("bias") for name, _ in default.named_parameters())
    model = PaLM(500, model=96, heads=2, layers=1, dim=64)
    assert model.embed.weight.std().item() == pytest.approx(1, rel=0.02)
    assert model.blocks[0].read.weight.std().item() == pytest.approx(96**-0.5, rel=0.05)
    for half in model.blocks[0].write.weight.split((2 * 64, 4 * 96), 1):  # each by its own fan-in
        assert half.std().item() == pytest.approx(half.shape[1] ** -0.5, rel=0.05)


def test_a_serial_block_has_its_halves_one_after_the_other():
    block = its.SerialBlock(MODEL, HEADS, DIM, 3, HIDDEN).double()
    parallel = ParallelBlock(MODEL, HEADS, DIM, 3, HIDDEN).double()
    x = torch.randn(2, 5, MODEL, dtype=torch.float64)
    with torch.no_grad():
        parallel.norm.weight.copy_(block.norms[0].weight)
        parallel.read.weight.copy_(torch.cat([layer.weight for layer in block.read]))
        parallel.write.weight.copy_(torch.cat([layer.weight for layer in block.write], 1))
        between = []
        block.norms[1].register_forward_hook(lambda *hooked: between.append(hooked[1][0]))
        found = block(x)
        gate, up = block.read[1](block.norms[1](between[0])).chunk(2, -1)
        assert_close(found, between[0] + block.write[1](F.silu(gate) * up))
        assert not torch.allclose(found, parallel(x))
        block.write[0].weight.zero_()
        parallel.write.weight[:, : HEADS * DIM].zero_()
        assert_close(block(x), parallel(x))  # equal, because without attention nothing depends on it
    assert sum(w.numel() for w in block.parameters()) == sum(w.numel() for w in parallel.parameters()) + MODEL


def test_the_parts_that_breaks_and_sensitivity_arms_leave_out():
    x = torch.randn(2, 5, MODEL)
    blind = its.WithoutLooking(MODEL, HEADS, DIM, 1, HIDDEN)
    other = x.clone()
    other[:, :4] += 1
    assert_close(blind(other)[:, 4], blind(x)[:, 4])
    idle = its.WithoutFeedForward(MODEL, HEADS, DIM, 3, HIDDEN)
    before = idle(x)
    torch.nn.init.zeros_(idle.write[1].weight)
    assert torch.equal(idle(x), before)


PLAIN = {
    "parallel": (ParallelBlock, 4, 4, 12, 1.0),
    "serial": (its.SerialBlock, 4, 4, 12, 1.0),
    "one head": (ParallelBlock, 4, 1, 12, 1.0),
    "no feed-forward": (its.WithoutFeedForward, 4, 4, 12, 1.0),
    "without attention": (its.WithoutLooking, 4, 4, 12, 1.0),
}


@pytest.mark.parametrize(
    ("broken", "changed"),
    [
        ("", {}),
        ("no feed-forward", {"parallel": (its.WithoutFeedForward, 4, 4, 12, 1.0)}),
        ("half of the steps", {"parallel": (ParallelBlock, 4, 4, 12, 0.5)}),
        ("no attention", {"one head": (its.WithoutLooking, 4, 1, 12, 1.0)}),
        ("one query head", {"one head": (ParallelBlock, 1, 1, 12, 1.0)}),
        ("narrow heads", {"one head": (ParallelBlock, 2, 2, 6, 1.0)}),
    ],
)
def test_the_arms_match_their_names(part_of_run, monkeypatch, broken, changed):
    made = {}

    def watched(at, recipe, rate):
        size = its.SIZES | dict(recipe.size)
        made[at.name] = recipe.block, size["heads"], size["groups"], size["dim"], recipe.share
        return 1.0, its.Trained(PaLM(5, **size, block=recipe.block), {})

    monkeypatch.setattr(its, "train", watched)
    monkeypatch.setattr(its, "held_out", lambda *_: torch.rand(4))
    its.compare(part_of_run(broken=broken))
    assert made == {arm: (PLAIN | changed)[arm] for arm in made}
    assert made.keys() >= changed.keys()


@pytest.mark.parametrize(("none", "expected"), [(2.8, 0.25), (2.0, math.nan)])
def test_the_loss_of_one_head_as_a_share(none, expected):
    nats = {"one head": 2.2, "parallel": 2.0, "without attention": none, "serial": 1.0}
    table = Table(rows={arm: {"nats a character": value} for arm, value in nats.items()})
    assert its.part_lost(table)["one head"][its.LOST] == pytest.approx(expected, nan_ok=True)
    del table.rows["without attention"]
    assert its.part_lost(table) == {}


def test_each_arm_is_plotted_at_its_best_rate(run_experiment):
    record = run_experiment(palm)
    curves = record.curves[record.headline_curve]
    assert curves.keys() == PLAIN.keys()
    assert {step for step, _ in curves["parallel"]} == {1, 2, 3, 4}


def test_the_set_up_is_the_stated_one():
    assert digest(its) == "cf2560d7e82b"
    assert its.STEPS == 150


def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(palm)
    assert [case.name for case in cases] == ["a block", "blocks, a training step", "one token"]
