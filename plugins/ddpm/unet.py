"""Implements the paper's U-Net, with the parameter names of diffusers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .model import Times, timestep_embedding

Map = Float[Tensor, "batch _ height width"]
Embedding = Float[Tensor, "batch time"]


class ResnetBlock(nn.Module):
    """Two convolutions with a residual connection. The time embedding is added between them."""

    def __init__(self, inputs: int, outputs: int, time: int, dropout: float, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Map, time: Embedding) -> Map:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(F.silu(time))[..., None, None]
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        return self.conv_shortcut(x) + hidden


class Attention(nn.Module):
    """Self-attention over all positions with a single head (section 4: at 16 x 16)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Map) -> Map:
        places = self.group_norm(x).flatten(2).mT
        q, k, v = self.to_q(places), self.to_k(places), self.to_v(places)
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.to_out[0](mixed).mT.unflatten(2, x.shape[2:])


class Resample(nn.Module):
    """Halves the resolution by a strided convolution (padded right and below), or doubles it by copying."""

    def __init__(self, channels: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x: Map) -> Float[Tensor, "batch _ rows columns"]:
        if self.down:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention if the level has it."""

    def __init__(
        self, sizes: Sequence[tuple[int, int]], time: int, dropout: float, groups: int, attends: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(i, o, time, dropout, groups) for i, o in sizes])
        self.attentions = nn.ModuleList([Attention(o, groups) for _, o in sizes] if attends else [])
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

    def block(self, index: int, x: Map, time: Embedding) -> Map:
        x = self.resnets[index](x, time)
        return self.attentions[index](x) if len(self.attentions) else x


class UNet(nn.Module):
    """Appendix B: predicts noise from an image and a time, with two blocks at each of four resolutions, and
    attention at one resolution.

    The defaults are the paper's for 32 x 32 images: 35.7 million parameters. Height and width must be
    multiples of 2 ** (resolutions - 1).
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 128,
        multiples: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention_at: Sequence[int] = (1,),
        dropout: float = 0.1,
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.width = width
        time, widths = 4 * width, [width * multiple for multiple in multiples]
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.time_embedding = nn.ModuleDict(
            {"linear_1": nn.Linear(width, time), "linear_2": nn.Linear(time, time)}
        )
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skipped, last = [width], width
        for index, size in enumerate(widths):
            sizes = [(last if block == 0 else size, size) for block in range(blocks)]
            level = Level(sizes, time, dropout, groups, index in attention_at)
            if index + 1 < len(widths):
                level.downsamplers.append(Resample(size, down=True))
            skipped += [size] * (blocks + len(level.downsamplers))
            self.down_blocks.append(level)
            last = size
        self.mid_block = Level([(last, last)] * 2, time, dropout, groups, attends=False)
        self.mid_block.attentions.append(Attention(last, groups))
        for index, size in reversed(list(enumerate(widths))):
            sizes = [((last if block == 0 else size) + skipped.pop(), size) for block in range(blocks + 1)]
            level = Level(sizes, time, dropout, groups, index in attention_at)
            if index:
                level.upsamplers.append(Resample(size, down=False))
            self.up_blocks.append(level)
            last = size
        self.conv_norm_out = nn.GroupNorm(groups, last, eps=1e-6)
        self.conv_out = nn.Conv2d(last, channels, 3, padding=1)

    def forward(self, x: Map, t: Times) -> Map:
        time = self.time_embedding["linear_1"](timestep_embedding(t, self.width).to(x))
        time = self.time_embedding["linear_2"](F.silu(time))
        x = self.conv_in(x)
        skipped = [x]
        for level in self.down_blocks:
            for index in range(len(level.resnets)):
                x = level.block(index, x, time)
                skipped.append(x)
            for resample in level.downsamplers:
                x = resample(x)
                skipped.append(x)
        x = self.mid_block.attentions[0](self.mid_block.resnets[0](x, time))
        x = self.mid_block.resnets[1](x, time)
        for level in self.up_blocks:
            for index in range(len(level.resnets)):
                x = level.block(index, torch.cat((x, skipped.pop()), 1), time)
            for resample in level.upsamplers:
                x = resample(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))
