"""Attention compared with torch's, the paper's own invariants, and the experiment's arms."""

from __future__ import annotations

import importlib
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.checks.constants import digest
from readtrack.papers import attention
from readtrack.papers.attention import (
    MultiHeadAttention,
    Translator,
    attention_weights,
    merge_heads,
    scaled_dot_product_attention,
    split_heads,
)
from readtrack.papers.attention.experiment import (
    DRAWN,
    LENGTHS,
    VOCAB,
    sentences,
    translate,
    with_even_weights,
    with_shuffled_values,
    with_weights_by_position,
)
from readtrack.plugin import Cost, Run
from readtrack.runs.events import EventWriter

toy = importlib.import_module("readtrack.papers.attention.experiment")  # the hook has the same name


def vectors(queries: int = 7, keys: int = 5, *, values: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 3, queries, 6), torch.randn(2, 3, keys, 6), torch.randn(2, 3, keys, values)


def lower_right(queries: int, keys: int) -> Tensor:
    """Query i of the last `queries` positions sees the keys up to its own position."""
    position = torch.arange(queries)[:, None] + keys - queries
    return torch.arange(keys) <= position


# Equation 1


def test_equation_1_matches_torchs(assert_parity):
    assert_parity(scaled_dot_product_attention, F.scaled_dot_product_attention, vectors())


@pytest.mark.parametrize("shape", [(7, 5), (2, 1, 7, 5), (2, 3, 7, 5), (1, 5)])
def test_masks_match_torchs(assert_parity, shape):
    mask = torch.rand(shape) < 0.5
    mask[..., 0] = True
    assert_parity(
        partial(scaled_dot_product_attention, mask=mask),
        partial(F.scaled_dot_product_attention, attn_mask=mask.expand(*shape[:-2], 7, 5)),
        vectors(),
    )


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (3, 8), (1, 6)])
def test_causal_attention_aligns_the_ends(assert_parity, queries, keys):
    assert_parity(
        partial(scaled_dot_product_attention, causal=True),
        partial(F.scaled_dot_product_attention, attn_mask=lower_right(queries, keys)),
        vectors(queries, keys),
    )


def test_square_causal_attention_matches_torchs(assert_parity):
    assert_parity(
        partial(scaled_dot_product_attention, causal=True),
        partial(F.scaled_dot_product_attention, is_causal=True),
        vectors(6, 6),
    )


def test_a_mask_and_causality_both_hold(assert_parity):
    mask = torch.rand(2, 1, 5, 5) < 0.7
    mask |= torch.eye(5, dtype=torch.bool)
    assert_parity(
        partial(scaled_dot_product_attention, mask=mask, causal=True),
        partial(F.scaled_dot_product_attention, attn_mask=mask & lower_right(5, 5)),
        vectors(5, 5),
    )


def test_another_scale_takes_the_place_of_the_root(assert_parity):
    assert_parity(
        partial(scaled_dot_product_attention, scale=0.3),
        partial(F.scaled_dot_product_attention, scale=0.3),
        vectors(),
    )


@pytest.mark.parametrize("causal", [False, True])
def test_one_query_at_a_time_is_the_same_function(assert_parity, causal):
    assert_parity(
        partial(attention.one_query_at_a_time, causal=causal),
        partial(scaled_dot_product_attention, causal=causal),
        vectors(6, 6, values=6),
    )


def test_gradients_match_finite_differences():
    q, k, v = (tensor.double().requires_grad_() for tensor in vectors(3, 4))
    mask = torch.tensor([[True, False, True, True], [False] * 4, [True] * 4])
    assert torch.autograd.gradcheck(partial(scaled_dot_product_attention, mask=mask), (q, k, v))


