"""The text-to-waveform network (figure 1). Parameters are named as in `transformers`."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..glow_tts import EncoderLayer, WaveNet, divide, log_normal, mask_of, search
from ..hifigan import V1, Generator, Version
from ..vae import sample
from .durations import StochasticDurations

Text = Int[Tensor, "batch symbols"]
Lengths = Int[Tensor, " batch"]
Latents = Float[Tensor, "batch latents frames"]
Mask = Float[Tensor, "batch 1 frames"]
PerRow = Float[Tensor, " batch"]
PerSymbol = Float[Tensor, "batch symbols latents"]


@dataclass(frozen=True)
class Sizes:
    """The defaults are those of the released LJ Speech model in transformers.

    bins       number of bins of the linear spectrogram
    latents    channels of z
    posterior  number of layers in the posterior's WaveNet; `depth` is the number in each coupling
    version    version of the decoder
    """

    symbols: int = 38
    bins: int = 513
    hidden: int = 192
    latents: int = 192
    ffn: int = 768
    heads: int = 2
    layers: int = 6
    posterior: int = 16
    couplings: int = 4
    depth: int = 4
    kernel: int = 5
    durations: int = 3
    splines: int = 4
    version: Version = V1
    dropout: float = 0.1


class Encoder(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [EncoderLayer(sizes.hidden, sizes.ffn, sizes.heads, sizes.dropout) for _ in range(sizes.layers)]
        )


class TextEncoder(nn.Module):
    """Features of each symbol, and mean and log standard deviation of its frames' latents (section 2.5.2)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(sizes.symbols, sizes.hidden)
        nn.init.normal_(self.embed_tokens.weight, 0.0, sizes.hidden**-0.5)
        self.encoder = Encoder(sizes)
        self.project = nn.Conv1d(sizes.hidden, 2 * sizes.latents, 1)

    def forward(
        self, text: Text, mask: Float[Tensor, "batch 1 symbols"]
    ) -> tuple[Float[Tensor, "batch hidden symbols"], PerSymbol, PerSymbol]:
        x = self.embed_tokens(text) * math.sqrt(self.embed_tokens.embedding_dim) * mask.mT
        for layer in self.encoder.layers:
            x = layer(x, mask)
        x = x.mT * mask
        mean, logs = (self.project(x) * mask).mT.chunk(2, 2)
        return x, mean, logs


class PosteriorEncoder(nn.Module):
    """Mean and log standard deviation of a spectrogram's latents, per frame (section 2.5.1)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(sizes.bins, sizes.hidden, 1)
        self.wavenet = WaveNet(sizes.hidden, sizes.posterior, sizes.kernel)
        self.conv_proj = nn.Conv1d(sizes.hidden, 2 * sizes.latents, 1)

    def forward(self, spectrogram: Float[Tensor, "batch bins frames"], mask: Mask) -> tuple[Latents, Latents]:
        hidden = self.wavenet(self.conv_pre(spectrogram) * mask, mask)
        mean, logs = (self.conv_proj(hidden) * mask).chunk(2, 1)
        return mean, logs


class MeanCoupling(nn.Module):
    """The first half of the channels shifts the second. Preserves volume, and starts as the identity."""

    def __init__(self, latents: int, hidden: int, depth: int, kernel: int) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(latents // 2, hidden, 1)
        self.wavenet = WaveNet(hidden, depth, kernel)
        self.conv_post = nn.Conv1d(hidden, latents // 2, 1)
        nn.init.zeros_(self.conv_post.weight)
        nn.init.zeros_(self.conv_post.bias)

    def shift(self, first: Latents, mask: Mask) -> Latents:
        shift: Latents = self.conv_post(self.wavenet(self.conv_pre(first) * mask, mask)) * mask
        return shift

    def forward(self, x: Latents, mask: Mask) -> Latents:
        first, second = x.chunk(2, 1)
        return torch.cat((first, self.shift(first, mask) + second * mask), 1)

    def inverse(self, z: Latents, mask: Mask) -> Latents:
        first, second = z.chunk(2, 1)
        return torch.cat((first, (second - self.shift(first, mask)) * mask), 1)


class MeanFlow(nn.Module):
    """Couplings, each followed by a reversal of the channels. The log determinant is 0."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.flows = nn.ModuleList(
            [
                MeanCoupling(sizes.latents, sizes.hidden, sizes.depth, sizes.kernel)
                for _ in range(sizes.couplings)
            ]
        )

    def forward(self, x: Latents, mask: Mask) -> Latents:
        for flow in self.flows:
            x = flow(x, mask).flip(1)
        return x

    def inverse(self, z: Latents, mask: Mask) -> Latents:
        for flow in reversed(self.flows):
            z = flow.inverse(z.flip(1), mask)
        return z


