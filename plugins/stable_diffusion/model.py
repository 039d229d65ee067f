"""Noise prediction given a time and a text, guidance, and the denoising loop."""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..clip import TextTower
from ..ddpm import Schedule
from ..ddpm.model import Times, like
from .autoencoder import Latents
from .unet import UNet

Ids = Int[Tensor, "batch words"]
Predict = Callable[[Latents, Times], Latents]
Guide = Callable[[Latents, Latents, float], Latents]


class Diffusion(nn.Module):
    """Section 3.3: the text tower tau_theta and the U-Net epsilon_theta, trained together by equation 3.

    The projected output of the tower is not used. The U-Net attends to the vector of every word. (The
    released Stable Diffusion keeps CLIP's tower frozen and trains only the U-Net.)
    """

    def __init__(self, text: TextTower, unet: UNet) -> None:
        super().__init__()
        self.text, self.unet = text, unet

    def forward(self, z: Latents, t: Times, ids: Ids) -> Latents:
        return self.unet(z, t, self.text.hidden(ids))

    def with_text(self, ids: Ids, empty: Ids, scale: float, guide: Guide) -> Predict:
        """The guided noise as a function of latents and times.

        The texts are encoded once for all steps, and one pass of the U-Net serves both texts.

        empty  the same number of empty texts
        """
        context = self.text.hidden(torch.cat((ids, empty)))

        def predict(z: Latents, t: Times) -> Latents:
            told, untold = self.unet(torch.cat((z, z)), torch.cat((t, t)), context).chunk(2)
            return guide(told, untold, scale)

        return predict


def guided(told: Latents, untold: Latents, scale: float) -> Latents:
    """Classifier-free guidance: a scale of 0 ignores the text, and 1 means no guidance.

    The scale is appendix C's s. Ho and Salimans 2022 (arXiv 2207.12598, equation 6) use w = s - 1.
    """
    return untold + scale * (told - untold)


def scaled_linear_schedule(steps: int = 1000, first: float = 0.00085, last: float = 0.012) -> Schedule:
    """The released Stable Diffusion's schedule, with linear square roots of beta, in float64."""
    return Schedule(torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64).square())


@torch.no_grad()
def denoise(schedule: Schedule, predict: Predict, z: Latents, steps: int, limit: float) -> Latents:
    """Denoise latents in equal DDIM steps, the last of which ends at the data.

    limit  the data that each step predicts are clamped to [-limit, limit]
    """
    times = torch.linspace(len(schedule.beta) - 1, -1, steps + 1).round().long().tolist()
    for now, before in pairwise(times):
        t, then = (torch.full((len(z),), one, device=z.device) for one in (now, before))
        z0 = schedule.predict_x0(z, t, predict(z, t)).clamp(-limit, limit)
        kept = schedule.alpha_bar[t]
        noise = (z - like(kept.sqrt(), z) * z0) / like((1 - kept).sqrt(), z)
        z = schedule.ddim_step(z, t, then, noise)
    return z
