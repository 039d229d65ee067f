"""Transformer-XL compared with a double loop over the four terms, with XLNet's attention, and with one
long segment.
"""

from __future__ import annotations

import importlib
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from transformers import XLNetConfig
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

from readtrack.checks.constants import digest
from readtrack.papers import transformer_xl
from readtrack.papers.transformer import sines
from readtrack.papers.transformer_xl import RelativeAttention, TransformerXL, from_released, shifted
from readtrack.papers.transformer_xl.benchmark import logits
from readtrack.runs.table import Sweep, Table
from readtrack.runs.trial import Trial, Work, Workshop

toy = importlib.import_module("readtrack.papers.transformer_xl.experiment")  # the hook has the same name


def randomised(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.randn(weight.shape) / 3 for name, weight in model.named_parameters()}


def term_by_term(weights: dict[str, Tensor], x: Tensor, context: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Section 3.3's four terms for one query and key at a time, in one head at a time."""
    tokens, keys, model = x.shape[1], context.shape[1], x.shape[2]
    heads, dim = u.shape
    table = sines(keys, model, dtype=x.dtype)
    rows = []
    for head in range(heads):
        own = slice(head * dim, (head + 1) * dim)
        W_q, W_kE, W_v, W_kR = (weights[f"{n}.weight"][own] for n in ("query", "key", "value", "position"))
        for i in range(tokens):
            scores = []
            for j in range(i + keys - tokens + 1):
                q, k, r = x[:, i] @ W_q.T, context[:, j] @ W_kE.T, W_kR @ table[i + keys - tokens - j]
                score = (q * k).sum(1) + q @ r + k @ u[head] + v[head] @ r
                scores.append(score / math.sqrt(dim))
            chance = torch.stack(scores, 1).softmax(1)
            rows.append((chance[..., None] * (context[:, : chance.shape[1]] @ W_v.T)).sum(1))
    merged = torch.stack(rows, 1).unflatten(1, (heads, tokens)).transpose(1, 2).flatten(2)
    return merged @ weights["output.weight"].T


@pytest.mark.parametrize(("tokens", "memory", "heads"), [(5, 3, 3), (1, 7, 1), (4, 0, 2), (3, 9, 6)])
def test_scores_are_the_four_terms(assert_parity, tokens, memory, heads):
    layer = RelativeAttention(12, heads).double()
    x, before = torch.randn(2, tokens, 12), torch.randn(2, memory, 12)
    u, v = torch.randn(2, heads, 12 // heads)
    distances = sines(tokens + memory, 12, dtype=torch.float64).flip(0)

    def ours(weights, x, before, u, v):
        return functional_call(layer, weights, (x, torch.cat((before, x), 1), distances.to(x.dtype), u, v))

    def theirs(weights, x, before, u, v):
        return term_by_term(weights, x, torch.cat((before, x), 1), u, v)

    assert_parity(ours, theirs, (x, before, u, v), weights=randomised(layer))


def test_scores_match_xlnet():
    """XLNet's attention takes the projections in the order (tokens, batch, heads, dim)."""
    config = XLNetConfig(d_model=12, n_head=3, d_inner=8, n_layer=1, vocab_size=5, dropout=0.0)
    theirs = XLNetRelativeAttention(config).double()
    layer, x, before = RelativeAttention(12, 3).double(), torch.randn(2, 5, 12), torch.randn(2, 4, 12)
    x, before = x.double(), before.double()
    u, v = torch.randn(2, 3, 4, dtype=torch.float64)
    theirs.r_w_bias.data, theirs.r_r_bias.data = u, v
    context, table = torch.cat((before, x), 1), sines(9, 12, dtype=torch.float64).flip(0)

    def split(vectors: Tensor, part: nn.Linear) -> Tensor:
        return part(vectors).unflatten(-1, (3, 4)).transpose(0, 1)

    farther = sines(10, 12, dtype=torch.float64).flip(0)  # the reference's begin one token earlier
    r = layer.position(farther).unflatten(-1, (3, 4))[:, None].expand(-1, 2, -1, -1)
    mask = torch.ones(5, 9, dtype=torch.float64).triu(5)[:, :, None, None].expand(-1, -1, 2, 3)
    parts = split(x, layer.query), split(context, layer.key), split(context, layer.value), r
    found = theirs.rel_attn_core(*parts, attn_mask=mask).transpose(0, 1).flatten(2)
    assert_close(layer(x, context, table, u, v), layer.output(found))


@pytest.mark.parametrize(("tokens", "keys"), [(4, 4), (3, 7), (1, 5)])
def test_the_shift_puts_each_distance_at_its_key(tokens, keys):
    scores = torch.arange(keys - 1, -1, -1).double().expand(2, tokens, keys)  # the index of each distance
    found = shifted(scores)
    for i in range(tokens):
        for j in range(i + keys - tokens + 1):
            assert found[0, i, j] == i + keys - tokens - j


def small(**changes: float) -> TransformerXL:
    settings = {"model": 12, "heads": 3, "hidden": 16, "layers": 2, "std": 0.4, "dropout": 0.0, **changes}
    return TransformerXL(11, **settings).double()


def test_a_segment_with_its_memory_is_one_long_segment():
    """The visible keys are the same; only the gradient ends at the segment boundary."""
    net, ids = small(), torch.randint(11, (3, 12))
    whole, _ = net(ids)
    first, memory = net(ids[:, :7], keep=7)
    second, _ = net(ids[:, 7:], memory)
    assert_close(torch.cat((first, second), 1), whole, rtol=0, atol=1e-12)
    assert [layer.shape[1] for layer in memory] == [7, 7]
    assert not any(layer.requires_grad for layer in memory)


def test_the_memory_keeps_the_newest_of_several_segments():
    net, ids = small(), torch.randint(11, (3, 9))
    _, memory = net(ids[:, :3], keep=5)
    _, memory = net(ids[:, 3:6], memory, keep=5)
    assert [layer.shape[1] for layer in memory] == [5, 5]
    assert_close(memory[0][:, -3:], net.embedding(ids[:, 3:6]).detach())
    assert_close(memory[0][:, :2], net.embedding(ids[:, 1:3]).detach())
    assert net(ids[:, :3])[1] == []
    assert net(ids[:, :3], memory)[1] == []


def test_a_token_does_not_see_those_after_it_and_does_see_the_memory():
    net, ids, before = small(), torch.randint(11, (2, 6)), torch.randint(11, (2, 4))
    _, memory = net(before, keep=4)
    changed = ids.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 11
    assert_close(net(changed, memory)[0][:, :4], net(ids, memory)[0][:, :4])
    other = [memory[0], memory[1].roll(1, 0)]
    assert not torch.allclose(net(ids, other)[0], net(ids, memory)[0])


def test_the_loss_is_of_all_tokens_but_the_first():
    net, ids = small(), torch.randint(11, (2, 6))
    nats, memory = net.loss(ids, keep=9)
    logits, same = net(ids[:, :-1], keep=9)
    assert_close(nats, -logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0])
    assert_close(memory, same)


def test_parameters_are_the_papers_and_begin_as_the_released_code_has_them():
    with torch.device("meta"):
        whole = TransformerXL()
    assert sum(weight.numel() for weight in whole.parameters()) == 41_055_436
    assert {part.p for part in whole.modules() if isinstance(part, nn.Dropout)} == {0.1}
    net = TransformerXL(500, model=64, heads=4, hidden=256, layers=2)
    for name, weight in net.named_parameters():
        if weight.ndim == 2 and "norms" not in name:
            assert weight.std().item() == pytest.approx(0.02, rel=0.3 if weight.numel() < 100 else 0.06)
        elif name.endswith("bias"):
            assert not weight.any()
    with pytest.raises(ValueError, match="width 10 cannot be split over 3 heads"):
        RelativeAttention(10, 3)


def released(vocab: int, model: int, heads: int, hidden: int, layers: int) -> dict[str, Tensor]:
    """Random weights with the names of the authors' `MemTransformerLM` for characters."""
    shapes = {"word_emb.emb_layers.0.weight": (vocab, model), "crit.out_layers.0.bias": (vocab,)}
    shapes |= dict.fromkeys(("r_w_bias", "r_r_bias"), (heads, model // heads))
    for layer in range(layers):
        of_layer = {
            "dec_attn.qkv_net.weight": (3 * model, model),
            "dec_attn.r_net.weight": (model, model),
            "dec_attn.o_net.weight": (model, model),
            "pos_ff.CoreNet.0.weight": (hidden, model),
            "pos_ff.CoreNet.0.bias": (hidden,),
            "pos_ff.CoreNet.3.weight": (model, hidden),
            "pos_ff.CoreNet.3.bias": (model,),
        }
        for norm in ("dec_attn.layer_norm", "pos_ff.layer_norm"):
            of_layer |= {f"{norm}.weight": (model,), f"{norm}.bias": (model,)}
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in of_layer.items()}
    weights = {name: torch.randn(shape) / 3 for name, shape in shapes.items()}
    return weights | {"crit.out_layers.0.weight": weights["word_emb.emb_layers.0.weight"]}


def as_released(weights: dict[str, Tensor], before: Tensor, ids: Tensor) -> Tensor:
    """The authors' forward pass: two segments, sines before cosines, inputs multiplied by √model."""
    table = weights["word_emb.emb_layers.0.weight"]
    model, heads, dim = table.shape[1], *weights["r_w_bias"].shape
    layers = sum(name.endswith("qkv_net.weight") for name in weights)
    memory: list[Tensor] = []
    for part in (before, ids):
        x, kept = table[part] * math.sqrt(model), []
        for layer in range(layers):
            of_layer = {
                name.removeprefix(f"layers.{layer}."): weight
                for name, weight in weights.items()
                if name.startswith(f"layers.{layer}.")
            }
            kept.append(x.detach())
            context = torch.cat((memory[layer], x), 1) if memory else x
            keys, tokens = context.shape[1], x.shape[1]
            away = torch.arange(keys - tokens, keys)[:, None] - torch.arange(keys)
            angles = away[..., None] / 10000 ** (torch.arange(0.0, model, 2.0, dtype=x.dtype) / model)
            far = torch.cat((angles.sin(), angles.cos()), -1) @ of_layer["dec_attn.r_net.weight"].T
            q, k, v = (
                each.unflatten(-1, (heads, dim))
                for each in (context @ of_layer["dec_attn.qkv_net.weight"].T).chunk(3, -1)
            )
            q = q[:, keys - tokens :]
            scores = torch.einsum("bihd,bjhd->bhij", q + weights["r_w_bias"], k)
            scores = scores + torch.einsum(
                "bihd,ijhd->bhij", q + weights["r_r_bias"], far.unflatten(-1, (heads, dim))
            )
            chance = (scores / math.sqrt(dim)).masked_fill(away < 0, -math.inf).softmax(-1)
            found = torch.einsum("bhij,bjhd->bihd", chance, v).flatten(2)
            for name, made in (
                ("dec_attn", lambda x, w, found=found: found @ w["dec_attn.o_net.weight"].T),
                (
                    "pos_ff",
                    lambda x, w: (
                        (x @ w["pos_ff.CoreNet.0.weight"].T + w["pos_ff.CoreNet.0.bias"]).relu()
                        @ w["pos_ff.CoreNet.3.weight"].T
                        + w["pos_ff.CoreNet.3.bias"]
                    ),
                ),
            ):
                norm = of_layer[f"{name}.layer_norm.weight"], of_layer[f"{name}.layer_norm.bias"]
                x = nn.functional.layer_norm(x + made(x, of_layer), (model,), *norm)
        memory = kept
    return x @ table.T + weights["crit.out_layers.0.bias"]


def test_released_weights_speak_as_in_the_authors_code(assert_parity):
    """Compares outputs and all gradients, over a segment with memory."""
    net = small(model=12, heads=3, hidden=16, layers=2, scale=math.sqrt(12))
    weights = released(11, 12, 3, 16, 2)
    tied = weights.pop("crit.out_layers.0.weight")
    before, ids = torch.randint(11, (2, 4)), torch.randint(11, (2, 6))
    assert from_released(weights).keys() == net.state_dict().keys()
    named = {f"transformer.{name}": weight for name, weight in weights.items()}
    extra = {"crit.out_layers.0.weight": tied, "pos_emb.inv_freq": torch.ones(6)}
    assert from_released(named | extra).keys() == net.state_dict().keys()

    def ours(weights: dict[str, Tensor]) -> Tensor:
        renamed = from_released(weights)
        _, memory = functional_call(net, renamed, (before,), {"keep": 4})
        return functional_call(net, renamed, (ids, memory))[0]

    assert_parity(
        ours,
        lambda weights: as_released(weights, before, ids),
        (),
        weights=weights,
        rtol=1e-6,  # ours computes the sinusoids in single precision
        atol=1e-7,
    )


@pytest.mark.parametrize("name", ["layers.0.dec_attn.r_w_bias", "word_emb.emb_layers.1.weight"])
def test_names_of_a_model_for_words_are_refused(name):
    with pytest.raises(ValueError, match=f"Transformer-XL for characters has no parameter {name}"):
        from_released({name: torch.zeros(1)})


def test_it_trains_under_autocast():
    net, ids = small().float(), torch.randint(11, (2, 9))
    with torch.autocast("cpu", torch.bfloat16):
        nats, memory = net.loss(ids, keep=8)
        nats, _ = net.loss(ids, memory)
    nats.mean().backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters())


# The toy task


def test_topics_have_the_stated_length():
    """A language whose words are the topics."""
    made = toy.Senses(torch.arange(4)[:, None], 4)
    ids = toy.stream(made, 400, 200, torch.Generator().manual_seed(2))
    assert_close(ids.flatten().bincount() / ids.numel(), torch.full((4,), 0.25), rtol=0, atol=0.03)
    for apart in (1, 20, 100):
        lasting = (1 - 1 / toy.STAY) ** apart
        same = (ids[:, :-apart] == ids[:, apart:]).double().mean().item()
        assert same == pytest.approx(lasting + (1 - lasting) / 4, abs=0.03)


def test_nats_of_the_law_by_counting_all_histories():
    """A language of two topics and three words, with a weighted sum over all histories of topics."""
    made = toy.Senses(torch.tensor([[0, 1], [1, 2]]), 3)
    ids = torch.tensor([[0, 1, 1, 2]])
    stay, chance = 1 - 1 / toy.STAY, [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    totals = []
    for end in range(1, 5):
        total = 0.0
        for history in range(2**end):
            topics = [history >> place & 1 for place in range(end)]
            p = 0.5
            for before, after in itertools.pairwise(topics):
                p *= stay * (before == after) + (1 - stay) / 2
            for topic, word in zip(topics, ids[0].tolist(), strict=False):
                p *= chance[topic][word]
            total += p
        totals.append(total)
    expected = -torch.tensor([b / a for a, b in zip([1.0, *totals], totals, strict=False)]).log()
    assert_close(toy.nats_of_the_law(made, ids), expected)


def test_segments_ask_for_each_word_once():
    ids = torch.arange(25)[None]
    pieces = [piece[0].tolist() for piece in toy.segments(ids, 8)]
    assert [word for piece in pieces for word in piece[1:]] == list(range(1, 25))
    assert all(len(piece) == 9 for piece in pieces)


def test_the_set_up_is_the_stated_one():
    assert digest(toy) == "1b69d4eced7d"
    assert (toy.WORDS, toy.SEGMENT, toy.KEPT, toy.MODEL) == (48, 8, 16, 64)
    assert (toy.SEGMENT, toy.KEPT, toy.LONGER, toy.STEPS, toy.RATES) == (8, 16, 24, 200, (1e-3, 3e-3, 1e-2))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(transformer_xl)
    curves = record.curves["loss over position in the segment"]
    assert {arm: len(curve) for arm, curve in curves.items()} == {
        "with memory": 8,
        "without memory": 8,
        "absolute positions": 8,
        "longer segments": 24,
        "ideal predictor": 2,
    }
    assert record.headline_curve == "loss over position in the segment"
    lengths = [keep for keep, _ in record.curves["nats per word over memory length"]["with memory"]]
    assert lengths == [16, 64]


USUAL = {
    "with memory": (8, 16, 16, False, False),
    "without memory": (8, 0, 0, False, False),
    "absolute positions": (8, 16, 16, False, False),
    "longer segments": (24, 0, 0, False, False),
}


@pytest.mark.parametrize(
    ("broken", "ours", "attention"),
    [
        ("", USUAL["with memory"], RelativeAttention),
        ("memory of another text", (8, 16, 16, True, False), RelativeAttention),
        ("memory in evaluation only", (8, 0, 16, False, False), RelativeAttention),
        ("unigram cache", (8, 0, 0, False, True), RelativeAttention),
        ("GRU with a carried state", USUAL["with memory"], toy.Carried),
        ("no distances", USUAL["with memory"], toy.Biased),
        ("learned bias per distance", USUAL["with memory"], toy.Biased),
    ],
)
def test_segments_memories_and_attention_of_the_arms(part_of_run, monkeypatch, broken, ours, attention):
    made, kinds, shapes, run = {}, {}, {}, part_of_run(broken=broken)

    def watched(at, reading, rate):
        net = reading.make()
        made[at.name] = reading.tokens, reading.keep, reading.later, reading.mixed, reading.counts
        carried = isinstance(net, toy.Carried)
        kinds[at.name] = toy.Carried if carried else type(net.layers[0].attention)
        shapes[at.name] = (net.gru.hidden_size, net.gru.num_layers) if carried else (64, len(net.layers))
        return 1.0, toy.Outcome(net, reading)

    monkeypatch.setattr(toy, "train", watched)
    toy.carry_context(run)
    asked = {name: USUAL[name] for name in made}
    assert made == asked | {"with memory": ours}
    assert kinds["with memory"] is attention
    assert set(shapes.values()) == {(64, 2)}
    assert kinds.get("absolute positions", toy.Biased) is toy.Biased


def outcome(change=lambda _: None, **reading) -> toy.Outcome:
    net = toy.TransformerXL(toy.WORDS, model=64, heads=4, hidden=8, layers=1, std=0.3, dropout=0.0)
    change(net)
    return toy.Outcome(net, toy.Reading(**reading))


def test_memory_is_passed_to_an_evaluation(part_of_run):
    """A memory of length zero equals the arm without memory."""
    run, ids, made = part_of_run(), torch.randint(toy.WORDS, (2, 8 * toy.SEGMENT + 1)), outcome()
    alone = torch.stack([made.net.loss(piece)[0] for piece in list(toy.segments(ids, 8))[3:]]).double()
    assert_close(toy.evaluate(run, made, ids, 0), alone.mean(0))
    assert not torch.allclose(toy.evaluate(run, made, ids, 16), toy.evaluate(run, made, ids, 0))
    memory = [torch.arange(6.0).view(2, 1, 3)]
    assert torch.equal(toy.given(toy.Reading(mixed=True), memory)[0], memory[0].flip(0))


def test_numbers_of_the_claims(part_of_run, monkeypatch):
    """With made-up losses: 100 for each token of memory, and the position in the segment."""
    monkeypatch.setattr(
        toy, "evaluate", lambda run, found, ids, keep: (100.0 * keep + torch.arange(8.0)).expand(len(ids), 8)
    )
    world = toy.World(None, None, torch.zeros(2, 9), torch.zeros(5, 9))
    at = Trial(Workshop(part_of_run(), world), Work(arm="any"), arm="any")
    for keep in (16, 0):
        made = toy.Outcome(None, toy.Reading(keep=keep, later=keep))
        found = toy.judge(at, Sweep(made, None, {}))
        assert {name: values.tolist() for name, values in found.items()} == {
            "nats per word": 5 * [100 * keep + 3.5],
            "nats per word, segment start - segment end": 5 * [-6.0],
            "nats per word, long memory": 5 * [400 * keep + 3.5],
        }
    nats = {"with memory": 2.0, "without memory": 3.0, "longer segments": 2.5}
    rows = {arm: {"nats per word": value} for arm, value in nats.items()}
    assert toy.half_of_the_gap(Table(rows=rows))[""][toy.HALF] == 0.75


def test_biases_are_by_distance():
    x, table, (u, v) = torch.randn(1, 20, 12), sines(20, 12).flip(0), torch.randn(2, 3, 4)
    biased = toy.Biased(12, 3, learned=True)
    before = biased(x[:, -2:], x, table, u, v)
    biased.bias.data[:, 4] = -1e4  # words four positions back are not visible
    other = x.clone()
    other[:, 20 - 1 - 4] += 1
    assert not torch.allclose(before[:, -1], biased(x[:, -2:], x, table, u, v)[:, -1])
    seen = [biased(x[:, -1:], keys, table, u, v) for keys in (x, other)]
    assert_close(*seen)


def test_absolute_positions_are_the_places_in_the_segment():
    made = outcome(toy.number_places)
    ids = torch.tensor([[5, 5, 5]])
    given = made.net.embedding(ids)
    assert_close(given - 8 * made.net.embedding.weight[5], sines(3, 64)[None])


def test_the_rivals_state_goes_from_segment_to_segment():
    """Read in segments, a text has the same loss as in one pass. Without memory, no state is passed on."""
    net, ids = toy.Carried(toy.WORDS, 8, layers=2), torch.randint(toy.WORDS, (2, 25))
    pieces, memory, found = list(toy.segments(ids, 8)), [], []
    for piece in pieces:
        nats, memory = net.loss(piece, memory, keep=16)
        assert not memory[0].requires_grad
        found.append(nats)
    assert_close(torch.cat(found, 1), net.loss(ids)[0])
    assert net.loss(pieces[1])[1] == []
    assert not torch.allclose(net.loss(pieces[1])[0], found[1])


@torch.no_grad()
def test_the_rivals_loss_is_of_the_next_word():
    """The probabilities of all possible last words sum to 1, and the last word changes no earlier loss."""
    net = toy.Carried(toy.WORDS, 8, layers=2)
    ids = torch.randint(toy.WORDS, (6,)).repeat(toy.WORDS, 1)
    ids[:, -1] = torch.arange(toy.WORDS)
    nats, _ = net.loss(ids)
    assert nats.shape == (toy.WORDS, 5)
    assert (-nats[:, -1]).exp().sum().item() == pytest.approx(1)
    assert_close(nats[:, :-1], nats[:1, :-1].expand(toy.WORDS, -1))


def test_words_are_counted_as_far_back_as_a_memory_reaches():
    ids = torch.randint(toy.WORDS, (2, 6 * toy.SEGMENT + 1))
    found = toy.counted(ids, toy.SEGMENT)
    for place in (0, 7, 8, 30, 47):
        first = max(place // 8 * 8 - 16, 0)
        window = ids[1, first : place + 1]
        expected = (window == ids[1, place + 1]).double().mean().item()
        assert found[1, place].item() == pytest.approx(expected)


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(transformer_xl)] == ["next segment"]


def test_the_benchmarks_functions_are_the_model():
    net, ids = small(), torch.randint(11, (2, 6))
    assert_close(logits(dict(net.named_parameters()), ids, heads=3), net(ids)[0])
