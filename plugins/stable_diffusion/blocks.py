"""Building blocks of the autoencoder and the U-Net, named as in the released weights for `diffusers`."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..attention.model import merge_heads, split_heads

Map = Float[Tensor, "batch _ height width"]
Embedding = Float[Tensor, "batch time"]
Context = Float[Tensor, "batch words context"]


class ResnetBlock(nn.Module):
    """Two convolutions with a residual connection. A time embedding, if given, is added between them."""

    def __init__(
        self, inputs: int, outputs: int, groups: int, *, time: int | None = None, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = None if time is None else nn.Linear(time, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Map, time: Embedding | None = None) -> Map:
        hidden = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            hidden = hidden + self.time_emb_proj(F.silu(time))[..., None, None]
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class HeadedAttention(nn.Module):
    """Section 3.3's attention: queries from the image, keys and values from the image or from the words."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(
        self, x: Float[Tensor, "batch places width"], context: Context
    ) -> Float[Tensor, "batch places width"]:
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        mixed = F.scaled_dot_product_attention(*(split_heads(one, self.heads) for one in (q, k, v)))
        return self.to_out[0](merge_heads(mixed))


class Gated(nn.Module):
    """GEGLU (Shazeer 2020, arXiv 2002.05202): one half of a projection times the GELU of the other."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch hidden"]:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class TransformerBlock(nn.Module):
    """Appendix E.2.1: self-attention, cross-attention to the words, and a feed-forward layer."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = HeadedAttention(width, width, heads)
        self.attn2 = HeadedAttention(width, context, heads)
        # The released code has dropout in place of the identity.
        net = nn.ModuleList([Gated(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])
        self.ff = nn.ModuleDict({"net": net})

    def forward(
        self, x: Float[Tensor, "batch places width"], context: Context
    ) -> Float[Tensor, "batch places width"]:
        hidden = self.norm1(x)
        x = x + self.attn1(hidden, hidden)
        x = x + self.attn2(self.norm2(x), context)
        hidden = self.norm3(x)
        for layer in self.ff["net"]:
            hidden = layer(hidden)
        return x + hidden


class SpatialTransformer(nn.Module):
    """A transformer block over the positions of a feature map, with a residual connection."""

    def __init__(self, width: int, context: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, context, heads)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Map, context: Context) -> Map:
        places = self.proj_in(self.norm(x)).flatten(2).mT
        for block in self.transformer_blocks:
            places = block(places, context)
        return x + self.proj_out(places.mT.unflatten(2, x.shape[2:]))


class Halve(nn.Module):
    """Halves the resolution with a convolution of stride 2, padded equally on all sides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Map) -> Float[Tensor, "batch _ rows columns"]:
        return self.conv(x)


class Stage(nn.Module):
    """The blocks of one resolution, each followed by attention if there is any, and the resampling."""

    def __init__(
        self,
        resnets: Sequence[nn.Module],
        attentions: Sequence[nn.Module] = (),
        *,
        down: Sequence[nn.Module] = (),
        up: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(resnets), nn.ModuleList(attentions)
        self.downsamplers, self.upsamplers = nn.ModuleList(down), nn.ModuleList(up)

    def forward(
        self,
        x: Map,
        time: Embedding | None = None,
        context: Context | None = None,
        joined: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """The outputs of every block and of the resampling.

        joined  feature maps that are concatenated to x; each block takes the last one off the list
        """
        maps = []
        for index, resnet in enumerate(self.resnets):
            x = resnet(x if joined is None else torch.cat((x, joined.pop()), 1), time)
            if len(self.attentions):
                x = self.attentions[index](x, context)
            maps.append(x)
        for resample in (*self.downsamplers, *self.upsamplers):
            maps.append(resample(maps[-1]))
        return maps


class Middle(nn.Module):
    """Two blocks at the lowest resolution, with attention between them."""

    def __init__(self, resnets: Sequence[nn.Module], attentions: Sequence[nn.Module]) -> None:
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(resnets), nn.ModuleList(attentions)

    def forward(self, x: Map, time: Embedding | None = None, *context: Context) -> Map:
        x = self.resnets[0](x, time)
        for attention in self.attentions:
            x = attention(x, *context)
        return self.resnets[1](x, time)
