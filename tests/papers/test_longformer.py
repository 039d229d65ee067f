"""Longformer compared with transformers', the band with full attention, and the receptive field of a
token.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention.flex_attention import flex_attention
from torch.testing import assert_close
from transformers import LongformerConfig, LongformerModel

from readtrack.checks.constants import digest
from readtrack.papers import longformer
from readtrack.papers.longformer import Longformer, LongformerAttention, banded_attention, from_released
from readtrack.papers.longformer.benchmark import pairs, visible_pairs
from readtrack.papers.roberta import PADDING
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

timed = importlib.import_module("readtrack.papers.longformer.benchmark")
toy = importlib.import_module("readtrack.papers.longformer.experiment")  # the hook has the same name


def by_pairs(q: Tensor, k: Tensor, v: Tensor, window: int, seen: Tensor, everywhere: Tensor | None) -> Tensor:
    """Attention with one query at a time, over the keys that it may see."""
    result = torch.zeros_like(q)
    for b in range(q.shape[0]):
        far = set() if everywhere is None else set(everywhere[b].tolist())
        for i in range(q.shape[2]):
            near = range(max(i - window, 0), min(i + window + 1, q.shape[2]))
            keys = sorted(j for j in {*near, *far} if seen[b, j])
            if keys:
                scores = q[b, :, i, None] @ k[b, :, keys].mT / q.shape[-1] ** 0.5
                result[b, :, i] = (scores.softmax(-1) @ v[b, :, keys])[:, 0]
    return result


@pytest.mark.parametrize(("tokens", "window"), [(12, 3), (11, 4), (5, 8), (1, 2), (9, 1)])
@pytest.mark.parametrize("globals_", [None, [0], [4, 0]])
def test_the_band_is_all_scores_masked(assert_parity, tokens, window, globals_):
    q, k, v = torch.randn(3, 2, 3, tokens, 4)
    everywhere = None
    if globals_ is not None:
        everywhere = torch.tensor([globals_, [min(tokens - 1, 7), 1][: len(globals_)]]).clamp(max=tokens - 1)
        if len(globals_) > 1 and tokens < 5:
            everywhere = everywhere[:, :1]
    seen = torch.ones(2, tokens, dtype=torch.bool)
    seen[1, 2 * tokens // 3 :] = False
    if tokens > 4:
        seen[0, 2] = False
    assert_parity(
        lambda *x: banded_attention(*x, window=window, visible=seen, everywhere=everywhere),
        lambda *x: by_pairs(*x, window, seen, everywhere),
        (q, k, v),
    )


def test_an_all_visible_mask_equals_no_mask():
    q, k, v = torch.randn(3, 2, 3, 12, 4, dtype=torch.float64)
    seen = torch.ones(2, 12, dtype=torch.bool)
    assert_close(
        banded_attention(q, k, v, window=3), banded_attention(q, k, v, window=3, visible=seen), rtol=0, atol=0
    )


def reference(vocab: int, context: int, window: int, model: int, heads: int, layers: int) -> LongformerModel:
    config = LongformerConfig(
        vocab_size=vocab,
        max_position_embeddings=context + 2,
        attention_window=2 * window,
        hidden_size=model,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=4 * model,
        type_vocab_size=1,
        pad_token_id=1,
        layer_norm_eps=1e-5,
    )
    return LongformerModel(config).eval()


@pytest.mark.parametrize("globals_", [[0], [0, 5]])
def test_it_matches_transformers(globals_):
    """The weights are mapped as released weights are, and the texts have different lengths."""
    theirs = reference(31, 24, 3, 20, 5, 2)
    ours = Longformer(31, context=24, window=3, model=20, heads=5, layers=2, dropout=0.0)
    ours.load_state_dict(from_released(theirs.state_dict()))
    ours, theirs = ours.double(), theirs.double()
    generator = torch.Generator().manual_seed(3)
    for part in theirs.parameters():
        part.data += torch.randn(part.shape, generator=generator) / 10
    ours.load_state_dict(from_released(theirs.state_dict()))
    ids = torch.randint(2, 31, (2, 18))
    visible = torch.arange(18) < torch.tensor([18, 13])[:, None]
    ids = ids.masked_fill(~visible, PADDING)
    everywhere = torch.tensor(globals_).expand(2, -1)
    marks = torch.zeros(2, 18).scatter(1, everywhere, 1.0)
    found = ours(ids, visible=visible, everywhere=everywhere)
    expected = theirs(ids, attention_mask=visible.long(), global_attention_mask=marks.long())
    # The reference computes the softmax in single precision.
    assert_close(found[visible], expected.last_hidden_state[visible], rtol=1e-5, atol=1e-6)
    assert_close(ours.pooled(found), expected.pooler_output, rtol=1e-5, atol=1e-6)
    found[visible].square().sum().backward()
    expected.last_hidden_state[visible].square().sum().backward()
    renamed = from_released({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    own = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert own.keys() >= renamed.keys() - {"pooler.weight", "pooler.bias"}
    for name, gradient in own.items():
        if name in renamed and name != "tokens.weight":  # the reference has no gradient for padding
            assert_close(gradient, renamed[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="Longformer has no parameter"):
        from_released({"tail": torch.zeros(1)})


def test_parameters_are_the_released_ones():
    with torch.device("meta"):
        base = Longformer()
    assert sum(weight.numel() for weight in base.parameters()) == 148_659_456
    assert base.blocks[0].attention.window == 256
    assert {part.p for part in base.modules() if isinstance(part, nn.Dropout)} == {0.1}
    with pytest.raises(ValueError, match="width 10 cannot be split over 3 heads"):
        LongformerAttention(10, 3, 2)


def test_global_projections_begin_as_the_local_ones():
    attention = Longformer(9, context=8, model=8, heads=2, layers=2).blocks[1].attention
    for name in ("query", "key", "value"):
        local, wide = getattr(attention, name), getattr(attention, f"{name}_global")
        assert torch.equal(local.weight, wide.weight)
        assert local.weight is not wide.weight


def test_the_receptive_field_of_a_token():
    """Two layers with a window of two reach four tokens. A global token reaches all tokens, and all reach
    it.
    """
    net = Longformer(20, context=16, window=2, model=8, heads=2, layers=2, std=0.5, dropout=0.0).double()
    ids = torch.randint(2, 20, (1, 16))
    changed = ids.clone()
    changed[0, 8] = (changed[0, 8] - 1) % 18 + 2

    def moved(**given: Tensor) -> list[int]:
        difference = (net(ids, **given) - net(changed, **given)).abs().amax((0, 2))
        return (difference > 1e-12).nonzero()[:, 0].tolist()

    assert moved() == list(range(4, 13))
    assert moved(everywhere=torch.tensor([[0]])) == list(range(16))


def test_autocast_and_half_precision(assert_half_precision):
    q, k, v = torch.randn(3, 2, 2, 20, 8)
    seen, everywhere = torch.ones(2, 20, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.long)
    assert_half_precision(
        lambda *x: banded_attention(*x, window=4, everywhere=everywhere),
        lambda *x: by_pairs(*x, 4, seen, everywhere),
        [q, k, v],
    )
    net = Longformer(20, context=16, window=2, model=8, heads=2, layers=1, dropout=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(torch.randint(2, 20, (2, 16)), everywhere=torch.zeros(2, 1, dtype=torch.long)).mean()
    loss.backward()
    assert all(w.grad.isfinite().all() for w in net.parameters() if w.grad is not None)


def test_pairs_are_counted():
    for tokens, window, count in ((10, 3, 2), (7, 9, 1), (20, 1, 3)):
        seen = visible_pairs(tokens, torch.arange(count)[None], window)
        assert pairs(tokens, window, count) == seen.sum().item()


# The toy task


def test_texts_hold_one_fact_of_each_kind_and_ask_for_one():
    ids, answer, place = toy.draw(200, torch.Generator().manual_seed(1))
    facts = toy.FACTS + toy.KINDS * toy.VALUES
    for text, value, at in zip(ids.tolist(), answer.tolist(), place.tolist(), strict=True):
        kind = text[0] - 2
        assert text[at] == toy.FACTS + kind * toy.VALUES + value
        found = [token - toy.FACTS for token in text[1:] if toy.FACTS <= token < facts]
        assert sorted(token // toy.VALUES for token in found) == list(range(toy.KINDS))
        assert PADDING not in text
    assert place.bincount(minlength=toy.LENGTH)[1:].min() > 0


def test_arms_match_their_names():
    ids, _, _ = toy.draw(2, torch.Generator().manual_seed(1))
    changed = ids.clone()
    changed[:, 20] = toy.FACTS + (changed[:, 20] - toy.FACTS + 1) % 34
    answers = {}
    for name, window, everywhere, pooled in (
        ("global", 2, 0, ""),
        ("mean", 2, None, "mean"),
        ("max", 2, None, "max"),
        ("alone", 2, None, ""),
        ("full", 24, None, ""),
    ):
        torch.manual_seed(0)
        reader = toy.Reader(window, everywhere=everywhere, pooled=pooled)
        answers[name] = not torch.equal(reader(ids), reader(changed))
    assert answers == {"global": True, "mean": True, "max": True, "alone": False, "full": True}


def test_the_question_is_added_to_every_token():
    ids, _, _ = toy.draw(1, torch.Generator().manual_seed(1))
    reader, asked = toy.Reader(2, pooled="mean"), toy.Reader(2, pooled="max", asked=True)
    words = [one.encoder.tokens(ids) for one in (reader, asked)]
    weight = asked.encoder.tokens.weight
    assert_close(words[1], weight[ids] + weight[ids[:, :1]])
    assert_close(words[0], reader.encoder.tokens.weight[ids])


@pytest.mark.parametrize("pooled", ["", "mean", "max"])
def test_hidden_states_from_which_the_answer_is_predicted(pooled):
    ids, _, _ = toy.draw(3, torch.Generator().manual_seed(1))
    reader, seen = toy.Reader(2, pooled=pooled), []
    reader.output.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    reader(ids)
    hidden = reader.encoder(ids)
    read = {"": hidden[:, 0], "mean": hidden.sum(1) / toy.LENGTH, "max": hidden.max(1).values}
    assert_close(seen[0], read[pooled])


def test_the_farthest_third_is_far_from_the_question(part_of_run, monkeypatch):
    """The answers' positions are 1 to 23, and only those from 17 on are answered correctly."""
    place = torch.arange(1, toy.LENGTH)
    monkeypatch.setattr(toy, "right", lambda run, reader, task: (task[2] >= 17).double())
    world = toy.World((None, None, 0 * place), (None, None, place))
    at = Trial(Workshop(part_of_run(), world), Work(arm="any"), arm="any")
    found = toy.judge(at, Sweep(None, None, {}))
    assert found[toy.FAR].tolist() == 7 * [1.0]
    assert found["accuracy"].mean().item() == pytest.approx(7 / 23)


