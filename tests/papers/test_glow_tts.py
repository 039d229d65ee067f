"""Glow-TTS: layers against transformers' VITS, the flow against Jacobians, the search against all paths."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.testing import assert_close

from readtrack.papers import glow_tts
from readtrack.papers.glow_tts import (
    ActNorm,
    ChannelMixing,
    Coupling,
    EncoderLayer,
    Flow,
    GlowTTS,
    Sizes,
    WaveNet,
    divide,
    log_normal,
    mask_of,
    pad_mels,
    pad_text,
    search,
    squeeze,
    unsqueeze,
)
from readtrack.papers.glow_tts.experiment import (
    EVENLY,
    LINEAR,
    RATES,
    SIZES,
    Corpus,
    boundary_error,
    uncoupled,
)

MASK = mask_of(torch.tensor([6, 4]), 6, torch.zeros(1, dtype=torch.float64))


def vits(**fields):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers.models.vits import modeling_vits

    return transformers.VitsConfig(hidden_size=8, speaker_embedding_size=0, **fields), modeling_vits


def random_weights(module: nn.Module, scale: float = 0.3) -> nn.Module:
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(scale * torch.randn_like(weight))
    return module


@pytest.mark.parametrize("symbols", [1, 3, 11])
def test_an_encoder_layer_is_transformers(assert_parity, symbols):
    config, module = vits(
        num_attention_heads=2, ffn_dim=12, window_size=4, hidden_dropout=0.0, attention_dropout=0.0
    )
    theirs, ours = module.VitsEncoderLayer(config).eval(), EncoderLayer(8, 12, 2, 0.0)
    random_weights(ours)
    lengths = torch.tensor([symbols, max(symbols - 2, 1)])
    mask = mask_of(lengths, symbols, torch.zeros(1, dtype=torch.float64))
    hidden = (1 - mask[:, None]).expand(2, 1, symbols, symbols) * torch.finfo(torch.float64).min
    assert_parity(
        lambda w, x: functional_call(ours, w, (x, mask)) * mask.mT,
        lambda w, x: functional_call(theirs, w, (x, mask.mT, hidden))[0] * mask.mT,
        (torch.randn(2, symbols, 8),),
        weights=dict(ours.named_parameters()),
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_the_wavenet_is_transformers(assert_parity, layers):
    config, module = vits(wavenet_kernel_size=3, wavenet_dilation_rate=1, wavenet_dropout=0.0)
    theirs, ours = module.VitsWaveNet(config, layers), WaveNet(8, layers, 3)
    for part in [*theirs.in_layers, *theirs.res_skip_layers]:
        parametrize.remove_parametrizations(part, "weight")
    assert_parity(
        lambda w, x: functional_call(ours, w, (x, MASK)),
        lambda w, x: functional_call(theirs, w, (x, MASK)),
        (torch.randn(2, 8, 6) * MASK.float(),),
        weights=dict(ours.named_parameters()),
    )


@pytest.mark.parametrize(
    "layer", [ActNorm(8), ChannelMixing(8), Coupling(8, 6, 2, 3, 0.0)], ids=lambda one: type(one).__name__
)
def test_each_layer_is_exact(layer):
    random_weights(layer.double(), 0.3)
    x = torch.randn(2, 8, 6, dtype=torch.float64) * MASK
    z, logs = layer(x, MASK)
    assert_close(layer.inverse(z * MASK, MASK), x)
    for row, frames in ((0, 6), (1, 4)):
        alone, mask = x[row : row + 1, :, :frames], MASK[row : row + 1, :, :frames]
        jacobian = torch.autograd.functional.jacobian(
            lambda flat, shape=alone.shape, mask=mask: layer(flat.view(shape), mask)[0], alone.flatten()
        )
        wanted = torch.linalg.slogdet(jacobian.reshape(alone.numel(), -1))[1]
        assert_close(logs[row], wanted)


def test_padding_changes_nothing():
    flow = random_weights(Flow(4, 8, 2, 2, 3).double(), 0.2)
    x = torch.randn(2, 4, 6, dtype=torch.float64) * MASK
    z, logs = flow(x, MASK)
    alone, log = flow(x[1:, :, :4], MASK[1:, :, :4])
    assert_close(z[1:, :, :4], alone)
    assert_close(logs[1:], log)
    assert_close(flow.inverse(z, MASK), x)
    with pytest.raises(ValueError, match="not pairs"):
        flow(x[..., :5], MASK[..., :5])


def test_a_flow_begins_as_normed_rotations():
    flow = Flow(4, 8, 3, 2, 3)
    x = 5 + 3 * torch.randn(4, 4, 40)
    mask = torch.ones(4, 1, 40)
    flow.fit(x, mask)
    z = squeeze(flow(x, mask)[0])
    assert_close(z.mean((0, 2)), torch.zeros(8), atol=0.4, rtol=0)
    first = flow.steps[0](squeeze(x), mask[..., ::2])[0]
    assert_close(first.std((0, 2), correction=0), torch.ones(8), atol=1e-3, rtol=0)
    assert_close(torch.linalg.det(flow.steps[1].weight), torch.tensor(1.0))
    assert all((one.end.weight == 0).all() for one in flow.steps if isinstance(one, Coupling))
    assert not any(isinstance(one, Coupling) for one in Flow(4, 8, 3, 2, 3, couples=False).steps)


def test_a_group_has_channels_of_both_halves():
    mixing = ChannelMixing(8)
    x = torch.zeros(1, 8, 1)
    x[0, 0] = 1.0
    assert mixing(x, torch.ones(1, 1, 1))[0].flatten().nonzero().flatten().tolist() == [0, 1, 4, 5]
    with pytest.raises(ValueError, match="two halves"):
        ChannelMixing(6)


def test_squeezing_puts_neighbours_together():
    x = torch.arange(8.0).view(1, 2, 4)
    assert squeeze(x).tolist() == [[[0, 2], [4, 6], [1, 3], [5, 7]]]
    assert torch.equal(unsqueeze(squeeze(x)), x)


def all_paths(symbols: int, frames: int):
    for starts in itertools.combinations(range(1, frames), symbols - 1):
        yield [sum(start <= frame for start in starts) for frame in range(frames)]


@pytest.mark.parametrize(("symbols", "frames"), [(1, 1), (1, 5), (4, 4), (3, 8), (6, 9)])
def test_the_search_finds_the_best_of_all_paths(symbols, frames):
    """Each row with padding behind it, whose scores would be the best."""
    scores = torch.full((3, symbols + 2, frames + 3), 100.0, dtype=torch.float64)
    scores[:, :symbols, :frames] = torch.randn(3, symbols, frames, dtype=torch.float64)
    counts, lengths = torch.full((3,), symbols), torch.full((3,), frames)
    found = search(scores, counts, lengths)
    for row in range(3):
        best = max(
            all_paths(symbols, frames),
            key=lambda owner: sum(scores[row, s, f].item() for f, s in enumerate(owner)),
        )
        assert found[row].nonzero().tolist() == sorted([s, f] for f, s in enumerate(best))


def test_the_search_at_its_limits():
    scores = torch.zeros(1, 3, 6)
    assert search(scores, torch.tensor([3]), torch.tensor([6]))[0].sum(1).tolist() == [1, 1, 4]
    with pytest.raises(ValueError, match="fewer frames than symbols"):
        search(scores, torch.tensor([3]), torch.tensor([2]))
    half = search(torch.randn(1, 3, 6).bfloat16(), torch.tensor([3]), torch.tensor([6]))
    assert half.dtype == torch.bool
    assert half.sum() == 6


def test_equal_division():
    path = divide(torch.tensor([3, 2]), torch.tensor([7, 4]))
    assert path.sum(-1).tolist() == [[3, 2, 2], [2, 2, 0]]
    assert path[1, :, 4:].sum() == 0


def test_the_density_is_torchs():
    z, mean, logs = torch.randn(2, 5, 7), torch.randn(2, 3, 5), 0.3 * torch.randn(2, 3, 5)
    normal = torch.distributions.Normal(mean.unsqueeze(-1), logs.exp().unsqueeze(-1))
    assert_close(log_normal(z, mean, logs), normal.log_prob(z.unsqueeze(1)).sum(2), atol=1e-4, rtol=1e-4)


def whole() -> tuple[GlowTTS, tuple]:
    model = random_weights(GlowTTS(SIZES), 0.05)
    text, symbols = pad_text([torch.tensor([0, 3, 5, 0]), torch.tensor([0, 7, 0])])
    mel, frames = pad_mels([torch.randn(12, 40), torch.randn(8, 40)])
    return model, (text, symbols, mel, frames)


def test_every_weight_learns_and_durations_stay_apart():
    model, given = whole()
    likelihood, missed, path = model(*given)
    assert path.sum((1, 2)).tolist() == [12, 8]
    missed.sum().backward(retain_graph=True)
    touched = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert touched == {
        f"encoder.{n}" for n, _ in model.encoder.named_parameters() if n.startswith("durations")
    }
    likelihood.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_likelihood_is_that_of_the_row_alone():
    model, (text, symbols, mel, frames) = whole()
    alone = model(text[1:, :3], symbols[1:], mel[1:, :, :8], frames[1:])
    for together, one in zip(model(text, symbols, mel, frames)[:2], alone[:2], strict=True):
        assert_close(together[1:], one, atol=1e-3, rtol=1e-4)


def test_speech_without_temperature_is_the_mean():
    model, (text, symbols, _, _) = whole()
    model.eval()
    made, counts = model.speak(text[0], temperature=0.0)
    mean = model.encoder(text[:1], symbols[:1])[0][0].repeat_interleave(counts, 0)
    found = model.flow(made.unsqueeze(0), torch.ones(1, 1, made.shape[1]))[0][0]
    assert_close(found, mean.T, atol=1e-3, rtol=1e-3)
    assert made.shape[1] == counts.sum()
    assert counts.sum() % 2 == 0
    assert model.speak(text[0], length=3.0)[1].sum() > counts.sum()


def test_the_papers_size():
    """About 28.6 million weights (appendix A, from memory)."""
    with torch.device("meta"):
        count = sum(weight.numel() for weight in GlowTTS(Sizes()).parameters())
    assert abs(count / 1e6 - 28.6) < 0.2, count


def test_the_arms_differ_in_couplings_alone():
    assert RATES == (0.006, 0.018, 0.054)
    assert EVENLY == 30
    fields = [name for name in Sizes.__dataclass_fields__ if getattr(SIZES, name) != getattr(LINEAR, name)]
    assert fields == ["couples"]
    assert SIZES.couples
    ours, theirs = (dict(GlowTTS(sizes).named_parameters()) for sizes in (SIZES, LINEAR))
    assert len(theirs) < len(ours)


def test_the_boundary_error_is_in_frames():
    given = Corpus([], [], [torch.tensor([3, 3, 2]), torch.tensor([2, 2])])
    path = divide(torch.tensor([3, 2]), torch.tensor([8, 4]))
    assert boundary_error(path, given) == pytest.approx((0 + 0 + 0) / 3)
    path = divide(torch.tensor([3, 2]), torch.tensor([8, 6]))
    assert boundary_error(path, given) == pytest.approx(1 / 3)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(glow_tts)
    assert [artifact["kind"] for artifact in record.artifacts] == ["image", *["audio"] * 5]


def test_a_null_run_compares_equals(run_experiment):
    (claim,) = run_experiment(glow_tts, null=True).claims
    assert claim["values"]["nats a frame on judge, couplings - linear"] == 0.0


def test_the_break_leaves_the_couplings_nothing_to_see(run_experiment, monkeypatch):
    """Then the flow is linear: the middle of two is where the middle goes."""
    made = []
    module = sys.modules["readtrack.papers.glow_tts.experiment"]
    monkeypatch.setattr(module, "uncoupled", lambda: made.append("uncoupled") or uncoupled())
    run_experiment(glow_tts, broken="no couplings")
    assert made == ["uncoupled"]
    mask = torch.ones(1, 1, 6)
    x, y = torch.randn(2, 1, 40, 6)
    for make, straight in ((uncoupled, True), (lambda: GlowTTS(SIZES), False)):
        flow = random_weights(make(), 0.1).flow
        between = flow((x + y) / 2, mask)[0]
        assert torch.allclose(between, (flow(x, mask)[0] + flow(y, mask)[0]) / 2, atol=1e-4) == straight


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(glow_tts)] == ["search"]