def test_a_query_that_may_look_nowhere_gets_zeros_and_sends_no_gradient():
    q, k, v = (tensor.requires_grad_() for tensor in vectors(5, 3))
    out = scaled_dot_product_attention(q, k, v, causal=True)
    gradients = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert not out[..., :2, :].any()
    assert out[..., 2:, :].any()
    assert not gradients[0][..., :2, :].any()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_weights_are_a_distribution_and_ignore_masked_positions():
    q, k, _ = vectors(5, 5)
    weights = attention_weights(q, k, causal=True)
    assert_close(weights.sum(-1), torch.ones(2, 3, 5))
    assert not weights[..., ~lower_right(5, 5)].any()


def test_the_future_has_no_influence():
    q, k, v = vectors(6, 6)
    before = scaled_dot_product_attention(q, k, v, causal=True)
    for tensor in (q, k, v):
        tensor[..., 4:, :] = 9.0
    after = scaled_dot_product_attention(q, k, v, causal=True)
    assert torch.equal(before[..., :4, :], after[..., :4, :])


def test_the_order_of_keys_does_not_matter():
    q, k, v = (tensor.double() for tensor in vectors())
    order = torch.randperm(5)
    shuffled = scaled_dot_product_attention(q, k[..., order, :], v[..., order, :])
    assert_close(shuffled, scaled_dot_product_attention(q, k, v), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_masked_positions_have_no_weight_for_any_score(dtype):
    """With a finite number in place of -inf, scores of tens of thousands would exceed it."""
    q = torch.full((3, 1), 180.0, dtype=dtype)
    k = torch.tensor([[-180.0], [180.0], [180.0]], dtype=dtype)
    first = attention_weights(q, k, causal=True, scale=1.0)[0]
    masked = attention_weights(q[:1], k, mask=torch.tensor([[True, False, False]]), scale=1.0)[0]
    assert first.tolist() == masked.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("how", [{}, {"causal": True}, {"mask": True}])
def test_second_derivatives_match_finite_differences(how):
    mask = {"mask": torch.tensor([[True, False, True], [False] * 3])} if "mask" in how else how
    inputs = [torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (2, 3, 3)]
    assert torch.autograd.gradgradcheck(partial(scaled_dot_product_attention, **mask), inputs)


def test_shapes_are_checked_in_these_tests():
    q, k, v = vectors()
    with pytest.raises(TypeCheckError):
        scaled_dot_product_attention(q, k[..., :5], v)


# Heads


def as_torch(weights: dict[str, Tensor], *, packed: bool) -> dict[str, Tensor]:
    """Our parameters with the names of `nn.MultiheadAttention`: one packed matrix, or three if the
    dimensions differ.
    """
    names = ("query", "key", "value")
    theirs = {"out_proj.weight": weights["output.weight"]}
    if packed:
        theirs["in_proj_weight"] = torch.cat([weights[f"{name}.weight"] for name in names])
    else:
        theirs |= {f"{name[0]}_proj_weight": weights[f"{name}.weight"] for name in names}
    if "output.bias" in weights:
        theirs["out_proj.bias"] = weights["output.bias"]
        theirs["in_proj_bias"] = torch.cat([weights[f"{name}.bias"] for name in names])
    return theirs


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_self_attention_matches_torchs(assert_parity, heads, bias):
    ours = MultiHeadAttention(12, heads, bias=bias).double()
    theirs = nn.MultiheadAttention(12, heads, bias=bias, batch_first=True)
    causal = lower_right(5, 5)
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,), {"causal": True}),
        lambda w, x: functional_call(
            theirs, as_torch(w, packed=True), (x, x, x), {"attn_mask": ~causal, "need_weights": False}
        )[0],
        (torch.randn(2, 5, 12),),
        weights=dict(ours.named_parameters()),
    )


