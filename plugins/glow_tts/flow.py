"""Implements the flow between spectrograms and latents: activation norm, channel mixing, affine coupling."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Frames = Float[Tensor, "batch channels frames"]
Mask = Float[Tensor, "batch 1 frames"]
PerRow = Float[Tensor, " batch"]


def mask_of(lengths: Int[Tensor, " batch"], longest: int, like: Tensor) -> Mask:
    """1 up to each row's length and 0 after it, in the dtype of `like`."""
    inside = torch.arange(longest, device=like.device) < lengths.to(like.device).unsqueeze(1)
    return inside.to(like.dtype).unsqueeze(1)


def squeeze(x: Frames) -> Float[Tensor, "batch doubled half"]:
    """Concatenates pairs of frames, which doubles the channels and halves the frames."""
    return torch.cat((x[..., 0::2], x[..., 1::2]), 1)


def unsqueeze(x: Frames) -> Float[Tensor, "batch halved double"]:
    """The inverse of `squeeze`."""
    return torch.stack(x.chunk(2, 1), -1).flatten(2)


class ActNorm(nn.Module):
    """Scales and shifts each channel. After `fit` on frames, their outputs have mean 0 and variance 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.zeros(channels, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))

    @torch.no_grad()
    def fit(self, x: Frames, mask: Mask) -> None:
        count = mask.sum()
        mean = (x * mask).sum((0, 2)) / count
        variance = ((x - mean.unsqueeze(1)).square() * mask).sum((0, 2)) / count
        self.logs.copy_(-0.5 * variance.clamp(min=1e-6).log().unsqueeze(1))
        self.bias.copy_(-mean.unsqueeze(1) * self.logs.exp())

    def forward(self, x: Frames, mask: Mask) -> tuple[Frames, PerRow]:
        return (self.bias + self.logs.exp() * x) * mask, self.logs.sum() * mask.sum((1, 2))

    def inverse(self, z: Frames, mask: Mask) -> Frames:
        return (z - self.bias) * (-self.logs).exp() * mask


class ChannelMixing(nn.Module):
    """An invertible 1 × 1 convolution in groups of `size` channels. Half of each group comes from the first
    half of x, and half from the second."""

    def __init__(self, channels: int, size: int = 4) -> None:
        super().__init__()
        if channels % size or size % 2:
            raise ValueError(
                f"{channels} channels cannot be split into groups of {size}: use an even divisor"
            )
        self.size = size
        self.weight = nn.Parameter(torch.eye(size))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """A random rotation, whose determinant is 1."""
        if self.weight.is_meta:
            return
        nn.init.orthogonal_(self.weight)
        if torch.linalg.det(self.weight) < 0:
            self.weight[0].neg_()

    def mix(self, x: Frames, weight: Float[Tensor, "_ _"]) -> Frames:
        batch, channels, frames = x.shape
        half = self.size // 2
        groups = x.reshape(batch, 2, channels // self.size, half, frames).transpose(2, 3)
        mixed = torch.einsum("oi,bigt->bogt", weight, groups.reshape(batch, self.size, -1, frames))
        return mixed.view(batch, 2, half, -1, frames).transpose(2, 3).reshape(x.shape)

    def forward(self, x: Frames, mask: Mask) -> tuple[Frames, PerRow]:
        # Determinants and inverses are not available in half precision.
        log = torch.linalg.slogdet(self.weight.float() if _is_half(x) else self.weight)[1].to(x.dtype)
        return self.mix(x, self.weight), log * (x.shape[1] / self.size) * mask.sum((1, 2))

    def inverse(self, z: Frames, mask: Mask) -> Frames:
        weight = self.weight.float() if _is_half(z) else self.weight
        return self.mix(z, torch.linalg.inv(weight).to(z.dtype)) * mask


def _is_half(x: Tensor) -> bool:
    return x.dtype in (torch.float16, torch.bfloat16)


class WaveNet(nn.Module):
    """Gated convolutions with residual and skip connections, as in WaveGlow, named as in `transformers`."""

    def __init__(self, channels: int, layers: int, kernel: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.channels = channels
        self.in_layers, self.res_skip_layers = nn.ModuleList(), nn.ModuleList()
        for layer in range(layers):
            self.in_layers.append(nn.Conv1d(channels, 2 * channels, kernel, padding=kernel // 2))
            last = layer == layers - 1
            self.res_skip_layers.append(nn.Conv1d(channels, channels if last else 2 * channels, 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Frames, mask: Mask) -> Frames:
        skipped = torch.zeros_like(x)
        for gated, onward in zip(self.in_layers, self.res_skip_layers, strict=True):
            filtered, gate = gated(x).chunk(2, 1)
            result = onward(self.dropout(filtered.tanh() * gate.sigmoid()))
            if result.shape[1] > self.channels:
                x = (x + result[:, : self.channels]) * mask
            skipped = skipped + result[:, -self.channels :]
        return skipped * mask


class Coupling(nn.Module):
    """Scales and shifts half of the channels depending on the other half. Initially it is the identity."""

    def __init__(self, channels: int, hidden: int, layers: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.start = nn.Conv1d(channels // 2, hidden, 1)
        self.wavenet = WaveNet(hidden, layers, kernel, dropout)
        self.end = nn.Conv1d(hidden, channels, 1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)

    def affine(self, first: Frames, mask: Mask) -> tuple[Frames, Frames]:
        hidden = self.wavenet(self.start(first) * mask, mask)
        shift, logs = self.end(hidden).chunk(2, 1)
        return shift, logs

    def forward(self, x: Frames, mask: Mask) -> tuple[Frames, PerRow]:
        first, second = x.chunk(2, 1)
        shift, logs = self.affine(first, mask)
        return torch.cat((first, (shift + logs.exp() * second) * mask), 1), (logs * mask).sum((1, 2))

    def inverse(self, z: Frames, mask: Mask) -> Frames:
        first, second = z.chunk(2, 1)
        shift, logs = self.affine(first, mask)
        return torch.cat((first, (second - shift) * (-logs).exp() * mask), 1)


class Flow(nn.Module):
    """Section 3.3: blocks of activation norm, 1 × 1 convolution and coupling, on pairs of frames.

    Every row needs an even number of frames. With `couples=False` the flow is linear. The second result of
    `forward` is the logarithm of the Jacobian's determinant.
    """

    def __init__(
        self,
        bands: int,
        hidden: int,
        blocks: int,
        layers: int,
        kernel: int,
        dropout: float = 0.0,
        couples: bool = True,
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        for _ in range(blocks):
            self.steps += [ActNorm(2 * bands), ChannelMixing(2 * bands)]
            if couples:
                self.steps.append(Coupling(2 * bands, hidden, layers, kernel, dropout))

    @torch.no_grad()
    def fit(self, x: Frames, mask: Mask) -> None:
        """Initialises every activation norm from its input data (Kingma and Dhariwal 2018)."""
        x, mask = squeeze(x), mask[..., ::2]
        for step in self.steps:
            if isinstance(step, ActNorm):
                step.fit(x, mask)
            x = step(x, mask)[0]

    def forward(self, x: Frames, mask: Mask) -> tuple[Frames, PerRow]:
        if x.shape[-1] % 2:
            raise ValueError(f"{x.shape[-1]} frames cannot be split into pairs")
        x, mask = squeeze(x), mask[..., ::2]
        total = torch.zeros_like(x[:, 0, 0])
        for step in self.steps:
            x, log = step(x, mask)
            total = total + log
        return unsqueeze(x), total

    def inverse(self, z: Frames, mask: Mask) -> Frames:
        z, mask = squeeze(z), mask[..., ::2]
        for step in reversed(self.steps):
            z = step.inverse(z, mask)
        return unsqueeze(z)
