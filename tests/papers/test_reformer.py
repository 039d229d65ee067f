"""Reformer compared with transformers' and with all pairs, and its reversed layers."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close
from transformers import ReformerConfig, ReformerModelWithLMHead
from transformers.models.reformer.modeling_reformer import LSHSelfAttention

from readtrack.checks.constants import digest
from readtrack.papers import reformer
from readtrack.papers.reformer import (
    LSHAttention,
    Reformer,
    from_released,
    hashed,
    hashed_twice,
    inverse,
    lsh_attention,
    run_layers,
    unit_length,
)
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

toy = importlib.import_module("readtrack.papers.reformer.experiment")  # the hook has the same name


def all_pairs(qk: Tensor, v: Tensor, buckets: Tensor, width: int, *, causal: bool) -> Tensor:
    """Attention with one query at a time, over all keys that it meets in any round, or over itself alone."""
    batch, heads, tokens, _ = qk.shape
    result = torch.zeros_like(v)
    k = qk / (qk.square().sum(-1, keepdim=True) + 1e-6 * qk.shape[-1]).sqrt()
    for b in range(batch):
        for h in range(heads):
            met = [set() for _ in range(tokens)]
            for of_round in buckets[b, h].tolist():
                order = sorted(range(tokens), key=lambda t, of_round=of_round: (of_round[t], t))
                place = {token: at // width for at, token in enumerate(order)}
                for i in range(tokens):
                    near = {place[i], (place[i] - 1) % (tokens // width)}
                    met[i] |= {j for j in range(tokens) if place[j] in near}
            for i in range(tokens):
                others = sorted(j for j in met[i] - {i} if j <= i or not causal)
                keys = others or [i]
                weights = (qk[b, h, i] @ k[b, h, keys].T).softmax(0)
                result[b, h, i] = weights @ v[b, h, keys]
    return result


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("tokens", "width", "rounds"), [(12, 3, 1), (12, 2, 3), (8, 4, 2), (6, 6, 2)])
def test_it_is_attention_over_all_pairs_that_meet(assert_parity, tokens, width, rounds, causal):
    qk, v = torch.randn(2, 2, 3, tokens, 4)
    buckets = torch.randint(4, (2, 3, rounds, tokens))
    assert_parity(
        lambda qk, v: lsh_attention(qk, v, buckets, width=width, causal=causal),
        lambda qk, v: all_pairs(qk, v, buckets, width, causal=causal),
        (qk, v),
    )


def test_one_bucket_and_one_chunk_is_full_attention():
    qk, v = torch.randn(2, 1, 2, 10, 4, dtype=torch.float64)
    found = lsh_attention(qk, v, torch.zeros(1, 2, 1, 10, dtype=torch.long), width=10)
    scores = qk @ unit_length(qk).mT
    scores = scores.masked_fill(torch.ones(10, 10, dtype=torch.bool).triu(0), -math.inf)
    scores[..., 0, 0] = 0.0  # the first query sees only itself
    assert_close(found, scores.softmax(-1) @ v)
    with pytest.raises(ValueError, match="10 tokens cannot be cut into chunks of 4"):
        lsh_attention(qk, v, torch.zeros(1, 2, 1, 10, dtype=torch.long), width=4)


def test_hashing_and_attention_match_transformers():
    """One round, because the reference counts a pair once for each round in which it meets."""
    config = ReformerConfig(
        hidden_size=12,
        num_attention_heads=3,
        attention_head_size=4,
        lsh_attn_chunk_length=4,
        num_buckets=6,
        num_hashes=1,
        lsh_num_chunks_before=1,
        lsh_num_chunks_after=0,
        is_decoder=True,
        hash_seed=7,
        lsh_attention_probs_dropout_prob=0.0,
        attn_layers=["lsh"],
    )
    theirs = LSHSelfAttention(config).double().eval()
    ours = LSHAttention(12, 3, buckets=6, rounds=1, width=4).double()
    ours.query_key.weight, ours.value.weight = theirs.query_key.weight, theirs.value.weight
    ours.output.weight.data = torch.eye(12).double()
    x = torch.randn(2, 16, 12).double()
    expected = theirs(x, num_hashes=1)
    torch.manual_seed(7)
    rotations = torch.randn(3, 4, 1, 3, dtype=torch.float64)
    assert_close(ours(x, rotations), expected.hidden_states, rtol=1e-5, atol=1e-6)
    qk = ours.query_key(x).unflatten(-1, (3, 4)).transpose(1, 2)
    assert torch.equal(hashed(qk, rotations)[:, :, 0], expected.buckets.view(2, 3, 16))
    theirs.num_buckets = [4, 2]
    in_two = theirs(x, num_hashes=1).buckets.view(2, 3, 16)
    assert torch.equal(hashed_twice(qk, rotations[..., :2], rotations[..., 2:])[:, :, 0], in_two)


@pytest.mark.parametrize("axial", [False, True])
def test_released_weights_speak_as_in_transformers(axial):
    """Compares outputs and all gradients, with one round of hashing."""
    config = ReformerConfig(
        vocab_size=13,
        hidden_size=12,
        num_attention_heads=3,
        attention_head_size=4,
        feed_forward_size=20,
        attn_layers=["lsh", "lsh"],
        lsh_attn_chunk_length=4,
        lsh_num_chunks_before=1,
        lsh_num_chunks_after=0,
        num_buckets=6,
        num_hashes=1,
        hash_seed=7,
        is_decoder=True,
        use_cache=False,
        max_position_embeddings=16,
        axial_pos_embds=axial,
        axial_pos_shape=(2, 8),
        axial_pos_embds_dim=(5, 7),
        hidden_dropout_prob=0.0,
        lsh_attention_probs_dropout_prob=0.0,
    )
    theirs = ReformerModelWithLMHead(config).double().train()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    torch.nn.init.zeros_(theirs.lm_head.bias)  # since version 5 it is not added
    settings = {"context": 16, "model": 12, "heads": 3, "hidden": 20, "layers": 2}
    ours = Reformer(13, **settings, buckets=6, rounds=1, width=4).double()
    weights = {name: w.detach().clone().requires_grad_() for name, w in theirs.named_parameters()}
    renamed = from_released(weights)
    assert renamed.keys() == ours.state_dict().keys()
    ids = torch.randint(13, (2, 16))
    torch.manual_seed(7)
    rotations = [torch.randn(3, 4, 1, 3, dtype=torch.float64)] * 2
    found, expected = functional_call(ours, renamed, (ids, rotations)), theirs(ids).logits
    assert_close(found, expected, rtol=1e-5, atol=1e-6)  # theirs normalises keys in single precision
    for logits in (found, expected):
        logits.square().sum().backward()
    del weights["lm_head.bias"]
    for name, own in weights.items():
        weight = theirs.get_parameter(name)
        assert_close(own.grad, weight.grad, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_layers_of_local_attention_are_refused():
    name = "reformer.encoder.layers.0.attention.self_attention.query.weight"
    with pytest.raises(ValueError, match="not a parameter of a Reformer with hashed attention"):
        from_released({name: torch.zeros(1)})


def small(**changes: object) -> Reformer:
    settings = {"context": 16, "model": 8, "heads": 2, "hidden": 12, "layers": 3}
    return Reformer(11, **settings, buckets=4, rounds=2, width=4, **changes).double()


def randomised(net: Reformer) -> list[Tensor]:
    for weight in net.parameters():
        weight.data = torch.randn_like(weight) / 3
    return [layer.attention.draw() for layer in net.layers]


def test_recomputed_gradients_match_stored_ones():
    net, kept = small(), small(stored=True)
    rotations = randomised(net)
    kept.load_state_dict(net.state_dict())
    ids = torch.randint(11, (2, 17))
    results = [(model.loss(ids, rotations), model) for model in (net, kept)]
    assert_close(results[0][0], results[1][0], rtol=0, atol=1e-12)
    for loss, _ in results:
        loss.backward()
    for (name, mine), theirs in zip(net.named_parameters(), kept.parameters(), strict=True):
        assert_close(mine.grad, theirs.grad, rtol=1e-8, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


def test_inputs_can_be_recomputed_from_outputs():
    net = small()
    rotations = randomised(net)
    x1, x2 = torch.randn(2, 2, 16, 8, dtype=torch.float64)
    with torch.no_grad():
        y1, y2 = run_layers(list(net.layers), rotations, x1, x2, stored=False)
        for found, right in zip(inverse(list(net.layers), rotations, y1, y2), (x1, x2), strict=True):
            assert_close(found, right, rtol=0, atol=1e-11)


def test_second_derivatives_are_refused_but_of_the_twin():
    net, kept = small(), small(stored=True)
    ids = torch.randint(11, (1, 17))
    rotations = randomised(kept)
    gradient = torch.autograd.grad(kept.loss(ids, rotations), kept.tokens.weight, create_graph=True)[0]
    assert torch.autograd.grad(gradient.square().sum(), kept.tokens.weight)[0].any()
    with pytest.raises(RuntimeError, match="stored=True"):
        torch.autograd.grad(net.loss(ids, rotations), net.tokens.weight, create_graph=True)


def test_no_token_sees_those_after_it():
    """Later tokens may change the hash buckets, but never become visible."""
    qk, v = torch.randn(2, 1, 2, 12, 4, dtype=torch.float64)
    buckets = torch.randint(3, (1, 2, 2, 12))
    later = v.clone()
    later[:, :, 7:] += 1
    first, second = (lsh_attention(qk, values, buckets, width=3) for values in (v, later))
    assert_close(first[:, :, :7], second[:, :, :7])
    assert not torch.allclose(first[:, :, 8:], second[:, :, 8:])


def test_it_trains_under_autocast():
    net = small().float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = net.loss(torch.randint(11, (2, 17)))
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters())


def test_near_vectors_share_a_bucket():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 1, 400, 16, generator=generator)
    near = x + 0.1 * torch.randn(x.shape, generator=generator)
    rotations = torch.randn(1, 16, 20, 8, generator=generator)
    mine, theirs = hashed(x, rotations), hashed(near, rotations)
    assert (mine == theirs).double().mean() > 0.8
    assert (mine == theirs.flip(-1)).double().mean() < 0.1
    assert set(mine.unique().tolist()) == set(range(16))


# The toy task


def test_arms_match_their_names():
    x = torch.randn(1, 1, 64, 16)
    by_hash, others = (way(x, 3, torch.Generator().manual_seed(1)) for way in (toy.by_hash, toy.of_others))
    assert by_hash.shape == others.shape == (1, 1, 3, 64)
    assert torch.equal(by_hash.sort(-1).values, others.sort(-1).values)
    assert not torch.equal(by_hash, others)
    assert toy.at_random(x, 3, torch.Generator()).max() == 7
    assert not toy.all_in_one(x, 1, torch.Generator()).any()
    assert (toy.ROUNDS, toy.SHARPNESS, toy.WIDTH) == ((1, 2, 4, 8), (2.0, 8.0, 32.0, 128.0), 16)


@pytest.mark.parametrize(
    ("broken", "hashed_way"),
    [
        ("", "by_hash"),
        ("buckets of other tokens", "of_others"),
        ("buckets by the nearest token", "nearest"),
    ],
)
def test_the_bucket_of_each_token(part_of_run, monkeypatch, broken, hashed_way):
    made = set()

    def watched(at, outcome, digits):
        made.add((outcome.way.bucket.__name__, at.level or 1, outcome.way.width))
        assert not torch.equal(*(x for x, _ in at.world))
        return torch.ones(4)

    monkeypatch.setattr(toy, "named", watched)
    toy.vote(part_of_run(broken=broken))
    rounds = {(name, count, 16) for name in (hashed_way, "at_random") for count in (1, 2, 4, 8)}
    assert made == rounds | {("all_in_one", 1, 64)}


def test_the_rivals_buckets_are_of_the_nearest_of_drawn_tokens():
    x = torch.randn(1, 1, 64, 16)
    found = toy.nearest(x, 2, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    for of_round in found[0, 0]:
        drawn = torch.randperm(64, generator=generator)[:8]
        for token, bucket in enumerate(of_round.tolist()):
            similar = torch.cosine_similarity(x[0, 0, token], x[0, 0, drawn], dim=1)
            assert bucket == similar.argmax()


def test_digits_are_classified_by_the_labels_of_the_others(part_of_run):
    """Full attention, as a softmax over cosine similarities to all other digits."""
    x, labels = torch.randn(32, 6), torch.randint(10, (32,))
    other = torch.randn(32, 6), torch.randint(10, (32,))
    at = Trial(Workshop(part_of_run(), toy.World(other, (x, labels))), Work(arm="any"), arm="any")
    outcome = toy.Outcome(toy.Way(toy.all_in_one, 32), 5.0)
    scores = (5 * x @ torch.nn.functional.normalize(x, dim=1).T).fill_diagonal_(-math.inf)
    votes = scores.softmax(1) @ torch.nn.functional.one_hot(labels, 10).float()
    found = toy.judge(at, Sweep(outcome, None, {}))
    assert torch.equal(found["accuracy"], (votes.argmax(1) == labels).double())
    assert found["part of the pairs seen"] == 1


def test_the_experiment_runs(run_experiment):
    record = run_experiment(reformer)
    assert len(record.curves["accuracy over rounds"]["full attention"]) == len(toy.ROUNDS)
    assert digest(toy) == "b0376dd1510d"
    # Matrices for queries and keys, for values and for the output; the feed-forward layer; norms.
    layer = 3 * 1024**2 + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    whole = 3 * layer + (258 + 65_536) * 1024 + 2 * 2048 + 2048 * 258 + 258
    assert record.values["parameters", "enwik8, 64K tokens"] == whole
    assert record.curves["accuracy over rounds"].keys() == {"hashed", "random buckets", "full attention"}
    assert record.headline_curve == "accuracy over rounds"


@pytest.mark.slow
def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(reformer, tolerance=1e-8)
    assert [case.name for case in cases] == ["hashed attention", "depth"]
