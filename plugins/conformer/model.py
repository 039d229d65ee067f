"""Implements the Conformer block, with `transformers`' parameter names, and an encoder with a CTC head."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Hidden = Float[Tensor, "batch time width"]
Inside = Bool[Tensor, "batch time"]


class FeedForward(nn.Module):
    """Section 2.3: expansion (fourfold in the paper), swish, dropout and projection. The norm is outside."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(width, hidden)
        self.intermediate_dropout = nn.Dropout(dropout)
        self.output_dense = nn.Linear(hidden, width)
        self.output_dropout = nn.Dropout(dropout)

    def forward(self, x: Hidden) -> Hidden:
        hidden = self.intermediate_dropout(F.silu(self.intermediate_dense(x)))
        return self.output_dropout(self.output_dense(hidden))


def distances(time: int, width: int) -> Float[Tensor, "distances width"]:
    """Interleaved sines and cosines of the distances from time - 1 (key far to the left) to 1 - time."""
    distance = torch.arange(time - 1, -time, -1.0)[:, None]
    angles = distance * torch.exp(-math.log(10_000) / width * torch.arange(0, width, 2.0))
    return torch.stack((angles.sin(), angles.cos()), 2).flatten(1)


def shift(x: Float[Tensor, "*heads time distances"]) -> Float[Tensor, "*heads time time"]:
    """Turn scores by distance into scores by key: in row i, distance i - j moves to column j (Dai 2019)."""
    time, count = x.shape[-2:]
    rows = F.pad(x, (1, 0)).flatten(-2).unflatten(-1, (count + 1, time))[..., 1:, :]
    return rows.flatten(-2).unflatten(-1, (time, count))[..., :time]


class RelativeAttention(nn.Module):
    """Section 2.1: multi-head attention with scores by content and by distance, each with its own bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_v, self.linear_out = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, width // heads))

    def forward(self, x: Hidden, inside: Inside | None = None) -> Hidden:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.linear_q, self.linear_k, self.linear_v)
        )
        far = distances(x.shape[1], x.shape[2]).to(q)
        far = self.linear_pos(far).unflatten(1, (self.heads, -1)).transpose(0, 1)
        scores = shift((q + self.pos_bias_v[:, None].to(q)) @ far.mT) / math.sqrt(q.shape[3])
        if inside is not None:
            scores = scores.masked_fill(~inside[:, None, None], -math.inf)
        mixed = F.scaled_dot_product_attention(q + self.pos_bias_u[:, None].to(q), k, v, attn_mask=scores)
        return self.linear_out(mixed.transpose(1, 2).flatten(2))


class ConvolutionModule(nn.Module):
    """Section 2.2: norm, gate, depthwise convolution, batch norm, swish, pointwise convolution."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.batch_norm = nn.BatchNorm1d(width)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Hidden, inside: Inside | None = None) -> Hidden:
        """Padding is set to 0 before the convolution. The batch statistics include the padding."""
        hidden = F.glu(self.pointwise_conv1(self.layer_norm(x).mT), 1)
        if inside is not None:
            hidden = hidden * inside[:, None]
        hidden = F.silu(self.batch_norm(self.depthwise_conv(hidden)))
        return self.dropout(self.pointwise_conv2(hidden).mT)


class Block(nn.Module):
    """Equation 1: half a feed-forward layer, attention, convolution, half a feed-forward layer, norm.

    attends, convolves  whether the block has attention and convolution
    hidden              units of the feed-forward layers (four times the width in the paper)
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kernel: int,
        dropout: float = 0.1,
        hidden: int | None = None,
        attends: bool = True,
        convolves: bool = True,
    ) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        self.ffn1_layer_norm, self.ffn1 = nn.LayerNorm(width), FeedForward(width, hidden, dropout)
        if attends:
            self.self_attn_layer_norm = nn.LayerNorm(width)
            self.self_attn_dropout = nn.Dropout(dropout)
            self.self_attn = RelativeAttention(width, heads)
        if convolves:
            self.conv_module = ConvolutionModule(width, kernel, dropout)
        self.ffn2_layer_norm, self.ffn2 = nn.LayerNorm(width), FeedForward(width, hidden, dropout)
        self.final_layer_norm = nn.LayerNorm(width)
        self.attends, self.convolves = attends, convolves

    def forward(self, x: Hidden, inside: Inside | None = None) -> Hidden:
        x = x + 0.5 * self.ffn1(self.ffn1_layer_norm(x))
        if self.attends:
            x = x + self.self_attn_dropout(self.self_attn(self.self_attn_layer_norm(x), inside))
        if self.convolves:
            x = x + self.conv_module(x, inside)
        x = x + 0.5 * self.ffn2(self.ffn2_layer_norm(x))
        return self.final_layer_norm(x)


class Conformer(nn.Module):
    """Maps log-mel spectrograms to label log-probabilities, one row per four frames. Label 0 is the blank.

    Table 1: the small model has 16 blocks of width 144 with 4 heads, the medium model 16 blocks of width 256,
    and the large model 17 blocks of width 512 with 8 heads. The paper's kernel size is 32. This
    implementation needs an odd size. `channels` is the number of channels of the two convolutions that halve
    the frame rate (the width in the paper).
    """

    def __init__(
        self,
        mels: int,
        labels: int,
        width: int,
        blocks: int,
        heads: int = 4,
        kernel: int = 31,
        channels: int | None = None,
        dropout: float = 0.1,
        hidden: int | None = None,
        attends: bool = True,
        convolves: bool = True,
    ) -> None:
        super().__init__()
        channels = width if channels is None else channels
        self.halve = nn.ModuleList(
            [nn.Conv2d(1, channels, 3, 2, padding=1), nn.Conv2d(channels, channels, 3, 2, padding=1)]
        )
        self.project = nn.Linear(channels * ((mels + 3) // 4), width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            [Block(width, heads, kernel, dropout, hidden, attends, convolves) for _ in range(blocks)]
        )
        self.labels = nn.Linear(width, labels)

    def forward(
        self, mel: Float[Tensor, "batch frames mels"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch time labels"], Int[Tensor, " batch"]]:
        """Log-probabilities, and the number of valid rows of each utterance: frames / 4, rounded up."""
        x = mel[:, None]
        for convolution in self.halve:
            within = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
            x = F.relu(convolution(x * within[:, None, :, None]))
            lengths = (lengths + 1) // 2
        x = self.dropout(self.project(x.transpose(1, 2).flatten(2)))
        inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        for layer in self.layers:
            x = layer(x, inside)
        return self.labels(x).log_softmax(-1), lengths