@pytest.mark.parametrize("width", [12, 7])
def test_cross_attention_matches_torchs(assert_parity, width):
    ours = MultiHeadAttention(12, 4, context=width, bias=True).double()
    theirs = nn.MultiheadAttention(12, 4, kdim=width, vdim=width, batch_first=True)
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    assert_parity(
        lambda w, x, c: functional_call(ours, w, (x, c), {"mask": ~padding[:, None]}),
        lambda w, x, c: functional_call(
            theirs,
            as_torch(w, packed=width == 12),
            (x, c, c),
            {"key_padding_mask": padding, "need_weights": False},
        )[0],
        (torch.randn(2, 3, 12), torch.randn(2, 5, width)),
        weights=dict(ours.named_parameters()),
    )


def test_a_mask_of_a_batch_holds_for_every_head():
    layer = MultiHeadAttention(12, 3)
    x = torch.randn(2, 5, 12)
    mask = torch.rand(2, 5, 5) < 0.6
    out = layer(x, mask=mask)
    one = torch.cat([layer(x[i : i + 1], mask=mask[i]) for i in range(2)])
    assert_close(out, one)


def test_heads_are_split_in_order_and_merged_back():
    x = torch.randn(2, 5, 12)
    assert torch.equal(split_heads(x, 3)[:, 1], x[..., 4:8])
    assert torch.equal(merge_heads(split_heads(x, 3)), x)


@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_is_as_accurate_as_torchs(assert_half_precision, causal):
    """torch's layer rounds at the same steps if it returns the weights; its fused kernel rounds less
    often.
    """
    ours = MultiHeadAttention(64, 4)
    theirs = nn.MultiheadAttention(64, 4, bias=False, batch_first=True)
    mask = {"attn_mask": ~lower_right(40, 40)} if causal else {}

    def reference(w, x):
        return functional_call(theirs.to(x.dtype), as_torch(w, packed=True), (x, x, x), mask)[0]

    assert_half_precision(
        lambda w, x: functional_call(ours, w, (x,), {"causal": causal}),
        reference,
        [torch.randn(4, 40, 64)],
        weights={name: 2 * weight for name, weight in ours.named_parameters()},
    )


@pytest.mark.parametrize("how", [{}, {"causal": True}, {"mask": torch.rand(2, 5, 5) < 0.7}])
def test_it_runs_under_autocast(how):
    """Its error is no larger than that of torch's own layer."""
    ours, theirs = MultiHeadAttention(64, 4), nn.MultiheadAttention(64, 4, bias=False, batch_first=True)
    theirs.load_state_dict(as_torch(ours.state_dict(), packed=True))
    x = torch.randn(2, 5, 64)
    exact = ours(x)
    with torch.autocast("cpu", torch.bfloat16):
        mine, torchs = ours(x, **how), theirs(x, x, x, need_weights=False)[0]
    assert mine.dtype == torchs.dtype == torch.bfloat16
    if not how:
        assert (mine - exact).abs().max() <= 2 * (torchs - exact).abs().max()
    mine.float().square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in ours.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_its_projections_fire(training):
    layer = MultiHeadAttention(12, 3).train(training)
    called = []
    for name, part in layer.named_children():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    layer(torch.randn(2, 5, 12))
    assert called == ["query", "key", "value", "output"]


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 10 cannot be split over 3 heads"):
        MultiHeadAttention(10, 3)


def test_the_papers_layer_has_a_million_parameters():
    with torch.device("meta"):
        layer = MultiHeadAttention(512, 8)  # section 3.2.2: model size 512, eight heads of 64
    assert sum(weight.numel() for weight in layer.parameters()) == 4 * 512 * 512


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(attention)
    arms = {"attention", "fixed vector"}
    assert record.headline_curve == "accuracy over words"
    curves = record.curves["accuracy over words"]
    assert curves.keys() == arms
    assert all([step for step, _ in curve] == [4, 8, 12, 16] for curve in curves.values())
    assert record.curves["training loss"].keys() == {f"{arm}, rate 0.02" for arm in arms}
    accuracy = {arm: dict(curve) for arm, curve in curves.items()}
    claim = next(c for c in record.claims if c["claim"]["name"] == attention.NO_BOTTLENECK.name)
    assert claim["values"] == {
        "accuracy at 12 words, attention": accuracy["attention"][12],
        "accuracy at 12 words, attention - fixed vector": pytest.approx(
            accuracy["attention"][12] - accuracy["fixed vector"][12]
        ),
        "accuracy at 4 words, fixed vector": accuracy["fixed vector"][4],
    }
    assert [artifact["name"] for artifact in record.artifacts] == ["alignment"]


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(
        folder=tmp_path,
        events=EventWriter(tmp_path),
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=0,
        budget="smoke",
        settings={},
    )


