"""Cosine attention compared with loops and torch's cosine similarity, the position of the rotation, and
the arms.
"""

from __future__ import annotations

import importlib
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import qk_norm
from readtrack.papers.qk_norm import QKNormAttention, line_by_line, normalised, qk_norm_attention
from readtrack.papers.rope import RotaryAttention
from readtrack.papers.rope.experiment import Text
from readtrack.runs.trial import Trial, Work, Workshop

EXPERIMENT = importlib.import_module("readtrack.papers.qk_norm.experiment")  # the hook has the same name


def by_loops(q, k, v, g, *, causal):
    """Attention with one query at a time, and with scores from torch's cosine similarity."""
    rows = []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = i + 1 if causal else k.shape[2]
                scores = g * nn.functional.cosine_similarity(q[b, h, i][None], k[b, h, :seen], dim=-1)
                rows.append(scores.softmax(0) @ v[b, h, :seen])
    return torch.stack(rows).view(*q.shape[:3], -1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [1, 6])
def test_both_are_the_loops(assert_parity, causal, tokens):
    inputs = *(torch.randn(2, 3, tokens, 4) * 3 for _ in range(3)), torch.tensor([5.0])
    for ours in (line_by_line, qk_norm_attention):
        assert_parity(partial(ours, causal=causal), partial(by_loops, causal=causal), inputs, rtol=1e-7)


def test_half_precision_is_as_accurate_as_the_composition(assert_half_precision):
    composed = importlib.import_module("readtrack.papers.qk_norm.benchmark").composed

    def with_scale(attention):
        return lambda q, k, v: attention(q, k, v, torch.full((1,), 8.0, dtype=q.dtype), causal=True)

    assert_half_precision(
        with_scale(qk_norm_attention),
        with_scale(composed),
        tuple(torch.randn(2, 4, 64, 16) * 3 for _ in range(3)),
        dtypes=(torch.bfloat16,),
    )


def test_a_vector_of_zeros_stays_one_and_has_a_gradient():
    x = torch.zeros(1, 1, 2, 3, requires_grad=True)
    y = normalised(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad.isfinite().all()


def test_the_layer_is_the_rotary_one_by_cosines_with_its_own_scale():
    layer, plain = QKNormAttention(8, 2, tokens=10).double(), RotaryAttention(8, 2).double()
    assert layer.g.item() == pytest.approx(math.log2(90))
    plain.load_state_dict({name: w for name, w in layer.state_dict().items() if name != "g"})
    x = torch.randn(3, 5, 8).double()
    before = layer(x, causal=True)
    with torch.no_grad():
        layer.query.weight *= 100
        layer.key.weight *= 0.01
    assert_close(layer(x, causal=True), before)
    assert not torch.allclose(plain(x, causal=True), before)
    assert_close(layer(x, causal=True, first=7), before)


def test_normalising_after_the_rotation_is_normalising_before():
    layer = QKNormAttention(8, 2, tokens=10).double()
    q, k = torch.randn(2, 2, 5, 4).double(), torch.randn(2, 2, 5, 4).double()
    positions = torch.arange(5.0)
    after = [normalised(x) for x in layer.turn(q, k, positions)]
    before = layer.turn(normalised(q), normalised(k), positions)
    for one, other in zip(after, before, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_layer_of_the_base_transformer_has_one_number_more():
    with torch.device("meta"):
        layer = QKNormAttention(512, 8, tokens=50, bias=True)
    assert sum(p.numel() for p in layer.parameters()) == 4 * (512 * 512 + 512) + 1


def test_the_arms_and_their_breaks():
    found = {name: made(setting) for name, setting in EXPERIMENT.ARMS.items()}
    kinds = {name: type(layer) for name, layer in found.items()}
    assert kinds == {"cosines": EXPERIMENT.Cosines, "dot products": RotaryAttention}
    assert found["cosines"].g.item() == pytest.approx(qk_norm.first_scale(48))
    broken = {one.name: (made(setting), setting.clip) for one, setting in EXPERIMENT.BREAKS.items()}
    scale_1, _ = broken["scale 1"]
    assert (scale_1.g.item(), scale_1.g.requires_grad) == (1, False)
    clipped, clip = broken["clipped gradients"]
    assert (type(clipped), clip) == (RotaryAttention, 1.0)
    x = torch.randn(2, 5, 16)
    for name in ("learned scale", "unnormalised"):
        layer, clip = broken[name]
        clipped.load_state_dict({name: w for name, w in layer.state_dict().items() if name != "g"})
        assert_close(layer(x, causal=True), clipped(x, causal=True))
        assert clip is None


def made(setting):
    return setting.make(11, 16).blocks[0].attention


def test_training_learns_the_scale_and_ends_on_the_windows_to_choose_and_to_judge(part_of_run):
    run, models = part_of_run(), []
    text, setting = Text.of(run), EXPERIMENT.ARMS["cosines"]

    def make(vocab: int, model: int) -> nn.Module:
        models.append(setting.make(vocab, model))
        return models[-1]

    at = Trial(Workshop(run, text), Work(arm="cosines"), arm="cosines")
    losses = EXPERIMENT.train(at, setting._replace(make=make), 0.01, steps=2)
    (model,) = models
    with torch.no_grad():
        expected = [model.loss(text.windows(run, part)).item() for part in ("choose", "judge")]
    assert losses == pytest.approx(expected)
    assert expected[0] != pytest.approx(expected[1])
    for block in model.blocks:
        assert block.attention.g.item() != pytest.approx(qk_norm.first_scale(48))


def test_one_token_has_a_scale():
    assert qk_norm.first_scale(1) == qk_norm.first_scale(2) == 1.0


def test_the_experiment_runs(run_experiment):
    # After three steps, the highest learning rate is the best, because no arm has diverged.
    record = run_experiment(qk_norm, unreached=(qk_norm.HIGH_RATES.rule[0].metric,))
    curve = record.curves["held-out loss over rate"]
    assert curve.keys() == {"cosines", "dot products"}
    loss = {arm: record.values["held-out loss", arm] for arm in curve}
    _, quality, high = (list(claim["values"].values()) for claim in record.claims)
    assert quality[0] == pytest.approx(loss["dot products"] - loss["cosines"])
    at_high = {arm: dict(points)[0.1] for arm, points in curve.items()}
    assert high[1] == pytest.approx(at_high["cosines"] - at_high["dot products"])
    assert high[2] == pytest.approx(loss["cosines"] - loss["dot products"])
    assert high[3] == pytest.approx(at_high["dot products"] - loss["dot products"])
    assert digest(EXPERIMENT) == "a57fc0f8aaf7"


def test_every_variant_is_right(check_benchmark):
    names = [case.name for case in check_benchmark(qk_norm)]
    assert names == ["attention by cosines", "plain attention, on vectors of length 1"]
