"""Grouped attention compared with torch's and Llama's, conversions with sums over heads, and the control
arms.
"""

from __future__ import annotations

import importlib
import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention

from readtrack.checks.constants import digest
from readtrack.papers import gqa
from readtrack.papers.attention import MultiHeadAttention
from readtrack.papers.gqa import GroupedQueryAttention, convert, grouped_attention
from readtrack.plugin import Table, Trial
from readtrack.runs.trial import Work, Workshop

its = importlib.import_module("readtrack.papers.gqa.experiment")


@pytest.mark.parametrize(("heads", "groups"), [(6, 1), (6, 2), (6, 3), (6, 6), (1, 1)])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 7), (3, 7)])
@pytest.mark.parametrize("causal", [False, True])
def test_it_matches_torchs(assert_parity, heads, groups, queries, keys, causal):
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal else None

    def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)

    inputs = [torch.randn(2, h, n, 3) for h, n in ((heads, queries), (groups, keys), (groups, keys))]
    assert_parity(lambda *qkv: grouped_attention(*qkv, causal=causal), torchs, inputs)


@pytest.mark.parametrize("shape", [(5, 7), (2, 1, 5, 7), (2, 6, 5, 7), (1, 7)])
def test_masks_and_biases_hold_for_each_head(assert_parity, shape):
    mask = torch.rand(shape) < 0.6
    mask[..., 0] = True
    inputs = [torch.randn(2, h, n, 4) for h, n in ((6, 5), (2, 7), (2, 7))] + [torch.randn(6, 5, 7)]

    def torchs(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(3, 1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.masked_fill(~mask, -torch.inf))

    assert_parity(lambda q, k, v, bias: grouped_attention(q, k, v, mask=mask, bias=bias), torchs, inputs)


def test_the_module_matches_llamas_without_rotations(assert_parity):
    config = LlamaConfig(
        hidden_size=24, num_attention_heads=6, num_key_value_heads=2, attn_implementation="eager"
    )
    theirs, ours = LlamaAttention(config, 0).double(), GroupedQueryAttention(24, 6, 2).double()
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    hidden = torch.full((7, 7), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    still = torch.ones(1, 7, 4, dtype=torch.float64), torch.zeros(1, 7, 4, dtype=torch.float64)

    def llama(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        mapped = {f"{names[name.split('.')[0]]}.weight": weight for name, weight in weights.items()}
        given = {"position_embeddings": still, "attention_mask": hidden}
        return functional_call(theirs, mapped, (x,), given)[0]

    assert_parity(
        lambda weights, x: functional_call(ours, weights, (x,), {"causal": True}),
        llama,
        (torch.randn(2, 7, 24),),
        weights=dict(ours.named_parameters()),
        rtol=1e-6,  # the reference computes the softmax in single precision
        atol=1e-6,
    )


def test_as_many_groups_as_heads_is_multi_head_attention():
    ours, theirs = GroupedQueryAttention(12, 4, 4), MultiHeadAttention(12, 4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 12)
    assert_close(ours(x, causal=True), theirs(x, causal=True))


def test_half_precision_is_as_accurate_as_torchs(assert_half_precision):
    inputs = [torch.randn(2, heads, 40, 16) for heads in (8, 2, 2)]
    assert_half_precision(
        grouped_attention,
        lambda q, k, v: (q @ k.repeat_interleave(4, 1).mT / 4).softmax(-1) @ v.repeat_interleave(4, 1),
        inputs,
    )


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="6 heads cannot be split into 4 groups"):
        grouped_attention(*(torch.randn(1, heads, 3, 2) for heads in (6, 4, 4)))
    with pytest.raises(ValueError, match="no 6 heads in 4 groups"):
        GroupedQueryAttention(12, 6, 4)
    with pytest.raises(ValueError, match="4 heads of keys cannot be split into 3 groups"):
        convert(GroupedQueryAttention(8, 4, 4), 3)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conversion_pools_neighbouring_heads(groups, bias):
    attention = GroupedQueryAttention(12, 4, 4, bias=bias)
    mean, first = convert(attention, groups), convert(attention, groups, "first")
    together = 4 // groups
    for group in range(groups):
        rows = slice(3 * group, 3 * group + 3)
        heads = [slice(3 * h, 3 * h + 3) for h in range(group * together, (group + 1) * together)]
        for name in ("key.weight", "value.weight", *(("key.bias", "value.bias") if bias else ())):
            old = attention.get_parameter(name)
            assert_close(mean.get_parameter(name)[rows], sum(old[h] for h in heads) / together)
            assert torch.equal(first.get_parameter(name)[rows], old[heads[0]])
    for name in ("query.weight", "output.weight"):
        assert torch.equal(mean.get_parameter(name), attention.get_parameter(name))
    assert mean.groups == groups
    assert all(weight.requires_grad for weight in mean.parameters())


def test_a_converted_model_shares_no_tensor_with_the_old_one():
    attention = GroupedQueryAttention(12, 4, 4)
    before = attention.query.weight.clone()
    converted = convert(attention, 4)
    with torch.no_grad():
        converted.query.weight.zero_()
    assert torch.equal(attention.query.weight, before)


def test_random_heads_begin_as_a_linear_layer_does():
    attention = GroupedQueryAttention(64, 4, 4)
    with torch.no_grad():
        for weight in attention.parameters():
            weight.mul_(10)
    drawn = [
        convert(attention, 2, "random", generator=torch.Generator().manual_seed(s)).key.weight
        for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].abs().max() <= 64**-0.5
    assert drawn[0].std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.05)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, its.Characters]:
    """The initial models of each training, by its label without the learning rate."""
    found: dict[str, its.Characters] = {}
    train = its.train

    def watched(run, model, *others, label, **settings):
        found[label.partition(",")[0]] = deepcopy(model)
        train(run, model, *others, label=label, **settings)

    monkeypatch.setattr(its, "train", watched)
    return found


