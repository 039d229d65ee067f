"""Latent diffusion: noise is taken back in an autoencoder's small code, where a text says what to see.

Rombach et al. 2021, "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv 2112.10752; its
guidance is that of Ho and Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv 2207.12598.

The problem. Diffusion makes the best pictures, and spends most of its work on detail that nobody sees: every
one of a thousand steps calculates every pixel. To train such a network took hundreds of GPU days.

The idea. Two stages. An autoencoder, trained once, leaves the detail out: a latent has a sixteenth or a
sixty-fourth of the places, and still looks like a picture, so that the same kind of U-Net can take noise from
it. Let this U-Net look at the words of a text by cross-attention, in every block. And leave the text out now
and then while training: then the noise for the text can be exaggerated against the noise for none.

This folder. `blocks` has residual block, cross-attention and the stages made of them, `unet` and
`autoencoder` the networks under the names of the released weights, with the KL penalty or a codebook;
`model` puts CLIP's text tower before the U-Net, with guidance and the way from noise to picture. `toy` has
the scenes and the judge of `experiment`, which compares latents with pixels for the same compute, and
guidance with none. `weights` gives the released parameters our names.

    readtrack run stable_diffusion --set prompt="a blue four"

Dimensions: batch, channels, height and width of a picture, latent (channels), rows and columns of a latent,
words and context (their width).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .autoencoder import Autoencoder, Codebook, VQAutoencoder
from .benchmark import benchmark
from .experiment import GUIDANCE, LATENTS, experiment
from .model import Diffusion, denoise, guided, scaled_linear_schedule, unguided
from .unet import UNet


@hookimpl
def implementation() -> type[nn.Module]:
    return UNet