def test_the_language_swaps_neighbours_and_translates_each_word(run):
    source, target, written = sentences(run, 300, 8, torch.Generator().manual_seed(1))
    swapped = source.unflatten(1, (-1, 2)).flip(2).flatten(1)
    lexicon = {word: set(target[swapped == word].tolist()) for word in range(VOCAB)}
    assert all(len(translations) == 1 for translations in lexicon.values())
    assert set.union(*lexicon.values()) == set(range(VOCAB))
    assert (written[:, 0] == VOCAB).all()
    assert torch.equal(written[:, 1:], target[:, :-1])


class Stumbling(Translator):
    """Translates correctly except for one wrong word, and continues wrongly after a wrong word."""

    lexicon: Tensor
    stumbles_at: int

    def forward(self, source: Tensor, written: Tensor) -> Tensor:
        right = self.lexicon[source].unflatten(1, (-1, 2)).flip(2).flatten(1)
        newest = written.shape[1] - 1
        lost = (written[:, 1:] != right[:, :newest]).any(1) | (newest == self.stumbles_at)
        word = (right[:, newest] + lost) % VOCAB
        return F.one_hot(word, VOCAB).float()[:, None]


@pytest.mark.parametrize(("stumbles_at", "right"), [(-1, 1.0), (0, 0.0), (1, 1 / 4), (3, 3 / 4)])
def test_sentences_are_scored_as_the_network_writes_them_by_itself(run, stumbles_at, right):
    """The network reads its own words, not the correct words."""
    translator = Stumbling(VOCAB, 4, attend=True)
    translator.lexicon = torch.randperm(VOCAB, generator=run.generator("lexicon"))
    translator.stumbles_at = stumbles_at
    assert translate(run, translator, 4).tolist() == [right] * 20


def test_both_translators_have_the_same_weights():
    with_attention, without = (Translator(6, 8, attend=attend) for attend in (True, False))
    assert [p.shape for p in with_attention.parameters()] == [p.shape for p in without.parameters()]


def test_without_attention_everything_passes_the_one_vector():
    """Only the encoder's last state counts; with attention, all states do."""
    source, written = torch.randint(6, (1, 8)), torch.randint(6, (1, 4))
    for attend in (True, False):
        translator = Translator(6, 8, attend=attend)
        states, last = translator.encoder(translator.source(source))
        other = states.clone()
        other[:, :-1] += 1
        found = []
        for seen in (states, other):
            translator.encoder.forward = lambda x, seen=seen, last=last: (seen, last)
            found.append(translator(source, written))
        assert torch.equal(*found) != attend
        decoded, context = translator.read(source, written)
        assert context.shape[1] == (8 if attend else 1)
        assert torch.equal(decoded, translator.decoder(translator.target(written), last)[0])


def test_the_control_begins_its_sentences_where_the_encoder_ended():
    """Without attention, nothing else distinguishes one source from another."""
    control = Translator(6, 8, attend=False)
    written = torch.randint(6, (1, 4))
    one, other = (control(torch.full((1, 8), word), written) for word in (0, 1))
    assert (one - other).abs().max() > 1e-3