def test_all_conversions_start_from_one_checkpoint(run_experiment, started):
    run_experiment(gqa)
    groups = {arm: model.blocks[0].attention.groups for arm, model in started.items()}
    every = {"mean": 1, "first": 1, "random": 1, "two groups": 2, "four groups": 4, "all heads": 8}
    assert groups == {"pre-training": 8} | every
    for arm in every:
        assert torch.equal(started[arm].embed.weight, started["all heads"].embed.weight)
        assert not torch.equal(started[arm].embed.weight, started["pre-training"].embed.weight)


def test_the_arms_are_converted_as_their_names_say(run_experiment, started):
    run_experiment(gqa)
    ways = {"mean": (1, "mean"), "first": (1, "first"), "two groups": (2, "mean"), "four groups": (4, "mean")}
    for arm, model in started.items():
        old, new = started["all heads"].blocks[0].attention, model.blocks[0].attention
        if arm in ways:
            groups, how = ways[arm]
            assert torch.equal(new.value.weight, convert(old, groups, how).value.weight)
    drawn = started["random"].blocks[0].attention.value.weight
    assert drawn.abs().max() <= drawn.shape[1] ** -0.5
    assert all(not torch.equal(drawn, started[arm].blocks[0].attention.value.weight) for arm in ways)


def test_without_a_checkpoint_no_network_was_trained(run_experiment, started):
    run_experiment(gqa, broken="random weights")
    assert torch.equal(started["mean"].embed.weight, started["pre-training"].embed.weight)


@pytest.fixture
def at(part_of_run) -> Trial:
    world = its.Given(small(), its.data.Parts((), (), ()))
    return Trial(Workshop(part_of_run(), world), Work(arm="any"), arm="any")


def small() -> its.Characters:
    torch.manual_seed(0)
    return its.Characters(5, model=16, layers=2)


@pytest.mark.parametrize("name", ["key", "value"])
def test_only_the_keys_are_averaged(at, name):
    for block, old in zip(its.keys_alone(small(), at).blocks, small().blocks, strict=True):
        expected = convert(old.attention, 1, "mean" if name == "key" else "first").get_submodule(name)
        assert torch.equal(block.attention.get_submodule(name).weight, expected.weight)


def test_the_groups_heads_are_exchanged(at):
    for block, old in zip(its.other_group(small(), at).blocks, small().blocks, strict=True):
        halves = convert(old.attention, 2).key.weight.chunk(2)
        assert torch.equal(block.attention.key.weight, torch.cat(halves[::-1]))


def test_the_best_head_is_the_one_with_the_lowest_loss(at, monkeypatch):
    """With made-up losses, the best are the third head of the first layer and the eighth of the second."""
    losses = iter([3, 2, 1, 2, 3, 3, 3, 3, 9, 8, 7, 6, 5, 4, 3, 2])
    monkeypatch.setattr(its, "windows_loss", lambda *_: torch.tensor(float(next(losses))))
    found = its.best_head(small(), at)
    for block, old, head in zip(found.blocks, small().blocks, (2, 7), strict=True):
        for name in ("key", "value"):
            heads = old.attention.get_submodule(name).weight.chunk(its.HEADS)
            assert torch.equal(block.attention.get_submodule(name).weight, heads[head])


@pytest.mark.parametrize(("one", "two", "expected"), [(2.5, 2.1, 0.2), (2.5, 2.6, 1.2), (2.0, 1.9, math.nan)])
def test_the_loss_of_groups_is_a_part_of_the_loss_of_one_head(one, two, expected):
    table = Table()
    table.rows.update(
        {
            name: {"nats a character": v}
            for name, v in (("mean", one), ("two groups", two), ("all heads", 2.0))
        }
    )
    assert its.derived(table)[""][its.LOST] == pytest.approx(expected, nan_ok=True)


def test_a_unigram_by_hand():
    text = its.data.Parts((torch.tensor([0, 0, 1]),), (), (torch.tensor([0, 1]),))
    assert its.unigram_loss(text, 2) == pytest.approx(-(math.log(3 / 5) + math.log(2 / 5)) / 2)


def test_the_set_up_is_the_stated_one():
    assert digest(its) == "6f9703990094"
    assert (its.STEPS, its.FURTHER, its.RATES) == (600, 30, (5e-4, 1.5e-3, 4.5e-3, 1.35e-2))
    assert (its.HEADS, its.TOKENS) == (8, 48)


def test_cache_and_parameters_by_the_number_of_groups(run_experiment):
    """For 8 heads of size 8: two vectors of 8 float32 numbers per group; two matrices, and a group's
    matrices.
    """
    curves = run_experiment(gqa).curves
    kept, count = curves["KV-cache bytes a token"][""], curves["parameters of attention"][""]
    assert kept == [(groups, 2 * 8 * 4 * groups) for groups in (1, 2, 4, 8)]
    assert count == [(groups, 2 * 64 * 64 + 2 * 64 * 8 * groups) for groups in (1, 2, 4, 8)]
    found = curves[its.OVER_GROUPS]
    assert {arm: [groups for groups, _ in points] for arm, points in found.items()} == {
        "averaged": [1, 2, 4, 8],
        "first": [1],
        "random": [1],
    }


def test_every_variant_is_right(check_benchmark):
    assert {case.name for case in check_benchmark(gqa)} == {"one token"}
