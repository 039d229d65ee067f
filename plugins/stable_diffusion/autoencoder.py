"""The first stage: autoencoders with a small grid of latents. Parameters have the released names."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..ddpm.unet import Attention, Resample
from ..vae import sample
from .blocks import Map, Middle, ResnetBlock, Stage

Images = Float[Tensor, "batch channels height width"]
Latents = Float[Tensor, "batch latent rows columns"]


class Encoder(nn.Module):
    """A convolutional network that halves the side between its stages, with attention in the middle."""

    def __init__(
        self, channels: int, outputs: int, widths: Sequence[int], blocks: int, groups: int, attends: bool
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        last = widths[0]
        for index, width in enumerate(widths):
            resnets = [ResnetBlock(last if one == 0 else width, width, groups) for one in range(blocks)]
            halve = [Resample(width, down=True)] if index + 1 < len(widths) else []
            self.down_blocks.append(Stage(resnets, down=halve))
            last = width
        self.mid_block = middle(last, groups, attends)
        self.conv_norm_out = nn.GroupNorm(groups, last, eps=1e-6)
        self.conv_out = nn.Conv2d(last, outputs, 3, padding=1)

    def forward(self, x: Images) -> Float[Tensor, "batch _ rows columns"]:
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)[-1]
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """A decoder with one more block per stage than the encoder, and nearest-neighbour upsampling."""

    def __init__(
        self, latent: int, channels: int, widths: Sequence[int], blocks: int, groups: int, attends: bool
    ) -> None:
        super().__init__()
        last = widths[-1]
        self.conv_in = nn.Conv2d(latent, last, 3, padding=1)
        self.mid_block = middle(last, groups, attends)
        self.up_blocks = nn.ModuleList()
        for index, width in reversed(list(enumerate(widths))):
            resnets = [ResnetBlock(last if one == 0 else width, width, groups) for one in range(blocks + 1)]
            self.up_blocks.append(Stage(resnets, up=[Resample(width, down=False)] if index else []))
            last = width
        self.conv_norm_out = nn.GroupNorm(groups, last, eps=1e-6)
        self.conv_out = nn.Conv2d(last, channels, 3, padding=1)

    def forward(self, z: Latents) -> Map:
        x = self.mid_block(self.conv_in(z))
        for stage in self.up_blocks:
            x = stage(x)[-1]
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def middle(width: int, groups: int, attends: bool) -> Middle:
    attentions = [Attention(width, groups)] if attends else []
    return Middle([ResnetBlock(width, width, groups) for _ in range(2)], attentions)


class Autoencoder(nn.Module):
    """Section 3.1 with a KL penalty: mean and variance of a latent for each f x f pixels, and a decoder.

    The defaults are those of the released Stable Diffusion, f = 8, with 83.7 million parameters. The sides of
    an image must be multiples of f = 2 ** (stages - 1).

    The released model multiplies latents by 0.18215 before noise is added, so that their variance is about 1.
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 4,
        widths: Sequence[int] = (128, 256, 512, 512),
        blocks: int = 2,
        groups: int = 32,
        attends: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(channels, 2 * latent, widths, blocks, groups, attends)
        self.decoder = Decoder(latent, channels, widths, blocks, groups, attends)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1)
        self.post_quant_conv = nn.Conv2d(latent, latent, 1)

    def encode(self, x: Images) -> tuple[Latents, Latents]:
        """The mean and the logarithm of the variance."""
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, z: Latents) -> Images:
        return self.decoder(self.post_quant_conv(z))

    def forward(self, x: Images, noise: Latents) -> tuple[Images, Latents, Latents]:
        """The reconstruction from a sampled latent, and the latent's mean and log-variance."""
        mean, log_variance = self.encode(x)
        return self.decode(drawn(mean, log_variance, noise)), mean, log_variance


def drawn(mean: Latents, log_variance: Latents, noise: Latents) -> Latents:
    """The variational autoencoder's sample, for a grid of latents."""
    return sample(mean.flatten(1), log_variance.flatten(1), noise.flatten(1)).view_as(mean)


class Codebook(nn.Module):
    """The other regularisation of section 3.1: a latent is replaced with the nearest of `codes` vectors.

    From van den Oord et al. 2017, arXiv 1711.00937.
    """

    def __init__(self, codes: int, latent: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, latent)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def nearest(self, z: Latents) -> Int[Tensor, "batch rows columns"]:
        return (
            torch.cdist(z.permute(0, 2, 3, 1).flatten(0, 2), self.embedding.weight)
            .argmin(1)
            .view(len(z), *z.shape[2:])
        )

    def forward(self, z: Latents, commitment: float = 0.25) -> tuple[Latents, Float[Tensor, ""]]:
        """The nearest vectors, with a straight-through gradient to `z`, and the loss.

        The loss pulls the vectors towards the latents and, times `commitment`, the latents towards the
        vectors.
        """
        found = self.embedding(self.nearest(z)).permute(0, 3, 1, 2)
        loss = F.mse_loss(found, z.detach()) + commitment * F.mse_loss(z, found.detach())
        return z + (found - z).detach(), loss


class VQAutoencoder(nn.Module):
    """Section 3.1 with a codebook, which is part of the decoder: noise is added before quantisation.

    The defaults are those of LDM-4's released autoencoder: f = 4 and 8192 codes of size 3.
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 3,
        widths: Sequence[int] = (128, 256, 512),
        blocks: int = 2,
        groups: int = 32,
        attends: bool = True,
        codes: int = 8192,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(channels, latent, widths, blocks, groups, attends)
        self.decoder = Decoder(latent, channels, widths, blocks, groups, attends)
        self.quant_conv = nn.Conv2d(latent, latent, 1)
        self.quantize = Codebook(codes, latent)
        self.post_quant_conv = nn.Conv2d(latent, latent, 1)

    def encode(self, x: Images) -> Latents:
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Latents) -> Images:
        return self.decoder(self.post_quant_conv(self.quantize(z)[0]))

    def forward(self, x: Images) -> tuple[Images, Float[Tensor, ""]]:
        """The reconstruction from the quantised latents, and the codebook's loss."""
        rounded, loss = self.quantize(self.encode(x))
        return self.decoder(self.post_quant_conv(rounded)), loss
