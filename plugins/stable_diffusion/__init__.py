"""Latent diffusion: denoising in the small latent space of an autoencoder, conditioned on text.

Rombach et al. 2021, "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv 2112.10752. Its
guidance comes from Ho and Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv 2207.12598.

The problem. Diffusion gives the best images, but spends most of its computation on imperceptible detail,
because each of a thousand steps computes every pixel. Training such a network took hundreds of GPU days.

The idea. There are two stages. An autoencoder, trained once, removes the detail. Its latents have a sixteenth
or a sixty-fourth of the positions and still have the structure of an image, so the same kind of U-Net can
denoise them. Cross-attention in every block of the U-Net attends to the words of a text. In training, the
text is sometimes left out. Guidance then amplifies the difference between the noise predicted with and
without text.

This folder. `blocks` has residual blocks, cross-attention and the stages made of them. `unet` and
`autoencoder` have the networks under the names of the released weights, with a KL penalty or a codebook.
`model` combines CLIP's text tower and the U-Net, with guidance and the denoising loop. `experiment` compares
latents with pixels at equal compute, and `guidance` compares samples with and without guidance. Their scenes
and their judge are in `toy`, and training and sampling in `spaces`. `weights` renames released weights.
`benchmark` times guided predictions, and pictures from the text to the pixels.

    readtrack run stable_diffusion --set prompt="a blue four"

Dimensions: batch, channels, height and width of an image, latent (channels), rows and columns of a latent,
words and context (size of a word vector).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .autoencoder import Autoencoder, Codebook, VQAutoencoder
from .benchmark import benchmark
from .experiment import LATENTS, experiment
from .guidance import GUIDANCE
from .model import Diffusion, denoise, guided, scaled_linear_schedule
from .unet import UNet


@hookimpl
def implementation() -> type[nn.Module]:
    return UNet
