"""Released weights of Stable Diffusion 1 (`CompVis/stable-diffusion-v1-4` and its siblings) under our names.

They are the files for diffusers in the folders `unet`, `vae` and `text_encoder`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..clip.weights import from_released as clip_from_released
from ..ddpm.weights import from_released as attention_renamed

SCALE = 0.18215  # latents are multiplied by it before noise is added, and divided by it before decoding


def from_released(unet: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameters of a `UNet2DConditionModel` and a `CLIPTextModel` to those of `Diffusion`.

    The released model is `Diffusion(TextTower(width=768, heads=12, dim=768), UNet())`. Its tower ends before
    the projection, which `Diffusion` does not use and which is set to the identity.
    """
    # The newest transformers omit the first part of the names.
    named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.items()}
    tower = clip_from_released(named)
    width = tower["text.norm.weight"]
    return {f"unet.{name}": tensor for name, tensor in unet.items()} | {
        "text.projection.weight": torch.eye(len(width)).to(width),
        **tower,
    }


def autoencoder_from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameters of an `AutoencoderKL` (with the old attention names) to those of `Autoencoder`."""
    return attention_renamed(weights)
