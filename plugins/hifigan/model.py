"""Implements the generator with transformers' weight names, both kinds of discriminator, and the losses."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

Wave = Float[Tensor, "batch samples"]
Features = list[Tensor]
Judged = list[tuple[Tensor, Features]]
SLOPE = 0.1  # slope of the leaky ReLUs, except the generator's last, which has torch's default of 0.01


@dataclass(frozen=True)
class Version:
    """Table 5: strides and kernels of the transposed convolutions, kernels and dilations of the blocks.

    dilations  one tuple per block, with a dilation for each pair of convolutions (V1, V2), or for each single
               convolution if `single` (V3)
    """

    channels: int
    strides: tuple[int, ...]
    kernels: tuple[int, ...]
    blocks: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    single: bool = False


V1 = Version(512, (8, 8, 2, 2), (16, 16, 4, 4), (3, 7, 11), ((1, 3, 5),) * 3)
V2 = Version(128, (8, 8, 2, 2), (16, 16, 4, 4), (3, 7, 11), ((1, 3, 5),) * 3)
V3 = Version(256, (8, 8, 4), (16, 16, 8), (3, 5, 7), ((1, 2), (2, 6), (3, 12)), single=True)


class ResidualBlock(nn.Module):
    """Section 2.2: dilated convolutions with residual connections. Unless `single`, a plain convolution
    follows each dilated convolution."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], single: bool) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            [nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel // 2)) for d in dilations]
        )
        plain = [] if single else dilations
        self.convs2 = nn.ModuleList(
            [nn.Conv1d(channels, channels, kernel, padding=kernel // 2) for _ in plain]
        )

    def forward(self, x: Float[Tensor, "batch channels samples"]) -> Float[Tensor, "batch channels samples"]:
        for index, dilated in enumerate(self.convs1):
            hidden = dilated(F.leaky_relu(x, SLOPE))
            if len(self.convs2):
                hidden = self.convs2[index](F.leaky_relu(hidden, SLOPE))
            x = x + hidden
        return x


class Generator(nn.Module):
    """Maps log-mel spectrograms (batch, bands, frames) to waveforms in [-1, 1]. The number of samples per
    frame is the product of all strides.

    `normed()` adds weight normalisation to every convolution, for training.
    """

    def __init__(self, version: Version, bands: int = 80) -> None:
        super().__init__()
        width = version.channels
        self.conv_pre = nn.Conv1d(bands, width, 7, padding=3)
        self.upsampler, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for stride, kernel in zip(version.strides, version.kernels, strict=True):
            if (kernel - stride) % 2:
                raise ValueError(f"stride {stride} with kernel {kernel}: their difference must be even")
            self.upsampler.append(
                nn.ConvTranspose1d(width, width // 2, kernel, stride, padding=(kernel - stride) // 2)
            )
            width //= 2
            for size, dilations in zip(version.blocks, version.dilations, strict=True):
                self.resblocks.append(ResidualBlock(width, size, dilations, version.single))
        self.conv_post = nn.Conv1d(width, 1, 7, padding=3)
        for part in (self.upsampler, self.conv_post):
            for weight in part.parameters():
                if weight.dim() > 1:
                    nn.init.normal_(weight, 0.0, 0.01)

    def normed(self) -> "Generator":
        for part in list(self.modules()):
            if isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
                weight_norm(part)
        return self

    def forward(self, mel: Float[Tensor, "batch bands frames"]) -> Wave:
        x, count = self.conv_pre(mel), len(self.resblocks) // len(self.upsampler)
        for index, upsample in enumerate(self.upsampler):
            x = upsample(F.leaky_relu(x, SLOPE))
            first, *others = self.resblocks[index * count : (index + 1) * count]
            total = first(x)
            for block in others:
                total = total + block(x)
            x = total / count
        return torch.tanh(self.conv_post(F.leaky_relu(x))).squeeze(1)


class PeriodDiscriminator(nn.Module):
    """Section 2.3: reshapes the wave to (time, period), and convolves along time only."""

    def __init__(
        self, period: int, channels: Sequence[int] = (32, 128, 512, 1024), width: int = 1024
    ) -> None:
        super().__init__()
        self.period = period
        sizes = [1, *channels]
        self.convs = nn.ModuleList(
            [
                weight_norm(nn.Conv2d(i, o, (5, 1), (3, 1), padding=(2, 0)))
                for i, o in itertools.pairwise(sizes)
            ]
        )
        self.convs.append(weight_norm(nn.Conv2d(sizes[-1], width, (5, 1), padding=(2, 0))))
        self.conv_post = weight_norm(nn.Conv2d(width, 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Wave) -> tuple[Float[Tensor, "batch scores"], Features]:
        """Scores per position, and the features of all layers. The wave is padded to whole periods."""
        short = -wave.shape[1] % self.period
        x = F.pad(wave[:, None], (0, short), "reflect").unflatten(2, (-1, self.period))
        features = []
        for convolution in self.convs:
            x = F.leaky_relu(convolution(x), SLOPE)
            features.append(x)
        x = self.conv_post(x)
        return x.flatten(1), [*features, x]


class ScaleDiscriminator(nn.Module):
    """MelGAN's discriminator: grouped convolutions along the wave, with large kernels and strides.

    layers  output channels, kernel size, stride and groups of each layer
    """

    def __init__(
        self,
        layers: Sequence[tuple[int, int, int, int]] = (
            (128, 15, 1, 1),
            (128, 41, 2, 4),
            (256, 41, 2, 16),
            (512, 41, 4, 16),
            (1024, 41, 4, 16),
            (1024, 41, 1, 16),
            (1024, 5, 1, 1),
        ),
        spectral: bool = False,
    ) -> None:
        super().__init__()
        norm = spectral_norm if spectral else weight_norm
        self.convs, inputs = nn.ModuleList(), 1
        for outputs, kernel, stride, groups in layers:
            layer = nn.Conv1d(inputs, outputs, kernel, stride, groups=groups, padding=kernel // 2)
            self.convs.append(norm(layer))
            inputs = outputs
        self.conv_post = norm(nn.Conv1d(inputs, 1, 3, padding=1))

    def forward(self, wave: Wave) -> tuple[Float[Tensor, "batch scores"], Features]:
        x, features = wave[:, None], []
        for convolution in self.convs:
            x = F.leaky_relu(convolution(x), SLOPE)
            features.append(x)
        x = self.conv_post(x)
        return x.flatten(1), [*features, x]


class Periods(nn.Module):
    """Five discriminators whose periods are prime, which minimises the overlap of their samples."""

    def __init__(self, *arguments: Sequence[int] | int, periods: Sequence[int] = (2, 3, 5, 7, 11)) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList([PeriodDiscriminator(p, *arguments) for p in periods])

    def forward(self, wave: Wave) -> Judged:
        return [judge(wave) for judge in self.discriminators]


class Scales(nn.Module):
    """Three discriminators: on the wave (with spectral norm), and on the wave average-pooled by 2 and 4."""

    def __init__(self, *arguments: Sequence[tuple[int, int, int, int]]) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            [ScaleDiscriminator(*arguments, spectral=first) for first in (True, False, False)]
        )

    def forward(self, wave: Wave) -> Judged:
        judged = []
        for index, judge in enumerate(self.discriminators):
            if index:
                wave = F.avg_pool1d(wave[:, None], 4, 2, padding=2).squeeze(1)
            judged.append(judge(wave))
        return judged


def discriminator_loss(real: Judged, fake: Judged) -> Float[Tensor, ""]:
    """Equation 1: least squares, summed over the discriminators."""
    return torch.stack(
        [(1 - r).square().mean() + f.square().mean() for (r, _), (f, _) in zip(real, fake, strict=True)]
    ).sum()


def generator_loss(fake: Judged) -> Float[Tensor, ""]:
    """Equation 2: least squares, summed over the discriminators."""
    return torch.stack([(1 - score).square().mean() for score, _ in fake]).sum()


def feature_loss(real: Judged, fake: Judged) -> Float[Tensor, ""]:
    """Equation 4: mean absolute feature differences, summed over all layers and multiplied by 2."""
    pairs = [pair for (_, r), (_, f) in zip(real, fake, strict=True) for pair in zip(r, f, strict=True)]
    return 2 * torch.stack([(one - other).abs().mean() for one, other in pairs]).sum()
