"""Glow-TTS: layers compared with transformers' VITS, the flow with Jacobians, the search with all paths,
and the whole model with the authors' code under the names of their released weights.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
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
    from_released,
    load_released,
    log_normal,
    mask_of,
    pad_mels,
    pad_text,
    search,
    squeeze,
    unsqueeze,
)
from readtrack.papers.glow_tts.arms import LINEAR, SIZES, linear, uncoupled
from readtrack.papers.glow_tts.experiment import EVENLY, RATES, Corpus, boundary_errors

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
def test_an_encoder_layer_matches_transformers(assert_parity, symbols):
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
def test_the_wavenet_matches_transformers(assert_parity, layers):
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
    with pytest.raises(ValueError, match="cannot be split into pairs"):
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
    with pytest.raises(ValueError, match="use an even divisor"):
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
    """Each row has padding at its end, whose scores would be the best."""
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


def test_the_density_matches_torchs():
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


def test_the_likelihood_depends_on_the_row_alone():
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


def published(sizes: Sizes, mean_only: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' parameters (their models.py, attentions.py and modules.py)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inputs: int, outputs: int, kernel: int = 1, *, normed: bool = False) -> None:
        weight = (outputs, inputs, kernel)
        shapes.update(
            {f"{name}.weight_g": (outputs, 1, 1), f"{name}.weight_v": weight}
            if normed
            else {f"{name}.weight": weight}
        )
        shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.gamma": (channels,), f"{name}.beta": (channels,)})

    hidden = sizes.hidden
    shapes["encoder.emb.weight"] = (sizes.symbols, hidden)
    for layer in range(sizes.prenet):
        conv(f"encoder.pre.conv_layers.{layer}", hidden, hidden, 5)
        norm(f"encoder.pre.norm_layers.{layer}", hidden)
    conv("encoder.pre.proj", hidden, hidden)
    for layer in range(sizes.layers):
        attention = f"encoder.encoder.attn_layers.{layer}"
        for part in "qkvo":
            conv(f"{attention}.conv_{part}", hidden, hidden)
        for part in "kv":
            shapes[f"{attention}.emb_rel_{part}"] = (1, 2 * 4 + 1, hidden // sizes.heads)
        conv(f"encoder.encoder.ffn_layers.{layer}.conv_1", hidden, sizes.ffn, 3)
        conv(f"encoder.encoder.ffn_layers.{layer}.conv_2", sizes.ffn, hidden, 3)
        for place in (1, 2):
            norm(f"encoder.encoder.norm_layers_{place}.{layer}", hidden)
    for part in "m" if mean_only else "ms":
        conv(f"encoder.proj_{part}", hidden, sizes.bands)
    conv("encoder.proj_w.conv_1", hidden, sizes.durations, 3)
    conv("encoder.proj_w.conv_2", sizes.durations, sizes.durations, 3)
    for place in (1, 2):
        norm(f"encoder.proj_w.norm_{place}", sizes.durations)
    conv("encoder.proj_w.proj", sizes.durations, 1)
    channels, wide = sizes.channels, 2 * sizes.bands
    for block in range(sizes.blocks):
        step = [f"decoder.flows.{3 * block + place}" for place in range(3)]
        shapes.update({f"{step[0]}.logs": (1, wide, 1), f"{step[0]}.bias": (1, wide, 1)})
        shapes[f"{step[1]}.weight"] = (4, 4)
        conv(f"{step[2]}.start", wide // 2, channels, normed=True)
        conv(f"{step[2]}.end", channels, wide)
        for layer in range(sizes.depth):
            last = layer == sizes.depth - 1
            conv(f"{step[2]}.wn.in_layers.{layer}", channels, 2 * channels, sizes.kernel, normed=True)
            conv(f"{step[2]}.wn.res_skip_layers.{layer}", channels, channels * (2 - last), normed=True)
    return shapes


class Authors:
    """The authors' forward pass with their names; each name is looked up once."""

    def __init__(self, weights: Mapping[str, Tensor], sizes: Sizes) -> None:
        self.weights, self.sizes, self.used = weights, sizes, []

    def get(self, name: str) -> Tensor:
        self.used.append(name)
        return self.weights[name]

    def conv(self, name: str, x: Tensor, normed: bool = False) -> Tensor:
        if normed:
            weight = torch._weight_norm(self.get(f"{name}.weight_v"), self.get(f"{name}.weight_g"), 0)
        else:
            weight = self.get(f"{name}.weight")
        return F.conv1d(x, weight, self.get(f"{name}.bias"), padding=weight.shape[2] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
        scale, shift = self.get(f"{name}.gamma"), self.get(f"{name}.beta")
        return (x - mean) / (variance + 1e-4).sqrt() * scale[:, None] + shift[:, None]

    def attention(self, name: str, x: Tensor, mask: Tensor) -> Tensor:
        """Attention pair by pair, with the learned terms for distances up to 4."""
        heads, length = self.sizes.heads, x.shape[2]
        q, k, v = (self.conv(f"{name}.conv_{part}", x).unflatten(1, (heads, -1)).unbind(-1) for part in "qkv")
        keys, values = self.get(f"{name}.emb_rel_k")[0], self.get(f"{name}.emb_rel_v")[0]
        found = []
        for here in range(length):
            apart = [place - here for place in range(length)]
            near = [keys[d + 4] if abs(d) <= 4 else keys[0] * 0 for d in apart]
            scores = torch.stack([(q[here] * (k[p] + near[p])).sum(-1) for p in range(length)], -1)
            scores = scores / math.sqrt(q[here].shape[-1])
            shares = scores.masked_fill(mask[:, None, 0] == 0, -1e4).softmax(-1).unbind(-1)
            near = [values[d + 4] if abs(d) <= 4 else values[0] * 0 for d in apart]
            found.append(sum(shares[p].unsqueeze(-1) * (v[p] + near[p]) for p in range(length)))
        return self.conv(f"{name}.conv_o", torch.stack(found, -1).flatten(1, 2))

    def encode(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.embedding(text, self.get("encoder.emb.weight")).mT * math.sqrt(self.sizes.hidden)
        inner = x
        for layer in range(self.sizes.prenet):
            inner = self.conv(f"encoder.pre.conv_layers.{layer}", inner * mask)
            inner = self.norm(f"encoder.pre.norm_layers.{layer}", inner).relu()
        x = (x + self.conv("encoder.pre.proj", inner)) * mask
        for layer in range(self.sizes.layers):
            x = x * mask
            found = self.attention(f"encoder.encoder.attn_layers.{layer}", x, mask)
            x = self.norm(f"encoder.encoder.norm_layers_1.{layer}", x + found)
            inner = self.conv(f"encoder.encoder.ffn_layers.{layer}.conv_1", x * mask).relu()
            inner = self.conv(f"encoder.encoder.ffn_layers.{layer}.conv_2", inner * mask) * mask
            x = self.norm(f"encoder.encoder.norm_layers_2.{layer}", x + inner)
        x = x * mask
        mean = self.conv("encoder.proj_m", x) * mask
        learnt = "encoder.proj_s.weight" in self.weights
        logs = self.conv("encoder.proj_s", x) * mask if learnt else torch.zeros_like(mean)
        x = x.detach()
        for place in (1, 2):
            x = self.conv(f"encoder.proj_w.conv_{place}", x * mask).relu()
            x = self.norm(f"encoder.proj_w.norm_{place}", x)
        return mean, logs, self.conv("encoder.proj_w.proj", x * mask) * mask

    def couple(self, name: str, first: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(f"{name}.start", first, normed=True) * mask
        channels, output = x.shape[1], 0
        for layer in range(self.sizes.depth):
            into = self.conv(f"{name}.wn.in_layers.{layer}", x, normed=True)
            into = into[:, :channels].tanh() * into[:, channels:].sigmoid()
            onward = self.conv(f"{name}.wn.res_skip_layers.{layer}", into, normed=True)
            if layer < self.sizes.depth - 1:
                x = (x + onward[:, :channels]) * mask
                onward = onward[:, channels:]
            output = output + onward
        return self.conv(f"{name}.end", output * mask).chunk(2, 1)

    def mixed(self, x: Tensor, weight: Tensor) -> Tensor:
        """Mixes groups of two neighbours of the first half and the two at the same positions in the
        second.
        """
        half = x.shape[1] // 2
        result = torch.zeros_like(x)
        for first in range(0, half, 2):
            group = [first, first + 1, half + first, half + first + 1]
            result[:, group] = weight @ x[:, group]
        return result

    def to_latents(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = torch.cat((x[..., ::2], x[..., 1::2]), 1), mask[..., 1::2]
        log_determinant, length = 0, mask.sum((1, 2))
        for block in range(self.sizes.blocks):
            logs = self.get(f"decoder.flows.{3 * block}.logs")
            x = (self.get(f"decoder.flows.{3 * block}.bias") + logs.exp() * x) * mask
            weight = self.get(f"decoder.flows.{3 * block + 1}.weight")
            x = self.mixed(x, weight) * mask
            each = torch.linalg.slogdet(weight)[1] * x.shape[1] / 4
            log_determinant = log_determinant + (logs.sum() + each) * length
            first, second = x.chunk(2, 1)
            shift, logs = self.couple(f"decoder.flows.{3 * block + 2}", first, mask)
            x = torch.cat((first, (shift + logs.exp() * second) * mask), 1)
            log_determinant = log_determinant + (logs * mask).sum((1, 2))
        return unsqueeze(x), log_determinant

    def from_latents(self, z: Tensor, mask: Tensor) -> Tensor:
        x, mask = torch.cat((z[..., ::2], z[..., 1::2]), 1), mask[..., 1::2]
        for block in reversed(range(self.sizes.blocks)):
            first, second = x.chunk(2, 1)
            shift, logs = self.couple(f"decoder.flows.{3 * block + 2}", first, mask)
            x = torch.cat((first, (second - shift) * (-logs).exp() * mask), 1)
            x = self.mixed(x, torch.linalg.inv(self.get(f"decoder.flows.{3 * block + 1}.weight"))) * mask
            logs, bias = (self.get(f"decoder.flows.{3 * block}.{last}") for last in ("logs", "bias"))
            x = (x - bias) * (-logs).exp() * mask
        return unsqueeze(x)

    def likelihood(
        self, text: Tensor, symbols: Tensor, mel: Tensor, frames: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        inside, mask = mask_of(symbols, text.shape[1], mel), mask_of(frames, mel.shape[2], mel)
        mean, logs, durations = self.encode(text, inside)
        z, log_determinant = self.to_latents(mel, mask)
        normal = torch.distributions.Normal(mean.mT.unsqueeze(-1), logs.exp().mT.unsqueeze(-1))
        scores = normal.log_prob(z.unsqueeze(1)).sum(2)
        path = search(scores, symbols, frames)
        wanted = path.sum(-1).clamp(min=1).to(mel).log()
        missed = ((durations[:, 0] - wanted).square() * inside[:, 0]).sum(1) / symbols
        return (scores * path).sum((1, 2)) + log_determinant, missed, path


ODD = Sizes(
    symbols=11,
    bands=6,
    hidden=10,
    ffn=7,
    heads=2,
    layers=2,
    prenet=3,
    durations=9,
    channels=5,
    blocks=2,
    depth=3,
    kernel=3,
)


def drawn(sizes: Sizes, mean_only: bool) -> dict[str, Tensor]:
    """Random weights with their names and shapes; the mixing matrix is close to a rotation, and no norm is
    close to 0.
    """
    weights = {
        name: 0.3 * torch.randn(shape, dtype=torch.float64)
        for name, shape in published(sizes, mean_only).items()
    }
    for name, weight in weights.items():
        if name.endswith(("gamma", "weight_g")):
            weight += 1.0
        if weight.shape == (4, 4):
            weight += torch.eye(4)
    return weights


@pytest.mark.parametrize("mean_only", [True, False])
def test_released_weights_run_alike(assert_parity, mean_only):
    """Likelihoods, durations, paths and all gradients agree within 1e-9 with the authors' code, for rows
    of 7 and 4 symbols, and 12 and 8 frames.
    """
    weights = drawn(ODD, mean_only)
    model, authors = load_released(weights).double(), Authors(weights, ODD)
    text, symbols, frames = torch.randint(11, (2, 7)), torch.tensor([7, 4]), torch.tensor([12, 8])
    mel = torch.randn(2, 6, 12) * mask_of(frames, 12, torch.zeros(1))
    authors.likelihood(text, symbols, mel.double(), frames)
    assert sorted(authors.used) == sorted(weights)
    assert_parity(
        lambda w, x: functional_call(model, from_released(w), (text, symbols, x, frames)),
        lambda w, x: Authors(w, ODD).likelihood(text, symbols, x, frames),
        (mel,),
        weights=weights,
    )


def test_released_weights_speak_alike():
    """The mean of the latents and the inverse agree within 1e-9 with the authors' code."""
    weights = drawn(ODD, True)
    model, authors = load_released(weights).double(), Authors(weights, ODD)
    model.load_state_dict(from_released(weights))  # first in float32
    text = torch.randint(11, (1, 7))
    made, counts = model.speak(text[0], temperature=0.0)
    mean, _, durations = authors.encode(text, torch.ones(1, 1, 7, dtype=torch.float64))
    wanted = durations[0, 0].exp().ceil().long()
    wanted[-1] += wanted.sum() % 2  # the authors drop the odd frame
    assert torch.equal(counts, wanted)
    z = mean[0].repeat_interleave(wanted, 1)[None]
    expected = authors.from_latents(z, torch.ones_like(z[:, :1]))[0]
    assert_close(made, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="emb_g"):
        from_released(weights | {"emb_g.weight": torch.zeros(2, 3)})


def test_the_papers_size():
    """The authors' configs/base.json with their 148 symbols: 28.6 million weights, including norms."""
    shapes = published(Sizes())
    assert sum(map(math.prod, shapes.values())) == 28_623_889
    with torch.device("meta"):
        ours = GlowTTS(Sizes()).state_dict()
        mapped = from_released({name: torch.empty(shape) for name, shape in shapes.items()})
    assert {name: one.shape for name, one in mapped.items()} == {
        name: one.shape for name, one in ours.items()
    }


def test_the_arms_differ_in_couplings_alone():
    assert RATES == (0.006, 0.018, 0.054)
    assert EVENLY == 30
    fields = [name for name in Sizes.__dataclass_fields__ if getattr(SIZES, name) != getattr(LINEAR, name)]
    assert fields == ["couples"]
    assert SIZES.couples
    ours, theirs = (dict(make().named_parameters()) for make in (lambda: GlowTTS(SIZES), linear))
    assert len(theirs) < len(ours)


def test_the_control_mixes_all_bands_and_is_linear():
    flow, mask = random_weights(linear(), 0.05).flow, torch.ones(1, 1, 2)
    matrix = torch.autograd.functional.jacobian(lambda x: flow(x.view(1, 40, 2), mask)[0], torch.randn(80))
    assert matrix.count_nonzero() == 80 * 80
    x, y = torch.randn(2, 1, 40, 2)
    between = flow((x + y) / 2, mask)[0]
    assert_close(between, (flow(x, mask)[0] + flow(y, mask)[0]) / 2, rtol=1e-4, atol=1e-4)
    assert_close(flow.inverse(flow(x, mask)[0], mask), x, rtol=1e-3, atol=1e-3)


def test_the_boundary_error_is_in_frames():
    given = Corpus([], [], [torch.tensor([3, 3, 2]), torch.tensor([2, 2])])
    path = divide(torch.tensor([3, 2]), torch.tensor([8, 4]))
    assert boundary_errors(path, given).double().mean() == pytest.approx((0 + 0 + 0) / 3)
    path = divide(torch.tensor([3, 2]), torch.tensor([8, 6]))
    assert boundary_errors(path, given).double().mean() == pytest.approx(1 / 3)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(glow_tts)
    assert [artifact["kind"] for artifact in record.artifacts] == ["image", *["audio"] * 6]
    assert [artifact.get("beside") for artifact in record.artifacts[1:]] == [None, *["the corpus"] * 5]
    paths = record.curves[record.headline_curve]
    assert paths.keys() == {"truth", "couplings", "linear", "equal division"}
    for points in paths.values():
        symbols = [symbol for _, symbol in points]
        assert [frame for frame, _ in points] == list(range(len(paths["truth"])))
        assert {b - a for a, b in itertools.pairwise(symbols)} == {0.0, 1.0}
        assert (symbols[0], symbols[-1]) == (1, paths["truth"][-1][1])
    assert record.curves["phonemes' ends found"].keys() == paths.keys() - {"truth"}


def test_a_null_run_has_two_linear_flows_of_their_own(run_experiment):
    (claim,) = run_experiment(glow_tts, null=True).claims
    assert claim["values"]["nats a frame on judge, couplings - linear"] != 0.0


def test_the_break_makes_the_couplings_linear(run_experiment, monkeypatch):
    """Then the flow is linear, and midpoints map to midpoints."""
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
    assert [case.name for case in check_benchmark(glow_tts)] == ["search", "speech"]