def test_breaks_remove_the_named_ingredient():
    source, written = torch.randint(VOCAB, (3, 8)), torch.randint(VOCAB, (3, 5))
    even = with_even_weights()
    decoded, states = even.read(source, written)
    mean = even.attention.output(even.attention.value(states).mean(1, keepdim=True)).expand(-1, 5, -1)
    assert_close(even.attention(decoded, states), mean)
    assert not even.attention.query.weight.requires_grad
    shuffled = with_shuffled_values()
    whole = Translator(VOCAB, shuffled.source.embedding_dim, attend=True)
    whole.load_state_dict(shuffled.state_dict())
    _, states = whole.read(source, written)
    values, right = shuffled.attention.value(states), whole.attention.value(states)
    order = torch.cdist(values[0], right[0]).argmin(1)
    assert order.sort().values.tolist() == list(range(8))
    assert order.tolist() != list(range(8))
    assert torch.equal(values, right[:, order])


def test_the_rivals_weights_go_by_position():
    """The weights do not depend on the words, and shorter sentences use a corner of the table."""
    rival = with_weights_by_position()
    nn.init.normal_(rival.attention.scores)
    states, decoded = torch.randn(2, 6, 48), torch.randn(2, 3, 48)
    weights = rival.attention.scores[:3, :6].softmax(-1)
    assert_close(rival.attention(decoded, states), weights @ rival.attention.value(states))
    assert torch.equal(rival.attention(-decoded, states), rival.attention(decoded, states))


MAKERS = {
    "": "",
    "uniform weights": "with_even_weights",
    "shuffled values": "with_shuffled_values",
    "position-dependent weights": "with_weights_by_position",
}


@pytest.mark.parametrize("broken", MAKERS)
def test_the_networks_that_learn_to_translate(part_of_run, monkeypatch, broken):
    made = {}

    def watched(at, make, rate):
        made[at.name] = make
        return 0.0, make()

    monkeypatch.setattr(toy, "train_translator", watched)
    run = part_of_run(broken=broken)
    toy.compare_translators(run)
    control, ours = made["fixed vector"], made["attention"]
    assert control.keywords == {"attend": False}
    assert control.args == (VOCAB, 48)
    if broken:
        assert ours.__name__ == MAKERS[broken]
    else:
        assert (ours.func, ours.args, ours.keywords) == (Translator, (VOCAB, 48), {"attend": True})


def test_the_set_up_is_the_stated_one():
    assert digest(toy) == "81fd3949ed0d"
    assert (LENGTHS, set(DRAWN)) == ((4, 8, 12), {4, 8, 12})
    assert attention.SCALING.kind == "theorem"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(attention)) == 3


@pytest.mark.parametrize("causal", [False, True])
def test_large_scores_do_not_spoil_it(assert_parity, causal):
    """The benchmark's hard inputs: in each row one weight is close to 1, and most others are close to 0."""
    q, k, v = vectors(6, 6, values=6)
    assert_parity(
        partial(scaled_dot_product_attention, causal=causal),
        partial(F.scaled_dot_product_attention, is_causal=causal),
        (100 * q, k, v),
        rtol=1e-8,
        atol=1e-9,
    )


@pytest.mark.parametrize("backward", [False, True])
def test_the_stated_cost_matches_torchs_count(backward):
    shape = (2, 3, 8, 16)
    q, k, v = (torch.randn(shape, requires_grad=backward) for _ in range(3))
    with FlopCounterMode(display=False) as counter:
        out = scaled_dot_product_attention(q, k, v)
        if backward:
            out.sum().backward()
    stated = Cost.attention(*shape, itemsize=4)
    assert counter.get_total_flops() == stated["forward+backward" if backward else "forward"].flops


def test_causal_cost_counts_visible_pairs():
    full, causal = (Cost.attention(1, 1, 8, 4, causal=c, itemsize=4)["forward"] for c in (False, True))
    assert causal.flops / full.flops == lower_right(8, 8).float().mean()
    assert causal.bytes == full.bytes == 4 * 8 * 4 * 4