class Result(NamedTuple):
    """divergence  of the posterior from the prior, given the path, summed over each row, in nats (equation 3,
                one sample)
    durations   upper bound on the durations' -log probability, summed over each row, in nats
    path        alignment of symbols and frames
    latents     the sampled z
    """

    divergence: PerRow
    durations: PerRow
    path: Bool[Tensor, "batch symbols frames"]
    latents: Latents


class VITS(nn.Module):
    """`forward` computes the training losses except those on the waves. `speak` turns text into waves."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.text_encoder = TextEncoder(sizes)
        self.flow = MeanFlow(sizes)
        self.decoder = Generator(sizes.version, sizes.latents)
        last = self.decoder.conv_post
        self.decoder.conv_post = nn.Conv1d(last.in_channels, 1, 7, padding=3, bias=False)
        nn.init.normal_(self.decoder.conv_post.weight, 0.0, 0.01)
        self.duration_predictor = StochasticDurations(sizes.hidden, 3, sizes.durations, sizes.splines)
        self.posterior_encoder = PosteriorEncoder(sizes)

    def forward(
        self,
        text: Text,
        symbols: Lengths,
        spectrogram: Float[Tensor, "batch bins frames"],
        frames: Lengths,
        noise: Latents,
        rhythm: Float[Tensor, "batch 2 symbols"],
        evenly: bool = False,
    ) -> Result:
        """Sections 2.1.3 and 2.2.

        noise   standard normal, for the posterior's sample; `rhythm` for the durations' sample
        evenly  divide the frames evenly among the symbols instead of searching for the best path
        """
        inside, mask = mask_of(symbols, text.shape[1], noise), mask_of(frames, noise.shape[2], noise)
        features, mean, logs = self.text_encoder(text, inside)
        centre, log_deviation = self.posterior_encoder(spectrogram, mask)
        rows = (one.flatten(1) for one in (centre, 2 * log_deviation, noise))
        z = sample(*rows).view_as(noise) * mask
        scores = log_normal(self.flow(z, mask), mean, logs)
        # The search maximises the bound, in which only the prior depends on the path (equation 6).
        path = divide(symbols, frames).to(text.device) if evenly else search(scores, symbols, frames)
        log_prior = (scores * path).sum((1, 2))
        surprise = 0.5 * (math.log(2 * math.pi) + noise.square()) + log_deviation
        divergence = -(surprise * mask).sum((1, 2)) - log_prior
        lasts = path.sum(-1).to(noise.dtype).unsqueeze(1)
        return Result(divergence, self.duration_predictor(features, inside, lasts, rhythm), path, z)

    def speak(
        self,
        text: Text,
        symbols: Lengths,
        generator: torch.Generator | None = None,
        temperature: float = 0.667,
        rhythm: float = 0.8,
        length: float = 1.0,
    ) -> tuple[Float[Tensor, "batch samples"], Int[Tensor, "batch symbols"]]:
        """Waves, and each symbol's number of frames. `rhythm` is the temperature of the durations.

        A row's wave ends after its number of frames times the product of the decoder's strides.
        """
        like = self.text_encoder.project.weight
        inside = mask_of(symbols, text.shape[1], like)
        features, mean, logs = self.text_encoder(text, inside)
        noise = rhythm * torch.randn(len(text), 2, text.shape[1], generator=generator)
        log_durations = self.duration_predictor.sample(features, inside, noise.to(like))
        lasts = ((log_durations.float().exp() * length).ceil().clamp(max=1000) * inside).squeeze(1).long()
        frames = lasts.sum(1).clamp(min=1)
        path = path_of(lasts, int(frames.max())).to(like)
        centre, deviation = path.mT @ mean, path.mT @ logs
        drawn = torch.randn(centre.shape, generator=generator).to(like)
        z = (centre + drawn * deviation.exp() * temperature).mT
        mask = mask_of(frames, z.shape[2], like)
        return self.decoder(self.flow.inverse(z, mask) * mask), lasts


def path_of(lasts: Int[Tensor, "batch symbols"], frames: int) -> Bool[Tensor, "batch symbols frames"]:
    """The symbol of each frame, as a mask."""
    ends, frame = lasts.cumsum(1).unsqueeze(2), torch.arange(frames, device=lasts.device)
    return (frame < ends) & (frame >= ends - lasts.unsqueeze(2))


def pieces(
    x: Float[Tensor, "batch channels frames"], starts: list[int], frames: int
) -> Float[Tensor, "batch channels piece"]:
    """Section 2.3.1: windows of each row, for training the decoder."""
    return torch.stack([row[:, start : start + frames] for row, start in zip(x, starts, strict=True)])
