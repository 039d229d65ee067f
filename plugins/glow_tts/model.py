"""Implements the text encoder, duration predictor and complete model, with the layer names of transformers'
VITS."""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .flow import Flow, Mask, mask_of
from .search import search

Text = Int[Tensor, "batch symbols"]
Lengths = Int[Tensor, " batch"]
Hidden = Float[Tensor, "batch symbols hidden"]
Mel = Float[Tensor, "batch bands frames"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the encoder (hidden, ffn, heads, layers, prenet, durations) and of the flow (channels, blocks,
    depth, kernel). The defaults are those of the released LJ Speech model (the authors' configs/base.json).
    """

    symbols: int = 148
    bands: int = 80
    hidden: int = 192
    ffn: int = 768
    heads: int = 2
    layers: int = 6
    prenet: int = 3
    durations: int = 256
    channels: int = 192
    blocks: int = 12
    depth: int = 4
    kernel: int = 5
    dropout: float = 0.1
    couples: bool = True


class RelativeAttention(nn.Module):
    """Attention with learned keys and values for distances of -4 to 4, else zeros (Shaw et al. 2018)."""

    WINDOW = 4

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, dim = heads, hidden // heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(hidden, hidden) for _ in range(4))
        self.emb_rel_k = nn.Parameter(torch.randn(1, 2 * self.WINDOW + 1, dim) * dim**-0.5)
        self.emb_rel_v = nn.Parameter(torch.randn(1, 2 * self.WINDOW + 1, dim) * dim**-0.5)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Hidden, mask: Bool[Tensor, "batch symbols"]) -> Hidden:
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        place = torch.arange(x.shape[1], device=x.device)
        distance = place - place.unsqueeze(1)
        near = (distance.abs() <= self.WINDOW).unsqueeze(-1)
        keys, values = (
            table[0][(distance + self.WINDOW).clamp(0, 2 * self.WINDOW)] * near
            for table in (self.emb_rel_k, self.emb_rel_v)
        )
        q = q * q.shape[-1] ** -0.5
        scores = q @ k.mT + torch.einsum("bhqd,qkd->bhqk", q, keys)
        scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(-1))
        found = weights @ v + torch.einsum("bhqk,qkd->bhqd", weights, values)
        projected: Hidden = self.out_proj(found.transpose(1, 2).flatten(2))
        return projected


class FeedForward(nn.Module):
    def __init__(self, hidden: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.conv_1 = nn.Conv1d(hidden, inner, 3, padding=1)
        self.conv_2 = nn.Conv1d(inner, hidden, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Hidden, mask: Mask) -> Hidden:
        inner = self.dropout(self.conv_1(x.mT * mask).relu())
        return (self.conv_2(inner * mask) * mask).mT


class EncoderLayer(nn.Module):
    def __init__(self, hidden: int, inner: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = RelativeAttention(hidden, heads, dropout)
        self.layer_norm = nn.LayerNorm(hidden)
        self.feed_forward = FeedForward(hidden, inner, dropout)
        self.final_layer_norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Hidden, mask: Mask) -> Hidden:
        x = self.layer_norm(x + self.dropout(self.attention(x, mask[:, 0].bool())))
        normed: Hidden = self.final_layer_norm(x + self.dropout(self.feed_forward(x, mask)))
        return normed


class Convolutions(nn.Module):
    """Layers of convolution, ReLU, norm and dropout. In the pre-net, the norm precedes the ReLU."""

    def __init__(
        self, hidden: int, inner: int, count: int, kernel: int, dropout: float, norm_first: bool
    ) -> None:
        super().__init__()
        widths = [hidden] + [inner] * count
        self.convs = nn.ModuleList(
            [nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in itertools.pairwise(widths)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(inner) for _ in range(count)])
        self.dropout, self.norm_first = nn.Dropout(dropout), norm_first

    def forward(self, x: Hidden, mask: Mask) -> Float[Tensor, "batch symbols inner"]:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            hidden = conv(x.mT * mask).mT
            x = self.dropout(norm(hidden).relu() if self.norm_first else norm(hidden.relu()))
        return x * mask.mT


class TextEncoder(nn.Module):
    """Mean and log standard deviation of the latents, and log duration in frames, for each symbol."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        hidden = sizes.hidden
        self.embedding = nn.Embedding(sizes.symbols, hidden)
        nn.init.normal_(self.embedding.weight, 0.0, hidden**-0.5)
        self.prenet = Convolutions(hidden, hidden, sizes.prenet, 5, 0.5 if sizes.dropout else 0.0, True)
        self.prenet_out = nn.Linear(hidden, hidden)
        nn.init.zeros_(self.prenet_out.weight)
        nn.init.zeros_(self.prenet_out.bias)
        self.layers = nn.ModuleList(
            [EncoderLayer(hidden, sizes.ffn, sizes.heads, sizes.dropout) for _ in range(sizes.layers)]
        )
        self.mean, self.logs = nn.Linear(hidden, sizes.bands), nn.Linear(hidden, sizes.bands)
        self.durations = Convolutions(hidden, sizes.durations, 2, 3, sizes.dropout, False)
        self.durations_out = nn.Linear(sizes.durations, 1)

    def forward(
        self, text: Text, symbols: Lengths
    ) -> tuple[
        Float[Tensor, "batch symbols bands"],
        Float[Tensor, "batch symbols bands"],
        Float[Tensor, "batch symbols"],
    ]:
        x = self.embedding(text) * math.sqrt(self.embedding.embedding_dim)
        mask = mask_of(symbols, text.shape[1], x)
        x = (x + self.prenet_out(self.prenet(x, mask))) * mask.mT
        for layer in self.layers:
            x = layer(x, mask) * mask.mT
        # The duration predictor's gradient is stopped and does not reach the encoder (section 3.1).
        durations = self.durations_out(self.durations(x.detach(), mask)).squeeze(-1)
        return self.mean(x), self.logs(x), durations


def log_normal(
    z: Mel, mean: Float[Tensor, "batch symbols bands"], logs: Float[Tensor, "batch symbols bands"]
) -> Float[Tensor, "batch symbols frames"]:
    """Log density in nats of every frame under every symbol's normal distribution."""
    precision = (-2 * logs).exp()
    constant = (-0.5 * math.log(2 * math.pi) - logs - 0.5 * mean.square() * precision).sum(-1, keepdim=True)
    return constant + (mean * precision) @ z - 0.5 * precision @ z.square()


class GlowTTS(nn.Module):
    """Maps text and log-mel spectrograms to log-likelihoods on the best alignment, or text to
    spectrograms."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.encoder = TextEncoder(sizes)
        self.flow = Flow(
            sizes.bands,
            sizes.channels,
            sizes.blocks,
            sizes.depth,
            sizes.kernel,
            sizes.dropout / 2,
            sizes.couples,
        )

    def forward(
        self,
        text: Text,
        symbols: Lengths,
        mel: Mel,
        frames: Lengths,
        path: Bool[Tensor, "batch symbols frames"] | None = None,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"], Bool[Tensor, "batch symbols frames"]]:
        """Each row's log-likelihood in nats, its duration loss, and the alignment (equations 1 to 6).

        frames  number of frames of each row, which must be even
        path    alignment to use (default: the most probable)
        """
        mean, logs, durations = self.encoder(text, symbols)
        mask = mask_of(frames, mel.shape[-1], mel)
        z, log_determinant = self.flow(mel, mask)
        scores = log_normal(z, mean, logs)
        if path is None:
            path = search(scores, symbols, frames)
        likelihood = (scores * path).sum((1, 2)) + log_determinant
        wanted = path.sum(-1).clamp(min=1).to(mel.dtype).log()
        inside = mask_of(symbols, text.shape[1], mel).squeeze(1)
        missed = ((durations - wanted).square() * inside).sum(1) / inside.sum(1)
        return likelihood, missed, path

    @torch.no_grad()
    def speak(
        self,
        text: Int[Tensor, " symbols"],
        generator: torch.Generator | None = None,
        temperature: float = 0.333,
        length: float = 1.0,
    ) -> tuple[Float[Tensor, "bands frames"], Int[Tensor, " symbols"]]:
        """A spectrogram of one text, and each symbol's frames: predicted durations times `length`, rounded
        up."""
        symbols = torch.tensor([len(text)])
        mean, logs, durations = (one[0] for one in self.encoder(text.unsqueeze(0), symbols))
        counts = (durations.float().exp() * length).ceil().long().clamp(1, 1000)
        counts[-1] += counts.sum() % 2  # the total must be even
        centre, spread = (one.repeat_interleave(counts, 0) for one in (mean, logs.exp()))
        noise = torch.randn(centre.shape, generator=generator).to(centre)
        z = (centre + temperature * spread * noise).T.unsqueeze(0)
        return self.flow.inverse(z, torch.ones_like(z[:, :1]))[0], counts


def pad_text(texts: list[Int[Tensor, " _"]]) -> tuple[Text, Lengths]:
    return nn.utils.rnn.pad_sequence(texts, batch_first=True), torch.tensor([len(text) for text in texts])


def pad_mels(mels: list[Float[Tensor, "_ bands"]]) -> tuple[Mel, Lengths]:
    """A zero-padded batch of spectrograms, bands first, and their numbers of frames."""
    lengths = torch.tensor([len(mel) for mel in mels])
    longest = int(lengths.max())
    return torch.stack([F.pad(mel.T, (0, longest - len(mel))) for mel in mels]), lengths
