"""The U-Net that predicts the noise in latents, given the time and the words."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..ddpm.model import Times
from ..ddpm.unet import Resample
from .blocks import Context, Halve, Map, Middle, ResnetBlock, SpatialTransformer, Stage


class UNet(nn.Module):
    """Section 3.3: a convolutional U-Net with cross-attention to words.

    The defaults are those of the released Stable Diffusion: 859.5 million parameters, latents of 4 x 64 x 64
    and 77 words of size 768. Height and width must be multiples of 2 ** (stages - 1).

    context    size of a word vector
    attention  stages with attention, counted from the highest resolution; the middle always has attention
    """

    def __init__(
        self,
        channels: int = 4,
        widths: Sequence[int] = (320, 640, 1280, 1280),
        blocks: int = 2,
        context: int = 768,
        heads: int = 8,
        attention: Sequence[int] = (0, 1, 2),
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.width, time = widths[0], 4 * widths[0]

        def resnet(inputs: int, outputs: int) -> ResnetBlock:
            return ResnetBlock(inputs, outputs, groups, time=time, eps=1e-5)

        def attend(stage: int, count: int) -> list[SpatialTransformer]:
            size = (widths[stage], context, heads, groups)
            return [SpatialTransformer(*size) for _ in range(count if stage in attention else 0)]

        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        layers = {"linear_1": nn.Linear(widths[0], time), "linear_2": nn.Linear(time, time)}
        self.time_embedding = nn.ModuleDict(layers)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        beside, x = [widths[0]], widths[0]
        for stage, width in enumerate(widths):
            resnets = [resnet(x, width), *(resnet(width, width) for _ in range(blocks - 1))]
            halve = [Halve(width)] if stage + 1 < len(widths) else []
            self.down_blocks.append(Stage(resnets, attend(stage, blocks), down=halve))
            beside += [width] * (blocks + len(halve))
            x = width
        between = SpatialTransformer(x, context, heads, groups)
        self.mid_block = Middle([resnet(x, x), resnet(x, x)], [between])
        for stage in reversed(range(len(widths))):
            resnets = []
            for _ in range(blocks + 1):
                resnets.append(resnet(x + beside.pop(), widths[stage]))
                x = widths[stage]
            double = [Resample(x, down=False)] if stage else []
            self.up_blocks.append(Stage(resnets, attend(stage, blocks + 1), up=double))
        self.conv_norm_out = nn.GroupNorm(groups, x, eps=1e-5)
        self.conv_out = nn.Conv2d(x, channels, 3, padding=1)

    def forward(self, x: Map, t: Times, context: Context) -> Map:
        embedded = self.time_embedding["linear_1"](time_embedding(t, self.width).to(x))
        time = self.time_embedding["linear_2"](F.silu(embedded))
        x = self.conv_in(x)
        beside = [x]
        for stage in self.down_blocks:
            beside += stage(x, time, context)
            x = beside[-1]
        x = self.mid_block(x, time, context)
        for stage in self.up_blocks:
            x = stage(x, time, context, beside)[-1]
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def time_embedding(t: Times, width: int) -> Float[Tensor, "batch width"]:
    """Cosines, then sines, of t at frequencies from 1 to just above 1 / 10000."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, device=t.device))
    angles = t[:, None].float() * frequencies
    return torch.cat((angles.cos(), angles.sin()), 1)