def test_the_set_up_is_the_stated_one():
    assert digest(toy) == "a87beb8f12e8"
    assert (toy.STEPS, toy.LENGTH, toy.WINDOW, toy.RATES) == (180, 24, 2, (1e-3, 3e-3, 1e-2))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(longformer)
    assert record.headline_curve == "accuracy over distance"
    curves = record.curves["accuracy over distance"]
    assert curves.keys() == {"global token", "window alone", "full attention"}
    assert [place for place, _ in curves["global token"]] == pytest.approx([23 / 6, 23 / 2, 115 / 6])


@pytest.mark.parametrize(
    ("broken", "ours"),
    [
        ("", (2, 0, "", False)),
        ("no global token", (2, None, "", False)),
        ("another global token", (2, 1, "", False)),
        ("question embedding added to every token", (2, None, "max", True)),
    ],
)
def test_the_window_of_each_arm(part_of_run, monkeypatch, broken, ours):
    made = {}

    def watched(at, make, rate):
        reader = make()
        window = reader.encoder.blocks[0].attention.window
        made[at.name] = window, reader.everywhere, reader.pooled, reader.asked
        return 0.5, reader

    monkeypatch.setattr(toy, "train", watched)
    toy.ask(part_of_run(broken=broken))
    assert made == {
        "global token": ours,
        "window alone": (2, None, "mean", False),
        "full attention": (24, None, "", False),
    }


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
def test_flex_attention_sees_the_band_and_the_global_tokens(monkeypatch):
    """Tests only the eager forward pass; everything else requires CUDA."""
    monkeypatch.setattr(timed, "compiled_flex", lambda: flex_attention)
    everywhere = torch.tensor([[0, 3], [140, 7]])
    inputs = (*torch.randn(3, 2, 3, 150, 4, dtype=torch.float64), everywhere)
    found = timed.flex(*timed.in_numbers(*inputs), window=20)
    assert_close(found, timed.formula(*timed.with_mask(*inputs, window=20)))


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(longformer)] == ["attention"]


def test_the_module_is_functional():
    layer = LongformerAttention(8, 2, 3).double()
    weights = {name: torch.randn_like(w) for name, w in layer.named_parameters()}
    x, everywhere = torch.randn(2, 7, 8).double(), torch.tensor([[0], [3]])
    first = functional_call(layer, weights, (x,), {"everywhere": everywhere})
    layer.load_state_dict(weights)
    assert_close(layer(x, everywhere=everywhere), first)
